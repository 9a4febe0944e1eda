"""Rate against distortion: what beta buys."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.report.cell import COLLAPSED
from research.report.collect import Run
from research.report.figures import style
from research.report.figures.curves import Layout, Values, arrange
from research.report.figures.points import averaged_words, label_of, mean_of, numeric, shown_runs, values
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.table import Table

BETA, RATE, DISTORTION = "model.beta", "test/kl_nats", "test/reconstruction_nats"
PIXELS = "independent pixels"
EXACT = "reference/nll_nats"


def rate_distortion(scene: Scene) -> list[Plan]:
    """One figure, where beta is swept and both terms of the bound are in nats."""
    table = scene.table
    if len(numeric(table.runs, BETA)) < 2:
        raise UnfitError(f"{BETA} is not swept")
    if not any(_has(run) for run in table.runs):
        raise UnfitError(f"no finished run has both {RATE} and {DISTORTION}")
    return [functools.partial(_sketch, scene)]


def _has(run: Run) -> bool:
    return run.finished and None not in (run.metrics.get(RATE), run.metrics.get(DISTORTION))


def _sketch(scene: Scene) -> Sketch:
    table = scene.table
    layout = arrange(table, DISTORTION, BETA, averages=False)
    panels = [panel for panel in layout.panels if any(_has(run) for run in _of(table, layout, panel))]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    wide = len(panels) > 1
    drawn = style.figure(style.PAGE if wide else style.COLUMN, (2.0 if wide else 2.5) * rows + 0.4)
    grid = drawn.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    everything, sentences, beyond, broken, collapsed = [], [], [], [], 0
    labels: list[tuple[Any, float, float, str]] = []
    for at, panel in enumerate(panels):
        axes = grid[at // columns][at % columns]
        for number, line in enumerate(layout.lines):
            own = [run for run in _of(table, layout, panel) if values(run, layout.line_keys) == line]
            points = []
            for beta in numeric(table.runs, BETA):
                here = [run for run in own if run.value(BETA) == beta]
                rate, distortion = (mean_of(here, metric, layout.over) for metric in (RATE, DISTORTION))
                if rate.value is not None and distortion.value is not None:
                    points.append((beta, rate, distortion, sum(run.metrics.get(COLLAPSED) == 1 for run in here)))
                    everything += [rate, distortion]
            if not points:
                continue
            name = label_of(table, layout.line_keys, line) if layout.line_keys else "models"
            handles.setdefault(name, _line(axes, points, number))
            labels += [(axes, rate.value, distortion.value, f"{beta:g}") for beta, rate, distortion, _ in points]
            broken += [f"{name}, {words}" for words in breaks(points)]
            lost = [(rate.value, distortion.value) for _, rate, distortion, count in points if count]
            collapsed += sum(count for *_, count in points)
            if lost:
                x, y = np.array(lost).T
                (mark,) = axes.plot(x, y, "x", color="black", markersize=7, markeredgewidth=1.2, zorder=5)
                handles["collapsed"] = mark
            sentences.append(
                f"{name}: "
                + ", ".join(
                    f"beta {beta:g}: rate {rate.value:.4g}, distortion {distortion.value:.4g}"
                    for beta, rate, distortion, _ in points
                )
            )
        bounds = _bounds(scene, _of(table, layout, panel))
        beyond += _finish(axes, bounds, handles)
        if layout.panel_keys:
            axes.set_title(label_of(table, layout.panel_keys, panel))
        if at + columns >= len(panels):
            axes.set_xlabel("rate: test KL (nats)")
        if at % columns == 0:
            axes.set_ylabel("distortion: test reconstruction (nats)")
    for at in range(len(panels), rows * columns):
        grid[at // columns][at % columns].set_axis_off()
    shown = handles if len(handles) > 1 else {}
    style.legend_above(drawn, list(shown.values()), list(shown))
    style.label_points(drawn, labels)
    text = "Rate against distortion; numbers at the points are beta"
    if layout.line_keys:
        text += f", lines are of one {style.listed(layout.line_keys)}"
    if layout.panel_keys:
        text += f", panels of one {style.listed(layout.panel_keys)}"
    caption = f"{text}. Along a grey diagonal the sum of both, the negative ELBO, is constant."
    caption += " " + averaged_words(table, layout.over, everything)
    if broken:
        caption += f" Rate should fall and distortion rise with beta; they do not at {'; '.join(broken)}."
    else:
        caption += " With beta the rate falls and the distortion rises throughout (up to 0.1 nats and the intervals)."
    if collapsed:
        caption += f" Crosses: points with collapsed runs ({collapsed} in all), whose decoder ignores its code."
    if PIXELS in handles or any(PIXELS in text for text in beyond):
        caption += " Independent pixels: their cross-entropy, what a decoder without a code needs."
    if layout.left_out:
        caption += f" Not drawn for want of room: {layout.left_out} more."
    if beyond:
        caption += f" Beyond the axis: {', '.join(dict.fromkeys(beyond))}."
    return Sketch(
        name="rate_distortion",
        title="Rate and distortion",
        caption=caption,
        alternative=f"Chart of rate against distortion. {'; '.join(sentences)}.",
        runs=shown_runs(everything),
        figure=drawn,
    )


def breaks(points: Sequence[tuple[Any, ...]]) -> list[str]:
    """Steps to a larger beta at which the rate rises, or the distortion falls, by more than noise explains.

    Noise is the larger of 0.1 nats and the half-widths of both intervals together.
    """
    found = []
    for (low, *before, _), (high, *after, _) in itertools.pairwise(sorted(points, key=lambda point: point[0])):
        for word, sign, one, other in zip(("rate", "distortion"), (1, -1), before, after, strict=True):
            halves = [0.0 if cell.low is None else (cell.high - cell.low) / 2 for cell in (one, other)]
            if sign * (other.value - one.value) > max(0.1, sum(halves)):
                found.append(f"beta {low:g} to {high:g} ({word} {one.value:.4g} to {other.value:.4g})")
    return found


def _of(table: Table, layout: Layout, panel: Values) -> list[Run]:
    return [run for run in table.runs if values(run, layout.panel_keys) == panel]


def _line(axes: Any, points: Sequence[tuple[Any, ...]], number: int) -> Any:
    """Means joined in the order of beta, with bars of both intervals."""
    color, marker = style.COLORS[number % len(style.COLORS)], style.MARKERS[number % len(style.MARKERS)]
    x, y = ([point[which].value for point in points] for which in (1, 2))
    (handle,) = axes.plot(x, y, color=color, marker=marker, zorder=4)
    for _, rate, distortion, _ in points:
        if rate.low is not None:
            axes.plot([rate.low, rate.high], [distortion.value] * 2, color=color, linewidth=0.6, alpha=0.7, zorder=3)
        if distortion.low is not None:
            axes.plot([rate.value] * 2, [distortion.low, distortion.high], color=color, linewidth=0.6, alpha=0.7)
    return handle


def _bounds(scene: Scene, runs: Sequence[Run]) -> dict[str, tuple[str, float]]:
    """What no model can beat, or a model without a code reaches: words -> (kind of line, nats)."""
    found: dict[str, tuple[str, float]] = {}
    exact = [value for run in runs if (value := run.metrics.get(EXACT)) is not None]
    if exact:
        found["exact NLL"] = ("sum", float(np.mean(exact)))
    likelihoods = {run.value("model.likelihood") for run in runs}
    if likelihoods == {"bernoulli"}:
        from research.report.figures.best import dataset_of
        from research.report.figures.scene import UnavailableError

        try:
            parts = dataset_of(scene, next(run for run in runs if _has(run))).parts
        except UnavailableError as error:
            scene.tell(f"rate_distortion without the entropy of pixels: {error}")
            return found
        if parts["test"].mask is None:
            found[PIXELS] = ("level", pixel_entropy(parts["train"].x, parts["test"].x))
    return found


def pixel_entropy(train: np.ndarray, test: np.ndarray) -> float:
    """Nats that a decoder without a code needs: - sum over pixels of x log p + (1 - x) log(1 - p), mean over test rows.

    p is the mean of a pixel over the training rows (with one half and half a row added, so that none is 0 or 1).
    """
    rows, other = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (train, test))
    p = (rows.sum(0) + 0.5) / (len(rows) + 1)
    mean = other.mean(0)
    return float(-(mean * np.log(p) + (1 - mean) * np.log1p(-p)).sum())


def _finish(axes: Any, bounds: dict[str, tuple[str, float]], handles: dict[str, Any]) -> list[str]:
    """Limits, light diagonals of one ELBO, and the bounds; those that lie too far away in words."""
    from matplotlib.ticker import MaxNLocator

    axes.margins(0.12)
    axes.autoscale_view()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    dashes = iter(style.BASELINE_DASHES)
    beyond = []
    for name, (kind, value) in bounds.items():
        span = top - bottom
        if kind == "level" and bottom - span < value < top + span:
            bottom, top = min(bottom, value - 0.04 * span), max(top, value + 0.04 * span)
            handles[name] = axes.axhline(value, color=style.GREY, linestyle=next(dashes), linewidth=0.9, zorder=2)
        elif kind == "sum" and left + bottom - span < value < right + top + span:
            x = np.array([left, right])
            (handles[name],) = axes.plot(x, value - x, color=style.GREY, linestyle=next(dashes), linewidth=0.9)
        else:
            beyond.append(f"{name} ({value:.4g} nats)")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    for level in MaxNLocator(6).tick_values(left + bottom, right + top):
        x = np.array([left, right])
        axes.plot(x, level - x, color=style.LIGHT, linewidth=0.5, zorder=0, scalex=False, scaley=False)
    return beyond
