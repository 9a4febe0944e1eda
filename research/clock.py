"""What time it is in training, as a loss sees it."""

from typing import NamedTuple

import jax


class Clock(NamedTuple):
    """Traced scalars that ramps and schedules of a loss depend on.

    Attributes:
      step: optimizer steps done.
      epoch: the same in epochs, with fraction.
      fraction: the same as a share of the whole training, in [0, 1).
      train_size: number of training rows.
    """

    step: jax.Array
    epoch: jax.Array
    fraction: jax.Array
    train_size: jax.Array
