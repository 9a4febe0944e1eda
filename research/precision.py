"""Matrix products in bfloat16. The trace of a function is rewritten, so that no network knows of it."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p

Result = TypeVar("Result")


def with_bfloat16_products(function: Callable[..., Result]) -> Callable[..., Result]:
    """The same function, whose products of float32 matrices round their inputs to bfloat16 and add up in float32.

    Everything else stays in float32. Give it a function that is differentiated already: then the products of the
    backward pass are rounded too, and derivatives of any order are those of the function in float32.

    The preset BF16_BF16_F32 of JAX asks an accelerator for such products. A CPU ignores it without a word, so the
    rounding is written out, and a CPU multiplies the rounded numbers in float32: the results are the same up to the
    order of sums. (XLA on CPUs has no products of type bfloat16 for all shapes, and XLA may remove a cast to bfloat16
    and back, but not `lax.reduce_precision`.) Convolutions round their inputs too; no device computes them faster.
    """

    def rounded(*arguments: Any) -> Result:
        trace, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = _evaluate(trace.jaxpr, trace.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rounded


def _evaluate(trace: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """The results of a trace, computed with rounded products, also in its loops, branches and calls."""
    values = dict(zip([*trace.constvars, *trace.invars], [*constants, *arguments], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for equation in trace.eqns:
        primitive, inputs, params = equation.primitive, [read(atom) for atom in equation.invars], equation.params
        in_float32 = all(jnp.result_type(value) == jnp.float32 for value in inputs)
        if primitive in (dot_general_p, conv_general_dilated_p) and in_float32:
            inputs = [jax.lax.reduce_precision(value, exponent_bits=8, mantissa_bits=7) for value in inputs]
        if primitive is dot_general_p and in_float32:
            params = params | {"precision": jax.lax.DotAlgorithmPreset.BF16_BF16_F32}
        params = primitive.get_bind_params({name: _rewritten(value) for name, value in params.items()})
        results = primitive.bind(*inputs, **params)
        values |= dict(zip(equation.outvars, results if primitive.multiple_results else [results], strict=True))
    return [read(atom) for atom in trace.outvars]


def _rewritten(value: Any) -> Any:
    """The trace of a loop or call, or those of all branches, with rounded products; other values stay as they are."""
    if type(value) is tuple:
        return tuple(map(_rewritten, value))
    if isinstance(value, ClosedJaxpr):
        inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type) for aval in value.in_avals]
        return jax.make_jaxpr(lambda *arguments: _evaluate(value.jaxpr, value.consts, arguments))(*inputs)
    if isinstance(value, Jaxpr):
        closed = _rewritten(ClosedJaxpr(value, ()))
        assert not closed.consts, "this trace has no place for constants"
        return closed.jaxpr
    return value
