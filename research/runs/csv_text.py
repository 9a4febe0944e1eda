"""CSV text whose cells no spreadsheet program takes for formulas."""

import csv
import io
from collections.abc import Iterable
from typing import Any

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
)  # first characters of cells that spreadsheet programs run (OWASP: CSV injection)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as lines of CSV, with every cell guarded."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue()


def guarded(cell: Any) -> Any:
    """The cell, with an apostrophe before text that a spreadsheet program would run; `-1.5` is a number and stays."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
