"""What can be read from codes: how many dimensions are in use, and how well classifiers tell the classes."""

import contextlib
from typing import Any

import numpy as np

from research.evaluation.subject import Findings, Subject

SMALL = 10_000  # below so many rows, scikit-learn runs in one thread


def threads(rows: int) -> contextlib.AbstractContextManager[Any]:
    """A context in which numerical libraries use one thread if rows are few.

    Several threads would wait for each other, and for a program that trains meanwhile, longer than they work: 40 ms of
    a run became 250.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if rows < SMALL else None)


def active_units(codes: np.ndarray, threshold: float) -> int:
    """Number of latent dimensions with Var_x(E[z | x]) above the threshold (Burda et al. 2016: .01)."""
    return int((codes.astype(np.float64).var(0) > threshold).sum())


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


def study_active_units(subject: Subject, findings: Findings) -> None:
    """Add the number of active units of a model with a posterior."""
    codes = subject.codes("test")
    if np.isfinite(codes).all():
        findings.add({"test/active_units": active_units(codes, subject.recipe.active_threshold)})
    else:
        findings.refuse("some codes are not finite", "test/active_units")


def has_classes(subject: Subject) -> bool:
    """Whether probes have classes to learn; data with anomalies have only normal rows to learn from."""
    return subject.facts.classes > 1 and subject.train.label is not None and not subject.facts.anomaly


def study_probes(subject: Subject, findings: Findings) -> None:
    """Add the accuracies of the probes."""
    recipe, names = subject.recipe, ("test/knn_accuracy", "test/probe_accuracy")
    train_codes, test_codes = subject.codes("train"), subject.codes("test")
    if not np.isfinite(test_codes).all() or not np.isfinite(train_codes).all():
        findings.refuse("some codes are not finite", *names)
        return
    train_label, test_label = np.asarray(subject.train.label), np.asarray(subject.test.label)
    if len(np.unique(train_label)) < 2:
        findings.refuse("one class only in the training rows", *names)
        return
    accuracies = probes(train_codes, train_label, test_codes, test_label, recipe.neighbors, recipe.probe_iterations)
    findings.add(accuracies, "test/")


def study_projector(subject: Subject, findings: Findings) -> None:
    """Keep the codes of the test rows for TensorBoard's projector."""
    findings.codes = subject.codes("test")
    findings.labels = None if subject.test.label is None else np.asarray(subject.test.label)
