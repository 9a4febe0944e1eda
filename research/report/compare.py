"""Which rows of a column are best, and which are not significantly worse."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from research.metrics import direction
from research.report.cell import Cell
from research.report.collect import Run
from research.report.keys import better, comparison_keys
from research.report.statistics import LEVEL, SMALLEST, Comparison, compare_all, holm
from research.tree import group

Values = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """The cells of a column with their marks, and what was done for them.

    Attributes:
      tests: name of a test -> smallest and largest number of pairs it saw.
      rows: number of rows that were compared with the best one, at most.
      too_small: the smallest number of seeds where a test would have needed more; None where none did.
    """

    cells: Mapping[Values, Cell]
    tests: Mapping[str, tuple[int, int]]
    rows: int
    too_small: int | None


def judge(cells: Mapping[Values, Cell], members: Mapping[Values, Sequence[Run]], metric: str) -> Judged:
    """Mark the best mean, all that are not significantly worse at 5 %, and the second best, among comparable rows.

    Only cells all of whose runs finished take part: a mean over the survivors of a setting that diverges for some seeds
    is no result. All other rows are tested against the best (`statistics.compare_all`), with Holm's correction for
    their number. Where the best has fewer than three seeds nothing is marked; neither is a row that cannot be tested.
    """
    if not direction(metric):
        return Judged(cells, {}, 0, None)
    keys = comparison_keys(metric, (run for same in members.values() for run in same))
    candidates = [row for row, cell in cells.items() if cell.complete]
    found, seen, rows, too_small = dict(cells), list[Comparison](), 0, list[int]()
    for alike in group(
        candidates, lambda row: frozenset(tuple(run.value(key) for key in keys) for run in members[row])
    ):
        ranked = _ranked(alike, cells, metric)
        if len(ranked) < 2:
            continue
        first, *others = ranked
        results = compare_all(cells[first].seeds, [cells[row].seeds for row in others])
        tested = {row: result for row, result in zip(others, results, strict=True) if result is not None}
        too_small += [len(cells[row].seeds) for row in ranked if len(cells[row].seeds) < SMALLEST]
        if not tested:
            continue
        opposite = 1 if better(0, 1, metric) else -1  # at equal seeds, or by ranks, the row is not the worse one
        corrected = dict(zip(tested, holm([result.p for result in tested.values()]), strict=True))
        for row in ranked:
            p = corrected.get(row)
            best = row == first or (p is not None and (p >= LEVEL or tested[row].sign == opposite))
            second = row == others[0] and len(ranked) > 2
            found[row] = dataclasses.replace(cells[row], best=best, second=second, p=p)
        seen += tested.values()
        rows = max(rows, len(tested))
    return Judged(found, extremes(seen), rows, min(too_small, default=None))


def _ranked(rows: Sequence[Values], cells: Mapping[Values, Cell], metric: str) -> list[Values]:
    """Rows from the best mean to the worst; equal means in the order of the table."""
    sign = 1 if better(0, 1, metric) else -1
    return sorted(rows, key=lambda row: sign * (cells[row].mean or 0.0))


def extremes(comparisons: Iterable[Comparison]) -> dict[str, tuple[int, int]]:
    """Name of a test -> smallest and largest n."""
    found: dict[str, tuple[int, int]] = {}
    for one in comparisons:
        low, high = found.get(one.test, (one.n, one.n))
        found[one.test] = (min(low, one.n), max(high, one.n))
    return found
