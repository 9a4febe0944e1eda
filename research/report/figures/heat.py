"""A metric over two swept keys, as a grid of numbers."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.metrics import direction
from research.report.cell import EQUAL
from research.report.collect import Hole
from research.report.figures import points, style
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnfitError
from research.report.figures.tiles import Cells, Shaded
from research.report.keys import better, distinct
from research.report.table import Table

LARGEST, PAIRS, PANELS = 12, 2, 4  # most values of a key, pairs of keys, and panels


def heat_map(scene: Scene) -> list[Plan]:
    """Every main metric over pairs of swept keys, numbers first, where all cells may be compared."""
    table = scene.table
    keys = [key for key in points.swept(table) if 2 <= len(_values(table, key)) <= LARGEST]
    keys.sort(key=lambda key: not points.numeric(table.runs, key))
    pairs = [pair for pair in itertools.combinations(keys, 2) if _crossed(table, *pair)][:PAIRS]
    if not pairs:
        raise UnfitError("no two keys are swept against each other (besides seed and fold)")
    plans: list[Plan] = [
        functools.partial(_sketch, table, metric, *pair)
        for pair in pairs
        for metric in points.main_metrics(table)
        if not set(pair) & set(points.apart(metric, table))
    ]
    if not plans:
        raise UnfitError("no metric may be compared over two swept keys")
    return plans


def _values(table: Table, key: str) -> list[Any]:
    return [value for value in distinct(table.runs, key) if not isinstance(value, Hole)]


def _crossed(table: Table, down: str, across: str) -> bool:
    """Whether most combinations of the values of two keys were planned."""
    planned = {points.values(run, (down, across)) for run in table.runs}
    return len(planned) >= 0.5 * len(_values(table, down)) * len(_values(table, across)) >= 1


Pair = tuple[Any, Any]  # values of the keys that go down and across


def _sketch(table: Table, metric: str, down: str, across: str) -> Sketch:
    if len(_values(table, down)) > len(_values(table, across)):
        down, across = across, down
    rows, columns = _values(table, down), _values(table, across)
    separating = [key for key in points.apart(metric, table) if key not in (down, across)]
    panels = list(dict.fromkeys(points.values(run, separating) for run in table.runs))
    left_out, panels = len(panels[PANELS:]), panels[:PANELS]
    over = points.averaging_of(table, (down, across, *separating))
    cells = {
        (panel, pair): runs
        for (panel, pair), runs in points.grouped(table.runs, separating, (down, across)).items()
        if panel in panels and not any(isinstance(value, Hole) for value in pair)
    }
    means = points.means_of(cells, metric, over)
    panels = [panel for panel in panels if any(mean.n for (where, _), mean in means.items() if where == panel)]
    if not panels:
        raise UnfitError(f"no run has {metric}")
    usual = max(mean.n for mean in means.values())
    shaded = []
    for panel in panels:
        here = {pair: mean for (where, pair), mean in means.items() if where == panel and mean.value is not None}
        title = points.label_of(table, separating, panel) if separating else ""
        shaded.append(_shaded(here, rows, columns, metric, usual, title))
    picture = Cells(
        shaded,
        [points.word(value) for value in rows],
        [points.word(value) for value in columns],
        style.key_label(down),
        style.key_label(across),
        style.PAGE if len(panels) > 1 else min(style.PAGE, max(style.COLUMN, 0.9 + 0.55 * len(columns))),
        0.75 + 0.34 * len(rows) + 0.2 * bool(separating),
    )
    caption = f"{style.sentence(style.metric_label(metric, arrow=False))} over {down} and {across}"
    if separating:
        of_data = any(key.partition(".")[0] == "data" for key in separating)
        caption += f", a panel for each {style.listed(separating)}"
        caption += " with shades of its own" if of_data or len(panels) > 1 else ""
    caption += f". {points.averaged_words(table, over, means.values(), bands=False)}"
    if direction(metric):
        caption += " Darker is better; the best mean of cells all of whose runs finished is outlined."
    else:
        caption += " Darker is larger."
    if any(np.isnan(panel.shades).any() for panel in shaded):
        caption += " Hatched: no run finished there."
    if any(0 < mean.n < usual for mean in means.values()):
        caption += f" n is written where it is not {usual}."
    caption += f" Not drawn for want of room: {left_out} more." if left_out else ""
    title = f"{style.metric_label(metric, arrow=False)} over {style.key_label(down)} and {style.key_label(across)}"
    runs = points.shown_runs(means.values())
    return Sketch(f"heat_map-{metric}-{down}-{across}", title, caption, runs, picture)


def _shaded(
    means: Mapping[Pair, points.Mean], rows: Sequence[Any], columns: Sequence[Any], metric: str, usual: int, title: str
) -> Shaded:
    """Cells with their means; the best one is outlined, with those equal to it."""
    table = np.full((len(rows), len(columns)), np.nan)
    texts = [[""] * len(columns) for _ in rows]
    at = {pair: (rows.index(pair[0]), columns.index(pair[1])) for pair in means}
    for pair, mean in means.items():
        table[at[pair]] = mean.value
    for pair, mean in means.items():
        row, column = at[pair]
        texts[row][column] = number(table[row, column], table) + (f"\nn={mean.n}" if mean.n != usual else "")
    whole = [pair for pair, mean in means.items() if mean.cell.complete]  # all runs were planned and finished
    best = table[at[whole[0]]] if whole else math.nan
    for pair in whole:
        best = table[at[pair]] if better(table[at[pair]], best, metric) else best
    known = whole if direction(metric) else []
    outlined = [at[pair] for pair in known if math.isclose(table[at[pair]], best, rel_tol=EQUAL)]
    return Shaded(shades_of(table, metric), texts, sorted(outlined), title)


def shades_of(table: np.ndarray, metric: str) -> np.ndarray:
    """0 to 1, where 1 is the best number, or the largest one of a metric without a direction.

    Shades follow the logarithm where numbers reach far.
    """
    scaled = np.log(table) if style.wide(table[np.isfinite(table)].tolist()) else table
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    share = (scaled - low) / (high - low) if high > low else np.where(np.isfinite(table), 0.3, np.nan)
    return 1 - share if direction(metric) == "lower" else share


def number(value: float, table: np.ndarray) -> str:
    """A value with as many digits as distinguish the cells, at most four significant ones."""
    span = float(np.nanmax(table) - np.nanmin(table)) or abs(float(np.nanmax(table))) or 1.0
    digits = max(0, min(6, 2 - math.floor(math.log10(span))))
    text = f"{value:.{digits}f}"
    return text if len(text) <= 8 else f"{value:.3g}"
