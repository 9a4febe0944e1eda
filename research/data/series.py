"""Windows of a long series, in three parts that are blocks of time, and the recipe for a series of your own."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from research.data import checks
from research.data.columns import read_features
from research.data.covariates import Coding, Grid, Part, Wanted, known_values, on_steps, steps_with_values
from research.data.ends import End, Ends, Later, following
from research.data.examples import Examples, Windows
from research.data.files.local import blaming, check_path, find, resolve, state
from research.data.files.reading import read_table
from research.data.files.table import ENDINGS, Form, Table, paste
from research.data.preparation import Preparation
from research.data.source import Source, Splitting
from research.data.times import number_steps, times_of
from research.ranges import Index, OpenShare, Size
from research.tree import ConfigError, added, inline, recipe


@recipe
class Windowed(Splitting):
    """Windows of one series, whose three parts are blocks of time: training first, then validation, then test.

    x [N, window, C]; with a horizon also target [N, horizon, C], the steps that follow, and naive_error [N, C]. A
    target lies wholly inside its block, while the steps before it may reach into the block before, as is usual in
    forecasting. Without a horizon a window lies wholly inside its block. Windows across a border belong to no part.

    Attributes:
      scaling: "unit" has no meaning here; "standard" and "minmax" are fitted on the training block.
      window: number of steps that are modelled, or that a forecast looks back on.
      stride: steps from the start of one window to the start of the next.
      horizon: number of steps to predict; null: windows are modelled themselves.
      season: steps after which the series repeats itself, for seasonal forecasts and MASE; null: none is known.
    """

    scaling: Literal["none", "standard", "minmax"]
    window: Size
    stride: Size
    horizon: Size | None
    season: Size | None

    def validate(self) -> None:
        """Refuse folds, because windows overlap."""
        refuse_folds(self)

    def cut(
        self,
        name: str,
        values: np.ndarray,
        columns: Sequence[str],
        borders: tuple[int, int] | None,
        known: np.ndarray | None = None,
    ) -> Source:
        """The windows of one series.

        Args:
          name: name of the data set.
          values: NaN where a value is missing, [S, C].
          columns: names of the channels.
          borders: first step of the validation block and of the test block; None for windows without parts.
          known: what is known in advance of every step, [S, K].

        Raises:
          ConfigError: a block is too short, or a channel is constant or empty in the training block.
        """
        horizon, steps = self.horizon or 0, len(values)
        start = np.arange(0, steps - self.window - horizon + 1, self.stride, dtype=np.int32)
        examples, empty = windows_of(values, start, self.window, self.horizon)
        if known is not None:
            examples = dataclasses.replace(examples, known=Windows(known, start, self.window + horizon))
        left_out = " and are left out" if borders else ""
        notes = (f"{int(empty.sum())} of {len(start)} windows hold no value at all{left_out}",) if empty.any() else ()
        source = Source(
            name,
            "sequence",
            examples,
            season=self.season,
            scale_target=bool(horizon),
            columns=tuple(columns),
            notes=notes,
        )
        look_back = f"{self.window} + {horizon} steps" if horizon else f"{self.window} steps"
        if borders is None:
            if not len(start):
                problem = f"there are {steps} steps, and a window needs {look_back}"
                raise ConfigError("window", self.window, problem)
            return source
        first = start + self.window if horizon else start
        end = start + self.window + horizon
        parts: dict[str, np.ndarray] = {}
        for block, low, high in (
            ("training", 0, borders[0]),
            ("validation", borders[0], borders[1]),
            ("test", borders[1], steps),
        ):
            parts[block] = (first >= low) & (end <= high) & ~empty
            if not parts[block].any():
                needs = "one whole window" if not horizon else f"a target of {horizon} steps"
                needs = look_back if horizon and block == "training" else needs
                problem = f"the {block} block has {high - low} of {steps} steps and does not hold {needs}"
                remedy = f"{problem}; make the window, the horizon or the stride smaller"
                raise ConfigError("window", self.window, remedy)
        training = values[: borders[0]]
        if self.season is not None and self.season >= len(training):
            remedy = f"the training block has {len(training)} steps only; name a shorter season, or null"
            raise ConfigError("season", self.season, remedy)
        check_channels(training, columns)
        if horizon:
            error = np.tile(naive_error(training, self.season), (len(start), 1))
            source = dataclasses.replace(source, examples=dataclasses.replace(examples, naive_error=error))
        used = parts["training"] | parts["validation"] | parts["test"]
        return dataclasses.replace(source, test=parts["test"], validation=parts["validation"], unused=~used)


def windows_of(values: np.ndarray, start: np.ndarray, window: int, horizon: int | None) -> tuple[Examples, np.ndarray]:
    """Windows of values [S, C] with NaN, and which of them (or of their targets) hold no value, [N] bool.

    Args:
      values: NaN where a value is missing, [S, C].
      start: first step of every window, [N] int32.
      window: steps of x.
      horizon: steps of the target, which follow those of x; None: there is no target.
    """
    series, observed = np.ascontiguousarray(values), np.isfinite(values)
    pieces = {"x": (start, window)}
    if horizon:
        pieces["target"] = start + np.int32(window), horizon
    windows = {name: Windows(series, first, size) for name, (first, size) in pieces.items()}
    if observed.all():
        return Examples(**windows), np.zeros(len(start), bool)
    count = np.concatenate([[0], np.cumsum(observed.any(1))])  # steps with a value before each step
    empty = np.any([count[first + size] == count[first] for first, size in pieces.values()], axis=0)
    masks = {name: Windows(observed, first, size) for name, (first, size) in pieces.items()}
    return Examples(**windows, observed=masks["x"], target_observed=masks.get("target")), empty


def share_borders(
    steps: int,
    test_fraction: float,
    validation_fraction: float,
    test_steps: int | None = None,
    validation_steps: int | None = None,
) -> tuple[int, int]:
    """First step of the validation block and of the test block.

    Args:
      steps: length of the series.
      test_fraction: share of all steps.
      validation_fraction: share of the steps that are not test steps.
      test_steps, validation_steps: the blocks in steps, where they are given; then the share is not read.
    """
    test = round(test_fraction * steps) if test_steps is None else test_steps
    validation = round(validation_fraction * (steps - test)) if validation_steps is None else validation_steps
    return steps - test - validation, steps - test


def check_steps_left(
    steps: int, borders: tuple[int, int], test_steps: int | None, validation_steps: int | None
) -> None:
    """Refuse blocks in steps that leave none of the longest series for training.

    Raises:
      ConfigError: naming the key that takes too many.
    """
    if borders[0] >= 1 or (test_steps, validation_steps) == (None, None):
        return
    of_test = test_steps is not None and (borders[1] < 1 or validation_steps is None)
    key, value = ("test_steps", test_steps) if of_test else ("validation_steps", validation_steps)
    remedy = f"the series has {steps} steps, and none is left for training; make {{key}} smaller"
    raise ConfigError(key, value, remedy)


def refuse_folds(settings: Splitting) -> None:
    """Refuse folds of overlapping windows.

    Raises:
      ConfigError: naming the key.
    """
    for key in ("folds", "fold"):
        if (value := getattr(settings, key)) is not None:
            remedy = "windows overlap, so training would see the rows of a fold; the parts are blocks of time"
            raise ConfigError(key, value, f"{remedy}: set {{key}}=null")


def check_channels(training: np.ndarray, columns: Sequence[str]) -> None:
    """Refuse channels without two different values in the training block, [S, C] with NaN for missing values.

    Raises:
      ConfigError: naming the column.
    """
    observed = np.isfinite(training)
    low = np.min(training, axis=0, initial=np.inf, where=observed)
    high = np.max(training, axis=0, initial=-np.inf, where=observed)
    for column, lowest, highest in zip(columns, low, high, strict=True):
        if not lowest < highest:
            state = f"constant ({lowest:g})" if lowest == highest else "without any value"
            remedy = f"it is {state} in the training block of {len(training)} steps"
            others = [name for name in columns if name != column]
            remedy += f"; leave it out: {paste('columns', others)}" if others else ", and there is no other channel"
            raise ConfigError("columns", column, remedy)


def naive_error(training: np.ndarray, season: int | None) -> np.ndarray:
    """mean_t |y_t - y_{t - season}| over pairs of observed values, [C] float32, of training values [S, C].

    The denominator of the mean absolute scaled error (Hyndman and Koehler, 2006); a season of null counts as 1. NaN
    where a channel has no such pair.
    """
    lag = season or 1
    difference = np.abs(np.asarray(training[lag:], np.float64) - training[:-lag])
    observed = np.isfinite(difference)
    total, count = np.sum(difference, axis=0, where=observed), observed.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


# ------------------------------------------------------------------------------------------------ a series of your own


class Content(NamedTuple):
    """The steps that a file holds.

    Attributes:
      names: names of the channels.
      values: one row per step, NaN where a value or a whole step is missing, [S, C] float64.
      binary: channels that are bool or hold only the whole numbers 0 and 1, [C] bool.
      step: size of a step in words, where there is a time column.
      notes: what was left out or noticed.
      later: gives the times of so many steps after the last one, where there is a time column.
      wanted: the covariates, by the names of their columns.
      known: what is known of the steps, and of steps to come, from `covariates.on_steps`.
    """

    names: list[str]
    values: np.ndarray
    binary: np.ndarray
    step: str | None
    notes: list[str]
    later: Later | None
    wanted: Wanted
    known: np.ndarray


@recipe
class Series(Windowed):
    """Windows of a time series from a file of your own: one row per step, one column per channel.

    A cell that is empty or reads NA, NaN or null is a missing value: it is masked, never filled in. So is every step
    that the time column leaves out.

    Attributes:
      path: the file, `.csv`, `.tsv` or `.parquet`, from the current folder, or from `root` if that is set.
      columns: the channels; null takes every column but the time, and refuses columns that count or date the rows.
      time_column: its times grow by one step or several, and are not part of x; null: rows follow step by step.
      form: how the table is written.
      test_fraction: share of the steps, the last ones.
      validation_fraction: share of the steps that are not test steps, the last of them.
      test_steps, validation_steps: the test and the validation block in steps; null: by their shares. They divide the
        series, while `test_size` and `validation_size` only take so many of the windows of a block.
      known, calendar: what the forecaster reads of steps to come, see `Panel`.
    """

    path: str
    columns: tuple[str | Index, ...] | None
    time_column: str | Index | None
    form: Form = inline()
    test_fraction: OpenShare
    test_steps: Size | None = added(before=None)
    validation_steps: Size | None = added(before=None)
    known: tuple[str | Index, ...] = added(before=())
    calendar: tuple[Part, ...] = added(before=())

    def validate(self) -> None:
        """Refuse folds, files of unknown form, and covariates that cannot be."""
        super().validate()
        check_path("path", self.path, ENDINGS)
        self.form.check(self.path)
        Wanted.of(self)
        if self.columns is not None and not self.columns:
            raise ConfigError("columns", [], "name at least one column, or null for all")

    @property
    def file(self) -> Path:
        return resolve(self.root, self.path)

    def stamp(self) -> Hashable:
        """State of the file."""
        return state([self.file])

    def stored(self) -> Source:
        """All windows."""
        content = self.read_steps()
        steps, held_back = len(content.values), (self.test_steps, self.validation_steps)
        borders = share_borders(steps, self.test_fraction, self.validation_fraction, *held_back)
        check_steps_left(steps, borders, *held_back)
        coding = None
        if any(content.wanted):
            coding = Coding.fit(content.wanted, content.known[: borders[0]], (), self.scaling)
        return self._source(content, borders, coding)

    def stored_for(self, trained: Preparation) -> Source:
        """All windows of `path` for a run, with the channels and the step of its training, and without any division.

        Raises:
          ConfigError: a channel is missing, or was not there in training, the step is another one, or the file cannot
            be read.
        """
        content = self.read_steps(trained)
        return self._source(content, None, Coding.of_run(trained.covariates, content.wanted))

    def ends(self, trained: Preparation) -> Ends:
        """The steps of `path` for a run, as for `stored_for`, and the times of the steps to come."""
        content = self.read_steps(trained, self.horizon or 0)
        coding = Coding.of_run(trained.covariates, content.wanted)
        known = None if coding is None else coding.of_steps(content.known)
        return Ends([End(content.values, content.later, known=known)], content.notes)

    def _source(self, content: Content, borders: tuple[int, int] | None, coding: Coding | None) -> Source:
        known = None if coding is None else coding.of_steps(content.known)
        source = self.cut(self.file.stem, content.values, content.names, borders, known)
        return dataclasses.replace(
            source,
            binary=content.binary if content.binary.any() else None,
            notes=(*content.notes, *source.notes),
            preparation=Preparation(
                missing=self.form.numeric_marks,
                time_column=self.time_column,
                time_step=content.step,
                covariates=None if coding is None else coding.record(),
            ),
        )

    def read_steps(self, trained: Preparation | None = None, ahead: int = 0) -> Content:
        """The channels over all steps of the file, with NaN for the steps that it leaves out.

        Args:
          trained: preparation of the run that the steps are for, as for `stored_for`.
          ahead: steps after the last value of which covariates must be known.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        path, wanted = find("path", self.path, self.file), Wanted.of(self)
        columns = None if self.columns is None else tuple(map(str, self.columns))
        time = None if self.time_column is None else str(self.time_column)
        with blaming("path", self.path):
            table = read_table(path, self.form, keep=(time, *(columns or ()), *wanted.known))
            if time is None:
                refuse_times_in_index(table)
            if trained is None:
                checks.refuse_many_series(table, time)
            wanted = wanted.resolved(table, {"time_column": time})
            channels = table.without(wanted.known) if columns is None else table
            names, values, binary, notes = read_features(channels, columns, {"time_column": time}, trained)
            wanted.check_channels(names, "columns")
            of_rows = known_values(table, wanted.known)
            if trained is None:
                notes += checks.table_notes(table, names, values)
            step = later = times = None
            number = np.arange(table.size)
            if time is not None:
                times = times_of(table, time)
                number, step = number_steps(times, time, table.where, None if trained is None else trained.time_step)
                rows = values
                values = np.full((int(number[-1]) + 1, rows.shape[1]), np.nan)
                values[number] = rows
                if missing := len(values) - table.size:
                    row = int(np.argmax(np.diff(number) > 1))
                    text = f"{missing} of {len(values)} steps of {step} are missing and masked"
                    notes.append(f"{text}, the first after {table.where(row)}")
            if wanted.known:
                values = values[: steps_with_values(values) or None]
            if times is not None and time is not None:
                past = times[number < len(values)]
                later = functools.partial(following, table.column(time), past, str(step))
            known = on_steps(wanted, of_rows, Grid(number, len(values), times, step, table.where), ahead)
            return Content(names, values, binary, step, notes, later, wanted, known)


def refuse_times_in_index(table: Table) -> None:
    """Refuse a table of pandas whose times are in its index, which is not a column."""
    if not table.index_of_times:
        return
    remedy = f"the index '{table.index}' holds times: data.time_column={table.index}"
    if str(table.index).startswith("__"):
        remedy = "the index holds times; name it (pandas: table.index.name = 'time'), then data.time_column=time"
    raise ConfigError("time_column", None, f"{table.path.name}: {remedy}")
