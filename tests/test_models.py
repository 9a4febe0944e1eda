"""Contracts over every shipped model: finite, trainable in every part, vectorised, compiled once; its refusals."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs import names, products, shipped

from research.clock import Clock
from research.data import Examples, Facts
from research.distributions import LIKELIHOODS
from research.inputs import Model
from research.metrics import dependencies
from research.models.abilities import Decodes, Forecasts, Predicts, Samples, able
from research.precision import with_bfloat16_products
from research.tree import ConfigError, stack, structure

SHIPPED = {name: shipped("model", name) for name in names("model")}
# Compiling takes most of the time, and the speed of the program does not matter here.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SMALL = {"latent_dim": 2, "hidden_dims": [4], "hidden_dim": 4, "activation": "tanh", "levels": 3, "noise_dim": 2}
SMALL |= {
    "discriminator_dims": [4],
    "pseudo_inputs": 3,
    "top_dim": 2,
    "top_hidden_dims": [3],
    "entries": 3,
    "groups": 2,
}
SMALL_CONVOLUTIONAL = {"channels": [3, 4], "kernel_size": 2, "hidden_dims": []}  # forecasters have other `channels`
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 6)))


# -------------------------------------------------------------------------------------------- data of every kind, cases


def draw(seed: int, *shape: int) -> jax.Array:
    """Tenths in [0, 1]."""
    return jax.random.uniform(jax.random.key(seed), shape).round(1)


LENGTH = jnp.array([4, 3, 4, 2, 4, 1])
OBSERVED = jax.random.bernoulli(jax.random.key(6), 0.8, (6, 4, 2))
LATER = jax.random.bernoulli(jax.random.key(7), 0.8, (6, 3, 2))
FACTS = Facts("vector", (5,), 0.0, 1.0, 3, 6, 2, 2, counts=True)  # so that likelihoods of counts are tried, too
SEQUENCE = dataclasses.replace(FACTS, kind="sequence", feature_shape=(4, 2), target_high=1.0)
ROWS = Examples(x=draw(5, 6, 4, 2), label=jnp.arange(6) % 3)
GAPS = dataclasses.replace(ROWS, length=LENGTH, observed=OBSERVED)
GAPS = dataclasses.replace(GAPS, x=jnp.where(GAPS.mask, GAPS.x, 0.0))
FUTURE = dataclasses.replace(SEQUENCE, target_shape=(3, 2), target_follows=True, season=2)
DATA: dict[str, tuple[Facts, Examples]] = {
    "vectors": (FACTS, Examples(x=draw(5, 6, 5), label=jnp.arange(6) % 3)),  # every class, and tenths
    "images": (
        dataclasses.replace(FACTS, kind="image", feature_shape=(4, 3, 2)),
        Examples(x=draw(5, 6, 4, 3, 2), label=jnp.arange(6) % 3),
    ),
    "sequences": (SEQUENCE, GAPS),
    "whole_sequences": (SEQUENCE, ROWS),
    "values": (
        dataclasses.replace(SEQUENCE, target_shape=(3,)),
        dataclasses.replace(GAPS, target=draw(8, 6, 3)),
    ),
    "step_classes": (
        dataclasses.replace(SEQUENCE, target_shape=(4,), target_classes=3),
        dataclasses.replace(GAPS, target=jax.random.randint(jax.random.key(8), (6, 4), 0, 3)),
    ),
    "step_values": (
        dataclasses.replace(SEQUENCE, target_shape=(4, 2)),
        dataclasses.replace(GAPS, target=draw(8, 6, 4, 2)),
    ),
    "future": (FUTURE, dataclasses.replace(ROWS, target=draw(8, 6, 3, 2))),
    "future_with_gaps": (
        FUTURE,
        Examples(x=jnp.where(OBSERVED, ROWS.x, 0.0), observed=OBSERVED, target=draw(8, 6, 3, 2), target_observed=LATER),
    ),
}


def together(*axes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Options of every axis, each at least once: the longest axis, with the others beside it in turn."""
    number = max(map(len, axes))
    rows = zip(*(itertools.islice(itertools.cycle(axis), number) for axis in axes), strict=True)
    return [functools.reduce(lambda row, options: row | options, parts) for parts in rows]


