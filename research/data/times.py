"""The time column of a table: its times, its step, and the steps that are missing."""

import datetime
from typing import Any, NamedTuple

import numpy as np

from research.data.columns import Column, Table
from research.tree import ConfigError

LOOSE = 0.1  # of a step: how far a time may lie beside its place, for clocks and rounded fractions of years
SPARSE = 10  # steps for each row at most
UNITS = {"day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000, "microsecond": 1}
DAYS = "datetime64[D]"


class Steps(NamedTuple):
    """Where the rows of a series stand on a grid of equal steps.

    Attributes:
      place: step of every row, from 0, [N] int64; larger from row to row.
      step: size of a step, for example "1 hour", "1 month" or "0.25".
    """

    place: np.ndarray
    step: str


def steps_of(table: Table, name: str, step: str | None = None) -> Steps:
    """The steps of a time column: numbers, dates such as 2016-07-01 12:30 (ISO 8601) or whole numbers 20160701.

    The step is the most common difference; months count as one step if all dates lie on one day of the month, working
    days if no date lies on a weekend.

    Args:
      table: the file.
      name: of the column.
      step: a step that is known already; a table of few rows has no common one.

    Raises:
      ConfigError: times are missing, no times, twice there, out of order, or in no common step.
    """
    times = times_of(table, name)
    if times.dtype.kind == "M":
        ticks, unit = _dates(times.astype("datetime64[us]"), step)
    else:
        ticks, unit = times, None
    shown = lambda row: f"{table.place(row)}: '{_show(times[row])}'"
    differences = np.diff(ticks)
    if (differences <= 0).any():
        row = int(np.argmax(differences <= 0)) + 1
        twice = differences[row - 1] == 0
        problem = "is there twice; keep each time once" if twice else "does not come after the row before"
        remedy = "" if twice else "; sort the table by time"
        raise ConfigError("time_column", name, f"{shown(row)} {problem}{remedy}")
    size = _size(step, unit) if step is not None else _common(differences)
    if size is None:
        found = "numbers" if unit is None else "dates" if unit == "microsecond" else f"{unit}s"
        raise ConfigError("time_column", name, f"its times are {found}; training had steps of {step}")
    ratio = differences / size
    whole = np.round(ratio)
    if step is not None and len(whole) > 2 and (whole > 1).all():
        found = _amount(_common(differences), unit)
        raise ConfigError("time_column", name, f"its rows are {found} apart; training had steps of {step}")
    loose = np.abs(ratio - whole) > LOOSE
    if (loose | (whole < 1)).any():
        row = int(np.argmax(loose | (whole < 1))) + 1
        problem = (
            f"lies {_amount(differences[row - 1], unit)} after the row before, and a step is {_amount(size, unit)}"
        )
        remedy = (
            "bring the rows to equal steps first, or leave out data.time_column and list the channels: data.columns"
        )
        raise ConfigError("time_column", name, f"{shown(row)} {problem}; {remedy}")
    place = np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)
    if place[-1] + 1 > SPARSE * len(place):
        row = int(np.argmax(whole)) + 1
        remedy = f"{shown(row)} comes {int(whole[row - 1])} steps of {_amount(size, unit)} after the row before"
        raise ConfigError("time_column", name, f"{remedy}; correct it, or cut the series there")
    return Steps(place, _amount(size, unit))


def times_of(table: Table, name: str) -> np.ndarray:
    """The times of a column, [N] float64 or datetime64.

    Raises:
      ConfigError: a cell is no time.
    """
    column = table.column(name, "time_column")
    refuse = lambda row, problem: ConfigError("time_column", name, f"{table.place(row)}: {problem}")
    if column.missing.any():
        raise refuse(int(np.argmax(column.missing)), "the time is missing; add it or remove the row")
    if column.kind == "time":
        assert column.cells is not None
        return column.cells
    if column.numbers is not None:
        dates = compact_dates(column)
        return column.numbers if dates is None else dates
    assert column.cells is not None
    times, zones = [], set()
    for row, cell in enumerate(column.cells):
        date = read_date(str(cell))
        if date is None:
            remedy = "expected numbers, or dates such as 2016-07-01 12:30:00"
            raise refuse(row, f"'{str(cell)[:40]}' is no time; {remedy}")
        zones.add(date.tzinfo is None)
        if len(zones) > 1:
            raise refuse(
                row, f"'{cell}' has another kind of time zone than the rows before; write all with or without one"
            )
        times.append(np.datetime64(date.astimezone(datetime.UTC).replace(tzinfo=None) if date.tzinfo else date, "us"))
    return np.array(times)


