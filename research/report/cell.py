"""The runs of one cell of a table, and the summary of one metric of theirs."""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from research.report.collect import FINISHED, STATUSES, Hole, Run, Runs
from research.report.keys import FOLD, SEED, better, comparison_keys, distinct, varying
from research.report.methods import BOUNDS, MEANS, methods_of, name_of, position
from research.report.run import RECORDED
from research.report.statistics import mean_of

COLLAPSED = "test/collapsed"
NLL, EFFECTIVE_SHARE = "test/nll_nats", "test/nll_effective_share"
LEAST_SHARE = 0.1  # of the importance samples of a likelihood, effective ones
EQUAL = 1e-6  # relative; every run works its baselines out anew, in single precision


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one row and column, and the summary of one metric of theirs.

    Attributes:
      mean, sd: over `n` units (seeds, or folds where there is one seed); sd with n - 1, None for n = 1.
      values: the `n` numbers.
      seeds: seed -> mean of its numbers, what tests compare: folds and settings of one seed are not independent.
      counts: number of runs by status, of all runs of the cell.
      reasons: distinct reasons by status, of the runs that did not finish.
      nulls: number of finished runs whose metric is null, by reason.
      absent: number of finished runs that do not report the metric.
      partial: number of seeds left out because some of their folds have no number.
      runs: ids of all runs of the cell.
      lacks: number of seeds and folds that other cells have and this one was never planned to have (`lacking`).
      averaged: number of runs in the mean.
      collapsed: number of these whose decoder ignores its code.
      best: no other mean of this column that may be compared is better, or the best one not significantly so.
      second: the second best mean of those.
      p: of the test against the best mean, corrected for the number of tests; None where there was none.
      worse: the best naive method (`pca`) over the same runs, if it has a better value than this mean.
      worse_than_mean: the method that predicts the mean (or the most frequent class), if it has a better value too and
        is not `worse` itself.
      degenerate: number of averaged runs whose NLL rests on importance weights with an effective sample size below a
        tenth of the samples; 0 for other metrics.
    """

    mean: float | None
    sd: float | None
    n: int
    values: tuple[float, ...]
    seeds: Mapping[Hashable, float]
    counts: Mapping[str, int]
    reasons: Mapping[str, tuple[str, ...]]
    nulls: Mapping[str, int]
    absent: int
    partial: int
    runs: tuple[str, ...]
    lacks: int = 0
    averaged: int = 0
    collapsed: int = 0
    best: bool = False
    second: bool = False
    p: float | None = None
    worse: str | None = None
    worse_than_mean: str | None = None
    degenerate: int = 0

    @property
    def complete(self) -> bool:
        """Whether every planned run of the cell is in the mean, of all seeds and folds that other cells have."""
        left_out = set(self.counts) - set(FINISHED) or self.nulls or self.absent or self.partial
        return self.n > 0 and not left_out and not self.lacks


@dataclasses.dataclass(frozen=True)
class Averaging:
    """What the means are over: `keys` other than seed and fold, numbers of seeds and folds, and what n counts."""

    keys: tuple[str, ...]
    seeds: int
    folds: int
    over_folds: bool  # one seed: n counts folds


def averaging(runs: Runs, cells: Sequence[Sequence[Run]], shown: Sequence[str]) -> Averaging:
    """What differs between the runs of one cell, `shown` being the keys that are rows or columns."""

    def within(key: str) -> bool:
        return key not in shown and any(len(set(distinct(of_cell, key)) - {Hole.UNKNOWN}) > 1 for of_cell in cells)

    keys = tuple(key for key in varying(runs) if within(key))
    seeds = len(set(distinct(runs, SEED)) - set(Hole)) if within(SEED) else 1
    folds = len(set(distinct(runs, FOLD)) - set(Hole)) if within(FOLD) else 1
    return Averaging(keys, seeds, folds, over_folds=folds > 1 and seeds == 1 and not keys)


Pair = tuple[Any, Any]  # seed and fold


def pairs_of(runs: Sequence[Run], *, finished: bool = False) -> dict[Pair, None]:
    """The (seed, fold) that there are runs of, or finished ones only."""
    known = [run for run in runs if not isinstance(run.value(SEED), Hole) and (run.finished or not finished)]
    return dict.fromkeys((run.value(SEED), run.value(FOLD)) for run in known)


def lacking(cells: Sequence[Sequence[Run]]) -> list[list[Pair]]:
    """The (seed, fold) that some other cell on the same data has a finished run of and a cell has none, for every cell.

    Means over other seeds or folds are of other draws and other rows: such a cell is incomplete, and never the best.
    """
    keys = [key for key in comparison_keys("", (run for same in cells for run in same)) if key not in RECORDED]
    keys.append("data.folds")
    of_data = [frozenset(tuple(run.value(key) for key in keys) for run in same) for same in cells]
    wanted: dict[Hashable, dict[Pair, None]] = {}
    for place, same in zip(of_data, cells, strict=True):
        wanted.setdefault(place, {}).update(pairs_of(same, finished=True))
    return [
        sorted(wanted[place].keys() - pairs_of(same).keys(), key=str)
        for place, same in zip(of_data, cells, strict=True)
    ]


def count_statuses(runs: Sequence[Run]) -> dict[str, int]:
    """Number of runs by status, in the order of `STATUSES`."""
    found = dict.fromkeys((*STATUSES, *(run.status for run in runs)), 0)
    for run in runs:
        found[run.status] += 1
    return {status: count for status, count in found.items() if count}


class Members:
    """The runs of one cell, and what does not depend on the metric."""

    def __init__(self, runs: Sequence[Run], averaging: Averaging, lacks: int = 0):
        self.averaging, self.lacks = averaging, lacks
        self.units = _units(runs, averaging)
        self.finished = [run for run in runs if run.finished]
        self.counts = count_statuses(runs)
        self.reasons = {
            status: tuple(dict.fromkeys(run.reason for run in runs if run.status == status and run.reason))
            for status in dict.fromkeys(run.status for run in runs if not run.finished)
        }
        self.runs = tuple(run.run_id for run in runs)

    def summarize(self, metric: str) -> Cell:
        """The summary of a metric over these runs."""
        numbers, used, partial = _numbers(self.units, metric, self.averaging)
        averaged = [run for unit in used for run in unit.values()]
        nulls: dict[str, int] = {}
        for run in self.finished:
            if metric in run.metrics and run.metrics[metric] is None:
                reason = run.null_reasons.get(metric, "no reason recorded")
                nulls[reason] = nulls.get(reason, 0) + 1
        seeds: dict[Hashable, list[float]] = {}
        for number, unit in zip(numbers, used, strict=True):
            seeds.setdefault(next(iter(unit.values())).value(SEED), []).append(number)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = mean_of(numbers) if numbers else None
            sd = None if len(numbers) < 2 else 0.0 if len(set(numbers)) == 1 else float(np.std(numbers, ddof=1))
        worse = None if mean is None else _worse(mean, used, metric, self.averaging)
        return Cell(
            mean=mean,
            sd=sd,
            n=len(numbers),
            values=tuple(numbers),
            seeds={seed: mean_of(own) for seed, own in seeds.items()},
            counts=self.counts,
            reasons=self.reasons,
            nulls=nulls,
            absent=sum(metric not in run.metrics for run in self.finished),
            partial=partial,
            runs=self.runs,
            lacks=self.lacks,
            averaged=len(averaged),
            collapsed=sum(run.metrics.get(COLLAPSED) == 1 for run in averaged),
            worse=worse,
            worse_than_mean=None
            if mean is None or worse in MEANS
            else _worse(mean, used, metric, self.averaging, MEANS),
            degenerate=sum(map(_degenerate, averaged)) if metric == NLL else 0,
        )


def summarize(runs: Sequence[Run], metric: str, averaging: Averaging) -> Cell:
    """The summary of a metric over the runs of one cell."""
    return Members(runs, averaging).summarize(metric)


Unit = Mapping[Any, Run]  # fold -> run


def _units(runs: Sequence[Run], averaging: Averaging) -> list[Unit]:
    """The runs of a cell, apart by what n counts."""
    units: dict[tuple[Any, ...], dict[Any, Run]] = {}
    for run in runs:
        fold = run.value(FOLD)
        setting = (run.value(SEED), *(run.value(key) for key in averaging.keys), fold if averaging.over_folds else None)
        copy = 0  # runs that differ in nothing that is known stay apart
        while fold in units.get((*setting, copy), {}):
            copy += 1
        units.setdefault((*setting, copy), {})[fold] = run
    return list(units.values())


def _numbers(units: Sequence[Unit], metric: str, averaging: Averaging) -> tuple[list[float], list[Unit], int]:
    """A number for each unit that has all its folds, those units, and how many have only some of their folds."""
    expected = 1 if averaging.over_folds else len({fold for unit in units for fold in unit})
    numbers, used, partial = [], [], 0
    for unit in units:
        values = [value for run in unit.values() if run.finished and (value := run.metrics.get(metric)) is not None]
        if len(values) == expected:
            numbers.append(mean_of(values))
            used.append(unit)
        elif values:
            partial += 1
    return numbers, used, partial


def _degenerate(run: Run) -> bool:
    share = run.metrics.get(EFFECTIVE_SHARE)
    return share is not None and share < LEAST_SHARE


def _worse(
    mean: float, used: Sequence[Unit], metric: str, averaging: Averaging, among: frozenset[str] | None = None
) -> str | None:
    """The naive method (of `among`) that, averaged over the same runs alike, is best, if it is better than `mean`."""
    runs = [run for unit in used for run in unit.values()]
    methods = {method for run in runs for method in methods_of(run, metric)} - BOUNDS
    methods = methods if among is None else methods & among
    best = None
    for method in sorted(methods, key=position):
        name = name_of(method, metric)
        if all(run.metrics.get(name) is not None for run in runs):
            value = mean_of(_numbers(used, name, averaging)[0])
            if best is None or better(value, best[0], metric):
                best = value, method
    if best is None or not better(best[0], mean, metric) or math.isclose(best[0], mean, rel_tol=EQUAL):
        return None
    return best[1]
