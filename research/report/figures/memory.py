"""How far back in time the gradient of the loss reaches, by cell."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from research.inputs import FIGURES, purpose_key
from research.report.again import UnavailableError, dataset_of, load
from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import DASHES, Chart, Line, Panel, look
from research.report.figures.scene import Plan, Scene, Sketch, plans_for
from research.report.statistics import interval
from research.report.texts import plural

REACH, CELL = "test/gradient_reach", "model.cell"
SEEDS, CELLS, PANELS = 3, 6, 4
DECADES = 12  # powers of ten below the largest norm that are drawn
DOTTED = {"linewidth": 0.8, "linestyle": DASHES[2], "zorder": 2}  # of fresh parameters


def gradient_norm(scene: Scene) -> list[Plan]:
    """One figure, a panel for each data set."""
    runs = [run for run in scene.table.runs if run.finished and run.metrics.get(REACH) is not None]
    lacks = f"no finished run has {REACH} (models that predict from a whole sequence have)"
    return plans_for(_sketch, [(scene, runs)] if runs else [], lacks)


def _norms(scene: Scene, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Norm of the gradient by distance to the end, [T], of a trained run and of its fresh parameters."""
    import jax

    from research.evaluation.memory import gradient_by_distance

    loaded, (parts, _) = load(scene.folder, run), dataset_of(scene.folder, run, scene.once)
    key = purpose_key(points.seed_of(run) or 0, FIGURES)
    fresh = loaded.model.fresh(jax.random.fold_in(key, 4))  # the draw of the run's own figure
    trained, start = (gradient_by_distance(loaded.model, params, parts["test"]) for params in (loaded.params, fresh))
    return trained, start


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
    return [
        Line(lags, trained, look(number, markevery=max(1, len(lags) // 8)), name, (low, high)),
        Line(lags, start, look(number, marked=False) | DOTTED),
    ]


def _sketch(scene: Scene, runs: Sequence[Run]) -> Sketch:
    of_data, settings = points.data_keys(scene.table), points.method_keys(scene.table)
    sets = list(dict.fromkeys(run.at(of_data) for run in runs))
    cells = points.known_values(runs, CELL)[:CELLS] or [None]
    chooses = any(key != CELL for key in settings)
    panels: list[Panel] = []
    used: list[str] = []
    counts, failures, reaches = [], [], []
    for data in sets[:PANELS]:
        lines: list[Line] = []
        for number, cell in enumerate(cells):
            of_cell = [run for run in runs if run.at(of_data) == data and cell in (None, run.value(CELL))]
            best = points.ranked(of_cell, scene.judge)[:1]
            norms = []
            for run in [run for run in of_cell if best and run.at(settings) == best[0].at(settings)][:SEEDS]:
                try:
                    norms.append(_norms(scene, run))
                    used.append(run.run_id)
                except UnavailableError as error:
                    failures.append(str(error))
            if norms:
                name = points.word(cell) if cell is not None else "model"
                if len(sets) == 1 and chooses:
                    name = points.label_of(settings, best[0].at(settings))
                lines += _lines(norms, number, name)
                counts.append(len(norms))
                first, last = lines[-2].y[0], lines[-2].y[-1]
                where = " on ".join(filter(None, (name, points.label_of(of_data, data))))
                reaches.append(f"{where} {first:.2g} to {last:.2g} ({len(lines[-2].y) - 1} steps back)")
        panels.append(Panel(lines, points.label_of(of_data, data), logarithmic=True))
    if not counts:
        raise UnavailableError(failures[0] if failures else "no figure gradient_norm: no run can be loaded")
    norms = np.concatenate([line.y for panel in panels for line in panel.lines])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    y_limits = (max(norms.min() / 2, norms.max() * 10.0**-DECADES), norms.max() * 3) if len(norms) else None
    panels = [dataclasses.replace(panel, y_limits=y_limits) for panel in panels]
    entry = Line([], [], {"color": style.GREY, **DOTTED}, "at start")  # of the legend
    panels[-1] = dataclasses.replace(panels[-1], lines=[*panels[-1].lines, entry])
    chart = Chart(panels, "steps back in time", "gradient norm")
    several = f"Geometric means over {points.counted(counts)} seeds; bands are 95 % t intervals."
    caption = style.joined(
        "Norm of the gradient of the loss at the end of a sequence with respect to earlier states of the last layer,",
        "mean over at most 512 test rows; dotted: fresh parameters.",
        max(counts) > 1 and several,
        f"Trained parameters: {'; '.join(reaches)}.",
        chooses and f"Of each cell the best configuration by {scene.judge}.",
        failures and f"{plural(len(failures), 'run')} could not be loaded.",
    )
    return Sketch("gradient_norm", "Gradient norm over time", caption, tuple(used), chart)
