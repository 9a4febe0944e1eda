"""Training of one model from Python code, without a sweep and without files."""

from typing import Any

import jax
import numpy as np

from research.compiling import Program
from research.data.examples import Examples, Split
from research.engine import Trainer, chunk, initialize, initializing
from research.inputs import Budget, Data, JobInputs, Model
from research.optimizer import Optimizer, Players


def fit(
    model: Model, optimizer: Optimizer | Players, examples: Examples, *, steps: int, batch_size: int, seed: int
) -> Any:
    """The last parameters of a model that is trained on all of these rows.

    Args:
      model: bound to its data.
      optimizer: its schedules end with the last whole epoch.
      examples: as the model sees them; no scaling is applied.
      steps: the training ends with the first whole epoch that reaches so many steps.
      batch_size: at most the number of rows is used.
      seed: of the fresh parameters and of the order of the rows.
    """
    size = min(batch_size, len(examples))
    per_epoch = len(examples) // size
    trainer = Trainer(
        epochs=-(-steps // per_epoch),
        batch_size=size,
        evaluate_every=1,
        patience=None,
        target_loss=None,
        monitor="validation/loss",
        keep="last",
        warm_start=None,
        evaluation_batch=1,
        compute_dtype="float32",
        accumulate=1,
        ema=None,
    )
    rows, first, weight = np.arange(len(examples), dtype=np.int32), np.zeros(1, np.int32), np.ones(1, np.float32)
    shift, scale = np.zeros((), np.float32), np.ones((), np.float32)
    job = JobInputs(np.uint32(seed), Split(rows, first, weight, first, weight, shift, scale))
    data, budget = Data(examples, examples), Budget.of(trainer, per_epoch)
    with initializing:
        state = jax.block_until_ready(initialize(model, optimizer, job, data, budget))
    return _chunk(model, optimizer, state, job, data, budget.epochs, budget)[0].params


_chunk = Program(chunk)
