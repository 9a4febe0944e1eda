"""What every kind of document shares of a table: numbers, cells, marks and rows as texts."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from research.metrics import direction
from research.report.caption import merged
from research.report.cell import EQUAL, Cell
from research.report.collect import FINISHED, Hole
from research.report.published import Beside
from research.report.statistics import IntervalKind, interquartile_mean, interval
from research.report.table import COLLAPSE, DEGENERATE, WORSE, WORSE_THAN_MEAN, Table, Values
from research.report.texts import plural, shown

REASON_LENGTH = 60
MOST_DECIMALS = 9  # of a number that is not itself smaller than
SMALL = 1e-4


@dataclasses.dataclass(frozen=True)
class Style:
    """How a kind of document writes what all kinds share."""

    escape: Callable[[str], str]
    best: Callable[[str], str]
    second: Callable[[str], str]
    mark: Callable[[str], str]
    power: Callable[[str, int], str]  # digits and exponent of a number too large or small to write out
    plus_minus: str
    dash: str
    better: dict[str, str]  # arrows


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a cell shows: decimals (None: two digits of the error), `cli.PARTS`, and how an interval is made."""

    digits: int | None = None
    parts: tuple[str, ...] = ("sd",)
    interval: IntervalKind = "t"

    @property
    def words(self) -> str:
        """What a reader must know of the parts that the caption does not speak of; empty, or text after a space."""
        kind = {"t": "t interval", "bootstrap": "bootstrap interval, too narrow below ten numbers"}[self.interval]
        texts = [f"in brackets: 95 % {kind} of the mean"] if "interval" in self.parts else []
        texts += ["IQM: mean without the lowest and highest quarter"] if "iqm" in self.parts else []
        text = "; ".join(texts)
        return f" {text[0].upper()}{text[1:]}." if text else ""


PLAIN = Layout()

# ------------------------------------------------------------------------------------------------------------- numbers


def decimals(mean: float, sd: float | None) -> int:
    """Decimals that show two significant digits of `sd`, or four of `mean` where there is no sd."""
    size, digits = (sd, 2) if sd and sd > EQUAL * abs(mean) else (mean, 4)  # equal numbers may differ by rounding
    if not size or not math.isfinite(size):
        return 3
    exponent = int(f"{abs(size):.{digits - 1}e}".partition("e")[2])  # of the rounded number: .0996 has that of .10
    places = max(0, digits - 1 - exponent)
    return min(places, MOST_DECIMALS) if abs(mean) >= SMALL else places


def number(value: float, places: int, style: Style) -> str:
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e7 or (places > MOST_DECIMALS and abs(value) < SMALL):
        digits, _, exponent = f"{value:.2e}".partition("e")
        return style.power(digits, int(exponent))
    return f"{round(value, places) + 0.0:.{places}f}"  # no -0.00


# --------------------------------------------------------------------------------------------------------------- cells


def cell_text(table: Table, place: tuple[Values, Values, str], style: Style, layout: Layout) -> str:
    """One cell: mean ± sd, marks, then in parentheses what a reader must not overlook."""
    cell = table.cells.get(place)
    if cell is None:  # never planned
        return ""
    text = style.dash
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
    remarks = _remarks(table, cell, place[2], style, layout)
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _summary(cell: Cell, style: Style, layout: Layout) -> str:
    """The mean and what is asked for beside it, to the decimals that the standard deviation decides."""
    assert cell.mean is not None
    places = decimals(cell.mean, cell.sd) if layout.digits is None else layout.digits
    text = number(cell.mean, places, style)
    if "sd" in layout.parts and cell.sd is not None:
        lost = layout.digits is None and 0 < cell.sd < 0.5 * 10.0**-places  # a zero would be wrong
        text += f" {style.plus_minus} {number(cell.sd, MOST_DECIMALS + 1 if lost else places, style)}"
    if "interval" in layout.parts and (found := interval(cell.values, layout.interval)) is not None:
        text += f" [{number(found[0], places, style)}, {number(found[1], places, style)}]"
    if "median" in layout.parts:
        text += f", median {number(float(np.median(cell.values)), places, style)}"
    if "iqm" in layout.parts:
        text += f", IQM {number(interquartile_mean(cell.values), places, style)}"
    return text


def _remarks(table: Table, cell: Cell, metric: str, style: Style, layout: Layout) -> list[str]:
    remarks = [f"n={cell.n}"] if cell.n and (table.n is None or "n" in layout.parts) else []
    for status, count in cell.counts.items():
        if status not in FINISHED:
            remark = f"{count} {status}"
            if not cell.n and metric == table.metrics[0] and cell.reasons.get(status):  # once a row, where no number is
                remark += f": {_shortened(cell.reasons[status])}"
            remarks.append(style.escape(remark))
    remarks += [f"{count} null{style.mark(table.null_marks[metric, reason])}" for reason, count in cell.nulls.items()]
    if cell.collapsed and metric == table.metrics[0] and len(table.collapses) > 1:  # once a row, or else in the notes
        remarks.append(f"{cell.collapsed} of {cell.averaged} collapsed")
    if cell.lacks and cell.n:
        remarks.append("incomplete")
    if cell.partial:
        unit = "run" if table.averaging.folds == 1 else "seed"
        remarks.append(f"{plural(cell.partial, unit)} without all folds")
    if cell.absent and cell.absent < sum(cell.counts.get(status, 0) for status in FINISHED):
        remarks.append(f"{cell.absent} without this metric")
    return remarks


