"""Programs that cannot fit into the memory are refused, and vmap programs become as narrow as the memory asks for."""

import dataclasses
from typing import Any

from research.sweep.blocks import bytes_in_flight
from research.sweep.device import amount, free_memory, machine_memory, on_device
from research.sweep.job import BoundJob
from research.sweep.options import Options
from research.sweep.plan import CANONICAL_WIDTHS, JobGroup
from research.sweep.programs import program_of
from research.tree import ConfigError, flatten, plain

NO_SIZES = ("model.levels",)  # integers of a model that are no sizes of arrays
ERRORS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc")
# The plan predicts states, gradients and rows, but not activations. If its prediction is below this share of the
# memory, the program is not compiled only to learn its exact size.
FAR = 1 / 16


def check_memory(model: Any, parameters: int, needed: float, members: int = 1) -> None:
    """Refuse a program that is predicted to need more bytes than this machine has.

    Raises:
      ConfigError: naming the largest size of the model.
    """
    memory = machine_memory()
    if memory is None or needed <= memory:
        return
    sizes = [
        (key, item)
        for key, value in flatten({"model": plain(model)}).items()
        for item in (value if isinstance(value, list) else [value])
        if type(item) is int and key not in NO_SIZES
    ]
    key, value = max(sizes, key=lambda pair: pair[1], default=("model", None))
    each = f"{parameters:,} parameters" + (f" in each of {members} members" if members > 1 else "")
    needs = f"{each} take {amount(needed)} while they train"
    remedy = f"{needs}; this machine has {amount(memory)} of memory; choose a smaller model"
    raise ConfigError(key, value, remedy)


def fitted(group: JobGroup, options: Options) -> list[JobGroup]:
    """The group, or narrower groups of vmap mode that fit into the memory.

    Raises:
      ConfigError: not even one member fits into `sweep.memory_limit`.
    """
    free = free_memory()
    programs = 1 if group.devices > 1 else options.threads
    limit = options.memory or (free / programs if free else None)
    if limit is None or (options.memory is None and group.bytes < FAR * limit) or not group.parameters:
        return [group]
    try:
        fixed, each = measured(group)
    except Exception:  # A program that cannot be compiled fails later, when it is trained.
        return [group]
    if fixed + each > limit and options.memory is not None:
        remedy = f"one member of a program alone takes {fixed + each:.3g} bytes; raise it, or choose a smaller model"
        raise ConfigError("sweep.memory_limit", options.memory_limit, remedy)
    parts = [group]
    while parts[0].width > 1 and fixed + each * parts[0].width > limit:
        parts = [narrower for part in parts for narrower in halves(part)]
    return parts


def measured(group: JobGroup) -> tuple[float, float]:
    """Bytes of the training program: a fixed part, and a part for every member, from its compiled form at two widths.

    A program of map mode has one member, so all of its bytes belong to that member.
    """
    if group.mode == "map":
        return 0.0, _bytes(group.members[0], "map", 1)
    single, double = (_bytes(group.members[0], group.mode, width) for width in (1, 2))
    return max(single - (double - single), 0.0), max(double - single, 1.0)


def _bytes(bound: BoundJob, mode: Any, width: int) -> float:
    program = program_of(JobGroup((bound,), mode, width, 0, 0, ""), on_device(bound.dataset))
    memory = program.lower().compile().memory_analysis()
    sizes = (memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes)
    streamed = bytes_in_flight(bound.dataset, program.budget) if bound.dataset.streamed else 0
    return float(sum(sizes) - memory.alias_size_in_bytes + streamed)


def out_of_memory(error: BaseException) -> bool:
    """Whether a program failed because there was not enough memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in ERRORS)


def halves(group: JobGroup) -> list[JobGroup]:
    """The members of a vmap group in groups of the next smaller canonical width; empty if the width is one."""
    width = next((width for width in reversed(CANONICAL_WIDTHS) if width < group.width), 0)
    if not width:
        return []
    if width == 1:  # A vmap program of width 1 is the map program.
        return [dataclasses.replace(group, reason="less memory", mode="map", width=1, devices=1)]
    rows = width * group.devices
    parts = [group.members[at : at + rows] for at in range(0, len(group.members), rows)]
    return [dataclasses.replace(group, members=part, reason="less memory", width=width) for part in parts]
