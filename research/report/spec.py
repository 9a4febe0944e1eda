"""The `report:` section of a config: the table of an experiment, and the values of others that stand beside ours."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from research.metrics import direction, undirected
from research.ranges import Finite, NonNegative, Range
from research.report.cell import Cell, Values
from research.report.collect import Hole, Runs
from research.report.keys import check
from research.report.texts import MOST_DECIMALS
from research.tree import ConfigError, build, recipe

Verdict = Literal["reproduced", "not reproduced", "not comparable"]

DATA = "data"  # the key that every published value must name in its `where`
EMPTY = {"rows": None, "columns": [], "metrics": None, "over": [], "select": [], "by": None, "published": []}


@recipe
class Published:
    """A value that somebody published, for the cells of the table that it is about.

    Attributes:
      label: name of the method, as its authors call it.
      metric: our metric beside which it is printed; the table need not show this metric (`baseline/pca/...`).
      where: config key -> value of the runs that it is about: the data set (`data: NAME`) and whatever else the value
        depends on, such as horizon, scaling and epochs. It is not printed beside runs that differ in one of these keys.
      value: as published.
      error: standard deviation or interval as published; null if none was published.
      tolerance: largest difference that counts as reproduced; null for two standard errors of both values together.
      source: where the value was read.
      comparable: "yes", or why the values are not comparable: another protocol, other data.
    """

    label: str
    metric: str
    where: dict[str, Any] = dataclasses.field(default_factory=dict)
    value: Finite
    error: NonNegative | None = None
    tolerance: NonNegative | None = None
    source: str
    comparable: str = "yes"

    def validate(self) -> None:
        if not self.source.strip():
            raise ConfigError("source", self.source, "say where the value was read")
        if self.comparable == "yes" and self.tolerance is None and self.error is None:
            raise ConfigError(
                "tolerance",
                None,
                "the value has no error, so say which difference counts as reproduced: tolerance: 0.1",
            )


@recipe
class Report:
    """The table of a sweep.

    Attributes:
      rows: config keys; null for all keys that vary, other than seed and fold.
      columns: config keys.
      metrics: names; null for the usual metrics of the test rows.
      over: config keys, such as the data set, whose values n counts and tests pair in place of seeds; rows and columns
        among them are passed over.
      select: config keys whose best value is chosen on the validation rows, in every cell.
      by: the metric that chooses; null for the first metric that measures the same in all settings: first the
        validation twins of `metrics` are tried, then `research.metrics.CHOOSING`.
      published: values of others, printed beside ours.
      names: config key, metric or value -> its name in tables, figures and captions; null for none.
      decimals: metric -> its decimals in tables; the others have those that their standard deviation asks for.
      stability: whether the codes of the runs of one setting are compared between seeds (`research.report.stability`),
        which loads all runs and their data.
    """

    rows: tuple[str, ...] | None
    columns: tuple[str, ...]
    metrics: tuple[str, ...] | None
    select: tuple[str, ...]
    by: str | None
    published: tuple[Published, ...]
    names: dict[str, str] | None = None
    decimals: dict[str, Annotated[int, Range(0, MOST_DECIMALS)]] | None = None
    stability: bool = False
    over: tuple[str, ...] = ()

    def validate(self) -> None:
        if self.by is not None and not self.by.startswith("validation/"):
            remedy = "settings are chosen on the validation rows; set {key}=null for one that compares"
            raise ConfigError("by", self.by, remedy)
        if self.by is not None and not direction(self.by):
            raise ConfigError("by", self.by, f"{undirected(self.by)}; set {{key}}=null for one that compares")
        for key, name in (self.names or {}).items():
            if not name.strip():
                raise ConfigError(f"names.{key}", name, "an empty name names nothing; leave it out")
        check_distinct(self.names or {})


def check_distinct(names: Mapping[str, str]) -> None:
    """Refuse one name for two keys, metrics or values, which a table would not tell apart."""
    first: dict[str, str] = {}
    for key, name in names.items():
        if (other := first.setdefault(name, key)) != key:
            raise ConfigError(f"names.{key}", name, f"{other} has this name too; give each a name of its own")


def recorded(plan: Mapping[str, Any], folder: Path) -> Report:
    """The section that a sweep was started with, from its `sweep.json` (`plan`); an empty one if none is recorded.

    Raises:
      ConfigError: the recorded section is damaged.
    """
    section = plan.get("report")
    try:
        return build(EMPTY if section is None else section, Report, key="report")
    except ConfigError as error:
        remedy = f"what it recorded is damaged ({error}); restore or remove it"
        raise ConfigError("report", folder / "sweep.json", remedy) from None


# ---------------------------------------------------------------------------------------------- published beside ours


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A published value and the cell of ours beside which it is printed.

    Attributes:
      row, column: of the cell.
      difference: ours - theirs.
      allowed: the largest difference that counts as reproduced.
      reason: why the two are not comparable.
    """

    published: Published
    row: Values
    column: Values
    cell: Cell
    difference: float | None
    allowed: float | None
    verdict: Verdict
    reason: str = ""


