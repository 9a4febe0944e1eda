"""Environment variables that change results: some are dropped, some are recorded, and later changes are refused.

JAX and XLA read variables under which the same program computes other bits. `research/__init__.py` calls `fix`, so
every command, worker, test and notebook passes through it before it computes anything.

* `fix` removes the variables of `DROPPED` (64-bit floats, other random numbers, no compilation, ...) from the
  environment and prints a line on stderr. JAX then uses its defaults.
* `fix` gives XLA's pool of threads at least two threads. XLA splits long sums by the size of the pool, so one thread,
  two and eight give other last bits.
* Every result, checkpoint and `sweep.json` records the size of the pool and the variables of `RECORDED`. A sweep goes
  on with the pool size that it began with. A command with other variables is refused.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FEWEST, MOST = 2, 4096  # threads of XLA's pool
POOL = ("PJRT_NPROC", "NPROC")  # the variables from which XLA takes the size of its pool, in this order

DROPPED = (
    "JAX_ALLOW_F16_REDUCTIONS",
    "JAX_CUSTOM_VJP3",
    "JAX_DEBUG_INFS",
    "JAX_DEBUG_NANS",
    "JAX_DEFAULT_DTYPE_BITS",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_DISABLE_JIT",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_EAGER_CONSTANT_FOLDING",
    "JAX_ENABLE_CUSTOM_PRNG",
    "JAX_ENABLE_X64",
    "JAX_ERROR_CHECKING_BEHAVIOR_DIVIDE",
    "JAX_ERROR_CHECKING_BEHAVIOR_NAN",
    "JAX_ERROR_CHECKING_BEHAVIOR_OOB",
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT",
    "JAX_EXPLICIT_X64_DTYPES",
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL",
    "JAX_MEMORY_FITTING_EFFORT",
    "JAX_MEMORY_FITTING_LEVEL",
    "JAX_NO_EXECUTION",
    "JAX_NO_TRACING",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_OPTIMIZATION_LEVEL",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_REMAT3",
    "JAX_SCAN3",
    "JAX_SOFTMAX_CUSTOM_JVP",
    "JAX_THREEFRY_GPU_KERNEL_LOWERING",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_USE_DIRECT_LINEARIZE",
    "JAX_USE_SHARDY_PARTITIONER",
)
RECORDED = ("JAX_DEFAULT_MATMUL_PRECISION", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "XLA_FLAGS")
HARMLESS_FLAGS = (
    "--xla_force_host_platform_device_count",
    "--xla_dump_",
)  # devices are recorded elsewhere

SETTINGS = {  # the values of `jax.config` that code may not have changed
    "enable_x64": False,
    "default_prng_impl": "threefry2x32",
    "threefry_partitionable": True,
    "random_seed_offset": 0,
    "numpy_dtype_promotion": "standard",
    "disable_jit": False,
    "disable_most_optimizations": False,
    "debug_nans": False,
    "debug_infs": False,
}


def fix() -> None:
    """Drop the variables of `DROPPED` and give XLA's pool at least two threads. Call it before JAX is imported."""
    for name in DROPPED:
        setting, late = name.removeprefix("JAX_").lower(), "jax" in sys.modules
        if name not in os.environ or (late and setting not in SETTINGS):
            continue  # JAX has read it already, so it is recorded instead
        note(f"{name}={os.environ.pop(name)} is left out: results would not be those of other runs")
        if late:
            sys.modules["jax"].config.update(f"jax_{setting}", SETTINGS[setting])
    if not started():
        os.environ[POOL[0]] = str(max(threads(), FEWEST))
    elif threads() < FEWEST:
        text = "JAX was started with one thread before research was imported: results have other last digits than those"
        note(f"{text} of other runs; import research first, or start Python with {POOL[0]}={FEWEST}")


def started() -> bool:
    """Whether JAX has created its devices. From then on, XLA's pool keeps its size."""
    if "jax" not in sys.modules:
        return False
    from jax._src import xla_bridge  # no public function tells this without creating them

    return xla_bridge.backends_are_initialized()


