"""k-means on codes, by scikit-learn."""

import contextlib
import warnings
from typing import Any

import numpy as np

from research.tree import ConfigError

SMALL = 10_000  # below so many rows, scikit-learn runs in one thread


def threads(rows: int) -> contextlib.AbstractContextManager[Any]:
    """A context in which numerical libraries use one thread if rows are few.

    Several threads would wait for each other, and for a program that trains meanwhile, longer than they work: 40 ms of
    a run became 250.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if rows < SMALL else None)


def kmeans(codes: np.ndarray, clusters: int, starts: int, seed: int) -> np.ndarray:
    """Assignments [N], 0 to K - 1, of a k-means (k-means++, Lloyd) on codes [N, L].

    If there are fewer distinct codes than clusters, some clusters stay empty.

    Args:
      codes: [N, L].
      clusters: K.
      starts: the best of so many starts is kept.
      seed: of the starts.

    Raises:
      ConfigError: there are fewer rows than clusters, or some codes are not finite.
    """
    return centres_of(codes, clusters, starts, seed)[1]


def centres_of(codes: np.ndarray, clusters: int, starts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K, L] of the k-means that `kmeans` describes, and its assignments [N]."""
    if not 1 <= clusters <= len(codes):
        raise ConfigError("clusters", clusters, f"expected 1 to {len(codes)} (the number of rows)")
    if not np.isfinite(codes).all():
        raise ConfigError("clusters", clusters, "some codes are not finite; leave the clusters out to see which")
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means: Any = KMeans
    with threads(len(codes)), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of too few distinct codes, which the assignments show
        fitted = means(clusters, n_init=starts, random_state=seed).fit(codes)
    return fitted.cluster_centers_, fitted.labels_


def nearest_centre(codes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The number of the nearest of centres [K, L] for every code [N, L], [N]."""
    squares = np.square(centres.astype(np.float64)).sum(-1)
    return np.argmin(squares - 2 * codes.astype(np.float64) @ centres.astype(np.float64).T, axis=1)
