"""The question that precedes every write into the folder of a sweep: does this process still hold its lease?

A process that stood still (SIGSTOP, a suspended laptop) may wake after another process has taken its folder over and
finished its work. So every object that writes there gets a lease, and asks it just before a file appears under its
name.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

LOST = 4  # exit code of a command whose folder another command took over


class LeaseLost(RuntimeError):
    """This process no longer holds the lease, and may write nothing any more."""


class Held(Protocol):
    """A lease, or several, under which files are written."""

    def check(self) -> None:
        """Raise LeaseLost if another process has taken the lease over, or its holder has released it."""
        ...


@dataclasses.dataclass(frozen=True)
class All:
    """Several leases that must all be held."""

    leases: Sequence[Held] = ()

    def check(self) -> None:
        """Raise LeaseLost if any of them is lost."""
        for lease in self.leases:
            lease.check()


ALONE = All()  # no lease at all: for temporary folders, which no other process knows
