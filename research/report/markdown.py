"""A table as Markdown, for a terminal or a README."""

import re

from research.report.document import PUBLISHED, Notes, Rows, document
from research.report.layout import PLAIN, Layout, Style
from research.report.table import Table

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, inside a table and outside."""
    text = re.sub(r"([\\`*|~$<>])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)  # inside a word Markdown leaves it alone
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("](", "]\\(")


MARKDOWN = Style(
    escape=_escape,
    name=_escape,
    best=lambda text: f"**{text}**",
    second=lambda text: f"<u>{text}</u>",
    mark=lambda mark: mark.translate(_SUPERSCRIPT),
    power=lambda digits, exponent: f"{digits}e{exponent}",
    plus_minus="±",
    dash="—",
    better={"lower": " ↓", "higher": " ↑"},
)


def markdown(table: Table, layout: Layout = PLAIN) -> str:
    """The caption, the table, its notes, published values, and the provenance."""
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
