"""Scores of settings that are no numbers: models, objectives, cells."""

import functools
import math
from collections.abc import Sequence
from typing import Any

from research.report.figures import style
from research.report.figures.best import data_keys
from research.report.figures.points import (
    apart,
    averaged_words,
    averaging_of,
    baseline_of,
    label_of,
    main_metrics,
    mean_of,
    numeric,
    shown_runs,
    swept,
    values,
)
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.keys import ranking
from research.report.methods import label

METRICS, PANELS, ROWS, COLUMNS = 12, 12, 14, 4  # most of them
NAIVE_MARKS = ("x", "+", "1", "2", "3")


def scores(scene: Scene) -> list[Plan]:
    """One figure of all metrics of the table, a panel each, where some setting is no number."""
    table = scene.table
    of_data = data_keys(scene)
    keys = [key for key in swept(table) if key not in of_data]
    if all(numeric(table.runs, key) for key in keys):
        raise UnfitError("every swept setting is a number")
    metrics = [name for name in main_metrics(table, METRICS) if not set(apart(name, table)) - set(of_data)]
    if not metrics:
        raise UnfitError("no metric may be compared between all settings")
    return [functools.partial(_sketch, scene, metrics, keys, of_data)]


def _sketch(scene: Scene, metrics: Sequence[str], keys: Sequence[str], of_data: Sequence[str]) -> Sketch:
    table = scene.table
    over = averaging_of(table, (*keys, *of_data))
    rows, places = (
        sorted({values(run, own) for run in table.runs}, key=ranking(table.runs, own)) for own in (keys, of_data)
    )
    finished = {values(run, keys) for run in table.runs if run.finished}
    rows = [row for row in rows if row in finished]
    panels = [(metric, place) for metric in metrics for place in places]
    left = max(0, len(rows) - ROWS) + max(0, len(panels) - PANELS)
    rows, panels = rows[:ROWS], panels[:PANELS]
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    width = style.PAGE if columns > 1 else style.COLUMN
    drawn = style.figure(width, (0.55 + 0.17 * len(rows)) * lines + 0.35)
    grid = drawn.subplots(lines, columns, squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    everything, sentences = [], []
    for at, (metric, place) in enumerate(panels):
        axes = grid[at // columns][at % columns]
        here = [run for run in table.runs if values(run, of_data) == place]
        means = [mean_of([run for run in here if values(run, keys) == row], metric, over) for row in rows]
        for height, mean in enumerate(means):
            _row(axes, height, mean)
        naive = [baseline_of([run for run in here if values(run, keys) == row], metric) for row in rows]
        for method in dict.fromkeys(name for own in naive for name in own):
            names = [*handles, label(method)]  # a method looks the same in all panels
            drawn_as = _naive(axes, [own.get(method) for own in naive], names.index(label(method)))
            handles.setdefault(label(method), drawn_as)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=3)
        axes.set_title("\n".join([style.metric_label(metric), *([label_of(table, of_data, place)] if of_data else [])]))
        everything += means
        known = [(row, mean.value) for row, mean in zip(rows, means, strict=True) if mean.value is not None]
        words = ", ".join(f"{label_of(table, keys, row)} {value:.3g}" for row, value in known)
        sentences.append(f"{style.metric_label(metric, arrow=False)}: {words}")
    for at in range(len(panels), lines * columns):
        grid[at // columns][at % columns].set_axis_off()
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(rows)), [label_of(table, keys, row) for row in rows])
    style.legend_above(drawn, list(handles.values()), list(handles))
    caption = f"Scores by {style.listed(list(keys))}, a panel for each metric. Small marks: seeds. "
    caption += averaged_words(table, over, everything)
    if left:
        caption += f" Not drawn for want of room: {left} more."
    return Sketch(
        name="scores",
        title=f"Scores by {style.listed([style.key_label(key) for key in keys])}",
        caption=caption,
        alternative=f"Dot chart. {'; '.join(sentences)}.",
        runs=shown_runs(everything),
        figure=drawn,
    )


def _naive(axes: Any, found: Sequence[float | None], number: int) -> Any:
    """A line where a method has one value beside all settings, else a mark beside each."""
    known = [value for value in found if value is not None]
    if math.isclose(min(known), max(known), rel_tol=1e-3):
        dashes = style.BASELINE_DASHES[number % len(style.BASELINE_DASHES)]
        return axes.axvline(known[0], color=style.GREY, linestyle=dashes, linewidth=0.9, zorder=1)
    places = [(value, height) for height, value in enumerate(found) if value is not None]
    (marks,) = axes.plot(*zip(*places, strict=True), NAIVE_MARKS[number % len(NAIVE_MARKS)], color=style.GREY, zorder=2)
    return marks


def _row(axes: Any, height: int, mean: Any) -> None:
    """The mean with its interval, and its seeds below it."""
    if mean.value is None:
        return
    numbers = list(mean.seeds.values())
    if len(numbers) > 1:
        axes.plot(numbers, [height + 0.25] * len(numbers), "|", color=style.GREY, markersize=4, markeredgewidth=0.7)
    if mean.low is not None:
        axes.plot([mean.low, mean.high], [height, height], color=style.COLORS[0], linewidth=1.0, zorder=3)
    axes.plot([mean.value], [height], "o", color=style.COLORS[0], markersize=3.6, zorder=4)
