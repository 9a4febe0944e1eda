"""Figures of the best run: which run that is, its data read again, and what is drawn of them."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.evaluation.views import COLORS, pixels, plane
from research.report.again import UnavailableError, dataset_of, load, root_of
from research.report.collect import Run, collect
from research.report.figures import best, chart, clusters, codes, draw, memory, points, rows, scene, style
from research.report.table import table

from .kept import SHORT, write_runs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Write runs with fresh parameters: `sweep(model, data, runs)` with seed -> metrics."""
    return lambda *described: write_runs(tmp_path_factory.mktemp("sweep"), *described)


@pytest.fixture(scope="module")
def pictures(sweep):
    """Two VAEs of digits; the second is better on the validation rows and worse on the test rows."""
    metrics = [
        {"test/reconstruction_mse": error, "validation/reconstruction_mse": 1 - error, "test/clusters": 3}
        for error in (0.2, 0.6)
    ]
    return sweep(("vae", {"latent_dim": 3, "hidden_dims": [4]}), ("digits", SHORT), dict(enumerate(metrics)))


@pytest.fixture(scope="module")
def images(pictures):
    """The same, loaded once: a scene keeps its best run."""
    return scene_of(pictures)


@pytest.fixture(scope="module")
def series(sweep):
    """An autoencoder of digits by rows, with clusters."""
    metrics = {"test/reconstruction_mse": 0.2, "validation/reconstruction_mse": 0.2, "test/clusters": 3}
    changes = {"latent_dim": 2, "hidden_dim": 4}
    return scene_of(sweep(("recurrent_ae", changes), ("digits_rows", SHORT), {0: metrics}))


def scene_of(folder: Path) -> scene.Scene:
    return scene.Scene(table(collect(folder)), folder, print)


def only(planner: Any, view: scene.Scene) -> scene.Sketch:
    """The one figure of a kind; that it can be drawn is tested too."""
    (plan,) = planner(view)
    planned = plan()
    with style.styled():
        planned.picture.draw().draw_without_rendering()
    return planned


def test_the_best_run_is_chosen_on_validation_rows_and_its_data_are_those_of_training(images):
    assert images.judge == "validation/reconstruction_mse"
    (found,) = best.best_runs(images)
    assert found.run.run_id == "seed=1"  # the worse one on the test rows
    assert "seed 1" in found.which
    assert (len(found.parts["train"]), len(found.test)) == (60, 40)
    assert 0 <= found.test.x.min() < found.test.x.max() <= 1
    np.testing.assert_allclose(found.codes, found.loaded.encode(found.raw(found.test.x)), atol=1e-5)


def test_losses_that_cannot_be_compared_choose_no_run(images):
    view = images
    runs = []
    for run in view.table.runs:
        beta = 1.0 + run.values["seed"]
        metrics = {"test/loss": 1.0, "validation/loss": beta, **run.metrics}
        runs.append(dataclasses.replace(run, values={**run.values, "model.beta": beta}, metrics=metrics))
    changed = dataclasses.replace(view.table.runs, records=tuple(runs))
    assert table(changed).metrics[0] == "test/loss"
    assert points.judge_of(table(changed)) == "validation/reconstruction_mse"


def test_kinds_that_apply_are_drawn_and_lost_parameters_are_noted_once(pictures, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(pictures, folder)
    monkeypatch.setattr(scene, "rendered", lambda figure: dict.fromkeys(("svg", "pdf", "png"), b""))
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


def test_other_data_than_those_of_the_training_are_not_drawn(pictures, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pictures, folder)
    for path in folder.glob("*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_sha256": "0" * 64}))
    with pytest.raises(UnavailableError, match="no longer those of the training"):
        best.best_runs(scene_of(folder))


@pytest.mark.parametrize(
    ("overrides", "recorded", "expected"),
    [
        (("data.root=/a", "seed=1"), "data: {root: /b}", "/a"),
        (("data.root='/a b'",), None, "/a b"),
        (("data.root=null",), "data: {root: /b}", None),
        ((), "data: {root: /b}", "/b"),
        ((), "data: {root: null}", None),
        ((), "data: {root: !!python/object/apply:os.getcwd []}", None),
        ((), "[", None),
        ((), "[" * 1_000, None),
        ((), None, None),
    ],
)
def test_the_root_of_the_data_is_that_of_the_run(tmp_path, overrides, recorded, expected):
    if recorded is not None:
        (tmp_path / ".hydra").mkdir()
        (tmp_path / ".hydra" / "config.yaml").write_text(recorded)
    assert root_of(tmp_path, Run("run", "completed", overrides=overrides)) == expected


def assert_tile(found: best.Best, picture: chart.Chart, row: int, column: int, values: Any) -> None:
    """A tile of the image of a figure shows these values."""
    (tile,) = pixels(values[None], *found.reach, chart.TILE)
    size = len(tile) + round(chart.GAP * len(tile))
    image = picture.panels[0].image
    assert image is not None
    shown = image[row * size : row * size + len(tile), column * size : column * size + len(tile)]
    np.testing.assert_allclose(shown.astype(int), tile.astype(int), atol=1)


