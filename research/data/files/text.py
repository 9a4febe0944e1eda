"""Tables of text, `.csv` and `.tsv`, read line by line and strictly: every row has as many cells as the first."""

import codecs
import csv
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.files.cells import MISSING, Column, count_up, parse_cells, to_float
from research.data.files.table import DECIMALS, SEPARATORS, Form, Table
from research.tree import ConfigError


class Lines(NamedTuple):
    """The rows of a file that are not empty.

    Attributes:
      cells: rows of cells without blanks at their ends.
      numbers: number of the last line of every row, from 1.
    """

    cells: list[list[str]]
    numbers: list[int]


def read_text(path: Path, form: Form) -> Table:
    """A `.csv` or `.tsv` file as a table.

    Raises:
      ConfigError: with an empty key where the file is to blame, else naming the key that describes it wrongly.
    """
    separator = SEPARATORS[form.separator or ("tab" if path.suffix.lower() == ".tsv" else "comma")]
    encoding = "utf-8-sig" if form.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else form.encoding
    _check_bytes(path, encoding)
    rows, lines = _read_lines(path, separator, encoding)
    decimal = DECIMALS[form.decimal]
    named = _has_header(path, form, rows, decimal)
    names = rows[0] if named else [str(number) for number in range(len(rows[0]))]
    if named:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")
    columns = list(zip(*rows, strict=True))

    def convert(number: int) -> Column:
        cells = np.array(columns[number], object)
        return parse_cells(cells, decimal, form.marks, lambda row: table.place(row, names[number]))

    line = lambda row: f"line {lines[row]}"
    table = Table(path, names, len(rows), convert, line, form, named=named)
    return table


def _check_bytes(path: Path, encoding: str) -> None:
    """Refuse a file with bytes that are not text of this encoding, anywhere in it."""
    content, name = path.read_bytes(), codecs.lookup(encoding).name
    marked = "utf-8" if content[:3] == codecs.BOM_UTF8 else None
    marked = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else marked
    order = "le" if content[1:2] == b"\0" else "be"  # of the two bytes of a letter in utf-16
    if marked is not None and name.removesuffix("-sig") != marked:
        raise ConfigError("", None, f"{path.name} starts with the mark of another encoding: data.encoding={marked}")
    if name == "utf-16" and marked is None:
        raise ConfigError("", None, f"{path.name} does not start with a mark of utf-16: data.encoding=utf-16-{order}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, errors="ignore").count("\n") + 1
        known = "utf-8" if encoding == "utf-8-sig" else encoding
        problem = f"byte {error.start} of the file (0x{content[error.start]:02x}) is not {known} text"
        remedy = f"{problem}; name the encoding, for example data.encoding=cp1252"
        raise ConfigError("", None, f"{path.name}, line {line}: {remedy}") from None
    except UnicodeError as error:
        remedy = f"{path.name} is not {encoding} text ({error}); name another: data.encoding=..."
        raise ConfigError("", None, remedy) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        remedy = f"a zero byte; is it utf-16? data.encoding=utf-16-{order}"
        raise ConfigError("", None, f"{path.name}, line {line}: {remedy}")


def _read_lines(path: Path, separator: str, encoding: str) -> Lines:
    """All rows of a file.

    Raises:
      ConfigError: rows of unequal length, an open quote, text after a quote, or an empty line in a single column.
    """
    rows, lines, start, gap = [], [], 1, 0  # line where the next row begins, and of an empty line after the last row
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            for cells in reader:
                line, first_line, start = reader.line_num, start, reader.line_num + 1
                if not cells or (len(cells) == 1 and cells[0] and not cells[0].strip()):
                    gap = gap or line
                    continue
                if not rows and re.fullmatch("sep=.?", separator.join(cells)):
                    raise ConfigError("", None, f"{path.name}, line {line} only names the separator; remove it")
                if rows and len(cells) != len(rows[0]):
                    count = f"{len(cells)} values, but {len(rows[0])} in the first line"
                    if first_line != line:
                        count += f" (the row begins in line {first_line}: is a quote open?)"
                    remedy = _length_remedy(path, separator, encoding, cells, rows)
                    raise ConfigError("", None, f"{path.name}, line {line}: {count}{remedy}")
                if gap and rows and len(cells) == 1:  # is it a missing value, or the end of a part?
                    remedy = 'remove it, or write a missing value as NA or ""'
                    raise ConfigError("", None, f"{path.name}, line {gap} is empty; {remedy}")
                gap = 0
                rows.append([cell.strip() for cell in cells])
                lines.append(line)
        except csv.Error as error:
            endless = "unexpected end" in str(error) or "field limit" in str(error)
            problem = 'a quote (") is opened and never closed' if endless else f"wrong quotes ({error})"
            hint = _separator_remedy(path, separator, encoding, 1)
            raise ConfigError("", None, f"{path.name}, line {start}: {problem}{hint}") from None
    if not rows or not any(rows[0]):
        raise ConfigError("", None, f"{path.name}: its first line is empty; there is nothing in it")
    if len(rows[0]) == 1 and (hint := _separator_remedy(path, separator, encoding, 1)):
        raise ConfigError("", None, f"{path.name}, line 1: there is one column only{hint}")
    return Lines(rows, lines)


def _separator_remedy(path: Path, separator: str, encoding: str, width: int) -> str:
    """The setting for another separator, if that one splits each of the first two lines into `width` cells or more."""
    with path.open(encoding=encoding) as file:
        lines = [line for line in (file.readline().strip("\r\n") for _ in range(8)) if line.strip()][:2]
    if len(lines) < 2:
        return ""
    for name, other in SEPARATORS.items():
        count = lines[0].count(other)
        if other == separator or not count or lines[1].count(other) != count or (width > 1 and count < width):
            continue
        if other == " " and any(to_float(cell, ".") is None for cell in lines[1].split(" ")):
            continue
        decimal = " data.decimal=comma" if separator == "," and re.search(r"\d,\d", lines[1]) else ""
        return f"; if {name}s part them: data.separator={name}{decimal}"
    return ""


def _length_remedy(path: Path, separator: str, encoding: str, cells: list[str], rows: list[list[str]]) -> str:
    """What may be wrong with a row that has not as many cells as the first row."""
    width = len(rows[0])
    if remedy := _separator_remedy(path, separator, encoding, width):
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


def _has_header(path: Path, form: Form, rows: Sequence[list[str]], decimal: str) -> bool:
    """Whether the first row holds names.

    Raises:
      ConfigError: it holds numbers, which may be names or values.
    """
    if form.header is not None:
        return form.header
    first = rows[0]
    if any(to_float(cell, decimal) is None and cell.lower() not in MISSING for cell in first):
        return True
    # A table with the index of pandas has no name above the index, which counts the rows.
    if not first[0] and len(rows) > 1 and count_up([row[0] for row in rows[1:]]):
        return True
    if not any(to_float(cell, decimal) is not None for cell in first):
        return True
    shown = ",".join(first[:3]) + (",..." if len(first) > 3 else "")
    remedy = "say whether they are names, data.header=true, or values, data.header=false"
    raise ConfigError("header", None, f"{path.name}, line 1 holds numbers only ({shown}); {remedy}")
