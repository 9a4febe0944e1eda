"""Rows as models see them, without a copy of all rows: what is read lazily is scaled when rows are taken."""

import dataclasses
from typing import Any, Literal

import numpy as np

from research.data.examples import Examples, Split, Windows, map_rows, prepare
from research.data.mapped import Mapped


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A lazy array [N, ...] of float32 values as models see them; see `examples.prepare`.

    Attributes:
      stored: rows of a data set as stored; its `x` is lazy.
      rows: numbers of the rows of this array, [N].
      shift, scale: models see `(x - shift) * scale`.
      field: which field of the prepared rows this is.
    """

    stored: Examples
    rows: np.ndarray
    shift: Any
    scale: Any
    field: Literal["x", "truth"] = "x"

    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.stored.x.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        taken = self.stored.take(self.rows[rows])
        return getattr(prepare(taken, self.shift, self.scale), self.field)

    def __array__(self, *arguments: Any, **settings: Any) -> np.ndarray:
        raise TypeError("take some of these rows; there may be too many of them for one array")


def seen(examples: Examples, rows: np.ndarray, split: Split) -> Examples:
    """Some rows of a data set as models see them. Fields that are lazy stay lazy; all others are dense."""
    if not any(isinstance(array, Windows | Mapped) for array in (examples.x, examples.target)):
        return split.prepare(examples.take(rows))
    shift, scale = split.shift, split.scale
    masks = {"length": examples.length, "observed": examples.observed}
    fields: dict[str, Any] = {"x": Seen(Examples(examples.x, **masks), rows, shift, scale)}
    if examples.has_values:
        stored = Examples(examples.target, observed=examples.target_observed)
        fields["target"] = Seen(stored, rows, split.target_shift, split.target_scale)
    if examples.hidden is not None:
        stored = Examples(examples.x, truth=examples.truth, hidden=examples.hidden, **masks)
        fields["truth"] = Seen(stored, rows, shift, scale, "truth")
    others = dataclasses.replace(examples, **dict.fromkeys(fields))
    return dataclasses.replace(map_rows(lambda array: _picked(array, rows), others), **fields)


def _picked(array: Any, rows: np.ndarray) -> Any:
    """Some rows of an array; those of windows stay lazy."""
    return dataclasses.replace(array, start=array.start[rows]) if isinstance(array, Windows) else array[rows]
