"""The runs of one command under way: their folders, the leases that they are written under, and their results."""

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

from research import environment
from research.runs.folder import RunFolder
from research.runs.held import LOST, All, Held, LeaseLost
from research.runs.lease import Lease, acquire
from research.sweep import record
from research.sweep.checkpoint import Checkpoints
from research.sweep.display import Display
from research.sweep.finish import finish
from research.sweep.goodput import Goodput
from research.sweep.job import HASH_DIGITS, Bound, Job
from research.sweep.loop import Stopped, Trained
from research.sweep.manifest import LEASE, group_folder, replace_group, runs_in
from research.sweep.plan import Group, Options
from research.sweep.prepare import Outcome, Prepared
from research.sweep.program import device_kind
from research.tree import ConfigError

INTERRUPTED = 130


class Sweep:
    """The runs of one command under way.

    Attributes:
      lease: on the whole folder, or of the command on whose behalf a worker writes.
      outcomes: hash of a job -> what became of it.
      goodputs: where the time went, by unit.
      stop: set when the command is to stop.
    """

    def __init__(
        self,
        prepared: Prepared,
        jobs: Sequence[Job],
        name: str,
        objective: str,
        options: Options,
        display: Display,
        lease: Held,
    ):
        self.prepared, self.display, self.name, self.options = prepared, display, name, options
        self.lease = lease
        self.outcomes = dict(prepared.done)
        bounds = [bound for group in prepared.groups for bound in group.bounds]
        self.hparams = record.hyperparameters([*jobs, *(bound.job for bound in bounds)])
        self.shared = {"objective": objective, "versions": record.versions(), "commit": record.commit()}
        present = runs_in(prepared.folder)
        self.folders = {
            digest: RunFolder(present.get(digest[:HASH_DIGITS], prepared.folder / bound.job.run_id), lease)
            for digest, bound in {bound.job.hash: bound for bound in bounds}.items()
        }
        self.futures: list[Future[None]] = []
        self.goodputs: list[Goodput] = []
        self.leases: dict[str, Lease] = {}  # of groups under way
        self.stop, self.failed = threading.Event(), threading.Event()
        self.lock = threading.RLock()
        self.left = {group.id: len(self.todo(group)) for group in prepared.groups}

    def todo(self, group: Group) -> list[tuple[int, Bound]]:
        """Members without a result, with their numbers; a program that is restored whole may have others too."""
        return [(number, bound) for number, bound in enumerate(group.bounds) if bound.job.hash not in self.outcomes]

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

    def hold(self, group: Group) -> Held:
        """Hold the lease of a group until all members have a result; what their runs are written under."""
        with self.lock:
            if group.id not in self.leases:
                place = group_folder(self.prepared.folder, group.id)
                self.leases[group.id] = acquire(place / LEASE, "name", self.prepared.folder.name)
                self.write_under(group, self.lease, self.leases[group.id])
            return All((self.lease, self.leases[group.id]))

    def write_under(self, group: Group, *leases: Held) -> None:
        """Have the runs of a group written for as long as these leases are held."""
        for bound in group.bounds:
            self.folders[bound.job.hash] = RunFolder(self.folder(bound).path, All(leases))

    def let_go(self, group: Group) -> None:
        """Release the lease of a group."""
        with self.lock:
            if group.id in self.leases:
                self.write_under(group, self.lease)
                self.leases.pop(group.id).release()

    def finish(self, number: int, group: Group, bound: Bound, trained: Trained) -> None:
        """Evaluate one member and write its result."""
        if self.stop.is_set():
            raise Stopped
        folder, frame = self.folder(bound), self.frame(bound, group)
        try:
            result = finish(bound, folder, frame, trained, self.hparams[bound.job.hash])
        except (ConfigError, LeaseLost):
            raise
        except Exception as error:  # its own evaluation; the others' results are good
            self.display.error(error)
            result = record.fail(folder, frame, error)
        self.settle(number, group, bound, result)

    def interrupt(self) -> None:
        """Mark what has no result yet."""
        for group in self.prepared.groups:
            for _, bound in self.todo(group):
                content = record.unfinished(self.frame(bound, None), "interrupted", "interrupted by the user")
                self.folder(bound).write_result(content)

    def settle(self, number: int, group: Group, bound: Bound, result: dict[str, Any]) -> None:
        """A job has its result; the state of a unit is removed with its last one."""
        with self.lock:
            self.outcomes[bound.job.hash] = Outcome(bound.job, self.folder(bound).path, result)
            self.left[group.id] -= 1
            left = self.left[group.id]
        if not left:
            self.clean(group)
        elif group.mode == "map":
            self.forget_ended(next(unit for unit in group.units if unit.bounds[0] is bound))
        self.display.finished(number, result)

    def clean(self, group: Group) -> None:
        """Let go of a finished group, and remove what its units saved."""
        self.let_go(group)
        for unit in group.units:
            self.forget_ended(unit)
        if group.mode == "map" and len(group.bounds) > 1:
            self.forget(group.id)  # where the lease of a killed worker lay

    def forget_ended(self, unit: Group) -> None:
        """Remove the state of a finished unit, unless a member diverged: `verify.py --replay` starts from it."""
        results = [self.folder(bound).read_result() or {} for bound in unit.bounds]
        if all(result.get("status") in ("completed", "stopped", "pruned") for result in results):
            self.forget(unit.id)

    def forget(self, unit: str) -> None:
        """Remove the state of a unit, by its name."""
        place = group_folder(self.prepared.folder, unit)
        Checkpoints(place, {}, self.display.note, self.lease).remove()
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # with the last one

    def replace(self, group: Group, parts: Sequence[Group]) -> None:
        """A group is begun anew as others: narrower ones."""
        replace_group(self.prepared.folder, group, parts, self.lease)
        self.let_go(group)
        with self.lock:
            at = next(at for at, other in enumerate(self.prepared.groups) if other is group)
            self.prepared.groups[at : at + 1] = parts
            self.left |= {part.id: len(self.todo(part)) for part in parts}

    def folder(self, bound: Bound) -> RunFolder:
        """Where a job's run lies."""
        return self.folders[bound.job.hash]

    def frame(self, bound: Bound, group: Group | None) -> dict[str, Any]:
        """The part of a result that is known before training."""
        program = None
        if group is not None:
            program = {"mode": group.mode, "width": group.width, "device_kind": device_kind()} | environment.described()
            if group.devices > 1:
                program["devices"] = group.devices
        size = {"parameters": None if group is None else group.parameters}
        return self.shared | {"program": program} | size | record.identity(bound, self.folder(bound))
