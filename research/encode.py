"""The command `scripts/encode.py`: codes, scores and clusters of new rows from a finished run."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from research.compose import CONF, compose, parse, refusals, refuse
from research.tree import ConfigError, nearest


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
    options.add_argument("--output", default="codes.csv", metavar="FILE", help=".csv or .parquet (default: codes.csv)")
    options.add_argument(
        "--part", default="all", choices=("all", "train", "validation", "test"), help="rows (default: all)"
    )
    options.add_argument(
        "--clusters", type=int, metavar="K", help="also assign each row to one of the K clusters of the run"
    )
    options.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package that the model of the run comes from"
    )
    return options


def main() -> None:
    """Entry point of `scripts/encode.py`."""
    arguments = parser().parse_intermixed_args()
    for override in arguments.overrides:
        if not override.lstrip("+").startswith(("data=", "data.")):
            refuse(f"{override}: only data=... and data.key=... say which rows to encode")
    with refusals():
        from research.runs.export import cluster_centres, encode_rows, write_table
        from research.runs.load import load

        run = load(arguments.run, arguments.trust)
        trained = {**shipped_keys(run.config["data"]["_target_"]), **run.config["data"], "root": None}
        keys = data_keys(trained, arguments.overrides)
        rows, numbers, classes = rows_to_encode(run, trained, keys, arguments)
        centres = None
        if arguments.clusters is not None:
            centres = cluster_centres(run, arguments.clusters, lambda: training_rows(run, trained, keys["root"]))
        columns = encode_rows(run, rows, numbers, centres, classes)
        write_table(arguments.output, columns)
    sys.stderr.write(f"wrote {len(columns['row'])} rows of {', '.join(columns)} to {arguments.output}\n")


def rows_to_encode(
    run: Any, trained: Mapping[str, Any], keys: Mapping[str, Any], arguments: argparse.Namespace
) -> tuple[Any, Any, Any]:
    """The rows of the asked part as stored, their numbers, and their classes as stored.

    Args:
      run: the loaded run.
      trained: data keys of its training, without `root`.
      keys: data keys of this command.
      arguments: of the command line.
    """
    import numpy as np

    from research.data.loading import load as load_data
    from research.runs.export import rows_for
    from research.tree import build

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
                raise ConfigError(override.key_or_group, override.value(), f"no such key{nearest(key, list(tree))}")
            tree[key] = override.value()
    missing = [key for key, value in tree.items() if isinstance(value, str) and value == "???"]
    if missing:
        raise ConfigError(f"data.{missing[0]}", "???", f"name it: data.{missing[0]}=...")
    return tree


def training_rows(run: Any, trained: Mapping[str, Any], root: str | None) -> tuple[Any, Any]:
    """Read the training rows of a run again; returns them as stored, and their numbers.

    Raises:
      ConfigError: the rows cannot be read, or they are not those of the training.
    """
    from research.data.loading import load as load_data
    from research.runs.export import rows_for
    from research.tree import build

    recipe = build({**trained, "root": root}, key="data")
    try:
        dataset = load_data(recipe)
        if run.result.get("data_sha256", dataset.sha256) != dataset.sha256:
            raise ConfigError("data", dataset.name, "the data are no longer those of the training")
        numbers = dataset.split(recipe.fold).rows("train")
        return rows_for(run, recipe.stored())[0].take(numbers), numbers
    except ConfigError as error:
        remedy = "clusters are found on the training rows of the run, and these cannot be read"
        raise ConfigError("--clusters", error.value, f"{remedy} ({error.key}: {error.remedy})") from None
