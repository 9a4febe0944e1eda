"""Scores of single dimensions against known factors, on codes whose scores are known."""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from research import tree
from research.data.examples import Examples, Facts
from research.evaluation import Subject, disentanglement
from research.evaluation.disentanglement import NAMES, dci, mig, modularity, mutual_information, sap, study, supervised
from research.evaluation.votes import beta_vae_score, factor_vae_score
from research.metrics import direction
from research.tree import spec

from .asking import ask

STANDARD = Path(__file__).parents[2] / "conf" / "evaluation" / "standard.yaml"
GRID = np.array(list(itertools.product(range(4), range(5), range(6), range(9))))[:, :3]  # every combination nine times
MOST = 1 - np.mean([1 / 4, 1 / 5, 1 / 6])  # the highest sap of these factors
DCI = tuple(f"dci_{name}" for name in ("disentanglement", "completeness", "informativeness"))


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def perfect():
    """A dimension per factor, each some monotone map of it, in units of their own."""
    return np.stack([GRID[:, 2] ** 1.5, -1e4 * GRID[:, 0], 5e-3 * np.sqrt(GRID[:, 1] + 1)], 1)


def test_a_dimension_for_every_factor_scores_highest():
    found = supervised(perfect(), GRID)
    assert set(found) == set(NAMES)
    assert found.pop("sap") == pytest.approx(MOST)
    assert found == pytest.approx(dict.fromkeys(found, 1), abs=1e-9)


def test_noise_scores_chance():
    """All but modularity, whose informations are those of chance: about (19 bins) (K - 1) / 2N for K values."""
    found = supervised(normal(len(GRID), 5), GRID)
    chance = np.mean([1 / 4, 1 / 5, 1 / 6])
    assert found["mig"] < 0.01
    assert found["sap"] < 0.05
    assert found["dci_disentanglement"] < 0.02
    assert found["dci_completeness"] < 0.02
    assert found["dci_informativeness"] == pytest.approx(chance, abs=0.04)
    assert found["factor_vae_score"] == pytest.approx(1 / 3, abs=0.06)
    assert found["beta_vae_score"] == pytest.approx(1 / 3, abs=0.06)
    assert 0.2 < found["modularity"] < 0.8


def test_values_that_few_rows_share_do_not_let_noise_score():
    """About four rows a value: which dimension varies least among them is chance, but the same at every draw."""
    factors = np.random.default_rng(1).integers(100, size=(400, 2))
    assert factor_vae_score(normal(400, 6), factors) == pytest.approx(0.5, abs=0.1)
    assert beta_vae_score(normal(400, 6), factors) == pytest.approx(0.5, abs=0.1)


def test_turning_two_factors_by_45_degrees_keeps_the_information_and_loses_the_rest():
    """Both dimensions know as much of either factor, and either factor leaves them the same spread."""
    values = np.random.default_rng(0).random((3000, 2))
    factors = (5 * values).astype(int)
    straight, turned = (supervised(codes, factors) for codes in (values, values @ np.array([[1, 1], [1, -1]]) / 2**0.5))
    assert straight["mig"] > 0.97
    assert turned["mig"] < 0.03
    assert straight["dci_disentanglement"] > 0.99
    assert turned["dci_disentanglement"] < 0.05
    assert turned["dci_completeness"] < 0.05
    assert turned["dci_informativeness"] > 0.9
    assert turned["sap"] < 0.03
    assert turned["modularity"] < 0.05
    for name in ("factor_vae_score", "beta_vae_score"):
        assert straight[name] == 1
        assert turned[name] == pytest.approx(0.5, abs=0.1)


def test_every_factor_twice_loses_the_gaps_and_log_2_of_completeness():
    found = supervised(np.concatenate([perfect(), 7 - 3 * perfect()], 1), GRID)
    assert found["mig"] == found["sap"] == pytest.approx(0, abs=1e-9)
    # the ten trees draw which of two equal dimensions they split
    assert found["dci_completeness"] == pytest.approx(1 - np.log(2) / np.log(6), abs=0.02)
    for name in ("modularity", "dci_disentanglement", "dci_informativeness", "factor_vae_score", "beta_vae_score"):
        assert found[name] == pytest.approx(1)


def test_one_dimension_that_holds_all_is_complete_and_not_disentangled():
    """16 values in 20 bins; with a constant dimension beside it the mean modularity counts that as 0."""
    factors = np.array(list(itertools.product(range(4), range(4), range(30))))[:, :2]
    codes = (4 * factors[:, :1] + factors[:, 1:]).astype(float)
    found = supervised(codes, factors)
    assert found["mig"] == pytest.approx(1)
    assert found["sap"] == pytest.approx(3 / 4)
    assert found["modularity"] == pytest.approx(0)
    assert [found[name] for name in DCI] == pytest.approx([0, 1, 1])
    assert found["factor_vae_score"] == pytest.approx(0.5, abs=0.06)
    beside = np.concatenate([perfect(), np.full((len(GRID), 1), 0.1)], 1)
    assert modularity(beside, GRID) == pytest.approx(3 / 4)
    assert mig(beside, GRID) == pytest.approx(1)
    assert dci(beside, GRID) == pytest.approx(dict.fromkeys(DCI, 1))


