"""A table from a file: named columns of numbers, text or times. Errors name the file, the line and the column.

A table says what the file holds. `features`, `targets` and `times` of `research.data` decide what a column is used for.
"""

import functools
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from research.data.files.cells import INFINITY, Column, mostly_numbers, to_float, to_floats
from research.ranges import Finite64
from research.tree import ConfigError, nearest, recipe

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
DECIMALS = {"point": ".", "comma": ","}
TEXT = (".csv", ".tsv")
ENDINGS = (*TEXT, ".parquet")

Separator = Literal["comma", "semicolon", "tab", "space", "pipe"]
Decimal = Literal["point", "comma"]


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


class Table:
    """A file as named columns; a column is converted when it is first asked for.

    Attributes:
      path: the file.
      names: names of the columns, or their numbers from 0 where the file has no names.
      named: whether the file has names.
      size: number of rows.
      index: name of a column that holds an index of pandas and is left out; None if there is none.
      index_of_times: whether that index holds times.
      decimal: the decimal mark of the text.
      marks: entries of the key `missing`.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        size: int,
        convert: Callable[[int], Column],
        line: Callable[[int], str],
        form: Form,
        named: bool = True,
        index: str | None = None,
        index_of_times: bool = False,
    ):
        """Make a table whose column and row of some number `convert` and `line` give."""
        self.path, self.names, self.named, self.size = path, tuple(names), named, size
        self.index, self.index_of_times = index, index_of_times
        self.decimal, self.marks = DECIMALS[form.decimal], form.marks
        self._convert, self._line = functools.cache(convert), line

    def place(self, row: int, name: str | None = None) -> str:
        """Where a row, or a cell of a row, stands in the file, for errors."""
        place = f"{self.path.name}, {self._line(row)}"
        return place if name is None else f"{place}, column '{name}'"

    def column(self, name: str, key: str = "columns") -> Column:
        """The content of a column.

        Raises:
          ConfigError: the file has no such column or two of them, or its cells cannot be read.
        """
        return self._convert(self.find(name, key))

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

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Columns as numbers, NaN where a value is missing, [N, C] float64.

        Raises:
          ConfigError: a column holds text or times; the error names the first such cell.
        """
        values = np.empty((self.size, len(names)))
        for number, name in enumerate(names):
            column = self.column(name)
            if column.numbers is None:
                raise self.not_numeric(name, column)
            values[:, number] = column.numbers
        return values

    def not_numeric(self, name: str, column: Column) -> ConfigError:
        """The error for a column of text or of times where numbers are needed."""
        if column.kind == "time":
            return ConfigError("", None, f"{self.path.name}, column '{name}' holds times, not numbers")
        assert column.cells is not None
        figures = to_floats(column.cells, self.decimal)
        wrong = np.flatnonzero(~np.isfinite(figures) & ~column.missing)
        row, cell = int(wrong[0]), str(column.cells[wrong[0]])
        problem = f"{self.place(row, name)}: '{' '.join(cell.split())[:40]}' is not"
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
            remedy = f"if it means a missing value: {paste('missing', [cell])}"
            if row == 0 and len(set(column.cells[wrong])) == 1:
                remedy = f"if this row holds units or names, remove it; {remedy}"
        else:
            remedy = "the column holds text"
        return ConfigError("", None, f"{problem} a number; {remedy}")


def paste(key: str, values: Sequence[str]) -> str:
    """The setting `data.key=[...]` of a list of texts, quoted so that it can be pasted into a shell."""
    plain = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_]\w*|0|-?[1-9]\d*", re.IGNORECASE | re.ASCII)
    shown = (value if plain.fullmatch(value) else '"' + value.replace('"', '\\"') + '"' for value in values)
    return shlex.quote(f"data.{key}=[{','.join(shown)}]")
