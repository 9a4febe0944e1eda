"""What the arrays of a file mean by their shapes: the kind of the rows, sequences with lengths, and their targets."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from research.data.checks import marks_notes
from research.data.columns import Task, grows_evenly
from research.data.files.table import EXACT, MOST_CLASSES
from research.data.preparation import marked
from research.tree import ConfigError

Kind = Literal["image", "vector", "sequence"]
SEEN = 20  # sequences that show whether a channel only counts the steps
SHAPES: dict[Kind | None, str] = {
    None: "[N, D], [N, H, W], [N, H, W, 1 or 3] or sequences [N, T, C]",
    "vector": "[N, D], which data.kind=vector needs: save x.reshape(len(x), -1)",
    "image": "[N, H, W] or [N, H, W, 1 or 3], which data.kind=image needs",
    "sequence": "[N, T, C], or [N, T] of one channel, which data.kind=sequence needs",
}


# ------------------------------------------------------------------------------------------------------ kinds of rows


def kind_of(shape: tuple[int, ...], asked: Kind | None, has_lengths: bool) -> Kind:
    """The kind of rows of an array: the one that is asked for, or else by its shape.

    [N, D] are vectors; rows with lengths are sequences; [N, A, B] and [N, A, B, 1 or 3] are images. Recurrent models
    ask for sequences where `may_be_sequences` says so.

    Raises:
      ConfigError: with an empty key: no kind has this shape.
    """
    rank, colors = len(shape), len(shape) == 4 and shape[-1] in (1, 3)
    fits = {"vector": rank == 2, "image": rank == 3 or colors, "sequence": rank == 3}
    fits["sequence"] |= rank == 2 and (asked == "sequence" or has_lengths)
    by_shape: Kind = "vector" if rank == 2 else "image"
    wanted: Kind = asked or ("sequence" if has_lengths else by_shape)
    if not fits[wanted]:
        raise ConfigError("", None, f"its shape is {shape}; expected {SHAPES[asked]}")
    if 0 in shape:
        raise ConfigError("", None, f"its shape is {shape}: there is nothing in it")
    return wanted


def may_be_sequences(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a recurrent model may take an array as sequences: [N, T, C], and no bytes or bits, which are pixels."""
    return len(shape) == 3 and dtype.kind in "iuf" and dtype != np.uint8


def check_numbers(x: np.ndarray, file: str, missing: bool = False, first: int = 0) -> np.ndarray:
    """The numbers of an array; bool becomes uint8.

    Args:
      x: an array of any shape.
      file: name of the file, for errors.
      missing: NaN is a missing value; otherwise it is refused.
      first: number of the first row in the file, for errors.

    Raises:
      ConfigError: other types, or values that are not finite.
    """
    if x.dtype.kind not in "biuf":
        raise ConfigError("", None, f"it holds values of type {x.dtype}; expected numbers")
    if x.dtype.kind == "f" and not (fits := np.isfinite(x) | (np.isnan(x) & missing)).all():
        index = np.unravel_index(int(np.argmin(fits)), x.shape)
        where = f"{file}: value {x[index]} at index {[first + int(index[0]), *map(int, index[1:])]} (from 0)"
        of_sequences = "; missing values of sequences [N, T, C] are masked: data.kind=sequence"
        gap = np.isnan(x[index]) and x.ndim == 3
        raise ConfigError("", None, f"{where}; fill or remove such rows{of_sequences if gap else ''}")
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and (x.max() > EXACT or x.min() < -EXACT):
        raise ConfigError("", None, f"{file}: whole numbers beyond 2^53 are not exact as floats; leave them out")
    return np.array(x, np.uint8 if x.dtype == np.bool_ else x.dtype, order="C")


# ---------------------------------------------------------------------------------------------------------- sequences


class Sequences(NamedTuple):
    """Sequences as a recipe reads them. Values behind the end of a sequence, and missing values, are 0.

    Attributes:
      x: [N, T, C], uint8 or floats.
      length: valid steps of every sequence, [N] int32; None if all have T.
      observed: False where a value is missing or padding, [N, T, C]; None if nothing is missing.
      binary: channels of whole numbers that hold only 0 and 1, [C] bool.
      notes: what looks wrong but may be right.
    """

    x: np.ndarray
    length: np.ndarray | None
    observed: np.ndarray | None
    binary: np.ndarray
    notes: list[str]


