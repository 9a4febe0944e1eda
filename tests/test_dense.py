"""Dense networks: every activation and initialiser by name, gates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.networks.dense import DenseStack
from research.networks.names import ACTIVATIONS, INITIALIZERS, activation


def test_every_activation_and_initializer_works():
    x = jnp.linspace(-3, 3, 12)

    @jax.jit
    def all_of_them(x: jax.Array) -> dict[str, Any]:
        values = {name: activation(name) for name in (*ACTIVATIONS, "linear")}
        return {name: jax.vmap(jax.value_and_grad(function))(x) for name, function in values.items()}

    for name, (value, slope) in all_of_them(x).items():
        assert value.shape == (12,), name
        assert np.isfinite(value).all(), name
        assert np.isfinite(slope).all(), name
        assert np.ptp(value) > 0.5, name
    for name in INITIALIZERS:
        kernel = getattr(jax.nn.initializers, name)()(jax.random.key(0), (4, 3))
        assert kernel.shape == (4, 3), name


def test_dropout_is_for_training_only():
    stack, x = DenseStack((400,), 3, "relu", dropout=0.25), jnp.ones((2, 5))
    params = stack.init(jax.random.key(0), x)
    plain = DenseStack((400,), 3, "relu")
    np.testing.assert_array_equal(stack.apply(params, x), plain.apply(params, x))
    keys = [{"dropout": jax.random.key(seed)} for seed in range(300)]
    train = jax.jit(lambda key: stack.apply(params, x, True, rngs=key))
    drawn = np.stack([np.asarray(train(key))[0] for key in keys])
    assert np.ptp(drawn, 0).min() > 0
    np.testing.assert_allclose(drawn.mean(0), np.asarray(plain.apply(params, x))[0], atol=0.1)  # its mean is the layer


def test_gates():
    """f(a) sigmoid(b) by hand."""
    stack_ = DenseStack((2,), 1, "tanh", True, False, "lecun_normal")
    x = jnp.array([[0.5, -1.0, 2.0]])
    params = stack_.init(jax.random.key(0), x)
    hidden, output = params["params"]["hidden_0"], params["params"]["output"]  # type: ignore[index]
    both = np.asarray(x @ hidden["kernel"])
    expected = (np.tanh(both[:, :2]) / (1 + np.exp(-both[:, 2:]))) @ np.asarray(output["kernel"])
    np.testing.assert_allclose(stack_.apply(params, x), expected, rtol=1e-5)
