"""Experiment sweeps over autoencoders and recurrent networks: one sweep, a few compiled programs."""

from typing import TYPE_CHECKING, Any

from research import environment

if TYPE_CHECKING:
    from research.runs.load import load

__all__ = ["load"]

environment.fix()


def __getattr__(name: str) -> Any:
    """`research.load`, imported when it is asked for: it needs JAX, which takes half a second."""
    if name == "load":
        environment.check()
        from research.runs.load import load

        return load
    raise AttributeError(f"module 'research' has no attribute {name!r}")
