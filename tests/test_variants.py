"""What every penalty, prior and codebook must be: closed forms, decompositions, gradients that do not cross."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from configs import budget, replaced

from research import engine
from research.clock import Clock
from research.data import Examples, Facts
from research.engine import NEVER, State
from research.models.abilities import Samples, able
from research.models.code import spread_out
from research.models.decoding import log_likelihood, outputs_of
from research.models.penalty import MMD_SCALES, aggregate_log_probs, mean_discrepancy
from research.models.prior import mixture_log_prob
from research.tree import ConfigError

FACTS = Facts("vector", (5,), 0.0, 1.0, 3, 6, 2, 2)
BATCH = Examples(x=jax.random.uniform(jax.random.key(5), (6, 5)), label=jnp.arange(6) % 3)
SEQUENCE = dataclasses.replace(FACTS, kind="sequence", feature_shape=(4, 2))
SEQUENCES = Examples(x=jax.random.uniform(jax.random.key(5), (6, 4, 2)), length=jnp.array([4, 3, 4, 2, 4, 1]))
CLOCK = Clock(*(jnp.float32(value) for value in (12, 3, 0.3, 6)))
SMALL: dict[str, Any] = {"latent_dim": 2, "hidden_dims": [4], "activation": "tanh"}
KEY = jax.random.key(1)
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # of compiling
quick = functools.partial(jax.jit, compiler_options=QUICKLY)


def small(build_model, name: str, **options: Any) -> tuple[Any, Any]:
    """A model and parameters of it that have left their start."""
    model = build_model(name, **(SMALL | options)).bind(FACTS)
    random, params = np.random.default_rng(2), model.init(jax.random.key(0), BATCH)
    noise = lambda leaf: 0.3 * random.normal(size=leaf.shape).astype(np.float32)
    return model, jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + noise(leaf)), params)


def log_prior(model: Any, params: Any, z: Any, noise: Any) -> Any:
    return model.prior.log_prob(params, z, noise, functools.partial(model.posterior, params))


def mixture(z: np.ndarray, mean: np.ndarray, log_variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log of the mean over rows of their densities at z, of all dimensions [B] and of every one [B, L]."""
    pairs = scipy.stats.norm.logpdf(z[:, None], mean[None], np.exp(0.5 * log_variance[None]))
    return tuple(scipy.special.logsumexp(part, 1) - np.log(len(mean)) for part in (pairs.sum(-1), pairs))  # type: ignore[return-value]


# --------------------------------------------------------------------------------------------------- total correlation


def test_mutual_information_total_correlation_and_the_dimensions_kl_are_the_kl(build_model):
    """The decomposition of beta-TCVAE, exact where the batch is the training set."""
    model, params = small(build_model, "vae")
    mean, log_variance = (np.asarray(part, np.float64) for part in model.posterior(params, BATCH))
    noise = np.random.default_rng(0).normal(size=(400, *mean.shape))
    parts = []
    for z in mean + np.exp(0.5 * log_variance) * noise:
        joint, product = quick(aggregate_log_probs)(
            *(jnp.asarray(a, jnp.float32) for a in (z, mean, log_variance)), 6.0
        )
        whole, alone = mixture(z, mean, log_variance)
        np.testing.assert_allclose(joint, whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(product, alone.sum(-1), rtol=1e-4, atol=1e-5)
        own = scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance)).sum(-1)
        prior = scipy.stats.norm.logpdf(z).sum(-1)
        parts.append([(own - joint).mean(), (joint - product).mean(), (product - prior).mean()])
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(-1).mean()
    found, error = np.mean(parts, 0), np.std(np.sum(parts, 1)) / len(parts) ** 0.5
    assert abs(found.sum() - kl) < 4 * error < 0.2 * kl
    assert 0 < found[0] < np.log(6)


def test_codes_that_repeat_each_other_have_the_total_correlation_of_a_coin():
    """Both dimensions say the same one of two things: ln 2 nats; where they say independent things: none."""
    side = np.tile([-1.0, 1.0], 32)
    for other, nats in ((side, np.log(2)), (np.repeat([-1.0, 1.0], 32), 0.0)):
        mean = jnp.asarray(np.stack([side, other], 1), jnp.float32)
        joint, product = aggregate_log_probs(mean, mean, jnp.full(mean.shape, -6.0), 64.0)
        assert float((joint - product).mean()) == pytest.approx(nats, abs=1e-5)


