"""Windows of long series, in parts that are blocks of time."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from research.data.examples import Examples, Windows
from research.data.splits import Source, Splitting
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
      window: steps of a window: what is modelled, or what is looked back on.
      stride: steps from the start of one window to the start of the next.
      horizon: steps to predict; null: windows are modelled themselves.
      season: steps after which the series repeats itself, for seasonal forecasts and MASE; null: none is known.
    """

    scaling: Literal["none", "standard", "minmax"]
    window: Size
    stride: Size
    horizon: Size | None
    season: Size | None

    def validate(self) -> None:
        """Refuse folds.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        refuse_folds(self)
        super().validate()

    def cut(self, name: str, values: np.ndarray, columns: Sequence[str], borders: tuple[int, int] | None) -> Source:
        """The windows of one series.

        Args:
          name: of the data set.
          values: NaN where a value is missing, [S, C].
          columns: names of the channels.
          borders: first step of the validation block and of the test block; None for windows without parts.

        Raises:
          ConfigError: a block is too short, or a channel is constant or empty in the training block.
        """
        steps, horizon = len(values), self.horizon or 0
        start = np.arange(0, steps - self.window - horizon + 1, self.stride, dtype=np.int32)
        examples, empty = self._windows(values, start)
        count = int(empty.sum())
        notes = (f"{count} of {len(start)} windows hold no value at all{' and are left out' if borders else ''}",)
        notes = notes if count else ()
        if borders is None:
            if not len(start):
                needs = f"{self.window} + {horizon} steps" if horizon else f"{self.window} steps"
                raise ConfigError("window", self.window, f"there are {steps} steps, and a window needs {needs}")
            kept = tuple(columns)
            scaled = {"season": self.season, "scale_target": bool(horizon), "columns": kept, "notes": notes}
            return Source(name, "sequence", examples, **scaled)
        validation_start, test_start = borders
        training = values[:validation_start]
        first, end = (start + self.window, start + self.window + horizon) if horizon else (start, start + self.window)
        inside = lambda low, high: (first >= low) & (end <= high)
        blocks = {
            "training": (0, validation_start),
            "validation": (validation_start, test_start),
            "test": (test_start, steps),
        }
        parts = {block: inside(*edges) & ~empty for block, edges in blocks.items()}
        for block, rows in parts.items():
            if not rows.any():
                low, high = blocks[block]
                needs = f"{self.window} + {horizon} steps" if horizon and block == "training" else "one whole window"
                needs = f"a target of {horizon} steps" if horizon and block != "training" else needs
                remedy = f"the {block} block has {high - low} of {steps} steps and does not hold {needs}"
                raise ConfigError(
                    "window", self.window, f"{remedy}; make the window, the horizon or the stride smaller"
                )
        if self.season is not None and self.season >= len(training):
            remedy = f"the training block has {len(training)} steps only; name a shorter season, or null"
            raise ConfigError("season", self.season, remedy)
        check_channels(training, columns)

        if horizon:
            error = naive_error(training, self.season)
            examples = dataclasses.replace(examples, naive_error=np.tile(error, (len(start), 1)))
        return Source(
            name,
            "sequence",
            examples,
            test=parts["test"],
            validation=parts["validation"],
            unused=~(parts["training"] | parts["validation"] | parts["test"]),
            season=self.season,
            scale_target=bool(horizon),
            columns=tuple(columns),
            notes=notes,
        )

    def _windows(self, values: np.ndarray, start: np.ndarray) -> tuple[Examples, np.ndarray]:
        """Windows of values [S, C] with NaN, and which of them, or of their targets, hold no value, [N] bool."""
        series, observed = np.ascontiguousarray(values), np.isfinite(values)
        cut = lambda array, first, size: Windows(array, first, size)
        later, horizon = start + np.int32(self.window), self.horizon
        x, target = cut(series, start, self.window), cut(series, later, horizon) if horizon else None
        if observed.all():
            return Examples(x=x, target=target), np.zeros(len(start), bool)
        seen = np.concatenate([[0], np.cumsum(observed.any(1))])
        empty = seen[start + self.window] == seen[start]
        if horizon:
            empty |= seen[later + horizon] == seen[later]
        shown = cut(observed, start, self.window)
        shown_target = cut(observed, later, horizon) if horizon else None
        return Examples(x=x, target=target, observed=shown, target_observed=shown_target), empty


def share_borders(steps: int, test_fraction: float, validation_fraction: float) -> tuple[int, int]:
    """First step of the validation block and of the test block; the validation share is of what is not test."""
    test = round(test_fraction * steps)
    return steps - test - round(validation_fraction * (steps - test)), steps - test


def refuse_folds(settings: Splitting) -> None:
    """Refuse folds of overlapping windows.

    Raises:
      ConfigError: naming the key.
    """
    if settings.folds is not None or settings.fold is not None:
        key, value = ("folds", settings.folds) if settings.folds is not None else ("fold", settings.fold)
        remedy = "windows overlap, so the rows of a fold would be seen in training too; the parts are blocks of time"
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
