"""The compiled programs of a sweep: of one job (map mode), and of all members of a group at once (vmap mode).

In map mode every member is trained by the program of one job, which knows nothing of other members: its bits are those
of a run alone by construction. The only vmap over jobs is here.
"""

import functools
import hashlib
import os
import platform
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import engine
from research.data.draws import Binarize
from research.data.examples import Dataset
from research.data.loading import binarized
from research.engine import Budget, Data, Member, State
from research.sweep.job import Bound
from research.sweep.plan import CANONICAL_WIDTHS, Group, budget_of
from research.tree import stack, unstack

FLAGS = ("first_bad_step", "stopped_epoch", "best_epoch")  # of a state, beside the metrics of a chunk

# ------------------------------------------------------------------------------------------------------------- one job


@jax.jit
def initialize(model: Any, optimizer: Any, member: Member, params: Any, data: Data, budget: Budget) -> State:
    """The state of one job before its first step."""
    return engine.initialize(model, optimizer, member, data, budget, params)


@functools.partial(jax.jit, donate_argnames="state")
def train(
    model: Any, optimizer: Any, state: State, member: Member, data: Data, epochs: Any, budget: Budget
) -> tuple[State, dict[str, jax.Array]]:
    """One chunk of one job: `epochs` epochs (traced: a short last chunk does not compile) and an evaluation."""
    return _chunk(model, optimizer, state, member, data, epochs, budget)


@jax.jit
def score(model: Any, params: Any, member: Member, data: Data, budget: Budget) -> dict[str, jax.Array]:
    """Validation and test metrics of the kept parameters of one job."""
    return _score(model, params, member, data, budget)


def _chunk(
    model: Any, optimizer: Any, state: State, member: Member, data: Data, epochs: Any, budget: Budget
) -> tuple[State, dict[str, jax.Array]]:
    state, metrics = engine.chunk(model, optimizer, state, member, data, epochs, budget)
    # outputs of their own: the next chunk overwrites the state
    return state, metrics | {f"state/{name}": getattr(state, name) for name in FLAGS}


def _score(model: Any, params: Any, member: Member, data: Data, budget: Budget) -> dict[str, jax.Array]:
    parts: dict[str, jax.Array] = {}
    for part in ("validation", "test"):
        parts |= engine.evaluate(model, params, member.seed, member.split, data, part, budget)
    return parts


# ----------------------------------------------------------------------------------------------------- all jobs at once


def over_jobs(function: Callable[..., Any], devices: int, *stacked: Any) -> Any:
    """`function(*job)` for all rows of the stacked trees at once; each of several devices has an equal share."""
    if devices == 1:
        return jax.vmap(function)(*stacked)
    jobs = jax.sharding.PartitionSpec("jobs")
    local = jax.vmap(function)
    return jax.shard_map(local, mesh=mesh(devices), in_specs=jobs, out_specs=jobs, check_vma=False)(*stacked)


@functools.cache
def mesh(devices: int) -> jax.sharding.Mesh:
    """The first so many devices, in a row."""
    return jax.sharding.Mesh(np.asarray(jax.local_devices()[:devices]), ("jobs",))


@functools.partial(jax.jit, static_argnames="devices", donate_argnames="state")
def train_all(
    models: Any,
    optimizers: Any,
    state: State,
    members: Member,
    data: Data,
    epochs: Any,
    budget: Budget,
    *,
    devices: int,
) -> tuple[State, dict[str, jax.Array]]:
    """One chunk of all members."""
    chunk = lambda model, optimizer, state, member: _chunk(model, optimizer, state, member, data, epochs, budget)
    return over_jobs(chunk, devices, models, optimizers, state, members)


@functools.partial(jax.jit, static_argnames="devices")
def score_all(
    models: Any, params: Any, members: Member, data: Data, budget: Budget, *, devices: int
) -> dict[str, jax.Array]:
    """Validation and test metrics of the kept parameters of all members."""
    one = lambda model, params, member: _score(model, params, member, data, budget)
    return over_jobs(one, devices, models, params, members)


# ------------------------------------------------------------------------------------------------------ on the device


def start(bound: Bound, data: Data, params: Any = None) -> State:
    """The fresh state of one job, or the one before the first step from given parameters.

    Members of a vmap group start one after another as well: a batched QR (orthogonal kernels) can deadlock on a CPU.
    """
    model, optimizer, member = inputs(bound)
    with engine.initializing:
        return jax.block_until_ready(initialize(model, optimizer, member, params, data, budget_of(bound)))


def inputs(bound: Bound) -> tuple[Any, Any, Member]:
    """Model, optimizer and member of one job, their numbers as they enter a program."""
    return unstack(stack([(bound.model, bound.job.optimizer, member(bound))]), 0)


