"""What is computed after training, on the host: likelihood, probes of the codes, baselines, pictures."""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from research.data.examples import Examples
from research.evaluation import baselines, codes, likelihood, pictures
from research.evaluation.recipe import Evaluation
from research.runs import batches

__all__ = ["Baselines", "Evaluation", "Findings", "evaluate_run"]


@dataclasses.dataclass
class Findings:
    """What an evaluation found.

    Attributes:
      metrics: name -> value, or None where it was asked for but there is none; `null_reasons` says why.
      pictures: name -> [H, W, 3] uint8.
      codes: of the test rows for the projector, [N, L], or None.
      labels: of these rows, [N], or None.
      sprite: pictures of these rows in one square grid, with height and width of one; or None.
    """

    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    null_reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    codes: np.ndarray | None = None
    labels: np.ndarray | None = None
    sprite: tuple[np.ndarray, int, int] | None = None

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add metrics; those that are not finite become None with a reason."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self.metrics[name] = value
            else:
                self.refuse("not a number" if math.isnan(value) else "infinite", name)

    def refuse(self, reason: str, *names: str) -> None:
        """Say why metrics that were asked for are absent."""
        self.metrics |= dict.fromkeys(names)
        self.null_reasons |= dict.fromkeys(names, reason)


class Baselines:
    """Baselines of each data set and fold, computed once for all runs on it; one object for a sweep."""

    def __init__(self) -> None:
        self._fitted: dict[Hashable, baselines.Components] = {}
        self._scores: dict[Hashable, dict[str, float]] = {}

    def scores(
        self, train: Examples, test: Examples, latent_dim: int, recipe: Evaluation, key: Hashable
    ) -> dict[str, float]:
        """`baseline/...` metrics at one latent size; `key` names the rows (content and fold), None computes them anew.

        Raises:
          ValueError: these rows have none at this latent size.
        """
        wanted = (key, latent_dim, recipe.probes, recipe.neighbors, recipe.probe_iterations)
        if key is not None and wanted in self._scores:
            return self._scores[wanted]
        x, test_x = np.asarray(train.x), np.asarray(test.x)
        fitted = self._fitted[key] if key is not None and key in self._fitted else baselines.components(x)
        if latent_dim > fitted.directions.shape[1]:
            raise ValueError(f"the data has only {fitted.directions.shape[1]} principal components, fewer than latents")
        test_codes = fitted.encode(test_x, latent_dim)
        scores = {
            "baseline/mean/reconstruction_mse": baselines.mean_error(fitted, test_x),
            "baseline/pca/reconstruction_mse": baselines.reconstruction_error(fitted, test_x, test_codes),
        }
        if recipe.probes and train.label is not None and len(np.unique(np.asarray(train.label))) > 1:
            labels = np.asarray(train.label), np.asarray(test.label)
            train_codes = fitted.encode(x, latent_dim)
            found = codes.probes(
                train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations
            )
            scores |= {f"baseline/pca/{name}": value for name, value in found.items()}
        if key is not None:
            self._fitted[key], self._scores[wanted] = fitted, scores
        return scores


