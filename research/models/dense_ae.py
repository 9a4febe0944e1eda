"""Autoencoder: plain, denoising, sparse, contractive, conditional."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation
from research.models.decoding import TEACHING, Decoding
from research.networks.cells import valid_steps
from research.networks.dense import ACTIVATIONS, DenseNetworks, activation, check_name
from research.tree import ConfigError, spec


@spec
class Autoencoding(Decoding):
    """Autoencoder z = f(x), x' = g(z), trained on -log p(x | z) (or the mean squared error) plus optional penalties,
    for any networks.

    Attributes:
      code_activation: activation of the code itself, or "linear".
      gaussian_noise: standard deviation of noise added to the input (Vincent et al. 2010), in units of the scaled data.
      masking_noise: share of the input elements set to zero (Vincent et al. 2010).
      activity_l1: weight of sum |z| (sparse autoencoder), with a code at every step over all steps.
      contractive: weight of the squared Frobenius norm of dz/dx (Rifai et al. 2011), summed over its elements. In
        closed form for an encoder that is one linear layer; otherwise Hutchinson's estimate |J v|^2, v ~ N(0, 1).
      contractive_probes: number of v's in that estimate.
    """

    code_activation: str
    gaussian_noise: float | None
    masking_noise: float | None
    activity_l1: float | None
    contractive: float | None
    contractive_probes: int

    def validate(self: Any) -> None:
        super().validate()
        check_name("code_activation", self.code_activation, (*ACTIVATIONS, "linear"))
        for name in ("gaussian_noise", "masking_noise", "activity_l1", "contractive"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(name, value, "must not be negative (null leaves it out)")
        if self.masking_noise is not None and self.masking_noise >= 1:
            raise ConfigError(
                "masking_noise", self.masking_noise, "must be below 1: it is the share of elements set to zero"
            )
        if self.contractive_probes < 1:
            raise ConfigError("contractive_probes", self.contractive_probes, "must be at least 1")

    @property
    def encoder_outputs(self: Any) -> int:
        return self.latent_dim

    def encode(self: Any, params: Any, batch: Examples) -> Float[Array, "B L"]:
        """Codes [B, L]."""
        return activation(self.code_activation)(self.apply_encoder(params, batch, self.latent_dim))

    def loss(
        self: Any, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean over the batch of the reconstruction loss plus penalties."""
        noise_key, mask_key, probe_key = jax.random.split(key, 3)
        teaching = self.teaching(batch, jax.random.fold_in(key, TEACHING), clock)
        inputs = batch.x
        if self.gaussian_noise is not None:
            inputs = inputs + self.gaussian_noise * draw(jax.random.normal, noise_key, inputs.shape)
        if self.masking_noise is not None:
            inputs = jnp.where(draw(jax.random.uniform, mask_key, inputs.shape) < self.masking_noise, 0.0, inputs)
        if batch.mask is not None:  # what is missing stays missing
            inputs = jnp.where(batch.mask, inputs, 0.0)
        corrupted = dataclasses.replace(batch, x=inputs)
        code = self.full_code(params, corrupted)
        outputs = self.decoder_outputs(params, code, batch.label, batch.length, teaching)
        loss, metrics = -self.log_likelihood(params, outputs, batch).mean(), {}
        if self.activity_l1 is not None:
            metrics["activity_l1"] = _size(code, batch).mean()
            loss += self.activity_l1 * metrics["activity_l1"]
        if self.contractive is not None:
            name = "hutchinson" if self.linear_encoder(params) is None else "exact"
            penalty = self.jacobian_norm(params, corrupted, probe_key).mean()
            metrics[f"contractive_{name}"] = penalty
            loss += self.contractive * penalty
        return loss, metrics

    def jacobian_norm(self: Any, params: Any, batch: Examples, key: Key[Array, ""]) -> Float[Array, " B"]:
        """Squared Frobenius norm of the encoder's Jacobian of every example, [B] (exact or Hutchinson's estimate)."""
        kernel = self.linear_encoder(params)
        if kernel is not None:
            before = self.apply_encoder(params, batch, self.latent_dim)
            _, slope = jax.jvp(activation(self.code_activation), (before,), (jnp.ones_like(before),))
            return (jnp.square(slope) * jnp.square(kernel).sum(0, keepdims=True)).sum(-1)

        def squared(probe_key: Key[Array, ""]) -> Float[Array, " B"]:
            direction = draw(jax.random.normal, probe_key, batch.x.shape)
            encode = lambda x: self.encode(params, dataclasses.replace(batch, x=x))
            return jnp.square(jax.jvp(encode, (batch.x,), (direction,))[1]).sum(-1)

        return jax.vmap(squared)(jax.random.split(key, self.contractive_probes)).mean(0)

    def evaluate(self: Any, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Noiseless reconstruction of every example: loss, reconstruction_mse and, for a likelihood, its nats."""
        del keys  # nothing is drawn
        outputs = self.decoder_outputs(params, self.full_code(params, batch), batch.label, batch.length)
        loss = -self.log_likelihood(params, outputs, batch)
        metrics = {"loss": loss, "reconstruction_mse": self.reconstruction_mse(params, outputs, batch)}
        return metrics | ({"reconstruction_nats": loss} if self.observation(params).nats else {})


@spec
class DenseAE(Autoencoding, DenseNetworks, Observation):
    """Autoencoder with dense networks."""


def _size(code: Float[Array, "B ..."], batch: Examples) -> Float[Array, " B"]:
    """sum |z| of codes [B, L], or of codes [B, T, L] over valid steps."""
    size = jnp.abs(code).sum(-1)
    if size.ndim == 1:
        return size
    valid = valid_steps(batch.length, size.shape[1])
    return (size if valid is None else jnp.where(valid, size, 0.0)).sum(-1)


def draw(sampler: Any, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws of a shape [B, ...]; of sequences [B, T, C] every time step by a key of its own: padding changes none."""
    if len(shape) != 3:
        return sampler(key, shape)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(shape[1]))
    return jax.vmap(lambda own: sampler(own, (shape[0], shape[2])), out_axes=1)(keys)
