"""Data with known answers."""

import dataclasses

import numpy as np
import pytest
from configs import shipped

from research.data import load
from research.data.synthetic import LowRank, gaussian_nll
from research.tree import ConfigError, build


def low_rank(**changes) -> LowRank:
    return build(shipped("data", "low_rank") | changes, key="data")


def test_the_density_is_that_of_scipy():
    from scipy.stats import multivariate_normal

    random = np.random.default_rng(0)
    root, mean, x = random.normal(size=(4, 4)), random.normal(size=4), random.normal(size=(7, 4))
    covariance = root @ root.T + np.eye(4)
    expected = -multivariate_normal(mean, covariance).logpdf(x)
    np.testing.assert_allclose(gaussian_nll(x, mean, covariance), expected)


def test_the_reference_is_near_the_entropy_and_no_fitted_gaussian_beats_it_by_much():
    recipe = low_rank(rows=6000, features=6, rank=2, noise_scale=0.5)
    dataset = load(recipe)
    split = dataset.splits[0]
    train, test = (dataset.examples.x[split.rows(part)].astype(np.float64) for part in ("train", "test"))
    fitted = gaussian_nll(test, train.mean(0), np.cov(train.T)).mean()
    reference = dataset.reference["nll_nats"]
    assert reference == pytest.approx(fitted, abs=0.03)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(train.T))[1]
    assert reference == pytest.approx(entropy, abs=0.15)


def test_the_residual_outside_the_subspace_is_the_noise():
    examples = load(low_rank(rows=4000, features=8, rank=2, noise_scale=0.3)).examples
    design = np.column_stack([examples.factors, np.ones(4000)])
    residual = examples.x - design @ np.linalg.lstsq(design, examples.x)[0]
    assert residual.std() == pytest.approx(0.3, rel=0.02)
    assert examples.factors.shape == (4000, 2)


def test_the_reference_is_given_for_unscaled_data_only():
    assert load(low_rank(scaling="standard")).reference == {}


def test_seeds_of_data_and_split_are_separate():
    first, other_split, other_data = load(low_rank()), load(low_rank(split_seed=1)), load(low_rank(data_seed=1))
    assert first.sha256 == other_split.sha256 != other_data.sha256
    np.testing.assert_array_equal(first.splits[0].train, other_data.splits[0].train)
    assert load(dataclasses.replace(low_rank())) is first


@pytest.mark.parametrize(
    "changes", [{"rank": 21}, {"rows": 0}, {"noise_scale": 0}, {"data_seed": -1}, {"scaling": "unit"}]
)
def test_sizes_that_make_no_sense_are_refused(changes):
    with pytest.raises(ConfigError) as caught:
        low_rank(**changes)
    assert caught.value.key == f"data.{next(iter(changes))}"
