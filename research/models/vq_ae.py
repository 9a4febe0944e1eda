"""Vector-quantized autoencoder: discrete codes from a learned codebook (`research.models.code.Codebook`)."""

from typing import Any

from jaxtyping import Array, Float, Int

from research.models.code import Codebook
from research.models.dense_ae import Autoencoder
from research.networks.convolutional import ConvolutionalNetworks
from research.networks.dense import DenseNetworks
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import inline, spec


@spec
class VQAE(Autoencoder):
    """Vector-quantized autoencoder with dense networks."""

    networks: DenseNetworks = inline()
    code: Codebook = inline()


@spec
class ConvolutionalVQAE(Autoencoder):
    """Vector-quantized autoencoder of images or sequences with convolutional networks."""

    networks: ConvolutionalNetworks = inline()
    code: Codebook = inline()


@spec
class RecurrentVQAE(Autoencoder):
    """Vector-quantized autoencoder of sequences, with one code or with a code at every step."""

    networks: RecurrentNetworks = inline()
    code: Codebook = inline()

    def start(self, rows: int) -> Online:
        """The state before the first step of `rows` sequences."""
        return self.networks.begin(rows, self.latent_dim)

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B L"]]:
        """One more time step: the state after it and the codes [B, L] of all steps so far."""
        state, outputs = self.networks.encode_step(params, state, x, label, self.latent_dim)
        return state, self.code.make(params, outputs)
