"""Figures of the best run: which run that is, its data read again, and what is drawn of them."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from research import tree
from research.data.loading import load as load_data
from research.report.collect import collect
from research.report.figures import best, clusters, codes, draw, forecasts, memory, rows, scene, style, tiles
from research.report.table import table
from research.runs.folder import RunFolder
from research.runs.held import ALONE

SHORT: dict[str, Any] = {"train_size": 60, "test_size": 40}
SCALING = ("shift", "scale", "target_shift", "target_scale")


@pytest.fixture(scope="module")
def build():
    from configs import shipped

    return lambda group, name, **changes: tree.build(shipped(group, name) | changes, key=group)


@pytest.fixture(scope="module")
def sweep(build, tmp_path_factory):
    """Write runs with fresh parameters: `sweep(model, data, runs)` with seed -> metrics."""

    def make(
        model: tuple[str, dict[str, Any]], data: tuple[str, dict[str, Any]], runs: dict[int, dict[str, float]]
    ) -> Path:
        folder = tmp_path_factory.mktemp("sweep")
        recipe = build("data", data[0], **data[1])
        dataset = load_data(recipe)
        split = dataset.split(None)
        for seed, metrics in runs.items():
            spec = build("model", model[0], **model[1])
            train = split.prepare(dataset.examples.take(split.rows("train")))
            params = spec.bind(dataset.facts).init(jax.random.key(seed), train)
            config = {"model": tree.plain(spec), "data": tree.plain(recipe), "seed": seed}
            config["data"].pop("root", None)
            digest = tree.config_hash(config)
            run = RunFolder(folder / f"seed={seed}", ALONE)
            facts = dataclasses.asdict(dataset.facts)
            choices = {"model": model[0], "data": data[0]}
            run.write_config(
                json.loads(json.dumps({"config": config, "config_hash": digest, "facts": facts, "choices": choices}))
            )
            run.save_parameters(params, {name: getattr(split, name) for name in SCALING})
            run.write_result(
                {"status": "completed", "config_hash": digest, "metrics": metrics, "data_sha256": dataset.sha256}
                | {"overrides": [f"seed={seed}"], "evaluation": {"cluster_starts": 3}, "files": run.hashes()}
            )
        return folder

    return make


@pytest.fixture(scope="module")
def images(sweep):
    """Two VAEs of digits; the second is better on the validation rows and worse on the test rows."""
    metrics = [
        {"test/reconstruction_mse": error, "validation/reconstruction_mse": 1 - error, "test/clusters": 3}
        for error in (0.2, 0.6)
    ]
    return sweep(("vae", {"latent_dim": 3, "hidden_dims": [4]}), ("digits", SHORT), dict(enumerate(metrics)))


@pytest.fixture(scope="module")
def series(sweep):
    """An autoencoder of digits by rows, with clusters."""
    metrics = {"test/reconstruction_mse": 0.2, "validation/reconstruction_mse": 0.2, "test/clusters": 3}
    changes = {"latent_dim": 2, "hidden_dim": 4}
    return sweep(("recurrent_ae", changes), ("digits_rows", SHORT), {0: metrics})


def scene_of(folder: Path) -> tuple[scene.Scene, list[str]]:
    notes: list[str] = []
    return scene.Scene(table(collect(folder)), folder, notes.append), notes


def only(planner: Any, folder: Path) -> scene.Sketch:
    with style.styled():
        (plan,) = planner(scene_of(folder)[0])
        sketch = plan()
        sketch.figure.draw_without_rendering()
    return sketch


def test_the_best_run_is_chosen_on_validation_rows_and_its_data_are_those_of_training(images):
    view, _ = scene_of(images)
    assert best.judge_for(view) == "validation/reconstruction_mse"
    (found,) = view.best
    assert found.run.run_id == "seed=1"  # the worse one on the test rows
    assert "seed 1" in found.words
    assert (len(found.train), len(found.test)) == (60, 40)
    assert 0 <= found.test.x.min() < found.test.x.max() <= 1
    np.testing.assert_allclose(found.codes, found.loaded.encode(found.raw(found.test.x)), atol=1e-5)


def test_losses_that_cannot_be_compared_choose_no_run(images, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(images, folder)
    view, _ = scene_of(folder)
    runs = []
    for run in view.table.runs:
        beta = 1.0 + run.values["seed"]
        metrics = {"test/loss": 1.0, "validation/loss": beta, **run.metrics}
        runs.append(dataclasses.replace(run, values={**run.values, "model.beta": beta}, metrics=metrics))
    changed = dataclasses.replace(view.table.runs, records=tuple(runs))
    view = scene.Scene(table(changed), folder, print)
    assert view.table.metrics[0] == "test/loss"
    assert best.judge_for(view) == "validation/reconstruction_mse"


def test_kinds_that_apply_are_drawn_and_lost_parameters_are_noted_once(images, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(images, folder)
    notes: list[str] = []
    kinds = ["latent_map", "samples"]
    found = draw(table(collect(folder)), folder, kinds, notes.append)
    assert [figure.name for figure in found] == kinds
    assert all(figure.runs == ("seed=1",) and "The run: the best of 2 runs" in figure.caption for figure in found)
    assert notes == []
    (folder / "seed=1" / "params.safetensors").unlink()
    tries = []
    real = best.load
    monkeypatch.setattr(best, "load", lambda *arguments: tries.append(1) or real(*arguments))
    assert draw(table(collect(folder)), folder, kinds, notes.append) == []
    assert len(notes) == 1
    assert "kept no parameters" in notes[0]
    assert tries == [1]


def test_other_data_than_those_of_the_training_are_not_drawn(images, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(images, folder)
    for path in folder.glob("*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_sha256": "0" * 64}))
    view, _ = scene_of(folder)
    with pytest.raises(scene.UnavailableError, match="no longer those of the training"):
        _ = view.best


@pytest.mark.parametrize(
    ("overrides", "recorded", "expected"),
    [
        (("data.root=/a", "seed=1"), "data: {root: /b}", "/a"),
        (("data.root='/a b'",), None, "/a b"),
        (("data.root=null",), "data: {root: /b}", None),
        ((), "data: {root: /b}", "/b"),
        ((), "data: {root: !!python/object/apply:os.getcwd []}", None),
        ((), "[", None),
        ((), "[" * 20_000, None),
        ((), None, None),
    ],
)
def test_the_place_of_the_data_is_what_the_run_was_started_with(tmp_path, overrides, recorded, expected):
    if recorded is not None:
        (tmp_path / ".hydra").mkdir()
        (tmp_path / ".hydra" / "config.yaml").write_text(recorded)
    from research.report.collect import Run

    assert best.root_of(tmp_path, Run("run", "completed", overrides=overrides)) == expected


# ----------------------------------------------------------------------------------------------------------- codes


def test_the_map_shows_all_codes_in_their_plane(images):
    sketch = only(codes.latent_map, images)
    shown = np.concatenate([one.get_offsets() for one in sketch.figure.axes[0].collections])
    (found,) = scene_of(images)[0].best
    points, shares = codes.plane(found.codes)
    assert len(shown) == 40
    np.testing.assert_allclose(np.sort(shown[:, 0]), np.sort(points[:, 0]), rtol=1e-5)
    assert shares is not None
    assert f"({shares[0]:.0%})" in sketch.figure.axes[0].get_xlabel()
    assert "principal components of 3 latents" in sketch.caption


def test_the_plane_is_that_of_the_largest_variances():
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=(200, 2)) * [5, 2]
    turned = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    points, shares = codes.plane(np.concatenate([wanted, np.zeros((200, 2))], 1) @ turned)
    # distances in the plane are those of the codes
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(wanted - wanted.mean(0), axis=1))
    assert sum(shares or ()) == pytest.approx(1)
    assert points[:, 0].var() > points[:, 1].var()
    two = generator.normal(size=(5, 2))
    np.testing.assert_array_equal(codes.plane(two)[0], two)
    assert codes.plane(two[:, :1])[0].shape == (5, 2)


def test_traversals_move_one_latent_at_a_time_the_most_active_first():
    found = np.random.default_rng(0).normal(size=(50, 3)) * [1, 3, 2] + 7
    steps = np.array([-1.0, 0.0, 2.0])
    z, latents = codes.traversal(found, steps, prior=True)
    assert list(latents) == [1, 2, 0]
    np.testing.assert_allclose(z[0], [[0, -1, 0], [0, 0, 0], [0, 2, 0]])
    z, _ = codes.traversal(found, steps, prior=False)
    np.testing.assert_allclose(z[1, :, 2], found[:, 2].mean() + steps * found[:, 2].std())
    np.testing.assert_allclose(z[1, :, 0], found[:, 0].mean())


def test_pairs_are_of_different_classes():
    assert codes.pairs(np.array([0, 0, 1, 1]), np.arange(4)) == [(0, 2), (1, 3)]
    assert codes.pairs(np.zeros(4, int), np.arange(4)) == [(0, 1), (2, 3)]
    assert codes.pairs(None, np.arange(3)) == [(0, 1)]


def test_interpolations_begin_and_end_with_the_rows(images):
    sketch = only(codes.interpolations, images)
    whole = np.asarray(sketch.figure.axes[0].images[0].get_array())
    (found,) = scene_of(images)[0].best
    label = np.asarray(found.test.label)
    first, last = codes.pairs(label, found.spread(12))[0]
    x = np.asarray(found.test.x)
    low, high = float(x.min()), float(x.max())
    for row, start in ((first, 0), (last, whole.shape[1] - tiles.mosaic([x[[last]]], low, high).shape[1])):
        tile = tiles.mosaic([x[[row]]], low, high)
        np.testing.assert_array_equal(whole[: tile.shape[0], start : start + tile.shape[1]], tile)
    output = np.asarray(found.decode(found.codes[[first, last]]))  # the codes at both ends of the way
    tile = tiles.mosaic([np.stack([x[first], output[0]])], low, high)
    np.testing.assert_array_equal(whole[: tile.shape[0], : tile.shape[1]], tile)
    tile = tiles.mosaic([np.stack([output[1], x[last]])], low, high)
    np.testing.assert_array_equal(whole[: tile.shape[0], -tile.shape[1] :], tile)


# ------------------------------------------------------------------------------------------------------------ rows


def test_reconstructions_stand_below_their_rows(images):
    sketch = only(rows.reconstructions, images)
    axes = sketch.figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["data", "model", "PCA"]
    (found,) = scene_of(images)[0].best
    x = np.asarray(found.test.x)
    output = found.loaded.reconstruct(found.raw(x[[0]])) * found.loaded.preparation.scale
    tile = tiles.mosaic([x[[0]], output], float(x.min()), float(x.max()))
    whole = np.asarray(axes.images[0].get_array())
    assert np.abs(whole[: tile.shape[0], : tile.shape[1]].astype(int) - tile).max() <= 1
    assert "3 principal components" in sketch.caption


def test_lines_of_series_are_the_rows_on_their_own_scale(series):
    sketch = only(rows.reconstructions, series)
    (found,) = scene_of(series)[0].best
    (channel,) = found.channels()
    at = found.spread(rows.PANELS)
    data = sketch.figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(data, np.asarray(found.test.x)[at[0], :, channel] * 16, atol=1e-4)
    assert data.max() > 1.5  # raw pixels reach to 16
    assert f"number {channel + 1}" in sketch.caption


def test_samples_are_as_many_as_said_and_a_model_without_is_refused(images, series):
    assert "60 draws" in only(rows.samples, images).caption
    with pytest.raises(scene.UnfitError, match="RecurrentAE does not sample"):
        rows.samples(scene_of(series)[0])
    with pytest.raises(scene.UnfitError, match="VAE does not forecast"):
        forecasts.forecasts(scene_of(images)[0])


def test_mosaics_have_their_tiles_where_their_labels_are():
    whole = tiles.mosaic([np.zeros((3, 2, 2)), np.ones((3, 2, 2))], 0, 1)
    for count, size, axis in ((3, whole.shape[1], 1), (2, whole.shape[0], 0)):
        for center in tiles.centers(count, size):
            line = np.take(whole[..., 0], round(center), axis)
            assert set(np.unique(line)) <= {0, 255}
    gap = round(tiles.GAP * 48)
    np.testing.assert_allclose(tiles.centers(3, whole.shape[1]), 23.5 + np.arange(3) * (48 + gap), atol=0.5)
    column = whole[:, round(tiles.centers(3, whole.shape[1])[0]), 0]
    assert column[0] == 0
    assert column[-1] == 255


# -------------------------------------------------------------------------------------------------------- clusters


def test_clusters_are_matched_to_classes_one_by_one():
    counts, order = clusters.matched(np.array([0, 0, 0, 1, 1]), np.array([2, 2, 0, 0, 0]), 2, 3)
    assert order == [2, 0, 1]
    np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 2, 0]])
    counts, order = clusters.matched(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 1]), 3, 2)
    assert sorted(order) == [0, 1]
    assert counts.sum() == 4


def test_every_series_is_in_the_panel_of_its_cluster_with_the_mean(series):
    sketch = only(clusters.cluster_assignments, series)
    (found,) = scene_of(series)[0].best
    cluster = clusters.assignments(found)
    (channel,) = found.channels()
    raw = found.raw(found.test.x)[..., channel]
    means = [axes.lines[0].get_ydata() for axes in sketch.figure.axes[:3]]
    wanted = [raw[cluster == own].mean(0) for own in range(3)]
    for mean in means:
        assert min(np.abs(mean - one).max() for one in wanted) < 1e-4
    assert sum(len(axes.collections[0].get_paths()) for axes in sketch.figure.axes[:3]) == 40
    assert "3 clusters" in sketch.caption


def test_counts_of_the_matrix_are_all_rows(series):
    sketch = only(clusters.confusion, series)
    assert sum(int(text.get_text()) for text in sketch.figure.axes[0].texts) == 40


# ------------------------------------------------------------------------------------------- forecasts and memory


def test_forecasts_are_drawn_with_their_interval_beside_truth_and_seasonal_naive(sweep, tmp_path):
    steps = np.arange(400)
    wave = 100 + 10 * np.sin(2 * np.pi * steps / 8)
    path = tmp_path / "wave.csv"
    path.write_text("value\n" + "\n".join(map(str, wave)) + "\n")
    changes = {"path": str(path), "columns": ["value"], "window": 16, "horizon": 4, "season": 8, "stride": 4}
    metrics = {"test/mse": 1.0, "validation/mse": 1.0, "validation/loss": 1.0}
    model = {"hidden_dim": 4, "objective": "gaussian"}
    folder = sweep(("recurrent_forecaster", model), ("series", changes), {0: metrics})
    sketch = only(forecasts.forecasts, folder)
    axes = sketch.figure.axes[0]
    lines = {one.get_color() + str(one.get_linestyle()): one for one in axes.lines if len(one.get_xdata()) > 2}
    before, truth = lines[f"{style.GREY}-"].get_ydata(), lines["black-"].get_ydata()
    naive = next(one for one in axes.lines if one.get_color() == style.COLORS[1]).get_ydata()
    assert len(before) == 16
    assert before.max() > 105  # on the scale of the data as stored
    assert truth[0] == before[-1]
    np.testing.assert_allclose(naive, truth[1:], atol=1e-3)  # the wave repeats itself after a season
    (band,) = axes.collections
    forecast = next(one for one in axes.lines if one.get_color() == style.COLORS[0]).get_ydata()
    edges = band.get_paths()[0].vertices
    assert edges[:, 1].min() < forecast.min() < forecast.max() < edges[:, 1].max()
    assert "80 % interval" in sketch.caption
    assert "last 8 steps" in sketch.caption


def test_gradient_norms_are_those_of_the_evaluation(sweep):
    from research.evaluation.memory import gradient_by_distance

    metrics = {"test/accuracy": 0.1, "validation/accuracy": 0.1, "test/gradient_reach": -1.0}
    folder = sweep(("recurrent_predictor", {"hidden_dim": 4}), ("digits_rows", SHORT), {0: metrics, 1: metrics})
    sketch = only(memory.gradient_norm, folder)
    view, _ = scene_of(folder)
    norms = []
    for run in view.table.runs:
        loaded, material = best.load(view, run), best.dataset_of(view, run)
        norms.append(gradient_by_distance(loaded.model, loaded.params, material.parts["test"]))
    trained = sketch.figure.axes[0].lines[0]
    np.testing.assert_allclose(trained.get_ydata(), np.sqrt(norms[0] * norms[1]), rtol=1e-5)
    assert list(trained.get_xdata()) == list(range(8))
    assert sketch.figure.axes[0].get_yscale() == "log"
    assert sketch.runs == ("seed=0", "seed=1")
    predicted = only(clusters.confusion, folder)
    assert "Predicted classes of 40 test rows" in predicted.caption


def test_a_norm_of_zero_leaves_a_gap():
    mean, low, high = memory.geometric_band([np.array([1.0, 0.0]), np.array([100.0, 1.0])])
    assert mean[0] == pytest.approx(10)
    assert np.isnan(mean[1])
    assert np.isnan(low[1])
    assert low[0] < 10 < high[0]
