"""What a sweep folder holds: its runs, and `sweep.json`, the record of what was planned there."""

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import environment
from research.runs.folder import RunFolder, write_atomically
from research.runs.held import Held
from research.runs.lease import Lease, acquire
from research.sweep.job import HASH_DIGITS, Bound, Job
from research.sweep.plan import CANONICAL_WIDTHS, Group
from research.tree import ConfigError, config_hash, flatten

ALWAYS_SWEPT = ("seed", "data.fold")
GROUPS = ".groups"
LEASE = ".lease.json"
LAUNCHES = ".launch"
OWN_FILES = (LEASE, LAUNCHES, GROUPS, "multirun.yaml", "optimization_results.yaml")


def runs_in(folder: Path, digits: str = "") -> dict[str, Path]:
    """First hash digits -> folder of the runs in a sweep folder; only of the run with these digits, if given."""
    if not folder.is_dir():
        return {}
    runs = [path.parent for path in folder.glob(f"*{digits}/config.json")]
    for path in runs:
        if path.is_symlink():
            raise ConfigError(
                "name", folder.name, f"{path} is a link; runs are written below their sweep alone, remove it"
            )
    return {path.name.rpartition("-")[2]: path for path in runs}


def configurations(folder: Path) -> dict[str, list[Path]]:
    """Runs of a sweep folder that differ in nothing but their seed: short name -> run folders."""
    found: dict[str, list[Path]] = {}
    for path in sorted(runs_in(folder).values()):
        run = RunFolder(path)
        if (run.read_result() or {}).get("status") in ("completed", "stopped"):
            tree = {key: value for key, value in run.read_config()["config"].items() if key != "seed"}
            words = [word for word in path.name.rpartition("-")[0].split("-") if not word.startswith("seed=")]
            found.setdefault(f"{'-'.join(words)}-{config_hash(tree)[:HASH_DIGITS]}", []).append(path)
    return found


def refuse_links(folder: Path) -> None:
    """Refuse links anywhere in a sweep folder: what is written there would land elsewhere.

    Not looked into: states of programs, whose reader has rules of its own, and what executors left of a launch.

    Raises:
      ConfigError: naming the link.
    """
    places = [folder] if folder.is_dir() else []
    while places:
        with os.scandir(places.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    remedy = f"{entry.path} is a link; runs are written below their sweep alone, remove it"
                    raise ConfigError("name", folder.name, remedy)
                if entry.is_dir(follow_symlinks=False) and entry.name not in (GROUPS, LAUNCHES):
                    places.append(Path(entry.path))


_held: dict[Path, Lease] = {}  # by this process


def hold(folder: Path) -> None:
    """Hold a sweep folder for this process until `release`; before anything else is written there.

    Raises:
      ConfigError: another command holds it, or there is a link in it.
    """
    if folder in _held:
        return
    refuse_links(folder)
    _held[folder] = acquire(folder / LEASE, "name", folder.name)


def release() -> None:
    """Let go of all folders of this process; what was made and stayed empty is removed."""
    while _held:
        _, lease = _held.popitem()
        lease.release()


def check_held(folder: Path) -> None:
    """Raise LeaseLost if this process held a folder, and another has taken it over."""
    if folder in _held:
        _held[folder].check()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """Hold a sweep folder for a while, or for longer where this process holds it already."""
    before = folder in _held
    hold(folder)
    try:
        yield _held[folder]
    finally:
        if not before:
            _held.pop(folder).release()


def check_sweep(folder: Path, jobs: Sequence[Job], also_swept: Collection[str] = ()) -> None:
    """Refuse a folder whose earlier runs have other values of keys that neither they nor these jobs sweep.

    Seeds and folds may always be added. `also_swept` are keys that a sweeper varies though these jobs do not show it.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        entries = folder.iterdir() if folder.is_dir() else ()
        foreign = [path.name for path in entries if not _is_own(path.name) and not _is_begun(path)]
        if foreign and not runs_in(folder):
            raise ConfigError("name", folder.name, f"{folder} holds {foreign[0]} and no sweep; choose another name=")
        return
    environment.go_on(manifest.get("environment"))
    if switches := environment.differences(manifest.get("environment")):
        raise ConfigError("name", folder.name, f"{folder} was begun otherwise: {switches[0]}; or choose another name=")
    then, now = manifest["base"], base(jobs)
    swept = {*ALWAYS_SWEPT, *manifest["swept"], *swept_keys(jobs), *also_swept}
    changed = [
        f"{key}: {then.get(key)} there, {now.get(key)} now"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key) and not _covers(swept, key)
    ]
    if changed:
        shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ConfigError("name", folder.name, f"{folder} holds another sweep ({shown}); choose another name=")


def _covers(swept: Collection[str], key: str) -> bool:
    """Whether a key, or a section above it, is among the swept ones."""
    return any(key == name or key.startswith(f"{name}.") for name in swept)


def _is_begun(path: Path) -> bool:
    """Whether a command was killed here while Hydra made the folder of its run: nothing else lies there yet."""
    return path.is_dir() and ((path / ".hydra").is_dir() or not any(path.iterdir()))


def _is_own(name: str) -> bool:
    """Whether a command leaves a file of this name beside its runs, temporary ones of a killed command included."""
    return name in OWN_FILES or name.startswith(tuple(f".{own}." for own in (*OWN_FILES, "sweep.json")))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Content of `sweep.json`, or None."""
    path = folder / "sweep.json"
    try:
        content = json.loads(path.read_bytes())
        if (
            isinstance(content["base"], dict)
            and all(isinstance(key, str) for key in content["swept"])
            and isinstance(content["runs"], dict)
            and all(_is_group(name, about) for name, about in content.setdefault("groups", {}).items())
        ):
            return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError):
        pass
    raise ConfigError("name", folder.name, f"{path} is damaged; restore or remove it")


