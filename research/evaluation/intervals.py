"""Intervals of forecasts: CRPS, coverage and width, calibration, a conformal correction, and naive intervals."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from research.data.examples import Examples
from research.distributions import Forecast, central_interval
from research.evaluation import calibration, forecasting
from research.evaluation.calibration import CONFORMAL
from research.evaluation.forecasting import Forecaster, Sums
from research.evaluation.rows import chunks
from research.evaluation.subject import BATCH, Findings, Subject
from research.metrics import RAW
from research.runs import batches

SHARES = {"80": 0.8, "95": 0.95}  # of the intervals that also have a width, in the names of metrics
NAIVE = ("repeat_last", "seasonal_naive")
ROUNDING = 1e-9  # of a rank that is a whole number
Interval = tuple[np.ndarray, np.ndarray]  # lower and upper edge, [N, H, C]


# ----------------------------------------------------------------------------------------------------- scores of values


def gaussian_crps(target: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """CRPS of N(mean, deviation^2) at y: s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - mean) / s.

    Gneiting & Raftery 2007, "Strictly Proper Scoring Rules, Prediction, and Estimation", section 4.2; lower is better,
    in the units of y.
    """
    from scipy.special import ndtr

    deviation = np.asarray(deviation, np.float64)
    z = (np.asarray(target, np.float64) - mean) / deviation
    density = np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)
    return deviation * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def quantile_crps(target: np.ndarray, quantiles: Iterable[np.ndarray], levels: Sequence[float]) -> np.ndarray:
    """Twice the mean pinball loss over the levels: an approximation of the CRPS, whose value depends on the levels.

    The CRPS is twice the integral of the pinball loss over all levels from 0 to 1 (Gneiting & Raftery 2007).

    Args:
      target: y, [N, H, C].
      quantiles: one array for each level, that broadcasts to y.
      levels: of the quantiles.
    """
    total = np.zeros(target.shape)
    for level, quantile in zip(levels, quantiles, strict=True):
        gap = target - np.asarray(quantile, np.float64)
        total += np.maximum(level * gap, (level - 1) * gap)
    return 2 * total / len(levels)


def interval_scores(
    target: np.ndarray,
    observed: np.ndarray | None,
    crps: np.ndarray | None,
    intervals: Mapping[str, Interval],
    scale: np.ndarray | float = 1.0,
) -> dict[str, np.ndarray]:
    """Scores of every forecast value.

    `crps`; `coverage_<name>`: 1 where y lies inside the interval, edges included, else 0; `width_<name>`, 0 where the
    edges cross. `crps_raw` and `width_<name>_raw` are in raw units.

    Args:
      target: y, [N, H, C]; any number where it is not observed.
      observed: False where y is missing, [N, H, C]; None: nothing is missing.
      crps: of every value, [N, H, C], or None.
      intervals: by name, such as "80".
      scale: raw value = value / scale + shift; (), [C], or of every row [N, 1, C].

    Returns:
      name -> [N, H, C] float64, 0 where y is missing.
    """
    units = np.abs(np.asarray(scale, np.float64))
    by_name: dict[str, np.ndarray] = {} if crps is None else {"crps": crps, f"crps{RAW}": crps / units}
    for name, (low, high) in intervals.items():
        inside = np.where(np.isnan(low) | np.isnan(high), np.nan, (low <= target) & (target <= high))
        width = np.maximum(np.asarray(high, np.float64) - low, 0)
        by_name |= {f"coverage_{name}": inside, f"width_{name}": width, f"width_{name}{RAW}": width / units}
    known = np.ones(target.shape, bool) if observed is None else np.asarray(observed)
    return {name: np.where(known, values, 0.0) for name, values in by_name.items()}


# ------------------------------------------------------------------------------------------------- conformal correction


def conformal_scores(
    interval: Interval, target: np.ndarray, observed: np.ndarray | None, unit: np.ndarray
) -> np.ndarray:
    """How far y lies outside the interval, max(low - y, y - high), in units of `unit`; NaN where y is missing.

    [N, H, C], negative inside (Romano, Patterson & Candes 2019, "Conformalized Quantile Regression").
    """
    low, high = interval
    scores = np.maximum(low - np.asarray(target, np.float64), target - np.asarray(high, np.float64)) / unit
    return scores if observed is None else np.where(observed, scores, np.nan)


def conformal_quantile(scores: np.ndarray, share: float) -> np.ndarray:
    """The score of rank ceil((n + 1) share) among the n scores of each step and channel, [H, C], of [N, H, C].

    An interval that is widened by it (or made narrower, where it is negative) holds a new value with a probability of
    at least `share`, if new values and those of the scores are exchangeable.

    Raises:
      ValueError: there are too few scores for a finite interval.
    """
    ranked = np.sort(scores, axis=0)  # NaN comes last
    count = np.isfinite(ranked).sum(0)
    rank = np.ceil((count + 1) * share - ROUNDING).astype(int)
    if (rank > count).any():
        needed = math.ceil(share / (1 - share) - ROUNDING)
        problem = f"a conformal interval of {100 * share:.0f} % needs {needed} observed values of each step"
        raise ValueError(f"{problem} in the validation rows, and some step has {count.min()}")
    return np.take_along_axis(ranked, rank[None] - 1, axis=0)[0]


def widened(interval: Interval, correction: np.ndarray, unit: np.ndarray) -> Interval:
    """The interval with both edges moved outwards by the correction [H, C] in units of `unit`."""
    low, high = interval
    return low - correction * unit, high + correction * unit


def base_interval(forecast: Forecast, share: float, levels: Sequence[float]) -> Interval:
    """The interval that a correction starts from; where the forecast has none, both edges are its median."""
    return central_interval(forecast, share, levels) or (forecast.median, forecast.median)


def units_of(rows: Examples, scale: np.ndarray | float) -> np.ndarray:
    """The naive error of the series of every row, in scaled units, [N, 1, C]; 1 where it is 0 or not known.

    Rows of many series have errors of different size. For rows of one series it changes nothing.
    """
    if rows.naive_error is None:
        return np.ones((1, 1, 1))
    unit = np.asarray(rows.naive_error, np.float64)[:, None] * np.abs(rows.units(0.0, scale)[1])
    return np.where(np.isfinite(unit) & (unit > 0), unit, 1.0)


# ------------------------------------------------------------------------------------------------------ naive intervals


@dataclasses.dataclass(frozen=True)
class Misses:
    """What a point forecast missed on some rows, as a distribution around its forecasts of other rows.

    Attributes:
      ranked: y - forecast in units of the row's series (`units_of`), in ascending order for each step and channel, NaN
        at the end, [N, H, C].
      count: how many there are, [H, C].
    """

    ranked: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, forecast: Forecaster, rows: Examples, scale: np.ndarray | float) -> "Misses":
        """The misses of a forecast at the observed values of rows.

        Raises:
          ValueError: a step has no observed value, or the forecast cannot be made.
        """
        parts = []
        for windows in chunks(rows):
            miss = (np.asarray(windows.target, np.float64) - forecast(windows)) / units_of(windows, scale)
            parts.append(miss if windows.target_observed is None else np.where(windows.target_observed, miss, np.nan))
        ranked = np.sort(np.concatenate(parts), axis=0)
        count = np.isfinite(ranked).sum(0)
        if not count.all():
            raise ValueError("some step of the horizon has no observed value in the validation rows")
        return cls(ranked, count)

    def quantile(self, level: float) -> np.ndarray:
        """Of every step and channel, [H, C]; neighbours are interpolated."""
        return np.nanquantile(self.ranked, level, axis=0)

    def crps(self, miss: np.ndarray) -> np.ndarray:
        """CRPS of the distribution at other misses, [N, H, C]: mean |X - y| - mean |X - X'| / 2."""
        scores = np.empty(miss.shape)
        for step, channel in np.ndindex(self.count.shape):
            number = int(self.count[step, channel])
            values, y = self.ranked[:number, step, channel], miss[:, step, channel]
            sums = np.concatenate([[0.0], np.cumsum(values)])
            below = np.searchsorted(values, y)
            distance = y * (2 * below - number) + sums[-1] - 2 * sums[below]
            spread = values @ (2 * np.arange(1, number + 1) - number - 1)
            scores[:, step, channel] = distance / number - spread / number**2
        return scores