def test_the_estimate_of_a_batch_is_unbiased_for_the_aggregate(build_model):
    """exp(joint) of random batches has the density of all N rows as its mean."""
    random = np.random.default_rng(0)
    mean, log_variance = (jnp.asarray(random.normal(size=(30, 2)), jnp.float32) for _ in range(2))
    z = mean[:1] + 0.3
    whole = np.exp(mixture(np.asarray(z), np.asarray(mean), np.asarray(log_variance))[0])[0]

    def one(key: jax.Array) -> jax.Array:
        rows = jnp.concatenate([jnp.zeros(1, jnp.int32), 1 + jax.random.permutation(key, 29)[:4]])
        codes = jnp.broadcast_to(z, (5, 2))
        return jnp.exp(aggregate_log_probs(codes, mean[rows], log_variance[rows], 30.0)[0][0])

    found = np.asarray(quick(jax.vmap(one))(jax.random.split(KEY, 4000)))
    assert abs(float(found.mean()) - whole) < 4 * float(found.std()) / 4000**0.5


@pytest.mark.parametrize(
    ("name", "penalty"),
    [("dense_ae", "mmd"), *(("vae", name) for name in ("mmd", "total_correlation", "dip_i", "dip_ii"))],
)
def test_a_penalty_adds_its_weight_times_itself(name: str, penalty: str, build_model):
    model, params = small(build_model, name, penalty=penalty, penalty_weight=0.7)
    plain, keys = replaced(model, penalty="none"), jax.random.split(KEY, 6)

    def both(params: Any) -> Any:
        losses = [one.loss(params, BATCH, KEY, CLOCK) for one in (model, plain)]
        return losses, [one.evaluate(params, BATCH, keys)["loss"] for one in (model, plain)]

    ((loss, metrics), (without, _)), scores = quick(both)(params)
    assert abs(float(metrics["penalty"])) > 1e-3
    assert float(loss) == pytest.approx(float(without) + 0.7 * float(metrics["penalty"]), rel=1e-5)
    np.testing.assert_array_equal(*scores)  # a row is judged without the others


# ------------------------------------------------------------------------------------------------------------------ DIP


@pytest.mark.parametrize("penalty", ["dip_i", "dip_ii"])
def test_the_closed_form_of_dip(penalty: str, build_model):
    model, params = small(build_model, "dip_vae", penalty=penalty, dip_diagonal=3.0)
    mean, log_variance = (np.asarray(part, np.float64) for part in model.posterior(params, BATCH))
    covariance = np.cov(mean.T, bias=True)
    if penalty == "dip_ii":
        covariance += np.diag(np.exp(log_variance).mean(0))
    apart = covariance - np.diag(np.diag(covariance))
    expected = np.square(apart).sum() + 3 * np.square(np.diag(covariance) - 1).sum()
    found = model.loss(params, BATCH, KEY, CLOCK)[1]["penalty"]
    assert float(found) == pytest.approx(expected, rel=1e-4)


# --------------------------------------------------------------------------------------------- maximum mean discrepancy


def test_the_discrepancy_of_equal_distributions_is_near_zero_and_of_others_it_is_not():
    x, y, shifted = (jax.random.normal(jax.random.key(seed), (200, 64, 3)) for seed in range(3))
    equal = jax.vmap(mean_discrepancy)(x, y)
    assert abs(float(equal.mean())) < 4 * float(equal.std()) / 200**0.5  # unbiased, so below zero as often
    assert float(equal.std()) < 0.05
    assert float(jax.vmap(mean_discrepancy)(x, shifted + 0.5).mean()) > 10 * float(equal.std()) / 200**0.5
    assert float(mean_discrepancy(x[0], x[0])) < 0  # the same rows: nothing but the diagonal is missing


