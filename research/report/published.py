"""Our values beside those that others published."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from research.report.cell import Cell, Place, Values
from research.report.collect import Hole, Runs
from research.report.keys import check
from research.report.spec import Published

Verdict = Literal["reproduced", "not reproduced", "not comparable"]

DATA = "data"  # the key that every published value must name in its `where`


@dataclasses.dataclass(frozen=True)
class Beside:
    """A published value and the cell beside which it is printed.

    Attributes:
      place: row and column of the cell.
      difference: ours - theirs.
      allowed: the largest difference that counts as reproduced.
      reason: why the two are not comparable.
    """

    published: Published
    place: Place
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
    """Put published values beside the cells that they are about: one entry for each matching cell.

    A value is about what its `where` names, at least a data set. Cells whose runs lack one of these keys or have
    another value for it do not match. A difference counts as reproduced up to `tolerance`, or without one up to
    2 sqrt(error^2 + sd^2 / n).

    Returns:
      The entries, and for the values without an entry: reason -> number of values.

    Raises:
      ConfigError: a value of a data set that some run has names a key that no run has.
    """
    entries: list[Beside] = []
    unprinted: dict[str, int] = {}
    run_ids = {(row, column): cell.runs for (row, column, _), cell in cells.items()}
    by_id = {run.run_id: run for run in runs}

    def differing(place: Place, where: Mapping[str, Any]) -> list[str]:
        """The keys of `where` in which a cell has another value; runs of unknown config are passed over."""
        shown = dict(zip((*row_keys, *column_keys), (*place[0], *place[1]), strict=True))
        keys = []
        for key, wanted in where.items():
            values = {shown[key]} if key in shown else {by_id[run_id].value(key) for run_id in run_ids[place]}
            values -= {Hole.UNKNOWN}
            if not values or not all(_same(value, wanted) for value in values):
                keys.append(key)
        return keys

    for value in published:
        if DATA not in value.where:
            reason = f"without a data set (add {DATA}: NAME to where in report.published)"
            unprinted[reason] = unprinted.get(reason, 0) + 1
            continue
        if any(_same(run.value(DATA), value.where[DATA]) for run in runs):
            check("report.published.where", list(value.where), runs.config_keys())
        places = [(row, column) for row, column, metric in cells if metric == value.metric]
        differences = {place: differing(place, value.where) for place in places}
        matching = [place for place in places if not differences[place]]
        entries += [_held(value, place, cells[(*place, value.metric)]) for place in matching]
        if not matching:
            nearest = min(differences.values(), key=len, default=[])
            keys = [DATA] if DATA in nearest else nearest
            names = ["data set" if key == DATA else key for key in keys]
            reason = f"of another {' and '.join(names)}" if keys else f"of {value.metric}, which no run has"
            unprinted[reason] = unprinted.get(reason, 0) + 1
    return entries, unprinted


def _same(value: Any, wanted: Any) -> bool:
    wanted = tuple(wanted) if isinstance(wanted, list) else wanted
    return not isinstance(value, Hole) and (value == wanted or str(value) == str(wanted))


def _held(value: Published, place: Place, cell: Cell) -> Beside:
    """The entry of a published value beside one cell, with its verdict."""
    if cell.mean is None:
        return Beside(value, place, cell, None, None, "not comparable", "no run of ours has a value")
    difference = cell.mean - value.value
    standard_error = (cell.sd or 0.0) / math.sqrt(cell.n)
    allowed = value.tolerance if value.tolerance is not None else 2 * math.hypot(value.error or 0.0, standard_error)
    if value.comparable != "yes":
        return Beside(value, place, cell, difference, allowed, "not comparable", value.comparable)
    verdict: Verdict = "reproduced" if abs(difference) <= allowed else "not reproduced"
    return Beside(value, place, cell, difference, allowed, verdict)
