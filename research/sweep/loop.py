"""The host loop over one group: chunks on the device, rows and events on disk while the next chunk runs."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from research import engine
from research.engine import NEVER
from research.runs.events import EventFile
from research.runs.folder import RunFolder
from research.sweep.plan import Group
from research.sweep.program import Program
from research.tree import unstack


@dataclasses.dataclass
class Trained:
    """What training left of one member.

    Attributes:
      status: completed, stopped or diverged.
      reason: why it stopped or diverged.
      params: the kept parameters (numpy), or None where a diverged run has none.
      epochs: epochs done.
      metrics: validation and test metrics of the kept parameters; empty for a diverged run.
      best_epoch: epoch of the kept parameters.
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
    seconds_compile_group: float = 0.0
    seconds_wall_group: float = 0.0
    seconds_device_share: float = 0.0


def train_group(
    group: Group,
    program: Program,
    folders: Sequence[RunFolder],
    progress: Callable[[int, dict[str, Any]], None],
    seconds_compile: float = 0.0,
) -> list[Trained]:
    """Train all members of a group and write their metrics and events.

    `progress(epochs, metrics)` is called after every chunk with the epochs done and the metrics [J].
    """
    started = time.time()
    trainer, steps = group.budget.trainer, group.budget.steps_per_epoch
    jobs = len(group.bounds)
    writer = Writer(folders, steps)
    pending: tuple[int, dict[str, jax.Array]] | None = None
    done = 0
    while done < trainer.epochs:
        epochs = min(trainer.evaluate_every, trainer.epochs - done)
        metrics = program.train(epochs)
        done += epochs
        if pending is not None:  # the device is busy with the new chunk while the last one is written
            finished = writer.write(*pending)
            progress(pending[0], writer.latest)
            if finished:  # every member stopped or diverged; the chunk under way changes nothing that is kept
                pending = None
                break
        pending = (done, metrics)
    if pending is not None:
        writer.write(*pending)
        progress(pending[0], writer.latest)
    scores = jax.device_get(program.score())
    kept = jax.device_get(engine.kept_params(program.state))
    best_epoch = np.asarray(program.state.best_epoch)
    seconds = time.time() - started
    results = []
    for index in range(jobs):
        outcome = writer.outcome(index, trainer.keep, int(best_epoch[index]))
        if outcome.params is not None:
            outcome.params = jax.tree.map(np.asarray, unstack(kept, index))
        if outcome.status != "diverged":
            outcome.metrics = {name: float(values[index]) for name, values in scores.items()}
        outcome.seconds_compile_group = seconds_compile
        outcome.seconds_wall_group, outcome.seconds_device_share = seconds, seconds / jobs
        results.append(outcome)
    return results


class Writer:
    """Metrics and events of every member of a group, chunk by chunk."""

    def __init__(self, folders: Sequence[RunFolder], steps_per_epoch: int):
        self.folders = folders
        self.events = [EventFile(folder.path) for folder in folders]
        self.steps_per_epoch = steps_per_epoch
        self.latest: dict[str, Any] = {}
        self.bad_step = [NEVER] * len(folders)
        self.stopped = [NEVER] * len(folders)
        self.last_epoch = [0] * len(folders)

    def write(self, epoch: int, metrics: dict[str, jax.Array]) -> bool:
        """Write the rows of one chunk; True once no member learns any more."""
        values = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()}
        self.latest = values
        step, now = epoch * self.steps_per_epoch, time.time()
        names = [name for name in values if not name.startswith("state/")]
        for index, (folder, events) in enumerate(zip(self.folders, self.events, strict=True)):
            if self.stopped[index] != NEVER or self.bad_step[index] != NEVER:
                continue  # frozen, or gone: its last row is written
            row = {name: float(values[name][index]) for name in names}
            folder.append_metrics([{"step": step, "epoch": epoch, **row}])
            events.append([(step, now, {name: value for name, value in row.items() if np.isfinite(value)})])
            self.last_epoch[index] = epoch
            self.stopped[index] = int(values["state/stopped_epoch"][index])
            self.bad_step[index] = int(values["state/first_bad_step"][index])
        return all(stop != NEVER or bad != NEVER for stop, bad in zip(self.stopped, self.bad_step, strict=True))

    def outcome(self, index: int, keep: str, best_epoch: int) -> Trained:
        """Status of a member, its parameters still to be filled in (`params` is None where there are none)."""
        epoch, bad, stopped = self.last_epoch[index], self.bad_step[index], self.stopped[index]
        if bad != NEVER:
            reason = f"loss, gradient or update not finite at step {bad} (epoch {bad // self.steps_per_epoch + 1})"
            has_best = keep == "best" and best_epoch != NEVER
            return Trained("diverged", reason, () if has_best else None, epoch, {}, best_epoch)
        if stopped != NEVER:
            return Trained("stopped", f"patience or target loss at epoch {stopped}", (), epoch, {}, best_epoch)
        return Trained("completed", None, (), epoch, {}, best_epoch)
