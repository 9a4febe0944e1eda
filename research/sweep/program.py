"""The compiled programs of a sweep: of one job (map mode), and of all members of a group at once (vmap mode).

In map mode every member is trained by the program of one job. This program knows nothing of other members, so its bits
are those of a run alone. The only vmap over jobs is in this file.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from research import engine
from research.compiling import compiled
from research.engine import State
from research.inputs import Budget, Data, JobInputs
from research.sweep.device import mesh
from research.sweep.job import BoundJob
from research.sweep.plan import CANONICAL_WIDTHS, JobGroup
from research.tree import stack, unstack

FLAGS = ("first_bad_step", "stopped_epoch", "best_epoch")  # fields of a state that a chunk returns beside its metrics
Metrics = dict[str, jax.Array]

# ------------------------------------------------------------------------------------------------------------- one job


@compiled(donate_argnames="state")
def train(
    model: Any, optimizer: Any, state: State, member: JobInputs, data: Data, epochs: Any, budget: Budget, test: Any
) -> tuple[State, Metrics]:
    """One chunk of one job: `epochs` epochs and an evaluation, with `test` also of the test rows.

    `epochs` is an input of the program, so a last chunk that is shorter compiles nothing. A chunk of no epochs with
    `test` is the evaluation of a finished run.
    """
    return _chunk(model, optimizer, state, member, data, epochs, budget, test)


def _chunk(
    model: Any, optimizer: Any, state: State, member: JobInputs, data: Data, epochs: Any, budget: Budget, test: Any
) -> tuple[State, Metrics]:
    state, metrics = engine.chunk(model, optimizer, state, member, data, epochs, budget, test)
    # The flags are separate outputs, because the next chunk overwrites the memory of the state.
    return state, metrics | {f"state/{name}": getattr(state, name) for name in FLAGS}


def _training(metrics: Metrics) -> Metrics:
    """The metrics of a chunk of training, whose test rows were not evaluated."""
    return {name: value for name, value in metrics.items() if not name.startswith("test/")}


def _scores(metrics: Metrics) -> Metrics:
    """The metrics of an evaluation, which has trained nothing."""
    return {name: value for name, value in metrics.items() if name.startswith(("validation/", "test/"))}


# ----------------------------------------------------------------------------------------------------- all jobs at once


def over_jobs(function: Callable[..., Any], devices: int, *stacked: Any) -> Any:
    """`function(*job)` for all rows of the stacked trees at once; each of several devices gets an equal share."""
    if devices == 1:
        return jax.vmap(function)(*stacked)
    jobs = jax.sharding.PartitionSpec("jobs")
    local = jax.vmap(function)
    return jax.shard_map(local, mesh=mesh(devices), in_specs=jobs, out_specs=jobs, check_vma=False)(*stacked)


@compiled(static_argnames="devices", donate_argnames="state")
def train_all(
    models: Any,
    optimizers: Any,
    state: State,
    members: JobInputs,
    data: Data,
    epochs: Any,
    budget: Budget,
    test: Any,
    devices: int,
) -> tuple[State, Metrics]:
    """One chunk of all members."""
    chunk = lambda model, optimizer, state, member: _chunk(model, optimizer, state, member, data, epochs, budget, test)
    return over_jobs(chunk, devices, models, optimizers, state, members)


# ------------------------------------------------------------------------------------------------------ on the device


def inputs(bound: BoundJob) -> tuple[Any, Any, JobInputs]:
    """Model, optimizer and member of one job, with numbers as they enter a program."""
    return unstack(stack([(bound.model, bound.job.optimizer, member(bound))]), 0)


def member(bound: BoundJob) -> JobInputs:
    """The seed and the rows of one job."""
    return JobInputs(np.uint32(bound.job.seed), bound.dataset.compact_split(bound.job.data.fold))


def start(bound: BoundJob, data: Data, params: Any = None) -> State:
    """The state of one job before its first step, with fresh or with given parameters.

    Members of a vmap group are initialised one after another, because a batched QR (orthogonal kernels) can deadlock
    on a CPU.
    """
    model, optimizer, seed_and_rows = inputs(bound)
    with engine.initializing:
        return jax.block_until_ready(engine.initialize(model, optimizer, seed_and_rows, data, bound.budget, params))


class Alone:
    """One job on a device, trained by the program of one job.

    Everything that it returns has a leading axis of length one, as if it were a group of one.

    Attributes:
      slots: the member number of every row.
      widths: (epochs done, width) of the programs so far.
    """

    slots: Sequence[int] = (0,)

    def __init__(self, group: JobGroup, data: Data, params: Sequence[Any] | None, device: Any = None):
        (bound,) = group.members
        self.group, self.budget, self.data = group, group.budget, data
        # A computation runs on the device of its inputs.
        self._put = (lambda tree: tree) if device is None else functools.partial(jax.device_put, device=device)
        self.inputs = self._put(inputs(bound))
        self.state = start(bound, data, None if params is None else self._put(params[0]))
        self.widths = [(0, 1)]

    def compile(self) -> None:
        """Compile the program, by training a copy of the state for no epoch."""
        jax.block_until_ready(self._call(_copied(self.state), 0, False))

    def train(self, epochs: int) -> Metrics:
        """Train the job; returns at once, while the device computes the metrics."""
        self.state, metrics = self._call(self.state, epochs, False)
        return _training(metrics)

    def read(self, metrics: Metrics) -> dict[str, np.ndarray]:
        """Metrics of a chunk on the host, [1]; waits for the device."""
        return with_axis(metrics)

    def score(self, state: State) -> dict[str, np.ndarray]:
        """Validation and test metrics of the kept parameters, [1]."""
        _, metrics = self._call(self._put(_kept(unstack(state, 0))), 0, True)
        return with_axis(_scores(metrics))

    def collect(self) -> State:
        """The state on the host, with an axis of length one; waits for the device."""
        return with_axis(self.state)

    def template(self) -> State:
        """Shapes and types of what `collect` returns."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), self.state)

    def resume(self, state: State, done: int, widths: Sequence[Sequence[int]]) -> None:
        """Continue from a state that `collect` returned."""
        self.state = jax.tree.map(jax.device_put, self._put(unstack(state, 0)))

    def leave(self, gone: Collection[int], done: int, narrow: bool) -> None:
        """Do nothing: a job that has ended is not trained any more."""

    def lower(self) -> Any:
        """The training program before it is compiled."""
        return train.jitted.lower(*_arguments(self, self.inputs, self.state, 1, False))

    def _call(self, state: State, epochs: int, test: bool) -> tuple[State, Metrics]:
        return train(*_arguments(self, self.inputs, state, epochs, test))


