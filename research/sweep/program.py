"""The compiled programs of a group: the code for one job over a leading `jobs` axis. The only vmap over jobs."""

import functools
import hashlib
import os
import platform
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from research import engine
from research.data.draws import Binarize
from research.data.examples import Dataset
from research.data.loading import binarized
from research.engine import Budget, Data, Member, State
from research.sweep.job import Bound
from research.sweep.plan import CANONICAL_WIDTHS, Group
from research.tree import stack, unstack

Mode = Literal["vmap", "map"]


def over_jobs(function: Callable[..., Any], mode: Mode, devices: int, count: Any, *stacked: Any) -> Any:
    """`function(*job)` for every index of the stacked trees: one after another (map) or all at once (vmap).

    With several devices each has an equal share of the rows, and runs what a single device would run for as many; in
    map mode it runs the first `count[device]` of them.
    """
    local = functools.partial(_on_one_device, function, mode)
    if devices == 1:
        return local(count, *stacked)
    jobs = jax.sharding.PartitionSpec("jobs")
    shared = jax.shard_map(local, mesh=mesh(devices), in_specs=jobs, out_specs=jobs, check_vma=False)
    return shared(count, *stacked)


def _on_one_device(function: Callable[..., Any], mode: Mode, count: Any, *stacked: Any) -> Any:
    """All jobs of one device.

    In map mode nothing of the loop reaches into its body, so that every member has the bits of a run alone: `count` is
    traced, since XLA unrolls a loop that it knows to run once, and barriers keep a member's arithmetic from being fused
    with reads and writes of arrays that are as wide as the group (seen with jax 0.12: last bits of fresh parameters).
    """
    if mode == "vmap":
        return jax.vmap(function)(*stacked)
    barrier = jax.lax.optimization_barrier

    def job(index: Any) -> Any:
        return barrier(jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stacked))

    shapes = jax.eval_shape(lambda: function(*job(0)))
    width = jax.tree.leaves(stacked)[0].shape[0]
    out = jax.tree.map(lambda shape: jnp.zeros((width, *shape.shape), shape.dtype), shapes)

    def put(index: jax.Array, out: Any) -> Any:
        values = barrier(function(*job(index)))
        return jax.tree.map(lambda leaf, value: jax.lax.dynamic_update_index_in_dim(leaf, value, index, 0), out, values)

    return jax.lax.fori_loop(0, count[0], put, out)


@functools.cache
def mesh(devices: int) -> jax.sharding.Mesh:
    """The first so many devices, in a row."""
    return jax.sharding.Mesh(np.asarray(jax.local_devices()[:devices]), ("jobs",))


@functools.partial(jax.jit, static_argnames=("devices", "budget"))
def initialize(
    models: Any, optimizers: Any, members: Member, params: Any, data: Data, count: Any, *, devices: int, budget: Budget
) -> State:
    """States of all members; always one after another, since a batched QR (orthogonal kernels) can deadlock on CPU."""
    start = lambda model, optimizer, member, params: engine.initialize(model, optimizer, member, data, budget, params)
    return over_jobs(start, "map", devices, count, models, optimizers, members, params)


@functools.partial(jax.jit, static_argnames=("mode", "devices", "budget"), donate_argnames="state")
def train(
    models: Any,
    optimizers: Any,
    state: State,
    members: Member,
    data: Data,
    epochs: Any,
    count: Any,
    *,
    mode: Mode,
    devices: int,
    budget: Budget,
) -> tuple[State, dict[str, jax.Array]]:
    """One chunk of all members: `epochs` epochs (traced: a short last chunk does not compile) and an evaluation."""
    chunk = lambda model, optimizer, state, member: engine.chunk(model, optimizer, state, member, data, epochs, budget)
    return over_jobs(chunk, mode, devices, count, models, optimizers, state, members)


@functools.partial(jax.jit, static_argnames=("mode", "devices", "budget"))
def score(
    models: Any, params: Any, members: Member, data: Data, count: Any, *, mode: Mode, devices: int, budget: Budget
) -> dict[str, jax.Array]:
    """Validation and test metrics of the kept parameters."""

    def one(model: Any, params: Any, member: Member) -> dict[str, jax.Array]:
        parts: dict[str, jax.Array] = {}
        for part in ("validation", "test"):
            parts |= engine.evaluate(model, params, member.seed, member.split, data, part, budget)
        return parts

    return over_jobs(one, mode, devices, count, models, params, members)


