"""The threads that train the units of a sweep; a program is compiled by one thread only.

On a CPU most operations of a program use one core, so several threads call programs of one job at the same time. If the
program of its next unit is being compiled, a thread takes a unit of another program; it waits only if there is none.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable
from typing import NamedTuple

WAKE_EVERY = 0.2  # seconds


class Turn(NamedTuple):
    """What a task learns when it is run.

    Attributes:
      lane: number of the device that its thread uses.
      first: whether its program is not compiled yet; until it is, no other task of the program runs.
      compiled: the task calls it once the program is compiled.
    """

    lane: int
    first: bool
    compiled: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """Some work with a program.

    Attributes:
      program: equal for tasks that use the same compiled program.
      work: what is to be done.
    """

    program: Hashable
    work: Callable[[Turn], None]


class Pool:
    """Threads that run tasks in the order in which they were added, except those whose program is being compiled.

    Args:
      threads: how many.
      lanes: number of devices that the threads use; a program is compiled for each of them.
    """

    def __init__(self, threads: int, lanes: int = 1):
        self.lanes, self._threads = lanes, threads
        self._most = threads  # tasks that may run at the same time
        self._changed = threading.Condition()
        self._waiting: list[Task] = []
        self._compiling: set[Hashable] = set()
        self._compiled: set[Hashable] = set()
        self._running = 0
        self._error: BaseException | None = None

    def put(self, *tasks: Task) -> None:
        """Add tasks; a task may add others."""
        with self._changed:
            if self._error is None:
                self._waiting += tasks
            self._changed.notify_all()

    def fewer(self) -> bool:
        """Run one task fewer at the same time from now on; False if only one is running."""
        with self._changed:
            if self._running < 2:
                return False
            self._most = max(1, min(self._most, self._running) - 1)
            return True

    def run(self, failed: Callable[[], None]) -> None:
        """Run all tasks; returns when none is left, or raises the first exception of a task.

        This thread wakes now and then. A signal that arrives while a thread is about to sleep in a lock wakes nobody,
        and Ctrl-C would have to wait until the next task has ended.

        Args:
          failed: called at once when a task has failed or this thread was interrupted; the other tasks are to end.
        """
        threads = [
            threading.Thread(target=self._work, args=(number % self.lanes,), name=f"train-{number}")
            for number in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        called = False
        while alive := [thread for thread in threads if thread.is_alive()]:
            try:
                alive[0].join(WAKE_EVERY)
            except BaseException as error:
                self._close(error)
            if self._error is not None and not called:
                called = True
                failed()
        if self._error is not None:
            raise self._error

    def _work(self, lane: int) -> None:
        while (task := self._next(lane)) is not None:
            key = task.program, lane
            try:
                with self._changed:
                    first = key in self._compiling
                task.work(Turn(lane, first, functools.partial(self._ready, key)))
            except BaseException as error:
                self._close(error)
            finally:
                with self._changed:
                    self._running -= 1
                    self._compiling.discard(key)
                    self._changed.notify_all()

    def _next(self, lane: int) -> Task | None:
        with self._changed:
            while self._waiting or self._running:
                usable = (task for task in self._waiting if (task.program, lane) not in self._compiling)
                task = next(usable, None) if self._running < self._most else None
                if task is not None:
                    self._waiting.remove(task)
                    self._running += 1
                    if (task.program, lane) not in self._compiled:
                        self._compiling.add((task.program, lane))
                    return task
                self._changed.wait()
            return None

    def _ready(self, key: Hashable) -> None:
        with self._changed:
            self._compiling.discard(key)
            self._compiled.add(key)
            self._changed.notify_all()

    def _close(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._waiting.clear()
            self._changed.notify_all()
