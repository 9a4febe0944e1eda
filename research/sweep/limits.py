"""Jobs that do not fit into the memory here are refused before their data are read or a program is traced."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from research.tree import ConfigError, flatten, plain

DEEPEST = 1000  # the most layers: each of them is traced
NO_SIZES = ("model.levels",)  # integers of a model that are no sizes of arrays
DRAWN = ("rows", "length", "channels", "features")  # sizes of generated data: the array has their product as its size
CGROUP = Path("/sys/fs/cgroup/memory.max")
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def machine_memory() -> float | None:
    """Bytes of memory that all programs can have here at most; None if the system does not tell."""
    stats: Any = jax.devices()[0].memory_stats() or {}
    return float(stats["bytes_limit"]) if "bytes_limit" in stats else host_memory()


def host_memory() -> float | None:
    """Bytes of memory of this machine or of its container; None if the system does not tell."""
    limits = [memory for memory in [meminfo("MemTotal")] if memory is not None]
    with contextlib.suppress(OSError, ValueError):  # the file says "max" if there is no limit
        limits.append(float(CGROUP.read_text()))
    return min(limits, default=None)


def meminfo(name: str) -> float | None:
    """A line of `/proc/meminfo` in bytes; None if there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1]) * 1024
    return None


def check_numbers(model: Any, data: Any) -> None:
    """Refuse lists of layers that are too long and generated data that are too large.

    The range of a single number is checked when the spec is built (`research.ranges`).

    Raises:
      ConfigError: naming the key.
    """
    for key, value in flatten({"model": plain(model)}).items():
        if isinstance(value, list) and len(value) > DEEPEST:
            raise ConfigError(key, f"{len(value):,} entries", f"must be at most {DEEPEST:,}")
    sizes = {name: getattr(data, name) for name in DRAWN if isinstance(getattr(data, name, None), int)}
    needed, memory = 8 * math.prod(sizes.values()), host_memory()
    if "rows" in sizes and memory is not None and needed > memory:
        name = max(sizes, key=sizes.__getitem__)
        remedy = f"data of these sizes take {amount(needed)}; {_here(memory)}; choose a smaller size"
        raise ConfigError(f"data.{name}", sizes[name], remedy)


def check_memory(model: Any, parameters: int, needed: float, members: int = 1) -> None:
    """Refuse a program that is predicted to need more bytes than this machine has.

    Raises:
      ConfigError: naming the largest size of the model.
    """
    memory = machine_memory()
    if memory is None or needed <= memory:
        return
    sizes = [pair for pair in _integers(plain(model)) if pair[0] not in NO_SIZES]
    key, value = max(sizes, key=lambda pair: pair[1], default=("model", None))
    each = f"{parameters:,} parameters" + (f" in each of {members} members" if members > 1 else "")
    remedy = f"{each} take {amount(needed)} while they train; {_here(memory)}; choose a smaller model"
    raise ConfigError(key, value, remedy)


def amount(size: float) -> str:
    """Bytes as text, in the largest unit of which there is at least one."""
    for unit in UNITS:
        if size < 1000:
            return f"{size:,.3g} {unit}"
        size /= 1000
    return f"{size * 1000:,.0f} {UNITS[-1]}"


def _here(memory: float) -> str:
    return f"this machine has {amount(memory)} of memory"


def _integers(model: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in flatten({"model": model}).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not isinstance(item, bool):
                yield key, item
