"""The statistics of a table: centres, intervals, and tests of whether one row is worse than another."""

import dataclasses
import functools
import itertools
import math
import statistics
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

LEVEL = 0.05  # error rate of intervals and tests
SMALLEST = 5  # seeds of a test: with four, two rows have only 16 orders within the seeds and 70 without regard to them
EXACT_TO = 12  # the most seeds for which all orders of two rows are tried
DRAWS, LEAST_DRAWS = 999, 199  # orders that are drawn where there are too many to try all
AT_ONCE = 2_000_000  # numbers in memory: large tables get fewer draws
SAME = 1e-9  # numbers with a smaller relative difference are equal
EQUAL = 1e-6  # relative difference of values that count as equal: each run computes its baselines in single precision
ROUNDING = 1e-15  # rounding error of a difference, relative to its terms
RESAMPLES = 9999  # of the bootstrap

Numbers = Sequence[float]
IntervalKind = Literal["t", "bootstrap"]


def mean_of(numbers: Numbers) -> float:
    """The exact mean, rounded once: the mean of equal numbers is that number, and their order does not matter."""
    return float(statistics.mean(map(float, numbers)))


def interquartile_mean(numbers: Numbers) -> float:
    """The mean without the lowest and the highest quarter, each of floor(n / 4) numbers (Agarwal et al. 2021)."""
    cut = len(numbers) // 4
    return float(np.mean(np.sort(numbers)[cut : len(numbers) - cut]))


def interval(numbers: Numbers, kind: IntervalKind = "t") -> tuple[float, float] | None:
    """95 % interval of the mean; None for fewer than two numbers, or for numbers too large to be squared.

    "t" is mean ± t(.975, n - 1) s / sqrt(n), which is exact for normal numbers. "bootstrap" is the percentile interval
    of 9,999 resamples with a fixed seed. It is too narrow for few numbers: for normal numbers it covers the mean in
    about 75 % of cases at n = 3, 84 % at n = 5, and 90 % at n = 10.
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
    """The .975 quantile of the t distribution with `freedom` degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(1 - LEVEL / 2, freedom))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of a test of whether one row is worse than another: its `p`, and its number of seeds `n`."""

    p: float
    n: int


def compare(first: Mapping[Hashable, float], second: Mapping[Hashable, float]) -> Comparison | None:
    """Test two rows (seed -> number) for a difference of any sign, as `compare_all` does."""
    common = [seed for seed in first if seed in second]
    if sum(first[seed] for seed in common) > sum(second[seed] for seed in common):
        first, second = second, first
    (comparison,) = compare_all(first, [second], "lower")
    return comparison


def compare_all(
    best: Mapping[Hashable, float], others: Sequence[Mapping[Hashable, float]], direction: Literal["lower", "higher"]
) -> list[Comparison | None]:
    """Test which rows (seed -> number) are worse than `best`, the row with the best mean of all.

    A row counts as worse only if two tests say so, each at the seeds that all rows have. `p` is the larger p of:

    * A paired t test against the best row, with Holm's correction for the number of rows. It is valid for rows that
      vary unequally, but not for metrics of few values: three equal differences have no variance and a p of 0.
    * A permutation test of all rows. If there is no effect, the numbers of one seed may stand in the rows in any order.
      Orders are drawn for every seed anew, and p is the share of orders in which some row has a t against the best row
      of that order that is as large as the t of the tested row. This is valid for every metric, and it allows for the
      best row having been picked because it is the best. Rows that are found worse are removed, and the remaining rows
      are tested again.

    Returns:
      A comparison for each of `others`. All are None, and no test is made, if the rows have fewer than five seeds in
      common or a number is not finite.
    """
    rows = [best, *others]
    common = [seed for seed in best if all(seed in row for row in others)]
    table = np.asarray([[row[seed] for seed in common] for row in rows], np.float64)
    if len(common) < SMALLEST or not np.isfinite(table).all():
        return [None] * len(others)
    table /= np.abs(table).max() or 1.0  # squares must not overflow
    if direction == "higher":
        table = -table
    p_values = np.maximum(_paired_t(table), _permuted(table))
    return [Comparison(float(p), len(common)) for p in p_values]


def _paired_t(table: np.ndarray) -> np.ndarray:
    """Holm's p of all rows [R, n] but the first, each against the first; 1 for rows that are not worse."""
    from scipy.stats import t

    scores = _t_scores(table[1:] - table[:1], _rounding(table[1:], table[:1]))
    return np.asarray(holm(np.where(scores > 0, 2 * t.sf(scores, table.shape[1] - 1), 1.0).tolist()))


