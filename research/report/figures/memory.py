"""How far back in time the gradient of the loss reaches, by cell."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from research.report.collect import Hole, Run
from research.report.figures import points, style
from research.report.figures.best import dataset_of, load
from research.report.figures.chart import DASHES, Chart, Line, Panel, look
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch, UnavailableError, UnfitError
from research.report.keys import distinct
from research.report.statistics import interval
from research.report.texts import plural

REACH, CELL = "test/gradient_reach", "model.cell"
SEEDS, CELLS, PANELS = 3, 6, 4
DECADES = 12  # powers of ten below the largest norm that are drawn
DOTTED = {"linewidth": 0.8, "linestyle": DASHES[2], "zorder": 2}  # of fresh parameters


def gradient_norm(scene: Scene) -> list[Plan]:
    """One figure, a panel for each data set."""
    if not any(run.metrics.get(REACH) is not None for run in scene.table.runs if run.finished):
        raise UnfitError(f"no finished run has {REACH} (models that predict from a whole sequence have)")
    return [functools.partial(_sketch, scene)]


def _norms(scene: Scene, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Norm of the gradient by distance to the end, [T], of a trained run and of its fresh parameters."""
    import jax

    from research import engine
    from research.evaluation.memory import gradient_by_distance

    loaded, test = load(scene, run), dataset_of(scene, run).parts["test"]
    key = engine.purpose_key(points.seed_of(run) or 0, engine.FIGURES)
    fresh = loaded.model.fresh(jax.random.fold_in(key, 4))  # the draw of the run's own figure
    return gradient_by_distance(loaded.model, loaded.params, test), gradient_by_distance(loaded.model, fresh, test)


def geometric_band(norms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geometric mean over seeds, and the 95 % t interval of the logarithm as norms; NaN with one seed."""
    with np.errstate(divide="ignore"):
        logs = np.log10(np.stack(norms))
    logs = np.where(np.isfinite(logs), logs, np.nan)
    bands = [interval(list(column)) if np.isfinite(column).all() else None for column in logs.T]
    low, high = np.array([band or (np.nan, np.nan) for band in bands]).T
    return 10 ** logs.mean(0), 10**low, 10**high


def _lines(norms: Sequence[tuple[np.ndarray, np.ndarray]], number: int, name: str) -> list[Line]:
    """Norms of trained and of fresh parameters, means over seeds."""
    trained, low, high = geometric_band([after for after, _ in norms])
    start, *_ = geometric_band([before for _, before in norms])
    lags = range(len(trained))
    every = {"markevery": max(1, len(lags) // 8)}
    return [
        Line(lags, trained, {**look(number), **every}, name, (low, high)),
        Line(lags, start, look(number, marked=False) | DOTTED),
    ]


def _sketch(scene: Scene) -> Sketch:
    table = scene.table
    of_data, settings = points.data_keys(table), points.method_keys(table)
    runs = [run for run in table.runs if run.finished and run.metrics.get(REACH) is not None]
    sets = list(dict.fromkeys(points.values(run, of_data) for run in runs))[:PANELS]
    cells = [cell for cell in distinct(runs, CELL) if not isinstance(cell, Hole)][:CELLS] or [None]
    panels: list[Panel] = []
    used: dict[str, None] = {}
    counts, failures = [], []
    for data in sets:
        lines: list[Line] = []
        for number, cell in enumerate(cells):
            of_cell = [run for run in runs if points.values(run, of_data) == data and cell in (None, run.value(CELL))]
            best = points.ranked(of_cell, scene.judge)[:1]
            same = points.grouped(of_cell, settings)[(points.values(best[0], settings),)][:SEEDS] if best else []
            norms = []
            for run in same:
                try:
                    norms.append(_norms(scene, run))
                    used[run.run_id] = None
                except UnavailableError as error:
                    failures.append(str(error))
            if norms:
                name = points.word(cell) if cell is not None else "model"
                if len(sets) == 1 and any(key != CELL for key in settings):
                    name = points.label_of(table, settings, points.values(same[0], settings))
                lines += _lines(norms, number, name)
                counts.append(len(norms))
        panels.append(Panel(lines, points.label_of(table, of_data, data) if of_data else "", logarithmic=True))
    norms = np.concatenate([np.zeros(0), *(line.y for panel in panels for line in panel.lines)])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if not counts:
        raise UnavailableError(failures[0] if failures else "no figure gradient_norm: no run can be loaded")
    limits = (max(norms.min() / 2, norms.max() * 10.0**-DECADES), norms.max() * 3) if len(norms) else None
    panels = [dataclasses.replace(panel, y_limits=limits) for panel in panels]
    entry = Line([], [], {"color": style.GREY, **DOTTED}, "at start")  # of the legend
    panels[-1] = dataclasses.replace(panels[-1], lines=[*panels[-1].lines, entry])
    chart = Chart(
        panels,
        "steps back in time",
        "gradient norm",
        columns=len(panels),
        height=2.3,
        room=0.0,
        shared="y",
        ticks=(5, None),
    )
    caption = (
        "Norm of the gradient of the loss at the end of a sequence with respect to earlier states of the last layer,"
        " mean over at most 512 test rows; dotted: fresh parameters."
    )
    if max(counts) > 1:
        caption += f" Geometric means over {points.counted(counts)} seeds; bands are 95 % t intervals."
    if any(key != CELL for key in settings):
        caption += f" Of each cell the best configuration by {scene.judge}."
    caption += f" {plural(len(failures), 'run')} could not be loaded." if failures else ""
    return Sketch("gradient_norm", "Gradient norm over time", caption, tuple(used), chart)
