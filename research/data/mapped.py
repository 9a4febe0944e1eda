"""Rows that stay in their files: a lazy array over memory-mapped `.npy` files."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Mapped:
    """A lazy array [N, ...] of the rows of memory-mapped files, one file after another.

    Indexing by rows reads these rows and gives a dense array. When memory is short, the system drops pages.

    Attributes:
      files: arrays of equal type and equal shape of a row, [N_i, ...].
      dtype: of the rows that indexing gives.
      row_shape: shape of a row that indexing gives.
      columns: numbers of the columns of [N_i, D] that belong to a row; None: all.
      offset: subtracted in float64 before the values get their type, () or of the last axes of a row.
    """

    files: tuple[np.ndarray, ...]
    dtype: np.dtype
    row_shape: tuple[int, ...]
    columns: np.ndarray | None = None
    offset: Any = 0.0

    def __len__(self) -> int:
        return sum(map(len, self.files))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that indexing gives."""
        return int(np.prod(self.row_shape)) * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        if numbers.dtype == bool:
            numbers = np.flatnonzero(numbers)
        values = self.files[0][numbers] if len(self.files) == 1 else self._of_files(numbers)
        if self.columns is not None:
            values = values[..., self.columns]
        values = np.asarray(values).reshape(*numbers.shape, *self.row_shape)
        if np.any(self.offset):
            values = values - np.asarray(self.offset, np.float64)
        return values.astype(self.dtype, order="C", copy=False)  # the order of sums depends on the layout

    def _of_files(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of several files, as stored."""
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        values, first = np.empty((*numbers.shape, *self.files[0].shape[1:]), self.files[0].dtype), 0
        for file in self.files:
            inside = (numbers >= first) & (numbers < first + len(file))
            values[inside] = file[numbers[inside] - first]
            first += len(file)
        return values

    def compact(self, offset: Any) -> "Mapped":
        """The same rows as a compiled program gets them, see `examples.compact`."""
        is_small = self.dtype == np.float32 or (self.dtype.kind != "f" and self.dtype.itemsize <= 4)
        if is_small and not np.any(offset):
            return self
        return dataclasses.replace(self, dtype=np.dtype(np.float32), offset=offset)
