"""Errors of imputed values, and naive imputations beside them: the mean, the last value, linear interpolation."""

from collections.abc import Callable
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.baselines import fill_gaps, sums_of_known
from research.evaluation.rows import chunks
from research.evaluation.subject import Findings, Subject
from research.metrics import RAW

NAMES = ("imputation_mae", "imputation_mse")


def errors(imputed: np.ndarray, rows: Examples, scale: Any) -> dict[str, float]:
    """`imputation_mae` and `imputation_mse`, means over all hidden values of the rows, also in raw units.

    Args:
      imputed: an imputation for every element of x, of its shape.
      rows: rows with hidden values, as models see them.
      scale: raw value = value / scale + shift; () or of the last axes of x.
    """
    miss = np.asarray(imputed, np.float64) - np.asarray(rows.truth, np.float64)
    hidden = np.asarray(rows.hidden, bool)
    by_units = {"": miss[hidden], RAW: (miss / np.asarray(scale, np.float64))[hidden]}
    means = {}
    for units, values in by_units.items():
        means |= {NAMES[0] + units: float(np.abs(values).mean()), NAMES[1] + units: float(np.square(values).mean())}
    return means


def errors_of(fill: Callable[[Examples], np.ndarray], part: Examples, scale: Any) -> dict[str, float]:
    """The `errors` of an imputation of the rows of a part, a few rows at a time."""
    totals, count = dict.fromkeys((name + units for units in ("", RAW) for name in NAMES), 0.0), 0
    for rows in chunks(part):
        if not (number := int(np.asarray(rows.hidden).sum())):
            continue
        count += number
        for name, mean in errors(fill(rows), rows, scale).items():
            totals[name] += number * mean
    return {name: total / count for name, total in totals.items()}


def observed_mean(train: Examples, over_time: bool) -> np.ndarray:
    """Mean of the observed values of every channel [C] over rows and steps, or of every feature [...] over rows.

    It is 0 for a channel or feature without observed values.
    """
    total, count = sums_of_known(train)
    total, count = (total.sum(0), count.sum(0)) if over_time else (total, count)
    return total / np.maximum(count, 1)


def carried(x: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Rows [N, T, C] with the last observed value of the channel in place of a missing one.

    Before the first observed value of a row it is this first value. A channel of a row without observed values stays.
    """
    steps = np.arange(x.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(observed, steps, -1), axis=1)
    source = np.where(last < 0, np.argmax(observed, axis=1, keepdims=True), last)
    filled = np.take_along_axis(x, source, axis=1)
    return np.where(observed.any(1, keepdims=True), filled, x)


def naive(subject: Subject) -> dict[str, Callable[[Examples], np.ndarray]]:
    """Imputations without training by name. Only sequences have a last value and an interpolation.

    A channel of a row without observed values gets the mean.
    """
    if subject.facts.kind != "sequence":
        means = observed_mean(subject.train, over_time=False)
        return {"mean": lambda rows: np.broadcast_to(means, rows.x.shape)}
    mean = observed_mean(subject.train, over_time=True)

    def filled(fill: Callable[[np.ndarray, np.ndarray], np.ndarray], rows: Examples) -> np.ndarray:
        observed = np.asarray(rows.mask)
        x = np.where(observed.any(1, keepdims=True), np.asarray(rows.x, np.float64), mean)
        return fill(x, observed)

    return {
        "channel_mean": lambda rows: np.broadcast_to(mean, rows.x.shape),
        "last_value": lambda rows: filled(carried, rows),
        "linear_interpolation": lambda rows: filled(fill_gaps, rows),
    }


def has_hidden(subject: Subject) -> bool:
    """Whether values of the test rows are hidden."""
    return subject.test.hidden is not None


def study(subject: Subject, findings: Findings) -> None:
    """Add errors of the reconstruction at the hidden values of validation and test rows, and those of naive methods."""
    for part in ("validation", "test"):
        reconstruct = lambda rows: subject.call("reconstruct", rows)
        findings.add(errors_of(reconstruct, subject.parts[part], subject.scale), f"{part}/")
    if subject.recipe.baselines:
        scored = lambda: {name: errors_of(fill, subject.test, subject.scale) for name, fill in naive(subject).items()}
        for name, means in subject.once("imputation", scored).items():
            findings.add(means, f"baseline/{name}/")
