"""How far back in time the gradient of the loss reaches, by cell."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.report.collect import Hole, Run
from research.report.figures import style
from research.report.figures.best import data_keys, dataset_of, load, ranked
from research.report.figures.points import label_of, swept, values, word
from research.report.figures.scene import Plan, Scene, Sketch, UnavailableError, UnfitError
from research.report.keys import SEED, distinct
from research.report.statistics import interval
from research.report.texts import plural

REACH, CELL = "test/gradient_reach", "model.cell"
SEEDS, CELLS, PANELS = 3, 6, 4
DECADES = 12  # powers of ten below the largest norm that are drawn


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
    seed = run.value(SEED)
    key = engine.purpose_key(seed if isinstance(seed, int) else 0, engine.FIGURES)
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


def _sketch(scene: Scene) -> Sketch:
    table = scene.table
    of_data = data_keys(scene)
    runs = [run for run in table.runs if run.metrics.get(REACH) is not None]
    panels = list(dict.fromkeys(values(run, of_data) for run in runs))[:PANELS]
    cells = [cell for cell in distinct(runs, CELL) if not isinstance(cell, Hole)][:CELLS] or [None]
    settings = [key for key in swept(table) if key not in of_data]
    wide = len(panels) > 1
    drawn = style.figure(style.PAGE if wide else style.COLUMN, 2.3)
    grid = drawn.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    used: dict[str, None] = {}
    counts: set[int] = set()
    largest, smallest, sentences, failures = 0.0, np.inf, [], []
    for axes, panel in zip(grid, panels, strict=True):
        for number, cell in enumerate(cells):
            of_cell = [
                run
                for run in runs
                if values(run, of_data) == panel and (cell is None or run.value(CELL) == cell) and run.finished
            ]
            best = ranked(scene, of_cell)[:1]
            same = [run for run in of_cell if best and values(run, settings) == values(best[0], settings)][:SEEDS]
            found = []
            for run in same:
                try:
                    found.append(_norms(scene, run))
                    used[run.run_id] = None
                except UnavailableError as error:
                    failures.append(str(error))
            if not found:
                continue
            name = word(cell) if cell is not None else "model"
            if [key for key in settings if key != CELL]:
                name = label_of(table, settings, values(same[0], settings)) if len(panels) == 1 else name
            look = {"color": style.COLORS[number % len(style.COLORS)]}
            trained, low, high = geometric_band([norms for norms, _ in found])
            start, *_ = geometric_band([norms for _, norms in found])
            lags = np.arange(len(trained))
            marks = {"marker": style.MARKERS[number % len(style.MARKERS)], "markevery": max(1, len(lags) // 8)}
            (handles[name],) = axes.plot(lags, trained, zorder=3, **marks, **look)
            axes.fill_between(lags, low, high, alpha=0.16, linewidth=0, zorder=1, **look)
            axes.plot(lags, start, linewidth=0.8, linestyle=style.DASHES[2], zorder=2, **look)
            counts.add(len(found))
            for curve in (trained, start):
                positive = curve[np.isfinite(curve) & (curve > 0)]
                if len(positive):
                    largest, smallest = max(largest, positive.max()), min(smallest, positive.min())
            sentences.append(f"{name}: {trained[0]:.2g} at the end, {trained[-1]:.2g} at {len(trained) - 1} steps back")
        axes.set_yscale("log")
        axes.set_xlabel("steps back in time")
        axes.locator_params(axis="x", nbins=5)
        if of_data:
            axes.set_title(label_of(table, of_data, panel))
    if not handles:
        raise UnavailableError(failures[0] if failures else "no figure gradient_norm: no run is there to be loaded")
    grid[0].set_ylim(max(smallest / 2, largest * 10.0**-DECADES), largest * 3)
    grid[0].set_ylabel("gradient norm")
    from matplotlib.lines import Line2D

    handles["at start"] = Line2D([], [], color=style.GREY, linewidth=0.8, linestyle=style.DASHES[2])
    style.legend_above(drawn, list(handles.values()), list(handles))
    text = "Norm of the gradient of the loss at the end of a sequence with respect to earlier states of the last layer"
    caption = f"{text}, mean over at most 512 test rows; dotted: fresh parameters."
    if max(counts) > 1:
        many = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        caption += f" Geometric means over {many} seeds; bands are 95 % t intervals."
    if any(key != CELL for key in settings):
        caption += f" Of each cell the best configuration by {scene.judge}."
    if failures:
        caption += f" {plural(len(failures), 'run')} could not be loaded."
    return Sketch(
        "gradient_norm",
        "Gradient norm over time",
        caption,
        f"Line chart. {text}. {'; '.join(sentences)}.",
        tuple(used),
        drawn,
    )
