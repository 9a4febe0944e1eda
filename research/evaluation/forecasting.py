"""Errors of forecasts, and naive forecasts beside them: the last value, the last season, one linear layer, the mean."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from research.data.examples import Examples
from research.evaluation.rows import chunks
from research.evaluation.subject import BATCH, Findings, Subject
from research.metrics import RAW
from research.runs import batches

LARGEST = 2048  # steps of the longest look-back of the linear forecast: its normal equations take the cube
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # strengths to choose from, in units of the mean squared input
Forecaster = Callable[[Examples], np.ndarray]  # windows -> forecast [N, H, C]


def errors(
    mean: np.ndarray,
    median: np.ndarray,
    target: np.ndarray,
    observed: np.ndarray | None,
    naive_error: np.ndarray | None,
    shift: np.ndarray | float = 0.0,
    scale: np.ndarray | float = 1.0,
) -> dict[str, np.ndarray]:
    """Errors of every forecast value y', each of the forecast that minimises it: the mean or the median.

    `mse`: (y - mean)^2 and `mae`: |y - median|, in the units of the arguments; `mse_raw`, `mae_raw`: in raw units.
    `smape`: 200 |y - median| / (|y| + |median|), percent, in raw units; 0 where both are 0 (M4: Makridakis et al.
      2020).
    `mase`: |y - median| / naive_error, in raw units (Hyndman & Koehler 2006). For a series whose naive forecast has no
      error it is infinite, unless this forecast has none either.

    Args:
      mean, median: forecasts, [N, H, C].
      target: the truth y, [N, H, C], in the same units; any number where it is not observed.
      observed: False where the truth is missing, [N, H, C]; None: nothing is missing.
      naive_error: mean absolute seasonal difference of each row's series before the forecast, raw units, [N, C]; None
        leaves out `mase`.
      shift, scale: raw value = value / scale + shift; (), [C], or of every row [N, 1, C].

    Returns:
      name -> [N, H, C] float64, 0 where the truth is missing.
    """
    mean, median, target = (np.asarray(array, np.float64) for array in (mean, median, target))
    known = np.ones(target.shape, bool) if observed is None else np.asarray(observed)
    target = np.where(known, target, 0)
    miss = np.abs(target - median)
    scale, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
    raw_miss = miss / np.abs(scale)
    raw_size = np.abs(target / scale + shift) + np.abs(median / scale + shift)
    by_name = {
        "mse": np.square(target - mean),
        "mae": miss,
        "smape": 200 * _quotient(raw_miss, raw_size),
        "mse_raw": np.square((target - mean) / scale),
        "mae_raw": raw_miss,
    }
    if naive_error is not None:
        by_name["mase"] = _quotient(raw_miss, np.asarray(naive_error, np.float64)[:, None])
    return {name: np.where(known, values, 0) for name, values in by_name.items()}


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A quotient with 0 / 0 = 0."""
    denominator = np.broadcast_to(denominator, numerator.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((numerator == 0) & (denominator == 0), 0.0, numerator / denominator)


@dataclasses.dataclass
class Sums:
    """Errors added up batch by batch, for each step of the horizon and channel.

    Attributes:
      total: name -> sums [H, C], float64.
      count: number of observed values, [H, C].
    """

    total: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    count: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((), np.int64))

    def add(self, by_name: Mapping[str, np.ndarray], observed: np.ndarray | None) -> None:
        """Add the `errors` of some rows, with the `observed` that they were computed with."""
        for name, values in by_name.items():
            self.total[name] = self.total.get(name, 0.0) + values.sum(0)
        shape = next(iter(by_name.values())).shape
        self.count = self.count + (np.full(shape[1:], shape[0]) if observed is None else observed.sum(0))

    def means(self) -> dict[str, float]:
        """Mean of each error over all observed values; NaN if nothing is observed."""
        count = self.count.sum()
        return {name: float(total.sum() / count) if count else float("nan") for name, total in self.total.items()}

    def steps(self) -> dict[str, np.ndarray]:
        """Mean of each error at each step of the horizon, [H]; NaN at a step without observed values."""
        count = self.count.sum(-1)
        return {
            name: np.divide(total.sum(-1), count, out=np.full(len(count), np.nan), where=count > 0)
            for name, total in self.total.items()
        }


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


class _Moments(NamedTuple):
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
            power = float(np.square(ahead).sum())
            part = cls(len(rows), rows.sum(0), ahead.sum(0), rows.T @ rows, rows.T @ ahead, power)
            sums = part if sums is None else jax.tree.map(operator.add, sums, part)
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


def study(subject: Subject, findings: Findings) -> None:
    """Add errors of a forecaster over all observed values of the test rows, and those of naive forecasts."""
    model, test = subject.model, subject.test
    forecast = lambda batch, _: batches.call(model, subject.params, batch, "forecast")[:2]
    sums = _errors_of(subject, lambda windows: batches.over(forecast, windows, min(BATCH, len(test))))
    findings.add(sums.means(), "test/")
    findings.curves |= {f"forecast_{name}": values for name, values in sums.steps().items() if not name.endswith(RAW)}
    if subject.recipe.baselines:
        for name, fit in naive(subject).items():
            try:
                means = subject.once(name, lambda fit=fit: _errors_of(subject, _alike(fit())).means())
                findings.add(means, f"baseline/{name}/")
            except ValueError as error:
                findings.refuse(str(error), *(f"baseline/{name}/{metric}" for metric in sums.total))


def naive(subject: Subject) -> dict[str, Callable[[], Forecaster]]:
    """Functions that fit the naive forecasts, by name. There is a `seasonal_naive` only if the season is known."""
    horizon, season = subject.test.target.shape[1], subject.facts.season

    def linear() -> Forecaster:
        fitted = Linear.fit(chunks(subject.train), chunks(subject.parts["validation"]))
        return lambda windows: fitted.predict(np.asarray(windows.x), windows.mask)

    def constant() -> Forecaster:
        level = target_mean(subject.train)
        return lambda windows: np.broadcast_to(level, windows.target.shape)

    last = lambda windows: repeat_last(np.asarray(windows.x), horizon, windows.mask)
    seasonal = lambda windows: seasonal_naive(np.asarray(windows.x), horizon, season or 0, windows.mask)
    with_season = {"seasonal_naive": lambda: seasonal} if season else {}
    return {"repeat_last": lambda: last, **with_season, "linear": linear, "constant": constant}


def _alike(forecast: Forecaster) -> Callable[[Examples], tuple[np.ndarray, ...]]:
    """A forecast that is both the mean and the median."""
    return lambda windows: (forecast(windows),) * 2


def _errors_of(subject: Subject, forecast: Callable[[Examples], tuple[np.ndarray, ...]]) -> Sums:
    """Errors of forecasts (mean, median) of the test rows."""
    sums = Sums()
    for windows in chunks(subject.test):
        mean, median = forecast(windows)
        observed, naive_error = windows.target_observed, windows.naive_error
        units = windows.units(subject.shift, subject.scale)
        sums.add(errors(mean, median, windows.target, observed, naive_error, *units), observed)
    return sums
