"""The first operation of a computation that makes something not finite of finite values.

`jax.debug_nans` names the operation too, but neither layer, shape nor time step. For an operation inside a loop over
time it says only `scan`. So this file evaluates the trace of a function operation by operation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

ROOT = Path(__file__).parents[3]


def finite(value: Any) -> bool:
    """Whether all numbers of an array are finite; integers, flags and keys always are."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return True
    return bool(np.isfinite(np.asarray(value)).all())


def first_operation(trace: ClosedJaxpr, arguments: Sequence[Any]) -> str | None:
    """Layer, name, shape and line of the first operation that turns finite values into others; None without one."""
    variables, known = [*trace.jaxpr.constvars, *trace.jaxpr.invars], [*trace.consts, *arguments]
    values = dict(zip(variables, known, strict=True))
    for equation in trace.jaxpr.eqns:
        inputs = [atom.val if isinstance(atom, Literal) else values[atom] for atom in equation.invars]
        results = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
        results = results if equation.primitive.multiple_results else [results]
        if all(map(finite, inputs)) and not all(map(finite, results)):
            layer = str(equation.source_info.name_stack)
            name = _inside(equation.primitive.name, equation.params, inputs)
            name = name or f"{equation.primitive.name} of shape {results[0].shape}{_line(equation)}"
            return f"{layer}{'/' if layer else ''}{name}"
        values |= dict(zip(equation.outvars, results, strict=True))
    return None


def _line(equation: Any) -> str:
    """The line of this project that asks for an operation, as ` in file:line`."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    ours = [frame for frame in frames if Path(frame.file_name).is_relative_to(ROOT / "research")]
    return f" in {Path(ours[0].file_name).relative_to(ROOT)}:{ours[0].line_num}" if ours else ""


def _inside(primitive: str, params: Mapping[str, Any], inputs: Sequence[Any]) -> str | None:
    """The operation inside a function that is called, or inside the first step of a scan in which it happens."""
    if primitive in ("jit", "pjit"):
        return first_operation(params["jaxpr"], inputs)
    if primitive in ("custom_jvp_call", "custom_vjp_call"):
        inner = params.get("call_jaxpr")
        return first_operation(inner, inputs) if isinstance(inner, ClosedJaxpr) else None
    if primitive != "scan":
        return None
    constants, carried = _scan_sizes(params)
    carry, rows = list(inputs[constants : constants + carried]), inputs[constants + carried :]
    step = jax.jit(jaxpr_as_fun(params["jaxpr"]))
    steps = range(params["length"])
    for index in reversed(steps) if params["reverse"] else steps:
        arguments = [*inputs[:constants], *carry, *(row[index] for row in rows)]
        results = step(*arguments)
        if not all(map(finite, results)):
            name = first_operation(params["jaxpr"], arguments)
            return name and f"time step {index}/{name}"
        carry = results[:carried]
    return None


def _scan_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers of constants and of carried values of a scan; jax 0.12 keeps trees instead of numbers."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()
    return len(list(constants.vals)), len(list(carry.vals))