def test_a_code_that_says_nothing():
    found = supervised(np.ones((len(GRID), 3)), GRID)
    assert found.pop("dci_informativeness") < 0.25
    assert found.pop("factor_vae_score") == 1 / 3
    assert found.pop("beta_vae_score") == pytest.approx(1 / 3, abs=0.06)
    assert found == dict.fromkeys(found, 0)


def test_information_of_tables_counted_by_hand():
    one, other = np.repeat([0, 0, 1, 1], [3, 1, 1, 3]), np.repeat([0, 1, 0, 1], [3, 1, 1, 3])
    table = mutual_information(np.stack([one, other], 1), np.stack([one, other], 1))
    shared = (6 * np.log(3 / 2) + 2 * np.log(1 / 2)) / 8
    np.testing.assert_allclose(table, [[np.log(2), shared], [shared, np.log(2)]])
    assert mutual_information(GRID[:, :1], GRID[:, 1:]).tolist() == [[0, 0]]
    np.testing.assert_array_equal(
        disentanglement.discretize(np.array([[0.0], [4.9], [5.0], [99.9], [100]]))[:, 0], [0, 0, 1, 19, 19]
    )


def test_gaps_of_a_noisy_dimension_by_hand():
    """A second dimension that agrees with the factor in 3 of 4 rows: its information, its accuracy are taken off."""
    factors = np.array(list(itertools.product(range(2), range(2), range(2), range(2), range(60))))[:, :4]
    agrees = np.where(factors[:, 2] & factors[:, 3], 1 - factors[:, 0], factors[:, 0])
    codes = np.stack([factors[:, 0], agrees, factors[:, 1]], 1).astype(float)
    told = np.log(2) + 3 / 4 * np.log(3 / 4) + 1 / 4 * np.log(1 / 4)
    assert mig(codes, factors[:, :2]) == pytest.approx((1 - told / np.log(2) + 1) / 2)
    assert sap(codes, factors[:, :2]) == pytest.approx((1 / 4 + 1 / 2) / 2, abs=0.02)


def test_collapsed_dimensions_have_no_vote():
    """A dimension that holds the second factor at a deviation of .001 helps as long as it is counted."""
    factors = GRID[:, :2]
    codes = np.stack([factors[:, 0] + 0.1 * normal(len(GRID)), 1e-3 * factors[:, 1]], 1)
    assert factor_vae_score(codes, factors) == 1
    assert factor_vae_score(codes, factors, threshold=0.01) == pytest.approx(0.5, abs=0.06)
    assert factor_vae_score(codes, factors, threshold=9) == 0.5


def test_order_of_rows_and_dimensions_and_another_call():
    codes = np.concatenate([perfect() / perfect().std(0) + normal(len(GRID), 3), normal(len(GRID), 2)], 1)
    found, rows = supervised(codes, GRID), np.random.default_rng(3).permutation(len(GRID))
    assert supervised(codes, GRID) == found
    assert mig(codes[rows], GRID[rows]) == pytest.approx(found["mig"])
    assert modularity(codes[rows], GRID[rows]) == pytest.approx(found["modularity"])
    moved = supervised(4 * codes[:, [3, 1, 4, 0, 2]], GRID)
    for name in (*DCI, "beta_vae_score"):  # the first of equal splits, and sums in another order
        assert moved.pop(name) == pytest.approx(found.pop(name), abs=0.03)
    assert moved == pytest.approx(found)
    assert dci(codes, GRID, seed=1) != dci(codes, GRID)


def test_factors_that_do_not_vary_are_left_out():
    still = np.concatenate([GRID, np.full((len(GRID), 1), 7)], 1)
    assert supervised(perfect(), still) == supervised(perfect(), GRID)
    with pytest.raises(ValueError, match="fewer than two factors vary"):
        mig(perfect(), still[:, 2:])
    with pytest.raises(ValueError, match="several rows share"):
        factor_vae_score(normal(200, 3), np.stack([np.arange(200), np.arange(200) % 2], 1))
    assert all(direction(f"test/{name}") == "higher" for name in NAMES)


def test_a_factor_of_many_values_has_bins_enough_and_mig_its_ceiling():
    factors = np.stack([np.repeat(np.arange(40), 250), np.tile(np.arange(5), 2000)], 1)
    assert sap(factors.astype(float), factors) == pytest.approx((1 - 1 / 40 + 1 - 1 / 5) / 2)
    assert mig(factors.astype(float), factors) == pytest.approx((np.log(20) / np.log(40) + 1) / 2, abs=1e-6)


