"""Which rows of a column are best, and which are not significantly worse."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from research.metrics import direction
from research.report.cell import Cell
from research.report.collect import Run
from research.report.keys import better, comparison_keys
from research.report.statistics import LEVEL, SMALLEST, compare_all
from research.tree import group

Values = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """The cells of a column with their marks, and what was done for them.

    Attributes:
      seeds: smallest and largest number of seeds of the tests; None where none was made.
      rows: number of rows that were compared with the best one, at most.
      untested: the smallest number of seeds that rows without a test share with the best; None where all were tested.
    """

    cells: Mapping[Values, Cell]
    seeds: tuple[int, int] | None
    rows: int
    untested: int | None


def judge(cells: Mapping[Values, Cell], members: Mapping[Values, Sequence[Run]], metric: str) -> Judged:
    """Mark the best mean, all that are not significantly worse at 5 %, and the second best, among comparable rows.

    Only cells all of whose runs finished take part: a mean over the survivors of a setting that diverges for some seeds
    is no result. All other rows are tested against the best (`statistics.compare_all`). Rows of fewer than five seeds
    are not tested and not marked; where the best is such a row, no test is made, and the best mean alone is marked.
    Rows of equal means have the same marks; where several have the best mean, none is the second best, and where all
    have it and no test was made, none is the best.
    """
    way = direction(metric)
    if not way:
        return Judged(cells, None, 0, None)
    keys = comparison_keys(metric, (run for same in members.values() for run in same))
    candidates = [row for row, cell in cells.items() if cell.complete]
    found, seen, rows, untested = dict(cells), list[int](), 0, list[int]()
    for alike in group(
        candidates, lambda row: frozenset(tuple(run.value(key) for key in keys) for run in members[row])
    ):
        ranked = _ranked(alike, cells, metric)
        if len(ranked) < 2:
            continue
        first, *others = ranked
        large = [row for row in others if len(cells[row].seeds) >= SMALLEST]
        results = compare_all(cells[first].seeds, [cells[row].seeds for row in large], way)
        tested = {row: result for row, result in zip(large, results, strict=True) if result is not None}
        if not tested and cells[first].mean == cells[others[-1]].mean:
            continue  # equal means: none is the best
        if len(tested) < len(others):
            common = [cells[first].seeds.keys() & cells[row].seeds.keys() for row in others if row not in tested]
            untested.append(min(map(len, common)))
        for row in ranked:
            p = tested[row].p if row in tested else None
            best = row == first or (p is not None and p >= LEVEL)
            best |= cells[row].mean == cells[first].mean
            second = len(ranked) > 2 and cells[first].mean != cells[row].mean == cells[others[0]].mean
            found[row] = dataclasses.replace(cells[row], best=best, second=second, p=p)
        seen += [result.n for result in tested.values()]
        rows = max(rows, len(tested))
    return Judged(found, (min(seen), max(seen)) if seen else None, rows, min(untested, default=None))


def _ranked(rows: Sequence[Values], cells: Mapping[Values, Cell], metric: str) -> list[Values]:
    """Rows from the best mean to the worst; equal means in the order of the table."""
    sign = 1 if better(0, 1, metric) else -1
    return sorted(rows, key=lambda row: sign * (cells[row].mean or 0.0))
