"""Dense encoder and decoder."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.data.examples import Examples
from research.tree import ConfigError, from_data, nearest, spec

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
class DenseNetworks:
    """The settings of a dense encoder and its mirrored decoder, mixed into a model.

    Attributes:
      latent_dim: L, size of the code.
      hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
      activation: one of `ACTIVATIONS`, or "linear".
      gated: hidden layers compute f(a) * sigmoid(b) from twice the outputs.
      layer_norm: normalise before each activation.
      kernel_init: one of `INITIALIZERS`.
      output_bias: "mean" starts the decoder's output at the mean of the training data.
      conditional: give encoder and decoder the label, one-hot.
    """

    latent_dim: int
    hidden_dims: tuple[int, ...]
    activation: str
    gated: bool
    layer_norm: bool
    kernel_init: str
    output_bias: Literal["mean", "zero"]
    conditional: bool
    feature_shape: tuple[int, ...] = from_data(())
    classes: int = from_data(0)

    def validate_networks(self) -> None:
        if self.latent_dim < 1:
            raise ConfigError("latent_dim", self.latent_dim, "must be at least 1")
        if any(width < 1 for width in self.hidden_dims):
            raise ConfigError("hidden_dims", list(self.hidden_dims), "every width must be at least 1")
        check_name("activation", self.activation, (*ACTIVATIONS, "linear"))
        check_name("kernel_init", self.kernel_init, INITIALIZERS)

    def check_labels(self, classes: int) -> None:
        if self.conditional and not classes:
            raise ConfigError(
                "conditional", True, "the data have no labels to condition on; set model.conditional=false"
            )

    @property
    def features(self) -> int:
        """Number of elements of one example."""
        size = 1
        for length in self.feature_shape:
            size *= length
        return size

    def _stack(self, hidden_dims: tuple[int, ...], outputs: int) -> DenseStack:
        return DenseStack(hidden_dims, outputs, self.activation, self.gated, self.layer_norm, self.kernel_init)

    def _with_label(self, inputs: Float[Array, "*B D"], label: Int[Array, "*B"] | None) -> Float[Array, "*B inputs"]:
        if not self.conditional:
            return inputs
        if label is None:
            raise ConfigError("label", None, "this model is conditional: give a label for every example")
        return jnp.concatenate([inputs, jax.nn.one_hot(label, self.classes)], axis=-1)

    def init_networks(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}."""
        encoder_key, decoder_key = jax.random.split(key)
        label = jnp.zeros((1,), jnp.int32)
        x = self._with_label(jnp.zeros((1, self.features)), label)
        z = self._with_label(jnp.zeros((1, self.latent_dim)), label)
        encoder = self._stack(self.hidden_dims, encoder_outputs).init(encoder_key, x)
        decoder = self._stack(self.hidden_dims[::-1], self.features * channels).init(decoder_key, z)
        return {"encoder": encoder["params"], "decoder": decoder["params"]}

    def apply_encoder(self, params: Any, batch: Examples, outputs: int) -> Float[Array, "B {outputs}"]:
        """Encoder outputs [B, outputs] of a batch."""
        inputs = self._with_label(batch.x.reshape(len(batch), -1), batch.label)
        return self._stack(self.hidden_dims, outputs).apply({"params": params["encoder"]}, inputs)  # type: ignore

    def apply_decoder(
        self, params: Any, z: Float[Array, "*B L"], label: Int[Array, "*B"] | None, channels: int
    ) -> Float[Array, "*B outputs"]:
        """Decoder outputs [..., D * channels] of codes [..., L]."""
        decoder = self._stack(self.hidden_dims[::-1], self.features * channels)
        return decoder.apply({"params": params["decoder"]}, self._with_label(z, label))  # type: ignore

    def set_output_bias(self, params: dict[str, Any], bias: Float[Array, " outputs"]) -> dict[str, Any]:
        """Parameters whose decoder starts at `bias` [D * channels]."""
        output = {**params["decoder"]["output"], "bias": bias}
        return {**params, "decoder": {**params["decoder"], "output": output}}
