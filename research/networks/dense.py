"""Dense encoder and decoder."""

import dataclasses
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.networks.common import Coding, observed_mean
from research.ranges import Size
from research.tree import ConfigError, nearest, spec

ACTIVATIONS = (
    *("celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid"),
    *("mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "sparse_plus", "squareplus"),
    *("swish", "tanh"),
)
INITIALIZERS = (
    *("glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform"),
    *("lecun_normal", "lecun_uniform", "orthogonal", "xavier_normal", "xavier_uniform"),
)


def activation(name: str) -> Any:
    """The activation function of that name (`jax.nn`), or the identity for `linear`."""
    return (lambda x: x) if name == "linear" else getattr(jax.nn, name)


def check_name(key: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not in the list, with the nearest one."""
    if name not in known:
        raise ConfigError(key, name, f"unknown{nearest(name, known)}; known: {', '.join(known)}")


class DenseStack(nn.Module):
    """Hidden layers with an activation, then a linear output layer; [B, D] -> [B, features].

    Initialisers and activations are names, resolved when called: functions as attributes would compare unequal and
    split a group of equal structure.
    """

    hidden_dims: tuple[int, ...]
    features: int
    activation: str
    gated: bool
    layer_norm: bool
    kernel_init: str

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B features"]:
        init = getattr(nn.initializers, self.kernel_init)()
        for index, width in enumerate(self.hidden_dims):
            x = nn.Dense(2 * width if self.gated else width, kernel_init=init, name=f"hidden_{index}")(x)
            if self.layer_norm:
                x = nn.LayerNorm(name=f"norm_{index}")(x)
            if self.gated:  # Dauphin et al. 2017
                value, gate = jnp.split(x, 2, axis=-1)
                x = activation(self.activation)(value) * jax.nn.sigmoid(gate)
            else:
                x = activation(self.activation)(x)
        return nn.Dense(self.features, kernel_init=init, name="output")(x)


@spec
class DenseNetworks(Coding):
    """The settings of a dense encoder and its mirrored decoder, mixed into a model; sequences enter flattened.

    Attributes:
      hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
      activation: one of `ACTIVATIONS`, or "linear".
      gated: hidden layers compute f(a) * sigmoid(b) from twice the outputs.
      layer_norm: normalise before each activation.
      kernel_init: one of `INITIALIZERS`.
    """

    hidden_dims: tuple[Size, ...]
    activation: str
    gated: bool
    layer_norm: bool
    kernel_init: str

    def validate_networks(self) -> None:
        if self.parameters is not None and not self.hidden_dims:
            raise ConfigError("parameters", self.parameters, "there is no hidden layer whose width could be chosen")
        check_name("activation", self.activation, (*ACTIVATIONS, "linear"))
        check_name("kernel_init", self.kernel_init, INITIALIZERS)

    def check_data(self, facts: Facts) -> None:
        """Data of every kind enter flattened."""
        del facts

    def resized(self, width: int) -> Self:
        """The same networks with a first hidden layer of that width, the others in proportion."""
        first = self.hidden_dims[0]
        dims = tuple(max(1, round(size * width / first)) for size in self.hidden_dims)
        return dataclasses.replace(self, hidden_dims=dims)

    def _stack(self, hidden_dims: tuple[int, ...], outputs: int) -> DenseStack:
        return DenseStack(hidden_dims, outputs, self.activation, self.gated, self.layer_norm, self.kernel_init)

    def init_networks(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}."""
        encoder_key, decoder_key = jax.random.split(key)
        x = jnp.zeros((1, self.features + self.label_size()))
        z = jnp.zeros((1, self.latent_dim + self.label_size()))
        encoder = self._stack(self.hidden_dims, encoder_outputs).init(encoder_key, x)
        decoder = self._stack(self.hidden_dims[::-1], self.features * channels).init(decoder_key, z)
        return {"encoder": encoder["params"], "decoder": decoder["params"]}

    def apply_encoder(self, params: Any, batch: Examples, outputs: int) -> Float[Array, "B {outputs}"]:
        """Encoder outputs [B, outputs] of a batch."""
        inputs = self.with_label(batch.x.reshape(len(batch), -1), batch.label)
        return self._stack(self.hidden_dims, outputs).apply({"params": params["encoder"]}, inputs)  # type: ignore

    def apply_decoder(
        self,
        params: Any,
        z: Float[Array, "*B L"],
        label: Int[Array, "*B"] | None,
        observation: Likelihood,
        length: Any = None,
        teaching: None = None,
    ) -> Float[Array, "*B outputs"]:
        """Decoder outputs [..., D * channels] of codes [..., L]; lengths matter to the loss alone."""
        del length, teaching
        decoder = self._stack(self.hidden_dims[::-1], self.features * observation.channels)
        return decoder.apply({"params": params["decoder"]}, self.with_label(z, label))  # type: ignore

    def teaching(self, batch: Examples, key: Key[Array, ""], clock: Clock) -> None:
        """A dense decoder sees its code only."""
        del batch, key, clock

    def linear_encoder(self, params: Any) -> Float[Array, "D outputs"] | None:
        """The kernel of an encoder that is one linear layer (without the label's part); else None."""
        return None if self.hidden_dims else params["encoder"]["output"]["kernel"][: self.features]

    def feature_mean(self, train: Examples) -> Float[Array, " D"]:
        """Mean of every element over the rows where it is there, [D]."""
        return observed_mean(train, 1).reshape(-1)

    def set_output_bias(self, params: dict[str, Any], bias: Float[Array, " outputs"]) -> dict[str, Any]:
        """Parameters whose decoder starts at `bias` [D * channels]."""
        output = {**params["decoder"]["output"], "bias": bias}
        return {**params, "decoder": {**params["decoder"], "output": output}}
