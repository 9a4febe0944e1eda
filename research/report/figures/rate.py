"""Rate against distortion: what beta buys."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.report.again import UnavailableError, dataset_of
from research.report.cell import COLLAPSED
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import Chart, Limits, Line, Panel, bars, baseline_look, look, mark
from research.report.figures.curves import arrange
from research.report.figures.scene import Plan, Scene, Sketch, plans_for

BETA, RATE, DISTORTION = "model.beta", "test/kl_nats", "test/reconstruction_nats"
PIXELS, EXACT = "independent pixels", "reference/nll_nats"


class Point(NamedTuple):
    """Means at one beta."""

    beta: float
    rate: points.Mean
    distortion: points.Mean

    @property
    def at(self) -> tuple[float, float]:
        return self.rate.value or 0.0, self.distortion.value or 0.0

    @property
    def collapsed(self) -> int:
        """The number of runs whose posterior collapsed."""
        return sum(run.metrics.get(COLLAPSED) == 1 for run in self.rate.runs)


def rate_distortion(scene: Scene) -> list[Plan]:
    """One figure, where beta is swept and both terms of the bound are in nats."""
    runs = scene.table.runs
    fits = len(points.numeric(runs, BETA)) > 1 and any(_has(run) for run in runs)
    lacks = f"{BETA} is not swept, or no finished run has both {RATE} and {DISTORTION}"
    return plans_for(_sketch, [(scene,)] if fits else [], lacks)


def _has(run: Run) -> bool:
    return run.finished and None not in (run.metrics.get(RATE), run.metrics.get(DISTORTION))


def _sketch(scene: Scene) -> Sketch:
    table = scene.table
    layout = arrange(table, DISTORTION, BETA, averages=False)
    rates, distortions = (layout.means(table, metric, BETA) for metric in (RATE, DISTORTION))
    fronts: dict[tuple[points.Values, points.Values], list[Point]] = {}
    for (panel, line, (beta,)), rate in sorted(rates.items(), key=lambda item: item[0][2]):
        distortion = distortions[panel, line, (beta,)]
        if rate.n and distortion.n:
            fronts.setdefault((panel, line), []).append(Point(beta, rate, distortion))
    panels: list[Panel] = []
    beyond: dict[str, None] = {}
    has_pixels = False
    for panel in [panel for panel in layout.panels if panel in {at for at, _ in fronts}]:
        lines: list[Line] = []
        labels = []
        for number, line in enumerate(layout.lines):
            front = fronts.get((panel, line), [])
            lines += point_lines(front, number, layout.line_name(line)) if front else []
            labels += [(*point.at, f"{point.beta:g}") for point in front]
        bounds = _bounds(scene, [run for run in table.runs if run.at(layout.panel_keys) == panel])
        has_pixels |= PIXELS in bounds
        more, (x_limits, y_limits), far = bounded(lines, bounds)
        beyond |= dict.fromkeys(far)
        title = points.label_of(layout.panel_keys, panel)
        panels.append(Panel([*lines, *more], title, x_limits, y_limits, labels=labels))
    chart = Chart(panels, "rate: test KL (nats)", "distortion: test reconstruction (nats)")
    drawn = [point for front in fronts.values() for point in front]
    everything = [mean for point in drawn for mean in (point.rate, point.distortion)]
    (left, right), (bottom, top) = (
        (min(values), max(values)) for values in zip(*(point.at for point in drawn), strict=True)
    )
    broken = [
        ", ".join(filter(None, (layout.line_name(line), text)))
        for (_, line), front in fronts.items()
        for text in breaks(front)
    ]
    collapsed = sum(point.collapsed for point in drawn)
    throughout = "With beta the rate falls and the distortion rises throughout (up to 0.1 nats and the intervals)."
    caption = style.joined(
        f"Rate against distortion{style.by_keys(layout.line_keys, layout.panel_keys)}; numbers at the points are beta.",
        "Along a grey diagonal the sum of both, the negative ELBO, is constant.",
        points.averaged_words(table, everything),
        f"Rates reach from {left:.4g} to {right:.4g} nats and distortions from {bottom:.4g} to {top:.4g}.",
        f"Rate should fall and distortion rise with beta; they do not at {'; '.join(broken)}."
        if broken
        else throughout,
        collapsed and f"Crosses: points with collapsed runs ({collapsed} in all), whose decoder ignores its code.",
        has_pixels and "Independent pixels: their cross-entropy, what a decoder without a code needs.",
        style.not_drawn(layout.left_out),
        beyond and f"Beyond the axis: {', '.join(beyond)}.",
    )
    return Sketch("rate_distortion", "Rate and distortion", caption, points.runs_of(everything), chart)


def breaks(front: Sequence[Point]) -> list[str]:
    """Steps to a larger beta at which the rate rises or the distortion falls by more than noise explains.

    Noise is the larger of 0.1 nats and the half-widths of both intervals together.
    """
    texts = []
    for before, after in itertools.pairwise(sorted(front, key=lambda point: point.beta)):
        for name, sign in (("rate", 1), ("distortion", -1)):
            first, second = getattr(before, name), getattr(after, name)
            halves = [(mean.band[1] - mean.band[0]) / 2 for mean in (first, second) if mean.band is not None]
            if sign * (second.value - first.value) > max(0.1, sum(halves)):
                texts.append(f"beta {before.beta:g} to {after.beta:g} ({name} {first.value:.4g} to {second.value:.4g})")
    return texts


def point_lines(front: Sequence[Point], number: int, name: str) -> list[Line]:
    """Means joined in the order of beta, with bars of both intervals, and crosses where runs collapsed."""
    x, y = zip(*(point.at for point in front), strict=True)
    lines = [Line(x, y, look(number, zorder=4), name)]
    bar = {"color": lines[0].look["color"], "linewidth": 0.6, "alpha": 0.7}
    for point in front:
        for mean, at, flat in ((point.rate, point.at[1], True), (point.distortion, point.at[0], False)):
            lines += bars([at], *([edge] for edge in mean.band), flat=flat, **bar) if mean.band else []
    if lost := [point.at for point in front if point.collapsed]:
        cross = mark("black", "x", markersize=7, markeredgewidth=1.2, zorder=5)
        lines.append(Line([x for x, _ in lost], [y for _, y in lost], cross, "collapsed"))
    return lines


def _bounds(scene: Scene, runs: Sequence[Run]) -> dict[str, tuple[str, float]]:
    """What no model can beat, and what a model without a code reaches: name -> (kind of line, nats)."""
    bounds: dict[str, tuple[str, float]] = {}
    exact = [value for run in runs if (value := run.metrics.get(EXACT)) is not None]
    if exact:
        bounds["exact NLL"] = ("sum", float(np.mean(exact)))
    if {run.value("model.likelihood") for run in runs} == {"bernoulli"}:
        try:
            parts, _ = dataset_of(scene.folder, next(run for run in runs if _has(run)), scene.once)
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


def bounded(
    lines: Sequence[Line], bounds: Mapping[str, tuple[str, float]]
) -> tuple[list[Line], list[Limits], list[str]]:
    """Bounds and light diagonals of equal ELBO as lines, limits of both axes, and in words the bounds far away."""
    from matplotlib.ticker import MaxNLocator

    reaches = []
    for values in ([value for line in lines for value in getattr(line, axis)] for axis in ("x", "y")):
        room = 0.12 * (max(values) - min(values)) or 0.06 * abs(max(values)) or 0.06
        reaches.append((min(values) - room, max(values) + room))
    (left, right), (bottom, top) = reaches
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
