"""The runs of one cell of a table, and the summary of one metric over them."""

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.report.collect import FINISHED, Hole, Run, Runs
from research.report.keys import FOLD, SEED, SPLIT_SEED, better, comparison_keys, count, distinct, seed_splits, varying
from research.report.methods import BOUNDS, MEANS, methods_of, name_of, position
from research.report.run import RECORDED, count_statuses
from research.report.statistics import EQUAL, mean_of

COLLAPSED = "test/collapsed"
NLL, EFFECTIVE_SHARE = "test/nll_nats", "test/nll_effective_share"
LEAST_SHARE = 0.1  # smallest share of effective importance samples with which a likelihood is trusted

Values = tuple[Any, ...]  # of some keys
Pair = tuple[Any, ...]  # seed and fold, after the values of `Averaging.over`
Unit = Mapping[Any, Run]  # fold -> run, of all runs that make one number


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one row and column, and the summary of one metric over them.

    Attributes:
      mean, sd: over `n` units: seeds, or folds if there is only one seed, or the values of `Averaging.over`. The sd has
        n - 1 in its denominator and is None for n = 1.
      values: the `n` numbers.
      seeds: seed -> mean of its numbers. Tests compare these, since folds and settings of one seed are not independent.
        With `Averaging.over` its values stand in place of seeds.
      counts: status -> number of runs, over all runs of the cell.
      reasons: status -> distinct reasons, over the runs that did not finish.
      nulls: reason -> number of finished runs whose metric is null.
      absent: number of finished runs that do not report the metric.
      partial: number of seeds left out because some of their folds have no number.
      runs: ids of all runs of the cell.
      lacks: number of pairs of seed and fold that other cells have and this cell was never planned to have.
      averaged: number of runs in the mean.
      collapsed: number of averaged runs whose decoder ignores its code.
      worse: the best naive method (`pca`) over the same runs, if its value is better than the mean.
      worse_than_mean: the method that predicts the mean or the most frequent class, if its value is better than the
        mean and it is not `worse` already.
      degenerate: number of averaged runs whose NLL rests on too few effective importance samples; 0 for other metrics.
      best: whether the mean is bold: the best comparable mean of its column, or not significantly worse.
      second: whether the mean is underlined: the second best comparable mean of its column.
      p: p value of the test against the best mean, corrected for the number of tests; None if no test was made.
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
    lacks: int
    averaged: int
    collapsed: int
    worse: str | None
    worse_than_mean: str | None
    degenerate: int
    best: bool = False
    second: bool = False
    p: float | None = None

    @property
    def complete(self) -> bool:
        """Whether the mean is over all planned runs of the cell, and over all seeds and folds that other cells have."""
        left_out = set(self.counts) - set(FINISHED) or self.nulls or self.absent or self.partial
        return self.n > 0 and not left_out and not self.lacks


# ---------------------------------------------------------------------------------------------- what means are over


@dataclasses.dataclass(frozen=True)
class Averaging:
    """What the means of a table are over.

    Attributes:
      keys: keys other than seed and fold.
      seeds, folds: numbers of seeds and folds.
      over_folds: whether n counts folds, because there is one seed.
      over: those of `keys` whose values n counts, each the mean of its runs; empty: n counts seeds.
    """

    keys: tuple[str, ...]
    seeds: int
    folds: int
    over_folds: bool
    over: tuple[str, ...] = ()

    @property
    def paired(self) -> tuple[str, ...]:
        """The keys whose values tests pair."""
        return self.over or (SEED,)


def cells_of(
    runs: Iterable[Run], row_keys: Sequence[str], column_keys: Sequence[str]
) -> dict[tuple[Values, Values], list[Run]]:
    """(row, column) -> the runs of the cell, in order of first appearance."""
    cells: dict[tuple[Values, Values], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.at(row_keys), run.at(column_keys)), []).append(run)
    return cells


def averaging(
    runs: Runs, cells: Collection[Sequence[Run]], shown: Sequence[str], over: Sequence[str] = ()
) -> Averaging:
    """What differs between the runs of a cell; the keys in `shown` are rows or columns and differ in none."""

    def within(key: str) -> bool:
        return key not in shown and any(len(set(distinct(cell, key)) - {Hole.UNKNOWN}) > 1 for cell in cells)

    keys = tuple(key for key in varying(runs) if within(key))
    seeds = count(runs, SEED) if within(SEED) else 1
    folds = count(runs, FOLD) if within(FOLD) else 1
    over_folds = folds > 1 and seeds == 1 and not keys
    return Averaging(keys, seeds, folds, over_folds, tuple(key for key in keys if key in over))


def pairs_of(runs: Sequence[Run], *, finished: bool = False, over: Sequence[str] = ()) -> dict[Pair, None]:
    """The pairs of seed and fold of the runs, or of the finished runs only; with `over` after the values of these."""
    known = [run for run in runs if not isinstance(run.value(SEED), Hole) and (run.finished or not finished)]
    return dict.fromkeys(run.at((*over, SEED, FOLD)) for run in known)


