"""What a table says about numbers: centers, intervals, and tests of whether one row is worse than another."""

import dataclasses
import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

LEVEL = 0.05  # error rate of intervals and tests
SMALLEST = 3  # numbers in a test; fewer say nothing
RANKS_FROM = 6  # numbers from which a test uses ranks: with five, no two-sided signed-rank test falls below .0625
EXACT_TO = 50  # pairs for which signs are counted one by one; scipy takes the normal distribution from there
RESAMPLES = 9999

Numbers = Sequence[float]
IntervalKind = Literal["t", "bootstrap"]


def interquartile_mean(numbers: Numbers) -> float:
    """The mean without the lowest and the highest quarter, each of floor(n / 4) numbers (Agarwal et al. 2021)."""
    cut = len(numbers) // 4
    return float(np.mean(np.sort(numbers)[cut : len(numbers) - cut]))


def interval(numbers: Numbers, kind: IntervalKind = "t") -> tuple[float, float] | None:
    """95 % interval of the mean; None for fewer than two numbers, or where they are too large to be squared.

    "t" is mean ± t(.975, n - 1) s / sqrt(n), right for numbers that are normal. "bootstrap" is the percentile interval
    of 9,999 resamples with a fixed seed; it is too narrow for few numbers: it holds the mean of normal ones in about
    75 % of cases at n = 3, 84 % at n = 5, 90 % at n = 10.
    """
    count = len(numbers)
    if count < 2:
        return None
    values = np.asarray(numbers, np.float64)
    if kind == "bootstrap":
        drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
        with np.errstate(over="ignore"):
            low, high = np.quantile(values[drawn].mean(1), [LEVEL / 2, 1 - LEVEL / 2])
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            half = _quantile(count - 1) * values.std(ddof=1) / math.sqrt(count)
            low, high = values.mean() - half, values.mean() + half
    return (float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


@functools.cache
def _quantile(freedom: int) -> float:
    """t(.975) with so many degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(1 - LEVEL / 2, freedom))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A two-sided test of whether two rows differ: `p`, its name, and how many pairs (or numbers) it saw.

    `sign` is 1 where by this test the first row is the larger one, -1 where it is the smaller: means over other seeds,
    or means where the test looks at ranks, may say the opposite.
    """

    p: float
    test: str
    n: int
    sign: int


def compare(one: Mapping[Hashable, float], other: Mapping[Hashable, float]) -> Comparison | None:
    """Test two rows (see `compare_all`)."""
    (found,) = compare_all(one, [other])
    return found


def compare_all(one: Mapping[Hashable, float], others: Sequence[Mapping[Hashable, float]]) -> list[Comparison | None]:
    """Test a row against each of the others, all given as unit (seed) -> number; None where a test would say nothing.

    Units that both rows have are paired: a t test of the differences below six pairs, Wilcoxon's signed-rank test
    (exact up to 50 pairs) from six. Rows with fewer than three units in common are tested unpaired:
    Welch's t test below six numbers in the smaller row, Mann and Whitney's test from six.
    """
    found: list[Comparison | None] = []
    plain: dict[int, list[tuple[int, np.ndarray]]] = {}  # number of pairs -> (place, differences) for one call of scipy
    for place, other in enumerate(others):
        common = [unit for unit in one if unit in other]
        if len(common) < SMALLEST:
            found.append(_unpaired(list(one.values()), list(other.values())))
            continue
        difference = np.asarray([one[unit] - other[unit] for unit in common], np.float64)
        found.append(_special(difference))
        if found[-1] is None and np.isfinite(difference).all():
            plain.setdefault(len(common), []).append((place, difference))
    for count, rows in plain.items():
        for (place, differences), p in zip(rows, _paired(np.stack([row for _, row in rows])), strict=True):
            found[place] = Comparison(float(p), _paired_test(count), count, _sign(differences))
    return found


def _paired_test(pairs: int) -> str:
    return "paired t" if pairs < RANKS_FROM else "Wilcoxon"


def _sign(difference: np.ndarray) -> int:
    """Whether differences are positive or negative on the whole, as their paired test sees it."""
    from scipy.stats import rankdata

    if len(difference) < RANKS_FROM:
        return int(np.sign(difference.mean()))
    left = difference[difference != 0]
    return int(np.sign(np.sum(np.sign(left) * rankdata(np.abs(left)))))


def _special(difference: np.ndarray) -> Comparison | None:
    """The tests of differences that are all equal, or have ties or zeros, one by one; None for all others."""
    from scipy import stats

    count = len(difference)
    if not np.isfinite(difference).all():
        return None
    if not difference.any():
        return Comparison(1.0, _paired_test(count), count, 0)
    if count < RANKS_FROM:
        if np.ptp(difference) <= 1e-12 * np.abs(difference).max():  # t is infinite: all differ by the same
            return Comparison(0.0, _paired_test(count), count, _sign(difference))
    elif len(set(sizes := np.abs(difference).tolist())) < count or 0.0 in sizes:  # one such row sways a whole batch
        p = _signed_rank(difference) if count <= EXACT_TO else float(stats.wilcoxon(difference).pvalue)  # pyright: ignore
        return Comparison(p, _paired_test(count), count, _sign(difference))
    return None


def _signed_rank(difference: np.ndarray) -> float:
    """Exact P value of Wilcoxon's signed-rank test with ties; zeros are left out (scipy tries all 2^n signs for it).

    How many choices of signs give each sum of positive ranks, counted in halves, is the product of (1 + x^rank).
    """
    from scipy.stats import rankdata

    left = difference[difference != 0]
    ranks = np.rint(2 * rankdata(np.abs(left))).astype(int)
    counts = np.ones(1)
    for rank in ranks:
        counts = np.concatenate([counts, np.zeros(rank)]) + np.concatenate([np.zeros(rank), counts])
    seen = int(ranks[left > 0].sum())
    return float(min(1.0, 2 * min(counts[: seen + 1].sum(), counts[seen:].sum()) / counts.sum()))


def _paired(differences: np.ndarray) -> np.ndarray:
    """P values of rows of differences, [R, n]; one call, since each costs a millisecond."""
    from scipy import stats

    if differences.shape[1] < RANKS_FROM:
        return np.asarray(stats.ttest_1samp(differences, 0.0, axis=1).pvalue)  # pyright: ignore
    return np.asarray(stats.wilcoxon(differences, axis=1).pvalue)  # pyright: ignore


def _unpaired(first: Numbers, second: Numbers) -> Comparison | None:
    from scipy import stats

    count = min(len(first), len(second))
    if count < SMALLEST or not np.isfinite([*first, *second]).all():
        return None
    if count >= RANKS_FROM:
        ranks = stats.mannwhitneyu(first, second)
        sign = int(np.sign(ranks.statistic - len(first) * len(second) / 2))
        return Comparison(float(ranks.pvalue), "Mann-Whitney", count, sign)
    sign = int(np.sign(np.mean(first) - np.mean(second)))
    if np.ptp(first) == np.ptp(second) == 0:
        return Comparison(float(first[0] == second[0]), "Welch t", count, sign)
    p = float(stats.ttest_ind(first, second, equal_var=False).pvalue)  # pyright: ignore
    return Comparison(p, "Welch t", count, sign)


def holm(p_values: Numbers) -> list[float]:
    """P values corrected for their number (Holm 1979): max over i <= j of (m - i) p_(i) from i = 0, at most 1."""
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for index, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - index) * p_values[place]))
        corrected[place] = largest
    return corrected
