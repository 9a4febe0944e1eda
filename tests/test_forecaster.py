"""Forecasts: simple methods as special cases, scales of windows, distributions, and an AR(1) process recovered."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from research import engine
from research.clock import Clock
from research.data import Examples, Facts, Windows
from research.inputs import Budget, Data, JobInputs
from research.models.recurrent_forecaster import last_observed
from research.networks.layers import Layers
from research.tree import ConfigError

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
FACTS = Facts("sequence", (6, 2), -9.0, 9.0, 0, 24, 4, 4, target_shape=(5, 2), target_follows=True, season=3)
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(1.0, 2.0, (4, 6, 2)), jnp.float32)
Y = jnp.asarray(RANDOM.normal(1.0, 2.0, (4, 5, 2)), jnp.float32)
OBSERVED = jnp.asarray(RANDOM.random((4, 6, 2)) < 0.7).at[0, :, 1].set(False)  # a channel of which nothing is known
LATER = jnp.asarray(RANDOM.random((4, 5, 2)) < 0.7).at[1].set(False)  # a row without targets
BATCH = Examples(x=X, target=Y)
GAPS = Examples(x=jnp.where(OBSERVED, X, 0), observed=OBSERVED, target=jnp.where(LATER, Y, 0), target_observed=LATER)
KEYS = jax.random.split(jax.random.key(0), 4)
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 24)))
DECODINGS = ("direct", "parallel", "recursive")
QUANTILES = {"objective": "quantile", "quantiles": [0.1, 0.4, 0.5, 0.9]}


def small(build_model, facts: Facts = FACTS, **options: Any) -> Any:
    return build_model("recurrent_forecaster", **({"hidden_dim": 4, "segment": 2} | options)).bind(facts)


def start(model: Any, zero: bool = False) -> Any:
    """Fresh parameters, or some under which the network says 0."""
    params = model.fresh(jax.random.key(0))
    return params | {"output": jax.tree.map(jnp.zeros_like, params["output"])} if zero else params


def forecast(model: Any, params: Any, batch: Examples) -> Any:
    return jax.jit(model.forecast, compiler_options=QUICKLY)(params, batch)


# ---------------------------------------------------------------------------------------------------- simple methods


@pytest.mark.parametrize(
    ("decoding", "normalize"), [("direct", "none"), ("parallel", "last"), ("recursive", "standard")]
)
def test_simple_methods_are_networks_that_say_nothing(decoding: str, normalize: str, build_model):
    models = {
        residual: small(build_model, decoding=decoding, normalize=normalize, residual=residual)
        for residual in ("none", "last", "season")
    }
    found = {name: forecast(model, start(model, zero=True), BATCH) for name, model in models.items()}
    last, mean = np.repeat(X[:, -1:], 5, 1), np.repeat(X.mean(1, keepdims=True), 5, 1)
    expected = {
        "none": {"none": np.zeros_like(last), "last": last, "standard": mean}[normalize],
        "last": last,
        "season": np.asarray(X)[:, [3, 4, 5, 3, 4]],
    }
    for name, forecasts in found.items():
        np.testing.assert_allclose(forecasts.mean, expected[name], atol=1e-5)
        np.testing.assert_array_equal(forecasts.median, forecasts.mean)


@pytest.mark.parametrize("normalize", ["none", "last", "standard"])
def test_simple_methods_with_missing_values(normalize: str, build_model):
    raw, seen = np.asarray(X), np.asarray(OBSERVED)
    last = np.zeros((4, 1, 2))
    for row, channel in np.ndindex(4, 2):
        known = raw[row, seen[row, :, channel], channel]
        last[row, 0, channel] = known[-1] if len(known) else 0
    np.testing.assert_allclose(last_observed(GAPS.x, OBSERVED), last, atol=1e-6)
    season = np.where(seen, raw, last)[:, [3, 4, 5, 3, 4]]  # a step of which nothing is known repeats the last one
    for residual, expected in (("last", np.repeat(last, 5, 1)), ("season", season)):
        model = small(build_model, normalize=normalize, residual=residual)
        np.testing.assert_allclose(forecast(model, start(model, True), GAPS).mean, expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------- scales of windows


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"normalize": "standard", "decoding": "recursive", "channels": "joint", "embedding": 3}, -0.5),
        ({"normalize": "standard", "decoding": "parallel", "residual": "season", "objective": "gaussian"}, 40.0),
        ({"normalize": "standard", "residual": "last", **QUANTILES}, 7.0),
        ({"normalize": "last", "channels": "joint"}, 1.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [BATCH, GAPS], ids=["whole", "gaps"])
def test_forecasts_have_the_scale_of_their_window(batch: Examples, options: dict[str, Any], scale: float, build_model):
    model = small(build_model, **options)
    params, shift = start(model), jnp.array([5.0, -2.0])[None, None]
    if scale < 0:  # a mirrored window has the mirrored scale, not the mirrored forecast
        scale = -scale
    changed = jnp.where(batch.mask, batch.x * scale + shift, 0) if batch.mask is not None else batch.x * scale + shift
    before, after = (forecast(model, params, dataclasses.replace(batch, x=x)) for x in (batch.x, changed))
    known = np.ones((4, 1, 2), bool) if batch.mask is None else np.asarray(batch.mask).any(1, keepdims=True)
    compare = lambda one, other: np.testing.assert_allclose(
        *(np.where(known, values, 0) for values in (one, other)), rtol=1e-4, atol=1e-4 * scale
    )
    compare(after.mean, before.mean * scale + shift)
    compare(after.median, before.median * scale + shift)
    if before.deviation is not None:
        compare(after.deviation, before.deviation * scale)
    if before.quantiles is not None:
        for level in range(4):
            compare(after.quantiles[..., level], before.quantiles[..., level] * scale + shift)


def test_a_constant_window_keeps_its_scale(build_model):
    model = small(build_model, normalize="standard", objective="gaussian")
    levels = jnp.array([0.0, 1000.1, -3.3, 1e-3])[:, None, None]
    params, constant = start(model), dataclasses.replace(BATCH, x=jnp.broadcast_to(levels, X.shape))
    loss = lambda params: model.loss(params, constant, KEYS[0], CLOCK)[0]
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))
    found = forecast(model, params, constant)
    np.testing.assert_allclose(found.mean - levels, np.broadcast_to(found.mean[:1], Y.shape), atol=1e-3)
    np.testing.assert_allclose(found.deviation, np.broadcast_to(found.deviation[:1], Y.shape), atol=1e-3)


@pytest.mark.parametrize("decoding", DECODINGS)
def test_independent_channels_share_the_network(decoding: str, build_model):
    model = small(build_model, decoding=decoding)
    params = start(model)
    both = forecast(model, params, BATCH).mean
    swapped = forecast(model, params, dataclasses.replace(BATCH, x=X[..., ::-1])).mean
    np.testing.assert_allclose(swapped[..., ::-1], both, atol=1e-6)
    single = small(
        build_model, dataclasses.replace(FACTS, feature_shape=(6, 1), target_shape=(5, 1)), decoding=decoding
    )
    np.testing.assert_allclose(forecast(single, params, Examples(x=X[..., 1:])).mean, both[..., 1:], atol=1e-6)
    joint = small(build_model, decoding=decoding, channels="joint")

    def slope(model: Any, params: Any) -> jax.Array:
        """Of the first channel's forecast with respect to the second channel's past, but for its last value."""
        ahead = lambda x: model.forecast(params, Examples(x=x)).mean[..., 0].sum()
        return jax.jit(jax.grad(ahead), compiler_options=QUICKLY)(X)[:, :-1, 1]

    assert np.any(slope(joint, start(joint)))
    assert not np.any(slope(model, params))


# ----------------------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize(("batch", "normalize"), [(BATCH, "none"), (GAPS, "standard")], ids=["whole", "gaps"])
def test_gaussian_nats_are_those_of_scipy(batch: Examples, normalize: str, build_model):
    model = small(build_model, objective="gaussian", normalize=normalize, residual="last")
    params = start(model)
    found, scores = forecast(model, params, batch), model.evaluate(params, batch, KEYS)
    nats = -scipy.stats.norm.logpdf(np.asarray(batch.target), found.mean, found.deviation)
    there = np.ones_like(nats, bool) if batch.target_observed is None else np.asarray(batch.target_observed)
    np.testing.assert_allclose(scores["loss"], nats.sum((1, 2), where=there), rtol=1e-4, atol=1e-5)


def test_quantiles_ascend_and_their_loss_is_the_pinball_loss(build_model):
    model = small(build_model, **QUANTILES, normalize="last")
    params = start(model)
    found, scores = forecast(model, params, BATCH), model.evaluate(params, BATCH, KEYS)
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    np.testing.assert_array_equal(found.median, found.quantiles[..., 2])
    # a line between neighbouring quantiles of the distribution function, and the tails at its ends
    levels = np.concatenate([[0], model.quantiles, [1]])
    q = np.asarray(found.quantiles)
    q = np.concatenate([q[..., :1], q, q[..., -1:]], -1)
    np.testing.assert_allclose(found.mean, (np.diff(levels) * (q[..., 1:] + q[..., :-1]) / 2).sum(-1), rtol=1e-4)
    own, _, _, _ = model._window(BATCH)
    raw = np.asarray(model.network(params, own)) + np.asarray(X)[:, -1:, :, None]
    assert (np.diff(raw, axis=-1) < 0).any()  # an untrained network's quantiles cross, and are then exchanged
    gap = np.asarray(Y)[..., None] - raw
    pinball = np.where(gap >= 0, gap * np.array(model.quantiles), gap * (np.array(model.quantiles) - 1))
    np.testing.assert_allclose(scores["loss"], pinball.mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"objective": "mse"}, {"objective": "mae"}, {"objective": "gaussian"}, QUANTILES], ids=str
)
@pytest.mark.parametrize("batch", [BATCH, GAPS], ids=["whole", "gaps"])
def test_squared_errors_are_of_the_mean_and_absolute_ones_of_the_median(
    batch: Examples, options: dict[str, Any], build_model
):
    model = small(build_model, **options)
    params = start(model)
    found, scores = forecast(model, params, batch), model.evaluate(params, batch, KEYS)
    there = np.ones(Y.shape, bool) if batch.target_observed is None else np.asarray(batch.target_observed)
    number = np.maximum(there.sum((1, 2)), 1)
    squared = np.square(batch.target - found.mean).sum((1, 2), where=there) / number
    absolute = np.abs(batch.target - found.median).sum((1, 2), where=there) / number
    np.testing.assert_allclose(scores["mse"], squared, rtol=1e-5)
    np.testing.assert_allclose(scores["mae"], absolute, rtol=1e-5)
    if options["objective"] in scores:
        np.testing.assert_allclose(scores["loss"], scores[options["objective"]], rtol=1e-5)


@pytest.mark.parametrize("objective", ["mse", "mae", "gaussian", "quantile"])
def test_missing_values_are_neither_scored_nor_felt(objective: str, build_model):
    model = small(build_model, objective=objective, normalize="standard", residual="season")
    params = start(model)
    train = jax.jit(jax.value_and_grad(model.loss, has_aux=True), compiler_options=QUICKLY)
    expected = train(params, GAPS, KEYS[0], CLOCK)
    garbage = dataclasses.replace(GAPS, x=jnp.where(OBSERVED, X, 99.0), target=jnp.where(LATER, Y, jnp.nan))
    for ours, theirs in zip(*map(jax.tree.leaves, (train(params, garbage, KEYS[0], CLOCK), expected)), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_dropout_is_of_training_alone(build_model):
    plain, model = (small(build_model, dropout=dropout) for dropout in (None, 0.5))
    params = start(plain)
    same = [one.evaluate(params, BATCH, KEYS)["loss"] for one in (plain, model)]
    np.testing.assert_array_equal(*same)
    losses = [float(model.loss(params, BATCH, key, CLOCK)[0]) for key in KEYS[:2]]
    assert len({*losses, float(plain.loss(params, BATCH, KEYS[0], CLOCK)[0])}) == 3


def test_the_parts_of_a_recursion_follow_from_one_another(build_model):
    """Each segment is what the same network says one step ahead, had the ones before come true."""
    model = small(build_model, decoding="recursive", normalize="none", embedding=3)
    params = start(model)
    whole, x = forecast(model, params, BATCH).mean, X
    for piece in range(0, 5, 2):
        longer = dataclasses.replace(FACTS, feature_shape=(x.shape[1], 2), target_shape=(2, 2))
        ahead = small(build_model, longer, decoding="recursive", normalize="none", embedding=3)
        following = forecast(ahead, params, Examples(x=x)).mean
        np.testing.assert_allclose(whole[:, piece : piece + 2], following[:, : 5 - piece], atol=1e-5)
        x = jnp.concatenate([x, following], 1)


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "facts", "key", "words"),
    [
        ({}, {"target_shape": None}, "", "horizon"),
        ({}, {"target_follows": False}, "", "horizon"),
        ({}, {"target_shape": (6,), "target_classes": 3, "target_follows": False}, "", "horizon"),
        ({"segment": 4}, {}, "segment", "3 would divide"),
        ({"residual": "season"}, {"season": None}, "residual", "data.season"),
        ({"residual": "season"}, {"season": 7}, "residual", "longer than the window"),
    ],
)
def test_data_without_a_fitting_future_are_refused(
    options: dict[str, Any], facts: dict[str, Any], key: str, words: str, build_model
):
    with pytest.raises(ConfigError) as error:
        small(build_model, dataclasses.replace(FACTS, **facts), **options)
    assert error.value.key == key
    assert words in str(error.value)


# -------------------------------------------------------------------------------------------------- a known process


def test_the_coefficient_of_an_autoregressive_process_is_recovered(
    build_model, build_optimizer, build_trainer, make_dataset
):
    """x_t = 0.8 x_(t-1) + e: with nothing but the cell's near-linear middle, the forecast is least squares' own."""
    random, coefficient = np.random.default_rng(1), 0.8
    series = np.zeros(600, np.float32)
    for time in range(1, 600):
        series[time] = coefficient * series[time - 1] + 0.05 * random.normal()
    series = series[:, None]
    first = np.arange(590, dtype=np.int32)
    rows = Examples(x=Windows(series, first, 4), target=Windows(series, first + 4, 1))
    dataset = make_dataset(np.zeros((590, 4), np.float32), classes=0)
    weight = np.ones(590, np.float32)
    split = dataclasses.replace(dataset.splits[0], train=first, validation=first, validation_weight=weight)
    facts = dataclasses.replace(FACTS, feature_shape=(4, 1), target_shape=(1, 1), season=None)
    model = build_model("recurrent_forecaster", cell="rnn", hidden_dim=4, normalize="none").bind(facts)
    optimizer = build_optimizer("adam", learning_rate=0.02, schedule="cosine")
    budget = Budget.of(build_trainer(epochs=150, batch_size=590, keep="last"), 1, None)
    data, member = Data(rows, rows), JobInputs(np.uint32(0), split)
    state = engine.initialize(model, optimizer, member, data, budget)
    train = jax.jit(engine.chunk, static_argnames="budget")
    state, metrics = train(model, optimizer, state, member, data, np.int32(150), budget)
    x, y = rows.x[first], rows.target[first]
    last, later = x[:, -1, 0], y[:, 0, 0]
    least_squares = float(last @ later / (last @ last))
    found = model.forecast(state.params, Examples(x=jnp.asarray(x))).mean[:, 0, 0]
    assert float(last @ np.asarray(found) / (last @ last)) == pytest.approx(least_squares, abs=0.01)
    assert least_squares == pytest.approx(coefficient, abs=0.05)
    residual = float(np.square(later - least_squares * last).mean())
    assert 0.95 * residual < float(metrics["validation/mse"]) < 1.02 * residual


def test_recursion_goes_on_from_the_forecast(build_model, monkeypatch):
    """A network of zero output forecasts the last season, and that is what its cells then read."""
    model = small(build_model, decoding="recursive", segment=1, normalize="none", residual="season", channels="joint")
    params = model.fresh(jax.random.key(0))
    params["output"] = jax.tree.map(jnp.zeros_like, params["output"])
    read = []
    step = Layers.step
    monkeypatch.setattr(Layers, "step", lambda self, carries, x: read.append(x) or step(self, carries, x))
    x = jax.random.normal(jax.random.key(1), (3, 6, 2))
    found = model.forecast(params, Examples(x=x))
    np.testing.assert_allclose(np.stack(read, 1), found.median[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(found.median[:, :3], x[:, -3:], rtol=1e-6)


def test_targets_that_are_no_future_are_refused(build_model):
    """The next frames at every step are in the window itself: forecasting them would be copying."""
    shifted = dataclasses.replace(FACTS, target_shape=(6, 2), target_follows=False)
    with pytest.raises(ConfigError, match="horizon"):
        build_model("recurrent_forecaster").bind(shifted)
    with pytest.raises(ConfigError, match="recurrent_forecaster"):
        build_model("recurrent_predictor").bind(dataclasses.replace(shifted, target_follows=True))