def read_sequences(
    x: np.ndarray, lengths: np.ndarray | None, marks: tuple[float, ...], file: str, key: str, new_rows: bool = False
) -> Sequences:
    """Sequences of an array.

    Args:
      x: [N, T, C], or [N, T] of one channel; NaN is a missing value.
      lengths: as stored; None if all sequences have T steps.
      marks: numbers that mean a missing value as well.
      file: name of the file, for errors.
      key: name of the array of lengths, for errors.
      new_rows: the sequences are for a run, so that it does not matter what they look like.

    Raises:
      ConfigError: lengths do not fit, values are infinite, or a sequence holds no value at all.
    """
    x = x[..., None] if x.ndim == 2 else x
    length = None if lengths is None else check_lengths(lengths, x.shape[:2], key)
    inside = steps_inside(x.shape[:2], length)
    if length is not None:
        x = np.array(x)
        x[~inside] = 0
    x = check_numbers(x, file, missing=True)
    whole = x.dtype.kind != "f"
    named = marked(x, marks) & inside[..., None]
    if x.dtype not in (np.uint8, np.float32) or (x.dtype == np.uint8 and named.any()):
        x = x.astype(np.float64)
    gaps = named | np.isnan(x)
    binary = np.zeros(x.shape[2], bool)
    if whole:
        binary = (gaps | (x == 0) | (x == 1)).all((0, 1))
    notes = []
    if not new_rows:
        unknown = gaps | ~inside[..., None]
        silent = unknown.all((0, 1))
        if silent.any() and not silent.all():
            problem = f"{file}, channel {int(np.argmax(silent))} (from 0) holds no value in any sequence"
            raise ConfigError("", None, f"{problem}; store the array without it")
        empty = unknown.all((1, 2))
        if empty.any():
            row, count = int(np.argmax(empty)), int(empty.sum())
            others = f" (and {count - 1} other rows)" if count > 1 else ""
            problem = f"{file}, row {row} (from 0){others} holds no value at all"
            raise ConfigError("", None, f"{problem}; remove it")
        if not whole:
            channels = [str(number) for number in range(x.shape[2])]
            notes += marks_notes(file, channels, np.where(gaps, np.nan, x)[inside])
        notes += _counting_notes(file, x, gaps, length)
        if marks and not named.any():
            shown = ", ".join(f"{mark:.10g}" for mark in marks)
            notes.append(f"{shown} (data.missing) occurs nowhere in {file}")
    x[gaps] = 0
    return Sequences(x, length, ~gaps & inside[..., None] if gaps.any() else None, binary, notes)


def check_lengths(lengths: np.ndarray, shape: tuple[int, ...], key: str) -> np.ndarray | None:
    """Lengths of sequences of an array [N, T, ...], [N] int32; None if all have T steps.

    Raises:
      ConfigError: they are no whole numbers from 1 to T, one for each row.
    """
    rows, steps = shape
    lengths = lengths[:, 0] if lengths.ndim == 2 and lengths.shape[1] == 1 else lengths
    if lengths.shape != (rows,) or lengths.dtype.kind not in "iu":
        problem = f"array of shape {lengths.shape} {lengths.dtype}"
        raise ConfigError("lengths", key, f"{problem}; expected one whole number for each of {rows} rows")
    wrong = (lengths < 1) | (lengths > steps)
    if wrong.any():
        row = int(np.argmax(wrong))
        problem = f"row {row} (from 0) has the length {lengths[row]}"
        raise ConfigError("lengths", key, f"{problem}; expected 1 to {steps}, the number of steps of x")
    return None if (lengths == steps).all() else lengths.astype(np.int32)


def steps_inside(shape: tuple[int, ...], length: np.ndarray | None) -> np.ndarray:
    """True for the steps [N, T] before the end of every sequence."""
    return np.ones(shape, bool) if length is None else np.arange(shape[1]) < length[:, None]


def _counting_notes(file: str, x: np.ndarray, gaps: np.ndarray, length: np.ndarray | None) -> list[str]:
    """Notes on channels that grow by a constant step in every sequence, of some of them."""
    shown_rows = range(min(len(x), SEEN))
    ends = [x.shape[1] if length is None else length[row] for row in shown_rows]
    notes = []
    for channel in range(x.shape[2]):
        pieces = [(x[row, :end, channel], gaps[row, :end, channel]) for row, end in zip(shown_rows, ends, strict=True)]
        if all(not gap.any() and grows_evenly(values) for values, gap in pieces):
            text = f"{file}, channel {channel} (from 0) grows by a constant step in every sequence"
            notes.append(f"{text}; if it only counts or dates the steps, store the array without it")
    return notes


def lengthened(sequences: Sequences, steps: int) -> Sequences:
    """The same sequences in an array of so many steps; those behind their ends are padding."""
    rows, present, _ = sequences.x.shape
    if steps == present:
        return sequences
    widths = ((0, 0), (0, steps - present), (0, 0))
    length = np.full(rows, present, np.int32) if sequences.length is None else sequences.length
    observed = None if sequences.observed is None else np.pad(sequences.observed, widths)
    return sequences._replace(x=np.pad(sequences.x, widths), length=length, observed=observed)


def shortened(sequences: Sequences, steps: int) -> Sequences:
    """The same sequences in an array of so many steps, where none of them is longer; otherwise as they are."""
    if sequences.length is None or sequences.length.max() > steps:
        return sequences
    length = None if (sequences.length == steps).all() else sequences.length
    observed = None if sequences.observed is None else sequences.observed[:, :steps]
    return sequences._replace(x=np.ascontiguousarray(sequences.x[:, :steps]), length=length, observed=observed)


# ------------------------------------------------------------------------------------------------ targets of sequences


