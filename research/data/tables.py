"""Rows of your own, from a file of arrays or a table: vectors, images or sequences."""

import dataclasses
import filecmp
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from research.data import checks
from research.data.columns import Target, Task, grows_evenly, interpret, read_features, target_column
from research.data.examples import Examples
from research.data.files.arrays import READERS, Stored, form_of
from research.data.files.local import blaming, check_path, find, resolve, state
from research.data.files.reading import read_table
from research.data.files.table import ENDINGS as TABLES
from research.data.files.table import Column, Form
from research.data.preparation import Preparation, marked
from research.data.shapes import (
    Kind,
    Sequences,
    Values,
    check_numbers,
    kind_of,
    lengthened,
    may_be_sequences,
    read_sequences,
    read_targets,
    shortened,
    steps_inside,
)
from research.data.source import Source, Splitting
from research.data.streamed import joined, read_streamed
from research.ranges import Index, OpenShare
from research.tree import ConfigError, added, inline, recipe

FILES = (*READERS, *TABLES)  # endings of the files that `Arrays` reads

# how people read a file in Python, to save it as .npy
LOADERS = {".npz": "numpy.load('{path}')['{key}']", ".parquet": "pandas.read_parquet('{path}')"}


class Content(NamedTuple):
    """The rows that one file holds, before targets are interpreted.

    Attributes:
      x: rows, uint8 or floats; `Mapped` if they are streamed.
      target: targets as stored; None without.
      columns: names of the features; None where the file has none.
      binary: features that are bool or hold only the whole numbers 0 and 1, [D] bool, or () for all of an array.
      where: where a row stands in the file.
      notes: what was left out or noticed.
      kind: what a row is.
      sequences: `x` with lengths and masks, if the rows are sequences.
      targets: targets of sequences that are more than one number a row, as stored, [N, ...]; `target` is None then.
    """

    x: Any
    target: Column | None
    columns: tuple[str, ...] | None
    binary: np.ndarray
    where: Callable[[int], str]
    notes: list[str]
    kind: Kind = "vector"
    sequences: Sequences | None = None
    targets: np.ndarray | None = None


