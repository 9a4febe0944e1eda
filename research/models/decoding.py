"""What all models with an encoder and a decoder compute alike: functions of a model of networks and an observation.

`Autoencoder` and `Variational` name `bind` and `decode` as their methods.
"""

import dataclasses
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float, Int, Shaped

from research.data.examples import Examples, Facts
from research.distributions import Observation, mean_squared_error, total
from research.networks.base import Networks, Training
from research.networks.sizing import matched

# Numbers that keep random draws apart: `fold_in(key, PENALTY)` is the key of one kind of draw, where `key` is that of a
# loss or of fresh parameters. They differ from those of networks (`research.networks.base`) and from 0 to 2, because
# losses and networks split their keys in up to three, and `split(key, 3)[i]` is `fold_in(key, i)`.
PENALTY, PRIOR, GRADIENT = 4, 5, 6
PRIOR_INIT, PENALTY_INIT, CODEBOOK_INIT = 7, 8, 9


@runtime_checkable
class Autoencodes(Protocol):
    """A model made of networks and an observation."""

    @property
    def networks(self) -> Networks: ...

    @property
    def observation(self) -> Observation: ...


M = TypeVar("M", bound=Autoencodes)


def bind(model: M, facts: Facts) -> M:
    """The model for this data: its networks know feature shape and number of classes.

    Raises:
      ConfigError: the likelihood or the networks cannot take such data.
    """
    model.observation.check_range(facts.low, facts.high, facts.counts)
    networks = model.networks.bind(facts)
    changed: Any = dataclasses.replace(model, networks=networks)  # type: ignore[type-var]
    return changed if networks.parameters is None else matched(changed, "networks", networks.parameters)


def outputs_of(
    model: Autoencodes,
    params: Any,
    z: Float[Array, "B ..."],
    label: Int[Array, " B"] | None,
    length: Int[Array, " B"] | None = None,
    training: Training | None = None,
) -> Float[Array, "B outputs"]:
    """Decoder outputs [B, D * channels] of codes [B, L]. A sequence decoder may also take codes [B, T, L]."""
    label = label if model.networks.conditional else None
    return model.networks.decode(params, z, label, model.observation.of(params), length, training)


def decode(
    model: Autoencodes,
    params: Any,
    z: Float[Array, "B ..."],
    label: Int[Array, " B"] | None = None,
    length: Int[Array, " B"] | None = None,
) -> Float[Array, "B ..."]:
    """E[x | z], [B, *feature_shape], of codes [B, L]; of codes [B, T, L] if there is one at every step."""
    mean = model.observation.of(params).mean(outputs_of(model, params, z, label, length))
    return mean.reshape(z.shape[0], *model.networks.feature_shape)


def log_likelihood(
    model: Autoencodes, params: Any, outputs: Float[Array, "B outputs"], batch: Examples
) -> Float[Array, " B"]:
    """log p(x | outputs) of every example, [B] nats; for `mse` minus the mean squared error. Hidden values count."""
    x = batch.x if batch.truth is None else batch.truth
    return total(model.observation.of(params), outputs, _flat(x), _flat(batch.score_mask))


def reconstruction_mse(
    model: Autoencodes, params: Any, outputs: Float[Array, "B outputs"], batch: Examples
) -> Float[Array, " B"]:
    """Mean over the elements that the model saw of (x - E[x | outputs])^2, [B]."""
    return mean_squared_error(model.observation.of(params).mean(outputs), _flat(batch.x), _flat(batch.mask))


def at_the_mean(model: Autoencodes, params: dict[str, Any], train: Examples) -> dict[str, Any]:
    """Parameters whose decoder starts at the mean of the training rows if `output_bias=mean` asks for it."""
    if model.networks.output_bias == "zero":
        return params
    return model.networks.with_output_bias(params, model.observation.of(params), train)


def _flat(array: Shaped[Array, "B ..."] | None) -> Any:
    return None if array is None else array.reshape(array.shape[0], -1)
