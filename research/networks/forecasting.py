"""The network of a forecaster: recurrent layers over segments of a window, and outputs for the steps that follow."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.networks.cells import Carries
from research.networks.layers import Layers


class ForecastNetwork(nn.Module):
    """Segments [B, pieces, D] of a window -> outputs [B, horizon pieces, outputs] (Lin et al. 2023, SegRNN).

    Attributes:
      layers: the recurrent layers.
      summary: "last", "mean" or "max" of their states, for `direct`.
      embedding_dim: size of a linear layer with a relu before the cells; None leaves it out.
      outputs: outputs of the last layer: numbers of the whole horizon (direct) or of one future segment.
      decoding: "direct": all steps by one linear layer; "parallel": one step of the cells for every future segment,
        each from the same carry with an embedding of its position; "recursive": segment after segment, each from the
        forecast of the segment before.
      pieces: number of future segments.
    """

    layers: Layers
    summary: str
    embedding_dim: int | None
    outputs: int
    decoding: Literal["direct", "parallel", "recursive"]
    pieces: int

    @nn.compact
    def __call__(
        self,
        segments: Float[Array, "B pieces D"],
        read_back: Callable[[int, jax.Array], jax.Array],
        drop: Callable[[jax.Array], jax.Array],
        future: Float[Array, "B ahead F"] | None = None,
    ) -> Float[Array, "B future outputs"]:
        """Outputs of every future segment, or [B, 1, outputs] of the whole horizon if direct.

        Args:
          read_back: makes the next segment [B, D], of the number of a future segment and its outputs (recursive).
          drop: is applied to the states before the output layer.
          future: what is known in advance of every future segment, or [B, 1, F] of the whole horizon if direct. The
            output layer reads it beside the states, and a layer with a relu over both; None: nothing is known.
        """
        output, embed = nn.Dense(self.outputs, name="output"), lambda x: x
        if self.embedding_dim is not None:
            dense = nn.Dense(self.embedding_dim, name="embedding")
            embed = lambda x: jax.nn.relu(dense(x))
        say = lambda states, at: output(drop(states))
        if future is not None:
            beside = nn.Dense(self.layers.features, name="future")

            def say(states: jax.Array, at: int | slice) -> jax.Array:
                both = jnp.concatenate([drop(states), future[:, at]], axis=-1)
                return output(jnp.concatenate([both, jax.nn.relu(beside(both))], axis=-1))

        embedded = embed(segments)
        if self.decoding == "direct":
            return say(self.layers.summary(embedded, self.summary), 0)[:, None]
        _, carries = self.layers(embedded)
        match self.decoding:
            case "parallel":
                shape = self.pieces, embedded.shape[-1]
                position = self.param("position", nn.initializers.normal(), shape)
                return say(self._positions(carries, position), slice(None))
            case _:
                outputs: list[jax.Array] = []
                for piece in range(self.pieces):
                    outputs.append(say(carries[-1][0], piece))
                    if piece + 1 < self.pieces:
                        carries, _ = self.layers.step(carries, embed(read_back(piece, outputs[-1])))
                return jnp.stack(outputs, 1)

    def _positions(self, carries: Carries, position: Float[Array, "pieces D"]) -> Float[Array, "B pieces H"]:
        """The states after one step from the same carries, for every position."""
        rows, pieces = carries[0][0].shape[0], self.pieces
        spread = tuple(tuple(jnp.repeat(part, pieces, axis=0) for part in carry) for carry in carries)
        _, states = self.layers.step(spread, jnp.tile(position, (rows, 1)))
        return states.reshape(rows, pieces, -1)
