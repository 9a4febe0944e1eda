"""A table from a file: named columns of numbers, text or times, and how cells of text are read.

A table says what the file holds. `columns` and `times` of `research.data` decide what a column is used for. Errors name
the file, the line and the column.
"""

import dataclasses
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from research.errors import nearest
from research.ranges import Finite64
from research.tree import ConfigError, recipe

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
DECIMALS = {"point": ".", "comma": ","}
TEXT = (".csv", ".tsv")
ENDINGS = (*TEXT, ".parquet")

Separator = Literal["comma", "semicolon", "tab", "space", "pipe"]
Decimal = Literal["point", "comma"]
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>"))  # upper and lower case are the same
EXACT = 2**53  # float64 cannot tell all larger whole numbers apart
MOST_MARKS = 5  # of missing values, in the remedy of an error
MOST_CLASSES = 20  # more different numbers than this are hardly classes
INEXACT = "is beyond 2^53, where whole numbers are no longer exact; leave it out"
NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)

Kind = Literal["integer", "float", "bool", "time", "text", "empty"]


@recipe
class Form:
    """How a table is written. These keys stand beside the other keys of `data=arrays` and `data=series`.

    Attributes:
      header: whether the first line holds names. With null it does if it holds anything but numbers; a first line of
        numbers is refused.
      separator: what stands between cells; with null a comma, or a tab in `.tsv` files.
      decimal: the decimal mark.
      encoding: of the text, by its name in Python.
      missing: numbers and texts that mean a missing value, beside empty cells, NA, NaN, null and None.
    """

    header: bool | None
    separator: Separator | None
    decimal: Decimal
    encoding: str
    missing: tuple[Finite64 | str, ...] | None

    @property
    def marks(self) -> tuple[float | str, ...]:
        """Entries of the key `missing`."""
        return self.missing or ()

    @property
    def numeric_marks(self) -> tuple[float, ...]:
        """Those entries of the key `missing` that are numbers."""
        return tuple(mark for mark in self.marks if not isinstance(mark, str))

    def validate(self) -> None:
        """Refuse an encoding that Python does not know."""
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):
            raise ConfigError("encoding", self.encoding, "no such encoding; for example utf-8 or cp1252") from None

    def check(self, path: str) -> None:
        """Refuse keys of text for a file that is not text."""
        if Path(path).suffix.lower() in TEXT:
            return
        for name, unset in (("header", None), ("separator", None), ("decimal", "point"), ("encoding", "utf-8")):
            if getattr(self, name) != unset:
                shown = "null" if unset is None else unset
                raise ConfigError(name, getattr(self, name), f"{path} is not a table of text: data.{name}={shown}")


PLAIN = Form(header=None, separator=None, decimal="point", encoding="utf-8", missing=None)  # of published files