class Alone:
    """One job on the device, trained by the program of one job.

    What is given out has a leading axis of one, as of a group of one.

    Attributes:
      slots: member number of every row: of the only one.
      widths: (epochs done, width) of the programs so far.
    """

    slots: Sequence[int] = (0,)

    def __init__(self, group: Group, data: Data, params: Sequence[Any] | None, device: Any = None):
        (bound,) = group.bounds
        self.group, self.budget = group, group.budget
        # what is on a device is computed there
        place = (lambda tree: tree) if device is None else functools.partial(jax.device_put, device=device)
        self.inputs, self.data, self._place = place(inputs(bound)), data, place
        self.state = start(bound, data, None if params is None else place(params[0]))
        self.widths = [(0, 1)]

    def compile(self) -> None:
        """Have both programs compiled, by calling them once for no epoch at all on a copy of the state."""
        state, _ = self._train(jax.tree.map(lambda leaf: leaf.copy(), self.state), 0)
        jax.block_until_ready(self._score(engine.kept_params(state)))

    def train(self, epochs: int) -> dict[str, jax.Array]:
        """Advance the job; metrics that are computed while the host goes on."""
        self.state, metrics = self._train(self.state, epochs)
        return metrics

    def read(self, metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
        """Metrics of a chunk on the host, [1]; waits for the device."""
        return _row(metrics)

    def score(self, state: State) -> dict[str, np.ndarray]:
        """Validation and test metrics [1] of the kept parameters."""
        return _row(self._score(self._place(unstack(engine.kept_params(state), 0))))

    def collect(self) -> State:
        """The state on the host, with an axis of one; waits for the device."""
        return _row(self.state)

    def template(self) -> State:
        """Shapes and types of what `collect` gives."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), self.state)

    def resume(self, state: State, done: int, widths: Sequence[Sequence[int]]) -> None:
        """Go on from a state of `collect`."""
        self.state = jax.tree.map(jax.device_put, self._place(unstack(state, 0)))

    def leave(self, gone: Collection[int], done: int, narrow: bool) -> None:
        """Nothing: a job that has ended is trained no more."""

    def lower(self) -> Any:
        """The training program before it is compiled."""
        model, optimizer, member = self.inputs
        return train.lower(model, optimizer, self.state, member, self.data, np.int32(1), self.budget)

    def _train(self, state: State, epochs: int) -> tuple[State, dict[str, jax.Array]]:
        model, optimizer, member = self.inputs
        return train(model, optimizer, state, member, self.data, np.int32(epochs), self.budget)

    def _score(self, params: Any) -> dict[str, jax.Array]:
        model, _, member = self.inputs
        return score(model, params, member, self.data, self.budget)


def _row(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.device_get(tree))


class Together:
    """A group on the device, trained at once.

    Members that have ended can leave it by a narrower program.

    Attributes:
      state: of the members in `slots`.
      slots: member number of every row of the stacked arrays; padding repeats the first.
      widths: (epochs done, width) of every program so far.
    """

    def __init__(self, group: Group, data: Data, params: Sequence[Any] | None):
        self.group, self.data, self.budget = group, data, group.budget
        self.slots = [*range(len(group.bounds)), *[0] * group.padding]
        rows = [inputs(bound) for bound in group.bounds]
        starts = [start(bound, data, params and params[number]) for number, bound in enumerate(group.bounds)]
        self.inputs = stack([rows[number] for number in self.slots])
        self.whole = self.inputs
        self.left: dict[int, State] = {}
        self.widths = [(0, group.width)]
        starts = jax.device_get(starts)
        self.state = self.place(stack([starts[number] for number in self.slots]))

    def place(self, state: State) -> State:
        """A state on the devices."""
        if self.group.devices == 1:
            return jax.device_put(state)
        jobs = jax.sharding.PartitionSpec("jobs")
        return jax.device_put(state, jax.sharding.NamedSharding(mesh(self.group.devices), jobs))

    def compile(self) -> None:
        """Have both programs compiled, by calling them once for no epoch at all on a copy of the state."""
        state, _ = self._train(jax.tree.map(lambda leaf: leaf.copy(), self.state), 0)
        jax.block_until_ready(self._score(state))

    def train(self, epochs: int) -> dict[str, jax.Array]:
        """Advance all members; metrics [slots] that are computed while the host goes on."""
        self.state, metrics = self._train(self.state, epochs)
        return metrics

    def read(self, metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
        """Metrics of a chunk on the host, [slots]; waits for the device."""
        return jax.device_get(metrics)

    def score(self, state: State) -> dict[str, np.ndarray]:
        """Validation and test metrics [J] of the kept parameters of a whole group, by the program of its full width."""
        return jax.device_get(self._score(state))

    def collect(self) -> State:
        """State of all members in their order [J + padding], on the host; waits for the device."""
        now = jax.device_get(self.state)
        own = {number: unstack(now, slot) for slot, number in reversed(list(enumerate(self.slots)))} | self.left
        order = [*range(len(self.group.bounds)), *[0] * self.group.padding]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[own[number] for number in order])

    def template(self) -> State:
        """Shapes and types of the state of a whole group."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.state)

    def resume(self, state: State, done: int, widths: Sequence[Sequence[int]]) -> None:
        """Go on from the state of a whole group after `done` epochs, in the full width; `widths` are those before."""
        self.state = self.place(state)
        now = self.widths[-1][1]
        self.widths = [(epoch, width) for epoch, width in widths] or self.widths
        if self.widths[-1][1] != now:
            self.widths.append((done, now))

    def leave(self, gone: Collection[int], done: int, narrow: bool) -> None:
        """Where this is wanted (`narrow`), let members go that have ended; their state is kept as it stands.

        The others move to a program of the next smaller canonical width, and their bits differ from then on.
        """
        own = [slot for slot, number in enumerate(self.slots) if slot == self.slots.index(number)]
        stay = [slot for slot in own if self.slots[slot] not in gone]
        if not narrow or not stay or len(stay) == len(self.slots) or self.group.devices > 1:
            return
        width = next(width for width in CANONICAL_WIDTHS if width >= len(stay))
        if width >= len(self.slots):
            return
        now = jax.device_get(self.state)
        for slot, number in enumerate(self.slots):
            if number in gone:
                self.left.setdefault(number, unstack(now, slot))
        rows = np.asarray([*stay, *[stay[0]] * (width - len(stay))])
        self.slots = [self.slots[slot] for slot in rows]
        self.inputs = jax.tree.map(lambda leaf: leaf[np.asarray(self.slots)], self.whole)
        self.state = self.place(jax.tree.map(lambda leaf: leaf[rows], now))
        self.widths.append((done, width))

    def lower(self) -> Any:
        """The training program before it is compiled."""
        models, optimizers, members = self.inputs
        given = models, optimizers, self.state, members, self.data, np.int32(1), self.budget
        return train_all.lower(*given, devices=self.group.devices)

    def _train(self, state: State, epochs: int) -> tuple[State, dict[str, jax.Array]]:
        models, optimizers, members = self.inputs
        given = models, optimizers, state, members, self.data, np.int32(epochs), self.budget
        return train_all(*given, devices=self.group.devices)

    def _score(self, state: State) -> dict[str, jax.Array]:
        models, _, members = self.whole
        params = engine.kept_params(state)
        return score_all(models, params, members, self.data, self.budget, devices=self.group.devices)


def program_of(group: Group, data: Data, params: Sequence[Any] | None = None, device: Any = None) -> Alone | Together:
    """A group of one, or one of vmap mode, on the device with its initial state.

    Args:
      params: of every member, in the place of fresh ones; None for a member that has fresh ones.
      device: of a group of one; None: the first.
    """
    return Alone(group, data, params, device) if group.mode == "map" else Together(group, data, params)


def member(bound: Bound) -> Member:
    """The seed and the rows of one job."""
    return Member(np.uint32(bound.job.seed), bound.dataset.compact_split(bound.job.data.fold))


@functools.lru_cache(maxsize=2)
def _on_device(dataset: "_ById", device: Any) -> Data:
    examples = jax.device_put(dataset.value.compact, device)
    if not isinstance(dataset.value.draw, Binarize):
        return Data(examples, examples)
    return Data(examples, jax.device_put(binarized(dataset.value), device))


class _ById:
    """A cache key for an object that is not hashable: the object itself."""

    def __init__(self, value: Dataset):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.value is self.value


_copying = threading.Lock()  # a second thread waits for the copy of the first


def on_device(dataset: Dataset, device: Any = None) -> Data:
    """The rows of a data set on a device (None: the first), copied once."""
    with _copying:
        return _on_device(_ById(dataset), device)


def device_kind() -> str:
    """Name of the device that programs run on."""
    return jax.devices()[0].device_kind


def use_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder (JAX_COMPILATION_CACHE_DIR chooses another).

    On CPU the cache holds machine code, so every kind of processor and every version has a folder of its own.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get("JAX_ENABLE_COMPILATION_CACHE") == "false":
        return
    features = [platform.machine(), platform.processor(), jax.__version__]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        features += sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
    name = hashlib.sha256("\n".join(features).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(root / "latent-loom" / "programs" / name))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
