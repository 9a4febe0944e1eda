"""What the columns of a table are used for: features of rows, channels of a series, classes, values."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from research.data.files.table import EXACT, INEXACT, MOST_CLASSES, Column, Table, count_up, mostly_numbers, paste
from research.data.preparation import Preparation
from research.data.times import compact_dates, read_date
from research.errors import nearest
from research.tree import ConfigError

LEAST = 5  # rows; in fewer rows a constant step may be an accident
DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}.*|\d{1,2}:\d{2}(:\d{2}.*)?")
DATE_PARTS = frozenset(
    ("year", "yr", "quarter", "month", "mo", "week", "weekday", "dow", "day", "doy", "hour", "minute")
)
TIME_NAMES = DATE_PARTS | {"time", "times", "date", "dates", "datetime", "timestamp", "ds", "t", "index"}
Task = Literal["classes", "values"]
HOLDS_DATE_PARTS = "holds parts of dates"


class Features(NamedTuple):
    """The features of a table, or the channels of a series.

    Attributes:
      names: names of the columns.
      values: their numbers, NaN where a value is missing, [N, C] float64.
      binary: columns that are bool or hold only the whole numbers 0 and 1, [C] bool.
      notes: notes on columns that are left out.
    """

    names: list[str]
    values: np.ndarray
    binary: np.ndarray
    notes: list[str]


def read_features(
    table: Table, columns: Sequence[str] | None, used: Mapping[str, str | None], trained: Preparation | None
) -> Features:
    """The features of a table by the key `columns`; for the rows of a run, those that it was trained on.

    Raises:
      ConfigError: as `choose`, or a feature holds text or times.
    """
    known = None if trained is None else trained.columns
    names, notes = choose(table, columns, used, known, trained is not None)
    if columns is not None and known is None:
        _check_listed(table, names)
    values = table.numbers(names)
    binary = [is_binary(table.column(name).kind, column) for name, column in zip(names, values.T, strict=True)]
    return Features(names, values, np.array(binary, bool), notes)


def choose(
    table: Table,
    listed: Sequence[str] | None,
    used: Mapping[str, str | None],
    trained: Sequence[str] | None = None,
    new_rows: bool = False,
) -> tuple[list[str], list[str]]:
    """The columns that are features of rows, or channels of a series, and notes on columns that are left out.

    Args:
      table: the file.
      listed: the key `columns`; None takes every column that no other key uses.
      used: columns that other keys use, by the name of the key: `target` of rows, `time_column` of a series.
      trained: the columns of a run that the table is read for; they are taken in the order of the run.
      new_rows: the table is read for a run, so that it does not matter what its columns look like.

    Raises:
      ConfigError: a column is missing, was not there in training, has no name, holds text, or only counts or dates the
        rows.
    """
    elsewhere = {table.names[table.find(name, key)]: key for key, name in used.items() if name is not None}
    index, notes = _index(table, elsewhere)
    if trained is not None:
        free = [name for name in table.names if name not in elsewhere and name != index]
        _check_trained(table, free if listed is None else [], trained)
        return list(trained), notes
    if listed is not None:
        return _listed(table, listed, elsewhere), []
    chosen = [name for name in table.names if name not in elsewhere and name != index]
    if not chosen:
        known = ", ".join(elsewhere) or "the index"
        raise ConfigError("columns", None, f"{table.path.name} has no other column than {known}")
    _check_names(table, chosen)
    if not new_rows:
        _check_features(table, chosen, used)
    return chosen, notes


def _check_trained(table: Table, free: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse a table that lacks a column of a run, or has a free column that the run does not know."""
    for name in trained:
        table.find(name, "columns")
    for name in free:
        if name not in trained:
            problem = f"{table.path.name} has {'this column' if name else 'a column without a name'}"
            remedy = f"and training had not{nearest(name, trained)}; leave it out: {paste('columns', trained)}"
            raise ConfigError("columns", name, f"{problem}, {remedy}")


