"""A metric over two swept keys, as a grid of numbers."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.metrics import direction
from research.report.cell import EQUAL
from research.report.collect import Hole
from research.report.figures import style
from research.report.figures.points import (
    Mean,
    apart,
    averaged_words,
    averaging_of,
    label_of,
    main_metrics,
    means_of,
    numeric,
    shown_runs,
    swept,
    values,
    word,
)
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.keys import better, distinct
from research.report.table import Table

LARGEST, PAIRS, PANELS = 12, 2, 4  # most values of a key, pairs of keys, and panels


def heat_map(scene: Scene) -> list[Plan]:
    """Every main metric over pairs of swept keys, numbers first, where all cells may be compared."""
    table = scene.table
    keys = [key for key in swept(table) if 2 <= len(_values(table, key)) <= LARGEST]
    keys.sort(key=lambda key: not numeric(table.runs, key))
    pairs = [pair for pair in itertools.combinations(keys, 2) if _crossed(table, *pair)][:PAIRS]
    if not pairs:
        raise UnfitError("no two keys are swept against each other (besides seed and fold)")
    plans: list[Plan] = []
    for pair in pairs:
        for metric in main_metrics(table):
            if not set(pair) & set(apart(metric, table)):
                plans.append(functools.partial(_sketch, table, metric, *pair))
    if not plans:
        raise UnfitError("no metric may be compared over two swept keys")
    return plans


def _values(table: Table, key: str) -> list[Any]:
    return [value for value in distinct(table.runs, key) if not isinstance(value, Hole)]


def _crossed(table: Table, down: str, across: str) -> bool:
    """Whether most combinations of the values of two keys were planned."""
    planned = {values(run, (down, across)) for run in table.runs}
    return len(planned) >= 0.5 * len(_values(table, down)) * len(_values(table, across)) >= 1


def _sketch(table: Table, metric: str, down: str, across: str) -> Sketch:
    if len(_values(table, down)) > len(_values(table, across)):
        down, across = across, down
    rows, columns = _values(table, down), _values(table, across)
    separating = [key for key in apart(metric, table) if key not in (down, across)]
    panels = _panels(table, separating)
    left, panels = panels[PANELS:], panels[:PANELS]
    over = averaging_of(table, (down, across, *separating))
    cells: dict[tuple[Any, ...], list[Any]] = {}
    for panel, row, column in itertools.product(panels, rows, columns):
        own = [run for run in table.runs if values(run, (*separating, down, across)) == (*panel, row, column)]
        if own:
            cells[panel, row, column] = own
    means = means_of(cells, metric, over)
    panels = [panel for panel in panels if any(mean.n for place, mean in means.items() if place[0] == panel)]
    if not panels:
        raise UnfitError(f"no run has {metric}")
    wide = len(panels) > 1
    width = style.PAGE if wide else min(style.PAGE, max(style.COLUMN, 0.9 + 0.55 * len(columns)))
    drawn = style.figure(width, 0.75 + 0.34 * len(rows) + 0.2 * bool(separating))
    grid = drawn.subplots(1, len(panels), squeeze=False, sharey=True)
    usual = max(mean.n for mean in means.values())
    own_scale = any(key.partition(".")[0] == "data" or key == "data" for key in separating) or wide
    for at, panel in enumerate(panels):
        axes = grid[0][at]
        here = {(row, column): means.get((panel, row, column)) for row in rows for column in columns}
        _grid(axes, here, rows, columns, metric, usual)
        if separating:
            axes.set_title(label_of(table, separating, panel))
        axes.set_xlabel(style.key_label(across))
    grid[0][0].set_ylabel(style.key_label(down))
    text = f"{style.sentence(style.metric_label(metric, arrow=False))} over {down} and {across}"
    if separating:
        text += f", a panel for each {style.listed(separating)}" + " with shades of its own" * own_scale
    caption = f"{text}. {averaged_words(table, over, list(means.values()), bands=False)}"
    if direction(metric):
        caption += " Darker is better; the best mean of cells all of whose runs finished is outlined."
    else:
        caption += " Darker is larger."
    if any(mean is None or mean.value is None for mean in means.values()) or len(means) < len(panels) * len(rows) * len(
        columns
    ):
        caption += " Hatched: no run finished there."
    if any(0 < mean.n < usual for mean in means.values()):
        caption += f" n is written where it is not {usual}."
    if left:
        caption += f" Not drawn for want of room: {len(left)} more."
    found = [
        f"{label_of(table, (*separating, down, across), (*place[0], *place[1:]))}: {mean.value:.4g}"
        for place, mean in means.items()
        if mean.value is not None
    ]
    return Sketch(
        name=f"heat_map-{metric}-{down}-{across}",
        title=f"{style.metric_label(metric, arrow=False)} over {style.key_label(down)} and {style.key_label(across)}",
        caption=caption,
        alternative=f"Grid of numbers. {text}. {'; '.join(found[:40])}.",
        runs=shown_runs(list(means.values())),
        figure=drawn,
    )


def _panels(table: Table, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(values(run, keys) for run in table.runs))


def _grid(
    axes: Any,
    here: dict[tuple[Any, Any], Mean | None],
    rows: Sequence[Any],
    columns: Sequence[Any],
    metric: str,
    usual: int,
) -> None:
    """Shaded cells with their numbers; the best outlined, those without a number hatched."""
    from matplotlib.patches import Rectangle

    known = {place: mean for place, mean in here.items() if mean is not None and mean.value is not None}
    found = np.full((len(rows), len(columns)), np.nan)
    for (row, column), mean in known.items():
        found[rows.index(row), columns.index(column)] = mean.value
    shades, colors = _shades(found, metric), style.shades()
    # one row of rectangles and no image: vector output scales, and each cell is one shape
    for down, across in np.ndindex(found.shape):
        corner = (across - 0.5, down - 0.5)
        if math.isnan(found[down, across]):
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor=style.LIGHT, hatch="////", linewidth=0))
            continue
        shade = shades[down, across]
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colors(0.05 + 0.95 * shade), edgecolor="white", linewidth=0.8))
        mean = known[rows[down], columns[across]]
        text = _number(float(found[down, across]), found)
        if mean.n != usual:
            text += f"\nn={mean.n}"
        size = 6.8 if len(columns) <= 6 else 5.8
        axes.text(
            across, down, text, ha="center", va="center", fontsize=size, color="white" if shade > 0.45 else "black"
        )
    best = None
    for place, mean in known.items():
        if not mean.cell.complete:  # some runs did not finish, or were never planned: never the best
            continue
        if best is None or better(mean.value or 0.0, known[best].value or 0.0, metric):
            best = place
    for place, mean in known.items():
        if best is None or not direction(metric) or not mean.cell.complete or not _alike(mean, known[best]):
            continue
        corner = (columns.index(place[1]) - 0.46, rows.index(place[0]) - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=style.COLORS[1], linewidth=1.6))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [word(value) for value in columns])
    axes.set_yticks(range(len(rows)), [word(value) for value in rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _alike(one: Mean, other: Mean) -> bool:
    return math.isclose(one.value or 0.0, other.value or 0.0, rel_tol=EQUAL)


def _shades(found: np.ndarray, metric: str) -> np.ndarray:
    """0 to 1, larger is better (or larger, without a direction); by the logarithm where values reach far."""
    known = found[np.isfinite(found)]
    scaled = np.log(found) if style.wide(list(known)) else found
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    share = (scaled - low) / (high - low) if high > low else np.where(np.isfinite(found), 0.3, np.nan)
    return 1 - share if direction(metric) == "lower" else share


def _number(value: float, found: np.ndarray) -> str:
    """As many digits as tell the cells apart, at most four that count."""
    known = found[np.isfinite(found)]
    span = float(known.max() - known.min()) or abs(float(known.max())) or 1.0
    digits = max(0, min(6, 2 - math.floor(math.log10(span))))
    text = f"{value:.{digits}f}"
    return text if len(text) <= 8 else f"{value:.3g}"
