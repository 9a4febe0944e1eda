"""Shipped configs as plain values, for tests that list them while they are collected."""

import copy
import functools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

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
