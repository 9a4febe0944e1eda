"""Baselines of reconstruction that need no training: the mean, and principal components at the same latent size."""

import dataclasses
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.probes import probes
from research.evaluation.subject import Findings, Subject
from research.evaluation.unequal import whole_rows
from research.models.abilities import latent_dim_of

LARGEST = 4096  # the decomposition takes the cube of the number of features or rows, whichever is smaller
MASKED = "rows are padded or have missing values"


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


def mean_error(fitted: Components, x: np.ndarray, scale: Any = 1.0) -> float:
    """Mean over elements of ((x - mean) / scale)^2 of rows [N, ...]; scale is () or of the last axes of x."""
    return float(np.square((_flat(x) - fitted.mean) / _of_elements(scale, x)).mean())


def reconstruction_error(fitted: Components, x: np.ndarray, codes: np.ndarray, scale: Any = 1.0) -> float:
    """Mean over elements of ((x - x') / scale)^2 of rows [N, ...] and the reconstructions x' of their codes [N, L]."""
    return float(np.square((_flat(x) - fitted.decode(codes)) / _of_elements(scale, x)).mean())


def masked_mean_error(train: Examples, test: Examples) -> float:
    """Squared error of the training mean of every element on the valid and observed elements of the test rows.

    It is the mean over rows of the mean over elements, as models compute it. An element that no training row has is
    predicted as 0.
    """
    train_x, test_x = np.asarray(train.x, np.float64), np.asarray(test.x, np.float64)
    known, scored = _mask(train), _mask(test)
    mean = np.where(known, train_x, 0).sum(0) / np.maximum(known.sum(0), 1)
    squares, scored = _flat(np.square(test_x - mean)), _flat(scored)
    return float((np.where(scored, squares, 0).sum(1) / np.maximum(scored.sum(1), 1)).mean())


def fitted_components(subject: Subject, prefix: str = "") -> Components:
    """Principal components of the training rows, fitted once for all runs on them; `prefix` is a key of `whole_rows`.

    Raises:
      ValueError: they are too large to compute.
    """
    return subject.once(("components", prefix), lambda: components(whole_rows(subject.train)[prefix]))


def study(subject: Subject, findings: Findings) -> None:
    """Add `baseline/mean/...` and `baseline/pca/...`, at the latent size of a model that reconstructs."""
    if not subject.recipe.baselines or not subject.reconstructs:
        return
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
        findings.add(subject.once("mean error", lambda: _scores_of_mean(subject, fitted)))
        if latent_dim is None:
            raise ValueError("the model does not say the size of its codes (latent_dim)")
        findings.add(subject.once(key, lambda: _scores_of_components(subject, fitted, latent_dim)))
    except ValueError as error:
        findings.refuse(str(error), *(name for name in names if name not in findings.metrics))


def _scores_of_mean(subject: Subject, fitted: Components) -> dict[str, float]:
    test_x = np.asarray(subject.test.x)
    scores = {"baseline/mean/reconstruction_mse": mean_error(fitted, test_x)}
    if not subject.binary:
        scores["baseline/mean/reconstruction_mse_raw"] = mean_error(fitted, test_x, subject.scale)
    return scores


def _scores_of_components(subject: Subject, fitted: Components, latent_dim: int) -> dict[str, float]:
    recipe, train, test = subject.recipe, subject.train, subject.test
    test_x = np.asarray(test.x)
    test_codes = fitted.encode(test_x, latent_dim)
    scores = {"baseline/pca/reconstruction_mse": reconstruction_error(fitted, test_x, test_codes)}
    if not subject.binary:
        error = reconstruction_error(fitted, test_x, test_codes, subject.scale)
        scores["baseline/pca/reconstruction_mse_raw"] = error
    if not recipe.probes or train.label is None or len(np.unique(np.asarray(train.label))) < 2:
        return scores
    train_codes = fitted.encode(np.asarray(train.x), latent_dim)
    labels = np.asarray(train.label), np.asarray(test.label)
    accuracies = probes(train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations)
    return scores | {f"baseline/pca/{name}": value for name, value in accuracies.items()}


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).reshape(len(x), -1)


def _mask(part: Examples) -> np.ndarray:
    """True where an element is valid and observed, of the shape of x."""
    return np.broadcast_to(True if part.mask is None else np.asarray(part.mask), np.shape(part.x))


def _of_elements(scale: Any, x: np.ndarray) -> np.ndarray:
    """A scale () or of the last axes of rows [N, ...] for every element, [D]."""
    return np.broadcast_to(np.asarray(scale, np.float64), x.shape[1:]).reshape(-1)
