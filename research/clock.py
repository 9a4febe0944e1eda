"""The progress of a training, as a loss sees it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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


def ramp(time: Float[Array, ""], length: Any) -> Float[Array, ""]:
    """min(time / length, 1), and 1 everywhere for length 0, without the NaN gradient of a plain quotient."""
    length = jnp.asarray(length, jnp.float32)
    return jnp.where(time >= length, 1.0, time / jnp.where(length > 0, length, 1.0))
