"""Cells of text: which are numbers, which are missing, and what their column holds."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from research.tree import ConfigError

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>"))  # upper and lower case are the same
EXACT = 2**53  # float64 cannot tell all larger whole numbers apart
MOST_CLASSES = 20  # more different numbers than this are hardly classes
INEXACT = "is beyond 2^53, where whole numbers are no longer exact; leave it out"
NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)

Kind = Literal["integer", "float", "bool", "time", "text", "empty"]


class Column(NamedTuple):
    """The content of one column.

    Attributes:
      kind: columns of kind "integer", "float" and "bool" have numbers; "text" and "time" (of Parquet) have none; an
        "empty" column has no value.
      numbers: float64 [N], NaN where a value is missing; None for text and times.
      cells: the cells as stored, text or datetime64, [N]; None where the file stores numbers (Parquet).
      missing: True where a value is missing, [N] bool.
      marks: entries of the key `missing` that occur in the column.
    """

    kind: Kind
    numbers: np.ndarray | None
    cells: np.ndarray | None
    missing: np.ndarray
    marks: frozenset[float | str] = frozenset()

    @property
    def texts(self) -> list[str]:
        """The cells that are not missing, as text."""
        return [] if self.cells is None else [str(cell) for cell in self.cells[~self.missing]]


def to_float(cell: str, decimal: str) -> float | None:
    """The number that a cell holds, infinite if it is too large; None for any other text, "inf" and "1_000" too."""
    if not re.fullmatch(NUMBER.replace(r"\.", re.escape(decimal)), cell, re.ASCII):
        return None
    return float(cell.replace(decimal, "."))


def to_floats(cells: Sequence[str] | np.ndarray, decimal: str) -> np.ndarray:
    """The numbers of several cells, [N] float64; NaN where a cell holds none."""
    if set("".join(cells)) <= set(f"0123456789+-eE{decimal}"):  # most columns of numbers, at a third of the time
        try:
            return np.array([float(cell.replace(decimal, ".")) for cell in cells])
        except ValueError:
            pass
    return np.array([to_float(cell, decimal) for cell in cells], np.float64)  # None becomes NaN


def parse_cells(cells: np.ndarray, decimal: str, marks: Sequence[float | str], place: Callable[[int], str]) -> Column:
    """What a column of text holds.

    Args:
      cells: text without blanks at its ends, [N] object.
      decimal: the decimal mark.
      marks: entries of the key `missing`; numbers are compared as numbers, texts as texts.
      place: where a row stands in the file, for errors.

    Raises:
      ConfigError: a whole number that float64 cannot hold.
    """
    figures = to_floats(cells, decimal)
    missing, seen = np.array([cell.lower() in MISSING for cell in cells], bool), set()
    for mark in marks:
        number = to_float(mark.strip(), decimal) if isinstance(mark, str) else mark
        equal = cells == str(mark).strip() if number is None else figures == number
        missing |= equal
        if equal.any():
            seen.add(mark)
    column = Column("text", None, cells, missing, frozenset(seen))
    if missing.all():
        return column._replace(kind="empty", numbers=np.full(len(cells), np.nan))
    if not np.isfinite(figures[~missing]).all():
        if not {text.lower() for text in column.texts} <= {"true", "false"}:
            return column
        truth = [np.nan if gap else cell.lower() == "true" for cell, gap in zip(cells, missing, strict=True)]
        return column._replace(kind="bool", numbers=np.array(truth, np.float64))
    numbers = np.where(missing, np.nan, figures)
    if not set("".join(column.texts)) <= set("0123456789+-"):
        return column._replace(kind="float", numbers=numbers)
    for row in np.flatnonzero(np.abs(numbers) >= EXACT):
        if abs(int(cells[row])) > EXACT:
            raise ConfigError("", None, f"{place(int(row))}: {cells[row]} {INEXACT}")
    return column._replace(kind="integer", numbers=numbers)


def mostly_numbers(column: Column, decimal: str) -> bool:
    """Whether more than half of the cells of a text column are numbers, with either decimal mark, or infinite."""
    decimals = (decimal, "," if decimal == "." else ".")
    is_number = lambda text: any(to_float(text, mark) is not None for mark in decimals) or INFINITY.fullmatch(text)
    return 2 * sum(bool(is_number(text)) for text in column.texts) > len(column.texts)


def count_up(cells: Sequence[str]) -> bool:
    """Whether the cells are whole numbers, each one larger by 1 than the cell before."""
    if not all(re.fullmatch(r"\d{1,15}", cell, re.ASCII) for cell in cells):
        return False
    return bool((np.diff([int(cell) for cell in cells]) == 1).all())
