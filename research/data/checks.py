"""What columns give away: counters and dates, marks of missing values, many series one below the other."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from research.data.columns import Column, Table, counts, paste
from research.data.times import compact_dates, read_date, times_of
from research.tree import ConfigError, nearest

LEAST = 5  # rows from which a constant step is no accident
MARKS = 3  # different marks at either end of a column
REPEATS = 3  # how often a value must occur to be suspected as a mark
CALENDAR = re.compile(
    "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)[a-z]*", re.IGNORECASE
)
PARTS = frozenset(("year", "yr", "quarter", "month", "mo", "week", "weekday", "dow", "day", "doy", "hour", "minute"))
TIMES = PARTS | {"time", "times", "date", "dates", "datetime", "timestamp", "ds", "t", "index"}
PART = "holds parts of dates"
DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}.*|\d{1,2}:\d{2}(:\d{2}.*)?")


def choose(
    table: Table,
    names: Sequence[str] | None,
    taken: Mapping[str, str | None],
    trained: Sequence[str] | None = None,
    new_rows: bool = False,
) -> tuple[list[str], list[str]]:
    """The columns that are features or channels, and notes of what was left out.

    Args:
      table: the file.
      names: the key `columns`; None takes every column that is not taken for something else.
      taken: columns that are used otherwise, by the key that says so.
      trained: columns of a run that the table is read for; they are taken in its order.
      new_rows: the table is read for a run, so that what its columns look like does not matter.

    Raises:
      ConfigError: a column is missing, foreign, without a name, of text, or one that only counts or dates the rows.
    """
    for key, name in taken.items():
        if name is not None:
            table.find(name, key)
    others = {table.names[table.find(name, key)]: key for key, name in taken.items() if name is not None}
    left, notes = _left_out(table, others)
    if trained is not None:
        for name in trained:
            table.find(name, "columns")
        for name in table.names:
            if names is None and name not in trained and name not in others and name not in left:
                shown = f"{table.path.name} has {'this column' if name else 'a column without a name'}"
                remedy = f"leave it out: {paste('columns', trained)}"
                raise ConfigError("columns", name, f"{shown}, and training had not{nearest(name, trained)}; {remedy}")
        return list(trained), notes
    if names is not None:
        chosen = [table.names[table.find(name, "columns")] for name in names]
        for name in chosen:
            if chosen.count(name) > 1:
                raise ConfigError("columns", name, "this column is named twice")
            if name in others:
                remedy = f"this is data.{others[name]}, which is no part of x; leave it out of one of the two"
                raise ConfigError("columns", name, remedy)
        return chosen, []
    chosen = [name for name in table.names if name not in others and name not in left]
    if not chosen:
        raise ConfigError(
            "columns", None, f"{table.path.name} has no other column than {', '.join(others) or 'the index'}"
        )
    _check_names(table, chosen, others)
    for name in () if new_rows else chosen:
        series = "time_column" in taken
        problem = _no_feature(table, name, series)
        if problem:
            good = [other for other in chosen if not _no_feature(table, other, series)]
            remedy = f"list the columns to use: {paste('columns', good)}" if good else "no other column is left"
            if table.readable(name) and table.mixed(table.column(name)):
                raise table.not_numeric(name, table.column(name))
            if problem.endswith(PART):
                remedy += "; for one column of times write 2016-07-01, or 2016-07 for months"
            elif "time_column" in taken and taken["time_column"] is None:
                remedy = f"if it is the time: {_key('time_column', name)}; else {remedy}"
            elif "target" in taken and taken["target"] is None:
                remedy += f"; if it is the target: {_key('target', name)}"
            raise ConfigError("columns", None, f"{problem}; {remedy}")
    return chosen, notes


def _key(key: str, name: str) -> str:
    return paste(key, [name]).replace("[", "").replace("]", "") if re.fullmatch(r"[\w ]+", name) else f"data.{key}=..."


def _left_out(table: Table, others: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Columns in which pandas has counted the rows, and what to say of them."""
    if table.index is not None:
        named = not table.index.startswith("__index_level_")
        what, remedy = (f" '{table.index}'", "; data.columns can list it") if named else ("", "")
        return [], [f"the index{what} of {table.path.name} is left out{remedy}"]
    first = table.names[0]
    if first not in others and (not first or re.fullmatch(r"Unnamed: \d+", first)) and table.names.count(first) == 1:
        column = table.column(first)
        if column.cells is not None and counts([str(cell) for cell in column.cells]):
            return [first], [f"the first column of {table.path.name} only counts the rows (an index) and is left out"]
    return [], []


