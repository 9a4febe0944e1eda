"""Ctrl-C and SIGTERM while a command trains."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

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
