"""Values and counts in words, as every part of a report writes them."""

import json
from typing import Any

from research.report.collect import Hole


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """A value of a config key."""
    if isinstance(value, Hole):
        return value.value
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
