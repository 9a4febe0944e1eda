"""A metric over a swept number."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from research.evaluation.views import COLORS
from research.report.collect import Hole
from research.report.figures import points, style
from research.report.figures.chart import Chart, Limits, Line, Panel, bars, baseline_look, framed, look
from research.report.figures.points import Mean, Setting, Values
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError, plans_for
from research.report.keys import comparison_keys, ranking
from research.report.methods import label
from research.report.table import Table
from research.report.texts import listed

KEYS = 3  # most keys that metrics are drawn over
LINES, PANELS = 8, 6  # most of them


def metric_over_key(scene: Scene) -> list[Plan]:
    """Every main metric over every swept number, where its values may be compared along it."""
    table = scene.table
    keys = [key for key in points.swept(table) if len(points.numeric(table.runs, key)) > 1][:KEYS]
    metrics = points.main_metrics(table)
    cases = [(table, metric, key) for metric in metrics for key in keys if key not in points.apart(metric, table)]
    lacks = "no number is swept but seed and fold"
    return plans_for(_sketch, cases, "no metric may be compared along a swept number" if keys else lacks)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The keys that distinguish panels and lines, their values that are drawn, and the number of those that are not."""

    panel_keys: list[str]
    line_keys: list[str]
    panels: list[Values]
    lines: list[Values]
    left_out: int

    def means(self, table: Table, metric: str, key: str) -> dict[Setting, Mean]:
        """The means at all points (panel, line, value of the key) that are drawn."""
        means = points.averages(table, metric, self.panel_keys, self.line_keys, [key])
        return {
            (panel, line, x): mean
            for (panel, line, x), mean in means.items()
            if panel in self.panels and line in self.lines and not isinstance(x[0], Hole)
        }

    def line_name(self, line: Values) -> str:
        return points.label_of(self.line_keys, line)


def arrange(table: Table, metric: str, key: str, averages: bool = True) -> Layout:
    """The first other key makes lines and the second makes panels.

    Keys that values cannot be compared across are never averaged over, and those of the data always make panels.

    Args:
      averages: False averages over seeds and folds only, and keys that values cannot be compared across make panels.
    """
    others = [name for name in points.swept(table) if name != key]
    separating = [name for name in others if name in comparison_keys(metric, table.runs)]
    panel_keys = [name for name in separating if not averages or name.partition(".")[0] == "data"]
    rest = [name for name in others if name not in panel_keys]
    line_keys = rest[: 1 if averages else None]
    rest = [name for name in rest if name not in line_keys]
    if not panel_keys and rest:  # keys that must not be averaged over come first
        panel_keys = [name for name in rest if name in separating] or rest[:1]
        if len({run.at(panel_keys) for run in table.runs}) > PANELS:
            panel_keys = []
    line_keys += [name for name in rest if name in separating and name not in panel_keys]

    def existing(keys: Sequence[str]) -> list[Values]:
        rows = {run.at(keys) for run in table.runs if not isinstance(run.value(key), Hole)}
        return sorted(rows, key=ranking(table.runs, keys))

    panels, lines = existing(panel_keys), existing(line_keys)
    left_out = len(panels[PANELS:]) + len(lines[LINES:])
    return Layout(panel_keys, line_keys, panels[:PANELS], lines[:LINES], left_out)


