"""Targets of rows: which are classes, and which are values."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from research.data.checks import looks_like_dates
from research.data.columns import EXACT, Column
from research.tree import ConfigError

MOST = 20  # different whole numbers that are classes without being asked

Task = Literal["classes", "values"]


class Target(NamedTuple):
    """What is known of rows beside their features.

    Attributes:
      label: classes 0 to K - 1, [N] int32; None for values.
      classes: their names: text sorted, numbers by value; None for values.
      values: [N, 1] float64; None for classes.
      notes: what was decided that may not be meant.
    """

    label: np.ndarray | None
    classes: tuple[str, ...] | None
    values: np.ndarray | None
    notes: tuple[str, ...] = ()


def column_of(target: np.ndarray) -> Column:
    """A target of an array file as a column."""
    if target.dtype.kind in "US":
        cells = np.array([str(cell).strip() for cell in target.astype(str)], object)
        return Column("text", None, cells, np.array([not cell for cell in cells], bool))
    if target.dtype.kind in "iu" and (np.abs(target.astype(object)) > EXACT).any():
        row = int(np.argmax(np.abs(target.astype(object)) > EXACT))
        raise ConfigError(
            "target", int(target[row]), f"row {row} (from 0) is beyond 2^53, where whole numbers are not exact"
        )
    kind = {"b": "bool", "i": "integer", "u": "integer"}.get(target.dtype.kind, "float")
    numbers = np.asarray(target, np.float64)
    return Column(kind, numbers, None, np.isnan(numbers))  # type: ignore[arg-type]


def interpret(
    name: str, column: Column, task: Task | None, place: Callable[[int], str], *, new_rows: bool = False
) -> Target:
    """Classes or values: text is a class, floats are values, up to 20 different whole numbers are classes.

    Args:
      name: of the target, for errors.
      column: its content.
      task: the key that decides; None decides by the content.
      place: where a row stands in its file.
      new_rows: the rows are for a run, so that any number of classes may be among them.

    Raises:
      ConfigError: missing or infinite values, or what the content cannot be.
    """
    numbers, cells = column.numbers, column.cells
    if column.missing.any():
        row = int(np.argmax(column.missing))
        shown = "nan" if cells is None else f"'{cells[row]}'" if str(cells[row]) else "an empty cell"
        remedy = "every row needs its target: add it, or remove the row"
        if cells is not None and str(cells[row]) and numbers is None:
            remedy += "; a class needs another name"
        raise ConfigError("target", name, f"{place(row)}: {shown} is a missing value; {remedy}")
    if numbers is not None and np.isinf(numbers).any():
        raise ConfigError("target", name, f"{place(int(np.argmax(np.isinf(numbers))))}: the value is infinite")
    if column.kind == "time":
        raise ConfigError("target", name, "it holds times, which are neither classes nor values; choose another column")
    if numbers is None:
        assert cells is not None
        if task == "values":
            raise ConfigError(
                "task", task, f"{place(0)}: '{str(cells[0])[:40]}' is no number, so data.target={name} has classes"
            )
        numeric = [_is_number(str(cell)) for cell in cells]
        if any(numeric) and not all(numeric) and task is None:
            row = numeric.index(False)
            shown = f"{place(row)}: '{str(cells[row])[:40]}' is text, and other rows hold numbers"
            raise ConfigError("target", name, f"{shown}; correct it, or say data.task=classes")
        if task is None and looks_like_dates(column):
            raise ConfigError(
                "target", name, f"it holds dates ({cells[0]}, ...); if they are classes: data.task=classes"
            )
        classes, label = np.unique(cells.astype(str), return_inverse=True)
        return _classes(name, label, tuple(map(str, classes)), new_rows)
    values, label = np.unique(numbers, return_inverse=True)
    whole = column.kind in ("integer", "bool")
    if task is None and whole and len(values) > MOST and not new_rows:
        remedy = "say what they are: data.task=values or data.task=classes"
        raise ConfigError("target", name, f"it holds {len(values)} different whole numbers; {remedy}")
    if task == "classes" or (task is None and whole):
        texts = values if cells is None or not whole else np.unique(cells.astype(str))
        if len(texts) > len(values) and column.kind == "integer":
            same = next(text for text in texts if str(int(text)) != text)
            raise ConfigError("target", name, f"'{same}' and '{int(same)}' are one number; write a class in one way")
        if column.kind == "bool":
            return _classes(name, label, tuple(str(bool(value)) for value in values), new_rows)
        return _classes(
            name,
            label,
            tuple(f"{value:.0f}" if value.is_integer() else repr(float(value)) for value in values),
            new_rows,
        )
    notes = ()
    if task is None and len(values) <= MOST and (values == np.round(values)).all():
        text = (
            f"target '{name}' holds {len(values)} different whole numbers written as fractions and is taken as values"
        )
        notes = (f"{text}; if they are classes: data.task=classes",)
    return Target(None, None, numbers[:, None], notes)


def _classes(name: str, label: np.ndarray, classes: tuple[str, ...], new_rows: bool) -> Target:
    if len(classes) == len(label) > 2 and not new_rows:
        raise ConfigError("target", name, "every row has another value, so these are no classes; remove the column")
    return Target(label.astype(np.int32), classes, None)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
