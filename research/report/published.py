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


@dataclasses.dataclass(frozen=True)
class Beside:
    """A published value and the cell that it is held against.

    Attributes:
      place: (row, column) of the cell; None where the table has no such cell.
      difference: ours - theirs.
      allowed: largest difference that counts as reproduced.
      reason: why it is not comparable.
    """

    published: Published
    place: tuple[Values, Values] | None
    cell: Cell | None
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
) -> list[Beside]:
    """Hold published values against the cells that they name: one entry a matching cell, or one without any.

    A value is not comparable with cells whose runs have another value of a key that it names. A difference counts as
    reproduced up to `tolerance`, or else up to 2 sqrt(error^2 + sd^2 / n).

    Raises:
      ConfigError: it names a key that no run has.
    """
    found = []
    shown = (*row_keys, *column_keys)
    members = {(row, column): cell.runs for (row, column, _), cell in cells.items()}
    by_id = {run.run_id: run for run in runs}

    def known(place: tuple[Values, Values], key: str) -> set[Any]:
        """The values in a cell; a run of unknown config has no number either."""
        return {by_id[run_id].value(key) for run_id in members[place]} - {Hole.UNKNOWN}

    for one in published:
        check("report.published.where", list(one.where), runs.config_keys())
        places = [
            (row, column)
            for row, column, metric in cells
            if metric == one.metric
            and all(
                _same(value, wanted[key])
                for wanted in [one.where]
                for key, value in zip(shown, (*row, *column), strict=True)
                if key in wanted
            )
        ]
        hidden = [key for key in one.where if key not in shown]
        others = {
            place: [key for key in hidden if not all(_same(value, one.where[key]) for value in known(place, key))]
            for place in places
        }
        alike = [place for place in places if not others[place]]
        if not alike:
            other = dict.fromkeys(key for keys in others.values() for key in keys)
            reason = f"our runs have another {' and '.join(other)}" if other else "this sweep has no such cell"
            found.append(Beside(one, None, None, None, None, "not comparable", reason))
        found += [_held(one, place, cells[(*place, one.metric)]) for place in alike]
    return found


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
