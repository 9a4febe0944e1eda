"""Training of ONE job: `initialize`, then `chunk` after `chunk` of epochs, each followed by an evaluation.

The training step is `train_step`: the only gradient that trains a model. `train_epoch` holds the only scan over steps.
Nothing here knows of sweeps, folders or families of models. All randomness is a pure function of (seed, purpose, epoch,
step): the state holds no key.
"""

import dataclasses
import math
import threading
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from research.clock import Clock
from research.compiling import compiled
from research.data.examples import Examples, Facts
from research.errors import nearest
from research.inputs import DRAW, INIT, LOSS, ORDER, Budget, Data, JobInputs, Model, purpose_key
from research.metrics import base, direction, higher_is_better, nearest_metric
from research.optimizer import Optimizer, Players
from research.precision import with_bfloat16_products
from research.ranges import INT32, Count, Finite, OpenShare
from research.scores import evaluate
from research.tree import ConfigError, added, recipe

NEVER = -1  # a step or an epoch that did not happen

# Initialise one model at a time: on a CPU, two programs that make orthogonal matrices with LAPACK can wait for each
# other for ever.
initializing = threading.Lock()


@recipe
class Trainer:
    """The budget of a training, the arithmetic of its steps, and which parameters are kept.

    Other values of `epochs`, `evaluate_every`, `patience` and `target_loss` need no other program (see `Budget`). All
    other settings but `warm_start` are compiled.

    A step is always an optimizer step: the clock, ramps, schedules of the learning rate and players count such steps.

    Attributes:
      epochs: the largest number of passes over the training rows.
      batch_size: B. Rows that do not fill a last batch are skipped; which ones changes from epoch to epoch.
      evaluate_every: epochs between evaluations on the validation rows.
      patience: a run stops at an evaluation if the monitored metric has not improved for so many epochs; null: never.
      target_loss: a run stops at an evaluation if the mean training loss of the epoch is below this; null: never.
      monitor: the metric that `keep=best` and `patience` compare.
      keep: "best" keeps the parameters of the best evaluation, "last" those of the last.
      warm_start: folder of a finished run whose parameters are the starting point; null: fresh parameters.
      evaluation_batch: rows in a step of an evaluation; results do not depend on it.
      compute_dtype: "bfloat16" rounds both inputs of every matrix product of a training step to bfloat16, forwards and
        backwards; the products add up in float32. Parameters, optimizer state, losses and all other operations stay
        float32, and so do evaluations. There is no scaling of the loss: bfloat16 has the range of float32.
      accumulate: k batches make one step: its loss, metrics and gradient are means over them. The step sees the rows of
        one batch of k * batch_size. A term that is no mean over rows (a penalty, free bits, a capacity, the average of
        a codebook) sees `batch_size` of them.
      ema: decay d of an exponential moving average of the parameters, which is evaluated and kept in their place; null:
        no average. After step t it is sum_i d^(t - i) theta_i / sum_i d^(t - i) over the steps i = 1 ... t (the average
        of Kingma & Ba 2015, section 3, with its correction of the bias), so it holds nothing of the first parameters.
    """

    epochs: Count
    batch_size: Count
    evaluate_every: Count
    patience: Count | None
    target_loss: Finite | None
    monitor: str
    keep: Literal["best", "last"]
    warm_start: str | None
    evaluation_batch: Count
    compute_dtype: Literal["float32", "bfloat16"] = added(before="float32")
    accumulate: Count = added(before=1)
    ema: OpenShare | None = added(before=None)

    def validate(self) -> None:
        if not self.monitor.startswith("validation/"):
            name = f"validation/{base(self.monitor)}"
            near = name if direction(base(self.monitor)) else nearest_metric(name)
            raise ConfigError("monitor", self.monitor, f"must be a validation metric; set {{key}}={near}")

    def check(self, facts: Facts) -> None:
        """Refuse a budget that the data cannot fill, or whose steps a program cannot count."""
        if self.batch_size > facts.train_size:
            remedy = f"larger than the training split ({facts.train_size} rows); make it smaller"
            raise ConfigError("batch_size", self.batch_size, remedy)
        if self.accumulate * self.batch_size > facts.train_size:
            problem = f"so many batches of {self.batch_size} rows are more than the training split"
            remedy = f"{problem} ({facts.train_size} rows); set {{key}}={facts.train_size // self.batch_size}"
            raise ConfigError("accumulate", self.accumulate, remedy)
        steps = self.epochs * self.steps_per_epoch(facts)
        if steps > INT32:
            remedy = f"of {self.steps_per_epoch(facts)} steps each are {steps}; a program counts to {INT32}"
            raise ConfigError("epochs", self.epochs, remedy)

    def steps_per_epoch(self, facts: Facts) -> int:
        """floor(N / (k B)), N the size of the smallest training split over the folds."""
        return facts.train_size // (self.accumulate * self.batch_size)


