"""The runs of one command while it works: their folders, the leases under which files are written, their results."""

import contextlib
import dataclasses
import functools
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from research import compiling, environment
from research.runs.events import unify
from research.runs.files import LOST, All, Held, LeaseLost
from research.runs.folder import RunFolder
from research.runs.lease import Lease, acquire
from research.sweep.checkpoint import remove
from research.sweep.device import device_kind
from research.sweep.folder import LEASE, Outcome, Workload, group_folder, runs_in
from research.sweep.job import HASH_DIGITS, BoundJob, Job, lineage
from research.sweep.manifest import override_keys, replace_group, swept_keys
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.sweep.train.display import Display
from research.sweep.train.finish import finish
from research.sweep.train.signals import INTERRUPTED, in_session
from research.sweep.train.writer import TrainedMember
from research.tree import ConfigError, config_hash, flatten, plain

# What the time of the threads goes to: members that learn, compiling, padding and members that had ended, files, and
# waiting: there is no work, or only for programs that another thread compiles.
SPENT = ("learn", "compile", "idle", "write", "wait")
CODE = ("conf", "hydra_plugins", "research", "scripts")  # folders whose files can change a result
WIDTHS = ("hidden_dim", "hidden_dims")  # keys of a model that `model.parameters` may choose


class Stopped(Exception):
    """Ends a training because the command is to stop; its state is in the checkpoint."""


class Ledger:
    """The runs of one command while it works.

    Args:
      workload: what is to be done.
      jobs: of the command.
      name: of the sweep.
      objective: is recorded in every result.
      options: of the sweep.
      display: shows what happens.
      lease: on the sweep folder; in a worker, that of the command for which it works.

    Attributes:
      outcomes: hash -> outcome of the jobs that have a result.
      spent: kind of work -> seconds of all units.
      stop: set when the command is to stop.
      failed: set when a run has failed.
    """

    def __init__(
        self,
        workload: Workload,
        jobs: Sequence[Job],
        name: str,
        objective: str,
        options: Options,
        display: Display,
        lease: Held,
    ):
        self.workload, self.display, self.name, self.options, self.lease = workload, display, name, options, lease
        self.outcomes = dict(workload.done)
        bounds = [bound for group in workload.groups for bound in group.members]
        self.hparams = hyperparameters([*jobs, *(bound.job for bound in bounds)])
        self.shared = {"objective": objective, "versions": versions(), "commit": commit()}
        present = runs_in(workload.folder)
        self.folders = {
            digest: RunFolder(present.get(digest[:HASH_DIGITS], workload.folder / bound.job.run_id), lease)
            for digest, bound in {bound.job.hash: bound for bound in bounds}.items()
        }
        self.futures: list[Future[None]] = []
        self.spent: dict[str, float] = dict.fromkeys(SPENT, 0.0)
        self.stop, self.failed = threading.Event(), threading.Event()
        self.lock = threading.RLock()
        self._leases: dict[str, Lease] = {}  # of the groups that are training
        self._left = {group.id: len(self.todo(group)) for group in workload.groups}

    def spend(self, kind: str, seconds: float) -> None:
        """Count seconds of one kind of `SPENT`."""
        with self.lock:
            self.spent[kind] += seconds

    def waited(self, total: float) -> None:
        """Count what is left of the seconds of all threads, in all, as waiting."""
        with self.lock:
            self.spent["wait"] += max(total - sum(self.spent.values()), 0.0)

    def todo(self, group: JobGroup) -> list[tuple[int, BoundJob]]:
        """Number and job of the members without a result."""
        return [(number, bound) for number, bound in enumerate(group.members) if bound.job.hash not in self.outcomes]

    def folder(self, bound: BoundJob) -> RunFolder:
        """The run folder of a job."""
        return self.folders[bound.job.hash]

    def frame(self, bound: BoundJob, group: JobGroup | None) -> dict[str, Any]:
        """The fields of a result that are known before training."""
        program = None
        if group is not None:
            program = {"mode": group.mode, "width": group.width, "device_kind": device_kind()}
            program |= environment.described() | {"compiler": compiling.options()}
            if group.devices > 1:
                program["devices"] = group.devices
        parameters = {"parameters": None if group is None else group.parameters}
        return self.shared | {"program": program} | parameters | identity(bound, self.folder(bound))

    # ------------------------------------------------------------------------------------------------------- leases

    def hold(self, group: JobGroup) -> Held:
        """Hold the lease of a group until all its members have a result; its runs are written under both leases."""
        with self.lock:
            if group.id not in self._leases:
                path = group_folder(self.workload.folder, group.id) / LEASE
                self._leases[group.id] = acquire(path, "name", self.workload.folder.name)
                self._write_under(group, self.lease, self._leases[group.id])
            return All((self.lease, self._leases[group.id]))

    def _write_under(self, group: JobGroup, *leases: Held) -> None:
        for bound in group.members:
            self.folders[bound.job.hash] = RunFolder(self.folder(bound).path, All(leases))

    def let_go(self, group: JobGroup) -> None:
        """Release the lease of a group."""
        with self.lock:
            if group.id in self._leases:
                self._write_under(group, self.lease)
                self._leases.pop(group.id).release()

    # ------------------------------------------------------------------------------------------------------ results

    def finish(self, number: int, group: JobGroup, bound: BoundJob, trained: TrainedMember) -> None:
        """Evaluate a trained member of the group of this number, and write its result."""
        if self.stop.is_set():
            raise Stopped
        folder, frame = self.folder(bound), self.frame(bound, group)
        try:
            result = finish(bound, folder, frame, trained, self.hparams[bound.job.hash])
        except (ConfigError, LeaseLost):
            raise
        except Exception as error:  # only this run has failed; the results of the others are good
            self.display.error(error)
            result = fail(folder, frame, error)
        self.settle(number, group, bound, result)

    def settle(self, number: int, group: JobGroup, bound: BoundJob, result: dict[str, Any]) -> None:
        """Take the result of a job; the checkpoints of a unit are deleted when its last member has one."""
        with self.lock:
            self.outcomes[bound.job.hash] = Outcome(bound.job, self.folder(bound).path, result)
            self._left[group.id] -= 1
            left = self._left[group.id]
        if not left:
            self.clean(group)
        elif group.mode == "map":
            self._forget_ended(next(unit for unit in group.units if unit.members[0] is bound))
        self.display.finished(number, result)

    def interrupt(self) -> None:
        """Mark the runs without a result as interrupted."""
        for group in self.workload.groups:
            for _, bound in self.todo(group):
                content = unfinished(self.frame(bound, None), "interrupted", "interrupted by the user")
                self.folder(bound).write_result(content)

    def leave(self) -> None:
        """End this process at once; in a session it stays, and the command ends after the step under way."""
        if in_session():
            return
        code = INTERRUPTED
        try:
            self.interrupt()
        except LeaseLost as error:
            sys.stderr.write(f"error: {error}\n")
            code = LOST
        except Exception:
            pass
        sys.stdout.flush()
        os._exit(code)

    # -------------------------------------------------------------------------------------------------- checkpoints

    def clean(self, group: JobGroup) -> None:
        """Release a finished group, and delete the checkpoints of its units."""
        self.let_go(group)
        for unit in group.units:
            self._forget_ended(unit)
        if group.mode == "map" and len(group.members) > 1:
            self.forget(group.id)  # the folder that held only the lease

    def _forget_ended(self, unit: JobGroup) -> None:
        """Delete the checkpoints of a finished unit, except of one that diverged: `verify.py --replay` needs them."""
        results = [self.folder(bound).read_result() or {} for bound in unit.members]
        if all(result.get("status") in ("completed", "stopped", "pruned") for result in results):
            self.forget(unit.id)

    def forget(self, unit: str) -> None:
        """Delete the checkpoints of the unit of this name."""
        path = group_folder(self.workload.folder, unit)
        remove(path, self.lease)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # fails unless this was the last unit

    def replace(self, group: JobGroup, parts: Sequence[JobGroup]) -> None:
        """Begin a group again as narrower groups."""
        replace_group(self.workload.folder, group, parts, self.lease)
        self.let_go(group)
        with self.lock:
            at = next(at for at, planned in enumerate(self.workload.groups) if planned is group)
            self.workload.groups[at : at + 1] = parts
            self._left |= {part.id: len(self.todo(part)) for part in parts}