def test_the_discrepancy_is_that_of_its_formula():
    x, y = (np.asarray(jax.random.normal(jax.random.key(seed), (5, 3)), np.float64) for seed in range(2))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([6 * s / (6 * s + np.square(a - b).sum()) for s in MMD_SCALES]))

    within = sum(kernel(rows[i], rows[j]) for rows in (x, y) for i in range(5) for j in range(5) if i != j) / 20
    between = sum(kernel(a, b) for a in x for b in y) / 25
    found = mean_discrepancy(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    assert float(found) == pytest.approx(within - 2 * between, rel=1e-4)


# ------------------------------------------------------------------------------------------------------- discriminators


@pytest.mark.parametrize(("name", "penalty"), [("vae", "factor"), ("vae", "adversarial"), ("dense_ae", "adversarial")])
def test_no_gradient_crosses_between_code_and_discriminator(name: str, penalty: str, build_model):
    model, params = small(build_model, name, penalty=penalty, penalty_weight=2.0, discriminator_dims=[3])

    def terms(params: Any) -> tuple[jax.Array, jax.Array]:
        metrics = model.loss(params, BATCH, KEY, CLOCK)[1]
        return metrics["penalty"], metrics["discriminator_loss"]

    plain = replaced(model, penalty="none")

    def slopes(params: Any) -> Any:
        whole, without = (
            jax.grad(lambda params, one=one: one.loss(params, BATCH, KEY, CLOCK)[0]) for one in (model, plain)
        )
        return jax.jacrev(terms)(params), whole(params), without(params)

    (deception, judgement), whole, without = quick(slopes)(params)
    for own, other in ((deception, "discriminator"), (judgement, "encoder")):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(own[other]))  # exactly
    assert any(np.any(leaf) for leaf in jax.tree.leaves(deception["encoder"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(judgement["discriminator"]))
    # the encoder's gradient is that of the weighted sum, the discriminator's that of its own loss
    weighted = jax.tree.map(lambda one, more: one + 2 * more, without["encoder"], deception["encoder"])
    for one, other in ((whole["encoder"], weighted), (whole["discriminator"], judgement["discriminator"])):
        for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_shuffled_codes_keep_every_dimension_and_lose_the_rest(build_model, monkeypatch):
    model, params = small(build_model, "factor_vae", discriminator_dims=[3])
    seen: list[Any] = []
    monkeypatch.setattr(type(model.penalty), "discriminate", lambda self, own, z: seen.append(z) or z.sum(-1))
    model.loss(params, BATCH, KEY, CLOCK)
    code, apart = np.asarray(seen[1]), np.asarray(seen[2])
    np.testing.assert_array_equal(np.sort(code, 0), np.sort(apart, 0))
    order = [np.argsort(np.argsort(part[:, column])) for part in (code, apart) for column in (0, 1)]
    assert not np.array_equal(order[0][np.argsort(order[2])], order[1][np.argsort(order[3])])  # by orders of their own


# --------------------------------------------------------------------------------------------------------------- priors


def test_one_pseudo_input_is_one_gaussian(build_model):
    """The KL to its posterior has a closed form."""
    model, params = small(build_model, "vamp_vae", pseudo_inputs=1, samples=20_000)
    mean, log_variance = (np.asarray(part, np.float64) for part in model.posterior(params, BATCH))
    pseudo = Examples(x=params["prior"]["pseudo_inputs"])
    other, log_other = (np.asarray(part, np.float64) for part in model.posterior(params, pseudo))
    exact = 0.5 * (log_other - log_variance + (np.exp(log_variance) + (mean - other) ** 2) / np.exp(log_other) - 1)
    scores = quick(model.evaluate)(params, BATCH, jax.random.split(KEY, 6))
    np.testing.assert_allclose(scores["kl_nats"], exact.sum(-1), rtol=0.05, atol=0.01)
    z = jax.random.normal(KEY, (7, 6, 2))
    density = scipy.stats.norm.logpdf(z, other[None], np.exp(0.5 * log_other[None])).sum(-1)
    found, draws = quick(
        lambda params: (
            log_prior(model, params, z, jnp.zeros((7, 6, 0))),
            model.prior_sample(params, KEY, 20_000),
        )
    )(params)
    np.testing.assert_allclose(found, density, rtol=1e-4, atol=1e-4)
    draws = np.asarray(draws, np.float64)
    np.testing.assert_allclose(draws.mean(0), other[0], atol=0.05 * np.exp(0.5 * log_other[0]).max())
    np.testing.assert_allclose(draws.std(0), np.exp(0.5 * log_other[0]), rtol=0.03)


def test_many_pseudo_inputs_are_a_mixture_that_starts_at_training_rows(build_model):
    model = build_model("vamp_vae", **SMALL, pseudo_inputs=4).bind(FACTS)
    params = model.init(jax.random.key(0), BATCH)
    pseudo = np.asarray(params["prior"]["pseudo_inputs"])
    assert all((np.asarray(BATCH.x) == row).all(1).any() for row in pseudo)
    assert len(np.unique(pseudo, axis=0)) == 4
    z = jax.random.normal(KEY, (3, 6, 2))
    posterior = (np.asarray(part, np.float64) for part in model.posterior(params, Examples(x=jnp.asarray(pseudo))))
    expected = mixture(np.asarray(z, np.float64).reshape(18, 2), *posterior)[0].reshape(3, 6)
    np.testing.assert_allclose(log_prior(model, params, z, jnp.zeros((3, 6, 0))), expected, rtol=1e-4, atol=1e-4)


def test_a_mixture_of_narrow_posteriors_keeps_its_digits():
    """Products of matrices in place of differences lose whole nats here."""
    random = np.random.default_rng(0)
    mean, log_variance = random.normal(size=(30, 8)), np.full((30, 8), 2 * np.log(0.002))
    z = (mean + 0.002 * random.normal(size=(30, 8)))[None]
    single = [jnp.asarray(array, jnp.float32) for array in (z, mean, log_variance)]
    double = [np.asarray(array, np.float64) for array in single]
    expected = mixture(double[0][0], *double[1:])[0] + np.log(30)
    np.testing.assert_allclose(mixture_log_prob(*single)[0], expected, atol=2e-3)


def test_pseudo_inputs_need_whole_rows(build_model):
    for name, prior in (("recurrent_vae", "vamp"), ("recurrent_vae", "normal")):
        model = build_model(name, prior=prior).bind(SEQUENCE)
        model.prior.check_rows(dataclasses.replace(SEQUENCES, length=None))
        if prior == "vamp":
            with pytest.raises(ConfigError, match="padding") as error:
                model.prior.check_rows(SEQUENCES)
            assert error.value.key == "prior"
        else:
            model.prior.check_rows(SEQUENCES)


def test_with_the_exact_posterior_of_the_second_layer_its_bound_is_the_marginal(build_model):
    """p(z) of linear layers is Gaussian; every single draw of t says so."""
    options = {"latent_dim": 3, "top_dim": 2, "top_hidden_dims": []}
    model, params = small(build_model, "two_layer_vae", **options)
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 2)))[0]
    weights, mean, scale = orthogonal * [1.5, 0.7], np.array([0.3, -0.2, 0.5]), 0.6
    variance = 1 / (1 + np.square(weights).sum(0) / scale**2)
    towards = weights * variance / scale**2
    up = {"kernel": np.concatenate([towards, np.zeros((3, 2))], 1)}
    up["bias"] = np.concatenate([-mean @ towards, np.log(variance)])
    down = {"kernel": np.concatenate([weights.T, np.zeros((2, 3))], 1)}
    down["bias"] = np.concatenate([mean, np.full(3, 2 * np.log(scale))])
    params["prior"] = {"encoder": {"output": up}, "decoder": {"output": down}}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    z = jax.random.normal(KEY, (4, 6, 3))
    covariance = weights @ weights.T + scale**2 * np.eye(3)
    exact = scipy.stats.multivariate_normal(mean, covariance).logpdf(np.asarray(z, np.float64))
    noise = jax.random.normal(jax.random.key(3), (4, 6, 2))
    found, draws = quick(lambda params: (log_prior(model, params, z, noise), model.prior_sample(params, KEY, 20_000)))(
        params
    )
    np.testing.assert_allclose(found, exact, atol=2e-4)
    draws = np.asarray(draws, np.float64)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.06)


