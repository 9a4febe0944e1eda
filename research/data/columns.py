"""Tables read by column: numbers in the order of time, with gaps; errors name file, line and column."""

import csv
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.data.readers import parquet_table
from research.tree import ConfigError, nearest

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none"))  # in any case of letters


class Columns(NamedTuple):
    """Numeric columns of a file.

    Attributes:
      names: of the columns.
      values: one row per step, NaN where a value is missing, [S, C] float64.
    """

    names: tuple[str, ...]
    values: np.ndarray


def read_columns(path: Path, names: Sequence[str] | None, time: str | None, *, key: str = "columns") -> Columns:
    """Columns of a `.csv` or `.parquet` file.

    An empty cell, or one that reads NA, NaN or null, is a missing value. Without a header line columns are named by
    their number: 0 is the first.

    Args:
      path: the file.
      names: columns in the order wanted; None takes all but the time.
      time: a column of numbers or of dates (ISO 8601) that must increase from row to row and is no part of the values.
      key: the setting that names columns, for errors.

    Raises:
      ConfigError: with an empty key where the file itself is to blame.
    """
    read = {".csv": _read_csv, ".parquet": _read_parquet}[path.suffix.lower()]
    return read(path, names, time, key)


def _choose(known: Sequence[str], names: Sequence[str] | None, time: str | None, path: Path, key: str) -> list[int]:
    """Indices of the wanted columns."""
    repeated = sorted({name for name in known if list(known).count(name) > 1})
    wanted = [name for name in known if name != time] if names is None else list(names)
    for setting, name in [("time_column", time), *((key, name) for name in wanted)]:
        if name is None:
            continue
        if name not in known:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            remedy = f"{path.name} has no such column{nearest(name, known)}; there are: {shown}"
            raise ConfigError(setting, name, remedy)
        if name in repeated:
            raise ConfigError(setting, name, f"{path.name} has more than one column of this name")
    if time in wanted:
        raise ConfigError(key, time, "this is data.time_column, which is no part of x; leave it out of one of the two")
    if len(set(wanted)) < len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise ConfigError(key, twice, "this column is named twice")
    if not wanted:
        raise ConfigError(key, names, f"{path.name} has no other column than the time" if time else "name a column")
    return [list(known).index(name) for name in wanted]


def _read_csv(path: Path, names: Sequence[str] | None, time: str | None, key: str) -> Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            first = [cell.strip() for cell in next(reader, [])]
            header = not all(_number(cell) is not None for cell in first)
            known = first if header else [str(index) for index in range(len(first))]
            if not any(first):
                raise ConfigError("", None, f"{path.name}, line 1: it is empty")
            if header and not all(known):
                raise ConfigError("", None, f"{path.name}, line 1: column {known.index('')} (from 0) has no name")
            chosen = _choose(known, names, time, path, key)
            lines, rows = ([], []) if header else ([1], [first])
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(first):
                    remedy = f"{len(cells)} values, but {len(first)} in the first line"
                    raise ConfigError("", None, f"{path.name}, line {reader.line_num}: {remedy}")
                lines.append(reader.line_num)
                rows.append(cells)
    except UnicodeDecodeError as error:
        raise ConfigError("", None, f"it is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise ConfigError("", None, f"{path.name} is no table of comma-separated values ({error})") from None
    if not rows:
        raise ConfigError("", None, f"{path.name} has no rows")
    values = np.empty((len(rows), len(chosen)))
    for place, index in enumerate(chosen):
        for row, cells in enumerate(rows):
            number = _number(cells[index])
            if number is None or np.isinf(number):
                shown = f"'{cells[index].strip()[:40]}'"
                remedy = _not_numeric(shown, key) if number is None else f"{shown} is not finite; leave the cell empty"
                raise ConfigError("", None, f"{path.name}, line {lines[row]}, column '{known[index]}': {remedy}")
            values[row, place] = number
    if time is not None:
        place = known.index(time)
        _check_time([cells[place].strip() for cells in rows], [f"line {line}" for line in lines], time, path)
    return Columns(tuple(known[index] for index in chosen), values)


def _not_numeric(shown: str, key: str) -> str:
    return f"{shown} is not a number; name the columns to use (data.{key}=[...]), or data.time_column if it is the time"


def _number(cell: str) -> float | None:
    """The number in a cell, NaN for a missing one, None for text."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return np.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _check_time(cells: Sequence[str], places: Sequence[str], name: str, path: Path) -> None:
    """Numbers or dates must increase; `places` say where each stands in the file."""
    times: list[Any] = [_number(cell) for cell in cells]
    if any(time is None for time in times):
        for row, cell in enumerate(cells):
            try:
                times[row] = _date(cell)
            except ValueError:
                remedy = "expected numbers, or dates such as 2016-07-01 12:30:00"
                shown = f"{path.name}, {places[row]}: '{cell[:40]}' is no time"
                raise ConfigError("time_column", name, f"{shown}; {remedy}") from None
    _check_increasing(np.array(times), lambda row: f"{places[row]}: '{cells[row][:40]}'", name, path)


def _date(cell: str) -> np.datetime64:
    """A date, with or without a time of day and a zone, in universal time."""
    date = datetime.datetime.fromisoformat(f"{cell}-01" if len(cell) == 7 else cell)  # 2016-07 is a month
    return np.datetime64(date.astimezone(datetime.UTC).replace(tzinfo=None) if date.tzinfo else date)


def _check_increasing(times: np.ndarray, shown: Callable[[int], str], name: str, path: Path) -> None:
    wrong = ~(times[1:] > times[:-1])  # also where one of the two is missing
    if wrong.any():
        place = f"{path.name}, {shown(int(np.argmax(wrong)) + 1)}"
        remedy = f"{place} does not come after the row before; sort the table by time, each time once"
        raise ConfigError("time_column", name, remedy)


def _read_parquet(path: Path, names: Sequence[str] | None, time: str | None, key: str) -> Columns:
    table = parquet_table(path, keep=time)
    import pyarrow

    chosen = _choose(table.column_names, names, time, path, key)
    if table.num_rows == 0:
        raise ConfigError("", None, f"{path.name} has no rows")
    values = np.empty((table.num_rows, len(chosen)))
    for place, column in enumerate(chosen):
        name, kind = table.column_names[column], table.columns[column].type
        if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
            raise ConfigError("", None, f"{path.name}, column '{name}': {_not_numeric(str(kind), key)}")
        content = table.columns[column].cast(pyarrow.float64(), safe=False).to_numpy()
        if np.isinf(content).any():
            row = int(np.argmax(np.isinf(content)))
            raise ConfigError("", None, f"{path.name}, row {row} (from 0), column '{name}': {content[row]}")
        values[:, place] = content
    if time is not None:
        content = table.column(time)
        if pyarrow.types.is_temporal(content.type) or pyarrow.types.is_integer(content.type):
            times = content.to_numpy()
            _check_increasing(times, lambda row: f"row {row} (from 0): '{times[row]}'", time, path)
        else:
            cells = ["" if cell is None else str(cell) for cell in content.to_pylist()]
            _check_time(cells, [f"row {row} (from 0)" for row in range(len(cells))], time, path)
    return Columns(tuple(table.column_names[index] for index in chosen), values)
