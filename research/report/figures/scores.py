"""Scores of settings that are no numbers: models, objectives, cells."""

import functools
import math
from collections.abc import Sequence

from research.evaluation.views import COLORS
from research.report.figures import points, style
from research.report.figures.chart import Chart, Line, Panel, bars, baseline_look
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnfitError
from research.report.keys import ranking
from research.report.methods import label

METRICS, PANELS, ROWS, COLUMNS = 12, 12, 14, 4  # most of them
BASELINE_MARKS = ("x", "+", "1", "2", "3")


def scores(scene: Scene) -> list[Plan]:
    """One figure of all metrics of the table, a panel each, where some setting is no number."""
    table = scene.table
    of_data = points.data_keys(table)
    if all(points.numeric(table.runs, key) for key in points.method_keys(table)):
        raise UnfitError("every swept setting is a number")
    known = points.main_metrics(table, METRICS)
    metrics = [name for name in known if not set(points.apart(name, table)) - set(of_data)]
    if not metrics:
        raise UnfitError("no metric may be compared between all settings")
    return [functools.partial(_sketch, scene, metrics)]


def seed_marks(numbers: Sequence[float], row: float) -> Line:
    """Small marks of seeds below the mean of a row."""
    look = {"color": style.GREY, "marker": "|", "markersize": 4, "markeredgewidth": 0.7, "linestyle": ""}
    return Line(numbers, [row + 0.24] * len(numbers), look)


def _row(row: int, mean: points.Mean) -> list[Line]:
    """The mean of a setting with its interval, and its seeds below."""
    if mean.value is None:
        return []
    lines = [seed_marks(list(mean.seeds.values()), row)] if mean.n > 1 else []
    if mean.low is not None and mean.high is not None:
        lines += bars([row], [mean.low], [mean.high], flat=True, color=COLORS[0], linewidth=1.0, zorder=3)
    return [*lines, Line([mean.value], [row], {"color": COLORS[0], "marker": "o", "linestyle": "", "zorder": 4})]


def _baseline(method: str, numbers: Sequence[float | None], number: int) -> Line:
    """A vertical line where a baseline has one value beside all settings, else a mark beside each."""
    known = [(value, row) for row, value in enumerate(numbers) if value is not None]
    x = [value for value, _ in known]
    if math.isclose(min(x), max(x), rel_tol=1e-3):
        look = baseline_look(number) | {"zorder": 1}
        return Line([x[0], x[0]], [-0.6, len(numbers) - 0.4], look, label(method))
    look = {"color": style.GREY, "marker": BASELINE_MARKS[number % len(BASELINE_MARKS)], "linestyle": "", "zorder": 2}
    return Line(x, [row for _, row in known], look, label(method))


def _sketch(scene: Scene, metrics: Sequence[str]) -> Sketch:
    table = scene.table
    keys, of_data = points.method_keys(table), points.data_keys(table)
    over = points.averaging_of(table, (*keys, *of_data))
    finished = {points.values(run, keys) for run in table.runs if run.finished}
    rows = sorted(finished, key=ranking(table.runs, keys))
    sets = sorted({points.values(run, of_data) for run in table.runs}, key=ranking(table.runs, of_data))
    cells = points.grouped(table.runs, keys, of_data)
    shown = [(metric, data) for metric in metrics for data in sets]
    left_out = max(0, len(rows) - ROWS) + max(0, len(shown) - PANELS)
    rows, shown = rows[:ROWS], shown[:PANELS]
    panels, everything = [], []
    order: dict[str, int] = {}  # a method looks the same in all panels
    for metric, data in shown:
        here = [cells.get((row, data), []) for row in rows]
        means = [points.mean_of(runs, metric, over) for runs in here]
        lines = [line for row, mean in enumerate(means) for line in _row(row, mean)]
        baselines = [points.baseline_of(runs, metric) for runs in here]
        for method in dict.fromkeys(name for methods in baselines for name in methods):
            number = order.setdefault(label(method), len(order))
            lines.append(_baseline(method, [methods.get(method) for methods in baselines], number))
        title = [style.metric_label(metric), *([points.label_of(table, of_data, data)] if of_data else [])]
        panels.append(Panel(lines, "\n".join(title)))
        everything += means
    chart = Chart(
        panels,
        columns=COLUMNS,
        height=0.55 + 0.17 * len(rows),
        room=0.35,
        shared="y",
        ticks=(3, None),
        rows=[points.label_of(table, keys, row) for row in rows],
    )
    caption = f"Scores by {style.listed(keys)}, a panel for each metric. Small marks: seeds. "
    caption += points.averaged_words(table, over, everything)
    caption += f" Not drawn for want of room: {left_out} more." if left_out else ""
    title = f"Scores by {style.listed([style.key_label(key) for key in keys])}"
    return Sketch("scores", title, caption, points.shown_runs(everything), chart)
