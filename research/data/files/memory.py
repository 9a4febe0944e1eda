"""Rows in memory as a file: `research.train(x, ...)` writes it into the sweep folder, and `data=memory` reads it.

A file is named by the hash of its content, so that the same call finds the same runs, and other rows are other data.
"""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.new_rows import is_table
from research.tree import ConfigError

FOLDER = "data"  # in the sweep folder
DIGITS = 12  # of the hash in a file name
NAME = re.compile(r"\.?[0-9a-f]{12}\.(npz|csv)(\..*)?")  # also temporary files of a killed command


class Rows(NamedTuple):
    """Rows as a file.

    Attributes:
      name: of the file.
      content: of the file.
      keys: what `data=memory` must know to read it: key below `data` -> value.
      shown: argument -> what it was, in a few words, for errors.
    """

    name: str
    content: bytes
    keys: Mapping[str, str | bool]
    shown: Mapping[str, str]

    def blame(self, error: ConfigError) -> ConfigError:
        """An error about the file as one about the argument that the user gave."""
        arguments = {"path": "x", "key": "x", "root": "x", "target": "y", "lengths": "lengths"}
        section, _, key = error.key.partition(".")
        argument, template = arguments.get(key, ""), error.template.replace(self.name, "x")
        if section != "data" or argument not in self.shown:
            return error if template == error.template else ConfigError(error.key, error.value, template)
        return ConfigError(argument, self.shown[argument], template.replace("{key}", error.key))


def rows_of(x: Any, y: Any = None, lengths: Any = None) -> Rows:
    """Rows that a user has in memory, as a file.

    Args:
      x: an array [N, ...], a masked array (masked values are missing, NaN), a list of arrays of equal or unequal
        length, or a pandas table, whose columns keep their names.
      y: class or value of each row, [N]; of a table also the name of one of its columns.
      lengths: number of steps of each sequence, [N], for sequences that are padded.

    Raises:
      ConfigError: these are no rows. What the rows hold is checked where the file is read.
    """
    if is_table(x):
        if lengths is not None:
            raise ConfigError("lengths", described(lengths), "the rows of a table have no lengths; leave it out")
        return _table(x, y)
    x, of_list = _array("x", x)
    if of_list is not None and lengths is not None:
        raise ConfigError("lengths", described(lengths), "the sequences of a list have their own; leave it out")
    lengths = of_list if lengths is None else lengths
    if of_list is not None and x.ndim == 2:
        x = x[..., None]  # sequences of one channel
    if isinstance(y, str):
        raise ConfigError(
            "y", y, "only the columns of a pandas table have names; give an array of a value for each row"
        )
    arrays: dict[str, np.ndarray] = {"x": x}
    keys: dict[str, str | bool] = {"key": "x"}
    for name, key, values in (("y", "target", y), ("lengths", "lengths", lengths)):
        if values is not None:
            arrays[name], unequal = _array(name, values)
            keys[key] = name
            if unequal is not None and not (name == "y" and np.array_equal(unequal, lengths)):
                problem = "its entries have unequal lengths, which are not those of the sequences of x"
                raise ConfigError(name, f"list of {len(unequal)}", problem)
            if arrays[name].ndim == 0 or len(arrays[name]) != len(x):
                problem = f"expected one for each of the {len(x)} rows of x"
                raise ConfigError(name, described(arrays[name]), problem)
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    shown = {name: described(array) for name, array in arrays.items()}
    return Rows(f"{digest.hexdigest()[:DIGITS]}.npz", file.getvalue(), keys, shown)


def described(value: Any) -> str:
    """Type and shape of an array in a few words."""
    array = value if isinstance(value, np.ndarray) else np.asarray(value, None if np.ndim(value) else object)
    return f"{array.dtype} [{', '.join(map(str, array.shape))}]"


# -------------------------------------------------------------------------------------------------------------- arrays


def _array(name: str, values: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Values as an array without Python objects; of a list of unequal arrays padded, with their lengths."""
    if isinstance(values, np.ma.MaskedArray):
        if values.dtype.kind not in "biufc":
            raise ConfigError(name, described(values), "only numbers can be masked; fill the masked values first")
        floats = values.astype(np.float64) if values.dtype.kind in "biu" else values
        return np.asarray(np.ma.filled(floats, np.nan)), None
    if isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.dtype == object):
        return _stacked(name, list(values))
    column: Any = values
    if hasattr(column, "to_numpy"):  # of pandas
        column = column.to_numpy()
        if column.dtype == object:
            return _stacked(name, list(column))
    try:
        array = np.asarray(column)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor of torch that requires a gradient
        raise ConfigError(name, type(values).__name__, f"it cannot become an array of NumPy: {error}") from None
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind in "OV":
        problem = (
            "it holds Python objects; expected numbers" if array.dtype == object else "expected an array of numbers"
        )
        raise ConfigError(name, described(array), problem)
    if array.ndim == 0:
        raise ConfigError(name, array.item(), "expected an array with one entry for each row")
    return np.ascontiguousarray(array), None


def _stacked(name: str, parts: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """The parts of a list as one array; parts of unequal length are padded with zeros at their end."""
    if all(isinstance(part, str) for part in parts):
        return np.array(parts, dtype=str), None
    arrays = [_array(name, part)[0] if np.ndim(part) else np.asarray(part) for part in parts]
    if any(array.dtype.kind in "OUSV" for array in arrays):
        raise ConfigError(name, f"list of {len(arrays)}", "its entries are not all numbers, or not all text")
    shapes = {array.shape for array in arrays}
    if len(shapes) <= 1:
        return np.stack(arrays) if arrays else np.zeros(0), None
    if len({shape[1:] for shape in shapes}) > 1 or () in shapes:
        some = ", ".join(str(list(shape)) for shape in sorted(shapes)[:3])
        raise ConfigError(
            name, f"list of {len(arrays)}", f"arrays of shapes {some}; they may differ in the first axis only"
        )
    lengths = np.array([len(array) for array in arrays])
    padded = np.zeros((len(arrays), lengths.max(), *arrays[0].shape[1:]), np.result_type(*arrays))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


# -------------------------------------------------------------------------------------------------------------- tables


def _table(x: Any, y: Any) -> Rows:
    """A pandas table as a CSV file in UTF-8; numbers are written so that reading gives the same bits."""
    if not hasattr(x, "set_axis"):  # of polars
        x = x.to_pandas()
    x = x.set_axis([str(name) for name in x.columns], axis=1)
    target = None
    if isinstance(y, str):
        target = y
    elif y is not None:
        target = "y"
        if target in x.columns:
            raise ConfigError("y", described(y), "x has a column of this name too; name that one, or rename it")
        if hasattr(y, "index") and not isinstance(y, list | tuple) and not y.index.equals(x.index):
            raise ConfigError("y", described(y), "its index is not that of x; give y.reindex(x.index), or y.to_numpy()")
        values, _ = _array("y", y)
        if values.shape != (len(x),):
            raise ConfigError("y", described(values), f"expected one value for each of the {len(x)} rows of x")
        x = x.assign(**{target: values})
    content = x.to_csv(index=False, na_rep="NA", lineterminator="\n").encode()
    keys: dict[str, str | bool] = {"header": True}
    if target is not None:
        keys["target"] = target
    shown = {"x": f"table [{len(x)}, {x.shape[1]}]"} | ({} if y is None else {"y": str(target)})
    return Rows(f"{hashlib.sha256(content).hexdigest()[:DIGITS]}.csv", content, keys, shown)
