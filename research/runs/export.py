"""Codes, scores and clusters of a data set as a table: the work of `scripts/encode.py`."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.data.new_rows import class_numbers
from research.data.source import Source
from research.models.abilities import latent_dim_of
from research.runs.clusters import centres_of, nearest_centre
from research.runs.csv_files import csv_text
from research.runs.files import ALONE, write_atomically
from research.runs.folder import RunFolder
from research.runs.run import Run
from research.tree import ConfigError

STARTS = 20  # of a k-means


def encode_rows(
    run: Run, stored: Examples, numbers: np.ndarray, centres: np.ndarray | None = None, names: Any = None
) -> dict[str, np.ndarray]:
    """Codes, scores and clusters of rows as stored.

    Args:
      run: from `load`.
      stored: the rows, with labels as numbers in the run's order of classes.
      numbers: row numbers in the data set, [N]; random draws in the score depend on them.
      centres: centres of the clusters that the rows are assigned to, [K, L]; None leaves the clusters out.
      names: classes as stored, [N], for the table; None leaves the labels out.

    Returns:
      Columns of equal length: `row`, `z0` ... `z<L-1>`, `score` (the loss as at evaluation), `cluster` (0 to K - 1) and
      `label`.
    """
    columns: dict[str, np.ndarray] = {"row": numbers}
    codes = run.encode(stored)
    columns |= {f"z{index}": codes[:, index] for index in range(codes.shape[1])}
    columns["score"] = run.score(stored, numbers=numbers)
    if centres is not None:
        columns["cluster"] = nearest_centre(codes, centres)
    if names is not None:
        columns["label"] = np.asarray(names)
    return columns


def rows_for(run: Run, source: Source) -> tuple[Examples, np.ndarray | None]:
    """Rows of a data set with the run's numbers of the classes, and the classes as stored, [N], or None.

    Raises:
      ConfigError: the run does not know a class.
    """
    examples = source.examples
    if examples.label is None:
        return examples, None
    label = np.asarray(examples.label)
    names = label if source.classes is None else np.asarray(source.classes)[label]
    preparation = run.preparation
    if not preparation.class_count:
        return dataclasses.replace(examples, label=None), names
    if source.classes is None or preparation.keeps_names:
        return dataclasses.replace(examples, label=class_numbers(preparation, names)), names
    if len(source.classes) != preparation.class_count:
        remedy = f"this run of an older version kept no names of its {preparation.class_count} classes"
        raise ConfigError("label", ", ".join(source.classes[:12]), f"{remedy}; give a file with all of them")
    return examples, names


def cluster_centres(run: Run, clusters: int, training: Callable[[], tuple[Examples, np.ndarray]]) -> np.ndarray:
    """Centres of K clusters: those of the run's evaluation, or else of a k-means on the codes of its training rows.

    Args:
      run: from `load`.
      clusters: K.
      training: reads the stored training rows of the run, and their numbers.
    """
    centres = RunFolder(run.folder).load_clusters()
    if centres is not None and len(centres) == clusters:
        latent_dim = latent_dim_of(run.model) or centres.shape[1]
        if centres.shape[1] != latent_dim:
            problem = f"its clusters.safetensors has centres of {centres.shape[1]} numbers, the codes have {latent_dim}"
            raise ConfigError("folder", run.folder, f"{problem}; remove it")
        return centres
    rows, _ = training()
    return centres_of(run.encode(rows), clusters, STARTS, seed=0)[0]


def write_table(path: Path | str, columns: dict[str, np.ndarray]) -> None:
    """Write columns of equal length as `.csv` or `.parquet`; the file appears when it is complete.

    Raises:
      ConfigError: the name has another ending, or pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix == ".csv":
        rows = zip(*(values.tolist() for values in _short(columns).values()), strict=True)
        write_atomically(path, csv_text([columns, *rows]).encode(), ALONE)
    elif path.suffix == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError:
            remedy = "Parquet needs pyarrow (pip install pyarrow); or name a .csv file"
            raise ConfigError("output", path, remedy) from None
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), sink)
        write_atomically(path, sink.getvalue(), ALONE)
    else:
        raise ConfigError("output", path, "the table's name must end in .csv or .parquet")


def _short(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """The columns, float32 as the shortest decimal text that reads back as the same float32."""
    return {name: values.astype(str) if values.dtype == np.float32 else values for name, values in columns.items()}
