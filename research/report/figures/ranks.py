"""Demšar's diagram: average ranks of methods over data sets, and which of them are not significantly different."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation.views import COLORS
from research.metrics import direction, higher_is_better
from research.report.duels import naive_scores
from research.report.figures import points, style
from research.report.figures.chart import Chart, Line, Panel, mark
from research.report.figures.points import Keys
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.methods import label
from research.report.statistics import LEVEL
from research.report.table import Table
from research.report.texts import plural

SMALLEST, LARGEST = 3, 12  # data sets and methods at least, methods at most
METRICS = 2


def average_ranks(scores: np.ndarray, higher: bool) -> np.ndarray:
    """Mean over data sets of the rank of every method, [K] of scores [N, K]; 1 is best, equal scores share a rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-scores if higher else scores, axis=1)).mean(0)


def friedman(scores: np.ndarray) -> float:
    """p of Friedman's test that all methods rank alike, of scores [N, K], K >= 3; corrected for ties.

    chi2 = 12 N / (K (K + 1)) (sum_j R_j^2 - K (K + 1)^2 / 4) with K - 1 degrees of freedom (Demšar 2006, section
    3.2.2); 1 where no method ever differs from another.
    """
    from scipy.stats import friedmanchisquare

    if not np.ptp(scores, axis=1).any():
        return 1.0
    return float(friedmanchisquare(*scores.T).pvalue)


