"""How a sweep spends its time: training, compiling, padding, and waiting for files."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator


@dataclasses.dataclass
class Goodput:
    """Seconds of one unit.

    Attributes:
      compile: initialising and compiling.
      learn: training of members that have not ended.
      idle: training of padding, and of members that have ended.
      write: the device waited for files.
    """

    compile: float = 0.0
    learn: float = 0.0
    idle: float = 0.0
    write: float = 0.0
    _last: float = 0.0

    def begin(self) -> None:
        """Note the time at which training starts."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def chunk(self, width: int, learning: int) -> Iterator[None]:
        """Around the wait for a chunk. The time since the chunk before is split by the share of learning members."""
        yield
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        share = learning / max(width, 1)
        self.learn += seconds * share
        self.idle += seconds * (1 - share)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing of files."""
        started = time.monotonic()
        yield
        self.write += time.monotonic() - started


def describe(units: Iterable[Goodput]) -> str:
    """One line with the share of each kind of time."""
    units = list(units)
    seconds = {name: sum(getattr(unit, name) for unit in units) for name in ("learn", "compile", "idle", "write")}
    total = sum(seconds.values())
    if total <= 0:
        return "goodput: nothing was trained"
    share = {name: f"{value / total:.0%}" for name, value in seconds.items()}
    return (
        f"goodput: of {total:.1f} s of programs {share['learn']} trained members that learn, {share['compile']} "
        f"compiled, {share['idle']} went to padding and members that had ended, {share['write']} to files"
    )
