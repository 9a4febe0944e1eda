"""Files of NumPy arrays, `.npy` and `.npz`. A pickle inside them is never loaded."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.errors import nearest
from research.tree import ConfigError

LARGEST = 2**30  # bytes; a file that declares more is refused if it is also compressed more than RATIO times
RATIO = 100
ROWS = "x"  # the array of rows in a file of several arrays, unless a key names another


class Stored(NamedTuple):
    """The arrays of a file, as they are stored.

    Attributes:
      x: rows of numbers.
      target: their targets; None without.
      lengths: their lengths; None without.
      others: names of arrays that are not used.
    """

    x: np.ndarray
    target: np.ndarray | None = None
    lengths: np.ndarray | None = None
    others: tuple[str, ...] = ()


def read_npy(
    path: Path, key: str | None = None, target: str | None = None, lengths: str | None = None, *, new_rows: bool = False
) -> Stored:
    """Rows of a `.npy` file; `target` is the number of the column that holds the targets.

    Raises:
      ConfigError: the file is damaged or holds a pickle, or has no such column.
    """
    del key, lengths, new_rows  # of `.npz` files
    x, column = map_npy(path, target)
    return Stored(x) if column is None else Stored(np.delete(x, column, axis=1), np.array(x[:, column]))


def map_npy(path: Path, target: str | None) -> tuple[np.ndarray, int | None]:
    """The array of a `.npy` file, memory-mapped, and the number of the column that holds the targets.

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
        several = "only rows of shape [N, D] have columns; put both into one .npz file: numpy.savez(path, x=x, y=y)"
        raise ConfigError("target", target, remedy if columns else several)
    return x, column


def read_npz(
    path: Path, key: str | None = None, target: str | None = None, lengths: str | None = None, *, new_rows: bool = False
) -> Stored:
    """Arrays of a `.npz` file.

    Args:
      path: the file.
      key: the array of rows; None takes `x`, or the only array that is not named below.
      target: the array of the targets.
      lengths: the array of the lengths of sequences.
      new_rows: the file may lack its targets.

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
            present = list(archive.files)
            target = None if new_rows and target not in present else target
            for setting, name in (("key", key), ("target", target), ("lengths", lengths)):
                if name is not None and name not in present:
                    problem = f"{path.name} has no such array{nearest(name, present)}"
                    raise ConfigError(setting, name, f"{problem}; its arrays are: {', '.join(present)}")
            rows = _rows_of(path, present, key, (target, lengths))
            read = lambda name: None if name is None else archive[name]
            stored = Stored(archive[rows], read(target), read(lengths))
            if not all(isinstance(array, np.ndarray | None) for array in stored[:3]):
                raise ValueError("one of its members is not an array")
    except ConfigError:
        raise
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(error, ".npz") from None
    x, values = stored.x, stored.target
    if values is not None:
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        if values.ndim < 1 or len(values) != len(x) or values.dtype.kind not in "biufUS":
            problem = f"array of shape {values.shape} {values.dtype}; expected one value for each of {len(x)} rows"
            raise ConfigError("target", target, problem)
    used = {rows, target, lengths}
    return stored._replace(target=values, others=tuple(name for name in present if name not in used))


def _rows_of(path: Path, present: list[str], key: str | None, used: tuple[str | None, ...]) -> str:
    """The name of the array of rows, of those that are present."""
    others = [name for name in present if name not in used]
    if key is not None:
        return key
    if ROWS in others:
        return ROWS
    if len(others) != 1:
        problem = f"{path.name} holds several arrays; name one: {', '.join(others) or 'none'}"
        raise ConfigError("key", None, problem)
    return others[0]


def form_of(
    path: Path, key: str | None, target: str | None, lengths: str | None
) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and type of the array of rows of a file, without reading it; None if the file does not say so."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
            return shape, dtype
        with zipfile.ZipFile(path) as archive:
            present = [name.removesuffix(".npy") for name in archive.namelist()]
            with archive.open(f"{_rows_of(path, present, key, (target, lengths))}.npy") as member:
                shape, _, dtype = headers[np.lib.format.read_magic(member)](member)
        return shape, dtype
    except (ConfigError, OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None  # reading the file will say what is wrong


def _unreadable(error: Exception, ending: str) -> ConfigError:
    """Why numpy refused a file; it says that it found Python objects in different words for the two endings."""
    pickled = "bject" in str(error)
    damaged = f"it is not a valid {ending} file or is damaged or cut short ({error})"
    problem = "it holds Python objects" if pickled else damaged
    return ConfigError("", None, f"{problem}; pickles are never loaded: save plain numbers with numpy.save or savez")


READERS = {".npy": read_npy, ".npz": read_npz}
