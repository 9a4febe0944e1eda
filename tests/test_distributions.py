"""Likelihoods are densities, agree with scipy, and stay finite; the Gaussian posterior's closed forms are right."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from research.distributions import (
    COUNTS,
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    Gaussian,
    Huber,
    Laplace,
    MeanSquaredError,
    Observation,
    kl_to_standard_normal,
    mean_squared_error,
    normal_log_prob,
    total,
)
from research.tree import ConfigError

GRID = np.linspace(-160, 160, 640_001)  # the kinks of huber and laplace at the mean lie on it


def log_prob(likelihood, outputs, x) -> np.ndarray:
    """Elementwise log p of flat arrays."""
    outputs, x = (jnp.asarray(value, jnp.float32).reshape(1, -1) for value in (outputs, x))
    return np.asarray(likelihood.log_prob(outputs, x))[0]


# -------------------------------------------------------------------------------------------------- they are densities


@pytest.mark.parametrize(
    "likelihood",
    [
        Gaussian(scale=0.5),
        Gaussian(scale=2.0),
        Laplace(scale=0.7),
        Laplace(scale=3.0),
        *(Huber(scale=scale, delta=delta) for scale in (0.5, 2.0) for delta in (0.3, 1.0, 2.5)),
    ],
    ids=str,
)
def test_densities_integrate_to_one(likelihood):
    values = np.exp(log_prob(likelihood, np.full_like(GRID, 0.5), GRID).astype(np.float64))
    assert scipy.integrate.simpson(values, x=GRID) == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("logit", [-20.0, -1.0, 0.0, 3.0, 50.0])
def test_bernoulli_sums_to_one(logit: float):
    assert np.exp(log_prob(Bernoulli(), [logit, logit], [0, 1])).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_categorical_sums_to_one(levels: int):
    logits = jax.random.normal(jax.random.key(0), (levels,))
    grid = jnp.arange(levels) / (levels - 1)
    values = Categorical(levels=levels).log_prob(jnp.tile(logits, levels)[None], grid[None])[0]
    assert float(jnp.exp(values).sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(values, jax.nn.log_softmax(logits), atol=1e-5)


def test_they_equal_scipy():
    random = np.random.default_rng(0)
    x, outputs = random.normal(size=(2, 50)).astype(np.float32) * 3
    scale = 0.8
    expected = {
        Gaussian(scale=scale): scipy.stats.norm.logpdf(x, outputs, scale),
        Laplace(scale=scale): scipy.stats.laplace.logpdf(x, outputs, scale),
        # without tails to speak of, huber is a normal distribution; with nothing but tails, a Laplace distribution
        Huber(scale=scale, delta=50.0): scipy.stats.norm.logpdf(x, outputs, scale),
        Huber(scale=scale, delta=1e-3): scipy.stats.laplace.logpdf(x, outputs, scale / 1e-3),
    }
    for likelihood, values in expected.items():
        np.testing.assert_allclose(
            log_prob(likelihood, outputs, x), values, rtol=2e-4, atol=2e-3, err_msg=str(likelihood)
        )
    binary = (x > 0).astype(np.float32)
    values = scipy.stats.bernoulli.logpmf(binary, 1 / (1 + np.exp(-outputs.astype(np.float64))))
    np.testing.assert_allclose(log_prob(Bernoulli(), outputs, binary), values, rtol=1e-5, atol=1e-6)


def test_huber_is_quadratic_then_linear():
    likelihood = Huber(scale=2.0, delta=1.5)
    values = log_prob(likelihood, [0, 0, 0, 0, 0], [0, 2, 3, 4, 6])
    np.testing.assert_allclose(values[0] - values, [0, 0.5, 1.125, 1.875, 3.375], atol=1e-6)


# ----------------------------------------------------------------------------------------------------- they are finite


def observation(likelihood: str) -> Observation:
    return Observation(likelihood=likelihood, scale=0.5, delta=1.0, levels=3, dispersion=2.0)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_at_extremes(name: str):
    likelihood = observation(name).of({})
    extremes = jnp.array([-1e4, -50.0, 0.0, 50.0, 1e4])
    outputs = jnp.repeat(extremes, observation(name).channels)[None]
    if name == "categorical":
        outputs = outputs * jnp.tile(jnp.array([1.0, -1.0, 0.0]), 5)[None]
    for x in (0.0, 0.5, 1.0):
        x = jnp.full((1, 5), x)
        value, gradient = jax.value_and_grad(lambda outputs, x=x: total(likelihood, outputs, x).sum())(outputs)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_bernoulli_gradient():
    outputs = jnp.array([[-3.0, 0.0, 3.0]])
    gradient = jax.grad(lambda outputs: Bernoulli().log_prob(outputs, jnp.ones((1, 3))).sum())(outputs)
    np.testing.assert_allclose(gradient, 1 - jax.nn.sigmoid(outputs), atol=1e-6)


# ------------------------------------------------------------------------------------------------------ sums and means


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_masked_elements_do_not_count(name: str):
    likelihood, channels = observation(name).of({}), observation(name).channels
    x = jnp.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
    outputs = jax.random.normal(jax.random.key(1), (2, 3 * channels))
    observed = jnp.array([[True, True, False], [False, False, False]])
    spoiled = x.at[:, 2].set(jnp.nan)
    score = lambda outputs: total(likelihood, outputs, spoiled, observed)
    kept = total(likelihood, outputs[:, : 2 * channels], x[:, :2])
    np.testing.assert_allclose(score(outputs), [kept[0], 0], atol=1e-6)
    gradient = jax.grad(lambda outputs: score(outputs).sum())(outputs)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 2 * channels :], 0)
    np.testing.assert_array_equal(gradient[1], 0)


def test_likelihoods_are_sums_and_the_squared_error_a_mean():
    x, outputs = jnp.array([[0.0, 1.0, 1.0, 0.0]]), jnp.array([[1.0, 1.0, 3.0, 0.0]])
    assert float(total(MeanSquaredError(), outputs, x)[0]) == pytest.approx(-5 / 4)
    assert float(mean_squared_error(outputs, x)[0]) == pytest.approx(5 / 4)
    observed = jnp.array([[True, False, True, False]])
    assert float(mean_squared_error(outputs, x, observed)[0]) == pytest.approx(5 / 2)
    gaussian = Gaussian(scale=1.0)
    assert float(total(gaussian, outputs, x)[0]) == pytest.approx(-5 / 2 - 2 * math.log(2 * math.pi), rel=1e-6)
    twice = total(gaussian, jnp.tile(outputs, 2), jnp.tile(x, 2))
    np.testing.assert_allclose(twice, 2 * total(gaussian, outputs, x), rtol=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_initial_bias_predicts_the_mean(name: str):
    likelihood = observation(name).of({})
    mean = jnp.array([0.001, 0.2, 0.4999, 0.5, 0.7, 0.999])
    bias = likelihood.initial_bias(mean)
    assert bias.shape == (6 * observation(name).channels,)
    np.testing.assert_allclose(likelihood.mean(bias[None])[0], mean, atol=1e-5)
    ends = likelihood.initial_bias(jnp.array([0.0, 1.0]))
    assert np.isfinite(ends).all()
    np.testing.assert_allclose(likelihood.mean(ends[None])[0], [0, 1], atol=2e-3)


# -------------------------------------------------------------------------------------------------------- the settings


def test_a_learned_scale_starts_at_one_and_is_read_from_the_parameters():
    for name in ("gaussian", "laplace", "huber"):
        free = Observation(likelihood=name, scale=None, delta=1.0, levels=3, dispersion=None)
        params = free.init()
        assert float(free.of(params).scale) == 1
        assert float(free.of({"likelihood": {"log_scale": jnp.log(3.0)}}).scale) == pytest.approx(3)
        assert observation(name).init() == {}
    assert Observation(likelihood="bernoulli", scale=None, delta=1.0, levels=3, dispersion=None).init() == {}


def test_a_learned_dispersion_starts_at_one_and_is_read_from_the_parameters():
    free = Observation(likelihood="negative_binomial", scale=None, delta=1.0, levels=3, dispersion=None)
    params = free.init()
    assert float(free.of(params).dispersion) == 1
    assert float(free.of({"likelihood": {"log_dispersion": jnp.log(3.0)}}).dispersion) == pytest.approx(3)
    fixed = dataclasses.replace(free, dispersion=2.5)
    assert (fixed.init(), fixed.of({}).dispersion) == ({}, 2.5)
    assert dataclasses.replace(free, likelihood="poisson").init() == {}


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'gaussian'") as error:
        Observation(likelihood="gausian", scale=1.0, delta=1.0, levels=3, dispersion=None).validate()
    assert error.value.key == "likelihood"


@pytest.mark.parametrize(("low", "high", "fits"), [(0, 1, True), (-0.1, 1, False), (0, 1.1, False)])
def test_data_outside_the_support_are_refused(low: float, high: float, fits: bool):
    for name in LIKELIHOODS:
        if fits or name not in ("bernoulli", "categorical"):
            observation(name).check_range(low, high, counts=True)
        else:
            with pytest.raises(ConfigError, match="set likelihood=gaussian"):
                observation(name).check_range(low, high, counts=True)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_other_numbers_than_counts_are_refused(name: str):
    if name in COUNTS:
        with pytest.raises(ConfigError, match=r"in \[0, 1\]; set data.scaling=none, or likelihood=gaussian") as error:
            observation(name).check_range(0.0, 1.0, counts=False)
        assert error.value.key == "likelihood"
    else:
        observation(name).check_range(0.0, 1.0, counts=False)


# ------------------------------------------------------------------------------------------------------- the posterior


def test_kl_is_its_monte_carlo_estimate():
    mean, log_variance = jnp.array([[0.0, 1.5, -0.5]]), jnp.array([[0.0, -1.0, 1.0]])
    noise = jax.random.normal(jax.random.key(0), (200_000, 3))
    z = mean + jnp.exp(0.5 * log_variance) * noise
    estimate = (normal_log_prob(z, mean, log_variance) - normal_log_prob(z)).mean(0)
    np.testing.assert_allclose(kl_to_standard_normal(mean, log_variance)[0], estimate, atol=0.01)
    assert float(kl_to_standard_normal(jnp.zeros((1, 1)), jnp.zeros((1, 1)))[0, 0]) == 0


def test_normal_log_prob_equals_scipy():
    x = np.linspace(-3, 3, 7, dtype=np.float32)[None]
    expected = scipy.stats.norm.logpdf(x, 0.5, math.exp(0.35))
    np.testing.assert_allclose(normal_log_prob(jnp.asarray(x), 0.5, 0.7), expected, rtol=1e-5)
