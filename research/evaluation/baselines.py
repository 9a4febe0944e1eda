"""Baselines without a network: the mean and principal components of training rows, and rows that such methods can read.

Methods that know no mask would take zeros behind the end of a row for data: k-means would group series by their length.
So rows of unequal length, or with gaps, become rows of one length without gaps (`whole_rows`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.codes import probes
from research.evaluation.subject import Findings, Subject
from research.models.abilities import latent_dim_of

LARGEST = 4096  # the decomposition takes the cube of the number of features or rows, whichever is smaller
MASKED = "rows are padded or have missing values"
PADDED, RESAMPLED = "padded_", "resampled_"  # prefixes of the name of a method


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of training rows, float64.

    Attributes:
      mean: of the training rows, [D].
      directions: one column for each component, the largest variance first, [D, R].
    """

    mean: np.ndarray
    directions: np.ndarray

    def encode(self, x: np.ndarray, latent_dim: int) -> np.ndarray:
        """Scores of rows [N, ...] on the first L components, [N, L].

        Raises:
          ValueError: there are fewer than L components.
        """
        available = self.directions.shape[1]
        if latent_dim > available:
            raise ValueError(f"the data has only {available} principal components, fewer than latents")
        return (_flat(x) - self.mean) @ self.directions[:, :latent_dim]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Reconstructions [N, D] of codes [N, L]."""
        return codes @ self.directions[:, : codes.shape[1]].T + self.mean


def components(x: np.ndarray) -> Components:
    """Fit all principal components to training rows [N, ...].

    They are the eigenvectors of the covariance; if there are fewer rows than features, they are computed from the
    eigenvectors of the Gram matrix.

    Raises:
      ValueError: there are more than 4,096 rows and more than 4,096 features.
    """
    x = _flat(x).astype(np.float64)
    if min(x.shape) > LARGEST:
        raise ValueError(f"principal components of {x.shape[0]} rows of {x.shape[1]} features are too large to compute")
    mean = x.mean(0)
    x -= mean
    if x.shape[1] <= x.shape[0]:
        return Components(mean, np.linalg.eigh(x.T @ x)[1][:, ::-1])
    values, vectors = np.linalg.eigh(x @ x.T)
    keep = values[::-1] > values[-1] * 1e-12
    directions = x.T @ vectors[:, ::-1][:, keep]
    return Components(mean, directions / np.linalg.norm(directions, axis=0))


def reconstruction_error(fitted: Components, x: np.ndarray, latent_dim: int, scale: Any = 1.0) -> float:
    """Mean over elements of ((x - x') / scale)^2 of rows [N, ...] and their reconstructions x' by L components.

    Without components, x' is the training mean. The scale is () or of the last axes of x.
    """
    scale = np.broadcast_to(np.asarray(scale, np.float64), x.shape[1:]).reshape(-1)
    return float(np.square((_flat(x) - fitted.decode(fitted.encode(x, latent_dim))) / scale).mean())


def mean_of_rows(values: np.ndarray, known: np.ndarray) -> float:
    """Mean over rows of the mean over the known values of a row, as models compute it; both are [N, ...]."""
    values, known = _flat(values), _flat(known)
    return float((np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)).mean())


def masked_mean_error(train: Examples, test: Examples) -> float:
    """Squared error of the training mean of every element on the valid and observed elements of the test rows.

    It is the mean over rows of the mean over elements, as models compute it. An element that no training row has is
    predicted as 0.
    """
    train_x, test_x = np.asarray(train.x, np.float64), np.asarray(test.x, np.float64)
    known, scored = (
        np.broadcast_to(True if part.mask is None else np.asarray(part.mask), np.shape(part.x))
        for part in (train, test)
    )
    mean = np.where(known, train_x, 0).sum(0) / np.maximum(known.sum(0), 1)
    return mean_of_rows(np.square(test_x - mean), scored)


def whole_rows(part: Examples) -> Mapping[str, np.ndarray]:
    """Flat rows [N, D] by the prefix that the name of a method gets which sees them.

    If all rows have the same length there is one entry, "". If they differ in length there are two: `padded_` repeats
    the last value to the end, and `resampled_` stretches every row to the full number of steps, linearly between its
    steps.
    A gap is filled linearly between the observed steps of its channel, and beyond them with the nearest one.
    """
    x = np.asarray(part.x)
    if x.ndim > 2 and part.observed is not None:
        x = fill_gaps(x, np.asarray(part.mask))
    if part.length is None:
        return {"": _flat(x)}
    length = np.asarray(part.length)
    return {PADDED: _flat(repeat_end(x, length)), RESAMPLED: _flat(stretch(x, length))}


def repeat_end(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows [N, T, ...] of valid lengths [N] with their last valid step repeated."""
    steps = np.minimum(np.arange(x.shape[1])[None], np.maximum(length, 1)[:, None] - 1)
    return x[np.arange(len(x))[:, None], steps]


def stretch(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows [N, T, ...] of valid lengths [N] stretched to T steps: step t is read at t (length - 1) / (T - 1)."""
    last, rows = np.maximum(length, 1)[:, None] - 1, np.arange(len(x))[:, None]
    position = np.arange(x.shape[1])[None] * last / max(x.shape[1] - 1, 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, last)
    share = (position - low).reshape(position.shape + (1,) * (x.ndim - 2))
    return x[rows, low] * (1 - share) + x[rows, high] * share


def fill_gaps(x: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Rows [N, T, C] with missing values interpolated linearly between observed ones.

    A channel of a row that has no observed value at all stays as it is.
    """
    x = x.copy()
    steps = np.arange(x.shape[1])
    gaps = ~observed.all(1) & observed.any(1)
    for row, *channel in np.argwhere(gaps):
        series = (row, slice(None), *channel)
        known = observed[series]
        x[series] = np.interp(steps, steps[known], x[series][known])
    return x


def fitted_components(subject: Subject, prefix: str = "") -> Components:
    """Principal components of the training rows, fitted once for all runs on them; `prefix` is a key of `whole_rows`.

    Raises:
      ValueError: they are too large to compute.
    """
    return subject.once(("components", prefix), lambda: components(whole_rows(subject.train)[prefix]))


def study(subject: Subject, findings: Findings) -> None:
    """Add `baseline/mean/...` and `baseline/pca/...`, at the latent size of a model that reconstructs."""
    names = ("baseline/mean/reconstruction_mse", "baseline/pca/reconstruction_mse")
    if subject.train.observed is not None or subject.train.length is not None:
        error = subject.once("masked mean", lambda: masked_mean_error(subject.train, subject.test))
        findings.add({names[0]: error})
        findings.refuse(MASKED, names[1])
        return
    recipe, latent_dim = subject.recipe, latent_dim_of(subject.model)
    key = ("pca", latent_dim, recipe.probes, recipe.neighbors, recipe.probe_iterations)
    try:
        fitted = fitted_components(subject)
        findings.add(subject.once("mean error", lambda: _errors(subject, fitted, 0)), "baseline/mean/")
        if latent_dim is None:
            raise ValueError("the model does not say the size of its codes (latent_dim)")
        scores = subject.once(key, lambda: _errors(subject, fitted, latent_dim) | _probes(subject, fitted, latent_dim))
        findings.add(scores, "baseline/pca/")
    except ValueError as error:
        findings.refuse(str(error), *(name for name in names if name not in findings.metrics))


def _errors(subject: Subject, fitted: Components, latent_dim: int) -> dict[str, float]:
    x = np.asarray(subject.test.x)
    errors = {"reconstruction_mse": reconstruction_error(fitted, x, latent_dim)}
    if not subject.binary:
        errors["reconstruction_mse_raw"] = reconstruction_error(fitted, x, latent_dim, subject.scale)
    return errors


def _probes(subject: Subject, fitted: Components, latent_dim: int) -> dict[str, float]:
    recipe, train, test = subject.recipe, subject.train, subject.test
    if not recipe.probes or train.label is None or len(np.unique(np.asarray(train.label))) < 2:
        return {}
    codes = (fitted.encode(np.asarray(part.x), latent_dim) for part in (train, test))
    (train_codes, test_codes), labels = codes, (np.asarray(train.label), np.asarray(test.label))
    return probes(train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations)


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).reshape(len(x), -1)
