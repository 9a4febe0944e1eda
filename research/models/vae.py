"""Variational autoencoder with the ELBO or the importance-weighted bound."""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation, kl_to_standard_normal, normal_log_prob
from research.models import decoding
from research.models.decoding import PENALTY, PENALTY_INIT, PRIOR, PRIOR_INIT, log_likelihood, outputs_of
from research.models.kl import KL
from research.models.penalty import PosteriorPenalty
from research.models.prior import Prior
from research.networks.base import Networks, Training
from research.networks.convolutional import ConvolutionalNetworks
from research.networks.dense import DenseNetworks
from research.optimizer import Optimizer, Players
from research.ranges import Range, Repeats
from research.tree import ConfigError, inline, spec

LogVariance = Annotated[float, Range(-80.0, 80.0)]  # exp(v) of a larger |v| is no finite number of 32 bits


class Drawn(NamedTuple):
    """k codes of every example of a batch, drawn from q(z | x), and the terms of the bound at these codes, in nats.

    Attributes:
      z: the codes, [k, B, L].
      log_likelihood: log p(x | z) of every code, [k, B].
      gap: log p(z) - log q(z | x) of every code, [k, B]; the mean over many codes is -kl.
      kl: KL(q(z | x) || p(z)), [B].
      by_dimension: the KL of every latent dimension, [B, L]; None if the prior is not N(0, 1).
    """

    z: Any
    log_likelihood: Any
    gap: Any
    kl: Any
    by_dimension: Any


