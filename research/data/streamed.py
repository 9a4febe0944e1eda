"""Arrays of your own that are larger than memory: one pass over memory-mapped files says what must be known of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.data import checks
from research.data.columns import grows_evenly
from research.data.files.arrays import map_npy
from research.data.mapped import Mapped
from research.data.preparation import CHUNK, marked
from research.data.shapes import Kind, check_numbers, kind_of
from research.tree import ConfigError


class Streamed(NamedTuple):
    """The rows of one file, of which only the targets are in memory.

    Attributes:
      x: the rows.
      target: the column of the targets as stored, [N]; None without.
      kind: what a row is.
      binary: features or channels that hold only the whole numbers 0 and 1, as `tables.Content` has them.
      notes: what looks wrong but may be right.
    """

    x: Mapped
    target: np.ndarray | None
    kind: Kind
    binary: np.ndarray
    notes: list[str]


def read_streamed(path: Path, asked: Kind | None, target: str | None, marks: Sequence[float]) -> Streamed:
    """Map a `.npy` file, and read it once to check its numbers.

    Args:
      path: the file.
      asked: the kind of rows that the recipe asks for.
      target: number of the column that holds the targets; None: there is none.
      marks: numbers that mean a missing value, beside NaN.

    Raises:
      ConfigError: the file is damaged, or its rows are none of the kind, or a value is missing or infinite.
    """
    file, column = map_npy(path, target)
    columns = None if column is None else np.delete(np.arange(file.shape[1]), column)
    kind = kind_of((len(file), len(columns)) if columns is not None else file.shape, asked, False)
    row_shape = file.shape[1:] if columns is None else (len(columns),)
    if kind == "sequence" and len(row_shape) == 1:
        row_shape = (*row_shape, 1)
    dtype = np.dtype(np.uint8) if file.dtype == np.bool_ else file.dtype
    dtype = dtype if dtype in (np.uint8, np.float32) else np.dtype(np.float64)
    stored = Mapped((file,), file.dtype, row_shape, columns)
    low, high = _range(stored, kind, tuple(marks), path.name)
    # uint8 of vectors and images is one kind of number; other whole numbers and channels are told apart
    binary = (low >= 0) & (high <= 1) if file.dtype.kind in "biu" else np.zeros(low.shape, bool)
    if dtype == np.uint8 and kind != "sequence":
        binary = np.asarray(binary.all())
    values = None if column is None else np.array(file[:, column])
    return Streamed(Mapped((file,), dtype, row_shape, columns), values, kind, binary, _notes(stored, kind, path.name))


def _range(x: Mapped, kind: Kind, marks: tuple[float, ...], file: str) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of every feature of the stored rows, or of every channel of sequences.

    Raises:
      ConfigError: naming the first value that is missing, infinite or not exact.
    """
    edges: list[tuple[np.ndarray, np.ndarray]] = []
    axes = (0, 1) if kind == "sequence" else (0,)
    for first in range(0, len(x), CHUNK):
        values = x[first : first + CHUNK]
        numeric = values.dtype.kind in "biuf"  # others are refused below
        gaps = marked(values, marks) | np.isnan(values) if numeric else np.zeros(1, bool)
        if gaps.any():
            index = [int(axis[0]) for axis in np.nonzero(gaps)]
            where = f"{file}: {values[tuple(index)]} at index {[first + index[0], *index[1:]]} (from 0)"
            remedy = "fill it or remove the row"
            remedy += ", or set data.stream=false, which masks it" if kind == "sequence" else ""
            raise ConfigError("", None, f"{where} is a missing value; {remedy}")
        values = check_numbers(values, file, first=first)
        edges.append((values.min(axes), values.max(axes)))
    low, high = zip(*edges, strict=True)
    return np.min(low, axis=0), np.max(high, axis=0)


def _notes(x: Mapped, kind: Kind, file: str) -> list[str]:
    """Notes on columns of vectors by their first 4,096 rows, as `tables.Arrays` has them by all rows."""
    if kind != "vector" or x.dtype == np.uint8:
        return []
    values = x[:CHUNK]
    text = "grows by a constant step; if it only counts or dates the rows, store the array without it"
    notes = [f"{file}, column {at} (from 0) {text}" for at, column in enumerate(values.T) if grows_evenly(column)]
    return notes + checks.marks_notes(file, [str(number) for number in range(values.shape[1])], values)


def joined(parts: Sequence[Any]) -> Any:
    """The rows of one or two files, in memory or streamed, as one array; types and shapes of the rows agree."""
    if not isinstance(parts[0], Mapped):
        return np.concatenate(parts)
    return dataclasses.replace(parts[0], files=tuple(file for part in parts for file in part.files))
