"""Files of arrays and tables, read without ever loading a pickle; errors name the file and the place in it."""

import csv
import os
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.tree import ConfigError, nearest

LARGEST = 2**30  # bytes that an .npz file may declare, if it is compressed more than RATIO times
RATIO = 100


class Table(NamedTuple):
    """What one file holds: rows of numbers, the targets as stored, and the names of the columns of a table."""

    x: np.ndarray
    target: np.ndarray | None
    columns: tuple[str, ...] | None


def _split_column(x: np.ndarray, name: str | None) -> Table:
    """Take a numbered column out of a matrix without column names."""
    if name is None:
        return Table(x, None, None)
    columns = x.shape[1] if x.ndim == 2 else 0
    try:
        column = int(name)
    except ValueError:
        column = columns
    if not -columns <= column < columns:
        remedy = f"columns have no names here; expected a number from {-columns} to {columns - 1}"
        raise ConfigError("target", name, remedy if columns else "only rows of shape [N, D] have columns")
    return Table(np.delete(x, column, axis=1), np.array(x[:, column]), None)


def _find_column(columns: list[str], name: str | None, file: str) -> int | None:
    if name is not None and name not in columns:
        shown = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
        raise ConfigError("target", name, f"{file} has no such column{nearest(name, columns)}; there are: {shown}")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if name in repeated:
        raise ConfigError("target", name, f"{file} has more than one column of this name")
    return None if name is None else columns.index(name)


def read_npy(path: Path, key: str | None, target: str | None) -> Table:
    """Rows of a `.npy` file."""
    try:
        # Mapping compares the declared shape with the size of the file before any memory is taken.
        x = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        text = "it holds Python objects" if "objects" in str(error) else f"it is no .npy file or is cut short ({error})"
        raise ConfigError("", None, f"{text}; pickles are never loaded: save plain numbers with numpy.save") from None
    return _split_column(x, target)


def read_npz(path: Path, key: str | None, target: str | None) -> Table:
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
    return Table(x, column, None)


def read_csv(path: Path, key: str | None, target: str | None) -> Table:
    """Rows of a comma-separated table; the first line is a header if it holds anything but numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
    except UnicodeDecodeError as error:
        raise ConfigError("", None, f"it is not UTF-8 text ({error.reason} at byte {error.start})") from None
    first = [cell.strip() for cell in first]
    if not any(first):
        raise ConfigError("", None, "its first line is empty")
    header = not all(_is_number(cell) or not cell for cell in first)
    if header:
        if not all(first):
            place = first.index("")
            remedy = "if it counts the rows, write the table without it (pandas: index=False)"
            raise ConfigError("", None, f"{path.name}, line 1: column {place} (from 0) has no name; {remedy}")
        column = _find_column(first, target, path.name)
    else:
        column = None
        if target is not None:
            _split_column(np.empty((0, len(first))), target)
            column = int(target) % len(first)
    features = [index for index in range(len(first)) if index != column]
    if not features:
        raise ConfigError("target", target, f"{path.name} has no other column")
    options = {
        "delimiter": ",",
        "quotechar": '"',
        "skiprows": int(header),
        "comments": None,
        "ndmin": 2,
        "encoding": "utf-8-sig",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a table without rows is refused later
            x = np.loadtxt(path, dtype=np.float64, usecols=features, **options)
            labels = (
                None
                if column is None
                else np.char.strip(np.loadtxt(path, dtype=str, usecols=[column], **options)[:, 0])
            )
    except ValueError as error:
        raise ConfigError("", None, _first_problem(path, first, features, header) or str(error)) from None
    if not np.isfinite(x).all() or (labels is not None and not all(labels)):
        raise ConfigError("", None, _first_problem(path, first, features, header) or "it holds missing values")
    if labels is not None and all(map(_is_number, labels)):
        labels = labels.astype(np.float64)
    return Table(x, labels, tuple(first) if header else None)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _first_problem(path: Path, first: list[str], features: list[int], header: bool) -> str | None:
    """Where a table has its first unusable value: line (from 1, with the header), column, and what is there."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        for number, cells in enumerate(lines):
            if (header and number == 0) or not cells:
                continue
            line = f"{path.name}, line {lines.line_num}"
            if len(cells) != len(first):
                return f"{line}: {len(cells)} values, but {len(first)} in the first line"
            for index, cell in enumerate(cell.strip() for cell in cells):
                column = f"column '{first[index]}'" if header else f"column {index} (from 0)"
                if not cell:
                    return f"{line}, {column}: the value is missing; fill it or remove the row"
                if index not in features:
                    continue
                if not _is_number(cell):
                    hint = (
                        "separate values with commas"
                        if len(first) == 1
                        else "remove the column, or name it: data.target"
                    )
                    return f"{line}, {column}: '{cell[:40]}' is not a number; {hint}"
                if not np.isfinite(float(cell)):
                    return f"{line}, {column}: {cell}; fill it or remove the row"
    return None


def parquet_table(path: Path, keep: str | None = None) -> Any:
    """A Parquet file as a pyarrow table, without the index that pandas stores as a column, unless that is `keep`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("", None, "Parquet files need another package: pip install pyarrow") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError("", None, f"it is no Parquet file or is damaged ({error})") from None
    index = [name for name in (table.schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
    return table.drop_columns([name for name in index if name in table.column_names and name != keep])


def read_parquet(path: Path, key: str | None, target: str | None) -> Table:
    """Rows of a Parquet table."""
    table = parquet_table(path)
    import pyarrow

    column = _find_column(table.column_names, target, path.name)
    values = []
    for name, content in zip(table.column_names, table.columns, strict=True):
        kind = content.type
        if name != target and not (
            pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
        ):
            raise ConfigError(
                "", None, f"{path.name}, column '{name}' holds {kind}; remove the column, or name it: data.target"
            )
        array = content.to_numpy()
        missing = content.is_null().to_numpy() | (np.isnan(array) if array.dtype.kind == "f" else False)
        if missing.any():
            raise ConfigError(
                "", None, f"{path.name}, row {int(np.argmax(missing))} (from 0), column '{name}': the value is missing"
            )
        values.append(array if name != target or array.dtype.kind in "biuf" else array.astype(str))
    labels = None if column is None else values.pop(column)
    if not values:
        raise ConfigError("", None, f"{path.name} has no column of features")
    return Table(np.stack(values, axis=1), labels, tuple(table.column_names))


READERS = {".npy": read_npy, ".npz": read_npz, ".csv": read_csv, ".parquet": read_parquet}
