"""What a notebook shows: tables as HTML, figures as pictures."""

import base64
import dataclasses
import html
from collections.abc import Sequence
from itertools import chain

from research.report.document import document
from research.report.figures.scene import Drawn
from research.report.formats import markdown
from research.report.page import STYLE
from research.report.table import Table
from research.report.texts import PLAIN

NOTEBOOK = dataclasses.replace(STYLE, name=html.escape, better={"lower": "&nbsp;↓", "higher": "&nbsp;↑"})


@dataclasses.dataclass(frozen=True, repr=False)
class ShownTable:
    """A table that shows itself: `str(table)` and `print` as Markdown, in a notebook as HTML.

    Attributes:
      content: the table with all its numbers (`research.report.table.Table`).
    """

    content: Table

    def __str__(self) -> str:
        return markdown(self.content)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        texts = document(self.content, NOTEBOOK, PLAIN)
        heads = [*texts.keys, *texts.metrics * max(1, len(texts.columns))]
        above = ""
        if self.content.column_keys:
            spans = (f'<th colspan="{len(texts.metrics)}">{column}</th>' for column in texts.columns)
            above = f"<tr>{'<th></th>' * len(texts.keys)}{''.join(spans)}</tr>"
        separator = [f'<tr><td colspan="{len(heads)}"><em>baselines</em></td></tr>'] if texts.baselines else []
        lines = [*map(_row, texts.models), *separator, *map(_row, texts.baselines)]
        notes = [f"<li>{mark} {text}</li>" for mark, text in chain(texts.notes, texts.sources)]
        return (
            f"<table><caption>{texts.caption}</caption><thead>{above}{_row(heads, 'th')}</thead>"
            f"<tbody>{''.join(lines)}</tbody></table><ul>{''.join(notes)}</ul>"
        )


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


class Figures(tuple[Drawn, ...]):
    """Figures of one kind. Each has the bytes of its files (`svg`, `pdf`, `png`), a title and a caption."""

    def _repr_html_(self) -> str:
        return "".join(
            f'<figure><img src="data:image/png;base64,{base64.b64encode(figure.png).decode()}" '
            f'alt="{html.escape(figure.title)}" style="max-width: 100%"><figcaption>{html.escape(figure.caption)}'
            "</figcaption></figure>"
            for figure in self
        )

    def __repr__(self) -> str:
        return f"<figures {', '.join(figure.name for figure in self)}>"
