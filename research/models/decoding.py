"""What every model with an encoder, a code and a decoder shares; the networks and the observation are mixed in."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from research.data.examples import Examples, Facts
from research.distributions import mean_squared_error, total


class Decoding:
    """Initialisation, decoding and reconstruction errors, for any networks (`apply_encoder`, `apply_decoder`)."""

    encoder_outputs: int
    conditional: bool

    def validate(self: Any) -> None:
        self.validate_networks()
        self.validate_observation()

    def bind(self: Any, facts: Facts) -> Any:
        """The model for this data: feature shape and number of classes set, impossible pairs refused."""
        self.check_range(facts.low, facts.high)
        self.check_labels(facts.classes)
        return dataclasses.replace(self, feature_shape=facts.feature_shape, classes=facts.classes)

    def init(self: Any, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; with `output_bias=mean` the decoder starts at the mean of the training rows."""
        params = self.init_networks(key, self.encoder_outputs, self.channels) | self.init_observation()
        if self.output_bias == "mean":
            mean = jnp.asarray(train.x, jnp.float32).mean(0).reshape(-1)
            params = self.set_output_bias(params, self.observation(params).initial_bias(mean))
        return params

    def decoder_outputs(
        self: Any, params: Any, z: Float[Array, "*B L"], label: Int[Array, "*B"] | None
    ) -> Float[Array, "*B outputs"]:
        """Decoder outputs [..., D * channels] of codes [..., L]."""
        return self.apply_decoder(params, z, label if self.conditional else None, self.channels)

    def decode(
        self: Any, params: Any, z: Float[Array, "B L"], label: Int[Array, " B"] | None = None
    ) -> Float[Array, "B ..."]:
        """E[x | z], [B, *feature_shape], of codes [B, L]."""
        mean = self.observation(params).mean(self.decoder_outputs(params, z, label))
        return mean.reshape(*z.shape[:-1], *self.feature_shape)

    def reconstruct(self: Any, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """E[x | z] at the code of x, [B, *feature_shape]."""
        return self.decode(params, self.encode(params, batch), batch.label)

    def log_likelihood(
        self: Any, params: Any, outputs: Float[Array, "B outputs"], batch: Examples
    ) -> Float[Array, " B"]:
        """log p(x | outputs) of every example in nats (for mse: minus the mean squared error), [B]."""
        return total(self.observation(params), outputs, _flat(batch.x), _flat(batch.observed))

    def reconstruction_mse(
        self: Any, params: Any, outputs: Float[Array, "B outputs"], batch: Examples
    ) -> Float[Array, " B"]:
        """Mean over elements of (x - E[x | outputs])^2, [B]."""
        return mean_squared_error(self.observation(params).mean(outputs), _flat(batch.x), _flat(batch.observed))


def _flat(array: Shaped[Array, "B ..."] | None) -> Any:
    return None if array is None else array.reshape(array.shape[0], -1)
