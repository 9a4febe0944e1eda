"""Forecasts that need no network: repeat the last value, repeat the last season, and one linear layer."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from research.data.examples import Examples

CHUNK = 1024  # windows that are made dense at a time
LARGEST = 2048  # steps of the longest look-back of the linear forecast: its normal equations take the cube
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # strengths to choose from, in units of the mean squared input


def chunks(part: Examples) -> Iterator[Examples]:
    """Windows of a part as dense examples, 1,024 at a time."""
    for start in range(0, len(part), CHUNK):
        yield part.take(slice(start, start + CHUNK))


def last_value(x: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
    """The last observed value of every row and channel of x [N, T, C], [N, C]; 0 where nothing is observed."""
    if observed is None:
        return x[:, -1]
    last = x.shape[1] - 1 - np.argmax(observed[:, ::-1], 1)
    value = np.take_along_axis(x, last[:, None], 1)[:, 0]
    return np.where(observed.any(1), value, 0).astype(x.dtype)


def repeat_last(x: np.ndarray, horizon: int, observed: np.ndarray | None = None) -> np.ndarray:
    """The last observed value of x [N, T, C] at all steps to come, [N, H, C]."""
    return np.repeat(last_value(x, observed)[:, None], horizon, axis=1)


def seasonal_naive(x: np.ndarray, horizon: int, season: int, observed: np.ndarray | None = None) -> np.ndarray:
    """The value one season before each step to come, [N, H, C]; longer horizons repeat the last season.

    A missing value is taken from the season before. Where a phase was never observed, the last observed value is taken.
    Padding after the end of a row counts as time that has passed with nothing observed.

    Args:
      x: look-back, [N, T, C].
      horizon: H.
      season: steps after which the series repeats, at most T.
      observed: False where x is missing, [N, T, C]; None: nothing is missing.

    Raises:
      ValueError: the look-back is shorter than a season.
    """
    steps = x.shape[1]
    if not 1 <= season <= steps:
        raise ValueError(f"the look-back of {steps} steps is shorter than a season of {season}")
    if observed is None:
        phases = x[:, steps - season :]
    else:
        ahead = ((0, 0), (-steps % season, 0), (0, 0))  # missing values complete the first season
        seasons, known = (np.pad(array, ahead).reshape(len(x), -1, season * x.shape[2]) for array in (x, observed))
        phases = np.where(known.any(1), last_value(seasons, known), np.tile(last_value(x, observed), season))
        phases = phases.reshape(len(x), season, x.shape[2])
    return phases[:, np.arange(horizon) % season]


@dataclasses.dataclass(frozen=True)
class Linear:
    """One linear layer from look-back to horizon, shared by all channels and fitted by least squares.

    forecast = last + (x - last) W + b, where last is the last observed value (NLinear of Zeng et al. 2023, "Are
    Transformers Effective for Time Series Forecasting?").

    Attributes:
      weight: W, [T, H] float64.
      bias: b, [H] float64.
      ridge: the strength that was chosen, in units of the mean squared input.
    """

    weight: np.ndarray
    bias: np.ndarray
    ridge: float

    @classmethod
    def fit(cls, train: Iterable[Examples], validation: Iterable[Examples]) -> "Linear":
        """Minimise |Y - X W - b|^2 + ridge |W|^2, with the ridge of the smallest error on the validation windows.

        Windows whose target is not fully observed are left out, channel by channel. Missing inputs count as the last
        observed value.

        Args:
          train, validation: chunks of windows, x [N, T, C] and target [N, H, C]; each chunk is read once.

        Raises:
          ValueError: there is no window, or the look-back has more than 2,048 steps.
        """
        fitted, scored = _Moments.of(train), _Moments.of(validation)
        center, level = fitted.inputs / fitted.count, fitted.outputs / fitted.count
        covariance = fitted.square / fitted.count - np.outer(center, center)
        values, vectors = np.linalg.eigh(covariance)
        cross = vectors.T @ (fitted.cross / fitted.count - np.outer(center, level))
        unit = np.trace(covariance) / len(covariance) or 1.0
        candidates = []
        for ridge in RIDGES:
            weight = vectors @ (cross / (np.maximum(values, 0) + ridge * unit)[:, None])
            candidates.append(cls(weight, level - center @ weight, ridge))
        return min(candidates, key=scored.error)

    def predict(self, x: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
        """Forecast of x [N, T, C], [N, H, C] float64."""
        inputs, last = _inputs(x, observed)
        outputs = np.tensordot(inputs, self.weight, (1, 0)) + self.bias  # [N, C, H]
        return np.swapaxes(outputs, 1, 2) + last[:, None]


def _inputs(x: np.ndarray, observed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """x less its last observed value, 0 where missing, [N, T, C]; and that value, [N, C]."""
    last = last_value(x, observed).astype(np.float64)
    inputs = x - last[:, None]
    return inputs if observed is None else np.where(observed, inputs, 0), last


@dataclasses.dataclass
class _Moments:
    """Sums over windows and channels: all that least squares needs to know of them."""

    count: int
    inputs: np.ndarray  # [T]
    outputs: np.ndarray  # [H]
    square: np.ndarray  # of the inputs, [T, T]
    cross: np.ndarray  # of inputs and outputs, [T, H]
    power: float  # of the outputs

    @classmethod
    def of(cls, windows: Iterable[Examples]) -> "_Moments":
        sums: _Moments | None = None
        for chunk in windows:
            x, target = chunk.x, chunk.target
            if x.shape[1] > LARGEST:
                raise ValueError(f"a linear forecast from {x.shape[1]} steps is too large to compute")
            inputs, last = _inputs(x, chunk.mask)
            rows = np.swapaxes(inputs, 1, 2).reshape(-1, x.shape[1])
            ahead = np.swapaxes(target - last[:, None], 1, 2).reshape(-1, target.shape[1])
            if chunk.target_observed is not None:
                usable = chunk.target_observed.all(1).reshape(-1)
                rows, ahead = rows[usable], ahead[usable]
            part = len(rows), rows.sum(0), ahead.sum(0), rows.T @ rows, rows.T @ ahead, float(np.square(ahead).sum())
            if sums is None:
                sums = cls(*part)
            else:
                for field, value in zip(dataclasses.fields(cls), part, strict=True):
                    setattr(sums, field.name, getattr(sums, field.name) + value)
        if sums is None or not sums.count:
            raise ValueError("no window with a fully observed target")
        return sums

    def error(self, linear: Linear) -> float:
        """Mean squared error of a forecast on these windows, summed over the horizon."""
        weight, bias = linear.weight, linear.bias
        total = self.power + np.sum(weight * (self.square @ weight)) + self.count * bias @ bias
        total += 2 * (bias @ (weight.T @ self.inputs) - np.sum(weight * self.cross) - bias @ self.outputs)
        return float(total / self.count)


def target_mean(train: Examples) -> np.ndarray:
    """Mean of every channel of the target over windows and steps, where it is observed, [C]."""
    total, count = 0.0, 0.0
    for chunk in chunks(train):
        target = np.asarray(chunk.target, np.float64)
        known = np.broadcast_to(True if chunk.target_observed is None else chunk.target_observed, target.shape)
        total, count = total + np.where(known, target, 0).sum((0, 1)), count + known.sum((0, 1))
    return np.asarray(total) / np.maximum(count, 1)
