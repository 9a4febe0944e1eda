"""Demšar's diagram: average ranks of methods over data sets, and which of them are not significantly different."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation.views import COLORS
from research.metrics import direction, higher_is_better
from research.report.figures import points, style
from research.report.figures.chart import Chart, Line, Panel
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnfitError
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
    table: Table, metric: str, methods: Sequence[str], of_data: Sequence[str]
) -> tuple[np.ndarray, list[Any], list[Any]]:
    """Means [N, K] over seeds, and the values of the keys of their data sets and methods.

    A data set that most methods have no number on is left out, and then every method that has no number on another.
    """
    over = points.averaging_of(table, (*methods, *of_data))
    cells = points.grouped(table.runs, of_data, methods)
    means = points.means_of(cells, metric, over)
    known = {cell: mean.value for cell, mean in means.items() if mean.cell.complete and mean.value is not None}
    sets = list(dict.fromkeys(data for data, _ in cells))
    rows = list(dict.fromkeys(row for _, row in cells))
    sets = [data for data in sets if 2 * sum((data, row) in known for row in rows) > len(rows)]
    rows = [row for row in rows if all((data, row) in known for data in sets)]
    scores = np.array([[known[data, row] for row in rows] for data in sets], np.float64)
    return scores.reshape(len(sets), len(rows)), sets, rows


def critical_difference(scene: Scene) -> list[Plan]:
    """One diagram for each of the first two metrics with a direction that have enough data sets and methods."""
    table = scene.table
    of_data, methods = points.data_keys(table), points.method_keys(table)
    if not of_data or not methods:
        missing = "no data set" if not of_data else "nothing but data sets"
        raise UnfitError(f"it takes {SMALLEST} data sets and {SMALLEST} methods; {missing} is swept")
    plans: list[Plan] = []
    reasons = []
    for metric in points.main_metrics(table, len(table.metrics)):
        if not direction(metric) or set(points.apart(metric, table)) - set(of_data) or len(plans) == METRICS:
            continue
        scores, sets, rows = score_matrix(table, metric, methods, of_data)
        if len(sets) < SMALLEST or not SMALLEST <= len(rows) <= LARGEST:
            reasons.append(f"{metric} has {len(sets)} data sets and {len(rows)} methods on all of them")
            continue
        plans.append(functools.partial(_sketch, table, metric, methods, scores, sets, rows))
    if not plans:
        raise UnfitError(
            f"it takes {SMALLEST} data sets and {SMALLEST} to {LARGEST} methods; "
            f"{reasons[0] if reasons else 'no metric may be compared between methods'}"
        )
    return plans


def _sketch(
    table: Table, metric: str, methods: Sequence[str], scores: np.ndarray, sets: list[Any], rows: list[Any]
) -> Sketch:
    ranks = average_ranks(scores, higher_is_better(metric))
    order = np.argsort(ranks, kind="stable")
    ordered = [float(ranks[at]) for at in order]
    names = [points.label_of(table, methods, rows[at]) for at in order]
    distance = critical_difference_of(len(rows), len(sets))
    p = friedman(scores)
    caption = (
        f"Average ranks by {style.metric_label(metric, arrow=False)} (1 is best) of {len(rows)} methods over"
        f" {len(sets)} data sets, means over seeds. Thick bars join methods that Nemenyi's test does not tell apart at"
        f" 5 % (critical difference CD = {distance:.2f}; Demšar 2006). Friedman's test that all rank alike:"
        f" p = {p:.2g}."
    )
    caption += f" Ranks: {', '.join(f'{name} {rank:.2f}' for name, rank in zip(names, ordered, strict=True))}."
    total = len({points.values(run, methods) for run in table.runs})
    if total > len(rows):
        caption += f" {plural(total - len(rows), 'method')} without a number on every data set left out."
    title = f"Average ranks by {style.metric_label(metric, arrow=False)}"
    runs = tuple(run.run_id for run in table.runs if points.values(run, methods) in rows)
    chart = _diagram(names, ordered, distance, cliques(ordered, distance))
    return Sketch(f"critical_difference-{metric}", title, caption, runs, chart)


def _diagram(names: Sequence[str], ranks: Sequence[float], distance: float, groups: Sequence[tuple[int, int]]) -> Chart:
    """The axis of ranks above, methods below it to both sides, thick bars between."""
    count = len(names)
    low, high = 1.0, float(count)
    span = high - low
    left = -(-count // 2)
    rows = max(left, count - left)
    lift = 0.34  # between two lines of text, in units of the vertical axis
    top = 0.30 * len(groups) + 0.15  # room for the bars below the axis
    thin, thick = {"color": "black", "linewidth": 0.8}, {"color": "black", "linewidth": 2.6, "solid_capstyle": "butt"}
    above = {"ha": "center", "va": "bottom", "fontsize": 7}
    lines = [Line([low, high], [0, 0], thin), Line([low, low + distance], [0.85, 0.85], thin)]
    lines += [Line([tick, tick], [0, 0.1], thin) for tick in range(1, count + 1)]
    lines += [Line([end, end], [0.78, 0.92], thin) for end in (low, low + distance)]
    texts: list[Any] = [(tick, 0.16, str(tick), above) for tick in range(1, count + 1)]
    # the ruler may be longer than the axis
    texts.append((low + distance / 2, 0.95, f"CD = {distance:.2f}", above))
    for at, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        first = at < left
        depth = -top - lift * ((at if first else count - 1 - at) + 1)
        edge = low - 0.06 * span if first else high + 0.06 * span
        line = {"color": style.GREY, "linewidth": 0.7, "solid_joinstyle": "miter"}
        mark = {"color": COLORS[0], "marker": "o", "markersize": 3.2, "linestyle": "", "zorder": 3, "clip_on": False}
        lines += [Line([rank, rank, edge], [0, depth, depth], line), Line([rank], [0], mark)]
        words = f"{name}  {rank:.2f} " if first else f" {rank:.2f}  {name}"
        texts.append((edge, depth, words, {"ha": "right" if first else "left", "va": "center", "fontsize": 7}))
    for at, (first, last) in enumerate(groups):
        ends = [ranks[first] - 0.015 * span, ranks[last] + 0.015 * span]
        lines.append(Line(ends, [-0.17 - 0.28 * at] * 2, thick))
    limits = (low - 0.1 * span, max(high + 0.1 * span, low + distance + 0.02 * span))
    panel = Panel(lines, x_limits=limits, y_limits=(-top - lift * (rows + 0.7), 1.4), texts=texts)
    width = style.COLUMN if max(map(len, names)) < 16 else style.PAGE
    return Chart([panel], width=width, height=0.17 * (rows + 1.5 * len(groups)), room=0.75, bare=True)
