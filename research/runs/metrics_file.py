"""`metrics.csv`: one row for each evaluation during training."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.runs.files import clear_errors, refuse_links, write_atomically
from research.runs.held import Held
from research.tree import ConfigError


class MetricsFile:
    """The file `metrics.csv` of a run. Its first row fixes the columns; one column is `step`.

    A killed process may leave an unfinished last line, which is never read and is removed before a row is appended.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._columns: list[str] | None = None  # None: the file was not opened for writing yet
        self._last_step = -math.inf

    def append(self, rows: Sequence[Mapping[str, Any]], lease: Held) -> None:
        """Append evaluations, each with its `step`, in one open, write and close.

        Rows on disk from the first new step on are replaced, so that a resumed run repeats nothing.

        Raises:
          ValueError: a row has no step, or a column that the first row of the file does not have.
        """
        if not rows:
            return
        columns = self._open(lease) or list(rows[0])
        for row in rows:
            unknown = [name for name in row if name not in columns]
            if unknown or "step" not in row:
                problem = f"unknown column {unknown[0]!r}" if unknown else "no step"
                raise ValueError(f"metrics row: {problem}; the columns are {columns}")
        latest = {row["step"]: row for row in rows}  # of several rows for one step the last one counts
        steps = sorted(latest)
        lines = [[_cell(latest[step].get(name)) for name in columns] for step in steps]
        if self._columns is None:
            write_atomically(self.path, _text([columns, *lines]), lease)
        elif steps[0] <= self._last_step:
            header, *present = self._rows()
            step = header.index("step")
            kept = [row for row in present if float(row[step]) < steps[0]]
            write_atomically(self.path, _text([header, *kept, *lines]), lease)
        else:
            lease.check()
            with clear_errors(self.path.parent), open(self.path, "ab") as file:
                file.write(_text(lines))
        self._columns, self._last_step = columns, steps[-1]

    def cut(self, last_step: int, lease: Held) -> None:
        """Drop the rows after a step, which will be written again."""
        if not self.path.exists():
            return
        header, *present = self._rows() or [[]]
        if "step" not in header:
            return
        kept = [row for row in present if float(row[header.index("step")]) <= last_step]
        write_atomically(self.path, _text([header, *kept]), lease)
        self._columns = None

    def read(self) -> list[dict[str, float]]:
        """The rows as numbers in order of step; cells that are empty or hold text are left out."""
        if not self.path.exists():
            return []
        header, *rows = self._rows() or [[]]
        numbers = []
        for row in rows:
            cells = ((name, _number(cell)) for name, cell in zip(header, row, strict=True))
            numbers.append({name: value for name, value in cells if value is not None})
        return numbers

    def _rows(self) -> list[list[str]]:
        """Header and rows, each with a step, without an unfinished last line."""
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

    def _open(self, lease: Held) -> list[str] | None:
        """The columns on disk, or None if there are none; an unfinished last line is removed."""
        if self._columns is None and self.path.exists():
            rows = self._rows()
            if rows:
                write_atomically(self.path, _text(rows), lease)
                self._columns = rows[0]
                self._last_step = float(rows[-1][rows[0].index("step")]) if len(rows) > 1 else -math.inf
        return self._columns


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


def _text(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
