"""Composing the config as Hydra does, before Hydra starts, and refusals in one line with the nearest key or choice."""

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from research.command import REFUSED, known, one_line
from research.tree import flatten, nearest

CONF = Path(__file__).parents[1] / "conf"


# what Hydra raises of an override without a key, of a file that is no section, of defaults that name themselves
UNCOMPOSABLE = (ValueError, OSError, RecursionError)


@contextlib.contextmanager
def refusals(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turn what `known` names, or an override that Hydra refuses, into one line on stderr and exit code 2."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        refuse(explain(error, overrides))
    except Exception as error:
        if (message := known(error)) is None:
            raise
        refuse(message)


def refuse(message: str) -> NoReturn:
    """Say why nothing was done, in one line, and leave."""
    sys.stderr.write(f"error: {one_line(message)}\n")
    raise SystemExit(REFUSED)


def parse(overrides: Sequence[str]) -> list[Any]:
    """Parsed overrides; the first one that cannot be parsed is refused by name."""
    parser, parsed = OverridesParser.create(), []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except HydraException as error:
            refuse(f"{override}: no override; write key=value ({str(error).splitlines()[0]})")
    return parsed


def first_choices(overrides: Sequence[str]) -> list[str]:
    """The overrides of the first point of a sweep."""
    chosen = []
    for override in parse(overrides):
        if isinstance(override.value(), Glob):
            continue  # some choice of the group: its default will do
        if override.is_discrete_sweep():
            first = next(iter(override.sweep_string_iterator()), None)
            if first is None:
                refuse(f"{override.input_line}: there is no value in it, so there would be no run")
            chosen.append(f"{override.get_key_element()}={first}")
        elif not override.is_sweep_override():
            chosen.append(override.input_line or "")
    return chosen


def compose(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The config of one run as Hydra composes it, with its `hydra` node; or a refusal with the nearest key."""
    for override in parse(overrides):
        if override.is_sweep_override():
            refuse(f"{override.input_line}: several values make a sweep; add -m, or quote a list: key=[1,2]")
    extra = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"]
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
            config = hydra.compose("train", overrides=[*overrides, *extra], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        refuse(explain(error, overrides))
    except UNCOMPOSABLE as error:
        refuse(f"{' '.join(overrides)}: no override of this configuration ({error})")
    finally:
        GlobalHydra.instance().hydra = running
    HydraConfig.instance().set_config(config)
    return config


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint about an override in one line, with the nearest key or option."""
    text = str(error).strip()
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        given = next((o for o in overrides if o.partition("=")[0].lstrip("+~") == key), key)
        near = nearest(key, known_keys(overrides, key))
        return f"{given}: no such key{near}; all keys: python scripts/train.py --cfg job"
    option = re.search(r"Could not find '([^/']+(?:/[^/']+)*)/([^']+)'", text)
    if option:
        group, name = option.groups()
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"{group}={name}: no such choice{nearest(name, options)}; known: {', '.join(options)}"
    if "does not support sweep type" in text:
        given = next((o for o in overrides if "interval(" in o), "")
        return f"{given}: this sweeper takes lists and ranges; for intervals add hydra/sweeper=optuna"
    cause = error.__cause__
    return text + (f" ({str(cause).strip().splitlines()[0]})" if cause and str(cause).strip() else "")


def known_keys(overrides: Sequence[str], wrong: str) -> list[str]:
    """Dotted keys of the config without the value overrides (the group choices are kept)."""
    groups = [
        o for o in overrides if "." not in o.partition("=")[0] and (CONF / o.partition("=")[0].lstrip("+")).is_dir()
    ]
    try:
        config = compose(first_choices([o for o in groups if o.partition("=")[0] != wrong]))
    except SystemExit:
        return []
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree.pop("hydra")
    return [key for key in [*flatten(tree), *tree] if not key.endswith("_target_")]
