"""The runs of one command while it works: their folders, the leases under which files are written, their results."""

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

from research import environment
from research.runs.files import LOST, All, Held, LeaseLost
from research.runs.folder import RunFolder
from research.runs.lease import Lease, acquire
from research.sweep.device import device_kind
from research.sweep.job import HASH_DIGITS, BoundJob, Job
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.sweep.resume.checkpoint import remove
from research.sweep.resume.hold import LEASE
from research.sweep.resume.manifest import group_folder, replace_group, runs_in
from research.sweep.resume.results import Outcome, Workload
from research.sweep.train import record
from research.sweep.train.display import Display
from research.sweep.train.finish import finish
from research.sweep.train.goodput import Goodput
from research.sweep.train.loop import Stopped
from research.sweep.train.writer import TrainedMember
from research.tree import ConfigError

INTERRUPTED = 130  # exit code


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
      goodputs: how the time of each unit was spent.
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
        self.hparams = record.hyperparameters([*jobs, *(bound.job for bound in bounds)])
        self.shared = {"objective": objective, "versions": record.versions(), "commit": record.commit()}
        present = runs_in(workload.folder)
        self.folders = {
            digest: RunFolder(present.get(digest[:HASH_DIGITS], workload.folder / bound.job.run_id), lease)
            for digest, bound in {bound.job.hash: bound for bound in bounds}.items()
        }
        self.futures: list[Future[None]] = []
        self.goodputs: list[Goodput] = []
        self.stop, self.failed = threading.Event(), threading.Event()
        self.lock = threading.RLock()
        self._leases: dict[str, Lease] = {}  # of the groups that are training
        self._left = {group.id: len(self.todo(group)) for group in workload.groups}

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
            program = {"mode": group.mode, "width": group.width, "device_kind": device_kind()} | environment.described()
            if group.devices > 1:
                program["devices"] = group.devices
        parameters = {"parameters": None if group is None else group.parameters}
        return self.shared | {"program": program} | parameters | record.identity(bound, self.folder(bound))

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
            result = record.fail(folder, frame, error)
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
                content = record.unfinished(self.frame(bound, None), "interrupted", "interrupted by the user")
                self.folder(bound).write_result(content)

    def leave(self) -> NoReturn:
        """End this process at once."""
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
