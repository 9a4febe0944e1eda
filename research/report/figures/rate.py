"""Rate against distortion: what beta buys."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from research.evaluation.views import COLORS
from research.report.cell import COLLAPSED
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.best import dataset_of
from research.report.figures.chart import Chart, Limits, Line, Panel, bars, baseline_look, look
from research.report.figures.curves import Layout, arrange
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnavailableError, UnfitError

BETA, RATE, DISTORTION = "model.beta", "test/kl_nats", "test/reconstruction_nats"
PIXELS = "independent pixels"
EXACT = "reference/nll_nats"


class Point(NamedTuple):
    """Means at one beta, and the number of runs whose posterior collapsed."""

    beta: float
    rate: points.Mean
    distortion: points.Mean
    collapsed: int


def rate_distortion(scene: Scene) -> list[Plan]:
    """One figure, where beta is swept and both terms of the bound are in nats."""
    table = scene.table
    if len(points.numeric(table.runs, BETA)) < 2:
        raise UnfitError(f"{BETA} is not swept")
    if not any(_has(run) for run in table.runs):
        raise UnfitError(f"no finished run has both {RATE} and {DISTORTION}")
    return [functools.partial(_sketch, scene)]


def _has(run: Run) -> bool:
    return run.finished and None not in (run.metrics.get(RATE), run.metrics.get(DISTORTION))


def _sketch(scene: Scene) -> Sketch:
    table = scene.table
    layout = arrange(table, DISTORTION, BETA, averages=False)
    panels: list[Panel] = []
    everything: list[points.Mean] = []
    beyond: list[str] = []
    broken: list[str] = []
    collapsed = 0
    for panel in layout.panels:
        runs = [run for run in table.runs if points.values(run, layout.panel_keys) == panel]
        if not any(_has(run) for run in runs):
            continue
        lines: list[Line] = []
        labels = []
        for number, line in enumerate(layout.lines):
            front = _front([run for run in runs if points.values(run, layout.line_keys) == line], layout)
            if front:
                name = layout.line_name(table, line)
                lines += point_lines(front, number, name)
                labels += [(at.rate.value, at.distortion.value, f"{at.beta:g}") for at in front]
                broken += [f"{name}, {words}" for words in breaks(front)]
                collapsed += sum(at.collapsed for at in front)
                everything += [mean for at in front for mean in (at.rate, at.distortion)]
        more, limits, far = _bounded(lines, _bounds(scene, runs))
        beyond += far
        title = layout.panel_title(table, panel)
        panels.append(Panel([*lines, *more], title, limits[0], limits[1], labels=labels))
    several = len(panels) > 1
    chart = Chart(
        panels,
        "rate: test KL (nats)",
        "distortion: test reconstruction (nats)",
        columns=3,
        height=2.0 if several else 2.5,
        room=0.4,
        legend=2,
    )
    caption = "Rate against distortion; numbers at the points are beta"
    caption += f", lines are of one {style.listed(layout.line_keys)}" if layout.line_keys else ""
    caption += f", panels of one {style.listed(layout.panel_keys)}" if layout.panel_keys else ""
    caption += ". Along a grey diagonal the sum of both, the negative ELBO, is constant. "
    caption += points.averaged_words(table, layout.over, everything)
    if broken:
        caption += f" Rate should fall and distortion rise with beta; they do not at {'; '.join(broken)}."
    else:
        caption += " With beta the rate falls and the distortion rises throughout (up to 0.1 nats and the intervals)."
    if collapsed:
        caption += f" Crosses: points with collapsed runs ({collapsed} in all), whose decoder ignores its code."
    if any(PIXELS in name for name in [*beyond, *(line.name for panel in panels for line in panel.lines)]):
        caption += " Independent pixels: their cross-entropy, what a decoder without a code needs."
    caption += f" Not drawn for want of room: {layout.left_out} more." if layout.left_out else ""
    caption += f" Beyond the axis: {', '.join(dict.fromkeys(beyond))}." if beyond else ""
    return Sketch("rate_distortion", "Rate and distortion", caption, points.shown_runs(everything), chart)


def _front(runs: Sequence[Run], layout: Layout) -> list[Point]:
    """The points of one line, by beta."""
    front = []
    for beta in points.numeric(runs, BETA):
        here = [run for run in runs if run.value(BETA) == beta]
        rate, distortion = (points.mean_of(here, metric, layout.over) for metric in (RATE, DISTORTION))
        if rate.value is not None and distortion.value is not None:
            front.append(Point(beta, rate, distortion, sum(run.metrics.get(COLLAPSED) == 1 for run in here)))
    return front


def breaks(front: Sequence[Point]) -> list[str]:
    """Steps to a larger beta at which the rate rises or the distortion falls by more than noise explains.

    Noise is the larger of 0.1 nats and the half-widths of both intervals together.
    """
    words = []
    for before, after in itertools.pairwise(sorted(front, key=lambda point: point.beta)):
        for name, sign in (("rate", 1), ("distortion", -1)):
            first, second = getattr(before, name), getattr(after, name)
            halves = [0.0 if mean.low is None else (mean.high - mean.low) / 2 for mean in (first, second)]
            if sign * (second.value - first.value) > max(0.1, sum(halves)):
                words.append(f"beta {before.beta:g} to {after.beta:g} ({name} {first.value:.4g} to {second.value:.4g})")
    return words


def point_lines(front: Sequence[Point], number: int, name: str) -> list[Line]:
    """Means joined in the order of beta, with bars of both intervals, and crosses where runs collapsed."""
    x, y = ([getattr(point, which).value for point in front] for which in ("rate", "distortion"))
    lines = [Line(x, y, look(number, zorder=4), name)]
    bar: dict[str, Any] = {"color": COLORS[number % len(COLORS)], "linewidth": 0.6, "alpha": 0.7}
    for _, rate, distortion, _ in front:
        x_mean, y_mean = rate.value or 0.0, distortion.value or 0.0
        if rate.low is not None and rate.high is not None:
            lines += bars([y_mean], [rate.low], [rate.high], flat=True, **bar)
        if distortion.low is not None and distortion.high is not None:
            lines += bars([x_mean], [distortion.low], [distortion.high], **bar)
    lost = [point for point in front if point.collapsed]
    if lost:
        x, y = ([getattr(point, which).value for point in lost] for which in ("rate", "distortion"))
        cross = {"color": "black", "marker": "x", "linestyle": "", "markersize": 7, "markeredgewidth": 1.2, "zorder": 5}
        lines.append(Line(x, y, cross, "collapsed"))
    return lines


def _bounds(scene: Scene, runs: Sequence[Run]) -> dict[str, tuple[str, float]]:
    """What no model can beat, and what a model without a code reaches: name -> (kind of line, nats)."""
    bounds: dict[str, tuple[str, float]] = {}
    exact = [value for run in runs if (value := run.metrics.get(EXACT)) is not None]
    if exact:
        bounds["exact NLL"] = ("sum", float(np.mean(exact)))
    if {run.value("model.likelihood") for run in runs} == {"bernoulli"}:
        try:
            parts = dataset_of(scene, next(run for run in runs if _has(run))).parts
        except UnavailableError as error:
            scene.tell(f"rate_distortion without the entropy of pixels: {error}")
            return bounds
        if parts["test"].mask is None:
            bounds[PIXELS] = ("level", pixel_entropy(parts["train"].x, parts["test"].x))
    return bounds


def pixel_entropy(train: np.ndarray, test: np.ndarray) -> float:
    """Nats that a decoder without a code needs: - sum over pixels of x log p + (1 - x) log(1 - p), mean over test rows.

    p is the mean of a pixel over the training rows (with one half and half a row added, so that none is 0 or 1).
    """
    train, test = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (train, test))
    p = (train.sum(0) + 0.5) / (len(train) + 1)
    mean = test.mean(0)
    return float(-(mean * np.log(p) + (1 - mean) * np.log1p(-p)).sum())


def _around(numbers: Sequence[float]) -> Limits:
    """Limits with room of 12 % to both sides."""
    low, high = min(numbers), max(numbers)
    room = 0.12 * (high - low) or 0.06 * abs(high) or 0.06
    return low - room, high + room


def _bounded(lines: Sequence[Line], bounds: dict[str, tuple[str, float]]) -> tuple[list[Line], list[Limits], list[str]]:
    """Bounds and light diagonals of equal ELBO as lines, limits of both axes, and in words the bounds far away."""
    from matplotlib.ticker import MaxNLocator

    (left, right), (bottom, top) = (
        _around([value for line in lines for value in getattr(line, axis)]) for axis in ("x", "y")
    )
    more: list[Line] = []
    far = []
    for name, (kind, value) in bounds.items():
        span = top - bottom
        if kind == "level" and bottom - span < value < top + span:
            bottom, top = min(bottom, value - 0.04 * span), max(top, value + 0.04 * span)
            more.append(Line([left, right], [value, value], baseline_look(len(more)), name))
        elif kind == "sum" and left + bottom - span < value < right + top + span:
            more.append(Line([left, right], [value - left, value - right], baseline_look(len(more)), name))
        else:
            far.append(f"{name} ({value:.4g} nats)")
    light = {"color": style.LIGHT, "linewidth": 0.5, "zorder": 0}
    for level in MaxNLocator(6).tick_values(left + bottom, right + top):
        more.append(Line([left, right], [level - left, level - right], light))
    return more, [(left, right), (bottom, top)], far
