"""Baselines of predictors: what predicts classes or values without a recurrent network."""

from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.baselines import mean_of_rows, whole_rows
from research.evaluation.codes import linear_probe
from research.evaluation.rows import whole
from research.evaluation.subject import Findings, Subject
from research.metrics import RAW

SMALLEST = 1e-6  # of a class frequency
LARGEST = 20_000_000  # most numbers of the training rows that a logistic regression is fitted to


def study(subject: Subject, findings: Findings) -> None:
    """Add the `baseline/...` rows that stand beside a model that predicts."""
    model, recipe = subject.model, subject.recipe
    if model.of_label:
        scores = subject.once(("labels", recipe.probe_iterations), lambda: _labels(subject))
    elif model.target_classes:
        scores = subject.once("classes by step", lambda: _classes_by_step(subject))
    else:
        scores = subject.once(("constant", model.objective == "cross_entropy"), lambda: _constant(subject))
    findings.add(scores)


def _labels(subject: Subject) -> dict[str, float]:
    """Scores of the most frequent class, and of a logistic regression on raw values (`baselines.whole_rows`)."""
    train, test = subject.train, subject.test
    label, truth = np.asarray(train.label), np.asarray(test.label)
    counts = np.bincount(label, minlength=subject.facts.classes)
    scores = {
        "baseline/majority/accuracy": float((truth == counts.argmax()).mean()),
        "baseline/majority/cross_entropy": _cross_entropy(counts[None], truth[:, None]),
    }
    if np.prod(train.x.shape) <= LARGEST and len(np.unique(label)) > 1:
        test_rows = whole_rows(test)
        for prefix, x in whole_rows(train).items():
            accuracy = linear_probe(x, label, test_rows[prefix], truth, subject.recipe.probe_iterations)
            scores[f"baseline/{prefix}logistic/accuracy"] = accuracy
    return scores


def _classes_by_step(subject: Subject) -> dict[str, float]:
    """Scores of the frequencies of the classes at each time step: all that is known without memory."""
    train, test = (whole(part.target) for part in (subject.train, subject.test))
    valid, test_valid = _valid(subject.train), _valid(subject.test)
    steps = zip(train.T, valid.T, strict=True)
    counts = np.stack([np.bincount(step[rows], minlength=subject.facts.target_classes) for step, rows in steps])
    right = test == counts.argmax(-1)[None]
    return {
        "baseline/memoryless/accuracy": mean_of_rows(right, test_valid),
        "baseline/memoryless/cross_entropy": _cross_entropy(counts, test, test_valid),
    }


def _constant(subject: Subject) -> dict[str, float]:
    """Errors of the training mean of every value at all time steps; of the median for the absolute error.

    Errors in the units of the data are computed here only where values differ in their scale (see `units`).
    """
    model: Any = subject.model
    train, test = (whole(part.target).astype(np.float64) for part in (subject.train, subject.test))
    known, test_known = _known(subject.train), _known(subject.test)
    values = [train[..., value][known[..., value]] for value in range(train.shape[-1])]
    mean = np.array([column.mean() if len(column) else 0.0 for column in values])
    if model.objective == "cross_entropy":
        level = np.clip(mean, SMALLEST, 1 - SMALLEST)
        nats = -(test * np.log(level) + (1 - test) * np.log(1 - level))
        steps = _valid(subject.test).sum(1) if test.ndim == 3 else 1
        of_rows = np.where(test_known, nats, 0).reshape(len(test), -1).sum(1) / steps
        return {"baseline/constant/cross_entropy": float(of_rows.mean())}
    median = np.array([np.median(column) if len(column) else 0.0 for column in values])
    scale = np.asarray(subject.target_scale, np.float64)
    scales: dict[str, Any] = {"": 1.0} | ({RAW: scale} if np.ptp(scale) else {})
    scores = {}
    for name, units in scales.items():
        scores[f"baseline/constant/mse{name}"] = mean_of_rows(np.square((test - mean) / units), test_known)
        scores[f"baseline/constant/mae{name}"] = mean_of_rows(np.abs((test - median) / units), test_known)
    return scores


def _known(part: Examples) -> np.ndarray:
    """True where a value of the target is valid and observed, of the shape of the target."""
    known = np.ones(part.target.shape, bool)
    if known.ndim == 3:
        known &= _valid(part)[..., None]
    return known if part.target_observed is None else known & whole(part.target_observed)


def _valid(part: Examples) -> np.ndarray:
    """True for valid time steps, [N, T]."""
    steps = part.x.shape[1]
    if part.length is None:
        return np.ones((len(part), steps), bool)
    return np.arange(steps)[None] < np.asarray(part.length)[:, None]


def _cross_entropy(counts: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean of -log of the frequency of the true class; counts [T, K], truth [N, T].

    A frequency is at least 1e-6. It would otherwise be 0 / 0 at last steps that no training row reaches.
    """
    frequency = np.maximum(counts / np.maximum(counts.sum(-1, keepdims=True), 1), SMALLEST)
    nats = -np.log(frequency[np.arange(len(counts))[None], truth])
    return mean_of_rows(nats, np.ones(nats.shape, bool) if valid is None else valid)
