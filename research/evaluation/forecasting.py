"""Errors of forecasts, and forecasts that need no network."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from research.data.examples import Examples
from research.evaluation.subject import BATCH, Findings, Subject
from research.metrics import RAW
from research.models.abilities import Forecasts, able
from research.runs import batches

ROWS = 1024  # windows that are handled at a time
LARGEST = 2048  # look-back of the linear forecast: its normal equations take the cube
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # strengths to choose from, in units of the mean squared input

Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]  # x, target, observed, target_observed


def errors(
    mean: np.ndarray,
    median: np.ndarray,
    target: np.ndarray,
    observed: np.ndarray | None,
    naive_error: np.ndarray | None,
    shift: np.ndarray | float = 0.0,
    scale: np.ndarray | float = 1.0,
) -> dict[str, np.ndarray]:
    """Errors of every forecast value, each against the forecast that is best for it.

    `mse`: (y - mean)^2 and `mae`: |y - median|, in the units of the arguments; `mse_raw`, `mae_raw`: in raw units;
    `smape`: 200 |y - median| / (|y| + |median|), percent, in raw units; 0 where both are 0 (M4: Makridakis et al.
      2020);
    `mase`: |y - median| / naive_error, in raw units (Hyndman & Koehler 2006); infinite for a series whose naive
      forecast has no error, unless this one has none either.

    Args:
      mean, median: forecasts, [N, H, C].
      target: the truth y, [N, H, C], in the same units; anything where it is not observed.
      observed: False where the truth is missing, [N, H, C]; None: all are there.
      naive_error: mean absolute seasonal difference of each row's series before the forecast, raw units, [N, C]; None
        leaves out `mase`.
      shift, scale: raw value = value / scale + shift; () or [C].

    Returns:
      name -> [N, H, C] float64, 0 where the truth is missing.
    """
    mean, median, target = (np.asarray(array, np.float64) for array in (mean, median, target))
    there = np.ones(target.shape, bool) if observed is None else np.asarray(observed)
    target = np.where(there, target, 0)
    miss = np.abs(target - median)
    unit, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
    raw_miss = miss / np.abs(unit)
    size = np.abs(target / unit + shift) + np.abs(median / unit + shift)
    found = {"mse": np.square(target - mean), "mae": miss, "smape": 200 * _over(raw_miss, size)}
    found |= {"mse_raw": np.square((target - mean) / unit), "mae_raw": raw_miss}
    if naive_error is not None:
        found["mase"] = _over(raw_miss, np.asarray(naive_error, np.float64)[:, None])
    return {name: np.where(there, values, 0) for name, values in found.items()}


def _over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
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

    def add(self, found: Mapping[str, np.ndarray], observed: np.ndarray | None) -> None:
        """Add the `errors` of some rows, with the `observed` that they were computed with."""
        for name, values in found.items():
            self.total[name] = self.total.get(name, 0.0) + values.sum(0)
        shape = next(iter(found.values())).shape
        self.count = self.count + (np.full(shape[1:], shape[0]) if observed is None else observed.sum(0))

    def means(self) -> dict[str, float]:
        """Mean of each error over all observed values; NaN if there is none."""
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
    """The value one season before each step to come, [N, H, C]; the last season is repeated over longer horizons.

    A missing value is taken from the season before; where a phase was never observed, the last observed value stands.
    Padding after the end of a row counts as time that has passed with nothing observed.

    Args:
      x: look-back, [N, T, C].
      season: steps after which the series repeats, at most T.
      observed: False where x is missing, [N, T, C].

    Raises:
      ValueError: the look-back is shorter than a season.
    """
    steps = x.shape[1]
    if not 1 <= season <= steps:
        raise ValueError(f"the look-back of {steps} steps is shorter than a season of {season}")
    if observed is None:
        phases = x[:, steps - season :]
    else:
        ahead = ((0, 0), (-steps % season, 0), (0, 0))  # an incomplete first season is filled up with missing values
        whole, there = (np.pad(array, ahead).reshape(len(x), -1, season * x.shape[2]) for array in (x, observed))
        phases = np.where(there.any(1), last_value(whole, there), np.tile(last_value(x, observed), season))
        phases = phases.reshape(len(x), season, x.shape[2])
    return phases[:, np.arange(horizon) % season]


@dataclasses.dataclass(frozen=True)
class Linear:
    """One linear layer from look-back to horizon, shared by all channels, fitted by least squares.

    forecast = last + (x - last) W + b, with the last observed value taken away and given back (NLinear of Zeng et al.
    2023, "Are Transformers Effective for Time Series Forecasting?").

    Attributes:
      weight: W, [T, H] float64.
      bias: b, [H] float64.
      ridge: the strength that was chosen, in units of the mean squared input.
    """

    weight: np.ndarray
    bias: np.ndarray
    ridge: float

    @classmethod
    def fit(cls, train: Iterable[Batch], validation: Iterable[Batch]) -> "Linear":
        """min |Y - X W - b|^2 + ridge |W|^2 with the ridge of the least squared error on the validation windows.

        Windows whose target is not fully observed are left out, channel by channel; missing inputs count as the last
        observed value.

        Args:
          train, validation: batches (x [N, T, C], target [N, H, C], observed [N, T, C] or None, target_observed
            [N, H, C] or None); each is read once.

        Raises:
          ValueError: no window, or a look-back above 2,048 steps.
        """
        own, other = _Moments.of(train), _Moments.of(validation)
        center, level = own.inputs / own.count, own.outputs / own.count
        covariance = own.square / own.count - np.outer(center, center)
        values, vectors = np.linalg.eigh(covariance)
        cross = vectors.T @ (own.cross / own.count - np.outer(center, level))
        unit = np.trace(covariance) / len(covariance) or 1.0
        best: tuple[float, Linear] | None = None
        for ridge in RIDGES:
            weight = vectors @ (cross / (np.maximum(values, 0) + ridge * unit)[:, None])
            found = cls(weight, level - center @ weight, ridge)
            error = other.error(found)
            if best is None or error < best[0]:
                best = error, found
        assert best is not None
        return best[1]

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
    """Sums over windows and channels, all that least squares needs to know of them."""

    count: int
    inputs: np.ndarray  # [T]
    outputs: np.ndarray  # [H]
    square: np.ndarray  # of the inputs, [T, T]
    cross: np.ndarray  # of inputs and outputs, [T, H]
    power: float  # of the outputs

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> "_Moments":
        sums: _Moments | None = None
        for x, target, observed, target_observed in batches:
            if x.shape[1] > LARGEST:
                raise ValueError(f"a linear forecast from {x.shape[1]} steps is too large to compute")
            whole, last = _inputs(x, observed)
            rows = np.swapaxes(whole, 1, 2).reshape(-1, x.shape[1])
            ahead = np.swapaxes(target - last[:, None], 1, 2).reshape(-1, target.shape[1])
            if target_observed is not None:
                usable = target_observed.all(1).reshape(-1)
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
        """Mean squared error of a forecast on these windows, sum over the horizon."""
        weight, bias = linear.weight, linear.bias
        total = self.power + np.sum(weight * (self.square @ weight)) + self.count * bias @ bias
        total += 2 * (bias @ (weight.T @ self.inputs) - np.sum(weight * self.cross) - bias @ self.outputs)
        return float(total / self.count)


def study(subject: Subject, findings: Findings) -> None:
    """Errors of a forecaster over all observed values of the test rows, and of forecasts that need no network."""
    model, test = subject.model, subject.test
    if not subject.recipe.forecasts or not able(model, Forecasts):
        return
    forecast = lambda batch, _: batches.call(model, subject.params, batch, "forecast")[:2]
    sums = Sums()
    for rows in _slices(test):
        mean, median = batches.over(forecast, rows, min(BATCH, len(test)))
        _add(sums, subject, rows, mean, median)
    findings.add(sums.means(), "test/")
    steps = {name: values for name, values in sums.steps().items() if not name.endswith(RAW)}
    findings.curves |= {f"forecast_{name}": values for name, values in steps.items()}
    if subject.recipe.baselines:
        for name in ("repeat_last", "seasonal_naive", "linear", "constant"):
            try:
                found = subject.once(name, functools.partial(_naive, subject, name))
                findings.add(found or {}, f"baseline/{name}/")
            except ValueError as error:
                findings.refuse(str(error), *(f"baseline/{name}/{metric}" for metric in sums.total))


def _naive(subject: Subject, name: str) -> dict[str, float]:
    """Errors of one naive forecast; empty where it has no meaning."""
    horizon, season = subject.test.target.shape[1], subject.facts.season
    if name == "seasonal_naive" and season is None:
        return {}
    linear = Linear.fit(_windows(subject.train), _windows(subject.parts["validation"])) if name == "linear" else None
    level = _target_mean(subject.train) if name == "constant" else None
    sums = Sums()
    for rows in _slices(subject.test):
        x, there = np.asarray(rows.x), rows.mask
        if level is not None:
            made = np.broadcast_to(level, rows.target.shape)
        elif linear is not None:
            made = linear.predict(x, there)
        elif season is not None and name == "seasonal_naive":
            made = seasonal_naive(x, horizon, season, there)
        else:
            made = repeat_last(x, horizon, there)
        _add(sums, subject, rows, made, made)
    return sums.means()


def _target_mean(train: Examples) -> np.ndarray:
    """Mean over windows and steps of every channel of the target, where it is observed, [C]."""
    total, count = 0.0, 0.0
    for rows in _slices(train):
        target = np.asarray(rows.target, np.float64)
        there = np.broadcast_to(True if rows.target_observed is None else rows.target_observed, target.shape)
        total, count = total + np.where(there, target, 0).sum((0, 1)), count + there.sum((0, 1))
    return np.asarray(total) / np.maximum(count, 1)


def _add(sums: Sums, subject: Subject, rows: Examples, mean: np.ndarray, median: np.ndarray) -> None:
    there = rows.target_observed
    found = errors(mean, median, rows.target, there, rows.naive_error, subject.shift, subject.scale)
    sums.add(found, there)


def _slices(part: Examples) -> Iterator[Examples]:
    for start in range(0, len(part), ROWS):
        yield part.take(slice(start, start + ROWS))


def _windows(part: Examples) -> Iterator[Batch]:
    for rows in _slices(part):
        yield rows.x, rows.target, rows.mask, rows.target_observed
