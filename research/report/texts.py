"""How a report writes values, counts, lists and numbers, and what its kinds of documents do differently."""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from research.metrics import metric as known
from research.report.collect import Hole
from research.report.statistics import EQUAL, IntervalKind

MOST_DECIMALS = 9  # of a number that is not smaller than SMALL
SMALL = 1e-4


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def shortened(parts: Sequence[str], most: int, noun: str = "") -> list[str]:
    """The first `most` parts, and how many more there are: `3 more reasons`."""
    return list(parts) if len(parts) <= most else [*parts[:most], f"{len(parts) - most} more {noun}".rstrip()]


# ------------------------------------------------------------------------------------ names for a paper (report.names)

# of the document that is being written
_names: ContextVar[Mapping[str, str]] = ContextVar("_names", default=MappingProxyType({}))


@contextlib.contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Write keys, metrics and values by these names inside a `with` block."""
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def given_name(name: str) -> str | None:
    """The name that the report gives to a key, a metric or a value; None if it gives none."""
    return _names.get().get(name)


def named(name: str) -> str:
    """A key or metric as the report writes it."""
    return _names.get().get(name, name)


def named_metric(metric: str) -> str:
    """A metric as a heading: a name that the report gives gets its unit, `NLL (nats)`."""
    name, unit = given_name(metric), known(metric).unit
    if name is None:
        return metric
    return f"{name} ({unit})" if unit and unit not in name else name


def renamed(text: str) -> str:
    """A sentence in which the keys and metrics that have a name (`model.beta`, `test/loss`) are written by it."""
    for name, new in _names.get().items():
        if "." in name or "/" in name:
            text = re.sub(rf"(?<![\w./]){re.escape(name)}(?![\w/=]|\.\w)", lambda _, new=new: new, text)
    return text


def shown(value: Any) -> str:
    """A value of a config key."""
    if isinstance(value, Hole):
        return value.value
    if isinstance(value, str):
        return named(value)
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value)


def settings(keys: Sequence[str], values: Sequence[Any]) -> str:
    """`key=value, key=value`."""
    return ", ".join(f"{named(key)}={shown(value)}" for key, value in zip(keys, values, strict=True))


# ------------------------------------------------------------------------------------------------------------- numbers


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a cell shows.

    Attributes:
      digits: decimals; None for two significant digits of the standard deviation.
      parts: what stands beside the mean, of `cli.PARTS`.
      interval: kind of the 95 % interval.
    """

    digits: int | None = None
    parts: tuple[str, ...] = ("sd",)
    interval: IntervalKind = "t"


PLAIN = Layout()


@dataclasses.dataclass(frozen=True)
class Style:
    """How one kind of document writes what all kinds have in common.

    Attributes:
      escape: any text.
      name: the name of a key or metric.
      best, second: a bold and an underlined cell.
      mark: a mark of a note.
      power: a number that is too large or small to write out, from its digits and its exponent.
      better: direction of a metric -> what follows its name.
    """

    escape: Callable[[str], str]
    name: Callable[[str], str]
    best: Callable[[str], str]
    second: Callable[[str], str]
    mark: Callable[[str], str]
    power: Callable[[str, int], str]
    plus_minus: str
    dash: str
    better: dict[str, str]


def decimals(mean: float, sd: float | None) -> int:
    """Decimals that show two significant digits of `sd`, or four of `mean` if there is no sd."""
    size, digits = (sd, 2) if sd and sd > EQUAL * abs(mean) else (mean, 4)  # a smaller sd is rounding
    if not size or not math.isfinite(size):
        return 3
    exponent = int(f"{abs(size):.{digits - 1}e}".partition("e")[2])  # of the rounded number: .0996 has that of .10
    places = max(0, digits - 1 - exponent)
    return min(places, MOST_DECIMALS) if abs(mean) >= SMALL else places


def number(value: float, places: int, style: Style) -> str:
    """A number with a number of decimals, or as a power of ten where those would not show it."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e7 or (places > MOST_DECIMALS and abs(value) < SMALL):
        digits, _, exponent = f"{value:.2e}".partition("e")
        return style.power(digits, int(exponent))
    return f"{round(value, places) + 0.0:.{places}f}"  # adding 0.0 turns -0.0 into 0.0
