"""Plain values of a config as the types of fields: integers become floats, lists become tuples, all else is refused."""

import functools
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from research.errors import ConfigError, nearest, shown
from research.ranges import Range, unfit
from research.target import buildable

UNIONS = (typing.Union, types.UnionType)
Section = Callable[..., Any]  # makes a spec of (section, class or None, key=...)


def coerce(value: Any, hint: Any, key: str, section: Section | None = None) -> Any:
    """A plain value as the type `hint`.

    Args:
      value: a number, a text, a list or a section of keys, as a YAML file has it.
      hint: the type of a field, with the ranges of its numbers.
      key: names the value in an error.
      section: makes a spec of a section of keys; types that hold no spec do without.

    Raises:
      ConfigError: the value has another type, or a number lies outside its range.
    """
    bare = without_none(hint)
    again = functools.partial(coerce, section=section)
    if value is None:
        if bare is not hint or hint is Any or hint is type(None):
            return None
        raise ConfigError(key, value, f"expected {type_name(hint)}; null is not allowed here")
    match typing.get_origin(bare):
        case typing.Union | types.UnionType:
            return _member(value, hint, key, again)
        case typing.Annotated:
            return _in_range(value, hint, key, again)
        case typing.Literal:
            choices = typing.get_args(bare)
            if not any(type(value) is type(choice) and value == choice for choice in choices):  # True == 1
                remedy = f"expected one of {', '.join(map(str, choices))}{nearest(value, map(str, choices))}"
                raise ConfigError(key, value, remedy)
            return value
        case origin if origin is tuple:
            return _tuple(value, bare, key, again)
        case origin if origin in (dict, Mapping):
            if not isinstance(value, Mapping):
                raise ConfigError(key, value, "expected a section of keys")
            member = typing.get_args(bare)[1]
            return {str(name): again(item, member, f"{key}.{name}") for name, item in value.items()}
    named = isinstance(value, Mapping) and "_target_" in value and typing.get_origin(bare) is None
    if isinstance(value, Mapping) and (buildable(bare) or (named and bare not in (float, int, bool, str))):
        assert section is not None, f"field {key} holds a spec"
        return section(value, bare if buildable(bare) else None, key=key)
    return _scalar(value, bare, key)


def _scalar(value: Any, hint: Any, key: str) -> Any:
    """A number, a flag, a text, a spec that is made already, or anything for `Any`."""
    if hint is float:
        number = _number(value, key)
        if problem := unfit(number):
            raise ConfigError(key, value, problem)
        return number
    if hint is Any:
        return tuple(value) if isinstance(value, list) else value
    if buildable(hint):
        if isinstance(value, hint):
            return value
        raise ConfigError(key, value, f"expected a section of keys for {hint.__name__}")
    expected = {
        int: "expected an integer",
        bool: "expected true or false",
        str: f"expected text; write it in quotes: '{{key}}=\"{value}\"'",
    }
    if hint not in expected:
        raise TypeError(f"field {key}: the builder does not know the type {hint}")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(key, value, expected[hint])
    return value


def _member(value: Any, hint: Any, key: str, again: Callable[..., Any]) -> Any:
    """A value of a union: as its first member that takes the value."""
    for member in typing.get_args(without_none(hint)):
        try:
            return again(value, member, key)
        except ConfigError:
            if typing.get_origin(member) is Annotated and type(value) is member.__origin__:
                raise  # the number lies outside its range, and no other member takes numbers
    raise ConfigError(key, value, f"expected {type_name(hint)}")


def _in_range(value: Any, hint: Any, key: str, again: Callable[..., Any]) -> Any:
    """A number within the ranges of its type."""
    annotated = without_none(hint)
    bare, *marks = typing.get_args(annotated)
    ranges = [mark for mark in marks if isinstance(mark, Range)]
    number = _number(value, key) if bare is float and ranges else again(value, bare, key)
    for limits in ranges:
        if problem := limits.problem(number):
            raise ConfigError(key, value, problem + (" (or null)" if annotated is not hint else ""))
    return number


def _tuple(value: Any, hint: Any, key: str, again: Callable[..., Any]) -> tuple[Any, ...]:
    """A list as a tuple, of any length or of the length that its type names."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise ConfigError(key, value, f"expected a list, for example '{{key}}=[{shown(value)}]'")
    members = typing.get_args(hint)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise ConfigError(key, value, f"expected a list of {len(members)}")
    pairs = enumerate(zip(value, members, strict=True))
    return tuple(again(item, member, f"{key}[{index}]") for index, (item, member) in pairs)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(key, value, "expected a number")
    try:
        return float(value) + 0.0  # -0.0 becomes 0.0, so that both have one hash
    except OverflowError:
        return math.inf


def without_none(hint: Any) -> Any:
    """`X | None` -> `X`, `X | Y | None` -> `X | Y`; anything else stays as it is."""
    members = typing.get_args(hint)
    if typing.get_origin(hint) in UNIONS and type(None) in members:
        return typing.Union[tuple(member for member in members if member is not type(None))]  # noqa: UP007
    return hint


def without_range(hint: Any) -> Any:
    """A type without the ranges of its numbers: `tuple[Positive, ...]` -> `tuple[float, ...]`."""
    if typing.get_origin(hint) is Annotated:
        return without_range(hint.__origin__)
    members = tuple(without_range(member) for member in typing.get_args(hint))
    if not members or members == typing.get_args(hint):
        return hint
    if isinstance(hint, types.UnionType):
        return functools.reduce(operator.or_, members)
    origin: Any = typing.get_origin(hint)
    return origin[members] if isinstance(hint, types.GenericAlias) else hint.copy_with(members)


def type_name(hint: Any) -> str:
    """What a person calls a type."""
    if typing.get_origin(hint) is Annotated:
        return type_name(hint.__origin__)
    if typing.get_origin(hint) in UNIONS:
        return " or ".join("null" if member is type(None) else type_name(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    names = {float: "a number", int: "an integer", bool: "true or false", str: "text"}
    return names.get(hint) or getattr(hint, "__name__", None) or str(hint).replace("typing.", "")