LAYERS: list[dict[str, Any]] = [
    {"layers": 2, "bidirectional": True, "layer_norm": True, "summary": "mean"},
    {"cell": "lstm", "layers": 2, "summary": "max", "unroll": 3},
]
NETWORKS: list[dict[str, Any]] = [  # recurrent encoders and decoders
    {"cell": "rnn", "decoder": "every_step", "bidirectional": True, "layers": 2, "layer_norm": True, "summary": "mean"},
    {"cell": "irnn", "decoder": "free_running", "reverse": True, "summary": "max"},
    {"cell": "gru", "decoder": "teacher_forced", "teacher_dropout": 0.4, "dropout": 0.2, "hidden_dim": 8},
    {"cell": "lstm", "decoder": "first_state", "layers": 2, "reverse": True, "layer_norm": True, "conditional": True},
    {"cell": "rnn", "decoder": "teacher_forced", "reverse": True, "bidirectional": True},
    {"cell": "gru", "decoder": "every_step", "reverse": True, "unroll": 3},
]
LIKELIHOOD: list[dict[str, Any]] = [
    *({"likelihood": name} for name in LIKELIHOODS),
    *({"likelihood": name, "scale": None} for name in ("gaussian", "laplace", "huber")),
]
NATS = [options for options in LIKELIHOOD if options["likelihood"] != "mse"]
DENSE: list[dict[str, Any]] = [
    {"gated": True, "layer_norm": True},
    {"conditional": True},
    {"hidden_dims": []},
    {"hidden_dims": [4, 3], "kernel_init": "orthogonal"},
    {"hidden_dims": [8], "dropout": 0.2},
]
CONVOLUTIONAL: list[dict[str, Any]] = [
    {"layer_norm": True, "strides": [2, 1]},
    {"conditional": True, "dropout": 0.3},
    {"channels": [3], "strides": [3], "hidden_dims": [4, 3], "kernel_init": "orthogonal"},
]
TERMS: list[dict[str, Any]] = [  # of an autoencoder
    {"gaussian_noise": 0.1, "masking_noise": 0.3},
    {"activity_l1": 0.1, "penalty": "mmd"},
    {"contractive": 0.1, "contractive_probes": 2},
    {"code_l2": 0.1, "decoder_l2": 0.1, "penalty": "adversarial"},
    {"code_l2": 0.1, "decoder_gradient": 0.1},
]
VARIATIONAL: list[dict[str, Any]] = [
    {"warmup": "linear", "warmup_epochs": 5, "penalty": "mmd"},
    {"warmup": "cyclical", "penalty": "adversarial"},
    {"free_bits": 0.01, "penalty": "dip_i"},
    {"capacity": 2.0, "capacity_epochs": 5.0, "gamma": 3.0},
    {"samples": 3, "log_variance_range": [-6, 2], "penalty": "total_correlation"},
    {"bound": "iwae", "samples": 3, "warmup": "linear", "warmup_epochs": 5, "beta": 0.5},
    {"prior": "vamp", "penalty": "dip_ii", "conditional": False},
    {"prior": "hierarchical", "samples": 3, "bound": "iwae", "penalty": "factor"},
]
QUANTIZED: list[dict[str, Any]] = [{}, {"codebook": "average", "groups": 1, "conditional": True}]
OBJECTIVES: list[dict[str, Any]] = [
    {"decoding": decoding, "normalize": normalize, "residual": residual, "objective": objective, "channels": channels}
    for decoding, normalize, residual, objective, channels in (
        ("direct", "none", "season", "gaussian", "independent"),
        ("parallel", "last", "season", "mae", "joint"),
        ("recursive", "none", "last", "quantile", "independent"),
        ("recursive", "standard", "none", "mse", "joint"),
    )
]
GAMES: list[dict[str, Any]] = [
    {"game": "non_saturating", "cell": "lstm", "layers": 2, "unroll": 3},
    {"game": "least_squares", "bidirectional": True, "cell": "rnn", "generator_activation": "tanh"},
    {"game": "wasserstein", "gradient_penalty": 10.0, "cell": "irnn", "generator_activation": "linear"},
]
NAMED = ["iwae", "beta_vae", "beta_tc_vae", "dip_vae", "factor_vae", "info_vae", "vamp_vae", "two_layer_vae"]
NAMED += ["wae", "adversarial_ae", "rae", "rnn_ae", "gru_ae", "lstm_ae"]
# model -> kinds of data, and the options that are tried on the first of them (on the others: none)
FAMILIES: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    "dense_ae": (
        ["vectors", "sequences"],
        [
            *together(LIKELIHOOD, DENSE[:2] + DENSE[3:], TERMS),
            {"contractive": 0.1, "hidden_dims": [], "code_activation": "sigmoid", "conditional": True},
        ],
    ),
    "vae": (["vectors", "sequences"], together(NATS, DENSE, VARIATIONAL)),
    **{name: (["vectors"], [{}]) for name in NAMED if "cell" not in SHIPPED[name]},
    "vq_ae": (["vectors", "sequences"], QUANTIZED),
    "convolutional_ae": (["whole_sequences", "images"], together(CONVOLUTIONAL, LIKELIHOOD[::4], TERMS[3:])),
    "convolutional_vae": (["whole_sequences", "images"], together(CONVOLUTIONAL[:2], VARIATIONAL[5:8:2])),
    "convolutional_vq_ae": (["whole_sequences", "images"], QUANTIZED[1:]),
    "recurrent_ae": (
        ["sequences"],
        [*together(NETWORKS, LIKELIHOOD[::2], TERMS), {"code": "step", "conditional": True, "code_l2": 0.1}],
    ),
    **{name: (["sequences"], [{}]) for name in NAMED if "cell" in SHIPPED[name]},
    "recurrent_vae": (["sequences"], together(NETWORKS[1:5], [VARIATIONAL[at] for at in (7, 6, 3, 4)])),
    "recurrent_vq_ae": (["sequences"], [QUANTIZED[1], {"code": "step", "codebook": "average"}]),
    "recurrent_predictor": (
        ["sequences", "values", "step_classes", "step_values"],
        [LAYERS[0], {"cell": "irnn", "dropout": 0.2, "hidden_dim": 8}],
    ),
    "recurrent_forecaster": (
        ["future", "future_with_gaps"],
        [LAYERS[0], *({"segment": 2, "embedding": 3, "dropout": 0.2} | options for options in OBJECTIVES)],
    ),
    "recurrent_gan": (["sequences"], GAMES),
}
CASES = [
    *((name, kinds[0], option) for name, (kinds, options) in FAMILIES.items() for option in options),
    *((name, kind, {}) for name, (kinds, _) in FAMILIES.items() for kind in kinds[1:]),
    ("recurrent_predictor", "values", {"objective": "cross_entropy", **LAYERS[1]}),
    ("recurrent_predictor", "step_values", {"objective": "mae", "bidirectional": True}),
    *(("recurrent_forecaster", "future_with_gaps", {"segment": 2} | OBJECTIVES[index]) for index in (0, 2)),
]


