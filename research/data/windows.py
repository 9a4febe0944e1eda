"""Windows of a long series, in three parts that are blocks of time."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from research.data.examples import Examples, Windows
from research.data.source import Source, Splitting
from research.ranges import Size
from research.tree import ConfigError, recipe


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

    def cut(self, name: str, values: np.ndarray, columns: Sequence[str], borders: tuple[int, int] | None) -> Source:
        """The windows of one series.

        Args:
          name: name of the data set.
          values: NaN where a value is missing, [S, C].
          columns: names of the channels.
          borders: first step of the validation block and of the test block; None for windows without parts.

        Raises:
          ConfigError: a block is too short, or a channel is constant or empty in the training block.
        """
        horizon = self.horizon or 0
        start = np.arange(0, len(values) - self.window - horizon + 1, self.stride, dtype=np.int32)
        examples, empty = self._windows(values, start)
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
        if borders is None:
            if not len(start):
                needs = f"{self.window} + {horizon} steps" if horizon else f"{self.window} steps"
                problem = f"there are {len(values)} steps, and a window needs {needs}"
                raise ConfigError("window", self.window, problem)
            return source
        train, validation, test = (part & ~empty for part in self._blocks(len(values), start, borders))
        self._check_parts(len(values), borders, {"training": train, "validation": validation, "test": test})
        training = values[: borders[0]]
        if self.season is not None and self.season >= len(training):
            remedy = f"the training block has {len(training)} steps only; name a shorter season, or null"
            raise ConfigError("season", self.season, remedy)
        check_channels(training, columns)
        if horizon:
            error = np.tile(naive_error(training, self.season), (len(start), 1))
            source = dataclasses.replace(source, examples=dataclasses.replace(examples, naive_error=error))
        return dataclasses.replace(source, test=test, validation=validation, unused=~(train | validation | test))

    def _windows(self, values: np.ndarray, start: np.ndarray) -> tuple[Examples, np.ndarray]:
        """Windows of values [S, C] with NaN, and which of them (or of their targets) hold no value, [N] bool."""
        series, observed = np.ascontiguousarray(values), np.isfinite(values)
        pieces = {"x": (start, self.window)}
        if self.horizon:
            pieces["target"] = start + np.int32(self.window), self.horizon
        windows = {name: Windows(series, first, size) for name, (first, size) in pieces.items()}
        if observed.all():
            return Examples(**windows), np.zeros(len(start), bool)
        count = np.concatenate([[0], np.cumsum(observed.any(1))])  # steps with a value before each step
        empty = np.any([count[first + size] == count[first] for first, size in pieces.values()], axis=0)
        masks = {name: Windows(observed, first, size) for name, (first, size) in pieces.items()}
        return Examples(**windows, observed=masks["x"], target_observed=masks.get("target")), empty

    def _blocks(self, steps: int, start: np.ndarray, borders: tuple[int, int]) -> list[np.ndarray]:
        """Windows of the training, the validation and the test block, each [N] bool."""
        first = start + self.window if self.horizon else start
        end = start + self.window + (self.horizon or 0)
        return [
            (first >= low) & (end <= high)
            for low, high in ((0, borders[0]), (borders[0], borders[1]), (borders[1], steps))
        ]

    def _check_parts(self, steps: int, borders: tuple[int, int], parts: dict[str, np.ndarray]) -> None:
        """Refuse blocks without a window."""
        sizes = {"training": borders[0], "validation": borders[1] - borders[0], "test": steps - borders[1]}
        for block, rows in parts.items():
            if rows.any():
                continue
            needs = "one whole window"
            if self.horizon:
                look_back = f"{self.window} + {self.horizon} steps"
                needs = look_back if block == "training" else f"a target of {self.horizon} steps"
            problem = f"the {block} block has {sizes[block]} of {steps} steps and does not hold {needs}"
            remedy = f"{problem}; make the window, the horizon or the stride smaller"
            raise ConfigError("window", self.window, remedy)


def share_borders(steps: int, test_fraction: float, validation_fraction: float) -> tuple[int, int]:
    """First step of the validation block and of the test block; the validation share is of what is not test."""
    test = round(test_fraction * steps)
    return steps - test - round(validation_fraction * (steps - test)), steps - test


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
            remedy = f"it is {state} in the training block of {len(training)} steps; leave it out: 'data.columns=[...]'"
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
