"""Files of NumPy arrays, `.npy` and `.npz`. A pickle inside them is never loaded."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from research.errors import nearest
from research.tree import ConfigError

LARGEST = 2**30  # bytes; a file that declares more is refused if it is also compressed more than RATIO times
RATIO = 100


Content = tuple[np.ndarray, np.ndarray | None]  # rows of numbers, and the targets as they are stored


def read_npy(path: Path, key: str | None, target: str | None) -> Content:
    """Rows of a `.npy` file; `target` is the number of the column that holds the targets.

    Raises:
      ConfigError: the file is damaged or holds a pickle, or has no such column.
    """
    try:
        # A memory map compares the declared shape with the size of the file before any memory is taken.
        x = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise _unreadable(error, ".npy") from None
    if target is None:
        return x, None
    columns = x.shape[1] if x.ndim == 2 else 0
    column = int(target) if target.removeprefix("-").isdecimal() else columns
    if not -columns <= column < columns:
        remedy = f"columns have no names here; expected a number from {-columns} to {columns - 1}"
        raise ConfigError("target", target, remedy if columns else "only rows of shape [N, D] have columns")
    return np.delete(x, column, axis=1), np.array(x[:, column])


def read_npz(path: Path, key: str | None, target: str | None) -> Content:
    """Rows of the array `key` of a `.npz` file; `target` is the name of the array that holds the targets.

    Raises:
      ConfigError: the file is damaged, holds a pickle or declares far more content than its size allows, or it has no
        such arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
        size = os.path.getsize(path)
        if declared > LARGEST and declared > RATIO * size:
            remedy = "not unpacked; if they are your own arrays, save them with numpy.savez"
            raise ConfigError("", None, f"{size} bytes declare {declared} bytes of content; {remedy}")
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            for setting, name in (("key", key), ("target", target)):
                if name is not None and name not in names:
                    problem = f"{path.name} has no such array{nearest(name, names)}"
                    raise ConfigError(setting, name, f"{problem}; its arrays are: {', '.join(names)}")
            others = [name for name in names if name != target]
            if key is None and len(others) != 1:
                problem = f"{path.name} holds several arrays; name one: {', '.join(others) or 'none'}"
                raise ConfigError("key", None, problem)
            x, values = archive[key or others[0]], None if target is None else archive[target]
            if not isinstance(x, np.ndarray) or not isinstance(values, np.ndarray | None):
                raise ValueError("one of its members is not an array")
    except ConfigError:
        raise
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(error, ".npz") from None
    if values is None:
        return x, None
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or len(values) != len(x) or values.dtype.kind not in "biufUS":
        problem = f"array of shape {values.shape} {values.dtype}; expected one value for each of {len(x)} rows"
        raise ConfigError("target", target, problem)
    return x, values


def _unreadable(error: Exception, ending: str) -> ConfigError:
    """Why numpy refused a file; it says that it found Python objects in different words for the two endings."""
    pickled = "bject" in str(error)
    damaged = f"it is not a valid {ending} file or is damaged or cut short ({error})"
    problem = "it holds Python objects" if pickled else damaged
    return ConfigError("", None, f"{problem}; pickles are never loaded: save plain numbers with numpy.save or savez")


READERS = {".npy": read_npy, ".npz": read_npz}