# ------------------------------------------------------------------------------------------------------------- training


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The arrays of a training under way. It holds no key and no function.

    Attributes:
      step: optimizer steps done.
      params, optimizer_state: after these steps.
      best_params: the parameters at the best evaluation (None for keep=last).
      best: the monitored metric at the best evaluation; +-inf before the first evaluation.
      best_epoch: the epoch of the best evaluation, or NEVER.
      first_bad_step: the first step whose loss, gradient or update was not finite, or NEVER.
      stopped_epoch: the epoch at which patience or target loss stopped the run, or NEVER.
      average: the moving average of the parameters (None without `ema`).
    """

    step: jax.Array
    params: Any
    optimizer_state: Any
    best_params: Any
    best: jax.Array
    best_epoch: jax.Array
    first_bad_step: jax.Array
    stopped_epoch: jax.Array
    average: Any = None


@compiled()
def initialize(
    model: Model, optimizer: Optimizer | Players, job: JobInputs, data: Data, budget: Budget, params: Any = None
) -> State:
    """The state before the first step, with fresh parameters unless `params` are given."""
    if params is None:
        train = job.split.prepare(data.train.take(job.split.train))
        params = model.init(purpose_key(job.seed, INIT), train)
    worst = -jnp.inf if higher_is_better(budget.monitor) else jnp.inf
    never = jnp.full((), NEVER, jnp.int32)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=optimizer.build(budget.epochs, budget.steps_per_epoch).init(params),
        best_params=params if budget.keep == "best" else None,
        best=jnp.full((), worst, jnp.float32),
        best_epoch=never,
        first_bad_step=never,
        stopped_epoch=never,
        average=None if budget.ema is None else params,
    )


def train_step(
    model: Model,
    transformation: optax.GradientTransformation,
    state: State,
    batch: Examples,
    key: Key[Array, ""],
    clock: Clock,
    budget: Budget,
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """One optimizer step. The state remembers the first step that was not finite."""
    (loss, metrics), gradient = loss_and_gradient(model, state.params, batch, key, clock, budget)
    updates, optimizer_state = transformation.update(gradient, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    bad = ~(jnp.isfinite(loss) & all_finite(gradient, updates))
    first_bad_step = jnp.where((state.first_bad_step == NEVER) & bad, state.step, state.first_bad_step)
    step, average = state.step + 1, state.average
    if budget.ema is not None:
        average = moved_average(average, params, step, budget.ema)
    state = dataclasses.replace(
        state,
        step=step,
        params=params,
        optimizer_state=optimizer_state,
        first_bad_step=first_bad_step,
        average=average,
    )
    return state, {"loss": loss, **metrics}


def loss_and_gradient(
    model: Model, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock, budget: Budget
) -> tuple[tuple[Float[Array, ""], dict[str, Float[Array, ""]]], Any]:
    """((loss, metrics), gradient) of a step: the means over its `budget.accumulate` batches."""
    of_batch = jax.value_and_grad(model.loss, has_aux=True)
    if budget.compute_dtype == "bfloat16":
        of_batch = with_bfloat16_products(of_batch)
    if budget.accumulate == 1:
        return of_batch(params, batch, key, clock)

    def add(total: Any, part: tuple[Examples, Key[Array, ""]]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_batch(params, *part, clock)), None

    parts = batches_of(batch, key, budget.accumulate)
    shapes = jax.eval_shape(lambda: of_batch(params, *jax.tree.map(lambda leaf: leaf[0], parts), clock))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda value: value / budget.accumulate, total)


def batches_of(batch: Examples, key: Key[Array, ""], number: int) -> tuple[Examples, Key[Array, " number"]]:
    """The rows of a step as `number` batches, stacked, each with a key of its own."""
    stacked = jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), batch)
    return stacked, jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(number))


def moved_average(average: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """The average after step t: a + (1 - d) / (1 - d^t) (theta_t - a), a the average before (see `Trainer`)."""
    share = (1 - decay) / -jnp.expm1(step.astype(jnp.float32) * math.log(decay))
    return optax.incremental_update(params, average, share)


def all_finite(first: Any, second: Any) -> Bool[Array, ""]:
    """Whether every element of two trees of the same shapes is finite; one sum for each pair of arrays."""
    finite = lambda one, other: (jnp.isfinite(one) & jnp.isfinite(other)).all()
    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(finite, first, second))))


class Epoch(NamedTuple):
    """The rows of every step of an epoch, and the keys of its draws: a function of (seed, epoch) alone.

    Attributes:
      batches: B rows, or the rows of all batches that a step accumulates.
    """

    batches: Int[Array, "steps B"]
    loss_key: Key[Array, ""]
    draw_key: Key[Array, ""]


def begin_epoch(epoch: Int[Array, ""], job: JobInputs, budget: Budget) -> Epoch:
    """Shuffle the training rows and cut them into batches."""
    rows, steps, size = job.split.train, budget.steps_per_epoch, budget.step_rows
    order = jax.random.permutation(jax.random.fold_in(purpose_key(job.seed, ORDER), epoch), rows.shape[0])
    return Epoch(
        batches=rows[order[: steps * size]].reshape(steps, size),
        loss_key=jax.random.fold_in(purpose_key(job.seed, LOSS), epoch),
        draw_key=jax.random.fold_in(purpose_key(job.seed, DRAW), epoch),
    )


def step_inputs(
    epoch: Epoch,
    index: Int[Array, ""],
    done: Int[Array, ""],
    job: JobInputs,
    data: Data,
    budget: Budget,
    position: Int[Array, ""] | None = None,
) -> tuple[Examples, Key[Array, ""], Clock]:
    """Batch, key and clock of step `index` of an epoch, after `done` steps in all.

    `position` is the number of the step in `epoch.batches`, where these do not begin with the first step of the epoch.
    """
    batch = job.split.prepare(data.train.take(epoch.batches[index if position is None else position]))
    if budget.draw is not None:
        batch = budget.draw.draw(batch, jax.random.fold_in(epoch.draw_key, index))
    steps, number = budget.steps_per_epoch, done.astype(jnp.float32)
    clock = Clock(
        step=done,
        epoch=number / steps,
        fraction=number * (1.0 / (steps * budget.epochs)),  # XLA also divides by a constant in this way
        train_size=jnp.asarray(job.split.train.shape[0], jnp.float32),
    )
    return batch, jax.random.fold_in(epoch.loss_key, index), clock


@jax.jit  # inside a program: it appears there twice, and is traced once
def train_epoch(
    model: Model, optimizer: Optimizer | Players, state: State, job: JobInputs, data: Data, budget: Budget
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """One pass over the training rows, and the means of the training metrics over its steps."""
    steps = budget.steps_per_epoch
    transformation = optimizer.build(budget.epochs, steps)
    epoch = begin_epoch(state.step // steps, job, budget)

    def step(state: State, index: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        batch, key, clock = step_inputs(epoch, index, state.step, job, data, budget)
        return train_step(model, transformation, state, batch, key, clock, budget)

    state, metrics = jax.lax.scan(step, state, jnp.arange(steps))
    return state, jax.tree.map(lambda values: values.mean(0), metrics)


def chunk(
    model: Model,
    optimizer: Optimizer | Players,
    state: State,
    job: JobInputs,
    data: Data,
    epochs: Int[Array, ""],
    budget: Budget,
    test: Bool[Array, ""] | bool = False,
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """`epochs` epochs, then an evaluation. Training metrics are those of the last epoch, and 0 if there was none.

    A run that patience or the target loss has stopped trains no more epochs. So results do not depend on how the
    epochs are cut into device calls.

    Args:
      test: whether the test rows are evaluated too. Their metrics decide nothing.
    """
    frozen = state.stopped_epoch != NEVER
    shapes = jax.eval_shape(lambda: train_epoch(model, optimizer, state, job, data, budget)[1])
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    new, training = jax.lax.fori_loop(
        0,
        jnp.where(frozen, 0, epochs),
        lambda _, carry: train_epoch(model, optimizer, carry[0], job, data, budget),
        (state, zeros),
    )
    metrics = {f"train/{name}": value for name, value in training.items()}
    metrics |= evaluate(model, current_params(new), job.seed, job.split, data, budget, test)
    if budget.monitor not in metrics:
        names = [name for name in sorted(metrics) if name.startswith("validation/")]
        remedy = f"this model gives {', '.join(names)}{nearest(budget.monitor, names)}"
        raise ConfigError("trainer.monitor", budget.monitor, remedy)
    return keep_and_stop(new, metrics, frozen, budget), metrics


def keep_and_stop(state: State, metrics: dict[str, Float[Array, ""]], frozen: Bool[Array, ""], budget: Budget) -> State:
    """The state after an evaluation: the best parameters so far, and whether the run stops.

    Args:
      frozen: the run has stopped before; then nothing changes.
    """
    monitored = metrics[budget.monitor].astype(jnp.float32)
    better = monitored > state.best if higher_is_better(budget.monitor) else monitored < state.best
    better &= (state.first_bad_step == NEVER) & ~frozen
    epoch = state.step // budget.steps_per_epoch
    best_params = state.best_params
    if budget.keep == "best":
        best_params = jax.tree.map(lambda now, best: jnp.where(better, now, best), current_params(state), best_params)
    best_epoch = jnp.where(better, epoch, state.best_epoch)
    stop = epoch - jnp.maximum(best_epoch, 0) >= budget.patience
    stop |= metrics["train/loss"] < budget.target_loss
    stopped_epoch = jnp.where(frozen, state.stopped_epoch, jnp.where(stop, epoch, NEVER)).astype(jnp.int32)
    best = jnp.where(better, monitored, state.best)
    return dataclasses.replace(
        state, best_params=best_params, best=best, best_epoch=best_epoch, stopped_epoch=stopped_epoch
    )


def current_params(state: State) -> Any:
    """The parameters that an evaluation sees: their moving average if there is one."""
    return state.params if state.average is None else state.average


def kept_params(state: State) -> Any:
    """The parameters that a run is judged by."""
    return current_params(state) if state.best_params is None else state.best_params
