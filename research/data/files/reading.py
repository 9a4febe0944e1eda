"""Tables of text, `.csv` and `.tsv`, and of Parquet files. Text is read strictly: all rows have equally many cells."""

import codecs
import csv
import functools
import io
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data.files.table import (
    DECIMALS,
    EXACT,
    INEXACT,
    MISSING,
    PLAIN,
    SEPARATORS,
    Column,
    Form,
    Table,
    count_up,
    parse_cells,
    to_float,
)
from research.tree import ConfigError


def read_table(path: Path, form: Form = PLAIN, keep: Sequence[str | None] = ()) -> Table:
    """A `.csv`, `.tsv` or `.parquet` file as named columns.

    Args:
      path: the file.
      form: how its text is written.
      keep: names of columns that are wanted although pandas stored its index in them.

    Raises:
      ConfigError: with an empty key where the file itself is to blame, else naming the key that describes it wrongly.
    """
    return read_parquet(path, form, keep) if path.suffix.lower() == ".parquet" else read_text(path, form)


# ----------------------------------------------------------------------------------------------------- tables of text


def read_text(path: Path, form: Form) -> Table:
    """A `.csv` or `.tsv` file as a table.

    Raises:
      ConfigError: as `read_table`.
    """
    separator = SEPARATORS[form.separator or ("tab" if path.suffix.lower() == ".tsv" else "comma")]
    text = _decode(path, form.encoding)
    rows, lines = _read_rows(path, text, separator)
    named = _has_header(path, form, rows)
    names = rows[0] if named else [str(number) for number in range(len(rows[0]))]
    if named:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")
    columns = list(zip(*rows, strict=True))

    @functools.cache
    def convert(number: int) -> Column:
        cells = np.array(columns[number], object)
        return parse_cells(cells, form, lambda row: table.where(row, names[number]))

    table = Table(path, tuple(names), len(rows), form, convert, lambda row: f"line {lines[row]}", named)
    return table


def _decode(path: Path, encoding: str) -> str:
    """The text of a file; bytes that are not text of this encoding are refused, wherever they stand."""
    content, name = path.read_bytes(), codecs.lookup(encoding).name
    marked = "utf-8" if content[:3] == codecs.BOM_UTF8 else None
    marked = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else marked
    order = "le" if content[1:2] == b"\0" else "be"  # of the two bytes of a letter in utf-16
    if marked is not None and name.removesuffix("-sig") != marked:
        raise ConfigError("", None, f"{path.name} starts with the mark of another encoding: data.encoding={marked}")
    if name == "utf-16" and marked is None:
        raise ConfigError("", None, f"{path.name} does not start with a mark of utf-16: data.encoding=utf-16-{order}")
    try:
        text = content.decode("utf-8-sig" if name == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, errors="ignore").count("\n") + 1
        problem = f"byte {error.start} of the file (0x{content[error.start]:02x}) is not {encoding} text"
        remedy = f"{problem}; name the encoding, for example data.encoding=cp1252"
        raise ConfigError("", None, f"{path.name}, line {line}: {remedy}") from None
    except UnicodeError as error:
        remedy = f"{path.name} is not {encoding} text ({error}); name another: data.encoding=..."
        raise ConfigError("", None, remedy) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        remedy = f"a zero byte; is it utf-16? data.encoding=utf-16-{order}"
        raise ConfigError("", None, f"{path.name}, line {line}: {remedy}")
    return text


