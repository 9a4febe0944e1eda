"""Autoencoder of sequences."""

from typing import Any

from jaxtyping import Array, Float, Int

from research.data.examples import Examples
from research.distributions import Observation
from research.models.dense_ae import Autoencoding
from research.networks.dense import activation
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import spec


@spec
class RecurrentAE(Autoencoding, RecurrentNetworks, Observation):
    """Autoencoder with recurrent networks (Srivastava et al. 2015)."""

    def full_code(self, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """Codes [B, L], or with `code=step` those at every step [B, T, L]."""
        if self.code == "sequence":
            return self.encode(params, batch)
        return activation(self.code_activation)(self.apply_step_encoder(params, batch))

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B L"]]:
        """One more time step: the state after it and the codes [B, L] of all steps so far."""
        state, outputs = self.online_encoder(params, state, x, label)
        return state, activation(self.code_activation)(outputs)
