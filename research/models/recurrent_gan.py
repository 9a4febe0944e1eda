"""Generative adversarial network of sequences, with one gradient for both players."""

import dataclasses
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.networks.layers import RecurrentLayers
from research.networks.names import activation, check_name
from research.networks.recurrent import Reader, check_sequences
from research.networks.sizing import matched
from research.networks.steps import valid_steps
from research.ranges import Count, NonNegative, Size
from research.tree import ConfigError, from_data, inline, spec


@spec
class RecurrentGAN:
    """Generator x_t = f(W h_t + b) from noise at every step, against a recurrent discriminator (Mogren 2016;
    Esteban et al. 2017).

    The loss is the sum of both players' terms. The fake sample is a constant in the discriminator's term, and the
    discriminator's parameters are constants in the generator's term. So one gradient of the sum holds the gradient of
    each player, and the cross gradients are exactly zero. Both players move at once. The discriminator's value D is the
    mean over time of a logit at every step.

    Attributes:
      recurrent: the cells of both players.
      parameters: the width is chosen so that both players together have about this many parameters; null: `hidden_dim`.
      noise_dim: size of z_t ~ N(0, 1), and of one z for the whole sequence that every step gets beside it.
      generator_activation: f; "sigmoid" for data in [0, 1], "tanh" in [-1, 1], or "linear".
      game: "non_saturating" (Goodfellow et al. 2014), "least_squares" (Mao et al. 2017) or "wasserstein" (Arjovsky et
        al. 2017; it needs a gradient penalty).
      gradient_penalty: weight of (|dD/dx| - 1)^2 between real and fake samples (Gulrajani et al. 2017); null: none.
    """

    recurrent: RecurrentLayers = inline(summary="last")  # the discriminator judges every step and makes no summary
    parameters: Count | None
    noise_dim: Size
    generator_activation: str
    game: Literal["non_saturating", "least_squares", "wasserstein"]
    gradient_penalty: NonNegative | None
    feature_shape: tuple[int, ...] = from_data(())
    steps: int = from_data(0)

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("game", "gradient_penalty")}
    takes_masks: ClassVar[bool] = True
    training_only: ClassVar[tuple[str, ...]] = ()
    # None of these metrics says that the samples are better.
    unmonitored: ClassVar[tuple[str, ...]] = ("loss", "generator_loss", "discriminator_loss", "discriminator_accuracy")

    def validate(self) -> None:
        check_name("generator_activation", self.generator_activation, ("sigmoid", "tanh", "linear"))
        if self.game == "wasserstein" and self.gradient_penalty is None:
            raise ConfigError("gradient_penalty", None, "a wasserstein critic needs one (10 in the paper)")

    def bind(self, facts: Facts) -> Self:
        """The model for this data. Raises ConfigError if the generator cannot reach their range."""
        check_sequences(facts, type(self).__name__)
        low, high = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}.get(self.generator_activation, (-jnp.inf, jnp.inf))
        # The generator covers the range of the training rows; other rows may lie a little outside.
        if facts.low < low - 0.5 * (high - low) or facts.high > high + 0.5 * (high - low):
            remedy = f"the data lie in [{facts.low:.4g}, {facts.high:.4g}]; set {{key}}=linear, which has no range"
            raise ConfigError("generator_activation", self.generator_activation, remedy)
        known = {"feature_shape": facts.feature_shape, "steps": facts.feature_shape[0]}
        bound = dataclasses.replace(self, **known)
        return bound if self.parameters is None else matched(bound, "recurrent", self.parameters)

    @property
    def uses(self) -> int:
        """T: the cells use their parameters at every step."""
        return self.steps

    def generator(self) -> Reader:
        """The generator as a Linen module: an output at every step, from layers that run forwards."""
        return Reader(self.recurrent.module(bidirectional=False), self.feature_shape[-1], None)

    def discriminator(self) -> Reader:
        """The discriminator as a Linen module: a logit at every step."""
        return Reader(self.recurrent.module(), 1, None)

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters {"generator", "discriminator"}: the names of the players."""
        keys = jax.random.split(key, 4)
        noise, x = jnp.zeros((1, 1, 2 * self.noise_dim)), jnp.zeros((1, 1, self.feature_shape[-1]))
        of_generator, of_discriminator = {"layers": keys[0], "output": keys[1]}, {"layers": keys[2], "output": keys[3]}
        return {
            "generator": self.recurrent.fresh(self.generator(), of_generator, noise),
            "discriminator": self.recurrent.fresh(self.discriminator(), of_discriminator, x),
        }

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters."""
        del train
        return self.fresh(key)

    def sample(
        self, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "number T C"]:
        """Samples [number, T, C]. The noise of a time step does not depend on the number of steps."""
        del label
        whole_key, step_key = jax.random.split(key)
        whole = jax.random.normal(whole_key, (number, self.noise_dim))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(self.steps))
        noise = jax.vmap(lambda key: jax.random.normal(key, (number, self.noise_dim)), out_axes=1)(keys)
        whole = jnp.broadcast_to(whole[:, None], noise.shape)
        outputs: Any = self.generator().apply({"params": params["generator"]}, jnp.concatenate([noise, whole], -1))
        return activation(self.generator_activation)(outputs)

    def discriminate(
        self, params: Any, x: Float[Array, "B T C"], length: Int[Array, " B"] | None = None
    ) -> Float[Array, " B"]:
        """Logit (or value of the critic) of every sequence, [B]; large means real."""
        outputs: Any = self.discriminator().apply({"params": params["discriminator"]}, x, length)
        logits, valid = outputs[..., 0], valid_steps(length, x.shape[1])
        if valid is None:
            return logits.mean(1)
        return jnp.where(valid, logits, 0.0).sum(1) / jnp.maximum(valid.sum(1), 1)

    def terms(
        self, params: Any, batch: Examples, fake: Float[Array, "B T C"]
    ) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
        """Terms of discriminator and generator, and the values of real and fake samples, all [B]."""
        constant = jax.lax.stop_gradient(params)
        real_value = self.discriminate(params, batch.x, batch.length)
        fake_value = self.discriminate(params, jax.lax.stop_gradient(fake), batch.length)
        judged = self.discriminate(constant, fake, batch.length)
        match self.game:
            case "non_saturating":
                return (
                    jax.nn.softplus(-real_value) + jax.nn.softplus(fake_value),
                    jax.nn.softplus(-judged),
                    real_value,
                    fake_value,
                )
            case "least_squares":
                critic = 0.5 * (jnp.square(real_value - 1) + jnp.square(fake_value))
                return critic, 0.5 * jnp.square(judged - 1), real_value, fake_value
            case _:
                return fake_value - real_value, -judged, real_value, fake_value

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the players' terms, and each of them."""
        del clock
        fake_key, mix_key = jax.random.split(key)
        fake = _beside(self.sample(params, fake_key, len(batch)), batch)
        critic, generator, real_value, fake_value = self.terms(params, batch, fake)
        metrics = {
            "discriminator_loss": critic.mean(),
            "generator_loss": generator.mean(),
            "real_value": real_value.mean(),
            "fake_value": fake_value.mean(),
        }
        total = metrics["discriminator_loss"] + metrics["generator_loss"]
        if self.gradient_penalty is not None:
            share = jax.random.uniform(mix_key, (len(batch), 1, 1))
            mixed = share * batch.x + (1 - share) * jax.lax.stop_gradient(fake)
            slope = jax.grad(lambda x: self.discriminate(params, x, batch.length).sum())(mixed)
            norm = jnp.sqrt(jnp.square(slope).sum((1, 2)) + 1e-12)
            metrics["gradient_penalty"] = jnp.square(norm - 1).mean()
            total = total + self.gradient_penalty * metrics["gradient_penalty"]
        return total, metrics

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """The players' terms of every example against one fake sample of its own key, without the penalty."""
        fake = _beside(jax.vmap(lambda key: self.sample(params, key, 1)[0])(keys), batch)
        critic, generator, real_value, fake_value = self.terms(params, batch, fake)
        border = 0.5 if self.game == "least_squares" else 0.0  # between the targets of real and of fake rows
        right = 0.5 * ((real_value > border).astype(jnp.float32) + (fake_value < border).astype(jnp.float32))
        scores = {"loss": critic + generator, "discriminator_loss": critic, "generator_loss": generator}
        return scores if self.game == "wasserstein" else scores | {"discriminator_accuracy": right}


def _beside(fake: Float[Array, "B T C"], batch: Examples) -> Float[Array, "B T C"]:
    """Fake rows with 0 where the real rows of the batch have no value, so that gaps do not give the fakes away."""
    return fake if batch.mask is None else jnp.where(batch.mask, fake, 0.0)
