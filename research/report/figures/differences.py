"""Differences between configurations at equal seeds."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

from research.evaluation.views import COLORS
from research.metrics import direction
from research.report.cell import Averaging
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import SMALL, Chart, Line, Panel, bars
from research.report.figures.scene import Scene
from research.report.figures.scores import seed_marks
from research.report.figures.sketch import Plan, Sketch, UnfitError
from research.report.keys import better, distinct
from research.report.statistics import SMALLEST, compare, holm, interval

METRICS, KEYS, ROWS, PANELS = 2, 2, 14, 4
Values = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Seed -> value of one configuration minus that of another, for the seeds that both have.

    Attributes:
      p: of a two-sided test of no difference, None for fewer than five seeds.
    """

    seeds: dict[Hashable, float]
    p: float | None
    runs: tuple[str, ...]

    @property
    def mean(self) -> float:
        return sum(self.seeds.values()) / len(self.seeds)


def difference(runs: Sequence[Run], others: Sequence[Run], metric: str, over: Averaging) -> Difference:
    """Paired differences of a metric between the runs of two configurations; folds of a seed are averaged first."""
    first, second = (points.mean_of(members, metric, over).seeds for members in (runs, others))
    tested = compare(first, second)
    return Difference(
        {seed: first[seed] - second[seed] for seed in first if seed in second},
        tested.p if tested else None,
        tuple(run.run_id for run in (*runs, *others)),
    )


def paired_differences(scene: Scene) -> list[Plan]:
    """Compare the two values of every key that has two values.

    Where no key has two, all configurations are compared with the best one.
    """
    table = scene.table
    of_data, keys = points.data_keys(table), points.method_keys(table)
    metrics = [metric for metric in points.main_metrics(table, len(table.metrics)) if direction(metric)]
    if not keys:
        raise UnfitError("all runs are of one configuration")
    plans: list[Plan] = []
    for key in [key for key in keys if len(distinct(table.runs, key)) == 2][:KEYS]:
        fitting = [metric for metric in metrics if key not in points.apart(metric, table)][:METRICS]
        plans += [functools.partial(_of_two, scene, metric, key) for metric in fitting]
    if not plans and not set(keys) & set(points.apart(scene.judge, table)):
        fitting = [metric for metric in metrics if not set(points.apart(metric, table)) - set(of_data)][:METRICS]
        plans = [functools.partial(_against_best, scene, metric) for metric in fitting]
    if not plans:
        raise UnfitError("no metric with a direction may be compared between configurations")
    over = points.averaging_of(table, (*of_data, *keys))
    if over.seeds < 2 and over.folds < 2:
        raise UnfitError("there is one seed only, and nothing to pair")
    return plans


Cells = dict[tuple[Values, Values], Difference]  # by row and data set


def _of_two(scene: Scene, metric: str, key: str) -> Sketch:
    table = scene.table
    of_data = points.data_keys(table)
    rest = [other for other in points.method_keys(table) if other != key]
    low, high = distinct(table.runs, key)
    over = points.averaging_of(table, (key, *rest, *of_data))
    cells: Cells = {}
    for where, runs in points.grouped(table.runs, rest, of_data).items():
        pair = [[run for run in runs if run.value(key) == value] for value in (high, low)]
        cells[where] = difference(pair[0], pair[1], metric, over)
    words = f"{style.key_label(key)} {points.word(high)} minus {points.word(low)}"
    return _sketch(scene, metric, cells, rest, f"{metric}-{key}", words)


def _against_best(scene: Scene, metric: str) -> Sketch:
    table, judge = scene.table, scene.judge
    of_data, keys = points.data_keys(table), points.method_keys(table)
    over = points.averaging_of(table, (*keys, *of_data))
    cells: Cells = {}
    bests = {}
    for (data,), members in points.grouped(table.runs, of_data).items():
        rows = {row: runs for (row,), runs in points.grouped(members, keys).items()}
        means = points.means_of(rows, judge, over).items()
        scores = {row: mean.value for row, mean in means if mean.value is not None and mean.cell.complete}
        if not scores:
            continue
        best = next(iter(scores))
        for row, score in scores.items():
            best = row if better(score, scores[best], judge) else best
        bests[data] = points.label_of(table, keys, best)
        cells |= {(row, data): difference(runs, rows[best], metric, over) for row, runs in rows.items() if row != best}
    several = len(set(bests.values())) > 1
    words = "minus the best" if several else f"minus {next(iter(bests.values()), 'the best')}"
    extra = f" The best by {judge}"
    extra += (
        f" on each data set: {'; '.join(bests.values())}."
        if several
        else " is the one that all others are compared with."
    )
    return _sketch(scene, metric, cells, keys, metric, words, extra)


