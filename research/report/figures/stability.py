"""How similar the codes of different seeds are: a matrix of seeds for each setting."""

import numpy as np

from research.report.collect import Run
from research.report.figures import points, style
from research.report.figures.chart import Chart, Panel
from research.report.figures.heat import cell_texts
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.keys import CODE_CCA, CODE_CKA, FOLD, ranking
from research.report.methods import name_of
from research.report.table import Table
from research.tree import group

PANELS, NUMBERED = 12, 5  # most settings, and most seeds of a matrix with numbers
TEXTS = 0.9  # height of the title and the labels of a panel, inches


def code_stability(scene: Scene) -> list[Plan]:
    """CKA below the diagonal and mean CCA above it, between the seeds of every setting."""
    table = scene.table
    runs = [run for run in table.runs if run.similar]
    if not runs:
        raise UnfitError("no codes were compared between seeds (report.py --stability), or none could be")
    return [lambda: _sketch(table, runs)]


def _sketch(table: Table, runs: list[Run]) -> Sketch:
    keys = [*points.swept(table), *([FOLD] if len({run.value(FOLD) for run in runs}) > 1 else [])]
    rank = ranking(runs, keys)
    settings = sorted(group(runs, lambda run: run.at(keys)), key=lambda setting: rank(setting[0].at(keys)))
    shown = [sorted(setting, key=lambda run: points.seed_of(run) or 0) for setting in settings[:PANELS]]
    seeds = list(
        dict.fromkeys(str(points.seed_of(run)) for run in sorted(runs, key=lambda run: points.seed_of(run) or 0))
    )
    panels = [_panel(setting, seeds, points.label_of(keys, setting[0].at(keys))) for setting in shown]
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    chart = Chart(
        panels,
        "seed",
        "seed",
        row_names=seeds,
        column_names=seeds,
        aspect=1,
        width=style.PAGE if columns > 2 else style.COLUMN * columns,
        height=(style.PAGE / columns if columns > 2 else style.COLUMN) * rows + TEXTS * rows,
    )
    caption = style.joined(
        "Similarity of the codes of the same test rows between seeds, a panel for each setting: linear CKA below the"
        " diagonal, mean canonical correlation above it. Shades: from 0 (light) to 1 (dark), alike in all panels.",
        "Titles: means over all pairs; in parentheses those of the parameters from which the same seeds started.",
        *(
            f"{title.splitlines()[0]}: {', '.join(title.splitlines()[1:])}."
            for title in (panel.title for panel in panels)
        ),
        any(panel.cells is not None and np.isnan(panel.cells).any() for panel in panels) and "Hatched: no such run.",
        style.not_drawn(len(settings[PANELS:])),
    )
    ids = tuple(run.run_id for setting in shown for run in setting)
    return Sketch("code_stability", "Similarity of codes between seeds", caption, ids, chart)


def _panel(runs: list[Run], seeds: list[str], label: str) -> Panel:
    """The matrix of one setting; a measure that the runs do not have leaves its half hatched."""
    matrix = np.full((len(seeds), len(seeds)), np.nan)
    at = {run.run_id: seeds.index(str(points.seed_of(run))) for run in runs}
    for run in runs:
        row = at[run.run_id]
        matrix[row, row] = 1
        for name, is_shown in ((CODE_CKA, np.less), (CODE_CCA, np.greater)):
            for other, value in run.similar.get(name, {}).items():
                if other in at and is_shown(at[other], row):
                    matrix[row, at[other]] = value
    texts = {
        (int(row), int(column)): f"{matrix[row, column]:.2f}".lstrip("0")
        for row, column in np.argwhere(np.isfinite(matrix))
        if row != column and len(seeds) <= NUMBERED
    }
    lines = [label or "all runs"]
    for name, short in ((CODE_CKA, "CKA"), (CODE_CCA, "CCA")):
        values = [value for run in runs for value in run.similar.get(name, {}).values()]
        if values:
            start = runs[0].metrics.get(name_of("untrained", name))
            lines.append(f"{short} {np.mean(values):.2f}" + ("" if start is None else f" ({start:.2f})"))
    return Panel(title="\n".join(lines), cells=matrix, texts=cell_texts(texts, matrix))