@spec
class Variational:
    """The formulas of a VAE (Kingma & Welling 2014), for any networks, prior and penalty.

    loss = -E_q[log p(x | z)] + beta w(t) KL(q(z | x) || p(z)) + penalty, in nats, averaged over the batch. The KL is in
    closed form if p(z) = N(0, 1), and otherwise the mean of log q(z | x) - log p(z) over the samples.

    Attributes:
      networks: encoder and decoder.
      observation: p(x | z).
      kl: weight and ramp of the KL.
      prior: p(z).
      penalty: a term on the codes of a batch.
      bound: "elbo" averages over the samples; "iwae" is the importance-weighted bound (Burda et al. 2016).
      samples: k, number of codes that are drawn for every example.
      log_variance_range: the posterior's log-variance is clipped to [low, high]; null leaves it free.
    """

    networks: Networks = inline()
    observation: Observation = inline()
    kl: KL = inline()
    prior: Prior = inline()
    penalty: PosteriorPenalty = inline()
    bound: Literal["elbo", "iwae"]
    samples: Repeats
    log_variance_range: tuple[LogVariance, LogVariance] | None

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("bound", "samples"), "iwae_nats": ("samples",)}
    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)  # see `research.networks.sizing`

    def validate(self) -> None:
        """Refuse parts and settings that exclude each other."""
        if self.networks.stepwise:
            raise ConfigError("code", "step", "a VAE has one code for a sequence; set model.code=sequence")
        if self.prior.kind == "vamp" and self.networks.conditional:
            remedy = "pseudo-inputs have no labels, which a conditional encoder needs; set model.conditional=false"
            raise ConfigError("prior", self.prior.kind, remedy)
        if self.prior.kind != "normal" and self.kl.free_bits is not None:
            remedy = "the KL to this prior is no sum over dimensions; set model.prior=normal or {key}=null"
            raise ConfigError("free_bits", self.kl.free_bits, remedy)
        if self.observation.likelihood == "mse":
            remedy = "without a likelihood beta depends on the size of the data; use {key}=gaussian with model.scale"
            raise ConfigError("likelihood", "mse", remedy)
        if self.bound == "iwae" and (self.kl.free_bits is not None or self.kl.capacity is not None):
            remedy = "this bound has no separate KL; set model.free_bits=null model.capacity=null"
            raise ConfigError("bound", "iwae", remedy)
        clip = self.log_variance_range
        if clip is not None and not clip[0] < clip[1]:
            raise ConfigError("log_variance_range", list(clip), "expected [low, high] with low < high")

    bind, decode = decoding.bind, decoding.decode  # every model that decodes a code has these methods

    def check(self, rows: Examples, batch_size: int, optimizer: Optimizer | Players) -> None:
        """Refuse rows or a batch that the prior or the penalty cannot take."""
        self.prior.check_rows(rows)
        self.penalty.check_batch(batch_size)

    @property
    def standard_prior(self) -> bool:
        """Whether p(z) = N(0, 1), so that the KL is a sum over dimensions."""
        return self.prior.kind == "normal"

    # ----------------------------------------------------------------------------------------------------- parameters

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that do not depend on the data."""
        latent_dim = self.networks.latent_dim
        networks = self.networks.init(key, 2 * latent_dim, self.observation.channels)
        prior = self.prior.init(jax.random.fold_in(key, PRIOR_INIT), latent_dim, self.networks.feature_shape)
        penalty = self.penalty.init(jax.random.fold_in(key, PENALTY_INIT), latent_dim)
        return networks | self.observation.init() | prior | penalty

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; the decoder's output bias and pseudo-inputs come from the training rows."""
        params = decoding.at_the_mean(self, self.fresh(key), train)
        return params | self.prior.informed(jax.random.fold_in(key, PRIOR_INIT), train)

    # -------------------------------------------------------------------------------------------------- codes and back

    def posterior(
        self, params: Any, batch: Examples, training: Training | None = None
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Mean and log-variance of q(z | x), both [B, L]."""
        batch = dataclasses.replace(batch, x=self.observation.read(batch.x))
        outputs = self.networks.encode(params, batch, 2 * self.networks.latent_dim, training)
        mean, log_variance = jnp.split(outputs, 2, axis=-1)
        if self.log_variance_range is not None:
            log_variance = jnp.clip(log_variance, *self.log_variance_range)
        return mean, log_variance

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B L"]:
        """Posterior means [B, L]."""
        return self.posterior(params, batch)[0]

    def reconstruct(self, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """E[x | z] at the posterior mean of x, [B, *feature_shape]."""
        return self.decode(params, self.encode(params, batch), batch.label, batch.length)

    def sample(
        self, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "{number} ..."]:
        """E[x | z] for z from the prior, [number, *feature_shape]."""
        return self.decode(params, self.prior_sample(params, key, number), label)

    def prior_sample(self, params: Any, key: Key[Array, ""], number: int) -> Float[Array, "{number} L"]:
        """Codes from p(z), [number, L]."""
        latent_dim, posterior = self.networks.latent_dim, functools.partial(self.posterior, params)
        return self.prior.sample(params, key, number, latent_dim, posterior)

    # -------------------------------------------------------------------------------------------------------- objective

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean loss of a batch with its penalty, and what is logged beside it: reconstruction and KL in nats.

        Networks get `Training` here and not in `evaluate`: only in training do they drop units and teach the decoder.
        """
        training = Training(batch, key, clock)
        posterior = self.posterior(params, batch, training)
        size = self.prior.noise_size(self.networks.latent_dim)
        noise = jax.random.normal(key, (self.samples, len(batch), size))
        drawn, weight = self._draw(params, batch, posterior, noise, training), self.kl.weight(clock)
        metrics = {"reconstruction_nats": -drawn.log_likelihood.mean(), "kl_nats": drawn.kl.mean()}
        if self.bound == "iwae":
            loss = -self._iwae(drawn, weight).mean()
        else:
            by_dimension = None if drawn.by_dimension is None else drawn.by_dimension.mean(0)
            growth = self.kl.growth(clock)
            loss = self.kl.added_to(metrics["reconstruction_nats"], metrics["kl_nats"], by_dimension, weight, growth)
        if self.penalty.kind == "none":
            return loss, metrics
        prior = None
        if self.penalty.towards_prior:
            prior = self.prior_sample(jax.lax.stop_gradient(params), jax.random.fold_in(key, PRIOR), len(batch))
        penalty_key = jax.random.fold_in(key, PENALTY)
        more, scalars = self.penalty.of_posterior(params, drawn.z[0], posterior, prior, penalty_key, clock.train_size)
        return loss + more, metrics | scalars

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Loss, ELBO and its parts of every example in nats, as at the end of every ramp; reconstruction_mse at the
        posterior mean."""
        posterior = self.posterior(params, batch)
        drawn = self._draw(params, batch, posterior, self._noise(keys, self.samples))
        reconstruction, kl = -drawn.log_likelihood.mean(0), drawn.kl
        outputs = outputs_of(self, params, posterior[0], batch.label, batch.length)
        metrics = {
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
            "elbo_nats": -reconstruction - kl,
            "reconstruction_mse": decoding.reconstruction_mse(self, params, outputs, batch),
        }
        if self.bound == "iwae":
            bound = self._iwae(drawn, 1.0)
            return metrics | {"loss": -bound, "iwae_nats": bound}
        return metrics | {"loss": self.kl.added_to(reconstruction, kl, drawn.by_dimension)}

    def log_weights(
        self, params: Any, batch: Examples, keys: Key[Array, " B"], samples: int
    ) -> Float[Array, "B {samples}"]:
        """Importance weights log p(x, z) - log q(z | x) of `samples` codes of every example, [B, samples] nats."""
        drawn = self._draw(params, batch, self.posterior(params, batch), self._noise(keys, samples))
        return (drawn.log_likelihood + drawn.gap).T

    def reconstruction_nats(self, params: Any, z: Float[Array, "B L"], batch: Examples) -> Float[Array, " B"]:
        """-log p(x | z) of every example at any codes, [B] nats."""
        return -log_likelihood(self, params, outputs_of(self, params, z, batch.label, batch.length), batch)

    def _iwae(self, drawn: Drawn, weight: Any) -> Float[Array, " B"]:
        """log of the mean importance weight, [B]; beta and the ramp scale log p(z) - log q(z | x)."""
        log_weights = drawn.log_likelihood + self.kl.beta * weight * drawn.gap
        return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])

    def _noise(self, keys: Key[Array, " B"], samples: int) -> Float[Array, "{samples} B size"]:
        """Standard normal numbers [k, B, noise_size] that depend on each example's own key only."""
        shape = samples, self.prior.noise_size(self.networks.latent_dim)
        return jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(keys)

    def _draw(
        self,
        params: Any,
        batch: Examples,
        posterior: tuple[Float[Array, "B L"], Float[Array, "B L"]],
        noise: Float[Array, "k B noise"],
        training: Training | None = None,
    ) -> Drawn:
        """Codes that noise [k, B, noise_size] makes of the posterior, and the terms of the bound."""
        mean, log_variance = posterior
        latent_dim = self.networks.latent_dim
        noise, prior_noise = noise[..., :latent_dim], noise[..., latent_dim:]
        z = mean[None] + jnp.exp(0.5 * log_variance)[None] * noise

        def of_code(code: Float[Array, "B L"]) -> Float[Array, " B"]:
            outputs = outputs_of(self, params, code, batch.label, batch.length, training)
            return log_likelihood(self, params, outputs, batch)

        # Without a mapped axis, one sample gives the same numbers by a plain matrix product.
        likelihoods = of_code(z[0])[None] if z.shape[0] == 1 else jax.vmap(of_code)(z)
        prior, posterior_log_prob = normal_log_prob(z), normal_log_prob(z, mean[None], log_variance[None])
        if self.prior.kind == "normal":
            by_dimension = kl_to_standard_normal(mean, log_variance)
            return Drawn(z, likelihoods, (prior - posterior_log_prob).sum(-1), by_dimension.sum(-1), by_dimension)
        of_prior = self.prior.log_prob(params, z, prior_noise, functools.partial(self.posterior, params))
        gap = of_prior - posterior_log_prob.sum(-1)
        return Drawn(z, likelihoods, gap, -gap.mean(0), None)


@spec
class VAE(Variational):
    """VAE with dense networks."""

    networks: DenseNetworks = inline()


@spec
class ConvolutionalVAE(Variational):
    """VAE of images or sequences with convolutional networks."""

    networks: ConvolutionalNetworks = inline()
