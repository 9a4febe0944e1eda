"""Faults that reading alone does not show: marks of missing values, grouped thousands, several series, equal rows."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.data.columns import DATE_PARTS, LEAST
from research.data.files.table import Column, Table, paste
from research.data.preparation import CHUNK
from research.data.times import read_date, times_of
from research.tree import ConfigError

MOST_MARKS = 3  # different marks at either end of a column
REPEATS = 3  # how often a value must occur before it may be a mark
CALENDAR = re.compile(
    "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)[a-z]*", re.IGNORECASE
)


# --------------------------------------------------------------------------------------------------------------- notes


def table_notes(table: Table, features: Sequence[str], values: np.ndarray, others: Sequence[str] = ()) -> list[str]:
    """Notes on columns whose numbers may not mean what they say.

    Args:
      table: the file.
      features: columns that are used as features or channels.
      values: their numbers, [N, C].
      others: further columns that are used, such as the target.
    """
    return [
        *marks_notes(table.path.name, features, values),
        *unused_marks_notes(table, features),
        *grouped_notes(table, [*features, *others]),
    ]


def marks_notes(file: str, names: Sequence[str], values: np.ndarray) -> list[str]:
    """Notes on values that repeat far outside the rest of their column, such as -9999; values [N, C]."""
    notes = []
    for name, column in zip(names, values.T, strict=True):
        for mark, times in far_repeats(column):
            text = f"{file}, column '{name}': {mark:.10g} occurs {times} times, far outside all other values"
            notes.append(f"{text}; if it means a missing value: {paste('missing', [f'{mark:.10g}'])}")
    return notes


def far_repeats(values: np.ndarray) -> list[tuple[float, int]]:
    """Values that may mark missing values, and how often they occur.

    Such a value lies at one end of the values [N], occurs several times, and its distance to the rest is larger than
    the range of the rest.
    """
    values = values[np.isfinite(values)]
    if not len(values) or max((values == values.min()).sum(), (values == values.max()).sum()) < REPEATS:
        return []  # a quick answer for most columns
    different, times = np.unique(values, return_counts=True)
    first, last = 0, len(different)
    while first < MOST_MARKS and times[first] >= REPEATS and last - first > 1:
        first += 1
    while len(different) - last < MOST_MARKS and times[last - 1] >= REPEATS and last - first > 1:
        last -= 1
    rest = different[first:last]
    low, high = rest[0], rest[-1]
    if len(rest) < 10:  # classes or counts, any of which may be rare
        return []
    ends = [*range(first), *range(last, len(different))]
    far = [end for end in ends if max(low - different[end], different[end] - high) > high - low]
    return [(float(different[end]), int(times[end])) for end in far]


def unused_marks_notes(table: Table, names: Sequence[str]) -> list[str]:
    """A note on entries of the key `missing` that occur in none of the columns."""
    seen = set().union(*(table.column(name).marks for name in names))
    unused = [str(mark if isinstance(mark, str) else f"{mark:.10g}") for mark in table.form.marks if mark not in seen]
    return [f"{', '.join(unused)} (data.missing) occurs nowhere in {table.path.name}"] if unused else []


def grouped_notes(table: Table, names: Sequence[str]) -> list[str]:
    """Notes on columns in which a point (or decimal comma) may group thousands: 1.854 beside 987."""
    notes, mark = [], re.escape(table.decimal)
    for name in names:
        column = table.column(name)
        if column.kind != "float":
            continue
        grouped = [text for text in column.texts if re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}{mark}\d{{3}}", text)]
        plain = [text for text in column.texts if re.fullmatch(r"[+-]?\d{1,3}", text)]
        if len(grouped) >= REPEATS and plain and len(grouped) + len(plain) == len(column.texts):
            text = f"{table.path.name}, column '{name}': {grouped[0]} beside {plain[0]} is read as a fraction"
            notes.append(f"{text}; if its '{table.decimal}' groups thousands, write such numbers without it")
    return notes


# --------------------------------------------------------------------------------------------------------- long tables


def refuse_many_series(table: Table, time: str | None) -> None:
    """Refuse a long table, in which the rows of many series stand one below the other.

    Args:
      time: the key `time_column`.

    Raises:
      ConfigError: naming the column that names the series and the column of times.
    """
    if (panel := many_series(table, time)) is None:
        return
    name, clock, series = panel
    problem = f"{table.path.name} holds {series} series one below the other: '{clock}' starts again for each '{name}'"
    remedy = f"in place of data=series write {panel_settings(name, clock)} (its channels are data.values)"
    raise ConfigError("", None, f"{problem}; {remedy}")


def panel_settings(name: str, clock: str) -> str:
    """The settings that read a long table, as they can be pasted: the column of names and that of times."""
    return f"data=panel {paste('id_column', name)} {paste('time_column', clock)}"


def many_series(table: Table, time: str | None) -> tuple[str, str, int] | None:
    """The column that names the series of a long table, the column that holds their times, and how many they are.

    Times do not grow over the whole table, but grow within the rows of each name.
    """
    columns = {name: table.column(name) for name in table.names if table.problem(name) is None}
    clocks = {name: values for name, column in columns.items() if (values := _clock(table, name, column)) is not None}
    if time in clocks:
        clocks = {time: clocks[time]}
    clocks = {name: values for name, values in clocks.items() if not (np.diff(values) > 0).all()}
    for name, series in _series_names(columns, time).items():
        order = np.argsort(series, kind="stable")
        same = np.diff(series[order]) == 0
        for clock, values in clocks.items():
            if clock == name or _is_calendar(name, columns[name], clock, columns[clock]):
                continue
            if same.sum() > LEAST and (np.diff(values[order])[same] > 0).all():
                return name, clock, int(series.max()) + 1
    return None


def _clock(table: Table, name: str, column: Column) -> np.ndarray | None:
    """A column that may hold times as numbers, [N]; None for another column."""
    if column.missing.any():
        return None
    if column.numbers is not None:
        return column.numbers if column.kind in ("integer", "float") else None
    if column.kind == "text" and read_date(column.texts[0]) is None:
        return None
    try:
        return times_of(table, name).astype("datetime64[us]").astype(np.int64).astype(np.float64)
    except ConfigError:
        return None


def _series_names(columns: Mapping[str, Column], time: str | None) -> dict[str, np.ndarray]:
    """Columns that may name series, as numbers from 0, [N]: each name occurs twice or more, three times on average."""
    candidates = {}
    for name, column in columns.items():
        if name == time or column.missing.any() or column.kind not in ("text", "integer"):
            continue
        keys = np.asarray(column.numbers if column.kind == "integer" else column.texts)
        names, series, times = np.unique(keys, return_inverse=True, return_counts=True)
        if not 2 <= len(names) <= len(series) / 3 or times.min() < 2:
            continue
        if column.kind == "text":
            dates = all(CALENDAR.fullmatch(text) or read_date(text) is not None for text in names)
        else:
            dates = names.min() >= 1900 and names.max() <= 2100
        if not dates:
            candidates[name] = series
    return candidates


def _is_calendar(name: str, column: Column, clock: str, times: Column) -> bool:
    """Whether two columns of numbers are parts of one date, such as year and month."""
    numbered = column.kind == "integer" and times.kind in ("integer", "float")
    return numbered and bool({name.lower(), clock.lower()} & DATE_PARTS)


# -------------------------------------------------------------------------------------------------------- equal rows


def repeated(
    x: Any, beside: np.ndarray | None, test: np.ndarray | None, test_path: str, key: str = "test_path"
) -> list[str]:
    """A note on rows that occur several times.

    Args:
      x: rows [N, ...].
      beside: their targets, which belong to a row, [N, ...].
      test: the rows of `test_path`, [N] bool; None without a second file.
      test_path, key: where the test rows are, and the key that says so.

    Raises:
      ConfigError: more rows of `test_path` are among the others than these have copies among themselves.
    """
    rows = _digests(x, beside)
    others = rows if test is None else rows[~test]
    copies, times = np.unique(others, return_counts=True)
    repeats = int(times[times > 1].sum())
    if test is None:
        text = f"{repeats} of {len(x)} rows occur more than once; copies may lie in training and test rows"
        return [text] if repeats else []
    seen = int(np.isin(rows[test], copies).sum())
    if not seen:
        return []
    text = f"{seen} of {int(test.sum())} test rows are among the training rows"
    if seen / test.sum() > repeats / len(others):
        raise ConfigError(key, test_path, f"{text}; remove them from one of the two")
    return [f"{text}; these have copies among themselves, too"]


def _digests(x: Any, beside: np.ndarray | None) -> np.ndarray:
    """A digest of every row with its target, [N] uint64: equal rows have equal digests."""
    digests = np.empty(len(x), np.uint64)
    for start in range(0, len(x), CHUNK):
        for row, values in enumerate(x[start : start + CHUNK] + 0, start):  # + 0: -0.0 and 0.0 are equal
            content = np.ascontiguousarray(values).tobytes() + (b"" if beside is None else beside[row].tobytes())
            digests[row] = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())
    return digests
