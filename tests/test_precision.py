"""Products in bfloat16: the numbers of one product, every place where a product may stand, and a whole training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs import budget, products

from research import engine
from research.data.loading import load
from research.inputs import Data, JobInputs
from research.precision import with_bfloat16_products
from research.tree import build

initialize = jax.jit(engine.initialize, static_argnames="budget")
chunk = jax.jit(engine.chunk, static_argnames="budget")
W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
X = jnp.ones((3, 4))


def rounded(x: Any) -> np.ndarray:
    """Values of bfloat16 in float64, rounded to the nearest, to the even of two."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


@pytest.mark.parametrize("before", [lambda x: x, jnp.tanh])
def test_a_product_rounds_its_inputs_and_adds_up_in_float32(before: Callable[[Any], Any]):
    random = np.random.default_rng(0)
    x, w = random.normal(size=(16, 700)).astype(np.float32), random.normal(size=(700, 8)).astype(np.float32)
    product, hidden = jax.jit(with_bfloat16_products(lambda x, w: (before(x) @ w, before(x))))(x, w)
    assert product.dtype == jnp.float32
    np.testing.assert_array_equal(hidden, jax.jit(before)(x))  # only products are rounded
    expected = rounded(hidden) @ rounded(w)
    scale = np.abs(rounded(hidden)) @ np.abs(rounded(w))
    assert (np.abs(product - expected) / scale).max() < 1e-6
    assert (np.abs(product - np.asarray(hidden, np.float64) @ w) / scale).max() > 1e-4


def test_an_accelerator_is_asked_for_products_of_bfloat16():
    program = jax.jit(with_bfloat16_products(lambda x, w: x @ w)).trace(X, W).lower(lowering_platforms=("cuda",))
    for words in ("lhs_precision_type = bf16", "rhs_precision_type = bf16", "accumulation_type = f32"):
        assert words in program.as_text()


def in_scan(w: Any) -> Any:
    return jax.lax.scan(lambda carry, _: (jax.nn.gelu(carry @ w), carry.sum()), X, None, length=3)[0].sum()


def in_branches(w: Any) -> Any:
    return jax.lax.cond(w.sum() > 0, lambda: (X @ w).sum(), lambda: (X @ w @ w).sum())


def in_while(w: Any) -> Any:
    constant = jax.lax.stop_gradient(w)
    grown = jax.lax.while_loop(lambda y: y.sum() < 1e3, lambda y: y @ jnp.abs(constant) + 1, X)
    return (grown @ w).sum()


def computed_again(w: Any) -> Any:
    return jax.checkpoint(lambda w: jnp.tanh(X @ w) @ w)(w).sum()


def in_second_derivatives(w: Any) -> Any:
    return jnp.square(jax.grad(lambda x: jnp.tanh(jax.nn.relu(x @ w) @ w).sum())(X)).sum()


def in_own_derivative(w: Any) -> Any:
    @jax.custom_vjp
    def product(w: Any) -> Any:
        return (X @ w).sum()

    product.defvjp(lambda w: (product(w), w), lambda w, slope: (slope * (X.T @ (X @ w)),))
    return product(w) + jax.lax.stop_gradient(jax.nn.relu(X @ w)).sum()


def in_convolutions(w: Any) -> Any:
    return jnp.square(jax.lax.conv(X[None, None], w[None, None], (1, 1), "SAME")).sum()


@pytest.mark.parametrize(
    "function",
    [in_scan, in_branches, in_while, computed_again, in_second_derivatives, in_own_derivative, in_convolutions],
)
def test_products_are_rounded_wherever_they_stand(function: Callable[[Any], Any]):
    gradient = jax.value_and_grad(function)
    plain = products(jax.make_jaxpr(gradient)(W))
    assert plain
    assert not any(plain)
    assert products(jax.make_jaxpr(with_bfloat16_products(gradient))(W)) == [True] * len(plain)
    value, slope = jax.jit(with_bfloat16_products(gradient))(W)
    assert float(value) == pytest.approx(float(function(W)), rel=0.05, abs=0.05)
    assert slope.dtype == jnp.float32


def test_a_vae_reaches_the_loss_of_float32(shipped_config, build_model, build_optimizer):
    dataset = load(build(shipped_config("data", "digits"), key="data"))
    model = build_model("vae", hidden_dims=[32], latent_dim=4).bind(dataset.facts)
    member, data = JobInputs(np.uint32(0), dataset.split(None)), Data(*[jax.device_put(dataset.examples)] * 2)
    optimizer, epochs, losses = build_optimizer("adam", learning_rate=0.005), 20, {}
    for dtype in ("float32", "bfloat16"):
        settings = budget(dataset.facts.train_size // 32, epochs=epochs, compute_dtype=dtype)
        state = initialize(model, optimizer, member, data, settings)
        state, losses[dtype] = chunk(model, optimizer, state, member, data, np.int32(epochs), settings)
        numbers = jax.tree.leaves((state.params, state.optimizer_state))
        assert {str(leaf.dtype) for leaf in numbers} == {"float32", "int32"}
    for name in ("train/loss", "validation/loss"):
        exact, found = (float(losses[dtype][name]) for dtype in ("float32", "bfloat16"))
        assert exact != found == pytest.approx(exact, rel=0.01), name
    assert losses["float32"]["validation/loss"] < 30
