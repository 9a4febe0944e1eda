"""The time column of a table: its times, the size of its steps, and which step each row stands at."""

import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from research.data.files.table import Column, Table
from research.tree import ConfigError

LOOSE = 0.1  # of a step: how far a time may lie from its step, for clocks and rounded fractions of years
HALF_DAY = 43_200_000_000  # microseconds: how far a date may lie from its step, for changes to summer time
SPARSE = 10  # most steps for each row
UNITS = {"day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000, "microsecond": 1}
DAYS = "datetime64[D]"


class Steps(NamedTuple):
    """Where the rows of a series stand on a grid of equal steps.

    Attributes:
      number: step of every row, from 0, [N] int64; it grows from row to row.
      step: size of a step, for example "1 hour", "1 month" or "0.25".
    """

    number: np.ndarray
    step: str


def steps_of(table: Table, name: str, step: str | None = None) -> Steps:
    """The steps of a time column: numbers, dates such as 2016-07-01 12:30 (ISO 8601) or whole numbers 20160701.

    The step is the most common difference. Months count as one step if all dates lie on one day of the month, working
    days if no date lies on a weekend.

    Args:
      table: the file.
      name: name of the column.
      step: the step of a run; few new rows may have no common difference.

    Raises:
      ConfigError: a time is missing, is not a time, occurs twice, is out of order, or lies between two steps.
    """
    return number_steps(times_of(table, name), name, table.where, step)


def number_steps(
    times: np.ndarray, name: str, where: Callable[[int], str], step: str | None = None, others: str = "training had"
) -> Steps:
    """The steps of times, as `steps_of` says.

    Args:
      times: from `times_of`, [N].
      name: name of their column.
      where: where the row of some number stands in its file.
      step: a step that is known already.
      others: who has that step, for errors.
    """
    if times.dtype.kind == "M":
        ticks, unit = _dates(times.astype("datetime64[us]"), step)
    else:
        ticks, unit = times, None
    differences = np.diff(ticks)
    size = _common(differences) if step is None else _size(step, unit)

    def refuse(row: int, problem: str) -> ConfigError:
        return ConfigError("time_column", name, f"{where(row)}: '{_show(times[row])}' {problem}")

    if (differences <= 0).any():
        row = int(np.argmax(differences <= 0)) + 1
        if differences[row - 1] == 0:
            raise refuse(row, "occurs twice; keep each time once")
        raise refuse(row, "does not come after the row before; sort the table by time")
    if size is None:
        kind = "numbers" if unit is None else "dates" if unit == "microsecond" else f"{unit}s"
        raise ConfigError("time_column", name, f"its times are {kind}; {others} steps of {step}")
    ratio = differences / size
    whole = np.round(ratio)
    if step is not None and len(whole) > 2 and (whole > 1).all():
        apart = _amount(_common(differences), unit)
        raise ConfigError("time_column", name, f"its rows are {apart} apart; {others} steps of {step}")
    loose = (np.abs(ratio - whole) > LOOSE) | (whole < 1)
    if unit == "microsecond":  # months of 30 and 31 days, for example, are no equal steps
        loose |= np.abs(ratio - whole) * size > HALF_DAY
    if loose.any():
        row = int(np.argmax(loose)) + 1
        apart = f"lies {_amount(differences[row - 1], unit)} after the row before"
        remedy = (
            "bring the rows to equal steps first, or leave out data.time_column and list the channels: data.columns"
        )
        if unit == "microsecond" and size >= 28 * 2 * HALF_DAY:
            remedy = f"if the steps are months, write 2016-07; else {remedy}"
        raise refuse(row, f"{apart}, and a step is {_amount(size, unit)}; {remedy}")
    number = np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)
    if number[-1] + 1 > SPARSE * len(number):
        row = int(np.argmax(whole)) + 1
        problem = f"comes {int(whole[row - 1])} steps of {_amount(size, unit)} after the row before"
        raise refuse(row, f"{problem}; correct it, or cut the series there")
    return Steps(number, _amount(size, unit))


