"""The devices of this process: their memory, their rows of data, and the cache of compiled programs."""

import contextlib
import functools
import hashlib
import os
import platform
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.examples import Dataset
from research.data.loading import binarized
from research.data.preparation import Binarize
from research.inputs import Data

CGROUP = Path("/sys/fs/cgroup/memory.max")
MAPS, MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
UNITS = ("bytes", "kB", "MB", "GB", "TB")


@functools.cache
def mesh(devices: int) -> jax.sharding.Mesh:
    """The first `devices` devices in a row; its only axis is `jobs`."""
    return jax.sharding.Mesh(np.asarray(jax.local_devices()[:devices]), ("jobs",))


class _ById:
    """A cache key for a data set, which is not hashable: the object itself."""

    def __init__(self, value: Dataset):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.value is self.value


@functools.lru_cache(maxsize=2)
def _on_device(dataset: _ById, device: Any) -> Data:
    if dataset.value.streamed:
        return Data(dataset.value.compact, dataset.value.compact)
    examples = jax.device_put(dataset.value.compact, device)
    if not isinstance(dataset.value.draw, Binarize):
        return Data(examples, examples)
    return Data(examples, jax.device_put(binarized(dataset.value), device))


_copying = threading.Lock()


def on_device(dataset: Dataset, device: Any = None) -> Data:
    """The rows of a data set on a device (None: the first); streamed rows stay where they are.

    The rows are copied once; a second thread waits for the copy that the first one makes.
    """
    with _copying:
        return _on_device(_ById(dataset), device)


def device_kind() -> str:
    """Name of the kind of device that programs run on."""
    return jax.devices()[0].device_kind


def unload() -> bool:
    """Forget all compiled programs once this process has half of the memory maps that Linux allows it.

    Every program and its evaluation take about 1,000 maps, and XLA crashes when it gets no more (65,530 by default).
    A program that is called again is compiled again.

    Returns:
      Whether they were forgotten.
    """
    try:
        most = int(MOST_MAPS.read_text())
        maps = MAPS.read_bytes().count(b"\n")
    except (OSError, ValueError):  # another system
        return False
    if maps < most / 2:
        return False
    jax.clear_caches()
    return True


def machine_memory() -> float | None:
    """Bytes of memory that all programs can have here at most; None if the system does not tell."""
    stats: Any = jax.devices()[0].memory_stats() or {}
    return float(stats["bytes_limit"]) if "bytes_limit" in stats else host_memory()


def free_memory() -> float | None:
    """Bytes of memory that are free on the device; None if the system does not tell."""
    stats: Any = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return meminfo("MemAvailable")


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


def amount(size: float) -> str:
    """Bytes as text, in the largest unit of which there is at least one."""
    for unit in UNITS:
        if size < 1000:
            return f"{size:,.3g} {unit}"
        size /= 1000
    return f"{size * 1000:,.0f} {UNITS[-1]}"


def use_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder; JAX_COMPILATION_CACHE_DIR names another folder.

    For a CPU the cache holds machine code. Each kind of processor and each version of jax therefore has its own folder.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get("JAX_ENABLE_COMPILATION_CACHE") == "false":
        return
    features = [platform.machine(), platform.processor(), jax.__version__]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        features += sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
    name = hashlib.sha256("\n".join(features).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(root / "latent-loom" / "programs" / name))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