# --------------------------------------------------------------------------------------------------- fields of records


def identity(bound: BoundJob, run: RunFolder) -> dict[str, Any]:
    """The fields of `result.json` that depend on the job alone."""
    job = bound.job
    return {
        "run_id": run.path.name,
        "overrides": list(job.overrides),
        "command": command(job),
        "config_hash": job.hash,
        "data_sha256": bound.dataset.sha256,
        "evaluation": plain(job.evaluation),
        "sizes": {name: value for name, value in plain(bound.model).items() if name in WIDTHS},
        "lineage": lineage(job),
    }


def command(job: Job) -> str:
    """The command that trains this run alone."""
    overrides = [override for override in job.overrides if override.partition("=")[0] not in ("name", "hydra.mode")]
    return shlex.join(["python", "scripts/train.py", *overrides])


def config_content(bound: BoundJob, name: str) -> dict[str, Any]:
    """Content of `config.json`: the hashed config, and what is needed to use the run without its data."""
    job = bound.job
    tree = job.tree()
    assert config_hash(tree) == job.hash
    return {
        "config": tree,
        "config_hash": job.hash,
        "name": name,
        "choices": dict(job.choices),
        "trusted_packages": list(job.trusted),
        "facts": {**dataclasses.asdict(bound.dataset.facts), "name": bound.dataset.name},
        "preparation": bound.dataset.preparation.record(),
    }


def unfinished(content: Mapping[str, Any], status: str, reason: str) -> dict[str, Any]:
    """The result of a run whose training did not end."""
    empty = {
        "epochs": 0,
        "best_epoch": None,
        "seconds_compile_group": None,
        "seconds_wall_group": None,
        "seconds_device_share": None,
    }
    return {**content, **empty, "status": status, "reason": reason, "metrics": {}, "null_reasons": {}}


def fail(run: RunFolder, content: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Write the result of a run that raised an exception, and return it."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    result = unfinished(content, "failed", f"{type(error).__name__}: {first_line}")
    run.write_result(result)
    return result


def hyperparameters(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Hash -> swept keys and their values (of a single job: its overrides), for the HParams page of TensorBoard."""
    keys = swept_keys(jobs) or sorted(set().union(*map(override_keys, jobs)))
    rows = []
    for job in jobs:
        flat = {**flatten(job.tree()), **job.choices}
        rows.append({key: flat[key] for key in keys if key in flat})
    return {job.hash: row for job, row in zip(jobs, unify(rows), strict=True)}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    from importlib.metadata import version

    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


@functools.cache
def commit() -> str | None:
    """The commit of this repository, with `+` if its code is another one; None outside of git.

    It is another one if a file that git tracks has changed, or if a folder of `CODE` holds a new file.
    """
    root = Path(__file__).parents[3]

    def git(*arguments: str) -> str:
        return subprocess.run(
            # Git must not try to lock its index: in a folder that it cannot write, it would leave the lock behind.
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        new = git("ls-files", "--others", "--exclude-standard", "--", *CODE)
        return git("rev-parse", "HEAD") + ("+" if changed or new else "")
    except (OSError, subprocess.CalledProcessError):
        return None
