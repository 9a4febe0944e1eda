"""Shipped data configs for tests: plain keys, with those that a config starts from."""

import functools
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "conf" / "data"


def shipped(name: str) -> dict[str, Any]:
    """The keys of `conf/data/<name>.yaml`."""
    return dict(_shipped(name))


@functools.cache
def _shipped(name: str) -> dict[str, Any]:
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    *bases, last = config.pop("defaults", ["_self_"])
    assert last == "_self_", "a config overrides what it starts from"
    for base in reversed(bases):
        config = shipped(base) | config
    return config
