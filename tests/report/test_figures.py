"""Figures of the numbers of a sweep: what they show, when there is none, and bytes that are the same each time.

Most tests read the description of a figure and draw nothing.
"""

import itertools
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from research.evaluation.views import COLORS
from research.report.collect import collect
from research.report.figures import (
    KINDS,
    chart,
    curves,
    draw,
    heat,
    learning,
    points,
    rate,
    scene,
    settings,
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
    return {planned.name: planned for planned in (plan() for plan in planner(scene_of(sweep, metrics)))}


def panels_of(planner: Any, sweep: Any, metrics: Any = None) -> list[Any]:
    (only,) = sketches(planner, sweep, metrics).values()
    return only.picture.panels


def lines(panel: Any, **look: Any) -> list[tuple[list[float], list[float]]]:
    """x and y of the lines that look like this."""
    fitting = [one for one in panel.lines if all(one.look.get(name) == value for name, value in look.items())]
    return [(list(one.x), list(one.y)) for one in fitting if len(one.x)]


def model_line(panel: Any, number: int) -> tuple[list[float], list[float]]:
    (only,) = lines(panel, marker=chart.MARKERS[number], color=COLORS[number])
    return only


def outlined(panel: Any) -> list[tuple[int, int]]:
    """Row and column of the cells that have a frame."""
    return [(round(float(np.mean(line.y[:4]))), round(float(np.mean(line.x[:4])))) for line in panel.lines]


def legend_of(picture: Any) -> list[str]:
    return list(dict.fromkeys(one.name for panel in picture.panels for one in panel.lines if one.name))


def texts_of(figure: Any) -> list[Any]:
    """The texts that are seen, but for those that stand at points of the data: ticks, labels, titles, legends."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    texts += [text for text in (figure._supxlabel, figure._supylabel) if text is not None]
    for axes in figure.axes:
        texts.append(axes.title)
        if axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_visible()]
                texts.append(axis.label)
        texts += [text for text in axes.texts if axes.axison is False or text.get_position()[0] == 3]
    return [text for text in texts if text.get_text().strip()]


def check_texts(figure: Any) -> None:
    """No text is cut off, and no two of them lie over each other."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in texts_of(figure)]
    assert boxes
    whole = figure.bbox.padded(2)
    for text, box in boxes:
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, text
    for (one, box), (other, beside) in itertools.combinations(boxes, 2):
        assert not box.overlaps(beside), (one, other)


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


# --------------------------------------------------------------------------------------------------------- drawing


def test_importing_costs_nothing():
    code = "import sys, research.report.figures; print([m for m in ('matplotlib', 'jax', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_an_unknown_kind_is_refused_with_the_nearest_and_one_that_does_not_apply_with_a_reason(grid):
    sweep = grid()
    with pytest.raises(ConfigError, match=r"heatmap.*did you mean 'heat_map'"):
        draw(scene_of(sweep).table, sweep.folder, ["heatmap"])
    with pytest.raises(ConfigError, match=r"rate_distortion.*model.beta is not swept"):
        draw(scene_of(sweep).table, sweep.folder, ["rate_distortion"])


def test_everything_that_applies_is_drawn_in_order_and_twice_the_same(two_by_two, monkeypatch):
    """Also: matplotlib's settings are left alone, no figure stays open, no text is cut or covered."""
    import matplotlib
    from matplotlib._pylab_helpers import Gcf

    checks: list[Any] = []

    def checked(figure: Any) -> dict[str, bytes]:
        """Render the first figure of all, and the one that is drawn again."""
        check_texts(figure)
        checks.append(figure)
        is_again = len(checks) == 1 or figure.axes[0].get_xlabel().startswith("rate")
        return style.rendered(figure) if is_again else dict.fromkeys(("svg", "pdf", "png"), b"")

    monkeypatch.setattr(scene, "rendered", checked)
    notes: list[str] = []
    view = scene_of(two_by_two, [MSE])
    with matplotlib.rc_context({"font.size": 3.0, "svg.hashsalt": "own"}):
        before = dict(matplotlib.rcParams)
        drawn = draw(view.table, two_by_two.folder, None, notes.append)
        assert dict(matplotlib.rcParams) == before
    assert not Gcf.figs
    kinds = [figure.name.partition("-")[0] for figure in drawn]
    assert list(dict.fromkeys(kinds)) == ["metric_over_key", "heat_map", "rate_distortion", "paired_differences"]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    assert len(notes) == 1  # of all kinds that load the best run, once
    assert "config.json" in notes[0] or "parameters" in notes[0]
    (again,) = draw(view.table, two_by_two.folder, ["rate_distortion"], notes.append)
    assert again in drawn
    first = drawn[0]
    assert isinstance(first, scene.Drawn)
    assert first.svg.startswith(b"<?xml")
    assert first.pdf.startswith(b"%PDF")
    assert first.png.startswith(b"\x89PNG")
    assert b"<text" not in first.svg  # paths: no font is needed
    assert b"dc:date" not in first.svg
    assert b"CreationDate" not in first.pdf
    width = int.from_bytes(first.png[16:20], "big")
    assert width == round(style.COLUMN * style.DPI)
    for figure in drawn:
        assert set(figure.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=-")
        assert figure.caption.endswith(".")
        assert len(figure.runs) == 12


def test_a_figure_that_fails_is_noted_and_stops_no_other(two_by_two, monkeypatch):
    real, notes = curves.mean_lines, []

    def fail(means, number, name):
        if 0.02 < next(iter(means.values())).value < 0.1:
            raise RuntimeError("broken")
        return real(means, number, name)

    monkeypatch.setattr(curves, "mean_lines", fail)
    monkeypatch.setattr(scene, "rendered", lambda figure: dict.fromkeys(("svg", "pdf", "png"), b""))
    view = scene_of(two_by_two, [MSE, "test/kl_nats"])
    drawn = draw(view.table, two_by_two.folder, ["metric_over_key"], notes.append)
    assert {figure.name.split("-")[1] for figure in drawn} == {"test_kl_nats"}
    assert notes
    assert all("broken" in note and "metric_over_key" in note for note in notes)


def test_a_chart_is_drawn_as_it_is_described():
    """Every field of a description that has to do with looks, on one figure."""
    look = {"color": "black"}
    described = chart.Line([1, 2], [1.0, 100.0], look, "line", ([0.5, 50], [2, 200]), "band")
    shaded = chart.Line([1, 2], [3, 4], look | {"markersize": 2}, shades=[0.1, 0.9], shades_name="factor")
    labeled = {"texts": [(1, 3, "text", {"ha": "left"})], "labels": [(2, 4, "a"), (2, 4, "hidden")]}
    panels = [chart.Panel([described], "title", (0, 3), (0.1, 1000), True), chart.Panel([shaded], **labeled)]
    panels += [chart.Panel([chart.Line([0.2], [1], look)])] * 5
    with style.styled():
        figure = chart.Chart(panels, "x", "y", legend_title="legend").draw()
        check_texts(figure)
    first, second, *others, empty, bar = figure.axes
    assert (first.get_title(), first.get_yscale()) == ("title", "log")
    assert (first.get_ylim(), first.get_xlim()) == ((0.1, 1000), (0, 3))
    assert [list(line.get_xdata()) for line in first.lines] == [[1, 2]]
    (band,) = first.collections
    assert {tuple(corner) for corner in band.get_paths()[0].vertices} == {(1, 0.5), (1, 2), (2, 50), (2, 200)}
    (marks,) = second.collections
    assert list(marks.get_array()) == [0.1, 0.9]
    assert [text.get_text() for text in second.texts] == ["text", "a"]
    assert bar.get_ylabel() == "factor"
    assert not empty.axison
    assert [axes.get_ylabel() for axes in (first, second, *others)] == ["y", "", "", "", "y", "", ""]
    assert [axes.get_xlabel() for axes in (first, second, *others)] == ["", "", "", "x", "x", "x", "x"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["line", "band"]


@pytest.mark.parametrize("number", [2, 3, 8])
def test_long_titles_of_panels_do_not_reach_into_each_other(number):
    title = "test coverage of the conformal 95 % interval"
    panel = chart.Panel([chart.Line([0, 1], [0, 1], {"color": "black"})], f"{title}\nenergy")
    with style.styled():
        figure = chart.Chart([panel] * number).draw()
        check_texts(figure)
    assert " ".join(figure.axes[0].get_title().split()) == f"{title} energy"


def test_ticks_stand_at_the_values_and_those_without_room_have_no_label():
    values = [40.0, 1.0, 1.1, 2.0, 4.0, 40.0]
    line = chart.Line(values, values, {"color": "black"})
    with style.styled():
        (axes,) = chart.Chart([chart.Panel([line])], at=values).draw().axes
    assert axes.get_xscale() == "log"
    assert list(axes.xaxis.get_majorticklocs()) == [1, 2, 4, 40]
    assert list(axes.xaxis.get_minorticklocs()) == [1.1]
    assert chart.roomy([1.0, 2.0, 3.0], False) == [1, 2, 3]
    assert not style.wide([1.0, 30.0])
    assert style.wide([1.0, 31.0])
    assert not style.wide([-1.0, 1000.0])
    assert not chart.framed(1.0, 30.0)[1]
    assert chart.framed(1.0, 1000.0)[1]


def test_a_long_legend_has_room_of_its_own():
    names = [f"a configuration with a long name {at}" for at in range(6)]
    panel = chart.Panel([chart.Line([0, 1], [0, 1], {"color": "black"}, name) for name in names])
    with style.styled():
        drawn = chart.Chart([panel], height=2.0).draw()
        check_texts(drawn)
    assert drawn.get_figheight() == pytest.approx(2 + 4 * 0.155)
    assert drawn.axes[0].get_position().height * drawn.get_figheight() > 1.2


# ------------------------------------------------------------------------------------------------- metric over key


def test_lines_are_means_with_t_intervals_and_baselines_are_dashed(two_by_two):
    planned = sketches(curves.metric_over_key, two_by_two, [MSE, LOSS])
    over_size = planned[f"metric_over_key-{MSE}-model.latent_dim"]
    (panel,) = over_size.picture.panels
    x, y = model_line(panel, 0)  # beta 1
    assert x == [2, 8]
    assert y == pytest.approx([0.0211, 0.0811])
    bars = [y for x, y in lines(panel, color=COLORS[0]) if x == [2, 2]]
    assert bars[0] == pytest.approx(interval([0.021, 0.0211, 0.0212]))
    assert over_size.picture.y_label == "test reconstruction MSE ↓"
    ((_, pca),) = lines(panel, color=style.GREY)
    assert pca == pytest.approx([0.05, 0.0125])
    assert lines(panel, linestyle=chart.BASELINE_DASHES[0])
    assert "Beyond the axis: mean (9)" in over_size.caption
    assert legend_of(over_size.picture) == ["beta 1", "beta 4", "PCA"]
    # a baseline that depends on the line has the color of the line
    (panel,) = planned[f"metric_over_key-{MSE}-model.beta"].picture.panels
    for at, value in enumerate((0.05, 0.0125)):
        ((_, y),) = lines(panel, color=COLORS[at], linestyle=chart.BASELINE_DASHES[0])
        assert y == pytest.approx([value, value])
    # losses cannot be compared over beta
    assert [name for name in planned if LOSS in name] == [f"metric_over_key-{LOSS}-model.latent_dim"]
    caption = planned[f"metric_over_key-{LOSS}-model.latent_dim"].caption
    assert "Lines of different model.beta cannot be compared" in caption
    assert "The best mean" not in caption
    assert " The best mean is 0.0211 at beta 1, latent dim 2; " in over_size.caption


def test_a_baseline_has_the_same_dashes_in_a_panel_without_the_others():
    line, entry = curves.baseline_lines({(0, 1.0): {"mean": 1.0}}, ["pca", "mean"], (0.5, 1.5))[0]
    assert line.look["linestyle"] == entry.look["linestyle"] == chart.BASELINE_DASHES[1]


def test_bands_are_drawn_where_there_are_three_points(sweep):
    for size in (1, 2, 3):
        for seed in range(2):
            sweep.add({"model.latent_dim": size, "seed": seed}, {MSE: size + seed})
    (planned,) = sketches(curves.metric_over_key, sweep).values()
    (line,) = planned.picture.panels[0].lines
    assert (line.band[0][0], line.band[1][0]) == pytest.approx(interval([1, 2]))
    assert "2 seeds" in planned.caption


def test_intervals_are_over_seeds_whatever_else_is_averaged(sweep):
    for size in (2, 8):
        for seed in range(3):
            sweep.add({"model.latent_dim": size, "seed": seed}, {MSE: seed + size})
    view = scene_of(sweep)
    (mean,) = points.averages(view.table, MSE, ()).values()
    assert mean.n == 3
    assert mean.value == pytest.approx(6)
    assert mean.band == pytest.approx(interval([5, 6, 7]))


def mean(value: float, half: float | None) -> points.Mean:
    band = None if half is None else (value - half, value + half)
    return points.Mean(value, band, {}, [], cell=None, over=None)  # type: ignore[arg-type]


def test_one_interval_that_is_much_wider_than_the_others_is_cut():
    assert curves.limits([mean(1, 0.1), mean(2, 0.1), mean(3, 100)]) == (pytest.approx(-1), pytest.approx(5))
    assert curves.limits([mean(1, 0.1), mean(2, 0.1), mean(3, 0.1)]) == (pytest.approx(0.9), pytest.approx(3.1))


def test_axes_are_logarithmic_where_values_reach_far(sweep):
    for size, error in ((1, 1.0), (10, 0.1), (1000, 0.001)):
        sweep.add({"model.latent_dim": size, "seed": 0}, {MSE: error})
    (panel,) = panels_of(curves.metric_over_key, sweep)
    assert panel.logarithmic
    assert 0 < panel.y_limits[0] < 0.001


def test_a_second_key_makes_panels_and_a_third_is_averaged_over_and_said(sweep):
    for size in (2, 8):
        for beta in (1.0, 2.0):
            for model in ("vae", "gru"):
                for rate_ in (0.1, 0.2):
                    values = {"model.latent_dim": size, "model.beta": beta, "optimizer.learning_rate": rate_}
                    sweep.add({**values, "model": model}, {MSE: size + rate_}, model=model)
    planned = sketches(curves.metric_over_key, sweep)[f"metric_over_key-{MSE}-model.latent_dim"]
    assert [panel.title for panel in planned.picture.panels] == ["beta 1", "beta 2"]
    assert "Also averaged over optimizer.learning_rate" in planned.caption
    assert model_line(planned.picture.panels[0], 0)[1] == pytest.approx([2.15, 8.15])


def test_without_a_number_it_does_not_apply(sweep):
    for model in ("vae", "gru"):
        sweep.add({"model": model}, {MSE: 1.0}, model=model)
    with pytest.raises(scene.UnfitError, match="no number"):
        curves.metric_over_key(scene_of(sweep))


# -------------------------------------------------------------------------------------------------------- heat map


def test_cells_have_their_means_the_best_is_outlined_and_holes_are_hatched(two_by_two):
    two_by_two.add({"model.latent_dim": 32, "model.beta": 1.0, "seed": 0}, {MSE: 0.001})
    two_by_two.add({"model.latent_dim": 32, "model.beta": 4.0, "seed": 0}, {}, status="diverged", reason="loss")
    (planned,) = sketches(heat.heat_map, two_by_two, [MSE]).values()
    (panel,) = planned.picture.panels
    # beta has fewer values and goes down, latent size across
    assert (planned.picture.row_names, planned.picture.column_names) == (["1", "4"], ["2", "8", "32"])
    texts = {(x, y): text for x, y, text, _ in panel.texts}
    assert texts == {(0, 0): "0.0211", (1, 0): "0.0811", (2, 0): "0.001\nn=1", (0, 1): "0.0241", (1, 1): "0.0841"}
    assert np.argwhere(np.isnan(panel.cells)).tolist() == [[1, 2]]
    assert outlined(panel) == [(0, 0)]  # the better one lacks seeds
    assert " Means reach from 0.001 at beta 1, latent dim 32 to 0.0841 at beta 4, latent dim 8. " in planned.caption
    assert "Hatched" in planned.caption
    assert "n is written" in planned.caption
    with style.styled():
        figure = planned.picture.draw()
        check_texts(figure)
    (axes,) = figure.axes
    assert axes.patch.get_hatch()
    (mesh,) = axes.collections
    assert np.argwhere(np.ma.getmaskarray(mesh.get_array())).tolist() == [[1, 2]]  # the hatches are seen there
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "8", "32"]
    assert axes.get_ylim() == (1.5, -0.5)


def test_a_cell_with_a_diverged_seed_is_never_the_best(sweep):
    for size, beta, seed in itertools.product((2, 8), (1.0, 4.0), range(3)):
        best = (size, beta) == (8, 4.0)
        metrics = {f"{part}/reconstruction_mse": 0.01 if best else size / 10 for part in ("validation", "test")}
        status = "diverged" if best and seed == 1 else "completed"
        sweep.add({"model.latent_dim": size, "model.beta": beta, "seed": seed}, metrics, status=status)
    (panel,) = panels_of(heat.heat_map, sweep, [MSE])
    assert outlined(panel) == [(0, 0), (0, 1)]  # latent size 2 at both beta
    for planned in sketches(curves.metric_over_key, sweep, [MSE]).values():
        assert " Means reach from 0.01 at " in planned.caption
    assert "minus latent dim 2, beta 1" in settings._against_best(scene_of(sweep, [MSE]), MSE).caption


def test_shades_follow_the_direction():
    numbers = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(heat.shades_of(numbers, MSE), [[1, 0.5, 0]])
    np.testing.assert_allclose(heat.shades_of(numbers, "test/accuracy"), [[0, 0.5, 1]])


def test_one_key_makes_no_heat_map_and_no_scores(grid):
    view = scene_of(grid())
    with pytest.raises(scene.UnfitError, match="no two keys"):
        heat.heat_map(view)
    with pytest.raises(scene.UnfitError, match="a number"):
        settings.scores(view)
    with pytest.raises(scene.UnfitError, match=r"metrics\.csv"):
        learning.learning_curves(view)


# ------------------------------------------------------------------------------------------------- scores of settings


def test_scores_of_settings_that_are_no_numbers(sweep):
    for at, likelihood in enumerate(("gaussian", "laplace")):
        for seed in range(3):
            metrics = {MSE: at + seed, "test/active_units": at + 1, "baseline/pca/reconstruction_mse": 2.5}
            metrics |= {"baseline/random_code/active_units": 3.0}
            sweep.add({"model.likelihood": likelihood, "model.beta": 1.0, "seed": seed}, metrics)
    (planned,) = sketches(settings.scores, sweep, [MSE, "test/active_units"]).values()
    first, second = planned.picture.panels
    assert planned.picture.row_names == ["gaussian", "laplace"]
    assert lines(first, marker="o") == [([1], [0]), ([2], [1])]
    assert [x for x, _ in lines(first, marker="|")] == [[0, 1, 2], [1, 2, 3]]
    assert len(lines(second, marker="o")) == 2
    # each baseline has dashes of its own, also in another panel
    assert [x for x, _ in lines(first, linestyle=chart.BASELINE_DASHES[0])] == [[2.5, 2.5]]
    assert [x for x, _ in lines(second, linestyle=chart.BASELINE_DASHES[1])] == [[3, 3]]
    assert legend_of(planned.picture) == ["PCA", "random code"]
    best = "Test reconstruction MSE: The best mean is 1 at gaussian; means reach from 1 at gaussian to 2 at laplace."
    assert best in planned.caption
    with style.styled():
        check_texts(planned.picture.draw())


def test_baselines_that_depend_on_the_setting_stand_beside_each(sweep):
    for size, likelihood in itertools.product((2, 8), ("gaussian", "laplace")):
        for seed in range(2):
            metrics = {
                MSE: size + seed,
                "baseline/pca/reconstruction_mse": 1 / size,
                "baseline/mean/reconstruction_mse": 3.0,
            }
            sweep.add({"model.likelihood": likelihood, "model.latent_dim": size, "seed": seed}, metrics)
    (panel,) = panels_of(settings.scores, sweep, [MSE])
    (pca,) = lines(panel, marker="x")
    assert sorted(zip(*pca, strict=True)) == [(0.125, 2), (0.125, 3), (0.5, 0), (0.5, 1)]
    assert any(x == [3, 3] for x, _ in lines(panel))


def test_the_caption_of_scores_names_the_best_setting_also_where_it_is_not_drawn(sweep):
    for at in range(settings.ROWS + 2):
        sweep.add({"model.likelihood": f"kind{at:02}", "seed": 0}, {MSE: 100.0 - at})
    (planned,) = sketches(settings.scores, sweep, [MSE]).values()
    assert len(planned.picture.row_names) == settings.ROWS
    assert f"The best mean is {99 - settings.ROWS} at kind{settings.ROWS + 1}" in planned.caption
    assert "Not drawn for want of room: 2 more." in planned.caption


def test_no_best_is_named_where_lines_are_left_out(sweep):
    for at, beta in itertools.product(range(curves.LINES + 1), (1.0, 2.0)):
        sweep.add({"model.latent_dim": 2 + at, "model.beta": beta, "seed": 0}, {MSE: 100.0 - at - beta})
    caption = sketches(curves.metric_over_key, sweep, [MSE])[f"metric_over_key-{MSE}-model.beta"].caption
    assert "Not drawn for want of room: 1 more." in caption
    assert "Means reach from" in caption
    assert "The best mean" not in caption


# ------------------------------------------------------------------------------------------------- rate, distortion


def test_rate_and_distortion_are_means_and_collapse_is_marked(two_by_two):
    (planned,) = sketches(rate.rate_distortion, two_by_two).values()
    (panel,) = planned.picture.panels
    assert model_line(panel, 0) == ([10, 2.5], [3, 6])  # latent size 2 at beta 1 and 4
    assert lines(panel, marker="x") == [([2.5], [12])]
    assert {text for *_, text in panel.labels} == {"1", "4"}
    diagonals = lines(panel, color=style.LIGHT)
    assert len(diagonals) > 2
    for x, y in diagonals:
        assert np.ptp(np.add(x, y)) == pytest.approx(0)
    assert panel.x_limits[0] < 2.5 < 10 < panel.x_limits[1]
    assert panel.y_limits[0] < 3 < 12 < panel.y_limits[1]
    assert "the rate falls and the distortion rises throughout" in planned.caption
    assert "Rates reach from 2.5 to 10 nats and distortions from 3 to 12." in planned.caption


def test_a_front_that_turns_back_is_told():
    """Larger beta, smaller rate and larger distortion, but for noise: a tenth of a nat, or the intervals."""

    def front(*places: tuple[float, float, float], half: float | None = None) -> list[str]:
        return rate.breaks([rate.Point(beta, mean(x, half), mean(y, half)) for beta, x, y in places])

    assert front((1, 9, 3), (4, 2, 8), (2, 5, 5)) == []
    assert front((1, 9, 3), (2, 9.05, 2.95)) == []
    assert front((1, 9, 3), (2, 9.5, 3)) == ["beta 1 to 2 (rate 9 to 9.5)"]
    assert front((1, 9, 3), (2, 9.5, 3), half=0.3) == []
    assert front((1, 9, 3), (2, 8, 2)) == ["beta 1 to 2 (distortion 3 to 2)"]


def test_bounds_are_drawn_near_the_points_and_named_when_far():
    model = chart.Line([1.0, 2.0], [10.0, 20.0], {"color": "black"})
    bounds = {"near": ("level", 22.0), "sum": ("sum", 15.0), "far": ("level", 90.0)}
    more, (x_limits, y_limits), far = rate.bounded([model], bounds)
    assert far == ["far (90 nats)"]
    assert x_limits == pytest.approx((0.88, 2.12))
    assert y_limits[0] == pytest.approx(8.8)
    assert 22 < y_limits[1] < 23
    (near,), (total,) = ([line for line in more if line.name == name] for name in ("near", "sum"))
    assert set(near.y) == {22.0}
    np.testing.assert_allclose(np.add(total.x, total.y), 15)


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
    (planned,) = sketches(learning.learning_curves, sweep, [MSE]).values()
    (panel,) = planned.picture.panels
    (of_models,) = [line for line in panel.lines if line.band is not None]
    assert (list(of_models.x), list(of_models.y)) == ([1, 2], [6, 5])
    assert (of_models.band[0][0], of_models.band[1][0]) == pytest.approx(interval([5, 7]))
    assert lines(panel, color=COLORS[0], linestyle=chart.DASHES[2])[0][1] == [0, 0]  # training
    assert lines(panel, color=COLORS[1], linewidth=0.6) == [([1, 2], [9, 8])]
    assert lines(panel, marker="x") == [([2], [8])]
    assert "It ends at 5 (latent dim 2)." in planned.caption
    assert "1 run diverged: " in planned.caption
    assert "1 run diverged before the first evaluation" in planned.caption
    assert legend_of(planned.picture) == ["latent dim 2", "diverged", "validation", "train"]
    with style.styled():
        check_texts(planned.picture.draw())


@pytest.mark.parametrize(("depends", "label"), [({"loss": []}, "loss ↓"), ({"loss": ["run_id"]}, "loss")])
def test_a_loss_by_which_no_runs_are_compared_has_no_direction(sweep, depends, label):
    path = sweep.add({"seed": 0}, {LOSS: 1.0})
    history(path, [5, 4])
    result = json.loads((path / "result.json").read_text()) | {"depends": depends}
    (path / "result.json").write_text(json.dumps(result))
    (planned,) = sketches(learning.learning_curves, sweep, [LOSS]).values()
    assert planned.picture.y_label == label


def test_at_most_eight_configurations_the_best_by_validation(sweep):
    for size in range(1, 11):
        metrics = {MSE: 0.0, "validation/reconstruction_mse": size}
        history(sweep.add({"model.latent_dim": size, "seed": 0}, metrics), [size, size / 2])
    (planned,) = sketches(learning.learning_curves, sweep, [MSE]).values()
    assert "The best 8 of 10 configurations by validation/reconstruction_mse" in planned.caption
    assert legend_of(planned.picture)[:8] == [f"latent dim {size}" for size in range(1, 9)]


def test_limits_of_losses_leave_out_huge_first_ones():
    def curve(*values: float) -> chart.Line:
        return chart.Line(range(1, len(values) + 1), np.array(values), {})

    falling = [20.0, *np.linspace(3, 2, 9)]
    assert learning.limits([curve(*falling)]) == ((pytest.approx(1.92), pytest.approx(3.3)), False, True)
    assert learning.limits([curve(*falling[1:])])[2] is False
    assert learning.limits([curve(1000.0, *falling)]) == (None, True, False)
    assert learning.limits([]) == (None, False, False)


# ---------------------------------------------------------------------------------------------- paired differences


def test_differences_are_paired_by_seed_and_folds_are_averaged_first(sweep):
    for cell, extra in (("vae", 0.0), ("gru", 0.5)):
        for seed in range(7):
            for fold in (0, 1):
                if not (cell == "gru" and seed == 6):
                    values = {"model": cell, "seed": seed, "data.fold": fold}
                    sweep.add(values, {MSE: seed + extra + fold * (1 if extra else 3)}, model=cell)
    planned = sketches(settings.paired_differences, sweep, [MSE])[f"paired_differences-{MSE}-model"]
    (panel,) = planned.picture.panels
    sign = 1 if "gru minus vae" in planned.caption else -1
    assert [x for x, _ in lines(panel, marker="|")] == [pytest.approx([-0.5 * sign] * 6)]  # (seed + 1) - (seed + 1.5)
    assert [x for x, _ in lines(panel, marker="o")] == [pytest.approx([-0.5 * sign])]
    assert [text for _, _, text, _ in panel.texts] == ["p = .031"]  # 2 / 2^6
    assert "6 seeds" in planned.caption
    assert "p: the larger one of a paired t and a permutation test, two-sided." in planned.caption
    with style.styled():
        check_texts(planned.picture.draw())


def test_without_a_key_of_two_values_all_are_held_against_the_best_by_validation(sweep):
    for size, validation in ((2, 3.0), (4, 1.0), (8, 2.0)):
        for seed in range(3):
            metrics = {MSE: size + 0.1 * seed * (size == 8), "validation/reconstruction_mse": validation}
            sweep.add({"model.latent_dim": size, "seed": seed}, metrics)
    (planned,) = sketches(settings.paired_differences, sweep, [MSE]).values()
    (panel,) = planned.picture.panels
    assert planned.picture.row_names == ["latent dim 2", "latent dim 8"]
    assert [x[0] for x, _ in lines(panel, marker="o")] == pytest.approx([-2, 4.1])
    faces = [line.look["markerfacecolor"] for line in panel.lines if line.look.get("marker") == "o"]
    assert faces == [COLORS[0], "white"]  # a smaller error is better
    (band,) = [x for x, y in lines(panel, linewidth=1.1) if y == [1, 1]]
    assert band == pytest.approx(list(interval([4.0, 4.1, 4.2]) or ()))
    assert "minus latent dim 4" in planned.caption
    assert "Mean differences reach from -2 to 4.1." in planned.caption


def test_one_seed_has_nothing_to_pair(sweep):
    for size in (2, 8):
        sweep.add({"model.latent_dim": size, "seed": 0}, {MSE: 1.0})
    with pytest.raises(scene.UnfitError, match="one seed"):
        settings.paired_differences(scene_of(sweep))


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
    assert draw(scene_of(sweep).table, sweep.folder, [], lambda text: None) == []
    for kind in ("metric_over_key", "heat_map", "paired_differences", "critical_difference"):
        with pytest.raises(ConfigError, match="does not apply"):
            draw(scene_of(sweep).table, sweep.folder, [kind])


def test_values_that_are_no_numbers_tell_lines_apart(sweep):
    for dims in ([], [8, 4]):
        for size in (2, 8):
            for conditional in (True, False):
                values = {"model.hidden_dims": dims, "model.latent_dim": size, "model.conditional": conditional}
                sweep.add({**values, "seed": 0}, {MSE: size + len(dims)})
    picture = sketches(curves.metric_over_key, sweep)[f"metric_over_key-{MSE}-model.latent_dim"].picture
    names = (set(legend_of(picture)), {panel.title for panel in picture.panels})
    assert {"hidden dims []", "hidden dims [8, 4]"} in names
    assert {"conditional true", "conditional false"} in names


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
    (drawn,) = draw(scene_of(sweep).table, sweep.folder, ["metric_over_key"], notes.append)
    assert drawn.svg
    assert notes == []
    assert points.word("$x_{$") == r"\$x_{\$"
    assert len(points.word("x" * 500)) == style.LONGEST
