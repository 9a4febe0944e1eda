"""Reading files: what a file holds, before anything decides what it is used for."""

from collections.abc import Sequence
from pathlib import Path

from research.data.files.parquet import read_parquet
from research.data.files.table import PLAIN, Form, Table
from research.data.files.text import read_text


def read_table(path: Path, form: Form = PLAIN, keep: Sequence[str | None] = ()) -> Table:
    """A `.csv`, `.tsv` or `.parquet` file as named columns.

    Args:
      path: the file.
      form: how its text is written.
      keep: names of columns that are wanted although pandas stored its index in them.

    Raises:
      ConfigError: with an empty key where the file itself is to blame.
    """
    return read_parquet(path, form, keep) if path.suffix.lower() == ".parquet" else read_text(path, form)
