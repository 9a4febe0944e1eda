"""CSV files: `metrics.csv`, one row for each evaluation during training, and text that no spreadsheet program runs."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.errors import ConfigError
from research.runs.files import Held, clear_errors, refuse_links, write_atomically

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
)  # first characters of cells that spreadsheets run (OWASP: CSV injection)


class MetricsFile:
    """The file `metrics.csv` of a run. Its first row fixes the columns; one column is `step`.

    A killed process may leave an unfinished last line, which is never read and is removed before a row is appended.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._columns: list[str] = []  # none: the file was not opened for writing yet
        self._last_step = -math.inf

    def append(self, rows: Sequence[Mapping[str, Any]], lease: Held) -> None:
        """Append evaluations, each with its `step`, in one open, write and close.

        Rows on disk from the first new step on are replaced, so that a resumed run repeats nothing.

        Raises:
          ValueError: a row has no step, or a column that the first row of the file does not have.
        """
        if not rows:
            return
        columns, kept = self._columns, None
        if not columns or any(row.get("step", math.inf) <= self._last_step for row in rows):
            columns, *kept = self._rows() or [list(rows[0])]
        for row in rows:
            unknown = [name for name in row if name not in columns]
            if unknown or "step" not in row:
                problem = f"unknown column {unknown[0]!r}" if unknown else "no step"
                raise ValueError(f"metrics row: {problem}; the columns are {columns}")
        latest = {row["step"]: row for row in rows}  # of several rows for one step the last one counts
        steps = sorted(latest)
        lines = [[_cell(latest[step].get(name)) for name in columns] for step in steps]
        if kept is None:
            lease.check()
            with clear_errors(self.path.parent), open(self.path, "ab") as file:
                file.write(_text(lines))
        else:
            at = columns.index("step")
            kept = [row for row in kept if float(row[at]) < steps[0]]
            write_atomically(self.path, _text([columns, *kept, *lines]), lease)
        self._columns, self._last_step = columns, steps[-1]

    def cut(self, last_step: int, lease: Held) -> None:
        """Drop the rows after a step, which will be written again."""
        rows = self._rows()
        if rows and "step" in rows[0]:
            at = rows[0].index("step")
            kept = [row for row in rows[1:] if float(row[at]) <= last_step]
            write_atomically(self.path, _text([rows[0], *kept]), lease)
            self._columns = []

    def read(self) -> list[dict[str, float]]:
        """The rows as numbers in order of step; cells that are empty or hold text are left out."""
        header, *rows = self._rows() or [[]]
        numbers = []
        for row in rows:
            cells = ((name, _number(cell)) for name, cell in zip(header, row, strict=True))
            numbers.append({name: value for name, value in cells if value is not None})
        return numbers

    def _rows(self) -> list[list[str]]:
        """Header and rows, each with a step, without an unfinished last line; nothing if there is no file."""
        if not self.path.exists():
            return []
        refuse_links(self.path)
        try:
            text = self.path.read_text(encoding="utf-8")
            rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
            rows = [row for row in rows if len(row) == len(rows[0])]
            for row in rows[1:]:
                int(float(row[rows[0].index("step")]))
        except (ValueError, OverflowError, csv.Error) as error:
            remedy = f"metrics.csv is damaged ({error}); restore it, or train the run anew under another name="
            raise ConfigError("folder", self.path.parent, remedy) from None
        return rows


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as lines of CSV, with every cell guarded."""
    return _text([guarded(cell) for cell in row] for row in rows).decode()


def guarded(cell: Any) -> Any:
    """The cell, with an apostrophe before text that a spreadsheet program would run; `-1.5` is a number and stays."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA) or _number(cell) is not None:
        return cell
    return f"'{cell}"


def _text(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
