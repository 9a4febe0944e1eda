"""Tables from files: named columns of numbers or of text, read strictly; errors name file, line and column.

Reading says what a file holds. What a column is used for, a feature, a target or the time, is decided elsewhere.
"""

import csv
import functools
import itertools
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from research.data.readers import parquet_table
from research.tree import ConfigError, nearest

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
MARKS = {"point": ".", "comma": ","}
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>"))  # in any case of letters
EXACT = 2**53  # whole numbers beyond it are not all told apart by float64
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
            b"".decode(form.encoding)
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
    """

    kind: Kind
    numbers: np.ndarray | None
    cells: np.ndarray | None
    missing: np.ndarray


class Table:
    """A file as named columns, each converted when it is asked for.

    Attributes:
      path: the file.
      names: of the columns, or their numbers from 0 where the file has no names.
      named: whether the file has names.
      size: number of rows.
      index: name of a column in which pandas stored its index; None without.
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
        decimal: str = ".",
    ):
        self.path, self.names, self.named, self.size, self.index = path, tuple(names), named, size, index
        self._column, self._place, self._decimal = functools.cache(column), place, decimal

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
        found = [_float(str(cell), self._decimal) for cell in column.cells]
        wrong = [row for row, number in enumerate(found) if number is None or np.isinf(number)]
        row = next(row for row in wrong if not column.missing[row])
        cell = str(column.cells[row])
        shown = f"{self.place(row, name)}: '{cell[:40]}' is not"
        if found[row] is not None or re.fullmatch(r"[+-]?inf(inity)?", cell.lower()):
            return ConfigError("", None, f"{shown} finite; leave the cell empty, or remove the row")
        other = "comma" if self._decimal == "." else "point"
        if _float(cell, MARKS[other]) is not None:
            return ConfigError("", None, f"{shown} a number; if a {other} is the decimal mark: data.decimal={other}")
        mostly = 2 * len(wrong) < len(found)
        remedy = f"if it means a missing value: {paste('missing', [cell])}" if mostly else "the column holds text"
        return ConfigError("", None, f"{shown} a number; {remedy}")


def read_table(path: Path, form: Form = Form(), keep: Sequence[str | None] = ()) -> Table:  # noqa: B008
    """A `.csv`, `.tsv` or `.parquet` file as named columns.

    Args:
      path: the file.
      form: how it is written.
      keep: names of wanted columns, so that a pandas index of such a name counts as a column.

    Raises:
      ConfigError: with an empty key where the file itself is to blame.
    """
    return _read_parquet(path, form, keep) if path.suffix.lower() == ".parquet" else _read_text(path, form)


def paste(key: str, values: Sequence[str]) -> str:
    """A setting of a list of texts as it can be pasted into a shell."""
    word = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_]\w*|0|-?[1-9]\d*", re.IGNORECASE | re.ASCII)
    shown = (value if word.fullmatch(value) else '"' + value.replace('"', '\\"') + '"' for value in values)
    return shlex.quote(f"data.{key}=[{','.join(shown)}]")


# ------------------------------------------------------------------------------------------------------------ text


def _read_text(path: Path, form: Form) -> Table:
    separator = SEPARATORS[form.separator or ("tab" if path.suffix.lower() == ".tsv" else "comma")]
    encoding = "utf-8-sig" if form.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else form.encoding
    _check_bytes(path, encoding)
    lines, width, first = _check_lines(path, separator, encoding)
    import pandas

    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_filter": False, "low_memory": False}
    options |= {"header": None, "names": list(range(width)), "index_col": False, "compression": None, "engine": "c"}
    try:
        frame = pandas.read_csv(path, sep=separator, encoding=encoding, **options)
    except (ValueError, pandas.errors.ParserError) as error:
        raise ConfigError("", None, f"it cannot be read as a table ({str(error).strip()})") from None
    if frame.shape != (len(lines), width):  # csv and pandas must see the same cells
        remedy = "write it anew, with quotes around texts alone"
        raise ConfigError("", None, f"{path.name}: its lines cannot be told apart for certain; {remedy}")
    decimal = MARKS[form.decimal]
    header, skip = _has_header(path, form, first, decimal, frame), 0
    if header:
        skip, lines = 1, lines[1:]
    if not len(lines):
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")

    def column(index: int) -> Column:
        cells = np.array([cell.strip() for cell in frame[index].to_numpy(object)[skip:]], object)
        name = first[index] if header else str(index)
        return _parse(cells, decimal, form.missing or (), lambda row: f"{table.place(row, name)}")

    table = Table(
        path,
        first if header else [str(index) for index in range(width)],
        len(lines),
        column,
        lambda row: f"line {lines[row]}",
        named=header,
        decimal=decimal,
    )
    return table


