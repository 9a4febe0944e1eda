"""Autoencoder of sequences. Its encoder also runs one time step at a time."""

from typing import Any

from jaxtyping import Array, Float, Int

from research.models.code import PlainCode
from research.models.dense_ae import Autoencoder
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import inline, spec


@spec
class RecurrentAE(Autoencoder):
    """Autoencoder with recurrent networks (Srivastava et al. 2015)."""

    networks: RecurrentNetworks = inline()
    code: PlainCode = inline()

    def start(self, rows: int) -> Online:
        """The state before the first step of `rows` sequences."""
        return self.networks.begin(rows, self.networks.latent_dim)

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B L"]]:
        """The state after one more time step, and the codes [B, L] of all steps so far."""
        x = self.observation.read(x)
        state, outputs = self.networks.encode_step(params, state, x, label, self.networks.latent_dim)
        return state, self.code.make(params, outputs)
