"""A run loaded again, with the data that it was trained on."""

import dataclasses
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from research.report.run import Run
from research.tree import ConfigError

Material = tuple[dict[str, Any], Any]  # `train`, `validation` and `test` rows as models see them, and facts of the data


class UnavailableError(Exception):
    """A run cannot be used again now, because data or parameters are missing."""


def load(folder: Path, run: Run) -> Any:
    """A run of a sweep folder with its parameters.

    Raises:
      UnavailableError: the run kept no parameters, or its model is not of this project.
    """
    from research.runs.load import load as load_run

    try:
        return load_run(folder / run.run_id)
    except (ConfigError, OSError) as error:
        raise UnavailableError(str(error)) from None


def dataset_of(folder: Path, run: Run, once: Callable[[Hashable, Callable[[], Material]], Material]) -> Material:
    """The data of a run of a sweep folder, read again by its config from where the run read them.

    `once(key, read)` calls `read` for the first run with this key, and keeps what it returns for others.

    Raises:
      UnavailableError: they are not there, or are not those of the training.
    """
    from research.data.loading import load as load_data
    from research.data.loading import scored
    from research.evaluation.rows import sample
    from research.runs.folder import RunFolder
    from research.tree import build

    def read(recipe: Any) -> Material:
        dataset = load_data(recipe)
        if run.data_sha256 and dataset.sha256 != run.data_sha256:
            raise UnavailableError("the data are no longer those of the training (another sha256)")
        parts = scored(dataset, recipe.fold)
        return {name: sample(part) for name, part in parts.items()}, dataset.facts

    try:
        tree = dict(RunFolder(folder / run.run_id).read_config()["config"]["data"])
        tree["root"] = root_of(folder / run.run_id, run)
        recipe = build(tree, key="data")
        key = run.data_sha256, repr(dataclasses.replace(recipe, fold=None)), recipe.fold
        return once(key, lambda: read(recipe))
    except (ConfigError, OSError, KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"the data of {run.run_id} cannot be read: {error}") from None


def root_of(folder: Path, run: Run) -> str | None:
    """`data.root` of a run, which is no part of the run's config: its override, or what Hydra's record has.

    Tools that copy folders may leave the hidden record behind.
    """
    import yaml

    roots = [text for key, _, text in (override.partition("=") for override in run.overrides) if key == "data.root"]
    if roots:
        return None if roots[-1] == "null" else roots[-1].strip("'\"")
    recorded = folder / ".hydra" / "config.yaml"
    if recorded.is_symlink():
        return None
    try:
        root = yaml.safe_load(recorded.read_text(encoding="utf-8"))["data"].get("root")
    except (yaml.YAMLError, KeyError, AttributeError, TypeError, OSError, ValueError, RecursionError):
        return None
    return root if isinstance(root, str) else None