def limits(means: Sequence[Mean]) -> Limits:
    """The range of the means and their intervals; an interval much wider than most (of two seeds) is cut."""
    centers = [mean.value for mean in means if mean.value is not None]
    low, high = min(centers), max(centers)
    bands = [mean.band for mean in means if mean.band is not None]
    halves = sorted((top - bottom) / 2 for bottom, top in bands)
    reach = max(high - low, halves[len(halves) // 2] * 1.2 if halves else 0.0, abs(high) * 1e-3)
    bottoms, tops = [low, *(bottom for bottom, _ in bands)], [high, *(top for _, top in bands)]
    return max(min(bottoms), low - reach), min(max(tops), high + reach)


def mean_lines(means: Mapping[float, Mean], number: int, name: str) -> list[Line]:
    """Means joined by a line, with their intervals as a band, or as bars where some or all but two have none."""
    known = {x: mean.band for x, mean in sorted(means.items()) if mean.band is not None}
    edges = [edge[0] for edge in known.values()], [edge[1] for edge in known.values()]
    line = Line(sorted(means), [means[x].value or 0.0 for x in sorted(means)], look(number), name)
    if len(known) > 2 and len(known) == len(means):
        return [dataclasses.replace(line, band=edges)]
    return [line, *bars(list(known), *edges, color=COLORS[number % len(COLORS)])]


Baselines = Mapping[tuple[int, float], Mapping[str, float]]  # number of a line and x -> method -> value


def baseline_lines(
    baselines: Baselines, methods: Sequence[str], reach: Limits
) -> tuple[list[Line], Limits, dict[str, None]]:
    """Dashed lines of the baselines of a panel, limits with them, and those far from the models in words: not drawn.

    A method has one grey line where all lines of models agree on it, and else one in the color of each.
    """
    (low, high), far, lines = reach, {}, []
    span = high - low
    for method in methods:
        by_line: dict[int | None, dict[float, float]] = {}
        shared: dict[float, list[float]] = {}
        for (number, x), values in sorted(baselines.items()):
            if method in values:
                by_line.setdefault(number, {})[x] = values[method]
                shared.setdefault(x, []).append(values[method])
        if all(math.isclose(value, same[0], rel_tol=1e-3) for same in shared.values() for value in same):
            by_line = {None: {x: sum(same) / len(same) for x, same in sorted(shared.items())}} if shared else {}
        for number, values in by_line.items():
            x, y = list(values), list(values.values())
            is_far = min(y) > high + 1.5 * span or max(y) < low - 1.5 * span
            if is_far and not (style.wide([low, high]) and min(y) > 0):
                several = "" if math.isclose(min(y), max(y), rel_tol=1e-3) else f" to {max(y):.3g}"
                far[f"{label(method)} ({min(y):.3g}{several})"] = None
                continue
            order = methods.index(method)
            color = style.GREY if number is None else COLORS[number % len(COLORS)]
            lines.append(Line(x, y, baseline_look(order, color)))
            lines.append(Line([], [], baseline_look(order), label(method)))  # grey, for the legend
            reach = min(reach[0], *y), max(reach[1], *y)
    return lines, reach, far


def _sketch(table: Table, metric: str, key: str) -> Sketch:
    layout = arrange(table, metric, key)
    everything = layout.means(table, metric, key)
    means = {setting: mean for setting, mean in everything.items() if mean.n}
    if not means:
        raise UnfitError(f"no run has {metric}")
    baselines = {setting: points.baseline_of(mean.runs, metric) for setting, mean in means.items()}
    methods = list(dict.fromkeys(method for known in baselines.values() for method in known))
    comparing = comparison_keys(metric, table.runs)
    own_scale = bool(set(layout.panel_keys) & set(comparing))
    panels: list[Panel] = []
    reaches: list[Limits] = []
    beyond: dict[str, None] = {}
    for panel in layout.panels:
        here = {(layout.lines.index(line), x): mean for (at, line, (x,)), mean in means.items() if at == panel}
        if not here:
            continue
        lines: list[Line] = []
        for number, line in enumerate(layout.lines):
            of_line = {x: mean for (at, x), mean in here.items() if at == number}
            lines += mean_lines(of_line, number, layout.line_name(line)) if of_line else []
        beside = {(layout.lines.index(line), x): known for (at, line, (x,)), known in baselines.items() if at == panel}
        reach = limits(list(here.values() if own_scale else means.values()))
        more, reach, far = baseline_lines(beside, methods, reach)
        beyond |= far
        panels.append(Panel([*lines, *more], points.label_of(layout.panel_keys, panel)))
        reaches.append(reach)
    if not own_scale:
        reaches = [(min(low for low, _ in reaches), max(high for _, high in reaches))] * len(panels)
    for at, (low, high) in enumerate(reaches):
        y_limits, logarithmic = framed(low, high)
        panels[at] = dataclasses.replace(panels[at], y_limits=y_limits, logarithmic=logarithmic)
    xs = sorted({x for *_, (x,) in means})
    chart = Chart(panels, style.key_label(key), style.metric_label(metric), at=xs)
    name = style.metric_label(metric, arrow=False)
    keys = layout.panel_keys, layout.line_keys, [key]
    separating = [name for name in layout.line_keys if name in comparing]
    nowhere = [f"{x:g}" for x in points.numeric(table.runs, key) if x not in xs]
    caption = style.joined(
        f"{style.sentence(name)} over {key}{style.by_keys(layout.line_keys, layout.panel_keys)}.",
        points.averaged_words(table, everything.values()),
        points.extremes(means, metric, *keys, comparable=not (own_scale or separating or layout.left_out)),
        separating and f"Lines of different {listed(separating)} cannot be compared.",
        nowhere and f"No run finished at {listed(nowhere)}.",
        beyond and f"Beyond the axis: {', '.join(beyond)}.",
        style.not_drawn(layout.left_out),
    )
    title = f"{name} over {style.key_label(key)}"
    return Sketch(f"metric_over_key-{metric}-{key}", title, caption, points.runs_of(everything.values()), chart)
