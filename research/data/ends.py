"""The end of a series, from which a run forecasts, and the times of the steps that follow it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from research.data.files.table import Column
from research.data.preparation import Preparation
from research.data.times import DAYS, UNITS, read_date

MONTHS = "datetime64[M]"
ONE_DAY, ONE_MONTH = np.timedelta64(1, "D"), np.timedelta64(1, "M")
Later = Callable[[int], Sequence[str]]


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """What is known of a series when its file ends.

    Attributes:
      values: its steps, or the last of them, NaN where a value is missing, [S, C].
      later: gives the times of so many steps to come, as the file writes times; None where rows have no times.
      name: of the series; None where the file holds only one.
      known: what is known of its steps and of those to come, as models see it, [S + horizon, K]; None: nothing.
      static: what is known of the series, likewise, [D]; None: nothing.
      scaling: shift and scale of a series that has its own, [C] each; its values stay as they are in the file.
    """

    values: np.ndarray
    later: Later | None = None
    name: str | None = None
    known: np.ndarray | None = None
    static: np.ndarray | None = None
    scaling: tuple[np.ndarray, np.ndarray] | None = None


class Ends(NamedTuple):
    """The ends of the series of a file, in its order, and what the reader noticed, one sentence each."""

    series: list[End]
    notes: Sequence[str] = ()

    def filled(self, window: int) -> "Ends":
        """Series that are shorter than a window begin with steps without a value, as they do in training."""
        ahead = [max(0, window - len(end.values)) for end in self.series]
        pad = lambda values, steps, fill=np.nan: np.concatenate([np.full((steps, values.shape[1]), fill), values])
        series = []
        for end, steps in zip(self.series, ahead, strict=True):
            known = None if end.known is None else pad(end.known, steps, 0).astype(end.known.dtype)
            series.append(dataclasses.replace(end, values=pad(end.values, steps), known=known) if steps else end)
        return Ends(series, self.notes)


@runtime_checkable
class HasEnds(Protocol):
    """A recipe of series that go on after their last step."""

    def ends(self, trained: Preparation) -> Ends:
        """The ends of the series for a run, with the channels and the step of its training."""
        ...


def following(column: Column, times: np.ndarray, step: str, count: int) -> list[str]:
    """The times of the next steps of a series, as its file writes times; those with a zone are given in UTC.

    Args:
      column: the time column.
      times: of the series, from `times_of`, [N].
      step: size of a step, as `Steps` has it.
      count: number of steps.
    """
    ahead = np.arange(1, count + 1)
    if times.dtype.kind != "M":
        return [f"{time:.15g}" for time in times[-1] + ahead * _size(times, float(step))]
    return _written(column, dates_after(times.astype("datetime64[us]"), step, ahead))


def _size(times: np.ndarray, step: float) -> float:
    """The size of a step between numbers. `step` is rounded to six digits, so fractions are measured."""
    if step.is_integer() or len(times) < 2:
        return step
    return float(times[-1] - times[0]) / round((times[-1] - times[0]) / step)


def dates_after(times: np.ndarray, step: str, ahead: np.ndarray) -> np.ndarray:
    """The dates `ahead` steps after the last one, datetime64[us].

    Args:
      times: dates of a series, [N] datetime64[us]; all of them tell whether its months are counted from their ends.
      step: size of a step, as `Steps` has it.
      ahead: numbers of steps.
    """
    size, _, unit = step.partition(" ")
    number, unit = int(size), unit.removesuffix("s")
    days = times.astype(DAYS)
    clock = times[-1] - days[-1]
    if unit == "working day":
        return np.busday_offset(days[-1], number * ahead).astype(times.dtype) + clock
    if unit != "month":
        return times[-1] + (number * UNITS[unit] * ahead).astype("timedelta64[us]")
    months = days.astype(MONTHS)
    day = days - months.astype(DAYS)  # of the month, from 0
    later = months[-1] + number * ahead * ONE_MONTH
    lengths = (later + ONE_MONTH).astype(DAYS) - later.astype(DAYS)
    ends_of_months = (days == (months + ONE_MONTH).astype(DAYS) - ONE_DAY).all()
    if ends_of_months and not ((day == day[0]).all() and len(day) > 1 and day[0] < 28 * ONE_DAY):
        offset = lengths - ONE_DAY
    else:
        offset = np.minimum(day[-1], lengths - ONE_DAY)
    return (later.astype(DAYS) + offset).astype(times.dtype) + clock


def _written(column: Column, dates: np.ndarray) -> list[str]:
    """Dates as text in the form of a column: 2016-07, 2016-07-01, 20160701, or with a time of day."""
    days = dates.astype(DAYS)
    whole_days = bool((dates == days).all())
    if column.numbers is not None:  # whole numbers such as 20160701 or 201607
        digits = 8 if np.nanmin(column.numbers) >= 10_000_000 else 6
        return [str(day).replace("-", "")[:digits] for day in days]
    texts = column.texts if column.kind == "text" else []
    sample = texts[-1] if texts else ""
    if len(sample) == 7 and (days == days.astype(MONTHS)).all():
        return [str(month) for month in days.astype(MONTHS)]
    date = read_date(sample) if sample else None
    if len(sample) == 10 and whole_days:
        return [str(day) for day in days]
    unit = "us" if (dates != dates.astype("datetime64[s]")).any() else "s"
    if len(sample) == len("2016-07-01 12:30") and (dates == dates.astype("datetime64[m]")).all():
        unit = "m"
    zone = "+00:00" if column.zoned or (date is not None and date.tzinfo is not None) else ""
    separator = "T" if "T" in sample else " "
    return [str(time).replace("T", separator) + zone for time in dates.astype(f"datetime64[{unit}]")]
