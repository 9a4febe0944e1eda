"""Which rows are training, validation and test rows: once, or once per fold."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from research.data.examples import Examples, Split, Windows
from research.data.preparation import shuffle
from research.data.scaling import Scaling, covered_steps
from research.data.source import Source, Splitting
from research.tree import ConfigError


class Rows(NamedTuple):
    """Row numbers of the three parts, int32, without repetition or padding."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def divide(
    settings: Splitting,
    size: int,
    test: np.ndarray | None = None,
    validation: np.ndarray | None = None,
    unused: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> list[Rows]:
    """The rows of the three parts, once or once per fold. The parts are disjoint and hold all rows that are used.

    Args:
      settings: any data recipe.
      size: number of rows N.
      test, validation: fixed parts, [N] bool.
      unused: rows of no part, [N] bool.
      classes: every part gets its share of each class, [N]; None divides without regard to classes.

    Raises:
      ConfigError: a part would be empty, or has fewer rows than its limit.
    """
    order = shuffle(size, settings.split_seed)
    if unused is not None:
        order = order[~unused[order]]
    if classes is not None:
        order = spread(order, classes)
    if test is None:
        count = _share("test_fraction", settings.test_fraction, len(order), "test rows")  # type: ignore[attr-defined]
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
            (np.concatenate([*pieces[:fold], *pieces[fold + 1 :]]), pieces[fold]) for fold in range(settings.folds)
        ]
    elif validation is not None:
        pairs = [(rest[~validation[rest]], rest[validation[rest]])]
        if not len(pairs[0][0]) or not len(pairs[0][1]):
            problem = "the training or the validation part of this data set is empty"
            raise ConfigError("", type(settings).__name__, problem)
    else:
        count = _share("validation_fraction", settings.validation_fraction, len(rest), "validation rows")
        pairs = [(rest[count:], rest[:count])]

    return [
        Rows(
            _limit(settings, "train", train),
            np.sort(_limit(settings, "validation", held_out, shared=validation is None and settings.folds is None)),
            np.sort(_limit(settings, "test", test_rows, shared=test is None)),
        )
        for train, held_out in pairs
    ]


def spread(order: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Rows in another order, in which every piece has its share of every class, give or take one row.

    The first of n rows of a class stands at 0.5 / n of the whole, the next at 1.5 / n, and so on.

    Args:
      order: row numbers in a random order, [M].
      classes: classes of all rows, [N].
    """
    labels, position = classes[order], np.empty(len(order))
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        position[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(position, kind="stable")]


def _share(key: str, share: float, size: int, what: str) -> int:
    """How many of so many rows a share is; neither none nor all of them."""
    count = round(share * size)
    if not 0 < count < size:
        of_rest = "" if key == "test_fraction" else " that are not test rows"
        raise ConfigError(key, share, f"of {size} rows{of_rest} this makes {count} {what}")
    return count


def _limit(settings: Splitting, part: str, rows: np.ndarray, shared: bool = False) -> np.ndarray:
    """The first rows of a part, as many as its `_size` says; `shared`: a share decides how many there are."""
    limit = getattr(settings, f"{part}_size")
    if limit is not None and limit > len(rows):
        key = f"{part}_fraction" if shared else f"{part}_steps"
        more = f", and data.{key} makes the part larger" if hasattr(settings, key) else ""
        remedy = f"there are only {len(rows)} such rows; {{key}}=null uses all of them{more}"
        raise ConfigError(f"{part}_size", limit, remedy)
    return rows[:limit]


def check_parts(parts: Sequence[Rows], examples: Examples) -> None:
    """Refuse parts that share rows or steps of time.

    Of windows with a target the steps of the targets count, because windows look back into the part before.

    Raises:
      ConfigError: naming two parts and how many rows or steps both hold.
    """
    shown = examples.x if examples.target is None else examples.target
    lazy = isinstance(shown, Windows)
    for rows in parts:
        if not len(rows.train):
            raise ConfigError("folds", len(parts), "a fold has no training rows; use fewer folds")
        pieces = [covered_steps([(shown, shown.size)], part) if lazy else np.unique(part) for part in rows]
        for first, second in ((0, 1), (0, 2), (1, 2)):
            shared = len(np.intersect1d(pieces[first], pieces[second], assume_unique=True))
            if shared:
                names = f"{Rows._fields[first]} and {Rows._fields[second]}"
                raise ConfigError("", None, f"{shared} {'time steps' if lazy else 'rows'} are in both {names}")


def absent_notes(parts: Sequence[Rows], source: Source) -> list[str]:
    """Notes on the classes of which some part, or the part of some fold, has no row."""
    label, notes = source.examples.label, []
    if label is None or source.anomaly:
        return notes
    for part in Rows._fields:
        absent = set().union(*(np.setdiff1d(label, label[getattr(rows, part)]).tolist() for rows in parts))
        names = [str(number) if source.classes is None else source.classes[number] for number in sorted(absent)]
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        if names:
            notes.append(f"no {part} row{' of some fold' if len(parts) > 1 else ''} is of class {shown}")
    return notes


def pack(parts: Sequence[Rows], scalings: Sequence[Scaling], targets: Sequence[Scaling]) -> tuple[Split, ...]:
    """Splits of equal shapes, so that folds stack: training rows repeat, others are padded with row 0 at weight 0.

    Args:
      parts, scalings, targets: rows, scaling of `x` and scaling of the target, of every split.
    """
    train, validation, test = (max(map(len, rows)) for rows in zip(*parts, strict=True))
    return tuple(
        Split(
            np.resize(rows.train, train),
            *_pad(rows.validation, validation),
            *_pad(rows.test, test),
            shift=fitted.shift,
            scale=fitted.scale,
            target_shift=target.shift,
            target_scale=target.scale,
        )
        for rows, fitted, target in zip(parts, scalings, targets, strict=True)
    )


def _pad(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    padded, weight = np.zeros(size, np.int32), np.zeros(size, np.float32)
    padded[: len(rows)], weight[: len(rows)] = rows, 1
    return padded, weight
