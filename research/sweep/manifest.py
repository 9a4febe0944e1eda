"""`sweep.json`, the record of what was planned in a sweep folder.

It holds: `base`, the values that all jobs share; `swept`, the keys that differ; `runs`, the hash of every
planned run and of its data; `groups`, mode, width, devices and members of every planned program; `environment`, the
settings of jax; and the table that `report.*` asks for.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import environment
from research.data.files.memory import FOLDER as DATA
from research.data.files.memory import NAME as MEMORY
from research.runs.files import Held, write_atomically
from research.sweep.folder import GROUPS, LAUNCHES, LEASE, SEARCH, runs_in
from research.sweep.job import HASH_DIGITS, BoundJob, Job, readable
from research.sweep.plan import CANONICAL_WIDTHS, JobGroup
from research.tree import ConfigError, flatten

ALWAYS_SWEPT = ("seed", "data.fold")
OWN_FILES = (LEASE, LAUNCHES, GROUPS, SEARCH, "multirun.yaml", "optimization_results.yaml")

# --------------------------------------------------------------------------------------------------- reading sweep.json


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Content of `sweep.json`; None if there is no such file.

    Raises:
      ConfigError: the file is damaged.
    """
    path = folder / "sweep.json"
    try:
        content = json.loads(path.read_bytes())
        if (
            isinstance(content["base"], dict)
            and all(isinstance(key, str) for key in content["swept"])
            and isinstance(content["runs"], dict)
            and all(_is_group(name, group) for name, group in content.setdefault("groups", {}).items())
        ):
            return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError):
        pass
    raise ConfigError("name", folder.name, f"{path} is damaged; restore or remove it")


def _is_group(name: str, group: Any) -> bool:
    """Whether this is what `_with_groups` writes; the name becomes the name of a folder."""
    return (
        re.fullmatch(f"[0-9a-f]{{{HASH_DIGITS}}}", name) is not None
        and group["mode"] in ("map", "vmap")
        and all(type(group[key]) is int and group[key] > 0 for key in ("width", "devices"))
        # Earlier versions trained several members in one program of map mode.
        and (group["width"] in CANONICAL_WIDTHS if group["mode"] == "vmap" else group["width"] <= len(group["members"]))
        and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in group["members"])
    )


def planned_runs(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> record of every planned run; `verify.py` reports records that are not readable, here they are skipped."""
    return {name: run for name, run in manifest["runs"].items() if isinstance(run, dict)}


def check_sweep(folder: Path, jobs: Sequence[Job], also_swept: Collection[str] = ()) -> None:
    """Refuse a folder that holds another sweep: a key that nobody sweeps has another value there.

    Seeds and folds may always be added. `also_swept` are keys that a sweeper varies although these jobs do not show it.

    Raises:
      ConfigError: naming the keys.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        entries = folder.iterdir() if folder.is_dir() else ()
        foreign = [path.name for path in entries if not (_is_own(path.name) or _is_begun(path) or is_data(path))]
        if foreign and not runs_in(folder):
            raise ConfigError("name", folder.name, f"{folder} holds {foreign[0]} and no sweep; choose another name=")
        return
    environment.go_on(manifest.get("environment"))
    if switches := environment.differences(manifest.get("environment")):
        raise ConfigError(
            "name",
            folder.name,
            f"{folder} was begun with other settings of jax: {switches[0]}; or choose another name=",
        )
    then, now = manifest["base"], base(jobs)
    swept = {*ALWAYS_SWEPT, *manifest["swept"], *swept_keys(jobs), *also_swept}
    changed = [
        f"{key}: {then.get(key)} there, {now.get(key)} now"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key) and not _covers(swept, key)
    ]
    if changed:
        shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} others" if len(changed) > 3 else "")
        raise ConfigError("name", folder.name, f"{folder} holds another sweep ({shown}); choose another name=")


def _covers(swept: Collection[str], key: str) -> bool:
    """Whether a key, or a section that contains it, is swept."""
    return any(key == name or key.startswith(f"{name}.") for name in swept)


def _is_begun(path: Path) -> bool:
    """Whether this is a run folder that holds at most the files of Hydra: the command was killed while making it."""
    return path.is_dir() and ((path / ".hydra").is_dir() or not any(path.iterdir()))


def is_data(path: Path) -> bool:
    """Whether this is the folder of rows that a call from Python had in memory (`research.data.files.memory`)."""
    return path.name == DATA and path.is_dir() and all(MEMORY.fullmatch(file.name) for file in path.iterdir())


def _is_own(name: str) -> bool:
    """Whether a command writes a file of this name beside its runs, temporary files of a killed command included."""
    return name in OWN_FILES or name.startswith(tuple(f".{file}." for file in (*OWN_FILES, "sweep.json")))


