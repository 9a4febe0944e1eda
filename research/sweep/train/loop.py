"""The host loop of one unit: the device trains a chunk while the rows of the chunk before are written.

A unit is a member of map mode or a whole group of vmap mode (`JobGroup.units`).
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from research import engine
from research.runs.folder import RunFolder
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.sweep.program import Alone, Together
from research.sweep.resume.checkpoint import Checkpoints
from research.sweep.train.goodput import Goodput
from research.sweep.train.prune import losers
from research.sweep.train.writer import TrainedMember, Writer
from research.tree import unstack


class Stopped(Exception):
    """Ends a training because the command is to stop; its state is in the checkpoint."""


@dataclasses.dataclass
class Control:
    """The connections of a training to its command.

    Attributes:
      progress: called after every chunk with the epochs done and the metrics of all members.
      stop: whether the command is to stop; asked after every chunk.
      warn: prints one line.
      checkpoints: of this unit; None if none are made.
      commit: of the code that trains.
      settled: members that have a result already (see `Writer`).
    """

    progress: Callable[[int, Mapping[str, Any]], None]
    stop: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda text: None
    checkpoints: Checkpoints | None = None
    commit: str | None = None
    settled: Collection[int] = ()


class Training:
    """A unit in training, from its checkpoint (if there is one) to its results.

    Attributes:
      done: epochs that the device has trained, or is training.
      saved: epochs done at the last checkpoint.
      writer: of the metrics and events of its members.
    """

    def __init__(
        self,
        group: JobGroup,
        program: Alone | Together,
        folders: Sequence[RunFolder],
        options: Options,
        control: Control,
        goodput: Goodput,
    ):
        self.group, self.program, self.options, self.control, self.goodput = group, program, options, control, goodput
        self.trainer = group.members[0].job.trainer
        self.folds = [bound.job.data.fold for bound in group.members]
        self.writer = Writer(folders, group.budget.steps_per_epoch, self.trainer, control.settled)
        self.seconds, self._chunks = 0.0, 0
        self._unwritten: tuple[int, dict[str, jax.Array], list[int]] | None = None  # epoch, metrics and slots
        self.done = self._resume()
        self.saved = self.done

    def train(self) -> list[TrainedMember]:
        """Train to the end.

        Raises:
          Stopped: the command is to stop; the state is saved.
        """
        if self.control.stop():
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
        started = time.monotonic()
        try:
            self._advance(settle)
        finally:
            self.seconds += time.monotonic() - started

    def _advance(self, settle: bool) -> None:
        if self._unwritten is None:
            self.goodput.begin()
        trainer, control = self.trainer, self.control
        epochs = min(trainer.evaluate_every, trainer.epochs - self.done)
        metrics = self.program.train(epochs)
        self.done, self._chunks = self.done + epochs, self._chunks + 1
        self._write()  # the device trains the new chunk meanwhile
        self._unwritten = self.done, metrics, list(self.program.slots)
        stop = control.stop()
        due = stop or self._chunks % self.options.checkpoint_every == 0
        save = due and control.checkpoints is not None and (stop or self.done < trainer.epochs)
        compare = self.options.prune != "none" and len(self.group.members) > 1
        if settle or compare or save or stop:
            self._write()
        if compare:
            for number in losers(self.writer.standing(self.folds), self.options, trainer):
                self.writer.pruned[number] = self.done
        self.program.leave(self.writer.gone(), self.done, self.options.narrow)
        if save:
            self.save()
        if stop:
            raise Stopped

    def save(self) -> None:
        """Save the state; all rows must be written."""
        assert self.control.checkpoints is not None
        with self.goodput.writing():
            self.control.checkpoints.save(self.done, self.program.collect(), self._record())
        self.saved = self.done

    def close(self) -> None:
        """Wait until the last checkpoint is on disk."""
        if self.control.checkpoints is not None:
            self.control.checkpoints.close()

    def _write(self) -> None:
        """Write the rows of the last chunk, unless they are written already."""
        if self._unwritten is None:
            return
        epoch, metrics, slots = self._unwritten
        self._unwritten = None
        with self.goodput.chunk(len(slots), self.writer.learning(slots)):
            values = self.program.read(metrics)
        with self.goodput.writing():
            self.writer.write(epoch, values, slots)
            self.control.progress(epoch, self.writer.latest)

    def finish(self) -> list[TrainedMember]:
        """The results of all members, when nothing is left to train."""
        started = time.monotonic()
        self._write()
        state, checkpoints = self.program.collect(), self.control.checkpoints
        # A training that was long enough for a checkpoint keeps its last state until the results are written.
        if checkpoints is not None and (checkpoints.epochs() or self.control.stop()):
            checkpoints.save(self.done, state, self._record())
        scores = self.program.score(state)
        kept = engine.kept_params(state)
        seconds = self.seconds + time.monotonic() - started
        results = []
        for number in range(len(self.group.members)):
            result = self.writer.outcome(number, int(state.best_epoch[number]))
            if result.params is not None:
                result.params = jax.tree.map(np.asarray, unstack(kept, number))
            if result.status != "diverged":
                result.metrics = {name: float(values[number]) for name, values in scores.items()}
            result.widths, result.resumed = tuple(self.program.widths), tuple(self.writer.resumed)
            result.seconds_compile_group = self.goodput.compile
            result.seconds_wall_group = seconds
            result.seconds_device_share = seconds / len(self.group.members)
            results.append(result)
        return results

    def _record(self) -> dict[str, Any]:
        commit = [self.control.commit] if self.control.commit else []
        commits = list(dict.fromkeys([*self.writer.commits, *commit]))
        return self.writer.record() | {"commits": commits, "widths": self.program.widths}

    def _resume(self) -> int:
        """Put the newest usable checkpoint into the program and the writer; returns its epochs, 0 without one."""
        if self.control.checkpoints is None:
            return 0
        restored = self.control.checkpoints.restore(self.program.template(), self.writer.missing_row)
        if restored is None:
            return 0
        epoch, state, record = restored
        self.program.resume(state, epoch, record.get("widths", ()))
        self.writer.resume(epoch, record)
        self.control.warn(f"going on from epoch {epoch}")
        return epoch
