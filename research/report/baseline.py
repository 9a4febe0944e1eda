"""The rows of naive methods, bounds and exact values, computed on the same data as the models."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.cell import EQUAL, Averaging, Values
from research.report.collect import Hole, Run, Runs
from research.report.keys import FOLD, SEED, ranking
from research.report.methods import label, methods_of, name_of, position
from research.report.statistics import mean_of
from research.tree import group

Point = tuple[Run, str, float]  # a run, a metric, and the value that the method has in this run


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The values of one method, `cells[column, metric]`; `row` holds `Hole.ANY` for keys that do not change them."""

    method: str
    row: Values
    cells: Mapping[tuple[Values, str], float]

    @property
    def label(self) -> str:
        return label(self.method)


def baselines(
    runs: Runs, row_keys: Sequence[str], column_keys: Sequence[str], metrics: Sequence[str], averaging: Averaging
) -> list[Baseline]:
    """The rows of all methods: one for each combination of those row keys that change the values of the method.

    Runs that did not finish count too, since a naive method does not depend on what became of the model.
    """
    points: dict[str, list[Point]] = {}
    for run in runs:
        for metric in metrics:
            for method in methods_of(run, metric):
                value = run.metrics[name_of(method, metric)]
                assert value is not None
                points.setdefault(method, []).append((run, metric, value))
    rows = []
    for method, of_method in points.items():
        keys = _deciding(of_method, row_keys, (*column_keys, FOLD, *averaging.keys))
        for of_row in group(of_method, lambda point, keys=keys: point[0].at(keys)):
            run = of_row[0][0]
            row = tuple(run.value(key) if key in keys else Hole.ANY for key in row_keys)
            cells = group(of_row, lambda point: (point[0].at(column_keys), point[1]))
            means = {(cell[0][0].at(column_keys), cell[0][1]): _mean(cell, averaging) for cell in cells}
            rows.append(Baseline(method, row, means))
    rank = ranking(runs, row_keys)
    return sorted(rows, key=lambda row: (position(row.method), rank(row.row)))


def _mean(points: Sequence[Point], averaging: Averaging) -> float:
    """The mean over folds; each fold counts once, however many runs report it."""
    settings = group(points, lambda point: point[0].at((FOLD, *averaging.keys)))
    return mean_of([mean_of([value for *_, value in of_setting]) for of_setting in settings])


def _deciding(points: Sequence[Point], row_keys: Sequence[str], others: Sequence[str]) -> list[str]:
    """The fewest row keys that, with the keys in `others`, decide the values of a method.

    Latent size and data are given up last. If not even all row keys decide the values, the method was drawn with the
    seed, and values are compared at equal seeds.
    """

    def decide(keys: Sequence[str], others: Sequence[str]) -> bool:
        first: dict[tuple[Any, ...], float] = {}
        return all(
            math.isclose(first.setdefault((metric, *run.at((*keys, *others))), value), value, rel_tol=EQUAL)
            for run, metric, value in points
        )

    if not decide(row_keys, others):
        others = (*others, SEED)
    keys = list(row_keys)
    for key in sorted(row_keys, key=lambda key: key == "model.latent_dim" or key.partition(".")[0] == "data"):
        fewer = [kept for kept in keys if kept != key]
        if decide(fewer, others):
            keys = fewer
    return keys
