"""Members of map mode that are compared with each other while they train (`sweep.prune`), of one program or of all.

They advance in rounds. In a round every member trains one evaluation interval, on whichever thread is free; when all
have finished the interval, they are compared. So the number of threads does not change which members are pruned. A
comparison needs only the rows of `metrics.csv` up to its epoch. After a break, members continue from checkpoints of
different epochs: those that are behind catch up, and the lost comparisons are made again with the same result.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from research.engine import NEVER
from research.runs.folder import RunFolder
from research.sweep.job import Job
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.sweep.train.loop import Training
from research.sweep.train.pool import Work
from research.sweep.train.prune import Standing, losers
from research.sweep.train.writer import best_of
from research.tree import config_hash


@dataclasses.dataclass
class Peer:
    """What a member is compared by.

    Attributes:
      values: (epoch, monitored metric) of its evaluations.
      end: epoch at which it stopped, diverged or was pruned; None if it did not.
      healthy: whether it has not diverged.
      pruned: whether it was pruned at `end`; it took part in the comparison at that epoch.
    """

    values: Sequence[tuple[int, float]]
    end: int | None = None
    healthy: bool = True
    pruned: bool = False

    def ended(self, epoch: int) -> bool:
        """Whether the comparison at an epoch finds it ended."""
        return self.end is not None and (self.end < epoch if self.pruned else self.end <= epoch)


FAILED = Peer((), end=0, healthy=False)  # a failed member, which takes part in no comparison


class TrainsUnits(Protocol):
    """What the rounds need: `research.sweep.train.units.GroupTraining` has it."""

    def guard(self, unit: JobGroup) -> contextlib.AbstractContextManager[None]:
        """Turn an exception into the result of a failed run."""
        ...

    def open(self, unit: JobGroup, lane: int, compiled: Callable[[], None] | None) -> Training:
        """Begin the training of a unit, from its checkpoint if there is one."""
        ...

    def close(self, unit: JobGroup, training: Training) -> None:
        """Evaluate a unit that has ended."""
        ...

    def put(self, unit: JobGroup, work: Work) -> None:
        """Have a thread do some work for a unit."""
        ...


Step = Callable[[int, int, Callable[[], None] | None], None]  # takes the number of a unit, then what `Work` takes


class Rounds:
    """Units with one schedule, of one group or of all, until each has its result.

    Args:
      units: groups of one member.
      finished: number of a unit that has a result already -> what it is compared by.
      options: of the sweep.
      trainer: trains the units.
      others: finished jobs of the command that belong to no group any more, and what they are compared by.
    """

    def __init__(
        self,
        units: Sequence[JobGroup],
        finished: Mapping[int, Peer],
        options: Options,
        trainer: TrainsUnits,
        others: Sequence[tuple[Job, Peer]] = (),
    ):
        self.units, self.options, self._group, self.peers = units, options, trainer, dict(finished)
        self.peers |= {len(units) + at: peer for at, (_, peer) in enumerate(others)}
        self.trainer = units[0].members[0].job.trainer
        jobs = [*(unit.members[0].job for unit in units), *(job for job, _ in others)]
        self.folds, self.points = [job.data.fold for job in jobs], [point_of(job) for job in jobs]
        self._trainings: dict[int, Training] = {}
        self._earlier: dict[int, list[tuple[int, float]]] = {}  # evaluations made by earlier commands
        self._lock, self._under_way = threading.Lock(), 0

    def begin(self) -> None:
        """Begin the units that have no result."""
        numbers = [number for number in range(len(self.units)) if number not in self.peers]
        self._under_way = len(numbers)
        for number in numbers:
            self._put(number, self._open)

    def save(self) -> None:
        """Save the states of the units that wait for their next turn; the command is to stop."""
        for training in self._trainings.values():
            if training.done > training.saved:
                training.save()
            training.close()

    def _put(self, number: int, step: Step) -> None:
        def guarded(lane: int, compiled: Callable[[], None] | None) -> None:
            succeeded = False
            with self._group.guard(self.units[number]):
                step(number, lane, compiled)
                succeeded = True
            if not succeeded:
                self._trainings.pop(number, None)
                self.peers[number] = FAILED
            self._arrive()

        self._group.put(self.units[number], guarded)

    def _open(self, number: int, lane: int, compiled: Callable[[], None] | None) -> None:
        training = self._group.open(self.units[number], lane, compiled)
        self._earlier[number] = rows_of(training.writer.folders[0], self.trainer.monitor, training.done)
        self._trainings[number] = training
        if not training.learning:
            self._close(number)

    def _advance(self, number: int, *_: Any) -> None:
        training = self._trainings[number]
        try:
            training.advance(settle=True)
        except BaseException:
            del self._trainings[number]  # its state is saved, or cannot be trusted
            training.close()
            raise
        if not training.learning:
            self._close(number)

    def _close(self, number: int, *_: Any) -> None:
        self.peers[number] = self._peer(number)
        self._group.close(self.units[number], self._trainings.pop(number))

    def _arrive(self) -> None:
        """One unit has finished its turn; the last one to arrive begins the next round."""
        with self._lock:
            self._under_way -= 1
            if self._under_way:
                return
            turns = self._compare()
            self._under_way = len(turns)
        for number, step in turns:
            self._put(number, step)

    def _compare(self) -> list[tuple[int, Step]]:
        """Compare the members at the lowest epoch that all have reached, and return the next turns."""
        if not self._trainings:
            return []
        epoch = min(training.done for training in self._trainings.values())
        pruned = losers(self._standing(epoch), self.options, self.trainer) if epoch else []
        pruned = [number for number in pruned if number in self._trainings]
        for number in pruned:
            training = self._trainings[number]
            training.writer.pruned[0] = training.done
        behind = [n for n, training in self._trainings.items() if n not in pruned and training.done == epoch]
        return [(number, self._close) for number in pruned] + [(number, self._advance) for number in sorted(behind)]

    def _standing(self, epoch: int) -> Standing:
        peers = [self.peers.get(number) or self._peer(number) for number in range(len(self.folds))]
        ended = [peer.ended(epoch) for peer in peers]
        best = [best_of([value for at, value in peer.values if at <= epoch], self.trainer) for peer in peers]
        healthy = [peer.healthy or not end for peer, end in zip(peers, ended, strict=True)]
        return Standing(epoch, best, [not end for end in ended], healthy, self.folds, self.points)

    def _peer(self, number: int) -> Peer:
        """A member that this command trains."""
        writer = self._trainings[number].writer
        end = writer.last_epoch[0] if writer.gone() else None
        pruned = writer.pruned[0] != NEVER
        return Peer([*self._earlier[number], *writer.monitored[0]], end, writer.bad_step[0] == NEVER, pruned)


def point_of(job: Job) -> str:
    """The hash of everything of a job but its seed and its fold."""
    tree = job.tree()
    data = {key: value for key, value in tree["data"].items() if key != "fold"}
    return config_hash({key: value for key, value in tree.items() if key != "seed"} | {"data": data})


def finished_peer(run: RunFolder, monitor: str) -> Peer:
    """A member that has its result, from its run folder."""
    result = run.read_result() or {}
    status, epochs = result.get("status"), result.get("epochs", 0)
    if status not in ("completed", "stopped", "pruned", "diverged"):
        return FAILED
    end = None if status == "completed" else epochs
    return Peer(rows_of(run, monitor, epochs), end, status != "diverged", status == "pruned")


def rows_of(run: RunFolder, monitor: str, last: int) -> list[tuple[int, float]]:
    """(epoch, monitored metric) of the evaluations up to an epoch."""
    rows = [(int(row["epoch"]), row.get(monitor, float("nan"))) for row in run.read_metrics()]
    return [(epoch, value) for epoch, value in rows if epoch <= last]
