"""The threads that train the units of a sweep; no two of them compile the same program.

On a CPU most operations of a program occupy one core, so that several threads call programs of one job at the same
time. A thread whose next unit belongs to a program that another thread is compiling takes a unit of another program
instead, and waits only if there is none.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable
from typing import NamedTuple

WAKE_EVERY = 0.2  # seconds


class Turn(NamedTuple):
    """What a task is told.

    Attributes:
      lane: number of the device that its thread computes on.
      first: whether its program is not compiled yet; no other task of the program runs meanwhile.
      compiled: to be called once it is.
    """

    lane: int
    first: bool
    compiled: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """Some work with a program.

    Attributes:
      program: equal for tasks that compile the same.
      work: what is to be done.
    """

    program: Hashable
    work: Callable[[Turn], None]


class Pool:
    """Threads that do tasks in the order in which they were given, as far as their programs are not being compiled.

    Args:
      threads: how many.
      lanes: devices over which the threads are spread; each compiles for itself.
    """

    def __init__(self, threads: int, lanes: int = 1):
        self.lanes, self._most = lanes, threads
        self._threads = threads
        self._changed = threading.Condition()
        self._waiting: list[Task] = []
        self._compiling: set[Hashable] = set()
        self._compiled: set[Hashable] = set()
        self._running = 0
        self._closed = False
        self._error: BaseException | None = None

    def put(self, *tasks: Task) -> None:
        """Add tasks; also from within one."""
        with self._changed:
            if not self._closed:
                self._waiting += tasks
            self._changed.notify_all()

    def fewer(self) -> bool:
        """Have one task fewer at the same time from now on; False where no other one is under way."""
        with self._changed:
            if self._running < 2:
                return False
            self._most = max(1, min(self._most, self._running) - 1)
            return True

    def run(self, failed: Callable[[], None]) -> None:
        """Do all tasks; returns when none is left, or raises what the first one raised that failed.

        It wakes now and then: a signal that comes while a thread is about to sleep in a lock wakes nobody, and Ctrl-C
        would have to wait for the next task to end.

        Args:
          failed: called at once when a task has failed, or this thread was interrupted: the others are to end.
        """
        threads = [
            threading.Thread(target=self._work, args=(number,), name=f"train-{number}")
            for number in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        told = False
        while alive := [thread for thread in threads if thread.is_alive()]:
            try:
                alive[0].join(WAKE_EVERY)
            except BaseException as error:
                self._close(error)
            if self._error is not None and not told:
                told = True
                failed()
        if self._error is not None:
            raise self._error

    def _work(self, number: int) -> None:
        lane = number % self.lanes
        while (task := self._next(lane)) is not None:
            try:
                key = task.program, lane
                with self._changed:
                    first = key in self._compiling
                task.work(Turn(lane, first, functools.partial(self._ready, key)))
            except BaseException as error:
                self._close(error)
            finally:
                with self._changed:
                    self._running -= 1
                    self._compiling.discard((task.program, lane))
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
            self._error, self._closed = self._error or error, True
            self._waiting.clear()
            self._changed.notify_all()
