"""Scores of settings that are no numbers: models, objectives, cells."""

import math
from collections.abc import Sequence

from research.evaluation.views import COLORS
from research.report.figures import points, style
from research.report.figures.chart import Chart, Line, Panel, bars, baseline_look, mark
from research.report.figures.scene import Plan, Scene, Sketch, plans_for
from research.report.keys import ranking
from research.report.methods import label
from research.report.statistics import interval
from research.report.table import Table
from research.report.texts import listed

METRICS, PANELS, ROWS = 12, 12, 14  # most of them
BASELINE_MARKS = ("x", "+", "1", "2", "3")


def scores(scene: Scene) -> list[Plan]:
    """One figure of all metrics of the table, a panel each, where some setting is no number."""
    table = scene.table
    of_data = set(points.data_keys(table))
    metrics = [name for name in points.main_metrics(table, METRICS) if not set(points.apart(name, table)) - of_data]
    has_names = any(not points.numeric(table.runs, key) for key in points.method_keys(table))
    lacks = "every swept setting is a number, or no metric may be compared between all settings"
    return plans_for(_sketch, [(table, metrics)] if metrics and has_names else [], lacks)


def row_lines(row: int, numbers: Sequence[float], color: str, seeds: bool = True, filled: bool = True) -> list[Line]:
    """The mean of some seeds with its interval as a bar, and below them the seeds as small marks."""
    below = mark(style.GREY, "|", markersize=4, markeredgewidth=0.7, zorder=2)
    lines = [Line(numbers, [row + 0.24] * len(numbers), below)] if seeds else []
    band = interval(numbers)
    lines += bars([row], [band[0]], [band[1]], flat=True, color=color, linewidth=1.1, zorder=3) if band else []
    mean = mark(color, markersize=4, markerfacecolor=color if filled else "white")
    return [*lines, Line([sum(numbers) / len(numbers)], [row], mean)]


def _baseline(method: str, at: dict[int, float], rows: int, number: int) -> Line:
    """A vertical line where a baseline has one value beside all settings, else a mark beside each."""
    x = list(at.values())
    if math.isclose(min(x), max(x), rel_tol=1e-3):
        return Line([x[0], x[0]], [-0.6, rows - 0.4], baseline_look(number) | {"zorder": 1}, label(method))
    marker = BASELINE_MARKS[number % len(BASELINE_MARKS)]
    return Line(x, list(at), mark(style.GREY, marker, zorder=2), label(method))


def _sketch(table: Table, metrics: Sequence[str]) -> Sketch:
    keys, of_data = points.method_keys(table), points.data_keys(table)
    rows = sorted({run.at(keys) for run in table.runs if run.finished}, key=ranking(table.runs, keys))
    sets = sorted({run.at(of_data) for run in table.runs}, key=ranking(table.runs, of_data))
    places = [(metric, data) for metric in metrics for data in sets]
    shown = rows[:ROWS]
    panels, everything, texts = [], [], []
    order: dict[str, int] = {}  # a baseline looks the same in all panels
    means = {metric: points.averages(table, metric, keys, of_data) for metric in metrics}
    for metric, data in places[:PANELS]:
        here = {(row,): means[metric][row, data] for row in shown if (row, data) in means[metric]}
        numbered = {place: mean for place, mean in here.items() if mean.n}
        lines = [
            line
            for (row,), mean in numbered.items()
            for line in row_lines(shown.index(row), list(mean.seeds.values()), COLORS[0], seeds=mean.n > 1)
        ]
        baselines: dict[str, dict[int, float]] = {}
        for (row,), mean in here.items():
            for method, value in points.baseline_of(mean.runs, metric).items():
                baselines.setdefault(method, {})[shown.index(row)] = value
        for method, at in baselines.items():
            lines.append(_baseline(method, at, len(shown), order.setdefault(method, len(order))))
        title = style.metric_label(metric), points.label_of(of_data, data)
        panels.append(Panel(lines, "\n".join(filter(None, title))))
        everything += here.values()
        if numbered:
            name = " on ".join(filter(None, (style.metric_label(metric, arrow=False), title[1])))
            texts.append(f"{style.sentence(name)}: {points.extremes(numbered, metric, keys)}")
    chart = Chart(panels, row_names=[points.label_of(keys, row) for row in shown])
    caption = style.joined(
        f"Scores by {listed(keys)}, a panel for each metric. Small marks: seeds.",
        points.averaged_words(table, everything),
        *texts,
        style.not_drawn(len(rows[ROWS:]) + len(places[PANELS:])),
    )
    title = f"Scores by {listed([style.key_label(key) for key in keys])}"
    return Sketch("scores", title, caption, points.runs_of(everything), chart)
