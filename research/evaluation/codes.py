"""Codes of a data set, and what can be read from them."""

import numpy as np

from research.evaluation.subject import Findings, Subject
from research.models.abilities import HasPosterior, able

SMALL = 10_000  # training rows below which probes run in one thread


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


def study(subject: Subject, findings: Findings) -> None:
    """Active units and probes of models that reconstruct, and codes for the projector."""
    recipe = subject.recipe
    if not subject.reconstructs:
        return
    _read(subject, findings)
    if recipe.projector:
        test = subject.test
        findings.codes = subject.codes("test")
        findings.labels = None if test.label is None else np.asarray(test.label)


def _read(subject: Subject, findings: Findings) -> None:
    recipe, train, test = subject.recipe, subject.train, subject.test
    if recipe.active_units and able(subject.model, HasPosterior):
        if np.isfinite(subject.codes("test")).all():
            findings.add({"test/active_units": active_units(subject.codes("test"), recipe.active_threshold)})
        else:
            findings.refuse("some codes are not finite", "test/active_units")
    # of data with anomalies only normal rows are there to be learned from
    if not recipe.probes or subject.facts.classes < 2 or train.label is None or subject.facts.anomaly:
        return
    names = ("test/knn_accuracy", "test/probe_accuracy")
    train_codes, test_codes = subject.codes("train"), subject.codes("test")
    if not np.isfinite(test_codes).all() or not np.isfinite(train_codes).all():
        findings.refuse("some codes are not finite", *names)
        return
    labels = np.asarray(train.label), np.asarray(test.label)
    if len(np.unique(labels[0])) < 2:
        findings.refuse("one class only in the training rows", *names)
        return
    found = probes(train_codes, labels[0], test_codes, labels[1], recipe.neighbors, recipe.probe_iterations)
    findings.add(found, "test/")
