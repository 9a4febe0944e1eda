"""Figures of the numbers of a sweep: what is drawn, what is not, and bytes that are the same each time."""

import itertools
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from research.report.collect import collect
from research.report.figures import (
    KINDS,
    Drawn,
    curves,
    differences,
    draw,
    heat,
    learning,
    points,
    rate,
    scene,
    scores,
    style,
)
from research.report.statistics import interval
from research.report.table import table
from research.tree import ConfigError

MSE, LOSS = "test/reconstruction_mse", "test/loss"


def scene_of(sweep: Any, metrics: Any = None) -> scene.Scene:
    notes: list[str] = []
    return scene.Scene(table(collect(sweep.folder), metrics=metrics), sweep.folder, notes.append)


def sketches(planner: Any, sweep: Any, metrics: Any = None) -> dict[str, scene.Sketch]:
    with style.styled():
        found = [plan() for plan in planner(scene_of(sweep, metrics))]
        for sketch in found:
            check_texts(sketch.figure)
    return {sketch.name: sketch for sketch in found}


def texts_of(figure: Any) -> list[Any]:
    """The texts that are seen, but for those that stand at points of the data: ticks, labels, titles, legends."""
    found = [text for legend in figure.legends for text in legend.get_texts()]
    found += [text for text in (figure._supxlabel, figure._supylabel) if text is not None]
    for axes in figure.axes:
        found.append(axes.title)
        if axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                found += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_visible()]
                found.append(axis.label)
        found += [text for text in axes.texts if axes.axison is False or text.get_position()[0] == 3]
    return [text for text in found if text.get_text().strip()]


