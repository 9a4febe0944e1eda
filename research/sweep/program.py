"""The compiled programs of a group: the code for one job over a leading `jobs` axis. The only vmap over jobs."""

import functools
import hashlib
import os
import platform
from collections.abc import Callable, Sequence
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
from research.sweep.plan import Group
from research.tree import stack

Mode = Literal["vmap", "map"]


def over_jobs(function: Callable[..., Any], mode: Mode, count: Any, *stacked: Any) -> Any:
    """`function(*job)` for the first `count` of the stacked trees: one after another (map) or all at once (vmap).

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

    return jax.lax.fori_loop(0, count, put, out)


@functools.partial(jax.jit, static_argnames="budget")
def initialize(
    models: Any, optimizers: Any, members: Member, params: Any, data: Data, count: Any, *, budget: Budget
) -> State:
    """States of all members; always one after another, since a batched QR (orthogonal kernels) can deadlock on CPU."""
    start = lambda model, optimizer, member, params: engine.initialize(model, optimizer, member, data, budget, params)
    return over_jobs(start, "map", count, models, optimizers, members, params)


@functools.partial(jax.jit, static_argnames=("mode", "budget"), donate_argnames="state")
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
    budget: Budget,
) -> tuple[State, dict[str, jax.Array]]:
    """One chunk of all members: `epochs` epochs (traced: a short last chunk does not compile) and an evaluation."""
    chunk = lambda model, optimizer, state, member: engine.chunk(model, optimizer, state, member, data, epochs, budget)
    return over_jobs(chunk, mode, count, models, optimizers, state, members)


@functools.partial(jax.jit, static_argnames=("mode", "budget"))
def score(
    models: Any, params: Any, members: Member, data: Data, count: Any, *, mode: Mode, budget: Budget
) -> dict[str, jax.Array]:
    """Validation and test metrics of the kept parameters."""

    def one(model: Any, params: Any, member: Member) -> dict[str, jax.Array]:
        parts: dict[str, jax.Array] = {}
        for part in ("validation", "test"):
            parts |= engine.evaluate(model, params, member.seed, member.split, data, part, budget)
        return parts

    return over_jobs(one, mode, count, models, params, members)


class Program:
    """A group on the device.

    Attributes:
      state: of all members.
    """

    def __init__(self, group: Group, data: Data, params: Sequence[Any] | None):
        padded = [*group.bounds, *[group.bounds[0]] * group.padding]
        self.group, self.data, self.budget = group, data, group.budget
        self.models = stack([bound.model for bound in padded])
        self.optimizers = stack([bound.job.optimizer for bound in padded])
        self.members = stack([member(bound) for bound in padded])
        self.count = np.int32(len(padded))
        start = None if params is None else stack([*params, *[params[0]] * group.padding])
        self.state = initialize(self.models, self.optimizers, self.members, start, data, self.count, budget=self.budget)

    def compile(self) -> None:
        """Have both programs compiled, by calling them once for no epoch at all on a copy of the state."""
        copy = jax.tree.map(lambda leaf: leaf + 0, self.state)
        state, _ = self._train(copy, 0)
        jax.block_until_ready(self._score(state))

    def train(self, epochs: int) -> dict[str, jax.Array]:
        """Advance all members; metrics [J] that are computed while the host goes on."""
        self.state, metrics = self._train(self.state, epochs)
        # small copies: the next chunk overwrites the state
        flags = {name: getattr(self.state, name) + 0 for name in ("first_bad_step", "stopped_epoch", "best_epoch")}
        return {**metrics, **{f"state/{name}": value for name, value in flags.items()}}

    def score(self) -> dict[str, jax.Array]:
        """Validation and test metrics [J] of the kept parameters."""
        return self._score(self.state)

    def _train(self, state: State, epochs: int) -> tuple[State, dict[str, jax.Array]]:
        fixed = {"mode": self.group.mode, "budget": self.budget}
        return train(self.models, self.optimizers, state, self.members, self.data, np.int32(epochs), self.count, **fixed)

    def _score(self, state: State) -> dict[str, jax.Array]:
        params = engine.kept_params(state)
        fixed = {"mode": self.group.mode, "budget": self.budget}
        return score(self.models, params, self.members, self.data, self.count, **fixed)


def member(bound: Bound) -> Member:
    """The seed and the rows of one job."""
    return Member(np.uint32(bound.job.seed), bound.dataset.split(bound.job.data.fold))


@functools.lru_cache(maxsize=2)
def _on_device(dataset: "_ById") -> Data:
    examples = jax.device_put(dataset.value.examples)
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