class Program:
    """A group on the device.

    Members that learn no more can leave it: in map mode at no cost, in vmap mode by a narrower program.

    Attributes:
      state: of the members in `slots`.
      slots: member number of every row of the stacked arrays; padding repeats the first.
      widths: (epochs done, width) of every program so far.
    """

    def __init__(self, group: Group, data: Data, params: Sequence[Any] | None):
        padded = [*group.bounds, *[group.bounds[0]] * group.padding]
        self.group, self.data, self.budget = group, data, group.budget
        self.slots = [*range(len(group.bounds)), *[0] * group.padding]
        self.inputs = (
            stack([bound.model for bound in padded]),
            stack([bound.job.optimizer for bound in padded]),
            stack([member(bound) for bound in padded]),
        )
        self.whole = self.inputs
        self.left: dict[int, State] = {}
        self.widths = [(0, group.width)]
        start = None if params is None else stack([*params, *[params[0]] * group.padding])
        models, optimizers, members = self.inputs
        self.state = initialize(
            models, optimizers, members, start, data, self.count(self.slots), devices=group.devices, budget=self.budget
        )

    def count(self, slots: Sequence[int]) -> np.ndarray:
        """How many rows every device runs in map mode: jobs come first, padding last."""
        rows = len(slots) if self.group.devices == 1 else len(self.group.bounds)
        share = self.group.width
        return np.asarray([np.clip(rows - share * device, 0, share) for device in range(self.group.devices)], np.int32)

    def place(self, state: State) -> State:
        """A state on the devices."""
        if self.group.devices == 1:
            return jax.device_put(state)
        jobs = jax.sharding.PartitionSpec("jobs")
        return jax.device_put(state, jax.sharding.NamedSharding(mesh(self.group.devices), jobs))

    def compile(self) -> None:
        """Have both programs compiled, by calling them once for no epoch at all on a copy of the state."""
        copy = jax.tree.map(lambda leaf: leaf + 0, self.state)
        state, _ = self._train(copy, 0)
        jax.block_until_ready(self._score(state))

    def train(self, epochs: int) -> dict[str, jax.Array]:
        """Advance all members; metrics [slots] that are computed while the host goes on."""
        self.state, metrics = self._train(self.state, epochs)
        # small copies: the next chunk overwrites the state
        flags = {name: getattr(self.state, name) + 0 for name in ("first_bad_step", "stopped_epoch", "best_epoch")}
        return {**metrics, **{f"state/{name}": value for name, value in flags.items()}}

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
        """Let members go that learn no more; their state is kept as it stands after `done` epochs.

        In map mode the others go on with the same bits. In vmap mode nothing happens unless `narrow`: the others then
        move to a program of the next smaller canonical width, whose bits differ.
        """
        own = [slot for slot, number in enumerate(self.slots) if slot == self.slots.index(number)]
        stay = [slot for slot in own if self.slots[slot] not in gone]
        if not stay or len(stay) == len(self.slots) or self.group.devices > 1:
            return
        width = self.group.width  # of a map program, which trains only the first so many rows
        if self.group.mode == "vmap":
            width = next(width for width in CANONICAL_WIDTHS if width >= len(stay))
            if not narrow or width >= len(self.slots):
                return
        now = jax.device_get(self.state)
        for slot, number in enumerate(self.slots):
            if number in gone:
                self.left.setdefault(number, unstack(now, slot))
        rows = np.asarray([*stay, *[stay[0]] * (width - len(stay))])
        numbers = [self.slots[slot] for slot in rows]
        self.slots = numbers if self.group.mode == "vmap" else numbers[: len(stay)]
        self.inputs = jax.tree.map(lambda leaf: leaf[np.asarray(numbers)], self.whole)
        self.state = self.place(jax.tree.map(lambda leaf: leaf[rows], now))
        self.widths.append((done, len(self.slots)))

    def lower(self) -> Any:
        """The training program before it is compiled."""
        models, optimizers, members = self.inputs
        count = self.count(self.slots)
        return train.lower(models, optimizers, self.state, members, self.data, np.int32(1), count, **self._fixed)

    def _train(self, state: State, epochs: int) -> tuple[State, dict[str, jax.Array]]:
        models, optimizers, members = self.inputs
        count = self.count(self.slots)
        return train(models, optimizers, state, members, self.data, np.int32(epochs), count, **self._fixed)

    def _score(self, state: State) -> dict[str, jax.Array]:
        models, _, members = self.whole
        count = self.count(range(self.group.rows))
        return score(models, engine.kept_params(state), members, self.data, count, **self._fixed)

    @property
    def _fixed(self) -> dict[str, Any]:
        return {"mode": self.group.mode, "devices": self.group.devices, "budget": self.budget}


def member(bound: Bound) -> Member:
    """The seed and the rows of one job."""
    return Member(np.uint32(bound.job.seed), bound.dataset.compact_split(bound.job.data.fold))


@functools.lru_cache(maxsize=2)
def _on_device(dataset: "_ById") -> Data:
    examples = jax.device_put(dataset.value.compact)
    if not isinstance(dataset.value.draw, Binarize):
        return Data(examples, examples)
    return Data(examples, jax.device_put(binarized(dataset.value)))


class _ById:
    """A cache key for an object that is not hashable: the object itself."""

    def __init__(self, value: Dataset):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.value is self.value


def on_device(dataset: Dataset) -> Data:
    """The rows of a data set on the device, copied once."""
    return _on_device(_ById(dataset))


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