def naive_scores(subject: Subject, forecast: Forecaster, levels: Sequence[float], shares: Sequence[str]) -> Sums:
    """Scores on the test rows of a naive forecast whose misses on the validation rows give its distribution.

    Args:
      subject: the data; its model has no influence.
      forecast: the naive forecast.
      levels: of the quantiles whose pinball loss is the CRPS; without levels it is that of all misses.
      shares: names of the intervals.
    """
    misses, sums = Misses.of(forecast, subject.parts["validation"], subject.scale), Sums()
    edges = {name: ((1 - SHARES[name]) / 2, (1 + SHARES[name]) / 2) for name in shares}
    at = {level: misses.quantile(level) for level in {*levels, *(level for pair in edges.values() for level in pair)}}
    for windows in chunks(subject.test):
        center, unit = forecast(windows), units_of(windows, subject.scale)
        target = np.asarray(windows.target, np.float64)
        if levels:
            crps = quantile_crps(target, (center + at[level] * unit for level in levels), levels)
        else:
            crps = misses.crps((target - center) / unit) * unit
        intervals = {name: (center + at[low] * unit, center + at[high] * unit) for name, (low, high) in edges.items()}
        observed = windows.target_observed
        sums.add(interval_scores(target, observed, crps, intervals, _scale_of(windows, subject)), observed)
    return sums


