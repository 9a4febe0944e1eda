"""Variational autoencoder: beta, warm-up, free bits, capacity, several samples, importance-weighted bound."""

import dataclasses
import functools
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.distributions import Observation, kl_to_standard_normal, normal_log_prob
from research.models.decoding import (
    PENALTY,
    PENALTY_INIT,
    PRIOR,
    PRIOR_INIT,
    at_the_mean,
    log_likelihood,
    mean_of,
    outputs_of,
    reconstruction_mse,
)
from research.models.penalty import PosteriorPenalty
from research.models.prior import Prior
from research.networks.base import Networks, Training, matched
from research.networks.convolutional import ConvolutionalNetworks
from research.networks.dense import DenseNetworks
from research.optimizer import Optimizer, Players
from research.ranges import Epochs, NonNegative, Range, Repeats
from research.tree import ConfigError, inline, spec

LogVariance = Annotated[float, Range(-80.0, 80.0)]  # beyond, exp leaves the numbers of 32 bits


@spec
class Variational:
    """The formulas of a VAE (Kingma & Welling 2014), for any networks, priors and penalties.

    loss = -E_q[log p(x | z)] + beta w(t) KL(q(z | x) || p(z)), in nats, mean over the batch, plus a penalty. The KL is
    in closed form where p(z) = N(0, 1), else the mean of log q(z | x) - log p(z) over the samples.

    Attributes:
      networks: encoder and decoder.
      observation: p(x | z).
      prior: p(z).
      penalty: on the codes of a batch.
      beta: weight of the KL (Higgins et al. 2017).
      warmup: ramp w(t) of the KL from 0 to 1: linear, logistic (Bowman et al. 2016; its middle at half of the ramp), or
        cyclical (Fu et al. 2019: `cycles` times over the whole training, each half ramp, half 1).
      warmup_epochs: length of the linear or logistic ramp, in epochs.
      cycles: of the cyclical ramp.
      free_bits: nats per latent dimension below which its KL, averaged over the batch, is free (Kingma et al. 2016).
      capacity: C of gamma |KL - C|, which then replaces beta KL (Burgess et al. 2018); C grows linearly from 0.
      gamma: its weight.
      capacity_epochs: length of that growth, in epochs.
      bound: "elbo" averages over the samples; "iwae" is the importance-weighted bound (Burda et al. 2016).
      samples: k, number of codes drawn for every example.
      log_variance_range: clips the posterior's log-variance to [low, high]; null leaves it free.
    """

    networks: Networks = inline()
    observation: Observation = inline()
    prior: Prior = inline()
    penalty: PosteriorPenalty = inline()
    beta: NonNegative
    warmup: Literal["none", "linear", "logistic", "cyclical"]
    warmup_epochs: Epochs
    cycles: Repeats
    free_bits: NonNegative | None
    capacity: NonNegative | None
    gamma: NonNegative
    capacity_epochs: Epochs
    bound: Literal["elbo", "iwae"]
    samples: Repeats
    log_variance_range: tuple[LogVariance, LogVariance] | None

    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": ("beta", "free_bits", "capacity", "gamma", "bound", "samples"),
        "iwae_nats": ("beta", "samples"),
    }

    def validate(self) -> None:
        """Rules between the parts, and between the settings of the objective."""
        if self.networks.stepwise:
            raise ConfigError("code", "step", "a VAE has one code for a sequence; set model.code=sequence")
        if self.prior.kind == "vamp" and self.conditional:
            remedy = "pseudo-inputs have no labels, which a conditional encoder needs; set model.conditional=false"
            raise ConfigError("prior", self.prior.kind, remedy)
        if self.prior.kind != "normal" and self.free_bits is not None:
            remedy = "the KL to this prior is no sum over dimensions; set model.prior=normal or {key}=null"
            raise ConfigError("free_bits", self.free_bits, remedy)
        if self.observation.likelihood == "mse":
            remedy = "without a likelihood beta depends on the size of the data; use {key}=gaussian with model.scale"
            raise ConfigError("likelihood", "mse", remedy)
        if self.warmup in ("linear", "logistic") and self.warmup_epochs == 0:
            raise ConfigError(
                "warmup_epochs", 0, f"a {self.warmup} warm-up needs a length above 0 (or model.warmup=none)"
            )
        if self.free_bits is not None and self.capacity is not None:
            raise ConfigError("capacity", self.capacity, "free bits and a capacity exclude each other; set {key}=null")
        if self.bound == "iwae" and (self.free_bits is not None or self.capacity is not None):
            raise ConfigError(
                "bound", "iwae", "this bound has no separate KL; set model.free_bits=null model.capacity=null"
            )
        clip = self.log_variance_range
        if clip is not None and not clip[0] < clip[1]:
            raise ConfigError("log_variance_range", list(clip), "expected [low, high] with low < high")

    def bind(self, facts: Facts) -> Self:
        """The model for this data: feature shape and number of classes set, impossible pairs refused."""
        self.observation.check_range(facts.low, facts.high)
        networks = self.networks.bind(facts)
        return matched(dataclasses.replace(self, networks=networks), networks.parameters)

    def check(self, rows: Examples, batch_size: int, optimizer: Optimizer | Players) -> None:
        """Refuse rows or a batch that make no sense of a part."""
        del optimizer
        self.prior.check_rows(rows)
        self.penalty.check_batch(batch_size)

    def resized(self, width: int) -> Self:
        """The same model with networks of that width."""
        return dataclasses.replace(self, networks=self.networks.resized(width))

    @property
    def latent_dim(self) -> int:
        """L, size of the code."""
        return self.networks.latent_dim

    @property
    def conditional(self) -> bool:
        """Whether encoder and decoder are given the label."""
        return self.networks.conditional

    @property
    def takes_masks(self) -> bool:
        """Whether padding and missing values are told apart from zeros."""
        return self.networks.takes_masks

    @property
    def uses(self) -> int:
        """How often an example passes through the parameters."""
        return self.networks.uses

    @property
    def standard_prior(self) -> bool:
        """Whether p(z) = N(0, 1), so that the KL is a sum over dimensions."""
        return self.prior.kind == "normal"

    # ----------------------------------------------------------------------------------------------------- parameters

    def counted(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that count as the model's size."""
        networks = self.networks.init(key, 2 * self.latent_dim, self.observation.channels)
        prior_key = jax.random.fold_in(key, PRIOR_INIT)
        return (
            networks
            | self.observation.init()
            | self.prior.init(prior_key, self.latent_dim, self.networks.feature_shape)
        )

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that know nothing of the data."""
        return self.counted(key) | self.penalty.init(jax.random.fold_in(key, PENALTY_INIT), self.latent_dim)

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; what the training rows can say of the decoder's output and of the prior is in them."""
        params = at_the_mean(self, self.fresh(key), train)
        return params | self.prior.informed(jax.random.fold_in(key, PRIOR_INIT), train)

    # -------------------------------------------------------------------------------------------------- codes and back

    def posterior(
        self, params: Any, batch: Examples, training: Training | None = None
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Mean and log-variance of q(z | x), both [B, L]."""
        outputs = self.networks.encode(params, batch, 2 * self.latent_dim, training)
        mean, log_variance = jnp.split(outputs, 2, axis=-1)
        if self.log_variance_range is not None:
            log_variance = jnp.clip(log_variance, *self.log_variance_range)
        return mean, log_variance

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B L"]:
        """Posterior means [B, L]."""
        return self.posterior(params, batch)[0]

    def decode(
        self,
        params: Any,
        z: Float[Array, "B L"],
        label: Int[Array, " B"] | None = None,
        length: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B ..."]:
        """E[x | z], [B, *feature_shape]."""
        return mean_of(self, params, z, label, length)

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
        return self.prior.sample(params, key, number, self.latent_dim, functools.partial(self.posterior, params))

    def reconstruction_nats(self, params: Any, z: Float[Array, "B L"], batch: Examples) -> Float[Array, " B"]:
        """-log p(x | z) of every example at any codes, [B] nats."""
        return -log_likelihood(self, params, outputs_of(self, params, z, batch.label, batch.length), batch)

    # -------------------------------------------------------------------------------------------------------- objective

    def _kl_weight(self, clock: Clock) -> Float[Array, ""]:
        if self.warmup == "none":
            return jnp.ones(())
        if self.warmup == "cyclical":
            return jnp.minimum(2 * ((clock.fraction * self.cycles) % 1.0), 1.0)
        progress = ramp(clock.epoch, self.warmup_epochs)
        if self.warmup == "linear":
            return progress
        return jnp.where(progress >= 1, 1.0, jax.nn.sigmoid(10 * (progress - 0.5)))

    def objective(
        self,
        reconstruction: Float[Array, "*B"],
        kl: Float[Array, "*B"],
        by_dimension: Float[Array, "*B L"] | None,
        weight: Any = 1.0,
        growth: Any = 1.0,
    ) -> Float[Array, "*B"]:
        """Reconstruction plus what is made of the KL, in nats.

        In training its arguments are means over the batch, as free bits and a capacity are of the batch; a score has
        them of one example.

        Args:
          reconstruction: -log p(x | z).
          kl: the whole KL.
          by_dimension: that of every latent dimension, where the prior has them.
          weight: w(t).
          growth: how far the capacity has grown, from 0 to 1.
        """
        if self.capacity is not None:
            return reconstruction + self.gamma * jnp.abs(kl - self.capacity * growth)
        if self.free_bits is not None:
            assert by_dimension is not None
            kl = jnp.maximum(by_dimension, self.free_bits).sum(-1)
        return reconstruction + self.beta * weight * kl

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss above, mean over the batch, and its parts in nats."""
        training = Training(batch, key, clock)
        posterior = self.posterior(params, batch, training)
        noise = jax.random.normal(key, (self.samples, len(batch), self.prior.noise_size(self.latent_dim)))
        drawn, weight = self._draw(params, batch, posterior, noise, training), self._kl_weight(clock)
        metrics = {"reconstruction_nats": -drawn.log_likelihood.mean(), "kl_nats": drawn.kl.mean()}
        if self.bound == "iwae":
            loss = -self._bound(drawn, weight).mean()
        else:
            by_dimension = None if drawn.by_dimension is None else drawn.by_dimension.mean(0)
            growth = ramp(clock.epoch, self.capacity_epochs)
            loss = self.objective(metrics["reconstruction_nats"], metrics["kl_nats"], by_dimension, weight, growth)
        prior = None
        if self.penalty.towards_prior:
            prior = self.prior_sample(jax.lax.stop_gradient(params), jax.random.fold_in(key, PRIOR), len(batch))
        penalty_key = jax.random.fold_in(key, PENALTY)
        more, scalars = self.penalty.of_posterior(params, drawn.z[0], posterior, prior, penalty_key, clock.train_size)
        return loss + more, metrics | scalars

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Per example, at the end of every ramp, in nats: loss, ELBO, its parts; reconstruction_mse at the mean."""
        posterior = self.posterior(params, batch)
        drawn = self._draw(params, batch, posterior, self._noise(keys, self.samples))
        reconstruction, kl = -drawn.log_likelihood.mean(0), drawn.kl
        outputs = outputs_of(self, params, posterior[0], batch.label, batch.length)
        metrics = {
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
            "elbo_nats": -reconstruction - kl,
            "reconstruction_mse": reconstruction_mse(self, params, outputs, batch),
        }
        if self.bound == "iwae":
            bound = self._bound(drawn, 1.0)
            return metrics | {"loss": -bound, "iwae_nats": bound}
        return metrics | {"loss": self.objective(reconstruction, kl, drawn.by_dimension)}

    def _bound(self, drawn: "Drawn", weight: Any) -> Float[Array, " B"]:
        """log of the mean importance weight, [B]; beta scales log p(z) - log q(z | x); 1 is that of the paper."""
        log_weights = drawn.log_likelihood + self.beta * weight * drawn.gap
        return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])

    def log_weights(
        self, params: Any, batch: Examples, keys: Key[Array, " B"], samples: int
    ) -> Float[Array, "B {samples}"]:
        """log p(x, z) - log q(z | x) of `samples` codes of every example, [B, samples], in nats."""
        drawn = self._draw(params, batch, self.posterior(params, batch), self._noise(keys, samples))
        return (drawn.log_likelihood + drawn.gap).T

    def _noise(self, keys: Key[Array, " B"], samples: int) -> Float[Array, "{samples} B size"]:
        """Standard normal [k, B, noise_size] that depends on each example's own key only."""
        shape = samples, self.prior.noise_size(self.latent_dim)
        return jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(keys)

    def _draw(
        self,
        params: Any,
        batch: Examples,
        posterior: tuple[Float[Array, "B L"], Float[Array, "B L"]],
        noise: Float[Array, "k B noise"],
        training: Training | None = None,
    ) -> "Drawn":
        """Codes of a batch made from noise [k, B, noise_size], and what they are worth."""
        mean, log_variance = posterior
        noise, prior_noise = noise[..., : self.latent_dim], noise[..., self.latent_dim :]
        z = mean[None] + jnp.exp(0.5 * log_variance)[None] * noise

        def of_code(code: Float[Array, "B L"]) -> Float[Array, " B"]:
            outputs = outputs_of(self, params, code, batch.label, batch.length, training)
            return log_likelihood(self, params, outputs, batch)

        # one sample without a mapped axis: the same numbers, and a plain matrix product
        likelihoods = of_code(z[0])[None] if z.shape[0] == 1 else jax.vmap(of_code)(z)
        prior, posterior_log_prob = normal_log_prob(z), normal_log_prob(z, mean[None], log_variance[None])
        if self.prior.kind == "normal":
            by_dimension = kl_to_standard_normal(mean, log_variance)
            return Drawn(z, likelihoods, (prior - posterior_log_prob).sum(-1), by_dimension.sum(-1), by_dimension)
        of_prior = self.prior.log_prob(params, z, prior_noise, functools.partial(self.posterior, params))
        gap = of_prior - posterior_log_prob.sum(-1)
        return Drawn(z, likelihoods, gap, -gap.mean(0), None)


class Drawn(NamedTuple):
    """Codes and what they are worth, in nats.

    Attributes:
      z: [k, B, L].
      log_likelihood: log p(x | z), [k, B].
      gap: log p(z) - log q(z | x), [k, B].
      kl: of posterior and prior, [B].
      by_dimension: the same in its dimensions, [B, L], where the prior is N(0, 1).
    """

    z: Any
    log_likelihood: Any
    gap: Any
    kl: Any
    by_dimension: Any


@spec
class VAE(Variational):
    """VAE with dense networks."""

    networks: DenseNetworks = inline()


@spec
class ConvolutionalVAE(Variational):
    """VAE of images or sequences with convolutional networks."""

    networks: ConvolutionalNetworks = inline()


def ramp(time: Float[Array, ""], length: Any) -> Float[Array, ""]:
    """min(time / length, 1), and 1 everywhere for length 0, without the NaN gradient of a plain quotient."""
    length = jnp.asarray(length, jnp.float32)
    return jnp.where(time >= length, 1.0, time / jnp.where(length > 0, length, 1.0))