def _read_rows(path: Path, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """The rows that are not empty, as cells without blanks at their ends, and the last line of each, from 1.

    Raises:
      ConfigError: rows of unequal length, an open quote, text after a quote, or an empty line in a single column.
    """
    rows, lines, start, gap = [], [], 1, 0  # line where the next row begins, and of an empty line after the last row
    refuse = lambda line, problem: ConfigError("", None, f"{path.name}, line {line}{problem}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            line, first_line, start = reader.line_num, start, reader.line_num + 1
            if not cells or (len(cells) == 1 and cells[0] and not cells[0].strip()):
                gap = gap or line
                continue
            if not rows and re.fullmatch("sep=.?", separator.join(cells)):
                raise refuse(line, " only names the separator; remove it")
            if rows and len(cells) != len(rows[0]):
                count = f": {len(cells)} values, but {len(rows[0])} in the first line"
                if first_line != line:
                    count += f" (the row begins in line {first_line}: is a quote open?)"
                raise refuse(line, count + _length_remedy(text, separator, cells, rows))
            if gap and rows and len(cells) == 1:  # is it a missing value, or the end of a part?
                raise refuse(gap, ' is empty; remove it, or write a missing value as NA or ""')
            gap = 0
            rows.append([cell.strip() for cell in cells])
            lines.append(line)
    except csv.Error as error:
        endless = "unexpected end" in str(error) or "field limit" in str(error)
        problem = 'a quote (") is opened and never closed' if endless else f"wrong quotes ({error})"
        raise refuse(start, f": {problem}{_separator_remedy(text, separator, 1)}") from None
    if not rows or not any(rows[0]):
        raise ConfigError("", None, f"{path.name}: its first line is empty; there is nothing in it")
    if len(rows[0]) == 1 and (hint := _separator_remedy(text, separator, 1)):
        raise refuse(1, f": there is one column only{hint}")
    return rows, lines


def _separator_remedy(text: str, separator: str, width: int) -> str:
    """The setting for another separator, if that one splits each of the first two lines into `width` cells or more."""
    lines = [line for line in itertools.islice(io.StringIO(text, newline=None), 8) if line.strip()][:2]
    if len(lines) < 2:
        return ""
    first, second = (line.strip("\r\n") for line in lines)
    for name, other in SEPARATORS.items():
        count = first.count(other)
        if other == separator or not count or second.count(other) != count or (width > 1 and count < width):
            continue
        if other == " " and any(to_float(cell, ".") is None for cell in second.split(" ")):
            continue
        decimal = " data.decimal=comma" if separator == "," and re.search(r"\d,\d", second) else ""
        return f"; if {name}s part them: data.separator={name}{decimal}"
    return ""


def _length_remedy(text: str, separator: str, cells: list[str], rows: list[list[str]]) -> str:
    """What may be wrong with a row that has not as many cells as the first row."""
    width = len(rows[0])
    if remedy := _separator_remedy(text, separator, width):
        return remedy
    whole = lambda pair: re.fullmatch(r"\s*-?\d+", pair[0]) and re.fullmatch(r"\d+", pair[1])
    if separator == "," and any(map(whole, itertools.pairwise(cells))):
        if width == 1 and len(cells) == 2:
            return "; if a comma is the decimal mark: data.separator=semicolon data.decimal=comma"
        if len(cells) > width:
            return "; if a comma groups thousands or is the decimal mark, write such numbers with a point alone"
    if len(rows) == 1 and len(cells) == width + 1 > 2:
        if not cells[-1]:
            return "; the last one is empty: end no line with a separator"
        return "; if they start with names of rows, write the table without them"
    return ""


def _has_header(path: Path, form: Form, rows: Sequence[list[str]]) -> bool:
    """Whether the first row holds names.

    Raises:
      ConfigError: it holds numbers, which may be names or values.
    """
    if form.header is not None:
        return form.header
    first = rows[0]
    numeric = [to_float(cell, DECIMALS[form.decimal]) is not None for cell in first]
    if any(not number and cell.lower() not in MISSING for number, cell in zip(numeric, first, strict=True)):
        return True
    # A table with the index of pandas has no name above the index, which counts the rows.
    if not first[0] and len(rows) > 1 and count_up([row[0] for row in rows[1:]]):
        return True
    if not any(numeric):
        return True
    shown = ",".join(first[:3]) + (",..." if len(first) > 3 else "")
    remedy = "say whether they are names, data.header=true, or values, data.header=false"
    raise ConfigError("header", None, f"{path.name}, line 1 holds numbers only ({shown}); {remedy}")


# -------------------------------------------------------------------------------------------------------- Parquet files


def read_parquet(path: Path, form: Form, keep: Sequence[str | None] = ()) -> Table:
    """A Parquet file as a table, with the types that it declares, by the package pyarrow.

    An index of pandas is left out, unless `keep` names its column.

    Raises:
      ConfigError: with an empty key: pyarrow is missing, or the file is damaged or has no rows.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("", None, "Parquet files need another package: pip install pyarrow") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # unlike read_table, it takes two columns of one name
            content = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError("", None, f"it is not a Parquet file, or is damaged ({error})") from None
    declared = (content.schema.pandas_metadata or {}).get("index_columns", [])
    index = [name for name in declared if isinstance(name, str) and name in content.column_names and name not in keep]
    of_times = any(pyarrow.types.is_temporal(content.schema.field(name).type) for name in index)
    content = content.drop_columns(index)
    if content.num_rows == 0:
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")
    names = tuple(content.column_names)

    @functools.cache
    def convert(number: int) -> Column:
        return _from_arrow(content.columns[number], form.marks, lambda row: table.where(row, names[number]))

    line = lambda row: f"row {row} (from 0)"
    first = index[0] if index else None
    table = Table(path, names, content.num_rows, form, convert, line, index=first, index_of_times=of_times)
    return table


def _from_arrow(content: Any, marks: Sequence[float | str], where_of: Callable[[int], str]) -> Column:
    """A column of pyarrow, a `pyarrow.ChunkedArray`; `where_of` says where a row stands in the file.

    Raises:
      ConfigError: an infinite number, or a whole number that float64 cannot hold.
    """
    import pyarrow
    import pyarrow.types as types

    if types.is_dictionary(content.type):
        content = content.cast(content.type.value_type)
    kind = content.type
    if types.is_timestamp(kind) or types.is_date(kind):
        unit = "ns" if "ns" in str(kind) else "us"
        times = content.cast(pyarrow.timestamp(unit)).to_numpy()
        zoned = types.is_timestamp(kind) and kind.tz is not None
        return Column("time", None, times, content.is_null().to_numpy(), zoned=zoned)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _numbers(content, [mark for mark in marks if not isinstance(mark, str)], where_of)
    cells = np.array(["" if cell is None else str(cell).strip() for cell in content.to_pylist()], object)
    texts = {mark.strip(): mark for mark in marks if isinstance(mark, str)}
    seen = frozenset(mark for text, mark in texts.items() if text in cells)
    missing = np.array([cell.lower() in MISSING or cell in texts for cell in cells], bool)
    if missing.all():
        return Column("empty", np.full(len(cells), np.nan), None if types.is_null(kind) else cells, missing, seen)
    return Column("text", None, cells, missing, seen)


def _numbers(content: Any, marks: Sequence[float], where_of: Callable[[int], str]) -> Column:
    """A column of truth values, whole numbers, floats or decimals."""
    import pyarrow
    import pyarrow.types as types

    kind = content.type
    numbers = np.array(content.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64)
    single = kind == pyarrow.float32()
    equal = {mark: numbers == (np.float32(mark) if single else mark) for mark in marks}
    seen = frozenset(mark for mark, rows in equal.items() if rows.any())
    missing = np.any([np.isnan(numbers), *equal.values()], axis=0)
    numbers[missing] = np.nan
    inexact = np.abs(numbers) > EXACT if types.is_decimal(kind) else np.zeros(len(numbers), bool)
    if types.is_integer(kind) and kind.bit_width == 64:
        stored = content.fill_null(0).to_numpy()
        inexact = (stored > EXACT) | ((stored < -EXACT) if kind == pyarrow.int64() else False)
    if inexact.any():
        row = int(np.argmax(inexact))
        raise ConfigError("", None, f"{where_of(row)}: {content[row].as_py()} {INEXACT}")
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers)))
        raise ConfigError("", None, f"{where_of(row)}: {numbers[row]}; leave the value out or remove the row")
    if missing.all():
        return Column("empty", numbers, None, missing, seen)
    column_kind = "bool" if types.is_boolean(kind) else "integer" if types.is_integer(kind) else "float"
    return Column(column_kind, numbers, None, missing, seen)
