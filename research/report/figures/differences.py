"""Differences between configurations at equal seeds."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

from research.metrics import direction
from research.report.cell import Averaging
from research.report.collect import Run
from research.report.figures import style
from research.report.figures.best import data_keys
from research.report.figures.points import (
    apart,
    averaging_of,
    label_of,
    main_metrics,
    mean_of,
    means_of,
    swept,
    values,
    word,
)
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.keys import better, distinct
from research.report.statistics import SMALLEST, compare, holm, interval

METRICS, KEYS, ROWS, PANELS = 2, 2, 14, 4
Values = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Seed -> value of one configuration minus that of the other, of the seeds that both have.

    Attributes:
      p: of a two-sided test of no difference, None for fewer than five seeds.
    """

    seeds: dict[Hashable, float]
    p: float | None
    runs: tuple[str, ...]

    @property
    def mean(self) -> float:
        return sum(self.seeds.values()) / len(self.seeds)


def difference(one: Sequence[Run], other: Sequence[Run], metric: str, over: Averaging) -> Difference:
    """Paired differences of a metric between the runs of two configurations; folds of a seed are averaged first."""
    first, second = (mean_of(runs, metric, over).seeds for runs in (one, other))
    common = [seed for seed in first if seed in second]
    tested = compare(first, second)
    return Difference(
        {seed: first[seed] - second[seed] for seed in common},
        tested.p if tested else None,
        tuple(run.run_id for run in (*one, *other)),
    )


def paired_differences(scene: Scene) -> list[Plan]:
    """For every key of two values, one value against the other; without such a key, all configurations against the
    best."""
    table = scene.table
    of_data = data_keys(scene)
    metrics = [metric for metric in main_metrics(table, len(table.metrics)) if direction(metric)]
    keys = [key for key in swept(table) if key not in of_data]
    if not keys:
        raise UnfitError("all runs are of one configuration")
    plans: list[Plan] = []
    for key in [key for key in keys if len(distinct(table.runs, key)) == 2][:KEYS]:
        fitting = [metric for metric in metrics if key not in apart(metric, table)][:METRICS]
        plans += [functools.partial(_of_two, scene, metric, key) for metric in fitting]
    if not plans and not set(keys) & set(apart(scene.judge, table)):
        fitting = [metric for metric in metrics if not set(apart(metric, table)) - set(of_data)][:METRICS]
        plans = [functools.partial(_against_best, scene, metric) for metric in fitting]
    if not plans:
        raise UnfitError("no metric with a direction may be compared between configurations")
    over = averaging_of(table, (*of_data, *keys))
    if over.seeds < 2 and over.folds < 2:
        raise UnfitError("there is one seed only, and nothing to pair")
    return plans


Cells = dict[tuple[Values, Values], Difference]  # by row and data set


def _of_two(scene: Scene, metric: str, key: str) -> Sketch:
    table = scene.table
    of_data = data_keys(scene)
    rest = [own for own in swept(table) if own not in (key, *of_data)]
    low, high = distinct(table.runs, key)
    over = averaging_of(table, (key, *rest, *of_data))
    cells: Cells = {}
    for run in table.runs:
        place = values(run, rest), values(run, of_data)
        if place not in cells:
            same = [own for own in table.runs if (values(own, rest), values(own, of_data)) == place]
            one, other = ([own for own in same if own.value(key) == value] for value in (high, low))
            cells[place] = difference(one, other, metric, over)
    words = f"{style.key_label(key)} {word(high)} minus {word(low)}"
    return _sketch(scene, metric, cells, rest, of_data, f"{metric}-{key}", words)


def _against_best(scene: Scene, metric: str) -> Sketch:
    table = scene.table
    of_data = data_keys(scene)
    keys = [key for key in swept(table) if key not in of_data]
    judge = scene.judge
    over = averaging_of(table, (*keys, *of_data))
    cells: Cells = {}
    bests = {}
    for place in dict.fromkeys(values(run, of_data) for run in table.runs):
        rows: dict[Values, list[Run]] = {}
        for run in table.runs:
            if values(run, of_data) == place:
                rows.setdefault(values(run, keys), []).append(run)
        means = means_of(rows, judge, over).items()
        scores = {row: mean.value for row, mean in means if mean.value is not None and mean.cell.complete}
        if not scores:
            continue
        best = next(iter(scores))
        for row, score in scores.items():
            best = row if better(score, scores[best], judge) else best
        bests[place] = label_of(table, keys, best)
        cells |= {(row, place): difference(own, rows[best], metric, over) for row, own in rows.items() if row != best}
    several = len(set(bests.values())) > 1
    words = "minus the best" if several else f"minus {next(iter(bests.values()), 'the best')}"
    extra = f" The best by {judge}"
    extra += f" on each data set: {'; '.join(bests.values())}." if several else " is what others are held against."
    return _sketch(scene, metric, cells, keys, of_data, metric, words, extra)


