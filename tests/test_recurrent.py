"""Recurrent networks: every cell by its formula, unrolled, padded, one step at a time, with dropout; their width."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import Examples, Facts
from research.networks.cells import CELLS
from research.networks.earlier import GRU_GATES, gates_apart
from research.networks.layers import Layers
from research.networks.sizing import count, resized
from research.networks.steps import flip, summarize
from research.tree import ConfigError, plain, structure

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
ROWS, STEPS, INPUTS, HIDDEN = 4, 5, 3, 4
X = jax.random.normal(jax.random.key(0), (ROWS, STEPS, INPUTS))
LENGTH = jnp.array([5, 2, 4, 1])
FACTS = Facts("sequence", (STEPS, INPUTS), -3.0, 3.0, 3, 24, 4, 4)


def layers(kind: str, count: int = 1, **options: Any) -> Layers:
    return Layers(kind, HIDDEN, count, **options)


def start(stack: Layers, inputs: int = INPUTS) -> Any:
    """Parameters with no element that is zero."""
    params = stack.init(jax.random.key(1), jnp.zeros((1, 1, inputs)))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [leaf + more for leaf, more in zip(leaves, noise, strict=True)])


@functools.partial(jax.jit, static_argnames="stack", compiler_options=QUICKLY)
def scan(stack: Layers, params: Any, x: Any, length: Any = None, carries: Any = None) -> Any:
    return stack.apply({"params": params}, x, length, carries)


# ------------------------------------------------------------------------------------------------------ cells by hand


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normalize(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale


def side_by_side(params: Any) -> dict[str, Any]:
    """Parameters of a cell with the kernels of all gates in one array."""
    found = {name: value for name, value in params.items() if not name.endswith(GRU_GATES)}
    for name in ("input_kernel", "recurrent_kernel", "bias"):
        if f"{name}_new" in params:
            found[name] = jnp.concatenate([params[f"{name}{end}"] for end in GRU_GATES], -1)
    return found


def by_hand(kind: str, params: Any, x: np.ndarray) -> np.ndarray:
    """States [B, T, H] of one layer, gate by gate in double precision."""
    p = {name: np.asarray(value, np.float64) for name, value in side_by_side(params).items()}
    state = memory = np.zeros((len(x), HIDDEN))
    states = []
    for time in range(x.shape[1]):
        wx, uh = x[:, time] @ p["input_kernel"], state @ p["recurrent_kernel"]
        if "input_scale" in p:
            wx, uh = normalize(wx, p["input_scale"]), normalize(uh, p["recurrent_scale"])
        wx = wx + p["bias"]
        w, u = (np.split(both, both.shape[1] // HIDDEN, axis=1) for both in (wx, uh))
        match kind:
            case "rnn":
                state = np.tanh(w[0] + u[0])
            case "irnn":
                state = np.maximum(w[0] + u[0], 0)
            case "gru":
                reset, update = sigmoid(w[0] + u[0]), sigmoid(w[1] + u[1])
                state = (1 - update) * np.tanh(w[2] + reset * (u[2] + p["recurrent_bias"])) + update * state
            case _:
                enter, forget, leave = (sigmoid(w[gate] + u[gate]) for gate in range(3))
                memory = forget * memory + enter * np.tanh(w[3] + u[3])
                state = leave * np.tanh(memory)
        states.append(state)
    return np.stack(states, 1)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_their_formulas(kind: str, layer_norm: bool):
    stack = layers(kind, layer_norm=layer_norm)
    params = start(stack)
    states, ends = scan(stack, params, X)
    np.testing.assert_allclose(states, by_hand(kind, params["layer_0"], np.asarray(X, np.float64)), atol=1e-5)
    np.testing.assert_array_equal(states[:, -1], ends[0][0])


def of_flax(kind: str, own: Any) -> tuple[Any, Any]:
    """The cell of flax with our weights; its gates have names, and biases that we keep once lie in either product."""
    own = side_by_side(own)
    kernel, recurrent = own["input_kernel"], own["recurrent_kernel"]
    blocks = {"rnn": ["i"], "gru": ["r", "z", "n"], "lstm": ["i", "f", "o", "g"]}[kind]
    params: dict[str, Any] = {}
    for number, gate in enumerate(blocks):
        part = slice(number * HIDDEN, (number + 1) * HIDDEN)
        enter, again = ("i", "h") if kind == "rnn" else (f"i{gate}", f"h{gate}")
        params[enter] = {"kernel": kernel[:, part]}
        params[again] = {"kernel": recurrent[:, part]}
        params[again if kind == "lstm" else enter]["bias"] = own["bias"][part]
    if kind == "gru":
        params["hn"]["bias"] = own["recurrent_bias"]
    make = {"rnn": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[kind]
    return make(HIDDEN), params


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_cells_are_those_of_flax(kind: str):
    stack = layers(kind)
    params = start(stack)
    cell, theirs = of_flax(kind, params["layer_0"])
    expected = jax.jit(nn.RNN(cell).apply, compiler_options=QUICKLY)({"params": {"cell": theirs}}, X)
    np.testing.assert_allclose(scan(stack, params, X)[0], expected, atol=1e-5)


def fresh(kind: str) -> Any:
    return layers(kind).init(jax.random.key(0), X)["params"]["layer_0"]


def test_gates_of_earlier_versions_are_taken_apart():
    params = {"encoder": {"layers": start(layers("gru", count=2))}, "scale": jnp.ones(())}
    cells = {name: side_by_side(cell) for name, cell in params["encoder"]["layers"].items()}
    again = gates_apart({"encoder": {"layers": cells}, "scale": jnp.ones(())})
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert gates_apart(params) == params
    lstm = start(layers("lstm"))
    assert gates_apart(lstm) == lstm


def test_kernels_at_first():
    params = fresh("irnn")
    np.testing.assert_array_equal(params["recurrent_kernel"], np.eye(HIDDEN))
    assert 0 < np.abs(params["input_kernel"]).max() < 0.01
    blocks = np.split(np.asarray(fresh("lstm")["recurrent_kernel"]), 4, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(HIDDEN), atol=1e-5)
    assert np.abs(blocks[0] - blocks[1]).max() > 0.1


def test_the_forget_bias_reaches_the_forget_gates_alone_and_sweeps(build_model):
    models = [build_model("recurrent_predictor", cell="lstm", hidden_dim=4, forget_bias=b).bind(FACTS) for b in (1, 3)]
    assert structure(models[0]) == structure(models[1])
    for model, forget_bias in zip(models, (1, 3), strict=True):
        bias = model.init(jax.random.key(0), Examples(x=X))["layers"]["layer_0"]["bias"]
        np.testing.assert_array_equal(bias, np.repeat([0.0, forget_bias, 0.0, 0.0], 4))
    gru = build_model("recurrent_predictor", cell="gru", hidden_dim=4, forget_bias=3).bind(FACTS)
    fresh_gru = gru.init(jax.random.key(0), Examples(x=X))["layers"]["layer_0"]
    assert not any(np.any(fresh_gru[f"bias{end}"]) for end in GRU_GATES)


# ----------------------------------------------------------------------------------------------------- stacks of layers


def test_layers_lie_one_upon_the_other():
    stack, single = layers("gru", count=2), layers("gru")
    params = start(stack)
    below = scan(single, {"layer_0": params["layer_0"]}, X)[0]
    expected = scan(single, {"layer_0": params["layer_1"]}, below)[0]
    np.testing.assert_allclose(scan(stack, params, X)[0], expected, atol=1e-6)


def test_the_backward_layer_reads_from_the_end_of_each_row():
    stack, single = layers("gru", bidirectional=True), layers("gru")
    params = start(stack)
    states, _ = scan(stack, params, X, LENGTH)
    backward, _ = scan(single, {"layer_0": params["layer_0_backward"]}, flip(X, LENGTH))
    last = summarize(states, LENGTH, "last", HIDDEN)
    for row, length in enumerate(LENGTH):
        expected = np.asarray(backward)[row, :length][::-1]
        np.testing.assert_allclose(states[row, :length, HIDDEN:], expected, atol=1e-6)
        np.testing.assert_allclose(last[row, HIDDEN:], expected[0], atol=1e-6)
        np.testing.assert_array_equal(last[row, :HIDDEN], states[row, length - 1, :HIDDEN])


def test_padding_changes_no_valid_state():
    stack = layers("lstm", count=2, bidirectional=True)
    params = start(stack)
    garbage = jnp.where(jnp.arange(STEPS)[None, :, None] < LENGTH[:, None, None], X, 7.0)
    for row, length in enumerate(LENGTH):
        alone = scan(stack, params, X[row : row + 1, :length])[0][0]
        np.testing.assert_allclose(scan(stack, params, garbage, LENGTH)[0][row, :length], alone, atol=1e-6)


def test_a_stack_without_inputs_is_driven_by_its_first_carry():
    stack = layers("rnn")
    params = start(stack, inputs=0)
    assert "input_kernel" not in params["layer_0"]
    first = jnp.linspace(-1, 1, ROWS * HIDDEN).reshape(ROWS, HIDDEN)
    states, _ = scan(stack, params, jnp.zeros((ROWS, STEPS, 0)), None, ((first,),))
    own, state = params["layer_0"], np.asarray(first)
    for time in range(STEPS):
        state = np.tanh(state @ np.asarray(own["recurrent_kernel"]) + np.asarray(own["bias"]))
        np.testing.assert_allclose(states[:, time], state, atol=1e-5)


@pytest.mark.parametrize("kind", CELLS)
def test_an_unrolled_scan_agrees(kind: str):
    options: dict[str, Any] = {"count": 2, "layer_norm": True, "bidirectional": kind in ("gru", "rnn")}
    params = start(layers(kind, **options))
    plain = scan(layers(kind, **options), params, X, LENGTH)
    other = scan(layers(kind, **options, unroll=3), params, X, LENGTH)
    for ours, theirs in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_dropout_is_the_same_at_all_steps_and_only_in_training():
    stack = layers("gru", count=1, dropout=0.5)
    params = start(stack)
    key = {"dropout": jax.random.key(3)}
    whole, _ = stack.apply({"params": params}, X)
    np.testing.assert_allclose(whole, scan(layers("gru"), params, X)[0], atol=1e-6)
    dropped = np.asarray(stack.apply({"params": params}, X, training=True, rngs=key)[0])
    gone = dropped == 0
    assert 0 < gone.mean() < 1
    np.testing.assert_array_equal(gone, np.broadcast_to(gone[:, :1], gone.shape))
    np.testing.assert_allclose(dropped[~gone], 2 * np.asarray(whole)[~gone], rtol=1e-6)
    # padding draws nothing
    longer = jnp.concatenate([X, jnp.ones((ROWS, 2, INPUTS))], 1)
    np.testing.assert_allclose(
        stack.apply({"params": params}, longer, training=True, rngs=key)[0][:, :STEPS], dropped, atol=1e-6
    )


def test_a_push_on_the_states_is_felt_by_all_later_ones():
    stack = layers("gru", count=2)
    params = start(stack)

    shapes = jax.eval_shape(stack.init, jax.random.key(0), X)["perturbations"]
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape), shapes)

    def last(pushes: Any, x: Any) -> jax.Array:
        return stack.apply({"params": params, "perturbations": pushes}, x)[0][:, -1].sum()

    slopes = np.asarray(jax.jit(jax.grad(last), compiler_options=QUICKLY)(zeros, X)["layer_1"]["state"])
    assert slopes.shape == (ROWS, STEPS, HIDDEN)
    assert (np.abs(slopes).max((0, 2)) > 0).all()
    np.testing.assert_array_equal(slopes[:, -1], 1.0)


def test_flip_and_summaries():
    x = jnp.arange(8.0).reshape(2, 4, 1)
    np.testing.assert_array_equal(flip(x, None)[..., 0], [[3, 2, 1, 0], [7, 6, 5, 4]])
    np.testing.assert_array_equal(flip(x, jnp.array([3, 1]))[..., 0], [[2, 1, 0, 3], [4, 5, 6, 7]])
    length = jnp.array([3, 1])
    for how, whole, part in (("last", [3, 7], [2, 4]), ("mean", [1.5, 5.5], [1, 4]), ("max", [3, 7], [2, 4])):
        np.testing.assert_array_equal(summarize(x, None, how)[:, 0], whole)
        np.testing.assert_array_equal(summarize(x, length, how)[:, 0], part)
    negative = summarize(x - 10, length, "max")
    np.testing.assert_array_equal(negative[:, 0], [-8, -6])  # padding never counts, not even as a zero


# ----------------------------------------------------------------------------------------------- width and parameters

FORECAST = {"target_shape": (3, INPUTS), "target_follows": True}
SIZED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dense_ae", {"hidden_dims": [64, 32], "conditional": True}, {}),
    ("convolutional_ae", {"channels": [16, 32], "hidden_dims": [64], "conditional": True}, {}),
    (
        "convolutional_vae",
        {"channels": [8], "strides": [3], "likelihood": "gaussian"},
        {"kind": "image", "feature_shape": (7, 5)},
    ),
    ("recurrent_ae", {"cell": "lstm", "decoder": "first_state", "layers": 2}, {}),
    ("recurrent_ae", {"bidirectional": True, "layer_norm": True}, {}),
    ("recurrent_vae", {"scale": None}, {}),
    ("recurrent_predictor", {}, {}),
    ("recurrent_forecaster", {"decoding": "parallel", "embedding": 7}, FORECAST),
    ("recurrent_gan", {"generator_activation": "linear"}, {}),
]


def width_of(model: Any) -> int:
    made = plain(model)
    first = next(
        made[key] for key in ("channels", "hidden_dims", "hidden_dim") if isinstance(made.get(key), int | list)
    )
    return first[0] if isinstance(first, list) else first


@pytest.mark.parametrize(("name", "options", "facts"), SIZED, ids=lambda value: str(value).replace(" ", ""))
def test_parameters_choose_the_nearest_width(name: str, options: dict[str, Any], facts: dict[str, Any], build_model):
    bound = dataclasses.replace(FACTS, **facts)
    build = functools.partial(build_model, name, **options)
    wanted = 1000
    model = build(parameters=wanted).bind(bound)
    first, part = width_of(model), "networks" if hasattr(model, "networks") else "recurrent"
    below, found, above = (count(resized(model, part, width)) for width in (first - 1, first, first + 1))
    assert below < wanted < above
    assert abs(found - wanted) <= min(wanted - below, above - wanted)
    rows = Examples(x=jnp.zeros((ROWS, *bound.feature_shape)), label=jnp.arange(ROWS) % 3)
    params = jax.eval_shape(model.init, jax.random.key(0), rows)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == found
    with pytest.raises(ConfigError, match="at least") as error:
        build(parameters=3).bind(bound)
    assert error.value.key == "parameters"


def test_a_possible_number_of_parameters_is_met_exactly(build_model):
    build = functools.partial(build_model, "recurrent_predictor", cell="rnn")
    for width in (1, 2, 3, 37):
        number = count(build(hidden_dim=width).bind(FACTS))
        assert build(parameters=number).bind(FACTS).recurrent.hidden_dim == width
