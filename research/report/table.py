"""The table of a sweep: means over seeds and folds, and everything beside them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.baseline import Baseline, baselines
from research.report.cell import Averaging, Cell, CellRuns, Place, Values, averaging, lacking
from research.report.collect import Runs
from research.report.compare import Judged, judge
from research.report.keys import check, default_metrics, ranking, varying
from research.report.published import Beside, beside
from research.report.select import Selection, select
from research.report.spec import Published, Report
from research.tree import ConfigError, group

WORSE, COLLAPSE, WORSE_THAN_MEAN, DEGENERATE = "†", "‡", "§", "¶"  # marks of means, explained in the notes


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
    selection: Selection | None = None
    lacks: Mapping[Place, tuple[tuple[Any, Any], ...]] = dataclasses.field(default_factory=dict)
    published: tuple[Beside, ...] = ()
    unpublished: Mapping[str, int] = dataclasses.field(default_factory=dict)

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
) -> Table:
    """Summarize `metrics` for every combination of values of the keys `rows` and `columns`.

    By default the rows are all keys that vary, other than seed and fold, and the columns are the metrics alone. Only
    runs that completed or stopped early are averaged: first the folds of one seed, then the seeds. A seed is left out
    and counted if some of its folds have no number, since its mean would be over other rows. The best means are sought
    within a column (`compare.judge`). The values of the keys `choose` are chosen in every cell by the metric `by` of
    the validation rows (`select`).

    Raises:
      ConfigError: a key or metric that no run has, or a key that is both a row and a column.
    """
    row_keys, column_keys = _keys(runs, rows, columns, choose)
    names = default_metrics(runs) if metrics is None else check("metrics", metrics, runs.metric_names())
    selection = None
    if choose:
        runs, selection = select(runs, row_keys, column_keys, choose, by, metrics or ())

    cells_runs = {
        (cell[0].at(row_keys), cell[0].at(column_keys)): cell
        for cell in group(list(runs), lambda run: run.at((*row_keys, *column_keys)))
    }
    over = averaging(runs, list(cells_runs.values()), (*row_keys, *column_keys))
    lacks = dict(zip(cells_runs, lacking(list(cells_runs.values())), strict=True))
    summaries = {place: CellRuns(cell, over, len(lacks[place])) for place, cell in cells_runs.items()}
    row_values = sorted({row for row, _ in cells_runs}, key=ranking(runs, row_keys))
    column_values = sorted({column for _, column in cells_runs}, key=ranking(runs, column_keys))
    cells: dict[tuple[Values, Values, str], Cell] = {}
    judged: dict[tuple[Values, str], Judged] = {}
    for column in column_values:
        of_column = {row: cells_runs[row, column] for row in row_values if (row, column) in cells_runs}
        for metric in names:
            unmarked = {row: summaries[row, column].summarize(metric) for row in of_column}
            judged[column, metric] = judge(unmarked, of_column, metric)
            cells |= {(row, column, metric): cell for row, cell in judged[column, metric].cells.items()}
    hidden = {value.metric for value in published} & set(runs.metric_names()) - set(names)
    hidden_cells = {
        (*place, metric): summary.summarize(metric) for place, summary in summaries.items() for metric in sorted(hidden)
    }
    entries, unpublished = beside(cells | hidden_cells, row_keys, column_keys, runs, published)
    counts = {cell.n for cell in cells.values() if cell.n}
    return Table(
        runs=runs,
        row_keys=row_keys,
        column_keys=column_keys,
        metrics=names,
        rows=tuple(row_values),
        columns=tuple(column_values),
        cells=cells,
        baselines=tuple(baselines(runs, row_keys, column_keys, names, over)),
        averaging=over,
        n=counts.pop() if len(counts) == 1 else None,
        judged=judged,
        selection=selection,
        lacks={place: tuple(pairs) for place, pairs in lacks.items() if pairs},
        published=tuple(entries),
        unpublished=unpublished,
    )


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


def table_of(runs: Runs, report: Report) -> Table:
    """The table that a `report:` section describes; metrics that no run has are left out and become a problem."""
    names = report.metrics
    if names is not None:
        known = runs.metric_names()
        problems = [f"the report section names {name}, which no run has" for name in names if name not in known]
        names = tuple(name for name in names if name in known)
        runs = dataclasses.replace(runs, problems=(*runs.problems, *problems))
    return table(runs, report.rows, report.columns, names or None, report.select, report.by, report.published)
