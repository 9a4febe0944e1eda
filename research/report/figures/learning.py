"""Losses over epochs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from research.evaluation.views import COLORS
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import DASHES, Chart, Limits, Line, Panel, mark
from research.report.figures.points import Keys, Values
from research.report.figures.scene import Plan, Scene, Sketch, plans_for
from research.report.keys import SEED, better, comparison_keys
from research.report.statistics import interval
from research.report.texts import plural
from research.runs.folder import RunFolder
from research.tree import ConfigError, group

CONFIGURATIONS, PANELS = 8, 4
START = 0.15  # share of the epochs that limits of the axis leave out: first losses may be huge
OF_ONE_KIND = "validation/elbo_nats"  # losses of one data set and likelihood share an axis
Histories = Mapping[str, list[dict[str, float]]]


def learning_curves(scene: Scene) -> list[Plan]:
    """One figure, a panel for each data set and likelihood."""
    histories = {run.run_id: history(scene, run) for run in scene.table.runs}
    cases = [(scene, histories)] if any(len(rows) > 1 for rows in histories.values()) else []
    return plans_for(_sketch, cases, "no run has a metrics.csv with two evaluations or more")


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


def curve(
    runs: Sequence[Run], histories: Histories, metric: str, look: Mapping[str, object]
) -> tuple[Line, int] | None:
    """The mean of a metric over the epochs that all runs have, and the number of seeds; None where no run has it.

    The mean is over seeds (folds of a seed first), with a 95 % t interval as a band.
    """
    seeds: dict[object, list[dict[float, float]]] = {}
    for run in runs:
        if known := _finite(histories[run.run_id], metric):
            seeds.setdefault(run.value(SEED), []).append(known)
    epochs = sorted(set.intersection(*(set(fold) for folds in seeds.values() for fold in folds))) if seeds else []
    if not epochs:
        return None
    numbers = np.array([[np.mean([fold[epoch] for fold in folds]) for epoch in epochs] for folds in seeds.values()])
    low, high = np.array([interval(column.tolist()) or (math.nan, math.nan) for column in numbers.T]).T
    return Line(epochs, numbers.mean(0), look, band=(low, high)), len(numbers)


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
    panel_keys = points.apart(OF_ONE_KIND, scene.table)
    keys = [key for key in points.swept(scene.table) if key not in panel_keys]
    runs = [run for run in scene.table.runs if len(histories[run.run_id]) > (run.status != "diverged")]
    of_panels = group(runs, lambda run: run.at(panel_keys))
    configurations = list(dict.fromkeys(run.at(keys) for run in runs))
    chosen = _chosen(scene, configurations, of_panels, keys)
    metric, twin = monitored(runs, histories)
    panels: list[Panel] = []
    shown: list[str] = []
    ends: list[tuple[float, str]] = []  # last values of means, and in words
    counts: set[int] = set()
    crosses, never, cut = 0, 0, False
    for members in of_panels[:PANELS]:
        lines: list[Line] = []
        means: list[Line] = []
        title = points.label_of(panel_keys, members[0].at(panel_keys))
        for number, configuration in enumerate(chosen):
            of_line = [run for run in members if run.at(keys) == configuration]
            healthy = [run for run in of_line if run.status != "diverged"]
            shown += [run.run_id for run in of_line]
            look = {"color": COLORS[number % len(COLORS)], "zorder": 3}
            name = points.label_of(keys, configuration)
            if twin and (trained := curve(healthy, histories, twin, look | {"linestyle": DASHES[2]})):
                means.append(trained[0])
                lines.append(dataclasses.replace(trained[0], band=None))
            if validated := curve(healthy, histories, metric, look):
                means.append(validated[0])
                counts.add(validated[1])
                lines.append(dataclasses.replace(validated[0], name=name))
                end, where = float(validated[0].y[-1]), ", ".join(filter(None, (name, title)))
                ends.append((end, f"{end:.4g} ({where})" if where else f"{end:.4g}"))
            for run in [run for run in of_line if run.status == "diverged"]:
                ending = _diverged(_finite(histories[run.run_id], metric), look["color"])
                crosses, never = crosses + bool(ending), never + (not ending)
                lines += ending
        y_limits, logarithmic, hidden = limits(means)
        cut |= hidden
        panels.append(Panel(lines, title, y_limits=y_limits, logarithmic=logarithmic))
    if twin:
        parts = ((metric.partition("/")[0], "-"), ("train", DASHES[2]))
        explained = [Line([], [], {"color": style.GREY, "linestyle": dashes}, name) for name, dashes in parts]
        panels[-1] = dataclasses.replace(panels[-1], lines=[*panels[-1].lines, *explained])
    has_direction = "run_id" not in comparison_keys(metric, runs)  # no loss of a GAN is better than another
    chart = Chart(panels, "epoch", style.metric_label(metric.partition("/")[2] if twin else metric, has_direction))
    dotted = f", and {style.metric_label(twin, arrow=False)} dotted" if twin else ""
    caption = style.joined(
        f"{style.sentence(style.metric_label(metric, arrow=False))} over epochs{dotted}.",
        max(counts, default=1) > 1
        and f"Means over {points.counted(counts)} seeds, up to the last epoch that all of them have. "
        "Bands are 95 % t intervals.",
        len(ends) > 1 and f"They end between {min(ends)[1]} and {max(ends)[1]}.",
        len(ends) == 1 and f"It ends at {ends[0][1]}.",
        len(configurations) > len(chosen)
        and f"The best {len(chosen)} of {len(configurations)} configurations by {scene.judge}.",
        crosses and f"{plural(crosses, 'run')} diverged: thin lines that end with a cross.",
        never and f"{plural(never, 'run')} diverged before the first evaluation.",
        cut and "The first epochs lie above the axis.",
        style.not_drawn(len(of_panels[PANELS:])),
    )
    return Sketch("learning_curves", "Learning curves", caption, tuple(dict.fromkeys(shown)), chart)


def _chosen(scene: Scene, lines: Sequence[Values], panels: Sequence[Sequence[Run]], keys: Keys) -> list[Values]:
    """At most eight configurations, those of the best mean rank over the data sets, in the order of the table."""
    if len(lines) <= CONFIGURATIONS:
        return list(lines)
    ranks: dict[Values, list[float]] = {line: [] for line in lines}
    sign = -1 if better(1.0, 0.0, scene.judge) else 1
    for members in panels:
        means = points.averages(scene.table, scene.judge, keys, runs=members)
        scores = {line: sign * mean.value for (line,), mean in means.items() if mean.value is not None}
        for rank, line in enumerate(sorted(lines, key=lambda line: scores.get(line, math.inf))):
            ranks[line].append(rank)
    best = sorted(lines, key=lambda line: np.mean(ranks[line]))[:CONFIGURATIONS]
    return [line for line in lines if line in best]


def _diverged(values: Mapping[float, float], color: str) -> list[Line]:
    """The curve of a diverged run up to its last finite value, and a cross there; nothing where no value is finite."""
    if not values:
        return []
    x, y = list(values), list(values.values())
    look = {"markersize": 5, "markeredgewidth": 1.2}
    return [
        Line(x, y, {"color": color, "linewidth": 0.6, "zorder": 2}),
        Line(x[-1:], y[-1:], mark(color, "x", **look)),
        Line([], [], mark(style.GREY, "x", **look), "diverged"),  # for the legend
    ]


def limits(means: Sequence[Line]) -> tuple[Limits | None, bool, bool]:
    """Limits of the vertical axis for all but the first epochs.

    Returns:
      The limits, whether the axis is logarithmic, and whether values lie above it.
    """
    if not means:
        return None, False, False
    x, y = (np.concatenate([getattr(line, axis) for line in means]) for axis in ("x", "y"))
    if style.wide([*y, *(edge for line in means if line.band for edge in line.band[0])]):
        return None, True, False
    later = y[x > START * x.max()]
    low, high = float(later.min()), float(later.max())
    span = high - low or abs(high) or 1.0
    top = high + 0.3 * span
    hidden = float(y.max()) > top
    return (low - 0.08 * span, top if hidden else float(y.max()) + 0.08 * span), False, hidden