def described(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> what a manifest says of the run; entries of another kind, which `verify.py` tells, are left out."""
    return {name: about for name, about in manifest["runs"].items() if isinstance(about, dict)}


def _is_group(name: str, about: Any) -> bool:
    """Whether this is what `record` writes of a program; its name becomes a folder's."""
    return (
        re.fullmatch(f"[0-9a-f]{{{HASH_DIGITS}}}", name) is not None
        and about["mode"] in ("map", "vmap")
        and all(type(about[key]) is int and about[key] > 0 for key in ("width", "devices"))
        # earlier versions trained several members in one program of map mode
        and (about["width"] in CANONICAL_WIDTHS if about["mode"] == "vmap" else about["width"] <= len(about["members"]))
        and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in about["members"])
    )


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Override keys whose values differ between the jobs."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        # of a key that is given twice the last value counts
        for key, value in {key: value for key, _, value in map(_parts, job.overrides)}.items():
            values.setdefault(key, set()).add(value)
    partial = {key for key in values if any(key not in keys_of(job) for job in jobs)}
    return [key for key, found in values.items() if len(found) > 1 or key in partial]


def keys_of(job: Job) -> set[str]:
    return {_parts(override)[0] for override in job.overrides}


def _parts(override: str) -> tuple[str, str, str]:
    return override.lstrip("+").partition("=")


def base(jobs: Sequence[Job]) -> dict[str, Any]:
    """Flat typed tree of the keys that all jobs share."""
    first, *others = [flatten(job.tree()) for job in jobs]
    return {key: value for key, value in first.items() if all(other.get(key, "absent") == value for other in others)}


def write_manifest(folder: Path, bounds: Sequence[Bound], name: str, groups: Sequence[Group], lease: Held) -> None:
    """Record the planned runs and programs in `sweep.json`, beside those of earlier commands."""
    jobs = [bound.job for bound in bounds]
    begun = {"environment": environment.described(), "base": base(jobs), "swept": [], "runs": {}}
    manifest = read_manifest(folder) or {"name": name, **begun}
    now = base(jobs)
    shared = {key: value for key, value in manifest["base"].items() if now.get(key, "absent") == value}
    varied = {*swept_keys(jobs), *ALWAYS_SWEPT}
    if manifest["runs"]:
        changed = {key for key in {*now, *manifest["base"]} if key not in shared}
    else:  # a choice may set keys in other places than its own: experiment=a,b
        changed = {key for job in jobs for key in flatten(job.tree()) if key not in now and not _covers(varied, key)}
    swept = sorted({*manifest["swept"], *swept_keys(jobs), *changed})
    known = {about.get("config_hash"): name for name, about in described(manifest).items()}  # under whichever overrides
    runs = manifest["runs"] | {
        known.get(bound.job.hash, bound.job.run_id): {
            "overrides": list(bound.job.overrides),
            "config_hash": bound.job.hash,
            "data_sha256": bound.dataset.sha256,
        }
        for bound in bounds
    }
    _write(folder, record(manifest | {"base": shared, "swept": swept, "runs": runs}, groups), lease)


def _write(folder: Path, manifest: Mapping[str, Any], lease: Held) -> None:
    write_atomically(folder / "sweep.json", (json.dumps(manifest, indent=1) + "\n").encode(), lease)


def record(manifest: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """A manifest with these programs, which a later command goes on with as they were begun."""
    begun = {
        group.id: {
            "mode": group.mode,
            "width": group.width,
            "devices": group.devices,
            "members": [bound.job.hash for bound in group.bounds],
        }
        for group in groups
    }
    return {**manifest, "groups": manifest.get("groups", {}) | begun}


def replace_group(folder: Path, old: Group, new: Sequence[Group], lease: Held) -> None:
    """Record that a program was begun anew as others: narrower ones."""
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest["groups"].pop(old.id, None)
    _write(folder, record(manifest, new), lease)


def record_report(folder: Path, report: Mapping[str, Any] | None, lease: Held) -> None:
    """Record the table that a sweep is made for; the last command's counts."""
    manifest = read_manifest(folder)
    if report is not None and manifest is not None and manifest.get("report") != report:
        _write(folder, manifest | {"report": report}, lease)


def group_folder(folder: Path, group: str) -> Path:
    """Where the lease of a group lies while it trains, or the state of a unit."""
    return folder / GROUPS / group


def saved(folder: Path, unit: str) -> list[str]:
    """Names of what is saved of a unit (its epochs), oldest first."""
    return sorted(path.name for path in group_folder(folder, unit).glob("*") if path.name.isdigit())
