"""Likelihoods of counts: they are SciPy's, also in float32 and far from 0; which data are counts; the naive row."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from research.clock import Clock
from research.counts import NegativeBinomial, Poisson, as_read
from research.data import Examples, Facts
from research.data.preparation import Preparation
from research.data.scaling import Scaling, are_counts
from research.distributions import MeanSquaredError
from research.evaluation.baselines import independent_poisson
from research.networks.base import Training
from research.runs.run import Run
from research.tree import ConfigError

MEANS = (0.002, 0.3, 2.0, 15.0, 400.0, 3e4)
COUNTS = (0, 1, 2, 3, 5, 8, 30, 100, 1000, 29_900)
DISPERSIONS = (0.01, 0.5, 1.0, 7.0, 300.0)


def outputs_of(mean: Any) -> np.ndarray:
    """Decoder outputs with these means, float32: their logarithms up to 10, then a straight line."""
    mean = np.asarray(mean, np.float64)
    return np.where(mean < np.exp(10), np.log(mean), 9 + mean / np.exp(10)).astype(np.float32)


def means_of(outputs: np.ndarray) -> np.ndarray:
    """The means of outputs in float64."""
    outputs = outputs.astype(np.float64)
    return np.where(outputs < 10, np.exp(np.minimum(outputs, 10)), np.exp(10) * (outputs - 9))


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
    outputs = outputs_of(mean)
    exact = scipy.stats.poisson.logpmf(x.astype(np.float64), means_of(outputs))
    np.testing.assert_allclose(log_prob(Poisson(), outputs, x), exact, atol=1e-3)
    np.testing.assert_allclose(log_prob(NegativeBinomial(dispersion=1e14), outputs, x), exact, atol=1e-3)


def test_probabilities_of_all_counts_sum_to_one():
    x = np.arange(3000, dtype=np.float32)
    for likelihood in (Poisson(), NegativeBinomial(dispersion=0.7), NegativeBinomial(dispersion=50.0)):
        for mean in (0.01, 3.0, 60.0):
            values = log_prob(likelihood, np.full_like(x, outputs_of(mean)), x).astype(np.float64)
            assert np.exp(values).sum() == pytest.approx(1, abs=2e-5)


def test_gradients_are_those_of_the_formulas():
    outputs, x = GRID
    mean = means_of(outputs)
    slope = np.where(outputs < 10, mean, np.exp(10))
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


SEQUENCES = Facts("sequence", (4, 2), 0.0, 3e6, 0, 6, 2, 2, counts=True)
LARGE = Examples(x=jnp.asarray(np.random.default_rng(0).integers(0, 3_000_000, (6, 4, 2)), jnp.float32))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vae", {}),
        ("dense_ae", {}),
        *(("recurrent_ae", {"decoder": way}) for way in ("free_running", "teacher_forced")),
    ],
)
def test_counts_of_millions_have_a_finite_first_step(name: str, options: dict[str, Any], build_model):
    sizes = {"hidden_dim": 4} if name == "recurrent_ae" else {"hidden_dims": [4]}
    model = build_model(name, likelihood="negative_binomial", latent_dim=2, **sizes, **options).bind(SEQUENCES)
    clock = Clock(*(jnp.float32(value) for value in (0, 0, 0, 6)))

    @jax.jit
    def first(key: Any) -> Any:
        params = model.init(key, LARGE)
        return jax.value_and_grad(model.loss, has_aux=True)(params, LARGE, key, clock)

    (loss, _), gradient = first(jax.random.key(0))
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_encoders_read_logarithms(build_model):
    facts = dataclasses.replace(SEQUENCES, kind="vector", feature_shape=(8,))
    counts = dataclasses.replace(LARGE, x=LARGE.x.reshape(6, 8))
    logarithms = dataclasses.replace(counts, x=jnp.log1p(counts.x))
    options = {"latent_dim": 2, "hidden_dims": []}
    for name in ("vae", "dense_ae"):
        of_counts = build_model(name, likelihood="poisson", **options).bind(facts)
        other = build_model(name, likelihood="gaussian", **options).bind(facts)
        params = of_counts.fresh(jax.random.key(0))
        np.testing.assert_allclose(of_counts.encode(params, counts), other.encode(params, logarithms), rtol=1e-6)
    assert of_counts.linear_kernel(params) is None  # no closed form of the contractive penalty: not linear in x
    assert other.linear_kernel(params) is not None
    np.testing.assert_allclose(as_read(jnp.array([-3.0, 0.0, 3.0])), [-np.log(4), 0, np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("name", ["recurrent_ae", "recurrent_vae"])
def test_an_encoder_of_counts_reads_the_same_step_by_step(name: str, build_model):
    model = build_model(name, likelihood="poisson", latent_dim=2, hidden_dim=4).bind(SEQUENCES)
    params, state = model.fresh(jax.random.key(0)), model.start(6)
    for step in range(4):
        state, codes = model.step(params, state, LARGE.x[:, step])
    np.testing.assert_allclose(codes, model.encode(params, LARGE), rtol=1e-4, atol=1e-6)


class Logarithms(MeanSquaredError):
    """Its means are the logarithms that a decoder of counts reads."""

    def mean(self, outputs: jax.Array) -> jax.Array:
        return as_read(Poisson().mean(outputs))


@pytest.mark.parametrize("decoder", ["free_running", "teacher_forced"])
def test_a_decoder_reads_the_logarithms_of_the_last_counts(decoder: str, build_model):
    """As one of a likelihood whose means, and whose true values, are these logarithms."""
    options = {"latent_dim": 2, "hidden_dim": 4, "decoder": decoder, "teacher_start": 0.5, "teacher_end": 0.5}
    networks = build_model("recurrent_ae", **options).bind(SEQUENCES).networks
    params, z = networks.init(jax.random.key(0), 2, 1), jnp.linspace(-1, 1, 12).reshape(6, 2)
    clock = Clock(*(jnp.float32(value) for value in (0, 0, 0, 6)))
    decoded = [
        networks.decode(params, z, None, likelihood, None, Training(batch, jax.random.key(1), clock))
        for likelihood, batch in ((Poisson(), LARGE), (Logarithms(), dataclasses.replace(LARGE, x=as_read(LARGE.x))))
    ]
    np.testing.assert_allclose(*decoded, rtol=1e-5)


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


def test_a_run_of_counts_refuses_steps_that_are_none(build_model):
    model = build_model("recurrent_ae", likelihood="poisson", latent_dim=2, hidden_dim=4).bind(SEQUENCES)
    run = Run(Path("run"), model, model.fresh(jax.random.key(0)), Preparation(stored_shape=(4, 2)), {}, {}, SEQUENCES)
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    state, codes = run.step(run.start(6), x)
    assert codes.shape == (6, 2)
    for step in (x + 0.5, x - 1):
        with pytest.raises(ConfigError, match="whole numbers from 0"):
            run.step(state, step)


def test_a_run_of_binary_counts_draws_grey_rows(build_model, make_dataset):
    facts = make_dataset(binary=True, binarize="dynamic").facts
    model = build_model("dense_ae", likelihood="poisson").bind(facts)
    preparation = Preparation(stored_shape=facts.feature_shape, binarize=True)
    run = Run(Path("run"), model, model.fresh(jax.random.key(0)), preparation, {}, {}, facts)
    grey = np.linspace(0, 1, 3 * int(np.prod(facts.feature_shape)), dtype=np.float32).reshape(3, *facts.feature_shape)
    assert len(run.encode(grey)) == 3