def _check_names(table: Table, chosen: Sequence[str], others: Mapping[str, str]) -> None:
    """Refuse columns without a name, and two of one name."""
    named = [name for name in chosen if name]
    for name in named:
        if chosen.count(name) > 1:
            raise ConfigError("columns", name, f"{table.path.name} has more than one column of this name; rename one")
    if "" in chosen:
        place = table.names.index("")
        column = table.column("") if chosen.count("") == 1 else None
        dates = column is not None and column.kind == "text" and looks_like_dates(column)
        how = "index_label=time, then data.time_column=time" if dates else "index=False"
        remedy = f"name it or write the table without it (pandas: {how}), or list the others: {paste('columns', named)}"
        raise ConfigError("columns", None, f"{table.path.name}, line 1: column {place} (from 0) has no name; {remedy}")


def _no_feature(table: Table, name: str, series: bool) -> str | None:
    """Why a column is no feature, or no channel of a series, unless it is asked for, or None."""
    if not table.readable(name):
        return table.problem(name)
    column = table.column(name)
    where = f"{table.path.name}, column '{name}'"
    if column.kind == "time" or (column.kind == "text" and looks_like_dates(column)):
        return f"{where} holds dates"
    if column.numbers is None:
        return table.not_numeric(name, column).remedy
    if compact_dates(column) is not None and len(column.numbers) >= LEAST:
        return f"{where} holds dates ({column.numbers[0]:.0f}, ...)"
    if grows_evenly(column.numbers):
        return f"{where} grows by a constant step ({column.numbers[0]:.10g}, {column.numbers[1]:.10g}, ...)"
    if name.lower() in TIMES and len(column.numbers) >= LEAST and (np.diff(column.numbers) > 0).all():
        return f"{where} grows from row to row ({column.numbers[0]:.10g}, {column.numbers[1]:.10g}, ...) as a time does"
    if series and name.lower() in PARTS and column.kind == "integer":
        return f"{where} {PART}"
    return None


def looks_like_dates(column: Column) -> bool:
    """Whether all cells of a column of text may be dates or times of day."""
    assert column.cells is not None
    present = [str(cell) for cell in column.cells[~column.missing]]
    return all(read_date(cell) is not None or DATE.fullmatch(cell) for cell in present)


def grows_evenly(values: np.ndarray) -> bool:
    """Whether values rise (or fall) from row to row by one step or a few of them, as times and row numbers do, [N]."""
    if len(values) < LEAST or np.isnan(values).any():
        return False
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        return False
    ratio = steps / np.median(steps)
    whole = np.round(ratio)
    return bool((np.abs(ratio - whole) <= 0.1).all() and (whole == 1).mean() >= 0.5)


def is_binary(kind: str, values: np.ndarray) -> bool:
    """Whether a column holds truth values, or only the whole numbers 0 and 1, beside missing values, [N]."""
    return kind == "bool" or (kind == "integer" and bool(np.isin(values[~np.isnan(values)], (0, 1)).all()))


def marks_note(file: str, names: Sequence[str], values: np.ndarray) -> list[str]:
    """A note on every value that repeats far outside the rest of its column, such as -9999; values [N, C]."""
    notes = []
    for name, column in zip(names, values.T, strict=True):
        for mark, times in far_repeats(column):
            text = f"{file}, column '{name}': {mark:.10g} occurs {times} times, far outside all other values"
            notes.append(f"{text}; if it means a missing value: {paste('missing', [f'{mark:.10g}'])}")
    return notes


def far_repeats(values: np.ndarray) -> list[tuple[float, int]]:
    """Values at an end that repeat, with a gap to the others that is wider than all of these; and how often; [N]."""
    values = values[np.isfinite(values)]
    if not len(values) or max((values == values.min()).sum(), (values == values.max()).sum()) < REPEATS:
        return []
    found, times = np.unique(values, return_counts=True)
    first, last = 0, len(found)
    while first < MARKS and times[first] >= REPEATS and last - first > 1:
        first += 1
    while len(found) - last < MARKS and times[last - 1] >= REPEATS and last - first > 1:
        last -= 1
    inner = found[first:last]
    low, high = inner[0], inner[-1]
    if len(inner) < 10:  # classes, counts
        return []
    ends = [*range(first), *range(last, len(found))]
    far = [end for end in ends if max(low - found[end], found[end] - high) > high - low]
    return [(float(found[end]), int(times[end])) for end in far]


