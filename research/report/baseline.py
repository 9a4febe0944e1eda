"""Rows of values to hold the models against: what naive methods reach on the same data, what is known."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.cell import EQUAL, Averaging
from research.report.collect import Hole, Run, Runs
from research.report.keys import FOLD, SEED, ranking
from research.report.methods import label, methods_of, name_of, position
from research.report.statistics import mean_of
from research.tree import group

Point = tuple[Run, str, float]  # a run, a metric and the baseline's value in it


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A row of values, `cells[column, metric]`; `row` has `Hole.ANY` for keys that do not change them."""

    method: str
    row: tuple[Any, ...]
    cells: Mapping[tuple[tuple[Any, ...], str], float]

    @property
    def label(self) -> str:
        return label(self.method)


def baselines(
    runs: Runs, row_keys: Sequence[str], column_keys: Sequence[str], metrics: Sequence[str], averaging: Averaging
) -> list[Baseline]:
    """One row for each distinct value of the row keys that change a baseline, whatever became of the runs."""
    points: dict[str, list[Point]] = {}
    for run in runs:
        for metric in metrics:
            for method in methods_of(run, metric):
                value = run.metrics[name_of(method, metric)]
                assert value is not None
                points.setdefault(method, []).append((run, metric, value))
    found = []
    for method, of_method in points.items():
        keys = _deciding(of_method, row_keys, (*column_keys, FOLD, *averaging.keys))
        for of_row in group(of_method, lambda point, keys=keys: _at(point[0], keys)):
            run = of_row[0][0]
            row = tuple(run.value(key) if key in keys else Hole.ANY for key in row_keys)
            of_cells = group(of_row, lambda point: (_at(point[0], column_keys), point[1]))
            cells = {(_at(same[0][0], column_keys), same[0][1]): _mean(same, averaging) for same in of_cells}
            found.append(Baseline(method, row, cells))
    rank = ranking(runs, row_keys)
    return sorted(found, key=lambda row: (position(row.method), rank(row.row)))


def _at(run: Run, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(run.value(key) for key in keys)


def _mean(points: Sequence[Point], averaging: Averaging) -> float:
    """The mean over folds, each counted once however many runs report it."""
    settings = group(points, lambda point: _at(point[0], (FOLD, *averaging.keys)))
    return mean_of([mean_of([value for *_, value in same]) for same in settings])


def _deciding(points: Sequence[Point], row_keys: Sequence[str], others: Sequence[str]) -> list[str]:
    """The fewest row keys that still decide a baseline's values; latent size and data are the last to be given up.

    Where not even all of them do, it was drawn with the seed, and the values are compared at equal seeds.
    """

    def decide(keys: Sequence[str], others: Sequence[str]) -> bool:
        seen: dict[tuple[Any, ...], float] = {}
        for run, metric, value in points:
            if not math.isclose(seen.setdefault((metric, *_at(run, (*keys, *others))), value), value, rel_tol=EQUAL):
                return False
        return True

    if not decide(row_keys, others):
        others = (*others, SEED)
    keys = list(row_keys)
    for key in sorted(row_keys, key=lambda key: key == "model.latent_dim" or key.partition(".")[0] == "data"):
        rest = [other for other in keys if other != key]
        if decide(rest, others):
            keys = rest
    return keys
