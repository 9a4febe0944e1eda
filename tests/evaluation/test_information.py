"""How much Gaussian posteriors say, on posteriors whose information is known."""

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
from research.evaluation.codes import INFORMATION, mutual_information_nats, study_information, total_correlation
from research.metrics import direction
from research.tree import spec

from .asking import ask

STANDARD = Path(__file__).parents[2] / "conf" / "evaluation" / "standard.yaml"


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("correlation", [0, 0.5, -0.9])
def test_total_correlation_of_two_correlated_dimensions(correlation):
    q, _ = np.linalg.qr(np.column_stack([np.ones(50), normal(50, 2)]))
    one, other = q[:, 1], q[:, 2]  # exactly uncorrelated, of mean 0
    codes = np.stack([one, 30 * (correlation * one + np.sqrt(1 - correlation**2) * other) + 5, np.full(50, 2.0)], 1)
    assert total_correlation(codes) == pytest.approx(-np.log(1 - correlation**2) / 2, abs=1e-12)
    assert total_correlation(np.concatenate([codes, 2 * codes[:, :1]], 1)) == np.inf
    assert total_correlation(codes[:, :1]) == 0


def test_information_of_gaussian_posteriors():
    """Means of N(0, s^2) with variance v: 1/2 log(1 + s^2 / v) for every dimension."""
    mean, deviation, variance = normal(2000, 3), np.array([1, 2, 0]), np.array([0.5, 2, 1])
    expected = np.log(1 + deviation**2 / variance).sum() / 2
    log_variance = np.broadcast_to(np.log(variance), mean.shape)
    assert mutual_information_nats(mean * deviation, log_variance) == pytest.approx(expected, abs=0.05)
    assert mutual_information_nats(mean * 0, log_variance) == pytest.approx(0, abs=1e-12)
    assert mutual_information_nats(mean, log_variance) == mutual_information_nats(mean, log_variance)
    # one half of the rows N(0, 1), the other N(0, 9): entropy of the mixture less the mean of theirs
    halves, z = np.repeat([[0.0], [np.log(9)]], 1000, axis=0), np.linspace(-40, 40, 80_001)
    mixture = sum(np.exp(-(z**2) / 2 / v) / np.sqrt(2 * np.pi * v) for v in (1, 9)) / 2
    expected = -(mixture * np.log(mixture)).sum() * 1e-3 - (np.log(2 * np.pi * np.e) + np.log(9) / 2) / 2
    assert expected > 0.1
    assert mutual_information_nats(np.zeros((2000, 1)), halves) == pytest.approx(expected, abs=0.02)
    for small in (-30, -60):  # rows that nobody can take for another
        assert mutual_information_nats(mean[:600], np.full((600, 3), small)) == pytest.approx(np.log(600))


def test_collapsed_dimensions_have_no_total_correlation():
    z = normal(500, 2) * 1e-3
    z[:, 1] = z[:, 0] + 1e-4 * z[:, 1]
    assert total_correlation(z) > 1
    assert total_correlation(z, 0.01) == 0


@spec
class Reader:
    """q(z | x) = N(gain x, .01)."""

    def posterior(self, params, batch):
        mean = batch.x * params["gain"]
        return mean, jnp.full(mean.shape, np.log(0.01))


def studied(rows=300, gain=1.0, model=None, **changes):
    x = np.stack([np.arange(rows) % 4, np.arange(rows) // 4 % 5], 1).astype(np.float32)  # 20 codes far from each other
    recipe = dataclasses.replace(tree.build(yaml.safe_load(STANDARD.read_text())), **changes)
    facts, parts = Facts("vector", (2,), 0.0, 5.0, 0, rows, rows, rows), {"test": Examples(x=x)}
    subject = Subject(model or Reader(), {"gain": np.float32(gain)}, parts, recipe, facts, jax.random.key(0))
    return ask(subject, study_information)


def test_posteriors_need_no_factors():
    found = studied()
    assert set(found.metrics) == set(INFORMATION)
    assert found.metrics["test/total_correlation"] < 0.02
    assert np.log(15) < found.metrics["test/mutual_information_nats"] < np.log(20)
    assert studied(gain=np.nan).null_reasons == dict.fromkeys(INFORMATION, "some codes are not finite")
    assert studied(rows=99).null_reasons == dict.fromkeys(INFORMATION, "fewer than 100 rows")
    assert not studied(disentanglement=False).metrics
    assert not studied(model=object()).metrics
    assert [direction(name) for name in INFORMATION] == ["", ""]
