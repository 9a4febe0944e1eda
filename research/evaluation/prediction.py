"""Baselines of predictors: what predicts classes or values without a recurrent network."""

from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.baselines import mean_of_rows, whole_rows
from research.evaluation.codes import linear_probe
from research.evaluation.rows import whole
from research.evaluation.subject import Findings, Subject
from research.metrics import RAW

STEP = "step_cross_entropy"
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


def unequal_steps(subject: Subject) -> bool:
    """Whether the model predicts every step of rows of unequal length."""
    return subject.model.stepwise and subject.test.length is not None


def study_steps(subject: Subject, findings: Findings) -> None:
    """Add the mean cross-entropy of a step over all steps of a part, where rows differ in length.

    step_cross_entropy = sum_n T_n c_n / sum_n T_n for rows of T_n steps, in nats. `cross_entropy` is the mean of the
    c_n, in which every row counts the same. Published likelihoods of polyphonic music are the mean over all steps (Bai,
    Kolter & Koltun 2018, arXiv:1803.01271, `poly_music/music_test.py` of their code).
    """
    for part in ("validation", "test"):
        scores = subject.evaluate(subject.parts[part], subject.key)
        if "cross_entropy" in scores:
            length = np.asarray(subject.parts[part].length)
            findings.add(
                {STEP: float(np.average(scores["cross_entropy"].astype(np.float64), weights=length))}, f"{part}/"
            )


def _labels(subject: Subject) -> dict[str, float]:
    """Scores of the most frequent class, and of a logistic regression on raw values (`baselines.whole_rows`)."""
    train, test = subject.train, subject.test
    label, truth = np.asarray(train.label), np.asarray(test.label)
    counts = np.bincount(label, minlength=subject.facts.classes)
    scores = {
        "baseline/majority/accuracy": float((truth == counts.argmax()).mean()),
        "baseline/majority/cross_entropy": float(_nats(counts[None], truth[:, None]).mean()),
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
    right, nats = test == counts.argmax(-1)[None], _nats(counts, test)
    return {
        "baseline/memoryless/accuracy": mean_of_rows(right, test_valid),
        **_means(subject.test, np.where(test_valid, nats, 0), "baseline/memoryless/"),
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
        nats = np.where(test_known, -(test * np.log(level) + (1 - test) * np.log(1 - level)), 0).sum(-1)
        return _means(subject.test, nats, "baseline/constant/")
    median = np.array([np.median(column) if len(column) else 0.0 for column in values])
    scale = np.asarray(subject.target_scale, np.float64)
    scales: dict[str, Any] = {"": 1.0} | ({RAW: scale} if np.ptp(scale) else {})
    scores = {}
    for name, units in scales.items():
        scores[f"baseline/constant/mse{name}"] = mean_of_rows(np.square((test - mean) / units), test_known)
        scores[f"baseline/constant/mae{name}"] = mean_of_rows(np.abs((test - median) / units), test_known)
    return scores


def _means(part: Examples, nats: np.ndarray, prefix: str) -> dict[str, float]:
    """Means of nats of rows [N] or of their steps [N, T], 0 beyond the length: over rows, and over all steps."""
    if nats.ndim == 1:
        return {f"{prefix}cross_entropy": float(nats.mean())}
    steps = _valid(part).sum(1)
    scores = {f"{prefix}cross_entropy": float((nats.sum(1) / np.maximum(steps, 1)).mean())}
    return scores if part.length is None else scores | {f"{prefix}{STEP}": float(nats.sum() / steps.sum())}


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


def _nats(counts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """-log of the frequency of the true class; counts [T, K], truth [N, T], result [N, T].

    A frequency is at least 1e-6. It would otherwise be 0 / 0 at last steps that no training row reaches.
    """
    frequency = np.maximum(counts / np.maximum(counts.sum(-1, keepdims=True), 1), SMALLEST)
    return -np.log(frequency[np.arange(len(counts))[None], truth])