# ------------------------------------------------------------------------------------------------------------ the study


def study(subject: Subject, findings: Findings) -> None:
    """Add CRPS, coverage and width of the intervals of a forecaster on the test rows, and those of naive forecasts.

    The coverage of further shares makes the picture `calibration`. A model whose forecast is no distribution has none
    of them, apart from conformal intervals.
    """
    test = subject.test
    call = lambda batch, _: batches.call(subject.model, subject.params, batch, "forecast")
    ask: Callable[[Examples], Forecast] = lambda rows: batches.over(call, rows, min(BATCH, len(test)))
    sample = ask(test.take(slice(0, 1)))
    levels = () if sample.quantiles is None else tuple(subject.model.quantiles)
    distributed = sample.quantiles is not None or sample.deviation is not None
    if not (distributed or subject.recipe.conformal):
        return
    shares = {
        name: share for name, share in calibration.SHARES.items() if central_interval(sample, share, levels) is not None
    }
    if distributed:
        _refuse_absent(findings, [*shares], levels)
    corrections = _validate(subject, findings, ask, levels)
    if not (distributed or corrections):
        return
    sums = Sums()
    for windows in chunks(test):
        forecast, unit = ask(windows), units_of(windows, subject.scale)
        intervals = {name: base_interval(forecast, share, levels) for name, share in shares.items()}
        for name, correction in corrections.items():
            base = base_interval(forecast, calibration.SHARES[name], levels)
            intervals[name + CONFORMAL] = widened(base, correction, unit)
        crps = _crps(forecast, windows.target, levels)
        observed = windows.target_observed
        scores = interval_scores(windows.target, observed, crps, intervals, _scale_of(windows, subject))
        sums.add({name: values for name, values in scores.items() if not _of_calibration_only(name, "width")}, observed)
    means = sums.means()
    findings.add(means, "test/")
    findings.curves |= {
        f"forecast_{name}": values
        for name, values in sums.steps().items()
        if not (name.endswith(RAW) or _of_calibration_only(name, "coverage"))
    }
    if subject.recipe.pictures:
        kinds = {"model": calibration.coverages(means), "conformal": calibration.coverages(means, CONFORMAL)}
        curves = {name: curve for name, curve in kinds.items() if curve}
        if curves:
            findings.pictures["calibration"] = calibration.picture(curves, int(sums.count.sum()))
    if distributed and subject.recipe.baselines:
        _add_naive(subject, findings, levels, [name for name in shares if name in SHARES])


