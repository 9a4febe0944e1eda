"""How programs are compiled: with `jax.jit`, and with options that pay on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

from research import environment

LEVEL, WIDTH = "xla_backend_optimization_level", "xla_cpu_prefer_vector_width"


@functools.cache
def options(backend: str | None = None) -> dict[str, Any]:
    """Compiler options of every program; empty on an accelerator, and where XLA_FLAGS sets one of them.

    `backend` is "cpu", ...; None is the present one.

    Measured on two CPU cores with AVX-512 (jax 0.10.2), interleaved. Level 1 takes .76 to .88 times the compile time
    of level 3, the default of XLA, and its programs are as fast: .97 to 1.1 times, over two dense VAEs, an LSTM, a GRU
    and an RNN autoencoder. Vectors of 512 bits instead of 256 make an LSTM 1.10 times as fast, and others 1.01 to 1.08
    times; a CPU without them takes what it has.
    """
    flags = environment.flags().get("XLA_FLAGS", "")
    if (backend or jax.default_backend()) != "cpu" or LEVEL in flags or WIDTH in flags:
        return {}
    return {LEVEL: 1, WIDTH: 512}


class Program:
    """A function that `jax.jit` compiles with `options`. They depend on the device, so they are read at the first call.

    Inside another program it is a part of that program, which has options of its own.

    Args:
      function: what is compiled.
      settings: of `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any], **settings: Any):
        self._function, self._settings = function, settings
        functools.update_wrapper(self, function)

    @functools.cached_property
    def jitted(self) -> Any:
        """The function of `jax.jit`."""
        return jax.jit(self._function, compiler_options=options() or None, **self._settings)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((arguments, named)))
        return (self._function if traced else self.jitted)(*arguments, **named)


def compiled(**settings: Any) -> Callable[[Callable[..., Any]], Program]:
    """`functools.partial(jax.jit, **settings)` as a decorator, with the compiler options of this project."""
    return lambda function: Program(function, **settings)
