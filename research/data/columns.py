"""Tables from files: named columns of numbers or of text, read strictly; errors name file, line and column.

Reading says what a file holds. What a column is used for, a feature, a target or the time, is decided elsewhere.
"""

import functools
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from research.tree import ConfigError, nearest

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
MARKS = {"point": ".", "comma": ","}
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>"))  # in any case of letters
EXACT = 2**53  # whole numbers beyond it are not all told apart by float64
INEXACT = "is beyond 2^53, where whole numbers are no longer exact; leave it out"
TEXT = (".csv", ".tsv")
ENDINGS = (*TEXT, ".parquet")

Separator = Literal["comma", "semicolon", "tab", "space", "pipe"]
Decimal = Literal["point", "comma"]
Kind = Literal["integer", "float", "bool", "time", "text", "empty"]


class Form(NamedTuple):
    """How a table is written; the keys of the same names of `data=arrays` and `data=series`.

    Attributes:
      header: whether the first line holds names; None: it does if it holds anything but numbers, and a first line of
        numbers is refused.
      separator: between cells; None is a comma, or a tab in `.tsv` files.
      decimal: the decimal mark.
      encoding: of the text, by its name in Python.
      missing: numbers and texts that mean a missing value, beside empty cells, NA, NaN, null and None.
    """

    header: bool | None = None
    separator: Separator | None = None
    decimal: Decimal = "point"
    encoding: str = "utf-8"
    missing: tuple[float | str, ...] | None = None

    @classmethod
    def of(cls, recipe: Any, *paths: str) -> "Form":
        """The form that the keys of a recipe describe, checked against the endings of its files.

        Raises:
          ConfigError: naming the key, for an unknown encoding, or a key of text where a file is none.
        """
        form = cls(*(getattr(recipe, name) for name in cls._fields))
        try:
            "a".encode(form.encoding)
        except (LookupError, ValueError):
            raise ConfigError("encoding", form.encoding, "no such encoding; for example utf-8 or cp1252") from None
        for path in paths:
            for name, plain in (("header", None), ("separator", None), ("decimal", "point"), ("encoding", "utf-8")):
                value = getattr(form, name)
                if value != plain and Path(path).suffix.lower() not in TEXT:
                    shown = "null" if plain is None else plain
                    raise ConfigError(name, value, f"{path} is no table of text: data.{name}={shown}")
        return form


class Column(NamedTuple):
    """The content of one column.

    Attributes:
      kind: "integer", "float" and "bool" have numbers, "time" (of Parquet) and "text" have not; "empty" has no value.
      numbers: float64 [N], NaN where a value is missing; None for text and times.
      cells: text [N] as stored, or datetime64 [N]; None where only numbers are stored (Parquet).
      missing: [N] bool.
      marks: entries of the key `missing` that occur.
    """

    kind: Kind
    numbers: np.ndarray | None
    cells: np.ndarray | None
    missing: np.ndarray
    marks: frozenset[float | str] = frozenset()


