"""How the rows of a data set are divided: the keys every data recipe has, and the rows that they mean."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np

from research.data import scaling
from research.data.examples import Draw, Examples, Split, Windows
from research.data.preparation import Preparation, shuffle
from research.ranges import INT32, Count, OpenShare, Range, Seed
from research.tree import ConfigError, recipe


@dataclasses.dataclass(frozen=True)
class Source:
    """What a recipe reads, before any division into parts.

    Attributes:
      name: for tables.
      kind: picks the pictures that make sense.
      examples: all rows, numpy, as stored; `Splitting.read` gives them arranged (see `Preparation`).
      test: True for the rows of a fixed test part, [N] bool; None where the recipe has a `test_fraction`.
      validation: True for the rows of a fixed validation part, [N] bool; None where the recipe has a
        `validation_fraction`. With folds these rows join the training rows.
      unused: True for rows that belong to no part, [N] bool: windows that straddle a border, for example.
      unit: the stored value that `scaling=unit` maps to 1, where the values have a fixed range.
      reference: exact values that are known of the unscaled test rows, for example {"nll_nats": 12.3}.
      season: steps after which a series repeats itself, where that is known.
      scale_target: the target has the channels of `x` and is scaled as they are.
      anomaly: label 1 marks anomalous rows; the fixed parts keep them out of the training rows.
      draw: replaces a training batch by a fresh one at every use; None for fixed rows.
      columns: names of the features or channels, in their order, where the file has names.
      classes: names of the classes 0 to K - 1, where the file has names.
      preparation: how the rows are arranged; its columns, classes and sizes are filled in by `assemble`.
      notes: what a reader left out or noticed, one sentence each; the command prints them.
      binary: features or channels that stay 0 and 1 under every scaling, bool of the shape of a row or [C]; None
        without such.
      stratify: every part has its share of every class.
      time_step: of a series with a time column, in words: "1 hour".
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
    time_step: str | None = None


class Rows(NamedTuple):
    """Row numbers of the three parts, int32, without wrapping or padding."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@recipe
class Splitting:
    """The keys that every data recipe has; a recipe adds `stored() -> Source` and its own keys.

    Two more keys belong to some recipes only: `test_fraction`, where the source has no fixed test part, and `binarize`,
    where values can be probabilities.

    Attributes:
      root: folder of local files; null downloads them. Sources without files do not read it.
      split_seed: decides which rows are training, validation and test rows, and nothing else does.
      validation_fraction: share of the rows that are not test rows; not used with folds.
      folds: cut the rows that are not test rows into so many validation parts.
      fold: which of them is the validation part, from 0.
      scaling: "unit" divides by the largest value the format can hold; "standard" (mean 0, deviation 1) and "minmax"
        (0 to 1) are fitted per feature, or per channel of a sequence, on the training rows.
      train_size, validation_size, test_size: use only so many rows of a part, for quick runs.
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

    def validate(self) -> None:
        """Refuse a fold that is not there.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        if self.folds is None:
            if self.fold is not None:
                raise ConfigError("fold", self.fold, "there are no folds: set data.folds=5 (or so many as you want)")
            return
        every = ",".join(map(str, range(self.folds))) if self.folds <= 10 else f"0,1,...,{self.folds - 1}"
        if self.fold is None:
            raise ConfigError(
                "fold", None, f"with data.folds={self.folds} name one, or sweep over all: data.fold={every}"
            )
        if self.fold >= self.folds:
            raise ConfigError("fold", self.fold, f"data.folds={self.folds} has data.fold={every}")

    def stamp(self) -> Hashable:
        """What the rows depend on beside the recipe; a data set in memory is used again while this is equal."""
        return None

    def stored(self) -> Source:
        """All rows as stored."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is read")

    def stored_for(self, trained: Preparation) -> Source:
        """All rows as stored for a run that was trained, without any division; files are matched to its rows."""
        del trained
        return self.stored()

    def read(self) -> Source:
        """All rows as training holds them: arranged, on the raw scale."""
        source = self.stored()
        preparation = dataclasses.replace(source.preparation, stored_shape=tuple(source.examples.x.shape[1:]))
        return dataclasses.replace(source, examples=preparation.arrange(source.examples), preparation=preparation)


