"""Which jobs become one program, how wide it is, and why it stands apart from the next."""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from research.data.draws import Binarize
from research.engine import Budget, Data, Member, State, chunk, initialize
from research.models.abilities import CountsUses
from research.ranges import Count, Range
from research.sweep.job import HASH_DIGITS, Bound
from research.sweep.unread import unread_numbers
from research.tree import ConfigError, config_hash, flatten, group, plain, recipe, stack, unstack

CANONICAL_WIDTHS = tuple(sorted({2**i for i in range(11)} | {3 * 2**i for i in range(10)}))
# Rule of `auto`, calibrated with `scripts/bench.py modes`: a CPU gains from vmap while a step of one member is so small
# that calling overhead dominates. In multiply-adds of one training step: batch size times parameters times how often a
# step uses them (the time steps of a recurrent network).
CPU_VMAP_LIMIT = 1_500_000
# A group in map mode is cut for idle cores where training it takes longer than tracing another program: multiply-adds.
WORTH_CUTTING = 1e11


@recipe
class Options:
    """Settings of the sweep itself; not part of any run's identity.

    Attributes:
      mode: "map" trains the members of a program one after another, with the bits of each run alone; "vmap" all at
        once, in fewer larger operations; "auto" picks by backend and program size, the same every time.
      max_width: most members of one program.
      plan_only: print the plan and stop.
      fail_fast: stop at the first failed run.
      concurrency: programs that compile and train at the same time; null: as many as a CPU has cores, and one on an
        accelerator. Results do not depend on it.
      checkpoint_every: evaluations between two checkpoints of a program.
      retry: which runs without a good end are trained again: "none", "failed", "diverged" or "all" (pruned ones too);
        interrupted ones always are.
      prune: give up members that are worse than their peers in the same program: "none", "median" or
        "successive_halving" (`research.sweep.prune`).
      prune_after: epochs before the first is given up.
      narrow: in vmap mode, move the members that still learn to a narrower program once others have ended; their bits
        then depend on when that was, and the widths are recorded.
      devices: over which the members of a program are spread; null: all that this process has.
      memory_limit: most memory of one program, in bytes or as text ("2GB"); null: what the device has free.
    """

    mode: Literal["auto", "vmap", "map"]
    max_width: Annotated[int, Range(1, 65_536)]
    plan_only: bool
    fail_fast: bool
    concurrency: Annotated[int, Range(1, 1_024)] | None
    checkpoint_every: Count
    retry: Literal["none", "failed", "diverged", "all"]
    prune: Literal["none", "median", "successive_halving"]
    prune_after: Count
    narrow: bool
    memory_limit: Annotated[int, Range(1, 2**63 - 1)] | str | None
    devices: Annotated[int, Range(1, 65_536)] | None

    def validate(self) -> None:
        _ = self.memory

    @property
    def memory(self) -> float | None:
        """`memory_limit` in bytes."""
        if self.memory_limit is None:
            return None
        match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kMGT]?)B?", str(self.memory_limit))
        if match is None or float(match[1]) <= 0:
            raise ConfigError("memory_limit", self.memory_limit, "expected bytes, or text like 500MB or 2GB")
        return float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")

    @property
    def kept(self) -> tuple[str, ...]:
        """Statuses of runs that are not trained again."""
        again = {"none": (), "failed": ("failed",), "diverged": ("diverged",), "all": ("failed", "diverged", "pruned")}
        statuses = ("completed", "stopped", "diverged", "failed", "pruned")
        return tuple(status for status in statuses if status not in again[self.retry])

    @property
    def programs_at_once(self) -> int:
        """How many programs run at the same time."""
        if self.concurrency is not None:
            return self.concurrency
        return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" and self.devices_used == 1 else 1

    @property
    def devices_used(self) -> int:
        """How many devices share the members of a program."""
        return min(self.devices or jax.local_device_count(), jax.local_device_count())


