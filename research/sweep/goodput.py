"""Where the time of a sweep goes: members that still learn, compiling, padding and leavers, input and output."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator


@dataclasses.dataclass
class Goodput:
    """Seconds of one group, by what the device did.

    Attributes:
      compile: initialising and compiling.
      learn: training of members that still learn.
      idle: training of padding, and of members that had stopped or diverged.
      write: the device waited for files.
    """

    compile: float = 0.0
    learn: float = 0.0
    idle: float = 0.0
    write: float = 0.0
    _last: float = 0.0

    def begin(self) -> None:
        """Training starts."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def chunk(self, width: int, learning: int) -> Iterator[None]:
        """Around the wait for a chunk: the time since the last chunk was ready, shared out among the members."""
        yield
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        share = learning / max(width, 1)
        self.learn += seconds * share
        self.idle += seconds * (1 - share)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around files that are written; they count as lost time where no chunk runs meanwhile."""
        started = time.monotonic()
        yield
        self.write += time.monotonic() - started


def describe(groups: Iterable[Goodput]) -> str:
    """One line: the share of each."""
    groups = list(groups)
    sums = {name: sum(getattr(group, name) for group in groups) for name in ("learn", "compile", "idle", "write")}
    total = sum(sums.values())
    if total <= 0:
        return "goodput: nothing was trained"
    shares = {name: f"{value / total:.0%}" for name, value in sums.items()}
    return (
        f"goodput: of {total:.1f} s of programs {shares['learn']} trained members that learn, {shares['compile']} "
        f"compiled, {shares['idle']} went to padding and members that had ended, {shares['write']} to files"
    )
