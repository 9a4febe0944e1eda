import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.examples import Examples
from research.evaluation import likelihood as module
from research.evaluation.likelihood import likelihood
from research.tree import spec

SIGMA = 0.5


def log_density(value, scale):
    return (-0.5 * (value / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)).sum(-1)


@spec
class LinearGaussian:
    """x = W z + sigma e with orthogonal columns of W, so that the posterior is a product of normals, known exactly.

    `widen` scales the deviation of q(z | x): 1 is the exact posterior.
    """

    widen: float

    def log_weights(self, params, batch, keys, samples):
        weight = params["weight"]  # [D, L]
        precision = 1 + jnp.square(weight).sum(0, keepdims=True) / SIGMA**2
        mean = (batch.x @ weight / SIGMA**2 / precision)[:, None]
        deviation = self.widen / jnp.sqrt(precision)[None]
        noise = jax.vmap(lambda key: jax.random.normal(key, (samples, weight.shape[1])))(keys)
        z = mean + deviation * noise
        joint = log_density(batch.x[:, None] - z @ weight.T, SIGMA) + log_density(z, 1.0)
        return joint - log_density(z - mean, deviation)


@pytest.fixture(scope="module")
def problem():
    """Parameters, rows, and the exact -log p(x) of every row."""
    generator = np.random.default_rng(0)
    weight = np.linalg.qr(generator.normal(size=(6, 2)))[0] * [2.0, 0.7]
    x = generator.normal(size=(33, 2)) @ weight.T + SIGMA * generator.normal(size=(33, 6))
    covariance = weight @ weight.T + SIGMA**2 * np.eye(6)
    quadratic = np.einsum("nd,de,ne->n", x, np.linalg.inv(covariance), x)
    exact = 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return {"weight": weight.astype(np.float32)}, Examples(x=x.astype(np.float32)), exact


@pytest.mark.parametrize("samples", [1, 500])
def test_exact_posterior_gives_the_exact_likelihood(problem, samples):
    params, test, exact = problem
    found = likelihood(LinearGaussian(widen=1.0), params, test, jax.random.key(0), samples)
    assert found["test/nll_nats"] == pytest.approx(exact.mean(), abs=1e-4)
    assert found["test/nll_standard_error"] == pytest.approx(exact.std(ddof=1) / np.sqrt(33), abs=1e-4)
    assert found["test/nll_effective_samples"] == pytest.approx(samples, rel=1e-3)


def test_bound_falls_towards_the_truth_with_more_samples(problem):
    params, test, exact = problem
    model, key = LinearGaussian(widen=2.0), jax.random.key(0)
    bounds = [likelihood(model, params, test, key, samples)["test/nll_nats"] for samples in (1, 5, 500)]
    assert bounds[0] > bounds[1] + 0.1 > bounds[2] + 0.1
    assert bounds[2] == pytest.approx(exact.mean(), abs=0.02)
    few = likelihood(model, params, test, key, 5)
    assert few["test/nll_effective_samples"] < 4.5
    assert few["test/nll_effective_share"] == few["test/nll_effective_samples"] / 5


def test_exactly_k_samples_count():
    """With weights 1, 2, 3, ... the estimate tells how many were averaged."""

    @spec
    class Counting:
        unit: float

        def log_weights(self, params, batch, keys, samples):
            return jnp.broadcast_to(jnp.log(jnp.arange(1.0, samples + 1))[None], (len(batch), samples))

    test = Examples(x=np.zeros((3, 1), np.float32))
    # 67 samples are two parts of 34, of which the second counts 33
    weights = np.concatenate([np.arange(1, 35), np.arange(1, 34)])
    found = likelihood(Counting(unit=1.0), {}, test, jax.random.key(0), 67)
    assert found["test/nll_nats"] == pytest.approx(-np.log(weights.mean()), abs=1e-5)
    assert found["test/nll_effective_samples"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-4)


def test_batches_do_not_change_the_draws(problem, monkeypatch):
    params, test, _ = problem
    model = LinearGaussian(widen=2.0)
    whole = likelihood(model, params, test, jax.random.key(0), 5)
    monkeypatch.setattr(module, "BATCH", 7)
    assert likelihood(model, params, test, jax.random.key(0), 5) == pytest.approx(whole, rel=1e-5)
    assert likelihood(model, params, test, jax.random.key(1), 5)["test/nll_nats"] != pytest.approx(
        whole["test/nll_nats"]
    )


def test_runs_of_one_structure_share_the_program(problem):
    params, test, _ = problem
    likelihood(LinearGaussian(widen=1.0), params, test, jax.random.key(0), 5)
    programs = module._estimate.jitted._cache_size()
    other = {"weight": params["weight"] * 2}
    likelihood(LinearGaussian(widen=3.0), other, test, jax.random.key(5), 5)
    assert module._estimate.jitted._cache_size() == programs
