"""The host loop over one unit: chunks on the device, rows and events on disk while the next chunk runs.

A unit is a member of map mode, or a whole group of vmap mode (`Group.units`).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from research import engine
from research.engine import NEVER, Trainer
from research.metrics import higher_is_better
from research.runs.events import EventFile
from research.runs.folder import RunFolder
from research.sweep.checkpoint import Checkpoints
from research.sweep.goodput import Goodput
from research.sweep.plan import Group, Options
from research.sweep.program import Alone, Together
from research.sweep.prune import Standing, losers
from research.tree import unstack


class Stopped(Exception):
    """Leaves a training when the command is to stop; what was trained is in the checkpoint."""


@dataclasses.dataclass
class Trained:
    """What training left of one member. Times are those of its unit: in map mode its own.

    Attributes:
      status: completed, stopped, pruned or diverged.
      reason: why it stopped or diverged.
      params: the kept parameters (numpy), or None where a diverged run has none.
      epochs: epochs done.
      metrics: validation and test metrics of the kept parameters; empty for a diverged run.
      best_epoch: epoch of the kept parameters.
      bad_step: first step that was not finite, or NEVER.
      widths: (epochs done, width) of the programs it was trained by.
      resumed: epochs at which the training went on from a checkpoint.
      seconds_compile_group: to initialise it, and to compile its program where no other unit had done so.
      seconds_wall_group: to train it.
      seconds_device_share: the same divided by the number of members.
    """

    status: str
    reason: str | None
    params: Any
    epochs: int
    metrics: dict[str, float]
    best_epoch: int
    bad_step: int = NEVER
    widths: Sequence[tuple[int, int]] = ()
    resumed: Sequence[int] = ()
    seconds_compile_group: float = 0.0
    seconds_wall_group: float = 0.0
    seconds_device_share: float = 0.0


@dataclasses.dataclass
class Control:
    """What a training is told while it runs.

    Attributes:
      progress: called after every chunk with the epochs done and the metrics by member.
      stop: whether the command is to stop; looked at after every chunk.
      warn: shows one line.
      checkpoints: of this unit; None: none are made.
      commit: of the code that trains.
      settled: members that have their results, and train along for the sake of others; their files stay as they are.
    """

    progress: Callable[[int, Mapping[str, Any]], None]
    stop: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda text: None
    checkpoints: Checkpoints | None = None
    commit: str | None = None
    settled: Collection[int] = ()


class Training:
    """A unit under way: from its checkpoint if there is one, chunk by chunk, to its results.

    Attributes:
      done: epochs that the device has done or works on.
      writer: of the metrics and events of its members.
    """

    def __init__(
        self,
        group: Group,
        program: Alone | Together,
        folders: Sequence[RunFolder],
        options: Options,
        control: Control,
        goodput: Goodput,
    ):
        self.group, self.program, self.options, self.control, self.goodput = group, program, options, control, goodput
        self.trainer = group.bounds[0].job.trainer
        self.folds = [bound.job.data.fold for bound in group.bounds]
        self.writer = Writer(folders, group.budget.steps_per_epoch, self.trainer, control.settled)
        self.seconds, self._chunks = 0.0, 0
        self._pending: tuple[int, dict[str, jax.Array], list[int]] | None = None
        self.done = self._resume()
        self.saved = self.done

    def train(self) -> list[Trained]:
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
        """Whether there is anything left to train."""
        return self.done < self.trainer.epochs and self.writer.learning() > 0

    def advance(self, settle: bool = False) -> None:
        """Train one chunk, and meanwhile write the one before; with `settle` write this one as well.

        Raises:
          Stopped: the command is to stop; the state is saved.
        """
        started = time.monotonic()
        try:
            self._advance(settle)
        finally:
            self.seconds += time.monotonic() - started

    def _advance(self, settle: bool) -> None:
        if self._pending is None:
            self.goodput.begin()
        trainer, control = self.trainer, self.control
        epochs = min(trainer.evaluate_every, trainer.epochs - self.done)
        metrics = self.program.train(epochs)
        self.done, self._chunks = self.done + epochs, self._chunks + 1
        self._settle()  # the device is busy with the new chunk while the last one is written
        self._pending = self.done, metrics, list(self.program.slots)
        stop = control.stop()
        due = stop or self._chunks % self.options.checkpoint_every == 0
        save = due and control.checkpoints is not None and (stop or self.done < trainer.epochs)
        at_once = self.options.prune != "none" and len(self.group.bounds) > 1
        if settle or at_once or save or stop:
            self._settle()
        if at_once:
            for number in losers(self.writer.standing(self.folds), self.options, trainer):
                self.writer.pruned[number] = self.done
        self.program.leave(self.writer.gone(), self.done, self.options.narrow)
        if save:
            self.save()
        if stop:
            raise Stopped

    def save(self) -> None:
        """Save the state, once its rows are written."""
        assert self.control.checkpoints is not None
        with self.goodput.writing():
            self.control.checkpoints.save(self.done, self.program.collect(), self._about())
        self.saved = self.done

    def close(self) -> None:
        """Wait until what was saved is on disk."""
        if self.control.checkpoints is not None:
            self.control.checkpoints.close()

    def _settle(self) -> None:
        """Write the chunk that is not written yet."""
        if self._pending is None:
            return
        epoch, metrics, slots = self._pending
        self._pending = None
        with self.goodput.chunk(len(slots), self.writer.learning(slots)):
            values = self.program.read(metrics)
        with self.goodput.writing():
            self.writer.write(epoch, values, slots)
            self.control.progress(epoch, self.writer.latest)

    def finish(self) -> list[Trained]:
        """What became of every member, once nothing is left to train."""
        started = time.monotonic()
        self._settle()
        state, checkpoints = self.program.collect(), self.control.checkpoints
        # what was long enough for a checkpoint is kept until the results are written
        if checkpoints is not None and (checkpoints.epochs() or self.control.stop()):
            checkpoints.save(self.done, state, self._about())
        scores = self.program.score(state)
        kept = engine.kept_params(state)
        seconds = self.seconds + time.monotonic() - started
        results = []
        for index in range(len(self.group.bounds)):
            outcome = self.writer.outcome(index, int(state.best_epoch[index]))
            if outcome.params is not None:
                outcome.params = jax.tree.map(np.asarray, unstack(kept, index))
            if outcome.status != "diverged":
                outcome.metrics = {name: float(values[index]) for name, values in scores.items()}
            outcome.bad_step = self.writer.bad_step[index]
            outcome.widths, outcome.resumed = tuple(self.program.widths), tuple(self.writer.resumed)
            outcome.seconds_compile_group = self.goodput.compile
            outcome.seconds_wall_group = seconds
            outcome.seconds_device_share = seconds / len(self.group.bounds)
            results.append(outcome)
        return results

    def _about(self) -> dict[str, Any]:
        commit = [self.control.commit] if self.control.commit else []
        commits = list(dict.fromkeys([*self.writer.commits, *commit]))
        return self.writer.about() | {"commits": commits, "widths": self.program.widths}

    def _resume(self) -> int:
        """Put the newest usable checkpoint into the program and the writer; the epochs it had done, 0 without one."""
        checkpoints = self.control.checkpoints
        if checkpoints is None or not checkpoints.epochs():
            return 0
        restored = checkpoints.restore(self.program.template(), self.writer.fits)
        if restored is None:
            return 0
        epoch, state, about = restored
        self.program.resume(state, epoch, about.get("widths", ()))
        self.writer.resume(epoch, about)
        self.control.warn(f"going on from epoch {epoch}")
        return epoch


class Writer:
    """Metrics and events of every member of a unit, chunk by chunk.

    Attributes:
      latest: metric -> values of all members at the last chunk [J], NaN for those that had left.
      best: best monitored metric of every member so far.
      pruned: epoch at which a member was pruned, or NEVER.
      monitored: (epoch, monitored metric) of every evaluation of a member since the command began.
    """

    def __init__(
        self, folders: Sequence[RunFolder], steps_per_epoch: int, trainer: Trainer, settled: Collection[int] = ()
    ):
        self.folders, self.trainer, self.settled = folders, trainer, settled
        self.events = [EventFile(folder.path, folder.lease) for folder in folders]
        self.steps_per_epoch = steps_per_epoch
        self.latest: dict[str, Any] = {}
        self.best = [math.nan] * len(folders)
        self.bad_step = [NEVER] * len(folders)
        self.stopped = [NEVER] * len(folders)
        self.pruned = [NEVER] * len(folders)
        self.last_epoch = [0] * len(folders)
        self.monitored: list[list[tuple[int, float]]] = [[] for _ in folders]
        self.resumed: list[int] = []
        self.commits: list[str] = []

    def write(self, epoch: int, metrics: Mapping[str, Any], slots: Sequence[int]) -> None:
        """Write the rows of one chunk; `slots` says whose values the metrics are."""
        step, now = epoch * self.steps_per_epoch, time.time()
        names = [name for name in metrics if not name.startswith("state/")]
        self.latest = {name: np.full(len(self.folders), np.nan) for name in names}
        for slot, index in reversed(list(enumerate(slots))):  # padding repeats the first member
            row = {name: float(metrics[name][slot]) for name in names}
            for name, value in row.items():
                self.latest[name][index] = value
        for index in sorted(set(slots) - self.gone()):  # frozen, or gone: its last row is written
            slot = slots.index(index)
            row = {name: float(metrics[name][slot]) for name in names}
            if index not in self.settled:
                finite = {name: value for name, value in row.items() if np.isfinite(value)}
                self.folders[index].append_metrics([{"step": step, "epoch": epoch, **row}])
                self.events[index].append([(step, now, finite)])
            self.last_epoch[index] = epoch
            self.stopped[index] = int(metrics["state/stopped_epoch"][slot])
            self.bad_step[index] = int(metrics["state/first_bad_step"][slot])
            self.monitored[index].append((epoch, row[self.trainer.monitor]))
            self.best[index] = best_of([self.best[index], row[self.trainer.monitor]], self.trainer)

    def gone(self) -> set[int]:
        """Members that learn no more."""
        ends = zip(self.stopped, self.bad_step, self.pruned, strict=True)
        return {index for index, end in enumerate(ends) if end != (NEVER, NEVER, NEVER)}

    def learning(self, slots: Sequence[int] | None = None) -> int:
        """How many members learn, among those in `slots`."""
        return len(set(range(len(self.folders)) if slots is None else slots) - self.gone())

    def standing(self, folds: Sequence[Any]) -> Standing:
        """Where the members stand after the chunk that was written last."""
        gone, epoch = self.gone(), max(self.last_epoch)
        learning = [index not in gone for index in range(len(self.folders))]
        return Standing(epoch, self.best, learning, [step == NEVER for step in self.bad_step], folds)

    def outcome(self, index: int, best_epoch: int) -> Trained:
        """Status of a member, its parameters still to be filled in (`params` is None where there are none)."""
        epoch, bad, stopped = self.last_epoch[index], self.bad_step[index], self.stopped[index]
        if bad != NEVER:
            reason = f"loss, gradient or update not finite at step {bad} (epoch {bad // self.steps_per_epoch + 1})"
            has_best = self.trainer.keep == "best" and best_epoch != NEVER
            return Trained("diverged", reason, () if has_best else None, epoch, {}, best_epoch)
        if self.pruned[index] != NEVER:
            return Trained("pruned", f"worse than its peers at epoch {self.pruned[index]}", (), epoch, {}, best_epoch)
        if stopped != NEVER:
            return Trained("stopped", f"patience or target loss at epoch {stopped}", (), epoch, {}, best_epoch)
        return Trained("completed", None, (), epoch, {}, best_epoch)

    # ----------------------------------------------------------------------------------------------- checkpoints

    KEPT = ("best", "bad_step", "stopped", "pruned", "last_epoch", "resumed")

    def about(self) -> dict[str, Any]:
        """What a checkpoint says beside the state."""
        kept = {name: list(getattr(self, name)) for name in self.KEPT}
        return kept | {"best": [None if math.isnan(value) else value for value in self.best]}

    def resume(self, epoch: int, about: Mapping[str, Any]) -> None:
        """Go on after `epoch` epochs; rows of later epochs are cut off, since they are written again."""
        for name in self.KEPT:
            setattr(self, name, list(about[name]))
        self.best = [math.nan if value is None else value for value in self.best]
        self.resumed.append(epoch)
        self.commits = list(about["commits"])
        for index, last in enumerate(self.last_epoch):
            if index not in self.settled:
                self.folders[index].cut_metrics(last * self.steps_per_epoch)

    def fits(self, epoch: int, about: Mapping[str, Any]) -> str | None:
        """Why a checkpoint cannot be used with the rows that are on disk; None if it can."""
        every = self.trainer.evaluate_every
        for index, (folder, last) in enumerate(zip(self.folders, about["last_epoch"], strict=True)):
            if index in self.settled:
                continue
            wanted = {min(end, self.trainer.epochs) * self.steps_per_epoch for end in range(every, last + every, every)}
            missing = wanted - {int(row["step"]) for row in folder.read_metrics()}
            if missing:
                return f"{folder.path.name}/{folder.metrics.name} lacks its row of step {min(missing)}"
        return None


def best_of(values: Sequence[float], trainer: Trainer) -> float:
    """The best of some values of the monitored metric, in their order; NaN before the first number."""
    better = max if higher_is_better(trainer.monitor) else min
    best = math.nan
    for value in values:
        best = value if math.isnan(best) else better(best, value)
    return best
