"""All studies together, on models whose answers are known."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from research import evaluation, tree
from research.data.examples import Examples, Facts
from research.evaluation import Evaluation, Study, Subject, baselines
from research.metrics import METRICS, Metric, direction, judges
from research.tree import ConfigError, spec

from .asking import listed_findings

CONFIGS = Path(__file__).parents[2] / "conf" / "evaluation"


def recipe(name):
    section = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    base = {} if "defaults" not in section else yaml.safe_load((CONFIGS / "standard.yaml").read_text())
    section.pop("defaults", None)
    return tree.build(base | section)


@spec
class Projection:
    """An autoencoder that keeps the first values; with `prior` it is also a VAE with a posterior of deviation .1."""

    latent_dim: int

    def encode(self, params, batch):
        return batch.x.reshape(len(batch), -1)[:, : self.latent_dim] * params["gain"]

    def decode(self, params, z, label=None):
        return jnp.pad(z, ((0, 0), (0, 16 - self.latent_dim))).reshape(-1, 4, 4)

    def reconstruct(self, params, batch):
        return self.decode(params, self.encode(params, batch))


@spec
class Variational(Projection):
    def posterior(self, params, batch):
        mean = self.encode(params, batch)
        return mean, jnp.full(mean.shape, -4.6)

    def sample(self, params, key, number, label=None):
        return self.decode(params, jax.random.normal(key, (number, self.latent_dim)))

    def log_weights(self, params, batch, keys, samples):
        return jnp.full((len(batch), samples), -3.0)


@pytest.fixture(scope="module")
def parts():
    generator = np.random.default_rng(0)
    label = np.arange(90) % 3
    x = (generator.normal(size=(90, 4, 4)) * 0.1 + label[:, None, None]).astype(np.float32)
    examples = Examples(x=x, label=label)
    rows = {"train": np.arange(50), "validation": np.arange(50, 60), "test": np.arange(60, 90)}
    return {name: examples.take(at) for name, at in rows.items()}


def run(model, parts, recipe, kind="image", classes=3, gain=1.0, **options):
    params = {"gain": np.float32(gain)}
    facts = Facts(kind, (4, 4), 0.0, 3.0, classes, 50, 10, 30)
    return listed_findings(Subject(model, params, parts, recipe, facts, jax.random.key(0), **options))


def test_a_variational_model_has_everything(parts):
    found = run(Variational(latent_dim=3), parts, recipe("standard"))
    assert set(found.metrics) == {
        *("test/nll_nats", "test/nll_standard_error", "test/nll_effective_samples", "test/nll_effective_share"),
        "test/active_units",
        *("test/knn_accuracy", "test/probe_accuracy", "baseline/pca/knn_accuracy", "baseline/pca/probe_accuracy"),
        *(f"baseline/{name}/reconstruction_mse{raw}" for name in ("mean", "pca") for raw in ("", "_raw")),
        *("test/total_correlation", "test/mutual_information_nats"),
    }
    assert found.metrics["test/nll_nats"] == pytest.approx(3)
    assert found.metrics["test/nll_effective_samples"] == pytest.approx(64)
    assert found.metrics["test/nll_effective_share"] == pytest.approx(1)
    assert found.metrics["test/active_units"] == 3
    assert found.metrics["test/knn_accuracy"] == 1
    assert found.metrics["baseline/pca/reconstruction_mse"] < 0.02 < found.metrics["baseline/mean/reconstruction_mse"]
    assert set(found.pictures) == {"codes", "reconstructions", "samples", "traversals"}
    for picture in found.pictures.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
    assert found.codes.shape == (30, 3)
    assert found.sprite[1:] == (24, 24)
    assert found.sprite[0].shape == (144, 144)
    few = "fewer than 100 rows"
    assert found.null_reasons == {"test/total_correlation": few, "test/mutual_information_nats": few}


def test_what_a_model_cannot_do_is_left_out(parts):
    found = run(Projection(latent_dim=3), parts, recipe("standard"), kind="vector")
    assert not any(name.startswith("test/nll") or name == "test/active_units" for name in found.metrics)
    assert set(found.pictures) == {"codes"}
    assert found.sprite is None
    unlabelled = {name: dataclasses.replace(part, label=None) for name, part in parts.items()}
    found = run(Projection(latent_dim=3), unlabelled, recipe("standard"), classes=0)
    assert set(found.metrics) == {
        f"baseline/{name}/reconstruction_mse{raw}" for name in ("mean", "pca") for raw in ("", "_raw")
    }


def test_a_metric_takes_a_study_its_place_in_the_list_and_a_row(parts, monkeypatch):
    def study(subject, findings):
        findings.add({"code_norm": float(np.linalg.norm(subject.codes("test"), axis=1).mean())}, "test/")

    monkeypatch.setattr(evaluation, "STUDIES", (*evaluation.STUDIES, Study(study, ())))
    monkeypatch.setitem(METRICS, "code_norm", Metric("lower", "norm of the code", shown=True))
    found = run(Projection(latent_dim=3), parts, recipe("none"))
    expected = np.linalg.norm(parts["test"].x.reshape(30, 16)[:, :3], axis=1).mean()
    assert found.metrics == {"test/code_norm": pytest.approx(expected)}
    assert direction("test/code_norm") == "lower"
    assert judges(["test/code_norm"])[0] == "validation/code_norm"


def test_none_does_nothing(parts):
    found = run(Variational(latent_dim=3), parts, recipe("none"))
    assert not found.metrics
    assert not found.pictures
    assert found.codes is None


def test_metrics_that_cannot_be_are_null_with_a_reason(parts):
    found = run(Variational(latent_dim=3), parts, recipe("standard"), gain=np.nan)
    assert found.metrics["test/knn_accuracy"] is None
    assert found.metrics["test/active_units"] is None
    assert found.null_reasons["test/probe_accuracy"] == "some codes are not finite"
    assert "traversals" not in found.pictures
    assert "reconstructions" in found.pictures
    padded = {name: dataclasses.replace(part, length=np.full(len(part), 4)) for name, part in parts.items()}
    assert (
        "padded"
        in run(Projection(latent_dim=3), padded, recipe("standard")).null_reasons["baseline/pca/reconstruction_mse"]
    )


def test_the_mean_stands_where_the_data_have_too_few_components(parts):
    few = parts | {"train": parts["train"].take(np.arange(3))}
    found = run(Projection(latent_dim=3), few, dataclasses.replace(recipe("none"), baselines=True))
    assert found.metrics["baseline/mean/reconstruction_mse"] > 0
    assert "principal components" in found.null_reasons["baseline/pca/reconstruction_mse"]


def test_baselines_are_computed_once_for_a_data_set(parts, monkeypatch):
    calls = []
    original = baselines.components
    monkeypatch.setattr(baselines, "components", lambda x: calls.append(len(x)) or original(x))
    shared = {}
    found = [
        run(Projection(latent_dim=size), parts, recipe("standard"), shared=shared, data_key=key).metrics
        for size, key in [(2, "a"), (2, "a"), (3, "a"), (2, "b")]
    ]
    assert calls == [50, 50]
    error = "baseline/pca/reconstruction_mse"
    assert found[0] == found[1]
    assert found[0][error] > found[2][error]
    assert found[3][error] == found[0][error]
    run(Projection(latent_dim=2), parts, recipe("standard"), shared=shared)  # without a name nothing is shared
    assert calls == [50, 50, 50]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_build_and_are_hashable(path):
    found = recipe(path.stem)
    assert isinstance(found, Evaluation)
    assert hash(found) == hash(recipe(path.stem))


def test_impossible_numbers_are_refused():
    with pytest.raises(ConfigError, match="nll_samples=0"):
        tree.build(tree.plain(recipe("standard")) | {"nll_samples": 0})
