"""The recurrent decoder as a Linen module, with teaching."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.networks.cells import PARTS, Carries
from research.networks.layers import Layers


class Teaching(NamedTuple):
    """The true sequence, as a decoder sees it in training.

    Attributes:
      x: the sequence, [B, T, C].
      mask: False for a missing value, of the shape of x; the decoder then sees its own value. None: none is missing.
      share: probability that a step sees the true last value rather than the decoder's own.
      dropout: probability that the true value is set to zero instead; None: never.
      key: of these draws.
    """

    x: jax.Array
    mask: Any
    share: jax.Array
    dropout: Any
    key: jax.Array


class Decoder(nn.Module):
    """Recurrent layers from a code to a sequence, y_t = W h_t + b.

    Attributes:
      layers: the recurrent layers, which run forwards.
      channels: C, of the sequence.
      outputs: numbers at every step.
      code_starts: a linear layer makes the first states of the code; otherwise the code enters at every step.
      code_skips: the code of a step also enters its output linearly: y_t = W_h h_t + W_z z_t + b.
    """

    layers: Layers
    channels: int
    outputs: int
    code_starts: bool
    code_skips: bool

    def setup(self) -> None:
        self.output = nn.Dense(self.outputs)
        if self.code_starts:
            self.start = nn.Dense(self.layers.layers * PARTS[self.layers.kind] * self.layers.hidden_dim)

    @nn.compact
    def __call__(
        self,
        code: Float[Array, "*codes L"],
        steps: int,
        read_back: Callable[[jax.Array], jax.Array] | None = None,
        teaching: Teaching | None = None,
        training: bool = False,
    ) -> Float[Array, "B T outputs"]:
        """Outputs at all steps.

        Args:
          code: [B, L], or [B, T, L] at every step.
          read_back: makes the next input [B, C] of outputs; None if the decoder does not read its own output.
          teaching: the true values that it sees instead.
        """
        rows = code.shape[0]
        carries = self._first(code) if self.code_starts else self.layers.rest(rows)
        if read_back is not None:
            return self._feed_back(carries, steps, read_back, teaching, training)
        if code.ndim == 2:  # every step has the same input: the code, or none
            states, _ = self.layers(code[:, :0] if self.code_starts else code, None, carries, training, steps)
        else:
            states, _ = self.layers(code, carries=carries, training=training)
        outputs = self.output(states)
        if self.code_skips:
            outputs += code @ self.param("skip", nn.initializers.lecun_normal(), (code.shape[-1], self.outputs))
        return outputs

    def _first(self, code: Float[Array, "B L"]) -> Carries:
        """The first carries, linear in the code."""
        layers, parts = self.layers.layers, PARTS[self.layers.kind]
        first = self.start(code).reshape(code.shape[0], layers, parts, self.layers.hidden_dim)
        return tuple(tuple(first[:, layer, part] for part in range(parts)) for layer in range(layers))

    def _feed_back(
        self,
        carries: Carries,
        steps: int,
        read_back: Callable[[jax.Array], jax.Array],
        teaching: Teaching | None,
        training: bool,
    ) -> Float[Array, "B T outputs"]:
        """Outputs of a decoder that reads its own last output, or the true last value."""
        rows = carries[0][0].shape[0]
        truth = present = None
        if teaching is not None:
            truth = jnp.swapaxes(teaching.x, 0, 1)
            present = None if teaching.mask is None else jnp.swapaxes(teaching.mask, 0, 1)

        def step(decoder: Decoder, state: tuple[Carries, jax.Array], at: tuple[jax.Array, Any, Any]) -> Any:
            carries, x = state
            time, value, seen = at
            carries, last = decoder.layers.step(carries, x, training)
            outputs = decoder.output(last)
            after = read_back(outputs)
            if teaching is not None:  # every step has a key of its own: padding changes no draw
                seen_key, drop_key = jax.random.split(jax.random.fold_in(teaching.key, time))
                if teaching.dropout is not None:
                    dropped = jax.random.uniform(drop_key, (rows, 1)) < teaching.dropout
                    value = jnp.where(dropped, 0.0, value)
                taught = jax.random.uniform(seen_key, (rows, 1)) < teaching.share
                after = jnp.where(taught if seen is None else taught & seen, value, after)
            return (carries, after), outputs

        # All steps share one draw of dropout.
        over_time = nn.scan(step, variable_broadcast="params", split_rngs={"params": False, "dropout": False})
        _, outputs = over_time(self, (carries, jnp.zeros((rows, self.channels))), (jnp.arange(steps), truth, present))
        return jnp.swapaxes(outputs, 0, 1)
