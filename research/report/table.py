"""Runs -> a table of means over seeds and folds, with everything that is not in a mean beside it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.baseline import Baseline, baselines
from research.report.cell import Averaging, Cell, Members, averaging, lacking
from research.report.collect import Run, Runs
from research.report.compare import Judged, judge
from research.report.keys import check, default_metrics, ranking, varying
from research.report.methods import position
from research.report.published import Beside, beside
from research.report.select import Selection, select
from research.report.spec import Published, Report
from research.tree import ConfigError, group

Values = tuple[Any, ...]
WORSE, COLLAPSE, WORSE_THAN_MEAN, DEGENERATE = "†", "‡", "§", "¶"  # marks of means


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `cells[row, column, metric]`; a combination that was never planned has no cell.

    `n` is the number of units of every mean if they are all alike, else None. `lacks` are the (seed, fold) that a cell
    lacks and others have. `unpublished` is the number of published values that no cell is held against, by reason.
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
    judged: Mapping[tuple[Values, str], Judged]  # by column and metric
    selection: Selection | None = None
    lacks: Mapping[tuple[Values, Values], tuple[tuple[Any, Any], ...]] = dataclasses.field(default_factory=dict)
    published: tuple[Beside, ...] = ()
    unpublished: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def everything(self) -> Runs:
        """All runs of the sweep; `runs` are those of the settings that were chosen."""
        return self.runs if self.selection is None else self.selection.everything

    @property
    def null_marks(self) -> dict[tuple[str, str], str]:
        """(metric, reason) of every null -> footnote number."""
        found = dict.fromkeys((place[2], reason) for place, cell in self.cells.items() for reason in cell.nulls)
        return {pair: str(number) for number, pair in enumerate(found, 1)}

    @property
    def worse(self) -> dict[str, list[str]]:
        """Naive method -> the metrics in which it is the best one and better than some mean."""
        found: dict[str, dict[str, None]] = {}
        for (_, _, metric), cell in self.cells.items():
            if cell.worse:
                found.setdefault(cell.worse, {})[metric] = None
        return {method: sorted(found[method], key=self.metrics.index) for method in sorted(found, key=position)}

    @property
    def collapses(self) -> set[tuple[int, int]]:
        """(collapsed runs, averaged runs) of the cells that have any."""
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

    The values of the keys `choose` are chosen in every cell by the metric `by` of the validation rows (`select`).

    Only runs that completed or stopped early are averaged: folds of one seed first, over seeds next. A seed some of
    whose folds have no number is left out (its mean would be over other data) and counted. By default the rows are all
    keys that vary, other than seed and fold, and there are no columns but the metrics.

    The best mean, and those that are not significantly worse, are sought within a column (`compare.judge`). Metrics are
    compared where `keys.comparison_keys` agree, and only if there are two or more to compare.

    Raises:
      ConfigError: a key or metric that no run has, or a key that is both a row and a column.
    """
    column_keys = check("columns", columns or (), runs.config_keys())
    default_rows = [key for key in varying(runs) if key not in column_keys and key not in choose]
    if not default_rows and not column_keys and "model" in runs.config_keys():
        default_rows = ["model"]
    row_keys = check("rows", default_rows if rows is None else rows, runs.config_keys())
    if both := set(row_keys) & set(column_keys):
        raise ConfigError("columns", both.pop(), "this key is also a row; name it once")
    names = default_metrics(runs) if metrics is None else check("metrics", metrics, runs.metric_names())

    selection = None
    if choose:
        runs, selection = select(runs, row_keys, column_keys, choose, by, metrics or ())

    def place(run: Run, keys: Sequence[str]) -> Values:
        return tuple(run.value(key) for key in keys)

    members = {
        (place(same[0], row_keys), place(same[0], column_keys)): same
        for same in group(list(runs), lambda run: place(run, (*row_keys, *column_keys)))
    }
    over = averaging(runs, list(members.values()), (*row_keys, *column_keys))
    row_values = sorted({row for row, _ in members}, key=ranking(runs, row_keys))
    column_values = sorted({column for _, column in members}, key=ranking(runs, column_keys))
    cells: dict[tuple[Values, Values, str], Cell] = {}
    judged: dict[tuple[Values, str], Judged] = {}
    lacks = dict(zip(members, lacking(list(members.values())), strict=True))
    summaries = {place: Members(same, over, len(lacks[place])) for place, same in members.items()}
    for column in column_values:
        here = {row: members[row, column] for row in row_values if (row, column) in members}
        for metric in names:
            of_metric = {row: summaries[row, column].summarize(metric) for row in here}
            judged[column, metric] = judge(of_metric, here, metric)
            cells |= {(row, column, metric): cell for row, cell in judged[column, metric].cells.items()}
    beyond = [one.metric for one in published if one.metric not in names and one.metric in runs.metric_names()]
    held = cells | {(*place, metric): own.summarize(metric) for place, own in summaries.items() for metric in beyond}
    held_against, unpublished = beside(held, row_keys, column_keys, runs, published)
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
        published=tuple(held_against),
        unpublished=unpublished,
    )


def table_of(runs: Runs, report: Report) -> Table:
    """The table that a `report:` section describes; metrics of it that no run has are told and left out."""
    metrics = report.metrics
    if metrics is not None:
        known = runs.metric_names()
        metrics = tuple(name for name in report.metrics or () if name in known)
        absent = [name for name in report.metrics or () if name not in known]
        told = tuple(f"the report section names {name}, which no run has" for name in absent)
        runs = dataclasses.replace(runs, problems=(*runs.problems, *told))
    return table(runs, report.rows, report.columns, metrics or None, report.select, report.by, report.published)
