"""A table as Markdown."""

import re

from research.report.caption import caption, notes, provenance
from research.report.render import PLAIN, PUBLISHED, Layout, Style, column_name, header, published_rows, rows, sources
from research.report.table import Table


def _escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table and outside."""
    text = re.sub(r"([\\`*|~$<>])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)  # inside a word it is plain
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("](", "]\\(")


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

MARKDOWN = Style(
    escape=_escape_markdown,
    best=lambda text: f"**{text}**",
    second=lambda text: f"<u>{text}</u>",
    mark=lambda mark: mark.translate(_SUPERSCRIPT),
    power=lambda digits, exponent: f"{digits}e{exponent}",
    plus_minus="±",
    dash="—",
    better={"lower": "↓", "higher": "↑"},
)


def markdown(table: Table, layout: Layout = PLAIN) -> str:
    """The table for a terminal or a README."""
    models, exact = rows(table, MARKDOWN, layout)
    head = [_escape_markdown(key) for key in table.row_keys] or [""]
    for column in table.columns:
        name = _escape_markdown(column_name(table, column))
        head += [
            f"{name}: {header(metric, MARKDOWN)}" if name else header(metric, MARKDOWN) for metric in table.metrics
        ]
    rule = [["*baselines*", *[""] * (len(head) - 1)]] if exact else []
    blocks = [
        _escape_markdown(caption(table, layout.parts) + layout.words),
        _grid([head, *models, *rule, *exact]),
        _listed(notes(table)),
    ]
    if table.published:
        blocks += [_grid([list(PUBLISHED), *published_rows(table, MARKDOWN, layout)]), _listed(sources(table))]
    blocks += [_escape_markdown(provenance(table))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _grid(body: list[list[str]]) -> str:
    widths = [max(3, *(len(row[index]) for row in body)) for index in range(len(body[0]))]
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |" for row in body]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def _listed(texts: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {MARKDOWN.mark(mark)} {_escape_markdown(text)}".replace("-  ", "- ") for mark, text in texts)
