"""Autoencoder, with the terms that make it denoising, sparse, contractive or regularized."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation
from research.models import decoding
from research.models.code import Codebook, PlainCode
from research.models.decoding import CODEBOOK_INIT, GRADIENT, PENALTY_INIT, PRIOR, log_likelihood, outputs_of
from research.models.penalty import Penalty
from research.networks.base import Networks, Training
from research.networks.convolutional import ConvolutionalNetworks
from research.networks.dense import DenseNetworks
from research.networks.steps import over_steps
from research.optimizer import Optimizer, Players
from research.ranges import NonNegative, Repeats, ShareBelow1
from research.tree import ConfigError, inline, spec


@spec
class Autoencoder:
    """Autoencoder z = f(x), x' = g(z) for any networks: loss = -log p(x | z) (or the mean squared error) + penalties.

    * A penalty towards the prior N(0, 1) makes a model that samples: mmd is a Wasserstein autoencoder, adversarial an
      adversarial one (`research.models.penalty`).
    * `code_l2` with `decoder_l2` or `decoder_gradient` is a regularized autoencoder (RAE: Ghosh et al. 2020). Its
      samples come from a density that `research.evaluation.sampling` fits to the codes after training.
    * A `Codebook` as the code makes a vector-quantized autoencoder.

    Attributes:
      networks: encoder and decoder.
      observation: p(x | z), or the mean squared error.
      code: makes codes of the encoder's outputs.
      penalty: a term on the codes of a batch.
      gaussian_noise: standard deviation of noise added to the input (Vincent et al. 2010), in units of the scaled data.
      masking_noise: share of the input elements that are set to zero (Vincent et al. 2010).
      activity_l1: weight of sum |z| (sparse autoencoder); with a code at every step, the sum runs over all steps.
      contractive: weight of the squared Frobenius norm of dz/dx (Rifai et al. 2011). It is exact for an encoder that is
        one linear layer, and otherwise Hutchinson's estimate |J v|^2, v ~ N(0, 1).
      contractive_probes: number of vectors v in the estimate.
      code_l2: weight of |z|^2 / 2 (RAE); with a code at every step, the sum runs over all steps.
      decoder_l2: weight of |decoder's parameters|^2 / 2 (RAE-L2).
      decoder_gradient: weight of the squared Frobenius norm of dE[x | z]/dz, by Hutchinson's estimate (RAE-GP). This
        norm and that of `contractive` are computed without dropout.
    """

    networks: Networks = inline()
    observation: Observation = inline()
    code: PlainCode | Codebook = inline()
    penalty: Penalty = inline()
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
    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)  # see `research.networks.sizing`

    def validate(self) -> None:
        """Refuse parts that exclude each other."""
        if isinstance(self.code, Codebook):
            self.code.check(self.networks.latent_dim)
            if self.penalty.kind != "none":
                remedy = "discrete codes cannot follow N(0, 1); set model.penalty=none"
                raise ConfigError("penalty", self.penalty.kind, remedy)
            if self.code_l2 is not None:
                remedy = "the codebook is trained to follow its codes; set {key}=null"
                raise ConfigError("code_l2", self.code_l2, remedy)
        self.penalty.check_without_posterior()
        if self.networks.stepwise and self.penalty.kind != "none":
            remedy = "the prior is of one code for a sequence; set model.code=sequence or model.penalty=none"
            raise ConfigError("penalty", self.penalty.kind, remedy)

    bind, decode = decoding.bind, decoding.decode  # every model that decodes a code has these methods

    def check(self, rows: Examples, batch_size: int, optimizer: Optimizer | Players) -> None:
        """Refuse a batch or an optimizer that the penalty or the code cannot take."""
        self.penalty.check_batch(batch_size)
        if isinstance(self.code, Codebook):
            self.code.check_optimizer(optimizer)

    @property
    def unable(self) -> Mapping[str, str]:
        """Codes without a known distribution cannot be sampled, and codes without a codebook have no entries."""
        if isinstance(self.code, Codebook):
            return {}
        lacks = {"assign": "its codes are not made of entries"}
        if not self.penalty.towards_prior:
            lacks["sample"] = f"codes of penalty={self.penalty.kind} have no known distribution to draw from"
        return lacks

    # ----------------------------------------------------------------------------------------------------- parameters

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that do not depend on the data."""
        latent_dim = self.networks.latent_dim
        params = self.networks.init(key, latent_dim, self.observation.channels) | self.observation.init()
        if isinstance(self.code, Codebook):
            params |= self.code.init(jax.random.fold_in(key, CODEBOOK_INIT), latent_dim)
        return params | self.penalty.init(jax.random.fold_in(key, PENALTY_INIT), latent_dim)

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; the decoder's output bias and a codebook come from the training rows."""
        params = decoding.at_the_mean(self, self.fresh(key), train)
        if isinstance(self.code, Codebook):
            encode = functools.partial(self.code_outputs, params)
            params |= self.code.informed(jax.random.fold_in(key, CODEBOOK_INIT), train, encode)
        return params

    # -------------------------------------------------------------------------------------------------- codes and back

    def code_outputs(self, params: Any, batch: Examples, training: Training | None = None) -> Float[Array, "B ..."]:
        """Outputs of the encoder, of which codes are made, [B, L], or [B, T, L] with a code at every step."""
        batch = dataclasses.replace(batch, x=self.observation.read(batch.x))
        return self.networks.encode(params, batch, self.networks.latent_dim, training)

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B L"]:
        """Codes [B, L]."""
        return self.code.make(params, self.networks.summary(self.code_outputs(params, batch), batch))

    def full_code(self, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """The input of the decoder: codes [B, L], or [B, T, L] with a code at every step."""
        return self.code.make(params, self.code_outputs(params, batch))

    def reconstruct(self, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """E[x | z] at the code of x, [B, *feature_shape]."""
        return self.decode(params, self.full_code(params, batch), batch.label, batch.length)

    def sample(
        self, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "{number} ..."]:
        """E[x | z] of codes from N(0, 1), to which a penalty pulled them, or from the uniform prior of a codebook."""
        if isinstance(self.code, Codebook):
            steps = self.networks.feature_shape[:1] if self.networks.stepwise else ()
            return self.decode(params, self.code.sample(params, key, (number, *steps)), label)
        return self.decode(params, jax.random.normal(key, (number, self.networks.latent_dim)), label)

    @property
    def entries(self) -> int:
        """Size of the codebook; 0 without one."""
        return self.code.entries if isinstance(self.code, Codebook) else 0

    def assign(self, params: Any, batch: Examples) -> Int[Array, "B ..."]:
        """The entries in the codes of a batch, [B, groups], or [B, T, groups] with a code at every step."""
        assert isinstance(self.code, Codebook), "codes are continuous"
        return self.code.choices(params, self.code.continuous(self.code_outputs(params, batch)))

    # -------------------------------------------------------------------------------------------------------- objective

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The reconstruction loss, averaged over the batch, plus the penalties; and each penalty without its weight."""
        noise_key, mask_key, probe_key = jax.random.split(key, 3)
        training = Training(batch, key, clock)
        inputs = batch.x
        if self.gaussian_noise is not None:
            inputs = inputs + self.gaussian_noise * draw(jax.random.normal, noise_key, inputs.shape)
        if self.masking_noise is not None:
            inputs = jnp.where(draw(jax.random.uniform, mask_key, inputs.shape) < self.masking_noise, 0.0, inputs)
        if batch.mask is not None:  # missing values stay missing
            inputs = jnp.where(batch.mask, inputs, 0.0)
        corrupted = dataclasses.replace(batch, x=inputs)
        before = self.code_outputs(params, corrupted, training)
        code = self.code.make(params, before)
        outputs = outputs_of(self, params, code, batch.label, batch.length, training)
        loss = -log_likelihood(self, params, outputs, batch).mean()
        metrics: dict[str, Any] = {}
        if isinstance(self.code, Codebook):
            of_code, metrics = self.code.terms(params, before, batch)
            loss += of_code
        if self.penalty.kind != "none":
            prior = jax.random.normal(jax.random.fold_in(key, PRIOR), code.shape)
            of_penalty, metrics = self.penalty.of_codes(params, code, prior)
            loss += of_penalty
        if self.activity_l1 is not None:
            metrics["activity_l1"] = over_steps(jnp.abs(code).sum(-1), batch.length).mean()
            loss += self.activity_l1 * metrics["activity_l1"]
        if self.code_l2 is not None:
            metrics["code_l2"] = 0.5 * over_steps(jnp.square(code).sum(-1), batch.length).mean()
            loss += self.code_l2 * metrics["code_l2"]
        if self.decoder_l2 is not None:
            metrics["decoder_l2"] = 0.5 * sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params["decoder"]))
            loss += self.decoder_l2 * metrics["decoder_l2"]
        if self.decoder_gradient is not None:
            gradient_key = jax.random.fold_in(key, GRADIENT)
            metrics["decoder_gradient"] = self.decoder_norm(params, code, batch, gradient_key).mean()
            loss += self.decoder_gradient * metrics["decoder_gradient"]
        if self.contractive is not None:
            name = "hutchinson" if self.linear_kernel(params) is None else "exact"
            norm = self.jacobian_norm(params, corrupted, probe_key).mean()
            metrics[f"contractive_{name}"] = norm
            loss += self.contractive * norm
        return loss, metrics

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Noiseless reconstruction of every example: loss, reconstruction_mse and, for a likelihood, its nats."""
        before = self.code_outputs(params, batch)
        outputs = outputs_of(self, params, self.code.make(params, before), batch.label, batch.length)
        loss = -log_likelihood(self, params, outputs, batch)
        scores = {"loss": loss, "reconstruction_mse": decoding.reconstruction_mse(self, params, outputs, batch)}
        if self.observation.of(params).nats:
            scores["reconstruction_nats"] = loss
        return self.code.scores(params, before, batch, scores) if isinstance(self.code, Codebook) else scores

    def decoder_norm(
        self, params: Any, code: Float[Array, "B ..."], batch: Examples, key: Key[Array, ""]
    ) -> Float[Array, " B"]:
        """Squared Frobenius norm of J = dE[x | z]/dz of every example, [B], estimated by |J^T v|^2 with v ~ N(0, 1)."""

        def mean(z: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
            return self.decode(params, z, batch.label, batch.length)

        direction = draw(jax.random.normal, key, jax.eval_shape(mean, code).shape)
        if batch.mask is not None:  # padding and missing values do not count
            direction = jnp.where(batch.mask, direction, 0.0)
        back = jax.vjp(mean, code)[1](direction)[0]
        return jnp.square(back).reshape(len(back), -1).sum(-1)

    def linear_kernel(self, params: Any) -> Float[Array, "D outputs"] | None:
        """The kernel of an encoder that is linear in x, or None; of counts it reads the logarithms."""
        return None if self.observation.of_counts else self.networks.encoder_kernel(params)

    def jacobian_norm(self, params: Any, batch: Examples, key: Key[Array, ""]) -> Float[Array, " B"]:
        """Squared Frobenius norm of dz/dx of every example, [B], exact or by Hutchinson's estimate."""
        kernel = self.linear_kernel(params)
        if kernel is not None:
            before = self.code_outputs(params, batch)
            _, slope = jax.jvp(self.code.continuous, (before,), (jnp.ones_like(before),))
            return (jnp.square(slope) * jnp.square(kernel).sum(0, keepdims=True)).sum(-1)

        def squared(probe_key: Key[Array, ""]) -> Float[Array, " B"]:
            direction = draw(jax.random.normal, probe_key, batch.x.shape)
            encode = lambda x: self.encode(params, dataclasses.replace(batch, x=x))
            return jnp.square(jax.jvp(encode, (batch.x,), (direction,))[1]).sum(-1)

        return jax.vmap(squared)(jax.random.split(key, self.contractive_probes)).mean(0)


@spec
class DenseAE(Autoencoder):
    """Autoencoder with dense networks."""

    networks: DenseNetworks = inline()
    code: PlainCode = inline()


@spec
class ConvolutionalAE(Autoencoder):
    """Autoencoder of images or sequences with convolutional networks."""

    networks: ConvolutionalNetworks = inline()
    code: PlainCode = inline()


def draw(sampler: Any, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draws of a shape [B, ...]. In [B, T, C] every time step has a key of its own, so that padding changes no draw."""
    if len(shape) != 3:
        return sampler(key, shape)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(shape[1]))
    return jax.vmap(lambda step_key: sampler(step_key, (shape[0], shape[2])), out_axes=1)(keys)