def test_a_second_layer_that_says_nothing_is_the_standard_normal(build_model):
    """p(z | t) = N(0, 1) and q(t | z) = N(0, 1): the loss of one layer, on average."""
    deep, params = small(build_model, "two_layer_vae", samples=4000, top_hidden_dims=[3])
    params["prior"] = jax.tree.map(jnp.zeros_like, params["prior"])
    plain = replaced(deep, prior="normal")
    keys = jax.random.split(KEY, 6)
    two, one = (quick(model.evaluate)(params, BATCH, keys)["kl_nats"] for model in (deep, plain))
    np.testing.assert_allclose(two, one, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(("name", "plain"), [("factor_vae", "vae"), ("adversarial_ae", "dense_ae")])
def test_a_discriminator_does_not_count_as_the_models_size(name: str, plain: str, build_model):
    widths = {
        one: build_model(one, latent_dim=2, parameters=3000).bind(FACTS).networks.hidden_dims for one in (name, plain)
    }
    assert widths[name] == widths[plain]


# ---------------------------------------------------------------------------------------------------- vector quantizing


def quantized(build_model, **options: Any) -> tuple[Any, Any]:
    model = build_model("vq_ae", **(SMALL | {"latent_dim": 4, "groups": 2, "entries": 3} | options)).bind(FACTS)
    return model, model.init(jax.random.key(0), BATCH)


def test_codes_are_the_nearest_entries(build_model):
    model, params = quantized(build_model)
    outputs = np.asarray(model.code_outputs(params, BATCH), np.float64).reshape(6, 2, 2)
    entries = np.asarray(params["codebook"]["entries"], np.float64)
    nearest = np.square(outputs[:, :, None] - entries).sum(-1).argmin(-1)
    np.testing.assert_array_equal(model.assign(params, BATCH), nearest)
    codes = np.asarray(model.encode(params, BATCH)).reshape(6, 2, 2)
    np.testing.assert_array_equal(codes, np.asarray(params["codebook"]["entries"])[nearest])
    scores = model.evaluate(params, BATCH, jax.random.split(KEY, 6))
    away = np.square(outputs - entries[nearest]).sum((1, 2))
    np.testing.assert_allclose(scores["commitment"], away, rtol=1e-4, atol=1e-6)


def test_gradients_pass_straight_through_the_codebook(build_model):
    """The encoder gets the decoder's gradient at the entries plus the commitment; entries get their own term only."""
    model, params = quantized(build_model, commitment=0.3)
    outputs = model.code_outputs(params, BATCH)
    entries, chosen = params["codebook"]["entries"], model.assign(params, BATCH)
    code = entries[chosen].reshape(6, 4)

    def reconstruction(code: jax.Array) -> jax.Array:
        decoded = outputs_of(model, params, code, BATCH.label, None)
        return -log_likelihood(model, params, decoded, BATCH).mean()

    def slopes(params: Any) -> tuple[Any, Any]:
        expected = jax.grad(reconstruction)(code) + 0.3 * 2 * (outputs - code) / 6
        back = jax.vjp(lambda own: model.code_outputs({**params, "encoder": own}, BATCH), params["encoder"])[1]
        return jax.grad(lambda params: model.loss(params, BATCH, KEY, CLOCK)[0])(params), back(expected)[0]

    gradient, expected = quick(slopes)(params)
    for ours, theirs in zip(jax.tree.leaves(gradient["encoder"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    hot = jax.nn.one_hot(chosen.reshape(-1), 3)
    towards = 2 * (hot.sum(0)[:, None] * entries - hot.T @ outputs.reshape(12, 2)) / 6
    np.testing.assert_allclose(gradient["codebook"]["entries"], towards, rtol=1e-4, atol=1e-6)


def test_the_averaged_codebook_is_a_moving_average(build_model, build_optimizer):
    model, params = quantized(build_model, codebook="average", entries=5)
    optimizer = build_optimizer("codebook")
    transformation = optimizer.build(1, 1)
    never = jnp.int32(NEVER)
    state = State(jnp.int32(0), params, transformation.init(params), None, jnp.float32(0), never, never, never)
    step = quick(lambda state: engine.train_step(model, transformation, state, BATCH, KEY, CLOCK, budget())[0])
    after = step(state).params["codebook"]["entries"]
    parts = np.asarray(model.code_outputs(params, BATCH), np.float64).reshape(12, 2)
    chosen, before = np.asarray(model.assign(params, BATCH)).reshape(12), np.asarray(params["codebook"]["entries"])
    decay = 1 - optimizer.players["codebook"].numbers["learning_rate"]
    assert decay == 0.99
    for entry in range(5):
        mean = parts[chosen == entry].mean(0) if (chosen == entry).any() else before[entry]
        np.testing.assert_allclose(after[entry], decay * before[entry] + (1 - decay) * mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("codebook", ["gradient", "average"])
def test_the_codebook_is_used(codebook: str, build_model, build_optimizer):
    """The corners of a cube: training tells them apart by their entries."""
    random = np.random.default_rng(0)
    centers = np.stack([np.arange(8) >> bit & 1 for bit in (0, 1, 2, 0, 1)], 1)
    label = np.arange(64) % 8
    batch = Examples(x=jnp.asarray(centers[label] + 0.01 * random.normal(size=(64, 5)), jnp.float32))
    model, _ = quantized(build_model, codebook=codebook, groups=1, latent_dim=4, entries=16, hidden_dims=[16])
    params = quick(model.init)(jax.random.key(0), batch)
    optimizer = build_optimizer("codebook") if codebook == "average" else build_optimizer("adam", learning_rate=0.01)
    transformation = optimizer.build(1, 300)
    never = jnp.int32(NEVER)
    state = State(jnp.int32(0), params, transformation.init(params), None, jnp.float32(0), never, never, never)
    step = lambda state, key: engine.train_step(model, transformation, state, batch, key, CLOCK, budget())
    params = quick(lambda state: jax.lax.scan(step, state, jax.random.split(KEY, 300))[0])(state).params
    used = lambda params: (model.assign(params, batch), model.loss(params, batch, KEY, CLOCK)[1])
    entries, metrics = jax.device_get(quick(used)(params))
    chosen = entries[:, 0]
    groups = [{*chosen[label == cluster]} for cluster in range(8)]
    assert len({*chosen}) >= 8
    assert sum(len(group) for group in groups) == len({*chosen})  # no entry stands for two clusters
    assert 7.9 < float(metrics["codebook_perplexity"]) <= 16
    assert quick(lambda params: model.sample(params, KEY, 5))(params).shape == (5, 5)


def test_padding_chooses_no_entry(build_model):
    options = {"code": "step", "latent_dim": 2, "hidden_dim": 4, "groups": 1, "entries": 3, "codebook": "average"}
    inside = jnp.arange(7)[None, :, None] < SEQUENCES.length[:, None, None]
    longer = jnp.where(inside, jnp.pad(SEQUENCES.x, ((0, 0), (0, 3), (0, 0))), 0.0)
    found, params = [], None
    for steps in (4, 7):
        batch = dataclasses.replace(SEQUENCES, x=longer[:, :steps])
        bound = build_model("recurrent_vq_ae", **options).bind(dataclasses.replace(SEQUENCE, feature_shape=(steps, 2)))
        params = params or quick(bound.init)(jax.random.key(0), batch)
        found.append(quick(bound.loss)(params, batch, KEY, CLOCK)[1])
    for name in ("codebook_perplexity", "commitment"):
        assert float(found[0][name]) == pytest.approx(float(found[1][name]), rel=1e-5)


def test_padding_is_no_entry_at_the_start(build_model):
    """Steps that are padding would all have the code of nothing; entries lie near codes of valid steps."""
    options = {"code": "step", "latent_dim": 2, "hidden_dim": 4, "groups": 1, "entries": 8}
    model = build_model("recurrent_vq_ae", **options).bind(SEQUENCE)
    first = dataclasses.replace(SEQUENCES, length=jnp.ones(6, jnp.int32))  # six valid steps, eighteen of padding
    params = model.init(jax.random.key(0), first)
    codes = np.asarray(model.code_outputs(params, first))[:, 0]
    away = np.linalg.norm(np.asarray(params["codebook"]["entries"])[:, None] - codes, axis=-1).min(1)
    assert away.max() < 0.1 * codes.std()


def test_the_kl_to_the_uniform_prior_counts_valid_steps(build_model):
    options = {"code": "step", "latent_dim": 2, "hidden_dim": 4, "groups": 1, "entries": 3, "likelihood": "gaussian"}
    model = build_model("recurrent_vq_ae", **options).bind(SEQUENCE)
    params = model.init(jax.random.key(0), SEQUENCES)
    scores = quick(model.evaluate)(params, SEQUENCES, jax.random.split(KEY, 6))
    np.testing.assert_allclose(scores["kl_nats"], SEQUENCES.length * np.log(3), rtol=1e-6)
    np.testing.assert_allclose(scores["elbo_nats"], -scores["reconstruction_nats"] - scores["kl_nats"], rtol=1e-6)


def test_a_codebook_starts_at_points_far_apart():
    """Of three places, three entries: one each, also where one place has nearly all points."""
    points = jnp.concatenate([jnp.zeros((50, 2)), jnp.array([[9.0, 0.0], [0.0, 9.0]])])
    for seed in range(5):
        found = spread_out(jax.random.key(seed), points, 3, jnp.ones(52, bool))
        assert len({tuple(np.asarray(row)) for row in found}) == 3
    assert np.isfinite(spread_out(KEY, points[:3], 2, jnp.ones(3, bool))).all()  # equal points only
    assert (np.asarray(spread_out(KEY, points, 9, jnp.arange(52) < 50)) == 0).all()  # the others are not there


# -------------------------------------------------------------------------------------------- regularized autoencoders


def test_the_terms_of_a_regularized_autoencoder(build_model):
    weights: dict[str, Any] = {"code_l2": 0.5, "decoder_l2": 0.25, "decoder_gradient": 2.0}
    model, params = small(build_model, "rae", hidden_dims=[], **weights)
    plain = replaced(model, **dict.fromkeys(weights))
    (loss, metrics), (without, _), code = quick(
        lambda params: (
            model.loss(params, BATCH, KEY, CLOCK),
            plain.loss(params, BATCH, KEY, CLOCK),
            model.encode(params, BATCH),
        )
    )(params)
    decoder = params["decoder"]["output"]
    assert float(metrics["code_l2"]) == pytest.approx(
        0.5 * np.square(np.asarray(code, np.float64)).sum(1).mean(), rel=1e-5
    )
    squares = sum(float(jnp.square(leaf).sum()) for leaf in decoder.values())
    assert float(metrics["decoder_l2"]) == pytest.approx(0.5 * squares, rel=1e-5)
    added = sum(weight * float(metrics[name]) for name, weight in weights.items())
    assert float(loss) == pytest.approx(float(without) + added, rel=1e-5)
    # of a linear decoder the norm is that of its matrix
    keys = jax.random.split(KEY, 4000)
    estimate = quick(jax.vmap(lambda key: model.decoder_norm(params, code, BATCH, key)))(keys)
    exact = float(jnp.square(decoder["kernel"]).sum())
    np.testing.assert_allclose(estimate.mean(0), exact, rtol=0.1)
    assert not able(model, Samples)  # its codes have no known distribution


def test_padding_is_no_part_of_the_decoders_slope(build_model):
    found = []
    for steps in (4, 7):
        inside = jnp.arange(steps)[None, :, None] < SEQUENCES.length[:, None, None]
        x = jnp.where(inside, jnp.pad(SEQUENCES.x, ((0, 0), (0, 3), (0, 0)))[:, :steps], 0.0)
        facts = dataclasses.replace(SEQUENCE, feature_shape=(steps, 2))
        model = build_model("recurrent_ae", latent_dim=2, hidden_dim=4, decoder_gradient=1.0).bind(facts)
        batch = dataclasses.replace(SEQUENCES, x=x)
        params = model.init(jax.random.key(0), SEQUENCES)
        found.append(quick(model.loss)(params, batch, KEY, CLOCK)[1]["decoder_gradient"])
    assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-5)
