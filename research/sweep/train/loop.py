"""The host loop of one unit: the device trains a chunk while the rows of the chunk before are written.

A unit is a member of map mode or a whole group of vmap mode (`JobGroup.units`).
"""

import time
from typing import Any

import jax
import numpy as np

from research import compiling, engine, environment
from research.runs.files import Held
from research.sweep.checkpoint import Checkpoints
from research.sweep.device import device_kind
from research.sweep.folder import group_folder
from research.sweep.plan import JobGroup
from research.sweep.programs import Program
from research.sweep.stream import Stream
from research.sweep.train.ledger import Ledger, Stopped
from research.sweep.train.prune import losers
from research.sweep.train.writer import TrainedMember, Writer
from research.tree import unstack

SAVE_AFTER = 60.0  # seconds of training without a checkpoint; the next chunk ends with one


def group_identity(group: JobGroup) -> dict[str, Any]:
    """The identity of a unit's checkpoint: a checkpoint of another identity is not used."""
    return {
        "members": [bound.job.hash for bound in group.members],
        "mode": group.mode,
        "width": group.width,
        "devices": group.devices,
        "device_kind": device_kind(),
        "data_sha256": group.members[0].dataset.sha256,
        **environment.described(),
        "compiler": compiling.options(),
    }


class Training:
    """A unit in training, from its checkpoint (if there is one) to its results.

    Args:
      ledger: of the command.
      group: the group of the unit.
      number: of the group in the plan.
      unit: what is trained.
      program: of the unit, with its first state.
      lease: under which its checkpoints are written.
      seconds_compile: that it took to initialise and compile the program.

    Attributes:
      done: epochs that the device has trained, or is training.
      saved: epochs done at the last checkpoint.
      seconds: of training so far.
      writer: of the metrics and events of its members.
    """

    def __init__(
        self,
        ledger: Ledger,
        group: JobGroup,
        number: int,
        unit: JobGroup,
        program: Program,
        lease: Held,
        seconds_compile: float,
    ):
        self.ledger, self.unit, self.number, self.program, self.lease = ledger, unit, number, program, lease
        self.position = group.position(unit)
        self.trainer = unit.members[0].job.trainer
        self.folds = [bound.job.data.fold for bound in unit.members]
        settled = set(range(len(unit.members))) - {member for member, _ in ledger.todo(unit)}
        folders = [ledger.folder(bound) for bound in unit.members]
        self.writer = Writer(folders, unit.budget.steps_per_epoch, self.trainer, settled)
        self.seconds, self.seconds_compile, self._chunks, self._last_chunk = 0.0, seconds_compile, 0, 0.0
        self._seconds_saved = 0.0  # of training, at the last checkpoint
        self._began: float | None = None  # when the call of `advance` or `finish` under way began
        self._unwritten: tuple[int, dict[str, jax.Array], list[int]] | None = None  # epoch, metrics and slots
        path = group_folder(ledger.workload.folder, unit.id)
        self.checkpoints = Checkpoints(path, group_identity(unit), ledger.display.note, lease)
        try:
            self.done = self._resume()
        except BaseException:
            self.checkpoints.close()
            raise
        self.saved = self.done

    def train(self) -> list[TrainedMember]:
        """Train to the end.

        Raises:
          Stopped: the command is to stop; the state is saved.
        """
        if self.ledger.stop.is_set():
            raise Stopped
        while self.learning:
            self.advance()
        return self.finish()

    @property
    def learning(self) -> bool:
        """Whether any epoch is left and any member has not ended."""
        return self.done < self.trainer.epochs and self.writer.learning() > 0

    def advance(self, settle: bool = False) -> None:
        """Train one chunk and write the chunk before; with `settle`, write this chunk as well.

        Raises:
          Stopped: the command is to stop; the state is saved.
        """
        self._began = time.monotonic()
        try:
            self._advance(settle)
        finally:
            self.seconds, self._began = self._seconds_now(), None

    def _seconds_now(self) -> float:
        """Seconds of training so far, with those of the call under way."""
        return self.seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    @property
    def _unsaved_for_long(self) -> bool:
        return self._seconds_now() - self._seconds_saved >= SAVE_AFTER

    def _advance(self, settle: bool) -> None:
        if self._unwritten is None:
            self._last_chunk = time.monotonic()
        epochs = min(self.trainer.evaluate_every, self.trainer.epochs - self.done)
        metrics = self.program.train(epochs)
        self.done, self._chunks = self.done + epochs, self._chunks + 1
        self._write()  # the device trains the new chunk meanwhile
        self._unwritten = self.done, metrics, list(self.program.slots)
        options, stop = self.ledger.options, self.ledger.stop.is_set()
        due = self._chunks % options.checkpoint_every == 0 or self._unsaved_for_long
        save = stop or (due and self.done < self.trainer.epochs)
        compare = options.prune != "none" and len(self.unit.members) > 1
        # The program of streamed rows returns when the chunk is nearly done, and the next call takes as long.
        if settle or compare or save or isinstance(self.program, Stream):
            self._write()
        if compare:
            for number in losers(self.writer.standing(self.folds), options, self.trainer):
                self.writer.pruned[number] = self.done
        self.program.leave(self.writer.gone(), self.done, options.narrow)
        if save:
            self.save()
        if stop:
            raise Stopped

    def save(self) -> None:
        """Save the state; all rows must be written."""
        started = time.monotonic()
        self.checkpoints.save(self.done, self.program.collect(), self._record())
        self.ledger.spend("write", time.monotonic() - started)
        self.saved, self._seconds_saved = self.done, self._seconds_now()

    def close(self) -> None:
        """Wait until the last checkpoint is on disk."""
        self.checkpoints.close()

    def _write(self) -> None:
        """Write the rows of the last chunk, unless they are written already."""
        if self._unwritten is None:
            return
        epoch, metrics, slots = self._unwritten
        self._unwritten = None
        share = self.writer.learning(slots) / len(slots)
        values = self.program.read(metrics)
        read = time.monotonic()
        self.ledger.spend("learn", share * (read - self._last_chunk))
        self.ledger.spend("idle", (1 - share) * (read - self._last_chunk))
        self._last_chunk = read
        self.writer.write(epoch, values, slots)
        self.lease.check()
        self.ledger.display.chunk(self.number, epoch, self.writer.latest, self.position)
        self.ledger.spend("write", time.monotonic() - read)

    def finish(self) -> list[TrainedMember]:
        """The results of all members, when nothing is left to train."""
        self._began = time.monotonic()
        self._write()
        state = self.program.collect()
        # A long training keeps its last state until the results are written; their evaluation may have to wait.
        is_worth_it = self._unsaved_for_long and engine.NEVER in self.writer.bad_step
        if self.checkpoints.epochs() or is_worth_it or self.ledger.stop.is_set():
            self.checkpoints.save(self.done, state, self._record())
        scores = self.program.score(state)
        kept = engine.kept_params(state)
        seconds = self._seconds_now()
        results = []
        for number in range(len(self.unit.members)):
            result = self.writer.outcome(number, int(state.best_epoch[number]))
            if result.params is not None:
                result.params = jax.tree.map(np.asarray, unstack(kept, number))
            if result.status != "diverged":
                result.metrics = {name: float(values[number]) for name, values in scores.items()}
            result.widths, result.resumed = tuple(self.program.widths), tuple(self.writer.resumed)
            result.seconds_compile_group = self.seconds_compile
            result.seconds_wall_group = seconds
            result.seconds_device_share = seconds / len(self.unit.members)
            results.append(result)
        return results

    def _record(self) -> dict[str, Any]:
        commit = self.ledger.shared["commit"]
        commits = list(dict.fromkeys([*self.writer.commits, *([commit] if commit else [])]))
        return self.writer.record() | {"commits": commits, "widths": self.program.widths}

    def _resume(self) -> int:
        """Put the newest usable checkpoint into the program and the writer; returns its epochs, 0 without one."""
        restored = self.checkpoints.restore(self.program.template(), self.writer.missing_row)
        if restored is None:
            return 0
        epoch, state, record = restored
        self.program.resume(state, epoch, record.get("widths", ()))
        self.writer.resume(epoch, record)
        self.ledger.display.note(f"going on from epoch {epoch}")
        return epoch
