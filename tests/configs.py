"""Shipped configs as plain values, for tests that list them while they are collected."""

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from research.tree import build, keys

CONF = Path(__file__).parents[1] / "conf"


def shipped(group: str, name: str) -> dict[str, Any]:
    """The plain config `conf/<group>/<name>.yaml`, merged by its defaults list as Hydra does it."""
    return copy.deepcopy(_shipped(group, name))


@functools.cache
def _shipped(group: str, name: str) -> dict[str, Any]:
    own: Any = OmegaConf.load(CONF / group / f"{name}.yaml")
    config = OmegaConf.create()
    for base in own.pop("defaults", ["_self_"]):
        file, _, section = base.partition("@")
        part: Any = own if base == "_self_" else shipped(group, str(Path(name).parent / file))
        config = OmegaConf.merge(config, {section: part} if section not in ("", "_here_") else part)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def names(group: str) -> list[str]:
    """The choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def budget(steps_per_epoch: int = 1, **keys: Any) -> Any:
    """The budget of the shipped trainer with some keys replaced."""
    # not before conftest.py has asked for its arrays to be checked
    from research.engine import Trainer
    from research.inputs import Budget

    return Budget.of(build(shipped("trainer", "default") | keys, Trainer, key="trainer"), steps_per_epoch)


def products(trace: Any) -> list[bool]:
    """Of every product of matrices in a trace, and in the traces within: whether both inputs are rounded first."""
    from jax.extend.core import ClosedJaxpr, Jaxpr

    found, makers = [], {}
    for equation in getattr(trace, "jaxpr", trace).eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append({makers.get(atom) for atom in equation.invars} == {"reduce_precision"})
        makers |= dict.fromkeys(equation.outvars, equation.primitive.name)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                found += products(inner) if isinstance(inner, ClosedJaxpr | Jaxpr) else []
    return found


def value_at(owner: Any, key: str) -> Any:
    """The value of a config key of a spec."""
    return functools.reduce(getattr, keys(type(owner))[key].path, owner)


def replaced(owner: Any, **values: Any) -> Any:
    """The same spec with other values at some config keys, which may lie in its parts."""
    for name, value in values.items():
        owner = _put(owner, keys(type(owner))[name].path, value)
    return owner


def _put(owner: Any, path: tuple[str, ...], value: Any) -> Any:
    first, *deeper = path
    value = _put(getattr(owner, first), tuple(deeper), value) if deeper else value
    return dataclasses.replace(owner, **{first: value})
