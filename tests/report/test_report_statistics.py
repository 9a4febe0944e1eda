"""Intervals, tests and marks against scipy, hand cases and planted effects."""

import numpy as np
import pytest
from scipy import stats

from research.report.statistics import LEVEL, compare, compare_all, holm, interquartile_mean, interval, mean_of


def seeds(numbers):
    return dict(enumerate(map(float, numbers)))


def test_t_interval_is_scipys():
    numbers = [3.0, 4.5, 9.25, 1.0]
    expected = stats.t.interval(0.95, 3, loc=np.mean(numbers), scale=stats.sem(numbers))
    assert interval(numbers) == pytest.approx(expected, rel=1e-12)
    assert interval([1.0]) is None
    assert interval([1.0, 1.0]) == (1.0, 1.0)
    assert interval([1e300, -1e300]) is None  # its square is no number


def test_bootstrap_interval_is_scipys_percentile_one():
    numbers = np.random.default_rng(0).normal(size=12)
    result = interval(numbers, "bootstrap")
    expected = stats.bootstrap((numbers,), np.mean, method="percentile", rng=1).confidence_interval
    assert result == pytest.approx(tuple(expected), abs=0.03)
    assert result == interval(numbers, "bootstrap")


def test_intervals_hold_the_mean_as_often_as_they_say():
    drawn = np.random.default_rng(1).normal(size=(2000, 5))
    share = np.mean([low <= 0 <= high for low, high in map(interval, drawn)])
    assert share == pytest.approx(0.95, abs=0.015)
    narrow = np.mean([low <= 0 <= high for low, high in (interval(row, "bootstrap") for row in drawn[:200])])
    assert narrow == pytest.approx(0.84, abs=0.05)


def test_a_mean_is_rounded_once_and_knows_no_order():
    assert mean_of([0.1] * 3) == 0.1 != np.mean([0.1] * 3)
    assert mean_of([0.1, 0.2, 0.3]) == mean_of([0.3, 0.2, 0.1])
    assert mean_of([1e308, 1e308]) == 1e308


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([5.0], 5), ([1, 2, 9], 4), ([100, 1, 2, -50], 1.5), ([0, 1, 2, 3, 4, 5, 6, 700], 3.5)],
)
def test_interquartile_mean(numbers, expected):
    assert interquartile_mean(numbers) == expected == stats.trim_mean(numbers, 0.25)


def worse(table, direction="lower"):
    """Which rows [R, n] are left out: numbers of the rows, and the p of each beside the best."""
    order = np.argsort(np.mean(table, 1) * (1 if direction == "lower" else -1), kind="stable")
    results = compare_all(seeds(table[order[0]]), [seeds(table[at]) for at in order[1:]], direction)
    p_values = {int(at): result.p for at, result in zip(order[1:], results, strict=True) if result is not None}
    return [at for at, p in sorted(p_values.items()) if p < LEVEL], p_values


def test_p_is_that_of_the_paired_t_where_it_is_the_larger():
    one, other = (
        [1.0, 2.0, 4.0, 3.5, 2.0, 5.0],
        [2.5, 2.25, 4.5, 5.0, 3.25, 9.5],
    )  # all differences have one sign: 2 of 64 choices are as large
    test = compare(seeds(one), seeds(other))
    assert test.n == 6
    assert test.p == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-9) == compare(seeds(other), seeds(one)).p


