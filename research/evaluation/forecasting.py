"""Errors of forecasts, and of the naive forecasts beside them."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from research.data.examples import Examples
from research.evaluation.naive_forecasts import Linear, chunks, repeat_last, seasonal_naive, target_mean
from research.evaluation.subject import BATCH, Findings, Subject
from research.metrics import RAW
from research.models.abilities import Forecasts, able
from research.runs import batches

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
      shift, scale: raw value = value / scale + shift; () or [C].

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


def study(subject: Subject, findings: Findings) -> None:
    """Add errors of a forecaster over all observed values of the test rows, and those of naive forecasts."""
    model, test = subject.model, subject.test
    if not subject.recipe.forecasts or not able(model, Forecasts):
        return
    forecast = lambda batch, _: batches.call(model, subject.params, batch, "forecast")[:2]
    sums = Sums()
    for windows in chunks(test):
        mean, median = batches.over(forecast, windows, min(BATCH, len(test)))
        _add(sums, subject, windows, mean, median)
    findings.add(sums.means(), "test/")
    findings.curves |= {f"forecast_{name}": values for name, values in sums.steps().items() if not name.endswith(RAW)}
    if subject.recipe.baselines:
        for name, fit in _naive(subject).items():
            try:
                means = subject.once(name, lambda fit=fit: _means(subject, fit()))
                findings.add(means, f"baseline/{name}/")
            except ValueError as error:
                findings.refuse(str(error), *(f"baseline/{name}/{metric}" for metric in sums.total))


def _naive(subject: Subject) -> dict[str, Callable[[], Forecaster]]:
    """Functions that fit the naive forecasts, by name. There is a `seasonal_naive` only if the season is known."""
    horizon, season = subject.test.target.shape[1], subject.facts.season or 0

    def last() -> Forecaster:
        return lambda windows: repeat_last(np.asarray(windows.x), horizon, windows.mask)

    def seasonal() -> Forecaster:
        return lambda windows: seasonal_naive(np.asarray(windows.x), horizon, season, windows.mask)

    def linear() -> Forecaster:
        fitted = Linear.fit(chunks(subject.train), chunks(subject.parts["validation"]))
        return lambda windows: fitted.predict(np.asarray(windows.x), windows.mask)

    def constant() -> Forecaster:
        level = target_mean(subject.train)
        return lambda windows: np.broadcast_to(level, windows.target.shape)

    forecasts = {"repeat_last": last, "seasonal_naive": seasonal, "linear": linear, "constant": constant}
    return {name: fit for name, fit in forecasts.items() if season or name != "seasonal_naive"}


def _means(subject: Subject, forecast: Forecaster) -> dict[str, float]:
    """Mean errors of a forecast that is its own mean and median, over the test rows."""
    sums = Sums()
    for windows in chunks(subject.test):
        predicted = forecast(windows)
        _add(sums, subject, windows, predicted, predicted)
    return sums.means()


def _add(sums: Sums, subject: Subject, windows: Examples, mean: np.ndarray, median: np.ndarray) -> None:
    observed = windows.target_observed
    by_name = errors(mean, median, windows.target, observed, windows.naive_error, subject.shift, subject.scale)
    sums.add(by_name, observed)