def _permuted(table: np.ndarray) -> np.ndarray:
    """The p of the permutation test of all rows [R, n] but the first, which is the best; lower numbers are better."""
    rest = np.arange(1, len(table))
    p_values = np.ones(len(table))
    smallest = 0.0
    while len(rest):
        rows = table[[0, *rest]]
        paired = not _too_few(rows)
        seen = _against(rows[None], np.zeros(1, int), paired)[0, 1:]
        largest, enumerated = _largest(rows, paired)
        counts = (largest >= seen[:, None] * (1 - SAME)).sum(1)
        p = counts / len(largest) if enumerated else (1 + counts) / (1 + len(largest))
        p_values[rest] = np.maximum(np.where(seen > 0, p, 1.0), smallest)
        worse = p_values[rest] < LEVEL
        if not worse.any():
            break
        smallest = p_values[rest][worse].max()
        rest = rest[~worse]
    return p_values[1:]


def _too_few(rows: np.ndarray) -> bool:
    """Whether orders within the seeds cannot give a p below 5 %: two rows and five seeds have 16 pairs of orders.

    Then the numbers are permuted without regard to seeds. If seeds have effects of their own, that test is cautious.
    """
    return len(rows) == 2 and 2.0 ** (1 - rows.shape[1]) >= LEVEL


def _largest(rows: np.ndarray, paired: bool) -> tuple[np.ndarray, bool]:
    """The largest t against the best row in each permutation of rows [R, n], and whether these are all permutations."""
    count, seeds = rows.shape
    if count == 2 and seeds <= EXACT_TO:
        if paired:
            swapped = (np.arange(2**seeds)[:, None, None] >> np.arange(seeds)) & 1 != 0
            tables = np.where(swapped, rows[::-1], rows)
        else:
            halves = list(itertools.combinations(range(2 * seeds), seeds))
            first = np.zeros((len(halves), 2 * seeds), bool)
            first[np.arange(len(halves))[:, None], halves] = True
            numbers = np.broadcast_to(rows.ravel(), first.shape)
            tables = np.stack([numbers[half].reshape(-1, seeds) for half in (first, ~first)], 1)
        return _against(tables, tables.mean(-1).argmin(1), paired).max(1), True
    # the seed depends on the rows: with one seed for all tables, some orders would be favoured in all of them
    generator = np.random.default_rng(zlib.crc32(rows.tobytes()))
    draws = min(DRAWS, max(LEAST_DRAWS, AT_ONCE // rows.size))
    step = max(1, AT_ONCE // 4 // rows.size)
    largest = []
    for start in range(0, draws, step):
        tables = generator.permuted(np.broadcast_to(rows, (min(step, draws - start), count, seeds)), axis=1)
        largest.append(_against(tables, tables.mean(-1).argmin(1), paired).max(1))
    return np.concatenate(largest), False


def _against(tables: np.ndarray, best: np.ndarray, paired: bool) -> np.ndarray:
    """t [K, R] of every row of tables [K, R, n] against the best row [K] of its table: paired by seed, or Welch's."""
    first = np.take_along_axis(tables, best[:, None, None], 1)
    difference, rounding = tables - first, _rounding(tables, first)
    if paired:
        return _t_scores(difference, rounding)
    variance = tables.var(-1, ddof=1) + first.var(-1, ddof=1)
    return _ratio(difference.mean(-1), np.sqrt(variance / tables.shape[-1]), np.abs(difference).max(-1), rounding)


def _rounding(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The rounding error [...] of differences between rows [..., n] and a first row; smaller ones count as zero."""
    return ROUNDING * np.maximum(np.abs(rows).max(-1), np.abs(first).max(-1))


def _t_scores(difference: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """mean / (sd / sqrt(n)) of differences [..., n]: infinite if they are all equal, 0 if they are all zero."""
    error = difference.std(-1, ddof=1) / math.sqrt(difference.shape[-1])
    return _ratio(difference.mean(-1), error, np.abs(difference).max(-1), rounding)


def _ratio(mean: np.ndarray, error: np.ndarray, largest: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """mean / error, where both count as zero if they are within rounding or small beside the largest difference."""
    zero = SAME * largest + rounding
    ratio = np.where(error <= zero, np.copysign(np.inf, mean), mean / np.where(error <= zero, 1.0, error))
    return np.where(np.abs(mean) <= zero, 0.0, ratio)


def holm(p_values: Numbers) -> list[float]:
    """P values corrected for their number m (Holm 1979).

    The j-th smallest, counted from 0, becomes max over i <= j of (m - i) p_(i), and at most 1.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
