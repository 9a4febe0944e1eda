"""The progress of a training, as a loss sees it."""

from typing import NamedTuple

import jax


class Clock(NamedTuple):
    """Traced scalars on which ramps of a loss depend.

    Attributes:
      step: optimizer steps done.
      epoch: the same in epochs, a fraction.
      fraction: the same as a share of the whole training, in [0, 1).
      train_size: number of training rows.
    """

    step: jax.Array
    epoch: jax.Array
    fraction: jax.Array
    train_size: jax.Array
