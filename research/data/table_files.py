"""Files of tables: `.csv` and `.tsv`, checked line by line and read by pandas, and `.parquet`."""

import codecs
import csv
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data.columns import (
    EXACT,
    INEXACT,
    MARKS,
    MISSING,
    SEPARATORS,
    Column,
    Form,
    Table,
    counts,
    parse_cells,
    to_float,
)
from research.data.readers import parquet_table
from research.tree import ConfigError


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
        return parse_cells(cells, decimal, form.missing or (), lambda row: f"{table.place(row, name)}")

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
    content, name = path.read_bytes(), codecs.lookup(encoding).name
    marked = "utf-8" if content[:3] == codecs.BOM_UTF8 else None
    marked = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else marked
    if marked is not None and name.removesuffix("-sig") != marked:
        raise ConfigError("", None, f"{path.name} starts with the mark of another encoding: data.encoding={marked}")
    if name == "utf-16" and marked is None:
        order = "le" if content[1:2] == b"\0" else "be"
        raise ConfigError("", None, f"{path.name} does not start with a mark of utf-16: data.encoding=utf-16-{order}")
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
        order = "le" if content[1:2] == b"\0" else "be"
        remedy = f"a zero byte; is it utf-16? data.encoding=utf-16-{order}"
        raise ConfigError("", None, f"{path.name}, line {line}: {remedy}")


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
                if not lines and re.fullmatch("sep=.?", separator.join(cells)):
                    raise ConfigError("", None, f"{path.name}, line {line} only names the separator; remove it")
                if not lines:
                    width, first = len(cells), [cell.strip() for cell in cells]
                elif len(cells) != width:
                    more = "" if begin == line else f" (it begins in line {begin}: is a quote open?)"
                    shown = f"{path.name}, line {line}: {len(cells)} values, but {width} in the first line{more}"
                    remedy = _other_separator(path, separator, encoding, cells, width)
                    if not remedy and not lines[1:] and len(cells) == width + 1 > 2:
                        remedy = "; the last one is empty: end no line with a separator" if not cells[-1] else ""
                        remedy = remedy or "; if they start with names of rows, write the table without them"
                    raise ConfigError("", None, shown + remedy)
                if gap and width == 1 and lines:
                    remedy = 'write a missing value as NA or ""'
                    raise ConfigError("", None, f"{path.name}, line {gap} is empty; remove it, or {remedy}")
                gap = 0
                lines.append(line)
        except csv.Error as error:
            long = "unexpected end" in str(error) or "field limit" in str(error)
            what = 'a quote (") is opened and never closed' if long else f"wrong quotes ({error})"
            hint = _other_separator(path, separator, encoding, [], 1)
            raise ConfigError("", None, f"{path.name}, line {start}: {what}{hint}") from None
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
            parted = all(to_float(cell, ".") is not None for cell in head[1].split(" "))
        if parted and (width == 1 or counts[0] >= width):
            comma = separator == "," and other != "," and re.search(r"\d,\d", head[1]) is not None
            return f"; if {name}s part them: data.separator={name}" + (" data.decimal=comma" if comma else "")
    grouped = any(
        re.fullmatch(r"\s*-?\d+", one) and re.fullmatch(r"\d+", two) for one, two in itertools.pairwise(cells)
    )
    if separator == "," and width == 1 and len(cells) == 2 and grouped:
        return "; if a comma is the decimal mark: data.separator=semicolon data.decimal=comma"
    if separator == "," and len(cells) > width and grouped:
        return "; if a comma groups thousands or is the decimal mark, write such numbers with a point alone"
    return ""


def _has_header(path: Path, form: Form, first: Sequence[str], decimal: str, frame: Any) -> bool:
    """Whether the first line holds names."""
    if form.header is not None:
        return form.header
    if any(to_float(cell, decimal) is None and cell.lower() not in MISSING for cell in first):
        return True
    # An index that pandas has written has no name; below it the rows are counted.
    if not first[0] and len(frame) > 1 and counts([cell.strip() for cell in frame[0].to_numpy(object)[1:]]):
        return True
    if not any(to_float(cell, decimal) is not None for cell in first):
        return True
    shown = ",".join(first[:3]) + (",..." if len(first) > 3 else "")
    remedy = "say whether they are names, data.header=true, or values, data.header=false"
    raise ConfigError("header", None, f"{path.name}, line 1 holds numbers only ({shown}); {remedy}")


# --------------------------------------------------------------------------------------------------------- Parquet


def _read_parquet(path: Path, form: Form, keep: Sequence[str | None]) -> Table:
    table, index = parquet_table(path)
    import pyarrow

    index = [name for name in index if name not in keep]
    times = any(pyarrow.types.is_temporal(table.schema.field(name).type) for name in index)
    table = table.drop_columns(index)
    if table.num_rows == 0:
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")
    names = table.column_names

    def column(number: int) -> Column:
        return _from_arrow(table.columns[number], form.missing or (), lambda row: read.place(row, names[number]))

    place = lambda row: f"row {row} (from 0)"
    first = index[0] if index else None
    read = Table(path, names, table.num_rows, column, place, index=first, index_of_times=times)
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
                raise ConfigError("", None, f"{shown} {INEXACT}")
        numbers = np.array(content.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64)
        exact = (lambda mark: np.float32(mark)) if kind == pyarrow.float32() else float
        equal = {mark: numbers == exact(mark) for mark in also if not isinstance(mark, str)}
        marks = frozenset(mark for mark, rows in equal.items() if rows.any())
        missing = np.isnan(numbers) | np.any([*equal.values(), np.zeros(len(numbers), bool)], axis=0)
        numbers[missing] = np.nan
        if kinds.is_decimal(kind) and (np.abs(numbers) > EXACT).any():
            row = int(np.argmax(np.abs(numbers) > EXACT))
            raise ConfigError("", None, f"{place(row)}: {content[row].as_py()} {INEXACT}")
        if np.isinf(numbers).any():
            row = int(np.argmax(np.isinf(numbers)))
            raise ConfigError("", None, f"{place(row)}: {numbers[row]}; leave the value out or remove the row")
        if missing.all():
            return Column("empty", numbers, None, missing, marks)
        whole = "bool" if kinds.is_boolean(kind) else "integer" if kinds.is_integer(kind) else "float"
        return Column(whole, numbers, None, missing, marks)
    cells = np.array(["" if cell is None else str(cell).strip() for cell in content.to_pylist()], object)
    wanted = {mark.strip(): mark for mark in also if isinstance(mark, str)}
    marks = frozenset(mark for text, mark in wanted.items() if text in cells)
    missing = np.array([cell.lower() in MISSING or cell in wanted for cell in cells], bool)
    if missing.all():
        return Column("empty", np.full(len(cells), np.nan), cells, missing, marks)
    return Column("text", None, cells, missing, marks)
