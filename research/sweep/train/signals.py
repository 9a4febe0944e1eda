"""Ctrl-C and SIGTERM while a command trains."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

INTERRUPTED = 130  # exit code
LEAVE_AFTER = 9.0  # seconds between the first signal and the end of the command, if it has not ended by itself


@contextlib.contextmanager
def handled(handle: Callable[[], None]) -> Iterator[None]:
    """Call `handle` for both signals inside a `with` block; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: handle()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_sessions: list[bool] = []  # one entry for each `session` under way


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Inside, an interrupt never ends the process: a Python session, such as a notebook, has called the command."""
    _sessions.append(True)
    try:
        yield
    finally:
        _sessions.pop()


def in_session() -> bool:
    """Whether a `session` is under way."""
    return bool(_sessions)


@contextlib.contextmanager
def stopping(stop: threading.Event, leave: Callable[[], None], note: Callable[[str], None]) -> Iterator[None]:
    """Set `stop` at the first signal, and call `leave` some seconds later; a second signal ends the process at once.

    In a `session` only `stop` is set.
    """
    timer = threading.Timer(LEAVE_AFTER, leave)
    timer.daemon = True

    def handle() -> None:
        if in_session():
            stop.set()
            return note("stopping: the state is saved after the step under way")
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()
        timer.start()
        note("stopping: the state is saved after the step under way; once more to leave at once")

    with handled(handle):
        try:
            yield
        finally:
            timer.cancel()


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to all of them; the command tells them to stop.

    What a library does to the handlers of this process inside the block is undone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
