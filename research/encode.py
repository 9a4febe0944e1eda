"""The command `scripts/encode.py`: codes, scores and clusters of new rows from a finished run, or its encoder."""

import argparse
import dataclasses
import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import OmegaConf

from research.compose import CONF, compose, parse, refusals, refused
from research.data.examples import Examples
from research.data.loading import load as load_data
from research.data.new_rows import class_numbers
from research.data.source import Source
from research.data.tables import FILES
from research.errors import nearest
from research.evaluation.clustering import centres_of, nearest_centre
from research.export import DECODER, ENCODER, FACTS, write_export
from research.models.abilities import Predicts, able, latent_dim_of
from research.runs.csv_files import csv_text
from research.runs.files import ALONE, write_atomically
from research.runs.folder import RunFolder
from research.runs.load import load
from research.runs.run import Run
from research.tree import ConfigError, build

STARTS = 20  # of a k-means
OUTPUT = "codes.csv"


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    options = argparse.ArgumentParser(
        prog="encode.py",
        description="Write codes, scores and cluster assignments of the rows of a data set as CSV or Parquet.",
        epilog="example: python scripts/encode.py outputs/sweep/RUN data.path=new.csv --clusters 10",
    )
    options.add_argument("run", metavar="RUN_FOLDER", help="folder of a finished run")
    options.add_argument(
        "overrides", nargs="*", metavar="data...", help="data keys that differ from those of the run, as in train.py"
    )
    options.add_argument("--output", default=OUTPUT, metavar="FILE", help=f".csv or .parquet (default: {OUTPUT})")
    options.add_argument(
        "--part", default="all", choices=("all", "train", "validation", "test"), help="rows (default: all)"
    )
    options.add_argument(
        "--clusters", type=int, metavar="K", help="also assign each row to one of the K clusters of the run"
    )
    options.add_argument(
        "--export",
        metavar="FOLDER",
        help="write encoder and decoder as files of jax.export there, which load without this project; no table",
    )
    options.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package that the model of the run comes from"
    )
    return options


def main() -> None:
    """Entry point of `scripts/encode.py`."""
    arguments = parser().parse_intermixed_args()
    with refusals():
        check_overrides(arguments.overrides, "which rows to encode")
        if arguments.export is not None:
            export(arguments)
            return
        run = load(arguments.run, arguments.trust)
        trained = {**shipped_keys(run.config["data"]["_target_"]), **run.config["data"], "root": None}
        keys = data_keys(trained, arguments.overrides)
        rows, numbers, classes = rows_to_encode(run, trained, keys, arguments)
        centres = None
        if arguments.clusters is not None:
            centres = cluster_centres(run, arguments.clusters, trained, keys["root"])
        columns = encode_rows(run, rows, numbers, centres, classes)
        write_table(arguments.output, columns)
    sys.stderr.write(f"wrote {len(columns['row'])} rows of {', '.join(columns)} to {arguments.output}\n")


def export(arguments: argparse.Namespace) -> None:
    """Write encoder and decoder for use without this project.

    Raises:
      ConfigError: an option asks for a table as well, or the run cannot be exported.
    """
    of_table = {"--output": arguments.output != OUTPUT, "--part": arguments.part != "all"}
    of_table |= {"--clusters": arguments.clusters is not None}
    of_table |= dict.fromkeys(arguments.overrides, True)
    if given := [name for name, is_given in of_table.items() if is_given]:
        raise ConfigError(
            "--export", arguments.export, f"it writes functions and no rows; leave out {', '.join(given)}"
        )
    facts = write_export(load(arguments.run, arguments.trust), arguments.export)
    for note in facts["notes"]:
        sys.stderr.write(f"note: {note}\n")
    sys.stderr.write(f"wrote {ENCODER}, {DECODER} and {FACTS} to {arguments.export}\n")


def check_overrides(overrides: Sequence[str], what: str) -> None:
    """Refuse overrides of other keys than those of the data; `what` the data keys say."""
    for override in overrides:
        if not override.lstrip("+").startswith(("data=", "data.")):
            file = "=" not in override and Path(override).suffix.lower() in FILES
            meant = f"; write {shlex.quote(f'data.path={override}')}" if file else ""
            raise refused(override, f"only data=... and data.key=... say {what}{meant}")


def rows_to_encode(
    run: Run, trained: Mapping[str, Any], keys: Mapping[str, Any], arguments: argparse.Namespace
) -> tuple[Examples, np.ndarray, np.ndarray | None]:
    """The rows of the asked part as stored, their numbers, and their classes as stored.

    Args:
      run: the loaded run.
      trained: data keys of its training, without `root`.
      keys: data keys of this command.
      arguments: of the command line.
    """
    is_other_data = {**keys, "root": None} != trained
    recipe = build(keys, key="data", trusted=arguments.trust)
    try:
        source = recipe.stored_for(run.preparation) if is_other_data else recipe.stored()
    except ConfigError as error:
        raise error.under("data") from error.__cause__
    for note in source.notes if is_other_data else ():
        sys.stderr.write(f"note: {note}\n")
    examples, classes = rows_for(run, source)
    if arguments.part == "all":
        numbers = np.arange(len(examples))
    else:
        numbers = load_data(recipe).split(recipe.fold).rows(cast(Any, arguments.part))
    return examples.take(numbers), numbers, None if classes is None else classes[numbers]