def evaluate_run(
    model: Any,
    params: Any,
    parts: Mapping[str, Examples],
    recipe: Evaluation,
    *,
    classes: int,
    kind: str,
    key: jax.Array,
    shared: Baselines | None = None,
    data_key: Hashable = None,
    redraws: Iterable[Examples] = (),
) -> Findings:
    """Evaluate one trained model; which metrics and pictures there are follows from what the model can do.

    Args:
      parts: `train` and `test` rows as models see them, without wrapping or padding.
      classes: of the data, 0 without labels.
      kind: of the data: image, vector or sequence.
      key: of all draws.
      shared: baselines kept from one run to the next.
      data_key: names the rows of `parts` (content hash and fold); None shares nothing.
      redraws: further binarisations of the test rows.
    """
    train, test = parts["train"], parts["test"]
    findings = Findings()
    able = hasattr(model, "encode")
    needs_test = able and (
        recipe.probes or recipe.active_units or recipe.pictures or recipe.projector or recipe.baselines
    )
    test_codes = codes.encode(model, params, test) if needs_test else None

    if recipe.nll_samples is not None and hasattr(model, "log_weights"):
        rows = test if recipe.nll_examples is None else test.take(slice(recipe.nll_examples))
        findings.add(likelihood.likelihood(model, params, rows, jax.random.fold_in(key, 0), recipe.nll_samples))
    findings.add(_mean_of_draws(model, params, redraws, jax.random.fold_in(key, 2)))
    if test_codes is not None:
        _read_codes(findings, model, params, train, test, test_codes, recipe, classes)
        if recipe.baselines:
            _add_baselines(findings, train, test, test_codes.shape[1], recipe, shared or Baselines(), data_key)
    if recipe.pictures:
        findings.pictures = pictures.pictures(
            model, params, test, test_codes, kind, classes, jax.random.fold_in(key, 1)
        )
    if recipe.projector and test_codes is not None:
        findings.codes = test_codes
        findings.labels = None if test.label is None else np.asarray(test.label)
        if kind == "image" and np.ndim(test.x) in (3, 4):
            tiles = pictures.pixels(test.x, float(np.min(test.x)), float(np.max(test.x)))
            findings.sprite = _sprite(tiles[..., 0] if np.ndim(test.x) == 3 else tiles)
    return findings


def _mean_of_draws(model: Any, params: Any, draws: Iterable[Examples], key: jax.Array) -> dict[str, float]:
    """`redrawn/...`: mean of the model's metrics over several binarisations of the test rows."""
    found: dict[str, list[float]] = {}
    for number, examples in enumerate(draws):
        own = jax.random.fold_in(key, number)
        evaluate = lambda batch, rows, own=own: batches.evaluate(model, params, batch, batches.row_keys(own, rows))
        for name, values in batches.over(evaluate, examples, codes.BATCH).items():
            found.setdefault(name, []).append(float(np.mean(values, dtype=np.float64)))
    return {f"redrawn/{name}": float(np.mean(values)) for name, values in found.items()}


def _read_codes(
    findings: Findings,
    model: Any,
    params: Any,
    train: Examples,
    test: Examples,
    test_codes: np.ndarray,
    recipe: Evaluation,
    classes: int,
) -> None:
    finite = np.isfinite(test_codes).all()
    if recipe.active_units and hasattr(model, "posterior"):
        if finite:
            findings.add({"test/active_units": codes.active_units(test_codes, recipe.active_threshold)})
        else:
            findings.refuse("some codes are not finite", "test/active_units")
    if not recipe.probes or classes < 2 or train.label is None:
        return
    names = ("test/knn_accuracy", "test/probe_accuracy")
    train_codes = codes.encode(model, params, train)
    if not finite or not np.isfinite(train_codes).all():
        findings.refuse("some codes are not finite", *names)
        return
    labels = np.asarray(train.label), np.asarray(test.label)
    if len(np.unique(labels[0])) < 2:
        findings.refuse("one class only in the training rows", *names)
        return
    found = codes.probes(train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations)
    findings.add({f"test/{name}": value for name, value in found.items()})


def _add_baselines(
    findings: Findings,
    train: Examples,
    test: Examples,
    latent_dim: int,
    recipe: Evaluation,
    shared: Baselines,
    data_key: Hashable,
) -> None:
    names = ("baseline/mean/reconstruction_mse", "baseline/pca/reconstruction_mse")
    if train.observed is not None or train.length is not None:
        findings.refuse("rows are padded or have missing values", *names)
        return
    try:
        findings.add(shared.scores(train, test, latent_dim, recipe, data_key))
    except ValueError as error:
        findings.refuse(str(error), *names)


def _sprite(tiles: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """Tiles [N, H, W] or [N, H, W, 3] in one square grid, with height and width of one; None where TensorBoard's page
    could not take it (more than 8,192 pixels a side)."""
    number, height, width = tiles.shape[:3]
    side = int(np.ceil(np.sqrt(number)))
    if side * max(height, width) > 8192:
        return None
    full = np.full((side * side, *tiles.shape[1:]), 255, np.uint8)
    full[:number] = tiles
    whole = np.swapaxes(full.reshape(side, side, *tiles.shape[1:]), 1, 2)
    return np.ascontiguousarray(whole.reshape(side * height, side * width, *tiles.shape[3:])), height, width
