"""Convolutional networks: kernels by hand, odd sizes, transposes, labels, dropout, widths, refusals."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.clock import Clock
from research.data import Examples, Facts
from research.distributions import Categorical, Gaussian
from research.networks.base import Networks, Training
from research.networks.convolutional import ConvolutionalNetworks, ConvTranspose, convolve
from research.tree import ConfigError, build, plain, structure

SETTINGS: dict[str, Any] = {
    "latent_dim": 3,
    "parameters": None,
    "output_bias": "mean",
    "conditional": False,
    "channels": [4, 6],
    "kernel_size": 3,
    "strides": [2, 2],
    "hidden_dims": [5],
    "activation": "tanh",
    "layer_norm": False,
    "kernel_init": "lecun_normal",
    "dropout": 0.0,
}
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 6)))
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
SHAPES = [("sequence", (7, 2)), ("sequence", (1, 3)), ("image", (7, 5)), ("image", (8, 8)), ("image", (6, 9, 3))]
LIKELIHOOD = Gaussian(scale=1.0)


def facts_of(kind: Any, shape: tuple[int, ...]) -> Facts:
    return Facts(kind, shape, 0.0, 1.0, 3, 6, 2, 2)


def made(kind: str = "image", shape: tuple[int, ...] = (7, 5), **options: Any) -> ConvolutionalNetworks:
    return build(SETTINGS | options, ConvolutionalNetworks).bind(facts_of(kind, shape))


def rows(shape: tuple[int, ...], number: int = 6) -> Examples:
    return Examples(x=jax.random.normal(jax.random.key(5), (number, *shape)), label=jnp.arange(number) % 3)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=QUICKLY)
def fresh(networks: ConvolutionalNetworks, outputs: int = 3, channels: int = 1) -> dict[str, Any]:
    """Fresh parameters."""
    return networks.init(jax.random.key(0), outputs, channels)


def drawn(networks: ConvolutionalNetworks) -> dict[str, Any]:
    """Parameters in general position: no bias is zero. They are drawn by numpy, which compiles nothing."""
    random, shapes = np.random.default_rng(0), jax.eval_shape(lambda key: networks.init(key, 3, 1), jax.random.key(0))
    return jax.tree.map(lambda leaf: random.normal(0.1, 0.5, leaf.shape).astype(np.float32), shapes)


def quickly(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, as numpy arrays. It is compiled whole, since operations one by one are many programs."""
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def through(networks: Networks, params: Any, batch: Examples, training: Training | None = None) -> jax.Array:
    """Decoder outputs of a batch."""
    z = networks.encode(params, batch, networks.latent_dim, training)
    return networks.decode(params, z, batch.label, LIKELIHOOD, training=training)


# --------------------------------------------------------------------------------------------------------- by hand


