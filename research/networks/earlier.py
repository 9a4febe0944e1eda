"""Parameters in the layout of earlier versions."""

from collections.abc import Mapping
from typing import Any

GRU_GATES = ("_reset", "_update", "_new")


def gates_apart(params: Any) -> Any:
    """Parameters in which every gate of a gru has its own kernel, made from kernels of all gates side by side.

    Args:
      params: nested dictionaries of arrays. Everything but the cells of a gru stays as it is.
    """
    if not isinstance(params, Mapping):
        return params
    if "recurrent_bias" not in params or "recurrent_kernel" not in params:
        return {name: gates_apart(part) for name, part in params.items()}
    apart: dict[str, Any] = {}
    for name, array in params.items():
        if name in ("input_kernel", "recurrent_kernel", "bias"):
            size = array.shape[-1] // len(GRU_GATES)
            blocks = [array[..., number * size : (number + 1) * size] for number in range(len(GRU_GATES))]
            apart |= {f"{name}{end}": block for end, block in zip(GRU_GATES, blocks, strict=True)}
        else:
            apart[name] = array
    return apart
