"""Variational autoencoder of sequences. Its encoder also runs one time step at a time."""

from typing import Any

from jaxtyping import Array, Float, Int

from research.models.vae import Variational
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import inline, spec


@spec
class RecurrentVAE(Variational):
    """VAE with recurrent networks: one code for a sequence (Fabius & van Amersfoort 2015; Bowman et al. 2016).

    If the decoder ignores the code, a warm-up, free bits, or `teacher_dropout` of a teacher-forced decoder help.
    """

    networks: RecurrentNetworks = inline(code="sequence")

    def start(self, rows: int) -> Online:
        """The state before the first step of `rows` sequences."""
        return self.networks.begin(rows, 2 * self.networks.latent_dim)

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B L"]]:
        """The state after one more time step, and the posterior means [B, L] given all steps so far."""
        latent_dim = self.networks.latent_dim
        state, outputs = self.networks.encode_step(params, state, self.observation.read(x), label, 2 * latent_dim)
        return state, outputs[..., :latent_dim]