def _check_bytes(path: Path, encoding: str) -> None:
    """Refuse bytes that are no text of this encoding, anywhere in the file."""
    content = path.read_bytes()
    if encoding == "utf-8-sig" and content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError("", None, f"{path.name} starts with the mark of another encoding: data.encoding=utf-16")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="ignore")
        shown = f"{path.name}, line {before.count(chr(10)) + 1}: byte {error.start} of the file"
        known = "utf-8" if encoding == "utf-8-sig" else encoding
        remedy = (
            f"(0x{content[error.start]:02x}) is no {known} text; name the encoding, for example data.encoding=cp1252"
        )
        raise ConfigError("", None, f"{shown} {remedy}") from None
    except UnicodeError as error:
        raise ConfigError(
            "", None, f"{path.name} is no {encoding} text ({error}); name another: data.encoding=..."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError("", None, f"{path.name}, line {line}: a zero byte; is it utf-16? data.encoding=utf-16")


def _check_lines(path: Path, separator: str, encoding: str) -> tuple[np.ndarray, int, list[str]]:
    """The last line of every row (from 1), the number of columns, and the cells of the first row.

    Raises:
      ConfigError: rows of unequal length, an open quote, text after a quote, or a gap in a single column.
    """
    lines, width, first, gap, start = [], 0, [], 0, 1
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            for cells in reader:
                line, begin, start = reader.line_num, start, reader.line_num + 1
                if not cells or (len(cells) == 1 and cells[0] and not cells[0].strip()):
                    gap = gap or line
                    continue
                if not lines:
                    width, first = len(cells), [cell.strip() for cell in cells]
                elif len(cells) != width:
                    more = "" if begin == line else f" (it begins in line {begin}: is a quote open?)"
                    shown = f"{path.name}, line {line}: {len(cells)} values, but {width} in the first line{more}"
                    raise ConfigError("", None, shown + _other_separator(path, separator, encoding, cells, width))
                if gap and width == 1 and lines:
                    remedy = 'write a missing value as NA or ""'
                    raise ConfigError("", None, f"{path.name}, line {gap} is empty; remove it, or {remedy}")
                gap = 0
                lines.append(line)
        except csv.Error as error:
            long = "unexpected end" in str(error) or "field limit" in str(error)
            what = 'a quote (") is opened and never closed' if long else f"wrong quotes ({error})"
            raise ConfigError("", None, f"{path.name}, line {start}: {what}") from None
    if not any(first):
        raise ConfigError("", None, f"{path.name}: its first line is empty; there is nothing in it")
    hint = _other_separator(path, separator, encoding, first, width) if width == 1 else ""
    if hint:
        raise ConfigError("", None, f"{path.name}, line 1: there is one column only{hint}")
    return np.array(lines), width, first


def _other_separator(path: Path, separator: str, encoding: str, cells: Sequence[str], width: int) -> str:
    """The remedy where the first two lines are parted by another separator, or by a comma as the decimal mark."""
    with path.open(encoding=encoding) as file:
        head = [line for line in (file.readline().strip("\r\n") for _ in range(8)) if line.strip()][:2]
    for name, other in SEPARATORS.items():
        counts = [line.count(other) for line in head]
        parted = len(head) == 2 and counts[0] == counts[1] > 0 and other != separator
        if parted and other == " ":
            parted = all(_float(cell, ".") is not None for cell in head[1].split(" "))
        if parted and (width == 1 or counts[0] >= width):
            comma = separator == "," and other != "," and re.search(r"\d,\d", head[1]) is not None
            return f"; if {name}s part them: data.separator={name}" + (" data.decimal=comma" if comma else "")
    grouped = any(
        re.fullmatch(r"\s*-?\d+", one) and re.fullmatch(r"\d+", two) for one, two in itertools.pairwise(cells)
    )
    if separator == "," and len(cells) > width and grouped:
        return "; if a comma groups thousands or is the decimal mark, write such numbers with a point alone"
    return ""


def _has_header(path: Path, form: Form, first: Sequence[str], decimal: str, frame: Any) -> bool:
    """Whether the first line holds names."""
    if form.header is not None:
        return form.header
    if any(_float(cell, decimal) is None and cell.lower() not in MISSING for cell in first):
        return True
    # An index that pandas has written has no name; below it the rows are counted.
    if not first[0] and len(frame) > 1 and counts([cell.strip() for cell in frame[0].to_numpy(object)[1:]]):
        return True
    if not any(_float(cell, decimal) is not None for cell in first):
        return True
    shown = ",".join(first[:3]) + (",..." if len(first) > 3 else "")
    remedy = "say whether they are names, data.header=true, or values, data.header=false"
    raise ConfigError("header", None, f"{path.name}, line 1 holds numbers only ({shown}); {remedy}")


def counts(cells: Sequence[str]) -> bool:
    """Whether cells are whole numbers, each one more than the one before."""
    if not all(re.fullmatch(r"\d{1,15}", cell, re.A) for cell in cells):
        return False
    values = np.array([int(cell) for cell in cells])
    return bool((np.diff(values) == 1).all())


def _float(cell: str, decimal: str) -> float | None:
    """The finite or overflowing number in a cell; None for words, other marks and foreign digits."""
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?".replace(r"\.", re.escape(decimal)), cell, re.A):
        return None
    return float(cell.replace(decimal, "."))


def _parse(cells: np.ndarray, decimal: str, also: Sequence[float | str], place: Callable[[int], str]) -> Column:
    """Cells without blanks at their ends as a column."""
    wanted = {entry.strip() for entry in also if isinstance(entry, str)}
    figures = [float(entry) for entry in also if not isinstance(entry, str)]
    figures += [number for number in (_float(entry, decimal) for entry in wanted) if number is not None]
    missing = np.array([cell.lower() in MISSING or cell in wanted for cell in cells], bool)
    present = cells[~missing]
    if not len(present):
        return Column("empty", np.full(len(cells), np.nan), cells, missing)
    values = _floats(present, decimal)
    if values is None:
        words = {cell.lower() for cell in present}
        if words <= {"true", "false"}:
            numbers = np.full(len(cells), np.nan)
            numbers[~missing] = [cell.lower() == "true" for cell in present]
            return Column("bool", numbers, cells, missing)
        return Column("text", None, cells, missing)
    numbers = np.full(len(cells), np.nan)
    numbers[~missing] = values
    if figures:
        missing = missing | np.isin(numbers, figures)
        numbers[missing] = np.nan
    if np.isinf(numbers).any():
        return Column("text", None, cells, missing)
    if missing.all():
        return Column("empty", numbers, cells, missing)
    whole = set("".join(cells[~missing])) <= set("0123456789+-")
    if whole:
        large = np.flatnonzero(np.abs(numbers) >= EXACT)
        inexact = [row for row in large if int(cells[row]) != int(numbers[row]) or abs(int(cells[row])) > EXACT]
        if inexact:
            shown = f"{place(inexact[0])}: {cells[inexact[0]]}"
            raise ConfigError(
                "", None, f"{shown} is beyond 2^53, where whole numbers are no longer exact; leave it out"
            )
    return Column("integer" if whole else "float", numbers, cells, missing)


def _floats(cells: np.ndarray, decimal: str) -> np.ndarray | None:
    """Numbers of all cells, or None if any is no number."""
    if not set("".join(cells)) <= set("0123456789+-eE" + decimal):
        return None
    try:
        plain = cells if decimal == "." else [cell.replace(decimal, ".") for cell in cells]
        return np.array([float(cell) for cell in plain])
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------------------- Parquet


def _read_parquet(path: Path, form: Form, keep: Sequence[str | None]) -> Table:
    table, index = parquet_table(path)
    index = [name for name in index if name not in keep]
    table = table.drop_columns(index)
    if table.num_rows == 0:
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")
    names = table.column_names

    def column(number: int) -> Column:
        return _from_arrow(table.columns[number], form.missing or (), lambda row: read.place(row, names[number]))

    read = Table(
        path, names, table.num_rows, column, lambda row: f"row {row} (from 0)", index=index[0] if index else None
    )
    return read


def _from_arrow(content: Any, also: Sequence[float | str], place: Callable[[int], str]) -> Column:
    import pyarrow
    import pyarrow.types as kinds

    if kinds.is_dictionary(content.type):
        content = content.cast(content.type.value_type)
    kind, missing = content.type, content.is_null().to_numpy()
    if kinds.is_null(kind):
        return Column("empty", np.full(len(missing), np.nan), None, missing)
    if kinds.is_timestamp(kind) or kinds.is_date(kind):
        return Column(
            "time", None, content.cast(pyarrow.timestamp("ns" if "ns" in str(kind) else "us")).to_numpy(), missing
        )
    if kinds.is_boolean(kind) or kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind):
        if kinds.is_integer(kind) and kind.bit_width == 64:
            exact = content.fill_null(0).to_numpy()
            wrong = np.flatnonzero((exact > EXACT) | (exact < -EXACT if kind != pyarrow.uint64() else False))
            if len(wrong):
                shown = f"{place(int(wrong[0]))}: {exact[wrong[0]]}"
                remedy = "is beyond 2^53, where whole numbers are no longer exact; leave it out"
                raise ConfigError("", None, f"{shown} {remedy}")
        numbers = np.array(content.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64)
        figures = [float(entry) for entry in also if not isinstance(entry, str)]
        figures += [float(np.float32(figure)) for figure in figures if kind == pyarrow.float32()]
        missing = np.isnan(numbers) | np.isin(numbers, figures)
        numbers[missing] = np.nan
        if np.isinf(numbers).any():
            row = int(np.argmax(np.isinf(numbers)))
            raise ConfigError("", None, f"{place(row)}: {numbers[row]}; leave the value out or remove the row")
        if missing.all():
            return Column("empty", numbers, None, missing)
        whole = "bool" if kinds.is_boolean(kind) else "integer" if kinds.is_integer(kind) else "float"
        return Column(whole, numbers, None, missing)
    cells = np.array(["" if cell is None else str(cell).strip() for cell in content.to_pylist()], object)
    wanted = {entry.strip() for entry in also if isinstance(entry, str)}
    missing = np.array([cell.lower() in MISSING or cell in wanted for cell in cells], bool)
    return Column(
        "empty" if missing.all() else "text", None if not missing.all() else np.full(len(cells), np.nan), cells, missing
    )