class Table:
    """A file as named columns, each converted when it is asked for.

    Attributes:
      path: the file.
      names: of the columns, or their numbers from 0 where the file has no names.
      named: whether the file has names.
      size: number of rows.
      index: name of a column in which pandas stored its index, which is left out; None without.
      index_of_times: whether that column holds times.
      decimal: the decimal mark of its text.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        size: int,
        column: Callable[[int], Column],
        place: Callable[[int], str],
        named: bool = True,
        index: str | None = None,
        index_of_times: bool = False,
        decimal: str = ".",
    ):
        self.path, self.names, self.named, self.size = path, tuple(names), named, size
        self.index, self.index_of_times = index, index_of_times
        self._column, self._place, self.decimal = functools.cache(column), place, decimal

    def place(self, row: int, name: str | None = None) -> str:
        """Where a value stands in the file, for errors."""
        place = f"{self.path.name}, {self._place(row)}"
        return place if name is None else f"{place}, column '{name}'"

    def column(self, name: str, key: str = "columns") -> Column:
        """The content of a column.

        Raises:
          ConfigError: the file has no such column, or two of them.
        """
        return self._column(self.find(name, key))

    def problem(self, name: str) -> str | None:
        """Why the cells of a column cannot be read, or None."""
        try:
            self.column(name)
        except ConfigError as error:
            return error.remedy
        return None

    def readable(self, name: str) -> bool:
        """Whether the cells of a column can be read."""
        return self.problem(name) is None

    def find(self, name: str, key: str) -> int:
        """Number of a column from 0; where columns have no names, -1 is the last.

        Raises:
          ConfigError: as for `column`.
        """
        if not self.named and re.fullmatch(r"-\d+", name):
            name = str(len(self.names) + int(name))
        count = self.names.count(name)
        if count == 1:
            return self.names.index(name)
        if count:
            raise ConfigError(key, name, f"{self.path.name} has more than one column of this name; rename one")
        shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        raise ConfigError(
            key, name, f"{self.path.name} has no such column{nearest(name, self.names)}; there are: {shown}"
        )

    def numbers(self, names: Sequence[str], key: str = "columns") -> np.ndarray:
        """Columns as numbers, NaN where a value is missing, [N, C] float64.

        Raises:
          ConfigError: a column holds text or times; naming the first such cell.
        """
        values = np.empty((self.size, len(names)))
        for place, name in enumerate(names):
            column = self.column(name, key)
            if column.numbers is None:
                raise self.not_numeric(name, column)
            values[:, place] = column.numbers
        return values

    def not_numeric(self, name: str, column: Column) -> ConfigError:
        """What to say of a column of text or of times where numbers are needed."""
        if column.kind == "time":
            return ConfigError("", None, f"{self.path.name}, column '{name}' holds times, not numbers")
        assert column.cells is not None
        found = [to_float(str(cell), self.decimal) for cell in column.cells]
        wrong = [row for row, number in enumerate(found) if number is None or np.isinf(number)]
        row = next(row for row in wrong if not column.missing[row])
        cell = str(column.cells[row])
        shown = f"{self.place(row, name)}: '{' '.join(cell.split())[:40]}' is not"
        if found[row] is not None or re.fullmatch(r"[+-]?inf(inity)?", cell.lower()):
            return ConfigError("", None, f"{shown} finite; leave the cell empty, or remove the row")
        other = "comma" if self.decimal == "." else "point"
        only = len(set(np.asarray(column.cells)[[row for row in wrong if not column.missing[row]]])) == 1
        if to_float(cell.replace("\u2212", "-"), self.decimal) is not None:
            remedy = "write its minus as -"
        elif to_float(cell, MARKS[other]) is not None:
            remedy = f"if a {other} is the decimal mark: data.decimal={other}; if it groups thousands, write it without"
        elif "\n" in cell or "\r" in cell:
            remedy = 'is a quote (") open?'
        elif row == 0 and not self.named:
            remedy = "if this line holds names: data.header=true"
        elif mostly_numbers(column, self.decimal):
            remedy = f"if it means a missing value: {paste('missing', [cell])}"
            remedy = f"if this row holds units or names, remove it; {remedy}" if row == 0 and only else remedy
        else:
            remedy = "the column holds text"
        return ConfigError("", None, f"{shown} a number; {remedy}")

    def mixed(self, column: Column) -> bool:
        """Whether a column of text holds numbers for the most part."""
        return column.kind == "text" and mostly_numbers(column, self.decimal)


def mostly_numbers(column: Column, decimal: str) -> bool:
    """Whether more than half of the cells of a column are numbers, with either decimal mark, or infinite."""
    if column.cells is None:
        return False
    marks = (decimal, "," if decimal == "." else ".")
    is_number = lambda cell: any(to_float(cell, mark) is not None for mark in marks)
    present = [str(cell) for cell in column.cells[~column.missing]]
    numbers = [is_number(cell) or re.fullmatch(r"[+-]?inf(inity)?", cell.lower()) for cell in present]
    return 2 * sum(map(bool, numbers)) > len(present)


def paste(key: str, values: Sequence[str]) -> str:
    """A setting of a list of texts as it can be pasted into a shell."""
    word = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_]\w*|0|-?[1-9]\d*", re.IGNORECASE | re.ASCII)
    shown = (value if word.fullmatch(value) else '"' + value.replace('"', '\\"') + '"' for value in values)
    return shlex.quote(f"data.{key}=[{','.join(shown)}]")


def counts(cells: Sequence[str]) -> bool:
    """Whether cells are whole numbers, each one more than the one before."""
    if not all(re.fullmatch(r"\d{1,15}", cell, re.A) for cell in cells):
        return False
    values = np.array([int(cell) for cell in cells])
    return bool((np.diff(values) == 1).all())


def to_float(cell: str, decimal: str) -> float | None:
    """The finite or overflowing number in a cell; None for words, other marks and foreign digits."""
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?".replace(r"\.", re.escape(decimal)), cell, re.A):
        return None
    return float(cell.replace(decimal, "."))


def parse_cells(cells: np.ndarray, decimal: str, also: Sequence[float | str], place: Callable[[int], str]) -> Column:
    """Cells without blanks at their ends as a column."""
    missing = np.array([cell.lower() in MISSING for cell in cells], bool)
    seen = set()
    for mark in also:
        figure = to_float(mark.strip(), decimal) if isinstance(mark, str) else mark
        if figure is None:
            equal = cells == str(mark).strip()
        else:
            equal = np.array([to_float(cell, decimal) == figure for cell in cells], bool)
        seen |= {mark} if equal.any() else set()
        missing |= equal
    marks, present = frozenset(seen), cells[~missing]
    numbers = np.full(len(cells), np.nan)
    if not len(present):
        return Column("empty", numbers, cells, missing, marks)
    values = _all_numbers(present, decimal)
    if values is None or np.isinf(values).any():
        if {cell.lower() for cell in present} <= {"true", "false"}:
            numbers[~missing] = [cell.lower() == "true" for cell in present]
            return Column("bool", numbers, cells, missing, marks)
        return Column("text", None, cells, missing, marks)
    numbers[~missing] = values
    if not set("".join(present)) <= set("0123456789+-"):
        return Column("float", numbers, cells, missing, marks)
    for row in np.flatnonzero(np.abs(numbers) >= EXACT):
        if abs(int(cells[row])) > EXACT:
            shown = f"{place(int(row))}: {cells[row]}"
            raise ConfigError(
                "", None, f"{shown} is beyond 2^53, where whole numbers are no longer exact; leave it out"
            )
    return Column("integer", numbers, cells, missing, marks)


def _all_numbers(cells: np.ndarray, decimal: str) -> np.ndarray | None:
    """Numbers of all cells, or None if any is no number."""
    if not set("".join(cells)) <= set("0123456789+-eE" + decimal):
        return None
    try:
        plain = cells if decimal == "." else [cell.replace(decimal, ".") for cell in cells]
        return np.array([float(cell) for cell in plain])
    except ValueError:
        return None
