"""A table as Markdown, LaTeX (booktabs) or CSV."""

import csv as csv_file
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable
from typing import Any

from research.metrics import direction
from research.report.caption import caption, merged, notes, plural, provenance
from research.report.cell import Cell
from research.report.collect import FINISHED, STATUSES, Hole
from research.report.table import COLLAPSE, WORSE, Table, Values

REASON_LENGTH = 60


@dataclasses.dataclass(frozen=True)
class Style:
    """How a kind of document writes what all kinds share."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    mark: Callable[[str], str]
    power: Callable[[str, int], str]  # digits and exponent of a number too large or small to write out
    plus_minus: str
    dash: str
    better: dict[str, str]  # arrows


# ------------------------------------------------------------------------------------------------------------- numbers


def decimals(mean: float, sd: float | None) -> int:
    """Decimals that show two significant digits of `sd`, or four of `mean` where there is no sd."""
    size, digits = (sd, 2) if sd else (mean, 4)
    if not size or not math.isfinite(size):
        return 3
    exponent = int(f"{abs(size):.{digits - 1}e}".partition("e")[2])  # of the rounded number: .0996 has that of .10
    return max(0, digits - 1 - exponent)


def _number(value: float, places: int, style: Style) -> str:
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e7 or places > 9:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return style.power(digits, int(exponent))
    return f"{value:.{places}f}"


def _value(value: Any) -> str:
    """A value of a config key."""
    if isinstance(value, Hole):
        return value.value
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


# --------------------------------------------------------------------------------------------------------------- cells


def _cell(table: Table, place: tuple[Values, Values, str], style: Style, digits: int | None) -> str:
    """One cell: mean ± sd, marks, then in parentheses what a reader must not overlook."""
    cell = table.cells.get(place)
    if cell is None:  # never planned
        return ""
    text = style.dash
    if cell.mean is not None:
        places = decimals(cell.mean, cell.sd) if digits is None else digits
        text = _number(cell.mean, places, style)
        if cell.sd is not None:
            text += f" {style.plus_minus} {_number(cell.sd, places, style)}"
        text = style.bold(text) if cell.best else text
        text += style.mark((WORSE if cell.worse else "") + (COLLAPSE if cell.collapsed else ""))
    remarks = _remarks(table, cell, place[2], style)
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _remarks(table: Table, cell: Cell, metric: str, style: Style) -> list[str]:
    remarks = [f"n={cell.n}"] if cell.n and table.n is None else []
    for status, count in cell.counts.items():
        if status not in FINISHED:
            remark = f"{count} {status}"
            if not cell.n and metric == table.metrics[0] and cell.reasons.get(status):  # once a row, where no number is
                remark += f": {_shortened(cell.reasons[status])}"
            remarks.append(style.escape(remark))
    remarks += [f"{count} null{style.mark(table.null_marks[metric, reason])}" for reason, count in cell.nulls.items()]
    if cell.collapsed and metric == table.metrics[0] and len(table.collapses) > 1:  # once a row, or else in the notes
        remarks.append(f"{cell.collapsed} of {cell.averaged} collapsed")
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


def _header(metric: str, style: Style) -> str:
    arrow = style.better.get(direction(metric))
    return style.escape(metric) + (f" {arrow}" if arrow else "")


def _column(table: Table, column: Values) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in zip(table.column_keys, column, strict=True))


def _rows(table: Table, style: Style, digits: int | None) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the models and those of the baselines, values of the row keys first."""
    places = [(column, metric) for column in table.columns for metric in table.metrics]
    models = []
    for row in table.rows:
        head = [style.escape(_value(value)) for value in row] or ["all runs"]
        models.append(head + [_cell(table, (row, *place), style, digits) for place in places])
    exact = []
    for baseline in table.baselines:
        head = [style.escape(_value(value)) for value in baseline.row] or [""]
        free = [index for index, value in enumerate(baseline.row) if value is Hole.ANY] or [0]
        named = table.row_keys.index("model") if "model" in table.row_keys else free[0]
        index = named if named in free else free[0]
        head[index] = ", ".join(part for part in (style.escape(baseline.label), head[index]) if part)
        values = [baseline.cells.get(place) for place in places]
        numbers = [
            "" if v is None else _number(v, decimals(v, None) if digits is None else digits, style) for v in values
        ]
        exact.append(head + numbers)
    return models, exact


# ------------------------------------------------------------------------------------------------------------ Markdown