# ------------------------------------------------------------------------------------------------------- reading times


def times_of(table: Table, name: str) -> np.ndarray:
    """The times of a column, [N] float64 or datetime64.

    Raises:
      ConfigError: a cell is not a time.
    """
    column = table.column(name, "time_column")
    refuse = lambda row, problem: ConfigError("time_column", name, f"{table.where(row)}: {problem}")
    if column.missing.any():
        raise refuse(int(np.argmax(column.missing)), "the time is missing; add it or remove the row")
    if column.numbers is not None:
        dates = compact_dates(column)
        return column.numbers if dates is None else dates
    assert column.cells is not None
    if column.kind == "time":
        return column.cells
    dates = [read_date(text) for text in column.texts]
    for row, date in enumerate(dates):
        if date is None:
            remedy = "expected numbers, or dates such as 2016-07-01 12:30:00"
            raise refuse(row, f"'{column.texts[row][:40]}' is not a time; {remedy}")
        assert dates[0] is not None
        if (date.tzinfo is None) != (dates[0].tzinfo is None):
            problem = "has another kind of time zone than the rows before; write all with or without one"
            raise refuse(row, f"'{column.texts[row]}' {problem}")
    return np.array([_without_zone(date) for date in dates if date is not None], "datetime64[us]")


def read_date(cell: str) -> datetime.datetime | None:
    """A date of ISO 8601, with or without a time of day and a zone; 2016-07 is a month. None for other text."""
    try:
        return datetime.datetime.fromisoformat(f"{cell}-01" if len(cell) == 7 and cell[4] == "-" else cell)
    except ValueError:
        return None


def _without_zone(date: datetime.datetime) -> datetime.datetime:
    return date.astimezone(datetime.UTC).replace(tzinfo=None) if date.tzinfo else date


def compact_dates(column: Column) -> np.ndarray | None:
    """Whole numbers such as 20160701 or 201607 as dates, if all of them are such, [N] datetime64[D]; else None."""
    numbers = column.numbers
    if column.kind != "integer" or numbers is None or np.isnan(numbers).any():
        return None
    for form, low, high in (("%Y%m%d", 18000101, 22001231), ("%Y%m", 180001, 220012)):
        if (numbers >= low).all() and (numbers <= high).all():
            try:
                return np.array([datetime.datetime.strptime(str(int(number)), form) for number in numbers], DAYS)
            except ValueError:
                return None
    return None


# --------------------------------------------------------------------------------------------------- the size of a step


def _dates(times: np.ndarray, step: str | None) -> tuple[np.ndarray, str]:
    """Dates as counts of months, working days or microseconds, and which of them; in the unit of `step` if it is given.

    A run's step decides because few new rows may all lie on the first of a month by chance.
    """
    days = times.astype(DAYS)
    months = days.astype("datetime64[M]")
    last = (months + np.timedelta64(1, "M")).astype(DAYS) - np.timedelta64(1, "D")
    clock, day_of_month = (times - days).astype(np.int64), days - months.astype(DAYS)
    microseconds = times.astype(np.int64), "microsecond"
    working_days = np.busday_count(days[0], days).astype(np.int64), "working day"
    if step is not None and step.rstrip("s").endswith("working day"):
        return working_days if np.is_busday(days).all() else microseconds
    if not (len(times) > 1 if step is None else "month" in step) or not (clock == clock[0]).all():
        return microseconds
    one_day = (day_of_month == day_of_month[0]).all() or (days == last).all()
    if one_day and (np.diff(months.astype(np.int64)) > 0).all():
        return months.astype(np.int64), "month"
    apart = np.diff(days).astype(np.int64)
    daily = len(days) > 5 and (apart > 0).all() and _common(apart) == 1
    if daily and np.is_busday(days).all() and days[-1] - days[0] > np.timedelta64(6, "D"):
        return working_days
    return microseconds


def _common(differences: np.ndarray) -> float:
    """The most common difference; of rounded fractions, the mean of all that are close to it; 1 without any."""
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
    """The inverse of `_amount`; None if the step has another kind of unit than the times."""
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
