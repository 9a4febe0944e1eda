"""Jobs made again from their run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.runs.folder import RunFolder
from research.sweep.job import NOT_HASHED, BoundJob, Job, bind
from research.tree import ConfigError, config_hash, hints, resolve_target

CONF = Path(__file__).parents[3] / "conf"


def rebuilt(path: Path, root: str | None, trusted: Sequence[str], evaluation: Any = None) -> BoundJob:
    """The job of a run folder with its data.

    Args:
      path: the run folder.
      root: where the data lie; None means where the run's own command found them.
      trusted: packages whose classes may be named; they are never taken from the folder.
      evaluation: replaces that of the run.

    Raises:
      ConfigError: the configuration or the data have changed since the run was trained.
    """
    run = RunFolder(path)
    config, result = run.read_config(), run.read_result() or {}
    tree: Any = config.get("config")
    sections = ("model", "optimizer", "trainer", "data")
    complete = isinstance(tree, dict) and all(isinstance(tree.get(name), dict) for name in sections)
    if not complete or not isinstance(tree.get("seed"), int) or config_hash(tree) != config.get("config_hash"):
        raise ConfigError("folder", path, "its config.json does not give the hash that it states; it was changed")
    overrides = result.get("overrides", [])
    overrides = [line for line in overrides if isinstance(line, str)] if isinstance(overrides, list) else []
    if root is None:
        roots = [line.partition("=")[2].strip("'\"") for line in overrides if line.startswith("data.root=")]
        root = roots[-1] if roots and roots[-1] != "null" else None
    elif root == "null":
        root = None
    fields = hints(resolve_target(tree["data"].get("_target_"), trusted))
    for section, names in NOT_HASHED.items():
        tree = tree | {section: tree[section] | {name: root for name in names if name in fields}}
    evaluation = evaluation or result.get("evaluation") or shipped("evaluation", "none")
    beside = {"evaluation": evaluation, "trusted_packages": list(trusted)}
    job = Job.from_config({**tree, **beside}, config.get("choices", {}), overrides)
    if job.hash != config["config_hash"]:
        remedy = "its config.json is not as this version writes it; use the version that wrote it"
        raise ConfigError("folder", path, remedy)
    bound = bind(job)
    if result and result.get("data_sha256") != bound.dataset.sha256:
        raise ConfigError("data", bound.dataset.name, f"the data are not those of the run {path.name}")
    return bound


def shipped(*names: str) -> dict[str, Any]:
    """Content of a shipped config together with those that its `defaults` name: `shipped("evaluation", "none")`."""
    import yaml

    content = yaml.safe_load((CONF / Path(*names)).with_suffix(".yaml").read_text(encoding="utf-8"))
    for name in content.pop("defaults", []):
        if isinstance(name, str) and name != "_self_":
            content = shipped(*names[:-1], name) | content
    return content
