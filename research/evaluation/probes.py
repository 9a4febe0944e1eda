"""Classifiers of scikit-learn that say how well classes can be read from rows."""

import numpy as np

from research.runs.clusters import threads


def linear_probe(
    train: np.ndarray, train_label: np.ndarray, test: np.ndarray, test_label: np.ndarray, iterations: int
) -> float:
    """Accuracy on the test rows of a logistic regression that was fitted to the training rows.

    It is scikit-learn's `LogisticRegression` with its L2 penalty at C = 1. Each feature is standardised by its mean and
    standard deviation over the training rows; a constant feature becomes 0.

    Args:
      train, test: rows [N, D] and [M, D].
      train_label, test_label: their classes, [N] and [M].
      iterations: the most iterations of the optimizer.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations))
    return float(probe.fit(train, train_label).score(test, test_label))


def probes(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    neighbors: int,
    iterations: int,
) -> dict[str, float]:
    """Accuracies of two classifiers that are fitted to training codes and scored on test codes.

    Args:
      train, test: codes [N, L] and [M, L].
      train_label, test_label: their classes, [N] and [M].
      neighbors: k of the k nearest neighbours, which compare codes as they are (Euclidean distance).
      iterations: the most iterations of `linear_probe`.

    Returns:
      `knn_accuracy` and `probe_accuracy`, shares of the test rows.
    """
    from sklearn.neighbors import KNeighborsClassifier

    with threads(len(train)):
        nearest = KNeighborsClassifier(min(neighbors, len(train))).fit(train, train_label)
        return {
            "knn_accuracy": float(nearest.score(test, test_label)),
            "probe_accuracy": linear_probe(train, train_label, test, test_label, iterations),
        }
