"""The three kinds of tables: Markdown for a terminal or a README, LaTeX for a paper, CSV with exact numbers."""

import re
import unicodedata
from typing import Any

import numpy as np

from research.metrics import direction
from research.report.cell import Values
from research.report.collect import STATUSES
from research.report.document import PUBLISHED, Notes, Rows, document
from research.report.statistics import interquartile_mean, interval
from research.report.table import Table
from research.report.texts import PLAIN, Layout, Style, shown
from research.runs.csv_files import csv_text

# ------------------------------------------------------------------------------------------------------------ Markdown


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table and outside."""
    text = re.sub(r"([\\`*|~$<>])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)  # inside a word Markdown leaves it alone
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("](", "]\\(")


MARKDOWN = Style(
    escape=_escape_markdown,
    name=_escape_markdown,
    best=lambda text: f"**{text}**",
    second=lambda text: f"<u>{text}</u>",
    mark=lambda mark: mark.translate(_SUPERSCRIPT),
    power=lambda digits, exponent: f"{digits}e{exponent}",
    plus_minus="±",
    dash="—",
    better={"lower": " ↓", "higher": " ↑"},
)


def markdown(table: Table, layout: Layout = PLAIN) -> str:
    """The caption, the table, its notes, published values, and the provenance, for a terminal or a README."""
    texts = document(table, MARKDOWN, layout)
    heads = [f"{column}: {metric}" if column else metric for column in texts.columns for metric in texts.metrics]
    heads = [*texts.keys, *heads]
    rule = [["*baselines*", *[""] * (len(heads) - 1)]] if texts.baselines else []
    blocks = [texts.caption, _grid([heads, *texts.models, *rule, *texts.baselines]), _listed(texts.notes)]
    if texts.published:
        blocks += [_grid([list(PUBLISHED), *texts.published]), _listed(texts.sources)]
    return "\n\n".join(block for block in [*blocks, texts.provenance] if block) + "\n"


def _grid(rows: Rows) -> str:
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def _listed(notes: Notes) -> str:
    return "\n".join(f"- {mark} {text}".replace("-  ", "- ") for mark, text in notes)


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
    "[": "{[}",  # LaTeX takes a bracket or a star after \\ or \midrule for an argument
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
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
)
_LATEX |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {name}"): rf"$\{'lambda' if name == 'lamda' else name}$"
    for name in _GREEK.split()
}

_UNSET = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")  # the font encoding of a plain document lacks them


def _escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; a character that plain pdflatex has no glyph for becomes its code point."""

    def escaped(character: str) -> str:
        if character in _LATEX:
            return _LATEX[character]
        known = " " <= character <= "~" or ("À" <= character <= "ſ" and character not in _UNSET)
        return character if known else f"{{[}}U+{ord(character):04X}{{]}}"

    return re.sub("-(?=-)", "-{}", "".join(map(escaped, " ".join(text.split()))))  # two hyphens would become a dash


LATEX = Style(
    escape=_escape_latex,
    name=_escape_latex,
    best=lambda text: rf"\textbf{{{text}}}",
    second=lambda text: rf"\underline{{{text}}}",
    mark=lambda mark: rf"\textsuperscript{{{_escape_latex(mark)}}}" if mark else "",
    power=lambda digits, exponent: rf"${digits}\times 10^{{{exponent}}}$",
    plus_minus=r"$\pm$",
    dash="---",
    better={"lower": r" $\downarrow$", "higher": r" $\uparrow$"},
)


