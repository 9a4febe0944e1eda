"""Variational autoencoder: beta, warm-up, free bits, capacity, several samples, importance-weighted bound."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation, kl_to_standard_normal, normal_log_prob
from research.models.decoding import PENALTY, PENALTY_INIT, PRIOR, PRIOR_INIT, TEACHING, Decoding
from research.models.penalty import TOWARDS_PRIOR, Penalized
from research.models.prior import Prior
from research.networks.dense import DenseNetworks
from research.ranges import Epochs, NonNegative, Range, Repeats
from research.tree import ConfigError, spec

LogVariance = Annotated[float, Range(-80.0, 80.0)]  # beyond, exp leaves the numbers of 32 bits


@spec
class Variational(Penalized, Prior, Decoding):
    """The variational part of a VAE (Kingma & Welling 2014), for any networks, priors (`Prior`) and penalties
    (`Penalized`).

    loss = -E_q[log p(x | z)] + beta w(t) KL(q(z | x) || p(z)), in nats, mean over the batch, plus a penalty. The KL is
    in closed form where p(z) = N(0, 1), else the mean of log q(z | x) - log p(z) over the samples.

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
      dip_diagonal: of the penalties dip_i and dip_ii, weight of the variances in units of that of the covariances; 10
        in the first one's paper, 1 in the second's.
    """

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
    dip_diagonal: NonNegative

    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": ("beta", "free_bits", "capacity", "gamma", "bound", "samples", "dip_diagonal"),
        "iwae_nats": ("beta", "samples"),
    }
    penalties: ClassVar[tuple[str, ...]] = ("none", "total_correlation", "factor", "dip_i", "dip_ii", *TOWARDS_PRIOR)

    def validate(self: Any) -> None:
        super().validate()
        self.validate_prior()
        self.validate_penalty()
        if self.likelihood == "mse":
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

    @property
    def encoder_outputs(self: Any) -> int:
        return 2 * self.latent_dim

    def fresh(self: Any, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that know nothing of the data."""
        prior = self.fresh_prior(jax.random.fold_in(key, PRIOR_INIT))
        return super().fresh(key) | prior | self.fresh_penalty(jax.random.fold_in(key, PENALTY_INIT))

    def init(self: Any, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; what the training rows can say of the decoder's output and of the prior is in them."""
        return super().init(key, train) | self.informed_prior(jax.random.fold_in(key, PRIOR_INIT), train)

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
        return self.decode(params, self.prior_sample(params, key, number), label)

    def _kl_weight(self, clock: Clock) -> Float[Array, ""]:
        if self.warmup == "none":
            return jnp.ones(())
        if self.warmup == "cyclical":
            return jnp.minimum(2 * ((clock.fraction * self.cycles) % 1.0), 1.0)
        progress = ramp(clock.epoch, self.warmup_epochs)
        if self.warmup == "linear":
            return progress
        return jnp.where(progress >= 1, 1.0, jax.nn.sigmoid(10 * (progress - 0.5)))

    def _regularizer(self, drawn: "Drawn", clock: Clock) -> Float[Array, ""]:
        """The term of the loss made from the KL -> scalar."""
        kl = drawn.kl
        if self.capacity is not None:
            target = self.capacity * ramp(clock.epoch, self.capacity_epochs)
            return self.gamma * jnp.abs(kl.mean() - target)
        if self.free_bits is not None:
            return self.beta * self._kl_weight(clock) * jnp.maximum(drawn.by_dimension.mean(0), self.free_bits).sum()
        return self.beta * self._kl_weight(clock) * kl.mean()

    def loss(
        self: Any, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss above, mean over the batch, and its parts in nats."""
        posterior = self.posterior(params, batch)
        noise = jax.random.normal(key, (self.samples, len(batch), self.noise_size))
        teaching = self.teaching(batch, jax.random.fold_in(key, TEACHING), clock)
        drawn = self._draw(params, batch, posterior, noise, teaching)
        parts = {"reconstruction_nats": -drawn.log_likelihood.mean(), "kl_nats": drawn.kl.mean()}
        if self.bound == "iwae":
            # beta scales log p(z) - log q(z | x) in every weight; at beta = 1 this is the bound of the paper
            log_weights = drawn.log_likelihood + self.beta * self._kl_weight(clock) * drawn.gap
            loss = -_log_mean_exp(log_weights).mean()
        else:
            loss = parts["reconstruction_nats"] + self._regularizer(drawn, clock)
        prior = None
        if self.penalty in TOWARDS_PRIOR:
            prior = self.prior_sample(jax.lax.stop_gradient(params), jax.random.fold_in(key, PRIOR), len(batch))
        own = jax.random.fold_in(key, PENALTY)
        more, found = self.penalize(params, drawn.z[0], posterior, prior, own, clock.train_size)
        return loss + more, parts | found

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Per example, at the end of every ramp, in nats: loss, ELBO, its parts; reconstruction_mse at the mean."""
        posterior = self.posterior(params, batch)
        drawn = self._draw(params, batch, posterior, _noise(keys, self.samples, self.noise_size))
        reconstruction, kl = -drawn.log_likelihood.mean(0), drawn.kl
        metrics = {
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
            "elbo_nats": -reconstruction - kl,
            "reconstruction_mse": self.reconstruction_mse(
                params, self.decoder_outputs(params, posterior[0], batch.label, batch.length), batch
            ),
        }
        if self.bound == "iwae":
            bound = _log_mean_exp(drawn.log_likelihood + self.beta * drawn.gap)
            return metrics | {"loss": -bound, "iwae_nats": bound}
        if self.capacity is not None:
            # |KL - C| of the example; training takes it of the batch mean, which no per-example number can equal
            return metrics | {"loss": reconstruction + self.gamma * jnp.abs(kl - self.capacity)}
        if self.free_bits is not None:
            free = jnp.maximum(drawn.by_dimension, self.free_bits).sum(-1)
            return metrics | {"loss": reconstruction + self.beta * free}
        return metrics | {"loss": reconstruction + self.beta * kl}

    def log_weights(
        self, params: Any, batch: Examples, keys: Key[Array, " B"], samples: int
    ) -> Float[Array, "B {samples}"]:
        """log p(x, z) - log q(z | x) of `samples` codes of every example, [B, samples], in nats."""
        noise = _noise(keys, samples, self.noise_size)
        drawn = self._draw(params, batch, self.posterior(params, batch), noise)
        return (drawn.log_likelihood + drawn.gap).T

    def _draw(
        self: Any,
        params: Any,
        batch: Examples,
        posterior: tuple[Float[Array, "B L"], Float[Array, "B L"]],
        noise: Float[Array, "k B noise"],
        teaching: Any = None,
    ) -> "Drawn":
        """Codes of a batch made from noise [k, B, noise_size], and what they are worth."""
        mean, log_variance = posterior
        noise, prior_noise = noise[..., : self.latent_dim], noise[..., self.latent_dim :]
        z = mean[None] + jnp.exp(0.5 * log_variance)[None] * noise

        def one(code: Float[Array, "B L"]) -> Float[Array, " B"]:
            outputs = self.decoder_outputs(params, code, batch.label, batch.length, teaching)
            return self.log_likelihood(params, outputs, batch)

        # one sample without a mapped axis: the same numbers, and a plain matrix product
        log_likelihood = one(z[0])[None] if z.shape[0] == 1 else jax.vmap(one)(z)
        prior, posterior_log_prob = normal_log_prob(z), normal_log_prob(z, mean[None], log_variance[None])
        if self.prior == "normal":
            by_dimension = kl_to_standard_normal(mean, log_variance)
            return Drawn(z, log_likelihood, (prior - posterior_log_prob).sum(-1), by_dimension.sum(-1), by_dimension)
        gap = self.prior_log_prob(params, z, prior_noise) - posterior_log_prob.sum(-1)
        return Drawn(z, log_likelihood, gap, -gap.mean(0), None)


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
class VAE(Variational, DenseNetworks, Observation):
    """VAE with dense networks."""


def ramp(time: Float[Array, ""], length: Any) -> Float[Array, ""]:
    """min(time / length, 1), and 1 everywhere for length 0, without the NaN gradient of a plain quotient."""
    length = jnp.asarray(length, jnp.float32)
    return jnp.where(time >= length, 1.0, time / jnp.where(length > 0, length, 1.0))


def _noise(keys: Key[Array, " B"], samples: int, size: int) -> Float[Array, "{samples} B {size}"]:
    """Standard normal [k, B, size] that depends on each example's own key only."""
    return jax.vmap(lambda key: jax.random.normal(key, (samples, size)), out_axes=1)(keys)


def _log_mean_exp(log_weights: Float[Array, "k B"]) -> Float[Array, " B"]:
    """log of the mean over axis 0 of exp."""
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])
