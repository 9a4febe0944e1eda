"""What the training of one job is given: the model, the budget, the rows, and the keys of its random draws."""

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from research.clock import Clock
from research.data.examples import Draw, Examples, Facts, Split
from research.ranges import INT32, Count, StaticOpenShare
from research.tree import spec

INIT, ORDER, LOSS, DRAW, EVALUATE, FIGURES = range(6)  # purposes of random draws (`purpose_key`)


@runtime_checkable
class Model(Protocol):
    """What the engine asks of a model. A model satisfies it by having the methods; there is no base class.

    `research.models.abilities` lists what a model may have besides: codes, samples, checks of rows and optimizer.
    """

    def bind(self, facts: Facts) -> "Model":
        """The model for this data. Raises ConfigError if the data do not fit."""
        ...

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters."""
        ...

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The scalar to minimise, and scalars to log."""
        ...

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Metrics of every example [B], as at the end of every ramp. Each example draws with its own key of `keys`."""
        ...


@spec
class Budget:
    """The settings of an `engine.Trainer` that a program needs; `Budget.of` makes them.

    The first three fields are inputs of the program, so other values of them compile nothing. `evaluate_every` and
    `warm_start` are missing here: only the loop on the host reads them.

    Attributes:
      epochs: int32.
      patience: int32 epochs; the largest int32 means never.
      target_loss: float32; -inf means never.
      draw: makes every training batch anew; None: training rows are taken as they are.
    """

    epochs: Any
    patience: Any
    target_loss: Any
    batch_size: Count
    evaluation_batch: Count
    steps_per_epoch: Count
    keep: Literal["best", "last"]
    monitor: str
    compute_dtype: Literal["float32", "bfloat16"]
    accumulate: Count
    ema: StaticOpenShare | None
    draw: Draw | None

    @classmethod
    def of(cls, trainer: Any, steps_per_epoch: int, draw: Draw | None = None) -> "Budget":
        """The budget of an `engine.Trainer` on data that give so many steps an epoch."""
        return cls(
            epochs=np.int32(trainer.epochs),
            patience=np.int32(INT32 if trainer.patience is None else trainer.patience),
            target_loss=np.float32(-np.inf if trainer.target_loss is None else trainer.target_loss),
            batch_size=trainer.batch_size,
            evaluation_batch=trainer.evaluation_batch,
            steps_per_epoch=steps_per_epoch,
            keep=trainer.keep,
            monitor=trainer.monitor,
            compute_dtype=trainer.compute_dtype,
            accumulate=trainer.accumulate,
            ema=trainer.ema,
            draw=draw,
        )

    @property
    def step_rows(self) -> int:
        """Rows that a step sees: those of all batches that it accumulates."""
        return self.accumulate * self.batch_size


class JobInputs(NamedTuple):
    """The inputs of one job beside the numbers of its model and optimizer.

    Attributes:
      seed: uint32, of all random draws.
      split: its training, validation and test rows.
    """

    seed: Any
    split: Split


class Data(NamedTuple):
    """All rows of a data set on the device, shared by the jobs of a group.

    Attributes:
      train: the rows from which batches are taken.
      evaluation: the same rows for scores; with `Binarize` they are drawn once, and scaled already.
    """

    train: Examples
    evaluation: Examples


def purpose_key(seed: Any, purpose: int) -> Key[Array, ""]:
    """fold_in(key(seed), purpose), by threefry."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), purpose)
