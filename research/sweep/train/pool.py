"""The threads that train the units of a sweep; a program is compiled by one thread only.

On a CPU most operations of a program use one core, so several threads call programs of one job at the same time. If the
program of its next unit is being compiled, a thread takes a unit of another program; it waits only if there is none.
"""

import functools
import threading
from collections.abc import Callable, Hashable

WAKE_EVERY = 0.2  # seconds
# A piece of work gets the number of the device that its thread uses, and a function that it calls once its program is
# compiled; None if it is compiled already.
Work = Callable[[int, Callable[[], None] | None], None]


class Pool:
    """Threads that do pieces of work in the order in which they were added, except if their program is being compiled.

    Args:
      threads: how many.
      lanes: number of devices that the threads use; a program is compiled for each of them.
    """

    def __init__(self, threads: int, lanes: int = 1):
        self.lanes, self._threads = lanes, threads
        self._most = threads  # pieces of work at the same time
        self._changed = threading.Condition()
        self._waiting: list[tuple[Hashable, Work]] = []
        self._compiling: set[Hashable] = set()
        self._ready: set[Hashable] = set()  # compiled programs
        self._running = 0
        self._error: BaseException | None = None

    def put(self, program: Hashable, work: Work) -> None:
        """Add some work with a program, which is equal for all work that needs the same one; work may add more."""
        with self._changed:
            if self._error is None:
                self._waiting.append((program, work))
            self._changed.notify_all()

    def fewer(self) -> bool:
        """Do one piece of work fewer at the same time from now on; False if only one is being done."""
        with self._changed:
            if self._running < 2:
                return False
            self._most = max(1, min(self._most, self._running) - 1)
            return True

    def run(self, failed: Callable[[], None]) -> None:
        """Do all work; returns when none is left, or raises the first exception.

        This thread wakes now and then. A signal that arrives while a thread is about to sleep in a lock wakes nobody,
        and Ctrl-C would have to wait until the next piece of work has ended.

        Args:
          failed: called at once when some work has failed or this thread was interrupted; the rest is to end.
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
        while (next_work := self._next(lane)) is not None:
            program, work = next_work
            key = program, lane
            try:
                work(lane, functools.partial(self._compiled, key) if key in self._compiling else None)
            except BaseException as error:
                self._close(error)
            finally:
                with self._changed:
                    self._running -= 1
                    self._compiling.discard(key)
                    self._changed.notify_all()

    def _next(self, lane: int) -> tuple[Hashable, Work] | None:
        with self._changed:
            while self._waiting or self._running:
                usable = (pair for pair in self._waiting if (pair[0], lane) not in self._compiling)
                pair = next(usable, None) if self._running < self._most else None
                if pair is not None:
                    self._waiting.remove(pair)
                    self._running += 1
                    if (pair[0], lane) not in self._ready:
                        self._compiling.add((pair[0], lane))
                    return pair
                self._changed.wait()
            return None

    def _compiled(self, key: Hashable) -> None:
        with self._changed:
            self._compiling.discard(key)
            self._ready.add(key)
            self._changed.notify_all()

    def _close(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._waiting.clear()
            self._changed.notify_all()
