"""Demšar's diagram: average ranks of methods over data sets, and which of them are not significantly different."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.metrics import direction, higher_is_better
from research.report.figures import style
from research.report.figures.best import data_keys
from research.report.figures.points import (
    apart,
    averaging_of,
    label_of,
    main_metrics,
    means_of,
    swept,
    values,
)
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.statistics import LEVEL
from research.report.table import Table

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
    """Largest runs of neighbours, as (first, last) of ascending ranks, that differ by less than `distance`.

    Runs of one method, and runs inside another, are left out.
    """
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(at for at in range(first, len(ranks)) if ranks[at] - ranks[first] < distance)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def score_matrix(
    table: Table, metric: str, methods: Sequence[str], of_data: Sequence[str]
) -> tuple[np.ndarray, list[Any], list[Any]]:
    """Means [N, K] over seeds, and the values of the keys of their data sets and methods.

    A data set that most methods have no number on is left out, then every method that lacks one of the others.
    """
    over = averaging_of(table, (*methods, *of_data))
    places: dict[tuple[Any, Any], list[Any]] = {}
    for run in table.runs:
        places.setdefault((values(run, of_data), values(run, methods)), []).append(run)
    means = means_of(places, metric, over)
    found = {place: mean.value if mean.cell.complete else None for place, mean in means.items()}
    sets = list(dict.fromkeys(place[0] for place in found))
    rows = list(dict.fromkeys(place[1] for place in found))
    known = lambda one, row: found.get((one, row)) is not None
    sets = [one for one in sets if 2 * sum(known(one, row) for row in rows) > len(rows)]
    rows = [row for row in rows if all(known(one, row) for one in sets)]
    scores = np.array([[found[one, row] for row in rows] for one in sets], np.float64).reshape(len(sets), len(rows))
    return scores, sets, rows


def critical_difference(scene: Scene) -> list[Plan]:
    """One diagram for each of the first two metrics with a direction that have enough data sets and methods."""
    table = scene.table
    of_data = data_keys(scene)
    methods = [key for key in swept(table) if key not in of_data]
    if not of_data or not methods:
        missing = "no data set" if not of_data else "nothing but data sets"
        raise UnfitError(f"it takes {SMALLEST} data sets and {SMALLEST} methods; {missing} is swept")
    plans: list[Plan] = []
    reasons = []
    for metric in main_metrics(table, len(table.metrics)):
        if not direction(metric) or set(apart(metric, table)) - set(of_data) or len(plans) == METRICS:
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
    names = [label_of(table, methods, rows[at]) for at in order]
    distance = critical_difference_of(len(rows), len(sets))
    groups = cliques(ordered, distance)
    drawn = _diagram(names, ordered, distance, groups)
    p = friedman(scores)
    caption = (
        f"Average ranks by {style.metric_label(metric, arrow=False)} (1 is best) of {len(rows)} methods over"
        f" {len(sets)} data sets, means over seeds. Thick bars join methods that Nemenyi's test does not tell apart at"
        f" 5 % (critical difference CD = {distance:.2f}; Demšar 2006). Friedman's test that all rank alike:"
        f" p = {p:.2g}."
    )
    total = len({values(run, methods) for run in table.runs})
    if total > len(rows):
        caption += f" {total - len(rows)} methods without a number on every data set are left out."
    ranked = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(names, ordered, strict=True))
    joined = "; ".join(f"{' and '.join(names[first : last + 1])}" for first, last in groups)
    return Sketch(
        name=f"critical_difference-{metric}",
        title=f"Average ranks by {style.metric_label(metric, arrow=False)}",
        caption=caption,
        alternative=f"Diagram of average ranks: {ranked}. Not told apart: {joined or 'none'}.",
        runs=tuple(run.run_id for run in table.runs if values(run, methods) in rows),
        figure=drawn,
    )


def _diagram(names: Sequence[str], ranks: Sequence[float], distance: float, groups: Sequence[tuple[int, int]]) -> Any:
    """The axis of ranks above, methods below it to both sides, thick bars between."""
    count = len(names)
    low, high = 1.0, float(count)
    left = -(-count // 2)
    rows = max(left, count - left)
    lift = 0.34  # between two lines of text, in units of the vertical axis
    top = 0.30 * len(groups) + 0.15  # room for the bars below the axis
    height = 0.75 + 0.17 * (rows + 1.5 * len(groups))
    longest = max(len(name) for name in names)
    drawn = style.figure(style.COLUMN if longest < 16 else style.PAGE, height)
    axes = drawn.subplots()
    axes.set_axis_off()
    span = high - low
    axes.plot([low, high], [0, 0], color="black", linewidth=0.8)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.1], color="black", linewidth=0.8)
        axes.text(tick, 0.16, str(tick), ha="center", va="bottom", fontsize=7)
    # the ruler may be longer than the axis, which it then says by its length
    axes.plot([low, low + distance], [0.85, 0.85], color="black", linewidth=0.8)
    for end in (low, low + distance):
        axes.plot([end, end], [0.78, 0.92], color="black", linewidth=0.8)
    axes.text(low + distance / 2, 0.95, f"CD = {distance:.2f}", ha="center", va="bottom", fontsize=7)
    for at, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        first = at < left
        row = at if first else count - 1 - at
        depth = -top - lift * (row + 1)
        edge = low - 0.06 * span if first else high + 0.06 * span
        axes.plot([rank, rank, edge], [0, depth, depth], color=style.GREY, linewidth=0.7, solid_joinstyle="miter")
        axes.plot([rank], [0], "o", color=style.COLORS[0], markersize=3.2, zorder=3, clip_on=False)
        words = f"{name}  {rank:.2f} " if first else f" {rank:.2f}  {name}"
        axes.text(edge, depth, words, ha="right" if first else "left", va="center", fontsize=7)
    for at, (first, last) in enumerate(groups):
        y = -0.17 - 0.28 * at
        axes.plot(
            [ranks[first] - 0.015 * span, ranks[last] + 0.015 * span],
            [y, y],
            color="black",
            linewidth=2.6,
            solid_capstyle="butt",
            gid=f"group{at}",
        )
    axes.set_ylim(-top - lift * (rows + 0.7), 1.4)
    axes.set_xlim(low - 0.1 * span, max(high + 0.1 * span, low + distance + 0.02 * span))
    return drawn
