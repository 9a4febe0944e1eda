"""Activations and initialisers by name. Names are hashable structure; functions would compare unequal."""

from collections.abc import Callable

import jax

from research.errors import ConfigError, nearest

ACTIVATIONS = (
    *("celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid"),
    *("mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "sparse_plus", "squareplus"),
    *("swish", "tanh"),
)
INITIALIZERS = (
    *("glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform"),
    *("lecun_normal", "lecun_uniform", "orthogonal", "xavier_normal", "xavier_uniform"),
)


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of `jax.nn` that has this name, or the identity for `linear`."""
    return (lambda x: x) if name == "linear" else getattr(jax.nn, name)


def check_activation(key: str, name: str) -> None:
    """Refuse a name that is no activation."""
    check_name(key, name, (*ACTIVATIONS, "linear"))


def check_name(key: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not in the list, and say which name is nearest."""
    if name not in known:
        raise ConfigError(key, name, f"unknown{nearest(name, known)}; known: {', '.join(known)}")
