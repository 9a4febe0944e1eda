"""Dense encoder and its mirrored decoder."""

import dataclasses
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.networks.base import (
    DECODER_DROPOUT,
    ENCODER_DROPOUT,
    Coding,
    Training,
    apply,
    observed_mean,
    one_code,
    output_bias,
    with_mask,
)
from research.networks.names import INITIALIZERS, activation, check_activation, check_name
from research.ranges import Size, StaticShareBelow1
from research.tree import ConfigError, added, spec


class DenseStack(nn.Module):
    """Hidden layers with an activation, then a linear output layer; [B, D] -> [B, features].

    Activation and initialiser are names: functions as attributes would compare unequal and split a group.
    """

    hidden_dims: tuple[int, ...]
    features: int
    activation: str
    gated: bool = False
    layer_norm: bool = False
    kernel_init: str = "lecun_normal"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"], training: bool = False) -> Float[Array, "*B features"]:
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
            if self.dropout:
                x = nn.Dropout(self.dropout)(x, deterministic=not training)
        return nn.Dense(self.features, kernel_init=init, name="output")(x)


@spec
class DenseNetworks(Coding):
    """Settings of a dense encoder and its mirrored decoder. Data of every shape enter flattened.

    Attributes:
      hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
      activation: one of `ACTIVATIONS`, or "linear".
      gated: a hidden layer computes f(a) * sigmoid(b) from twice as many outputs (Dauphin et al. 2017).
      layer_norm: normalise before each activation.
      kernel_init: one of `INITIALIZERS`.
      dropout: share of the hidden units that are set to zero in training (Srivastava et al. 2014). All codes that a
        VAE draws of one example see the same units.
      reads_mask: the encoder also reads which values are observed, 1 or 0 for each, so that it can tell a missing value
        from 0.
    """

    hidden_dims: tuple[Size, ...]
    activation: str
    gated: bool
    layer_norm: bool
    kernel_init: str
    dropout: StaticShareBelow1 = added(before=0.0)
    reads_mask: bool = added(before=False)

    stepwise: ClassVar[bool] = False
    uses: ClassVar[int] = 1
    depends: ClassVar[dict[str, tuple[str, ...]]] = {}
    unscored: ClassVar[tuple[str, ...]] = ("dropout",)  # scores are computed without it

    def validate(self) -> None:
        if self.parameters is not None and not self.hidden_dims:
            raise ConfigError("parameters", self.parameters, "there is no hidden layer whose width could be chosen")
        if self.dropout and not self.hidden_dims:
            raise ConfigError("dropout", self.dropout, "there is no hidden layer to drop units of; set {key}=0.0")
        check_activation("activation", self.activation)
        check_name("kernel_init", self.kernel_init, INITIALIZERS)

    @property
    def takes_masks(self) -> bool:
        """Whether the encoder tells missing values from zeros."""
        return self.reads_mask

    def bind(self, facts: Facts) -> Self:
        """The networks for this data."""
        self.check_labels(facts)
        return dataclasses.replace(self, feature_shape=facts.feature_shape, classes=facts.classes)

    def resized(self, width: int) -> Self:
        """The same networks with a first hidden layer of that width, the other layers in proportion."""
        first = self.hidden_dims[0]
        dims = tuple(max(1, round(size * width / first)) for size in self.hidden_dims)
        return dataclasses.replace(self, hidden_dims=dims)

    def encoder(self, outputs: int) -> DenseStack:
        """The encoder as a Linen module, [B, D] -> [B, outputs]."""
        return self._stack(self.hidden_dims, outputs)

    def decoder(self, channels: int) -> DenseStack:
        """The decoder as a Linen module, [B, L] -> [B, D * channels]."""
        return self._stack(self.hidden_dims[::-1], self.features * channels)

    def _stack(self, dims: tuple[int, ...], outputs: int) -> DenseStack:
        return DenseStack(dims, outputs, self.activation, self.gated, self.layer_norm, self.kernel_init, self.dropout)

    def init(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}."""
        x = jnp.zeros((1, self.features * (2 if self.reads_mask else 1) + self.label_size))
        return self.fresh(key, self.encoder(encoder_outputs), self.decoder(channels), x)

    def encode(
        self, params: Any, batch: Examples, outputs: int, training: Training | None = None
    ) -> Float[Array, "B {outputs}"]:
        """Encoder outputs [B, outputs] of a batch."""
        x = batch.x.reshape(batch.x.shape[0], -1)
        if self.reads_mask:
            x = with_mask(x, None if batch.mask is None else batch.mask.reshape(x.shape))
        x = self.with_label(x, batch.label)
        return apply(self.encoder(outputs), params["encoder"], x, training, ENCODER_DROPOUT)

    summary = one_code

    def decode(
        self,
        params: Any,
        z: Float[Array, "*B L"],
        label: Int[Array, "*B"] | None,
        likelihood: Likelihood,
        length: Int[Array, " B"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "*B outputs"]:
        """Decoder outputs [..., D * channels] of codes [..., L]. Lengths matter to the loss alone."""
        decoder = self.decoder(likelihood.channels)
        return apply(decoder, params["decoder"], self.with_label(z, label), training, DECODER_DROPOUT)

    def encoder_kernel(self, params: Any) -> Float[Array, "D outputs"] | None:
        """The kernel of an encoder that is one linear layer, without the rows for mask and label; otherwise None."""
        return None if self.hidden_dims else params["encoder"]["output"]["kernel"][: self.features]

    def with_output_bias(self, params: dict[str, Any], likelihood: Likelihood, train: Examples) -> dict[str, Any]:
        """Parameters whose decoder predicts the mean of every element over the rows that have it."""
        return output_bias(params, likelihood.initial_bias(observed_mean(train, 1).reshape(-1)))
