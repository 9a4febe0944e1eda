"""Sizes that no machine can hold, refused from the numbers of a job alone, before its data are read or it is traced."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from research.tree import ConfigError, flatten, plain

if TYPE_CHECKING:
    from research.sweep.job import Job

DEEPEST = 1000  # layers: each of them is traced
NO_SIZES = ("model.levels",)  # integers of a model that make no parameters
DRAWN = ("rows", "length", "channels", "features")  # sizes of data that are drawn: their product is allocated
CGROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> float | None:
    """Bytes of memory that programs can have at most here, whatever is in use; None where nobody says."""
    stats: Any = jax.devices()[0].memory_stats() or {}
    return float(stats["bytes_limit"]) if "bytes_limit" in stats else host_memory()


def host_memory() -> float | None:
    """Bytes of memory of this machine, or of its container; None where nobody says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [float(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
        found += [float(CGROUP.read_text())]  # "max" where there is no limit
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def check_numbers(job: "Job") -> None:
    """Refuse lists and rows of a job that no machine can hold; single sizes have their ranges (`research.ranges`).

    Raises:
      ConfigError: naming the key.
    """
    for key, value in flatten({"model": plain(job.model)}).items():
        if isinstance(value, list) and len(value) > DEEPEST:
            raise ConfigError(key, f"{len(value):,} entries", f"must be at most {DEEPEST:,}")
    _check_rows(job)


def _check_rows(job: "Job") -> None:
    sizes = {name: getattr(job.data, name) for name in DRAWN if isinstance(getattr(job.data, name, None), int)}
    needed, memory = 8, host_memory()
    for size in sizes.values():
        needed *= size
    if "rows" in sizes and memory is not None and needed > memory:
        name = max(sizes, key=sizes.__getitem__)
        remedy = f"data of these sizes take {amount(needed)}; {here(memory)}, ask for a smaller one"
        raise ConfigError(f"data.{name}", sizes[name], remedy)


def check_memory(job: "Job", parameters: int, needed: float, members: int = 1) -> None:
    """Refuse a program that is predicted to take more bytes than there are.

    Raises:
      ConfigError: naming the largest size of the model.
    """
    memory = machine_memory()
    if memory is None or needed <= memory:
        return
    sizes = [pair for pair in _integers(plain(job.model), "model") if pair[0] not in NO_SIZES]
    key, value = max(sizes, key=lambda pair: pair[1], default=("model", None))
    each = f"{parameters:,} parameters" + (f" in each of {members} members" if members > 1 else "")
    remedy = f"{each} take {amount(needed)} while they train; {here(memory)}, choose a smaller model"
    raise ConfigError(key, value, remedy)


def amount(size: float) -> str:
    """Bytes in the largest unit of which there is at least one."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:,.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
        size /= 1000
    raise AssertionError


def here(memory: float) -> str:
    return f"here are {amount(memory)} of memory"


def _integers(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in flatten({prefix: section}).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not isinstance(item, bool):
                yield key, item
