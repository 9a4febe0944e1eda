"""Your own arrays and tables."""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from research.data import checks, targets
from research.data.columns import ENDINGS as TABLES
from research.data.columns import Column, Decimal, Form, Separator
from research.data.examples import Examples
from research.data.local import find, same_content, state
from research.data.preparation import Preparation
from research.data.readers import READERS
from research.data.splits import Source, Splitting
from research.data.table_files import read_table
from research.ranges import Finite64, Index, OpenShare
from research.tree import ConfigError, recipe


class Content(NamedTuple):
    """What one file holds, before targets are interpreted.

    Attributes:
      x: rows; uint8, or float64 where the file holds more than float32.
      target: as stored; None without.
      columns: names of the features; None where the file has none.
      binary: features that are bool or hold only the whole numbers 0 and 1, [D] bool, or () for all of an array.
      place: where a row stands in the file.
      notes: what was left out or noticed.
    """

    x: np.ndarray
    target: Column | None
    columns: tuple[str, ...] | None
    binary: np.ndarray
    place: Callable[[int], str]
    notes: tuple[str, ...]


@recipe
class Arrays(Splitting):
    """Rows from a file of your own: `.npy`, `.npz`, `.csv`, `.tsv` or `.parquet`. Pickled objects are never loaded.

    x [N, D] is kind `vector`; [N, H, W] and [N, H, W, 1 or 3] are kind `image`. uint8 is kept, so that
    `scaling=unit` can divide by 255. Missing values are refused: dense networks take no masks.

    A target of text, or of up to 20 different whole numbers, becomes `label`: the values, sorted, are 0 to K - 1, and
    the parts have equal shares of every class. A target of fractions becomes `target` (and `factors`) [N, 1]. In either
    case the column is no part of `x`.

    Attributes:
      path: the file, from the current folder, or from `root` where that is given.
      test_path: a second file of the same form, whose rows are the test rows.
      target: a column name (tables), the name of an array (`.npz`), or a column number where columns have no names
        (`.npy`, or `header: false`): 0 is the first, -1 the last.
      task: whether the target is "classes" or "values"; null decides by its content.
      columns: the features of a table; null takes every column but the target, and refuses those that count the rows.
      key: which array of an `.npz` file is `x`; null where there is only one beside the target.
      header, separator, decimal, encoding, missing: how a table is written, see `columns.Form`.
      test_fraction: share of the rows that are test rows; not used with `test_path`.
      binarize: "once" draws x ~ Bernoulli(x) now, "dynamic" anew at every training use.
    """

    path: str
    test_path: str | None
    target: str | Index | None
    task: targets.Task | None
    columns: tuple[str | Index, ...] | None
    key: str | None
    header: bool | None
    separator: Separator | None
    decimal: Decimal
    encoding: str
    missing: tuple[Finite64 | str, ...] | None
    test_fraction: OpenShare
    binarize: Literal["none", "once", "dynamic"]

    def validate(self) -> None:
        """Refuse files of unknown form.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        super().validate()
        endings = (*READERS, *TABLES)
        for name in ("path", "test_path"):
            value = getattr(self, name)
            if value == "???":
                raise ConfigError(name, value, "name your file, for example data.path=my.csv")
            if value is not None and Path(value).suffix.lower() not in endings:
                raise ConfigError(name, value, f"expected a file that ends in {', '.join(endings)}")
        Form.of(self, *filter(None, (self.path, self.test_path)))
        for name in filter(None, (self.path, self.test_path)):
            if self.key is not None and Path(name).suffix.lower() != ".npz":
                raise ConfigError("key", self.key, f"only .npz files hold named arrays; {name} needs data.key=null")
            if self.columns is not None and Path(name).suffix.lower() not in TABLES:
                raise ConfigError("columns", list(self.columns), f"{name} is no table: set it to null")
        if self.columns is not None and not self.columns:
            raise ConfigError("columns", [], "name at least one column, or null for all")
        if self.task is not None and self.target is None:
            raise ConfigError("task", self.task, "there is no target: name it, data.target=...")

    def stamp(self) -> Hashable:
        """Place, size and time of the files: an edited file, or another of the same relative path, is read anew."""
        return state(self._locate(value) for value in filter(None, (self.path, self.test_path)))

    def stored(self) -> Source:
        """All rows, those of `test_path` last."""
        contents = [self._read("path", self.path)]
        if self.test_path is not None:
            contents.append(self._second(contents[0]))
        return self._source(contents)

    def stored_for(self, trained: Preparation) -> Source:
        """All rows of `path` for a run, with the columns that it was trained on, and without any division.

        Args:
          trained: a `Preparation`: `columns` are matched by name; `class_count` says whether a target is of classes.

        Raises:
          ConfigError: a column is missing or foreign, or the file cannot be read.
        """
        return self._source([self._read("path", self.path, trained)], trained)

    def _locate(self, value: str) -> Path:
        return Path(self.root or "").expanduser() / Path(value).expanduser()

    def _read(self, key: str, value: str, trained: Preparation | None = None) -> Content:
        """The content of one file; what is wrong with it is said of the key that names it."""
        path = find(key, value, self._locate(value))
        target = None if self.target is None else str(self.target)
        try:
            if path.suffix.lower() in TABLES:
                return self._read_table(path, target, trained)
            x, stored = READERS[path.suffix.lower()](path, self.key, target)
            return self._array(path, x, stored)
        except ConfigError as error:
            raise error if error.key else ConfigError(key, value, error.remedy) from None
        except OSError as error:
            raise ConfigError(key, value, f"it cannot be read: {error.strerror or error}") from None

    def _array(self, path: Path, x: np.ndarray, target: np.ndarray | None) -> Content:
        x, notes = check_numbers(x, path.name), []
        marks = [float(mark) for mark in self.missing or () if not isinstance(mark, str)]
        if np.isin(x, marks).any():
            index = [int(at[0]) for at in np.nonzero(np.isin(x, marks))]
            remedy = "means a missing value (data.missing); fill it or remove the row"
            raise ConfigError("", None, f"{path.name}: {x[tuple(index)]} at index {index} (from 0) {remedy}")
        if x.ndim == 2 and x.dtype != np.uint8:
            names = [str(number) for number in range(x.shape[1])]
            even = [name for name, column in zip(names, x.T, strict=True) if checks.grows_evenly(column)]
            text = "grows by a constant step; if it only counts or dates the rows, store the array without it"
            notes = [f"{path.name}, column {name} (from 0) {text}" for name in even]
            notes += checks.marks_note(path.name, names, x)
        binary = np.asarray(x.max() <= 1) if x.dtype == np.uint8 else whole_bits(x)
        if x.dtype not in (np.uint8, np.float32):
            x = x.astype(np.float64)
        column = None if target is None else targets.column_of(target)
        if column is not None and column.numbers is not None:
            column = column._replace(missing=column.missing | np.isin(column.numbers, marks))
        place = lambda row: f"{path.name}, row {row} (from 0)"
        return Content(x, column, None, binary, place, tuple(notes))

    def _read_table(self, path: Path, target: str | None, trained: Preparation | None) -> Content:
        columns = None if self.columns is None else tuple(map(str, self.columns))
        table = read_table(path, Form.of(self, path.name), keep=(target, *(columns or ())))
        trained_columns = None if trained is None else trained.columns
        if trained is not None and target is not None and target not in table.names and table.named:
            target = None  # new rows need no target
        taken = {"target": target}
        chosen, notes = checks.choose(table, columns, taken, trained_columns, trained is not None)
        x = table.numbers(chosen)
        missing = np.isnan(x)
        if missing.any():
            row, column = (int(at[0]) for at in np.nonzero(missing))
            count = f" (and in {missing.any(1).sum() - 1} other rows)" if missing.any(1).sum() > 1 else ""
            remedy = "fill it or remove the row; data=series masks missing values"
            raise ConfigError("", None, f"{table.place(row, chosen[column])}: the value is missing{count}; {remedy}")
        kinds = [table.column(name).kind for name in chosen]
        binary = np.array([checks.is_binary(kind, values) for kind, values in zip(kinds, x.T, strict=True)], bool)
        if trained is None:
            notes += [*checks.marks_note(path.name, chosen, x), *checks.unused_marks_note(table, chosen, self.missing)]
            notes += checks.grouped_note(table, [*chosen, *filter(None, [target])])
        names = tuple(chosen) if table.named else None
        column = None if target is None else table.column(target, "target")
        if trained is not None and column is not None and column.kind == "empty":
            column = None  # what new rows are is often not known
        return Content(x, column, names, binary, table.place, tuple(notes))

    def _second(self, first: Content) -> Content:
        """The rows of `test_path`, which are none of the rows of `path`."""
        value = str(self.test_path)
        paths = [self._locate(self.path), find("test_path", value, self._locate(value))]
        if paths[0].is_file() and same_content(*paths):
            remedy = "name another file, or set data.test_path=null and use data.test_fraction"
            raise ConfigError("test_path", value, f"it holds the same rows as data.path={self.path}; {remedy}")
        second = self._read("test_path", value)
        if first.columns is not None and second.columns is not None and set(first.columns) == set(second.columns):
            order = [second.columns.index(name) for name in first.columns]
            second = second._replace(x=second.x[:, order], binary=second.binary[order], columns=first.columns)
        if first.columns != second.columns:
            differ = sorted(set(first.columns or ()) ^ set(second.columns or ()))
            raise ConfigError(
                "test_path", value, f"its columns differ from those of {self.path}: {', '.join(differ[:12])}"
            )
        floats = [content.x.dtype.kind == "f" for content in (first, second)]
        if first.x.shape[1:] != second.x.shape[1:] or floats[0] != floats[1]:
            shapes = [f"{content.x.shape[1:]} {content.x.dtype}" for content in (first, second)]
            raise ConfigError("test_path", value, f"rows of shape {shapes[1]}, but {shapes[0]} in {self.path}")
        if first.target is not None and second.target is not None:
            text = [content.numbers is None for content in (first.target, second.target)]
            if text[0] != text[1]:
                remedy = "it holds text in one of the two files and numbers in the other"
                raise ConfigError("target", self.target, remedy)
        return second

    def _source(self, contents: Sequence[Content], trained: Preparation | None = None) -> Source:
        first, sizes = contents[0], [len(content.x) for content in contents]
        x = np.concatenate([content.x for content in contents])
        notes = [note for content in contents for note in content.notes]
        target = targets.Target(None, None, None)
        columns = [content.target for content in contents if content.target is not None]
        if len(columns) == len(contents) and columns:
            places = [content.place for content in contents]
            place = lambda row: places[0](row) if row < sizes[0] else places[1](row - sizes[0])
            task = self.task if trained is None else ("classes" if trained.class_count else "values")
            if trained is not None and not trained.class_count and columns[0].numbers is None:
                task = "classes"  # of no use for the run, and no reason to refuse the rows
            joined = columns[0] if len(columns) == 1 else _join(columns)
            target = targets.interpret(str(self.target), joined, task, place, new_rows=trained is not None)
            notes += target.notes
        whole = np.asarray(np.stack([content.binary for content in contents]).all(0))
        test = None if len(contents) == 1 else np.repeat([False, True], sizes)
        if trained is None:
            # float32 in one of two files: rows are compared as such
            single = {content.x.dtype for content in contents} == {np.dtype(np.float32), np.dtype(np.float64)}
            beside = target.values if target.label is None else target.label
            notes += repeated(x.astype(np.float32) if single else x, beside, test, str(self.test_path))
        return Source(
            Path(self.path).stem,
            "vector" if x.ndim == 2 else "image",
            Examples(x=x, label=target.label, target=target.values, factors=target.values),
            test=test,
            unit=(1 if whole.all() else 255) if x.dtype == np.uint8 else None,
            columns=first.columns,
            classes=target.classes,
            notes=tuple(notes),
            binary=whole if whole.any() else None,
            stratify=target.label is not None,
        )


def check_numbers(x: np.ndarray, file: str) -> np.ndarray:
    """Finite rows; bool becomes uint8.

    Raises:
      ConfigError: other types or shapes, nothing, or values that are not finite.
    """
    if x.dtype.kind not in "biuf":
        raise ConfigError("", None, f"it holds values of type {x.dtype}; expected numbers")
    if x.ndim not in (2, 3) and not (x.ndim == 4 and x.shape[-1] in (1, 3)):
        raise ConfigError("", None, f"its shape is {x.shape}; expected [N, D], [N, H, W] or [N, H, W, 1 or 3]")
    if 0 in x.shape:
        raise ConfigError("", None, f"its shape is {x.shape}: there is nothing in it")
    if x.dtype.kind == "f" and not (finite := np.isfinite(x)).all():
        index = np.unravel_index(int(np.argmin(finite)), x.shape)
        place = f"{file}: value {x[index]} at index {list(map(int, index))} (from 0)"
        raise ConfigError("", None, f"{place}; fill or remove such rows")
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and (x.max() > 2**53 or x.min() < -(2**53)):
        raise ConfigError("", None, f"{file}: whole numbers beyond 2^53 are not exact as floats; leave them out")
    return np.array(x, np.uint8 if x.dtype == np.bool_ else x.dtype, order="C")


def whole_bits(x: np.ndarray) -> np.ndarray:
    """Features of an array of whole numbers that hold only 0 and 1, bool of the shape of a row."""
    if x.dtype.kind == "f":
        return np.zeros(x.shape[1:], bool)
    return (x.min(0) >= 0) & (x.max(0) <= 1)


def _join(columns: Sequence[Column]) -> Column:
    """Targets of two files as one column."""
    kinds = {column.kind for column in columns}
    kind = columns[0].kind if len(kinds) == 1 else "float"
    join = lambda parts: None if any(part is None for part in parts) else np.concatenate(parts)
    numbers = join([column.numbers for column in columns])
    cells = join([column.cells for column in columns])
    return Column(kind, numbers, cells, np.concatenate([column.missing for column in columns]))


def repeated(x: np.ndarray, beside: np.ndarray | None, test: np.ndarray | None, test_path: str) -> list[str]:
    """A note on rows that are there several times.

    Args:
      x: rows [N, ...].
      beside: their targets, which belong to a row, [N, ...].
      test: the rows of `test_path`, [N] bool; None without a second file.

    Raises:
      ConfigError: more rows of `test_path` are among the others than these have copies among themselves.
    """
    texts = [np.ascontiguousarray(row + 0).tobytes() for row in x]  # + 0: -0.0 and 0.0 are equal
    if beside is not None:
        texts = [text + row.tobytes() for text, row in zip(texts, beside, strict=True)]
    copies = Counter(texts) if test is None else Counter(itertools.compress(texts, ~test))
    if test is None:
        count = sum(number for number in copies.values() if number > 1)
        text = f"{count} of {len(x)} rows are there more than once; copies may lie in training and test rows"
        return [text] if count else []
    seen = sum(text in copies for text in itertools.compress(texts, test))
    if not seen:
        return []
    text = f"{seen} of {int(test.sum())} test rows are among the training rows"
    if seen / test.sum() > sum(number for number in copies.values() if number > 1) / copies.total():
        raise ConfigError("test_path", test_path, f"{text}; remove them from one of the two files")
    return [f"{text}; these have copies among themselves, too"]