def check_texts(figure: Any) -> None:
    """No text is cut off, and no two of them lie over each other."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in texts_of(figure)]
    whole = figure.bbox.padded(2)
    for text, box in boxes:
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, text
    for (one, box), (other, beside) in itertools.combinations(boxes, 2):
        assert not box.overlaps(beside), (one, other)


def line(axes: Any, number: int) -> tuple[list[float], list[float]]:
    """x and y of the line of a model by its number."""
    (found,) = [
        one
        for one in axes.lines
        if one.get_marker() == style.MARKERS[number] and one.get_color() == style.COLORS[number]
    ]
    return list(found.get_xdata()), list(found.get_ydata())


@pytest.fixture
def two_by_two(sweep):
    """latent size 2, 8 by beta 1, 4 at three seeds; the error is latent size / 100 + beta / 1000 + seed / 10000."""
    for size in (2, 8):
        for beta in (1.0, 4.0):
            for seed in range(3):
                error = size / 100 + beta / 1000 + seed / 10000
                metrics = {LOSS: beta * 10 + size, MSE: error, "validation/reconstruction_mse": error}
                metrics |= {"baseline/pca/reconstruction_mse": 0.1 / size, "baseline/mean/reconstruction_mse": 9.0}
                metrics |= {"test/kl_nats": 10 / beta, "test/reconstruction_nats": size + beta}
                metrics |= {"test/collapsed": float(beta == 4 and size == 8)}
                sweep.add({"model.latent_dim": size, "model.beta": beta, "seed": seed}, metrics)
    return sweep


def test_importing_costs_nothing():
    code = "import sys, research.report.figures; print([m for m in ('matplotlib', 'jax', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_an_unknown_kind_is_refused_with_the_nearest_and_one_that_does_not_apply_with_a_reason(grid):
    sweep = grid()
    with pytest.raises(ConfigError, match=r"heatmap.*did you mean 'heat_map'"):
        draw(scene_of(sweep).table, sweep.folder, ["heatmap"])
    with pytest.raises(ConfigError, match=r"rate_distortion.*model.beta is not swept"):
        draw(scene_of(sweep).table, sweep.folder, ["rate_distortion"])


def test_everything_that_applies_is_drawn_in_order_and_twice_the_same(two_by_two):
    notes: list[str] = []
    view = scene_of(two_by_two, [MSE])
    found = draw(view.table, two_by_two.folder, None, notes.append)
    kinds = [figure.name.partition("-")[0] for figure in found]
    assert list(dict.fromkeys(kinds)) == ["metric_over_key", "heat_map", "rate_distortion", "paired_differences"]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    assert len(notes) == 1  # of all kinds that load the best run, once
    assert "config.json" in notes[0] or "parameters" in notes[0]
    assert found[-1] == draw(view.table, two_by_two.folder, ["paired_differences"], notes.append)[-1]
    first = found[0]
    assert isinstance(first, Drawn)
    assert first.svg.startswith(b"<?xml")
    assert first.pdf.startswith(b"%PDF")
    assert first.png.startswith(b"\x89PNG")
    assert b"<text" not in first.svg  # paths: no font is needed
    assert b"dc:date" not in first.svg
    assert b"CreationDate" not in first.pdf
    width = int.from_bytes(first.png[16:20], "big")
    assert width == round(style.COLUMN * style.DPI)
    for figure in found:
        assert set(figure.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=-")
        assert figure.caption.endswith(".")
        assert figure.alternative
        assert len(figure.runs) == 12


def test_nothing_is_left_open_or_changed(grid):
    import matplotlib

    sweep = grid()
    with matplotlib.rc_context({"font.size": 3.0, "svg.hashsalt": "own"}):
        before = dict(matplotlib.rcParams)
        assert draw(scene_of(sweep).table, sweep.folder, ["metric_over_key"])
        assert dict(matplotlib.rcParams) == before
    from matplotlib._pylab_helpers import Gcf

    assert not Gcf.figs


def test_a_figure_that_fails_is_noted_and_stops_no_other(two_by_two, monkeypatch):
    real, notes = curves._line, []

    def fail(axes, own, number):
        if "MSE" in axes.get_ylabel() or 0.02 < next(iter(own.values())).value < 0.1:
            raise RuntimeError("broken")
        return real(axes, own, number)

    monkeypatch.setattr(curves, "_line", fail)
    found = draw(
        scene_of(two_by_two, [MSE, "test/kl_nats"]).table, two_by_two.folder, ["metric_over_key"], notes.append
    )
    assert {figure.name.split("-")[1] for figure in found} == {"test_kl_nats"}
    assert notes
    assert all("broken" in note and "metric_over_key" in note for note in notes)


# ------------------------------------------------------------------------------------------------- metric over key


def test_lines_are_means_with_t_intervals(two_by_two):
    axes = sketches(curves.metric_over_key, two_by_two, [MSE])[f"metric_over_key-{MSE}-model.latent_dim"].figure.axes
    assert len(axes) == 1
    x, y = line(axes[0], 0)  # beta 1
    assert x == [2, 8]
    assert y == pytest.approx([0.0211, 0.0811])
    low, high = interval([0.021, 0.0211, 0.0212]) or (0, 0)
    bars = [one.get_ydata() for one in axes[0].lines if list(one.get_xdata()) == [2, 2]]
    assert list(bars[0]) == pytest.approx([low, high])
    assert axes[0].get_ylabel() == "test reconstruction MSE ↓"


def test_bands_are_drawn_where_there_are_three_points(sweep):
    for size in (1, 2, 3):
        for seed in range(2):
            sweep.add({"model.latent_dim": size, "seed": seed}, {MSE: size + seed})
    (sketch,) = sketches(curves.metric_over_key, sweep).values()
    (band,) = sketch.figure.axes[0].collections
    low, high = interval([1, 2]) or (0, 0)
    at_one = [y for x, y in band.get_paths()[0].vertices if x == 1]
    assert (min(at_one), max(at_one)) == pytest.approx((low, high))
    assert "2 seeds" in sketch.caption


def test_intervals_are_over_seeds_whatever_else_is_averaged(sweep):
    for size in (2, 8):
        for seed in range(3):
            sweep.add({"model.latent_dim": size, "seed": seed}, {MSE: seed + size})
    view = scene_of(sweep)
    mean = points.mean_of(list(view.table.runs), MSE, points.averaging_of(view.table, ()))
    assert mean.n == 3
    assert mean.value == pytest.approx(6)
    assert (mean.low, mean.high) == pytest.approx(interval([5, 6, 7]))


def test_one_interval_that_is_much_wider_than_the_others_is_cut():
    def mean(value, half):
        return points.Mean(value, value - half, value + half, 3, {}, cell=None)  # type: ignore[arg-type]

    assert curves.limits([mean(1, 0.1), mean(2, 0.1), mean(3, 100)]) == (pytest.approx(-1), pytest.approx(5))
    assert curves.limits([mean(1, 0.1), mean(2, 0.1), mean(3, 0.1)]) == (pytest.approx(0.9), pytest.approx(3.1))


def test_naive_methods_are_dashed_lines_and_named_beyond_the_axis(two_by_two):
    sketch = sketches(curves.metric_over_key, two_by_two, [MSE])[f"metric_over_key-{MSE}-model.latent_dim"]
    axes = sketch.figure.axes[0]
    (pca,) = [one for one in axes.lines if one.get_color() == style.GREY]
    assert list(pca.get_ydata()) == pytest.approx([0.05, 0.0125])
    assert pca.get_linestyle() == "--"
    assert "Beyond the axis: mean (9)" in sketch.caption
    texts = [text.get_text() for legend in sketch.figure.legends for text in legend.get_texts()]
    assert texts == ["beta 1", "beta 4", "PCA"]


def test_naive_values_that_depend_on_the_line_have_its_color(two_by_two):
    sketch = sketches(curves.metric_over_key, two_by_two, [MSE])[f"metric_over_key-{MSE}-model.beta"]
    dashed = {one.get_color(): list(one.get_ydata()) for one in sketch.figure.axes[0].lines if one.is_dashed()}
    assert dashed[style.COLORS[0]] == pytest.approx([0.05, 0.05])
    assert dashed[style.COLORS[1]] == pytest.approx([0.0125, 0.0125])


def test_losses_are_not_drawn_over_beta(two_by_two):
    names = sketches(curves.metric_over_key, two_by_two, [LOSS])
    assert list(names) == [f"metric_over_key-{LOSS}-model.latent_dim"]
    assert (
        "Lines of different model.beta cannot be compared" in names[f"metric_over_key-{LOSS}-model.latent_dim"].caption
    )


def test_axes_are_logarithmic_where_values_reach_far(sweep):
    for size, error in ((1, 1.0), (10, 0.1), (1000, 0.001)):
        sweep.add({"model.latent_dim": size, "seed": 0}, {MSE: error})
    (sketch,) = sketches(curves.metric_over_key, sweep).values()
    assert sketch.figure.axes[0].get_xscale() == sketch.figure.axes[0].get_yscale() == "log"
    assert not style.wide([1.0, 30.0])
    assert style.wide([1.0, 31.0])
    assert not style.wide([-1.0, 1000.0])


def test_ticks_stand_at_the_values_and_those_without_room_have_no_label():
    with style.styled():
        axes = style.figure(style.COLUMN, 2).subplots()
        style.numbers_axis(axes, [10.0, 1.0, 1.1, 2.0, 4.0, 10.0])
        style.numbers_axis(axes, [1.0, 2.0, 3.0], which="y")
    assert list(axes.xaxis.get_majorticklocs()) == [1, 2, 4, 10]
    assert list(axes.xaxis.get_minorticklocs()) == [1.1]
    assert list(axes.yaxis.get_majorticklocs()) == [1, 2, 3]
    assert axes.get_yscale() == "linear"


def test_a_long_legend_has_room_of_its_own():
    with style.styled():
        drawn = style.figure(style.COLUMN, 2)
        (handle,) = drawn.subplots().plot([0, 1])
        style.legend_above(drawn, [handle] * 6, [f"a configuration with a long name {at}" for at in range(6)])
        check_texts(drawn)
        assert drawn.get_figheight() == pytest.approx(2 + 4 * 0.155)
        assert drawn.axes[0].get_position().height * drawn.get_figheight() > 1.2


def test_a_second_key_makes_panels_and_a_third_is_averaged_over_and_said(sweep):
    for size in (2, 8):
        for beta in (1.0, 2.0):
            for model in ("vae", "gru"):
                for rate_ in (0.1, 0.2):
                    values = {"model.latent_dim": size, "model.beta": beta, "optimizer.learning_rate": rate_}
                    sweep.add({**values, "model": model}, {MSE: size + rate_}, model=model)
    sketch = sketches(curves.metric_over_key, sweep)[f"metric_over_key-{MSE}-model.latent_dim"]
    assert [axes.get_title() for axes in sketch.figure.axes] == ["beta 1", "beta 2"]
    assert "Also averaged over optimizer.learning_rate" in sketch.caption
    assert line(sketch.figure.axes[0], 0)[1] == pytest.approx([2.15, 8.15])


def test_without_a_number_it_does_not_apply(sweep):
    for model in ("vae", "gru"):
        sweep.add({"model": model}, {MSE: 1.0}, model=model)
    with pytest.raises(scene.UnfitError, match="no number"):
        curves.metric_over_key(scene_of(sweep))


# -------------------------------------------------------------------------------------------------------- heat map


def test_cells_have_their_means_the_best_is_outlined_and_holes_are_hatched(two_by_two):
    two_by_two.add({"model.latent_dim": 32, "model.beta": 1.0, "seed": 0}, {MSE: 0.001})
    two_by_two.add({"model.latent_dim": 32, "model.beta": 4.0, "seed": 0}, {}, status="diverged", reason="loss")
    (sketch,) = sketches(heat.heat_map, two_by_two, [MSE]).values()
    axes = sketch.figure.axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    # beta has fewer values and goes down, latent size across
    assert texts[0, 0] == "0.0211"
    assert texts[1, 1] == "0.0841"
    assert texts[2, 0] == "0.0010\nn=1"
    assert (2, 1) not in texts
    hatched = [patch.get_xy() for patch in axes.patches if patch.get_hatch()]
    assert hatched == [(1.5, 0.5)]
    outlined = [patch.get_xy() for patch in axes.patches if not patch.get_fill()]
    assert outlined == [pytest.approx((-0.46, -0.46))]  # the better one lacks seeds
    assert "Hatched" in sketch.caption
    assert "n is written" in sketch.caption


def test_a_cell_with_a_diverged_seed_is_never_the_best(sweep):
    for size, beta, seed in itertools.product((2, 8), (1.0, 4.0), range(3)):
        best = (size, beta) == (8, 4.0)
        metrics = {f"{part}/reconstruction_mse": 0.01 if best else size / 10 for part in ("validation", "test")}
        status = "diverged" if best and seed == 1 else "completed"
        sweep.add({"model.latent_dim": size, "model.beta": beta, "seed": seed}, metrics, status=status)
    (sketch,) = sketches(heat.heat_map, sweep, [MSE]).values()
    outlined = [patch.get_xy() for patch in sketch.figure.axes[0].patches if not patch.get_fill()]
    assert outlined == [pytest.approx((-0.46, -0.46)), pytest.approx((0.54, -0.46))]
    for sketch in sketches(curves.metric_over_key, sweep, [MSE]).values():
        assert ". Means reach from 0.01 at " in sketch.alternative
    with style.styled():
        caption = differences._against_best(scene_of(sweep, [MSE]), MSE).caption
    assert "minus latent dim 2, beta 1" in caption


def test_shades_follow_the_direction():
    found = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(heat._shades(found, MSE), [[1, 0.5, 0]])
    np.testing.assert_allclose(heat._shades(found, "test/accuracy"), [[0, 0.5, 1]])


def test_one_key_makes_no_heat_map(grid):
    with pytest.raises(scene.UnfitError, match="no two keys"):
        heat.heat_map(scene_of(grid()))


# ------------------------------------------------------------------------------------------------- scores of settings


def test_scores_of_settings_that_are_no_numbers(sweep):
    for at, likelihood in enumerate(("gaussian", "laplace")):
        for seed in range(3):
            metrics = {MSE: at + seed, "test/active_units": at + 1, "baseline/pca/reconstruction_mse": 2.5}
            sweep.add({"model.likelihood": likelihood, "model.beta": 1.0, "seed": seed}, metrics)
    (sketch,) = sketches(scores.scores, sweep, [MSE, "test/active_units"]).values()
    first, second = (axes for axes in sketch.figure.axes if axes.axison)
    assert [text.get_text() for text in first.get_yticklabels()] == ["gaussian", "laplace"]
    means = [one for one in first.lines if one.get_marker() == "o"]
    assert [(one.get_xdata()[0], one.get_ydata()[0]) for one in means] == [(1, 0), (2, 1)]
    seeds = [one for one in first.lines if one.get_marker() == "|"]
    assert [list(one.get_xdata()) for one in seeds] == [[0, 1, 2], [1, 2, 3]]
    (naive,) = [one for one in first.lines if list(one.get_xdata()) == [2.5, 2.5]]
    assert naive.get_linestyle() == "--"
    assert len([one for one in second.lines if one.get_marker() == "o"]) == 2
    assert "reconstruction MSE: gaussian 1, laplace 2" in sketch.alternative
    assert [text.get_text() for text in sketch.figure.legends[0].get_texts()] == ["PCA"]


def test_naive_methods_of_different_panels_look_different(sweep):
    for likelihood in ("gaussian", "laplace"):
        metrics = {MSE: 1.0, "baseline/pca/reconstruction_mse": 2.0}
        metrics |= {"test/active_units": 1.0, "baseline/random_code/active_units": 3.0}
        sweep.add({"model.likelihood": likelihood, "seed": 0}, metrics)
    (sketch,) = sketches(scores.scores, sweep, [MSE, "test/active_units"]).values()
    lines = {one.get_xdata()[0]: one for axes in sketch.figure.axes for one in axes.lines if one.get_marker() == "None"}
    assert lines[2.0]._unscaled_dash_pattern != lines[3.0]._unscaled_dash_pattern


def test_naive_methods_that_depend_on_the_setting_stand_beside_each(sweep):
    for size, likelihood in itertools.product((2, 8), ("gaussian", "laplace")):
        for seed in range(2):
            metrics = {
                MSE: size + seed,
                "baseline/pca/reconstruction_mse": 1 / size,
                "baseline/mean/reconstruction_mse": 3.0,
            }
            sweep.add({"model.likelihood": likelihood, "model.latent_dim": size, "seed": seed}, metrics)
    (sketch,) = sketches(scores.scores, sweep, [MSE]).values()
    axes = sketch.figure.axes[0]
    (pca,) = [one for one in axes.lines if one.get_marker() == "x"]
    assert sorted(zip(pca.get_xdata(), pca.get_ydata(), strict=True)) == [(0.125, 2), (0.125, 3), (0.5, 0), (0.5, 1)]
    assert any(list(one.get_xdata()) == [3, 3] for one in axes.lines)


def test_numbers_alone_have_no_figure_of_scores(grid):
    with pytest.raises(scene.UnfitError, match="a number"):
        scores.scores(scene_of(grid()))


# ------------------------------------------------------------------------------------------------- rate, distortion


def test_rate_and_distortion_are_means_and_collapse_is_marked(two_by_two):
    (sketch,) = sketches(rate.rate_distortion, two_by_two).values()
    axes = sketch.figure.axes[0]
    assert line(axes, 0) == ([10, 2.5], [3, 6])  # latent size 2 at beta 1 and 4
    (cross,) = [one for one in axes.lines if one.get_marker() == "x"]
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([2.5], [12])
    assert {text.get_text() for text in axes.texts} == {"1", "4"}
    diagonals = [one for one in axes.lines if one.get_color() == style.LIGHT]
    assert len(diagonals) > 2
    for one in diagonals:
        assert np.ptp(one.get_xdata() + one.get_ydata()) == pytest.approx(0)


def test_a_front_that_turns_back_is_told(two_by_two):
    """Larger beta, smaller rate and larger distortion, but for noise: a tenth of a nat, or the intervals."""

    def front(*points: tuple[float, float, float], half: float | None = None) -> list[str]:
        means = [
            [beta, *(points_mean(value, half) for value in (rate_nats, distortion)), 0]
            for beta, rate_nats, distortion in points
        ]
        return rate.breaks(means)

    def points_mean(value: float, half: float | None) -> Any:
        low, high = (None, None) if half is None else (value - half, value + half)
        return points.Mean(value, low, high, 1, {}, None)  # type: ignore[arg-type]

    assert front((1, 9, 3), (4, 2, 8), (2, 5, 5)) == []
    assert front((1, 9, 3), (2, 9.05, 2.95)) == []
    assert front((1, 9, 3), (2, 9.5, 3)) == ["beta 1 to 2 (rate 9 to 9.5)"]
    assert front((1, 9, 3), (2, 9.5, 3), half=0.3) == []
    assert front((1, 9, 3), (2, 8, 2)) == ["beta 1 to 2 (distortion 3 to 2)"]
    (sketch,) = sketches(rate.rate_distortion, two_by_two).values()
    assert "the rate falls and the distortion rises throughout" in sketch.caption


def test_entropy_of_pixels_is_what_a_decoder_without_a_code_needs():
    train = np.array([[0.0], [1.0]] * 1000)
    assert rate.pixel_entropy(train, train) == pytest.approx(math.log(2), rel=1e-6)
    assert rate.pixel_entropy(np.ones((9, 2)), np.ones((4, 2))) == pytest.approx(-2 * math.log(0.95))


# -------------------------------------------------------------------------------------------------- learning curves


def history(path: Any, values: list[float | None], train: float = 0.0) -> None:
    rows = ["step,epoch,train/loss,validation/loss"]
    rows += [f"{at},{at},{train},{'' if value is None else value}" for at, value in enumerate(values, 1)]
    (path / "metrics.csv").write_text("\n".join(rows) + "\n")


def test_curves_are_means_over_seeds_as_far_as_all_go_and_diverged_ones_end_with_a_cross(sweep):
    history(sweep.add({"model.latent_dim": 2, "seed": 0}, {MSE: 1.0}), [5, 4, 3])
    history(sweep.add({"model.latent_dim": 2, "seed": 1}, {MSE: 1.0}), [7, 6])
    broken = sweep.add({"model.latent_dim": 8, "seed": 0}, {}, status="diverged", reason="loss")
    history(broken, [9, 8, None])
    lost = sweep.add({"model.latent_dim": 8, "seed": 1}, {}, status="diverged", reason="loss")
    history(lost, [None])
    (sketch,) = sketches(learning.learning_curves, sweep, [MSE]).values()
    axes = sketch.figure.axes[0]
    found = {(one.get_color(), one.get_linestyle()): one for one in axes.lines if one.get_marker() == "None"}
    mean = found[style.COLORS[0], "-"]
    assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([1, 2], [6, 5])
    assert list(found[style.COLORS[1], "-"].get_ydata()) == [9, 8]
    (cross,) = [one for one in axes.lines if one.get_marker() == "x"]
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([2], [8])
    assert "1 run diverged: " in sketch.caption
    assert "1 run diverged before the first evaluation" in sketch.caption


def test_at_most_eight_configurations_the_best_by_validation(sweep):
    for size in range(1, 11):
        metrics = {MSE: 0.0, "validation/reconstruction_mse": size}
        history(sweep.add({"model.latent_dim": size, "seed": 0}, metrics), [size, size / 2])
    (sketch,) = sketches(learning.learning_curves, sweep, [MSE]).values()
    assert "The best 8 of 10 configurations by validation/reconstruction_mse" in sketch.caption
    labels = [text.get_text() for text in sketch.figure.legends[0].get_texts()]
    assert labels[:8] == [f"latent dim {size}" for size in range(1, 9)]


def test_without_histories_there_are_no_curves(grid):
    with pytest.raises(scene.UnfitError, match=r"metrics\.csv"):
        learning.learning_curves(scene_of(grid()))


# ---------------------------------------------------------------------------------------------- paired differences


def test_differences_are_paired_by_seed_and_folds_are_averaged_first(sweep):
    for cell, extra in (("vae", 0.0), ("gru", 0.5)):
        for seed in range(7):
            for fold in (0, 1):
                if not (cell == "gru" and seed == 6):
                    values = {"model": cell, "seed": seed, "data.fold": fold}
                    sweep.add(values, {MSE: seed + extra + fold * (1 if extra else 3)}, model=cell)
    sketch = sketches(differences.paired_differences, sweep, [MSE])[f"paired_differences-{MSE}-model"]
    axes = sketch.figure.axes[0]
    seeds = [list(one.get_xdata()) for one in axes.lines if one.get_marker() == "|"]
    (mean,) = [list(one.get_xdata()) for one in axes.lines if one.get_marker() == "o"]
    sign = 1 if "gru minus vae" in sketch.caption else -1
    assert seeds == [pytest.approx([-0.5 * sign] * 6)]  # (seed + 1) - (seed + 1.5)
    assert mean == pytest.approx([-0.5 * sign])
    assert [text.get_text() for text in axes.texts] == ["p = .031"]  # 2 / 2^6
    assert "6 seeds" in sketch.caption
    assert "p: the larger one of a paired t and a permutation test, two-sided." in sketch.caption


def test_without_a_key_of_two_values_all_are_held_against_the_best_by_validation(sweep):
    for size, validation in ((2, 3.0), (4, 1.0), (8, 2.0)):
        for seed in range(3):
            metrics = {MSE: size + 0.1 * seed * (size == 8), "validation/reconstruction_mse": validation}
            sweep.add({"model.latent_dim": size, "seed": seed}, metrics)
    (sketch,) = sketches(differences.paired_differences, sweep, [MSE]).values()
    axes = sketch.figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["latent dim 2", "latent dim 8"]
    means = [one.get_xdata()[0] for one in axes.lines if one.get_marker() == "o"]
    assert means == pytest.approx([-2, 4.1])
    (band,) = [list(one.get_xdata()) for one in axes.lines if len(one.get_xdata()) == 2 and one.get_ydata()[0] == 1]
    assert band == pytest.approx(list(interval([4.0, 4.1, 4.2]) or ()))
    assert "minus latent dim 4" in sketch.caption


def test_one_seed_has_nothing_to_pair(sweep):
    for size in (2, 8):
        sweep.add({"model.latent_dim": size, "seed": 0}, {MSE: 1.0})
    with pytest.raises(scene.UnfitError, match="one seed"):
        differences.paired_differences(scene_of(sweep))


# ------------------------------------------------------------------------------------------------------ odd sweeps


def test_a_sweep_of_which_nothing_finished_has_no_figures_and_no_error(sweep):
    sweep.add({"model.latent_dim": 2, "model.beta": 1.0, "seed": 0}, {}, status="failed", reason="out of memory")
    sweep.add({"model.latent_dim": 8, "model.beta": 4.0, "seed": 1}, written=False)
    sweep.add({"model.latent_dim": 8, "model.beta": 1.0, "seed": 1}, {MSE: None}, null_reasons={MSE: "not a number"})
    notes: list[str] = []
    assert draw(scene_of(sweep).table, sweep.folder, None, notes.append) == []
    assert notes == []


def test_one_run_alone_has_no_figures_of_comparisons(sweep):
    sweep.add({"seed": 0}, {MSE: 1.0})
    assert draw(scene_of(sweep).table, sweep.folder, list(KINDS)[:0], lambda text: None) == []
    for kind in ("metric_over_key", "heat_map", "paired_differences", "critical_difference"):
        with pytest.raises(ConfigError, match="does not apply"):
            draw(scene_of(sweep).table, sweep.folder, [kind])


def test_values_that_are_no_numbers_tell_lines_apart(sweep):
    for dims in ([], [8, 4]):
        for size in (2, 8):
            for conditional in (True, False):
                values = {"model.hidden_dims": dims, "model.latent_dim": size, "model.conditional": conditional}
                sweep.add({**values, "seed": 0}, {MSE: size + len(dims)})
    sketch = sketches(curves.metric_over_key, sweep)[f"metric_over_key-{MSE}-model.latent_dim"]
    legend = {text.get_text() for text in sketch.figure.legends[0].get_texts()}
    panels = {axes.get_title() for axes in sketch.figure.axes}
    assert {"hidden dims []", "hidden dims [8, 4]"} in (legend, panels)
    assert {"conditional true", "conditional false"} in (legend, panels)


def test_values_are_drawn_as_they_stand_whatever_they_hold(sweep):
    names = ("$x_{$", r"a\nb$$", "数据", "x" * 500)
    for name in names:
        for size in (2, 8):
            sweep.runs.clear()
            path = sweep.add({"model.latent_dim": size, "optimizer.learning_rate": 0.1}, {MSE: size})
            config = json.loads((path / "config.json").read_text())
            config["config"]["optimizer"]["learning_rate"] = name
            (path / "config.json").write_text(json.dumps(config))
            path.rename(path.parent / f"{size}-{names.index(name)}")
    (sweep.folder / "sweep.json").unlink()
    notes: list[str] = []
    found = draw(scene_of(sweep).table, sweep.folder, ["metric_over_key", "heat_map"], notes.append)
    assert [figure.name.partition("-")[0] for figure in found] == ["metric_over_key", "heat_map"]
    assert notes == []
    assert points.word("$x_{$") == r"\$x_{\$"
    assert len(points.word("x" * 500)) == style.LONGEST
