"""Matrix products in bfloat16. The trace of a function is rewritten, so that no network knows of it."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p

from research.errors import ConfigError

Result = TypeVar("Result")


def with_bfloat16_products(function: Callable[..., Result]) -> Callable[..., Result]:
    """The same function, whose products of float32 matrices round their inputs to bfloat16 and add up in float32.

    Everything else stays in float32. Give it a function that is differentiated already: then the products of the
    backward pass are rounded too, and derivatives of any order are those of the function in float32.

    JAX has a setting for such products, `jax.default_matmul_precision("BF16_BF16_F32")`, which a CPU ignores without a
    word. A cast alone (`astype`) may be removed by XLA, `lax.reduce_precision` is not.

    Raises:
      ConfigError: the function has a convolution, of which XLA on GPUs has none from bfloat16 to float32.
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
        if primitive is conv_general_dilated_p and in_float32:
            remedy = "this model has a convolution that is no product of matrices; set {key}=float32"
            raise ConfigError("trainer.compute_dtype", "bfloat16", remedy)
        if primitive is dot_general_p and in_float32:
            inputs, params = [_rounded(value) for value in inputs], params | {"preferred_element_type": jnp.float32}
        params = primitive.get_bind_params({name: _rewritten(value) for name, value in params.items()})
        results = primitive.bind(*inputs, **params)
        values |= dict(zip(equation.outvars, results if primitive.multiple_results else [results], strict=True))
    return [read(atom) for atom in trace.outvars]


def _rounded(value: jax.Array) -> jax.Array:
    """A float32 array, rounded to the 8 bits of exponent and 7 of mantissa of bfloat16."""
    return jax.lax.reduce_precision(value, 8, 7).astype(jnp.bfloat16)


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