def read_date(cell: str) -> datetime.datetime | None:
    """A date of ISO 8601, with or without a time of day and a zone; 2016-07 is a month. None for other text."""
    try:
        return datetime.datetime.fromisoformat(f"{cell}-01" if len(cell) == 7 and cell[4] == "-" else cell)
    except ValueError:
        return None


def compact_dates(column: Column) -> np.ndarray | None:
    """Whole numbers such as 20160701 or 201607 as dates, if all of them are such; [N] datetime64[D]."""
    numbers = column.numbers
    if column.kind != "integer" or numbers is None or np.isnan(numbers).any():
        return None
    for form, low, high in (("%Y%m%d", 18000101, 22001231), ("%Y%m", 180001, 220012)):
        if (numbers >= low).all() and (numbers <= high).all():
            try:
                dates = [datetime.datetime.strptime(str(int(number)), form) for number in numbers]
            except ValueError:
                return None
            return np.array(dates, DAYS)
    return None


def _dates(times: np.ndarray, step: str | None = None) -> tuple[np.ndarray, str]:
    """Dates as counts of months, working days or microseconds, and which of them; few of them, in those of `step`."""
    days = times.astype(DAYS)
    months = days.astype("datetime64[M]")
    first = months.astype(DAYS)
    last = (months + np.timedelta64(1, "M")).astype(DAYS) - np.timedelta64(1, "D")
    clock = (times - days).astype(np.int64)
    if step is not None and step.rstrip("s").endswith("working day"):
        return _working_days(days) if np.is_busday(days).all() else (times.astype(np.int64), "microsecond")
    if (len(times) > 1 if step is None else "month" in step) and (clock == clock[0]).all():
        same_day = days - first
        if ((same_day == same_day[0]).all() or (days == last).all()) and (np.diff(months.astype(np.int64)) > 0).all():
            return months.astype(np.int64), "month"
        apart = np.diff(days).astype(np.int64)
        if (
            len(days) > 5
            and np.is_busday(days).all()
            and (apart > 0).all()
            and _common(apart) == 1
            and days[-1] - days[0] > np.timedelta64(6, "D")
        ):
            return _working_days(days)
    return times.astype(np.int64), "microsecond"


def _working_days(days: np.ndarray) -> tuple[np.ndarray, str]:
    return np.busday_count(days[0], days).astype(np.int64), "working day"


def _common(differences: np.ndarray) -> float:
    """The most common difference; of rounded fractions, the mean of those that are close to it."""
    if not len(differences):
        return 1
    values, times = np.unique(differences, return_counts=True)
    common = values[np.argmax(times)]
    if differences.dtype.kind == "i":
        return int(common)
    return float(differences[np.abs(differences - common) <= LOOSE * common].mean())


def _amount(size: float, unit: str | None) -> str:
    """A difference in words: "1 hour", "3 months", "0.25"."""
    if unit is None:
        return f"{size:.6g}"
    if unit == "microsecond":
        unit, each = next((unit, each) for unit, each in UNITS.items() if size % each == 0 or each == 1)
        size = size // each
    return f"{int(size)} {unit}{'' if size == 1 else 's'}"


def _size(step: str, unit: str | None) -> float | None:
    """The inverse of `_amount`; None if the step is of another kind than the unit."""
    number, _, name = step.partition(" ")
    name = name.removesuffix("s")
    if (unit is None) != (not name):
        return None
    if unit is None or unit == name:
        return float(number) if unit is None else int(number)
    return int(number) * UNITS[name] if unit == "microsecond" and name in UNITS else None


def _show(time: Any) -> str:
    if isinstance(time, np.datetime64):
        return str(time).replace("T", " ").removesuffix(".000000").removesuffix(".000000000")
    return f"{time:.15g}"
