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


ABILITIES = (Encodes, Decodes, Reconstructs, Samples, Forecasts, Predicts, StepsThrough)


def lack(model: Any, method: str) -> str | None:
    """Why a model lacks the method `method`, for a person; None if it has it."""
    if method in _unable(model):
        return _unable(model)[method]
    known = [ability for ability in ABILITIES if method in methods(ability)]
    return None if not known or isinstance(model, known[0]) else "choose another model"


def methods(ability: type) -> list[str]:
    """The names of the members of an ability."""
    return [name for name in vars(ability) if not name.startswith("_")]


def able(model: Any, ability: type[A]) -> TypeGuard[A]:
    """Whether a model with these settings has an ability."""
    return isinstance(model, ability) and not _unable(model).keys() & methods(ability)


def _unable(model: Any) -> Mapping[str, str]:
    """Methods that have no meaning with the settings of a model -> reason."""
    return getattr(model, "unable", {})


# ------------------------------------------------------------------------------------ settings that a model may lack


def unmonitored(model: Any) -> tuple[str, ...]:
    """The metrics of a game between players: no value of them is better than another."""
    return getattr(model, "unmonitored", ())


def is_conditional(model: Any) -> bool:
    """Whether a model gets the label of every example."""
    return _setting(model, "conditional", False)


def takes_masks(model: Any) -> bool:
    """Whether a model tells padding and missing values from zeros."""
    return _setting(model, "takes_masks", False)


def takes_covariates(model: Any) -> bool:
    """Whether a model reads what is known in advance of steps and series."""
    return _setting(model, "takes_covariates", False)


def models_counts(model: Any) -> bool:
    """Whether the likelihood of a model is of counts as stored, and of no other numbers."""
    return getattr(getattr(model, "observation", None), "of_counts", False)


def latent_dim_of(model: Any) -> int | None:
    """L, the size of the codes, or None."""
    return _setting(model, "latent_dim", None)


def codes_of_steps(model: Any) -> int | None:
    """T, if the model has a code at every time step, [B, T, L]; None if it has one code, [B, L]."""
    return _setting(model, "feature_shape", ())[0] if _setting(model, "stepwise", False) else None


def uses_of(model: Any) -> int:
    """How often one example uses a parameter of a model."""
    return _setting(model, "uses", 1)


def _setting(model: Any, name: str, default: Any) -> Any:
    """A setting of the networks of a model, or of a model without such a part."""
    return getattr(getattr(model, "networks", model), name, default)
