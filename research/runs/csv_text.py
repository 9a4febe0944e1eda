"""The text of a CSV file whose cells no spreadsheet takes for formulas."""

import csv
import io
from collections.abc import Iterable
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # how a cell begins that spreadsheets run (OWASP, CSV injection)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as lines of CSV; text that begins as a formula gets an apostrophe, numbers stay what they are."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue()


def guarded(cell: Any) -> Any:
    """A cell, with an apostrophe before text that a spreadsheet would run; `-1.5` is a number, as text too."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
