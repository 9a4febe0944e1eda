"""k-means on codes."""

import contextlib
import warnings
from typing import Any

import numpy as np

from research.tree import ConfigError

SMALL = 10_000  # rows below which scikit-learn runs in one thread


def threads(rows: int) -> contextlib.AbstractContextManager[Any]:
    """Numerical libraries in one thread where rows are few: several would wait for each other longer than they work."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if rows < SMALL else None)


def kmeans(codes: np.ndarray, clusters: int, starts: int, seed: int) -> np.ndarray:
    """Assignments [N], 0 to K - 1, of a k-means (k-means++, Lloyd) on codes [N, L].

    Fewer distinct codes than clusters leave some clusters empty.

    Args:
      clusters: K.
      starts: the best of so many is kept.
      seed: of the starts.

    Raises:
      ConfigError: fewer rows than clusters, or codes that are not finite.
    """
    return centres_of(codes, clusters, starts, seed)[1]


def centres_of(codes: np.ndarray, clusters: int, starts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K, L] of the k-means of `kmeans`, and its assignments [N]."""
    if not 1 <= clusters <= len(codes):
        raise ConfigError("clusters", clusters, f"expected 1 to {len(codes)} (the number of rows)")
    if not np.isfinite(codes).all():
        raise ConfigError("clusters", clusters, "some codes are not finite; leave clusters out to see which")
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means: Any = KMeans
    with threads(len(codes)), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # too few distinct codes: the assignments show it
        fitted = means(clusters, n_init=starts, random_state=seed).fit(codes)
    return fitted.cluster_centers_, fitted.labels_


def nearest_centre(codes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The cluster of every code: the number of the nearest centre, [N], of codes [N, L] and centres [K, L]."""
    squares = np.square(centres.astype(np.float64)).sum(-1)
    return np.argmin(squares - 2 * codes.astype(np.float64) @ centres.astype(np.float64).T, axis=1)