def _listed(table: Table, listed: Sequence[str], elsewhere: Mapping[str, str]) -> list[str]:
    """The columns that the key `columns` lists; refuse one that is listed twice or that another key uses."""
    chosen = [table.names[table.find(name, "columns")] for name in listed]
    for name in chosen:
        if chosen.count(name) > 1:
            raise ConfigError("columns", name, "this column is named twice")
        if name in elsewhere:
            remedy = f"this is data.{elsewhere[name]}, which is not part of x; leave it out of one of the two"
            raise ConfigError("columns", name, remedy)
    return chosen


def _check_listed(table: Table, names: Sequence[str]) -> None:
    """Refuse listed columns of text or of times; the error names all of them, and the setting without them."""
    columns = {name: table.column(name) for name in names}
    wrong = [
        name for name, column in columns.items() if column.numbers is None and not mostly_numbers(column, table.decimal)
    ]
    usable = [name for name in names if name not in wrong]
    if wrong and usable:
        problem = table.not_numeric(wrong[0], columns[wrong[0]]).remedy
        remedy = f"leave out {', '.join(wrong)}: {paste('columns', usable)}"
        raise ConfigError("columns", f"[{','.join(names)}]", f"{problem}; {remedy}")


def _index(table: Table, elsewhere: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """The column in which pandas counted the rows of a text file, and a note on an index that is left out."""
    if table.index is not None:
        named = not table.index.startswith("__index_level_")
        name, remedy = (f" '{table.index}'", "; data.columns can list it") if named else ("", "")
        return None, [f"the index{name} of {table.path.name} is left out{remedy}"]
    first = table.names[0]
    unnamed = not first or re.fullmatch(r"Unnamed: \d+", first)
    if unnamed and first not in elsewhere and table.names.count(first) == 1:
        cells = table.column(first).cells
        if cells is not None and count_up([str(cell) for cell in cells]):
            note = f"the first column of {table.path.name} only counts the rows (an index) and is left out"
            return first, [note]
    return None, []


def _check_names(table: Table, chosen: Sequence[str]) -> None:
    """Refuse columns without a name, and two columns of one name."""
    named = [name for name in chosen if name]
    for name in named:
        if chosen.count(name) > 1:
            raise ConfigError("columns", name, f"{table.path.name} has more than one column of this name; rename one")
    if "" in chosen:
        dates = chosen.count("") == 1 and looks_like_dates(table.column(""))
        how = "index_label=time, then data.time_column=time" if dates else "index=False"
        remedy = f"name it or write the table without it (pandas: {how}), or list the others: {paste('columns', named)}"
        problem = f"column {table.names.index('')} (from 0) has no name"
        raise ConfigError("columns", None, f"{table.path.name}, line 1: {problem}; {remedy}")


def _no_feature(table: Table, name: str, series: bool) -> str | None:
    """Why a column is hardly meant as a feature, or as a channel of a series; None if it may be."""
    if problem := table.problem(name):
        return problem
    column = table.column(name)
    where = f"{table.path.name}, column '{name}'"
    if column.kind == "time" or looks_like_dates(column):
        return f"{where} holds dates"
    if column.numbers is None:
        return table.not_numeric(name, column).remedy
    if compact_dates(column) is not None and len(column.numbers) >= LEAST:
        return f"{where} holds dates ({column.numbers[0]:.0f}, ...)"
    first = ", ".join(f"{value:.10g}" for value in column.numbers[:2])
    if grows_evenly(column.numbers):
        return f"{where} grows by a constant step ({first}, ...)"
    if name.lower() in TIME_NAMES and len(column.numbers) >= LEAST and (np.diff(column.numbers) > 0).all():
        return f"{where} grows from row to row ({first}, ...) as a time does"
    if series and column.kind == "integer" and name.lower() in DATE_PARTS:
        return f"{where} {HOLDS_DATE_PARTS}"
    return None


def _check_features(table: Table, chosen: Sequence[str], used: Mapping[str, str | None]) -> None:
    """Refuse columns that are hardly meant as features; the error names the setting that leaves them out."""
    series = "time_column" in used
    problems = {name: problem for name in chosen if (problem := _no_feature(table, name, series))}
    marked = [name for name in problems if table.problem(name) is None and _has_marks(table, table.column(name))]
    for name in marked:
        del problems[name]
    usable = [name for name in chosen if name not in problems]
    if marked:
        error = table.not_numeric(marked[0], table.column(marked[0]), marked)
        others = f"; and leave out {', '.join(problems)}: {paste('columns', usable)}" if problems else ""
        raise ConfigError(error.key, error.value, error.template + others)
    if not problems:
        return
    name, problem = next(iter(problems.items()))
    several = len(problems) > 1
    without = f", without {', '.join(problems)}" if several else ""
    remedy = f"list the columns to use{without}: {paste('columns', usable)}" if usable else "no other column is left"
    if problem.endswith(HOLDS_DATE_PARTS):
        remedy += "; for one column of times write 2016-07-01, or 2016-07 for months"
    elif series and used["time_column"] is None:
        rest = f" {paste('columns', usable)}" if several and usable else ""
        remedy = f"if it is the time: {paste('time_column', name)}{rest}; else {remedy}"
    elif "target" in used and used["target"] is None:
        which = "if one of them is the target, add it too, for example" if several else "if it is the target:"
        remedy += f"; {which} {paste('target', name)}"
    raise ConfigError("columns", None, f"{problem}; {remedy}")


def _has_marks(table: Table, column: Column) -> bool:
    """Whether most cells of a column of text are numbers, so that the others may be marks of missing values."""
    return column.kind == "text" and not looks_like_dates(column) and mostly_numbers(column, table.decimal)


def looks_like_dates(column: Column) -> bool:
    """Whether every cell of a column of text looks like a date or a time of day."""
    if column.kind != "text":
        return False
    return all(read_date(text) is not None or DATE.fullmatch(text) for text in column.texts)


def grows_evenly(values: np.ndarray) -> bool:
    """Whether values rise (or fall) from row to row by one step or a few of them, as times and row numbers do, [N]."""
    if len(values) < LEAST or np.isnan(values).any():
        return False
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        return False
    ratio = steps / np.median(steps)
    whole = np.round(ratio)
    return bool((np.abs(ratio - whole) <= 0.1).all() and (whole == 1).mean() >= 0.5)


def is_binary(kind: str, values: np.ndarray) -> bool:
    """Whether a column holds truth values, or only the whole numbers 0 and 1, beside missing values, [N]."""
    return kind == "bool" or (kind == "integer" and bool(np.isin(values[~np.isnan(values)], (0, 1)).all()))


# -------------------------------------------------------------------------------------------------------------- targets


class Target(NamedTuple):
    """What is known of rows beside their features.

    Attributes:
      label: classes 0 to K - 1, [N] int32; None for values.
      classes: names of the classes: text in alphabetical order, numbers by value; None for values.
      values: [N, 1] float64; None for classes.
      notes: decisions that the user may not have meant.
    """

    label: np.ndarray | None
    classes: tuple[str, ...] | None
    values: np.ndarray | None
    notes: tuple[str, ...] = ()


def target_column(target: np.ndarray) -> Column:
    """A target of an array file as a column.

    Raises:
      ConfigError: a whole number that float64 cannot hold.
    """
    if target.dtype.kind in "US":
        cells = np.array([str(cell).strip() for cell in target.astype(str)], object)
        return Column("text", None, cells, cells == "")
    if target.dtype.kind in "iu" and (inexact := np.abs(target.astype(object)) > EXACT).any():
        row = int(np.argmax(inexact))
        raise ConfigError("target", int(target[row]), f"row {row} (from 0) {INEXACT}")
    kind = {"b": "bool", "i": "integer", "u": "integer"}.get(target.dtype.kind, "float")
    numbers = np.asarray(target, np.float64)
    return Column(kind, numbers, None, np.isnan(numbers))  # type: ignore[arg-type]


def interpret(
    name: str, column: Column, task: Task | None, where_of: Callable[[int], str], *, new_rows: bool = False
) -> Target:
    """A target as classes or values: text is a class, floats are values, up to 20 different whole numbers are classes.

    Args:
      name: name of the target, for errors.
      column: its content.
      task: the key that decides; with None the content decides.
      where_of: where a row stands in its file.
      new_rows: the rows are for a run, so that the number of different classes among them does not matter.

    Raises:
      ConfigError: values that are missing or infinite, or a content that does not fit the task.
    """
    refuse = lambda problem: ConfigError("target", name, problem)
    _check_missing(name, column, where_of)
    if column.kind == "time":
        raise refuse("it holds times, which are neither classes nor values; choose another column")
    if column.numbers is None:
        _check_text(name, column, task, where_of)
        classes, label = np.unique(np.asarray(column.texts), return_inverse=True)
        return _classes(name, label, tuple(map(str, classes)), new_rows)
    numbers, cells = column.numbers, column.cells
    if np.isinf(numbers).any():
        raise refuse(f"{where_of(int(np.argmax(np.isinf(numbers))))}: the value is infinite")
    values, label = np.unique(numbers, return_inverse=True)
    whole = column.kind in ("integer", "bool")
    if task is None and whole and len(values) > MOST_CLASSES and not new_rows:
        remedy = "say what they are: data.task=values or data.task=classes"
        raise refuse(f"it holds {len(values)} different whole numbers; {remedy}")
    if task == "classes" or (task is None and whole):
        if column.kind == "integer" and cells is not None and len(set(cells)) > len(values):
            text = next(text for text in sorted(set(cells)) if str(int(text)) != text)
            raise refuse(f"'{text}' and '{int(text)}' are one number; write a class in one way")
        if column.kind == "bool":
            return _classes(name, label, tuple(str(bool(value)) for value in values), new_rows)
        names = (f"{value:.0f}" if value.is_integer() else repr(float(value)) for value in values)
        return _classes(name, label, tuple(names), new_rows)
    notes = ()
    if task is None and len(values) <= MOST_CLASSES and (values == np.round(values)).all():
        text = f"target '{name}' holds {len(values)} different whole numbers written as fractions"
        notes = (f"{text} and is taken as values; if they are classes: data.task=classes",)
    return Target(None, None, numbers[:, None], notes)


def _check_missing(name: str, column: Column, where_of: Callable[[int], str]) -> None:
    """Refuse a target that some row lacks."""
    if not column.missing.any():
        return
    row = int(np.argmax(column.missing))
    cell = "nan" if column.cells is None else str(column.cells[row])
    shown = "nan" if column.cells is None else f"'{cell}'" if cell else "an empty cell"
    remedy = "every row needs its target: add it, or remove the row"
    if column.cells is not None and cell and column.numbers is None:
        remedy += "; a class needs another name"
    raise ConfigError("target", name, f"{where_of(row)}: {shown} is a missing value; {remedy}")


def _check_text(name: str, column: Column, task: Task | None, where_of: Callable[[int], str]) -> None:
    """Refuse text that cannot be the names of classes, or is not meant to be."""
    texts = column.texts
    if task == "values":
        problem = f"{where_of(0)}: '{texts[0][:40]}' is not a number, so data.target={name} has classes"
        raise ConfigError("task", task, problem)
    if task == "classes":
        return
    numeric = [_is_number(text) for text in texts]
    if any(numeric) and not all(numeric):
        row = numeric.index(False)
        problem = f"{where_of(row)}: '{texts[row][:40]}' is text, and other rows hold numbers"
        raise ConfigError("target", name, f"{problem}; correct it, or say data.task=classes")
    if looks_like_dates(column):
        remedy = f"it holds dates ({texts[0]}, ...); if they are classes: data.task=classes"
        raise ConfigError("target", name, remedy)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _classes(name: str, label: np.ndarray, classes: tuple[str, ...], new_rows: bool) -> Target:
    if len(classes) == len(label) > 2 and not new_rows:
        raise ConfigError("target", name, "every row has another value, so these are not classes; remove the column")
    return Target(label.astype(np.int32), classes, None)
