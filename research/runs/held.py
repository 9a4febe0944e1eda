"""What everything that writes into the folder of a sweep asks before each write: whether this process still holds it.

A process that stood still (SIGSTOP, a suspended laptop) may wake after another has taken its folder and finished its
work. So every object that writes there is made with a lease and asks it just before a file comes under its name.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

LOST = 4  # exit code of a command whose folder another one took over


class LeaseLost(RuntimeError):
    """The lease is no longer ours: nothing may be written any more."""


class Held(Protocol):
    """A lease, or several, under which files are written."""

    def check(self) -> None:
        """Raise LeaseLost if another process has taken it over, or its holder let it go."""
        ...


@dataclasses.dataclass(frozen=True)
class All:
    """Several leases that must all be held; of none at all, what no other process writes to."""

    leases: Sequence[Held] = ()

    def check(self) -> None:
        """Raise LeaseLost if one of them is lost."""
        for lease in self.leases:
            lease.check()


ALONE = All()  # for folders that no other process knows: temporary ones
