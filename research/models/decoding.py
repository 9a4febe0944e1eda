"""What every model with an encoder, a code and a decoder shares; the networks and the observation are mixed in."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float, Int, Key, Shaped

from research.data.examples import Examples, Facts
from research.distributions import mean_squared_error, total

# Numbers of draws, by `fold_in` of the key of a loss or of fresh parameters. They are distinct from each other and from
# 0 to 2, since `split(key, n)[i]` is `fold_in(key, i)` and losses and networks split their keys in up to three.
TEACHING, PENALTY, PRIOR, GRADIENT = 3, 4, 5, 6
PRIOR_INIT, PENALTY_INIT, CODEBOOK_INIT = 7, 8, 9


class Decoding:
    """Initialisation, decoding and reconstruction errors, for any networks (`apply_encoder`, `apply_decoder`)."""

    encoder_outputs: int
    conditional: bool

    def validate(self: Any) -> None:
        self.validate_networks()
        self.validate_observation()

    def bind(self: Any, facts: Facts) -> Any:
        """The model for this data: feature shape and number of classes set, impossible pairs refused."""
        self.check_data(facts)
        self.check_range(facts.low, facts.high)
        self.check_labels(facts.classes)
        return dataclasses.replace(self, feature_shape=facts.feature_shape, classes=facts.classes).matched()

    def fresh(self: Any, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that know nothing of the data."""
        return self.init_networks(key, self.encoder_outputs, self.channels) | self.init_observation()

    def init(self: Any, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; with `output_bias=mean` the decoder starts at the mean of the training rows."""
        params = self.fresh(key)
        if self.output_bias == "mean":
            bias = self.observation(params).initial_bias(self.feature_mean(train))
            params = self.set_output_bias(params, bias)
        return params

    def decoder_outputs(
        self: Any,
        params: Any,
        z: Float[Array, "B ..."],
        label: Int[Array, " B"] | None,
        length: Int[Array, " B"] | None = None,
        teaching: Any = None,
    ) -> Float[Array, "B outputs"]:
        """Decoder outputs [B, D * channels] of codes [B, L] (a sequence decoder may also take [B, T, L]).

        `length` of every row matters to decoders that run backwards, `teaching` to those that see the true sequence in
        training.
        """
        label = label if self.conditional else None
        return self.apply_decoder(params, z, label, self.observation(params), length, teaching)

    def decode(
        self: Any,
        params: Any,
        z: Float[Array, "B ..."],
        label: Int[Array, " B"] | None = None,
        length: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B ..."]:
        """E[x | z], [B, *feature_shape], of codes [B, L]."""
        mean = self.observation(params).mean(self.decoder_outputs(params, z, label, length))
        return mean.reshape(z.shape[0], *self.feature_shape)

    def reconstruct(self: Any, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """E[x | z] at the code of x, [B, *feature_shape]."""
        return self.decode(params, self.full_code(params, batch), batch.label, batch.length)

    def full_code(self: Any, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """What the decoder gets: the codes [B, L], or those at every step [B, T, L]."""
        return self.encode(params, batch)

    def log_likelihood(
        self: Any, params: Any, outputs: Float[Array, "B outputs"], batch: Examples
    ) -> Float[Array, " B"]:
        """log p(x | outputs) of every example in nats (for mse: minus the mean squared error), [B]."""
        return total(self.observation(params), outputs, _flat(batch.x), _flat(batch.mask))

    def reconstruction_mse(
        self: Any, params: Any, outputs: Float[Array, "B outputs"], batch: Examples
    ) -> Float[Array, " B"]:
        """Mean over elements of (x - E[x | outputs])^2, [B]."""
        return mean_squared_error(self.observation(params).mean(outputs), _flat(batch.x), _flat(batch.mask))


def _flat(array: Shaped[Array, "B ..."] | None) -> Any:
    return None if array is None else array.reshape(array.shape[0], -1)