def latex(table: Table, layout: Layout = PLAIN) -> str:
    r"""A `table` environment for `\input`, with its notes; the document needs the packages booktabs and graphicx."""
    texts = document(table, LATEX, layout)
    keys, metrics = len(texts.keys), len(texts.metrics)
    lines = [r"\toprule"]
    if table.column_keys:
        columns = [rf"\multicolumn{{{metrics}}}{{c}}{{{column}}}" for column in texts.columns]
        first = [keys + 1 + index * metrics for index in range(len(columns))]
        lines.append(_row([*[""] * keys, *columns]))
        lines.append(" ".join(rf"\cmidrule(lr){{{start}-{start + metrics - 1}}}" for start in first))
    heads = [*texts.keys, *texts.metrics * len(texts.columns)]
    lines += [_row(heads), r"\midrule", *map(_row, texts.models)]
    if texts.baselines:
        lines += [r"\midrule", *map(_row, texts.baselines)]
    published = []
    if texts.published:
        body = [
            r"\toprule",
            _row([*map(_escape_latex, PUBLISHED)]),
            r"\midrule",
            *map(_row, texts.published),
            r"\bottomrule",
        ]
        published = [r"\par\medskip", *_tabular("lllrrrl", body)]
    name = re.sub(r"[^A-Za-z0-9-]+", "-", table.runs.name)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{texts.caption}}}",
            rf"\label{{tab:{name}}}",
            *_tabular("l" * keys + "r" * (len(heads) - keys), [*lines, r"\bottomrule"]),
            *published,
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(rf"{mark}{text}\par" for mark, text in [*texts.notes, *texts.sources, ("", texts.provenance)]),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(columns: str, lines: list[str]) -> list[str]:
    """A tabular, made smaller if it is wider than the text."""
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    return [fit, rf"\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}}"]


# ----------------------------------------------------------------------------------------------------------------- CSV


def spreadsheet(table: Table, layout: Layout = PLAIN) -> str:
    """One line for each cell, with the number of runs of each status and the ids of all runs of the cell."""
    statuses = list(dict.fromkeys([*STATUSES, *(status for cell in table.cells.values() for status in cell.counts)]))
    keys = [*table.row_keys, *table.column_keys]
    chosen = () if table.selection is None else table.selection.keys
    summaries = ["mean", "sd", "n", "low", "high", "median", "iqm"]  # low and high are the 95 % interval of the mean
    numbers = [*summaries, "best", "second", "p", "worse_than", "worse_than_mean", "degenerate_weights"]
    left_out_heads = ["null", "null_reasons", "without_metric", "without_all_folds", "lacks", "collapsed", "runs"]
    heads = [*keys, *(f"chosen {key}" for key in chosen), "kind", "metric", "better"]
    lines: list[list[Any]] = [[*heads, *numbers, *statuses, *left_out_heads]]

    def exact(number: float | None) -> str:
        return "" if number is None else repr(number)

    def head(row: Values, column: Values, kind: str, metric: str) -> list[str]:
        values = () if table.selection is None else table.selection.chosen.get((row, column), [""] * len(chosen))
        return [*map(shown, (*row, *column, *values)), kind, metric, direction(metric)]

    for (row, column, metric), cell in table.cells.items():
        low, high = interval(cell.values, layout.interval) or (None, None)
        middle = (float(np.median(cell.values)), interquartile_mean(cell.values)) if cell.values else (None, None)
        summary = [exact(cell.mean), exact(cell.sd), cell.n, *map(exact, (low, high, *middle))]
        summary += [int(cell.best), int(cell.second), exact(cell.p), cell.worse or ""]
        summary += [cell.worse_than_mean or "", cell.degenerate]
        counts = [cell.counts.get(status, 0) for status in statuses]
        left_out = [sum(cell.nulls.values()), "; ".join(cell.nulls), cell.absent, cell.partial, cell.lacks]
        left_out += [cell.collapsed, ";".join(cell.runs)]
        lines.append([*head(row, column, "model", metric), *summary, *counts, *left_out])
    for baseline in table.baselines:
        for (column, metric), value in baseline.cells.items():
            empty = [""] * (len(numbers) - 1 + len(statuses) + len(left_out_heads))
            lines.append([*head(baseline.row, column, baseline.method, metric), exact(value), *empty])
    return csv_text(lines)


def published(table: Table) -> str:
    """One line for each published value and cell of ours beside which it is printed."""
    keys = [*table.row_keys, *table.column_keys]
    heads = ["label", "metric", *keys, "ours", "sd", "n", "theirs", "error", "difference", "allowed"]
    lines: list[list[Any]] = [[*heads, "verdict", "reason", "source"]]
    for entry in table.published:
        theirs, cell = entry.published, entry.cell
        settings = map(shown, (*entry.row, *entry.column))
        numbers = [cell.mean, cell.sd, cell.n, theirs.value, theirs.error, entry.difference, entry.allowed]
        line = [theirs.label, theirs.metric, *settings, *("" if value is None else value for value in numbers)]
        lines.append([*line, entry.verdict, entry.reason, theirs.source])
    return csv_text(lines)