def threads() -> int:
    """The number of threads of XLA's pool on the CPU, by XLA's rule. It ignores text and numbers above `MOST`."""
    for name in POOL:
        try:
            number = int(os.environ[name])
        except (KeyError, ValueError):
            continue
        if number <= MOST:
            return max(number, 1)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def flags() -> dict[str, str]:
    """The variables of `RECORDED` that are set, with their values; flags of XLA are sorted."""
    values = {name: os.environ[name] for name in (*RECORDED, *DROPPED) if os.environ.get(name)}
    if "jax" in sys.modules:  # code may have changed the setting
        values.pop("JAX_DEFAULT_MATMUL_PRECISION", None)
        precision = sys.modules["jax"].config.jax_default_matmul_precision
        values |= {} if precision is None else {"JAX_DEFAULT_MATMUL_PRECISION": str(precision)}
    text = values.pop("XLA_FLAGS", "")
    if text and not text.startswith("-") and Path(text).is_file():  # XLA reads flags from this file
        text = Path(text).read_text(encoding="utf-8", errors="replace")
    kept = sorted({word for word in text.split() if not word.startswith(HARMLESS_FLAGS)})
    return dict(sorted(({**values, "XLA_FLAGS": " ".join(kept)} if kept else values).items()))


def described() -> dict[str, Any]:
    """The record of the environment: `threads` of XLA's pool (None on an accelerator) and `flags`.

    Raises:
      ConfigError: JAX finds no device.
    """
    import jax

    from research.tree import ConfigError

    try:
        backend = jax.default_backend()
    except RuntimeError as error:
        remedy = f"JAX finds no such device ({' '.join(str(error).split())}); unset it"
        raise ConfigError("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", ""), remedy) from None
    return {"threads": threads() if backend == "cpu" else None, "flags": flags()}


def check() -> None:
    """Refuse settings of `jax.config` that code has changed and that would change results.

    Raises:
      ConfigError: a setting differs from `SETTINGS`.
    """
    import jax

    from research.tree import ConfigError

    for name, value in SETTINGS.items():
        now = getattr(jax.config, f"jax_{name}", value)
        now = getattr(now, "value", now)  # some are enumerations
        if now != value:
            remedy = f"results would not be those of other runs; jax.config.update('jax_{name}', {value!r}) first"
            raise ConfigError(f"jax_{name}", now, remedy)


def go_on(recorded: Any) -> None:
    """Use the pool size that a sweep began with, unless JAX has started already."""
    number = recorded.get("threads") if isinstance(recorded, Mapping) else None
    if type(number) is not int or not FEWEST <= number <= MOST or started() or number == threads():
        return
    note(f"XLA's pool gets {number} threads, as when this sweep was begun; here it would have {threads()}")
    os.environ[POOL[0]] = str(number)


def differences(recorded: Any) -> list[str]:
    """Each difference between a recorded environment and this one, with a remedy; empty if nothing was recorded."""
    if not isinstance(recorded, Mapping) or "flags" not in recorded:
        return []
    now, lines = described(), []
    if None not in (recorded.get("threads"), now["threads"]) and recorded["threads"] != now["threads"]:
        possible = type(recorded["threads"]) is int and FEWEST <= recorded["threads"] <= MOST
        remedy = f"start Python with {POOL[0]}={recorded['threads']}" if possible else "no pool has; restore the record"
        lines.append(f"XLA's pool had {recorded['threads']} threads and has {now['threads']} now ({remedy})")
    then = recorded["flags"] if isinstance(recorded["flags"], Mapping) else {}
    for name in sorted({*then, *now["flags"]}):
        if then.get(name) != now["flags"].get(name):
            lines.append(f"{name} was {then.get(name, '')!r} and is {now['flags'].get(name, '')!r} now")
    return lines


def note(text: str) -> None:
    """Print one line on stderr, if the process has one."""
    if sys.stderr is not None:
        sys.stderr.write(f"note: {text}\n")
