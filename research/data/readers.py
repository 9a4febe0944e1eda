"""Files of arrays, read without ever loading a pickle; errors name the file and the place in it."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.tree import ConfigError, nearest

LARGEST = 2**30  # bytes that an .npz file may declare, if it is compressed more than RATIO times
RATIO = 100


class Content(NamedTuple):
    """What one file holds: rows of numbers and the targets as stored."""

    x: np.ndarray
    target: np.ndarray | None


def _split_column(x: np.ndarray, name: str | None) -> Content:
    """Take a numbered column out of a matrix without column names."""
    if name is None:
        return Content(x, None)
    columns = x.shape[1] if x.ndim == 2 else 0
    try:
        column = int(name)
    except ValueError:
        column = columns
    if not -columns <= column < columns:
        remedy = f"columns have no names here; expected a number from {-columns} to {columns - 1}"
        raise ConfigError("target", name, remedy if columns else "only rows of shape [N, D] have columns")
    return Content(np.delete(x, column, axis=1), np.array(x[:, column]))


def read_npy(path: Path, key: str | None, target: str | None) -> Content:
    """Rows of a `.npy` file."""
    try:
        # Mapping compares the declared shape with the size of the file before any memory is taken.
        x = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        text = "it holds Python objects" if "objects" in str(error) else f"it is no .npy file or is cut short ({error})"
        raise ConfigError("", None, f"{text}; pickles are never loaded: save plain numbers with numpy.save") from None
    return _split_column(x, target)


def read_npz(path: Path, key: str | None, target: str | None) -> Content:
    """Rows of one array of a `.npz` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
        if declared > LARGEST and declared > RATIO * os.path.getsize(path):
            remedy = "not unpacked; if they are your own arrays, save them with numpy.savez"
            raise ConfigError("", None, f"{os.path.getsize(path)} bytes declare {declared} bytes of content; {remedy}")
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            for setting, name in (("key", key), ("target", target)):
                if name is not None and name not in names:
                    known = ", ".join(names)
                    raise ConfigError(
                        setting, name, f"{path.name} has no such array{nearest(name, names)}; there are: {known}"
                    )
            others = [name for name in names if name != target]
            if key is None and len(others) != 1:
                raise ConfigError(
                    "key", None, f"{path.name} holds several arrays; name one: {', '.join(others) or 'none'}"
                )
            x = archive[key or others[0]]
            column = None if target is None else archive[target]
            if not all(isinstance(array, np.ndarray) for array in (x, column) if array is not None):
                raise ValueError("a member is no array")
    except ConfigError:
        raise
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        text = "it holds Python objects" if "bject" in str(error) else f"it is no .npz file or is damaged ({error})"
        raise ConfigError("", None, f"{text}; pickles are never loaded: save plain numbers with numpy.savez") from None
    if column is not None:
        column = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
        if column.ndim != 1 or len(column) != len(x) or column.dtype.kind not in "biufUS":
            raise ConfigError(
                "target",
                target,
                f"array of shape {column.shape} {column.dtype}; expected one value for each of {len(x)} rows",
            )
    return Content(x, column)


def parquet_table(path: Path) -> tuple[Any, list[str]]:
    """A Parquet file as a pyarrow table, and the columns in which pandas stored its index."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("", None, "Parquet files need another package: pip install pyarrow") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # names may be there twice
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError("", None, f"it is no Parquet file or is damaged ({error})") from None
    index = [name for name in (table.schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
    return table, [name for name in index if name in table.column_names]


READERS = {".npy": read_npy, ".npz": read_npz}
