"""Networks that are trained to judge what a model generates, and the draws that they judge."""

from typing import Any, NamedTuple

import jax
import numpy as np

from research import fit as training
from research.data.examples import Examples
from research.evaluation.subject import Subject
from research.models.abilities import is_conditional
from research.optimizer import Optimizer
from research.runs import batches

BATCH = 256
ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}


class Judge(NamedTuple):
    """How a network after training is made: units, steps of Adam, rate, batch."""

    units: int
    steps: int
    rate: float
    batch: int


def fit(model: Any, examples: Examples, judge: Judge, seed: int) -> Any:
    """Parameters of a model trained on all of these rows for so many steps of Adam; the last ones are kept.

    Args:
      model: as the engine trains it, bound to its data.
      seed: of the fresh parameters and the order of the rows.
    """
    optimizer = Optimizer(
        name="adam",
        numbers={"learning_rate": judge.rate, **ADAM},
        options=(),
        schedule="constant",
        final_factor=0.0,
        warmup_epochs=0.0,
        stages=8,
        clip_norm=None,
        clip_value=None,
    )
    return training.fit(model, optimizer, examples, steps=judge.steps, batch_size=judge.batch, seed=seed)


def samples(subject: Subject, number: int) -> np.ndarray:
    """Draws from the model, [number, ...]; a conditional one gets labels as they occur in the training rows."""
    key, found = jax.random.fold_in(subject.key, 5), []
    random = np.random.default_rng(subject.seed)
    for own in jax.random.split(key, -(-number // BATCH)):
        label = labels(subject, BATCH, random)
        found.append(np.asarray(batches.sample(subject.model, subject.params, own, BATCH, label)))
    return np.concatenate(found)[:number]


def labels(subject: Subject, number: int, random: np.random.Generator) -> np.ndarray | None:
    """Labels [number] as they occur in the training rows, for a conditional model; None for others."""
    if not is_conditional(subject.model):
        return None
    return random.choice(np.asarray(subject.train.label), number)


def some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of the rows, drawn without replacement, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])]
