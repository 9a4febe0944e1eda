"""How rows as stored become the rows that a model sees, in training and for new rows of a run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from research.data.examples import Examples, prepare
from research.tree import recipe

Layout = Literal["image", "rows", "pixels"]
SCALING = ("shift", "scale", "target_shift", "target_scale")
CHUNK = 4096  # rows that become floats at a time: uint8 as floats takes several times its size
TAIL = 2  # this many steps of zeros at the end of a sequence look like padding


def shuffle(size: int, seed: int) -> np.ndarray:
    """The numbers 0 to `size - 1` in an order that depends on `seed` alone, [size] int32.

    It uses the stream PCG64(seed). A recipe that draws its rows from the same stream is tested on a corner of its data,
    so new recipes draw from PCG64([seed, 1]). Another stream here would change the splits of all earlier runs.
    """
    # The raw stream of a bit generator never changes between numpy versions; that of `permutation` may change.
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable").astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Everything between a row as stored and the row that a model sees. A run folder keeps all of it.

    `arrange` brings a stored row into the order and the shape of training (layout of pixels, z-scores of a series);
    `scale_rows` gives what the model sees, `(x - shift) * scale`.

    Attributes:
      kind: what a row is, see `Facts`.
      stored_shape: shape of one row as stored; of sequences, that of the longest.
      whole: the largest value of rows that are stored as whole numbers from 0 (uint8); None for other numbers.
      columns: names of the features or channels, in their order; None where the file has none.
      classes: names of the classes 0 to K - 1; None where they are numbers from 0.
      class_count: K; 0 without labels.
      keeps_names: False for a run of an older version, which kept neither columns nor classes.
      layout, permutation_seed: how images are read as sequences, see `research.data.images.Images`.
      zscore: every channel of every series is scaled to mean 0 and deviation 1 over its own steps.
      masked: rows of the training had padding or missing values.
      binarize: rows are drawn as x ~ Bernoulli(x), from `split_seed`.
      split_seed: seed of these draws.
      missing: numbers that mean a missing value, beside NaN.
      time_column, time_step: of a series, the column of times and the step in words, such as "1 hour".
      covariates: of a run that reads covariates, how they are coded: the record of a `covariates.Coding`.
      series: shift and scale of the channels of each series by its name, where series have scales of their own.
      shift, scale, target_shift, target_scale: float64, () or of the last axes of x or of a target of values.
    """

    kind: Literal["image", "vector", "sequence"] = "vector"
    stored_shape: tuple[int, ...] | None = None
    whole: int | None = None
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    class_count: int = 0
    keeps_names: bool = True
    layout: Layout = "image"
    permutation_seed: int | None = None
    zscore: bool = False
    masked: bool = False
    binarize: bool = False
    split_seed: int = 0
    missing: tuple[float, ...] = ()
    time_column: str | int | None = None
    time_step: str | None = None
    covariates: dict[str, Any] | None = None
    series: dict[str, tuple[Sequence[float], Sequence[float]]] | None = None
    shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(()))
    target_shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    target_scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(()))

    # ------------------------------------------------------------------------------------------------- arranging

    def arrange(self, stored: Examples) -> Examples:
        """Rows as stored in the order and shape of training, on the raw scale; z-scored where that is set."""
        x, observed = stored.x, stored.observed
        if self.layout == "pixels":
            x, observed = (self._pixels(array) for array in (x, observed))
        if self.zscore:
            rows = dataclasses.replace(stored, x=x)
            mean, deviation = series_moments(rows)
            library = jnp if isinstance(x, Tracer) else np
            x = (library.asarray(x, np.float64) - mean) / deviation
            x = (x if rows.mask is None else library.where(rows.mask, x, 0)).astype(np.float32)
        return stored if x is stored.x else dataclasses.replace(stored, x=x, observed=observed)

    def _pixels(self, array: Any) -> Any:
        """Values or masks of images [N, ...] as sequences of pixels [N, T, 1] in the order of training."""
        if array is None:
            return None
        array = array.reshape(array.shape[0], -1, 1)
        return array if self.permutation_seed is None else array[:, shuffle(array.shape[1], self.permutation_seed)]

    def restore(self, x: np.ndarray, stored: Examples | None = None) -> np.ndarray:
        """The inverse of `arrange` for values [N, *feature_shape] on the raw scale.

        z-scores are undone with the moments of `stored`, the rows that the values belong to; without `stored` they
        stay.
        """
        if self.zscore and stored is not None:
            mean, deviation = series_moments(stored)
            x = x * deviation + mean
        if self.layout == "pixels" and self.stored_shape is not None:
            if self.permutation_seed is not None:
                x = x[:, np.argsort(shuffle(x.shape[1], self.permutation_seed))]
            x = x.reshape(x.shape[0], *self.stored_shape)
        return x

    # ------------------------------------------------------------------------------------------ as a model sees them

    def scale_rows(self, arranged: Examples) -> Examples:
        """Arranged dense rows as models see them, float32, 0 where a value is missing or padding."""
        rows = prepare(arranged, self.shift, self.scale, self.target_shift, self.target_scale)
        x = np.asarray(rows.x)
        if not self.binarize or ((x == 0) | (x == 1)).all():
            return rows
        drawn = bernoulli(x.__getitem__, x.shape, self.split_seed)
        return dataclasses.replace(rows, x=drawn.astype(np.float32))

    def raw(self, x: np.ndarray) -> np.ndarray:
        """Values as models see them on the raw scale, in float64: `x / scale + shift`."""
        return np.asarray(x, np.float64) / self.scale + self.shift

    def raw_target(self, y: np.ndarray) -> np.ndarray:
        """Targets as models see them on the raw scale, in float64."""
        return np.asarray(y, np.float64) / self.target_scale + self.target_shift

    # ------------------------------------------------------------------------------------------------- in a run folder

    def scaling(self) -> dict[str, np.ndarray]:
        """Shifts and scales by name, float64."""
        return {name: np.asarray(getattr(self, name), np.float64) for name in SCALING}

    def record(self) -> dict[str, Any]:
        """All other attributes by name, as plain values."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in SCALING]
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], scaling: Mapping[str, np.ndarray]) -> "Preparation":
        """The inverse of `record` and `scaling`; what an older run did not record has its default."""
        known = {field.name: record[field.name] for field in dataclasses.fields(cls) if field.name in record}
        for name in ("stored_shape", "columns", "classes"):
            known[name] = None if known.get(name) is None else tuple(known[name])
        known["missing"] = tuple(known.get("missing", ()))
        known |= {name: np.asarray(scaling[name], np.float64) for name in SCALING if name in scaling}
        return cls(**known)


# ------------------------------------------------------------------------------------------- series of unequal length


def pad(rows: Sequence[np.ndarray], steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sequences [T, C] of unequal length as one array of zeros beyond their ends, and their lengths, [N] int32.

    Args:
      rows: the sequences.
      steps: number of steps of the array; None: those of the longest.
    """
    length = np.asarray([len(row) for row in rows], np.int32)
    x = np.zeros((len(rows), steps or length.max(), rows[0].shape[1]), rows[0].dtype)
    for row, values in zip(x, rows, strict=True):
        row[: len(values)] = values
    return x, length