@recipe
class Arrays(Splitting):
    """Rows from a file of your own: `.npy`, `.npz`, `.csv`, `.tsv` or `.parquet`. Pickled objects are never loaded.

    x [N, D] is kind `vector`; [N, H, W] and [N, H, W, 1 or 3] are kind `image`. With `lengths`, and for recurrent
    models also without, [N, T, C] is kind `sequence`, unless it is uint8 or bool; `kind` decides otherwise. uint8 is
    kept, so that `scaling=unit` can divide by 255. Missing values of sequences are masked (`observed`), and so is what
    stands behind the end of a sequence (`length`). In vectors and images they are refused.

    A target of text, or of up to 20 different whole numbers, becomes `label`: the values, sorted, are 0 to K - 1, and
    the parts have equal shares of every class. A target of fractions becomes `target` (and `factors`) [N, 1]. In either
    case the column is not part of `x`. Sequences may have several values [N, D], or a class [N, T] int32 or values
    [N, T, D] for every step (see `shapes.read_targets`); models see their values scaled as `scaling` says.

    Attributes:
      path: the file, from the current folder, or from `root` if that is set.
      test_path: a second file of the same form, whose rows are the test rows.
      target: a column name (tables), the name of an array (`.npz`), or a column number where columns have no names
        (`.npy`, or `header: false`): 0 is the first, -1 the last.
      task: whether the target is "classes" or "values"; null decides by its content.
      columns: the features of a table; null takes every column but the target, and refuses columns that count or date
        the rows.
      key: which array of an `.npz` file holds the rows; null takes `x`, or the only one.
      kind: what a row is; null decides by the shape and the model, as above.
      lengths: the array of an `.npz` file that holds the number of steps of every sequence, where they are padded.
      form: how a table is written.
      test_fraction: share of the rows that are test rows; not used with `test_path`.
      binarize: "once" draws x ~ Bernoulli(x) when the data are read, "dynamic" anew in every training batch.
      stream: rows of `.npy` files stay on disk: the host reads the rows of some steps while the device trains on those
        before. The results are those of rows in memory. Targets are in memory.
    """

    path: str
    test_path: str | None
    target: str | Index | None
    task: Task | None
    columns: tuple[str | Index, ...] | None
    key: str | None
    kind: Kind | None = added(before=None)
    lengths: str | None = added(before=None)
    form: Form = inline()
    test_fraction: OpenShare
    binarize: Literal["none", "once", "dynamic"]
    stream: bool = added(before=False)

    def validate(self) -> None:
        """Refuse files of unknown form, and keys that do not apply to them."""
        super().validate()
        if self.stream:
            self._check_stream()
        for key, path in (("path", self.path), ("test_path", self.test_path)):
            if path is None:
                continue
            check_path(key, path, FILES)
            ending = Path(path).suffix.lower()
            self.form.check(path)
            if self.key is not None and ending != ".npz":
                raise ConfigError("key", self.key, f"only .npz files hold named arrays; {path} needs data.key=null")
            if self.lengths is not None and ending != ".npz":
                remedy = f"only .npz files hold named arrays; put x and lengths into one, or set {{key}}=null ({path})"
                raise ConfigError("lengths", self.lengths, remedy)
            if self.kind not in (None, "vector") and ending in TABLES:
                remedy = f"the rows of a table are vectors; save an array as .npy or .npz, or set {{key}}=null ({path})"
                raise ConfigError("kind", self.kind, remedy)
            if self.columns is not None and ending not in TABLES:
                raise ConfigError("columns", list(self.columns), f"{path} is not a table: set it to null")
        if self.columns is not None and not self.columns:
            raise ConfigError("columns", [], "name at least one column, or null for all")
        if self.lengths is not None and self.kind not in (None, "sequence"):
            raise ConfigError("lengths", self.lengths, "only sequences have lengths: data.kind=sequence")
        if self.task is not None and self.target is None:
            raise ConfigError("task", self.task, "there is no target: name it, data.target=...")

    def _check_stream(self) -> None:
        """Refuse what needs all rows in memory."""
        for key, path in (("path", self.path), ("test_path", self.test_path)):
            if path is None or (ending := Path(path).suffix.lower()) == ".npy":
                continue
            read = LOADERS.get(ending, "pandas.read_csv('{path}')").format(path=path, key=self.key or "x")
            remedy = f"only .npy files are streamed; in Python: numpy.save('{Path(path).stem}.npy', {read})"
            raise ConfigError(key, path, f"{remedy}, or set data.stream=false")
        for key, absent in (("binarize", "none"), ("hide", None)):
            if (value := getattr(self, key)) != absent:
                remedy = f"streamed rows are not drawn or hidden once for all; set {{key}}={absent or 'null'}"
                raise ConfigError(key, value, f"{remedy}, or data.stream=false")

    def stamp(self) -> Hashable:
        """State of the files."""
        return state(self._file(path) for path in filter(None, (self.path, self.test_path)))

    def for_sequences(self) -> Self:
        """The recipe for a model of sequences: it takes an array that may hold them as sequences."""
        path = self._file(self.path)
        if self.kind is not None or path.suffix.lower() not in READERS:
            return self
        target = None if self.target is None else str(self.target)
        form = form_of(path, self.key, target, self.lengths)
        if form is None or not may_be_sequences(*form):
            return self
        return dataclasses.replace(self, kind="sequence")

    def stored(self) -> Source:
        """All rows, those of `test_path` last."""
        contents = [self._read("path", self.path)]
        if self.test_path is not None:
            contents.append(self._test_rows(self.test_path, contents[0]))
        return self._source(contents)

    def stored_for(self, trained: Preparation) -> Source:
        """All rows of `path` for a run, with the columns that it was trained on, and without any division.

        Raises:
          ConfigError: a column is missing, or was not there in training, or the file cannot be read.
        """
        return self._source([self._read("path", self.path, trained)], trained)

    # -------------------------------------------------------------------------------------------------- one file

    def _file(self, path: str) -> Path:
        return resolve(self.root, path)

    def _read(self, key: str, value: str, trained: Preparation | None = None) -> Content:
        """The content of the file that a key names."""
        path = find(key, value, self._file(value))
        target = None if self.target is None else str(self.target)
        with blaming(key, value):
            if self.stream and trained is None:
                streamed = read_streamed(path, self.kind, target, self.form.numeric_marks)
                x, values, kind, binary, notes = streamed
                notes += self._reading(x.shape, x.dtype, path.name)
                return Content(x, self._column(values), None, binary, _row_of(path), notes, kind)
            if path.suffix.lower() in TABLES:
                return self._read_table(path, target, trained)
            stored = READERS[path.suffix.lower()](path, self.key, target, self.lengths, new_rows=trained is not None)
            asked = "sequence" if trained is not None and trained.kind == "sequence" else self.kind
            kind = kind_of(stored.x.shape, asked, self.lengths is not None)
            if kind == "sequence":
                return self._sequences(path, stored, trained)
            return self._array(path, stored, kind, trained)

    def _array(self, path: Path, stored: Stored, kind: Kind, trained: Preparation | None) -> Content:
        """Vectors or images."""
        x, notes, marks = check_numbers(stored.x, path.name), [], self.form.numeric_marks
        if self.lengths is not None:
            raise ConfigError("lengths", self.lengths, f"{path.name} holds {kind}s: data.lengths=null")
        gaps = marked(x, marks)
        if gaps.any():
            index = [int(axis[0]) for axis in np.nonzero(gaps)]
            remedy = "means a missing value (data.missing); fill it or remove the row"
            remedy += "; those of sequences are masked: data.kind=sequence" if x.ndim == 3 else ""
            raise ConfigError("", None, f"{path.name}: {x[tuple(index)]} at index {index} (from 0) {remedy}")
        if x.ndim == 2 and x.dtype != np.uint8:
            text = "grows by a constant step; if it only counts or dates the rows, store the array without it"
            for number, column in enumerate(x.T):
                if grows_evenly(column):
                    notes.append(f"{path.name}, column {number} (from 0) {text}")
            notes += checks.marks_notes(path.name, [str(number) for number in range(x.shape[1])], x)
        notes += self._reading(x.shape, x.dtype, path.name) if trained is None else []
        binary = np.asarray(x.max() <= 1) if x.dtype == np.uint8 else whole_bits(x)
        if x.dtype not in (np.uint8, np.float32):
            x = x.astype(np.float64)
        if stored.target is not None and stored.target.ndim > 1:
            problem = f"array of shape {stored.target.shape}; expected one value for each of {len(x)} rows"
            remedy = "; only sequences have more: data.kind=sequence" if x.ndim == 3 else ""
            raise ConfigError("target", self.target, problem + remedy)
        return Content(x, self._column(stored.target), None, binary, _row_of(path), notes, kind)

    def _reading(self, shape: tuple[int, ...], dtype: np.dtype, file: str) -> list[str]:
        """A note on an array that is read as images and may hold sequences."""
        if self.kind is not None or not may_be_sequences(shape, dtype):
            return []
        text = f"{file} is read as images of {shape[1]} by {shape[2]} pixels"
        return [f"{text}; if it holds sequences of {shape[1]} steps: data.kind=sequence"]

    def _column(self, target: np.ndarray | None) -> Column | None:
        """One target for every row as a column."""
        if target is None:
            return None
        column = target_column(target)
        if column.numbers is None:
            return column
        return column._replace(missing=column.missing | marked(target, self.form.numeric_marks))

    def _sequences(self, path: Path, stored: Stored, trained: Preparation | None) -> Content:
        """Sequences, with the number of steps of training if they are new rows."""
        marks, new_rows = self.form.numeric_marks, trained is not None
        sequences = read_sequences(stored.x, stored.lengths, marks, path.name, str(self.lengths), new_rows)
        steps = sequences.x.shape[1]
        if trained is not None and trained.stored_shape is not None:
            of_training = trained.stored_shape[0]
            sequences = (lengthened if steps < of_training else shortened)(sequences, of_training)
        notes, target, targets = sequences.notes, stored.target, None
        if "lengths" in stored.others and self.lengths is None and not new_rows:
            text = f"{path.name} holds an array 'lengths', which is not used"
            notes.append(f"{text}; if it holds the steps of the sequences: data.lengths=lengths")
        if target is not None and target.ndim > 1:
            target, targets = None, _with_steps(target, steps, sequences.x.shape[1])
        column = self._column(target)
        return Content(
            sequences.x, column, None, sequences.binary, _row_of(path), notes, "sequence", sequences, targets
        )

    def _read_table(self, path: Path, target: str | None, trained: Preparation | None) -> Content:
        listed = None if self.columns is None else tuple(map(str, self.columns))
        table = read_table(path, self.form, keep=(target, *(listed or ())))
        if trained is not None and target is not None and target not in table.names and table.named:
            target = None  # new rows need no target
        names, x, binary, notes = read_features(table, listed, {"target": target}, trained)
        missing = np.isnan(x)
        if missing.any():
            row, number = (int(axis[0]) for axis in np.nonzero(missing))
            rows = missing.any(1).sum()
            count = f" (and in {rows - 1} other rows)" if rows > 1 else ""
            remedy = "fill it or remove the row; data=series masks missing values"
            raise ConfigError("", None, f"{table.where(row, names[number])}: the value is missing{count}; {remedy}")
        if trained is None:
            notes += checks.table_notes(table, names, x, [target] if target is not None else [])
        column = None if target is None else table.column(target, "target")
        if trained is not None and column is not None and column.kind == "empty":
            column = None  # the target of new rows is often unknown
        return Content(x, column, tuple(names) if table.named else None, binary, table.where, notes)

    # ------------------------------------------------------------------------------------------------ both files

    def _test_rows(self, value: str, first: Content) -> Content:
        """The rows of `test_path`, with their columns in the order of `path`."""
        path, test_path = self._file(self.path), find("test_path", value, self._file(value))
        if filecmp.cmp(path, test_path, shallow=False):
            remedy = "name another file, or set data.test_path=null and use data.test_fraction"
            raise ConfigError("test_path", value, f"it holds the same rows as data.path={self.path}; {remedy}")
        second = self._read("test_path", value)
        if first.columns is not None and second.columns is not None and set(first.columns) == set(second.columns):
            order = [second.columns.index(name) for name in first.columns]
            second = second._replace(x=second.x[:, order], binary=second.binary[order], columns=first.columns)
        if first.columns != second.columns:
            differ = sorted(set(first.columns or ()) ^ set(second.columns or ()))
            problem = f"its columns differ from those of {self.path}: {', '.join(differ[:12])}"
            raise ConfigError("test_path", value, problem)
        floats = [content.x.dtype.kind == "f" for content in (first, second)]
        padded = first.sequences is not None and second.sequences is not None  # these may have other numbers of steps
        axis = 2 if padded else 1
        if first.x.shape[axis:] != second.x.shape[axis:] or floats[0] != floats[1]:
            shapes = [f"{content.x.shape[1:]} {content.x.dtype}" for content in (first, second)]
            raise ConfigError("test_path", value, f"rows of shape {shapes[1]}, but {shapes[0]} in {self.path}")
        if self.stream and (types := [content.x.files[0].dtype for content in (first, second)])[0] != types[1]:
            remedy = f"it holds {types[1]} numbers, and {self.path} {types[0]}; store both with one type"
            raise ConfigError("test_path", value, f"{remedy}, or set data.stream=false")
        texts = {content.target.numbers is None for content in (first, second) if content.target is not None}
        if len(texts) == 2:
            remedy = "it holds text in one of the two files and numbers in the other"
            raise ConfigError("target", self.target, remedy)
        return second

    def _source(self, contents: Sequence[Content], trained: Preparation | None = None) -> Source:
        if contents[0].sequences is not None:
            contents = [_with_all_steps(content, contents) for content in contents]
        x = joined([content.x for content in contents])
        binary = np.asarray(np.stack([content.binary for content in contents]).all(0))
        sizes = [len(content.x) for content in contents]
        test = None if len(contents) == 1 else np.repeat([False, True], sizes)
        sequences = [content.sequences for content in contents if content.sequences is not None]
        length, observed = _length(sequences), _observed(sequences)
        target = self._target(contents, trained)
        values = self._values(contents, steps_inside(x.shape[:2], length), trained)
        if values is not None:
            target = target._replace(values=values.target, notes=values.notes)
        notes = [note for content in contents for note in content.notes] + list(target.notes)
        if trained is None:
            single = {content.x.dtype for content in contents} == {np.dtype(np.float32), np.dtype(np.float64)}
            # With float32 in one of two files, rows are compared as float32.
            rows: Any = x.astype(np.float32) if single else x
            beside = target.values if target.label is None else target.label
            notes += checks.repeated(rows, beside, test, str(self.test_path))
        return Source(
            Path(self.path).stem,
            contents[0].kind,
            Examples(
                x=x,
                label=target.label,
                target=target.values,
                factors=target.values if values is None else None,
                length=length,
                observed=observed,
                target_observed=None if values is None else values.observed,
            ),
            test=test,
            unit=(1 if binary.all() else 255) if x.dtype == np.uint8 else None,
            columns=contents[0].columns,
            classes=target.classes,
            notes=tuple(notes),
            binary=binary if binary.any() else None,
            stratify=target.label is not None,
            preparation=Preparation(missing=self.form.numeric_marks),
            own_target_scale=contents[0].kind == "sequence",
        )

    def _where(self, contents: Sequence[Content]) -> Callable[[int], str]:
        """Where a row of all files stands."""
        size = len(contents[0].x)
        return lambda row: contents[0].where(row) if row < size else contents[1].where(row - size)

    def _target(self, contents: Sequence[Content], trained: Preparation | None) -> Target:
        """The targets of all files as classes or values; new rows are taken as their run was."""
        columns = [content.target for content in contents if content.target is not None]
        if len(columns) < len(contents):
            return Target(None, None, None)
        task = self.task
        if trained is not None:
            # A run without classes has no use for text, and text is no reason to refuse the rows.
            task = "classes" if trained.class_count or columns[0].numbers is None else "values"
        where_of = self._where(contents)
        return interpret(str(self.target), _join(columns), task, where_of, new_rows=trained is not None)

    def _values(self, contents: Sequence[Content], inside: np.ndarray, trained: Preparation | None) -> Values | None:
        """Targets of sequences that are more than one number a row; None if there are none."""
        arrays = [content.targets for content in contents if content.targets is not None]
        if not arrays:
            return None
        if len(arrays) < len(contents) or len({array.shape[1:] for array in arrays}) > 1:
            shapes = " and ".join(str(array.shape) for array in arrays)
            raise ConfigError("target", self.target, f"its shapes in the two files do not fit together ({shapes})")
        return read_targets(
            str(self.target),
            np.concatenate(arrays),
            inside,
            self.task,
            self.form.numeric_marks,
            self._where(contents),
            new_rows=trained is not None,
        )


