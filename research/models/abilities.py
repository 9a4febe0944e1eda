"""What models can do, each as a Protocol: evaluations, figures and runs ask `able(model, Samples)`.

A model has an ability by having its methods. Where the settings of a model decide, its property `unable` gives the
reason by the name of the method.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

from jaxtyping import Array, Float, Int, Key

from research.data.examples import Examples, Facts
from research.distributions import Forecast
from research.optimizer import Optimizer, Players

A = TypeVar("A")


@runtime_checkable
class Binds(Protocol):
    """A model that takes up what there is to know of the data."""

    def bind(self, facts: Facts) -> Any: ...


@runtime_checkable
class Encodes(Protocol):
    """A code of every example."""

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B L"]: ...


@runtime_checkable
class Decodes(Protocol):
    """Examples from codes."""

    def decode(
        self,
        params: Any,
        z: Float[Array, "B L"],
        label: Int[Array, " B"] | None = None,
        length: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B ..."]: ...


@runtime_checkable
class Reconstructs(Protocol):
    """E[x | code of x]."""

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
    """Classes or values: of `target_classes` classes (0: values), one for a sequence or (`stepwise`) for each step."""

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
    """-log p(x | z) in nats of any codes, [B]; `standard_prior`: whether codes have the prior N(0, 1)."""

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
    """Codes made of `entries` entries of a codebook: which ones, [B, groups] or [B, T, groups]."""

    @property
    def entries(self) -> int: ...

    def assign(self, params: Any, batch: Examples) -> Int[Array, "B ..."]: ...


@runtime_checkable
class StepsThrough(Protocol):
    """One time step after the other: a state, and what is known after each step."""

    def start(self, rows: int) -> Any: ...

    def step(
        self, params: Any, state: Any, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Any, Float[Array, "B outputs"]]: ...


@runtime_checkable
class StateGradients(Protocol):
    """The slope of the loss of every row with respect to the last layer's states, [B, T, H]; `cell` names the cells."""

    @property
    def cell(self) -> str: ...

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]: ...

    def state_gradients(self, params: Any, batch: Examples) -> Float[Array, "B T H"]: ...


@runtime_checkable
class Checks(Protocol):
    """What can be said of the rows, of a batch, or beside an optimizer, before anything is compiled.

    Raises:
      ConfigError: naming the key.
    """

    def check(self, rows: Examples, batch_size: int, optimizer: Optimizer | Players) -> None: ...


@runtime_checkable
class Plays(Protocol):
    """A game: of its metrics `unmonitored` one cannot say that the better the value, the better the model."""

    @property
    def unmonitored(self) -> tuple[str, ...]: ...


@runtime_checkable
class Unable(Protocol):
    """Methods that the settings of this model leave without a meaning, with the reason."""

    @property
    def unable(self) -> Mapping[str, str]: ...


@runtime_checkable
class HasNetworks(Protocol):
    """A model whose networks say whether they take labels and masks."""

    @property
    def networks(self) -> Any: ...


@runtime_checkable
class Conditional(Protocol):
    """Networks or a model that may get the label."""

    @property
    def conditional(self) -> bool: ...


@runtime_checkable
class Coded(Protocol):
    """A model whose codes have a size that a setting chooses."""

    @property
    def latent_dim(self) -> int: ...


@runtime_checkable
class TakesMasks(Protocol):
    """A model that may tell padding and missing values from zeros."""

    @property
    def takes_masks(self) -> bool: ...


@runtime_checkable
class CountsUses(Protocol):
    """How often one example passes through the parameters of a model; 1 where it does not say."""

    @property
    def uses(self) -> int: ...


ABILITIES = (Encodes, Decodes, Reconstructs, Samples, Forecasts, Predicts, StepsThrough)


def lack(model: Any, method: str) -> str | None:
    """Why a model cannot do what `method` is called, for a person; None: it can."""
    if isinstance(model, Unable) and method in model.unable:
        return model.unable[method]
    known = [ability for ability in ABILITIES if method in methods(ability)]
    return None if not known or isinstance(model, known[0]) else "choose another model"


def methods(ability: type) -> list[str]:
    """The names that make an ability."""
    return [name for name in vars(ability) if not name.startswith("_")]


def able(model: Any, ability: type[A]) -> TypeGuard[A]:
    """Whether a model with these settings has an ability."""
    if not isinstance(model, ability):
        return False
    return not isinstance(model, Unable) or not any(name in model.unable for name in methods(ability))


def unmonitored(model: Any) -> tuple[str, ...]:
    """Metrics of a game, of which no value is better."""
    return model.unmonitored if isinstance(model, Plays) else ()


def is_conditional(model: Any) -> bool:
    """Whether a model is given the label of every example."""
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
    """L, where a setting chooses it."""
    return model.latent_dim if isinstance(model, Coded) else None
