"""What predicts classes or values without a recurrent network."""

from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.subject import Findings, Subject
from research.evaluation.unequal import whole_rows
from research.models.abilities import Predicts, able

SMALLEST = 1e-6  # of a class frequency
LOGISTIC = 20_000_000  # most numbers of the training rows that a logistic regression is fitted to


def study(subject: Subject, findings: Findings) -> None:
    """`baseline/...` rows beside a model that predicts."""
    model, recipe = subject.model, subject.recipe
    if not recipe.baselines or not able(subject.model, Predicts):
        return
    if model.of_label:
        found = subject.once(("labels", recipe.probe_iterations), lambda: _labels(subject))
    elif model.target_classes:
        found = subject.once("classes by step", lambda: _classes_by_step(subject))
    else:
        found = subject.once(("constant", model.objective == "cross_entropy"), lambda: _constant(subject))
    findings.add(found)


def _labels(subject: Subject) -> dict[str, float]:
    """The most frequent class, and a logistic regression on the raw values (`unequal.whole_rows`)."""
    from sklearn.linear_model import LogisticRegression

    train, test = subject.train, subject.test
    label, truth = np.asarray(train.label), np.asarray(test.label)
    found = {
        "baseline/majority/accuracy": float((truth == np.bincount(label).argmax()).mean()),
        "baseline/majority/cross_entropy": _cross_entropy(
            np.bincount(label, minlength=subject.facts.classes)[None], truth[:, None]
        ),
    }
    if np.size(train.x) <= LOGISTIC and len(np.unique(label)) > 1:
        test_rows = whole_rows(test)
        for prefix, x in whole_rows(train).items():
            mean, deviation = x.mean(0), x.std(0)
            deviation = np.where(deviation > 0, deviation, 1)
            probe = LogisticRegression(max_iter=subject.recipe.probe_iterations)
            probe.fit((x - mean) / deviation, label)
            accuracy = probe.score((test_rows[prefix] - mean) / deviation, truth)
            found[f"baseline/{prefix}logistic/accuracy"] = float(accuracy)
    return found


def _classes_by_step(subject: Subject) -> dict[str, float]:
    """The frequencies of the classes at each step of time: all that is known without memory."""
    train, test = (np.asarray(part.target) for part in (subject.train, subject.test))
    classes = subject.facts.target_classes
    inside = [_inside(part) for part in (subject.train, subject.test)]
    steps = zip(train.T, inside[0].T, strict=True)
    counts = np.stack([np.bincount(step[here], minlength=classes) for step, here in steps])
    right = test == counts.argmax(-1)[None]
    return {
        "baseline/memoryless/accuracy": _mean_of_rows(right, inside[1]),
        "baseline/memoryless/cross_entropy": _cross_entropy(counts, test, inside[1]),
    }


def _constant(subject: Subject) -> dict[str, float]:
    """The training mean (median, for the absolute error) of every value, at all times the same."""
    model: Any = subject.model
    train, test = (np.asarray(part.target, np.float64) for part in (subject.train, subject.test))
    there = [_there(part) for part in (subject.train, subject.test)]
    values = [train[..., at][there[0][..., at]] for at in range(train.shape[-1])]
    mean = np.array([own.mean() if len(own) else 0.0 for own in values])
    if model.objective == "cross_entropy":
        level = np.clip(mean, SMALLEST, 1 - SMALLEST)
        nats = -(test * np.log(level) + (1 - test) * np.log(1 - level))
        steps = _inside(subject.test).sum(1) if test.ndim == 3 else 1
        each = np.where(there[1], nats, 0).reshape(len(test), -1).sum(1) / steps
        return {"baseline/constant/cross_entropy": float(each.mean())}
    median = np.array([np.median(own) if len(own) else 0.0 for own in values])
    return {
        "baseline/constant/mse": _mean_of_rows(np.square(test - mean), there[1]),
        "baseline/constant/mae": _mean_of_rows(np.abs(test - median), there[1]),
    }


def _there(part: Examples) -> np.ndarray:
    """True where a value of the target is valid and observed, of the shape of the target."""
    target = np.asarray(part.target)
    there = np.ones(target.shape, bool)
    if target.ndim == 3:
        there &= _inside(part)[..., None]
    return there if part.target_observed is None else there & np.asarray(part.target_observed)


def _mean_of_rows(values: np.ndarray, there: np.ndarray) -> float:
    """Mean over rows of the mean over what is there of a row, as models compute it; both [N, ...]."""
    values, there = (array.reshape(len(array), -1) for array in (values, there))
    return float((np.where(there, values, 0).sum(1) / np.maximum(there.sum(1), 1)).mean())


def _inside(part: Examples) -> np.ndarray:
    """True for valid steps, [N, T]."""
    steps = part.x.shape[1]
    if part.length is None:
        return np.ones((len(part), steps), bool)
    return np.arange(steps)[None] < np.asarray(part.length)[:, None]


def _cross_entropy(counts: np.ndarray, truth: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Mean of -log of the frequency of the true class; counts [T, K], truth [N, T]."""
    # no training row may reach the last steps
    frequency = np.maximum(counts / np.maximum(counts.sum(-1, keepdims=True), 1), SMALLEST)
    nats = -np.log(frequency[np.arange(len(counts))[None], truth])
    return _mean_of_rows(nats, np.ones(nats.shape, bool) if inside is None else inside)
