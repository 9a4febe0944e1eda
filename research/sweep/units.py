"""The training of the units of a sweep, dealt to threads: a member of map mode, or a whole group of vmap mode."""

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import jax

from research import tree
from research.runs.held import LeaseLost
from research.sweep import record
from research.sweep.checkpoint import Checkpoints
from research.sweep.dispatch import LEAVE_AFTER
from research.sweep.goodput import Goodput
from research.sweep.ledger import INTERRUPTED, Sweep
from research.sweep.loop import Control, Stopped, Training
from research.sweep.manifest import group_folder
from research.sweep.memory import halves, out_of_memory
from research.sweep.plan import Group
from research.sweep.pool import WAKE_EVERY, Pool, Task, Turn
from research.sweep.prepare import load_start
from research.sweep.program import on_device, program_of
from research.sweep.rounds import Rounds, finished_peer
from research.tree import ConfigError


def train(sweep: Sweep) -> None:
    """Train all units; an interruption or a full disk leaves through here.

    What follows for each trained member (evaluation, pictures, files) is done meanwhile in one background thread.
    """
    groups, options = sweep.prepared.groups, sweep.options
    background = ThreadPoolExecutor(1, "finish")
    background.submit(_import_early)
    threads = min(options.threads, sum(len(group.units) for group in groups))
    if options.concurrency is None and any(group.devices > 1 for group in groups):
        threads = 1  # one program fills all devices
    pool = Pool(threads, min(options.devices_used, threads))
    dealers = [Dealer(sweep, number, group, pool, background) for number, group in enumerate(groups)]
    with stopping(sweep):
        try:
            for dealer in dealers:
                dealer.begin()
            pool.run(sweep.stop.set)
            results(sweep.futures)
        except BaseException as error:
            sweep.stop.set()
            background.shutdown(cancel_futures=True)
            for dealer in dealers:
                dealer.save()
            if isinstance(error, KeyboardInterrupt | Stopped):
                sweep.interrupt()
                raise KeyboardInterrupt from None
            if isinstance(error, ConfigError):
                sweep.lease.check()  # a place that is gone may have been removed by the command that took over
            raise
        finally:
            for group in groups:
                sweep.let_go(group)
    background.shutdown()