def padded(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Number of outputs of a convolution with padding "SAME", and padding in front."""
    outputs = math.ceil(size / stride)
    return outputs, max((outputs - 1) * stride + kernel_size - size, 0) // 2


def by_hand(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """y[o] = sum_k x[stride o + k - front] kernel[k], for every axis; x [*size, C], kernel [*taps, C, features]."""
    size, taps = x.shape[:-1], kernel.shape[:-2]
    ends = [padded(n, k, stride) for n, k in zip(size, taps, strict=True)]
    y = np.zeros((*(number for number, _ in ends), kernel.shape[-1]))
    for at in np.ndindex(*y.shape[:-1]):
        for tap in np.ndindex(*taps):
            source = tuple(stride * o + k - front for o, k, (_, front) in zip(at, tap, ends, strict=True))
            if all(0 <= s < n for s, n in zip(source, size, strict=True)):
                y[at] += x[source] @ kernel[tap]
    return y


@pytest.mark.parametrize(
    ("kind", "shape", "kernel_size", "stride"),
    [
        *(("sequence", (7, 2), kernel_size, stride) for kernel_size, stride in ((3, 2), (4, 2), (2, 3), (3, 1))),
        *(("image", (7, 5), 3, 2), ("image", (8, 6), 4, 2), ("image", (5, 4, 3), 2, 3)),
    ],
)
def test_an_encoder_of_one_layer_by_hand(kind: str, shape: tuple[int, ...], kernel_size: int, stride: int):
    networks = made(kind, shape, channels=[4], strides=[stride], kernel_size=kernel_size, hidden_dims=[])
    params, batch = drawn(networks), rows(shape, 2)
    encoder = jax.tree.map(np.asarray, params["encoder"])
    encoder["layer_0"]["bias"] = np.linspace(-1, 1, 4, dtype=np.float32)
    encode = jax.jit(lambda batch: networks.encode({"encoder": encoder}, batch, 3), compiler_options=QUICKLY)
    for x, code in zip(batch.x, encode(batch), strict=True):
        x = np.asarray(x, np.float64).reshape(*shape[: networks.axes], -1)
        hidden = np.tanh(by_hand(x, encoder["layer_0"]["kernel"], stride) + encoder["layer_0"]["bias"])
        output = encoder["dense"]["output"]
        np.testing.assert_allclose(code, hidden.reshape(-1) @ output["kernel"] + output["bias"], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride"),
    [
        *(((7,), kernel_size, stride) for kernel_size, stride in ((3, 2), (4, 2), (5, 2), (1, 2), (2, 3), (3, 1))),
        *(((8,), 4, 2), ((1,), 4, 2), ((7, 5), 3, 2), ((7, 5), 2, 3), ((8, 6), 4, 2)),
    ],
)
def test_a_transposed_convolution_is_the_transpose(size: tuple[int, ...], kernel_size: int, stride: int):
    """<convolved a, b> = <a, transposed b> with the same kernel, for all a and b."""
    axes = len(size)
    layer = ConvTranspose(2, size, kernel_size, stride, "lecun_normal")
    forward = nn.Conv(3, (kernel_size,) * axes, (stride,) * axes, "SAME", use_bias=False)
    random = np.random.default_rng(0)
    a, kernel = (
        random.normal(size=shape).astype(np.float32) for shape in ((4, *size, 2), (*(kernel_size,) * axes, 2, 3))
    )

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def both(a: jax.Array, kernel: jax.Array) -> Any:
        convolved: Any = forward.apply({"params": {"kernel": kernel}}, a)
        b = jax.random.normal(jax.random.key(3), convolved.shape)
        spread: Any = lambda bias: layer.apply({"params": {"kernel": jnp.swapaxes(kernel, -1, -2), "bias": bias}}, b)
        return convolved, b, spread(jnp.zeros(2)), spread(jnp.array([1.0, -2.0]))

    convolved, b, transposed, shifted = map(np.asarray, both(a, kernel))
    assert transposed.shape == a.shape
    products = (first.reshape(4, -1) for first in (convolved * b, a * transposed))
    np.testing.assert_allclose(*(product.sum(-1) for product in products), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shifted - transposed, np.broadcast_to([1.0, -2.0], a.shape), atol=1e-5)


@pytest.mark.parametrize("axes", [1, 2])
def test_a_transposed_convolution_is_that_of_flax(axes: int):
    """Where the stride divides everything, with the taps in reverse; parameters have the same names and shapes."""
    positions, flip = (4, 3)[:axes], tuple(range(axes))
    ours = ConvTranspose(5, tuple(2 * n for n in positions), 4, 2, "lecun_normal")
    theirs = nn.ConvTranspose(5, (4,) * axes, (2,) * axes, "SAME")
    x = jax.random.normal(jax.random.key(1), (2, *positions, 3))
    params: Any = theirs.init(jax.random.key(0), x)["params"]
    own = ours.init(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, dict(params))
    np.testing.assert_array_equal(own["kernel"], params["kernel"])
    reversed_taps = {"kernel": jnp.flip(params["kernel"], flip), "bias": params["bias"]}
    expected: Any = theirs.apply({"params": params}, x)
    found: Any = ours.apply({"params": reversed_taps}, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"padding": "VALID"}, {"kernel_dilation": 2}, {"feature_group_count": 2}])
def test_other_convolutions_are_refused(options: dict[str, Any]):
    layer = nn.Conv(2, (3,), use_bias=False, conv_general_dilated=convolve, **options)
    with pytest.raises(AssertionError):
        layer.init(jax.random.key(0), jnp.zeros((1, 7, 2)))


def test_a_decoder_of_one_layer_by_hand():
    """Dense layer, activation, and every position spreads a patch of 3 with stride 2 over 7 steps from step -1 on."""
    networks = made("sequence", (7, 2), channels=[4], strides=[2], hidden_dims=[])
    params = fresh(networks)
    z = jax.random.normal(jax.random.key(1), (1, 3))
    dense, last = (jax.tree.map(np.asarray, params["decoder"][name]) for name in ("dense", "output"))
    hidden = np.tanh(np.asarray(z) @ dense["output"]["kernel"]).reshape(4, 4)
    expected = np.zeros((9, 2))
    for position, tap in itertools.product(range(4), range(3)):
        expected[2 * position + tap] += hidden[position] @ last["kernel"][tap]
    np.testing.assert_allclose(networks.decode(params, z, None, LIKELIHOOD)[0], expected[1:8].reshape(-1), atol=1e-5)


# ----------------------------------------------------------------------------------------------- shapes and parameters


@pytest.mark.parametrize(
    ("kind", "shape", "strides"),
    [
        *((kind, shape, [2, 2]) for kind, shape in SHAPES),
        *(("sequence", (7, 2), [3, 1]), ("image", (7, 5), [1, 1]), ("image", (6, 9, 3), [4, 3])),
    ],
)
def test_outputs_have_the_shape_of_the_data(kind: str, shape: tuple[int, ...], strides: list[int]):
    networks = made(kind, shape, strides=strides)
    batch, likelihood = rows(shape), Categorical(levels=2)

    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = networks.init(key, 6, 2)
        codes = networks.encode(params, batch, 6)
        assert networks.summary(codes, batch) is codes
        assert networks.encoder_kernel(params) is None
        return codes, networks.decode(params, codes[:, :3], None, likelihood)

    codes, outputs = jax.eval_shape(both, jax.random.key(0))
    assert codes.shape == (6, 6)
    assert outputs.shape == (6, 2 * math.prod(shape))
    assert not networks.stepwise


def test_elements_and_their_outputs_are_in_the_order_of_the_data():
    """A bias of the last layer by channel and output arrives at [rows, columns, channels, outputs]."""
    networks = made("image", (4, 3, 2))
    params = jax.device_get(fresh(networks, 3, 5))
    params["decoder"] = jax.tree.map(np.zeros_like, params["decoder"])
    params["decoder"]["output"]["bias"] = np.arange(10.0, dtype=np.float32)
    decode = lambda params: networks.decode(params, jnp.zeros((1, 3)), None, Categorical(levels=5))
    outputs = quickly(decode, params).reshape(4, 3, 2, 5)
    np.testing.assert_array_equal(outputs, np.broadcast_to(np.arange(10.0).reshape(2, 5), (4, 3, 2, 5)))


@pytest.mark.parametrize(("kind", "shape"), SHAPES[2:5:2])
def test_rows_are_not_columns(kind: str, shape: tuple[int, ...]):
    """A change of one pixel reaches the outputs around it, and no others."""
    networks = made(kind, shape, channels=[4], strides=[1], hidden_dims=[])
    module = networks.decoder(1)
    params = drawn(networks)["decoder"]
    bias = np.zeros((*networks.sizes[-1], 4), np.float32)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def outputs(bias: jax.Array) -> jax.Array:
        dense = {"output": {"kernel": jnp.zeros((3, bias.size)), "bias": bias.reshape(-1)}}
        return module.apply({"params": {**params, "dense": dense}}, jnp.zeros((1, 3)))

    before = np.asarray(outputs(bias))
    bias[1, 3] = 1
    after = np.asarray(outputs(bias))
    changed = np.argwhere(np.abs(after - before)[0].max(-1) > 1e-6)
    assert {tuple(place) for place in changed.tolist()} == set(itertools.product((0, 1, 2), (2, 3, 4)))


@pytest.mark.parametrize(
    ("kind", "shape", "options"),
    [
        *((kind, shape, {}) for kind, shape in SHAPES),
        ("sequence", (7, 2), {"layer_norm": True, "conditional": True}),
        ("image", (7, 5), {"layer_norm": True, "hidden_dims": [], "dropout": 0.3}),
    ],
)
def test_gradients_reach_every_parameter(kind: str, shape: tuple[int, ...], options: dict[str, Any]):
    networks = made(kind, shape, **options)
    batch = rows(shape)
    params = drawn(networks)
    training = Training(batch, jax.random.key(3), CLOCK)
    weight = jax.random.normal(jax.random.key(8), (6, math.prod(shape)))

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def slope(params: Any) -> Any:
        return jax.grad(lambda params: (weight * through(networks, params, batch, training)).sum())(params)

    gradient = slope(params)
    last = networks.sizes[-1]
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        if "kernel" in jax.tree_util.keystr(path) and math.prod(last) == 1:  # some taps see padding alone
            assert np.any(leaf != 0), path
        else:
            assert np.mean(np.asarray(leaf) != 0) > 0.6, path


def test_a_layer_is_normalised_over_positions_and_channels():
    networks = made(layer_norm=True, activation="linear", hidden_dims=[], channels=[4], strides=[1], kernel_size=1)
    params, batch = fresh(networks), rows((7, 5))
    louder = dataclasses.replace(batch, x=7 * batch.x)
    np.testing.assert_allclose(networks.encode(params, louder, 3), networks.encode(params, batch, 3), atol=1e-4)
    half = dataclasses.replace(batch, x=batch.x.at[:, :4].multiply(7))  # all positions have one mean and one variance
    assert np.abs(networks.encode(params, half, 3) - networks.encode(params, batch, 3)).max() > 0.1
    assert params["encoder"]["norm_0"]["scale"].shape == (4,)


def test_one_structure_when_built_twice():
    first, second = made(), made()
    assert first == second
    assert structure(first) == structure(second)
    assert hash(structure(first)) == hash(structure(second))
    assert structure(first) != structure(made(dropout=0.1))
    assert structure(first) != structure(made(kind="sequence"))
    assert jax.tree.leaves(first) == []
    assert build(plain(first)) == build(SETTINGS, ConvolutionalNetworks)


def test_other_widths_are_in_proportion():
    networks = made(channels=[4, 6], hidden_dims=[10]).resized(6)
    assert (networks.channels, networks.hidden_dims) == ((6, 9), (15,))
    least = networks.resized(1)
    assert (least.channels, least.hidden_dims) == ((1, 2), (2,))


def test_uses_count_the_positions_of_a_kernel():
    """Multiply-adds of one example, forwards, over parameters; biases aside."""
    networks = made("image", (7, 5), channels=[4, 6], kernel_size=3, hidden_dims=[])
    kernels, dense = [9 * 4, 9 * 4 * 6], 2 * 2 * 6 * 3
    assert networks.sizes == ((7, 5), (4, 3), (2, 2))
    expected = (12 * kernels[0] + 4 * kernels[1] + dense) / (sum(kernels) + dense)
    assert networks.uses == round(expected) == 4
    assert made("image", (28, 28), channels=[32], strides=[1], latent_dim=1).uses > 1
    assert made("sequence", (1, 2)).uses == 1

    @functools.partial(jax.jit, static_argnums=0)
    def forwards(networks: ConvolutionalNetworks, params: Any, x: jax.Array) -> jax.Array:
        return through(networks, params, Examples(x=x))

    params, x = fresh(networks), rows((7, 5), 8).x
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    costs: Any = forwards.lower(networks, params, x).compile().cost_analysis()
    assert costs["flops"] == pytest.approx(2 * 8 * size * networks.uses, rel=0.5)


# ---------------------------------------------------------------------------------------- labels, dropout and the mean


@pytest.mark.parametrize(("kind", "shape"), [("sequence", (6, 2)), ("image", (6, 5)), ("image", (6, 5, 2))])
def test_a_label_is_a_channel_at_every_position(kind: str, shape: tuple[int, ...]):
    networks = made(kind, shape, conditional=True, channels=[4], strides=[1], kernel_size=1, hidden_dims=[])
    batch = rows(shape, 6)  # as many rows as steps: an axis too few would not be noticed by its size
    params = jax.device_get(fresh(networks))
    kernel = np.zeros_like(params["encoder"]["layer_0"]["kernel"])
    assert kernel.shape[-2] == networks.data_channels + 3
    kernel[..., -3:, :] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    params["encoder"]["layer_0"]["kernel"] = kernel
    params["encoder"]["dense"]["output"]["kernel"] = np.ones_like(params["encoder"]["dense"]["output"]["kernel"])
    positions = math.prod(shape[: networks.axes])

    def encoded(batch: Examples) -> tuple[jax.Array, jax.Array]:
        alone = [jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], batch) for row in range(6)]
        one_by_one = [networks.encode(params, row, 3)[0] for row in alone]
        return networks.encode(params, batch, 3), jnp.stack(one_by_one)

    whole, one_by_one = quickly(encoded, batch)
    np.testing.assert_allclose(whole, positions * np.tanh(1), rtol=1e-5)
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-5)


def test_labels_reach_encoder_and_decoder():
    networks, batch = made(conditional=True), rows((7, 5))
    params = fresh(networks)

    def both(label: jax.Array) -> tuple[jax.Array, jax.Array]:
        labelled = dataclasses.replace(batch, label=label)
        return networks.encode(params, labelled, 3), networks.decode(params, jnp.ones((6, 3)), label, LIKELIHOOD)

    (code, first), (other, second) = quickly(lambda label: (both(label), both((label + 1) % 3)), batch.label)
    assert np.abs(code - other).min() > 0
    assert np.abs(first - second).max(1).min() > 0
    with pytest.raises(ConfigError, match="give a label"):
        networks.encode(params, dataclasses.replace(batch, label=None), 3)


@pytest.mark.parametrize("hidden_dims", [[], [5]])  # of feature maps alone, and of dense layers too
def test_dropout_is_of_training_alone(hidden_dims: list[int]):
    networks, without = (made(dropout=share, hidden_dims=hidden_dims) for share in (0.5, 0.0))
    batch = rows((7, 5))
    params = fresh(networks)
    z = jax.random.normal(jax.random.key(4), (6, 3))
    calls: dict[str, Callable[..., jax.Array]] = {
        "encode": lambda networks, training: networks.encode(params, batch, 3, training),
        "decode": lambda networks, training: networks.decode(params, z, None, LIKELIHOOD, training=training),
    }
    keys = jax.random.split(jax.random.key(0), 8)
    for name, call in calls.items():

        def outputs(keys: jax.Array, same: jax.Array, call: Callable[..., jax.Array] = call) -> tuple[jax.Array, ...]:
            drawn = jax.vmap(lambda key: call(networks, Training(batch, key, CLOCK)))
            never = call(without, Training(batch, keys[0], CLOCK))
            return call(networks, None), call(without, None), never, drawn(keys), drawn(same)

        evaluated, plain, never, first, again = quickly(outputs, keys, keys)
        np.testing.assert_array_equal(evaluated, plain, err_msg=name)
        np.testing.assert_array_equal(never, plain, err_msg=name)
        np.testing.assert_array_equal(first, again, err_msg=name)
        assert np.abs(first[0] - first[1]).max() > 1e-3, name
        assert (np.std(first, axis=0) > 0).all(), name


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_a_decoder_starts_at_the_mean_of_every_channel(kind: str, shape: tuple[int, ...]):
    networks, batch = made(kind, shape), rows(shape)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def outputs(params: Any) -> tuple[jax.Array, jax.Array]:
        """The bias, and what a decoder gives that does not hear its code."""
        decoder = networks.with_output_bias(params, LIKELIHOOD, batch)["decoder"]
        deaf = {**decoder, "dense": jax.tree.map(jnp.zeros_like, decoder["dense"])}
        return decoder["output"]["bias"], networks.decode({"decoder": deaf}, jnp.ones((2, 3)), None, LIKELIHOOD)

    bias, decoded = outputs(fresh(networks))
    mean = np.asarray(batch.x).reshape(-1, networks.data_channels).mean(0)
    np.testing.assert_allclose(bias, mean, rtol=1e-5)
    expected = np.broadcast_to(mean, (2, math.prod(shape) // len(mean), len(mean)))
    np.testing.assert_allclose(np.asarray(decoded).reshape(expected.shape), expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ refusals

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"channels": [], "strides": []}, "channels", "at least one"),
    ({"strides": [2]}, "strides", "give 2"),
    ({"activation": "rleu"}, "activation", "did you mean 'relu'"),
    ({"kernel_init": "he"}, "kernel_init", "known"),
    ({"kernel_size": 0}, "kernel_size", "must"),
    ({"strides": [2, 0]}, "strides[1]", "must"),
    ({"dropout": 1.0}, "dropout", "must"),
]


@pytest.mark.parametrize(("options", "key", "words"), REFUSED)
def test_settings_are_refused(options: dict[str, Any], key: str, words: str):
    with pytest.raises(ConfigError) as error:
        build(SETTINGS | options, ConvolutionalNetworks)
    assert error.value.key == key
    assert words in str(error.value)


@pytest.mark.parametrize(("kind", "shape"), [("vector", (5,)), ("image", (4, 4, 4, 1))])
def test_data_without_time_or_rows_and_columns_are_refused(kind: str, shape: tuple[int, ...]):
    with pytest.raises(ConfigError, match=r"sequences .* or images .*\(model=dense_ae"):
        made(kind, shape)


def test_labels_that_are_not_there_are_refused():
    unlabelled = dataclasses.replace(facts_of("image", (7, 5)), classes=0)
    with pytest.raises(ConfigError, match="no labels"):
        build(SETTINGS | {"conditional": True}, ConvolutionalNetworks).bind(unlabelled)


@pytest.mark.parametrize("gap", ["length", "observed"])
def test_padding_and_missing_values_are_refused(gap: str):
    networks, batch = made("sequence", (7, 2)), rows((7, 2))
    params = fresh(networks)
    gaps: Any = {"length": jnp.full(6, 7), "observed": jnp.ones(batch.x.shape, bool)}[gap]
    with pytest.raises(ConfigError, match="padding and missing values"):
        networks.encode(params, dataclasses.replace(batch, **{gap: gaps}), 3)
    assert not networks.takes_masks
