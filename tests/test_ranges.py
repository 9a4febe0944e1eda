"""Every number of every shipped config has a range, and is held to it before any training."""

import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import optax
import pytest
from configs import names, shipped
from omegaconf import OmegaConf

import research
from research.compose import CONF
from research.config import Settings
from research.optax_names import NUMBERS, known_optimizers
from research.optimizer import OWN_KEYS, Optimizer, Players
from research.ranges import LARGEST, SMALLEST, Range, unfit
from research.report.spec import Published, Report
from research.sweep.options import Executor, Options
from research.tree import ConfigError, build, keys, parts, plain, resolve_target

BAD: list[Any] = [
    -1,
    -0.0,
    -1e-46,
    1e-46,
    0.999999999999,
    1.000000000001,
    1.5,
    1e39,
    -1e39,
    math.nan,
    math.inf,
    -math.inf,
    10**12,
    -(10**12),
    10**400,
    True,
    False,
    "1e3",
    "",
    {"a": 1},
]
GROUPS = {path.parent.name for path in CONF.glob("*/*.yaml")} - {"experiment"}
SHIPPED = [(group, name) for group in sorted(GROUPS) for name in names(group)]
REQUIRED = {"path": "mine.csv", "problem": "BasicMotions"}


def specs() -> list[type]:
    """All specs and recipes of the project, but those of other packages."""
    found = {}
    for module in pkgutil.walk_packages(research.__path__, "research."):
        for value in vars(importlib.import_module(module.name)).values():
            abstract = (
                isinstance(value, type)
                and "__tree__" in vars(value)
                and any("__tree__" not in vars(part) for part in parts(value).values())
            )  # a part that a Protocol declares; the classes below name its spec
            if isinstance(value, type) and "__tree__" in vars(value) and not abstract:
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[name] for name in sorted(found)]


def numbers_in(hint: Any) -> Iterator[tuple[Any, Range | None]]:
    """The types of numbers within a type, each with its range."""
    if typing.get_origin(hint) is Annotated:
        bare, *marks = typing.get_args(hint)
        if bare in (int, float):
            yield bare, next((mark for mark in marks if isinstance(mark, Range)), None)
    elif hint in (int, float):
        yield hint, None
    elif typing.get_origin(hint) is not typing.Literal:
        for member in typing.get_args(hint):
            yield from numbers_in(member)


@pytest.mark.parametrize("cls", specs(), ids=lambda cls: cls.__qualname__)
def test_every_number_of_a_spec_has_a_range(cls: type):
    without = [name for name, key in keys(cls).items() if any(mark is None for _, mark in numbers_in(key.hint))]
    if cls in (Optimizer, Players):  # dictionaries of numbers, whose ranges are in NUMBERS
        without = [name for name in without if name not in ("numbers", "periods")]
    assert without == []


def test_every_number_of_an_optimizer_has_a_range():
    without = {
        key
        for name in known_optimizers()
        for key, parameter in inspect.signature(getattr(optax, name)).parameters.items()
        if key not in NUMBERS and type(parameter.default) in (int, float)
    }
    assert without == set()


# ------------------------------------------------------------------------------------------- bad values of shipped keys


def places(config: dict[str, Any], cls: type) -> Iterator[tuple[tuple[Any, ...], Any, Range]]:
    """Where a section of this class has numbers: steps to each, its type, its range."""
    if cls is Players:
        for name, section in config.items():
            yield (name, "period"), float, NUMBERS["period"].__metadata__[0]
            for steps, kind, held in places({key: v for key, v in section.items() if key != "period"}, Optimizer):
                yield (name, *steps), kind, held
        return
    hints = {name: key.hint for name, key in keys(cls).items()}
    if cls is Optimizer:
        parameters = inspect.signature(getattr(optax, config["name"])).parameters
        numbers = {key: hint for key, hint in NUMBERS.items() if key in parameters}
        hints = {key: hint for key, hint in hints.items() if key in OWN_KEYS} | numbers
    for name, hint in hints.items():
        for kind, held in numbers_in(hint):
            assert held is not None, f"{cls.__name__}.{name} has no range"
            listed = any("tuple" in str(part) for part in (hint, *typing.get_args(hint)))
            mapped = any(typing.get_origin(part) is dict for part in (hint, *typing.get_args(hint)))
            yield (name, 0) if listed else (name, "test/mse") if mapped else (name,), kind, held


def takes_text(cls: type, name: Any) -> bool:
    """Whether a field takes text as well as numbers."""
    return "str" in str(keys(cls).get(name, ""))


def with_value(config: Any, steps: tuple[Any, ...], value: Any) -> Any:
    """The config with another value at a place; a list that is null or empty becomes one of this value."""
    if not steps:
        return value
    first, *rest = steps
    if isinstance(first, int):
        items = list(config or [value])
        return [with_value(items[first], tuple(rest), value), *items[1:]]
    return {**(config or {}), first: with_value((config or {}).get(first), tuple(rest), value)}


def at(config: Any, steps: tuple[Any, ...]) -> Any:
    """The value at a place."""
    for step in steps:
        config = config[step]
    return config


