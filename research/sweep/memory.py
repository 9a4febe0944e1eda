"""How wide a program may be: the compiled program's own account of memory, against what the device has."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from research.sweep.job import Bound
from research.sweep.plan import CANONICAL_WIDTHS, Group, Options
from research.tree import ConfigError

ERRORS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc")


# The plan predicts states, gradients and rows, and leaves out activations: below this share of the memory there is no
# need to compile a program twice to know more.
FAR = 1 / 16


def fitted(group: Group, options: Options) -> list[Group]:
    """The group, or narrower ones of vmap mode that fit into the memory.

    Raises:
      ConfigError: not even one member fits into `sweep.memory_limit`.
    """
    free = free_memory()
    at_once = 1 if group.devices > 1 else options.threads
    limit = options.memory or (free / at_once if free else None)
    if limit is None or (options.memory is None and group.bytes < FAR * limit) or not group.parameters:
        return [group]
    try:
        fixed, each = measured(group)
    except Exception:  # what cannot be compiled says so when it is trained
        return [group]
    if fixed + each > limit and options.memory is not None:
        remedy = f"one member of a program alone takes {fixed + each:.3g} bytes; allow more, or take a smaller model"
        raise ConfigError("sweep.memory_limit", options.memory_limit, remedy)
    parts = [group]
    while parts[0].width > 1 and fixed + each * parts[0].width > limit:
        parts = [part for old in parts for part in halves(old)]
    return parts


def measured(group: Group) -> tuple[float, float]:
    """Bytes of the training program: a fixed part and one for every member, from its compiled form at two widths.

    A program of map mode has one member, and all of its bytes are that member's.
    """
    if group.mode == "map":
        return 0.0, _bytes(group.bounds[0], "map", 1)
    one, two = (_bytes(group.bounds[0], group.mode, width) for width in (1, 2))
    return max(one - (two - one), 0.0), max(two - one, 1.0)


def _bytes(bound: Bound, mode: Any, width: int) -> float:
    from research.sweep.program import on_device, program_of

    program = program_of(Group((bound,), mode, width, 0, 0, ""), on_device(bound.dataset))
    found = program.lower().compile().memory_analysis()
    sizes = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    return float(sum(sizes) - found.alias_size_in_bytes)


def out_of_memory(error: BaseException) -> bool:
    """Whether a program failed for lack of memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in ERRORS)


def halves(group: Group) -> list[Group]:
    """The same members of vmap mode at the next smaller canonical width; empty at width one."""
    width = next((width for width in reversed(CANONICAL_WIDTHS) if width < group.width), 0)
    if not width:
        return []
    rows = width * group.devices
    parts = [group.bounds[at : at + rows] for at in range(0, len(group.bounds), rows)]
    how: dict[str, Any] = {"mode": "map", "width": 1, "devices": 1} if width == 1 else {"width": width}
    if width == 1:  # a program of width 1 is always the map program
        parts = [group.bounds]
    return [dataclasses.replace(group, bounds=part, reason="less memory", **how) for part in parts]


def free_memory() -> float | None:
    """Bytes that the device has free, or None where it does not say."""
    stats: Any = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
    return float(found["MemAvailable"]) * 1024 if "MemAvailable" in found else None