def _shortened(reasons: tuple[str, ...]) -> str:
    first, *others = merged(reasons)
    text = " ".join(first.split())
    text = text if len(text) <= REASON_LENGTH else f"{text[: REASON_LENGTH - 3]}..."
    return f"{text}, and {plural(len(others), 'other reason')}" if others else text


def header(metric: str, style: Style) -> str:
    arrow = style.better.get(direction(metric))
    return style.escape(metric) + (f" {arrow}" if arrow else "")


def column_name(table: Table, column: Values) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in zip(table.column_keys, column, strict=True))


def rows(table: Table, style: Style, layout: Layout) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the models and those of the baselines, values of the row keys first."""
    places = [(column, metric) for column in table.columns for metric in table.metrics]
    models = []
    for row in table.rows:
        head = [style.escape(shown(value)) for value in row] or ["all runs"]
        models.append(head + [cell_text(table, (row, *place), style, layout) for place in places])
    exact = []
    for baseline in table.baselines:
        head = [style.escape(shown(value)) for value in baseline.row] or [""]
        free = [index for index, value in enumerate(baseline.row) if value is Hole.ANY] or [0]
        named = table.row_keys.index("model") if "model" in table.row_keys else free[0]
        index = named if named in free else free[0]
        head[index] = ", ".join(part for part in (style.escape(baseline.label), head[index]) if part)
        values = [baseline.cells.get(place) for place in places]
        numbers = [
            "" if v is None else number(v, decimals(v, None) if layout.digits is None else layout.digits, style)
            for v in values
        ]
        exact.append(head + numbers)
    return models, exact


# ----------------------------------------------------------------------------------------------------------- published

PUBLISHED = ("published", "metric", "for", "ours", "theirs", "ours - theirs", "verdict")


def published_rows(table: Table, style: Style, layout: Layout) -> list[list[str]]:
    """One row a published value, under the heads `PUBLISHED`; sources are told in `sources`."""
    keys = (*table.row_keys, *table.column_keys)
    found = []
    marks = _source_marks(table)
    for one in table.published:
        theirs = one.published
        values = [f"{key}={shown(value)}" for key, value in zip(keys, (*one.place[0], *one.place[1]), strict=True)]
        places = _places(one) if layout.digits is None else layout.digits
        ours = style.dash
        if one.cell.mean is not None:
            exact = not one.cell.sd or one.cell.sd < 0.5 * 10.0**-places
            digits = places if exact and layout.digits is None else layout.digits
            ours = f"{_summary(one.cell, style, dataclasses.replace(layout, digits=digits))} (n={one.cell.n})"
        text = number(theirs.value, places, style)
        if theirs.error is not None:
            text += f" {style.plus_minus} {shown(theirs.error)}"
        difference = style.dash
        if one.difference is not None:
            difference = ("+" if one.difference > 0 else "") + number(one.difference, places, style)
            if one.verdict != "not comparable" and one.allowed is not None:
                difference += f" (allowed {shown(float(f'{one.allowed:.2g}'))})"
        head = [style.escape(theirs.label) + style.mark(marks[_source(one)]), style.escape(theirs.metric)]
        found.append([*head, style.escape(", ".join(values)), ours, text, difference, one.verdict])
    return found


def _places(one: Beside) -> int:
    """Decimals that show our error, theirs as it was written, and a tenth of the difference that is allowed."""
    found = [written_decimals(one.published.value)]
    if one.cell.mean is not None:
        found.append(decimals(one.cell.mean, one.cell.sd))
    if one.allowed:
        found.append(1 - math.floor(math.log10(one.allowed)))
    return max(found)


def written_decimals(value: float) -> int:
    """Decimals that a number has as it was written."""
    return len(f"{value:.10g}".partition(".")[2])


def _source(one: Beside) -> str:
    return one.published.source + (f". Not comparable: {one.reason}" if one.reason else "") + "."


def _source_marks(table: Table) -> dict[str, str]:
    """Source -> footnote number, after those of nulls."""
    distinct = dict.fromkeys(map(_source, table.published))
    return {text: str(number) for number, text in enumerate(distinct, len(table.null_marks) + 1)}


def sources(table: Table) -> list[tuple[str, str]]:
    """(mark, text) of where published values were read, and why they are not comparable."""
    return [(mark, text) for text, mark in _source_marks(table).items()]
