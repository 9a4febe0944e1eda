"""Variational autoencoder of sequences."""

from typing import Any

from jaxtyping import Array, Float, Int

from research.distributions import Observation
from research.models.vae import Variational
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import ConfigError, spec


@spec
class RecurrentVAE(Variational, RecurrentNetworks, Observation):
    """VAE with recurrent networks: one code for a sequence (Fabius & van Amersfoort 2015; Bowman et al. 2016).

    Against a decoder that ignores its code: `warmup`, `free_bits`, and `teacher_dropout` of a teacher-forced decoder.
    """

    def validate(self) -> None:
        super().validate()
        if self.code != "sequence":
            raise ConfigError("code", self.code, "a recurrent VAE has one code for a sequence; set model.code=sequence")

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B L"]]:
        """One more time step: the state after it and the posterior means [B, L] given all steps so far."""
        state, outputs = self.online_encoder(params, state, x, label)
        return state, outputs[..., : self.latent_dim]
