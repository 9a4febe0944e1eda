"""Contracts over every shipped model: finite, trainable in every part, vectorised, compiled once; its refusals."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from research.clock import Clock
from research.data import Examples, Facts
from research.distributions import LIKELIHOODS
from research.engine import Model
from research.networks.dense import ACTIVATIONS, INITIALIZERS, activation
from research.tree import ConfigError, stack, structure

CONF = Path(__file__).parents[1] / "conf" / "model"
SHIPPED = {path.stem: dict(OmegaConf.load(path)) for path in sorted(CONF.glob("*.yaml"))}  # type: ignore[call-overload]
# most of the time goes into compiling, and here the speed of the program is of no consequence
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SMALL = {"latent_dim": 2, "hidden_dims": [4], "hidden_dim": 4, "activation": "tanh", "levels": 3}
FACTS = Facts("vector", (5,), 0.0, 1.0, 3, 6, 2, 2)
BATCH = Examples(
    x=jax.random.uniform(jax.random.key(5), (6, 5)).round(1), label=jnp.arange(6) % 3
)  # every class, and tenths
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 6)))
OPTIONS: list[dict[str, Any]] = [
    *({"likelihood": name} for name in LIKELIHOODS),  # each model's own among them
    *({"likelihood": name, "scale": None} for name in ("gaussian", "laplace", "huber")),
    {"gated": True, "layer_norm": True},
    {"conditional": True},
    {"hidden_dims": []},
    {"hidden_dims": [4, 3], "kernel_init": "orthogonal"},
    {"gaussian_noise": 0.1, "masking_noise": 0.3},
    {"activity_l1": 0.1},
    {"contractive": 0.1, "contractive_probes": 2, "conditional": True},
    {"contractive": 0.1, "hidden_dims": [], "code_activation": "sigmoid", "conditional": True},
    {"warmup": "linear", "warmup_epochs": 5},
    {"warmup": "cyclical"},
    {"free_bits": 0.01},
    {"capacity": 2.0, "capacity_epochs": 5.0, "gamma": 3.0},
    {"samples": 3, "conditional": True},
    {"bound": "iwae", "samples": 3, "beta": 0.5},
    {"bound": "iwae", "samples": 3, "warmup": "linear", "warmup_epochs": 5, "conditional": True},
    {"log_variance_range": [-6, 2]},
]
CASES = [
    pytest.param(name, options, id=f"{name}-" + ",".join(f"{key}={value}" for key, value in options.items()))
    for name, config in SHIPPED.items()
    for options in OPTIONS
    if set(options) <= set(config) and not (name == "vae" and options.get("likelihood") == "mse")
]


def small(build_model, name: str, **options: Any) -> Any:
    keys = {key: value for key, value in SMALL.items() if key in SHIPPED[name]}
    return build_model(name, **(keys | options)).bind(FACTS)


@functools.partial(jax.jit, compiler_options=QUICKLY)
def start(model: Any, seed: Any) -> Any:
    return model.init(jax.random.key(seed), BATCH)


# ----------------------------------------------------------------------------------------------------------- contracts


@pytest.mark.parametrize(("name", "options"), CASES)
def test_contract(name: str, options: dict[str, Any], build_model):
    first, second = (small(build_model, name, **options) for _ in range(2))
    assert first == second
    assert hash(structure(first)) == hash(structure(second))
    assert isinstance(first, Model)
    # two members whose numbers differ, as a sweep stacks them
    changed = jax.tree.map(lambda number: number * 0.9, second)
    models, params = stack([first, changed]), stack([start(first, 0), start(second, 1)])
    traces = []

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def everything(models: Any, params: Any, seed: Any) -> Any:
        traces.append(seed)
        key = jax.random.key(seed)

        def one(model: Any, params: Any) -> Any:
            loss = jax.value_and_grad(model.loss, has_aux=True)(params, BATCH, key, CLOCK)
            return loss, model.evaluate(params, BATCH, jax.random.split(key, len(BATCH)))

        return jax.vmap(one)(models, params)

    ((loss, metrics), gradient), scores = everything(models, params, 0)
    assert loss.shape == (2,)
    assert np.isfinite(loss).all()
    for metric, value in metrics.items():
        assert value.shape == (2,), metric
        assert np.isfinite(value).all(), metric
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        for member in leaf:
            assert np.isfinite(member).all(), path
            assert np.any(member != 0), f"nothing reaches {jax.tree_util.keystr(path)}"
    assert "loss" in scores
    for metric, value in scores.items():
        assert value.shape == (2, len(BATCH)), metric
        assert np.isfinite(value).all(), metric
    everything(stack([changed, first]), params, 1)
    assert len(traces) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_evaluation_is_per_example(name: str, build_model):
    """A score depends on the example and its key, not on its neighbours."""
    model = small(build_model, name)
    params = start(model, 0)
    keys = jax.random.split(jax.random.key(1), 6)
    order = np.array([4, 0, 2])
    whole, part = model.evaluate(params, BATCH, keys), model.evaluate(params, BATCH.take(order), keys[order])
    for metric, values in whole.items():
        np.testing.assert_allclose(part[metric], values[order], rtol=1e-5, atol=1e-6, err_msg=metric)


@pytest.mark.parametrize("name", SHIPPED)
def test_abilities_keep_the_shape_of_the_data(name: str, build_model):
    batch = Examples(x=jnp.linspace(0, 1, 3 * 4).reshape(3, 2, 2, 1))
    facts = dataclasses.replace(FACTS, kind="image", feature_shape=(2, 2, 1))
    keys = {key: value for key, value in SMALL.items() if key in SHIPPED[name]}
    model = build_model(name, **keys).bind(facts)
    params = model.init(jax.random.key(0), batch)
    code = model.encode(params, batch)
    assert code.shape == (3, 2)
    assert model.decode(params, code).shape == model.reconstruct(params, batch).shape == batch.x.shape
    if hasattr(model, "sample"):
        assert model.sample(params, jax.random.key(1), 7).shape == (7, 2, 2, 1)


@pytest.mark.parametrize("name", SHIPPED)
def test_training_starts_at_the_mean_of_the_data(name: str, build_model):
    model = small(build_model, name)
    decoded = model.decode(start(model, 0), jnp.zeros((1, 2)))
    np.testing.assert_allclose(decoded[0], BATCH.x.mean(0), atol=1e-5)
    plain = small(build_model, name, output_bias="zero")
    assert np.abs(plain.decode(start(plain, 0), jnp.zeros((1, 2)))[0] - BATCH.x.mean(0)).max() > 0.01


def test_labels_reach_encoder_and_decoder(build_model):
    for name in SHIPPED:
        model = small(build_model, name, conditional=True)
        params = start(model, 0)
        other = dataclasses.replace(BATCH, label=(BATCH.label + 1) % 3)
        assert np.abs(model.encode(params, BATCH) - model.encode(params, other)).min() > 0
        code = jnp.zeros((6, 2))
        changed = model.decode(params, code, BATCH.label) - model.decode(params, code, other.label)
        assert np.abs(changed).min() > 0
        with pytest.raises(ConfigError, match="give a label"):
            model.encode(params, dataclasses.replace(BATCH, label=None))


def test_noise_spoils_the_input_and_not_the_target(build_model):
    clean = small(build_model, "dense_ae", hidden_dims=[])
    params = start(clean, 0)
    params["encoder"]["output"]["kernel"] *= 0  # what the encoder sees is of no consequence
    key = jax.random.key(0)
    for option in ("gaussian_noise", "masking_noise"):
        noisy = small(build_model, "dense_ae", hidden_dims=[], **{option: 0.5})
        assert float(noisy.loss(params, BATCH, key, CLOCK)[0]) == pytest.approx(
            float(clean.loss(params, BATCH, key, CLOCK)[0]), rel=1e-6
        )
        seen = start(noisy, 0)
        assert noisy.loss(seen, BATCH, key, CLOCK)[0] != clean.loss(seen, BATCH, key, CLOCK)[0]
        scores = [model.evaluate(seen, BATCH, jax.random.split(key, 6))["loss"] for model in (clean, noisy)]
        np.testing.assert_array_equal(*scores)  # evaluation is without noise


# ------------------------------------------------------------------------------------------------------------ networks


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


def test_gates(build_model):
    """f(a) sigmoid(b) by hand."""
    from research.networks.dense import DenseStack

    stack_ = DenseStack((2,), 1, "tanh", True, False, "lecun_normal")
    x = jnp.array([[0.5, -1.0, 2.0]])
    params = stack_.init(jax.random.key(0), x)
    hidden, output = params["params"]["hidden_0"], params["params"]["output"]  # type: ignore[index]
    both = np.asarray(x @ hidden["kernel"])
    expected = (np.tanh(both[:, :2]) / (1 + np.exp(-both[:, 2:]))) @ np.asarray(output["kernel"])
    np.testing.assert_allclose(stack_.apply(params, x), expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("dense_ae", {"latent_dim": 0}, "latent_dim"),
        ("dense_ae", {"hidden_dims": [3, 0]}, "hidden_dims"),
        ("dense_ae", {"activation": "rellu"}, "activation"),
        ("dense_ae", {"code_activation": "softmax"}, "code_activation"),
        ("dense_ae", {"kernel_init": "zeros"}, "kernel_init"),
        ("dense_ae", {"masking_noise": 1.0}, "masking_noise"),
        ("dense_ae", {"contractive": -1.0}, "contractive"),
        ("dense_ae", {"contractive_probes": 0}, "contractive_probes"),
        ("dense_ae", {"likelihood": "bernouli"}, "likelihood"),
        ("vae", {"likelihood": "mse"}, "likelihood"),
        ("vae", {"beta": -1.0}, "beta"),
        ("vae", {"samples": 0}, "samples"),
        ("vae", {"cycles": 0}, "cycles"),
        ("vae", {"warmup": "linear"}, "warmup_epochs"),
        ("vae", {"free_bits": 0.1, "capacity": 1.0}, "capacity"),
        ("vae", {"bound": "iwae", "free_bits": 0.1}, "bound"),
        ("vae", {"log_variance_range": [2, -6]}, "log_variance_range"),
    ],
)
def test_impossible_settings_are_refused(name: str, options: dict[str, Any], key: str, build_model):
    with pytest.raises(ConfigError) as error:
        build_model(name, **options)
    assert error.value.key == f"model.{key}"


def test_impossible_data_are_refused(build_model):
    for name in SHIPPED:
        with pytest.raises(ConfigError, match="minmax"):
            build_model(name, likelihood="bernoulli").bind(dataclasses.replace(FACTS, low=-1.0))
        with pytest.raises(ConfigError, match="no labels"):
            build_model(name, conditional=True).bind(dataclasses.replace(FACTS, classes=0))