def critical_difference_of(methods: int, sets: int, level: float = LEVEL) -> float:
    """Smallest difference of two average ranks that is significant by Nemenyi's test.

    CD = q sqrt(K (K + 1) / (6 N)), q the upper quantile of the studentized range for K groups and infinitely many
    degrees of freedom, over sqrt(2) (Demšar 2006, "Statistical comparisons of classifiers over multiple data sets",
    section 3.2.2 and table 5).
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * sets))


def cliques(ranks: Sequence[float], distance: float) -> list[tuple[int, int]]:
    """Largest groups of neighbours, as (first, last) of ascending ranks, that differ by less than `distance`.

    Groups of one method, and groups inside another one, are left out.
    """
    groups: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(at for at in range(first, len(ranks)) if ranks[at] - ranks[first] < distance)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def score_matrix(
    table: Table, metric: str, methods: Keys, of_data: Keys
) -> tuple[np.ndarray, list[points.Values], list[str]]:
    """Means [N, K] over seeds of data sets and methods, the values of the keys of the models, and all names.

    Naive methods follow the models where the table is over data sets.

    A data set that most methods have no number on is left out, and then every method that has no number on another.
    """
    means = points.averages(table, metric, of_data, methods)
    known = {setting: mean.value for setting, mean in means.items() if mean.cell.complete}
    rows = list(dict.fromkeys(row for _, row in means))
    sets = list(dict.fromkeys(data for data, _ in means))
    sets = [data for data in sets if 2 * sum((data, row) in known for row in rows) > len(rows)]
    rows = [row for row in rows if all((data, row) in known for data in sets)]
    scores = np.array([[known[data, row] for row in rows] for data in sets], np.float64)
    scores = scores.reshape(len(sets), len(rows))
    names = [points.label_of(methods, row) for row in rows]
    if table.averaging.over != tuple(of_data):
        return scores, rows, names
    naive = naive_scores(list(table.runs), metric, table.averaging)
    naive = {name: of_set for name, of_set in naive.items() if all(data in of_set for data in sets)}
    columns = [[of_set[data] for data in sets] for of_set in naive.values()]
    return np.column_stack([scores, *columns]), rows, names + [label(name) for name in naive]


def critical_difference(scene: Scene) -> list[Plan]:
    """One diagram for each of the first two metrics with a direction that have enough data sets and methods."""
    table = scene.table
    of_data, methods = points.data_keys(table), points.method_keys(table)
    needed = f"it takes {SMALLEST} data sets and {SMALLEST} to {LARGEST} methods"
    if not of_data or not methods:
        raise UnfitError(f"{needed}; {'nothing but data sets' if of_data else 'no data set'} is swept")
    plans: list[Plan] = []
    reasons = []
    for metric in points.main_metrics(table, len(table.metrics)):
        if not direction(metric) or set(points.apart(metric, table)) - set(of_data) or len(plans) == METRICS:
            continue
        scores, rows, names = score_matrix(table, metric, methods, of_data)
        if len(scores) < SMALLEST or not SMALLEST <= len(names) <= LARGEST:
            reasons.append(f"{metric} has {len(scores)} data sets and {len(names)} methods on all of them")
            continue
        plans.append(functools.partial(_sketch, table, metric, methods, scores, rows, names))
    if not plans:
        reasons.append("no metric may be compared between methods")
        raise UnfitError(f"{needed}; {reasons[0]}")
    return plans


def _sketch(
    table: Table, metric: str, methods: Keys, scores: np.ndarray, rows: list[points.Values], names: list[str]
) -> Sketch:
    ranks = average_ranks(scores, higher_is_better(metric))
    order = np.argsort(ranks, kind="stable")
    ordered = [float(ranks[at]) for at in order]
    ranked = [names[at] for at in order]
    distance = critical_difference_of(len(names), len(scores))
    left_out = len({run.at(methods) for run in table.runs}) - len(rows)
    title = f"Average ranks by {style.metric_label(metric, arrow=False)}"
    caption = style.joined(
        f"{title} (1 is best) of {len(names)} methods over {len(scores)} data sets, means over seeds.",
        "Thick bars join methods that Nemenyi's test does not tell apart at 5 %",
        f"(critical difference CD = {distance:.2f}; Demšar 2006).",
        f"Friedman's test that all rank alike: p = {friedman(scores):.2g}.",
        f"Ranks: {', '.join(f'{name} {rank:.2f}' for name, rank in zip(ranked, ordered, strict=True))}.",
        left_out and f"{plural(left_out, 'method')} without a number on every data set left out.",
    )
    runs = tuple(run.run_id for run in table.runs if run.at(methods) in rows)
    return Sketch(f"critical_difference-{metric}", title, caption, runs, _diagram(ranked, ordered, distance))


def _diagram(names: Sequence[str], ranks: Sequence[float], distance: float) -> Chart:
    """The axis of ranks above, methods below it to both sides, thick bars between."""
    groups = cliques(ranks, distance)
    count = len(names)
    low, high, span = 1.0, float(count), count - 1.0
    left = -(-count // 2)  # methods to the left, of which there are at least as many as to the right
    lift = 0.34  # between two lines of text, in units of the vertical axis
    top = 0.30 * len(groups) + 0.15  # room for the bars below the axis
    thin, thick = {"color": "black", "linewidth": 0.8}, {"color": "black", "linewidth": 2.6, "solid_capstyle": "butt"}
    grey = {"color": style.GREY, "linewidth": 0.7, "solid_joinstyle": "miter"}
    above = {"ha": "center", "va": "bottom", "fontsize": 7}
    lines = [Line([low, high], [0, 0], thin), Line([low, low + distance], [0.85, 0.85], thin)]
    lines += [Line([tick, tick], [0, 0.1], thin) for tick in range(1, count + 1)]
    lines += [Line([end, end], [0.78, 0.92], thin) for end in (low, low + distance)]
    texts: list[Any] = [(tick, 0.16, str(tick), above) for tick in range(1, count + 1)]
    texts.append((low + distance / 2, 0.95, f"CD = {distance:.2f}", above))
    for at, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        is_left = at < left
        depth = -top - lift * ((at if is_left else count - 1 - at) + 1)
        edge = low - 0.06 * span if is_left else high + 0.06 * span
        lines += [Line([rank, rank, edge], [0, depth, depth], grey)]
        lines += [Line([rank], [0], mark(COLORS[0], markersize=3.2, clip_on=False))]
        text = f"{name}  {rank:.2f} " if is_left else f" {rank:.2f}  {name}"
        texts.append((edge, depth, text, {"ha": "right" if is_left else "left", "va": "center", "fontsize": 7}))
    for at, (first, last) in enumerate(groups):
        ends = [ranks[first] - 0.015 * span, ranks[last] + 0.015 * span]
        lines.append(Line(ends, [-0.17 - 0.28 * at] * 2, thick))
    # the ruler of the critical difference may be longer than the axis
    x_limits = (low - 0.1 * span, max(high + 0.1 * span, low + distance + 0.02 * span))
    panel = Panel(lines, x_limits=x_limits, y_limits=(-top - lift * (left + 0.7), 1.4), texts=texts)
    width = style.COLUMN if max(map(len, names)) < 16 else style.PAGE
    return Chart([panel], width=width, height=0.17 * (left + 1.5 * len(groups)) + 0.75, bare=True)
