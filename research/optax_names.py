"""The optimizers of optax that a config can name, and the ranges of their numbers."""

import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import optax

from research.coercion import coerce
from research.errors import ConfigError, nearest, nearest_key
from research.ranges import INT32, Count, Finite, NonNegative, Positive, Range, ShareBelow1

NEEDS_MORE = {  # optimizers that need more than gradients and a schedule
    "lbfgs": "it needs a line search over the loss",
    "polyak_sgd": "it needs the value of the loss",
    "optimistic_adam": "{key}=optimistic_adam_v2 is its newer form",
    "noisy_sgd": "it needs a random key of its own",
    "rprop": "it takes no schedule of the rate",
    "sm3": "it takes no schedule of the rate",
}

# Type and range of the numbers of optax's optimizers by name, and of a player's `period`.
NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("learning_rate", "min_norm", "trust_coefficient", "decay_rate"), Positive),
    **dict.fromkeys(("b1", "b2", "b3", "decay", "momentum", "rho", "signum.beta"), ShareBelow1),
    **dict.fromkeys(("eps", "eps_root", "weight_decay", "weight_decay_rate"), NonNegative),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale", "threshold", "alpha", "beta"), NonNegative),
    "clipping_threshold": Annotated[float, Range(1)],
    "decay_offset": Annotated[int, Range(0, INT32)],
    "min_dim_size_to_factor": Count,
    "period": Annotated[float, Range(1, 1e9)],
}


@functools.cache
def known_optimizers() -> list[str]:
    """Names of the functions of optax that take a learning rate and return a transformation of gradients."""
    names = []
    for name, value in vars(optax).items():
        function = inspect.isfunction(value) or isinstance(value, functools.partial)  # nadam is a partial of adam
        if not function or name in NEEDS_MORE or name.startswith(("scale_by_", "_", "inject")):
            continue
        if "learning_rate" in inspect.signature(value).parameters:
            names.append(name)
    return sorted(names)


def numbers_and_options(
    name: Any, config: Mapping[str, Any], reserved: tuple[str, ...]
) -> tuple[dict[str, float], tuple[tuple[str, Any], ...]]:
    """The numbers (floats) and the options (flags and integers) that a config gives the optax optimizer `name`.

    Args:
      name: of a function of optax.
      config: a section of keys.
      reserved: keys of the section that are not arguments of the function.

    Raises:
      ConfigError: optax has no such optimizer or the optimizer no such argument, a value has the wrong type or range,
        or a value is missing.
    """
    if name in NEEDS_MORE:
        raise ConfigError("name", name, f"not supported, {NEEDS_MORE[str(name)]}; use one that needs gradients only")
    names = known_optimizers()
    if name not in names:
        remedy = f"optax has no such optimizer{nearest(str(name), names)}; known: {', '.join(names)}"
        raise ConfigError("name", name, remedy)
    parameters = inspect.signature(getattr(optax, name)).parameters
    numbers: dict[str, float] = {}
    options: list[tuple[str, Any]] = []
    for key in sorted(set(config) - set(reserved)):
        if key not in parameters:
            known = [*reserved, *parameters]
            remedy = f"optax.{name} has no such number{nearest_key(key, known, config)}; known: {', '.join(known)}"
            raise ConfigError(key, config[key], remedy)
        if config[key] is None:  # optax's own default
            continue
        kind = _kind(name, key)
        if kind is None:
            raise ConfigError(key, config[key], f"a config cannot set it: it is no number of optax.{name}")
        value = coerce(config[key], kind, key)
        if isinstance(value, float):
            numbers[key] = value
        else:
            options.append((key, value))
    if "learning_rate" not in numbers:
        raise ConfigError("learning_rate", config.get("learning_rate"), "must be set to a number")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in config:
            raise ConfigError(key, None, f"optax.{name} needs it; add +{{key}}=NUMBER")
    return numbers, tuple(options)


def _kind(name: str, key: str) -> Any:
    """Type and range of an argument of the optax optimizer; None if no config can set it (a mask, a data type)."""
    known = NUMBERS.get(f"{name}.{key}", NUMBERS.get(key))
    if known is not None:
        return known
    default = inspect.signature(getattr(optax, name)).parameters[key].default
    return Finite if default is inspect.Parameter.empty else {bool: bool, int: int, float: Finite}.get(type(default))