def _sketch(
    scene: Scene, metric: str, cells: Cells, row_keys: Sequence[str], name: str, words: str, extra: str = ""
) -> Sketch:
    table, of_data = scene.table, points.data_keys(scene.table)
    cells = {where: cell for where, cell in cells.items() if cell.seeds}
    if not cells:
        raise UnfitError("no two configurations have a seed in common")
    rows = list(dict.fromkeys(row for row, _ in cells))
    sets = list(dict.fromkeys(data for _, data in cells))
    left_out = max(0, len(rows) - ROWS) + max(0, len(sets) - PANELS)
    rows, sets = rows[:ROWS], sets[:PANELS]
    tested = [where for where in cells if cells[where].p is not None]
    corrected = dict(zip(tested, holm([cells[where].p or 0.0 for where in tested]), strict=True))
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
    beside |= {"va": "center", "fontsize": SMALL, "color": style.GREY}
    panels = []
    for data in sets:
        here = [(at, (row, data)) for at, row in enumerate(rows) if (row, data) in cells]
        zero = Line([0, 0], [-0.6, len(rows) - 0.4], {"color": "black", "linewidth": 0.7, "zorder": 1})
        lines = [zero, *(line for at, where in here for line in _row(at, cells[where], metric))]
        texts = [(1, at, _p(corrected[where]), beside) for at, where in here if where in corrected]
        panels.append(Panel(lines, points.label_of(table, of_data, data) if of_data else "", texts=texts))
    chart = Chart(
        panels,
        _axis(metric, words) if len(panels) == 1 else "difference",
        columns=len(panels),
        height=0.24 * len(rows),
        room=0.75 + 0.2 * bool(of_data),
        shared="y",
        ticks=(4, None),
        rows=[points.label_of(table, row_keys, row) if row_keys else "all" for row in rows],
    )
    counts = [len(cells[row, data].seeds) for row in rows for data in sets if (row, data) in cells]
    caption = (
        f"Differences in {style.metric_label(metric, arrow=False)} at equal seeds: {words}. Small marks: "
        f"{points.counted(counts)} seeds; large ones and bars: mean and 95 % t interval; filled: better."
    )
    if tested:
        several = f", Holm's correction for {len(tested)} tests" if len(tested) > 1 else ""
        caption += f" p: the larger one of a paired t and a permutation test, two-sided{several}."
    elif max(counts) < SMALLEST:
        caption += f" No test with {max(counts)} seeds; {SMALLEST} are needed."
    caption += extra
    caption += f" Not drawn for want of room: {left_out} more." if left_out else ""
    runs = tuple(dict.fromkeys(run for cell in cells.values() for run in cell.runs))
    title = f"Paired differences in {style.metric_label(metric, arrow=False)}"
    return Sketch(f"paired_differences-{name}", title, caption, runs, chart)


def _row(row: int, cell: Difference, metric: str) -> list[Line]:
    """Seeds as small marks below the mean with its interval; the mark is filled where the mean is better than zero."""
    numbers = list(cell.seeds.values())
    is_better = better(cell.mean, 0.0, metric)
    color = COLORS[0] if is_better else COLORS[1] if cell.mean else style.GREY
    band = interval(numbers)
    ends = bars([row], [band[0]], [band[1]], flat=True, color=color, linewidth=1.2, zorder=3) if band else []
    look = {"color": color, "marker": "o", "markersize": 4.5, "linestyle": "", "zorder": 4}
    mean = Line([cell.mean], [row], look | {"markerfacecolor": color if is_better else "white"})
    return [seed_marks(numbers, row), *ends, mean]


def _axis(metric: str, words: str) -> str:
    unit = " (nats)" if metric.endswith("_nats") else ""
    label = style.metric_label(metric, arrow=False).removesuffix(unit)
    return f"difference in {label}{unit}\n{words}"


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1) if p < 0.1 else f"p = {p:.2f}"