def _escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table and outside."""
    text = re.sub(r"([\\`*|~$<>])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)  # inside a word it is plain
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("](", "]\\(")


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

MARKDOWN = Style(
    escape=_escape_markdown,
    bold=lambda text: f"**{text}**",
    mark=lambda mark: mark.translate(_SUPERSCRIPT),
    power=lambda digits, exponent: f"{digits}e{exponent}",
    plus_minus="±",
    dash="—",
    better={"lower": "↓", "higher": "↑"},
)


def markdown(table: Table, digits: int | None = None) -> str:
    """The table for a terminal or a README; `digits` fixes the decimals, else the standard deviation decides them."""
    models, exact = _rows(table, MARKDOWN, digits)
    head = [_escape_markdown(key) for key in table.row_keys] or [""]
    for column in table.columns:
        name = _escape_markdown(_column(table, column))
        head += [
            f"{name}: {_header(metric, MARKDOWN)}" if name else _header(metric, MARKDOWN) for metric in table.metrics
        ]
    rule = [["*baselines*", *[""] * (len(head) - 1)]] if exact else []
    body = [head, *models, *rule, *exact]
    widths = [max(3, *(len(row[index]) for row in body)) for index in range(len(head))]
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |" for row in body]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    beside = [f"- {MARKDOWN.mark(mark)} {_escape_markdown(text)}".replace("-  ", "- ") for mark, text in notes(table)]
    blocks = [
        _escape_markdown(caption(table)),
        "\n".join(lines),
        "\n".join(beside),
        _escape_markdown(provenance(table.runs)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


# --------------------------------------------------------------------------------------------------------------- LaTeX

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",  # \textquotedbl needs a T1 font
    "[": "{[}",  # after \\ and \midrule a bracket or a star would be an argument
    "]": "{]}",
    "*": "{*}",
    "—": r"\textemdash{}",
    "–": r"\textendash{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "×": r"$\times$",
} | {character: f"\\{character}" for character in "_%&#${}"}


def _escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; a character that plain pdflatex has no glyph for becomes its code point."""

    def one(character: str) -> str:
        if character in _LATEX:
            return _LATEX[character]
        return character if " " <= character <= "~" or "À" <= character <= "ſ" else f"{{[}}U+{ord(character):04X}{{]}}"

    return re.sub("-(?=-)", "-{}", "".join(map(one, " ".join(text.split()))))  # two hyphens would join to a dash


LATEX = Style(
    escape=_escape_latex,
    bold=lambda text: rf"\textbf{{{text}}}",
    mark=lambda mark: rf"\textsuperscript{{{_escape_latex(mark)}}}" if mark else "",
    power=lambda digits, exponent: rf"${digits}\times 10^{{{exponent}}}$",
    plus_minus=r"$\pm$",
    dash="---",
    better={"lower": r"$\downarrow$", "higher": r"$\uparrow$"},
)


def latex(table: Table, digits: int | None = None) -> str:
    r"""A `table` environment for `\input`, notes beneath; the document needs the package booktabs."""
    models, exact = _rows(table, LATEX, digits)
    keys = max(1, len(table.row_keys))
    width = len(table.metrics)
    head = [_escape_latex(key) for key in table.row_keys] or [""]
    head += [_header(metric, LATEX) for _ in table.columns for metric in table.metrics]
    lines = [r"\toprule"]
    if table.column_keys:
        groups = [
            rf"\multicolumn{{{width}}}{{c}}{{{_escape_latex(_column(table, column))}}}" for column in table.columns
        ]
        lines.append(" & ".join([*[""] * keys, *groups]) + r" \\")
        first = [keys + 1 + index * width for index in range(len(table.columns))]
        lines.append(" ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in first))
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in models]
    if exact:
        lines += [r"\midrule", *(" & ".join(row) + r" \\" for row in exact)]
    lines.append(r"\bottomrule")
    beside = [
        f"{LATEX.mark(mark)}{_escape_latex(text)}" for mark, text in [*notes(table), ("", provenance(table.runs))]
    ]
    name = re.sub(r"[^A-Za-z0-9-]+", "-", table.runs.name)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(caption(table))}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{{'l' * keys}{'r' * (len(head) - keys)}}}",
            *lines,
            r"\end{tabular}",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(rf"{text}\par" for text in beside),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


# ----------------------------------------------------------------------------------------------------------------- CSV


def csv(table: Table) -> str:
    """One line a cell, numbers exact, with the runs of each status and the ids of all runs of the cell."""
    statuses = list(dict.fromkeys([*STATUSES, *(status for cell in table.cells.values() for status in cell.counts)]))
    file = io.StringIO()
    writer = csv_file.writer(file, lineterminator="\n")
    keys = [*table.row_keys, *table.column_keys]
    numbers = ["mean", "sd", "n", "best", "worse_than"]
    beside = ["null", "null_reasons", "without_metric", "without_all_folds", "collapsed", "runs"]
    writer.writerow([*keys, "kind", "metric", "better", *numbers, *statuses, *beside])

    def exact(number: float | None) -> str:
        return "" if number is None else repr(number)

    def head(row: Values, column: Values, kind: str, metric: str) -> list[str]:
        return [*map(_value, row), *map(_value, column), kind, metric, direction(metric)]

    for (row, column, metric), cell in table.cells.items():
        summary = [exact(cell.mean), exact(cell.sd), cell.n, int(cell.best), cell.worse or ""]
        counts = [cell.counts.get(status, 0) for status in statuses]
        left_out = [sum(cell.nulls.values()), "; ".join(cell.nulls), cell.absent, cell.partial, cell.collapsed]
        writer.writerow([*head(row, column, "model", metric), *summary, *counts, *left_out, ";".join(cell.runs)])
    for baseline in table.baselines:
        for (column, metric), value in baseline.cells.items():
            empty = [""] * (len(numbers) - 1 + len(statuses) + len(beside))
            writer.writerow([*head(baseline.row, column, baseline.method, metric), exact(value), *empty])
    return file.getvalue()
