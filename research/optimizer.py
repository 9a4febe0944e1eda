"""A recipe of numbers that becomes an optax optimizer inside the trace."""

import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from research.ranges import INT32, Count, Epochs, Finite, NonNegative, Positive, Range, Share, ShareBelow1
from research.tree import ConfigError, build, coerce, nearest, plain, spec

NEEDS_MORE = {
    "lbfgs": "it needs a line search over the loss",
    "polyak_sgd": "it needs the value of the loss",
    "optimistic_adam": "{key}=optimistic_adam_v2 is its newer form",
    "noisy_sgd": "it needs a random key of its own",
    "rprop": "it takes no schedule of the rate",
    "sm3": "it takes no schedule of the rate",
}
REST = "rest"  # the player of all parameters that no other player has
OWN_KEYS = ("name", "schedule", "final_factor", "warmup_epochs", "stages", "clip_norm", "clip_value")

NUMBERS: dict[str, Any] = {  # the numbers of optax's optimizers, and of a player, with their ranges
    **dict.fromkeys(("learning_rate", "min_norm", "trust_coefficient", "decay_rate"), Positive),
    **dict.fromkeys(("b1", "b2", "b3", "decay", "momentum", "rho", "signum.beta"), ShareBelow1),
    **dict.fromkeys(("eps", "eps_root", "weight_decay", "weight_decay_rate"), NonNegative),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale", "threshold", "alpha", "beta"), NonNegative),
    "clipping_threshold": Annotated[float, Range(1)],
    "decay_offset": Annotated[int, Range(0, INT32)],
    "min_dim_size_to_factor": Count,
    "period": Annotated[float, Range(1, 1e9)],
}


def number_of(name: str, key: str) -> Any:
    """Type and range of a number of the optax optimizer `name`; None if no config can set it (a mask, a data type)."""
    default = inspect.signature(getattr(optax, name)).parameters[key].default
    known = NUMBERS.get(f"{name}.{key}", NUMBERS.get(key))
    if known is not None:
        return known
    return Finite if default is inspect.Parameter.empty else {bool: bool, int: int, float: Finite}.get(type(default))


@functools.cache
def known_optimizers() -> list[str]:
    """Optimizers that optax exports: functions of a learning rate that return a gradient transformation."""
    names = []
    for name, value in vars(optax).items():
        callable_here = inspect.isfunction(value) or isinstance(value, functools.partial)  # nadam is a partial of adam
        if not callable_here or name in NEEDS_MORE or name.startswith(("scale_by_", "_", "inject")):
            continue
        if "learning_rate" in inspect.signature(value).parameters:
            names.append(name)
    return sorted(names)


