"""Your own arrays and tables."""

from collections.abc import Hashable
from pathlib import Path
from typing import Literal

import numpy as np

from research.data.examples import Examples
from research.data.readers import READERS, Table
from research.data.splits import Source, Splitting
from research.ranges import OpenShare
from research.tree import ConfigError, nearest, recipe


@recipe
class Arrays(Splitting):
    """Rows from a file of your own: `.npy`, `.npz`, `.csv` or `.parquet`. Pickled objects are never loaded.

    x [N, D] is kind `vector`; [N, H, W] and [N, H, W, 1 or 3] are kind `image`. uint8 is kept, so that
    `scaling=unit` can divide by 255; other numbers become float32. Missing values are refused.

    A target of text or whole numbers becomes `label`: the values, sorted, are 0 to K - 1. A target of other numbers
    becomes `factors` [N, 1]. In either case the column is no part of `x`.

    Attributes:
      path: the file, from the current folder, or from `root` where that is given.
      test_path: a second file of the same form, whose rows are the test rows.
      target: a column name (`.csv`, `.parquet`), the name of an array (`.npz`), or a column number as text where
        columns have no names (`.npy`, `.csv` without a header line): "0" is the first, "-1" the last.
      key: which array of an `.npz` file is `x`; null where there is only one beside the target.
      test_fraction: share of the rows that are test rows; not used with `test_path`.
      binarize: "once" draws x ~ Bernoulli(x) now, "dynamic" anew at every training use.
    """

    path: str
    test_path: str | None
    target: str | None
    key: str | None
    test_fraction: OpenShare
    binarize: Literal["none", "once", "dynamic"]

    def validate(self) -> None:
        """Refuse files of unknown form.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        super().validate()
        for name in ("path", "test_path"):
            value = getattr(self, name)
            if value == "???":
                raise ConfigError(name, value, "name your file, for example data.path=my.csv")
            if value is not None and Path(value).suffix.lower() not in READERS:
                raise ConfigError(name, value, f"expected a file that ends in {', '.join(READERS)}")
        for name in filter(None, (self.path, self.test_path)):
            if self.key is not None and Path(name).suffix.lower() != ".npz":
                raise ConfigError("key", self.key, f"only .npz files hold named arrays; {name} needs data.key=null")

    def stamp(self) -> Hashable:
        """Place, size and time of the files: an edited file, or another of the same relative path, is read anew."""
        stamps = []
        for value in filter(None, (self.path, self.test_path)):
            path = self._locate(value).absolute()
            state = path.stat() if path.is_file() else None
            stamps.append((path, state and (state.st_size, state.st_mtime_ns)))
        return tuple(stamps)

    def read(self) -> Source:
        """All rows, those of `test_path` last."""
        tables = [self._read("path", self.path)]
        if self.test_path is not None:
            tables.append(self._read("test_path", self.test_path))
            first, second = tables
            if first.columns != second.columns:
                raise ConfigError("test_path", self.test_path, f"its columns differ from those of {self.path}")
            if first.x.shape[1:] != second.x.shape[1:] or first.x.dtype != second.x.dtype:
                shapes = [f"{table.x.shape[1:]} {table.x.dtype}" for table in tables]
                remedy = f"rows of shape {shapes[1]}, but {shapes[0]} in {self.path}"
                raise ConfigError("test_path", self.test_path, remedy)
            targets = [table.target for table in tables if table.target is not None]
            if len({target.dtype.kind in "US" for target in targets}) > 1:
                raise ConfigError(
                    "target", self.target, "it holds text in one of the two files and numbers in the other"
                )
        x = np.concatenate([table.x for table in tables])
        label, factors = None, None
        if self.target is not None:
            label, factors = _labels(
                self.target, np.concatenate([table.target for table in tables if table.target is not None])
            )
        test = None if len(tables) == 1 else np.repeat([False, True], [len(table.x) for table in tables])
        return Source(
            Path(self.path).stem,
            "vector" if x.ndim == 2 else "image",
            Examples(x=x, label=label, factors=factors),
            test=test,
            unit=255 if x.dtype == np.uint8 else None,
        )

    def _locate(self, value: str) -> Path:
        return Path(self.root or "").expanduser() / Path(value).expanduser()

    def _read(self, name: str, value: str) -> Table:
        path = self._locate(value)
        if not path.is_file():
            folder = path.parent
            known = [item.name for item in folder.iterdir()] if folder.is_dir() else []
            where = (
                f"no file {path.absolute()}{nearest(path.name, known)}"
                if folder.is_dir()
                else f"no folder {folder.absolute()}"
            )
            raise ConfigError(name, value, where)
        try:
            table = READERS[path.suffix.lower()](path, self.key, self.target)
        except ConfigError as error:
            raise error if error.key else ConfigError(name, value, error.remedy) from None
        except OSError as error:
            raise ConfigError(name, value, f"it cannot be read: {error.strerror or error}") from None
        try:
            return table._replace(x=_numbers(table.x))
        except ConfigError as error:
            raise ConfigError(name, value, error.remedy) from None


def _numbers(x: np.ndarray) -> np.ndarray:
    """Finite rows as uint8 or float32."""
    if x.dtype.kind not in "biuf":
        raise ConfigError("", None, f"it holds values of type {x.dtype}; expected numbers")
    if x.ndim not in (2, 3) and not (x.ndim == 4 and x.shape[-1] in (1, 3)):
        raise ConfigError("", None, f"its shape is {x.shape}; expected [N, D], [N, H, W] or [N, H, W, 1 or 3]")
    if 0 in x.shape:
        raise ConfigError("", None, f"its shape is {x.shape}: there is nothing in it")
    x = np.array(x, np.uint8 if x.dtype in (np.uint8, np.bool_) else np.float32, order="C")
    if x.dtype == np.float32:
        finite = np.isfinite(x)
        if not finite.all():
            index = np.unravel_index(int(np.argmin(finite)), x.shape)
            raise ConfigError(
                "", None, f"value {x[index]} at index {list(map(int, index))} (from 0); fill or remove such rows"
            )
    return x


def _labels(name: str, target: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Classes [N] int32, or factors [N, 1] float32 where the values are no classes."""
    if target.dtype.kind == "f" and not np.isfinite(target).all():
        row = int(np.argmin(np.isfinite(target)))
        raise ConfigError("target", name, f"value {target[row]} in row {row} (from 0)")
    if target.dtype.kind == "f" and (target != np.round(target)).any():
        return None, target.astype(np.float32)[:, None]
    classes, label = np.unique(target, return_inverse=True)
    if len(classes) == len(target) > 2:
        raise ConfigError("target", name, "every row has another value, so these are no classes; remove the column")
    return label.astype(np.int32), None
