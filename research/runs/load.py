"""Loading a finished run: its model is built from its own files, and files that do not fit together are refused."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import tree
from research.data.examples import Examples, Facts
from research.data.preparation import SCALING, Preparation
from research.inputs import Model
from research.runs.folder import RunFolder
from research.runs.run import Run
from research.tree import ConfigError

DAMAGED = (TypeError, ValueError, KeyError, AttributeError)  # what values of a wrong kind raise


def load(folder: Path | str, trusted_packages: Sequence[str] = ()) -> Run:
    """Load a finished run for use.

    The model is built from the run's `config.json`, whose hash is checked. Only classes of this project and of the
    packages that the caller trusts are made; a list of trusted packages in the folder has no effect. Nothing is
    unpickled.

    >>> run = load("outputs/example/run")
    >>> codes = run.encode(x)  # x: raw rows, as stored
    >>> codes.shape
    (5, 2)
    >>> run.decode(codes).shape == run.reconstruct(x).shape == x.shape
    True
    >>> run.score(x).shape
    (5,)

    Args:
      folder: of one run; it holds `config.json` and `params.safetensors`.
      trusted_packages: packages whose specs and modules may be named besides those of this project.

    Raises:
      ConfigError: there is no run, its files are damaged or were changed after training, its config names a class that
        is not trusted, or it kept no parameters (a diverged run).
    """
    files = RunFolder(folder)
    record, config = _checked_config(files)
    result = files.read_result() or {}
    if result.get("config_hash", record["config_hash"]) != record["config_hash"]:
        raise ConfigError("folder", folder, "its result.json belongs to another run; restore it")
    files.check_seal(files.config)  # its config_hash does not cover the facts and the preparation
    model = tree.build(config["model"], trusted=trusted_packages, key="model")
    model, facts = _bound(files, model, record.get("facts"))
    params, scaling = files.load_parameters()
    preparation = _preparation_of(files, record, facts, config.get("data") or {}, scaling)
    _check_parameters(files, model, params, facts)
    _check_scaling(files, preparation, facts)
    return Run(files.path, model, params, preparation, config, result, facts)


def _checked_config(files: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of `config.json`, and the typed tree in it, which has the recorded hash."""
    record = files.read_config()
    config = record.get("config")
    if not isinstance(config, dict) or "model" not in config:
        raise ConfigError("folder", files.path, "its config.json describes no model; name the folder of one run")
    if tree.config_hash(config) != record.get("config_hash"):
        remedy = "its config.json was changed after training (the hash differs); restore it, or train this config anew"
        raise ConfigError("folder", files.path, remedy)
    return record, config


def _bound(files: RunFolder, model: Any, record: Any) -> tuple[Any, Facts | None]:
    """The model bound to the recorded facts of its data, and the facts; None if the run did not record them."""
    if record is None:
        return model, None
    try:
        fields: dict[str, Any] = {
            field.name: record[field.name] for field in dataclasses.fields(Facts) if field.name in record
        }
        for name in ("feature_shape", "target_shape"):
            fields[name] = None if fields.get(name) is None else tuple(fields[name])
        facts = Facts(**fields)
        return model.bind(facts), facts
    except ConfigError:
        raise
    except DAMAGED as error:
        remedy = f"the facts in its config.json are damaged ({error}); restore it"
        raise ConfigError("folder", files.path, remedy) from None


def _preparation_of(
    files: RunFolder, record: dict[str, Any], facts: Facts | None, data: dict[str, Any], scaling: dict[str, Any]
) -> Preparation:
    """The preparation of rows that `config.json` and the scaling record.

    Raises:
      ConfigError: it is damaged, or the scaling is incomplete.
    """
    recorded = record.get("preparation")
    try:
        if recorded is None:
            recorded = _earlier_preparation(facts, data)
        elif not isinstance(recorded, dict):
            raise TypeError(f"it is {recorded!r:.40}")
        preparation = Preparation.from_record(recorded, scaling)
        _check_names(preparation)
    except DAMAGED as error:
        remedy = f"the preparation of rows in its config.json is damaged ({error}); restore it"
        raise ConfigError("folder", files.path, remedy) from None
    missing = sorted(set(SCALING) - set(scaling))
    if record.get("preparation") is not None and missing:
        remedy = f"params.safetensors has no scaling/{missing[0]}; restore it, or train this config anew"
        raise ConfigError("folder", files.path, remedy)
    return preparation


