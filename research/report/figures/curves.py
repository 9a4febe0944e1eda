"""A metric over a swept number."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.evaluation.views import COLORS
from research.metrics import direction
from research.report.cell import Averaging
from research.report.collect import Hole
from research.report.figures import points, style
from research.report.figures.chart import Chart, Limits, Line, Panel, bars, baseline_look, framed, look
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnfitError
from research.report.keys import better, comparison_keys, ranking
from research.report.methods import label
from research.report.table import Table

KEYS = 3  # most keys that metrics are drawn over
LINES, PANELS = 8, 6  # most of them
Values = tuple[Any, ...]


def metric_over_key(scene: Scene) -> list[Plan]:
    """Every main metric over every swept number, where its values may be compared along it."""
    table = scene.table
    keys = [key for key in points.swept(table) if len(points.numeric(table.runs, key)) > 1][:KEYS]
    if not keys:
        raise UnfitError("no number is swept but seed and fold")
    metrics = points.main_metrics(table)
    pairs = [(metric, key) for metric in metrics for key in keys if key not in points.apart(metric, table)]
    if not pairs:
        raise UnfitError("no finished run has a metric that may be compared along a swept number")
    return [functools.partial(_sketch, table, metric, key) for metric, key in pairs]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which keys distinguish panels and lines, and what means are over."""

    key: str
    panel_keys: tuple[str, ...]
    line_keys: tuple[str, ...]
    over: Averaging
    panels: list[Values]
    lines: list[Values]
    left_out: int  # lines and panels that do not fit

    def panel_title(self, table: Table, panel: Values) -> str:
        return points.label_of(table, self.panel_keys, panel) if self.panel_keys else ""

    def line_name(self, table: Table, line: Values) -> str:
        return points.label_of(table, self.line_keys, line) if self.line_keys else "models"


def arrange(table: Table, metric: str, key: str, averages: bool = True) -> Layout:
    """The first other key makes lines and the second makes panels.

    Keys that values cannot be compared across are never averaged over, and those of the data always make panels.

    Args:
      averages: False averages over seeds and folds only, and keys that values cannot be compared across make panels.
    """
    others = [name for name in points.swept(table) if name != key]
    separating = [name for name in others if name in set(comparison_keys(metric, table.runs))]
    panel_keys = [name for name in separating if not averages or name.partition(".")[0] == "data"]
    rest = [name for name in others if name not in panel_keys]
    line_keys = rest[: 1 if averages else None]
    rest = [name for name in rest if name not in line_keys]
    if not panel_keys and rest:  # keys that must not be averaged over come first
        panel_keys = [name for name in rest if name in separating] or rest[:1]
        if len({points.values(run, panel_keys) for run in table.runs}) > PANELS:
            panel_keys = []
    line_keys += [name for name in rest if name in separating and name not in panel_keys]

    def existing(keys: Sequence[str]) -> list[Values]:
        rows = {points.values(run, keys) for run in table.runs if not isinstance(run.value(key), Hole)}
        return sorted(rows, key=ranking(table.runs, keys))

    panels, lines = existing(panel_keys), existing(line_keys)
    left_out = max(0, len(panels) - PANELS) + max(0, len(lines) - LINES)
    over = points.averaging_of(table, (key, *panel_keys, *line_keys))
    return Layout(key, tuple(panel_keys), tuple(line_keys), over, panels[:PANELS], lines[:LINES], left_out)


Point = tuple[Values, Values, float]  # panel, line, value of the key


def gather(table: Table, metric: str, layout: Layout) -> tuple[dict[Point, points.Mean], dict[Point, dict[str, float]]]:
    """Means and baselines at every point."""
    places = points.grouped(table.runs, layout.panel_keys, layout.line_keys, [layout.key])
    runs = {
        (panel, line, x): members
        for (panel, line, (x,)), members in places.items()
        if not isinstance(x, Hole) and panel in layout.panels and line in layout.lines
    }
    means = points.means_of(runs, metric, layout.over)
    return means, {point: points.baseline_of(members, metric) for point, members in runs.items()}