def small(build_model, name: str, kind: str | None = None, **options: Any) -> Any:
    return build_model(name, **(small_keys(name) | options)).bind(DATA[kind or FAMILIES[name][0][0]][0])


def small_keys(name: str) -> dict[str, Any]:
    keys = {key: value for key, value in SMALL.items() if key in SHIPPED[name]}
    return keys | (SMALL_CONVOLUTIONAL if "kernel_size" in SHIPPED[name] else {})


def batch_of(name: str) -> Examples:
    return DATA[FAMILIES[name][0][0]][1]


def start(model: Any, batch: Examples) -> Any:
    """Parameters of the shapes of `init`, in general position. They are drawn by numpy, which compiles nothing."""
    random, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(lambda leaf: random.normal(0.1, 0.5, leaf.shape).astype(leaf.dtype), shapes)


def quickly(function: Any, *arguments: Any) -> Any:
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def having(*keys: str) -> list[str]:
    """Models whose config has these keys."""
    return [name for name, config in SHIPPED.items() if {*keys} <= {*config}]


# ----------------------------------------------------------------------------------------------------------- contracts


def test_every_shipped_model_has_its_cases():
    assert set(FAMILIES) == set(SHIPPED)
    assert {SHIPPED[f"{cell}_ae"]["cell"] for cell in ("rnn", "gru", "lstm")} == {"rnn", "gru", "lstm"}


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_contract(name: str, kind: str, options: dict[str, Any], build_model):
    batch = DATA[kind][1]
    first, second = (small(build_model, name, kind, **options) for _ in range(2))
    assert first == second
    assert hash(structure(first)) == hash(structure(second))
    assert isinstance(first, Model)
    # two members whose numbers differ, as a sweep stacks them
    changed = jax.tree.map(lambda number: number * 0.9, second)
    params = start(first, batch)
    moved = jax.tree.map(lambda leaf: leaf * np.float32(0.9), params)
    traces = []

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def everything(models: Any, params: Any, order: Any) -> Any:
        traces.append(order)
        key = jax.random.key(0)
        rows = jax.tree.map(lambda array: array[order], (batch, jax.random.split(key, len(batch))))

        def one(model: Any, params: Any) -> Any:
            loss = jax.value_and_grad(model.loss, has_aux=True)(params, batch, key, CLOCK)
            return loss, model.evaluate(params, *rows)

        return jax.vmap(one)(models, params)

    def of_members(*members: tuple[Any, Any], order: Any) -> Any:
        models, parameters = zip(*members, strict=True)
        parameters = jax.tree.map(lambda *leaves: np.stack(leaves), *parameters)
        return jax.device_get(everything(stack(models), parameters, order))

    ((loss, metrics), gradient), scores = of_members((first, params), (changed, moved), order=np.arange(6))
    assert loss.shape == (2,)
    assert np.isfinite(loss).all()
    for metric, value in metrics.items():
        assert value.shape == (2,), metric
        assert np.isfinite(value).all(), metric
    if options.get("game") == "wasserstein":  # a critic is a difference of values: its own bias cancels
        bias = gradient["discriminator"]["output"].pop("bias")
        np.testing.assert_allclose(bias, 0, atol=1e-6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        for member in leaf:
            assert np.isfinite(member).all(), path
            assert np.any(member != 0), f"nothing reaches {jax.tree_util.keystr(path)}"
    assert "loss" in scores
    for metric, value in scores.items():
        assert value.shape == (2, len(batch)), metric
        assert np.isfinite(value).all(), metric
    # the members the other way round, and each row beside other rows: the same program, losses and scores
    order = np.array([4, 0, 2, 2, 5, 0])
    ((turned, _), _), others = of_members((changed, moved), (first, params), order=order)
    assert len(traces) == 1
    np.testing.assert_allclose(turned[::-1], loss, rtol=1e-6)
    for metric, value in scores.items():
        np.testing.assert_allclose(others[metric][::-1], value[:, order], rtol=1e-5, atol=1e-6, err_msg=metric)
    # at equal parameters, no number changes the loss that this loss is not said to depend on
    counted = {key.removeprefix("model.") for key in dependencies(type(first), "model").get("loss", ())}
    unscored = jax.tree_util.tree_map_with_path(
        lambda path, number: number if path[-1].name in counted else number * 0.9, first
    )
    _, alike = everything(stack([first, unscored]), stack([params, params]), np.arange(6))
    assert len(traces) == 1
    np.testing.assert_array_equal(*alike["loss"], err_msg="a number that changes the loss must not be `unscored`")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_product_of_a_step_can_be_rounded_to_bfloat16(name: str, build_model):
    batch, model = batch_of(name), small(build_model, name, **dict(FAMILIES[name][1][-1]))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    gradient = jax.value_and_grad(model.loss, has_aux=True)
    trace = lambda function: jax.make_jaxpr(function)(params, batch, jax.random.key(0), CLOCK)
    plain = products(trace(gradient))
    assert plain
    assert products(trace(with_bfloat16_products(gradient))) == [True] * len(plain)


@pytest.mark.parametrize(
    "name", ["dense_ae", "vae", "vq_ae", "recurrent_ae", "recurrent_predictor", "recurrent_forecaster"]
)
def test_the_score_of_a_row_does_not_depend_on_the_number_of_rows(name: str, build_model):
    (kind, *_), (options, *_) = FAMILIES[name]
    batch, model = DATA[kind][1], small(build_model, name, kind, **options)
    params, keys = start(model, batch), jax.random.split(jax.random.key(0), len(batch))
    scores = quickly(model.evaluate, params, batch, keys)
    fewer = quickly(model.evaluate, params, batch.take(np.arange(4)), keys[:4])
    for metric, value in fewer.items():
        np.testing.assert_allclose(value, scores[metric][:4], rtol=1e-5, atol=1e-6, err_msg=metric)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in NAMED] + ["wae", "vamp_vae", "two_layer_vae"])