class Values(NamedTuple):
    """Targets of sequences that are more than one number a row.

    Attributes:
      target: values of a sequence [N, D] or of its steps [N, T, D], float64, or the class of every step [N, T] int32.
      observed: False where a value of a step is missing or padding, [N, T, D]; None if none is.
      notes: how the shape was read.
    """

    target: np.ndarray
    observed: np.ndarray | None
    notes: tuple[str, ...]


def read_targets(
    name: str,
    target: np.ndarray,
    inside: np.ndarray,
    task: Task | None,
    marks: tuple[float, ...],
    where_of: Callable[[int], str],
    *,
    new_rows: bool = False,
) -> Values:
    """Targets of sequences: [N, T] is a value or a class of every step, [N, T, D] are values of every step.

    [N, D], where D is not T, are values of the sequence. What stands behind the end of a sequence has no meaning.

    Args:
      name: of the array, for errors.
      target: as stored, of two or three axes.
      inside: True for the steps before the end of every sequence, [N, T].
      task: the key that decides between classes and values; with None whole numbers [N, T] are classes.
      marks: numbers that mean a missing value, beside NaN.
      where_of: where a row stands in its file.
      new_rows: the rows are for a run, which knows how many classes there are.

    Raises:
      ConfigError: another shape, text, classes that are not numbered from 0, or values that are missing where they must
        not be.
    """
    refuse = lambda problem: ConfigError("target", name, problem)
    rows, steps = inside.shape
    stepwise = target.shape[1] == steps
    if target.ndim > 3 or (target.ndim == 3 and not stepwise) or 0 in target.shape:
        shapes = f"[{rows}], [{rows}, D], [{rows}, {steps}] or [{rows}, {steps}, D]"
        raise refuse(f"array of shape {target.shape}; expected {shapes}")
    if target.dtype.kind not in "biuf":
        remedy = "number the classes of the steps from 0 (numpy.unique does that by return_inverse)"
        raise refuse(f"it holds text; {remedy}")
    whole, of_steps = target.dtype.kind in "biu", stepwise and target.ndim == 2
    if task == "classes" and not of_steps:
        raise refuse(f"array of shape {target.shape}; classes are one for each row [{rows}] or step [{rows}, {steps}]")
    if whole and task is None and not stepwise:
        problem = f"whole numbers of shape {target.shape}, and x has {steps} steps"
        raise refuse(f"{problem}; if they are {target.shape[1]} values of every row: data.task=values")
    values, named = np.array(target, np.float64), marked(target, marks)
    if stepwise:
        values[~inside] = 0
    if np.isinf(values).any():
        raise refuse(f"{where_of(int(np.argwhere(np.isinf(values))[0, 0]))}: a value is infinite")
    missing = np.isnan(values) | named
    missing &= inside.reshape(rows, steps, *(1,) * (target.ndim - 2)) if stepwise else True
    what = "class" if task == "classes" or (task is None and whole) else "value"
    text = f"target '{name}' of shape [{rows}, {steps}] is read as one {what} for each of the {steps} steps"
    notes = (text,) if of_steps and not new_rows else ()
    if of_steps and what == "class":
        return Values(_classes(refuse, values, missing, inside, task, where_of, new_rows), None, notes)
    if missing.any() and not stepwise:
        row = int(np.argwhere(missing)[0, 0])
        raise refuse(f"{where_of(row)}: a value is missing; every row needs its target: add it, or remove the row")
    if of_steps:
        values, missing = values[..., None], missing[..., None]
    observed = None
    if stepwise:
        observed = np.broadcast_to(inside[..., None], values.shape) & ~missing
        unknown = ~observed.any((1, 2))
        if unknown.any() and not new_rows:
            row = int(np.argmax(unknown))
            raise refuse(f"{where_of(row)}: no value of the target is known; remove the row")
    values[missing] = 0
    return Values(values, None if observed is None or observed.all() else observed, notes)


def _classes(
    refuse: Callable[[str], ConfigError],
    values: np.ndarray,
    missing: np.ndarray,
    inside: np.ndarray,
    task: Task | None,
    where_of: Callable[[int], str],
    new_rows: bool,
) -> np.ndarray:
    """The class of every step, [N, T] int32, from values [N, T]."""
    if missing.any():
        problem = f"{where_of(int(np.argwhere(missing)[0, 0]))}: the class of a step is missing"
        raise refuse(f"{problem}; every step before data.lengths needs its class")
    different: Any = np.unique(values[inside])
    if task is None and len(different) > MOST_CLASSES and not new_rows:
        remedy = "say what they are: data.task=values or data.task=classes"
        raise refuse(f"it holds {len(different)} different whole numbers; {remedy}")
    numbered = np.array_equal(different, np.arange(len(different)))
    if new_rows:
        numbered = bool((different >= 0).all() and (different == np.round(different)).all())
    if not numbered:
        shown = ", ".join(f"{value:g}" for value in different[:6]) + (", ..." if len(different) > 6 else "")
        remedy = "number them from 0 (numpy.unique does that by return_inverse)"
        raise refuse(f"the classes of its steps are {shown}; {remedy}, or data.task=values")
    return values.astype(np.int32)
