"""Likelihoods p(x | outputs) of a decoder's outputs, and Gaussian codes. All densities are in nats.

`log_prob` is of every element. `total` sums it over the elements of one example, so that a weight of the KL divergence
means the same for every input size.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.counts import NegativeBinomial, Poisson, as_read
from research.errors import nearest
from research.ranges import Positive, Range
from research.tree import ConfigError, added, spec

COUNTS = ("poisson", "negative_binomial")
LIKELIHOODS = ("bernoulli", "gaussian", "laplace", "huber", "categorical", *COUNTS, "mse")


@runtime_checkable
class Likelihood(Protocol):
    """p(x | outputs) for elements x [B, D] and decoder outputs [B, D * channels].

    Attributes:
      channels: decoder outputs per element.
      nats: whether `log_prob` is a log-likelihood in nats, rather than another loss.
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
    """log p = x l - softplus(l), with outputs l (logits) and x in [0, 1]; of a grey x this is only a cross-entropy."""

    channels = 1
    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        # This form of softplus costs half of jax's (logaddexp) on a CPU. It has `where` rather than `maximum`, whose
        # slope at a logit of exactly 0 (dead units) would not be 1/2.
        softplus = jnp.where(outputs >= 0, outputs, 0) + jnp.log1p(jnp.exp(-jnp.abs(outputs)))
        return x * outputs - softplus

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return jax.nn.sigmoid(outputs)

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        clipped = jnp.clip(mean, 0.001, 0.999)  # the clipping of the IWAE code (Burda et al. 2016)
        return jnp.log(clipped / (1 - clipped))


class Location:
    """Methods of likelihoods that have one decoder output for an element, the location m, which is also the mean."""

    channels = 1

    def mean(self, outputs: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return outputs

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " D"]:
        return mean


@spec
class Gaussian(Location):
    """log p = -(x - m)^2 / (2 s^2) - log s - log(2 pi) / 2, with one scale s for all elements."""

    scale: Positive

    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return -0.5 * jnp.square((x - outputs) / self.scale) - jnp.log(self.scale) - 0.5 * math.log(2 * math.pi)


@spec
class Laplace(Location):
    """log p = -|x - m| / s - log(2 s), with one scale s for all elements."""

    scale: Positive

    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return -jnp.abs(x - outputs) / self.scale - jnp.log(2 * self.scale)


@spec
class Huber(Location):
    """log p = -H(r) - log(s Z), r = (x - m) / s; H(r) = r^2 / 2 up to |r| = delta, then delta (|r| - delta / 2).

    Z = sqrt(2 pi) erf(delta / sqrt 2) + (2 / delta) exp(-delta^2 / 2) makes it a density (Huber's least favourable
    distribution), so that its nats compare with those of other likelihoods.
    """

    scale: Positive
    delta: Positive

    nats = True

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        size = jnp.abs(x - outputs) / self.scale
        inside = jnp.minimum(size, self.delta)
        penalty = 0.5 * inside**2 + self.delta * (size - inside)
        delta = jnp.asarray(self.delta, jnp.float32)
        tails = 2 / delta * jnp.exp(-0.5 * delta**2)
        normalizer = math.sqrt(2 * math.pi) * jax.lax.erf(delta / math.sqrt(2)) + tails
        return -penalty - jnp.log(self.scale * normalizer)


