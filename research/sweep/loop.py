"""The host loop over one group: chunks on the device, rows and events on disk while the next chunk runs."""

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
from research.sweep.program import Program
from research.sweep.prune import losers
from research.tree import unstack


class Stopped(Exception):
    """Leaves a training when the command is to stop; what was trained is in the checkpoint."""


@dataclasses.dataclass
class Trained:
    """What training left of one member.

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
      seconds_compile_group: time to initialise and compile the group's programs.
      seconds_wall_group: time to train the whole group.
      seconds_device_share: its part of that: the group's time divided by the number of members.
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
      checkpoints: of this group; None: none are made.
      commit: of the code that trains.
      settled: members that have their results, and train along for the sake of others; their files stay as they are.
    """

    progress: Callable[[int, Mapping[str, Any]], None]
    stop: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda text: None
    checkpoints: Checkpoints | None = None
    commit: str | None = None
    settled: Collection[int] = ()


def train_group(
    group: Group,
    program: Program,
    folders: Sequence[RunFolder],
    options: Options,
    control: Control,
    goodput: Goodput,
) -> list[Trained]:
    """Train all members of a group, from its checkpoint if there is one, and write their metrics and events.

    Raises:
      Stopped: the command is to stop; the state is saved.
    """
    started = time.time()
    trainer = group.budget.trainer
    writer = Writer(folders, group.budget.steps_per_epoch, trainer, control.settled)
    done = resume(program, writer, control)
    pending: tuple[int, dict[str, jax.Array], list[int]] | None = None
    chunks = 0

    def settle() -> None:
        """Write the chunk that is not written yet, and let members go that learn no more."""
        nonlocal pending
        if pending is None:
            return
        epoch, metrics, slots = pending
        pending = None
        with goodput.chunk(len(slots), writer.learning(slots)):
            values = jax.device_get(metrics)
        with goodput.writing():
            writer.write(epoch, values, slots)
            control.progress(epoch, writer.latest)

    def about() -> dict[str, Any]:
        return writer.about() | {"commits": commits(writer, control), "widths": program.widths}

    if control.stop():
        raise Stopped
    goodput.begin()
    while done < trainer.epochs and writer.learning():
        epochs = min(trainer.evaluate_every, trainer.epochs - done)
        metrics = program.train(epochs)
        done, chunks = done + epochs, chunks + 1
        settle()  # the device is busy with the new chunk while the last one is written
        pending = done, metrics, list(program.slots)
        stop = control.stop()
        due = stop or chunks % options.checkpoint_every == 0
        save = due and control.checkpoints is not None and (stop or done < trainer.epochs)
        if options.prune != "none" or save or stop:
            settle()
            for number in losers(writer, options, trainer, [bound.job.data.fold for bound in group.bounds]):
                writer.pruned[number] = done
        program.leave(writer.gone(), done, options.narrow)
        if save:
            assert control.checkpoints is not None
            with goodput.writing():
                control.checkpoints.save(done, program.collect(), about())
        if stop:
            if control.checkpoints is not None:
                control.checkpoints.wait()
            raise Stopped
    settle()
    state = program.collect()
    # what was long enough for a checkpoint is kept until the results are written
    if control.checkpoints is not None and (control.checkpoints.epochs() or control.stop()):
        control.checkpoints.save(done, state, about())
    scores = program.score(state)
    kept = engine.kept_params(state)
    seconds = time.time() - started
    results = []
    for index in range(len(group.bounds)):
        outcome = writer.outcome(index, int(state.best_epoch[index]))
        if outcome.params is not None:
            outcome.params = jax.tree.map(np.asarray, unstack(kept, index))
        if outcome.status != "diverged":
            outcome.metrics = {name: float(values[index]) for name, values in scores.items()}
        outcome.bad_step = writer.bad_step[index]
        outcome.widths, outcome.resumed = tuple(program.widths), tuple(writer.resumed)
        outcome.seconds_compile_group = goodput.compile
        outcome.seconds_wall_group, outcome.seconds_device_share = seconds, seconds / len(group.bounds)
        results.append(outcome)
    return results


def commits(writer: "Writer", control: Control) -> list[str]:
    """Commits of the code that trained so far, in order."""
    return list(dict.fromkeys([*writer.commits, *([control.commit] if control.commit else [])]))


def resume(program: Program, writer: "Writer", control: Control) -> int:
    """Put the newest usable checkpoint into the program and the writer; the epochs it had done, 0 without one."""
    if control.checkpoints is None or not control.checkpoints.epochs():
        return 0
    found = control.checkpoints.restore(program.template(), writer.fits)
    if found is None:
        return 0
    epoch, state, about = found
    program.resume(state, epoch, about.get("widths", ()))
    writer.resume(epoch, about)
    program.leave(writer.gone(), epoch, narrow=False)
    control.warn(f"going on from epoch {epoch}")
    return epoch


class Writer:
    """Metrics and events of every member of a group, chunk by chunk.

    Attributes:
      latest: metric -> values of all members at the last chunk [J], NaN for those that had left.
      best: best monitored metric of every member so far.
      pruned: epoch at which a member was pruned, or NEVER.
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
        self.resumed: list[int] = []
        self.commits: list[str] = []

    def write(self, epoch: int, metrics: Mapping[str, Any], slots: Sequence[int]) -> None:
        """Write the rows of one chunk; `slots` says whose values the metrics are."""
        step, now = epoch * self.steps_per_epoch, time.time()
        names = [name for name in metrics if not name.startswith("state/")]
        self.latest = {name: np.full(len(self.folders), np.nan) for name in names}
        better = max if higher_is_better(self.trainer.monitor) else min
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
            monitored = row[self.trainer.monitor]
            self.best[index] = monitored if math.isnan(self.best[index]) else better(self.best[index], monitored)

    def gone(self) -> set[int]:
        """Members that learn no more."""
        ends = zip(self.stopped, self.bad_step, self.pruned, strict=True)
        return {index for index, end in enumerate(ends) if end != (NEVER, NEVER, NEVER)}

    def learning(self, slots: Sequence[int] | None = None) -> int:
        """How many members learn, among those in `slots`."""
        return len(set(range(len(self.folders)) if slots is None else slots) - self.gone())

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