def fits(value: Any, kind: Any, held: Range) -> bool:
    """Whether a value is a number of this kind inside the range, also as one of 32 bits."""
    if isinstance(value, bool) or not isinstance(value, int | kind) or value not in held:
        return False
    if kind is int or held.bits > 32:
        return kind is int or unfit(float(value), held.bits) is None
    return unfit(float(value)) is None and float(np.float32(value)) in held


def attempt(config: dict[str, Any], cls: type, key: str) -> tuple[Any, ConfigError | None]:
    """What the builder makes of a section, or why it refuses it."""
    try:
        return build(config, cls, key=key), None
    except ConfigError as error:
        return None, error


def check(config: dict[str, Any], cls: type, prefix: str) -> int:
    """Give every number of a section every bad value: it is refused in one line, or lies in its range."""
    tried = 0
    for steps, kind, held in places({key: v for key, v in config.items() if key != "_target_"}, cls):
        spelled = ".".join(step for step in steps if isinstance(step, str)) + ("[0]" if 0 in steps else "")
        text = takes_text(cls, steps[0])
        for bad in BAD:
            if isinstance(bad, str) and text:
                continue
            tried += 1
            made, error = attempt(with_value(config, steps, bad), cls, prefix)
            if error is not None:
                own = error.key.removeprefix(f"{prefix}.") in (spelled, spelled.removesuffix("[0]"))
                assert own or fits(bad, kind, held), (spelled, bad, error)  # another key may not go with a good number
                assert "\n" not in str(error)
                assert str(error).startswith(f"{error.key}="), (spelled, bad)
                assert error.remedy
                continue
            value = at({name: key.added for name, key in keys(cls).items()} | plain(made), steps)
            assert type(value) is kind, (spelled, bad)
            assert fits(value, kind, held), (spelled, bad)
            assert str(value) != "-0.0", "its hash is not that of 0.0"
    return tried


@pytest.mark.parametrize(("group", "name"), SHIPPED)
def test_bad_numbers_of_a_shipped_config_are_refused(group: str, name: str):
    config = shipped(group, name)
    config |= {key: value for key, value in REQUIRED.items() if config.get(key) == "???"}
    assert check(config, resolve_target(config["_target_"]), group) > 0


def test_bad_numbers_of_other_sections_are_refused():
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"), resolve=False)
    named = {key: config[key] for key in ("name", "output_root", "seed", "objective", "trusted_packages")}
    value = {"label": "A", "metric": "test/mse", "where": {}, "value": 1.0, "error": 0.1, "source": "a paper"}
    executor = {"executor": "inline", "workers": 2, "address": None, "parameters": {}}
    assert check(named | {"name": "sweep"}, Settings, "settings") > 0
    assert check(config["sweep"], Options, "sweep") > 0
    assert check(config["report"], Report, "report") > 0
    assert check({**value, "tolerance": 0.1}, Published, "report.published[0]") > 0
    assert check(executor, Executor, "hydra.launcher") > 0


# --------------------------------------------------------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("held", "inside", "outside", "words"),
    [
        (Range(0), [0, 1e30], [-1, -SMALLEST], "must not be negative"),
        (Range(0, above=True), [SMALLEST, 5], [0, -1], "must be positive"),
        (Range(1, 2**31 - 1), [1, 2**31 - 1], [0, -5], "must be at least 1"),
        (Range(1, 2**31 - 1), [], [2**31], "must be at most 2147483647"),
        (Range(2, 10), [2, 10], [1, 11], "must lie in 2 ... 10"),
        (Range(0.0, 1.0), [0.0, 1.0], [-0.1, 1.1], "must lie in [0, 1]"),
        (Range(0.0, 1.0, below=True), [0.0, 0.5], [1.0], "must lie in [0, 1)"),
        (Range(0.0, 1.0, below=True), [], [1 - 1e-12], "is 1.0 in 32 bits; must lie in [0, 1)"),
        (Range(), [-LARGEST, LARGEST], [], ""),
        (Range(bits=64), [-1.7e308, 1e-300], [], ""),
        (Range(bits=64), [], [math.inf], "expected a finite number"),
    ],
)
def test_a_range_says_where_numbers_lie(held: Range, inside: list[float], outside: list[float], words: str):
    assert [held.problem(number) for number in inside] == [None] * len(inside)
    assert [held.problem(number) for number in outside] == [words] * len(outside)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e39, 1e-46, -1e-39])
def test_numbers_that_a_program_cannot_hold_are_told(number: float):
    assert unfit(number)
    assert all(unfit(fit) is None for fit in (0.0, LARGEST, -LARGEST, SMALLEST, 0.1))


def test_ranges_are_no_part_of_the_leaves():
    from research.models.vae import VAE
    from research.tree import hints

    assert hints(VAE)["beta"] is float
    assert hints(VAE)["free_bits"] == float | None
    assert set(keys(VAE)) == set(hints(VAE)) >= {"beta", "latent_dim", "prior", "penalty", "likelihood"}
