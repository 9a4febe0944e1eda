"""The program of one job whose rows stay on disk: the device trains on a block of steps while the host reads the next.

Rows and draws of every step are those of `engine.train_epoch`, so the bits are those of rows in memory. A model that
takes parameters from training rows (a bias at their mean, pseudo-inputs, a codebook) gets at most `START_BYTES` of
them, the first in the random order of the split.
"""

import dataclasses
import functools
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from research import engine
from research.compiling import Program, compiled
from research.engine import NEVER, Epoch, State
from research.inputs import EVALUATE, Budget, Data, JobInputs, purpose_key
from research.scores import evaluate_batch, evaluation_batches
from research.sweep.blocks import IN_FLIGHT, batches_of_block
from research.sweep.plan import JobGroup
from research.sweep.program import FLAGS, Metrics, inputs, with_axis
from research.tree import unstack

START_BYTES = 2**28  # of training rows as float32, from which a model takes parameters

Part = Literal["validation", "test"]


# ------------------------------------------------------------------------------------------------------------- programs

begin_epoch = Program(engine.begin_epoch)


@compiled(donate_argnames="state")
def train_block(
    model: Any,
    optimizer: Any,
    state: State,
    member: JobInputs,
    block: Data,
    epoch: Epoch,
    first: Any,
    count: Any,
    budget: Budget,
) -> tuple[State, Metrics]:
    """`count` steps of an epoch, from step `first`, on a block that holds their rows batch after batch.

    Returns:
      The state, and the metrics of every step of the block, [steps]; 0 for steps beyond `count`.
    """
    transformation = optimizer.build(budget.epochs, budget.steps_per_epoch)
    epoch = epoch._replace(batches=jnp.arange(len(block.train)).reshape(-1, budget.step_rows))

    def step(position: jax.Array, state: State) -> tuple[State, Metrics]:
        batch, key, clock = engine.step_inputs(epoch, first + position, state.step, member, block, budget, position)
        return engine.train_step(model, transformation, state, batch, key, clock, budget)

    return _collected(step, state, count, len(epoch.batches))


@compiled()
def evaluate_block(
    model: Any,
    params: Any,
    member: JobInputs,
    block: Data,
    numbers: Any,
    weight: Any,
    count: Any,
    budget: Budget,
) -> Metrics:
    """Sums of the metrics over the first `count` batches of a block, [batches]; 0 for the others.

    Args:
      block: the rows batch after batch.
      numbers, weight: row numbers and weights, [batches, B], see `scores.evaluation_batches`.
    """
    key = purpose_key(member.seed, EVALUATE)
    places = jnp.arange(numbers.size).reshape(numbers.shape)

    def step(at: jax.Array, carry: None) -> tuple[None, Metrics]:
        rows = numbers[at], places[at], weight[at]
        return carry, evaluate_batch(model, params, key, *rows, member.split, block, budget)

    return _collected(step, None, count, len(numbers))[1]


