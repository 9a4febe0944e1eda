"""Metrics and events of the members of a unit, written after every chunk."""

import dataclasses
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from research.engine import NEVER, Trainer
from research.metrics import higher_is_better
from research.runs.events import EventFile
from research.runs.folder import RunFolder
from research.sweep.train.prune import Standing


@dataclasses.dataclass
class TrainedMember:
    """What training left of one member. All times are those of its unit.

    Attributes:
      status: completed, stopped, pruned or diverged.
      reason: why it stopped, was pruned or diverged.
      params: the kept parameters (numpy); None for a diverged run that has none.
      epochs: epochs done.
      metrics: validation and test metrics of the kept parameters; empty for a diverged run.
      best_epoch: epoch of the kept parameters.
      bad_step: first step that was not finite, or NEVER.
      widths: (epochs done, width) of the programs that trained it.
      resumed: epochs at which the training continued from a checkpoint.
      seconds_compile_group: initialising it, and compiling its program if no other unit had compiled it.
      seconds_wall_group: training it.
      seconds_device_share: `seconds_wall_group` divided by the number of members of the unit.
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


class Writer:
    """Writes the metrics and events of every member of a unit, and knows which members have ended.

    Args:
      folders: run folders of the members.
      steps_per_epoch: optimizer steps of an epoch.
      trainer: the budget that all members share.
      settled: members that have a result already and are trained only because their group is restored whole. Their
        files do not change.

    Attributes:
      latest: metric -> values of all members at the last chunk [J], NaN for members that had left before.
      best: the best monitored metric of every member so far.
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
        """Write the rows of one chunk; `slots` holds the member number of every value of a metric."""
        step, now = epoch * self.steps_per_epoch, time.time()
        names = [name for name in metrics if not name.startswith("state/")]
        self.latest = {name: np.full(len(self.folders), np.nan) for name in names}
        first_slot = {number: slot for slot, number in reversed(list(enumerate(slots)))}  # padding repeats a member
        for number, slot in first_slot.items():
            for name in names:
                self.latest[name][number] = metrics[name][slot]
        for number in sorted(set(first_slot) - self.gone()):  # the last row of a member that has ended is written
            slot = first_slot[number]
            row = {name: float(metrics[name][slot]) for name in names}
            if number not in self.settled:
                finite = {name: value for name, value in row.items() if np.isfinite(value)}
                self.folders[number].append_metrics([{"step": step, "epoch": epoch, **row}])
                self.events[number].append([(step, now, finite)])
            self.last_epoch[number] = epoch
            self.stopped[number] = int(metrics["state/stopped_epoch"][slot])
            self.bad_step[number] = int(metrics["state/first_bad_step"][slot])
            self.monitored[number].append((epoch, row[self.trainer.monitor]))
            self.best[number] = best_of([self.best[number], row[self.trainer.monitor]], self.trainer)

    def gone(self) -> set[int]:
        """Members that have ended."""
        ends = zip(self.stopped, self.bad_step, self.pruned, strict=True)
        return {number for number, end in enumerate(ends) if end != (NEVER, NEVER, NEVER)}

    def learning(self, slots: Sequence[int] | None = None) -> int:
        """Number of members that have not ended, among those in `slots`."""
        return len(set(range(len(self.folders)) if slots is None else slots) - self.gone())

    def standing(self, folds: Sequence[Any]) -> Standing:
        """The members after the last chunk, as they are compared for pruning."""
        gone, epoch = self.gone(), max(self.last_epoch)
        learning = [number not in gone for number in range(len(self.folders))]
        return Standing(epoch, self.best, learning, [step == NEVER for step in self.bad_step], folds)

    def outcome(self, number: int, best_epoch: int) -> TrainedMember:
        """Status of a member. Its parameters are () if it keeps any, which the caller then fills in, else None."""
        epoch, bad, stopped, pruned = (
            values[number] for values in (self.last_epoch, self.bad_step, self.stopped, self.pruned)
        )
        params, reason = (), None
        if bad != NEVER:
            status = "diverged"
            reason = f"loss, gradient or update not finite at step {bad} (epoch {bad // self.steps_per_epoch + 1})"
            params = () if self.trainer.keep == "best" and best_epoch != NEVER else None
        elif pruned != NEVER:
            status, reason = "pruned", f"worse than its peers at epoch {pruned}"
        elif stopped != NEVER:
            status, reason = "stopped", f"patience or target loss at epoch {stopped}"
        else:
            status = "completed"
        return TrainedMember(status, reason, params, epoch, {}, best_epoch, bad)

    # ----------------------------------------------------------------------------------------------- checkpoints

    KEPT = ("best", "bad_step", "stopped", "pruned", "last_epoch", "resumed")

    def record(self) -> dict[str, Any]:
        """What a checkpoint holds beside the state, as JSON values."""
        kept = {name: list(getattr(self, name)) for name in self.KEPT}
        return kept | {"best": [None if math.isnan(value) else value for value in self.best]}

    def resume(self, epoch: int, record: Mapping[str, Any]) -> None:
        """Continue after `epoch` epochs; rows of later epochs are cut off, because they are written again."""
        for name in self.KEPT:
            setattr(self, name, list(record[name]))
        self.best = [math.nan if value is None else value for value in self.best]
        self.resumed.append(epoch)
        self.commits = list(record["commits"])
        for number, last in enumerate(self.last_epoch):
            if number not in self.settled:
                self.folders[number].cut_metrics(last * self.steps_per_epoch)

    def missing_row(self, epoch: int, record: Mapping[str, Any]) -> str | None:
        """The row that `metrics.csv` lacks of the epochs before a checkpoint; None if it has all of them."""
        every = self.trainer.evaluate_every
        for number, (folder, last) in enumerate(zip(self.folders, record["last_epoch"], strict=True)):
            if number in self.settled:
                continue
            wanted = {min(end, self.trainer.epochs) * self.steps_per_epoch for end in range(every, last + every, every)}
            missing = wanted - {int(row["step"]) for row in folder.read_metrics()}
            if missing:
                return f"{folder.path.name}/{folder.metrics.name} lacks its row of step {min(missing)}"
        return None


def best_of(values: Sequence[float], trainer: Trainer) -> float:
    """The best of some values of the monitored metric; NaN if the first values are NaN and no number follows."""
    better = max if higher_is_better(trainer.monitor) else min
    best = math.nan
    for value in values:
        best = value if math.isnan(best) else better(best, value)
    return best
