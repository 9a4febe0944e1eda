"""Which program trains a unit."""

from collections.abc import Sequence
from typing import Any

from research.data.mapped import Mapped
from research.inputs import Data
from research.sweep.plan import JobGroup
from research.sweep.program import Alone, Together
from research.sweep.stream import Stream

Program = Alone | Together | Stream


def program_of(group: JobGroup, data: Data, params: Sequence[Any] | None = None, device: Any = None) -> Program:
    """The program of a unit (`JobGroup.units`) with its initial state on the device.

    Args:
      data: the rows on the device, or on the host if they are streamed.
      params: the parameters with which each member begins; None for a member, or for all, that begin with fresh ones.
      device: of a unit of map mode; None means the first.
    """
    if group.mode != "map":
        return Together(group, data, params)
    return (Stream if isinstance(data.train.x, Mapped) else Alone)(group, data, params, device)