@spec
class Categorical:
    """log p = log softmax(l)[level of x], with `levels` outputs l for an element and x in [0, 1] on equal steps."""

    levels: Annotated[int, Range(2, 65_536)]

    nats = True

    @property
    def channels(self) -> int:
        return self.levels

    def _logits(self, outputs: Float[Array, "B outputs"]) -> Float[Array, "B D levels"]:
        return outputs.reshape(*outputs.shape[:-1], -1, self.levels)

    def log_prob(self, outputs: Float[Array, "B outputs"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        level = jnp.round(x * (self.levels - 1)).astype(jnp.int32)
        chosen = jax.nn.one_hot(level, self.levels)  # a gather would be slow under vmap
        return (jax.nn.log_softmax(self._logits(outputs)) * chosen).sum(-1)

    def mean(self, outputs: Float[Array, "B outputs"]) -> Float[Array, "B D"]:
        return jax.nn.softmax(self._logits(outputs)) @ jnp.linspace(0.0, 1.0, self.levels)

    def initial_bias(self, mean: Float[Array, " D"]) -> Float[Array, " outputs"]:
        # A mixture of the uniform distribution and of the nearer end has exactly this mean, and no level has share 0.
        clipped = jnp.clip(mean, 0.001, 0.999)[:, None]
        uniform = 2 * jnp.minimum(clipped, 1 - clipped)
        end = jax.nn.one_hot(jnp.where(mean < 0.5, 0, self.levels - 1), self.levels)
        return jnp.log(uniform / self.levels + (1 - uniform) * end).reshape(-1)


@spec
class MeanSquaredError(Location):
    """No likelihood: `log_prob` is the negative squared error, and `total` its mean over the elements."""

    nats = False

    def log_prob(self, outputs: Float[Array, "B D"], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return -jnp.square(x - outputs)


def total(
    likelihood: Likelihood,
    outputs: Float[Array, "B outputs"],
    x: Float[Array, "B D"],
    observed: Bool[Array, "B D"] | None = None,
) -> Float[Array, " B"]:
    """log p(x | outputs) of every example, [B]: the sum over observed elements (for the squared error their mean)."""
    if observed is not None:
        x = jnp.where(observed, x, 0.0)  # masking the sum alone would let a NaN into the gradient
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
    """Settings of p(x | outputs): a part of every model with a decoder.

    Attributes:
      likelihood: one of `LIKELIHOODS`.
      scale: of gaussian, laplace and huber; null learns one scale for all elements, which starts at 1.
      delta: where huber turns from quadratic to linear, in units of the scale.
      levels: of categorical; x in [0, 1] is rounded to this many values.
      dispersion: r of negative_binomial, whose variance is mean + mean^2 / r; null learns one r for all elements, which
        starts at 1.
    """

    likelihood: str
    scale: Positive | None
    delta: Positive
    levels: Annotated[int, Range(2, 65_536)]
    dispersion: Positive | None = added(before=None)

    # A scale or a dispersion is a parameter of the model, so bounds on log p(x) compare across them. Densities do not
    # compare with probabilities of binary or rounded values. The errors of different likelihoods have different units.
    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(("elbo_nats", "iwae_nats", "nll_nats"), ("likelihood", "levels")),
        **dict.fromkeys(("loss", "reconstruction_nats"), ("likelihood", "scale", "delta", "levels", "dispersion")),
    }

    def validate(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            remedy = f"expected one of {', '.join(LIKELIHOODS)}{nearest(self.likelihood, LIKELIHOODS)}"
            raise ConfigError("likelihood", self.likelihood, remedy)

    @property
    def of_counts(self) -> bool:
        """Whether the likelihood is of counts 0, 1, 2, ... as stored."""
        return self.likelihood in COUNTS

    def read(self, x: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """What an encoder reads of x: of counts their logarithms (`research.counts.as_read`), otherwise x."""
        return as_read(x) if self.of_counts else x

    def check_range(self, low: float, high: float, counts: bool) -> None:
        """Refuse data in [low, high] on which the likelihood is not defined; `counts` is that of `Facts`."""
        if self.likelihood in ("bernoulli", "categorical") and not (low >= 0 and high <= 1):
            # No scaling is a remedy: it is fitted to training rows, and other rows may lie outside their range.
            remedy = f"needs data in [0, 1], but the data lie in [{low:.4g}, {high:.4g}]; set {{key}}=gaussian"
            raise ConfigError("likelihood", self.likelihood, remedy)
        if self.of_counts and not counts:
            problem = f"needs whole numbers from 0 as stored, but models see other values in [{low:.4g}, {high:.4g}]"
            remedy = f"{problem}; set data.scaling=none, or {{key}}=gaussian if the data are no counts"
            raise ConfigError("likelihood", self.likelihood, remedy)

    @property
    def learned(self) -> str | None:
        """The setting whose logarithm is a parameter: the scale or the dispersion, or None."""
        if self.likelihood in ("gaussian", "laplace", "huber"):
            return "scale" if self.scale is None else None
        return "dispersion" if self.likelihood == "negative_binomial" and self.dispersion is None else None

    def of(self, params: Any) -> Likelihood:
        """The likelihood. Its scale or dispersion is that of the settings, or is in `params["likelihood"]`."""
        numbers: dict[str, Any] = {"scale": self.scale, "dispersion": self.dispersion}
        if self.learned:
            numbers[self.learned] = jnp.exp(params["likelihood"][f"log_{self.learned}"])
        match self.likelihood:
            case "bernoulli":
                return Bernoulli()
            case "gaussian":
                return Gaussian(scale=numbers["scale"])
            case "laplace":
                return Laplace(scale=numbers["scale"])
            case "huber":
                return Huber(scale=numbers["scale"], delta=self.delta)
            case "categorical":
                return Categorical(levels=self.levels)
            case "poisson":
                return Poisson()
            case "negative_binomial":
                return NegativeBinomial(dispersion=numbers["dispersion"])
            case _:
                return MeanSquaredError()

    def init(self) -> dict[str, Any]:
        """Fresh parameters {"likelihood"} with the logarithm 0 of what is learned; none if nothing is."""
        return {"likelihood": {f"log_{self.learned}": jnp.zeros(())}} if self.learned else {}

    @property
    def channels(self) -> int:
        """Decoder outputs for an element."""
        return self.levels if self.likelihood == "categorical" else 1


def kl_to_standard_normal(mean: Float[Array, "*B L"], log_variance: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) per latent dimension, in nats: (m^2 + v - log v - 1) / 2."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)


def normal_log_prob(x: Float[Array, "*B L"], mean: Any = 0.0, log_variance: Any = 0.0) -> Float[Array, "*B L"]:
    """log N(x; mean, exp(log_variance)) per dimension, in nats."""
    return -0.5 * (jnp.square(x - mean) * jnp.exp(-jnp.asarray(log_variance)) + log_variance + math.log(2 * math.pi))


class Forecast(NamedTuple):
    """The distribution of every future value.

    Attributes:
      mean: [B, H, C]; squared errors are computed from it.
      median: [B, H, C]; absolute and relative errors are computed from it.
      deviation: standard deviation of a Gaussian, [B, H, C], or None.
      quantiles: at the model's levels in ascending order, [B, H, C, Q], or None.
    """

    mean: Any
    median: Any
    deviation: Any = None
    quantiles: Any = None


def central_interval(forecast: Forecast, share: float, levels: Sequence[float] = ()) -> tuple[Any, Any] | None:
    """Lower and upper edge, [B, H, C], of the interval between the quantiles at (1 - share) / 2 and (1 + share) / 2.

    None where the forecast is no distribution, or has no quantiles at these two levels.

    Args:
      forecast: of a model, or of a run.
      share: probability of the interval, for example 0.8.
      levels: levels of the forecast's quantiles.
    """
    if forecast.quantiles is not None:
        edges = (1 - share) / 2, (1 + share) / 2
        known = [at for edge in edges for at, level in enumerate(levels) if math.isclose(level, edge, abs_tol=1e-6)]
        return (forecast.quantiles[..., known[0]], forecast.quantiles[..., known[1]]) if len(known) == 2 else None
    if forecast.deviation is not None:
        half = statistics.NormalDist().inv_cdf((1 + share) / 2) * forecast.deviation
        return forecast.mean - half, forecast.mean + half
    return None