@dataclasses.dataclass(frozen=True)
class Group:
    """Jobs that train as one program.

    Attributes:
      bounds: its members.
      mode: map or vmap.
      width: members of the compiled program on each device; those beyond the jobs repeat the first one and are ignored.
      parameters: of one member.
      bytes: predicted memory of the whole group: states, gradients and the rows on the device.
      reason: what sets this program apart from the one before.
      metrics: that an evaluation while training gives; empty where the model cannot be traced.
      devices: that share the members.
      unread: keys of numbers that differ between the jobs of this structure, and that their training does not read.
    """

    bounds: tuple[Bound, ...]
    mode: Literal["vmap", "map"]
    width: int
    parameters: int
    bytes: int
    reason: str
    metrics: tuple[str, ...] = ()
    devices: int = 1
    unread: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Members of the compiled program on all devices."""
        return self.width * self.devices

    @property
    def padding(self) -> int:
        return self.rows - len(self.bounds)

    @functools.cached_property
    def id(self) -> str:
        """Names the group in its sweep folder: its members in order, mode and width."""
        return config_hash([[bound.job.hash for bound in self.bounds], self.mode, self.width])[:HASH_DIGITS]

    @property
    def budget(self) -> Budget:
        return budget_of(self.bounds[0])


def budget_of(bound: Bound) -> Budget:
    """The static numbers of a job's program."""
    trainer = dataclasses.replace(bound.job.trainer, warm_start=None)
    return Budget(trainer, trainer.steps_per_epoch(bound.dataset.facts), bound.dataset.draw)


def widths(jobs: int, max_width: int) -> list[int]:
    """Canonical widths that hold so many jobs in vmap mode.

    One padded program while at most a fifth of it is padding (a second program costs a compile), else the widest
    canonical one that is full, and the rest likewise.
    """
    allowed = [width for width in CANONICAL_WIDTHS if width <= max_width]
    made: list[int] = []
    while jobs > 0:
        above = next((width for width in allowed if width >= jobs), None)
        if above is not None and above - jobs <= above / 5:
            return [*made, above]
        full = max(width for width in allowed if width <= jobs)
        made.append(full)
        jobs -= full
    return made


