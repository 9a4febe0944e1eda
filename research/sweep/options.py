"""The settings `sweep.*` and `hydra.launcher.*`: how and where a command trains. They change no hash of a job."""

import importlib.util
import os
import re
from typing import Annotated, Any, Literal

import jax

from research.ranges import Count, Range
from research.tree import ConfigError, recipe

NEEDS = {"ray": ("ray", "ray"), "dask": ("distributed", "dask"), "submitit": ("submitit", "slurm")}  # module, extra
RETRIED = {"none": (), "failed": ("failed",), "diverged": ("diverged",), "all": ("failed", "diverged", "pruned")}


@recipe
class Options:
    """Settings of the sweep itself.

    Attributes:
      mode: "map" trains every member with the program of one job, and several threads train different members.
        "vmap" trains all members of a group in one larger program. "auto" chooses by backend and by the work of a
        step; the same job on the same kind of device always gets the same mode.
      max_width: the largest number of members in a group.
      plan_only: print the plan and stop.
      fail_fast: stop after the first failed run.
      concurrency: number of threads that compile and train. A thread trains one member in map mode and one group in
        vmap mode. null means one thread for each CPU core, or one for each accelerator. It does not change results.
      checkpoint_every: number of evaluations between two checkpoints. One is also written after an evaluation that
        begins a minute of training or more after the last checkpoint.
      retry: which unsuccessful runs are trained again: "none", "failed", "diverged" or "all" (pruned runs too).
        Interrupted runs are always continued.
      prune: stop members that are worse than their peers of the same group: "none", "median" or
        "successive_halving" (see `research.sweep.train.prune`). Which members are pruned does not depend on
        `concurrency`, because members of map mode then advance in rounds (`research.sweep.train.rounds`).
      peers: whom a member is compared with: "program" means the members of its group and fold; "command" means all
        points of the command, across its programs. A point is then judged, and pruned, by the mean over its seeds and
        folds. That needs map mode, in which all members advance in rounds, and one schedule for all.
      prune_after: number of epochs before the first member can be pruned.
      narrow: in vmap mode, move the learning members to a narrower program once others have ended. The bits of a run
        then depend on when that happened, and `result.json` records the widths.
      devices: number of devices that share the members; null means all devices of this process. A vmap program puts
        an equal share of its members on each device. In map mode each thread uses one device.
      memory_limit: the most memory that one program may use, in bytes or as text ("2GB"); null means the memory that
        is free on the device.
    """

    mode: Literal["auto", "vmap", "map"]
    max_width: Annotated[int, Range(1, 65_536)]
    plan_only: bool
    fail_fast: bool
    concurrency: Annotated[int, Range(1, 1_024)] | None
    checkpoint_every: Count
    retry: Literal["none", "failed", "diverged", "all"]
    prune: Literal["none", "median", "successive_halving"]
    peers: Literal["program", "command"]
    prune_after: Count
    narrow: bool
    memory_limit: Annotated[int, Range(1, 2**63 - 1)] | str | None
    devices: Annotated[int, Range(1, 65_536)] | None

    def validate(self) -> None:
        _ = self.memory

    @property
    def memory(self) -> float | None:
        """`memory_limit` in bytes.

        Raises:
          ConfigError: the text is not an amount of memory.
        """
        if self.memory_limit is None:
            return None
        match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kMGT]?)B?", str(self.memory_limit))
        if match is None or float(match[1]) <= 0:
            raise ConfigError("memory_limit", self.memory_limit, "expected bytes, or text like 500MB or 2GB")
        return float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")

    @property
    def across(self) -> bool:
        """Whether members are pruned by a comparison across programs."""
        return self.prune != "none" and self.peers == "command"

    @property
    def kept(self) -> tuple[str, ...]:
        """Statuses of runs that are not trained again."""
        statuses = ("completed", "stopped", "diverged", "failed", "pruned")
        return tuple(status for status in statuses if status not in RETRIED[self.retry])

    @property
    def threads(self) -> int:
        """Number of threads that compile and train."""
        if self.concurrency is not None:
            return self.concurrency
        return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else self.devices_used

    @property
    def devices_used(self) -> int:
        """Number of devices that share the members."""
        return min(self.devices or jax.local_device_count(), jax.local_device_count())


@recipe
class Executor:
    """Where groups are trained.

    Attributes:
      executor: "inline" means this process; "joblib" local processes (loky); "ray" and "dask" their clusters, through
        joblib; "submitit" jobs of SLURM.
      workers: groups that are trained at the same time.
      address: of a running cluster ("auto" for Ray, tcp://... for Dask); null starts one on this machine.
      parameters: of submitit's executor, for example timeout_min, slurm_partition, or cluster=local for a trial.
    """

    executor: Literal["inline", "joblib", "ray", "dask", "submitit"]
    workers: Annotated[int, Range(1, 65_536)]
    address: str | None
    parameters: dict[str, Any]

    def validate(self) -> None:
        if self.executor in NEEDS:
            module, extra = NEEDS[self.executor]
            if importlib.util.find_spec(module) is None:
                remedy = f"it needs the package {module}: pip install -e '.[{extra}]'"
                raise ConfigError("executor", self.executor, remedy)