# ----------------------------------------------------------------------------------------------------------- codes


def test_the_map_shows_all_codes_in_their_plane(images):
    planned = only(codes.latent_map, images)
    (panel,) = planned.picture.panels
    (found,) = best.best_runs(images)
    places, shares = plane(found.codes)
    assert len(panel.lines) == len(panel.texts) == len(np.unique(found.label))
    shown = np.concatenate([np.stack([line.x, line.y], 1) for line in panel.lines])
    order = np.argsort(found.label, kind="stable")
    np.testing.assert_allclose(shown, places[order], rtol=1e-5)
    assert shares is not None
    assert f"({shares[0]:.0%})" in planned.picture.x_label
    assert "principal components of 3 latents" in planned.caption


def test_pairs_are_of_different_classes():
    assert codes.pairs(np.array([0, 0, 1, 1]), np.arange(4)) == [(0, 2), (1, 3)]
    assert codes.pairs(np.zeros(4, int), np.arange(4)) == [(0, 1), (2, 3)]
    assert codes.pairs(None, np.arange(3)) == [(0, 1)]


def test_interpolations_begin_and_end_with_the_rows(images):
    picture = only(codes.interpolations, images).picture
    (found,) = best.best_runs(images)
    x = np.asarray(found.test.x)
    pair = list(codes.pairs(found.label, found.spread(12))[0])
    decoded = np.asarray(found.decode(found.codes[pair]))  # the codes at both ends of the way
    for column, row in zip((0, 10, 1, 9), (*x[pair], *decoded), strict=True):
        assert_tile(found, picture, 0, column, row)


def test_interpolations_of_series_have_a_gap_where_a_value_is_missing(series):
    (found,) = best.best_runs(series)
    first = codes.pairs(found.label, found.spread(8))[0][0]
    observed = np.ones(np.shape(found.test.x), bool)
    observed[first, 2] = False
    test = dataclasses.replace(found.test, observed=observed)
    gaps = dataclasses.replace(series, kept={"best": [dataclasses.replace(found, parts=found.parts | {"test": test})]})
    end = only(codes.interpolations, gaps).picture.panels[0].lines[0]
    assert list(np.flatnonzero(np.isnan(end.y))) == [2]


# ------------------------------------------------------------------------------------------------------------ rows


def test_reconstructions_stand_below_their_rows(images):
    planned = only(rows.reconstructions, images)
    assert planned.picture.row_names == ["data", "model", "PCA"]
    (found,) = best.best_runs(images)
    x = np.asarray(found.test.x)
    output = found.loaded.reconstruct(found.raw(x[[0]])) * found.loaded.preparation.scale
    assert_tile(found, planned.picture, 0, 0, x[0])
    assert_tile(found, planned.picture, 1, 0, output[0])
    assert "3 principal components" in planned.caption
    with style.styled():
        (axes,) = planned.picture.draw().axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["data", "model", "PCA"]
    np.testing.assert_array_equal(axes.images[0].get_array(), planned.picture.panels[0].image)


def test_lines_of_series_are_the_rows_on_their_own_scale(series):
    planned = only(rows.reconstructions, series)
    (found,) = best.best_runs(series)
    (channel,) = found.channels()
    at = found.spread(rows.PANELS)
    data = planned.picture.panels[0].lines[0].y
    np.testing.assert_allclose(data, np.asarray(found.test.x)[at[0], :, channel] * 16, atol=1e-4)
    assert data.max() > 1.5  # raw pixels reach to 16
    assert f"is drawn: channel {channel + 1}." in planned.caption
    assert planned.picture.y_label == f"channel {channel + 1}"


def test_samples_are_as_many_as_said_and_a_model_without_is_refused(images, series):
    planned = only(rows.samples, images)
    assert "60 draws" in planned.caption
    assert (len(planned.picture.row_names), len(planned.picture.column_names)) == (5, 12)
    with pytest.raises(scene.UnfitError, match="RecurrentAE does not sample"):
        rows.samples(series)
    with pytest.raises(scene.UnfitError, match="VAE does not forecast"):
        rows.forecasts(images)


def test_images_lie_where_their_labels_are():
    picture = chart.images([np.zeros((3, 2, 2)), np.ones((3, 2, 2))], (0, 1), ["black", "white"], ["a", "b", "c"])
    with style.styled():
        figure = picture.draw()
        figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["black", "white"]
    (image,) = axes.images
    pixels = image.get_array()
    inverse = image.get_transform().inverted()  # from the screen to shares of the image
    for column, row in itertools.product(range(3), range(2)):
        right, up = inverse.transform(axes.transData.transform((column, row)))
        inside = pixels[int((1 - up) * pixels.shape[0]), int(right * pixels.shape[1])]
        assert list(inside) == [255 * row] * 3
    assert pixels.shape == (2 * 48 + 4, 3 * 48 + 8, 3)


# -------------------------------------------------------------------------------------------------------- clusters


