"""Targets of rows: which are classes, and which are values."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from research.data.features import looks_like_dates
from research.data.files.cells import EXACT, INEXACT, MOST_CLASSES, Column
from research.tree import ConfigError

Task = Literal["classes", "values"]


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


def column_of(target: np.ndarray) -> Column:
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
    name: str, column: Column, task: Task | None, place: Callable[[int], str], *, new_rows: bool = False
) -> Target:
    """A target as classes or values: text is a class, floats are values, up to 20 different whole numbers are classes.

    Args:
      name: name of the target, for errors.
      column: its content.
      task: the key that decides; with None the content decides.
      place: where a row stands in its file.
      new_rows: the rows are for a run, so that the number of different classes among them does not matter.

    Raises:
      ConfigError: values that are missing or infinite, or a content that does not fit the task.
    """
    refuse = lambda problem: ConfigError("target", name, problem)
    _check_missing(name, column, place)
    if column.kind == "time":
        raise refuse("it holds times, which are neither classes nor values; choose another column")
    if column.numbers is None:
        _check_text(name, column, task, place)
        classes, label = np.unique(np.asarray(column.texts), return_inverse=True)
        return _classes(name, label, tuple(map(str, classes)), new_rows)
    numbers, cells = column.numbers, column.cells
    if np.isinf(numbers).any():
        raise refuse(f"{place(int(np.argmax(np.isinf(numbers))))}: the value is infinite")
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


def _check_missing(name: str, column: Column, place: Callable[[int], str]) -> None:
    """Refuse a target that some row lacks."""
    if not column.missing.any():
        return
    row = int(np.argmax(column.missing))
    cell = "nan" if column.cells is None else str(column.cells[row])
    shown = "nan" if column.cells is None else f"'{cell}'" if cell else "an empty cell"
    remedy = "every row needs its target: add it, or remove the row"
    if column.cells is not None and cell and column.numbers is None:
        remedy += "; a class needs another name"
    raise ConfigError("target", name, f"{place(row)}: {shown} is a missing value; {remedy}")


def _check_text(name: str, column: Column, task: Task | None, place: Callable[[int], str]) -> None:
    """Refuse text that cannot be the names of classes, or is not meant to be."""
    texts = column.texts
    if task == "values":
        problem = f"{place(0)}: '{texts[0][:40]}' is not a number, so data.target={name} has classes"
        raise ConfigError("task", task, problem)
    if task == "classes":
        return
    numeric = [_is_number(text) for text in texts]
    if any(numeric) and not all(numeric):
        row = numeric.index(False)
        problem = f"{place(row)}: '{texts[row][:40]}' is text, and other rows hold numbers"
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