def lacking(cells: Collection[Sequence[Run]], over: Sequence[str] = ()) -> list[list[Pair]]:
    """For each cell, the pairs of seed and fold that it lacks and that another cell on the same data has finished.

    Means over other seeds or folds are means over other draws and other rows. Such a cell is incomplete and never best.
    With `over`, the pairs belong to one value of its keys, and follow it.
    """
    runs = [run for cell in cells for run in cell]
    tied = (SPLIT_SEED,) if seed_splits(runs) else ()
    keys = [key for key in comparison_keys("", runs) if key not in (*RECORDED, *over, *tied)]
    keys.append("data.folds")
    data = [frozenset(run.at(keys) for run in cell) for cell in cells]
    finished: dict[Hashable, dict[Pair, None]] = {}
    for cell, of_cell in zip(cells, data, strict=True):
        finished.setdefault(of_cell, {}).update(pairs_of(cell, finished=True, over=over))
    return [
        sorted(finished[of_cell].keys() - pairs_of(cell, over=over).keys(), key=str)
        for cell, of_cell in zip(cells, data, strict=True)
    ]


# --------------------------------------------------------------------------------------------------------- summaries


def summarize(runs: Sequence[Run], metric: str, averaging: Averaging, lacks: int = 0) -> Cell:
    """The summary of a metric over the runs of one cell."""
    finished = [run for run in runs if run.finished]
    numbers, used, partial = _numbers(_units(runs, averaging), metric, averaging)
    averaged = [run for unit in used for run in unit.values()]
    seeds = _paired(numbers, used, averaging)
    numbers = list(seeds.values()) if averaging.over else numbers
    mean = sd = worse = worse_than_mean = None
    if numbers:
        mean = mean_of(numbers)
        worse = _worse(mean, used, metric, averaging)
        worse_than_mean = None if worse in MEANS else _worse(mean, used, metric, averaging, MEANS)
    if len(numbers) > 1:
        with np.errstate(over="ignore", invalid="ignore"):
            sd = 0.0 if len(set(numbers)) == 1 else float(np.std(numbers, ddof=1))
    shares = [run.metrics.get(EFFECTIVE_SHARE) for run in averaged] if metric == NLL else []
    return Cell(
        mean=mean,
        sd=sd,
        n=len(numbers),
        values=tuple(numbers),
        seeds=seeds,
        counts=count_statuses(runs),
        reasons={
            status: tuple(dict.fromkeys(run.reason for run in runs if run.status == status and run.reason))
            for status in dict.fromkeys(run.status for run in runs if not run.finished)
        },
        nulls=Counter(
            run.null_reasons.get(metric, "no reason recorded")
            for run in finished
            if metric in run.metrics and run.metrics[metric] is None
        ),
        absent=sum(metric not in run.metrics for run in finished),
        partial=partial,
        runs=tuple(run.run_id for run in runs),
        lacks=lacks,
        averaged=len(averaged),
        collapsed=sum(run.metrics.get(COLLAPSED) == 1 for run in averaged),
        worse=worse,
        worse_than_mean=worse_than_mean,
        degenerate=sum(share is not None and share < LEAST_SHARE for share in shares),
    )


def _units(runs: Sequence[Run], averaging: Averaging) -> list[Unit]:
    """The runs of a cell, divided into what n counts."""
    units: dict[tuple[Any, ...], dict[Any, Run]] = {}
    for run in runs:
        fold = run.value(FOLD)
        setting = (*run.at((SEED, *averaging.keys)), fold if averaging.over_folds else None)
        copy = 0  # runs that differ in no known key are units of their own
        while fold in units.get((*setting, copy), {}):
            copy += 1
        units.setdefault((*setting, copy), {})[fold] = run
    return list(units.values())


def _numbers(units: Sequence[Unit], metric: str, averaging: Averaging) -> tuple[list[float], list[Unit], int]:
    """One number for each unit that has all its folds, these units, and how many units have some of their folds."""
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


def _paired(numbers: Sequence[float], units: Sequence[Unit], averaging: Averaging) -> dict[Hashable, float]:
    """What tests pair (a seed, or a value of the keys in `over`) -> the mean of its numbers."""
    of_pair: dict[Hashable, list[float]] = {}
    for number, unit in zip(numbers, units, strict=True):
        values = next(iter(unit.values())).at(averaging.paired)
        of_pair.setdefault(values if averaging.over else values[0], []).append(number)
    return {pair: mean_of(of_one) for pair, of_one in of_pair.items()}


def _worse(
    mean: float, used: Sequence[Unit], metric: str, averaging: Averaging, among: frozenset[str] | None = None
) -> str | None:
    """The naive method (of `among`) that is best when averaged like `mean`; None if it is not better than `mean`."""
    runs = [run for unit in used for run in unit.values()]
    methods = {method for run in runs for method in methods_of(run, metric)} - BOUNDS
    best = None
    for method in sorted(methods if among is None else methods & among, key=position):
        name = name_of(method, metric)
        if all(run.metrics.get(name) is not None for run in runs):
            numbers, units, _ = _numbers(used, name, averaging)
            value = mean_of(list(_paired(numbers, units, averaging).values()) if averaging.over else numbers)
            if best is None or better(value, best[0], metric):
                best = value, method
    if best is None or not better(best[0], mean, metric) or math.isclose(best[0], mean, rel_tol=EQUAL):
        return None
    return best[1]