def shipped_keys(target: str) -> dict[str, Any]:
    """All keys of a recipe with their shipped values; the config of a run of an older version may lack some."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        content: Any = OmegaConf.load(path)
        if content.get("_target_") == target:
            composed: Any = OmegaConf.to_container(compose([f"data={path.stem}"]).data, resolve=False)
            return composed
    return {}


def data_keys(trained: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The data keys of a run, changed by the overrides.

    `data=NAME` with the recipe of the run changes only the keys that the file NAME.yaml sets itself.
    With another recipe it sets all keys.

    Args:
      trained: data keys of the run.
      overrides: `data=NAME` and `data.key=value`, as for training.

    Raises:
      ConfigError: an unknown key.
    """
    tree = dict(trained)
    parsed = parse(overrides)
    for override in parsed:
        if override.key_or_group == "data":
            composed: Any = OmegaConf.to_container(compose([override.input_line or ""]).data, resolve=False)
            if composed["_target_"] == tree["_target_"]:
                content: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{override.value()}.yaml"))
                varies = "_target_" not in content  # it changes keys of another config of conf/data/
                tree |= {key: value for key, value in content.items() if varies and key != "defaults"}
            else:
                tree = composed
    for override in parsed:
        if override.key_or_group != "data":
            key = override.key_or_group.removeprefix("data.")
            if override.is_sweep_override() or "." in key:
                raise ConfigError(override.key_or_group, override.value(), "expected one value for a key of the data")
            if key not in tree:
                near = nearest(override.key_or_group, [f"data.{name}" for name in tree])
                remedy = f"the data of this run have no such key{near}; known: {', '.join(tree)}"
                raise ConfigError(override.key_or_group, override.value(), remedy)
            tree[key] = override.value()
    missing = [key for key, value in tree.items() if isinstance(value, str) and value == "???"]
    if missing:
        raise ConfigError(f"data.{missing[0]}", "???", f"name it: data.{missing[0]}=...")
    return tree


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


def cluster_centres(run: Run, clusters: int, trained: Mapping[str, Any], root: str | None) -> np.ndarray:
    """Centres of K clusters: those of the run's evaluation, or else of a k-means on the codes of its training rows.

    Args:
      run: the loaded run.
      clusters: K.
      trained: data keys of its training.
      root: the folder of its data.

    Raises:
      ConfigError: the training rows are needed and cannot be read, or they are not those of the training.
    """
    centres = RunFolder(run.folder).load_clusters()
    if centres is not None and len(centres) == clusters:
        latent_dim = latent_dim_of(run.model) or centres.shape[1]
        if centres.shape[1] != latent_dim:
            problem = f"its clusters.safetensors has centres of {centres.shape[1]} numbers, the codes have {latent_dim}"
            raise ConfigError("folder", run.folder, f"{problem}; remove it")
        return centres
    recipe: Any = build({**trained, "root": root}, key="data")
    try:
        dataset = load_data(recipe)
        if run.result.get("data_sha256", dataset.sha256) != dataset.sha256:
            raise ConfigError("data", dataset.name, "the data are no longer those of the training")
        rows = rows_for(run, recipe.stored())[0].take(dataset.split(recipe.fold).rows("train"))
    except ConfigError as error:
        remedy = "clusters are found on the training rows of the run, and these cannot be read"
        raise ConfigError("--clusters", error.value, f"{remedy} ({error.key}: {error.remedy})") from None
    return centres_of(run.encode(rows), clusters, STARTS, seed=0)[0]


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
      Columns of equal length: `row`, `z0` ... `z<L-1>`, predictions (see `predictions`), `score` (the loss as at
      evaluation; it is left out if it compares predictions with a truth that the rows lack), `cluster` (0 to K - 1) and
      `label`.
    """
    columns: dict[str, np.ndarray] = {"row": numbers}
    codes = run.encode(stored)
    columns |= {f"z{index}": codes[:, index] for index in range(codes.shape[1])}
    columns |= predictions(run, stored)
    if run.lacks_truth(stored) is None:
        columns["score"] = run.score(stored, numbers=numbers)
    if centres is not None:
        columns["cluster"] = nearest_centre(codes, centres)
    if names is not None:
        columns["label"] = np.asarray(names)
    return columns


def predictions(run: Run, stored: Examples) -> dict[str, np.ndarray]:
    """What a predictor says of rows: values `y0` ... in the units of the data, or probabilities `p0` ... of classes.

    Other models, and predictors of every step, give no columns.
    """
    if not able(run.model, Predicts) or run.model.stepwise:
        return {}
    outputs, letter = run.predict(stored), "p" if run.model.target_classes else "y"
    return {f"{letter}{index}": outputs[:, index] for index in range(outputs.shape[1])}


def write_table(path: Path | str, columns: dict[str, np.ndarray]) -> None:
    """Write columns of equal length as `.csv` or `.parquet`; the file appears when it is complete.

    Raises:
      ConfigError: the name has another ending, or pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix == ".csv":
        write_atomically(path, as_csv(columns).encode(), ALONE)
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


def as_csv(columns: dict[str, np.ndarray]) -> str:
    """Columns of equal length as the text of a CSV file."""
    # float32 as the shortest decimal text that reads back as the same float32
    short = [values.astype(str) if values.dtype == np.float32 else values for values in columns.values()]
    return csv_text([columns, *zip(*(values.tolist() for values in short), strict=True)])
