"""What a sweep folder holds: the lease on it, its runs, and their results.

One process at a time writes into a sweep folder, and says so with a lease.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from research.runs.folder import STATUSES, TRAINED, RunFolder
from research.runs.lease import Lease, acquire
from research.runs.summary import SUMMARY
from research.sweep.checkpoint import generations
from research.sweep.job import HASH_DIGITS, BoundJob, Job
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.tree import ConfigError, config_hash

LEASE = ".lease.json"
GROUPS = ".groups"  # leases of groups and checkpoints of units
LAUNCHES = ".launch"  # what a command hands to its workers
SEARCH = "search.json"  # the study of a search

_held: dict[Path, Lease] = {}  # of this process


def hold(folder: Path) -> None:
    """Hold a sweep folder for this process until `release`. Nothing may be written there before.

    Raises:
      ConfigError: another command holds it, or it contains a link.
    """
    if folder in _held:
        return
    refuse_links(folder)
    _held[folder] = acquire(folder / LEASE, "name", folder.name)


def release() -> None:
    """Release all folders of this process; a folder that was made and stayed empty is removed."""
    while _held:
        _, lease = _held.popitem()
        lease.release()


def check_held(folder: Path) -> None:
    """Raise LeaseLost if this process held a folder and another process has taken it over."""
    if folder in _held:
        _held[folder].check()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """Hold a sweep folder inside a `with` block; if the process held it before, it holds it afterwards too."""
    before = folder in _held
    hold(folder)
    try:
        yield _held[folder]
    finally:
        if not before:
            _held.pop(folder).release()


def refuse_links(folder: Path) -> None:
    """Refuse a link anywhere in a sweep folder, because files written there would land elsewhere.

    Two folders are not searched: checkpoints, whose reader refuses links itself, and the files of executors.

    Raises:
      ConfigError: naming the link.
    """
    folders = [folder] if folder.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise linked(folder, Path(entry.path))
                if entry.is_dir(follow_symlinks=False) and entry.name not in (GROUPS, LAUNCHES):
                    folders.append(Path(entry.path))


def linked(folder: Path, link: Path) -> ConfigError:
    """The refusal of a link in a sweep folder."""
    return ConfigError("name", folder.name, f"{link} is a link; runs are written below their sweep alone, remove it")


# ------------------------------------------------------------------------------------------------------------- the runs


def runs_in(folder: Path, digits: str = "") -> dict[str, Path]:
    """First hash digits -> folder of the runs in a sweep folder; with `digits`, only of the run with these digits."""
    if not folder.is_dir():
        return {}
    runs = [path.parent for path in folder.glob(f"*{digits}/config.json")]
    for path in runs:
        if path.is_symlink():
            raise linked(folder, path)
    return {path.name.rpartition("-")[2]: path for path in runs}


def configurations(folder: Path) -> dict[str, list[Path]]:
    """Short name -> folders of the finished runs that differ only in their seed.

    A configuration keeps the name of its summary; a new one is named like the first of its runs, without the seed.
    """
    names = {path.name.rpartition("-")[2]: path.name for path in (folder / SUMMARY).glob("*")}
    runs: dict[str, list[Path]] = {}
    for path in sorted(runs_in(folder).values()):
        run = RunFolder(path)
        if (run.read_result() or {}).get("status") in ("completed", "stopped"):
            tree = {key: value for key, value in run.read_config()["config"].items() if key != "seed"}
            digits = config_hash(tree)[:HASH_DIGITS]
            parts = [part for part in path.name.rpartition("-")[0].split("-") if not part.startswith("seed=")]
            runs.setdefault(names.setdefault(digits, f"{'-'.join(parts) or 'all_seeds'}-{digits}"), []).append(path)
    return runs


def group_folder(folder: Path, name: str) -> Path:
    """The folder with the lease of a group, or with the checkpoints of a unit."""
    return folder / GROUPS / name


def saved(folder: Path, unit: str) -> list[int]:
    """Epochs of the checkpoints of a unit, oldest first."""
    return [epoch for epoch, _ in generations(group_folder(folder, unit))]


# ---------------------------------------------------------------------------------------------------------- the results


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