# ------------------------------------------------------------------------------------------------------------ overrides


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Override keys whose values differ between the jobs; if a key is set twice, the last value counts."""
    settings = [{key: value for key, _, value in map(_parts, job.overrides)} for job in jobs]
    keys = list(dict.fromkeys(key for overrides in settings for key in overrides))
    return [key for key in keys if len({overrides.get(key) for overrides in settings}) > 1]


def named(jobs: Sequence[Job], folder: Path, also_swept: Collection[str] = ()) -> list[Job]:
    """The jobs of a command with the names of their run folders.

    A run that the sweep has, as a folder or as a plan in `sweep.json`, keeps its name. Other runs of a sweep of several
    jobs are named by the keys that are swept, in the order of the command; a single run is named by all its overrides.

    Args:
      jobs: of the command, or one job of it.
      folder: of the sweep.
      also_swept: keys that the command varies although these jobs do not show it.
    """
    swept = {*swept_keys(jobs), *also_swept}
    names = {run.get("config_hash"): name for name, run in planned_runs(read_manifest(folder) or {"runs": {}}).items()}
    present = runs_in(folder, jobs[0].hash[:HASH_DIGITS] if len(jobs) == 1 else "")
    named_jobs = []
    for job in jobs:
        digits = job.hash[:HASH_DIGITS]
        name = present[digits].name if digits in present else names.get(job.hash, "")
        if not re.fullmatch(rf"[\w.=-]*-{digits}", name, re.ASCII):  # nobody has begun it, or sweep.json was edited
            name = f"{readable(job.overrides, keys=swept)}-{digits}" if swept else ""
        named_jobs.append(dataclasses.replace(job, name=name))
    return named_jobs


def override_keys(job: Job) -> set[str]:
    """Keys that the overrides of a job set."""
    return {_parts(override)[0] for override in job.overrides}


def _parts(override: str) -> tuple[str, str, str]:
    return override.lstrip("+").partition("=")


def base(jobs: Sequence[Job]) -> dict[str, Any]:
    """Dotted key -> value of everything that all jobs share."""
    first, *others = [flatten(job.tree()) for job in jobs]
    return {key: value for key, value in first.items() if all(other.get(key, "absent") == value for other in others)}


# --------------------------------------------------------------------------------------------------- writing sweep.json


def write_manifest(
    folder: Path, bounds: Sequence[BoundJob], name: str, groups: Sequence[JobGroup], lease: Held
) -> None:
    """Record the planned runs and groups in `sweep.json`, together with those of earlier commands."""
    jobs = [bound.job for bound in bounds]
    now = base(jobs)
    empty = {"environment": environment.described(), "base": now, "swept": [], "runs": {}}
    manifest = read_manifest(folder) or {"name": name, **empty}
    shared = {key: value for key, value in manifest["base"].items() if now.get(key, "absent") == value}
    if manifest["runs"]:
        changed = {key for key in {*now, *manifest["base"]} if key not in shared}
    else:  # an override may set keys of other names, as experiment=a,b does
        named = {*swept_keys(jobs), *ALWAYS_SWEPT}
        changed = {key for job in jobs for key in flatten(job.tree()) if key not in now and not _covers(named, key)}
    swept = sorted({*manifest["swept"], *swept_keys(jobs), *changed})
    # A run keeps the name of its folder when it is asked for with other overrides.
    names = {run.get("config_hash"): name for name, run in planned_runs(manifest).items()}
    runs = manifest["runs"] | {
        names.get(bound.job.hash, bound.job.run_id): {
            "overrides": list(bound.job.overrides),
            "config_hash": bound.job.hash,
            "data_sha256": bound.dataset.sha256,
        }
        for bound in bounds
    }
    _write(folder, _with_groups(manifest | {"base": shared, "swept": swept, "runs": runs}, groups), lease)


def _with_groups(manifest: Mapping[str, Any], groups: Sequence[JobGroup]) -> dict[str, Any]:
    """A manifest with these groups; a later command continues them as they were begun."""
    begun = {
        group.id: {
            "mode": group.mode,
            "width": group.width,
            "devices": group.devices,
            "members": [bound.job.hash for bound in group.members],
        }
        for group in groups
    }
    return {**manifest, "groups": manifest.get("groups", {}) | begun}


def replace_group(folder: Path, old: JobGroup, new: Sequence[JobGroup], lease: Held) -> None:
    """Record that a group was begun again as narrower groups."""
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest["groups"].pop(old.id, None)
    _write(folder, _with_groups(manifest, new), lease)


def record_report(folder: Path, report: Mapping[str, Any] | None, lease: Held) -> None:
    """Record the table that a sweep is made for; the table of the last command counts."""
    manifest = read_manifest(folder)
    if report is not None and manifest is not None and manifest.get("report") != report:
        _write(folder, manifest | {"report": report}, lease)


def _write(folder: Path, manifest: Mapping[str, Any], lease: Held) -> None:
    write_atomically(folder / "sweep.json", (json.dumps(manifest, indent=1) + "\n").encode(), lease)