class Column(NamedTuple):
    """The content of one column.

    Attributes:
      kind: columns of kind "integer", "float" and "bool" have numbers; "text" and "time" (of Parquet) have none; an
        "empty" column has no value.
      numbers: float64 [N], NaN where a value is missing; None for text and times.
      cells: the cells as stored, text or datetime64, [N]; None where the file stores numbers (Parquet).
      missing: True where a value is missing, [N] bool.
      marks: entries of the key `missing` that occur in the column.
      zoned: the times of a column of kind "time" are in UTC; otherwise they have no zone.
    """

    kind: Kind
    numbers: np.ndarray | None
    cells: np.ndarray | None
    missing: np.ndarray
    marks: frozenset[float | str] = frozenset()
    zoned: bool = False

    @property
    def texts(self) -> list[str]:
        """The cells that are not missing, as text."""
        return [] if self.cells is None else [str(cell) for cell in self.cells[~self.missing]]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A file as named columns; a column is converted when it is first asked for.

    Attributes:
      path: the file.
      names: names of the columns, or their numbers from 0 where the file has no names.
      size: number of rows.
      form: how the file is written.
      convert: gives the column of some number; it keeps what it gave.
      line: says where the row of some number stands in the file.
      named: whether the file has names.
      index: name of a column that holds an index of pandas and is left out; None if there is none.
      index_of_times: whether that index holds times.
    """

    path: Path
    names: tuple[str, ...]
    size: int
    form: Form
    convert: Callable[[int], Column]
    line: Callable[[int], str]
    named: bool = True
    index: str | None = None
    index_of_times: bool = False

    @property
    def decimal(self) -> str:
        """The decimal mark of the text."""
        return DECIMALS[self.form.decimal]

    def where(self, row: int, name: str | None = None) -> str:
        """Where a row, or a cell of a row, stands in the file, for errors."""
        row_text = f"{self.path.name}, {self.line(row)}"
        return row_text if name is None else f"{row_text}, column '{name}'"

    def column(self, name: str, key: str = "columns") -> Column:
        """The content of a column.

        Raises:
          ConfigError: the file has no such column or two of them, or its cells cannot be read.
        """
        return self.convert(self.find(name, key))

    def problem(self, name: str) -> str | None:
        """Why the cells of a column cannot be read, or None."""
        try:
            self.column(name)
        except ConfigError as error:
            return error.remedy
        return None

    def find(self, name: str, key: str) -> int:
        """Number of a column from 0; where columns have no names, -1 is the last.

        Raises:
          ConfigError: the file has no such column, or two of them.
        """
        if not self.named and re.fullmatch(r"-\d+", name):
            name = str(len(self.names) + int(name))
        count = self.names.count(name)
        if count == 1:
            return self.names.index(name)
        if count:
            raise ConfigError(key, name, f"{self.path.name} has more than one column of this name; rename one")
        known = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        problem = f"{self.path.name} has no such column{nearest(name, self.names)}"
        raise ConfigError(key, name, f"{problem}; its columns are: {known}")

    def without(self, names: Collection[str]) -> "Table":
        """The table without some columns."""
        kept = [number for number, name in enumerate(self.names) if name not in names]
        names = tuple(self.names[number] for number in kept)
        return dataclasses.replace(self, names=names, convert=lambda number: self.convert(kept[number]))

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Columns as numbers, NaN where a value is missing, [N, C] float64.

        Raises:
          ConfigError: a column holds text or times; the error names the first such cell.
        """
        values = np.empty((self.size, len(names)))
        for number, name in enumerate(names):
            column = self.column(name)
            if column.numbers is None:
                raise self.not_numeric(name, column, names)
            values[:, number] = column.numbers
        return values

    def not_numeric(self, name: str, column: Column, beside: Sequence[str] = ()) -> ConfigError:
        """The error for a column of text or of times where numbers are needed.

        Args:
          name, column: the column.
          beside: further columns that must hold numbers; the remedy names their marks of missing values too.
        """
        if column.kind == "time":
            return ConfigError("", None, f"{self.path.name}, column '{name}' holds times, not numbers")
        assert column.cells is not None
        figures = to_floats(column.cells, self.decimal)
        wrong = np.flatnonzero(~np.isfinite(figures) & ~column.missing)
        row, cell = int(wrong[0]), str(column.cells[wrong[0]])
        problem = f"{self.where(row, name)}: '{' '.join(cell.split())[:40]}' is not"
        if np.isinf(figures[row]) or INFINITY.fullmatch(cell):
            return ConfigError("", None, f"{problem} finite; leave the cell empty, or remove the row")
        other = "comma" if self.decimal == "." else "point"
        if to_float(cell.replace("\u2212", "-"), self.decimal) is not None:
            remedy = "write its minus as -"
        elif to_float(cell, DECIMALS[other]) is not None:
            remedy = f"if a {other} is the decimal mark: data.decimal={other}; if it groups thousands, write it without"
        elif "\n" in cell or "\r" in cell:
            remedy = 'is a quote (") open?'
        elif row == 0 and not self.named:
            remedy = "if this line holds names: data.header=true"
        elif mostly_numbers(column, self.decimal):
            before = [mark if isinstance(mark, str) else f"{mark:.17g}" for mark in self.form.marks]
            marks = [*before, *self._unread([name, *beside])]
            remedy = f"if it means a missing value: {paste('missing', marks)}"
            if row == 0 and len(set(column.cells[wrong])) == 1:
                remedy = f"if this row holds units or names, remove it; {remedy}"
        else:
            remedy = "the column holds text"
        return ConfigError("", None, f"{problem} a number; {remedy}")

    def _unread(self, names: Sequence[str]) -> list[str]:
        """The first few cells that are no numbers, each once, in those columns of which most cells are."""
        cells: dict[str, None] = {}
        for name in names:
            column = None if self.problem(name) else self.column(name)
            if column is not None and column.kind == "text" and mostly_numbers(column, self.decimal):
                cells |= dict.fromkeys(text for text in column.texts if not _is_number(text, self.decimal))
        return list(cells)[:MOST_MARKS]


def paste(key: str, values: Sequence[str] | str) -> str:
    """The setting `data.key=[...]` of a list of texts, or that of one text, quoted to be pasted into a shell."""
    plain = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_]\w*|0|-?[1-9]\d*", re.IGNORECASE | re.ASCII)
    listed = [values] if isinstance(values, str) else values
    shown = ",".join(value if plain.fullmatch(value) else '"' + value.replace('"', '\\"') + '"' for value in listed)
    return shlex.quote(f"data.{key}={shown}" if isinstance(values, str) else f"data.{key}=[{shown}]")


# -------------------------------------------------------------------------------------------------------- cells of text


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


def parse_cells(cells: np.ndarray, form: Form, where_of: Callable[[int], str]) -> Column:
    """What a column of text holds.

    Args:
      cells: text without blanks at its ends, [N] object.
      form: how the file is written; marks that are numbers are compared as numbers, texts as texts.
      where_of: where a row stands in the file, for errors.

    Raises:
      ConfigError: a whole number that float64 cannot hold.
    """
    decimal = DECIMALS[form.decimal]
    figures = to_floats(cells, decimal)
    missing, seen = np.array([cell.lower() in MISSING for cell in cells], bool), set()
    for mark in form.marks:
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
            raise ConfigError("", None, f"{where_of(int(row))}: {cells[row]} {INEXACT}")
    return column._replace(kind="integer", numbers=numbers)


def mostly_numbers(column: Column, decimal: str) -> bool:
    """Whether more than half of the cells of a text column are numbers, with either decimal mark, or infinite."""
    return 2 * sum(_is_number(text, decimal) for text in column.texts) > len(column.texts)


def _is_number(text: str, decimal: str) -> bool:
    """Whether a cell is a number, with either decimal mark, or infinite."""
    decimals = (decimal, "," if decimal == "." else ".")
    return any(to_float(text, mark) is not None for mark in decimals) or INFINITY.fullmatch(text) is not None


def count_up(cells: Sequence[str]) -> bool:
    """Whether the cells are whole numbers, each one larger by 1 than the cell before."""
    if not all(re.fullmatch(r"\d{1,15}", cell, re.ASCII) for cell in cells):
        return False
    return bool((np.diff([int(cell) for cell in cells]) == 1).all())
