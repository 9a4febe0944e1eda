"""What models can do, each ability as a Protocol: evaluations, figures and runs ask `able(model, Samples)`.

A model has an ability if it has the methods. If its settings leave a method without a meaning, the model says so in its
property `unable`: name of the method -> reason.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

from jaxtyping import Array, Float, Int, Key

from research.data.examples import Examples
from research.distributions import Forecast
from research.optimizer import Optimizer, Players

A = TypeVar("A")


@runtime_checkable
class Encodes(Protocol):
    """Codes of examples."""

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B L"]: ...


@runtime_checkable
class Decodes(Protocol):
    """E[x | z] of codes."""

    def decode(
        self,
        params: Any,
        z: Float[Array, "B L"],
        label: Int[Array, " B"] | None = None,
        length: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B ..."]: ...


@runtime_checkable
class Reconstructs(Protocol):
    """E[x | z] at the codes of examples."""

    def reconstruct(self, params: Any, batch: Examples) -> Float[Array, "B ..."]: ...


@runtime_checkable
class Samples(Protocol):
    """Draws from the model."""

    def sample(
        self, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "{number} ..."]: ...


@runtime_checkable
class Forecasts(Protocol):
    """The distribution of the steps that follow a window."""

    def forecast(self, params: Any, batch: Examples) -> Forecast: ...


@runtime_checkable
class Predicts(Protocol):
    """Predictions of `target_classes` classes (0: of values), for a sequence or for every step (`stepwise`)."""

    @property
    def target_classes(self) -> int: ...

    @property
    def stepwise(self) -> bool: ...

    def predict(self, params: Any, batch: Examples) -> Float[Array, "B ..."]: ...


@runtime_checkable
class HasPosterior(Protocol):
    """A Gaussian q(z | x): mean and log-variance, [B, L]."""

    def posterior(self, params: Any, batch: Examples) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]: ...


@runtime_checkable
class ScoresCodes(Protocol):
    """-log p(x | z) of any codes, [B] nats. `standard_prior` says whether codes have the prior N(0, 1)."""

    @property
    def standard_prior(self) -> bool: ...

    def reconstruction_nats(self, params: Any, z: Float[Array, "B L"], batch: Examples) -> Float[Array, " B"]: ...


@runtime_checkable
class WeighsSamples(Protocol):
    """Importance weights log p(x, z) - log q(z | x), [B, samples] nats."""

    def log_weights(
        self, params: Any, batch: Examples, keys: Key[Array, " B"], samples: int
    ) -> Float[Array, "B {samples}"]: ...


@runtime_checkable
class Quantizes(Protocol):
    """The entries in codes, [B, groups] or [B, T, groups], out of a codebook of `entries` entries."""

    @property
    def entries(self) -> int: ...

    def assign(self, params: Any, batch: Examples) -> Int[Array, "B ..."]: ...


@runtime_checkable
class StepsThrough(Protocol):
    """One time step after another: `step` gives the next state, and the output for all steps so far."""

    def start(self, rows: int) -> Any: ...

    def step(
        self, params: Any, state: Any, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Any, Float[Array, "B outputs"]]: ...


@runtime_checkable
class StateGradients(Protocol):
    """The gradient of every row's loss with respect to the states of the last layer, [B, T, H], of cells `cell`."""

    @property
    def cell(self) -> str: ...

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]: ...

    def state_gradients(self, params: Any, batch: Examples) -> Float[Array, "B T H"]: ...


@runtime_checkable
class Checks(Protocol):
    """A model that refuses some rows, batch sizes or optimizers by a ConfigError, before anything is compiled."""

    def check(self, rows: Examples, batch_size: int, optimizer: Optimizer | Players) -> None: ...


@runtime_checkable
class Plays(Protocol):
    """A game. No value of its metrics `unmonitored` says that the model is better."""

    @property
    def unmonitored(self) -> tuple[str, ...]: ...


@runtime_checkable
class Unable(Protocol):
    """A model some of whose methods have no meaning with its settings: name -> reason."""

    @property
    def unable(self) -> Mapping[str, str]: ...


@runtime_checkable
class HasNetworks(Protocol):
    """A model whose networks have the four settings below."""

    @property
    def networks(self) -> Any: ...


@runtime_checkable
class Conditional(Protocol):
    """Networks or a model that may get the label."""

    @property
    def conditional(self) -> bool: ...


@runtime_checkable
class Coded(Protocol):
    """Networks or a model with a setting for the size of codes."""

    @property
    def latent_dim(self) -> int: ...


@runtime_checkable
class TakesMasks(Protocol):
    """Networks or a model that may tell padding and missing values from zeros."""

    @property
    def takes_masks(self) -> bool: ...


@runtime_checkable
class CountsUses(Protocol):
    """Networks or a model that say how often one example uses a parameter."""

    @property
    def uses(self) -> int: ...


ABILITIES = (Encodes, Decodes, Reconstructs, Samples, Forecasts, Predicts, StepsThrough)


def lack(model: Any, method: str) -> str | None:
    """Why a model lacks the method `method`, for a person; None if it has it."""
    if isinstance(model, Unable) and method in model.unable:
        return model.unable[method]
    known = [ability for ability in ABILITIES if method in methods(ability)]
    return None if not known or isinstance(model, known[0]) else "choose another model"


def methods(ability: type) -> list[str]:
    """The names of the members of an ability."""
    return [name for name in vars(ability) if not name.startswith("_")]


def able(model: Any, ability: type[A]) -> TypeGuard[A]:
    """Whether a model with these settings has an ability."""
    if not isinstance(model, ability):
        return False
    return not isinstance(model, Unable) or not any(name in model.unable for name in methods(ability))


def unmonitored(model: Any) -> tuple[str, ...]:
    """The metrics of a game: no value of them is better than another."""
    return model.unmonitored if isinstance(model, Plays) else ()


def is_conditional(model: Any) -> bool:
    """Whether a model gets the label of every example."""
    part = _coding(model)
    return isinstance(part, Conditional) and part.conditional


def takes_masks(model: Any) -> bool:
    """Whether a model tells padding and missing values from zeros."""
    part = _coding(model)
    return isinstance(part, TakesMasks) and part.takes_masks


def _coding(model: Any) -> Any:
    """The networks of a model, or a model without such a part."""
    return model.networks if isinstance(model, HasNetworks) else model


def latent_dim_of(model: Any) -> int | None:
    """L, the size of the codes, or None."""
    part = _coding(model)
    return part.latent_dim if isinstance(part, Coded) else None


def uses_of(model: Any) -> int:
    """How often one example uses a parameter of a model; 1 if the model does not say it."""
    part = _coding(model)
    return part.uses if isinstance(part, CountsUses) else 1
