"""The plan: which jobs share a compiled program, and how many of them it trains at once.

Jobs of equal structure form a group. In map mode one program of one job trains the members one after another (or on
several threads); in vmap mode one program trains all members at once and has a fixed width.
"""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import jax

from research.engine import Trainer
from research.inputs import Budget
from research.models.abilities import uses_of
from research.sweep.job import HASH_DIGITS, BoundJob
from research.sweep.measure import measure
from research.sweep.options import Options
from research.tree import ConfigError, config_hash, flatten, group, plain

CANONICAL_WIDTHS = tuple(sorted({2**i for i in range(11)} | {3 * 2**i for i in range(10)}))
# The rule of `auto`, calibrated with `scripts/bench.py modes`. Up to this work per step, in multiply-adds (see
# `step_work`), vmap is faster on a CPU by a fifth or more for any number of members, because calls dominate.
CPU_VMAP_LIMIT = 5_000
# Settings of a trainer that are not compiled. The members of a vmap program are trained by one host loop, so they must
# agree on these settings all the same.
SCHEDULE = ("epochs", "evaluate_every", "patience", "target_loss")


@dataclasses.dataclass(frozen=True)
class JobGroup:
    """Jobs that one program trains, one by one (map) or at once (vmap).

    Attributes:
      members: the jobs.
      mode: map or vmap.
      width: members that the program trains at once on each device; 1 in map mode. If there are fewer members than
        rows, the remaining rows repeat the first member and their results are ignored.
      parameters: number of parameters of one member.
      bytes: predicted memory of the program: states, gradients and the rows of the data.
      reason: the settings in which this group differs from the one before.
      metrics: names of the metrics that an evaluation during training gives; empty if the model cannot be traced.
      devices: number of devices that share the members of one program; 1 in map mode.
      unread: keys of numbers that differ between the jobs of this structure but that their training never reads.
    """

    members: tuple[BoundJob, ...]
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
        """Members of the compiled program on all devices, padding included."""
        return self.width * self.devices

    @property
    def padding(self) -> int:
        """Rows of the compiled program that repeat the first member."""
        return 0 if self.mode == "map" else self.rows - len(self.members)

    @property
    def units(self) -> "list[JobGroup]":
        """The parts that are trained and saved separately: single members in map mode, the whole group in vmap mode."""
        if self.mode == "vmap":
            return [self]
        return [dataclasses.replace(self, members=(member,)) for member in self.members]

    def position(self, unit: "JobGroup") -> int:
        """Number of a unit among the units of this group."""
        return next(at for at, bound in enumerate(self.members) if bound is unit.members[0])

    @property
    def program(self) -> Hashable:
        """Identity of the compiled program on one device: units with an equal one share it."""
        return self.members[0].compiled_key, self.mode, self.width

    @functools.cached_property
    def id(self) -> str:
        """Name of the group in its sweep folder."""
        return group_id([member.job.hash for member in self.members], self.mode, self.width)

    @property
    def budget(self) -> Budget:
        """The budget of the program."""
        return self.members[0].budget


def group_id(hashes: Sequence[str], mode: str, width: int) -> str:
    """Name of a group in its sweep folder, from the hashes of its jobs in order, its mode and its width."""
    return config_hash([list(hashes), mode, width])[:HASH_DIGITS]


def plan(bounds: Sequence[BoundJob], options: Options) -> list[JobGroup]:
    """Group jobs by structure, then choose the mode and the width of each group.

    Raises:
      ConfigError: vmap mode is asked for, and the rows of a job are streamed.
    """
    if options.mode == "vmap" and any(bound.dataset.streamed for bound in bounds):
        remedy = "each job streams its own rows (data.stream=true); set {key}=map or {key}=auto"
        raise ConfigError("sweep.mode", "vmap", remedy)
    groups: list[JobGroup] = []
    previous: BoundJob | None = None
    for alike in group(bounds, lambda bound: bound.program_key):
        size = measure(alike[0], alike[1:])
        mode = choose_mode(options.mode, step_work(alike[0], size.parameters), len(alike), options)
        if alike[0].dataset.streamed:
            mode = "map"
        # The members of a vmap program share one host loop, so their schedules must be equal.
        for members in [alike] if mode == "map" else group(alike, lambda bound: _schedule(bound.job.trainer)):
            devices = 1 if mode == "map" else min(options.devices_used, len(members))
            reason, start = difference(previous, members[0]), 0
            for width, count in _sizes(len(members), mode, devices, options.max_width):
                next_group = JobGroup(
                    members=tuple(members[start : start + count]),
                    # A vmap program of width 1 is the map program.
                    mode="map" if width == 1 else mode,
                    width=width,
                    parameters=size.parameters,
                    bytes=width * (size.state_bytes + 4 * size.parameters) + size.data_bytes,
                    reason=size.problem or reason,
                    metrics=size.metrics,
                    devices=1 if width == 1 else devices,
                    unread=size.unread,
                )
                groups.append(next_group)
                start += count
                full = mode == "map" or width == options.max_width
                reason = f"at most {options.max_width} jobs wide" if full else "less padding than one wider program"
            previous = members[0]
    return groups


