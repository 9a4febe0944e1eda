"""What needs no training: the mean, and principal components at the same latent size."""

import dataclasses
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.codes import probes
from research.evaluation.subject import Findings, Subject
from research.evaluation.unequal import whole_rows

LARGEST = 4096  # features or rows, whichever are fewer: the decomposition takes their cube


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of training rows: mean [D] and directions [D, R], the largest variance first, float64."""

    mean: np.ndarray
    directions: np.ndarray

    def encode(self, x: np.ndarray, latent_dim: int) -> np.ndarray:
        """Scores on the first directions, [N, L]."""
        return (_flat(x) - self.mean) @ self.directions[:, :latent_dim]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The rows [N, D] that codes [N, L] stand for."""
        return codes @ self.directions[:, : codes.shape[1]].T + self.mean


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).reshape(len(x), -1)


def components(x: np.ndarray) -> Components:
    """Fit all principal components by the eigenvectors of the covariance (of the Gram matrix where rows are fewer).

    Args:
      x: training rows, [N, ...].

    Raises:
      ValueError: more than 4,096 of both rows and features.
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
    """Mean squared error per element of rows [N, ...] against the training mean, in units of 1 / scale."""
    return float(np.square((_flat(x) - fitted.mean) / _of_elements(scale, x)).mean())


def reconstruction_error(fitted: Components, x: np.ndarray, codes: np.ndarray, scale: Any = 1.0) -> float:
    """Mean squared error per element of rows [N, ...] against what codes [N, L] stand for, in units of 1 / scale."""
    return float(np.square((_flat(x) - fitted.decode(codes)) / _of_elements(scale, x)).mean())


def _of_elements(scale: Any, x: np.ndarray) -> np.ndarray:
    """A scale () or of the last axes of rows [N, ...] for every element, [D]."""
    return np.broadcast_to(np.asarray(scale, np.float64), x.shape[1:]).reshape(-1)


def study(subject: Subject, findings: Findings) -> None:
    """`baseline/mean/...` and `baseline/pca/...` at the latent size of a model that reconstructs."""
    if not subject.recipe.baselines or not subject.reconstructs:
        return
    names = ("baseline/mean/reconstruction_mse", "baseline/pca/reconstruction_mse")
    if subject.train.observed is not None or subject.train.length is not None:
        error = subject.once("masked mean", lambda: masked_mean_error(subject.train, subject.test))
        findings.add({names[0]: error})
        findings.refuse("rows are padded or have missing values", names[1])
        return
    recipe, latent_dim = subject.recipe, subject.model.latent_dim
    wanted = ("pca", latent_dim, recipe.probes, recipe.neighbors, recipe.probe_iterations)
    try:
        findings.add(subject.once(wanted, lambda: _scores(subject, latent_dim)))
    except ValueError as error:
        findings.refuse(str(error), *names)


def fitted_components(subject: Subject, prefix: str = "") -> Components:
    """Principal components of the training rows, made whole as `unequal.whole_rows` names it.

    Raises:
      ValueError: they are too large to compute.
    """
    return subject.once(("components", prefix), lambda: components(whole_rows(subject.train)[prefix]))


def masked_mean_error(train: Examples, test: Examples) -> float:
    """Error of the training mean of every element on test rows, over what is valid and observed: mean over rows of the
    mean over elements, as models compute it. An element that no training row has is predicted as 0."""
    x, there = (
        np.asarray(train.x, np.float64),
        np.broadcast_to(True if train.mask is None else train.mask, train.x.shape),
    )
    mean = np.where(there, x, 0).sum(0) / np.maximum(there.sum(0), 1)
    own = np.broadcast_to(True if test.mask is None else test.mask, test.x.shape).reshape(len(test), -1)
    squares = np.square(np.asarray(test.x, np.float64) - mean).reshape(len(test), -1)
    return float((np.where(own, squares, 0).sum(1) / np.maximum(own.sum(1), 1)).mean())


def _scores(subject: Subject, latent_dim: int) -> dict[str, float]:
    recipe, train, test = subject.recipe, subject.train, subject.test
    fitted, test_x = fitted_components(subject), np.asarray(test.x)
    if latent_dim > fitted.directions.shape[1]:
        raise ValueError(f"the data has only {fitted.directions.shape[1]} principal components, fewer than latents")
    test_codes = fitted.encode(test_x, latent_dim)
    scores = {
        "baseline/mean/reconstruction_mse": mean_error(fitted, test_x),
        "baseline/pca/reconstruction_mse": reconstruction_error(fitted, test_x, test_codes),
    }
    if not subject.binary:
        scores |= {
            "baseline/mean/reconstruction_mse_raw": mean_error(fitted, test_x, subject.scale),
            "baseline/pca/reconstruction_mse_raw": reconstruction_error(fitted, test_x, test_codes, subject.scale),
        }
    if not recipe.probes or train.label is None or len(np.unique(np.asarray(train.label))) < 2:
        return scores
    train_codes = fitted.encode(np.asarray(train.x), latent_dim)
    labels = np.asarray(train.label), np.asarray(test.label)
    found = probes(train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations)
    return scores | {f"baseline/pca/{name}": value for name, value in found.items()}
