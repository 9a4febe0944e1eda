"""Codes of a data set: how many dimensions are in use, and how well classes can be read from them."""

import numpy as np

from research.evaluation.probes import probes
from research.evaluation.subject import Findings, Subject
from research.models.abilities import HasPosterior, able


def active_units(codes: np.ndarray, threshold: float) -> int:
    """Number of latent dimensions with Var_x(E[z | x]) above the threshold (Burda et al. 2016: .01)."""
    return int((codes.astype(np.float64).var(0) > threshold).sum())


def study(subject: Subject, findings: Findings) -> None:
    """Add active units and accuracies of probes of models that reconstruct, and codes for TensorBoard's projector."""
    if not subject.reconstructs:
        return
    _count_active(subject, findings)
    _probe(subject, findings)
    if subject.recipe.projector:
        findings.codes = subject.codes("test")
        findings.labels = None if subject.test.label is None else np.asarray(subject.test.label)


def _count_active(subject: Subject, findings: Findings) -> None:
    if not subject.recipe.active_units or not able(subject.model, HasPosterior):
        return
    codes = subject.codes("test")
    if np.isfinite(codes).all():
        findings.add({"test/active_units": active_units(codes, subject.recipe.active_threshold)})
    else:
        findings.refuse("some codes are not finite", "test/active_units")


def _probe(subject: Subject, findings: Findings) -> None:
    recipe, train, test = subject.recipe, subject.train, subject.test
    # data with anomalies have only normal rows to learn from
    if not recipe.probes or subject.facts.classes < 2 or train.label is None or subject.facts.anomaly:
        return
    names = ("test/knn_accuracy", "test/probe_accuracy")
    train_codes, test_codes = subject.codes("train"), subject.codes("test")
    if not np.isfinite(test_codes).all() or not np.isfinite(train_codes).all():
        findings.refuse("some codes are not finite", *names)
        return
    train_label, test_label = np.asarray(train.label), np.asarray(test.label)
    if len(np.unique(train_label)) < 2:
        findings.refuse("one class only in the training rows", *names)
        return
    accuracies = probes(train_codes, train_label, test_codes, test_label, recipe.neighbors, recipe.probe_iterations)
    findings.add(accuracies, "test/")