def _earlier_preparation(facts: Facts | None, data: dict[str, Any]) -> dict[str, Any]:
    """The preparation of a run of an earlier version, which recorded none: what its data keys and facts say of it."""
    recorded = {name: data[name] for name in ("layout", "permutation_seed", "zscore") if data.get(name) is not None}
    recorded |= {"split_seed": data.get("split_seed", 0), "keeps_names": False}
    if facts is not None:
        recorded |= {"kind": facts.kind, "class_count": facts.classes, "masked": True}
        if recorded.get("layout", "image") == "image":
            recorded["stored_shape"] = facts.feature_shape
    return recorded


def _check_names(preparation: Preparation) -> None:
    """Raise ValueError if names of columns or classes cannot be those of the rows."""
    shape, columns, classes = preparation.stored_shape, preparation.columns, preparation.classes
    if shape is not None and not all(isinstance(size, int) for size in shape):
        raise ValueError(f"stored_shape is {shape}")
    if columns is not None and shape and (len(columns) != shape[-1] or len(set(columns)) != len(columns)):
        raise ValueError(f"{len(columns)} columns of rows of shape {shape}")
    if classes is not None and (len(classes) != preparation.class_count or len(set(classes)) != len(classes)):
        raise ValueError(f"{len(classes)} names of {preparation.class_count} classes")


def check_parameters(params: Any, wanted: Any) -> str | None:
    """What is wrong with parameters that should have the names, shapes and types of `wanted`, or None.

    Args:
      params: a tree of arrays.
      wanted: a tree of arrays or of their shapes and types; None checks only that all numbers are finite.
    """
    by_name = lambda tree: {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    present = by_name(params)
    needed = present if wanted is None else by_name(wanted)
    for name in sorted({*present, *needed}):
        has, needs = (
            f"shape {leaf.shape} of {leaf.dtype}" if leaf is not None else "nothing"
            for leaf in (present.get(name), needed.get(name))
        )
        if has != needs:
            return f"its parameter {name} has {has}, this model needs {needs}"
    broken = [name for name, leaf in present.items() if leaf.dtype.kind == "f" and not np.isfinite(leaf).all()]
    return f"its parameter {broken[0]} is not finite" if broken else None


def _check_parameters(files: RunFolder, model: Any, params: Any, facts: Facts | None) -> None:
    """Refuse parameters that no training of this model can have left.

    Raises:
      ConfigError: it names the parameter.
    """
    problem = check_parameters(params, _shapes_of(model, facts))
    if problem is not None:
        remedy = f"{problem}; restore params.safetensors, or train this config anew"
        raise ConfigError("folder", files.path, remedy)


def _shapes_of(model: Any, facts: Facts | None) -> Any:
    """Shapes and types of the parameters of a bound model; None if the facts do not say what rows look like."""
    if facts is None or not isinstance(model, Model):
        return None
    rows = 2
    x = np.zeros((rows, *facts.feature_shape), np.float32)
    target = None
    if facts.target_shape is not None:
        target = np.zeros((rows, *facts.target_shape), np.int32 if facts.target_classes else np.float32)
    label = np.zeros(rows, np.int32) if facts.classes else None
    return jax.eval_shape(model.init, jax.random.key(0), Examples(x=x, target=target, label=label))


def _check_scaling(files: RunFolder, preparation: Preparation, facts: Facts | None) -> None:
    """Refuse a scaling that is not finite, not positive, or not of the shape of the rows.

    Raises:
      ConfigError: it names the array.
    """
    for name, value in preparation.scaling().items():
        if not np.isfinite(value).all() or (name.endswith("scale") and (value <= 0).any()):
            raise ConfigError("folder", files.path, f"its scaling/{name} is damaged; restore params.safetensors")
        of_target = name.startswith("target")
        if facts is None or (of_target and facts.target_classes):
            continue
        shape = facts.target_shape if of_target else facts.feature_shape
        if shape is not None and value.ndim and value.shape != tuple(shape)[len(shape) - value.ndim :]:
            problem = f"its scaling/{name} has shape {value.shape}, and the rows have {tuple(shape)}"
            raise ConfigError("folder", files.path, f"{problem}; restore params.safetensors")