@pytest.mark.parametrize("count", [6, 8, 10])
def test_p_is_that_of_the_signs_where_it_is_the_larger(count):
    """All differences of one sign: one of the 2^n choices of signs, and its opposite."""
    steps = 1 + np.arange(count) / 100
    assert compare(seeds(np.zeros(count)), seeds(steps)).p == 2 / 2**count
    steps[0] *= -1  # with one sign changed, there is 1 larger choice, and n that are about as large
    t = stats.ttest_1samp(steps, 0).pvalue
    exact = stats.permutation_test((steps,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert compare(seeds(np.zeros(count)), seeds(steps)).p == pytest.approx(max(t, exact), rel=1e-9)


def test_two_rows_of_five_seeds_are_permuted_whatever_the_seed():
    low, high = [1.0, 1.2, 1.1, 1.05, 1.15], [2.0, 2.1, 2.3, 2.2, 2.4]
    assert compare(seeds(low), seeds(high)).p == 2 / 252  # of 10 over 5 choices this one, and its opposite


def test_pairs_are_those_of_equal_seeds():
    one, other = seeds([1.0, 2.0, 4.0, 1.0, 3.0, 2.5]), seeds([1.5, 2.25, 3.5, 2.0, 3.75, 2.0])
    assert compare(one, dict(reversed(other.items()))) == compare(one, other)
    assert compare(one, {**other, 7: 100.0}) == compare(one, other)
    assert compare(one, {seed + 3: value for seed, value in other.items()}) is None  # three in common


@pytest.mark.parametrize("count", [5, 6, 10])
@pytest.mark.parametrize("rows", [2, 4])
def test_differences_without_variance_have_no_p_of_zero(count, rows):
    equal = np.tile([[1.0]], (rows, count))
    assert set(worse(equal)[1].values()) == {1.0}
    shifted = equal + np.arange(rows)[:, None] * 0.1  # every difference is the same, up to rounding
    assert all(0 < p < LEVEL for p in worse(shifted)[1].values())
    two = equal.copy()
    two[-1, : count // 2] = 2.0  # differences of two values: 0 and 1
    p = worse(two)[1][rows - 1]  # of more rows than two all the larger numbers stand in one of them
    assert p > (LEVEL if rows == 2 else 0.01)


def test_no_test_of_fewer_than_five_seeds_or_of_infinite_numbers():
    assert compare(seeds([1.0, 1.0, 1.0, 1.0]), seeds([2.0, 2.0, 2.0, 2.0])) is None
    assert compare(seeds([1.0, 2.0, np.inf, 1.0, 2.0]), seeds([1.0, 2.0, 3.0, 1.0, 2.0])) is None
    huge = [1e300, -1e300, 1e300, 1e300, 2e299]
    assert 0 < compare(seeds(huge), seeds(np.negative(huge))).p <= 1


def test_the_direction_says_which_row_is_the_worse_one():
    table = np.array([[1.0, 1.1, 1.2, 1.3, 1.25, 1.0], [2.0, 2.1, 2.3, 2.3, 2.2, 2.0]])
    assert worse(table) == ([1], {1: 2 / 2**6})
    assert worse(table, "higher") == ([0], {0: 2 / 2**6})


def test_a_row_with_an_outlier_neither_hides_the_others_nor_is_left_out():
    random = np.random.default_rng(0)
    table = np.array([[0.08], [0.096], [0.16], [0.1]]) + 0.003 * random.normal(size=(4, 6))
    table[3, 0] = 9.0
    assert worse(table)[0] == [1, 2]


def test_a_row_that_varies_more_than_the_others_is_not_left_out_for_it():
    random = np.random.default_rng(0)
    scales = np.array([10.0, 1, 1, 1, 1])[:, None]
    result = [bool(worse(random.normal(size=(5, 10)) * scales)[0]) for _ in range(100)]
    assert sum(result) <= stats.binom.ppf(0.999, 100, LEVEL)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.5]) == [0.5]
    assert holm([]) == []


METRICS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "two values": lambda random, shape: random.integers(0, 2, shape).astype(float),
    "seldom 0": lambda random, shape: (random.random(shape) < 0.9).astype(float),
    "two values with jitter": lambda random, shape: random.integers(0, 2, shape) + 1e-4 * random.normal(size=shape),
    "ten values": lambda random, shape: random.integers(0, 10, shape) / 10,
    "skewed": lambda random, shape: np.exp(2 * random.normal(size=shape)),
    "shared by seeds": lambda random, shape: random.normal(size=shape) + 3 * random.normal(size=shape[1]),
}


def left_out(metric, rows, count, tables):
    """Share of tables without any effect in which a test leaves a row out."""
    random = np.random.default_rng([rows, count])
    return np.mean([bool(worse(METRICS[metric](random, (rows, count)))[0]) for _ in range(tables)])


@pytest.mark.parametrize(
    ("metric", "rows", "count"),
    [
        *(("normal", 2, 5), ("normal", 10, 5), ("normal", 10, 3)),
        *(("two values", 2, 10), ("two values", 10, 5), ("two values with jitter", 10, 5)),
    ],
)
def test_a_row_is_wrongly_left_out_in_at_most_one_table_of_twenty(metric, rows, count):
    """Three seeds are too few for a test; the whole grid is drawn by the slow test below."""
    share = left_out(metric, rows, count, 120)
    assert share <= stats.binom.ppf(0.999, 120, LEVEL) / 120
    assert share == 0 or count >= 5


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_rates_of_rows_wrongly_left_out(metric):
    """The whole grid, 1,000 tables each; `pytest -m slow -s` prints the rates in percent."""
    shares = {(rows, count): left_out(metric, rows, count, 1000) for count in (3, 5, 10) for rows in range(2, 11, 2)}
    print(metric, {place: round(100 * float(share), 1) for place, share in shares.items()})
    assert max(shares.values()) <= stats.binom.ppf(1 - 1e-4, 1000, LEVEL) / 1000
