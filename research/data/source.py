"""What a data recipe is: the keys that all of them have, and what they read."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Annotated, Literal, Self

import numpy as np

from research.data.examples import Draw, Examples
from research.data.preparation import Preparation
from research.ranges import INT32, Count, OpenShare, Range, Seed, Size
from research.tree import ConfigError, added, recipe


@dataclasses.dataclass(frozen=True)
class Source:
    """What a recipe reads, before the rows are divided into parts.

    Attributes:
      name: name for tables.
      kind: what an example is, see `Facts`.
      examples: all rows, numpy, as stored; `Splitting.read` gives them arranged (see `Preparation`).
      test: True for the rows of a fixed test part, [N] bool; None where the recipe has a `test_fraction`.
      validation: True for the rows of a fixed validation part, [N] bool; None where the recipe has a
        `validation_fraction`. With folds these rows join the training rows.
      unused: True for rows that belong to no part, [N] bool: windows across a border, for example.
      unit: the stored value that `scaling=unit` maps to 1, where the values have a fixed range.
      reference: gives exact values that are known of the unscaled test rows, for example {"nll_nats": 12.3}.
      season: number of steps after which a series repeats itself, where that is known.
      scale_target: the target has the channels of `x` and is scaled as they are.
      own_target_scale: a target of values has units of its own, and is scaled as `scaling` says, fitted to the targets
        of the training rows; values of 0 and 1 stay.
      anomaly: label 1 marks anomalous rows; the fixed parts keep them out of the training rows.
      draw: replaces each training batch by a fresh one; None for fixed rows.
      columns: names of the features or channels, in their order, where the file has names.
      classes: names of the classes 0 to K - 1, where the file has names.
      preparation: how the rows are arranged, and what the file means by missing values and steps of time. The function
        `loading.assemble` fills in the rest.
      notes: what the reader left out or noticed, one sentence each; the command prints them.
      binary: features or channels that stay 0 and 1 under every scaling, bool of the shape of a row or [C]; None if
        there are none.
      stratify: every part has its share of every class.
      scaled: the examples are scaled already, series by series.
    """

    name: str
    kind: Literal["image", "vector", "sequence"]
    examples: Examples
    test: np.ndarray | None = None
    validation: np.ndarray | None = None
    unit: float | None = None
    reference: Callable[[Examples], dict[str, float]] | None = None
    unused: np.ndarray | None = None
    season: int | None = None
    scale_target: bool = False
    anomaly: bool = False
    draw: Draw | None = None
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    preparation: Preparation = dataclasses.field(default_factory=Preparation)
    binary: np.ndarray | None = None
    stratify: bool = False
    own_target_scale: bool = False
    scaled: bool = False

    @property
    def class_count(self) -> int:
        """Number of classes, 0 without labels."""
        if self.examples.label is None:
            return 0
        return int(self.examples.label.max()) + 1 if self.classes is None else len(self.classes)


@recipe
class Splitting:
    """The keys that every data recipe has. A recipe adds its own keys and `stored() -> Source`.

    Two more keys belong to some recipes only: `test_fraction`, where the source has no fixed test part, and `binarize`,
    where values can be probabilities.

    Attributes:
      root: folder of local files; null downloads them. Sources without files do not read it.
      split_seed: decides which rows are training, validation and test rows, and nothing else does.
      validation_fraction: share of the rows that are not test rows; not used with folds.
      folds: number of validation parts into which the rows that are not test rows are cut.
      fold: which of them is the validation part, from 0.
      scaling: "unit" divides by the largest value the format can hold; "standard" (mean 0, deviation 1) and "minmax"
        (0 to 1) are fitted per feature, or per channel of a sequence, on the training rows.
      train_size, validation_size, test_size: use only so many rows of a part, for quick runs.
      hide: share of the observed values of validation and test rows that models do not see, and that are scored as
        imputations (`research.data.hiding`); null hides none.
      hide_by: "points" hides single values, "blocks" runs of `hide_length` steps of one channel of a sequence.
      hide_length: steps of a block; not read with points.
      hide_seed: decides which values are hidden, and nothing else does.
      hide_train: share of the values of every training batch that the model does not see and still has to reconstruct,
        drawn anew each time and in the same way; null: a model sees all of them.
    """

    root: str | None
    split_seed: Seed
    validation_fraction: OpenShare
    folds: Annotated[int, Range(2, INT32)] | None
    fold: Annotated[int, Range(0, INT32)] | None
    scaling: Literal["none", "unit", "standard", "minmax"]
    train_size: Count | None
    validation_size: Count | None
    test_size: Count | None
    hide: OpenShare | None = added(before=None)
    hide_by: Literal["points", "blocks"] = added(before="points")
    hide_length: Size = added(before=8)
    hide_seed: Seed = added(before=0)
    hide_train: OpenShare | None = added(before=None)

    def validate(self) -> None:
        """Refuse a fold that does not exist."""
        if self.folds is None:
            if self.fold is not None:
                raise ConfigError("fold", self.fold, "there are no folds: set data.folds=5 (or so many as you want)")
            return
        every = ",".join(map(str, range(self.folds))) if self.folds <= 10 else f"0,1,...,{self.folds - 1}"
        if self.fold is None:
            remedy = f"with data.folds={self.folds} name one, or sweep over all: data.fold={every}"
            raise ConfigError("fold", None, remedy)
        if self.fold >= self.folds:
            raise ConfigError("fold", self.fold, f"data.folds={self.folds} has data.fold={every}")

    def stamp(self) -> Hashable:
        """What the rows depend on beside the keys, such as the time of a file. Equal stamps mean equal rows."""
        return None

    def for_sequences(self) -> Self:
        """The recipe for a model that takes sequences only: another one where its rows can be read as sequences."""
        return self

    def stored(self) -> Source:
        """All rows as stored."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is read")

    def stored_for(self, trained: Preparation) -> Source:
        """All rows as stored for a run that was trained, without any division; columns are matched to the run's."""
        del trained
        return self.stored()

    def read(self) -> Source:
        """All rows as training holds them: arranged, on the raw scale."""
        source = self.stored()
        preparation = dataclasses.replace(source.preparation, stored_shape=tuple(source.examples.x.shape[1:]))
        return dataclasses.replace(source, examples=preparation.arrange(source.examples), preparation=preparation)
