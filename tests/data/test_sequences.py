"""Sequences with known answers."""

import jax
import numpy as np
import pytest
import scipy.linalg
from configs import shipped

from research.data import load
from research.data.sequences import Adding, Autoregression, Copy, autocovariance, noise_weights
from research.tree import ConfigError, build


def recipe(name: str, **changes):
    return build(shipped("data", name) | changes, key="data")


def test_sines_follow_from_their_factors():
    examples = load(recipe("sines", rows=50, length=7, channels=3)).examples
    assert examples.x.shape == (50, 7, 3)
    frequency, phase = examples.factors[:, None, :3], examples.factors[:, None, 3:]
    steps = np.arange(7)[None, :, None]
    np.testing.assert_allclose(examples.x, (np.sin(frequency * steps + phase) + 1) / 2, atol=2e-6)


def test_sines_use_the_whole_of_their_intervals():
    factors = load(recipe("sines", rows=4000, length=2, channels=1)).examples.factors
    np.testing.assert_allclose(factors.min(0), [0, -np.pi], atol=0.01)
    np.testing.assert_allclose(factors.max(0), [1, np.pi], atol=0.01)
    np.testing.assert_allclose(factors.mean(0), [0.5, 0], atol=0.1)
    near = load(recipe("sines", rows=20, length=2, channels=1, frequency=[0.3, 0.3], phase=[0, 0])).examples
    np.testing.assert_allclose(near.x[:, 1, 0], (1 + np.sin(0.3)) / 2, atol=1e-6)


def test_the_autocovariance_of_order_one_and_two_is_the_closed_form():
    np.testing.assert_allclose(autocovariance((0.7,), 2.0, 5), 4 / (1 - 0.49) * 0.7 ** np.arange(5))
    first, second = 0.5, -0.3
    variance = (1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2))
    lags = autocovariance((first, second), 1.0, 4)
    np.testing.assert_allclose(lags[0], variance)
    np.testing.assert_allclose(lags[1] / lags[0], first / (1 - second))
    np.testing.assert_allclose(lags[3], first * lags[2] + second * lags[1])


@pytest.mark.parametrize("coefficients", [[0.7], [0.5, -0.3], [0.2, 0.1, 0.4]])
def test_autoregressive_rows_have_the_stationary_moments_at_every_step(coefficients):
    x = load(recipe("ar", rows=20_000, length=6, coefficients=coefficients, noise_scale=0.5)).examples.x[..., 0]
    covariance = scipy.linalg.toeplitz(autocovariance(tuple(coefficients), 0.5, 6))
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.04 * covariance[0, 0])
    np.testing.assert_allclose(x.mean(0), 0, atol=0.03)


def test_the_reference_is_the_density_of_the_test_rows():
    from scipy.stats import multivariate_normal

    dataset = load(recipe("ar", rows=300, length=8, coefficients=[0.9, -0.5], noise_scale=0.3))
    test = dataset.examples.x[dataset.splits[0].rows("test"), :, 0].astype(np.float64)
    covariance = scipy.linalg.toeplitz(autocovariance((0.9, -0.5), 0.3, 8))
    expected = -multivariate_normal(np.zeros(8), covariance).logpdf(test).mean()
    assert dataset.reference == pytest.approx({"nll_nats": expected}, rel=1e-5)
    # the same by the chain rule: two stationary steps, then Gaussian noise
    residual = test[:, 2:] - 0.9 * test[:, 1:-1] + 0.5 * test[:, :-2]
    start = -multivariate_normal(np.zeros(2), covariance[:2, :2]).logpdf(test[:, :2])
    steps = 0.5 * (residual / 0.3) ** 2 + np.log(0.3) + 0.5 * np.log(2 * np.pi)
    assert (start + steps.sum(1)).mean() == pytest.approx(expected)
    assert load(recipe("ar", rows=300, scaling="standard")).reference == {}


def test_no_linear_predictor_beats_the_reference_and_the_best_one_reaches_it():
    coefficients, noise, horizon = (0.6, 0.3), 0.5, 4
    dataset = load(recipe("ar", rows=20_000, length=5, horizon=4, coefficients=list(coefficients), noise_scale=noise))
    x, target = dataset.examples.x[..., 0], dataset.examples.target[..., 0]
    assert (x.shape, target.shape, dataset.facts.target_shape) == ((20_000, 5), (20_000, 4), (4, 1))
    history = [x[:, -2].astype(float), x[:, -1].astype(float)]
    for _ in range(horizon):
        history.append(coefficients[0] * history[-1] + coefficients[1] * history[-2])
    optimal = np.square(np.stack(history[2:], axis=1) - target).mean()
    assert dataset.reference["mse"] == pytest.approx(optimal, rel=0.02)
    fitted = x @ np.linalg.lstsq(x, target)[0]
    assert np.square(fitted - target).mean() == pytest.approx(dataset.reference["mse"], rel=0.02)
    # the share of the covariance of the future that the past leaves over
    covariance = scipy.linalg.toeplitz(autocovariance(coefficients, noise, 9))
    left = covariance[5:, 5:] - covariance[5:, :5] @ np.linalg.solve(covariance[:5, :5], covariance[:5, 5:])
    assert dataset.reference["mse"] == pytest.approx(np.trace(left) / horizon)


def test_the_target_is_scaled_as_the_series_is():
    dataset = load(recipe("ar", rows=200, length=5, horizon=2, scaling="standard", noise_scale=3.0))
    split = dataset.splits[0]
    prepared = split.prepare(dataset.examples.take(np.arange(200)))
    np.testing.assert_allclose(
        prepared.target, (dataset.examples.target - split.shift) * split.scale, rtol=1e-5, atol=1e-6
    )


