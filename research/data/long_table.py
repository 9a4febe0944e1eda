"""A long table, whose rows belong to many series: the rows, the channels and the steps of each."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research.data import checks
from research.data.columns import choose, is_binary, looks_like_dates
from research.data.covariates import (
    NOTHING,
    Grid,
    Static,
    Wanted,
    known_values,
    on_steps,
    static_values,
    steps_with_values,
)
from research.data.ends import Later, following
from research.data.files.table import Column, Table, mostly_numbers
from research.data.preparation import Preparation
from research.data.series import refuse_times_in_index
from research.data.times import number_steps, times_of
from research.tree import ConfigError


class ManySeries(NamedTuple):
    """The series that a long table holds.

    Attributes:
      names: names of the channels.
      series: by their names, in the order of the file, one row per step, NaN where a value or a whole step is missing,
        [S, C] float64 each.
      binary: channels that are bool or hold only the whole numbers 0 and 1, [C] bool.
      step: size of a step in words, where there is a time column.
      notes: what was left out or noticed.
      later: gives, for each series, the times of so many steps after its last one; empty without a time column.
      wanted: the covariates, by the names of their columns.
      known: what is known of the steps of every series and of steps to come, from `covariates.on_steps`.
      static: what is known of every series.
    """

    names: list[str]
    series: dict[str, np.ndarray]
    binary: np.ndarray
    step: str | None
    notes: list[str]
    later: dict[str, Later]
    wanted: Wanted
    known: dict[str, np.ndarray]
    static: dict[str, Static]


def read_long_table(
    table: Table,
    name: str | None,
    time: str | None,
    wanted: Sequence[str] | None,
    trained: Preparation | None,
    covariates: Wanted = NOTHING,
    ahead: int = 0,
) -> ManySeries:
    """The series of a long table.

    Args:
      table: the file.
      name, time, wanted: the keys `id_column`, `time_column` and `values` of `Panel`.
      trained: preparation of the run that the steps are for.
      covariates: columns and parts of the calendar that are covariates.
      ahead: steps after the last value of every series of which they must be known.

    Raises:
      ConfigError: naming the key of a series, that is `columns` in place of `values`; see `of_panel`.
    """
    if name is None:
        raise ConfigError("id_column", None, _id_remedy(table, time))
    if time is None:
        refuse_times_in_index(table)
    # A number such as -1 counts all columns of the file, of which some are left out below.
    name = table.names[table.find(name, "id_column")]
    time = None if time is None else table.names[table.find(time, "time_column")]
    rows = rows_of_series(table, name)
    longest = max(rows.values(), key=len)
    used = {"id_column": name, "time_column": time}
    covariates = covariates.resolved(table, used)
    judged, notes = (table, [])
    if wanted is None:
        judged = table.without({*covariates.known, *covariates.static})
        judged, notes = _without_text(judged, [name, time])
    if wanted is None and trained is None:  # a column that counts the rows of a series begins anew in the next
        judged = part_of(judged, longest)
    columns = None if trained is None else trained.columns
    channels, left_out = choose(judged, wanted, used, columns, trained is not None)
    covariates.check_channels(channels, "values")
    values = table.numbers(channels)
    binary = [is_binary(table.column(key).kind, column) for key, column in zip(channels, values.T, strict=True)]
    notes = [*left_out, *notes]
    if trained is None:
        notes += checks.table_notes(table, channels, values)
    of_rows = known_values(table, covariates.known)
    if covariates.known:
        rows, empty = _with_values(rows, values)
        notes += empty
    static = static_values(table, covariates.static, rows)
    step, series = None, {key: values[numbers] for key, numbers in rows.items()}
    number = {key: np.arange(len(numbers)) for key, numbers in rows.items()}
    times = None if time is None else times_of(table, time)
    if times is not None:
        assert time is not None
        series, number, step, missing = _on_steps(table, time, times, rows, values, trained)
        notes += missing
    later: dict[str, Later] = {}
    known: dict[str, np.ndarray] = {}
    for key, numbers in rows.items():
        if covariates.known:  # rows beyond the last value are steps to come
            series[key] = series[key][: steps_with_values(series[key])]
        steps = len(series[key])
        if time is not None and times is not None:
            past = times[numbers[number[key] < steps]]
            later[key] = functools.partial(following, table.column(time), past, str(step))
        where = functools.partial(_where, table, key, numbers)
        grid = Grid(number[key], steps, None if times is None else times[numbers], step, where, key)
        known[key] = on_steps(covariates, of_rows[numbers], grid, ahead)
    return ManySeries(channels, series, np.array(binary, bool), step, notes, later, covariates, known, static)


@contextlib.contextmanager
def of_panel() -> Iterator[None]:
    """Errors that name the key `columns` of a series name the key `values` of a panel."""
    try:
        yield
    except ConfigError as error:
        key = "values" if error.key == "columns" else error.key
        remedy = error.template.replace("data.columns", "data.values")
        raise ConfigError(key, error.value, remedy) from error.__cause__


def _id_remedy(table: Table, time: str | None) -> str:
    """The settings that read a table, if its content shows which column names the series."""
    problem = f"name the column of {table.path.name} that names the series of each row"
    if (panel := checks.many_series(table, time)) is None:
        known = ", ".join(table.names[:12]) + (", ..." if len(table.names) > 12 else "")
        return f"{problem}; its columns are: {known}. A table of one series is read by data=series"
    return f"{problem}: {checks.panel_settings(*panel[:2])}"


def rows_of_series(table: Table, name: str) -> dict[str, np.ndarray]:
    """The rows of every series by its name, in the order of the file.

    Raises:
      ConfigError: a row has no name, the names are no names, or every row has another one.
    """
    column = table.column(name, "id_column")
    if column.missing.any():
        where = table.where(int(np.argmax(column.missing)))
        raise ConfigError("id_column", name, f"{where}: the name of the series is missing; add it or remove the row")
    if column.kind not in ("text", "integer"):
        kind = {"float": "fractions", "bool": "truth values", "time": "times"}.get(column.kind, column.kind)
        raise ConfigError("id_column", name, f"it holds {kind}; the names of series are text or whole numbers")
    if looks_like_dates(column):
        remedy = f"it holds dates ({column.texts[0]}, ...); if they are the times: data.time_column"
        raise ConfigError("id_column", name, f"{remedy} names it, and {{key}} the column that names the series")
    stored = column.numbers if column.cells is None else column.cells
    assert stored is not None
    cells = [f"{cell:.0f}" if column.cells is None else str(cell) for cell in stored]
    number_of: dict[str, int] = {}
    number = np.array([number_of.setdefault(cell, len(number_of)) for cell in cells])
    if len(number_of) == len(number):
        raise ConfigError("id_column", name, "every row has another value, so it does not name series of several steps")
    pieces = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return dict(zip(number_of, pieces, strict=True))


def part_of(table: Table, rows: np.ndarray) -> Table:
    """Some rows of a table as a table; errors name their lines in the file."""

    @functools.cache
    def convert(number: int) -> Column:
        column = table.convert(number)
        pick = lambda cells: None if cells is None else cells[rows]
        return column._replace(numbers=pick(column.numbers), cells=pick(column.cells), missing=column.missing[rows])

    return dataclasses.replace(table, size=len(rows), convert=convert, line=lambda row: table.line(int(rows[row])))


def _without_text(table: Table, used: Sequence[str | None]) -> tuple[Table, list[str]]:
    """A table without its columns of plain text, and a note on them; those of `used` stay.

    Raises:
      ConfigError: a column of numbers holds some text.
    """
    text = []
    for name in table.names:
        column = None if name in used or table.problem(name) is not None else table.column(name)
        if column is None or column.kind != "text" or looks_like_dates(column):
            continue
        if mostly_numbers(column, table.decimal):
            raise table.not_numeric(name, column)
        text.append(name)
    if not text:
        return table, []
    notes = [f"{table.path.name}: columns of text are left out: {', '.join(text)}"]
    return table.without(text), notes


def _with_values(rows: Mapping[str, np.ndarray], values: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """The series that have some value, and a note on the others, which have rows of steps to come only."""
    seen = {name: bool(np.isfinite(values[numbers]).any()) for name, numbers in rows.items()}
    empty = [name for name, has in seen.items() if not has]
    if len(empty) == len(rows):
        raise ConfigError("columns", None, "no series has any value")
    text = f"{len(empty)} of {len(rows)} series hold no value and are left out: {', '.join(empty[:5])}"
    return {name: rows[name] for name, has in seen.items() if has}, [text] if empty else []


def _on_steps(
    table: Table,
    time: str,
    times: np.ndarray,
    rows: Mapping[str, np.ndarray],
    values: np.ndarray,
    trained: Preparation | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str, list[str]]:
    """Every series with a row for each step, the step of each row, the size of a step, and a note on missing steps.

    The longest series tells the size of a step, which all others must have.

    Raises:
      ConfigError: a time occurs twice in a series, is out of order, or lies between two steps.
    """
    known = None if trained is None else trained.time_step
    step, others = known, "training had"
    series: dict[str, np.ndarray] = {}
    number: dict[str, np.ndarray] = {}
    missing, first = 0, None
    for name in sorted(rows, key=lambda name: -len(rows[name])):
        of_series = rows[name]
        where = functools.partial(_where, table, name, of_series)
        steps = number_steps(times[of_series], time, where, step, others)
        if step is None:
            step, others = steps.step, f"series '{name}' has"
        grid = np.full((int(steps.number[-1]) + 1, values.shape[1]), np.nan)
        grid[steps.number] = values[of_series]
        series[name], number[name] = grid, steps.number
        if len(grid) > len(of_series):
            missing += len(grid) - len(of_series)
            gap = int(of_series[int(np.argmax(np.diff(steps.number) > 1))])
            first = gap if first is None else min(first, gap)
    assert step is not None
    notes = []
    if first is not None:
        total = sum(map(len, series.values()))
        text = f"{missing} of {total} steps of {step} are missing and masked"
        notes.append(f"{text}, the first after {table.where(first)}")
    return {name: series[name] for name in rows}, number, step, notes


def _where(table: Table, name: str, rows: np.ndarray, row: int) -> str:
    """Where a row of a series stands in the file."""
    return f"{table.where(int(rows[row]))}, series '{name[:40]}'"
