"""Errors in the units of the data.

Errors in scaled units cannot be compared between runs whose scalings were fitted to different rows; these can.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.compiling import compiled
from research.data.examples import Examples
from research.distributions import mean_squared_error
from research.evaluation.subject import BATCH, Findings, Subject
from research.metrics import RAW
from research.models.abilities import Forecasts, Predicts, Reconstructs, able
from research.runs import batches

POWERS = {"reconstruction_mse": 2, "mse": 2, "mae": 1}  # the error in raw units is the scaled one over scale^power


@compiled()
def _reconstruction(model: Any, params: Any, batch: Examples, scale: jax.Array) -> jax.Array:
    """Mean over observed elements of ((x' - x) / scale)^2, [B]."""
    flat = lambda array: array.reshape(len(batch), -1)
    output, truth = (flat(rows / scale[None]) for rows in (model.reconstruct(params, batch), batch.x))
    return mean_squared_error(output, truth, None if batch.mask is None else flat(batch.mask))


@compiled()
def _forecast(model: Any, params: Any, batch: Examples, scale: jax.Array) -> dict[str, jax.Array]:
    """Mean over observed values of ((y' - y) / scale)^2 and |y' - y| / scale, [B]; the scale is [B, H, C]."""
    forecast, observed = model.forecast(params, batch), batch.target_observed
    observed = jnp.ones(batch.target.shape, bool) if observed is None else observed
    number = jnp.maximum(observed.sum((1, 2)), 1)
    mean = lambda values: jnp.where(observed, values, 0.0).sum((1, 2)) / number
    miss = lambda center: jnp.where(observed, batch.target - center, 0.0) / scale
    return {"mse": mean(jnp.square(miss(forecast.mean))), "mae": mean(jnp.abs(miss(forecast.median)))}


@compiled()
def _prediction(model: Any, params: Any, batch: Examples, scale: jax.Array) -> dict[str, jax.Array]:
    """Mean squared and mean absolute error of values in the units of the data, [B]."""
    outputs, target = model.predict(params, batch), batch.target
    return model.scores(outputs / scale[None], dataclasses.replace(batch, target=target / scale[None]))


def study(subject: Subject, findings: Findings) -> None:
    """Add `.../reconstruction_mse_raw`, `.../mse_raw` and `.../mae_raw` of validation and test rows, and of baselines.

    If one scale holds for all elements, the error in scaled units is divided by a power of it; otherwise the error is
    computed again. Forecasts of test rows have theirs from `forecasting`, principal components from `baselines`.
    """
    metrics = {name: value for name, value in {**subject.metrics, **findings.metrics}.items() if value is not None}
    for name, value in metrics.items():
        part, _, bare = name.rpartition("/")
        if part == "train" or bare not in POWERS or name + RAW in findings.metrics:
            continue
        scale = np.asarray(subject.scale if bare == "reconstruction_mse" else subject.target_scale, np.float64)
        if np.ptp(scale) == 0 and subject.test.series_scale is None:
            findings.add({name + RAW: value / abs(float(scale.flat[0])) ** POWERS[bare]})
        elif part in subject.parts:
            findings.add(_computed_again(subject, part, bare, scale), f"{part}/")


def _computed_again(subject: Subject, part: str, bare: str, scale: np.ndarray) -> dict[str, float]:
    """Errors of the rows of a part in the units of the data."""
    model, params, rows = subject.model, subject.params, subject.parts[part]
    if bare == "reconstruction_mse" and able(model, Reconstructs):
        whole = jnp.asarray(np.broadcast_to(scale, rows.x.shape[1:]), jnp.float32)
        by_name = {bare: batches.over(lambda batch, _: _reconstruction(model, params, batch, whole), rows, BATCH)}
    elif bare != "reconstruction_mse" and able(model, Forecasts):

        def call(batch: Examples, _: Any) -> dict[str, jax.Array]:
            whole = np.asarray(np.broadcast_to(batch.units(0.0, scale)[1], batch.target.shape), np.float32)
            return _forecast(model, params, batch, whole)

        by_name = batches.over(call, rows, BATCH)
    elif bare != "reconstruction_mse" and able(model, Predicts):
        whole = jnp.asarray(np.broadcast_to(scale, rows.target.shape[1:]), jnp.float32)
        scores = batches.over(lambda batch, _: _prediction(model, params, batch, whole), rows, BATCH)
        by_name = {name: scores[name] for name in ("mse", "mae")}
    else:
        return {}
    return {name + RAW: float(np.mean(values, dtype=np.float64)) for name, values in by_name.items()}