def _row_of(path: Path) -> Callable[[int], str]:
    return lambda row: f"{path.name}, row {row} (from 0)"


def _with_steps(target: np.ndarray, steps: int, wanted: int) -> np.ndarray:
    """A target of sequences of so many steps, for the same sequences in an array of `wanted` steps."""
    if target.shape[1] != steps or steps == wanted:
        return target
    if wanted < steps:
        return target[:, :wanted]
    return np.pad(target, ((0, 0), (0, wanted - steps), *((0, 0),) * (target.ndim - 2)))


def _with_all_steps(content: Content, contents: Sequence[Content]) -> Content:
    """Sequences in an array of as many steps as those of any file."""
    steps = max(other.x.shape[1] for other in contents)
    assert content.sequences is not None
    sequences = lengthened(content.sequences, steps)
    targets = None if content.targets is None else _with_steps(content.targets, content.x.shape[1], steps)
    return content._replace(x=sequences.x, sequences=sequences, targets=targets)


def _length(sequences: Sequence[Sequences]) -> np.ndarray | None:
    """Lengths of the sequences of all files, [N] int32; None if all are whole."""
    if all(part.length is None for part in sequences):
        return None
    whole = lambda part: np.full(len(part.x), part.x.shape[1], np.int32)
    return np.concatenate([whole(part) if part.length is None else part.length for part in sequences])


def _observed(sequences: Sequence[Sequences]) -> np.ndarray | None:
    """Where the values of the sequences of all files are observed; None if nothing is missing."""
    if all(part.observed is None for part in sequences):
        return None
    inside = lambda part: np.broadcast_to(steps_inside(part.x.shape[:2], part.length)[..., None], part.x.shape)
    return np.concatenate([inside(part) if part.observed is None else part.observed for part in sequences])


def whole_bits(x: np.ndarray) -> np.ndarray:
    """Features of an array of whole numbers that hold only 0 and 1, bool of the shape of a row."""
    if x.dtype.kind == "f":
        return np.zeros(x.shape[1:], bool)
    return (x.min(0) >= 0) & (x.max(0) <= 1)


def _join(columns: Sequence[Column]) -> Column:
    """The targets of one or two files as one column."""
    if len(columns) == 1:
        return columns[0]
    kind = columns[0].kind if columns[0].kind == columns[1].kind else "float"
    join = lambda pieces: None if any(piece is None for piece in pieces) else np.concatenate(pieces)
    numbers, cells = join([column.numbers for column in columns]), join([column.cells for column in columns])
    return Column(kind, numbers, cells, np.concatenate([column.missing for column in columns]))