def test_the_weights_of_order_one_are_powers():
    np.testing.assert_allclose(noise_weights((0.7,), 5), 0.7 ** np.arange(5))


@pytest.mark.parametrize("coefficients", [[1.0], [-1.0], [1.2, -0.1], [0.5, 0.5], [0.0, 0.0, 1.01], []])
def test_processes_that_are_not_stationary_are_refused(coefficients):
    with pytest.raises(ConfigError, match=r"stationary|one number") as caught:
        recipe("ar", coefficients=coefficients)
    assert caught.value.key == "data.coefficients"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sines", {"length": 0}),
        ("sines", {"channels": 0}),
        ("sines", {"frequency": [1, 0]}),
        ("sines", {"phase": [1, 0]}),
        ("sines", {"rows": 0}),
        ("ar", {"length": 0}),
        ("ar", {"horizon": 0}),
        ("ar", {"noise_scale": 0}),
        ("ar", {"data_seed": -1}),
        ("ar", {"scaling": "unit"}),
        ("adding", {"length": 1}),
        ("adding", {"scaling": "standard"}),
        ("copy", {"length": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, changes):
    with pytest.raises(ConfigError) as caught:
        recipe(name, **changes)
    assert caught.value.key == f"data.{next(iter(changes))}"


def test_a_prediction_needs_as_many_steps_as_there_are_coefficients():
    with pytest.raises(ConfigError, match="last 3 steps") as caught:
        recipe("ar", coefficients=[0.1, 0.1, 0.1], length=2, horizon=1)
    assert caught.value.key == "data.length"
    assert load(recipe("ar", coefficients=[0.1, 0.1, 0.1], length=2, rows=20)).examples.x.shape == (20, 2, 1)


@pytest.mark.parametrize("length", [2, 7])
def test_adding_marks_one_step_of_each_half(length):
    examples = load(recipe("adding", rows=20_000 if length == 7 else 3000, length=length)).examples
    numbers, markers = examples.x[..., 0], examples.x[..., 1]
    half = length // 2
    assert set(np.unique(markers)) <= {0, 1}
    np.testing.assert_array_equal(markers[:, :half].sum(1), 1)
    np.testing.assert_array_equal(markers[:, half:].sum(1), 1)
    assert markers.any(0).all(), "every step is marked in some row"
    np.testing.assert_array_equal(examples.target[:, 0], (numbers * markers).sum(1))
    assert 0 <= numbers.min() < 0.01 < 0.99 < numbers.max() < 1


def test_always_answering_one_scores_the_reference_of_adding():
    dataset = load(recipe("adding", rows=20_000, length=7))
    assert dataset.reference == {"constant_mse": 1 / 6}
    assert np.square(dataset.examples.target - 1).mean() == pytest.approx(1 / 6, rel=0.03)
    assert dataset.facts.target_shape == (1,)


def test_copy_shows_ten_symbols_and_asks_for_them_after_the_delimiters():
    dataset = load(recipe("copy", rows=400, length=6))
    x, target = dataset.examples.x, dataset.examples.target
    assert (x.shape, x.dtype, target.shape, target.dtype) == ((400, 26, 10), np.float32, (400, 26), np.int32)
    assert dataset.draw == recipe("copy", rows=400, length=6)
    np.testing.assert_array_equal(x.sum(-1), 1)
    shown = x.argmax(-1)
    assert set(np.unique(shown[:, :10])) == set(range(1, 9))
    assert not shown[:, 10:15].any(), "T - 1 blanks"
    np.testing.assert_array_equal(shown[:, 15:], 9)
    assert not target[:, :16].any()
    np.testing.assert_array_equal(target[:, 16:], shown[:, :10])
    assert dataset.facts.target_classes == 9  # the delimiter is never an answer
    # certain of the blanks, and as likely right on every kind of symbol
    assert dataset.reference == {"memoryless_nats_per_step": pytest.approx((16 * np.log(1) + 10 * np.log(8)) / 26)}


def test_fresh_rows_follow_the_rules_of_fixed_ones_and_depend_on_the_key_alone():
    settings = recipe("adding", rows=40, length=12)
    dataset = load(settings)
    rows, key = dataset.examples, jax.random.key(0, impl="threefry2x32")  # the key of data_seed=0
    assert dataset.draw is not None
    draw = jax.jit(dataset.draw.draw)
    drawn, again, other = draw(rows, key), draw(rows.take(np.arange(40)[::-1]), key), draw(rows, jax.random.key(4))
    for name in ("x", "target"):
        fixed = getattr(rows, name)
        np.testing.assert_array_equal(getattr(drawn, name), fixed)
        np.testing.assert_array_equal(getattr(again, name), fixed)
        assert (getattr(drawn, name).shape, getattr(drawn, name).dtype) == (fixed.shape, fixed.dtype)
        assert (np.asarray(getattr(other, name)) != fixed).any()
    assert hash(dataset.draw) == hash(settings)
    without_draws = load(recipe("adding", rows=40, length=12, data_seed=1, fresh=False))
    assert without_draws.draw is None
    assert without_draws.sha256 != dataset.sha256


def test_types_are_those_of_the_configs():
    assert isinstance(recipe("adding"), Adding)
    assert isinstance(recipe("copy"), Copy)
    assert isinstance(recipe("ar"), Autoregression)
