"""Likelihoods of counts: they are SciPy's, also in float32 and far from 0; which data are counts; the naive row."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from research.counts import NegativeBinomial, Poisson
from research.data import Examples
from research.data.preparation import Preparation
from research.data.scaling import Scaling, are_counts
from research.evaluation.baselines import independent_poisson
from research.runs.run import Run
from research.tree import ConfigError

MEANS = (0.002, 0.3, 2.0, 15.0, 400.0, 3e4)
COUNTS = (0, 1, 2, 3, 5, 8, 30, 100, 1000, 29_900)
DISPERSIONS = (0.01, 0.5, 1.0, 7.0, 300.0)


def outputs_of(mean: Any) -> np.ndarray:
    """Decoder outputs with these means, float32."""
    mean = np.asarray(mean, np.float64)
    return (mean + np.log(-np.expm1(-mean))).astype(np.float32)


def means_of(outputs: np.ndarray) -> np.ndarray:
    """softplus in float64."""
    return np.logaddexp(0, outputs.astype(np.float64))


def log_prob(likelihood: Any, outputs: Any, x: Any) -> np.ndarray:
    outputs, x = (jnp.asarray(value, jnp.float32).reshape(1, -1) for value in (outputs, x))
    return np.asarray(likelihood.log_prob(outputs, x))[0]


GRID = [values.ravel() for values in np.meshgrid(outputs_of(MEANS), np.float32(COUNTS))]


# ------------------------------------------------------------------------------------------------------------- truths


def test_poisson_is_that_of_scipy():
    outputs, x = GRID
    np.testing.assert_allclose(
        log_prob(Poisson(), outputs, x), scipy.stats.poisson.logpmf(x, means_of(outputs)), rtol=2e-6, atol=2e-5
    )


@pytest.mark.parametrize("dispersion", DISPERSIONS)
def test_the_negative_binomial_is_that_of_scipy(dispersion: float):
    outputs, x = GRID
    r, mean = float(np.float32(dispersion)), means_of(outputs)
    expected = scipy.stats.nbinom.logpmf(x, r, r / (r + mean))
    likelihood = NegativeBinomial(dispersion=dispersion)
    np.testing.assert_allclose(log_prob(likelihood, outputs, x), expected, rtol=3e-6, atol=2e-5)


def test_a_large_dispersion_is_poisson():
    outputs, x = GRID
    poisson = log_prob(Poisson(), outputs, x)
    gaps = [
        np.abs(log_prob(NegativeBinomial(dispersion=dispersion), outputs, x) - poisson) / np.maximum(np.abs(poisson), 1)
        for dispersion in (1e2, 1e6, 1e10, 1e14)
    ]
    assert gaps[0].max() > 0.1
    assert gaps[1].max() < 0.05
    assert gaps[2].max() < 1e-4
    assert gaps[3].max() < 1e-5


def test_large_counts_are_exact_in_float32():
    mean, x = np.float32([1e6, 1e6, 2e5]), np.float32([1e6, 1e6 + 2000, 2e5 - 900])
    exact = scipy.stats.poisson.logpmf(x.astype(np.float64), mean.astype(np.float64))  # softplus(l) is l here
    np.testing.assert_allclose(log_prob(Poisson(), mean, x), exact, atol=1e-3)
    np.testing.assert_allclose(log_prob(NegativeBinomial(dispersion=1e14), mean, x), exact, atol=1e-3)


def test_probabilities_of_all_counts_sum_to_one():
    x = np.arange(3000, dtype=np.float32)
    for likelihood in (Poisson(), NegativeBinomial(dispersion=0.7), NegativeBinomial(dispersion=50.0)):
        for mean in (0.01, 3.0, 60.0):
            values = log_prob(likelihood, np.full_like(x, outputs_of(mean)), x).astype(np.float64)
            assert np.exp(values).sum() == pytest.approx(1, abs=2e-5)


def test_gradients_are_those_of_the_formulas():
    outputs, x = GRID
    mean, slope = means_of(outputs), scipy.special.expit(outputs.astype(np.float64))
    gradient = jax.grad(lambda outputs: Poisson().log_prob(outputs, x[None]).sum())(jnp.asarray(outputs[None]))[0]
    np.testing.assert_allclose(gradient, (x / mean - 1) * slope, rtol=1e-3, atol=1e-5)

    def of_both(r: Any, outputs: Any) -> Any:
        return NegativeBinomial(dispersion=r).log_prob(outputs, x[None]).sum()

    for r in DISPERSIONS:
        of_r, of_outputs = jax.grad(of_both, (0, 1))(jnp.float32(r), jnp.asarray(outputs[None]))
        np.testing.assert_allclose(of_outputs[0], (x - mean) * r / (r + mean) / mean * slope, rtol=1e-3, atol=1e-5)
        digamma = scipy.special.digamma
        expected = digamma(x + r) - digamma(r) + np.log(r / (r + mean)) + (mean - x) / (r + mean)
        assert float(of_r) == pytest.approx(expected.sum(), rel=1e-3)


@pytest.mark.parametrize(
    "likelihood", [Poisson(), *(NegativeBinomial(dispersion=r) for r in (1e-6, 1.0, 1e20))], ids=str
)
def test_values_and_gradients_are_finite_everywhere(likelihood: Any):
    outputs = np.float32([-1e30, -1e4, -200, -100, -88, -16, -15, 0, 15, 89, 1e4, 1e8])
    for count in (0, 1, 3, 4, 16, 1000, 2e7):
        x = np.full_like(outputs, count)[None]
        score = lambda model, outputs, x=x: model.log_prob(outputs, x).sum()
        value, gradients = jax.value_and_grad(score, (0, 1))(
            jax.tree.map(jnp.float32, likelihood), jnp.asarray(outputs[None])
        )
        assert np.isfinite(value)
        for leaf in jax.tree.leaves(gradients):
            assert np.isfinite(leaf).all(), count


# --------------------------------------------------------------------------------------------------- data and naive row


def test_the_naive_row_is_independent_poisson_at_the_training_means():
    random = np.random.default_rng(0)
    train, test = (random.poisson([0.5, 3.0, 20.0], (rows, 3)).astype(np.uint8) for rows in (200, 50))
    train[:, 0] = 0  # a feature without any count has the mean 1/2n
    mean = [1 / 400, *train.mean(0)[1:]]
    expected = -scipy.stats.poisson.logpmf(test, mean).sum(1).mean()
    assert independent_poisson(Examples(x=train), Examples(x=test)) == pytest.approx(expected, rel=1e-9)


def test_the_naive_row_leaves_out_padding_and_scores_hidden_values():
    train = Examples(x=np.full((4, 2, 1), 3.0))
    lengths = Examples(x=np.array([[[3.0], [9.0]]]), length=np.array([1]))
    once = -scipy.stats.poisson.logpmf(3, 3)
    assert independent_poisson(train, lengths) == pytest.approx(once)
    x, truth, hidden = np.array([[[3.0], [0.0]]]), np.array([[[3.0], [3.0]]]), np.array([[[False], [True]]])
    rows = Examples(x=x, observed=~hidden, truth=truth, hidden=hidden)
    assert independent_poisson(train, rows) == pytest.approx(2 * once)


def test_what_counts_are():
    identity, other = Scaling(np.zeros(()), np.ones(())), Scaling(np.zeros(()), np.full((), 1 / 16))
    whole = Examples(x=np.array([[0.0, 3.0], [2.0, 70000.0]]))
    assert are_counts(whole)
    assert are_counts(whole, [identity])
    assert not are_counts(whole, [identity, other])
    assert not are_counts(Examples(x=np.array([[0.0, 0.5]])))
    assert not are_counts(Examples(x=np.array([[0, -1]])))
    assert are_counts(Examples(x=np.array([[4, 5]], np.uint8)))
    gaps = Examples(x=np.array([[4.0, np.nan]]), observed=np.array([[True, False]]))
    assert are_counts(gaps)
    later = np.zeros((9000, 1))
    later[8999] = 0.5
    assert not are_counts(Examples(x=later))


def test_the_facts_say_whether_models_see_counts(make_dataset):
    x = np.arange(96, dtype=np.float32).reshape(24, 4)
    assert make_dataset(x).facts.counts
    assert not make_dataset(x, scaling="standard").facts.counts
    assert not make_dataset(x + 0.5).facts.counts
    assert make_dataset(binary=True, binarize="dynamic").facts.counts


def test_a_model_of_counts_refuses_other_numbers(build_model, make_dataset):
    x = np.arange(96, dtype=np.float32).reshape(24, 4)
    for name in ("vae", "dense_ae"):
        model = build_model(name, likelihood="poisson")
        model.bind(make_dataset(x).facts)
        with pytest.raises(ConfigError, match=r"set data\.scaling=none") as error:
            model.bind(make_dataset(x, scaling="minmax").facts)
        assert error.value.key == "likelihood"


def test_a_run_of_counts_refuses_rows_that_are_none(build_model, make_dataset):
    x = np.arange(96, dtype=np.float32).reshape(24, 4)
    facts = make_dataset(x).facts
    preparation = Preparation(stored_shape=(4,))
    counting, other = (
        Run(Path("run"), build_model("dense_ae", likelihood=name).bind(facts), {}, preparation, {}, {}, facts)
        for name in ("negative_binomial", "gaussian")
    )
    assert len(counting.rows(x)) == len(other.rows(x + 0.5)) == 24
    for rows in (x + 0.5, x - 1):
        with pytest.raises(ConfigError, match="whole numbers from 0"):
            counting.rows(rows)
