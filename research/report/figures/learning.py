"""Losses over epochs."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.evaluation.views import COLORS
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import DASHES, Chart, Limits, Line, Panel
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnfitError
from research.report.keys import SEED, better
from research.report.statistics import interval
from research.report.texts import plural
from research.runs.folder import RunFolder
from research.tree import ConfigError, group

CONFIGURATIONS, PANELS = 8, 4
START = 0.15  # share of the epochs that limits of the axis leave out: first losses may be huge
OF_ONE_KIND = "validation/elbo_nats"  # losses of one data set and likelihood share an axis
Values = tuple[Any, ...]
Histories = Mapping[str, list[dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over the epochs that all runs have, mean over seeds (folds of a seed first).

    Attributes:
      low, high: 95 % t interval; NaN with one seed.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def learning_curves(scene: Scene) -> list[Plan]:
    """One figure, a panel for each data set and likelihood."""
    histories = {run.run_id: history(scene, run) for run in scene.table.runs}
    if not any(len(rows) > 1 for rows in histories.values()):
        raise UnfitError("no run has a metrics.csv with two evaluations or more")
    return [functools.partial(_sketch, scene, histories)]


def history(scene: Scene, run: Run) -> list[dict[str, float]]:
    """The rows of a run's `metrics.csv` that have an epoch; none where there is no file that can be read."""
    if run.status in ("missing", "unreadable"):
        return []
    try:
        return [row for row in RunFolder(scene.folder / run.run_id).read_metrics() if "epoch" in row]
    except (ConfigError, OSError, ValueError):
        return []


def _finite(rows: Sequence[Mapping[str, float]], metric: str) -> dict[float, float]:
    """Epoch -> value."""
    return {row["epoch"]: row[metric] for row in rows if math.isfinite(row.get(metric, math.nan))}


def curve(runs: Sequence[Run], histories: Histories, metric: str) -> Curve | None:
    """The mean of a metric over the runs of one configuration; None where none of them has it."""
    seeds: dict[Any, list[dict[float, float]]] = {}
    for run in runs:
        if known := _finite(histories[run.run_id], metric):
            seeds.setdefault(run.value(SEED), []).append(known)
    epochs = sorted(set.intersection(*(set(fold) for folds in seeds.values() for fold in folds))) if seeds else []
    if not epochs:
        return None
    numbers = np.array([[np.mean([fold[epoch] for fold in folds]) for epoch in epochs] for folds in seeds.values()])
    bands = [interval(list(column)) or (math.nan, math.nan) for column in numbers.T]
    low, high = np.array(bands).reshape(-1, 2).T
    return Curve(np.array(epochs), numbers.mean(0), low, high, len(numbers))


def monitored(runs: Sequence[Run], histories: Histories) -> tuple[str, str | None]:
    """The metric of the validation rows that is drawn, and the same metric of the training rows where runs have it."""
    known = {name for run in runs for row in histories[run.run_id] for name in row}
    monitor = next((str(value) for run in runs if isinstance(value := run.value("trainer.monitor"), str)), "")
    names = [monitor, "validation/loss", *sorted(name for name in known if name.startswith("validation/"))]
    names += sorted(name for name in known if "/" in name)
    metric = next(name for name in names if name in known)
    twin = f"train/{metric.partition('/')[2]}"
    return metric, twin if twin in known and twin != metric else None


