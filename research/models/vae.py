"""Variational autoencoder: beta, warm-up, free bits, capacity, several samples, importance-weighted bound."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation, kl_to_standard_normal, normal_log_prob
from research.models.decoding import TEACHING, Decoding
from research.networks.dense import DenseNetworks
from research.tree import ConfigError, spec


@spec
class Variational(Decoding):
    """The variational part of a VAE (Kingma & Welling 2014), for any networks.

    loss = -E_q[log p(x | z)] + beta w(t) KL(q(z | x) || N(0, 1)), in nats, mean over the batch.

    Attributes:
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

    beta: float
    warmup: Literal["none", "linear", "logistic", "cyclical"]
    warmup_epochs: float
    cycles: int
    free_bits: float | None
    capacity: float | None
    gamma: float
    capacity_epochs: float
    bound: Literal["elbo", "iwae"]
    samples: int
    log_variance_range: tuple[float, float] | None

    def validate(self: Any) -> None:
        super().validate()
        if self.likelihood == "mse":
            remedy = (
                "a VAE needs a likelihood, or beta would depend on the size of the data; use gaussian with model.scale"
            )
            raise ConfigError("likelihood", "mse", remedy)
        for name in ("beta", "warmup_epochs", "free_bits", "capacity", "gamma", "capacity_epochs"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(name, value, "must not be negative")
        if self.samples < 1:
            raise ConfigError("samples", self.samples, "must be at least 1")
        if self.cycles < 1:
            raise ConfigError("cycles", self.cycles, "must be at least 1")
        if self.warmup in ("linear", "logistic") and self.warmup_epochs == 0:
            raise ConfigError(
                "warmup_epochs", 0, f"a {self.warmup} warm-up needs a length above 0 (or model.warmup=none)"
            )
        if self.free_bits is not None and self.capacity is not None:
            raise ConfigError("capacity", self.capacity, "free bits and a capacity exclude each other; set one to null")
        if self.bound == "iwae" and (self.free_bits is not None or self.capacity is not None):
            raise ConfigError(
                "bound", "iwae", "the importance-weighted bound has no separate KL: no free bits, no capacity"
            )
        clip = self.log_variance_range
        if clip is not None and not clip[0] < clip[1]:
            raise ConfigError("log_variance_range", list(clip), "expected [low, high] with low < high")

    @property
    def encoder_outputs(self: Any) -> int:
        return 2 * self.latent_dim

    def posterior(self: Any, params: Any, batch: Examples) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Mean and log-variance of q(z | x), both [B, L]."""
        mean, log_variance = jnp.split(self.apply_encoder(params, batch, self.encoder_outputs), 2, axis=-1)
        if self.log_variance_range is not None:
            log_variance = jnp.clip(log_variance, *self.log_variance_range)
        return mean, log_variance

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B L"]:
        """Posterior means [B, L]."""
        return self.posterior(params, batch)[0]

    def sample(
        self: Any, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "{number} ..."]:
        """E[x | z] for z from the prior, [number, *feature_shape]."""
        return self.decode(params, jax.random.normal(key, (number, self.latent_dim)), label)

    def _kl_weight(self, clock: Clock) -> Float[Array, ""]:
        if self.warmup == "none":
            return jnp.ones(())
        if self.warmup == "cyclical":
            return jnp.minimum(2 * ((clock.fraction * self.cycles) % 1.0), 1.0)
        progress = ramp(clock.epoch, self.warmup_epochs)
        if self.warmup == "linear":
            return progress
        return jnp.where(progress >= 1, 1.0, jax.nn.sigmoid(10 * (progress - 0.5)))

    def _regularizer(self, kl: Float[Array, "B L"], clock: Clock) -> Float[Array, ""]:
        """The term of the loss made from the KL per example and dimension, [B, L] -> scalar."""
        if self.capacity is not None:
            target = self.capacity * ramp(clock.epoch, self.capacity_epochs)
            return self.gamma * jnp.abs(kl.sum(-1).mean() - target)
        if self.free_bits is not None:
            return self.beta * self._kl_weight(clock) * jnp.maximum(kl.mean(0), self.free_bits).sum()
        return self.beta * self._kl_weight(clock) * kl.sum(-1).mean()

    def loss(
        self: Any, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss above, mean over the batch, and its parts in nats."""
        mean, log_variance = self.posterior(params, batch)
        noise = jax.random.normal(key, (self.samples, *mean.shape))
        teaching = self.teaching(batch, jax.random.fold_in(key, TEACHING), clock)
        log_likelihood, z = self._log_likelihood(params, batch, mean, log_variance, noise, teaching)
        kl = kl_to_standard_normal(mean, log_variance)
        parts = {"reconstruction_nats": -log_likelihood.mean(), "kl_nats": kl.sum(-1).mean()}
        if self.bound == "iwae":
            # beta scales log p(z) - log q(z | x) in every weight; at beta = 1 this is the bound of the paper
            gap = _prior_minus_posterior(z, mean, log_variance)
            log_weights = log_likelihood + self.beta * self._kl_weight(clock) * gap
            return -_log_mean_exp(log_weights).mean(), parts
        return parts["reconstruction_nats"] + self._regularizer(kl, clock), parts

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Per example, at the end of every ramp, in nats: loss, ELBO, its parts; reconstruction_mse at the mean."""
        mean, log_variance = self.posterior(params, batch)
        noise = _noise(keys, self.samples, mean.shape[-1])
        log_likelihood, z = self._log_likelihood(params, batch, mean, log_variance, noise)
        kl = kl_to_standard_normal(mean, log_variance)
        reconstruction = -log_likelihood.mean(0)
        metrics = {
            "reconstruction_nats": reconstruction,
            "kl_nats": kl.sum(-1),
            "elbo_nats": -reconstruction - kl.sum(-1),
            "reconstruction_mse": self.reconstruction_mse(
                params, self.decoder_outputs(params, mean, batch.label, batch.length), batch
            ),
        }
        if self.bound == "iwae":
            bound = _log_mean_exp(log_likelihood + self.beta * _prior_minus_posterior(z, mean, log_variance))
            return metrics | {"loss": -bound, "iwae_nats": bound}
        if self.capacity is not None:
            # |KL - C| of the example; training takes it of the batch mean, which no per-example number can equal
            return metrics | {"loss": reconstruction + self.gamma * jnp.abs(kl.sum(-1) - self.capacity)}
        if self.free_bits is not None:
            return metrics | {"loss": reconstruction + self.beta * jnp.maximum(kl, self.free_bits).sum(-1)}
        return metrics | {"loss": reconstruction + self.beta * kl.sum(-1)}

    def log_weights(
        self, params: Any, batch: Examples, keys: Key[Array, " B"], samples: int
    ) -> Float[Array, "B {samples}"]:
        """log p(x, z) - log q(z | x) of `samples` codes of every example, [B, samples], in nats."""
        mean, log_variance = self.posterior(params, batch)
        noise = _noise(keys, samples, mean.shape[-1])
        log_likelihood, z = self._log_likelihood(params, batch, mean, log_variance, noise)
        return (log_likelihood + _prior_minus_posterior(z, mean, log_variance)).T

    def _log_likelihood(
        self: Any,
        params: Any,
        batch: Examples,
        mean: Float[Array, "B L"],
        log_variance: Float[Array, "B L"],
        noise: Float[Array, "k B L"],
        teaching: Any = None,
    ) -> tuple[Float[Array, "k B"], Float[Array, "k B L"]]:
        """log p(x | z) [k, B] and z [k, B, L] for noise [k, B, L]."""
        z = mean[None] + jnp.exp(0.5 * log_variance)[None] * noise

        def one(code: Float[Array, "B L"]) -> Float[Array, " B"]:
            outputs = self.decoder_outputs(params, code, batch.label, batch.length, teaching)
            return self.log_likelihood(params, outputs, batch)

        # one sample without a mapped axis: the same numbers, and a plain matrix product
        return (one(z[0])[None] if z.shape[0] == 1 else jax.vmap(one)(z)), z


@spec
class VAE(Variational, DenseNetworks, Observation):
    """VAE with dense networks."""


def ramp(time: Float[Array, ""], length: Any) -> Float[Array, ""]:
    """min(time / length, 1), and 1 everywhere for length 0, without the NaN gradient of a plain quotient."""
    length = jnp.asarray(length, jnp.float32)
    return jnp.where(time >= length, 1.0, time / jnp.where(length > 0, length, 1.0))


def _noise(keys: Key[Array, " B"], samples: int, latent_dim: int) -> Float[Array, "{samples} B {latent_dim}"]:
    """Standard normal [k, B, L] that depends on each example's own key only."""
    return jax.vmap(lambda key: jax.random.normal(key, (samples, latent_dim)), out_axes=1)(keys)


def _prior_minus_posterior(
    z: Float[Array, "k B L"], mean: Float[Array, "B L"], log_variance: Float[Array, "B L"]
) -> Float[Array, "k B"]:
    """log p(z) - log q(z | x), [k, B]."""
    return (normal_log_prob(z) - normal_log_prob(z, mean[None], log_variance[None])).sum(-1)


def _log_mean_exp(log_weights: Float[Array, "k B"]) -> Float[Array, " B"]:
    """log of the mean over axis 0 of exp."""
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])
