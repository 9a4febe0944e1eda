"""Likelihoods of an observation given a decoder's outputs, and the Gaussian posterior.

Everything is in nats. `log_prob` is per element; `total` sums it over the elements of one example, so that a weight on
the KL divergence means the same for every input size.
"""

import math
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.ranges import Positive, Range
from research.tree import ConfigError, nearest, spec

LIKELIHOODS = ("bernoulli", "gaussian", "laplace", "huber", "categorical", "mse")


@runtime_checkable
class Likelihood(Protocol):
    """p(x | outputs) for elements x [B, D] and decoder outputs [B, D * channels].

    Attributes:
      channels: decoder outputs per element.
      nats: False for a loss that is no log-likelihood.
    """

    @property
    def channels(self) -> int: ...

    @property
    def nats(self) -> bool: ...

    def log_prob(self, outputs: Float[Array, "B outputs"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """log p(x | outputs) of every element, [B, D], in nats."""
        ...

    def mean(self, outputs: Float[Array, "B outputs"]) -> Float[Array, "B D"]:
        """E[x | outputs], [B, D]."""
        ...

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " outputs"]:
        """Output bias [D * channels] under which the decoder predicts the training mean [D]."""
        ...


@spec
class Bernoulli:
    """x in [0, 1], outputs are logits: log p = x l - softplus(l). A grey x gives a cross-entropy, not a likelihood."""

    channels = 1
    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        # softplus written out: its generic form (logaddexp) costs twice as much on CPU, and guards against infinities;
        # `where` and not `maximum`: at a logit of exactly 0 (dead units) the slopes must add up to 1/2
        softplus = jnp.where(outputs >= 0, outputs, 0) + jnp.log1p(jnp.exp(-jnp.abs(outputs)))
        return x * outputs - softplus

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return jax.nn.sigmoid(outputs)

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        clipped = jnp.clip(mean, 0.001, 0.999)  # the clipping of the IWAE code (Burda et al. 2016)
        return jnp.log(clipped / (1 - clipped))


@spec
class Gaussian:
    """log p = -(x - m)^2 / (2 s^2) - log s - log(2 pi) / 2, one scale s for all elements."""

    scale: Positive

    channels = 1
    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return -0.5 * jnp.square((x - outputs) / self.scale) - jnp.log(self.scale) - 0.5 * math.log(2 * math.pi)

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return outputs

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        return mean


@spec
class Laplace:
    """log p = -|x - m| / s - log(2 s), one scale s for all elements."""

    scale: Positive

    channels = 1
    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return -jnp.abs(x - outputs) / self.scale - jnp.log(2 * self.scale)

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return outputs

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        return mean


@spec
class Huber:
    """log p = -H(r) - log(s Z), r = (x - m) / s; H(r) = r^2 / 2 up to |r| = delta, then delta (|r| - delta / 2).

    Z = sqrt(2 pi) erf(delta / sqrt 2) + (2 / delta) exp(-delta^2 / 2) makes it a density (Huber's least favourable
    distribution), so that its nats compare with those of the others; s Z does not depend on the decoder.
    """

    scale: Positive
    delta: Positive

    channels = 1
    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        size = jnp.abs(x - outputs) / self.scale
        inside = jnp.minimum(size, self.delta)
        penalty = 0.5 * inside**2 + self.delta * (size - inside)
        delta = jnp.asarray(self.delta, jnp.float32)
        tails = 2 / delta * jnp.exp(-0.5 * delta**2)
        normalizer = math.sqrt(2 * math.pi) * jax.lax.erf(delta / math.sqrt(2)) + tails
        return -penalty - jnp.log(self.scale * normalizer)

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return outputs

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        return mean


@spec
class Categorical:
    """x in [0, 1] on `levels` equal steps, `levels` logits an element: log p = log softmax(l)[level of x]."""

    levels: Annotated[int, Range(2, 65_536)]

    nats = True

    @property
    def channels(self) -> int:
        return self.levels

    def _logits(self, outputs: Float[Array, "B outputs"]) -> Float[Array, "B D levels"]:
        return outputs.reshape(*outputs.shape[:-1], -1, self.levels)

    def log_prob(self, outputs: Float[Array, "B outputs"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        level = jnp.round(x * (self.levels - 1)).astype(jnp.int32)
        chosen = jax.nn.one_hot(level, self.levels)  # a gather here would be slow under vmap
        return (jax.nn.log_softmax(self._logits(outputs)) * chosen).sum(-1)

    def mean(self, outputs: Float[Array, "B outputs"]) -> Float[Array, "B D"]:
        return jax.nn.softmax(self._logits(outputs)) @ jnp.linspace(0.0, 1.0, self.levels)

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " outputs"]:
        # uniform over all levels mixed with the end that the mean is nearer to: that mean exactly, no level at zero
        clipped = jnp.clip(mean, 0.001, 0.999)[:, None]
        uniform = 2 * jnp.minimum(clipped, 1 - clipped)
        end = jax.nn.one_hot(jnp.where(mean < 0.5, 0, self.levels - 1), self.levels)
        return jnp.log(uniform / self.levels + (1 - uniform) * end).reshape(-1)


@spec
class MeanSquaredError:
    """Not a likelihood: `log_prob` is the negative squared error, and `total` its mean over the elements."""

    channels = 1
    nats = False

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return -jnp.square(x - outputs)

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return outputs

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        return mean


def total(
    likelihood: Likelihood,
    outputs: Float[Array, "B outputs"],
    x: Float[Array, "B D"],
    observed: Bool[Array, "B D"] | None = None,
) -> Float[Array, " B"]:
    """log p(x | outputs) of every example, [B]: summed over observed elements (averaged for mean-squared error)."""
    if observed is not None:
        x = jnp.where(observed, x, 0.0)  # a NaN behind the mask of the sum alone would still reach the gradient
    values = likelihood.log_prob(outputs, x)
    if observed is not None:
        values = jnp.where(observed, values, 0.0)
    if likelihood.nats:
        return values.sum(-1)
    return values.sum(-1) / (values.shape[-1] if observed is None else jnp.maximum(observed.sum(-1), 1))


def mean_squared_error(
    mean: Float[Array, "B D"], x: Float[Array, "B D"], observed: Bool[Array, "B D"] | None = None
) -> Float[Array, " B"]:
    """Mean over the observed elements of (x - mean)^2, [B]."""
    return -total(MeanSquaredError(), mean, x, observed)


@spec
class Observation:
    """Settings of p(x | outputs), a part of every model with a decoder.

    Attributes:
      likelihood: one of `LIKELIHOODS`.
      scale: of gaussian, laplace and huber; null learns one scale for all elements, starting at 1.
      delta: where huber turns from quadratic to linear, in units of the scale.
      levels: of categorical: x in [0, 1] is rounded to this many values.
    """

    likelihood: str
    scale: Positive | None
    delta: Positive
    levels: Annotated[int, Range(2, 65_536)]

    # A bound on log p(x) is of the same quantity under every scale, which is a parameter of the model; densities do not
    # compare with probabilities of binary or rounded values. What one likelihood calls an error has units of its own.
    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(("elbo_nats", "iwae_nats", "nll_nats"), ("likelihood", "levels")),
        **dict.fromkeys(("loss", "reconstruction_nats"), ("likelihood", "scale", "delta", "levels")),
    }

    def validate(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            remedy = f"expected one of {', '.join(LIKELIHOODS)}{nearest(self.likelihood, LIKELIHOODS)}"
            raise ConfigError("likelihood", self.likelihood, remedy)

    def check_range(self, low: float, high: float) -> None:
        """Refuse data in [low, high] that the likelihood is not defined on."""
        if self.likelihood in ("bernoulli", "categorical") and not (low >= 0 and high <= 1):
            remedy = (
                f"needs data in [0, 1], but the data lie in [{low:.4g}, {high:.4g}]; set data.scaling=minmax "
                "(and, outside the training range, clip the file), or use {key}=gaussian"
            )
            raise ConfigError("likelihood", self.likelihood, remedy)

    @property
    def learns_scale(self) -> bool:
        return self.scale is None and self.likelihood in ("gaussian", "laplace", "huber")

    def of(self, params: Any) -> Likelihood:
        """The likelihood, with its scale from the settings or from `params["likelihood"]`."""
        scale: Any = jnp.exp(params["likelihood"]["log_scale"]) if self.learns_scale else self.scale
        match self.likelihood:
            case "bernoulli":
                return Bernoulli()
            case "gaussian":
                return Gaussian(scale=scale)
            case "laplace":
                return Laplace(scale=scale)
            case "huber":
                return Huber(scale=scale, delta=self.delta)
            case "categorical":
                return Categorical(levels=self.levels)
            case _:
                return MeanSquaredError()

    def init(self) -> dict[str, Any]:
        """Parameters of the likelihood itself: {"likelihood"}, log scale 0, where it is learned."""
        return {"likelihood": {"log_scale": jnp.zeros(())}} if self.learns_scale else {}

    @property
    def channels(self) -> int:
        return self.levels if self.likelihood == "categorical" else 1


def kl_to_standard_normal(mean: Float[Array, "*B L"], log_variance: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) per latent dimension, in nats: (m^2 + v - log v - 1) / 2."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)


def normal_log_prob(x: Float[Array, "*B L"], mean: Any = 0.0, log_variance: Any = 0.0) -> Float[Array, "*B L"]:
    """log N(x; mean, exp(log_variance)) per dimension, in nats."""
    return -0.5 * (jnp.square(x - mean) * jnp.exp(-jnp.asarray(log_variance)) + log_variance + math.log(2 * math.pi))


class Forecast(NamedTuple):
    """Distribution of future values, element by element.

    Attributes:
      mean: scored by squared errors, [B, H, C].
      median: scored by absolute and relative errors, [B, H, C].
      deviation: of a Gaussian, [B, H, C], or None.
      quantiles: at the model's levels, ascending, [B, H, C, Q], or None.
    """

    mean: Any
    median: Any
    deviation: Any = None
    quantiles: Any = None
