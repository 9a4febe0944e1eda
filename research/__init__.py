"""Experiment sweeps over autoencoders and recurrent networks: one sweep, a few compiled programs."""

import types
from typing import TYPE_CHECKING, Any

from research import environment, sweep

if TYPE_CHECKING:
    from research.api.encoder import Encoder
    from research.api.sweeps import Sweep
    from research.api.training import sweep, train
    from research.runs.load import load

__all__ = ["Encoder", "Sweep", "load", "sweep", "train"]

environment.fix()

_PLACES = {"load": "runs.load", "train": "api.training", "Sweep": "api.sweeps", "Encoder": "api.encoder"}


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is asked for: it needs JAX, which takes half a second."""
    if name not in _PLACES:
        raise AttributeError(f"module 'research' has no attribute {name!r}")
    import importlib

    environment.check()
    return getattr(importlib.import_module(f"research.{_PLACES[name]}"), name)


class _CallablePackage(types.ModuleType):
    """The package `research.sweep`, which a user calls: `research.sweep(x, ...)` is `research.api.training.sweep`."""

    def __call__(
        self, x: Any = None, *overrides: str, y: Any = None, lengths: Any = None, name: str | None = None
    ) -> "Sweep":
        """Train a sweep; see `research.api.training.sweep`."""
        from research.api.training import sweep

        return sweep(x, *overrides, y=y, lengths=lengths, name=name)


if isinstance(sweep, types.ModuleType):
    sweep.__class__ = _CallablePackage