@spec
class Reader:
    """q(z | x) = N(gain x, .01) of the first values."""

    latent_dim: int

    def encode(self, params, batch):
        return batch.x[:, : self.latent_dim] * params["gain"]

    def posterior(self, params, batch):
        mean = self.encode(params, batch)
        return mean, jnp.full(mean.shape, np.log(0.01))


@spec
class Plain:
    latent_dim: int

    def encode(self, params, batch):
        return jnp.tile(batch.x, 2)[:, : self.latent_dim] * params["gain"]


def studied(factors, model=None, gain=1.0, rows=300, shared=None, length=None, **changes):
    x = np.concatenate([GRID, normal(len(GRID), 2)], 1)[np.random.default_rng(0).permutation(len(GRID))][:rows]
    part = Examples(x=x.astype(np.float32), factors=None if factors is None else factors(x), length=length)
    recipe = dataclasses.replace(tree.build(yaml.safe_load(STANDARD.read_text())), **changes)
    facts = Facts("vector", (5,), -5.0, 5.0, 0, rows, rows, rows)
    options = {"shared": shared, "data_key": "rows"} if shared is not None else {}
    parts = dict.fromkeys(("train", "validation", "test"), part)
    subject = Subject(
        model or Plain(latent_dim=3), {"gain": np.float32(gain)}, parts, recipe, facts, jax.random.key(0), **options
    )
    return ask(subject, study)


def known(x):
    return x[:, :3].astype(np.int32)


def named(*prefixes):
    return {f"{prefix}/{name}" for prefix in prefixes for name in NAMES}


def test_a_code_of_factors_beside_noise_and_principal_components():
    shared = {}
    found = studied(known, shared=shared)
    assert set(found.metrics) == named("test", "baseline/random_code", "baseline/pca", "baseline/perfect_code")
    assert not found.null_reasons
    assert found.metrics["test/mig"] > 0.9
    assert found.metrics["test/dci_disentanglement"] > 0.99
    assert found.metrics["baseline/random_code/mig"] < 0.1
    ceiling = supervised(GRID[:, :3], GRID[:, :3].astype(int))
    assert found.metrics["baseline/perfect_code/mig"] == pytest.approx(1, abs=0.02)
    assert found.metrics["baseline/perfect_code/sap"] == pytest.approx(ceiling["sap"], abs=0.02)
    assert found.metrics["baseline/random_code/dci_informativeness"] < 0.4
    assert found.metrics["baseline/random_code/mig"] < found.metrics["baseline/pca/mig"] < 1
    # the rows alone decide the baselines
    kept = dict(shared)
    again = studied(known, shared=shared, gain=0)
    assert shared == kept
    assert again.metrics["baseline/pca/mig"] == found.metrics["baseline/pca/mig"]
    assert again.metrics["test/mig"] == 0
    assert set(studied(known, Plain(latent_dim=2), shared=shared).metrics) == set(found.metrics)
    assert len(shared) == len(kept) + 2
    assert set(studied(known, baselines=False).metrics) == named("test")


def test_a_small_mean_has_collapsed_in_a_posterior_only():
    """The prior fixes the unit of a posterior, and of no other code."""
    for model, score in ((Reader(latent_dim=3), 1 / 3), (Plain(latent_dim=3), 1)):
        found = studied(known, model, gain=1e-3, baselines=False)
        assert found.metrics["test/factor_vae_score"] == score


def test_data_without_known_discrete_factors_have_no_scores():
    assert not studied(None).metrics
    assert not studied(lambda x: x[:, :3]).metrics  # values, not classes
    assert not studied(lambda x: known(x)[:, :1]).metrics
    assert not studied(lambda x: known(x)[:, :2] * np.array([0, 1])).metrics
    assert not studied(known, Reader(latent_dim=3), disentanglement=False).metrics


def test_what_cannot_be_said_has_a_reason():
    found = studied(known, Reader(latent_dim=3), gain=np.nan, baselines=False)
    assert found.null_reasons == dict.fromkeys(named("test"), "some codes are not finite")
    found = studied(known, Reader(latent_dim=3), rows=99, baselines=False)
    assert found.null_reasons == dict.fromkeys(named("test"), "fewer than 100 rows")
    found = studied(lambda x: np.stack([np.arange(len(x)), known(x)[:, 0]], 1), baselines=False)
    assert found.null_reasons == dict.fromkeys(
        named("test"), "fewer than two factors have values that several rows share"
    )


def test_principal_components_that_do_not_exist_have_a_reason():
    lengths = np.full(300, 5, np.int32)
    for found, reason in (
        (studied(known, length=lengths), "rows are padded or have missing values"),
        (studied(known, Plain(latent_dim=6)), "the data has only 5 principal components, fewer than latents"),
    ):
        assert found.null_reasons == dict.fromkeys(named("baseline/pca"), reason)
        assert set(found.metrics) == named("test", "baseline/random_code", "baseline/pca", "baseline/perfect_code")
