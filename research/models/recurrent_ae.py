"""Autoencoder of sequences."""

from typing import Any

from jaxtyping import Array, Float, Int

from research.data.examples import Examples
from research.distributions import Observation
from research.models.dense_ae import Autoencoding
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import ConfigError, spec


@spec
class RecurrentAE(Autoencoding, RecurrentNetworks, Observation):
    """Autoencoder with recurrent networks (Srivastava et al. 2015)."""

    def validate(self) -> None:
        super().validate()
        if self.code == "step" and self.penalty != "none":
            remedy = "the prior is of one code for a sequence; set model.code=sequence or model.penalty=none"
            raise ConfigError("penalty", self.penalty, remedy)

    def code_outputs(self, params: Any, batch: Examples) -> Float[Array, "B ..."]:
        """Outputs of the encoder [B, L], or with `code=step` those at every step [B, T, L]."""
        if self.code == "step":
            return self.apply_step_encoder(params, batch)
        return super().code_outputs(params, batch)

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B L"]]:
        """One more time step: the state after it and the codes [B, L] of all steps so far."""
        state, outputs = self.online_encoder(params, state, x, label)
        return state, self.to_code(params, outputs)
