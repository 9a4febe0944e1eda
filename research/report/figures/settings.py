"""Settings that are no numbers: their scores, and the differences between two of them at equal seeds."""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

from research.evaluation.views import COLORS
from research.metrics import direction
from research.report.again import UnavailableError
from research.report.figures import points, style
from research.report.figures.chart import SMALL, Chart, Line, Panel, bars, baseline_look, mark
from research.report.figures.points import Mean, Values
from research.report.figures.scene import Plan, Scene, Sketch, plans_for
from research.report.keys import CODE_CCA, CODE_CKA, better, distinct, ranking
from research.report.methods import label
from research.report.statistics import SMALLEST, compare, holm, interval
from research.report.table import Table
from research.report.texts import listed

SCORES, ROWS = 12, 40  # most metrics that have a panel of scores, and most settings
METRICS, KEYS, PANELS = 2, 2, 4  # of differences
BASELINE_MARKS = ("x", "+", "1", "2", "3")


def scores(scene: Scene) -> list[Plan]:
    """One figure of all metrics of the table, a panel each, where some setting is no number."""
    table = scene.table
    of_data = set(points.data_keys(table))
    metrics = [name for name in points.main_metrics(table, SCORES) if not set(points.apart(name, table)) - of_data]
    has_names = any(not points.numeric(table.runs, key) for key in points.method_keys(table))
    lacks = "every swept setting is a number, or no metric may be compared between all settings"
    return plans_for(_scores, [(table, metrics)] if metrics and has_names else [], lacks)


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


def _scores(table: Table, metrics: Sequence[str]) -> Sketch:
    keys, of_data = points.method_keys(table), points.data_keys(table)
    rows = sorted({run.at(keys) for run in table.runs if run.finished}, key=ranking(table.runs, keys))
    sets = sorted({run.at(of_data) for run in table.runs}, key=ranking(table.runs, of_data))
    pairs_shown = [(metric, data) for metric in metrics for data in sets]
    shown = rows[:ROWS]
    panels, everything, texts = [], [], []
    order: dict[str, int] = {}  # a baseline looks the same in all panels
    means = {metric: points.averages(table, metric, keys, of_data) for metric in metrics}
    for metric, data in pairs_shown[:SCORES]:
        everywhere = {(row,): means[metric][row, data] for row in rows if (row, data) in means[metric]}
        numbered = {setting: mean for setting, mean in everywhere.items() if mean.n}
        here = {setting: mean for setting, mean in everywhere.items() if setting[0] in shown}
        lines = [
            line
            for (row,), mean in here.items()
            if mean.n
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
        bool({CODE_CKA, CODE_CCA} & set(metrics)) and "Those of similarities are pseudo-values of the jackknife.",
        points.averaged_words(table, everything),
        *texts,
        style.not_drawn(len(rows[ROWS:]) + len(pairs_shown[SCORES:])),
    )
    title = f"Scores by {listed([style.key_label(key) for key in keys])}"
    return Sketch("scores", title, caption, points.runs_of(everything), chart)


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


Cells = dict[tuple[Values, Values], Difference]  # by row and data set


def difference(first: Mean, second: Mean) -> Difference:
    """Paired differences between two configurations; folds of a seed are averaged first."""
    tested = compare(first.seeds, second.seeds)
    seeds = {seed: first.seeds[seed] - second.seeds[seed] for seed in first.seeds if seed in second.seeds}
    return Difference(seeds, tested.p if tested else None, points.runs_of([first, second]))


def paired_differences(scene: Scene) -> list[Plan]:
    """Compare the two values of every key that has two values.

    Where no key has two, all configurations are compared with the best one.
    """
    table = scene.table
    of_data, keys = points.data_keys(table), points.method_keys(table)
    metrics = [metric for metric in points.main_metrics(table, len(table.metrics)) if direction(metric)]
    over = next(iter(points.averages(table, scene.judge, of_data, keys).values())).over
    lacks = "it has no two configurations, or no metric with a direction by which they may be compared"
    cases: list[tuple[Any, ...]] = []
    if over.seeds < 2 and over.folds < 2:
        keys, lacks = [], "there is one seed only, and nothing to pair"
    for key in [key for key in keys if len(distinct(table.runs, key)) == 2][:KEYS]:
        fitting = [metric for metric in metrics if key not in points.apart(metric, table)][:METRICS]
        cases += [(_of_two, scene, metric, key) for metric in fitting]
    if keys and not cases and not set(keys) & set(points.apart(scene.judge, table)):
        fitting = [metric for metric in metrics if not set(points.apart(metric, table)) - set(of_data)][:METRICS]
        cases = [(_against_best, scene, metric) for metric in fitting]
    return plans_for(lambda sketch, *case: sketch(*case), cases, lacks)