def _sketch(scene: Scene, histories: Histories) -> Sketch:
    table, judge = scene.table, scene.judge
    panel_keys = points.apart(OF_ONE_KIND, table)
    keys = [key for key in points.swept(table) if key not in panel_keys]
    runs = [run for run in table.runs if len(histories[run.run_id]) > (run.status != "diverged")]
    of_panels = group(runs, lambda run: points.values(run, panel_keys))
    configurations = [points.values(members[0], keys) for members in group(runs, lambda run: points.values(run, keys))]
    chosen = _chosen(scene, configurations, of_panels, keys)
    metric, twin = monitored(runs, histories)
    panels: list[Panel] = []
    shown: list[str] = []
    counts: set[int] = set()
    crosses, never, cut = 0, 0, False
    for members in of_panels[:PANELS]:
        lines: list[Line] = []
        curves: list[Curve] = []
        for number, configuration in enumerate(chosen):
            of_line = [run for run in members if points.values(run, keys) == configuration]
            shown += [run.run_id for run in of_line]
            color = COLORS[number % len(COLORS)]
            name = points.label_of(table, keys, configuration) if keys else "models"
            for part in (twin, metric):
                mean = curve([run for run in of_line if run.status != "diverged"], histories, part) if part else None
                if mean is None:
                    continue
                curves.append(mean)
                if part == metric:
                    counts.add(mean.seeds)
                    look = {"color": color, "zorder": 3}
                    lines.append(Line(mean.epochs, mean.mean, look, name, (mean.low, mean.high)))
                else:
                    lines.append(Line(mean.epochs, mean.mean, {"color": color, "linestyle": DASHES[2], "zorder": 3}))
            for run in [run for run in of_line if run.status == "diverged"]:
                ending = _diverged(_finite(histories[run.run_id], metric), color)
                crosses, never = crosses + bool(ending), never + (not ending)
                lines += ending
        limits, logarithmic, hidden = _limits(curves)
        cut |= hidden
        title = points.label_of(table, panel_keys, points.values(members[0], panel_keys)) if panel_keys else ""
        panels.append(Panel(lines, title, y_limits=limits, logarithmic=logarithmic))
    if twin:
        parts = ((metric.partition("/")[0], "-"), ("train", DASHES[2]))
        explained = [Line([], [], {"color": style.GREY, "linestyle": dashes}, name) for name, dashes in parts]
        panels[-1] = dataclasses.replace(panels[-1], lines=[*panels[-1].lines, *explained])
    several = len(panels) > 1
    chart = Chart(
        panels,
        "epoch",
        style.metric_label(metric if not twin else metric.partition("/")[2]),
        columns=2,
        height=1.9 if several or len(chosen) > 4 else 2.3,
        width=style.PAGE if several or len(chosen) > 4 else None,  # the legend needs room
        ticks=(5, 5),
        whole=True,
        legend=2,
    )
    caption = f"{style.sentence(style.metric_label(metric, arrow=False))} over epochs"
    caption += f", and {style.metric_label(twin, arrow=False)} dotted." if twin else "."
    if counts and max(counts) > 1:
        caption += f" Means over {points.counted(counts)} seeds, up to the last epoch that all of them have."
        caption += " Bands are 95 % t intervals."
    if len(configurations) > len(chosen):
        caption += f" The best {len(chosen)} of {len(configurations)} configurations by {judge}."
    caption += f" {plural(crosses, 'run')} diverged: thin lines that end with a cross." if crosses else ""
    caption += f" {plural(never, 'run')} diverged before the first evaluation." if never else ""
    caption += " The first epochs lie above the axis." if cut else ""
    return Sketch("learning_curves", "Learning curves", caption, tuple(dict.fromkeys(shown)), chart)


def _chosen(
    scene: Scene, lines: Sequence[Values], panels: Sequence[Sequence[Run]], keys: Sequence[str]
) -> list[Values]:
    """At most eight configurations, those of the best mean rank over the data sets, in the order of the table."""
    if len(lines) <= CONFIGURATIONS:
        return list(lines)
    over = points.averaging_of(scene.table, (*points.apart(OF_ONE_KIND, scene.table), *keys))
    ranks: dict[Values, list[float]] = {line: [] for line in lines}
    sign = -1 if better(1.0, 0.0, scene.judge) else 1
    for members in panels:
        scores = {}
        for line in lines:
            runs = [run for run in members if points.values(run, keys) == line]
            value = points.mean_of(runs, scene.judge, over).value
            scores[line] = math.inf if value is None else sign * value
        for rank, line in enumerate(sorted(lines, key=lambda line: scores[line])):
            ranks[line].append(rank)
    best = sorted(lines, key=lambda line: np.mean(ranks[line]))[:CONFIGURATIONS]
    return [line for line in lines if line in best]


def _diverged(points: Mapping[float, float], color: str) -> list[Line]:
    """The curve of a diverged run up to its last finite value, and a cross there; nothing where no value is finite."""
    if not points:
        return []
    x, y = list(points), list(points.values())
    cross = {"marker": "x", "linestyle": "", "markersize": 5, "markeredgewidth": 1.2, "zorder": 4}
    return [
        Line(x, y, {"color": color, "linewidth": 0.6, "zorder": 2}),
        Line(x[-1:], y[-1:], {"color": color, **cross}),
        Line([], [], {"color": style.GREY, **cross}, "diverged"),  # for the legend
    ]


def _limits(curves: Sequence[Curve]) -> tuple[Limits | None, bool, bool]:
    """Limits of the vertical axis for all but the first epochs.

    Returns:
      The limits, whether the axis is logarithmic, and whether values lie above it.
    """
    if not curves:
        return None, False, False
    last = max(curve.epochs[-1] for curve in curves)
    later = np.concatenate([curve.mean[curve.epochs > START * last] for curve in curves])
    everything = np.concatenate([curve.mean for curve in curves])
    if style.wide([*everything, *(low for curve in curves for low in curve.low)]):
        return None, True, False
    if not len(later):
        return None, False, False
    low, high = float(later.min()), float(later.max())
    span = high - low or abs(high) or 1.0
    top = high + 0.3 * span
    hidden = float(everything.max()) > top
    return (low - 0.08 * span, top if hidden else float(everything.max()) + 0.08 * span), False, hidden
