"""Autoencoder of sequences. Its encoder also runs one time step at a time."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from research.models.code import Code, PlainCode
from research.models.dense_ae import Autoencoder
from research.networks.recurrent import Online, RecurrentNetworks
from research.tree import inline, spec


@runtime_checkable
class Recurrent(Protocol):
    """An autoencoder with recurrent networks."""

    @property
    def networks(self) -> RecurrentNetworks: ...

    @property
    def code(self) -> Code: ...


def start(model: Recurrent, rows: int) -> Online:
    """The state before the first step of `rows` sequences."""
    return model.networks.begin(rows, model.networks.latent_dim)


def step(
    model: Recurrent, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
) -> tuple[Online, Float[Array, "B L"]]:
    """The state after one more time step, and the codes [B, L] of all steps so far."""
    state, outputs = model.networks.encode_step(params, state, x, label, model.networks.latent_dim)
    return state, model.code.make(params, outputs)


@spec
class RecurrentAE(Autoencoder):
    """Autoencoder with recurrent networks (Srivastava et al. 2015)."""

    networks: RecurrentNetworks = inline()
    code: PlainCode = inline()

    start, step = start, step
