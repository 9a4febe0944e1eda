"""Which jobs become one program, how wide it is, and why it stands apart from the next."""

import dataclasses
import functools
import os
import re
from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from research.data.draws import Binarize
from research.engine import Budget, Data, Member, State, Trainer, chunk, initialize
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
SCHEDULE = ("epochs", "evaluate_every", "patience", "target_loss")  # what the host loop goes by, and no program


@recipe
class Options:
    """Settings of the sweep itself; not part of any run's identity.

    Attributes:
      mode: "map" trains every member by the program of one job, with the bits of a run alone, and deals the members
        to the cores; "vmap" trains all at once, in fewer larger operations; "auto" picks by backend and program size,
        the same every time.
      max_width: most members of one group.
      plan_only: print the plan and stop.
      fail_fast: stop at the first failed run.
      concurrency: threads that compile and train, each a member in map mode, a group in vmap mode; null: as many as
        the CPU has cores, and one for each accelerator. Results do not depend on it.
      checkpoint_every: evaluations between two checkpoints.
      retry: which runs without a good end are trained again: "none", "failed", "diverged" or "all" (pruned ones too);
        interrupted ones always are.
      prune: give up members that are worse than their peers in the same group: "none", "median" or
        "successive_halving" (`research.sweep.prune`). What is pruned does not depend on `concurrency`: members of map
        mode then advance in rounds (`research.sweep.rounds`).
      prune_after: epochs before the first is given up.
      narrow: in vmap mode, move the members that still learn to a narrower program once others have ended; their bits
        then depend on when that was, and the widths are recorded.
      devices: over which members are spread; null: all that this process has. A program of vmap mode has a share of
        its members on each; a thread of map mode has a device of its own.
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
    def threads(self) -> int:
        """How many threads compile and train."""
        if self.concurrency is not None:
            return self.concurrency
        return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else self.devices_used

    @property
    def devices_used(self) -> int:
        """How many devices share the members."""
        return min(self.devices or jax.local_device_count(), jax.local_device_count())


@dataclasses.dataclass(frozen=True)
class Group:
    """Jobs that go through one program, one by one (map) or at once (vmap).

    Attributes:
      bounds: its members.
      mode: map or vmap.
      width: members of the compiled program on each device; 1 in map mode. Rows beyond the jobs repeat the first one
        and are ignored.
      parameters: of one member.
      bytes: predicted memory of the program: states, gradients and the rows on the device.
      reason: what sets this group apart from the one before.
      metrics: that an evaluation while training gives; empty where the model cannot be traced.
      devices: that share the members of one program; 1 in map mode.
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
        return 0 if self.mode == "map" else self.rows - len(self.bounds)

    @property
    def units(self) -> "list[Group]":
        """What is trained, saved and finished by itself: every member of map mode, a whole group of vmap mode."""
        if self.mode == "vmap":
            return [self]
        return [dataclasses.replace(self, bounds=(bound,)) for bound in self.bounds]

    @property
    def program(self) -> Hashable:
        """What is compiled, whatever the devices: units of an equal one share it."""
        return self.bounds[0].program_key, self.mode, self.width

    @functools.cached_property
    def id(self) -> str:
        """Names the group in its sweep folder: its members in order, mode and width."""
        return group_id([bound.job.hash for bound in self.bounds], self.mode, self.width)

    @property
    def budget(self) -> Budget:
        return budget_of(self.bounds[0])


def group_id(members: Sequence[str], mode: str, width: int) -> str:
    """Names a group by the hashes of its jobs."""
    return config_hash([list(members), mode, width])[:HASH_DIGITS]


def budget_of(bound: Bound) -> Budget:
    """The budget of a job's program."""
    trainer = bound.job.trainer
    return Budget.of(trainer, trainer.steps_per_epoch(bound.dataset.facts), bound.dataset.draw)


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
    for alike in group(bounds, lambda bound: bound.program_key):
        found = measure(alike[0], alike[1:])
        mode = choose_mode(options.mode, step_work(alike[0], found.parameters), len(alike), options)
        # members that are trained at once share the budget of the host loop
        parts = [alike] if mode == "map" else group(alike, lambda bound: _schedule(bound.job.trainer))
        for members in parts:
            devices = 1 if mode == "map" else min(options.devices_used, len(members))
            sizes = _sizes(members, mode, devices, options.max_width)
            start = 0
            for index, (width, size) in enumerate(sizes):
                part = members[start : start + size]
                start += size
                reason = difference(previous, members[0]) if index == 0 else f"at most {options.max_width} jobs wide"
                if index > 0 and mode == "vmap" and sizes[index - 1][0] < options.max_width:
                    reason = "less padding than one wider program"
                total = width * (found.state_bytes + 4 * found.parameters) + found.data_bytes
                about = found.parameters, total, found.problem or reason, found.metrics
                # a program of width 1 is always the map program
                how = ("map", 1) if width == 1 else (mode, devices)
                groups.append(Group(tuple(part), how[0], width, *about, how[1], found.unread))
            previous = members[0]
    return groups


def _schedule(trainer: Trainer) -> tuple[Any, ...]:
    return tuple(getattr(trainer, name) for name in SCHEDULE)


def _sizes(members: Sequence[Bound], mode: str, devices: int, max_width: int) -> list[tuple[int, int]]:
    """(width, number of members) of the groups of one structure."""
    if mode == "map":
        return [(1, len(members[at : at + max_width])) for at in range(0, len(members), max_width)]
    left, sizes = len(members), []
    for width in widths(-(-left // devices), max_width):
        sizes.append((width, min(left, width * devices)))
        left -= sizes[-1][1]
    return sizes


def step_work(bound: Bound, parameters: int) -> int:
    """Multiply-adds of one training step forwards, roughly: a recurrent network uses its parameters at every step."""
    uses = bound.model.uses if isinstance(bound.model, CountsUses) else 1
    return bound.job.trainer.batch_size * parameters * uses


def choose_mode(asked: str, work: int, jobs: int, options: Options) -> Literal["vmap", "map"]:
    """The mode of a group: as asked, or by a fixed rule on backend and work per step."""
    if min(-(-jobs // options.devices_used), options.max_width) == 1 or asked == "map":
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
    """The structural settings in which two groups differ, or those of the host loop if there are none."""
    if previous is None:
        return ""
    before, now = structural(previous), structural(bound)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "model._target_" in changed:  # another family: its other keys say nothing more
        changed = ["model._target_"] + [key for key in changed if not key.startswith("model.")]
    trainers = previous.job.trainer, bound.job.trainer
    of_schedule = [f"trainer.{name}" for name in SCHEDULE if getattr(trainers[0], name) != getattr(trainers[1], name)]
    changed = changed or of_schedule
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
        "trainer": {key: value for key, value in plain(job.trainer).items() if key not in (*SCHEDULE, "warm_start")},
        "data": {key: value for key, value in plain(job.data).items() if key != "fold"},
    }
    return flatten(tree)


def describe(groups: Sequence[Group]) -> str:
    """One line: `45 jobs, 3 programs`; groups of map mode may share a program."""
    jobs = sum(len(group.bounds) for group in groups)
    programs = len({group.program if group.mode == "map" else group.id for group in groups})
    return f"{jobs} job{'s' * (jobs != 1)}, {programs} program{'s' * (programs != 1)}"
