"""What needs no training: the mean, and principal components at the same latent size."""

import dataclasses

import numpy as np

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


def mean_error(fitted: Components, x: np.ndarray) -> float:
    """Mean squared error per element of rows [N, ...] against the training mean."""
    return float(np.square(_flat(x) - fitted.mean).mean())


def reconstruction_error(fitted: Components, x: np.ndarray, codes: np.ndarray) -> float:
    """Mean squared error per element of rows [N, ...] against what their codes [N, L] stand for."""
    return float(np.square(_flat(x) - fitted.decode(codes)).mean())
