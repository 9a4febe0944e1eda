"""Tests of rows against each other over data sets, or over the values of other keys that `report.over` names."""

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from research.report.cell import Averaging
from research.report.collect import Run
from research.report.methods import BOUNDS, methods_of, name_of
from research.report.statistics import SAME, SMALLEST, Comparison, holm, mean_of
from research.tree import group

Scores = Mapping[Hashable, float]  # data set -> the mean of a row


@dataclasses.dataclass(frozen=True)
class Duel:
    """Two rows over the data sets that all rows have.

    Attributes:
      better, worse: numbers of data sets on which the first row is better, and worse.
      leads: whether the ranks of the differences speak for the first row.
      p: of Wilcoxon's signed-rank test, two-sided, with Holm's correction for all pairs.
      n: number of data sets.
    """

    better: int
    worse: int
    leads: bool
    p: float
    n: int

    @property
    def second_is_worse(self) -> Comparison:
        """The test of whether the second row is worse than the first."""
        return Comparison(self.p if self.leads else 1.0, self.n)


Duels = Mapping[tuple[Any, Any], Duel]


def duels(rows: Mapping[Any, Scores], direction: Literal["lower", "higher"]) -> Duels:
    """(first, second) -> the test of every pair of rows, in both orders (Wilcoxon 1945; Demšar 2006, section 3.1.3).

    Data sets count by the ranks of their differences, so that one with large differences does not decide. Differences
    of zero share their ranks between both rows. Holm's correction is for K (K - 1) / 2 pairs of K rows.

    Returns:
      Nothing if the rows have fewer than five data sets in common.
    """
    common = [name for name in next(iter(rows.values()), {}) if all(name in row for row in rows.values())]
    pairs = list(itertools.combinations(rows, 2))
    if len(common) < SMALLEST or not pairs:
        return {}
    table = {row: np.asarray([scores[name] for name in common], np.float64) for row, scores in rows.items()}
    sign = 1 if direction == "higher" else -1
    differences = [sign * _difference(table[first], table[second]) for first, second in pairs]
    tests: dict[tuple[Any, Any], Duel] = {}
    for (first, second), difference, p in zip(pairs, differences, holm(list(map(_p, differences))), strict=True):
        better, worse = int((difference > 0).sum()), int((difference < 0).sum())
        balance = float(np.sign(difference) @ _ranks(difference))
        tests[first, second] = Duel(better, worse, balance > 0, p, len(common))
        tests[second, first] = Duel(worse, better, balance < 0, p, len(common))
    return tests


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """first - second [N], where numbers that differ by rounding alone are equal."""
    return np.where(np.isclose(first, second, rtol=SAME, atol=0), 0.0, first - second)


def _ranks(difference: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.abs(difference)))


def _p(difference: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if not difference.any():
        return 1.0
    result: Any = wilcoxon(difference, zero_method="zsplit")
    return float(result.pvalue)


def naive_scores(runs: Sequence[Run], metric: str, averaging: Averaging) -> dict[str, Scores]:
    """Naive method -> its means over data sets, of the methods that have one value on the rows of a run.

    A method whose value depends on the settings of the model, such as PCA of several latent sizes, is left out.
    """
    finished = [run for run in runs if run.finished]
    methods = dict.fromkeys(method for run in finished for method in methods_of(run, metric) if method not in BOUNDS)
    scores: dict[str, Scores] = {}
    for method in methods:
        name = name_of(method, metric)
        having = [run for run in finished if run.metrics.get(name) is not None]
        sets = group(having, lambda run: run.at(averaging.over))
        if all(_agree(of_set, name, averaging) for of_set in sets):
            scores[method] = {
                of_set[0].at(averaging.over): mean_of([run.metrics[name] or 0.0 for run in of_set]) for of_set in sets
            }
    return scores


def _agree(runs: Sequence[Run], name: str, averaging: Averaging) -> bool:
    """Whether runs on the same rows have the same value of a naive method."""
    same_rows = group(runs, lambda run: run.at(("data_sha256", "seed", "data.fold", *averaging.keys)))
    values = [[run.metrics[name] or 0.0 for run in of_rows] for of_rows in same_rows]
    return all(np.isclose(of_rows, of_rows[0], rtol=1e-6, atol=0).all() for of_rows in values)
