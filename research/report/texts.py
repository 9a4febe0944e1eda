"""Values, counts and lists in words, as all parts of a report write them."""

import json
from collections.abc import Sequence
from typing import Any

from research.report.collect import Hole


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def shortened(parts: Sequence[str], most: int, noun: str = "") -> list[str]:
    """The first `most` parts, and how many more there are: `3 more reasons`."""
    if len(parts) <= most:
        return list(parts)
    return [*parts[:most], f"{len(parts) - most} more{f' {noun}' if noun else ''}"]


def shown(value: Any) -> str:
    """A value of a config key."""
    if isinstance(value, Hole):
        return value.value
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
