import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from research import tree
from research.data.examples import Examples, Facts
from research.evaluation import Subject
from research.evaluation.codes import codebook_use, kl_per_dimension, study_codebook, study_posterior
from research.tree import spec

from .asking import ask

STANDARD = Path(__file__).parents[2] / "conf" / "evaluation" / "standard.yaml"
DEVIATION = 0.5


@spec
class Gaussian:
    """q(z | x) = N(x, 1/4), p(x | z) = N(gain z, 1): exchanged codes cost gain^2 |x - x'|^2 / 2 more, at gain 1."""

    latent_dim: int = 2
    standard_prior: bool = True

    def posterior(self, params, batch):
        return batch.x, jnp.full(batch.x.shape, 2 * np.log(DEVIATION))

    def reconstruction_nats(self, params, z, batch):
        return 0.5 * jnp.square(batch.x - z * params["gain"]).sum(-1) + jnp.log(2 * jnp.pi)


def used(gain, x, **changes):
    part = Examples(x=x)
    recipe = dataclasses.replace(tree.build(yaml.safe_load(STANDARD.read_text())), **changes)
    facts = Facts("vector", (2,), -5.0, 5.0, 0, len(x), len(x), len(x))
    parts = dict.fromkeys(("train", "validation", "test"), part)
    subject = Subject(Gaussian(), {"gain": np.float32(gain)}, parts, recipe, facts, jax.random.key(0))
    return ask(subject, study_posterior)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32) * np.array([1, 3], np.float32)


def test_a_decoder_that_ignores_its_code_is_collapsed(x):
    found = used(0, x)
    assert found.metrics == {"test/shuffled_nats": 0, "test/collapsed": 1}


def test_a_decoder_that_uses_its_code_loses_what_the_exchange_costs(x):
    """E |x - x'|^2 / 2 is the sum of the variances, 10, for rows drawn independently."""
    found = used(1, x)
    assert found.metrics["test/shuffled_nats"] == pytest.approx(x.var(0).sum(), rel=0.15)
    assert found.metrics["test/collapsed"] == 0
    assert used(0.004, x).metrics["test/collapsed"] == 1  # about .08 nats


def test_no_row_keeps_its_code():
    """Two rows: the only exchange is the swap, and its cost is exact."""
    found = used(1, np.array([[0, 0], [3, 4]], np.float32))
    assert found.metrics["test/shuffled_nats"] == pytest.approx(12.5)


def test_divergence_of_every_dimension_largest_first(x):
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s."""
    expected = np.sort((np.square(x.astype(np.float64)) + DEVIATION**2 - 1).mean(0) / 2 - np.log(DEVIATION))[::-1]
    assert expected[0] > 2 * expected[1]
    np.testing.assert_allclose(used(1, x).curves["kl_per_dimension"], expected, rtol=1e-5)
    np.testing.assert_array_equal(kl_per_dimension(np.zeros((3, 4)), np.zeros((3, 4))), 0)


def test_what_cannot_be_said_has_a_reason(x):
    assert used(np.nan, x).null_reasons == dict.fromkeys(("test/shuffled_nats", "test/collapsed"), "not a number")
    assert used(1, x[:1]).null_reasons["test/collapsed"] == "one row only"
    x[3, 0] = np.nan
    assert used(1, x).null_reasons["test/shuffled_nats"] == "some codes are not finite"
    assert not used(1, x, usage=False).null_reasons


@spec
class Chooser:
    """The first number of every step chooses an entry."""

    entries: int = 4

    def assign(self, params, batch):
        return batch.x[..., :1].astype(jnp.int32)


def test_how_much_of_a_codebook_is_used():
    assert codebook_use(np.array([[0, 1], [2, 3]]), 4) == {"codebook_perplexity": pytest.approx(4), "codebook_used": 1}
    assert codebook_use(np.array([[2, 2], [2, 2]]), 4) == {"codebook_perplexity": 1, "codebook_used": 0.25}
    half = codebook_use(np.array([0, 0, 0, 1]), 8)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert half == {"codebook_perplexity": pytest.approx(np.exp(entropy)), "codebook_used": 0.25}


def test_padding_chooses_no_entry():
    x = np.array([[0, 1, 3, 3], [1, 0, 3, 3]], np.float32)[..., None]
    part = Examples(x=x, length=np.array([2, 2], np.int32))
    facts = Facts("sequence", (4, 1), 0.0, 3.0, 0, 2, 2, 2)
    recipe = tree.build(yaml.safe_load(STANDARD.read_text()))
    parts = dict.fromkeys(("train", "validation", "test"), part)
    findings = ask(Subject(Chooser(), {}, parts, recipe, facts, jax.random.key(0)), study_codebook)
    assert findings.metrics == {"test/codebook_perplexity": pytest.approx(2), "test/codebook_used": 0.5}