def plan(bounds: Sequence[Bound], options: Options) -> list[Group]:
    """Group jobs by structure, choose mode and widths."""
    groups: list[Group] = []
    previous: Bound | None = None
    alike = group(bounds, lambda bound: bound.program_key)
    for members in alike:
        found = measure(members[0], members[1:])
        work = step_work(members[0], found.parameters)
        devices = min(options.devices_used, len(members))
        mode = choose_mode(options.mode, work, -(-len(members) // devices), options.max_width)
        if devices > 1:  # each runs what one device would run for its share
            share = -(-len(members) // devices)
            sizes = widths(share, options.max_width) if mode == "vmap" else even(share, -(-share // options.max_width))
            again = f"at most {options.max_width} jobs wide"
        elif mode == "map":
            budget = budget_of(members[0])
            whole = work * budget.steps_per_epoch * budget.trainer.epochs * len(members)
            # the width of a map program is free: members whose cores would be idle have programs of their own
            cut = max(1, min(options.programs_at_once // len(alike), len(members), int(whole / WORTH_CUTTING)))
            needed = math.ceil(len(members) / options.max_width)
            sizes = even(len(members), max(cut, needed))
            again = "for another core" if cut > needed else f"at most {options.max_width} jobs wide"
        else:
            again = f"at most {options.max_width} jobs wide"
            sizes = widths(len(members), options.max_width)
        start = 0
        for index, width in enumerate(sizes):
            part = members[start : start + width * devices]
            start += len(part)
            reason = difference(previous, members[0]) if index == 0 else again
            if index > 0 and mode == "vmap" and sizes[index - 1] < options.max_width:
                reason = "less padding than one wider program"
            # in map mode one member's gradient is alive at a time
            active = width if mode == "vmap" else 1
            total = width * found.state_bytes + active * 4 * found.parameters + found.data_bytes
            about = found.parameters, total, found.problem or reason, found.metrics
            # a program of width 1 is always the map program
            groups.append(Group(tuple(part), "map" if width == 1 else mode, width, *about, devices, found.unread))
        previous = members[0]
    return groups


def even(jobs: int, parts: int) -> list[int]:
    """Sizes of so many parts, as equal as possible."""
    return [jobs // parts + (index < jobs % parts) for index in range(parts)]


def step_work(bound: Bound, parameters: int) -> int:
    """Multiply-adds of one training step forwards, roughly: a recurrent network uses its parameters at every step."""
    uses = bound.model.uses if isinstance(bound.model, CountsUses) else 1
    return bound.job.trainer.batch_size * parameters * uses


def choose_mode(asked: str, work: int, jobs: int, max_width: int) -> Literal["vmap", "map"]:
    """The mode of a group: as asked, or by a fixed rule on backend and work per step."""
    if min(jobs, max_width) == 1 or asked == "map":
        return "map"
    if asked == "vmap":
        return "vmap"
    return "vmap" if jax.default_backend() != "cpu" or work <= CPU_VMAP_LIMIT else "map"


class Measure(NamedTuple):
    """Of a program: parameters of one member, bytes of its state, bytes of the data, names of its metrics."""

    parameters: int
    state_bytes: int
    data_bytes: int
    metrics: tuple[str, ...]
    problem: str | None = None
    unread: tuple[str, ...] = ()


def measure(bound: Bound, others: Sequence[Bound] = ()) -> Measure:
    """How large the program of a job is, from its trace alone, and which numbers that differ from `others` it ignores.

    Raises:
      ConfigError: the model gives no such metric as `trainer.monitor`.
    """
    examples, job = bound.dataset.compact, bound.job
    member = Member(np.uint32(0), bound.dataset.compact_split(None))
    budget = budget_of(bound)

    data = Data(examples, examples)
    model, optimizer = unstack(stack([(bound.model, job.optimizer)]), 0)  # leaves as they enter a program

    def start(model: Any, optimizer: Any, member: Member, data: Data) -> State:
        return initialize(model, optimizer, member, data, budget)

    def once(model: Any, optimizer: Any, state: State, member: Member, data: Data, epochs: jax.Array) -> Any:
        return chunk(model, optimizer, state, member, data, epochs, budget)

    size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    rows = size(examples) * (2 if isinstance(budget.draw, Binarize) else 1)
    try:
        state = jax.eval_shape(start, model, optimizer, member, data)
        # jit keeps the trace of an epoch, and the program uses it again
        _, metrics = jax.eval_shape(once, model, optimizer, state, member, data, np.int32(1))
    except ConfigError:
        raise
    except Exception as error:  # a model that cannot be traced fails in its own program and leaves the others alone
        return Measure(0, 0, rows, (), f"cannot be traced: {(str(error).strip().splitlines() or [repr(error)])[0]}")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    unread = unread_numbers([bound, *others], state, member, data, budget)
    return Measure(parameters, size(state) + size(member), rows, tuple(metrics), unread=unread)


def difference(previous: Bound | None, bound: Bound) -> str:
    """The structural settings in which two programs differ."""
    if previous is None:
        return ""
    before, now = structural(previous), structural(bound)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "model._target_" in changed:  # another family: its other keys say nothing more
        changed = ["model._target_"] + [key for key in changed if not key.startswith("model.")]
    values = flatten(bound.job.tree())
    shown = [f"{key}={_short(values.get(key))}" for key in changed[:3]]
    return ", ".join(shown) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _short(value: Any) -> str:
    return str(value).rpartition(".")[2] if isinstance(value, str) else str(value)


def structural(bound: Bound) -> dict[str, Any]:
    """Dotted key -> value of everything that is compiled: leaves read `a number`, seed and fold left out."""
    job = bound.job
    blank = lambda tree: plain(jax.tree.map(lambda _: "a number", tree))
    tree = {
        "model": blank(job.model),
        "optimizer": blank(job.optimizer),
        "trainer": {**plain(job.trainer), "warm_start": job.trainer.warm_start is not None},
        "data": {key: value for key, value in plain(job.data).items() if key != "fold"},
    }
    return flatten(tree)


def describe(groups: Sequence[Group]) -> str:
    """One line: `45 jobs, 3 programs`."""
    jobs = sum(len(group.bounds) for group in groups)
    return f"{jobs} job{'s' * (jobs != 1)}, {len(groups)} program{'s' * (len(groups) != 1)}"
