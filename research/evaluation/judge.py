"""Networks that are trained to judge what a model generates, and the draws that they judge."""

from typing import Any, NamedTuple

import jax
import numpy as np

from research import fit as training
from research.data.examples import Examples
from research.evaluation.subject import BATCH, Subject
from research.models.abilities import is_conditional
from research.optimizer import Optimizer
from research.runs import batches

ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}


class Judge(NamedTuple):
    """Size and training of a network that judges.

    Attributes:
      units: of its hidden layer.
      steps: of Adam.
      rate: the learning rate.
      batch: rows of a batch.
    """

    units: int
    steps: int
    rate: float
    batch: int


def fit(model: Any, examples: Examples, judge: Judge, seed: int) -> Any:
    """Train a model on all of these rows by Adam and return its last parameters.

    Args:
      model: as the engine trains it, bound to its data.
      examples: the rows.
      judge: how long, how fast and in which batches.
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
    """Draws from the model, [number, ...]; a conditional model gets labels as they occur in the training rows.

    Raises:
      ValueError: some samples are not finite.
    """
    key, random = jax.random.fold_in(subject.key, 5), np.random.default_rng(subject.seed)
    parts = []
    for batch_key in jax.random.split(key, -(-number // BATCH)):
        label = labels(subject, BATCH, random)
        parts.append(np.asarray(batches.sample(subject.model, subject.params, batch_key, BATCH, label)))
    drawn = np.concatenate(parts)[:number]
    if not np.isfinite(drawn).all():
        raise ValueError("some samples are not finite")
    return drawn


def labels(subject: Subject, number: int, random: np.random.Generator) -> np.ndarray | None:
    """Labels [number] as they occur in the training rows for a conditional model; None for any other."""
    if not is_conditional(subject.model):
        return None
    return random.choice(np.asarray(subject.train.label), number)


def subset(rows: Any, most: int, seed: int) -> np.ndarray:
    """At most so many of the rows, dense or lazy, drawn without replacement, in their order."""
    if len(rows) <= most:
        return rows[:]
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])]
