"""Our values beside those that others published."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from research.report.cell import Cell
from research.report.collect import Hole, Runs
from research.report.keys import check
from research.report.spec import Published

Verdict = Literal["reproduced", "not reproduced", "not comparable"]
Values = tuple[Any, ...]


DATA = "data"  # the key that every published value must name


@dataclasses.dataclass(frozen=True)
class Beside:
    """A published value and the cell that it is held against.

    Attributes:
      place: (row, column) of the cell.
      difference: ours - theirs.
      allowed: largest difference that counts as reproduced.
      reason: why it is not comparable.
    """

    published: Published
    place: tuple[Values, Values]
    cell: Cell
    difference: float | None
    allowed: float | None
    verdict: Verdict
    reason: str = ""


def beside(
    cells: Mapping[tuple[Values, Values, str], Cell],
    row_keys: Sequence[str],
    column_keys: Sequence[str],
    runs: Runs,
    published: Sequence[Published],
) -> tuple[list[Beside], dict[str, int]]:
    """Hold published values against the cells that they name: one entry a matching cell.

    A value is bound to what its `where` names, the data set at least, horizon and protocol besides: cells whose runs
    have another value of one of these keys, or lack it, are not held against it. A difference counts as reproduced up
    to `tolerance`, or else up to 2 sqrt(error^2 + sd^2 / n).

    Returns:
      The entries, and why values have none: reason -> number of values.

    Raises:
      ConfigError: it names a key that no run has, and its data set is that of some run.
    """
    found: list[Beside] = []
    left: dict[str, int] = {}
    shown = (*row_keys, *column_keys)
    members = {(row, column): cell.runs for (row, column, _), cell in cells.items()}
    by_id = {run.run_id: run for run in runs}

    def other(place: tuple[Values, Values], where: Mapping[str, Any]) -> list[str]:
        """The keys in which a cell is not what a value is of; a run of unknown config has no number either."""
        own = dict(zip(shown, (*place[0], *place[1]), strict=True))
        values = {
            key: {own[key]} if key in own else {by_id[run_id].value(key) for run_id in members[place]} for key in where
        }
        known = {key: values[key] - {Hole.UNKNOWN} for key in where}
        return [key for key in where if not known[key] or not all(_same(value, where[key]) for value in known[key])]

    for one in published:
        if DATA not in one.where:
            reason = f"without a data set (add {DATA}: NAME to where in report.published)"
            left[reason] = left.get(reason, 0) + 1
            continue
        if any(_same(run.value(DATA), one.where[DATA]) for run in runs):
            check("report.published.where", list(one.where), runs.config_keys())
        places = [(row, column) for row, column, metric in cells if metric == one.metric]
        others = {place: other(place, one.where) for place in places}
        alike = [place for place in places if not others[place]]
        if not alike:
            nearest = min(others.values(), key=len, default=[])
            keys = [DATA] if DATA in nearest else nearest
            named = ["data set" if key == DATA else key for key in keys]
            reason = f"of another {' and '.join(named)}" if keys else f"of {one.metric}, which no run has"
            left[reason] = left.get(reason, 0) + 1
        found += [_held(one, place, cells[(*place, one.metric)]) for place in alike]
    return found, left


def _same(value: Any, wanted: Any) -> bool:
    wanted = tuple(wanted) if isinstance(wanted, list) else wanted
    return not isinstance(value, Hole) and (value == wanted or str(value) == str(wanted))


def _held(one: Published, place: tuple[Values, Values], cell: Cell) -> Beside:
    if cell.mean is None:
        return Beside(one, place, cell, None, None, "not comparable", "no run of ours has a value")
    difference = cell.mean - one.value
    standard_error = (cell.sd or 0.0) / math.sqrt(cell.n)
    allowed = one.tolerance if one.tolerance is not None else 2 * math.hypot(one.error or 0.0, standard_error)
    if one.comparable != "yes":
        return Beside(one, place, cell, difference, allowed, "not comparable", one.comparable)
    verdict: Verdict = "reproduced" if abs(difference) <= allowed else "not reproduced"
    return Beside(one, place, cell, difference, allowed, verdict)
