"""Training batches that are drawn anew at every use."""

import dataclasses

import jax
import jax.numpy as jnp

from research.data.examples import Examples
from research.tree import recipe


@recipe
class Binarize:
    """x ~ Bernoulli(x); 16 random bits a value (probabilities are exact to 2^-16, at half the cost of 32)."""

    def draw(self, batch: Examples, key: jax.Array) -> Examples:
        """Zeros and ones, float32, from probabilities of the same shape."""
        bits = jax.random.bits(key, batch.x.shape, jnp.uint16).astype(jnp.float32)
        return dataclasses.replace(batch, x=(bits < batch.x * 65536.0).astype(jnp.float32))
