"""How well samples stand for real rows."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from research import tree
from research.data import load
from research.data.examples import Examples
from research.data.loading import scored
from research.evaluation import Subject, baselines, sampling
from research.evaluation.sampling import NAMES, frechet_distance, mixture, scores
from research.metrics import direction

from .asking import ask

CONF = Path(__file__).parents[2] / "conf"
SCORES = NAMES[:-1]


def normal(rows, size=2, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, size))


# ------------------------------------------------------------------------------------------------------------- scores


def test_scores_of_points_on_a_line_by_hand():
    """Real rows 0 to 6, generated ones 8.5 to 14.5."""
    real = np.arange(7.0)[:, None]
    assert sampling.radii(real, (3, 5)).tolist() == [[3, 2, 2, 2, 2, 2, 3], [5, 4, 3, 3, 3, 4, 5]]
    found = scores(real, real + 8.5)
    assert found == {
        "sample_precision": 1 / 7,  # 8.5, in the ball of 6, which ends at 9
        "sample_recall": 1 / 7,  # 6, in the ball of 8.5
        "density": pytest.approx(4 / 7 / 5),  # 8.5 in the balls of 5 and 6; 9.5 and 10.5 in that of 6
        "coverage": 2 / 7,
        "frechet_distance": pytest.approx(8.5**2),
    }
    assert scores(real, real + 9)["sample_precision"] == 1 / 7  # the border belongs to a ball
    assert scores(real, real + 9.01)["sample_precision"] == 0


def brute_force(real, fake):
    """The formulas of the papers, one distance at a time."""
    far = lambda a, b: float(np.sqrt(((a - b) ** 2).sum()))
    radius = lambda rows, i, k: sorted(far(rows[i], rows[j]) for j in range(len(rows)) if j != i)[k - 1]
    holds = lambda rows, i, k, x: far(rows[i], x) <= radius(rows, i, k)
    return {
        "sample_precision": np.mean([any(holds(real, i, 3, x) for i in range(len(real))) for x in fake]),
        "sample_recall": np.mean([any(holds(fake, j, 3, x) for j in range(len(fake))) for x in real]),
        "density": np.sum([[holds(real, i, 5, x) for i in range(len(real))] for x in fake]) / 5 / len(fake),
        "coverage": np.mean([any(holds(real, i, 5, x) for x in fake) for i in range(len(real))]),
    }


@pytest.mark.parametrize("block", [2048, 5])
def test_scores_are_those_of_a_brute_force(monkeypatch, block):
    monkeypatch.setattr(sampling, "BLOCK", block)
    real, fake = normal(17), 0.7 * normal(12, seed=1) + 0.5
    real[3] = real[4]  # a tie
    found = scores(real, fake)
    for name, value in brute_force(real, fake).items():
        assert found[name] == pytest.approx(value)
        assert 0.1 < value < 1.7, "it decides nothing"
    found = scores(np.repeat(real[:1], 9, 0), np.repeat(real[:1], 8, 0))  # balls of radius 0 hold their center
    assert [found[name] for name in SCORES] == [1, 1, 9 / 5, 1, pytest.approx(0, abs=1e-12)]


def test_rows_of_one_distribution_have_the_expected_scores():
    size, found = 400, []
    for seed in range(10):
        found.append(scores(normal(size, 3, seed), normal(size, 3, seed + 100)))
    mean = {name: np.mean([each[name] for each in found]) for name in SCORES}
    expected = 1 - np.prod([(size - i) / (2 * size - i) for i in range(1, 6)])  # Naeem et al. 2020, section 3.4
    assert mean["coverage"] == pytest.approx(expected, abs=0.006)
    assert mean["density"] == pytest.approx(1, abs=0.05)
    assert 0.9 < mean["sample_precision"] < 0.99
    assert mean["sample_precision"] == pytest.approx(mean["sample_recall"], abs=0.02)


def test_samples_of_a_far_cluster_score_nothing():
    found = scores(normal(200), normal(200, seed=1) + 50)
    assert [found[name] for name in SCORES[:4]] == [0, 0, 0, 0]
    assert found["frechet_distance"] == pytest.approx(2 * 50**2, rel=0.02)


def test_samples_of_one_of_two_modes_are_precise_and_recall_half():
    modes = np.where(np.arange(600) < 300, -20, 20)[:, None]
    real, fake = normal(600) + modes, normal(600, seed=1) - 20
    found = scores(real, fake)
    assert found["sample_precision"] > 0.95
    assert found["sample_recall"] == pytest.approx(0.5, abs=0.03)
    assert found["coverage"] == pytest.approx(0.5, abs=0.02)
    swapped = scores(fake, real)  # too many modes
    assert swapped["sample_precision"] == pytest.approx(0.5, abs=0.03)
    assert swapped["sample_recall"] > 0.95


def with_moments(mean, covariance, rows, seed):
    """Rows with exactly these moments."""
    x = normal(rows, len(mean), seed)
    x -= x.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T)
    return (np.linalg.cholesky(covariance) @ white).T + mean


def test_the_frechet_distance_is_that_of_the_gaussians():
    from scipy.linalg import sqrtm

    diagonal = with_moments([1.0, 2], np.diag([4.0, 9]), 30, 0), with_moments([0.0, 0], np.diag([1.0, 1]), 40, 1)
    assert frechet_distance(*diagonal) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2)
    roots = normal(4, 4, 2), normal(4, 4, 3)  # covariances that do not commute
    one, other = (root @ root.T + 0.1 * np.eye(4) for root in roots)
    rows = with_moments(np.zeros(4), one, 50, 4), with_moments(np.ones(4), other, 60, 5)
    expected = 4 + np.trace(one + other - 2 * sqrtm(one @ other).real)
    assert frechet_distance(*rows) == pytest.approx(expected)
    assert frechet_distance(rows[1], rows[0]) == pytest.approx(expected)
    assert frechet_distance(rows[0], rows[0]) == pytest.approx(0, abs=1e-6)
    flat = np.concatenate([rows[0], np.zeros((50, 1))], 1)[:3]  # fewer rows than features, one of them constant
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-6)


def test_directions():
    assert {name: direction(f"test/{name}") for name in NAMES} == {
        "sample_precision": "higher",
        "sample_recall": "higher",
        "density": "",
        "coverage": "higher",
        "frechet_distance": "lower",
        "sampling_classifier_accuracy": "",
    }


# ------------------------------------------------------------------------------------------------- density of the codes


def planted(rows, seed):
    """Codes of three Gaussians, in units of a thousandth, and their log-density."""
    from scipy.stats import multivariate_normal

    random = np.random.default_rng(seed)
    means, turn = np.array([[0.0, 0], [6, 0], [0, 9]]), np.array([[1.0, 0.8], [0.8, 1]])
    chosen = random.choice(3, rows, p=[0.5, 0.3, 0.2])
    codes = (random.multivariate_normal([0, 0], turn, rows) + means[chosen]) / 1000
    parts = [multivariate_normal(mean / 1000, turn / 1e6).pdf(codes) for mean in means]
    return codes.astype(np.float32), float(np.log(np.dot([0.5, 0.3, 0.2], parts)).mean())


def test_the_mixture_has_the_likelihood_of_the_one_that_made_the_codes():
    held_out, expected = planted(4000, 1)
    fitted = mixture(planted(4000, 0)[0])
    assert fitted.score(held_out.astype(np.float64)) == pytest.approx(expected, abs=0.03)
    draws = fitted.sample(4000)[0]
    np.testing.assert_allclose(draws.mean(0), held_out.mean(0), atol=2e-4)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(held_out.T), rtol=0.1)
    np.testing.assert_array_equal(draws, mixture(planted(4000, 0)[0]).sample(4000)[0])


def test_few_different_codes_have_a_mixture_and_equal_ones_have_none():
    codes = np.repeat(np.array([[0.0, 0], [1, 1], [5, 2]], np.float32), 8, 0)
    draws = mixture(codes).sample(30)[0]
    assert np.abs(draws[:, None] - codes[None]).sum(2).min(1).max() < 0.1
    with pytest.raises(ValueError, match="all codes are equal"):
        mixture(codes[:8])


# -------------------------------------------------------------------------------------------------------------- study


@tree.spec
class Linear:
    """Principal components: a model that encodes and decodes."""

    latent_dim: int
    conditional: bool

    def encode(self, params, batch):
        return (batch.x.reshape(len(batch), -1) - params["mean"][None]) @ params["directions"]

    def decode(self, params, z, label=None):
        shown = z @ params["directions"].T + params["mean"][None]
        return (shown if label is None else shown + 10.0 * label[:, None]).reshape(-1, 8, 8)


@tree.spec
class Sampler(Linear):
    """A model that samples: the mean of the data with noise."""

    def sample(self, params, key, number, label=None):
        noise = params["deviation"] * jax.random.normal(key, (number, 64))
        return self.decode(params, jnp.zeros((number, self.latent_dim)), label) + noise.reshape(-1, 8, 8)


@pytest.fixture(scope="module")
def digits(shipped_config):
    dataset = load(tree.build(shipped_config("data", "digits"), key="data"))
    fitted = baselines.components(scored(dataset, None)["train"].x)
    params = {
        "mean": fitted.mean.astype(np.float32),
        "directions": fitted.directions[:, :16].astype(np.float32),
        "deviation": np.float32(0.3),
    }
    return scored(dataset, None), dataset.facts, params


SHARED = {}  # one classifier for all tests that look at digits


def study(model, digits, parts=None, facts=None, shared=SHARED, key="digits", **changes):
    own, own_facts, params = digits
    settings = yaml.safe_load((CONF / "evaluation" / "standard.yaml").read_text())
    recipe = tree.build(settings | {"sampling": True} | changes)
    subject = Subject(
        model, params, parts or own, recipe, facts or own_facts, jax.random.key(0), shared=shared, data_key=key
    )
    return ask(subject, sampling.study)


@pytest.fixture
def short(monkeypatch):
    """A classifier of fewer steps."""
    monkeypatch.setattr(sampling, "JUDGE", sampling.JUDGE._replace(steps=500))


def build(kind, conditional=False):
    return tree.build({"latent_dim": 16, "conditional": conditional}, kind)


def test_samples_of_digits(digits, short):
    decoded, noisy = (study(build(kind), digits).metrics for kind in (Linear, Sampler))
    names = {f"{part}/{name}" for part in ("test", "baseline/real_vs_real") for name in SCORES}
    assert set(decoded) == set(noisy) == names | {"test/sampling_classifier_accuracy"}
    assert decoded["test/sampling_classifier_accuracy"] > 0.93
    real = {name: decoded[f"baseline/real_vs_real/{name}"] for name in SCORES}
    assert min(real["sample_precision"], real["sample_recall"], real["coverage"]) > 0.8
    assert real["density"] == pytest.approx(1, abs=0.15)
    # real rows are better than a mixture of the codes, and that is better than noise around the mean
    good, bad = ({name: found[f"test/{name}"] for name in SCORES} for found in (decoded, noisy))
    assert real["frechet_distance"] < good["frechet_distance"] < bad["frechet_distance"] / 3
    assert real["coverage"] > good["coverage"] > bad["coverage"] + 0.3
    assert good["sample_precision"] > 0.6
    assert good["sample_recall"] > 0.6


def test_what_belongs_to_the_data_is_made_once(digits, short, monkeypatch):
    calls = []
    original = sampling.fit
    monkeypatch.setattr(sampling, "fit", lambda *given: calls.append(1) or original(*given))
    shared = {}
    first = study(build(Sampler), digits, shared=shared).metrics
    assert study(build(Sampler), digits, shared=shared).metrics == first
    assert len(calls) == 1
    without = study(build(Sampler), digits, shared=shared, baselines=False).metrics
    assert without == {name: value for name, value in first.items() if name.startswith("test/")}
    fewer = study(build(Sampler), digits, shared=shared, sampling_rows=40).metrics
    assert len(calls) == 2
    assert fewer["test/sampling_classifier_accuracy"] == first["test/sampling_classifier_accuracy"]
    assert fewer["test/frechet_distance"] != first["test/frechet_distance"]


@pytest.mark.parametrize("kind", [Linear, Sampler])
def test_conditional_models_get_labels_as_they_occur(digits, kind):
    parts, facts, params = digits
    recipe = tree.build(yaml.safe_load((CONF / "evaluation" / "standard.yaml").read_text()))
    rare = dataclasses.replace(parts["train"], label=np.where(parts["train"].label < 2, 1, 4))
    subject = Subject(build(kind, True), params, {**parts, "train": rare}, recipe, facts, jax.random.key(0))
    drawn = sampling.drawn(subject, 1000)
    assert drawn.shape == (1000, 8, 8)
    label = np.rint((drawn.mean((1, 2)) - params["mean"].mean()) / 10)
    assert set(label) == {1, 4}
    assert (label == 1).mean() == pytest.approx((rare.label == 1).mean(), abs=0.05)


def test_scores_that_do_not_exist_have_a_reason(digits, short):
    parts, facts, params = digits
    change = lambda **fields: {name: dataclasses.replace(part, **fields) for name, part in parts.items()}
    without = Examples(np.zeros((40, 8, 8), np.float32))
    every = {f"test/{name}" for name in NAMES}

    def reason(model=None, own=digits, **options):
        found = study(model or build(Sampler), own, shared={}, **options)
        assert set(found.metrics) == set(found.null_reasons) == every
        assert set(found.metrics.values()) == {None}
        return set(found.null_reasons.values()).pop()

    assert "no labels" in reason(parts=change(label=None))
    assert "no labels" in reason(parts={**parts, "train": dataclasses.replace(without, label=np.ones(40, np.int32))})
    assert "missing values" in reason(parts={**parts, "test": dataclasses.replace(without, observed=without.x > 0)})
    assert "neither" in reason(model=object())
    broken = parts, facts, params | {"mean": params["mean"] * np.nan}
    assert reason(own=broken) == "some samples are not finite"
    assert reason(model=build(Linear), own=broken) == "some codes are not finite"
    constant = parts, facts, params | {"directions": 0 * params["directions"]}
    assert reason(model=build(Linear), own=constant) == "all codes are equal"
    assert not study(build(Sampler), digits, sampling=False).metrics


def test_the_unit_of_the_data_does_not_matter(digits, short):
    parts, facts, _ = digits
    found = []
    for unit, zero in ((1, 0), (16, 3)):
        own = (
            dataclasses.replace(parts[name], x=parts[name].x * np.float32(unit) + zero) for name in ("train", "test")
        )
        found.append(sampling.referee(*own, facts, 100)[2])
    assert found[0].shape == (100, 64)
    assert np.abs(found[0] - found[1]).max() < 0.02 * found[0].max()
