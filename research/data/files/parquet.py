"""Tables of Parquet files, with the types that they declare. They need the package pyarrow."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data.files.cells import EXACT, INEXACT, MISSING, Column
from research.data.files.table import Form, Table
from research.tree import ConfigError


def read_parquet(path: Path, form: Form, keep: Sequence[str | None] = ()) -> Table:
    """A Parquet file as a table. An index of pandas is left out, unless `keep` names its column.

    Raises:
      ConfigError: with an empty key: pyarrow is missing, or the file is damaged or has no rows.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("", None, "Parquet files need another package: pip install pyarrow") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # unlike read_table, it takes two columns of one name
            content = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError("", None, f"it is not a Parquet file, or is damaged ({error})") from None
    declared = (content.schema.pandas_metadata or {}).get("index_columns", [])
    index = [name for name in declared if isinstance(name, str) and name in content.column_names and name not in keep]
    of_times = any(pyarrow.types.is_temporal(content.schema.field(name).type) for name in index)
    content = content.drop_columns(index)
    if content.num_rows == 0:
        raise ConfigError("", None, f"{path.name} has no rows: there is nothing in it")
    names = content.column_names

    def convert(number: int) -> Column:
        return from_arrow(content.columns[number], form.marks, lambda row: table.place(row, names[number]))

    line = lambda row: f"row {row} (from 0)"
    first = index[0] if index else None
    table = Table(path, names, content.num_rows, convert, line, form, index=first, index_of_times=of_times)
    return table


def from_arrow(content: Any, marks: Sequence[float | str], place: Callable[[int], str]) -> Column:
    """A column of pyarrow.

    Args:
      content: `pyarrow.ChunkedArray`.
      marks: entries of the key `missing`.
      place: where a row stands in the file, for errors.

    Raises:
      ConfigError: an infinite number, or a whole number that float64 cannot hold.
    """
    import pyarrow
    import pyarrow.types as types

    if types.is_dictionary(content.type):
        content = content.cast(content.type.value_type)
    kind, missing = content.type, content.is_null().to_numpy()
    if types.is_timestamp(kind) or types.is_date(kind):
        unit = "ns" if "ns" in str(kind) else "us"
        return Column("time", None, content.cast(pyarrow.timestamp(unit)).to_numpy(), missing)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _numbers(content, [mark for mark in marks if not isinstance(mark, str)], place)
    cells = np.array(["" if cell is None else str(cell).strip() for cell in content.to_pylist()], object)
    texts = {mark.strip(): mark for mark in marks if isinstance(mark, str)}
    seen = frozenset(mark for text, mark in texts.items() if text in cells)
    missing = np.array([cell.lower() in MISSING or cell in texts for cell in cells], bool)
    if missing.all():
        return Column("empty", np.full(len(cells), np.nan), None if types.is_null(kind) else cells, missing, seen)
    return Column("text", None, cells, missing, seen)


def _numbers(content: Any, marks: Sequence[float], place: Callable[[int], str]) -> Column:
    """A column of truth values, whole numbers, floats or decimals."""
    import pyarrow
    import pyarrow.types as types

    kind = content.type
    if types.is_integer(kind) and kind.bit_width == 64:
        stored = content.fill_null(0).to_numpy()
        inexact = (stored > EXACT) | ((stored < -EXACT) if kind == pyarrow.int64() else False)
    numbers = np.array(content.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64)
    single = kind == pyarrow.float32()
    equal = {mark: numbers == (np.float32(mark) if single else mark) for mark in marks}
    seen = frozenset(mark for mark, rows in equal.items() if rows.any())
    missing = np.any([np.isnan(numbers), *equal.values()], axis=0)
    numbers[missing] = np.nan
    if types.is_decimal(kind):
        inexact = np.abs(numbers) > EXACT
    elif not (types.is_integer(kind) and kind.bit_width == 64):
        inexact = np.zeros(len(numbers), bool)
    if inexact.any():
        row = int(np.argmax(inexact))
        raise ConfigError("", None, f"{place(row)}: {content[row].as_py()} {INEXACT}")
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers)))
        raise ConfigError("", None, f"{place(row)}: {numbers[row]}; leave the value out or remove the row")
    if missing.all():
        return Column("empty", numbers, None, missing, seen)
    column_kind = "bool" if types.is_boolean(kind) else "integer" if types.is_integer(kind) else "float"
    return Column(column_kind, numbers, None, missing, seen)
