"""Covariates: what is known of a step before it comes, such as its price or its hour, and what of a whole series."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from research.data.ends import dates_after
from research.data.files.table import Table, paste
from research.data.times import DAYS
from research.tree import ConfigError

Part = Literal["minute", "hour", "weekday", "monthday", "month", "yearday"]
KEYS = ("known", "calendar", "static")
MONTHS, YEARS, MINUTES = "datetime64[M]", "datetime64[Y]", "timedelta64[m]"
Static = tuple[float | str, ...]


class Wanted(NamedTuple):
    """The keys of the same names: columns that are known in advance, parts of the calendar, columns of whole series."""

    known: tuple[str, ...] = ()
    calendar: tuple[Part, ...] = ()
    static: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Any) -> "Wanted":
        """What the keys of a recipe ask for; a recipe may lack some of them.

        Raises:
          ConfigError: a part of the calendar is named twice, or there is no horizon or no time column for them.
        """
        known, calendar, static = (getattr(settings, key, ()) for key in KEYS)
        if len(set(calendar)) < len(calendar):
            raise ConfigError("calendar", list(calendar), "name each part of the calendar once")
        if calendar and settings.time_column is None:
            remedy = "the calendar follows from the times of the steps: name their column, data.time_column=..."
            raise ConfigError("calendar", list(calendar), remedy)
        for key, value in zip(KEYS, (known, calendar, static), strict=True):
            if value and settings.horizon is None:
                remedy = "covariates help to forecast: name the steps, for example data.horizon=24, or set '{key}=[]'"
                raise ConfigError(key, list(value), remedy)
        return cls(tuple(map(str, known)), calendar, tuple(map(str, static)))

    def resolved(self, table: Table, used: Mapping[str, str | None]) -> "Wanted":
        """The same with the names of the columns, which numbers such as -1 may stand for.

        Args:
          table: the file.
          used: columns that other keys use, by the name of the key.

        Raises:
          ConfigError: a column is missing, or two keys name it.
        """
        elsewhere = {name: key for key, name in used.items() if name is not None}
        columns: dict[str, tuple[str, ...]] = {}
        for key in ("known", "static"):
            columns[key] = tuple(table.names[table.find(name, key)] for name in getattr(self, key))
            for name in columns[key]:
                if name in elsewhere or columns[key].count(name) > 1:
                    other = elsewhere.get(name, key)
                    raise ConfigError(key, name, f"data.{other} names this column too; leave it out of one of the two")
            elsewhere |= dict.fromkeys(columns[key], key)
        return self._replace(**columns)

    def check_channels(self, channels: Sequence[str], listed: str) -> None:
        """Refuse a covariate that is a channel too; `listed` is the key that lists the channels."""
        for key in ("known", "static"):
            for name in getattr(self, key):
                if name in channels:
                    remedy = f"it is one of the channels of data.{listed} too; leave it out of one of the two"
                    raise ConfigError(key, name, remedy)


NOTHING = Wanted()


# ------------------------------------------------------------------------------------------------------ reading columns


def known_values(table: Table, names: Sequence[str]) -> np.ndarray:
    """The known columns of all rows, [N, K] float64.

    Raises:
      ConfigError: a column holds text or times, or a value is missing.
    """
    values = np.empty((table.size, len(names)))
    for number, name in enumerate(names):
        column = table.column(name, "known")
        if column.numbers is None:
            problem = table.not_numeric(name, column).remedy
            raise ConfigError("known", name, f"{problem}; write text as numbers, for example 0 and 1")
        if column.missing.any():
            others = [other for other in names if other != name]
            remedy = f"a known column needs a value in every row: add it, or leave the column out: {_list(others)}"
            where = table.where(int(np.argmax(column.missing)))
            raise ConfigError("known", name, f"{where}: the value is missing; {remedy}")
        values[:, number] = column.numbers
    return values


def steps_with_values(values: np.ndarray) -> int:
    """How many steps a series [S, C] with NaN has up to the last one with a value; rows beyond are steps to come."""
    seen = np.flatnonzero(np.isfinite(values).any(1))
    return int(seen[-1]) + 1 if len(seen) else 0


def static_values(table: Table, names: Sequence[str], rows: Mapping[str, np.ndarray]) -> dict[str, Static]:
    """What the static columns say of every series, numbers or text.

    Args:
      table: the file.
      names: of the columns.
      rows: row numbers of every series.

    Raises:
      ConfigError: a value is missing, or changes within a series.
    """
    by_series: dict[str, list[float | str]] = {series: [] for series in rows}
    for name in names:
        column = table.column(name, "static")
        if column.kind == "time":
            raise ConfigError("static", name, "it holds times; static columns are numbers, or text that names classes")
        if column.missing.any():
            where = table.where(int(np.argmax(column.missing)))
            raise ConfigError("static", name, f"{where}: the value is missing; add it to every row of the series")
        cells: Any = column.cells if column.numbers is None else column.numbers
        for series, numbers in rows.items():
            changes = np.not_equal(cells[numbers], cells[numbers[0]])
            if changes.any():
                where = table.where(int(numbers[np.argmax(changes)]))
                problem = f"{where}: it changes within the series '{series[:40]}'"
                raise ConfigError("static", name, f"{problem}; if its values are known in advance, it is data.known")
            cell = cells[numbers[0]]
            by_series[series].append(str(cell) if column.numbers is None else float(cell))
    return {series: tuple(cells) for series, cells in by_series.items()}


class Grid(NamedTuple):
    """The rows of one series on its steps.

    Attributes:
      number: step of every row, from 0, [N]; it grows from row to row.
      steps: number of steps up to the last one with a value; rows beyond are steps to come.
      times: of the rows, [N] datetime64 or float64; None where the file has none.
      step: size of a step in words, with times.
      where: where the row of some number stands in the file.
      series: name of the series; None where there is only one.
    """

    number: np.ndarray
    steps: int
    times: np.ndarray | None
    step: str | None
    where: Callable[[int], str]
    series: str | None = None


def on_steps(wanted: Wanted, values: np.ndarray, grid: Grid, ahead: int = 0) -> np.ndarray:
    """What is known of every step of a series and of `ahead` steps to come, [S + ahead, K + 2 P] float64.

    First stand the K known columns as they are in the file, then sine and cosine of each of P parts of the calendar.

    Args:
      wanted: the covariates.
      values: known columns of the rows of the series, [N, K].
      grid: where the rows stand.
      ahead: steps to come.

    Raises:
      ConfigError: the file lacks rows of some step, or has no dates for a calendar.
    """
    last, total, of_series = int(grid.number[-1]) + 1, grid.steps + ahead, ""
    if grid.series is not None:
        of_series = f"series '{grid.series[:40]}': "
    pieces = []
    if wanted.known:
        rows = grid.number < total
        gaps = np.diff(grid.number[rows], prepend=-1) - 1
        if gaps.any():
            row = int(np.argmax(gaps > 0))
            problem = f"{grid.where(row)}: {gaps[row]} steps are left out before this row"
            remedy = "add rows for them, with their times and known values and no other, or set '{key}=[]'"
            raise ConfigError("known", list(wanted.known), f"{problem}, of which nothing is known; {remedy}")
        if last < total:
            problem = f"{of_series}the forecast needs {_list(wanted.known)} of {ahead} steps after the last value"
            problem += f", and the file has them of {last - grid.steps}: {total - last} steps are lacking"
            remedy = "add rows for them, in which the cells of the channels are empty"
            raise ConfigError("known", list(wanted.known), f"{problem}; {remedy}")
        pieces.append(values[rows])
    if wanted.calendar:
        pieces.append(calendar(_dates(wanted, grid, total), wanted.calendar))
    return np.concatenate(pieces, axis=1) if pieces else np.empty((total, 0))


def _dates(wanted: Wanted, grid: Grid, total: int) -> np.ndarray:
    """The dates of the first steps of a series, also of those that have no row, [total] datetime64[us]."""
    times, step = grid.times, grid.step
    assert times is not None
    assert step is not None
    if times.dtype.kind != "M":
        problem = "the times of this file are numbers, which have no place in a calendar"
        raise ConfigError("calendar", list(wanted.calendar), f"{problem}; set '{{key}}=[]'")
    times = times.astype("datetime64[us]")
    number = np.append(grid.number, max(total, int(grid.number[-1]) + 1))
    dates = np.empty(number[-1], times.dtype)
    dates[grid.number] = times
    for row in np.flatnonzero(np.diff(number) > 1):
        ahead = np.arange(1, number[row + 1] - number[row])
        # All times tell whether months are counted from their ends.
        dates[number[row] + ahead] = dates_after(np.append(times, times[row]), step, ahead)
    return dates[:total]


def calendar(times: np.ndarray, parts: Sequence[Part]) -> np.ndarray:
    """Sine and cosine of the place of each time in each cycle, [N, 2 P] float64. A cycle begins at sine 0, cosine 1.

    The cycles: an hour (`minute`), a day (`hour`, with its minutes), a week from Monday (`weekday`), a month of 31 days
    (`monthday`), and a year, by whole months (`month`) or by days of 365.25 (`yearday`).

    Args:
      times: dates, [N] datetime64.
      parts: which cycles.
    """
    days = times.astype(DAYS)
    months, years = times.astype(MONTHS), times.astype(YEARS)
    minutes = (times - days).astype("timedelta64[s]").astype(np.float64) / 60
    share: dict[str, Callable[[], np.ndarray]] = {
        "minute": lambda: minutes % 60 / 60,
        "hour": lambda: minutes / (24 * 60),
        "weekday": lambda: (days.astype(np.int64) + 3) % 7 / 7,  # 1970-01-01 was a Thursday
        "monthday": lambda: (days - months.astype(DAYS)).astype(np.float64) / 31,
        "month": lambda: months.astype(np.int64) % 12 / 12,
        "yearday": lambda: (days - years.astype(DAYS)).astype(np.float64) / 365.25,
    }
    angles = [2 * np.pi * share[part]() for part in parts]
    return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-1)


# -------------------------------------------------------------------------------------------------------------- coding


@dataclasses.dataclass(frozen=True)
class Coding:
    """How covariates become the numbers that a forecaster reads. A run folder keeps it as plain values.

    Attributes:
      known, calendar, static: as in `Wanted`.
      shift, scale: models see `(value - shift) * scale` of a known column, one number for each.
      static_shift, static_scale: likewise of static columns; 0 and 1 for text.
      classes: of a static column of text, whose classes are one-hot; None for numbers.
    """

    known: tuple[str, ...] = ()
    calendar: tuple[Part, ...] = ()
    static: tuple[str, ...] = ()
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    static_shift: tuple[float, ...] = ()
    static_scale: tuple[float, ...] = ()
    classes: tuple[tuple[str, ...] | None, ...] = ()

    @classmethod
    def fit(cls, wanted: Wanted, training: np.ndarray, static: Sequence[Static], method: str) -> "Coding":
        """The coding of some covariates.

        Args:
          wanted: the covariates.
          training: what is known of the steps of all series before their validation steps, from `on_steps`.
          static: of every series.
          method: the key `scaling`.

        Raises:
          ConfigError: a covariate does not vary.
        """
        for number, part in enumerate(wanted.calendar):
            if not np.ptp(training[:, len(wanted.known) + 2 * number :][:, :2], axis=0).max() > 1e-9:
                others = [other for other in wanted.calendar if other != part]
                raise ConfigError(
                    "calendar", part, f"all steps of the training have the same; {_list(others, 'calendar')}"
                )
        scalings = [
            _scaling("known", name, wanted.known, training[:, number], method)
            for number, name in enumerate(wanted.known)
        ]
        of_static, classes = [], []
        for number, name in enumerate(wanted.static):
            cells = [of_series[number] for of_series in static]
            text = any(isinstance(cell, str) for cell in cells)
            classes.append(tuple(sorted({str(cell) for cell in cells})) if text else None)
            if not text:
                of_static.append(_scaling("static", name, wanted.static, np.array(cells, float), method))
            elif len(set(cells)) > 1:
                of_static.append((0.0, 1.0))
            else:
                raise _constant("static", name, wanted.static, str(cells[0]))
        return cls(
            known=wanted.known,
            calendar=wanted.calendar,
            static=wanted.static,
            shift=tuple(shift for shift, _ in scalings),
            scale=tuple(scale for _, scale in scalings),
            static_shift=tuple(shift for shift, _ in of_static),
            static_scale=tuple(scale for _, scale in of_static),
            classes=tuple(classes),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Coding":
        """The inverse of `record`."""
        known = {name: tuple(record[name]) for name in (field.name for field in dataclasses.fields(cls))}
        known["classes"] = tuple(None if names is None else tuple(names) for names in known["classes"])
        return cls(**known)

    def record(self) -> dict[str, Any]:
        """All attributes as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def of_run(cls, record: Mapping[str, Any] | None, wanted: Wanted) -> "Coding | None":
        """The coding of a run, for a file of which some covariates are wanted; None: there are none.

        Raises:
          ConfigError: the training had others.
        """
        coding = cls() if record is None else cls.from_record(record)
        for key in KEYS:
            if getattr(coding, key) != getattr(wanted, key):
                remedy = f"the run was trained with others: {_list(getattr(coding, key), key)}"
                raise ConfigError(key, list(getattr(wanted, key)), remedy)
        return coding if any(wanted) else None

    def of_steps(self, known: np.ndarray) -> np.ndarray:
        """What is known of steps as models see it, [S, K + 2 P] float32; the calendar stays."""
        columns = len(self.known)
        scaled = (known[..., :columns] - np.array(self.shift)) * np.array(self.scale)
        return np.concatenate([scaled, known[..., columns:]], axis=-1).astype(np.float32)

    def of_series(self, static: Static) -> np.ndarray:
        """What is known of a series as models see it, [D] float32.

        Raises:
          ConfigError: a class that no series of the training had, or text where training had numbers.
        """
        pieces = []
        for number, (name, cell) in enumerate(zip(self.static, static, strict=True)):
            names = self.classes[number]
            if names is None:
                if isinstance(cell, str):
                    raise ConfigError("static", name, f"'{cell[:40]}' is not a number, and training had numbers")
                pieces.append([(cell - self.static_shift[number]) * self.static_scale[number]])
                continue
            text = cell if isinstance(cell, str) else f"{cell:.15g}"
            if text not in names:
                problem = f"'{text[:40]}' is not one of the classes of the training: {', '.join(names[:12])}"
                raise ConfigError("static", name, f"{problem}; leave such series out, or train with them")
            pieces.append([float(text == one) for one in names])
        return np.array([value for piece in pieces for value in piece], np.float32)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many numbers models see of a step, and of a series."""
        static = sum(1 if names is None else len(names) for names in self.classes)
        return len(self.known) + 2 * len(self.calendar), static


def _scaling(key: str, name: str, names: Sequence[str], values: np.ndarray, method: str) -> tuple[float, float]:
    """Shift and scale of a column; values of 0 and 1 stay."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    if not low < high:
        raise _constant(key, name, names, f"{low:g}")
    if method == "none" or np.isin(values, (0, 1)).all():
        return 0.0, 1.0
    return (low, 1 / (high - low)) if method == "minmax" else (float(values.mean()), float(1 / values.std()))


def _constant(key: str, name: str, names: Sequence[str], value: str) -> ConfigError:
    others = [other for other in names if other != name]
    which = "of all series" if key == "static" else "of all steps of the training"
    return ConfigError(key, name, f"it is constant ({value}) {which}; leave it out: {_list(others, key)}")


def _list(names: Sequence[str], key: str = "known") -> str:
    return paste(key, list(names)) if names else f"'data.{key}=[]'"
