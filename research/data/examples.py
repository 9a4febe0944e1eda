"""What every data set hands to every model: rows, their splits, and facts about them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from research.data.mapped import Mapped

FAR = 256  # a scaled shift above this costs float32 so many digits that numpy computes in float64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
    """A lazy array [N, size, ...] of overlapping pieces of long series: row i is `series[start[i] : start[i] + size]`.

    Indexing by rows gives a dense array, of numpy or of jax as the fields are. It works under jit and vmap.

    Attributes:
      series: steps of all series, one series after another, [S, ...].
      start: first step of every row, [N] int32; no row reaches from one series into the next.
      size: number of steps in a row.
    """

    series: Any
    start: Any
    size: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.start.shape, self.size, *self.series.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self.series.dtype

    def __len__(self) -> int:
        return self.start.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if _is_numpy(self) and not isinstance(rows, jax.Array):
            return self.series[self.start[rows][..., None] + np.arange(self.size)]
        start = jnp.asarray(self.start)[rows]
        # Cutting whole windows is one gather of large pieces, and faster than a gather of single steps.
        cut = jax.vmap(lambda first: jax.lax.dynamic_slice_in_dim(jnp.asarray(self.series), first, self.size))
        return cut(start.reshape(-1)).reshape(*start.shape, self.size, *self.series.shape[1:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Examples:
    """Rows of data. All fields that are present have the same leading axis: `N` rows of a data set, `B` of a batch.

    `x`, `target` and their masks may be `Windows`, and `x` may be `Mapped`; `take` makes them dense.

    Attributes:
      x: what is modelled, [N, ...]; sequences are [N, T, C].
      target: what is predicted, where that is not `x`: the next steps [N, H, C] float, values [N, D] float, a class per
        step [N, T] int32, or values per step [N, T, D] float. Signed integers are classes, all else are values.
      length: number of valid time steps of a padded sequence, [N] int32.
      observed: False where a value of `x` is missing, of the shape of `x`.
      target_observed: False where a value of `target` is missing or padding, of the shape of a float `target`.
      label: class, an integer from 0, [N].
      factors: known factors of variation, [N, F].
      naive_error: mean absolute difference between steps one season apart, in the training part of the row's series and
        in raw units: the denominator of MASE, [N, C] float32.
      hidden: True where a value of `x` is known and hidden from models, for which it is not `observed`, of the shape of
        `x`; None: nothing is hidden.
      truth: prepared rows have the values of `x` here with the hidden ones, and 0 in `x` in their place; None in rows
        as stored, whose `x` still has these values.
      known: what is known in advance of every step of `x` and of the steps to come, scaled, [N, T + H, K] float32.
      static: what is known of the whole row, scaled, [N, D] float32.
      series_shift, series_scale: of rows whose series have scales of their own, [N, C] float64. `x` and a target that
        follows are then stored as (value of the file - series_shift) * series_scale.
    """

    x: Any
    target: Any = None
    length: Any = None
    observed: Any = None
    target_observed: Any = None
    label: Any = None
    factors: Any = None
    naive_error: Any = None
    hidden: Any = None
    truth: Any = None
    known: Any = None
    static: Any = None
    series_shift: Any = None
    series_scale: Any = None

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def masked(self) -> bool:
        """Whether rows may have padding or missing values, so that they have a `mask`."""
        return self.length is not None or self.observed is not None

    @property
    def mask(self) -> Any:
        """True where a value of `x` lies within `length` and is observed, of the shape of `x`; None if all do."""
        if not self.masked:
            return None
        library = np if _is_numpy(self) else jnp
        mask = library.ones(self.x.shape, bool)
        if self.length is not None:
            inside = library.arange(self.x.shape[1])[None] < library.asarray(self.length)[:, None]
            mask = mask & inside.reshape(inside.shape + (1,) * (self.x.ndim - 2))
        return mask if self.observed is None else mask & library.asarray(self.observed[:], bool)

    @property
    def score_mask(self) -> Any:
        """True where the true value of an element of `x` is known: `mask`, and the hidden values besides."""
        if self.hidden is None:
            return self.mask
        return self.mask | (np if _is_numpy(self) else jnp).asarray(self.hidden[:], bool)

    @property
    def has_values(self) -> bool:
        """Whether there is a target of values, not of classes."""
        return self.target is not None and self.target.dtype.kind != "i"

    def units(self, shift: Any, scale: Any) -> tuple[np.ndarray, np.ndarray]:
        """Shift and scale with which values of `x` and of the steps that follow return to the units of the data.

        Args:
          shift, scale: those of a split, () or [C]: a value as stored is y / scale + shift.

        Returns:
          Shift and scale for y / scale + shift: the given ones, or those of every row, [N, 1, C].
        """
        shift, scale = np.asarray(shift, np.float64), np.asarray(scale, np.float64)
        if self.series_scale is None:
            return shift, scale
        of_series = np.asarray(self.series_scale, np.float64)[:, None]
        return np.asarray(self.series_shift, np.float64)[:, None] + shift / of_series, scale * of_series

    def take(self, rows: Any) -> "Examples":
        """The rows with these numbers, in that order, dense."""
        return map_rows(lambda array: array[rows], self)


def map_rows(function: Callable[[Any], Any], tree: Any) -> Any:
    """A tree whose arrays of rows, dense or lazy, are replaced by what a function makes of them."""
    return jax.tree.map(function, tree, is_leaf=_is_windows)


def count_rows(tree: Any) -> int:
    """Number of rows of a tree of arrays, dense or lazy."""
    return jax.tree.leaves(tree, is_leaf=_is_windows)[0].shape[0]


def _is_windows(node: Any) -> bool:
    return isinstance(node, Windows)


def _is_numpy(*trees: Any) -> bool:
    return not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees))


def prepare(examples: Examples, shift: Any, scale: Any, target_shift: Any = 0.0, target_scale: Any = 1.0) -> Examples:
    """Raw dense rows as models see them: scaled, float32, and 0 where a value is missing or padding.

    numpy arrays stay numpy arrays.

    Args:
      examples: rows from `Examples.take`.
      shift, scale: `x` becomes `(x - shift) * scale`; of shape () or of the last axes of `x`.
      target_shift, target_scale: likewise for a `target` of values.
    """
    library = np if _is_numpy(examples, (shift, scale, target_shift, target_scale)) else jnp

    def scaled(array: Any, shift: Any, scale: Any, mask: Any) -> Any:
        rows = (None,) * (array.ndim - library.ndim(shift))  # explicit axes: arrays of different rank never broadcast
        # Compiled programs get such numbers without an offset, see `compact`, or as float64 (`research.export`).
        exact = array.dtype == np.float64 or (library is np and np.any(np.abs(shift * scale) > FAR))
        precision = np.float64 if exact else np.float32
        shift, scale = (library.asarray(value, precision)[rows] for value in (shift, scale))
        values = library.asarray(array).astype(precision)
        # A missing value is replaced before scaling: NaN in a product makes gradients NaN even where it is masked.
        values = values if mask is None else library.where(library.asarray(mask, bool), values, shift)
        return ((values - shift) * scale).astype(np.float32)

    target = examples.target
    if examples.has_values:
        target = scaled(target, target_shift, target_scale, examples.target_observed)
    truth = examples.truth
    if examples.hidden is not None:
        truth = scaled(examples.x if truth is None else truth, shift, scale, examples.score_mask)
    return dataclasses.replace(examples, x=scaled(examples.x, shift, scale, examples.mask), target=target, truth=truth)


@runtime_checkable
class Draw(Protocol):
    """A recipe that replaces each training batch by a fresh one."""

    def draw(self, batch: Examples, key: Any) -> Examples:
        """A batch of the same shapes, from prepared rows and a key; runs inside the compiled program."""
        ...


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model may ask about a data set before training, of the data as models see it (after scaling).

    Attributes:
      kind: what an example is; decides which pictures are drawn, and along which axes convolutions move.
      feature_shape: shape of one example.
      low, high: smallest and largest value over all rows, without padding and missing values.
      classes: number of classes, or 0 without labels.
      train_size, validation_size, test_size: smallest number of rows over the folds.
      target_shape: shape of one target, or None without targets.
      target_classes: number of classes of a target of integers, else 0.
      target_low, target_high: smallest and largest value over all targets of values.
      target_follows: the target holds the steps that come after x, on the scale of x: something to forecast.
      season: number of steps after which a series repeats itself, where that is known.
      anomaly: label 1 marks anomalous rows, and no training row is anomalous.
      known, static: how many numbers are known in advance of every step, and of the whole row.
      counts: all values of x are whole numbers from 0, and models see them as stored.
    """

    kind: Literal["image", "vector", "sequence"]
    feature_shape: tuple[int, ...]
    low: float
    high: float
    classes: int
    train_size: int
    validation_size: int
    test_size: int
    target_shape: tuple[int, ...] | None = None
    target_classes: int = 0
    target_low: float = 0.0
    target_high: float = 0.0
    target_follows: bool = False
    season: int | None = None
    anomaly: bool = False
    known: int = 0
    static: int = 0
    counts: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """One division of the rows into three parts, as row numbers, and the scaling that was fitted on its training part.

    A program trains several folds at once, so their splits are stacked as arrays and must have equal shapes. Parts that
    are shorter than those of another fold are filled up: training parts repeat their own rows, and validation and test
    parts get row 0 with weight 0, which does not count in any score.

    Attributes:
      train: training rows, [N_train] int32.
      validation, test: row numbers, [N] int32.
      validation_weight, test_weight: 1 for a row that counts, 0 for padding, [N] float32.
      shift, scale: models see `(x - shift) * scale`; float64, shape (), the feature shape, or [C] for sequences.
      target_shift, target_scale: likewise for a target of values; 0 and 1 where it is not scaled.
    """

    train: np.ndarray
    validation: np.ndarray
    validation_weight: np.ndarray
    test: np.ndarray
    test_weight: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    target_shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    target_scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(()))

    def prepare(self, batch: Examples) -> Examples:
        """Raw dense rows as models see them; see `prepare` of this module."""
        return prepare(batch, self.shift, self.scale, self.target_shift, self.target_scale)

    def rows(self, part: Literal["train", "validation", "test"]) -> np.ndarray:
        """Row numbers of one part without repetition or padding (on the host)."""
        if part == "train":
            _, first = np.unique(self.train, return_index=True)
            return np.asarray(self.train)[np.sort(first)]
        return np.asarray(getattr(self, part))[np.asarray(getattr(self, f"{part}_weight")) > 0]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All rows of a data set and the ways it is divided.

    Attributes:
      name: name for tables.
      examples: all rows, numpy, arranged, on the raw scale (images may be uint8; `Split.scale` makes them floats).
      splits: one per fold, or one.
      facts: facts about the data as models see it.
      sha256: digest of the content.
      preparation: how the rows were made (a `preparation.Preparation`), without the scaling of a split.
      draw: replaces each training batch by a fresh one; None where the rows stay as they are. With `Binarize`,
        validation and test rows are drawn once, by `split_seed` and row number, so that all runs are scored on the
        same images.
      split_seed: seed of splits and of draws that are made once.
      reference: known exact values, for example {"nll_nats": 12.3}, printed beside the scores of models.
      offset, target_offset: subtracted from floats before they become float32 for a compiled program, see
        `scaling.offset`.
      notes: what the reader left out or noticed, one sentence each.
    """

    name: str
    examples: Examples
    splits: tuple[Split, ...]
    facts: Facts
    sha256: str
    preparation: Any = None
    draw: Draw | None = None
    split_seed: int = 0
    reference: dict[str, float] = dataclasses.field(default_factory=dict)
    offset: Any = 0.0
    target_offset: Any = 0.0
    notes: tuple[str, ...] = ()

    @property
    def streamed(self) -> bool:
        """Whether the rows of `x` stay on disk."""
        return isinstance(self.examples.x, Mapped)

    def split(self, fold: int | None) -> Split:
        """The split of one fold; without folds there is one split."""
        return self.splits[fold or 0]

    @functools.cached_property
    def compact(self) -> Examples:
        """All rows as a compiled program gets them: floats are float32, without the offset."""
        return compact(self.examples, self.offset, self.target_offset)

    def compact_split(self, fold: int | None) -> Split:
        """The split of one fold for `compact` rows: float32, with the offset subtracted from the shift as well."""
        split = self.split(fold)
        return dataclasses.replace(
            split,
            shift=np.asarray(split.shift - self.offset, np.float32),
            scale=np.asarray(split.scale, np.float32),
            target_shift=np.asarray(split.target_shift - self.target_offset, np.float32),
            target_scale=np.asarray(split.target_scale, np.float32),
        )


def compact(examples: Examples, offset: Any, target_offset: Any) -> Examples:
    """Rows for a compiled program: `float32(x - offset)`.

    Integers of at most 32 bits stay integers where the offset is 0.
    """

    def smaller(array: Any, offset: Any) -> Any:
        if isinstance(array, Windows):
            return dataclasses.replace(array, series=smaller(array.series, offset))
        if isinstance(array, Mapped):
            return array.compact(offset)
        is_small = array.dtype == np.float32 or (array.dtype.kind != "f" and array.dtype.itemsize <= 4)
        if is_small and not np.any(offset):
            return array
        return (array - np.asarray(offset, np.float64)).astype(np.float32)

    x, target = smaller(examples.x, offset), examples.target
    if isinstance(x, Windows) and isinstance(target, Windows) and target.series is examples.x.series:
        target = dataclasses.replace(target, series=x.series)  # one series on the device, not two
    elif examples.has_values:
        target = smaller(target, target_offset)
    return dataclasses.replace(examples, x=x, target=target)
