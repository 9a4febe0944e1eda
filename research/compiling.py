"""How programs are compiled: with `jax.jit`, and on a CPU at a lower level of optimisation."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax

FLAG = "xla_backend_optimization_level"
CPU_LEVEL = 1


@functools.cache
def options() -> dict[str, Any]:
    """Compiler options of every program; empty on an accelerator, and where XLA_FLAGS sets the level.

    On two CPU cores (jax 0.10.2), level 1 takes .76 to .88 times the compile time of level 3, the default of XLA. The
    programs are as fast: dense VAEs .97 and 1.1 times, an LSTM, a GRU and an RNN autoencoder 1, 1.03 and 1.06 times.
    """
    if jax.default_backend() != "cpu" or FLAG in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {FLAG: CPU_LEVEL}


class Program:
    """A function that `jax.jit` compiles with `options`. They depend on the device, so they are read at the first call.

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
        return self.jitted(*arguments, **named)


def compiled(**settings: Any) -> Callable[[Callable[..., Any]], Program]:
    """`functools.partial(jax.jit, **settings)` as a decorator, with the compiler options of this project."""
    return lambda function: Program(function, **settings)
