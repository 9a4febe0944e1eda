"""Likelihoods p(x | outputs) of counts: x is 0, 1, 2, ... as stored, and log p is in nats with its factorials.

**The mean is softplus(l) = log(1 + exp(l))** of a decoder output l: about exp(l) for small means and l for large ones.
The slope of log p is then at most max(x, 1), and every output has a finite log p. With exp(l) the slope would be
x - exp(l), which is infinite from l = 89: decoders of unscaled counts get there, and so do recurrent ones that read
their own mean back.

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
SMALL = 4.0  # from here on, three terms of Stirling's series are exact in float32
LINEAR = -15.0  # below this log softplus(l) is l in float32


def softplus(outputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log(1 + exp(l)), with the slope 1/2 at l = 0."""
    # This form costs half of jax's (logaddexp) on a CPU. It has `where` rather than `maximum`, whose slope at exactly 0
    # (dead units) would not be 1/2.
    return jnp.where(outputs >= 0, outputs, 0) + jnp.log1p(jnp.exp(-jnp.abs(outputs)))


def _log_softplus(outputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log softplus(l), finite also where softplus(l) is 0 in float32."""
    linear = outputs < LINEAR
    return jnp.where(linear, outputs, jnp.log(softplus(jnp.where(linear, 0.0, outputs))))


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
    """Methods of likelihoods that have one decoder output for a count, and the mean softplus(output)."""

    channels = 1
    nats = True

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return softplus(outputs)

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        mean = jnp.maximum(mean, LEAST)
        return mean + jnp.log(-jnp.expm1(-mean))


@spec
class Poisson(Counts):
    """log p = x log m - m - log x!, with the mean m."""

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        positive = jnp.where(x > 0, x, 1.0)
        distance = positive * _excess(_log_softplus(outputs) - jnp.log(positive))
        return jnp.where(x > 0, -distance - _stirling(positive), -softplus(outputs))


@spec
class NegativeBinomial(Counts):
    """log p = log C(x + r - 1, x) + r log(r / (r + m)) + x log(m / (r + m)), with mean m and variance m + m^2 / r.

    r is the dispersion (R calls it size, SciPy n), one number for all elements. The larger it is, the closer is the
    distribution to Poisson's.
    """

    dispersion: Positive

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        r, mean, positive = self.dispersion, softplus(outputs), jnp.where(x > 0, x, 1.0)
        # log (r + x) / (r + m): from the difference where the two are close, and else without a difference near -1
        difference = (x - mean) / (r + mean)
        close = jnp.abs(difference) < 0.5
        ratio = jnp.where(close, jnp.log1p(jnp.where(close, difference, 0.0)), jnp.log(r + x) - jnp.log(r + mean))
        distance = r * _excess(ratio) + positive * _excess(_log_softplus(outputs) - jnp.log(positive) + ratio)
        factorials = _stirling(r + x) - _stirling(jnp.asarray(r, x.dtype)) - _stirling(positive)
        return jnp.where(x > 0, factorials - jnp.log1p(x / r) - distance, r * ratio)
