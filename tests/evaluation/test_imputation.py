"""Errors of imputed values, and naive imputations, on cases counted by hand."""

import dataclasses
import os
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from research.compose import compose
from research.data.examples import Examples, Facts
from research.data.hiding import Hide
from research.data.loading import load, scored
from research.evaluation import Subject, imputation
from research.evaluation.imputation import carried, errors, naive, observed_mean
from research.models.abilities import Reconstructs
from research.tree import build, spec

from .asking import ask
from .test_evaluate_run import recipe

FACTS = Facts("sequence", (5, 2), -9.0, 9.0, 0, 4, 3, 3)


@spec
class Reader:
    """Reconstructs what it reads, plus one."""

    def reconstruct(self, params: Any, batch: Examples) -> Any:
        return batch.x + params["more"]


def rows(number: int = 3, seed: int = 0, hidden: float | None = 0.3) -> Examples:
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(number, 5, 2)), jnp.float32)
    examples = Examples(x=x)
    if hidden is not None:
        examples = Hide(share=hidden, length=1).draw(examples, jax.random.key(seed))
    return jax.tree.map(np.asarray, examples)


def subject_of(settings: str = "standard", **parts) -> Subject:
    parts = {"train": rows(4, 1, None), "validation": rows(3, 2), "test": rows(3, 3)} | parts
    scale = np.array([0.5, 4], np.float32)
    return Subject(Reader(), {"more": np.float32(1)}, parts, recipe(settings), FACTS, jax.random.key(0), scale=scale)


def test_errors_are_means_over_hidden_values_only():
    truth, hidden = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), bool)
    hidden[0, 0] = hidden[1, 1, 1] = True
    imputed = np.full(truth.shape, 100.0)
    imputed[0, 0], imputed[1, 1, 1] = [1, -2], 6
    found = errors(imputed, Examples(x=truth, truth=truth, hidden=hidden), np.array([0.5, 2]))
    expected = {
        "imputation_mae": (1 + 2 + 6) / 3,
        "imputation_mse": (1 + 4 + 36) / 3,
        "imputation_mae_raw": (2 + 1 + 3) / 3,
        "imputation_mse_raw": (4 + 1 + 9) / 3,
    }
    assert found == pytest.approx(expected)


def test_naive_imputations_by_hand():
    x = np.array([0, 5, 0, 0, 8, 0], np.float32)[None, :, None]
    observed = (x > 0).repeat(2, axis=2)
    observed[..., 1] = False
    both = np.concatenate([x, np.zeros_like(x)], axis=2)
    row = Examples(x=both, observed=observed, hidden=~observed, truth=both)
    subject = subject_of(test=row, train=Examples(x=np.full((4, 6, 2), [2.0, 3.0], np.float32)))
    found = {name: fill(row)[0] for name, fill in naive(subject).items()}
    np.testing.assert_allclose(found["last_value"][:, 0], [5, 5, 5, 5, 8, 8])
    np.testing.assert_allclose(found["linear_interpolation"][:, 0], [5, 5, 6, 7, 8, 8])
    np.testing.assert_allclose(found["channel_mean"][:, 0], 2)
    for values in found.values():  # nothing of this channel is observed: the mean of the training rows
        np.testing.assert_allclose(values[:, 1], 3)


def test_the_mean_is_that_of_observed_training_values():
    x = np.array([[[1, 5], [3, 0]], [[8, 0], [0, 0]]], np.float32)
    observed = np.array([[[True, True], [True, False]], [[True, False], [False, False]]])
    np.testing.assert_allclose(observed_mean(Examples(x=x, observed=observed), over_time=True), [4, 5])
    by_feature = observed_mean(Examples(x=x, observed=observed), over_time=False)
    np.testing.assert_allclose(by_feature, [[4.5, 5], [3, 0]])
    length = np.array([2, 1], np.int32)
    np.testing.assert_allclose(observed_mean(Examples(x=x, length=length), over_time=True), [4, 5 / 3])


def test_nothing_is_carried_into_a_channel_that_was_never_observed():
    x = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    observed = np.array([[0, 0], [1, 0], [0, 0], [0, 0]], bool)[None]
    np.testing.assert_array_equal(carried(x, observed)[0], [[2, 1], [2, 3], [2, 5], [2, 7]])


def test_the_study_scores_the_reconstruction_of_both_parts_and_naive_rows():
    subject = subject_of()
    found = ask(subject, imputation.study)
    for part in ("validation", "test"):
        truth = subject.parts[part].truth[subject.parts[part].hidden]
        assert found.metrics[f"{part}/imputation_mae"] == pytest.approx(np.abs(1 - truth).mean(), rel=1e-6)
        assert found.metrics[f"{part}/imputation_mse"] == pytest.approx(np.square(1 - truth).mean(), rel=1e-6)
    names = {name.split("/")[1] for name in found.metrics if name.startswith("baseline/")}
    assert names == {"channel_mean", "last_value", "linear_interpolation"}
    mean = subject.train.x.mean((0, 1))
    test = subject.test
    expected = np.abs(np.broadcast_to(mean, test.x.shape) - test.truth)[test.hidden].mean()
    assert found.metrics["baseline/channel_mean/imputation_mae"] == pytest.approx(expected, rel=1e-6)
    assert not [name for name in ask(subject_of("none"), imputation.study).metrics if name.startswith("baseline/")]


def test_vectors_have_the_mean_of_every_feature_beside_them():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    test = jax.tree.map(np.asarray, Hide(share=0.4, length=1).draw(Examples(x=jnp.asarray(x)), jax.random.key(0)))
    parts = {"train": Examples(x=2 * x), "validation": test, "test": test}
    subject = dataclasses.replace(subject_of(**parts), facts=Facts("vector", (4,), -9.0, 9.0, 0, 6, 6, 6), scale=1.0)
    found = ask(subject, imputation.study).metrics
    assert {name for name in found if name.startswith("baseline/")} == {
        f"baseline/mean/{name}{units}" for name in imputation.NAMES for units in ("", "_raw")
    }
    expected = np.abs(np.broadcast_to(2 * x.mean(0), x.shape) - x)[test.hidden].mean()
    assert found["baseline/mean/imputation_mae"] == pytest.approx(expected, rel=1e-6)


def test_rows_without_hidden_values_and_models_that_do_not_reconstruct_are_not_asked():
    assert isinstance(Reader(), Reconstructs)
    plain_rows = subject_of(validation=rows(3, 2, None), test=rows(3, 3, None))
    assert not ask(plain_rows, imputation.study).metrics
    assert not ask(dataclasses.replace(subject_of(), model=object()), imputation.study).metrics


REAL = os.environ.get("LATENT_LOOM_DATA")  # a folder with the folder ett


@pytest.mark.skipif(REAL is None, reason="set LATENT_LOOM_DATA to a folder with the folder ett")
def test_linear_interpolation_of_etth1_is_the_published_one():
    """.1974 in Du et al. 2024, by the settings of `experiment=impute_ett`; a draw has a deviation of .005."""
    settings = compose(["experiment=impute_ett", f"data.root={REAL}"]).data
    recipe = build(OmegaConf.to_container(settings, resolve=False), key="data")
    means = []
    for seed in range(10):
        dataset = load(dataclasses.replace(recipe, hide_seed=seed))
        parts: Any = SimpleNamespace(facts=dataset.facts, **scored(dataset, None))
        test = parts.test.take(slice(None))  # windows are lazy
        means.append(errors(naive(parts)["linear_interpolation"](test), test, 1.0)["imputation_mae"])
    assert np.mean(means) == pytest.approx(0.1974, abs=0.01)
    assert np.std(means) < 0.01