class Dealer:
    """Deals the units of one group to threads, and takes what becomes of them.

    Args:
      number: of the group.
      pool: whose threads train.
      background: where members that are trained are evaluated.
    """

    def __init__(self, sweep: Sweep, number: int, group: Group, pool: Pool, background: ThreadPoolExecutor):
        self.sweep, self.number, self.group, self.pool, self.background = sweep, number, group, pool, background
        self._rounds: list[Rounds] = []
        self._broken: Exception | None = None  # why the program of this group cannot be compiled
        self._told: set[Exception] = set()

    def begin(self) -> None:
        """Give the units that have no result to the pool."""
        if self.group.mode == "map" and self.sweep.options.prune != "none":
            for units in tree.group(self.group.units, lambda unit: unit.bounds[0].job.trainer):
                outcomes = [self.sweep.outcomes.get(unit.bounds[0].job.hash) for unit in units]
                runs = [self.sweep.folder(unit.bounds[0]) for unit in units]
                monitor = units[0].bounds[0].job.trainer.monitor
                finished = {at: finished_peer(runs[at], monitor) for at, outcome in enumerate(outcomes) if outcome}
                self._rounds.append(Rounds(units, finished, self.sweep.options, self))
                self._rounds[-1].begin()
            return
        for unit in self.group.units:
            if self.sweep.todo(unit):
                self.put(unit, functools.partial(self._whole, unit))

    def save(self) -> None:
        """Save what waits for its next turn, where the command is to stop."""
        for rounds in self._rounds:
            rounds.save()

    def put(self, unit: Group, work: Callable[[Turn], None]) -> None:
        """Have work done for a unit by a thread."""

        def unless_over(turn: Turn) -> None:
            if self.sweep.stop.is_set():
                raise Stopped
            if not (self.sweep.options.fail_fast and self.sweep.failed.is_set()):
                work(turn)

        self.pool.put(Task(unit.program, unless_over))

    def _whole(self, unit: Group, turn: Turn) -> None:
        """Train a unit from its checkpoint or its beginning to its end."""
        if not self.sweep.todo(unit):  # its program cannot be compiled
            return
        with self.guard(unit, again=True):
            training = self.open(unit, turn)
            try:
                trained = training.train()
            finally:
                training.close()
            self._hand_over(unit, trained)

    def open(self, unit: Group, turn: Turn) -> Training:
        """Begin the training of a unit, from its checkpoint if there is one."""
        sweep = self.sweep
        if self._broken is not None:
            raise self._broken
        sweep.display.begin(self.number)
        held = sweep.hold(self.group)
        goodput = Goodput()
        sweep.goodputs.append(goodput)
        started = time.monotonic()
        device = jax.local_devices()[turn.lane] if self.pool.lanes > 1 and unit.mode == "map" else None
        starts = [bound.job.trainer.warm_start for bound in unit.bounds]
        params = [None if path is None else load_start(path) for path in starts]
        program = program_of(unit, on_device(unit.bounds[0].dataset, device), params, device)
        if turn.first:
            self._compile(program.compile)
            turn.compiled()
        goodput.compile = time.monotonic() - started
        place = group_folder(sweep.prepared.folder, unit.id)
        checkpoints = Checkpoints(place, record.group_identity(unit), sweep.display.note, held)
        member = self._member(unit)

        def progress(epochs: int, metrics: Mapping[str, Any]) -> None:
            held.check()
            sweep.display.chunk(self.number, epochs, metrics, member)

        settled = set(range(len(unit.bounds))) - {index for index, _ in sweep.todo(unit)}
        commit = sweep.shared["commit"]
        control = Control(progress, sweep.stop.is_set, sweep.display.note, checkpoints, commit, settled)
        folders = [sweep.folder(bound) for bound in unit.bounds]
        try:
            return Training(unit, program, folders, sweep.options, control, goodput)
        except BaseException:
            checkpoints.close()
            raise

    def _member(self, unit: Group) -> int:
        """Number of a unit in its group."""
        return next(at for at, bound in enumerate(self.group.bounds) if bound is unit.bounds[0])

    def _compile(self, compile: Callable[[], None]) -> None:
        """A program that cannot be compiled fails for all members at once."""
        try:
            compile()
        except Exception as error:
            if not out_of_memory(error):
                self._broken = error
            raise

    def close(self, unit: Group, training: Training) -> None:
        """Take what became of a unit that has ended."""
        try:
            trained = training.finish()
        finally:
            training.close()
        self._hand_over(unit, trained)

    def _hand_over(self, unit: Group, trained: list[Any]) -> None:
        """Have the members of a trained unit evaluated."""
        self.sweep.display.evaluating(self.number, self._member(unit))
        todo = self.sweep.todo(unit)
        for index, bound in todo:
            given = self.number, self.group, bound, trained[index]
            self.sweep.futures.append(self.background.submit(self.sweep.finish, *given))
        if not todo:
            self.sweep.clean(self.group)

    @contextlib.contextmanager
    def guard(self, unit: Group, again: bool = False) -> Iterator[None]:
        """Turn an exception of ordinary kind into results of runs that failed.

        With `again` a unit that ran out of memory is tried once more, with less of it in use.
        """
        try:
            yield
        except (ConfigError, LeaseLost, Stopped):
            raise  # a full disk, say: nothing more can be written
        except Exception as error:
            if again and out_of_memory(error) and self._again(unit):
                return
            if error not in self._told:
                self._told.add(error)
                self.sweep.display.error(error)
            self.sweep.failed.set()
            with self.sweep.lock:
                for _, bound in self.sweep.todo(self.group if error is self._broken else unit):
                    result = record.fail(self.sweep.folder(bound), self.sweep.frame(bound, self.group), error)
                    self.sweep.settle(self.number, self.group, bound, result)

    def _again(self, unit: Group) -> bool:
        """Try a unit again that ran out of memory: a group of vmap mode narrower, a member beside fewer others."""
        sweep = self.sweep
        if unit.mode == "map":
            if not self.pool.fewer():
                return False
            sweep.display.note(f"program {self.number + 1}: out of memory; again with fewer members at the same time")
            self.put(unit, functools.partial(self._whole, unit))
            return True
        narrower = halves(unit)
        if not narrower:
            return False
        width = narrower[0].width
        sweep.display.note(f"program {self.number + 1}: out of memory at width {unit.width}; again at {width}")
        sweep.replace(unit, narrower)
        for part in narrower:
            Dealer(sweep, self.number, part, self.pool, self.background).begin()
        return True


@contextlib.contextmanager
def stopping(sweep: Sweep) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command after the chunk under way, or after ten seconds; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    timer = threading.Timer(LEAVE_AFTER, sweep.leave)
    timer.daemon = True

    def handle(number: int, frame: Any) -> None:
        if sweep.stop.is_set():
            os._exit(INTERRUPTED)
        sweep.stop.set()
        timer.start()
        sweep.display.note("stopping: the state is saved after the step under way; once more to leave at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def results(futures: Iterable[Future[Any]]) -> None:
    """Wait for all, waking now and then as `Pool.run` does, and raise what the first one that fails raises."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, WAKE_EVERY, FIRST_COMPLETED)
        for future in done:
            future.result()


def _import_early() -> None:
    """Import what evaluation needs (1.5 s) while the first program compiles."""
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401
