"""What every data set hands to every model."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Examples:
    """Rows of data; every field that is present has the same leading axis (`N` rows of a data set, `B` of a batch).

    Attributes:
      x: what is modelled, [N, ...].
      target: what is predicted, where that is not `x`, [N, ...].
      length: number of valid time steps of a padded sequence, [N].
      observed: False where a value is missing, [N, T, C].
      label: class, an integer from 0, [N].
      factors: known factors of variation, [N, F].
    """

    x: Any
    target: Any = None
    length: Any = None
    observed: Any = None
    label: Any = None
    factors: Any = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, rows: Any) -> "Examples":
        """The given rows, in that order."""
        return jax.tree.map(lambda array: array[rows], self)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model may ask about a data set before any training, of the data as models see it (after scaling).

    Attributes:
      kind: picks the pictures that make sense.
      feature_shape: shape of one example.
      low, high: smallest and largest value over all rows.
      classes: number of classes, or 0 without labels.
      train_size, validation_size, test_size: smallest number of rows over the folds.
    """

    kind: Literal["image", "vector", "sequence"]
    feature_shape: tuple[int, ...]
    low: float
    high: float
    classes: int
    train_size: int
    validation_size: int
    test_size: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """One division of the rows, with the scaling fitted on its training part; arrays only, so that folds stack.

    All splits of a data set have the same shapes: training rows are wrapped around to a common length, validation and
    test rows are padded with row 0 at weight 0.

    Attributes:
      train: training rows, [N_train] int32.
      validation, test: row numbers, [N] int32.
      validation_weight, test_weight: 1 for a row that counts, 0 for padding, [N] float32.
      shift, scale: models see `(x - shift) * scale`; float32, shape () or the feature shape.
    """

    train: np.ndarray
    validation: np.ndarray
    validation_weight: np.ndarray
    test: np.ndarray
    test_weight: np.ndarray
    shift: np.ndarray
    scale: np.ndarray

    def prepare(self, batch: Examples) -> Examples:
        """Scale raw rows to what models see, as float32."""
        rows = (None,) * (batch.x.ndim - jnp.ndim(self.shift))  # ranks are promoted by hand, never by broadcasting
        shift, scale = jnp.asarray(self.shift)[rows], jnp.asarray(self.scale)[rows]
        return dataclasses.replace(batch, x=(batch.x.astype(jnp.float32) - shift) * scale)

    def rows(self, part: Literal["train", "validation", "test"]) -> np.ndarray:
        """Row numbers of one part without wrapping or padding (host side)."""
        if part == "train":
            _, first = np.unique(self.train, return_index=True)
            return np.asarray(self.train)[np.sort(first)]
        return np.asarray(getattr(self, part))[np.asarray(getattr(self, f"{part}_weight")) > 0]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All rows of a data set and the ways it is divided.

    Attributes:
      name: for tables.
      examples: all rows, numpy, raw as stored (images may be uint8; `Split.scale` makes them floats).
      splits: one per fold, or one.
      facts: of the data as models see it.
      sha256: of the content.
      binarize: "dynamic" draws x ~ Bernoulli(x) anew at every training use; validation and test rows are drawn once, by
        `split_seed` and row number, so that all runs are scored on the same images. "once" draws all rows once.
      split_seed: the seed of splits and of once-only draws.
      reference: known exact values, for example {"nll_nats": 12.3}, printed beside the scores of models.
    """

    name: str
    examples: Examples
    splits: tuple[Split, ...]
    facts: Facts
    sha256: str
    binarize: Literal["none", "once", "dynamic"] = "none"
    split_seed: int = 0
    reference: dict[str, float] = dataclasses.field(default_factory=dict)

    def split(self, fold: int | None) -> Split:
        """The split of one fold; without folds there is one."""
        return self.splits[fold or 0]
