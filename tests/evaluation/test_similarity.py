"""Similarities of codes against closed forms: what they do not see, their level of chance, the jackknife over seeds."""

import math

import numpy as np
import pytest
from scipy.stats import ortho_group

from research.evaluation.similarity import (
    IncomparableError,
    between,
    jackknifed,
    linear_cka,
    mean_cca,
    mean_of_pairs,
    prepared,
)

RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(200, 4)) * [1.0, 0.8, 0.6, 0.5]


def similarity(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Linear CKA and mean CCA."""
    first, second = prepared(x), prepared(y)
    return linear_cka(first, second), mean_cca(first, second)


def test_rotated_shifted_and_scaled_codes_are_the_same_codes():
    turned = 3 * CODES @ ortho_group.rvs(4, random_state=0) + [1, -2, 0, 5]
    assert similarity(CODES, turned) == (pytest.approx(1), pytest.approx(1))
    assert similarity(CODES, -CODES[:, ::-1]) == (pytest.approx(1), pytest.approx(1))  # order and signs of dimensions


def test_canonical_correlations_see_no_invertible_map_and_cka_does():
    cka, cca = similarity(CODES, CODES @ np.array([[1, 0, 0, 0], [2, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0.5]]))
    assert cca == pytest.approx(1)
    assert cka < 0.9


def test_one_order_of_the_rows_is_as_good_as_another():
    other, order = CODES + RNG.normal(size=CODES.shape), RNG.permutation(200)
    assert similarity(CODES[order], other[order]) == pytest.approx(similarity(CODES, other))
    assert similarity(other, CODES) == pytest.approx(similarity(CODES, other))
    assert similarity(CODES, other[order])[0] < 0.5 * similarity(CODES, other)[0]


def test_values_are_those_of_the_definitions():
    x, y = CODES[:, :1], CODES[:, :1] + RNG.normal(size=(200, 1))
    r = float(np.corrcoef(x[:, 0], y[:, 0])[0, 1])
    assert similarity(x, y) == (pytest.approx(r**2), pytest.approx(abs(r)))  # of one dimension
    y = CODES @ RNG.normal(size=(4, 3)) + RNG.normal(size=(200, 3))
    both = np.cov(np.hstack([CODES, y]).T)
    xx, xy, yy = both[:4, :4], both[:4, 4:], both[4:, 4:]
    squares = np.linalg.eigvals(np.linalg.solve(xx, xy) @ np.linalg.solve(yy, xy.T)).real  # Hotelling 1936
    cka, cca = similarity(CODES, y)
    assert cca == pytest.approx(np.sqrt(np.sort(squares)[1:]).mean())
    k, m, h = CODES @ CODES.T, y @ y.T, np.eye(200) - 1 / 200  # Kornblith et al. 2019, eq. 3 and 4
    hsic = lambda a, b: np.trace(a @ h @ b @ h)
    assert cka == pytest.approx(hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)))


def test_unrelated_codes_have_the_level_of_chance():
    rows, draws = 50, 300
    lines = [similarity(RNG.normal(size=(rows, 1)), RNG.normal(size=(rows, 1)))[1] for _ in range(draws)]
    expected = math.gamma((rows - 1) / 2) / (math.sqrt(math.pi) * math.gamma(rows / 2))  # E |r| of normal numbers
    assert np.mean(lines) == pytest.approx(expected, abs=4 * np.std(lines) / math.sqrt(draws))
    codes = [prepared(RNG.exponential(size=(rows, size))) for size in 5 * (3, 8, 5)]  # not normal
    measured = between(linear_cka, codes, permuted=True)
    share = lambda code: np.linalg.norm(code.centred) ** 2 / np.linalg.norm(code.centred.T @ code.centred)
    chance = np.outer(list(map(share, codes)), list(map(share, codes))) / (rows - 1)
    pairs = np.triu_indices(len(codes), 1)
    assert measured[pairs].mean() == pytest.approx(chance[pairs].mean(), rel=0.1)
    squares = lambda x, y: float(np.linalg.norm(x.basis.T @ y.basis) ** 2 / min(x.basis.shape[1], y.basis.shape[1]))
    measured = between(squares, [prepared(RNG.normal(size=(rows, 8))) for _ in range(20)], permuted=True)
    assert mean_of_pairs(measured) == pytest.approx(8 / (rows - 1), rel=0.05)
    assert between(mean_cca, [prepared(CODES)] * 2, permuted=True)[0, 1] < 0.3  # 1 with the rows in their order


def test_many_directions_of_few_rows_are_similar_by_chance():
    wide = [prepared(RNG.normal(size=(100, 40))) for _ in range(3)]
    assert mean_of_pairs(between(mean_cca, wide, permuted=True)) > 0.5


def test_directions_that_hardly_vary_are_left_out():
    noise = lambda: RNG.normal(size=(200, 2))
    first, second = (np.hstack([CODES, 0.01 * noise(), np.ones((200, 1))]) for _ in range(2))
    assert prepared(first).basis.shape == (200, 4)
    assert similarity(first, second) == (pytest.approx(1, abs=0.01), pytest.approx(1, abs=0.01))
    used = [np.hstack([CODES, noise()]) for _ in range(2)]
    assert similarity(*used)[1] < 0.8


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (np.ones((9, 2), np.float32), "equal for all rows"),
        (np.zeros((9, 2)), "equal for all rows"),
        (np.full((9, 2), 0.1, np.float32) + np.float32(1e-9) * np.arange(9)[:, None], "equal for all rows"),
        (np.array([[0.0], [np.nan]]), "not finite"),
        (np.zeros((9, 2, 2)), "no vectors"),
    ],
)
def test_codes_without_a_similarity_are_refused(codes, reason):
    with pytest.raises(IncomparableError, match=reason):
        prepared(codes)


def test_too_few_rows_for_canonical_correlations_are_refused():
    few = [prepared(RNG.normal(size=(8, 4))) for _ in range(2)]
    with pytest.raises(IncomparableError, match="8 rows are too few for 8 directions"):
        mean_cca(*few)
    assert 0 < linear_cka(*few) < 1


def test_the_spread_over_pairs_is_the_jackknife_over_seeds():
    size = 6
    table = between(linear_cka, [prepared(CODES + RNG.normal(size=CODES.shape)) for _ in range(size)])
    np.testing.assert_array_equal(table, table.T)
    numbers = jackknifed(table)
    assert numbers.mean() == pytest.approx(mean_of_pairs(table))
    without = np.array([mean_of_pairs(np.delete(np.delete(table, at, 0), at, 1)) for at in range(size)])
    error = math.sqrt((size - 1) / size * np.square(without - without.mean()).sum())
    assert numbers.std(ddof=1) / math.sqrt(size) == pytest.approx(error)
    with pytest.raises(IncomparableError, match="2 finished seeds, and a spread over pairs needs 3"):
        jackknifed(table[:2, :2])