def spread(order: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Rows in another order, of which every piece has its share of every class, to a row.

    The first of n rows of a class stands at 0.5 / n of the whole, the next at 1.5 / n, and so on.

    Args:
      order: row numbers in a random order, [M].
      classes: of all rows, [N].
    """
    own = classes[order]
    place = np.empty(len(order))
    for name in np.unique(own):
        rows = np.flatnonzero(own == name)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(place, kind="stable")]


def absent_note(parts: "Sequence[Rows]", source: Source) -> list[str]:
    """Notes on the classes that some part, or that of some fold, has no row of."""
    label, notes = source.examples.label, []
    if label is None or source.anomaly:
        return notes
    known = np.unique(label)
    for part in Rows._fields:
        absent = set().union(*(np.setdiff1d(known, label[getattr(rows, part)]).tolist() for rows in parts))
        names = [str(number) if source.classes is None else source.classes[number] for number in sorted(absent)]
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        if names:
            notes.append(f"no {part} row{' of some fold' if len(parts) > 1 else ''} is of class {shown}")
    return notes


def check_parts(parts: "Sequence[Rows]", examples: Examples) -> None:
    """Refuse parts that share rows or steps of time.

    Of windows with a target the steps of the targets count, since windows look back into the part before.

    Raises:
      ConfigError: naming how many are in two parts.
    """
    shown = examples.x if examples.target is None else examples.target
    for rows in parts:
        if not len(rows.train):
            raise ConfigError("folds", len(parts), "a fold has no training rows; use fewer folds")
        pieces = [_steps(shown, piece) if isinstance(shown, Windows) else np.unique(piece) for piece in rows]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            shared = len(np.intersect1d(pieces[one], pieces[other], assume_unique=True))
            if shared:
                what = "time steps" if isinstance(shown, Windows) else "rows"
                raise ConfigError(
                    "", None, f"{shared} {what} are in both {Rows._fields[one]} and {Rows._fields[other]}"
                )


def _steps(windows: Windows, rows: np.ndarray) -> np.ndarray:
    """The steps that some rows of windows cover, in order, each once."""
    start, change = np.asarray(windows.start)[rows], np.zeros(len(windows.series) + 1, np.int64)
    np.add.at(change, start, 1)
    np.add.at(change, start + windows.size, -1)
    return np.flatnonzero(np.cumsum(change[:-1]) > 0)


def divide(
    settings: Splitting,
    size: int,
    test: np.ndarray | None = None,
    validation: np.ndarray | None = None,
    unused: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> list[Rows]:
    """The rows of the three parts, once or once per fold: disjoint, together all that are used and within limits.

    Args:
      settings: any data recipe.
      size: number of rows N.
      test, validation: fixed parts, [N] bool.
      unused: rows of no part, [N] bool.
      classes: every part gets its share of each of them, [N]; None divides without regard to classes.

    Raises:
      ConfigError: a part would be empty, or a limited part has fewer rows than its limit.
    """
    order = shuffle(size, settings.split_seed)
    if unused is not None:
        order = order[~unused[order]]
        size = len(order)
    if classes is not None:
        order = spread(order, classes)
    if test is None:
        share = settings.test_fraction  # type: ignore[attr-defined]
        count = round(share * size)
        if not 0 < count < size:
            raise ConfigError("test_fraction", share, f"of {size} rows this makes {count} test rows")
        test_rows, rest = order[:count], order[count:]
    else:
        test_rows, rest = order[test[order]], order[~test[order]]
        rest = rest if classes is None else spread(rest, classes)
        if not len(test_rows):
            raise ConfigError("", type(settings).__name__, "the test part of this data set is empty")

    if settings.folds is not None:
        if settings.folds > len(rest):
            raise ConfigError("folds", settings.folds, f"only {len(rest)} rows are not test rows")
        pieces = np.array_split(rest, settings.folds)
        pairs = [
            (np.concatenate([piece for other, piece in enumerate(pieces) if other != fold]), pieces[fold])
            for fold in range(settings.folds)
        ]
    elif validation is not None:
        pairs = [(rest[~validation[rest]], rest[validation[rest]])]
        if not len(pairs[0][0]) or not len(pairs[0][1]):
            raise ConfigError(
                "", type(settings).__name__, "the training or the validation part of this data set is empty"
            )
    else:
        share = settings.validation_fraction
        count = round(share * len(rest))
        if not 0 < count < len(rest):
            raise ConfigError(
                "validation_fraction",
                share,
                f"of {len(rest)} rows that are not test rows this makes {count} validation rows",
            )
        pairs = [(rest[count:], rest[:count])]

    return [
        Rows(
            _limit("train_size", settings.train_size, train),
            np.sort(_limit("validation_size", settings.validation_size, held_out)),
            np.sort(_limit("test_size", settings.test_size, test_rows)),
        )
        for train, held_out in pairs
    ]


def _limit(key: str, limit: int | None, rows: np.ndarray) -> np.ndarray:
    if limit is not None and limit > len(rows):
        raise ConfigError(key, limit, f"only {len(rows)} rows are there; {{key}}=null uses all of them")
    return rows[:limit]


def pack(
    parts: Sequence[Rows], scalings: Sequence[scaling.Scaling], targets: Sequence[scaling.Scaling]
) -> tuple[Split, ...]:
    """Splits of equal shapes: training rows wrapped to the longest, the others padded with row 0 at weight 0.

    Args:
      parts, scalings, targets: rows, scaling of `x` and scaling of the target, of every split.
    """
    train, validation, test = (max(map(len, rows)) for rows in zip(*parts, strict=True))
    packed = []
    for rows, fitted, target in zip(parts, scalings, targets, strict=True):
        validation_rows, validation_weight = _pad(rows.validation, validation)
        test_rows, test_weight = _pad(rows.test, test)
        packed.append(
            Split(
                train=np.resize(rows.train, train),
                validation=validation_rows,
                validation_weight=validation_weight,
                test=test_rows,
                test_weight=test_weight,
                shift=fitted.shift,
                scale=fitted.scale,
                target_shift=target.shift,
                target_scale=target.scale,
            )
        )
    return tuple(packed)


def _pad(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    padded, weight = np.zeros(size, np.int32), np.zeros(size, np.float32)
    padded[: len(rows)], weight[: len(rows)] = rows, 1
    return padded, weight
