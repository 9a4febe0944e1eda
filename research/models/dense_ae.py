"""Autoencoder: plain, denoising, sparse, contractive, regularized, with a prior to sample from, conditional."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation
from research.models.decoding import GRADIENT, PENALTY, PENALTY_INIT, PRIOR, TEACHING, Decoding
from research.models.penalty import TOWARDS_PRIOR, Penalized
from research.networks.cells import valid_steps
from research.networks.dense import ACTIVATIONS, DenseNetworks, activation, check_name
from research.ranges import NonNegative, Repeats, ShareBelow1
from research.tree import spec


@spec
class Autoencoding(Penalized, Decoding):
    """Autoencoder z = f(x), x' = g(z), trained on -log p(x | z) (or the mean squared error) plus optional penalties,
    for any networks.

    A penalty of codes against the prior N(0, 1) (`Penalized`) makes it a model to sample from: mmd is a Wasserstein
    autoencoder, adversarial an adversarial one. `code_l2` with one of the two terms of the decoder is a regularized
    autoencoder (Ghosh et al. 2020), whose samples come from a density that is fitted to its codes after training, in
    `research.evaluation.sampling`; the model itself has none.

    Attributes:
      code_activation: activation of the code itself, or "linear".
      gaussian_noise: standard deviation of noise added to the input (Vincent et al. 2010), in units of the scaled data.
      masking_noise: share of the input elements set to zero (Vincent et al. 2010).
      activity_l1: weight of sum |z| (sparse autoencoder), with a code at every step over all steps.
      contractive: weight of the squared Frobenius norm of dz/dx (Rifai et al. 2011), summed over its elements. In
        closed form for an encoder that is one linear layer; otherwise Hutchinson's estimate |J v|^2, v ~ N(0, 1).
      contractive_probes: number of v's in that estimate.
      code_l2: weight of |z|^2 / 2 (RAE), over the steps of a code at every step.
      decoder_l2: weight of |decoder's parameters|^2 / 2 (RAE-L2).
      decoder_gradient: weight of |dE[x | z]/dz|^2, squared Frobenius norm by Hutchinson's estimate (RAE-GP).
    """

    code_activation: str
    gaussian_noise: NonNegative | None
    masking_noise: ShareBelow1 | None
    activity_l1: NonNegative | None
    contractive: NonNegative | None
    contractive_probes: Repeats
    code_l2: NonNegative | None
    decoder_l2: NonNegative | None
    decoder_gradient: NonNegative | None

    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": (
            *("gaussian_noise", "masking_noise", "activity_l1", "contractive"),
            *("code_l2", "decoder_l2", "decoder_gradient"),
        )
    }
    penalties: ClassVar[tuple[str, ...]] = ("none", *TOWARDS_PRIOR)

    def validate(self: Any) -> None:
        super().validate()
        self.validate_penalty()
        check_name("code_activation", self.code_activation, (*ACTIVATIONS, "linear"))

    @property
    def encoder_outputs(self: Any) -> int:
        return self.latent_dim

    @property
    def sample(self) -> Any:
        """`sample(params, key, number, label=None)` -> E[x | z], z ~ N(0, 1); only where codes were held to that prior.

        Raises:
          AttributeError: they were not, so that the model has no such ability.
        """
        if self.penalty not in TOWARDS_PRIOR:
            raise AttributeError(f"codes of penalty={self.penalty} have no known distribution to draw from")
        return self._sample

    def _sample(
        self: Any, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "{number} ..."]:
        return self.decode(params, jax.random.normal(key, (number, self.latent_dim)), label)

    def fresh(self: Any, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that know nothing of the data."""
        return super().fresh(key) | self.fresh_penalty(jax.random.fold_in(key, PENALTY_INIT))

    def code_outputs(self: Any, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """Outputs of the encoder that the whole code is made from, [B, L], or at every step [B, T, L]."""
        return self.apply_encoder(params, batch, self.latent_dim)

    def to_code(self, params: Any, outputs: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
        """Codes from outputs of the encoder."""
        del params
        return activation(self.code_activation)(outputs)

    def encode(self: Any, params: Any, batch: Examples) -> Float[Array, "B L"]:
        """Codes [B, L]."""
        return self.to_code(params, self.apply_encoder(params, batch, self.latent_dim))

    def full_code(self, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """What the decoder gets: the codes [B, L], or those at every step [B, T, L]."""
        return self.to_code(params, self.code_outputs(params, batch))

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
        before = self.code_outputs(params, corrupted)
        code = self.to_code(params, before)
        outputs = self.decoder_outputs(params, code, batch.label, batch.length, teaching)
        loss, metrics = -self.log_likelihood(params, outputs, batch).mean(), {}
        more, found = self.code_terms(params, before, code, batch, key, clock)
        loss, metrics = loss + more, metrics | found
        if self.activity_l1 is not None:
            metrics["activity_l1"] = over_steps(jnp.abs(code).sum(-1), batch).mean()
            loss += self.activity_l1 * metrics["activity_l1"]
        if self.code_l2 is not None:
            metrics["code_l2"] = 0.5 * over_steps(jnp.square(code).sum(-1), batch).mean()
            loss += self.code_l2 * metrics["code_l2"]
        if self.decoder_l2 is not None:
            metrics["decoder_l2"] = 0.5 * sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params["decoder"]))
            loss += self.decoder_l2 * metrics["decoder_l2"]
        if self.decoder_gradient is not None:
            own = jax.random.fold_in(key, GRADIENT)
            metrics["decoder_gradient"] = self.decoder_norm(params, code, batch, own).mean()
            loss += self.decoder_gradient * metrics["decoder_gradient"]
        if self.contractive is not None:
            name = "hutchinson" if self.linear_encoder(params) is None else "exact"
            penalty = self.jacobian_norm(params, corrupted, probe_key).mean()
            metrics[f"contractive_{name}"] = penalty
            loss += self.contractive * penalty
        return loss, metrics

    def code_terms(
        self: Any,
        params: Any,
        before: Float[Array, "B ..."],
        code: Float[Array, "B ..."],
        batch: Examples,
        key: Key[Array, ""],
        clock: Clock,
    ) -> tuple[Any, dict[str, Float[Array, ""]]]:
        """What the codes add to the loss (the penalty), and scalars to log; `before` is what codes were made from."""
        del before, batch
        if self.penalty == "none":
            return 0.0, {}
        prior = jax.random.normal(jax.random.fold_in(key, PRIOR), code.shape)
        return self.penalize(params, code, None, prior, jax.random.fold_in(key, PENALTY), clock.train_size)

    def decoder_norm(
        self: Any, params: Any, code: Float[Array, "B ..."], batch: Examples, key: Key[Array, ""]
    ) -> Float[Array, " B"]:
        """Estimate |J^T v|^2, v ~ N(0, 1), of the squared Frobenius norm of dE[x | z]/dz of every example, [B]."""

        def mean(z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
            return self.decode(params, z, batch.label, batch.length)

        direction = draw(jax.random.normal, key, jax.eval_shape(mean, code).shape)
        if batch.mask is not None:  # what is padding or missing has no part in it
            direction = jnp.where(batch.mask, direction, 0.0)
        back = jax.vjp(mean, code)[1](direction)[0]
        return jnp.square(back).reshape(len(back), -1).sum(-1)

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


def over_steps(values: Float[Array, "B ..."], batch: Examples) -> Float[Array, " B"]:
    """Values [B] of codes as they are, or the sum of values [B, T] at every step over valid steps."""
    if values.ndim == 1:
        return values
    valid = valid_steps(batch.length, values.shape[1])
    return (values if valid is None else jnp.where(valid, values, 0.0)).sum(-1)


def draw(sampler: Any, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws of a shape [B, ...]; of sequences [B, T, C] every time step by a key of its own: padding changes none."""
    if len(shape) != 3:
        return sampler(key, shape)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(shape[1]))
    return jax.vmap(lambda own: sampler(own, (shape[0], shape[2])), out_axes=1)(keys)
