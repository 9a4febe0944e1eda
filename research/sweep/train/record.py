"""Records of a run besides its metrics: `config.json`, and the fields of `result.json` known before training."""

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
from research.sweep.device import device_kind
from research.sweep.job import BoundJob, Job
from research.sweep.plan import JobGroup
from research.sweep.resume.manifest import override_keys, swept_keys
from research.sweep.warm_start import lineage
from research.tree import config_hash, flatten, plain

WIDTHS = ("hidden_dim", "hidden_dims")  # keys of a model that `model.parameters` may choose


def identity(bound: BoundJob, run: RunFolder) -> dict[str, Any]:
    """The fields of `result.json` that depend on the job alone."""
    job = bound.job
    return {
        "run_id": run.path.name,
        "overrides": list(job.overrides),
        "command": command(job),
        "config_hash": job.hash,
        "data_sha256": bound.dataset.sha256,
        "evaluation": plain(job.evaluation),
        "sizes": {name: value for name, value in plain(bound.model).items() if name in WIDTHS},
        "lineage": lineage(job),
    }


def group_identity(group: JobGroup) -> dict[str, Any]:
    """The identity of a unit's checkpoint: a checkpoint of another identity is not used."""
    return {
        "members": [bound.job.hash for bound in group.members],
        "mode": group.mode,
        "width": group.width,
        "devices": group.devices,
        "device_kind": device_kind(),
        "data_sha256": group.members[0].dataset.sha256,
        **environment.described(),
    }


def command(job: Job) -> str:
    """The command that trains this run alone."""
    overrides = [override for override in job.overrides if override.partition("=")[0] not in ("name", "hydra.mode")]
    return shlex.join(["python", "scripts/train.py", *overrides])


def config_content(bound: BoundJob, name: str) -> dict[str, Any]:
    """Content of `config.json`: the hashed config, and what is needed to use the run without its data."""
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


def unfinished(content: Mapping[str, Any], status: str, reason: str) -> dict[str, Any]:
    """The result of a run whose training did not end."""
    empty = {
        "epochs": 0,
        "best_epoch": None,
        "seconds_compile_group": None,
        "seconds_wall_group": None,
        "seconds_device_share": None,
    }
    return {**content, **empty, "status": status, "reason": reason, "metrics": {}, "null_reasons": {}}


def fail(run: RunFolder, content: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Write the result of a run that raised an exception, and return it."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    result = unfinished(content, "failed", f"{type(error).__name__}: {first_line}")
    run.write_result(result)
    return result


def hyperparameters(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Hash -> swept keys and their values (of a single job: its overrides), for the HParams page of TensorBoard."""
    keys = swept_keys(jobs) or sorted(set().union(*map(override_keys, jobs)))
    rows = []
    for job in jobs:
        flat = {**flatten(job.tree()), **job.choices}
        rows.append({key: flat[key] for key in keys if key in flat})
    return {job.hash: row for job, row in zip(jobs, unify(rows), strict=True)}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    from importlib.metadata import version

    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


@functools.cache
def commit() -> str | None:
    """The commit of this repository, with `+` if there are uncommitted changes; None outside of git."""
    root = Path(__file__).parents[3]

    def git(*words: str) -> str:
        return subprocess.run(
            # Git must not try to lock its index: in a folder that it cannot write, it would leave the lock behind.
            ["git", "--no-optional-locks", "-C", str(root), *words],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