def test_abilities_keep_the_shape_of_the_data(name: str, build_model):
    facts, batch = DATA[FAMILIES[name][0][0]]
    if facts.kind == "vector":
        batch = Examples(x=jnp.linspace(0, 1, 6 * 4).reshape(6, 2, 2, 1))
        facts = dataclasses.replace(facts, kind="image", feature_shape=(2, 2, 1))
    model = build_model(name, **small_keys(name)).bind(facts)
    params = quickly(model.init, jax.random.key(0), batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    known = {"decode": Decodes, "sample": Samples, "forecast": Forecasts, "predict": Predicts}
    abilities = {name for name, ability in known.items() if able(model, ability)}
    assert abilities

    def shapes(function: Any, *arguments: Any) -> Any:
        return jax.tree.map(lambda array: array.shape, jax.eval_shape(function, params, *arguments))

    if "decode" in abilities:
        assert shapes(model.encode, batch) == (6, 2)
        assert shapes(model.decode, jnp.zeros((6, 2))) == shapes(model.reconstruct, batch) == batch.x.shape
    if "sample" in abilities:
        assert shapes(lambda params, key: model.sample(params, key, 7), jax.random.key(1)) == (7, *facts.feature_shape)
    if "forecast" in abilities:
        assert shapes(lambda *given: model.forecast(*given)[:2], batch) == ((6, 3, 2), (6, 3, 2))
    if "predict" in abilities:
        assert shapes(model.encode, batch) == (6, 4)
        assert shapes(model.predict, batch) == (6, 3)


@pytest.mark.parametrize("name", [name for name in having("output_bias") if name not in NAMED])
def test_training_starts_at_the_mean_of_the_data(name: str, build_model):
    batch = batch_of(name)
    mask = np.ones(batch.x.shape, bool) if batch.mask is None else np.asarray(batch.mask)
    axes = tuple(range(max(1, batch.x.ndim - 1)))  # of sequences and images it is the mean of a channel
    mean = np.asarray(batch.x).sum(axes, where=mask) / mask.sum(axes)

    def first_output(**options: Any) -> Any:
        model = small(build_model, name, **options)
        return quickly(lambda key: model.decode(model.init(key, batch), jnp.zeros((1, 2)))[0], jax.random.key(0))

    decoded = first_output()
    np.testing.assert_allclose(decoded, np.broadcast_to(mean, decoded.shape), atol=1e-5)
    options = {"kernel_init": "orthogonal"} if "kernel_init" in SHIPPED[name] else {}
    assert np.abs(first_output(output_bias="zero", **options) - np.broadcast_to(mean, decoded.shape)).max() > 0.01


@pytest.mark.parametrize("name", [name for name in having("conditional") if name not in NAMED])
def test_labels_reach_encoder_and_decoder(name: str, build_model):
    batch = batch_of(name)
    model = small(build_model, name, conditional=True)
    params = start(model, batch)
    # of discrete codes what they are chosen by: the choice may well be the same
    encode = getattr(model, "code_outputs", model.encode)

    def both(label: Any) -> Any:
        labelled = dataclasses.replace(batch, label=label)
        return encode(params, labelled), model.decode(params, jnp.zeros((6, 2)), label)

    (codes, decoded), (other_codes, other_decoded) = quickly(
        lambda label: (both(label), both((label + 1) % 3)), batch.label
    )
    assert np.abs(codes - other_codes).min() > 0
    assert np.abs(decoded - other_decoded).min() > 0
    with pytest.raises(ConfigError, match="give a label"):
        model.encode(params, dataclasses.replace(batch, label=None))


def test_noise_spoils_the_input_and_not_the_target(build_model):
    clean, batch = small(build_model, "dense_ae", hidden_dims=[]), batch_of("dense_ae")
    params = start(clean, batch)
    params["encoder"]["output"]["kernel"] *= 0  # what the encoder sees is of no consequence
    key = jax.random.key(0)
    for option in ("gaussian_noise", "masking_noise"):
        options: dict[str, Any] = {option: 0.5}
        noisy = small(build_model, "dense_ae", hidden_dims=[], **options)
        assert float(noisy.loss(params, batch, key, CLOCK)[0]) == pytest.approx(
            float(clean.loss(params, batch, key, CLOCK)[0]), rel=1e-6
        )
        seen = start(noisy, batch)
        assert noisy.loss(seen, batch, key, CLOCK)[0] != clean.loss(seen, batch, key, CLOCK)[0]
        scores = [model.evaluate(seen, batch, jax.random.split(key, 6))["loss"] for model in (clean, noisy)]
        np.testing.assert_array_equal(*scores)  # evaluation is without noise


@pytest.mark.parametrize("name", ["dense_ae", "vae", "recurrent_ae", "recurrent_vae", "recurrent_predictor"])
def test_dropout_is_of_the_training_alone(name: str, build_model):
    plain, dropped = (small(build_model, name, dropout=rate) for rate in (0.0, 0.5))
    batch, keys = batch_of(name), jax.random.split(jax.random.key(1), 6)
    params = start(plain, batch)

    def everything(model: Any) -> Any:
        losses = [model.loss(params, batch, jax.random.key(seed), CLOCK)[0] for seed in (0, 1)]
        return model.evaluate(params, batch, keys), losses

    (scores, losses), (dropped_scores, dropped_losses) = quickly(
        lambda *models: [*map(everything, models)], plain, dropped
    )
    for metric, value in scores.items():
        np.testing.assert_array_equal(dropped_scores[metric], value, err_msg=metric)
    assert dropped_losses[0] != losses[0]
    assert dropped_losses[0] != dropped_losses[1]
    if "vae" not in name:
        assert losses[0] == losses[1]  # nothing else is drawn
