"""Parameters as earlier versions kept them."""

from collections.abc import Mapping
from typing import Any

GRU_GATES = ("_reset", "_update", "_new")


def gates_apart(params: Any) -> Any:
    """Parameters with a kernel for each gate of a gru, of those that have the kernels of all gates side by side.

    Args:
      params: a tree of dictionaries of arrays; all that is no such cell is kept as it is.
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
