"""Intervals, tests and marks against scipy, hand cases and planted effects."""

import numpy as np
import pytest
from scipy import stats

from research.report.statistics import compare, compare_all, holm, interquartile_mean, interval


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
    found = interval(numbers, "bootstrap")
    expected = stats.bootstrap((numbers,), np.mean, method="percentile", rng=1).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=0.03)
    assert found == interval(numbers, "bootstrap")


def test_intervals_hold_the_mean_as_often_as_they_say():
    drawn = np.random.default_rng(1).normal(size=(2000, 5))
    held = np.mean([low <= 0 <= high for low, high in map(interval, drawn)])
    assert held == pytest.approx(0.95, abs=0.015)
    narrow = np.mean([low <= 0 <= high for low, high in (interval(row, "bootstrap") for row in drawn[:500])])
    assert narrow == pytest.approx(0.84, abs=0.05)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([5.0], 5), ([1, 2, 9], 4), ([100, 1, 2, -50], 1.5), ([0, 1, 2, 3, 4, 5, 6, 700], 3.5)],
)
def test_interquartile_mean(numbers, expected):
    assert interquartile_mean(numbers) == expected == stats.trim_mean(numbers, 0.25)


def test_below_six_pairs_a_paired_t_test():
    one, other = [1.0, 2.0, 4.0, 3.5], [2.5, 2.25, 4.5, 5.0]
    found = compare(seeds(one), seeds(other))
    assert (found.test, found.n) == ("paired t", 4)
    assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-12)
    # by hand: differences -1.5 -.25 -.5 -1.5, mean -.9375, s .6575, t = -2.852
    assert found.p == pytest.approx(2 * stats.t.sf(0.9375 / (0.65749 / 2), 3), rel=1e-4)


def test_from_six_pairs_wilcoxons_test():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 9))
    found = compare(seeds(one), seeds(other))
    assert (found.test, found.n) == ("Wilcoxon", 9)
    assert found.p == pytest.approx(stats.wilcoxon(one, other).pvalue, rel=1e-12)
    assert compare(seeds(range(6)), seeds(np.arange(6) + np.arange(6) * 0.1 + 0.1)).p == 2 / 2**6  # all of one sign


def test_pairs_are_those_of_equal_seeds():
    one, other = seeds([1.0, 2.0, 4.0]), dict(reversed(seeds([1.5, 2.25, 4.5]).items()))
    assert compare(one, other).p == pytest.approx(stats.ttest_rel([1.0, 2.0, 4.0], [1.5, 2.25, 4.5]).pvalue)
    extra = {**other, 7: 100.0}
    assert compare(one, extra) == compare(one, other)


def test_rows_of_other_seeds_are_tested_unpaired():
    random = np.random.default_rng(3)
    few, many = random.normal(size=4), random.normal(size=8)
    other = {seed + 100: value for seed, value in enumerate(random.normal(size=7))}
    found = compare(seeds(few), other)
    assert (found.test, found.n) == ("Welch t", 4)
    assert found.p == pytest.approx(stats.ttest_ind(few, list(other.values()), equal_var=False).pvalue)
    found = compare(seeds(many), other)
    assert (found.test, found.n) == ("Mann-Whitney", 7)
    assert found.p == pytest.approx(stats.mannwhitneyu(many, list(other.values())).pvalue)


def test_constant_rows_and_too_few_numbers():
    assert compare(seeds([1.0, 1.0, 1.0]), seeds([1.0, 1.0, 1.0])).p == 1
    assert compare(seeds([1.0, 1.0, 1.0]), seeds([2.0, 2.0, 2.0])).p == 0
    assert compare(seeds([1.0, 1.0, 1.0]), {9: 2.0, 8: 2.0, 7: 2.0}).p == 0
    assert compare(seeds([1.0, 2.0]), seeds([1.0, 2.0])) is None
    assert compare(seeds([1.0, 2.0, np.inf]), seeds([1.0, 2.0, 3.0])) is None


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.5]) == [0.5]
    assert holm([]) == []


@pytest.mark.parametrize("count", [4, 9])
def test_many_rows_are_tested_as_each_alone(count):
    random = np.random.default_rng(0)
    one, *others = [seeds(row) for row in random.normal(size=(30, count))]
    others[3] = dict(one)  # no difference
    others[5] = {seed: value + 1 for seed, value in one.items()}  # ties
    others[7] = dict(list(others[7].items())[:3])
    others[9] = {seed + 100: value for seed, value in others[9].items()}
    others[11] = dict(list(others[11].items())[:2])
    assert compare_all(one, others) == [compare(one, other) for other in others]
    assert compare_all(one, others)[11] is None or count > 2


@pytest.mark.parametrize("count", [6, 8, 10])
def test_ties_and_zeros_have_an_exact_p_value(count):
    random = np.random.default_rng(count)
    for _ in range(5):
        difference = random.integers(-3, 4, count).astype(float)
        if difference.any():
            found = compare(seeds(difference), seeds(np.zeros(count)))
            assert found.p == pytest.approx(float(stats.wilcoxon(difference).pvalue), rel=1e-9)
    # by hand: five pairs of ranks 3 3 3 3 3 and a zero, all of one sign
    assert compare(seeds([0, 1, 1, 1, 1, 1]), seeds([0] * 6)).p == 2 / 2**5