def _schedule(trainer: Trainer) -> tuple[Any, ...]:
    return tuple(getattr(trainer, name) for name in SCHEDULE)


def widths(jobs: int, max_width: int) -> list[int]:
    """Canonical widths of the vmap programs for so many jobs.

    One program holds all jobs if at most a fifth of its rows is padding, because a second program costs a compilation.
    Otherwise the first program has the largest canonical width that is full, and the rule is applied to the rest.
    """
    allowed = [width for width in CANONICAL_WIDTHS if width <= max_width]
    chosen: list[int] = []
    while jobs > 0:
        above = next((width for width in allowed if width >= jobs), None)
        if above is not None and above - jobs <= above / 5:
            return [*chosen, above]
        chosen.append(max(width for width in allowed if width <= jobs))
        jobs -= chosen[-1]
    return chosen


def _sizes(jobs: int, mode: str, devices: int, max_width: int) -> list[tuple[int, int]]:
    """(width, number of members) of the groups of one structure."""
    if mode == "map":
        return [(1, min(max_width, jobs - at)) for at in range(0, jobs, max_width)]
    sizes: list[tuple[int, int]] = []
    for width in widths(-(-jobs // devices), max_width):
        sizes.append((width, min(jobs, width * devices)))
        jobs -= sizes[-1][1]
    return sizes


def step_work(bound: BoundJob, parameters: int) -> int:
    """Approximate multiply-adds of the forward pass of one training step.

    It is batch size times parameters times the number of times that a step uses them (a recurrent network uses them
    at every time step).
    """
    uses = uses_of(bound.model)
    return bound.job.trainer.batch_size * parameters * uses


def choose_mode(asked: str, work: int, jobs: int, options: Options) -> Literal["vmap", "map"]:
    """The mode of a group: the one that the user asked for, or a fixed rule on backend and work per step."""
    if min(-(-jobs // options.devices_used), options.max_width) == 1 or asked == "map":
        return "map"
    if asked == "vmap":
        return "vmap"
    return "vmap" if jax.default_backend() != "cpu" or work <= CPU_VMAP_LIMIT else "map"


def difference(previous: BoundJob | None, bound: BoundJob) -> str:
    """The structural settings in which two groups differ, or the schedule settings if there are none."""
    if previous is None:
        return ""
    before, now = structural(previous), structural(bound)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "model._target_" in changed:  # another family: its remaining keys say nothing more
        changed = ["model._target_"] + [key for key in changed if not key.startswith("model.")]
    if not changed:
        old, new = previous.job.trainer, bound.job.trainer
        changed = [f"trainer.{name}" for name in SCHEDULE if getattr(old, name) != getattr(new, name)]
    values = flatten(bound.job.tree())
    shown = [f"{key}={_short(values.get(key))}" for key in changed[:3]]
    return ", ".join(shown) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _short(value: Any) -> str:
    return str(value).rpartition(".")[2] if isinstance(value, str) else str(value)


def structural(bound: BoundJob) -> dict[str, Any]:
    """Dotted key -> value of everything that is compiled. A leaf reads `a number`; seed and fold are left out."""
    job = bound.job
    blank = lambda tree: plain(jax.tree.map(lambda _: "a number", tree))
    tree = {
        "model": blank(job.model),
        "optimizer": blank(job.optimizer),
        "trainer": {key: value for key, value in plain(job.trainer).items() if key not in (*SCHEDULE, "warm_start")},
        "data": {key: value for key, value in plain(job.data).items() if key != "fold"},
    }
    return flatten(tree)


def describe(groups: Sequence[JobGroup]) -> str:
    """One line such as `45 jobs, 3 programs`; groups of map mode may share a program."""
    jobs = sum(len(group.members) for group in groups)
    programs = len({group.program if group.mode == "map" else group.id for group in groups})
    return f"{jobs} job{'s' * (jobs != 1)}, {programs} program{'s' * (programs != 1)}"