def _of_calibration_only(metric: str, score: str) -> bool:
    """Whether a metric is this score, "coverage" or "width", of an interval that only calibration looks at."""
    bare, _, interval = metric.partition("_")
    return bare == score and interval.partition("_")[0] not in SHARES


def _scale_of(windows: Examples, subject: Subject) -> np.ndarray:
    """What the values of windows are divided by to have the units of the data, (), [C] or [N, 1, C]."""
    return windows.units(subject.shift, subject.scale)[1]


def _crps(forecast: Forecast, target: np.ndarray, levels: Sequence[float]) -> np.ndarray | None:
    """CRPS of a forecast at every value, [N, H, C]; None where the forecast is no distribution."""
    if forecast.quantiles is not None:
        return quantile_crps(np.asarray(target, np.float64), np.moveaxis(forecast.quantiles, -1, 0), levels)
    return None if forecast.deviation is None else gaussian_crps(target, forecast.mean, forecast.deviation)


def _refuse_absent(findings: Findings, shares: Sequence[str], levels: Sequence[float]) -> None:
    """Say why the forecast has no interval of some share: its quantiles lack a level."""
    for name in (name for name in SHARES if name not in shares):
        edges = (1 - SHARES[name]) / 2, (1 + SHARES[name]) / 2
        wanted = ",".join(sorted({f"{level:.6g}" for level in (*levels, *edges)}, key=float))
        reason = f"it needs quantiles at {edges[0]:.4g} and {edges[1]:.4g}: 'model.quantiles=[{wanted}]'"
        findings.refuse(reason, *(f"test/{metric}" for metric in _metrics_of(name)))


def _metrics_of(interval: str) -> tuple[str, ...]:
    """The names of the scores of an interval."""
    return f"coverage_{interval}", f"width_{interval}", f"width_{interval}{RAW}"


def _validate(
    subject: Subject, findings: Findings, ask: Callable[[Examples], Forecast], levels: Sequence[float]
) -> dict[str, np.ndarray]:
    """Add the CRPS of the validation rows, and give the conformal corrections [H, C] by the name of their share."""
    sums, kept = Sums(), []
    for windows in chunks(subject.parts["validation"]):
        forecast, observed = ask(windows), windows.target_observed
        crps = _crps(forecast, windows.target, levels)
        if crps is not None:
            sums.add(interval_scores(windows.target, observed, crps, {}, _scale_of(windows, subject)), observed)
        if subject.recipe.conformal:
            kept.append((forecast, windows.target, observed, units_of(windows, subject.scale)))
    findings.add(sums.means(), "validation/")
    corrections = {}
    for name, share in calibration.SHARES.items() if kept else ():
        parts = [conformal_scores(base_interval(forecast, share, levels), *rest) for forecast, *rest in kept]
        try:
            corrections[name] = conformal_quantile(np.concatenate(parts), share)
        except ValueError as error:
            metrics = _metrics_of(name + CONFORMAL) if name in SHARES else (f"coverage_{name}{CONFORMAL}",)
            findings.refuse(str(error), *(f"test/{metric}" for metric in metrics))
    return corrections


def _add_naive(subject: Subject, findings: Findings, levels: Sequence[float], shares: Sequence[str]) -> None:
    """Add the scores of naive intervals, or why they do not exist."""
    for name, fit in forecasting.naive(subject).items():
        if name not in NAIVE:
            continue
        try:
            key = ("intervals", name, tuple(levels), tuple(shares))
            means = subject.once(key, lambda fit=fit: naive_scores(subject, fit(), levels, shares).means())
            findings.add(means, f"baseline/{name}/")
        except ValueError as error:
            findings.refuse(str(error), f"baseline/{name}/crps", f"baseline/{name}/crps{RAW}")
