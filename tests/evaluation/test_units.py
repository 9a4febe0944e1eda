"""Errors in the units of the data, beside those in scaled units."""

import jax
import numpy as np
import pytest

from research.data.examples import Examples, Facts
from research.distributions import Forecast
from research.evaluation import Subject, baselines, forecasting, units
from research.evaluation.recipe import Evaluation
from research.tree import spec

from .asking import ask
from .test_evaluate_run import Projection, recipe

SHIFT = np.linspace(-3, 3, 16).reshape(4, 4).astype(np.float32)
SCALE = np.geomspace(0.1, 10, 16).reshape(4, 4).astype(np.float32)


@pytest.fixture
def raw():
    generator = np.random.default_rng(0)
    return {
        part: generator.normal(size=(30, 4, 4)).astype(np.float32) / SCALE for part in ("train", "validation", "test")
    }


def subject_of(parts, model, settings: Evaluation, scale, **options):
    facts = Facts("image", (4, 4), -9.0, 9.0, 0, 30, 30, 30)
    return Subject(model, {"gain": np.float32(1)}, parts, settings, facts, jax.random.key(0), scale=scale, **options)


def test_errors_of_a_scaling_by_element_are_those_of_raw_rows(raw):
    scaled = {part: Examples(x=(x - SHIFT) * SCALE) for part, x in raw.items()}
    model, settings = Projection(latent_dim=5), recipe("standard")
    trained = {"test/reconstruction_mse": 1.0, "validation/reconstruction_mse": 1.0, "train/reconstruction_mse": 1.0}
    subject = subject_of(scaled, model, settings, SCALE, metrics=trained)
    found = ask(subject, baselines.study, units.study)
    for part in ("validation", "test"):
        kept = np.arange(16).reshape(4, 4) < 5
        made = np.where(kept, raw[part], SHIFT)  # what is not kept is 0 after scaling
        expected = np.square(made - raw[part]).mean()
        assert found.metrics[f"{part}/reconstruction_mse_raw"] == pytest.approx(expected, rel=1e-5)
    mean = raw["train"].mean(0)
    expected = np.square(raw["test"] - mean).mean()
    assert found.metrics["baseline/mean/reconstruction_mse_raw"] == pytest.approx(expected, rel=1e-5)
    assert "baseline/pca/reconstruction_mse_raw" in found.metrics
    assert "train/reconstruction_mse_raw" not in found.metrics


@pytest.mark.parametrize("options", [{"binary": True}, {"settings": "none"}])
def test_rows_of_zeros_and_ones_and_no_evaluation_have_none(raw, options):
    settings = recipe(options.pop("settings", "standard"))
    parts = {part: Examples(x=x) for part, x in raw.items()}
    subject = subject_of(parts, Projection(latent_dim=5), settings, 1 / 255, metrics={"test/mse": 2.0}, **options)
    found = ask(subject, units.study)
    assert found.metrics == {}


def test_one_scale_for_all_needs_no_further_pass(raw):
    parts = {part: Examples(x=x) for part, x in raw.items()}
    trained = {"test/reconstruction_mse": 0.5, "validation/mae": 3.0, "validation/mse": 2.0}
    subject = subject_of(
        parts, None, recipe("standard"), np.float32(0.25), metrics=trained, target_scale=np.full(3, 0.5)
    )
    found = ask(subject, units.study)
    assert found.metrics == {
        "test/reconstruction_mse_raw": 8.0,
        "validation/mae_raw": 6.0,
        "validation/mse_raw": 8.0,
    }


@spec
class Constant:
    """A forecast of zeros."""

    horizon: int

    def forecast(self, params, batch):
        zeros = 0 * batch.x[:, : self.horizon]
        return Forecast(mean=zeros, median=zeros)


def test_forecasts_have_errors_in_both_units():
    generator = np.random.default_rng(1)
    x, target = (generator.normal(size=(40, steps, 2)).astype(np.float32) for steps in (6, 3))
    there = generator.random(target.shape) < 0.8
    scale = np.array([0.5, 20.0], np.float32)
    part = Examples(x=x, target=target, target_observed=there)
    trained = {"validation/mse": 1.0, "validation/mae": 1.0}
    subject = subject_of(
        dict.fromkeys(("train", "validation", "test"), part),
        Constant(horizon=3),
        recipe("standard"),
        scale,
        metrics=trained,
        target_scale=scale,
    )
    found = ask(subject, forecasting.study, units.study)
    raw = target / scale
    assert found.metrics["test/mse_raw"] == pytest.approx(np.square(raw)[there].mean(), rel=1e-5)
    assert found.metrics["test/mae_raw"] == pytest.approx(np.abs(raw)[there].mean(), rel=1e-5)
    of_rows = np.where(there, np.square(raw), 0).sum((1, 2)) / there.sum((1, 2))
    assert found.metrics["validation/mse_raw"] == pytest.approx(of_rows.mean(), rel=1e-5)
    assert "baseline/repeat_last/mse_raw" in found.metrics
    assert "forecast_mse_raw" not in found.curves
