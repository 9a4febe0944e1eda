"""A table as texts: what Markdown, LaTeX and the page arrange."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np

from research.metrics import direction
from research.report.cell import Cell, Values
from research.report.collect import FINISHED, Hole, Runs
from research.report.keys import FOLD, SEED, distinct
from research.report.notes import merged, notes
from research.report.run import count_statuses
from research.report.spec import Reproduction
from research.report.statistics import SMALLEST, interquartile_mean, interval
from research.report.table import COLLAPSE, DEGENERATE, WORSE, WORSE_THAN_MEAN, Table
from research.report.texts import (
    MOST_DECIMALS,
    PLAIN,
    Layout,
    Style,
    decimals,
    listed,
    named,
    named_metric,
    naming,
    number,
    plural,
    renamed,
    settings,
    shown,
)
from research.runs.folder import short_commit

HASH_DIGITS = 12  # of every hash that is shown
SHOWN_HASHES = 10  # of data
REASON_LENGTH = 60  # of a reason inside a cell
PUBLISHED = ("published", "metric", "for", "ours", "theirs", "ours - theirs", "verdict")

Rows = list[list[str]]
Notes = list[tuple[str, str]]  # mark and text


@dataclasses.dataclass(frozen=True)
class Document:
    """The texts of a table, escaped and marked up in one style.

    Attributes:
      keys: heads of the row keys; one empty head if there are none.
      columns: one text for each column of the table: values of the column keys.
      metrics: heads of the metrics, which follow in each column.
      models: rows of the models: values of the row keys, then the cells of all metrics, column by column.
      baselines: rows of the naive methods, likewise.
      published: rows under the heads `PUBLISHED`, one for each published value and cell.
      sources: where published values were read, and why they are not comparable.
    """

    caption: str
    keys: list[str]
    columns: list[str]
    metrics: list[str]
    models: Rows
    baselines: Rows
    notes: Notes
    published: Rows
    sources: Notes
    provenance: str


def document(table: Table, style: Style, layout: Layout) -> Document:
    """The texts of a table in a style, by the names of the table."""
    with naming(table.names):
        return _document(table, style, layout)


def _document(table: Table, style: Style, layout: Layout) -> Document:
    def styled(texts: Notes) -> Notes:
        return [(style.mark(mark), style.escape(renamed(text))) for mark, text in texts]

    sources = dict.fromkeys(map(_source, table.published))
    marks = {text: str(mark) for mark, text in enumerate(sources, len(table.null_marks) + 1)}  # after those of nulls
    columns = [(column, metric) for column in table.columns for metric in table.metrics]
    return Document(
        caption=style.escape(renamed(caption(table, layout))),
        keys=[style.name(named(key)) for key in table.row_keys] or [""],
        columns=[style.escape(settings(table.column_keys, column)) for column in table.columns],
        metrics=[
            style.name(named_metric(metric)) + style.better.get(direction(metric), "") for metric in table.metrics
        ],
        models=[
            ([style.escape(shown(value)) for value in row] or ["all runs"])
            + [_cell(table, (row, *column), style, layout) for column in columns]
            for row in table.rows
        ],
        baselines=_baselines(table, style, layout),
        notes=styled(notes(table)),
        published=[_published(table, entry, marks[_source(entry)], style, layout) for entry in table.published],
        sources=styled([(mark, text) for text, mark in marks.items()]),
        provenance=style.escape(provenance(table)),
    )


def _baselines(table: Table, style: Style, layout: Layout) -> Rows:
    """Rows of naive methods; the name stands in the cell of a key that does not change them, of `model` if it can."""
    rows = []
    for baseline in table.baselines:
        head = [style.escape(shown(value)) for value in baseline.row] or [""]
        free = [index for index, value in enumerate(baseline.row) if value is Hole.ANY] or [0]
        model = table.row_keys.index("model") if "model" in table.row_keys else free[0]
        index = model if model in free else free[0]
        head[index] = ", ".join(part for part in (style.escape(baseline.label), head[index]) if part)
        numbers = []
        for column in table.columns:
            for metric in table.metrics:
                value, digits = baseline.cells.get((column, metric)), _digits(table, metric, layout)
                places = decimals(value or 0.0, None) if digits is None else digits
                numbers.append("" if value is None else number(value, places, style))
        rows.append(head + numbers)
    return rows


def _digits(table: Table, metric: str, layout: Layout) -> int | None:
    """The decimals that somebody asked for: for all metrics, or else for this one; None if nobody did."""
    return table.decimals.get(metric) if layout.digits is None else layout.digits


# --------------------------------------------------------------------------------------------------------------- cells


def _cell(table: Table, where: tuple[Values, Values, str], style: Style, layout: Layout) -> str:
    """One cell: mean ± sd and marks, then in parentheses what a reader must not overlook; empty if never planned."""
    cell = table.cells.get(where)
    if cell is None:
        return ""
    text = style.dash
    layout = dataclasses.replace(layout, digits=_digits(table, where[2], layout))
    if cell.mean is not None:
        text = _summary(cell, style, layout)
        text = style.best(text) if cell.best else text
        text = style.second(text) if cell.second else text
        marks = {
            WORSE: cell.worse,
            WORSE_THAN_MEAN: cell.worse_than_mean,
            COLLAPSE: cell.collapsed,
            DEGENERATE: cell.degenerate,
        }
        text += style.mark("".join(mark for mark, holds in marks.items() if holds))
    remarks = _remarks(table, cell, where[2], style, layout)
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _summary(cell: Cell, style: Style, layout: Layout) -> str:
    """The mean and the parts beside it, with the decimals that the standard deviation decides."""
    assert cell.mean is not None
    places = decimals(cell.mean, cell.sd) if layout.digits is None else layout.digits
    text = number(cell.mean, places, style)
    if "sd" in layout.parts and cell.sd is not None:
        rounds_to_zero = layout.digits is None and 0 < cell.sd < 0.5 * 10.0**-places
        text += f" {style.plus_minus} {number(cell.sd, MOST_DECIMALS + 1 if rounds_to_zero else places, style)}"
    if "interval" in layout.parts and (bounds := interval(cell.values, layout.interval)) is not None:
        text += f" [{number(bounds[0], places, style)}, {number(bounds[1], places, style)}]"
    if "median" in layout.parts:
        text += f", median {number(float(np.median(cell.values)), places, style)}"
    if "iqm" in layout.parts:
        text += f", IQM {number(interquartile_mean(cell.values), places, style)}"
    return text


def _remarks(table: Table, cell: Cell, metric: str, style: Style, layout: Layout) -> list[str]:
    """What a reader must not overlook; what is the same for all metrics of a row is said at the first one."""
    is_first = metric == table.metrics[0]
    remarks = [f"n={cell.n}"] if cell.n and (table.n is None or "n" in layout.parts) else []
    for status, count in cell.counts.items():
        if status not in FINISHED:
            reasons = cell.reasons.get(status)
            reason = f": {_brief(reasons)}" if reasons and is_first and not cell.n else ""
            remarks.append(style.escape(f"{count} {status}{reason}"))
    remarks += [f"{count} null{style.mark(table.null_marks[metric, reason])}" for reason, count in cell.nulls.items()]
    if cell.collapsed and is_first and len(table.collapses) > 1:  # equal counts stand in the notes
        remarks.append(f"{cell.collapsed} of {cell.averaged} collapsed")
    if cell.lacks and cell.n:
        remarks.append("incomplete")
    if cell.partial:
        unit = "run" if table.averaging.folds == 1 else "seed"
        remarks.append(f"{plural(cell.partial, unit)} without all folds")
    if cell.absent and cell.absent < sum(cell.counts.get(status, 0) for status in FINISHED):
        remarks.append(f"{cell.absent} without this metric")
    return remarks


def _brief(reasons: tuple[str, ...]) -> str:
    """The first of several reasons, shortened, and how many others there are."""
    first, *others = merged(reasons)
    text = " ".join(first.split())
    text = text if len(text) <= REASON_LENGTH else f"{text[: REASON_LENGTH - 3]}..."
    return f"{text}, and {plural(len(others), 'other reason')}" if others else text


# ----------------------------------------------------------------------------------------------------------- published


def _published(table: Table, entry: Reproduction, mark: str, style: Style, layout: Layout) -> list[str]:
    """One row under the heads `PUBLISHED`."""
    theirs = entry.published
    layout = dataclasses.replace(layout, digits=_digits(table, theirs.metric, layout))
    places = _places(entry) if layout.digits is None else layout.digits
    ours = style.dash
    if entry.cell.mean is not None:
        has_no_error = not entry.cell.sd or entry.cell.sd < 0.5 * 10.0**-places
        digits = places if has_no_error and layout.digits is None else layout.digits
        ours = f"{_summary(entry.cell, style, dataclasses.replace(layout, digits=digits))} (n={entry.cell.n})"
    value = number(theirs.value, places, style)
    if theirs.error is not None:
        value += f" {style.plus_minus} {shown(theirs.error)}"
    difference = style.dash
    if entry.difference is not None:
        difference = ("+" if entry.difference > 0 else "") + number(entry.difference, places, style)
        if entry.verdict != "not comparable" and entry.allowed is not None:
            difference += f" (allowed {shown(float(f'{entry.allowed:.2g}'))})"
    head = [style.escape(theirs.label) + style.mark(mark), style.escape(named(theirs.metric))]
    where = style.escape(settings((*table.row_keys, *table.column_keys), (*entry.row, *entry.column)))
    return [*head, where, ours, value, difference, entry.verdict]


def _places(entry: Reproduction) -> int:
    """Decimals that show our error, their value as it was written, and a tenth of the allowed difference."""
    places = [len(f"{entry.published.value:.10g}".partition(".")[2])]
    if entry.cell.mean is not None:
        places.append(decimals(entry.cell.mean, entry.cell.sd))
    if entry.allowed:
        places.append(1 - math.floor(math.log10(entry.allowed)))
    return max(places)


def _source(entry: Reproduction) -> str:
    return entry.published.source + (f". Not comparable: {entry.reason}" if entry.reason else "") + "."


# ------------------------------------------------------------------------------------------- caption and provenance


def caption(table: Table, layout: Layout = PLAIN) -> str:
    """What the means are over, what bold and underlined mean, and what stands beside a mean."""
    over = table.averaging
    dimensions = [f"{named(SEED)} ({over.seeds} values)"] if over.seeds > 1 else []
    values_of = lambda key: f"{named(key)} ({plural(len(distinct(table.runs, key)), 'value')})"
    inner = [*dimensions, *(values_of(key) for key in over.keys if key not in over.over)]
    dimensions = [values_of(key) for key in over.over] or inner
    folds = f"{named(FOLD)} ({over.folds} values)"
    if over.over_folds:
        seeds = distinct(table.runs, SEED)
        dimensions = [folds + (f" at the one seed {seeds[0]}" if len(seeds) == 1 else "")]
    text = f"{table.runs.name}: one run in every cell"
    if dimensions:
        mean = "mean" if table.n == 1 or "sd" not in layout.parts else "mean ± standard deviation (n-1)"
        text = f"{table.runs.name}: {mean} over {listed(dimensions)}"
        inner = inner if over.over else []
        inner += [folds] if over.folds > 1 and not over.over_folds else []
        text += f", each the mean over {listed(inner)}" if inner else ""
        if table.n is not None:
            numbered = " that has a number" if any(not cell.n for cell in table.cells.values()) else ""
            text += f"; n={table.n} in every cell{numbered}" + (": no standard deviation" if table.n == 1 else "")
    text += f".{_best(table)}"
    kind = {"t": "t interval", "bootstrap": "bootstrap interval, too narrow below ten numbers"}[layout.interval]
    parts = [f"in brackets: 95 % {kind} of the mean"] if "interval" in layout.parts else []
    parts += ["IQM: mean without the lowest and highest quarter"] if "iqm" in layout.parts else []
    legend = "; ".join(parts)
    return f"{text} {legend[0].upper()}{legend[1:]}." if legend else text


def _best(table: Table) -> str:
    """Explain bold and underlined, and name the tests."""
    if not any(cell.best for cell in table.cells.values()):
        return ""
    text = " Bold: the best mean of a column among cells all of whose runs finished"
    tests = [judged.seeds for judged in table.judged.values() if judged.seeds is not None]
    untested_seeds = [judged.untested for judged in table.judged.values() if judged.untested is not None]
    over = listed([*map(named, table.averaging.over)]) if table.averaging.over else ""
    untested = ""
    if untested_seeds:
        units = f"{plural(min(untested_seeds), 'value')} of {over}" if over else plural(min(untested_seeds), "seed")
        untested = f"There is no test with {units}"
    needed = f"it needs {SMALLEST} that all rows have"
    if not tests:
        text += f". {untested}: {needed}."
    else:
        low, high = min(low for low, _ in tests), max(high for _, high in tests)
        seeds = f"{low}" if low == high else f"{low} to {high}"
        rows = max(judged.rows for judged in table.judged.values())
        correction = f" with Holm's correction for up to {rows} rows" if rows > 1 else ""
        tests_made = f"both by a paired t test{correction} and by permuting the rows within the seeds"
        if over:
            tests_made = f"by Wilcoxon's signed-rank test of every pair over {over}, with Holm's correction"
        text += f", and all that are not significantly worse (n={seeds}; {tests_made}, 5 %, two-sided)"
        text += f". {untested} ({needed}): the best mean alone is bold." if untested else "."
    if any(cell.second for cell in table.cells.values()):
        text += " Underlined: the second best mean."
    return text


def origins(runs: Runs) -> dict[str, str]:
    """Kind of origin -> its values, over all runs that have a result.

    The sweep is named by the SHA-256 of its run ids, sorted, one a line; a run id holds the hash of its config.
    """
    results = [run for run in runs if run.written is not None]
    run_ids = "\n".join(sorted(run.run_id for run in runs))
    facts = {"Sweep": hashlib.sha256(run_ids.encode()).hexdigest()[:HASH_DIGITS]}
    if results:
        facts["Commit"] = _distinct(run.commit and short_commit(run.commit) for run in results)
        if again := [short_commit(run.evaluation_commit) for run in results if run.evaluation_commit]:
            facts["Commit of later evaluations"] = _distinct(again)
        facts["Data SHA-256"] = _hashes(run.data_sha256 and run.data_sha256[:HASH_DIGITS] for run in results)
        facts["Mode"] = _distinct(run.program for run in results)
    versions: dict[str, set[str]] = {}
    for run in results:
        for name, text in run.versions.items():
            versions.setdefault(name, set()).add(text)
    if versions:
        facts["Versions"] = ", ".join(f"{name} {' or '.join(sorted(texts))}" for name, texts in versions.items())
    return facts


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value or "unknown" for value in values}))


def _hashes(values: Iterable[str | None]) -> str:
    """The hashes, or if there are more than ten, the hash of all of them as they would stand here."""
    text = _distinct(values)
    count = text.count(", ") + 1
    return text if count <= SHOWN_HASHES else f"{hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]} of {count}"


def newest(runs: Runs) -> str:
    """The time of the newest result, in words."""
    times = [run.written for run in runs if run.written is not None]
    return f"newest result {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else "no result yet"


def provenance(table: Table) -> str:
    """One line below a table: runs by status, hashes of sweep, data and code, modes, n, and the newest result."""
    runs = table.everything
    facts = origins(runs)
    statuses = ", ".join(f"{count} {status}" for status, count in count_statuses(runs).items())
    parts = [f"{plural(len(runs), 'run')}: {statuses}", f"sweep {facts['Sweep']}"]
    if "Commit" in facts:
        later = facts.get("Commit of later evaluations")
        counts = sorted({cell.n for cell in table.cells.values()})
        parts += [
            f"data sha256 {facts['Data SHA-256']}",
            f"commit {facts['Commit']}" + (f", evaluated again by {later}" if later else ""),
            f"mode {facts['Mode']}",
            f"n={counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else ""),
            newest(runs),
        ]
    return "; ".join(parts) + "."