def _collected(step: Any, carry: Any, count: Any, size: int) -> tuple[Any, Metrics]:
    """`count` calls of `step(number, carry)`; what each returned beside the carry is an entry of arrays [size]."""
    shapes = jax.eval_shape(lambda: step(jnp.int32(0), carry)[1])
    zeros = jax.tree.map(lambda shape: jnp.zeros((size, *shape.shape), shape.dtype), shapes)

    def body(number: jax.Array, both: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
        carry, values = step(number, both[0])
        return carry, jax.tree.map(lambda array, value: array.at[number].set(value), both[1], values)

    return jax.lax.fori_loop(0, count, body, (carry, zeros))


@compiled(donate_argnames="state")
def end_chunk(
    state: State, training: Metrics, sums: Metrics, weight: Any, frozen: Any, budget: Budget
) -> tuple[State, Metrics]:
    """What `engine.chunk` does after its epochs, from metrics of all steps and sums of all validation batches."""
    metrics = {f"train/{name}": values.mean(0) for name, values in training.items()}
    metrics |= means(sums, weight, "validation")
    state = engine.keep_and_stop(state, metrics, frozen, budget)
    # The flags are separate outputs, because the next chunk overwrites the memory of the state.
    return state, metrics | {f"state/{name}": getattr(state, name) for name in FLAGS}


@compiled(static_argnames="part")
def means(sums: Metrics, weight: Any, part: Part) -> Metrics:
    """Means over the rows of a part, from the sums of its batches."""
    return {f"{part}/{name}": value.sum() / weight.sum() for name, value in sums.items()}


# ------------------------------------------------------------------------------------------------------ one job's rows


class Stream:
    """One job whose rows the host reads in blocks; see `program.Alone`, whose methods it has.

    Attributes:
      data: the rows on the host, as a compiled program gets them.
      slots, widths: see `program.Alone`.
    """

    slots: Sequence[int] = (0,)

    def __init__(self, group: JobGroup, data: Data, params: Sequence[Any] | None, device: Any = None):
        (bound,) = group.members
        self.group, self.budget, self.data = group, group.budget, data
        self._put = functools.partial(jax.device_put, device=device)
        self.inputs = self._put(inputs(bound))
        self._split = bound.dataset.compact_split(bound.job.data.fold)
        self._row_bytes = data.train.x.row_bytes
        self.widths = [(0, 1)]
        self.state = self._start(None if params is None else params[0])

    def _start(self, params: Any) -> State:
        """The state before the first step."""
        model, optimizer, member = self.inputs
        row_bytes = 4 * int(np.prod(self.data.train.x.row_shape))
        rows = self._split.train[: max(1, START_BYTES // row_bytes) if params is None else 1]
        split = dataclasses.replace(member.split, train=np.arange(len(rows), dtype=np.int32))
        member, data, params = member._replace(split=split), self._block(rows), self._put(params)
        with engine.initializing:
            return jax.block_until_ready(
                engine.initialize(model, optimizer, member, data, self.budget, self._put(params))
            )

    # ------------------------------------------------------------------------------------------------------ the rows

    def _block(self, rows: np.ndarray) -> Data:
        """Some rows on the device."""
        examples = self._put(self.data.train.take(rows))
        return Data(examples, examples)

    def _cut(self, batches: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Batches [steps, B] in pieces of equal size, each with the number of its first; the last repeats a batch."""
        size = batches_of_block(self._row_bytes, batches.shape[1], len(batches))
        for first in range(0, len(batches), size):
            yield first, np.minimum(np.arange(first, first + size), len(batches) - 1)

    def _steps(self, begun: int, epochs: int) -> Iterator[tuple[Data, Epoch, np.int32, np.int32]]:
        """Block, epoch, first step and number of steps, for all steps of some epochs after `begun` epochs."""
        for number in range(begun, begun + epochs):
            epoch = begin_epoch(np.int32(number), self.inputs[2], self.budget)
            batches = np.asarray(epoch.batches)
            for first, steps in self._cut(batches):
                count = min(len(steps), len(batches) - first)
                yield (
                    self._block(batches[steps].reshape(-1)),
                    epoch._replace(batches=None),
                    np.int32(first),
                    np.int32(count),
                )

    # -------------------------------------------------------------------------------------------- training and scores

    def compile(self) -> None:
        """Compile all programs, on a copy of the state and with blocks of which no batch is taken."""
        block, epoch, first, _ = next(self._steps(0, 1))
        model, optimizer, member = self.inputs
        state = jax.tree.map(lambda leaf: leaf.copy(), self.state)
        state, series = train_block(model, optimizer, state, member, block, epoch, first, np.int32(0), self.budget)
        training = {name: np.zeros(self.budget.steps_per_epoch, values.dtype) for name, values in series.items()}
        params = engine.kept_params(state)
        scores = {part: self._evaluated(params, part, taken=False) for part in ("validation", "test")}
        jax.block_until_ready([means(*sums, part) for part, sums in scores.items()])
        jax.block_until_ready(end_chunk(state, training, *scores["validation"], np.bool_(True), self.budget))

    def train(self, epochs: int) -> Metrics:
        """Train the job; returns when the last rows are on the device, while it computes the metrics."""
        model, optimizer, member = self.inputs
        begun, frozen = int(self.state.step) // self.budget.steps_per_epoch, int(self.state.stopped_epoch) != NEVER
        running: deque[Metrics] = deque()
        series: list[tuple[Metrics, int]] = []
        for block, epoch, first, count in self._steps(begun, epochs):
            taken = np.int32(0) if frozen else count
            self.state, values = train_block(
                model, optimizer, self.state, member, block, epoch, first, taken, self.budget
            )
            series = [*(series if first else []), (values, int(count))]  # those of the last epoch
            _wait(running, values)
        sums, weight = self._evaluated(engine.current_params(self.state), "validation")
        self.state, metrics = end_chunk(self.state, _joined(series), sums, weight, np.bool_(frozen), self.budget)
        return metrics

    def _evaluated(self, params: Any, part: Part, taken: bool = True) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Sums of the metrics over every batch of a part [steps], and the weights of its rows [steps, B].

        Without `taken` the sums are 0, and only the first block is read.
        """
        numbers, weight = map(np.asarray, evaluation_batches(self._split, part, self.budget))
        model, _, member = self.inputs
        running: deque[Metrics] = deque()
        series: list[tuple[Metrics, int]] = []
        for first, steps in self._cut(numbers):
            count = min(len(steps), len(numbers) - first)
            block, of_block = self._block(numbers[steps].reshape(-1)), (numbers[steps], weight[steps])
            number = np.int32(count if taken else 0)
            values = evaluate_block(model, params, member, block, *of_block, number, self.budget)
            if not taken:
                return {name: np.zeros(len(numbers), array.dtype) for name, array in values.items()}, weight
            series.append((values, count))
            _wait(running, values)
        return _joined(series), weight

    def read(self, metrics: Metrics) -> dict[str, np.ndarray]:
        """Metrics of a chunk on the host, [1]; waits for the device."""
        return with_axis(metrics)

    def score(self, state: State) -> dict[str, np.ndarray]:
        """Validation and test metrics of the kept parameters, [1]."""
        params = self._put(unstack(engine.kept_params(state), 0))
        scores = [means(*self._evaluated(params, part), part) for part in ("validation", "test")]
        return with_axis({name: value for metrics in scores for name, value in metrics.items()})

    # -------------------------------------------------------------------------------------------------------- the state

    def collect(self) -> State:
        """The state on the host, with an axis of length one; waits for the device."""
        return with_axis(self.state)

    def template(self) -> State:
        """Shapes and types of what `collect` returns."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), self.state)

    def resume(self, state: State, done: int, widths: Sequence[Sequence[int]]) -> None:
        """Continue from a state that `collect` returned."""
        self.state = self._put(unstack(state, 0))

    def leave(self, gone: Collection[int], done: int, narrow: bool) -> None:
        """Do nothing: a job that has ended is not trained any more."""

    def lower(self) -> Any:
        """The training program before it is compiled."""
        model, optimizer, member = self.inputs
        block, epoch, first, count = next(self._steps(0, 1))
        return train_block.jitted.lower(model, optimizer, self.state, member, block, epoch, first, count, self.budget)


def _wait(running: deque[Metrics], values: Metrics) -> None:
    """Wait until fewer than `IN_FLIGHT` blocks are on the device; `values` are those of the block given to it last."""
    running.append(values)
    if len(running) >= IN_FLIGHT:
        jax.block_until_ready(running.popleft())


def _joined(series: Sequence[tuple[Metrics, int]]) -> dict[str, np.ndarray]:
    """Metrics of consecutive blocks as one array each; of every block so many entries count."""
    names = series[0][0]
    return {name: np.concatenate([np.asarray(values[name])[:count] for values, count in series]) for name in names}
