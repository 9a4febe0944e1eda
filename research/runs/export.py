"""Codes, scores and cluster assignments of a data set as a table."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

from research.data.examples import Dataset
from research.runs.clusters import kmeans
from research.runs.folder import write_atomically
from research.runs.load import Run
from research.tree import ConfigError

Part = Literal["all", "train", "validation", "test"]
STARTS = 20  # of the k-means


def encode_rows(
    run: Run, dataset: Dataset, part: Part = "all", clusters: int | None = None, fold: int | None = None
) -> dict[str, np.ndarray]:
    """Encode the rows of a data set with a finished run.

    The raw rows are scaled as in the run's training, never by the new data's own scaling.

    Args:
      run: from `load`.
      dataset: any data of the run's feature shape; its split says which rows are a part.
      part: which rows.
      fold: whose parts they are, of data with folds.
      clusters: K of a k-means (20 starts, seed 0) on the codes of these rows; None leaves it out.

    Returns:
      Columns of equal length: `row` (number in the data set), `z0` ... `z<L-1>`, `score` (loss as at evaluation),
      `cluster` (0 to K - 1), `label`; those that do not apply are absent.
    """
    if part not in ("all", "train", "validation", "test"):
        raise ConfigError("part", part, "expected one of all, train, validation, test")
    rows = np.arange(len(dataset.examples)) if part == "all" else dataset.split(fold).rows(part)
    examples = dataset.examples.take(rows)
    columns: dict[str, np.ndarray] = {"row": rows}
    codes = run.encode(examples)
    columns |= {f"z{index}": codes[:, index] for index in range(codes.shape[1])}
    if hasattr(run.model, "evaluate"):
        columns["score"] = run.score(examples)
    if clusters is not None:
        columns["cluster"] = kmeans(codes, clusters, STARTS, seed=0)
    if examples.label is not None:
        columns["label"] = np.asarray(examples.label)
    return columns


def write_table(path: Path | str, columns: dict[str, np.ndarray]) -> None:
    """Write columns of equal length as `.csv` or `.parquet`, all at once.

    Raises:
      ConfigError: another ending, or Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in _short(columns).values()), strict=True))
        write_atomically(path, text.getvalue().encode())
    elif path.suffix == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError:
            raise ConfigError(
                "output", path, "Parquet needs pyarrow (pip install pyarrow); or name a .csv file"
            ) from None
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), sink)
        write_atomically(path, sink.getvalue())
    else:
        raise ConfigError("output", path, "the table's name must end in .csv or .parquet")


def _short(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Float32 columns as the shortest decimal text that gives back the same float32."""
    return {name: values.astype(str) if values.dtype == np.float32 else values for name, values in columns.items()}