def _arguments(
    program: "Alone | Together", inputs: tuple[Any, Any, JobInputs], state: State, epochs: int, test: bool
) -> tuple[Any, ...]:
    model, optimizer, member = inputs
    return model, optimizer, state, member, program.data, np.int32(epochs), program.budget, np.bool_(test)


def _kept(state: State) -> State:
    """A copy of the state with the kept parameters in the place of the last ones."""
    kept = engine.kept_params(state)
    return _copied(dataclasses.replace(state, params=kept, average=None if state.average is None else kept))


def _copied(state: State) -> State:
    """A state that a program may overwrite."""
    return jax.device_put(state, may_alias=False)


def with_axis(tree: Any) -> Any:
    """Arrays on the host with a leading axis of length one; waits for the device."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.device_get(tree))


class Together:
    """A group on its devices, trained at once. Members that have ended can leave it, into a narrower program.

    Attributes:
      state: of the members in `slots`.
      slots: the member number of every row of the stacked arrays; padding repeats the first member.
      widths: (epochs done, width) of every program so far.
    """

    def __init__(self, group: JobGroup, data: Data, params: Sequence[Any] | None):
        self.group, self.data, self.budget = group, data, group.budget
        self._all_slots = [*range(len(group.members)), *[0] * group.padding]
        self.slots = list(self._all_slots)
        rows = [inputs(bound) for bound in group.members]
        starts = [start(bound, data, params and params[number]) for number, bound in enumerate(group.members)]
        self._all_inputs = self.inputs = stack([rows[number] for number in self.slots])
        self._left: dict[int, State] = {}  # member number -> its last state
        self.widths = [(0, group.width)]
        starts = jax.device_get(starts)
        self.state = self._put(stack([starts[number] for number in self.slots]))

    def _put(self, state: State) -> State:
        if self.group.devices == 1:
            return jax.device_put(state)
        jobs = jax.sharding.PartitionSpec("jobs")
        return jax.device_put(state, jax.sharding.NamedSharding(mesh(self.group.devices), jobs))

    def compile(self) -> None:
        """Compile the program, by training a copy of the state for no epoch."""
        jax.block_until_ready(self._call(self.inputs, _copied(self.state), 0, False))

    def train(self, epochs: int) -> Metrics:
        """Train all members; returns at once, while the device computes the metrics [slots]."""
        self.state, metrics = self._call(self.inputs, self.state, epochs, False)
        return _training(metrics)

    def read(self, metrics: Metrics) -> dict[str, np.ndarray]:
        """Metrics of a chunk on the host, [slots]; waits for the device."""
        return jax.device_get(metrics)

    def score(self, state: State) -> dict[str, np.ndarray]:
        """Validation and test metrics of the kept parameters of a whole group [J + padding], at its full width."""
        _, metrics = self._call(self._all_inputs, self._put(_kept(state)), 0, True)
        return jax.device_get(_scores(metrics))

    def collect(self) -> State:
        """The state of all members in their order [J + padding], on the host; waits for the device."""
        now = jax.device_get(self.state)
        states = {number: unstack(now, slot) for slot, number in reversed(list(enumerate(self.slots)))} | self._left
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[states[number] for number in self._all_slots])

    def template(self) -> State:
        """Shapes and types of what `collect` returns; asked for before a member has left."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.state)

    def resume(self, state: State, done: int, widths: Sequence[Sequence[int]]) -> None:
        """Continue from the state of a whole group after `done` epochs, at full width.

        `widths` are those of the programs that trained it so far.
        """
        self.state = self._put(state)
        full = self.widths[-1][1]
        self.widths = [(epoch, width) for epoch, width in widths] or self.widths
        if self.widths[-1][1] != full:
            self.widths.append((done, full))

    def leave(self, gone: Collection[int], done: int, narrow: bool) -> None:
        """With `narrow`, drop members that have ended, and keep their last states.

        The others move to a program of the next smaller canonical width, so their bits differ from then on.
        """
        firsts = [slot for slot, number in enumerate(self.slots) if slot == self.slots.index(number)]
        staying = [slot for slot in firsts if self.slots[slot] not in gone]
        if not narrow or not staying or len(staying) == len(self.slots) or self.group.devices > 1:
            return
        width = next(width for width in CANONICAL_WIDTHS if width >= len(staying))
        if width >= len(self.slots):
            return
        now = jax.device_get(self.state)
        for slot, number in enumerate(self.slots):
            if number in gone:
                self._left.setdefault(number, unstack(now, slot))
        rows = np.asarray([*staying, *[staying[0]] * (width - len(staying))])
        self.slots = [self.slots[slot] for slot in rows]
        self.inputs = jax.tree.map(lambda leaf: leaf[np.asarray(self.slots)], self._all_inputs)
        self.state = self._put(jax.tree.map(lambda leaf: leaf[rows], now))
        self.widths.append((done, width))

    def lower(self) -> Any:
        """The training program before it is compiled."""
        return train_all.jitted.lower(*_arguments(self, self.inputs, self.state, 1, False), devices=self.group.devices)

    def _call(self, inputs: tuple[Any, Any, JobInputs], state: State, epochs: int, test: bool) -> tuple[State, Metrics]:
        return train_all(*_arguments(self, inputs, state, epochs, test), devices=self.group.devices)
