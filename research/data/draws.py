"""Binary images x ~ Bernoulli(x): drawn anew in every training batch, or once for all."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from research.data.examples import Examples
from research.tree import recipe

CHUNK = 4096  # rows that become floats at a time: uint8 as floats takes several times its size


@recipe
class Binarize:
    """x ~ Bernoulli(x) with 16 random bits a value: probabilities are exact to 2^-16, at half the cost of 32 bits."""

    def draw(self, batch: Examples, key: jax.Array) -> Examples:
        """Zeros and ones, float32, from probabilities of the same shape."""
        bits = jax.random.bits(key, batch.x.shape, jnp.uint16).astype(jnp.float32)
        return dataclasses.replace(batch, x=(bits < batch.x * 65536.0).astype(jnp.float32))


def bernoulli(probability: Callable[[slice], np.ndarray], shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Zeros and ones, uint8 of the given shape; `probability` gives the float32 probabilities of some of the rows.

    The draws of a row depend on the seed and on how many rows come before it.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = np.empty(shape, np.uint8)
    for start in range(0, len(drawn), CHUNK):
        values = probability(slice(start, start + CHUNK))
        drawn[start : start + CHUNK] = random.random(values.shape, np.float32) < values
    return drawn
