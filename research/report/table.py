"""The table of a sweep: means over seeds and folds, which of them are best, and everything beside them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.metrics import direction
from research.report.cell import Averaging, Cell, Pair, Values, averaging, cells_of, lacking, summarize
from research.report.collect import Run, Runs
from research.report.duels import Duel, Duels, Scores, duels, naive_scores
from research.report.keys import CODE_CCA, CODE_CKA, better, check, comparison_keys, default_metrics, ranking, varying
from research.report.methods import Baseline, baselines
from research.report.select import Selection, select
from research.report.spec import Published, Report, Reproduction, reproductions
from research.report.statistics import LEVEL, SMALLEST, compare_all
from research.tree import ConfigError, group

WORSE, COLLAPSE, WORSE_THAN_MEAN, DEGENERATE = "†", "‡", "§", "¶"  # marks of means, explained in the notes


@dataclasses.dataclass(frozen=True)
class Judged:
    """The cells of a column with their marks, and the tests that were made.

    Attributes:
      cells: row -> cell.
      seeds: smallest and largest number of seeds in a test; None if no test was made.
      rows: the largest number of rows that were tested against a best row.
      untested: the smallest number of seeds that an untested row shares with the best row; None if all were tested.
      duels: tests of all pairs of rows and naive methods, where the means are over data sets.
    """

    cells: Mapping[Values, Cell]
    seeds: tuple[int, int] | None
    rows: int
    untested: int | None
    duels: Duels = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """The means of a sweep, with everything that is not in a mean beside them.

    Attributes:
      runs: the runs of the table; without settings that were not chosen.
      cells: (row, column, metric) -> cell; a combination that was never planned has no cell.
      n: the number of units of every mean, None if the cells differ in it.
      judged: (column, metric) -> the tests that were made.
      lacks: (row, column) -> pairs of seed and fold that the cell lacks and others have.
      unpublished: reason -> number of published values that stand beside no cell.
      names: key, metric or value -> how documents and figures write it.
      decimals: metric -> its decimals.
    """

    runs: Runs
    row_keys: tuple[str, ...]
    column_keys: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Values, ...]
    columns: tuple[Values, ...]
    cells: Mapping[tuple[Values, Values, str], Cell]
    baselines: tuple[Baseline, ...]
    averaging: Averaging
    n: int | None
    judged: Mapping[tuple[Values, str], Judged]
    selection: Selection | None
    lacks: Mapping[tuple[Values, Values], Sequence[Pair]]
    published: tuple[Reproduction, ...]
    unpublished: Mapping[str, int]
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decimals: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def everything(self) -> Runs:
        """All runs of the sweep, also those of settings that were not chosen."""
        return self.runs if self.selection is None else self.selection.everything

    @property
    def null_marks(self) -> dict[tuple[str, str], str]:
        """(metric, reason) of every null -> number of its note."""
        nulls = dict.fromkeys((metric, reason) for (*_, metric), cell in self.cells.items() for reason in cell.nulls)
        return {null: str(number) for number, null in enumerate(nulls, 1)}

    @property
    def collapses(self) -> set[tuple[int, int]]:
        """(collapsed runs, averaged runs) of the cells that have a collapsed run."""
        return {(cell.collapsed, cell.averaged) for cell in self.cells.values() if cell.collapsed}


def table(
    runs: Runs,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    choose: Sequence[str] = (),
    by: str | None = None,
    published: Sequence[Published] = (),
    over: Sequence[str] = (),
) -> Table:
    """Summarize `metrics` for every combination of values of the keys `rows` and `columns`.

    By default the rows are all keys that vary, other than seed and fold, and the columns are the metrics alone. Only
    runs that completed or stopped early are averaged: first the folds of one seed, then the seeds. A seed is left out
    and counted if some of its folds have no number, since its mean would be over other rows. The best means are sought
    within a column (`judge`). With `over`, n counts the values of these keys, such as data sets, each the mean of its
    runs, and tests pair them. The values of the keys `choose` are chosen in every cell by the metric `by` of the
    validation rows (`select`).

    Raises:
      ConfigError: a key or metric that no run has, or a key that is both a row and a column.
    """
    row_keys, column_keys = _keys(runs, rows, columns, choose)
    names = default_metrics(runs) if metrics is None else check("metrics", metrics, runs.metric_names())
    selection = None
    if choose:
        runs, selection = select(runs, row_keys, column_keys, choose, by, metrics or ())

    cells_runs = cells_of(runs, row_keys, column_keys)
    means = averaging(runs, cells_runs.values(), (*row_keys, *column_keys), check("over", over, runs.config_keys()))
    lacks = dict(zip(cells_runs, lacking(cells_runs.values(), means.over), strict=True))

    def summary(row: Values, column: Values, metric: str) -> Cell:
        return summarize(cells_runs[row, column], metric, means, len(lacks[row, column]))

    row_values = sorted({row for row, _ in cells_runs}, key=ranking(runs, row_keys))
    column_values = sorted({column for _, column in cells_runs}, key=ranking(runs, column_keys))
    cells: dict[tuple[Values, Values, str], Cell] = {}
    judged: dict[tuple[Values, str], Judged] = {}
    for column in column_values:
        of_column = {row: cells_runs[row, column] for row in row_values if (row, column) in cells_runs}
        for metric in names:
            of_metric = {row: summary(row, column, metric) for row in of_column}
            naive = None
            if means.over:
                naive = naive_scores([run for of_row in of_column.values() for run in of_row], metric, means)
            judged[column, metric] = judge(of_metric, of_column, metric, naive)
            cells |= {(row, column, metric): cell for row, cell in judged[column, metric].cells.items()}
    hidden = {value.metric for value in published} & set(runs.metric_names()) - set(names)
    hidden_cells = {(*at, metric): summary(*at, metric) for at in cells_runs for metric in sorted(hidden)}
    entries, unpublished = reproductions(cells | hidden_cells, row_keys, column_keys, runs, published)
    counts = {cell.n for cell in cells.values() if cell.n}
    return Table(
        runs=runs,
        row_keys=row_keys,
        column_keys=column_keys,
        metrics=names,
        rows=tuple(row_values),
        columns=tuple(column_values),
        cells=cells,
        baselines=tuple(baselines(runs, row_keys, column_keys, names, means.keys)),
        averaging=means,
        n=counts.pop() if len(counts) == 1 else None,
        judged=judged,
        selection=selection,
        lacks={at: pairs for at, pairs in lacks.items() if pairs},
        published=tuple(entries),
        unpublished=unpublished,
    )


def measured(runs: Runs, report: Report, folder: Path) -> Runs:
    """The runs of a sweep folder with the metrics between runs that a `report:` section asks for."""
    if not report.stability:
        return runs
    from research.report.stability import compared  # it loads JAX

    return compared(runs, folder)


def table_of(runs: Runs, report: Report) -> Table:
    """The table that a `report:` section describes; metrics that no run has are left out and become a problem.

    Metrics between runs that were asked for (`measured`) are shown also where the section names others only.
    """
    names = report.metrics
    if names is not None:
        known = runs.metric_names()
        problems = [f"the report section names {name}, which no run has" for name in names if name not in known]
        names = tuple(name for name in names if name in known)
        if names and not {CODE_CKA, CODE_CCA} & set(names):
            names += tuple(name for name in (CODE_CKA, CODE_CCA) if name in known)
        runs = dataclasses.replace(runs, problems=(*runs.problems, *problems))
    chosen = report.select, report.by, report.published, report.over
    shown = table(runs, report.rows, report.columns, names or None, *chosen)
    return dataclasses.replace(shown, names=report.names or {}, decimals=report.decimals or {})


def _keys(
    runs: Runs, rows: Sequence[str] | None, columns: Sequence[str] | None, choose: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The row keys and the column keys, checked; by default the rows are what varies and is not chosen."""
    known = runs.config_keys()
    column_keys = check("columns", columns or (), known)
    if rows is None:
        rows = [key for key in varying(runs) if key not in column_keys and key not in choose]
        if not rows and not column_keys and "model" in known:
            rows = ["model"]
    row_keys = check("rows", rows, known)
    if both := set(row_keys) & set(column_keys):
        raise ConfigError("columns", both.pop(), "this key is also a row; name it once")
    return row_keys, column_keys


