"""Losses over epochs."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.report.collect import Run
from research.report.figures import style
from research.report.figures.points import apart, averaging_of, label_of, mean_of, swept, values
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.keys import SEED, better
from research.report.statistics import interval
from research.report.texts import plural
from research.runs.folder import RunFolder
from research.tree import ConfigError, group

CONFIGURATIONS, PANELS = 8, 4
START = 0.15  # share of the epochs that the limits of the axis are not made for: first losses may be huge
OF_ONE_KIND = "validation/elbo_nats"  # losses of one data set and likelihood share an axis
Values = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over epochs, mean over seeds (folds of a seed first), as far as all runs go.

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


def curve(runs: Sequence[Run], histories: Mapping[str, list[dict[str, float]]], metric: str) -> Curve | None:
    """The mean of a metric over the runs of one configuration; None where none of them has it."""
    found: dict[Any, list[dict[float, float]]] = {}
    for run in runs:
        own = {row["epoch"]: row[metric] for row in histories[run.run_id] if math.isfinite(row.get(metric, math.nan))}
        if own:
            found.setdefault(run.value(SEED), []).append(own)
    if not found:
        return None
    epochs = sorted(set.intersection(*(set(own) for seed in found.values() for own in seed)))
    if not epochs:
        return None
    numbers = np.array([[np.mean([own[epoch] for own in seed]) for epoch in epochs] for seed in found.values()])
    bands = [interval(list(column)) or (math.nan, math.nan) for column in numbers.T]
    low, high = np.array(bands).reshape(-1, 2).T
    return Curve(np.array(epochs), numbers.mean(0), low, high, len(numbers))


def monitored(runs: Sequence[Run], histories: Mapping[str, list[dict[str, float]]]) -> tuple[str, str | None]:
    """The metric of the validation rows that is drawn, and its twin of the training rows where there is one."""
    known = {name for run in runs for row in histories[run.run_id] for name in row}
    monitor = next((str(value) for run in runs if isinstance(value := run.value("trainer.monitor"), str)), "")
    names = [monitor, "validation/loss", *sorted(name for name in known if name.startswith("validation/"))]
    names += sorted(name for name in known if "/" in name)
    metric = next(name for name in names if name in known)
    twin = f"train/{metric.partition('/')[2]}"
    return metric, twin if twin in known and twin != metric else None


def _sketch(scene: Scene, histories: Mapping[str, list[dict[str, float]]]) -> Sketch:
    table = scene.table
    panel_keys = apart(OF_ONE_KIND, table)
    keys = [key for key in swept(table) if key not in panel_keys]
    runs = [run for run in table.runs if len(histories[run.run_id]) > (run.status != "diverged")]
    panels = group(runs, lambda run: values(run, panel_keys))
    lines = [values(own[0], keys) for own in group(runs, lambda run: values(run, keys))]
    judge = scene.judge
    chosen = _chosen(scene, lines, panels, keys, judge)
    panels = panels[:PANELS]
    metric, twin = monitored(runs, histories)
    wide = len(panels) > 1 or len(chosen) > 4  # the legend needs room
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    drawn = style.figure(style.PAGE if wide else style.COLUMN, (1.9 if wide else 2.3) * rows + 0.5)
    grid = drawn.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    crosses, never, cut, counts, sentences = 0, 0, False, set(), []
    shown: dict[str, None] = {}
    for at, own in enumerate(panels):
        axes = grid[at // columns][at % columns]
        curves: list[Curve] = []
        for number, line in enumerate(chosen):
            members = [run for run in own if values(run, keys) == line]
            shown |= {run.run_id: None for run in members}
            look = {"color": style.COLORS[number % len(style.COLORS)]}
            healthy = [run for run in members if run.status != "diverged"]
            name = label_of(table, keys, line) if keys else "models"
            for part, dashes in ((twin, style.DASHES[2]), (metric, "-")):
                found = curve(healthy, histories, part) if part else None
                if found is None:
                    continue
                (handle,) = axes.plot(found.epochs, found.mean, linestyle=dashes, zorder=3, **look)
                curves.append(found)
                if part == metric:
                    handles.setdefault(name, handle)
                    counts.add(found.seeds)
                    axes.fill_between(found.epochs, found.low, found.high, alpha=0.16, linewidth=0, zorder=1, **look)
                    sentences.append(f"{name}: from {found.mean[0]:.4g} to {found.mean[-1]:.4g}")
            for run in members:
                if run.status == "diverged":
                    drawn_one = _broken(axes, histories[run.run_id], metric, look, handles)
                    crosses, never = crosses + drawn_one, never + (not drawn_one)
        cut |= _limits(axes, curves)
        if panel_keys:
            axes.set_title(label_of(table, panel_keys, values(own[0], panel_keys)))
        if at + columns >= len(panels):
            axes.set_xlabel("epoch")
        if at % columns == 0:
            axes.set_ylabel(style.metric_label(metric if not twin else metric.partition("/")[2]))
    for at in range(len(panels), rows * columns):
        grid[at // columns][at % columns].set_axis_off()
    if twin:
        from matplotlib.lines import Line2D

        part = metric.partition("/")[0]
        handles[part] = Line2D([], [], color=style.GREY)
        handles["train"] = Line2D([], [], color=style.GREY, linestyle=style.DASHES[2])
    style.legend_above(drawn, list(handles.values()) if len(handles) > 1 else [], list(handles))
    text = f"{style.sentence(style.metric_label(metric, arrow=False))} over epochs"
    text += f", and {style.metric_label(twin, arrow=False)} dotted" if twin else ""
    caption = text + "."
    if counts and max(counts) > 1:
        many = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        caption += f" Means over {many} seeds as far as all of them go; bands are 95 % t intervals."
    if len(lines) > len(chosen):
        caption += f" The best {len(chosen)} of {len(lines)} configurations by {judge}."
    if crosses:
        caption += f" {plural(crosses, 'run')} diverged: thin lines that end with a cross."
    if never:
        caption += f" {plural(never, 'run')} diverged before the first evaluation."
    if cut:
        caption += " The first epochs lie above the axis."
    return Sketch(
        name="learning_curves",
        title="Learning curves",
        caption=caption,
        alternative=f"Line chart. {text}. {'; '.join(sentences[:CONFIGURATIONS])}.",
        runs=tuple(shown),
        figure=drawn,
    )


def _chosen(
    scene: Scene, lines: Sequence[Values], panels: Sequence[Sequence[Run]], keys: Sequence[str], judge: str
) -> list[Values]:
    """At most eight configurations, in the order of the table: those of the best mean rank over data sets."""
    if len(lines) <= CONFIGURATIONS:
        return list(lines)
    over = averaging_of(scene.table, (*apart(OF_ONE_KIND, scene.table), *keys))
    ranks: dict[Values, list[float]] = {line: [] for line in lines}
    sign = -1 if better(1.0, 0.0, judge) else 1
    for own in panels:
        scores = {}
        for line in lines:
            value = mean_of([run for run in own if values(run, keys) == line], judge, over).value
            scores[line] = math.inf if value is None else sign * value
        for rank, line in enumerate(sorted(lines, key=lambda line: scores[line])):
            ranks[line].append(rank)
    best = sorted(lines, key=lambda line: np.mean(ranks[line]))[:CONFIGURATIONS]
    return [line for line in lines if line in best]


def _broken(
    axes: Any, rows: Sequence[Mapping[str, float]], metric: str, look: Mapping[str, Any], handles: dict[str, Any]
) -> bool:
    """The curve of a diverged run up to its last finite value, and a cross there; whether there was any."""
    own = [(row["epoch"], row[metric]) for row in rows if math.isfinite(row.get(metric, math.nan))]
    if not own:
        return False
    x, y = np.array(own).T
    axes.plot(x, y, linewidth=0.6, zorder=2, **look)
    axes.plot(x[-1:], y[-1:], "x", markersize=5, markeredgewidth=1.2, zorder=4, **look)
    if "diverged" not in handles:
        from matplotlib.lines import Line2D

        handles["diverged"] = Line2D([], [], color=style.GREY, marker="x", linestyle="", markersize=5)
    return True


def _limits(axes: Any, curves: Sequence[Curve]) -> bool:
    """Limits for what comes after the first epochs; whether something lies beyond them."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if not curves:
        return False
    last = max(found.epochs[-1] for found in curves)
    later = np.concatenate([found.mean[found.epochs > START * last] for found in curves])
    everything = np.concatenate([found.mean for found in curves])
    style.value_axis(axes, [*everything, *(low for found in curves for low in found.low)])
    if axes.get_yscale() == "log" or not len(later):
        return False
    low, high = float(later.min()), float(later.max())
    span = high - low or abs(high) or 1.0
    top = high + 0.3 * span
    beyond = float(everything.max()) > top
    axes.set_ylim(low - 0.08 * span, top if beyond else float(everything.max()) + 0.08 * span)
    return beyond
