"""The training of all groups of a command, unit by unit, on several threads."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import jax

from research import tree
from research.runs.files import LeaseLost
from research.runs.folder import RunFolder
from research.sweep.device import on_device, unload
from research.sweep.job import start_of
from research.sweep.memory import halves, out_of_memory
from research.sweep.options import Options
from research.sweep.plan import JobGroup
from research.sweep.programs import program_of
from research.sweep.train.ledger import Ledger, Stopped, fail
from research.sweep.train.loop import Training
from research.sweep.train.pool import WAKE_EVERY, Pool, Work
from research.sweep.train.rounds import Peer, Rounds, finished_peer
from research.sweep.train.signals import stopping
from research.sweep.train.writer import TrainedMember
from research.tree import ConfigError


def train(ledger: Ledger) -> None:
    """Train all units and write their results.

    A background thread evaluates trained members and writes their files while others train.

    Raises:
      KeyboardInterrupt: the command was interrupted; states are saved.
      ConfigError: nothing more can be written, for example because the disk is full.
    """
    groups, options = ledger.workload.groups, ledger.options
    background = ThreadPoolExecutor(1, "finish")
    background.submit(_import_early)
    available = most_threads(groups, options)
    threads = min(available, sum(len(group.units) for group in groups))
    pool = Pool(threads, min(options.devices_used, threads))
    trainings = [GroupTraining(ledger, number, group, pool, background) for number, group in enumerate(groups)]
    rounds = across(ledger, trainings) if options.across else None
    with stopping(ledger.stop, ledger.leave, ledger.display.note):
        try:
            for begun in trainings if rounds is None else [rounds]:
                begun.begin()
            started = time.monotonic()
            pool.run(ledger.stop.set)
            ledger.waited(available * (time.monotonic() - started))
            results(ledger.futures)
        except BaseException as error:
            ledger.stop.set()
            background.shutdown(cancel_futures=True)
            for begun in trainings if rounds is None else [rounds]:
                begun.save()
            if isinstance(error, KeyboardInterrupt | Stopped):
                ledger.interrupt()
                raise KeyboardInterrupt from None
            if isinstance(error, ConfigError):
                ledger.lease.check()  # if a folder is missing, the command that took over may have deleted it
            raise
        finally:
            for group in groups:
                ledger.let_go(group)
    background.shutdown()


def most_threads(groups: Sequence[JobGroup], options: Options) -> int:
    """Threads that may train at the same time; one if a program uses all devices, unless the user asks for more."""
    uses_all = any(group.devices > 1 for group in groups)
    return 1 if uses_all and options.concurrency is None else options.threads


class GroupTraining:
    """The training of one group: gives its units to the threads of a pool, and evaluates what they return.

    Args:
      ledger: of the command.
      number: of the group in the plan.
      group: the group.
      pool: its threads train.
      background: its thread evaluates trained members.
    """

    def __init__(self, ledger: Ledger, number: int, group: JobGroup, pool: Pool, background: ThreadPoolExecutor):
        self.ledger, self.number, self.group, self.pool, self.background = ledger, number, group, pool, background
        self._rounds: list[Rounds] = []
        self._broken: Exception | None = None  # why the program of this group cannot be compiled
        self._shown: set[Exception] = set()

    def begin(self) -> None:
        """Give the units without a result to the pool."""
        if self.group.mode == "vmap" or self.ledger.options.prune == "none":
            for unit in self.group.units:
                if self.ledger.todo(unit):
                    self.put(unit, functools.partial(self._whole, unit))
            return
        for units in tree.group(self.group.units, lambda unit: unit.members[0].job.trainer):
            self._rounds.append(Rounds(units, finished_among(self.ledger, units), self.ledger.options, self))
            self._rounds[-1].begin()

    def save(self) -> None:
        """Save the states of units that wait for their next turn; the command is to stop."""
        for rounds in self._rounds:
            rounds.save()

    def put(self, unit: JobGroup, work: Work) -> None:
        """Have a thread do some work for a unit."""

        def unless_stopped(lane: int, compiled: Callable[[], None] | None) -> None:
            if self.ledger.stop.is_set():
                raise Stopped
            if not (self.ledger.options.fail_fast and self.ledger.failed.is_set()):
                work(lane, compiled)

        self.pool.put(unit.program, unless_stopped)

    def _whole(self, unit: JobGroup, lane: int, compiled: Callable[[], None] | None) -> None:
        """Train a unit to its end."""
        if not self.ledger.todo(unit):  # all members have failed, because the program cannot be compiled
            return
        with self.guard(unit, retry=True):
            training = self.open(unit, lane, compiled)
            try:
                trained = training.train()
            finally:
                training.close()
            self._evaluate(unit, trained)

    def open(self, unit: JobGroup, lane: int, compiled: Callable[[], None] | None) -> Training:
        """Begin the training of a unit, from its checkpoint if there is one; `lane` and `compiled`: see `Work`."""
        ledger = self.ledger
        if self._broken is not None:
            raise self._broken
        ledger.display.begin(self.number)
        lease = ledger.hold(self.group)
        started = time.monotonic()
        unload()
        device = jax.local_devices()[lane] if self.pool.lanes > 1 and unit.mode == "map" else None
        params = [start_of(bound) for bound in unit.members]
        program = program_of(unit, on_device(unit.members[0].dataset, device), params, device)
        if compiled is not None:
            try:
                program.compile()
            except Exception as error:
                if not out_of_memory(error):
                    self._broken = error
                raise
            compiled()
        seconds = time.monotonic() - started
        ledger.spend("compile", seconds)
        return Training(ledger, self.group, self.number, unit, program, lease, seconds)

    def close(self, unit: JobGroup, training: Training) -> None:
        """Evaluate a unit that has ended."""
        try:
            trained = training.finish()
        finally:
            training.close()
        self._evaluate(unit, trained)

    def _evaluate(self, unit: JobGroup, trained: list[TrainedMember]) -> None:
        """Have the background thread evaluate the members of a trained unit."""
        self.ledger.display.evaluating(self.number, self.group.position(unit))
        todo = self.ledger.todo(unit)
        for index, bound in todo:
            arguments = self.number, self.group, bound, trained[index]
            self.ledger.futures.append(self.background.submit(self.ledger.finish, *arguments))
        if not todo:
            self.ledger.clean(self.group)

    @contextlib.contextmanager
    def guard(self, unit: JobGroup, retry: bool = False) -> Iterator[None]:
        """Turn an exception into results of failed runs.

        With `retry`, a unit that ran out of memory is tried again with less memory in use.
        """
        try:
            yield
        except (ConfigError, LeaseLost, Stopped):
            raise  # the whole command ends: a full disk, for example
        except Exception as error:
            if retry and out_of_memory(error) and self._retry(unit):
                return
            if error not in self._shown:
                self._shown.add(error)
                self.ledger.display.error(error)
            self.ledger.failed.set()
            with self.ledger.lock:
                for _, bound in self.ledger.todo(self.group if error is self._broken else unit):
                    result = fail(self.ledger.folder(bound), self.ledger.frame(bound, self.group), error)
                    self.ledger.settle(self.number, self.group, bound, result)

    def _retry(self, unit: JobGroup) -> bool:
        """Try a unit again that ran out of memory: a vmap group narrower, a member of map mode with fewer others.

        Returns:
          False if neither is possible.
        """
        ledger = self.ledger
        if unit.mode == "map":
            if not self.pool.fewer():
                return False
            ledger.display.note(f"program {self.number + 1}: out of memory; again with fewer members at the same time")
            self.put(unit, functools.partial(self._whole, unit))
            return True
        narrower = halves(unit)
        if not narrower:
            return False
        width = narrower[0].width
        ledger.display.note(f"program {self.number + 1}: out of memory at width {unit.width}; again at {width}")
        ledger.replace(unit, narrower)
        for part in narrower:
            GroupTraining(ledger, self.number, part, self.pool, self.background).begin()
        return True


def finished_among(ledger: Ledger, units: Sequence[JobGroup]) -> dict[int, Peer]:
    """Number of a unit that has a result already -> what it is compared by."""
    bounds = [unit.members[0] for unit in units]
    return {
        at: finished_peer(ledger.folder(bound), bound.job.trainer.monitor)
        for at, bound in enumerate(bounds)
        if bound.job.hash in ledger.outcomes
    }


def across(ledger: Ledger, trainings: Sequence[GroupTraining]) -> Rounds | None:
    """The rounds of all units of a command (`sweep.peers=command`); None if there is no unit."""
    owners = {unit.members[0].job.hash: training for training in trainings for unit in training.group.units}
    units = [unit for training in trainings for unit in training.group.units]
    if not units:
        return None
    monitor = units[0].members[0].job.trainer.monitor
    others = [
        (outcome.job, finished_peer(RunFolder(outcome.folder), monitor))
        for digest, outcome in sorted(ledger.outcomes.items())
        if digest not in owners
    ]
    return Rounds(units, finished_among(ledger, units), ledger.options, Owners(owners), others)


class Owners:
    """Trains units of several groups, each by the training of its group; see `rounds.TrainsUnits`."""

    def __init__(self, owners: Mapping[str, GroupTraining]):
        self._owners = owners

    def _of(self, unit: JobGroup) -> GroupTraining:
        return self._owners[unit.members[0].job.hash]

    def guard(self, unit: JobGroup) -> contextlib.AbstractContextManager[None]:
        return self._of(unit).guard(unit)

    def open(self, unit: JobGroup, lane: int, compiled: Callable[[], None] | None) -> Training:
        return self._of(unit).open(unit, lane, compiled)

    def close(self, unit: JobGroup, training: Training) -> None:
        self._of(unit).close(unit, training)

    def put(self, unit: JobGroup, work: Work) -> None:
        self._of(unit).put(unit, work)


def results(futures: Iterable[Future[Any]]) -> None:
    """Wait for all futures, waking now and then as `Pool.run` does; raises the first exception of a future."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, WAKE_EVERY, FIRST_COMPLETED)
        for future in done:
            future.result()


def _import_early() -> None:
    """Import what the evaluation needs (1.5 s) while the first program compiles."""
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401