def marked(x: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """True where x has one of some numbers, in the precision of x, of the shape of x."""
    return np.isin(x, np.asarray(marks, x.dtype if x.dtype.kind == "f" else np.float64))


def zero_tails(x: np.ndarray) -> np.ndarray:
    """How many steps at the end of every sequence [N, T, C] are 0 in all channels, [N]."""
    zero = (x == 0).all(-1)[:, ::-1]
    return np.where(zero.all(1), zero.shape[1], np.argmin(zero, axis=1))


def series_moments(rows: Examples) -> tuple[Any, Any]:
    """Mean and standard deviation of every channel of every series over its own steps, each [N, 1, C] float64.

    A constant channel has its value and 1, so that its z-scores are 0.
    """
    library = jnp if isinstance(rows.x, Tracer) else np
    x, mask = library.asarray(rows.x, np.float64), rows.mask
    mask = library.ones(x.shape, bool) if mask is None else mask
    x = library.where(mask, x, 0)
    count = library.maximum(mask.sum(1, keepdims=True), 1)
    mean = x.sum(1, keepdims=True) / count
    deviation = library.sqrt((library.square(x - mean) * mask).sum(1, keepdims=True) / count)
    high = library.max(x, axis=1, keepdims=True, where=mask, initial=-np.inf)
    low = library.min(x, axis=1, keepdims=True, where=mask, initial=np.inf)
    # The mean of equal numbers may be rounded, so that a constant has a deviation above 0.
    varies = (high > low) & (deviation > np.finfo(np.float32).tiny)
    constant = library.where(library.isfinite(low), low, 0)
    return library.where(varies, mean, constant), library.where(varies, deviation, 1)


# -------------------------------------------------------------------------------------------------------- binary images


@recipe
class Binarize:
    """x ~ Bernoulli(x) with 16 random bits a value: probabilities are exact to 2^-16, at half the cost of 32 bits."""

    def draw(self, batch: Examples, key: jax.Array) -> Examples:
        """Zeros and ones, float32, from probabilities of the same shape."""
        bits = jax.random.bits(key, batch.x.shape, jnp.uint16).astype(jnp.float32)
        return dataclasses.replace(batch, x=(bits < batch.x * 65536.0).astype(jnp.float32))


def bernoulli(probability: Callable[[slice], np.ndarray], shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Zeros and ones, uint8 of the given shape; `probability` gives the float32 probabilities of some of the rows.

    The draws of a row depend on the seed and on how many rows come before it.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = np.empty(shape, np.uint8)
    for start in range(0, len(drawn), CHUNK):
        values = probability(slice(start, start + CHUNK))
        drawn[start : start + CHUNK] = random.random(values.shape, np.float32) < values
    return drawn