@spec
class Optimizer:
    """An optax optimizer by name, a learning-rate schedule and gradient clipping.

    Any number of the optax function is a key of its own beside `learning_rate` and sweeps as a leaf; its flags are
    structure. rate(t) = learning_rate * warm-up(t) * schedule(t), with p in [0, 1] the share of the steps done after
    the warm-up and f = final_factor: constant 1; cosine f + (1 - f)(1 + cos(pi p)) / 2; linear 1 - (1 - f) p;
    exponential f^p; stages: `stages` stages of lengths 1, 3, 9, ..., the i-th (from 0) at
    round(10^(1 - i / (stages - 1)), 1) / 10 (Burda et al. 2016: rates 1e-3 to 1e-4 for learning_rate = 1e-3).

    Attributes:
      name: optax function that needs gradients only.
      numbers: its numbers, learning_rate among them.
      options: its flags and integers.
      schedule, final_factor, stages: above.
      warmup_epochs: length of a linear ramp of the rate, in epochs.
      clip_norm: largest global norm of the gradient; null: no clipping.
      clip_value: largest absolute value of a gradient's element; null: no clipping.
    """

    name: str
    numbers: dict[str, float]
    options: tuple[Any, ...]
    schedule: Literal["constant", "cosine", "linear", "exponential", "stages"]
    final_factor: Share
    warmup_epochs: Epochs
    stages: Annotated[int, Range(2, 20)]
    clip_norm: Positive | None
    clip_value: Positive | None

    @staticmethod
    def arrange(config: Mapping[str, Any]) -> dict[str, Any]:
        """Flat keys -> numbers and options, checked against the signature of the optax function."""
        own = {key: value for key, value in config.items() if key in OWN_KEYS}
        name = config.get("name")
        if name in NEEDS_MORE:
            raise ConfigError(
                "name", name, f"not supported, {NEEDS_MORE[str(name)]}; use one that needs gradients only"
            )
        names = known_optimizers()
        if name not in names:
            remedy = f"optax has no such optimizer{nearest(str(name), names)}; known: {', '.join(names)}"
            raise ConfigError("name", name, remedy)
        parameters = inspect.signature(getattr(optax, str(name))).parameters
        numbers: dict[str, float] = {}
        options: list[tuple[str, Any]] = []
        for key in sorted(set(config) - set(OWN_KEYS)):
            value = config[key]
            if key not in parameters:
                known = [*OWN_KEYS, *parameters]
                remedy = f"optax.{name} has no such number{nearest(key, known)}; known: {', '.join(known)}"
                raise ConfigError(key, value, remedy)
            if value is None:
                continue
            kind = number_of(str(name), key)
            if kind is None:
                raise ConfigError(key, value, f"a config cannot set it: it is no number of optax.{name}")
            made = coerce(value, kind, key)
            if isinstance(made, float):
                numbers[key] = made
            else:
                options.append((key, made))
        if "learning_rate" not in numbers:
            raise ConfigError("learning_rate", config.get("learning_rate"), "must be set to a number")
        for key, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and key not in config:
                raise ConfigError(key, None, f"optax.{name} needs it; add +{{key}}=NUMBER")
        return own | {"numbers": numbers, "options": tuple(options)}

    def rearrange(self) -> dict[str, Any]:
        """The flat keys again."""
        return {key: getattr(self, key) for key in OWN_KEYS} | self.numbers | dict(self.options)

    def validate(self) -> None:
        if self.schedule == "exponential" and self.final_factor == 0:
            raise ConfigError("final_factor", 0, "an exponential schedule needs a final factor above 0")

    def rate_shape(self, step: jax.Array, epochs: Any, steps_per_epoch: int) -> jax.Array:
        """The learning rate at a step in units of `learning_rate`; `epochs` is an integer, also a traced one."""
        total = epochs * steps_per_epoch
        step = jnp.asarray(step, jnp.float32)
        warmup = jnp.asarray(self.warmup_epochs, jnp.float32) * steps_per_epoch
        started = jnp.where(step >= warmup, 1.0, (step + 1) / jnp.where(warmup > 0, warmup + 1, 1.0))
        progress = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
        final = jnp.asarray(self.final_factor, jnp.float32)
        match self.schedule:
            case "cosine":
                decay = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
            case "linear":
                decay = 1 - (1 - final) * progress
            case "exponential":
                decay = jnp.exp(progress * jnp.log(final))
            case "stages":
                last = self.stages - 1
                ends = jnp.array([(3.0**i - 1) / (3.0**self.stages - 1) for i in range(1, self.stages)])
                factors = jnp.array([round(10 ** (1 - i / last), 1) / 10 for i in range(self.stages)])
                # counted rather than searched: a gather with a batched index is slow under vmap
                stage = (progress >= ends).sum()
                decay = (factors * (jnp.arange(self.stages) == stage)).sum()
            case _:
                decay = jnp.ones(())
        return started * decay

    def build(self, epochs: Any, steps_per_epoch: int, period: Any = 1.0) -> optax.GradientTransformation:
        """The optax transformation for this budget; call it inside the trace: `epochs` and the numbers may be traced.

        `period` is the number of training steps from one update to the next: schedules follow the training.
        """
        numbers = dict(self.numbers)
        rate = numbers.pop("learning_rate")

        def learning_rate(step: jax.Array) -> jax.Array:
            return rate * self.rate_shape(step * period, epochs, steps_per_epoch)

        make = getattr(optax, self.name)
        transformation = make(learning_rate=learning_rate, **numbers, **dict(self.options))
        clips = []
        if self.clip_value is not None:
            clips.append(optax.clip(self.clip_value))
        if self.clip_norm is not None:
            clips.append(optax.clip_by_global_norm(self.clip_norm))
        return optax.chain(*clips, transformation)


@spec
class Players:
    """An optimizer for each player: for each top-level key of the parameters (a GAN's `generator`, `discriminator`),
    and one called `rest` for all keys that no other player has.

    In a config every player is a section with the keys of `Optimizer` and one more:
      period: the player moves once in so many steps (on average, for no whole number); 1 is every step. It sweeps.

    Clipping and weight decay lie inside each player. All players move at once, from one gradient.
    """

    players: dict[str, Optimizer]
    periods: dict[str, float]

    @staticmethod
    def arrange(config: Mapping[str, Any]) -> dict[str, Any]:
        """Sections of players -> optimizers and periods."""
        players, periods = {}, {}
        for name, section in config.items():
            if not isinstance(section, Mapping):
                raise ConfigError(name, section, "expected a section of keys: one for each player")
            if "period" not in section:
                raise ConfigError(f"{name}.period", None, "this key must be set (1: the player moves at every step)")
            players[name] = {key: value for key, value in section.items() if key != "period"}
            periods[name] = coerce(section["period"], NUMBERS["period"], f"{name}.period")
            try:
                build(players[name], Optimizer)
            except ConfigError as error:
                raise error.under(name) from None
        return {"players": players, "periods": periods}

    def rearrange(self) -> dict[str, Any]:
        """The sections again."""
        return {name: {**plain(optimizer), "period": self.periods[name]} for name, optimizer in self.players.items()}

    def build(self, epochs: Any, steps_per_epoch: int) -> optax.GradientTransformation:
        """One transformation; parameters of no player are an error of the config."""

        def moves(period: Any) -> Any:
            return lambda step, **_: jnp.mod(step.astype(jnp.float32), period) < 1

        transformations: dict[Any, optax.GradientTransformation] = {
            name: optax.transforms.conditionally_mask(
                optimizer.build(epochs, steps_per_epoch, self.periods[name]), moves(self.periods[name])
            )
            for name, optimizer in self.players.items()
        }
        return optax.partition(transformations, self._labels)

    def unmatched(self, names: Any) -> list[str]:
        """Players that are no top-level key of the parameters and, without a `rest`, keys that no player has."""
        named = {*self.players} - {REST}
        return sorted(named - {*names}) or ([] if REST in self.players else sorted({*names} - named))

    def _labels(self, params: Mapping[str, Any]) -> dict[str, str]:
        if self.unmatched(params):
            remedy = f"the model's players are {', '.join(sorted(params))}"
            raise ConfigError("optimizer", ", ".join(sorted(self.players)), remedy)
        return {name: name if name in self.players else REST for name in params}