def test_clusters_are_matched_to_classes_one_by_one():
    counts, order = clusters.matched(np.array([0, 0, 0, 1, 1]), np.array([2, 2, 0, 0, 0]), 2, 3)
    assert order == [2, 0, 1]
    np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 2, 0]])
    counts, order = clusters.matched(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 1]), 3, 2)
    assert sorted(order) == [0, 1]
    assert counts.sum() == 4


def test_every_series_is_in_the_panel_of_its_cluster_with_the_mean(series):
    planned = only(clusters.cluster_assignments, series)
    (found,) = best.best_runs(series)
    cluster = clusters.assignments(found)
    (channel,) = found.channels()
    raw = found.raw(found.test.x)[..., channel]
    wanted = [raw[cluster == own].mean(0) for own in range(3)]
    for panel in planned.picture.panels:
        assert min(np.abs(panel.lines[-1].y - one).max() for one in wanted) < 1e-4
    assert sum(len(panel.lines) - 1 for panel in planned.picture.panels) == 40
    assert "3 clusters" in planned.caption
    matrix = only(clusters.confusion, series).picture
    assert sum(int(text) for _, _, text, _ in matrix.panels[0].texts) == 40


def test_classes_and_the_drawn_channel_have_the_names_of_the_data(series):
    (found,) = best.best_runs(series)
    columns = tuple(f"a column of pixels, number {number}" for number in range(8))
    classes = tuple(f"digit ${number}" for number in range(10))
    named = dataclasses.replace(found.loaded.preparation, columns=columns, classes=classes)
    loaded = dataclasses.replace(found.loaded, preparation=named)
    series = dataclasses.replace(series, kept={"best": [dataclasses.replace(found, loaded=loaded)]})
    (channel,) = found.channels()
    planned = only(clusters.cluster_assignments, series)
    assert planned.picture.y_label == f"{channel + 1} a column of p…"  # their first letters are equal
    assert f"is drawn: {columns[channel]}." in planned.caption
    assert all(r"class digit \$" in panel.title for panel in planned.picture.panels)  # a dollar begins a formula
    matrix = only(clusters.confusion, series)
    assert list(matrix.picture.row_names) == [rf"digit \${number}" for number in range(10)]
    assert not matrix.picture.upright  # below stand the numbers of clusters
    panel = only(codes.latent_map, series).picture.panels[0]
    assert not panel.texts  # names would cover each other
    assert [line.name for line in panel.lines] == [rf"digit \${number}" for number in np.unique(found.label)]


def test_long_names_of_columns_are_written_upwards():
    names = ["Standing", "Running"]
    matrix = chart.Chart([chart.Panel(cells=np.eye(2))], row_names=names, column_names=names, upright=True, aspect=1)
    with style.styled():
        (axes,) = matrix.draw().axes
    assert [text.get_rotation() for text in axes.get_xticklabels()] == [90, 90]
    assert [text.get_rotation() for text in axes.get_yticklabels()] == [0, 0]


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
    planned = only(rows.forecasts, scene_of(folder))
    lines = {line.name: line for line in planned.picture.panels[0].lines}
    before, truth, naive, forecast = (lines[name] for name in ("look-back", "truth", "seasonal naive", "forecast"))
    assert list(before.x) == list(range(-16, 0))
    assert before.y.max() > 105  # on the scale of the data as stored
    assert truth.y[0] == before.y[-1]
    assert (truth.x[0], forecast.x[0]) == (-1, 0)
    np.testing.assert_allclose(naive.y, truth.y[1:], atol=1e-3)  # the wave repeats itself after a season
    low, high = forecast.band
    assert (low < forecast.y).all()
    assert (forecast.y < high).all()
    assert forecast.look["color"] == COLORS[0]
    assert forecast.band_name == "80 % interval"
    assert "80 % interval" in planned.caption
    assert "last 8 steps" in planned.caption


def test_gradient_norms_are_those_of_the_evaluation(sweep):
    from research.evaluation.memory import gradient_by_distance

    metrics = {"test/accuracy": 0.1, "validation/accuracy": 0.1, "test/gradient_reach": -1.0}
    folder = sweep(("recurrent_predictor", {"hidden_dim": 4}), ("digits_rows", SHORT), {0: metrics, 1: metrics})
    view = scene_of(folder)
    planned = only(memory.gradient_norm, view)
    norms = []
    for run in view.table.runs:
        loaded, (parts, _) = load(folder, run), dataset_of(folder, run, view.once)
        norms.append(gradient_by_distance(loaded.model, loaded.params, parts["test"]))
    (panel,) = planned.picture.panels
    trained = panel.lines[0]
    np.testing.assert_allclose(trained.y, np.sqrt(norms[0] * norms[1]), rtol=1e-5)
    assert list(trained.x) == list(range(8))
    assert panel.logarithmic
    assert planned.runs == ("seed=0", "seed=1")
    predicted = only(clusters.confusion, view)
    assert "Predicted classes of 40 test rows" in predicted.caption


def test_a_norm_of_zero_leaves_a_gap():
    mean, low, high = memory.geometric_band([np.array([1.0, 0.0]), np.array([100.0, 1.0])])
    assert mean[0] == pytest.approx(10)
    assert np.isnan(mean[1])
    assert np.isnan(low[1])
    assert low[0] < 10 < high[0]