def reproductions(
    cells: Mapping[tuple[Values, Values, str], Cell],
    row_keys: Sequence[str],
    column_keys: Sequence[str],
    runs: Runs,
    published: Sequence[Published],
) -> tuple[list[Reproduction], dict[str, int]]:
    """Put published values beside the cells that they are about: one entry for each matching cell.

    A value is about what its `where` names, at least a data set. Cells whose runs lack one of these keys or have
    another value for it do not match.

    Returns:
      The entries, and for the values without an entry: reason -> number of values.

    Raises:
      ConfigError: a value of a data set that some run has names a key that no run has.
    """
    entries: list[Reproduction] = []
    unprinted: Counter[str] = Counter()
    by_id = {run.run_id: run for run in runs}

    def differing(row: Values, column: Values, cell: Cell, where: Mapping[str, Any]) -> list[str]:
        """The keys of `where` in which a cell has another value; runs of unknown config are passed over."""
        shown = dict(zip((*row_keys, *column_keys), (*row, *column), strict=True))
        keys = []
        for key, wanted in where.items():
            values = {shown[key]} if key in shown else {by_id[run_id].value(key) for run_id in cell.runs}
            values -= {Hole.UNKNOWN}
            if not values or not all(_same(value, wanted) for value in values):
                keys.append(key)
        return keys

    for value in published:
        if DATA not in value.where:
            unprinted[f"without a data set (add {DATA}: NAME to where in report.published)"] += 1
            continue
        if any(_same(run.value(DATA), value.where[DATA]) for run in runs):
            left_out = [key for key in value.where if any(run.value(key) is not Hole.ABSENT for run in runs)]
            check("report.published.where", list(value.where), [*runs.config_keys(), *left_out])  # at their defaults
        nearest: list[str] | None = None  # the fewest keys in which a cell differs
        for (row, column, metric), cell in cells.items():
            if metric == value.metric:
                keys = differing(row, column, cell, value.where)
                nearest = keys if nearest is None or len(keys) < len(nearest) else nearest
                if not keys:
                    entries.append(_entry(value, row, column, cell))
        if nearest is None:
            unprinted[f"of {value.metric}, which no run has"] += 1
        elif nearest:
            names = ["data set"] if DATA in nearest else nearest
            unprinted[f"of another {' and '.join(names)}"] += 1
    return entries, unprinted


def _same(value: Any, wanted: Any) -> bool:
    wanted = tuple(wanted) if isinstance(wanted, list) else wanted
    return not isinstance(value, Hole) and (value == wanted or str(value) == str(wanted))


def _entry(value: Published, row: Values, column: Values, cell: Cell) -> Reproduction:
    """A published value beside one cell.

    A difference is reproduced if it is at most `tolerance`, or without one 2 sqrt(error^2 + sd^2 / n).
    """
    if cell.mean is None:
        return Reproduction(value, row, column, cell, None, None, "not comparable", "no run of ours has a value")
    difference = cell.mean - value.value
    standard_error = (cell.sd or 0.0) / math.sqrt(cell.n)
    allowed = value.tolerance if value.tolerance is not None else 2 * math.hypot(value.error or 0.0, standard_error)
    if value.comparable != "yes":
        return Reproduction(value, row, column, cell, difference, allowed, "not comparable", value.comparable)
    verdict: Verdict = "reproduced" if abs(difference) <= allowed else "not reproduced"
    return Reproduction(value, row, column, cell, difference, allowed, verdict)
