"""Which rows of a column are best, and which are not significantly worse."""

import dataclasses
from collections.abc import Mapping, Sequence

from research.metrics import direction
from research.report.cell import Cell, Values
from research.report.collect import Run
from research.report.keys import better, comparison_keys
from research.report.statistics import LEVEL, SMALLEST, compare_all
from research.tree import group


@dataclasses.dataclass(frozen=True)
class Judged:
    """The cells of a column with their marks, and the tests that were made.

    Attributes:
      cells: row -> cell.
      seeds: smallest and largest number of seeds in a test; None if no test was made.
      rows: the largest number of rows that were tested against a best row.
      untested: the smallest number of seeds that an untested row shares with the best row; None if all were tested.
    """

    cells: Mapping[Values, Cell]
    seeds: tuple[int, int] | None
    rows: int
    untested: int | None


def judge(cells: Mapping[Values, Cell], runs: Mapping[Values, Sequence[Run]], metric: str) -> Judged:
    """Mark the best mean, all means that are not significantly worse at 5 %, and the second best mean.

    * Only complete cells take part: a mean over the seeds that survived is no result for a setting that diverges.
    * Rows are compared only if they agree in the comparison keys of the metric.
    * Every other row is tested against the best one (`statistics.compare_all`). A row with fewer than five seeds is not
      tested and not marked. If the best row has fewer, no test is made, and the best mean alone is marked.
    * Rows of equal means have the same marks. If several have the best mean, none is the second best. If all have it
      and no test was made, none is the best.
    """
    way = direction(metric)
    if not way:
        return Judged(cells, None, 0, None)
    keys = comparison_keys(metric, (run for of_row in runs.values() for run in of_row))
    complete = [row for row, cell in cells.items() if cell.complete]
    marked, test_seeds, rows, untested = dict(cells), list[int](), 0, list[int]()
    for comparable in group(complete, lambda row: frozenset(run.at(keys) for run in runs[row])):
        ranked = _ranked(comparable, cells, metric)
        if len(ranked) < 2:
            continue
        first, *others = ranked
        large = [row for row in others if len(cells[row].seeds) >= SMALLEST]
        results = compare_all(cells[first].seeds, [cells[row].seeds for row in large], way)
        tested = {row: result for row, result in zip(large, results, strict=True) if result is not None}
        if not tested and cells[first].mean == cells[others[-1]].mean:
            continue  # all means are equal: none is the best
        if len(tested) < len(others):
            common = [cells[first].seeds.keys() & cells[row].seeds.keys() for row in others if row not in tested]
            untested.append(min(map(len, common)))
        for row in ranked:
            p = tested[row].p if row in tested else None
            best = cells[row].mean == cells[first].mean or (p is not None and p >= LEVEL)
            second = len(ranked) > 2 and cells[first].mean != cells[row].mean == cells[others[0]].mean
            marked[row] = dataclasses.replace(cells[row], best=best, second=second, p=p)
        test_seeds += [result.n for result in tested.values()]
        rows = max(rows, len(tested))
    seeds = (min(test_seeds), max(test_seeds)) if test_seeds else None
    return Judged(marked, seeds, rows, min(untested, default=None))


def _ranked(rows: Sequence[Values], cells: Mapping[Values, Cell], metric: str) -> list[Values]:
    """Rows from the best mean to the worst; rows of equal means stay in the order of the table."""
    sign = 1 if better(0, 1, metric) else -1
    return sorted(rows, key=lambda row: sign * (cells[row].mean or 0.0))