Baseline = tuple[str, Values | None, list[float], list[float]]  # method, line or None for all lines, x, y


def baselines_of(known: Mapping[Point, Mapping[str, float]], panel: Values) -> list[Baseline]:
    """The baselines of a panel; a method has one line for all lines of models where they agree on it."""
    baselines: list[Baseline] = []
    here = {(line, x): methods for (where, line, x), methods in known.items() if where == panel}
    for method in dict.fromkeys(method for methods in here.values() for method in methods):
        at: dict[float, list[float]] = {}
        for (_, x), methods in here.items():
            if method in methods:
                at.setdefault(x, []).append(methods[method])
        if all(math.isclose(number, same[0], rel_tol=1e-3) for same in at.values() for number in same):
            places = sorted(at)
            baselines.append((method, None, places, [sum(at[x]) / len(at[x]) for x in places]))
            continue
        for line in dict.fromkeys(line for line, _ in here):
            places = sorted(x for owner, x in here if owner == line and method in here[owner, x])
            baselines.append((method, line, places, [here[line, x][method] for x in places]))
    return baselines


def limits(means: Sequence[points.Mean]) -> Limits:
    """The range of the means and their intervals; an interval much wider than most (of two seeds) is cut."""
    centers = [mean.value for mean in means if mean.value is not None]
    low, high = min(centers), max(centers)
    halves = sorted((mean.high - mean.low) / 2 for mean in means if mean.low is not None and mean.high is not None)
    reach = max(high - low, halves[len(halves) // 2] * 1.2 if halves else 0.0, abs(high) * 1e-3)
    edges = [edge for mean in means for edge in (mean.low, mean.high) if edge is not None] or [low, high]
    return max(min(*edges, low), low - reach), min(max(*edges, high), high + reach)


def mean_lines(means: Mapping[float, points.Mean], number: int, name: str) -> list[Line]:
    """Means joined by a line, with their intervals as a band, or as bars where some or all but two have none."""
    places = sorted(means)
    known = [x for x in places if means[x].low is not None]
    low, high = ([getattr(means[x], edge) for x in known] for edge in ("low", "high"))
    line = Line(places, [means[x].value or 0.0 for x in places], look(number), name)
    if len(known) > 2 and known == places:
        return [dataclasses.replace(line, band=(low, high))]
    return [line, *bars(known, low, high, color=COLORS[number % len(COLORS)])]


def _baseline_lines(
    baselines: Sequence[Baseline], layout: Layout, reach: Limits
) -> tuple[list[Line], Limits, list[str]]:
    """Dashed lines of baselines, the limits with them, and in words the baselines far from the models: not drawn."""
    (low, high), far = reach, []
    span = high - low
    methods = list(dict.fromkeys(method for method, *_ in baselines))
    lines: list[Line] = []
    for method, owner, x, y in baselines:
        is_far = min(y) > high + 1.5 * span or max(y) < low - 1.5 * span
        if is_far and not (style.wide([low, high]) and min(y) > 0):
            several = "" if math.isclose(min(y), max(y), rel_tol=1e-3) else f" to {max(y):.3g}"
            far.append(f"{label(method)} ({min(y):.3g}{several})")
            continue
        color = style.GREY if owner is None else COLORS[layout.lines.index(owner) % len(COLORS)]
        number = methods.index(method)
        # the legend shows a method in grey: an empty line has its entry
        lines += [Line(x, y, baseline_look(number, color)), Line([], [], baseline_look(number), label(method))]
        reach = min(reach[0], *y), max(reach[1], *y)
    return lines, reach, far


def _sketch(table: Table, metric: str, key: str) -> Sketch:
    layout = arrange(table, metric, key)
    means, methods = gather(table, metric, layout)
    if not any(mean.value is not None for mean in means.values()):
        raise UnfitError(f"no run has {metric}")
    comparing = comparison_keys(metric, table.runs)
    own_scale = bool(set(layout.panel_keys) & set(comparing))
    panels, beyond = [], {}
    for panel in layout.panels:
        here = {point[1:]: mean for point, mean in means.items() if point[0] == panel and mean.n}
        if not here:
            continue
        lines: list[Line] = []
        for number, line in enumerate(layout.lines):
            at = {x: mean for (owner, x), mean in here.items() if owner == line}
            lines += mean_lines(at, number, layout.line_name(table, line)) if at else []
        reach = limits(list(here.values()) if own_scale else [mean for mean in means.values() if mean.n])
        baselines, reach, far = _baseline_lines(baselines_of(methods, panel), layout, reach)
        beyond |= dict.fromkeys(far)
        panels.append(Panel([*lines, *baselines], layout.panel_title(table, panel), y_limits=reach))
    common = min(panel.y_limits[0] for panel in panels), max(panel.y_limits[1] for panel in panels)
    for at, panel in enumerate(panels):
        y_limits, logarithmic = framed(*(panel.y_limits if own_scale else common))
        panels[at] = dataclasses.replace(panel, y_limits=y_limits, logarithmic=logarithmic)
    xs = sorted({x for (_, _, x), mean in means.items() if mean.n})
    chart = Chart(
        panels,
        style.key_label(key),
        style.metric_label(metric),
        columns=len(panels) if len(panels) <= 4 else 3,
        height=1.75 if len(panels) > 1 else 2.0,
        shared="" if own_scale else "y",
        ticks=(None, 5),
        at=xs,
        legend=2,
    )
    caption = f"{style.sentence(style.metric_label(metric, arrow=False))} over {key}"
    caption += f", a line for each {style.listed(layout.line_keys)}" if layout.line_keys else ""
    caption += f", a panel for each {style.listed(layout.panel_keys)}" if layout.panel_keys else ""
    caption += f". {points.averaged_words(table, layout.over, means.values())}"
    comparable = not {*layout.panel_keys, *layout.line_keys} & set(comparing)
    caption += f" {_extremes(table, means, layout, metric if comparable else None)}"
    if separating := [name for name in layout.line_keys if name in comparing]:
        caption += f" Lines of different {style.listed(separating)} cannot be compared."
    if nowhere := [x for x in points.numeric(table.runs, key) if x not in xs]:
        caption += f" No run finished at {style.listed([f'{x:g}' for x in nowhere])}."
    caption += f" Beyond the axis: {', '.join(beyond)}." if beyond else ""
    caption += f" Not drawn for want of room: {layout.left_out} more." if layout.left_out else ""
    title = f"{style.metric_label(metric, arrow=False)} over {style.key_label(key)}"
    return Sketch(f"metric_over_key-{metric}-{key}", title, caption, points.shown_runs(means.values()), chart)


def _extremes(table: Table, means: Mapping[Point, points.Mean], layout: Layout, metric: str | None) -> str:
    """The smallest, the largest and the best mean in words; without a metric there is no best one."""
    known = {point: mean.value for point, mean in means.items() if mean.value is not None}

    def named(point: Point) -> str:
        keys = (*layout.panel_keys, *layout.line_keys, layout.key)
        return f"{known[point]:.4g} at {points.label_of(table, keys, (*point[0], *point[1], point[2]))}"

    low, high = min(known, key=lambda point: known[point]), max(known, key=lambda point: known[point])
    if known[low] == known[high]:
        return f"All means are near {known[low]:.4g}."
    reach = f"eans reach from {named(low)} to {named(high)}."
    if not metric or not direction(metric):
        return f"M{reach}"
    best, *rest = [point for point in known if means[point].cell.complete] or list(known)
    for point in rest:
        best = point if better(known[point], known[best], metric) else best
    return f"The best mean is {named(best)}; m{reach}" if best in (low, high) else f"M{reach}"
