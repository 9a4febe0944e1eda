"""Members of map mode that are compared with each other while they train (`sweep.prune`).

They advance in rounds: each trains one evaluation interval, on whichever thread is free, and when all have done so they
are compared. So what is pruned does not depend on the number of threads. A comparison needs nothing but the rows of the
members up to its epoch, which lie in `metrics.csv`: after a break the members go on from checkpoints of different
epochs, those that are behind catch up, and the comparisons that were lost are made again with the same outcome.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from research.engine import NEVER
from research.runs.folder import RunFolder
from research.sweep.loop import Training, best_of
from research.sweep.plan import Group, Options
from research.sweep.pool import Turn
from research.sweep.prune import Standing, losers


@dataclasses.dataclass
class Peer:
    """What a member is compared by.

    Attributes:
      values: (epoch, monitored metric) of its evaluations.
      end: epoch at which it ended before its time; None: it has not.
      healthy: whether it has not diverged.
    """

    values: Sequence[tuple[int, float]]
    end: int | None = None
    healthy: bool = True


FAILED = Peer((), end=0, healthy=False)  # takes part in no comparison


class Dealer(Protocol):
    """What the rounds need of whoever deals units to threads."""

    def guard(self, unit: Group) -> contextlib.AbstractContextManager[None]:
        """Turn an exception of ordinary kind into the result of a run that failed."""
        ...

    def open(self, unit: Group, turn: Turn) -> Training:
        """Begin the training of a unit, from its checkpoint if there is one."""
        ...

    def close(self, unit: Group, training: Training) -> None:
        """Take what became of a unit that has ended."""
        ...

    def put(self, unit: Group, work: Callable[[Turn], None]) -> None:
        """Have work done by a thread."""
        ...


class Rounds:
    """Members of one group with one trainer, until each has its result.

    Args:
      units: groups of one.
      finished: those that have a result already, by their number among `units`.
    """

    def __init__(self, units: Sequence[Group], finished: Mapping[int, Peer], options: Options, dealer: Dealer):
        self.units, self.options, self.dealer, self.peers = units, options, dealer, dict(finished)
        self.trainer = units[0].bounds[0].job.trainer
        self.folds = [unit.bounds[0].job.data.fold for unit in units]
        self._trainings: dict[int, Training] = {}
        self._earlier: dict[int, list[tuple[int, float]]] = {}  # values of earlier commands
        self._lock, self._under_way = threading.Lock(), 0

    def begin(self) -> None:
        """Have the units without a result begun."""
        numbers = [number for number in range(len(self.units)) if number not in self.peers]
        self._under_way = len(numbers)
        for number in numbers:
            self._put(number, self._open)

    def save(self) -> None:
        """Save the states of units that wait for their next turn, where the command is to stop."""
        for training in self._trainings.values():
            if training.done > training.saved:
                training.save()
            training.close()

    def _put(self, number: int, work: Callable[[int, Turn], None]) -> None:
        def guarded(turn: Turn) -> None:
            ended = False
            with self.dealer.guard(self.units[number]):
                work(number, turn)
                ended = True
            if not ended:  # it failed
                self._trainings.pop(number, None)
                self.peers[number] = FAILED
            self._arrive()

        self.dealer.put(self.units[number], guarded)

    def _open(self, number: int, turn: Turn) -> None:
        training = self.dealer.open(self.units[number], turn)
        self._earlier[number] = rows_of(training.writer.folders[0], self.trainer.monitor, training.done)
        self._trainings[number] = training
        if not training.learning:
            self._close(number, turn)

    def _advance(self, number: int, turn: Turn) -> None:
        training = self._trainings[number]
        try:
            training.advance(settle=True)
        except BaseException:
            del self._trainings[number]  # its state is saved, or not to be trusted
            training.close()
            raise
        if not training.learning:
            self._close(number, turn)

    def _close(self, number: int, turn: Turn) -> None:
        self.peers[number] = self._peer(number)
        self.dealer.close(self.units[number], self._trainings.pop(number))

    def _arrive(self) -> None:
        """One of those that were under way has done its part; after the last one comes the next round."""
        with self._lock:
            self._under_way -= 1
            if self._under_way:
                return
            turns = self._compared()
            self._under_way = len(turns)
        for number, work in turns:
            self._put(number, work)

    def _compared(self) -> list[tuple[int, Callable[[int, Turn], None]]]:
        """Compare where all that learn have come to, and say what each is to do next."""
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
        peers = [self.peers.get(number) or self._peer(number) for number in range(len(self.units))]
        ended = [peer.end is not None and peer.end <= epoch for peer in peers]
        best = [best_of([value for at, value in peer.values if at <= epoch], self.trainer) for peer in peers]
        healthy = [peer.healthy or not end for peer, end in zip(peers, ended, strict=True)]
        return Standing(epoch, best, [not end for end in ended], healthy, self.folds)

    def _peer(self, number: int) -> Peer:
        """A member that this command trains."""
        writer = self._trainings[number].writer
        end = writer.last_epoch[0] if writer.gone() else None
        return Peer([*self._earlier[number], *writer.monitored[0]], end, writer.bad_step[0] == NEVER)


def finished_peer(run: RunFolder, monitor: str) -> Peer:
    """A member that has its result, from its folder."""
    result = run.read_result() or {}
    status, epochs = result.get("status"), result.get("epochs", 0)
    if status not in ("completed", "stopped", "pruned", "diverged"):
        return FAILED
    return Peer(rows_of(run, monitor, epochs), None if status == "completed" else epochs, status != "diverged")


def rows_of(run: RunFolder, monitor: str, last: int) -> list[tuple[int, float]]:
    """(epoch, monitored metric) of the evaluations up to an epoch."""
    rows = [(int(row["epoch"]), row.get(monitor, float("nan"))) for row in run.read_metrics()]
    return [(epoch, value) for epoch, value in rows if epoch <= last]
