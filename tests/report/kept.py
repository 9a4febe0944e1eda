"""Sweep folders whose runs have parameters: fresh ones, as no test needs trained ones here."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from configs import shipped

from research import tree
from research.data.loading import load
from research.inputs import INIT, purpose_key
from research.runs.files import ALONE
from research.runs.folder import RunFolder

SHORT: dict[str, Any] = {"train_size": 60, "test_size": 40}
SCALING = ("shift", "scale", "target_shift", "target_scale")


def write_runs(
    folder: Path, model: tuple[str, dict[str, Any]], data: tuple[str, dict[str, Any]], runs: dict[int, dict[str, float]]
) -> Path:
    """Write runs with the parameters from which their seeds start, of `runs` with seed -> metrics."""

    def build(group: str, name: str, **changes: Any) -> Any:
        return tree.build(shipped(group, name) | changes, key=group)

    recipe = build("data", data[0], **data[1])
    dataset = load(recipe)
    split = dataset.split(None)
    for seed, metrics in runs.items():
        spec = build("model", model[0], **model[1])
        train = split.prepare(dataset.examples.take(split.rows("train")))
        params = spec.bind(dataset.facts).init(purpose_key(seed, INIT), train)
        config = {"model": tree.plain(spec), "data": tree.plain(recipe), "seed": seed}
        config["data"].pop("root", None)
        digest = tree.config_hash(config)
        run = RunFolder(folder / f"seed={seed}", ALONE)
        facts = dataclasses.asdict(dataset.facts)
        choices = {"model": model[0], "data": data[0]}
        run.write_config(
            json.loads(json.dumps({"config": config, "config_hash": digest, "facts": facts, "choices": choices}))
        )
        run.save_parameters(params, {name: getattr(split, name) for name in SCALING})
        run.write_result(
            {"status": "completed", "config_hash": digest, "metrics": metrics, "data_sha256": dataset.sha256}
            | {"overrides": [f"seed={seed}"], "evaluation": {"cluster_starts": 3}, "files": run.hashes()}
        )
    return folder
