"""Likelihoods p(x | outputs) of counts: x is 0, 1, 2, ... as stored, and log p is in nats with its factorials.

**A decoder output l is the logarithm of the mean**, as in a generalized linear model: a step of l changes a mean of any
size by the same factor. Above exp(10) the mean goes on as a straight line, so that no output overflows. With softplus
the mean of a large count moves by single counts: after 300 epochs a VAE of digits with 100 times their counts had an
-ELBO of 5,750 nats, and 3,390 with the logarithm. On the digits themselves it was 103.6 and 105.5.

**Networks read log(1 + x)**, in the encoder and where a decoder reads the last value. A VAE that read counts of 1,000
as they are had no finite first step.

**log p is computed as in Loader (2000), "Fast and Accurate Computation of Binomial Probabilities"**: from the small
distance between x and the mean, and not as a difference of terms as large as x log x. At x = 10^6 the latter is rounded
to whole nats in float32; the former is off by less than .001 nats.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.ranges import Positive
from research.tree import spec

LEAST = 0.001  # smallest mean with which a decoder starts
BEND = 10.0  # the mean is exp(l) up to this output, and then goes on in a straight line
SMALL = 4.0  # from here on, three terms of Stirling's series are exact in float32


def as_read(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """What networks read of counts: log(1 + x), and -log(1 - x) of a negative number, which noise makes of a count."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def _log_mean(outputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
    return jnp.where(outputs < BEND, outputs, BEND + jnp.log1p(jnp.maximum(outputs - BEND, 0)))


def _stirling(y: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log Gamma(y + 1) - y log y + y for y >= 0: what Stirling's formula leaves, 0 at y = 0."""
    small = y < SMALL
    low, high = jnp.where(small, y, 1.0), jnp.where(small, SMALL, y)
    inverse = 1 / high
    square = inverse * inverse
    series = 0.5 * jnp.log(2 * math.pi * high) + inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    positive = jnp.where(low > 0, low, 1.0)
    return jnp.where(small, jax.lax.lgamma(low + 1) - low * jnp.log(positive) + low, series)


def _excess(log_ratio: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """exp(u) - 1 - u, at least 0."""
    return jnp.expm1(log_ratio) - log_ratio


class Counts:
    """Methods of likelihoods that have one decoder output for a count, the logarithm of its mean."""

    channels = 1
    nats = True

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        line = math.exp(BEND) * (1 + outputs - BEND)
        return jnp.where(outputs < BEND, jnp.exp(jnp.minimum(outputs, BEND)), line)

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        logarithm = jnp.log(jnp.maximum(mean, LEAST))
        return jnp.where(logarithm < BEND, logarithm, BEND - 1 + mean * math.exp(-BEND))


@spec
class Poisson(Counts):
    """log p = x log m - m - log x!, with the mean m."""

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        positive = jnp.where(x > 0, x, 1.0)
        distance = positive * _excess(_log_mean(outputs) - jnp.log(positive))
        return jnp.where(x > 0, -distance - _stirling(positive), -self.mean(outputs))


@spec
class NegativeBinomial(Counts):
    """log p = log C(x + r - 1, x) + r log(r / (r + m)) + x log(m / (r + m)), with mean m and variance m + m^2 / r.

    r is the dispersion (R calls it size, SciPy n), one number for all elements. The larger it is, the closer is the
    distribution to Poisson's.
    """

    dispersion: Positive

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        r, mean, positive = self.dispersion, self.mean(outputs), jnp.where(x > 0, x, 1.0)
        # log (r + x) / (r + m): from the difference where the two are close, and else without a difference near -1
        difference = (x - mean) / (r + mean)
        close = jnp.abs(difference) < 0.5
        ratio = jnp.where(close, jnp.log1p(jnp.where(close, difference, 0.0)), jnp.log(r + x) - jnp.log(r + mean))
        distance = r * _excess(ratio) + positive * _excess(_log_mean(outputs) - jnp.log(positive) + ratio)
        factorials = _stirling(r + x) - _stirling(jnp.asarray(r, x.dtype)) - _stirling(positive)
        return jnp.where(x > 0, factorials - jnp.log1p(x / r) - distance, r * ratio)
