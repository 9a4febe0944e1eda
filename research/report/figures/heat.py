"""A metric over two swept keys, as a grid of numbers."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.evaluation.views import COLORS
from research.metrics import direction
from research.report.cell import EQUAL
from research.report.collect import Hole
from research.report.figures import points, style
from research.report.figures.chart import Chart, Line, Panel, Text
from research.report.figures.points import Mean
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError, plans_for
from research.report.table import Table

LARGEST, PAIRS, PANELS = 12, 2, 4  # most values of a key, pairs of keys, and panels


def heat_map(scene: Scene) -> list[Plan]:
    """Every main metric over pairs of swept keys, numbers first, where all cells may be compared."""
    table = scene.table
    keys = [key for key in points.swept(table) if 2 <= len(points.known_values(table.runs, key)) <= LARGEST]
    keys.sort(key=lambda key: not points.numeric(table.runs, key))
    pairs = [pair for pair in itertools.combinations(keys, 2) if _crossed(table, *pair)][:PAIRS]
    cases = [
        (table, metric, *pair)
        for pair in pairs
        for metric in points.main_metrics(table)
        if not set(pair) & set(points.apart(metric, table))
    ]
    lacks = "no two keys are swept against each other (besides seed and fold), or no metric may be compared over them"
    return plans_for(_sketch, cases, lacks)


def _crossed(table: Table, down: str, across: str) -> bool:
    """Whether most combinations of the values of two keys were planned."""
    rows, columns = (len(points.known_values(table.runs, key)) for key in (down, across))
    return 2 * len({run.at((down, across)) for run in table.runs}) >= rows * columns


def _sketch(table: Table, metric: str, down: str, across: str) -> Sketch:
    if len(points.known_values(table.runs, down)) > len(points.known_values(table.runs, across)):
        down, across = across, down
    rows, columns = points.known_values(table.runs, down), points.known_values(table.runs, across)
    separating = [key for key in points.apart(metric, table) if key not in (down, across)]
    means = {
        (panel, pair): mean
        for (panel, pair), mean in points.averages(table, metric, separating, (down, across)).items()
        if not any(isinstance(value, Hole) for value in pair)
    }
    sets = list(dict.fromkeys(panel for (panel, _), mean in means.items() if mean.n))
    means = {setting: mean for setting, mean in means.items() if setting[0] in sets[:PANELS]}
    if not means:
        raise UnfitError(f"no run has {metric}")
    known = {setting: mean for setting, mean in means.items() if mean.n}
    usual = max(mean.n for mean in means.values())
    panels, ranges = [], []
    for data in sets[:PANELS]:
        here = {
            (rows.index(pair[0]), columns.index(pair[1])): mean
            for (panel, pair), mean in known.items()
            if panel == data
        }
        title = points.label_of(separating, data)
        panels.append(_panel(here, (len(rows), len(columns)), metric, usual, title))
        of_panel = {setting: mean for setting, mean in known.items() if setting[0] == data}
        ranges.append(points.extremes(of_panel, metric, separating, (down, across)))
    chart = Chart(
        panels,
        style.key_label(across),
        style.key_label(down),
        row_names=[points.word(value) for value in rows],
        column_names=[points.word(value) for value in columns],
    )
    name = style.metric_label(metric, arrow=False)
    shades = " with shades of its own" if len(panels) > 1 else ""
    best = "Darker is better; the best mean of cells all of whose runs finished is outlined."
    caption = style.joined(
        f"{style.sentence(name)} over {down} and {across}{style.by_keys((), separating)}{shades}.",
        points.averaged_words(table, means.values(), bands=False),
        *ranges,
        best if direction(metric) else "Darker is larger.",
        len(known) < len(panels) * len(rows) * len(columns) and "Hatched: no run finished there.",
        any(mean.n < usual for mean in known.values()) and f"n is written where it is not {usual}.",
        style.not_drawn(len(sets[PANELS:])),
    )
    title = f"{name} over {style.key_label(down)} and {style.key_label(across)}"
    return Sketch(f"heat_map-{metric}-{down}-{across}", title, caption, points.runs_of(means.values()), chart)


def _panel(means: Mapping[Any, Mean], shape: tuple[int, int], metric: str, usual: int, title: str) -> Panel:
    """Cells (row, column) with their means; the best one is outlined, with those equal to it."""
    table = np.full(shape, np.nan)
    for at, mean in means.items():
        table[at] = mean.value
    shades = shades_of(table, metric)
    texts = {at: f"{table[at]:.4g}" + (f"\nn={mean.n}" if mean.n != usual else "") for at, mean in means.items()}
    best = points.best_of(means, metric)
    outlines = [
        outline(*at)
        for at, mean in sorted(means.items())
        if best is not None and mean.cell.complete and math.isclose(table[at], table[best], rel_tol=EQUAL)
    ]
    return Panel(outlines, title, cells=shades, texts=cell_texts(texts, shades))


def outline(row: int, column: int) -> Line:
    """A frame around a cell."""
    left, right, top, bottom = column - 0.46, column + 0.46, row - 0.46, row + 0.46
    look = {"color": COLORS[1], "linewidth": 1.6, "solid_joinstyle": "miter"}
    return Line([left, right, right, left, left], [top, top, bottom, bottom, top], look)


def cell_texts(texts: Mapping[tuple[int, int], str], shades: np.ndarray) -> list[Text]:
    """Texts in the middle of cells (row, column), white on dark shades."""
    look = {"ha": "center", "va": "center", "fontsize": 6.8 if shades.shape[1] <= 6 else 5.8}
    return [
        (column, row, text, look | {"color": "white" if shades[row, column] > 0.45 else "black"})
        for (row, column), text in texts.items()
    ]


def shades_of(table: np.ndarray, metric: str) -> np.ndarray:
    """0 to 1, where 1 is the best number, or the largest one of a metric without a direction.

    Shades follow the logarithm where numbers reach far.
    """
    scaled = np.log(table) if style.wide(table[np.isfinite(table)].tolist()) else table
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    share = (scaled - low) / (high - low) if high > low else np.where(np.isfinite(table), 0.3, np.nan)
    return 1 - share if direction(metric) == "lower" else share
