"""What is written of a run beside its numbers: `config.json` and the frame of `result.json`."""

import dataclasses
import functools
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research import environment
from research.runs.events import unify
from research.runs.folder import RunFolder
from research.sweep.job import Bound, Job
from research.sweep.manifest import keys_of, swept_keys
from research.sweep.plan import Group
from research.sweep.program import device_kind
from research.tree import config_hash, flatten, plain

WIDTHS = ("hidden_dim", "hidden_dims")  # of a model


def identity(bound: Bound, run: RunFolder) -> dict[str, Any]:
    """The part of `result.json` that is known before training."""
    job = bound.job
    return {
        "run_id": run.path.name,
        "overrides": list(job.overrides),
        "command": command(job),
        "config_hash": job.hash,
        "data_sha256": bound.dataset.sha256,
        "evaluation": plain(job.evaluation),
        # as chosen by model.parameters, where that is set
        "sizes": {name: value for name, value in plain(bound.model).items() if name in WIDTHS},
        "lineage": lineage(job),
    }


def group_identity(group: Group) -> dict[str, Any]:
    """Whose state the checkpoint of a unit is."""
    return {
        "members": [bound.job.hash for bound in group.bounds],
        "mode": group.mode,
        "width": group.width,
        "devices": group.devices,
        "device_kind": device_kind(),
        "data_sha256": group.bounds[0].dataset.sha256,
        **environment.described(),
    }


def command(job: Job) -> str:
    """What reproduces this run alone."""
    overrides = [override for override in job.overrides if override.partition("=")[0] not in ("name", "hydra.mode")]
    return shlex.join(["python", "scripts/train.py", *overrides])


def config_content(bound: Bound, name: str) -> dict[str, Any]:
    """What `config.json` holds: the hashed tree, and what is needed to use the run without its data."""
    job = bound.job
    tree = job.tree()
    assert config_hash(tree) == job.hash
    return {
        "config": tree,
        "config_hash": job.hash,
        "name": name,
        "choices": dict(job.choices),
        "trusted_packages": list(job.trusted),
        "facts": {**dataclasses.asdict(bound.dataset.facts), "name": bound.dataset.name},
        "preparation": bound.dataset.preparation.record(),
    }


def lineage(job: Job) -> dict[str, Any] | None:
    """Where a warm-started run comes from."""
    if job.trainer.warm_start is None:
        return None
    config = RunFolder(job.trainer.warm_start).read_config()
    return {"run": Path(job.trainer.warm_start).name, "config_hash": config["config_hash"]}


def unfinished(content: Mapping[str, Any], status: str, reason: str) -> dict[str, Any]:
    """The result of a run that has none."""
    nothing = {
        "epochs": 0,
        "best_epoch": None,
        "seconds_compile_group": None,
        "seconds_wall_group": None,
        "seconds_device_share": None,
    }
    return {**content, **nothing, "status": status, "reason": reason, "metrics": {}, "null_reasons": {}}


def fail(run: RunFolder, content: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Write the result of a run that raised; returns it."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    result = unfinished(content, "failed", f"{type(error).__name__}: {first_line}")
    run.write_result(result)
    return result


def hyperparameters(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Hash -> swept keys and their values (of a single job: its overrides), for the HParams page."""
    keys = swept_keys(jobs) or sorted(set().union(*map(keys_of, jobs)))
    rows = []
    for job in jobs:
        flat = {**flatten(job.tree()), **job.choices}
        rows.append({key: flat[key] for key in keys if key in flat})
    return {job.hash: row for job, row in zip(jobs, unify(rows), strict=True)}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computes."""
    from importlib.metadata import version

    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


@functools.cache
def commit() -> str | None:
    """The commit of this repository, with `+` for uncommitted changes; None outside of git."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        return subprocess.run(
            # a look takes no lock: where git may not write its index, it would leave one behind
            ["git", "--no-optional-locks", "-C", str(root), *words],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
