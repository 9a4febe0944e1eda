"""Codes of a data set, and what can be read from them."""

from typing import Any

import numpy as np

from research.data.examples import Examples
from research.runs import batches

BATCH = 256
SMALL = 10_000  # training rows below which probes run in one thread


def encode(model: Any, params: Any, examples: Examples) -> np.ndarray:
    """Codes (posterior means) of all rows, [N, L]."""
    return batches.over(lambda batch, _: batches.call(model, params, batch, "encode"), examples, BATCH)


def active_units(codes: np.ndarray, threshold: float) -> int:
    """Number of latent dimensions with Var_x(E[z | x]) above the threshold (Burda et al. 2016: .01)."""
    return int((codes.astype(np.float64).var(0) > threshold).sum())


def probes(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    neighbors: int,
    iterations: int,
) -> dict[str, float]:
    """How well classes can be read from codes: fitted on training codes, scored on test codes.

    k-nearest neighbours take codes as they are (Euclidean); the logistic regression (L2, C = 1) takes codes
    standardised by the training codes.

    Returns:
      `knn_accuracy` and `probe_accuracy`, fractions of the test rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from threadpoolctl import threadpool_limits

    # on few rows several threads wait for each other, and for a program that trains meanwhile: 40 ms a run became 250
    with threadpool_limits(1 if len(train) < SMALL else None):
        nearest = KNeighborsClassifier(min(neighbors, len(train)))
        accuracy = {"knn_accuracy": float(nearest.fit(train, train_label).score(test, test_label))}
        mean, deviation = train.mean(0), train.std(0)
        deviation = np.where(deviation > 0, deviation, 1)
        probe = LogisticRegression(max_iter=iterations).fit((train - mean) / deviation, train_label)
        return accuracy | {"probe_accuracy": float(probe.score((test - mean) / deviation, test_label))}