def _sketch(
    scene: Scene,
    metric: str,
    cells: Cells,
    row_keys: Sequence[str],
    of_data: Sequence[str],
    name: str,
    words: str,
    extra: str = "",
) -> Sketch:
    table = scene.table
    cells = {place: found for place, found in cells.items() if found.seeds}
    if not cells:
        raise UnfitError("no two configurations have a seed in common")
    rows = list(dict.fromkeys(row for row, _ in cells))
    panels = list(dict.fromkeys(place for _, place in cells))
    left = max(0, len(rows) - ROWS) + max(0, len(panels) - PANELS)
    rows, panels = rows[:ROWS], panels[:PANELS]
    wide = len(panels) > 1
    width = style.PAGE if wide else style.COLUMN
    drawn = style.figure(width, 0.75 + 0.24 * len(rows) + 0.2 * bool(of_data))
    grid = drawn.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    tested = [place for place in cells if cells[place].p is not None]
    corrected = dict(zip(tested, holm([cells[place].p or 0.0 for place in tested]), strict=True))
    counts: set[int] = set()
    for axes, panel in zip(grid, panels, strict=True):
        axes.axvline(0, color="black", linewidth=0.7, zorder=1)
        for at, row in enumerate(rows):
            if (row, panel) not in cells:
                continue
            found = cells[row, panel]
            counts.add(len(found.seeds))
            _row(axes, at, found, metric)
            if (row, panel) in corrected:
                axes.annotate(
                    _p(corrected[row, panel]),
                    (1, at),
                    (3, 0),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    va="center",
                    fontsize=6.2,
                    color=style.GREY,
                )
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(_axis(metric, words) if not wide else "difference")
        if of_data:
            axes.set_title(label_of(table, of_data, panel))
    grid[0].set_yticks(range(len(rows)), [label_of(table, row_keys, row) if row_keys else "all" for row in rows])
    text = f"Differences in {style.metric_label(metric, arrow=False)} at equal seeds: {words}"
    many = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    caption = f"{text}. Small marks: {many} seeds; large ones and bars: mean and 95 % t interval; filled: better."
    if tested:
        several = f", Holm's correction for {len(tested)} tests" if len(tested) > 1 else ""
        caption += f" p: the larger one of a paired t and a permutation test, two-sided{several}."
    elif max(counts, default=0) < SMALLEST:
        caption += f" No test with {max(counts, default=0)} seeds; {SMALLEST} are needed."
    caption += extra
    if left:
        caption += f" Not drawn for want of room: {left} more."
    sentences = [
        f"{label_of(table, (*row_keys, *of_data), (*row, *place)) or 'all'}: {found.mean:.3g}"
        for (row, place), found in list(cells.items())[:20]
    ]
    return Sketch(
        name=f"paired_differences-{name}",
        title=f"Paired differences in {style.metric_label(metric, arrow=False)}",
        caption=caption,
        alternative=f"Dot chart. {text}. Mean differences: {'; '.join(sentences)}.",
        runs=tuple(dict.fromkeys(run for found in cells.values() for run in found.runs)),
        figure=drawn,
    )


def _row(axes: Any, at: int, found: Difference, metric: str) -> None:
    """Seeds as small marks below the mean with its interval; filled where the mean is better than zero."""
    numbers = list(found.seeds.values())
    is_better = better(found.mean, 0.0, metric)
    color = style.COLORS[0] if is_better else style.COLORS[1] if found.mean else style.GREY
    axes.plot(numbers, [at + 0.22] * len(numbers), "|", color=style.GREY, markersize=4, markeredgewidth=0.7, zorder=2)
    band = interval(numbers)
    if band is not None:
        axes.plot(band, [at, at], color=color, linewidth=1.2, zorder=3)
    face = color if is_better else "white"
    axes.plot([found.mean], [at], "o", color=color, markerfacecolor=face, markersize=4.5, zorder=4)


def _axis(metric: str, words: str) -> str:
    unit = " (nats)" if metric.endswith("_nats") else ""
    label = style.metric_label(metric, arrow=False).removesuffix(unit)
    return f"difference in {label}{unit}\n{words}"


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1) if p < 0.1 else f"p = {p:.2f}"