def grouped_note(table: Table, names: Sequence[str]) -> list[str]:
    """Notes on columns in which a point (or decimal comma) may group thousands: 1.854 beside 987."""
    notes = []
    for name in names:
        column = table.column(name)
        if column.kind != "float" or column.cells is None:
            continue
        mark = re.escape(table.decimal)
        present = [str(cell) for cell in column.cells[~column.missing]]
        grouped = [cell for cell in present if re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}{mark}\d{{3}}", cell)]
        plain = [cell for cell in present if re.fullmatch(r"[+-]?\d{1,3}", cell)]
        if len(grouped) >= REPEATS and plain and len(grouped) + len(plain) == len(present):
            text = f"{table.path.name}, column '{name}': {grouped[0]} beside {plain[0]} is read as a fraction"
            notes.append(f"{text}; if its '{table.decimal}' groups thousands, write such numbers without it")
    return notes


def unused_marks_note(table: Table, names: Sequence[str], marks: Sequence[float | str] | None) -> list[str]:
    """A note on entries of the key `missing` that occur in no column that is used."""
    seen = set().union(*(table.column(name).marks for name in names))
    unused = [str(mark if isinstance(mark, str) else f"{mark:.10g}") for mark in marks or () if mark not in seen]
    return [f"{', '.join(unused)} (data.missing) occurs nowhere in {table.path.name}"] if unused else []


def refuse_many_series(table: Table, time: str | None) -> None:
    """Refuse a long table, in which the rows of many series stand one below the other.

    Raises:
      ConfigError: naming the columns that say so.
    """
    found = many_series(table, time)
    if found is None:
        return
    name, clock, series = found
    where = f"{table.path.name} holds {series} series one below the other: '{clock}' starts again for each '{name}'"
    remedy = (
        "data=panel will read such tables and does not exist yet; use one file for each series, or one column for each"
    )
    raise ConfigError("", None, f"{where}; {remedy} (pandas: table.pivot)")


def many_series(table: Table, time: str | None) -> tuple[str, str, int] | None:
    """The column that names the series of a long table, the one that holds their times, and how many they are."""
    columns: dict[str, Column] = {}
    for name in table.names:
        try:
            columns[name] = table.column(name)
        except ConfigError:  # of no use here
            continue
    clocks = {name: values for name, column in columns.items() if (values := _clock(table, name, column)) is not None}
    if time in clocks:
        clocks = {time: clocks[time]}
    clocks = {name: values for name, values in clocks.items() if not (np.diff(values) > 0).all()}
    for name, column in columns.items():
        series = _series(column) if name != time else None
        if series is None:
            continue
        for clock, values in clocks.items():
            numbered = column.kind == "integer" and (table.column(clock).kind in ("integer", "float"))
            if clock == name or (numbered and {name.lower(), clock.lower()} & PARTS):
                continue
            order = np.argsort(series, kind="stable")
            inside = np.diff(series[order]) == 0
            if inside.sum() >= LEAST + 1 and (np.diff(values[order])[inside] > 0).all():
                return name, clock, int(series.max()) + 1
    return None


def _clock(table: Table, name: str, column: Column) -> np.ndarray | None:
    """A column that may hold times, as numbers."""
    if column.missing.any():
        return None
    if column.numbers is not None:
        return column.numbers if column.kind in ("integer", "float") else None
    if column.kind == "text" and (column.cells is None or read_date(str(column.cells[0])) is None):
        return None
    try:
        return times_of(table, name).astype("datetime64[us]").astype(np.int64).astype(np.float64)
    except ConfigError:
        return None


def _series(column: Column) -> np.ndarray | None:
    """A column that may name series, as numbers from 0, each at least twice and three times on average."""
    if column.missing.any() or column.kind not in ("text", "integer"):
        return None
    keys = np.asarray(column.numbers if column.kind == "integer" else column.cells)
    keys = keys.astype(str) if column.kind == "text" else keys
    names, series, times = np.unique(keys, return_inverse=True, return_counts=True)
    if not 2 <= len(names) <= len(series) / 3 or times.min() < 2:
        return None
    if column.kind == "text":
        calendar = all(CALENDAR.fullmatch(name) or read_date(name) is not None for name in names)
    else:
        calendar = names.min() >= 1900 and names.max() <= 2100
    return None if calendar else series