def judge(
    cells: Mapping[Values, Cell],
    runs: Mapping[Values, Sequence[Run]],
    metric: str,
    naive: Mapping[str, Scores] | None = None,
) -> Judged:
    """Mark the best mean, all means that are not significantly worse at 5 %, and the second best mean.

    * Only complete cells take part: a mean over the seeds that survived is no result for a setting that diverges.
    * Rows are compared only if they agree in the comparison keys of the metric.
    * Every other row is tested against the best one (`statistics.compare_all`). A row with fewer than five seeds is not
      tested and not marked. If the best row has fewer, no test is made, and the best mean alone is marked.
    * With `naive`, the naive methods over data sets, all pairs of rows and naive methods are tested over data sets in
      place of seeds (`duels.duels`).
    * Rows of equal means have the same marks. If several have the best mean, none is the second best. If all have it
      and no test was made, none is the best.
    """
    way = direction(metric)
    if not way:
        return Judged(cells, None, 0, None)
    keys = comparison_keys(metric, (run for of_row in runs.values() for run in of_row))
    complete = [row for row, cell in cells.items() if cell.complete]
    marked, test_seeds, rows, untested = dict(cells), list[int](), 0, list[int]()
    sign = 1 if better(0, 1, metric) else -1
    over_sets: dict[tuple[Any, Any], Duel] = {}
    for comparable in group(complete, lambda row: frozenset(run.at(keys) for run in runs[row])):
        if naive is not None:
            over_sets |= duels({row: cells[row].seeds for row in comparable} | dict(naive), way)
        if len(comparable) < 2:
            continue
        # from the best mean to the worst; rows of equal means stay in the order of the table
        ranked = sorted(comparable, key=lambda row: sign * (cells[row].mean or 0.0))
        first, *others = ranked
        large = [row for row in others if len(cells[row].seeds) >= SMALLEST]
        if naive is None:
            results = compare_all(cells[first].seeds, [cells[row].seeds for row in large], way)
        else:
            pairs = [over_sets.get((first, row)) for row in large]
            results = [None if duel is None else duel.second_is_worse for duel in pairs]
        tested = {row: result for row, result in zip(large, results, strict=True) if result is not None}
        if not tested and cells[first].mean == cells[others[-1]].mean:
            continue  # all means are equal: none is the best
        if len(tested) < len(others):
            common = [cells[first].seeds.keys() & cells[row].seeds.keys() for row in others if row not in tested]
            untested.append(min(map(len, common)))
        for row in ranked:
            p = tested[row].p if row in tested else None
            best = cells[row].mean == cells[first].mean or (p is not None and p >= LEVEL)
            second = len(ranked) > 2 and cells[first].mean != cells[row].mean == cells[others[0]].mean
            marked[row] = dataclasses.replace(cells[row], best=best, second=second, p=p)
        test_seeds += [result.n for result in tested.values()]
        rows = max(rows, len(tested))
    seeds = (min(test_seeds), max(test_seeds)) if test_seeds else None
    return Judged(marked, seeds, rows, min(untested, default=None), over_sets)
