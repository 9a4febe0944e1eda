"""The results that a sweep folder holds already, and the work that a command still has to do there."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.runs.folder import STATUSES, TRAINED, RunFolder
from research.sweep.job import HASH_DIGITS, BoundJob, Job
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.sweep.resume.manifest import runs_in
from research.tree import ConfigError


@dataclasses.dataclass
class Outcome:
    """The result of one job.

    Attributes:
      job: the job.
      folder: its run folder.
      result: content of `result.json`.
    """

    job: Job
    folder: Path
    result: dict[str, Any]

    @property
    def status(self) -> str:
        return self.result["status"]

    def objective(self) -> float:
        """The metric that Hydra's sweepers receive; NaN if the run has none."""
        value = self.result["metrics"].get(self.result["objective"])
        return float("nan") if value is None else float(value)


@dataclasses.dataclass
class Workload:
    """What a command has to do in a sweep folder. It is complete and checked before anything is written.

    Attributes:
      folder: of the sweep.
      todo: jobs to train.
      done: hash -> outcome of the jobs that are finished, and of members of `groups` that the command does not name.
      again: finished runs that are evaluated again, because `evaluation` has changed.
      groups: the plan of `todo`.
    """

    folder: Path
    todo: list[BoundJob]
    done: dict[str, Outcome]
    again: list[tuple[BoundJob, Path]]
    groups: list[JobGroup]

    @property
    def beside(self) -> int:
        """Number of finished runs that belong to no group of the plan."""
        planned = {bound.job.hash for group in self.groups for bound in group.members}
        return len(self.done.keys() - planned)


SECONDS = ("seconds_compile_group", "seconds_wall_group", "seconds_device_share")
TYPES: dict[str, Any] = {"data_sha256": str, "objective": str, "metrics": dict, "reason": str | None}
TYPES_TRAINED = {"epochs": int, "best_epoch": int | None, "trained_metrics": list, "files": dict}
TYPES_TRAINED |= dict.fromkeys(SECONDS, int | float | None)
TYPES_ADDED = {"first_bad_step": int | None, "widths": list, "resumed_at": list}  # earlier versions do not write them


def own_result(run: RunFolder, job: Job) -> dict[str, Any] | None:
    """The result of a job's run; None if there is none yet.

    Raises:
      ConfigError: it belongs to another run, or a field is missing or of a wrong type.
    """
    result = run.read_result()
    if result is None:
        return None
    try:
        if result["status"] not in STATUSES:
            raise ValueError(f"status {result['status']!r} is none that a run has")
        if result["config_hash"] != job.hash or not result["run_id"].endswith(job.hash[:HASH_DIGITS]):
            raise ValueError(f"it is the result of another run, {result['run_id']}")
        types = dict(TYPES)
        if result["status"] in TRAINED:
            types |= TYPES_TRAINED | {name: kind for name, kind in TYPES_ADDED.items() if name in result}
        for name, kind in types.items():
            if not isinstance(result[name], kind):
                raise ValueError(f"{name} is {result[name]!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        remedy = f"result.json is not as this run wrote it ({problem}); restore it, or remove it to train the run anew"
        raise ConfigError("folder", run.path, remedy) from None
    return result


def finished(jobs: Sequence[Job], folder: Path, options: Options) -> dict[str, Outcome]:
    """Hash -> outcome of the jobs that have a result here and are not trained again."""
    present = runs_in(folder)
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        path = present.get(job.hash[:HASH_DIGITS])
        result = None if path is None else own_result(RunFolder(path), job)
        if path is not None and result is not None and result.get("status") in options.kept:
            outcomes[job.hash] = Outcome(job, path, result)
    return outcomes


def cannot_continue(path: Path | None) -> bool:
    """Whether the run in this folder diverged or was pruned: its checkpoint holds a training that has ended."""
    return path is not None and (RunFolder(path).read_result() or {}).get("status") in ("diverged", "pruned")