def _of_two(scene: Scene, metric: str, key: str) -> Sketch:
    rest = [other for other in points.method_keys(scene.table) if other != key]
    low, high = distinct(scene.table.runs, key)
    means = points.averages(scene.table, metric, rest, points.data_keys(scene.table), [key])
    cells = {
        (row, data): difference(mean, means[row, data, (low,)])
        for (row, data, (value,)), mean in means.items()
        if value == high and (row, data, (low,)) in means
    }
    text = f"{style.key_label(key)} {points.word(high)} minus {points.word(low)}"
    return _differences(scene, metric, cells, rest, f"{metric}-{key}", text)


def _against_best(scene: Scene, metric: str) -> Sketch:
    table = scene.table
    of_data, keys = points.data_keys(table), points.method_keys(table)
    means = points.averages(table, metric, keys, of_data)
    cells: Cells = {}
    bests: dict[str, str] = {}  # data set -> configuration
    for (data,), runs in points.grouped(table.runs, of_data).items():
        best = points.best_of(points.averages(table, scene.judge, keys, runs=runs), scene.judge)
        if best is not None:
            bests[points.label_of(of_data, data)] = points.label_of(keys, best[0])
            rows = {row: mean for (row, of_set), mean in means.items() if of_set == data and row != best[0]}
            cells |= {(row, data): difference(mean, means[best[0], data]) for row, mean in rows.items()}
    if len(set(bests.values())) > 1:
        text = "minus the best"
        extra = f"The best by {scene.judge}: {'; '.join(f'{best} on {data}' for data, best in bests.items())}."
    else:
        text = f"minus {next(iter(bests.values()), 'the best')}"
        extra = f"The best by {scene.judge} is the one that all others are compared with."
    return _differences(scene, metric, cells, keys, metric, text, extra)


def _differences(
    scene: Scene, metric: str, cells: Cells, row_keys: points.Keys, name: str, compared: str, extra: str = ""
) -> Sketch:
    of_data = points.data_keys(scene.table)
    cells = {setting: cell for setting, cell in cells.items() if cell.seeds}
    if not cells:
        raise UnavailableError("no figure paired_differences: no two configurations have a seed in common")
    rows = list(dict.fromkeys(row for row, _ in cells))
    sets = list(dict.fromkeys(data for _, data in cells))
    left_out = len(rows[ROWS:]) + len(sets[PANELS:])
    rows, sets = rows[:ROWS], sets[:PANELS]
    tested = [setting for setting in cells if cells[setting].p is not None]
    corrected = dict(zip(tested, holm([cells[setting].p or 0.0 for setting in tested]), strict=True))
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
    beside |= {"va": "center", "fontsize": SMALL, "color": style.GREY}
    panels, shown = [], []
    for data in sets:
        here = [(at, (row, data)) for at, row in enumerate(rows) if (row, data) in cells]
        lines = [Line([0, 0], [-0.6, len(rows) - 0.4], {"color": "black", "linewidth": 0.7, "zorder": 1})]
        for at, setting in here:
            is_better = better(cells[setting].mean, 0.0, metric)
            color = COLORS[0] if is_better else COLORS[1] if cells[setting].mean else style.GREY
            lines += row_lines(at, list(cells[setting].seeds.values()), color, filled=is_better)
        texts = [(1, at, _p(corrected[setting]), beside) for at, setting in here if setting in corrected]
        panels.append(Panel(lines, points.label_of(of_data, data), texts=texts))
        shown += [cells[setting] for _, setting in here]
    name_of_metric = style.metric_label(metric, arrow=False)
    chart = Chart(
        panels,
        f"difference in {name_of_metric}\n{compared}" if len(panels) == 1 else "difference",
        row_names=[points.label_of(row_keys, row) or "all" for row in rows],
    )
    counts = [len(cell.seeds) for cell in shown]
    means = [cell.mean for cell in shown]
    several = f", Holm's correction for {len(tested)} tests" if len(tested) > 1 else ""
    caption = style.joined(
        f"Differences in {name_of_metric} at equal seeds: {compared}. Small marks: {points.counted(counts)} seeds;",
        "large ones and bars: mean and 95 % t interval; filled: better.",
        f"Mean differences reach from {min(means):.4g} to {max(means):.4g}.",
        tested and f"p: the larger one of a paired t and a permutation test, two-sided{several}.",
        not tested and f"No test with {max(counts)} seeds; {SMALLEST} are needed." if max(counts) < SMALLEST else "",
        extra,
        style.not_drawn(left_out),
    )
    runs = tuple(dict.fromkeys(run for cell in cells.values() for run in cell.runs))
    return Sketch(f"paired_differences-{name}", f"Paired differences in {name_of_metric}", caption, runs, chart)


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1) if p < 0.1 else f"p = {p:.2f}"
