"""Truths that the losses must show: exact Jacobians, bounds, ramps, and models whose likelihood is known."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from research import engine
from research.clock import Clock, ramp
from research.data import Examples, Facts
from research.evaluation.baselines import independent_poisson
from research.inputs import Budget, Data, JobInputs

FACTS = Facts("vector", (5,), 0.0, 1.0, 3, 6, 2, 2)
BATCH = Examples(x=jax.random.uniform(jax.random.key(5), (6, 5)), label=jnp.arange(6) % 3)
SMALL: dict[str, Any] = {"latent_dim": 2, "hidden_dims": [4], "activation": "tanh"}


def clock(epoch: float = 0.0, fraction: float = 0.0) -> Clock:
    return Clock(*(jnp.float32(value) for value in (0, epoch, fraction, 6)))


# ------------------------------------------------------------------------------------------------- contractive penalty


def jacobian_norm(model: Any, params: Any) -> jax.Array:
    """Squared Frobenius norm of dz/dx of every example, from the whole Jacobian."""

    def encode(x: jax.Array, label: jax.Array) -> jax.Array:
        return model.encode(params, Examples(x=x[None], label=label[None]))[0]

    return jnp.square(jax.vmap(jax.jacfwd(encode))(BATCH.x, BATCH.label)).sum((1, 2))


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("code_activation", ["linear", "sigmoid"])
def test_the_closed_form_of_the_contractive_penalty(code_activation: str, conditional: bool, build_model):
    options = {"hidden_dims": [], "contractive": 0.7, "code_activation": code_activation, "conditional": conditional}
    model = build_model("dense_ae", **(SMALL | options)).bind(FACTS)
    without = dataclasses.replace(model, contractive=None)
    params = model.init(jax.random.key(0), BATCH)
    loss, metrics = model.loss(params, BATCH, jax.random.key(1), clock())
    exact = jacobian_norm(model, params).mean()
    assert float(metrics["contractive_exact"]) == pytest.approx(float(exact), rel=1e-5)
    plain = without.loss(params, BATCH, jax.random.key(1), clock())[0]
    assert float(loss - plain) == pytest.approx(0.7 * float(exact), rel=1e-4)


def test_hutchinsons_estimate_tends_to_the_contractive_penalty(build_model):
    model = build_model("dense_ae", **SMALL, contractive=1.0, contractive_probes=20_000).bind(FACTS)
    params = model.init(jax.random.key(0), BATCH)
    estimate = jax.jit(model.jacobian_norm)(params, BATCH, jax.random.key(1))
    np.testing.assert_allclose(estimate, jacobian_norm(model, params), rtol=0.05)
    assert "contractive_hutchinson" in model.loss(params, BATCH.take(np.arange(1)), jax.random.key(1), clock())[1]


# ----------------------------------------------------------------------------------------------------- the KL's weight


def vae(build_model, **options: Any) -> tuple[Any, Any]:
    model = build_model("vae", **(SMALL | options)).bind(FACTS)
    params = jax.jit(model.init)(jax.random.key(0), BATCH)
    # posteriors that differ from the prior, each dimension by another amount
    bias = jnp.array([1.5, 0.2, -1.0, -0.1])
    params["encoder"]["output"]["bias"] = bias
    return model, params


def regularizer(model: Any, params: Any, time: Clock) -> tuple[float, float]:
    """What the loss adds to the reconstruction, and the KL."""
    loss, metrics = model.loss(params, BATCH, jax.random.key(1), time)
    return float(loss - metrics["reconstruction_nats"]), float(metrics["kl_nats"])


@pytest.mark.parametrize(
    ("options", "times", "weights"),
    [
        ({"warmup": "none"}, [clock(0), clock(9)], [1, 1]),
        ({"warmup": "linear", "warmup_epochs": 5}, [clock(e) for e in (0, 2.5, 5, 9)], [0, 0.5, 1, 1]),
        (
            {"warmup": "logistic", "warmup_epochs": 5},
            [clock(e) for e in (0, 1.25, 2.5, 3.75, 5, 9)],
            [1 / (1 + np.exp(5)), 1 / (1 + np.exp(2.5)), 0.5, 1 / (1 + np.exp(-2.5)), 1, 1],
        ),
        (
            {"warmup": "cyclical", "cycles": 4},
            [clock(fraction=f) for f in (0, 1 / 16, 1 / 8, 0.24, 0.25, 0.3125, 0.875)],
            [0, 0.5, 1, 1, 0, 0.5, 1],
        ),
    ],
    ids=lambda value: value.get("warmup") if isinstance(value, dict) else "",
)
def test_warm_ups_of_the_kl(options: dict[str, Any], times: list[Clock], weights: list[float], build_model):
    model = build_model("vae", **options)
    np.testing.assert_allclose([model.kl.weight(time) for time in times], weights, atol=1e-6)


def test_the_loss_adds_the_weighted_kl(build_model):
    model, params = vae(build_model, beta=2.0, warmup="linear", warmup_epochs=5)
    added, kl = regularizer(model, params, clock(2.5))
    assert added == pytest.approx(2.0 * 0.5 * kl, abs=1e-5)
    score = model.evaluate(params, BATCH, jax.random.split(jax.random.key(2), 6))  # at the end of every ramp
    np.testing.assert_allclose(score["loss"], score["reconstruction_nats"] + 2 * score["kl_nats"], rtol=1e-6)
    np.testing.assert_allclose(score["elbo_nats"], -score["reconstruction_nats"] - score["kl_nats"], rtol=1e-6)


def test_capacity_and_free_bits(build_model):
    model, params = vae(build_model, capacity=4.0, gamma=3.0, capacity_epochs=10.0)
    np.testing.assert_allclose([model.kl.growth(clock(epoch)) for epoch in (0, 5, 10, 20)], [0, 0.5, 1, 1])
    added, kl = regularizer(model, params, clock(5))
    assert added == pytest.approx(3 * abs(kl - 2.0), rel=1e-4)
    mean, log_variance = model.posterior(params, BATCH)
    by_dimension = np.asarray(0.5 * (mean**2 + jnp.exp(log_variance) - log_variance - 1)).mean(0)
    free = float(by_dimension.mean())  # one dimension below, one above
    model, params = vae(build_model, free_bits=free, beta=0.5)
    added, kl = regularizer(model, params, clock())
    assert kl == pytest.approx(by_dimension.sum(), rel=1e-4)
    assert added == pytest.approx(0.5 * (free + by_dimension.max()), rel=1e-4)


def test_a_ramp_of_length_zero_is_over_and_has_no_nan():
    times = jnp.array([0.0, 0.5, 3.0])
    value, slope = jax.vmap(jax.value_and_grad(ramp, argnums=1), (0, None))(times, 0.0)
    np.testing.assert_array_equal(value, 1)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(jax.vmap(ramp, (0, None))(times, 2.0), [0, 0.25, 1])


# ---------------------------------------------------------------------------------------------------------- the bounds


def bound(build_model, repetitions: int = 2000, **options: Any) -> tuple[float, float]:
    """Mean of minus the loss over many draws, and its standard error."""
    model, params = vae(build_model, scale=0.3, likelihood="gaussian", **options)
    loss = lambda key: model.loss(params, BATCH, key, clock())[0]
    losses = jax.jit(lambda keys: jax.lax.map(loss, keys, batch_size=250))(
        jax.random.split(jax.random.key(3), repetitions)
    )
    return -float(losses.mean()), float(losses.std()) / repetitions**0.5


def test_the_importance_weighted_bound_rises_with_the_number_of_samples(build_model):
    bounds = [bound(build_model, bound="iwae", samples=samples) for samples in (1, 5, 50)]
    for (low, error), (high, other) in itertools.pairwise(bounds):
        assert high - low > 3 * (error + other)
    elbo, error = bound(build_model)
    assert abs(elbo - bounds[0][0]) < 4 * (error + bounds[0][1])
    averaged, smaller = bound(build_model, samples=50)
    assert abs(averaged - elbo) < 4 * (error + smaller)
    assert smaller < error / 3


def linear_gaussian(build_model, **options: Any) -> tuple[Any, Any, np.ndarray]:
    """A VAE whose encoder is the exact posterior of its linear decoder, and log p(x) of the batch."""
    scale, mean = 0.5, np.linspace(0.2, 0.8, 5)
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0]
    weights = orthogonal * [1.5, 0.7]  # orthogonal columns: the posterior has a diagonal covariance
    settings = {"latent_dim": 2, "hidden_dims": [], "likelihood": "gaussian", "scale": scale} | options
    model = build_model("vae", **settings).bind(FACTS)
    variance = 1 / (1 + np.square(weights).sum(0) / scale**2)
    towards = weights * variance / scale**2
    encoder = {
        "kernel": np.concatenate([towards, np.zeros((5, 2))], 1),
        "bias": np.concatenate([-mean @ towards, np.log(variance)]),
    }
    params = {"encoder": {"output": encoder}, "decoder": {"output": {"kernel": weights.T, "bias": mean}}}
    covariance = weights @ weights.T + scale**2 * np.eye(5)
    exact = scipy.stats.multivariate_normal(mean, covariance).logpdf(np.asarray(BATCH.x, np.float64))
    return model, jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), params), exact


def test_with_the_exact_posterior_every_bound_is_the_likelihood(build_model):
    model, params, exact = linear_gaussian(build_model, bound="iwae", samples=3)
    keys = jax.random.split(jax.random.key(0), 6)

    @jax.jit
    def bounds(params: Any) -> Any:
        weights, scores = model.log_weights(params, BATCH, keys, 7), model.evaluate(params, BATCH, keys)
        return weights, scores["iwae_nats"], model.loss(params, BATCH, jax.random.key(1), clock())[0]

    weights, bound, loss = bounds(params)
    np.testing.assert_allclose(weights, np.repeat(exact[:, None], 7, 1), atol=2e-4)  # every single sample
    np.testing.assert_allclose(bound, exact, atol=2e-4)
    assert float(loss) == pytest.approx(-exact.mean(), abs=2e-4)
    many, params, _ = linear_gaussian(build_model, samples=50_000)
    evaluate = jax.jit(many.evaluate)
    elbo = evaluate(params, BATCH, keys)["elbo_nats"]
    np.testing.assert_allclose(elbo, exact, atol=0.03)
    params["encoder"]["output"]["bias"] = params["encoder"]["output"]["bias"] + 0.3  # any other posterior: below
    assert (np.asarray(evaluate(params, BATCH, keys)["elbo_nats"]) < exact - 0.05).all()


# -------------------------------------------------------------------------------------------- what training must reach


def trained(model: Any, x: np.ndarray, optimizer: Any, trainer: Any, make_dataset: Any) -> dict[str, float]:
    """Scores on the training rows after full-batch training on all rows."""
    dataset = make_dataset(x)
    rows, ones = np.arange(len(x), dtype=np.int32), np.ones(len(x), np.float32)
    split = dataclasses.replace(dataset.splits[0], train=rows, validation=rows, validation_weight=ones)
    data, member = Data(dataset.examples, dataset.examples), JobInputs(np.uint32(0), split)
    budget, model = Budget.of(trainer, 1, None), model.bind(dataset.facts)
    state = engine.initialize(model, optimizer, member, data, budget)
    train = jax.jit(engine.chunk, static_argnames="budget")
    _, metrics = train(model, optimizer, state, member, data, np.int32(trainer.epochs), budget)
    return {name: float(value) for name, value in metrics.items()}


def test_a_linear_autoencoder_reaches_the_error_of_pca(build_model, build_optimizer, build_trainer, make_dataset):
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 2)) @ random.normal(size=(2, 6)) + 0.1 * random.normal(size=(40, 6)) + 0.5
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
    pca = np.square(singular[2:]).sum() / x.size
    model = build_model("dense_ae", latent_dim=2, hidden_dims=[])
    optimizer = build_optimizer("adam", learning_rate=0.1, schedule="cosine")
    trainer = build_trainer(epochs=1500, batch_size=40, keep="last")
    scores = trained(model, x.astype(np.float32), optimizer, trainer, make_dataset)
    assert pca * 0.999 <= scores["validation/reconstruction_mse"] <= pca * 1.01


def test_a_huge_beta_leaves_the_entropy_of_the_marginals(build_model, build_optimizer, build_trainer, make_dataset):
    x = (np.random.default_rng(0).random((60, 6)) < np.linspace(0.1, 0.7, 6)).astype(np.float32)
    mean = x.mean(0)
    entropy = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum()
    model = build_model("vae", latent_dim=2, hidden_dims=[8], beta=1000.0, output_bias="zero")
    optimizer = build_optimizer("adam", learning_rate=0.03, schedule="cosine")
    trainer = build_trainer(epochs=600, batch_size=60, keep="last")
    scores = trained(model, x, optimizer, trainer, make_dataset)
    assert scores["validation/kl_nats"] < 1e-4
    assert scores["validation/reconstruction_nats"] == pytest.approx(entropy, rel=0.005)


def test_a_huge_beta_leaves_the_entropy_of_independent_counts(
    build_model, build_optimizer, build_trainer, make_dataset
):
    x = np.random.default_rng(0).poisson(np.linspace(0.3, 3, 6), (60, 6)).astype(np.float32)
    naive = independent_poisson(Examples(x=x), Examples(x=x))
    options = {"activation": "tanh", "output_bias": "zero", "likelihood": "poisson"}  # relu would take longer
    model = build_model("vae", latent_dim=2, hidden_dims=[8], beta=1000.0, **options)
    optimizer = build_optimizer("adam", learning_rate=0.03, schedule="cosine")
    trainer = build_trainer(epochs=600, batch_size=60, keep="last")
    scores = trained(model, x, optimizer, trainer, make_dataset)
    assert scores["validation/kl_nats"] < 1e-3
    assert scores["validation/reconstruction_nats"] == pytest.approx(naive, rel=0.005)
