"""A sweep folder as one record a run; a run that is planned, lost or broken is a record too."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from research.tree import ConfigError, flatten, nearest

FINISHED = ("completed", "stopped")
STATUSES = (*FINISHED, "diverged", "failed", "interrupted", "pruned", "missing", "unreadable")


class Hole(Enum):
    """Why a run has no value for a key."""

    ABSENT = "–"  # its config has no such key
    UNKNOWN = "?"  # its config could not be read, or was never written
    ANY = ""  # in the row of a baseline: the key does not change it


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      status: one of `STATUSES`; only those in `FINISHED` have numbers that may be averaged.
      values: flat config (`model.latent_dim`) and choices under the bare name of the group (`model`).
      known: whether `values` is the whole config; otherwise it is what the sweep planned.
      metrics: name -> number, or None where it was not finite; the reason is in `null_reasons`.
      written: when the result was written, in seconds since 1970.
    """

    run_id: str
    status: str
    reason: str | None = None
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    known: bool = True
    metrics: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    null_reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    data_sha256: str | None = None
    commit: str | None = None
    program: str | None = None
    written: float | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    def value(self, key: str) -> Any:
        """The value of a key, or the kind of hole there is in its place."""
        return self.values.get(key, Hole.ABSENT if self.known else Hole.UNKNOWN)


@dataclasses.dataclass(frozen=True)
class Runs:
    """All runs of a sweep, in the order in which they were planned, and what could not be read beside them."""

    name: str
    records: tuple[Run, ...]
    problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Run]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def config_keys(self) -> list[str]:
        """All config keys and choices, in order of first appearance."""
        return list(dict.fromkeys(key for run in self.records for key in run.values))

    def metric_names(self) -> list[str]:
        """All metrics that any run reports."""
        return list(dict.fromkeys(name for run in self.records for name in run.metrics))

    def frame(self) -> Any:
        """A pandas DataFrame: a row a run; run_id, status, reason, seed, fold, config keys, choices, metrics."""
        import pandas

        rows = [
            {"run_id": run.run_id, "status": run.status, "reason": run.reason}
            | {"seed": run.values.get("seed"), "fold": run.values.get("data.fold")}
            | {key: value for key, value in run.values.items() if key != "seed"}
            | {name: math.nan if value is None else value for name, value in run.metrics.items()}
            for run in self.records
        ]
        return pandas.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------------- reading


class _UnreadableError(ValueError):
    """A file that is not what it should be; the text names it."""


def _refuse(token: str) -> None:
    raise ValueError(f"{token} is not strict JSON")


def _read(path: Path) -> dict[str, Any]:
    where = path.name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise _UnreadableError(f"{where}: a link or no plain file, and not followed")
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse)
    except (ValueError, OSError, RecursionError) as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _UnreadableError(f"{where}: {text}") from None
    if not isinstance(content, dict):
        raise _UnreadableError(f"{where}: not a JSON object")
    return content


def _section(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = content.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise _UnreadableError(f"{where}: '{name}' is not a JSON object")
    return section


def _frozen(value: Any) -> Any:
    """Lists as tuples and what is left of dicts as text, so that every value of a run can be compared and hashed."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _values(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _frozen(value) for key, value in {**choices, **flatten(config)}.items()}


def _numbers(metrics: Mapping[str, Any], null_reasons: dict[str, Any]) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        if value is None or (isinstance(value, int | float) and math.isfinite(value)):
            numbers[name] = value
        elif isinstance(value, float):  # 1e999 is valid JSON
            numbers[name] = None
            null_reasons.setdefault(name, "infinite")
    return numbers


def _run(folder: Path) -> Run:
    """The record of one run folder."""
    run_id = folder.name
    values: dict[str, Any] = {}
    known = False
    config: dict[str, Any] = {}
    try:
        if folder.is_symlink():
            return Run(run_id, "unreadable", f"{run_id} is a link, and not followed", known=False)
        if not folder.is_dir():
            return Run(run_id, "missing", "not started", known=False)
        has_result = (folder / "result.json").exists()
        if has_result or (folder / "config.json").exists():
            config = _read(folder / "config.json")
            sections = [_section(config, name, "config.json") for name in ("config", "choices")]
            values, known = _values(*sections), True
        if not has_result:
            return Run(run_id, "missing", "no result yet", values, known)
        result = _read(folder / "result.json")
        if not isinstance(result.get("status"), str):
            raise _UnreadableError("result.json: it has no status")
        if result.get("config_hash") != config.get("config_hash"):
            raise _UnreadableError("result.json: its config_hash is not that of config.json")
        null_reasons = _section(result, "null_reasons", "result.json")
        metrics = _numbers(_section(result, "metrics", "result.json"), null_reasons)
        program = _section(result, "program", "result.json")
    except _UnreadableError as error:
        return Run(run_id, "unreadable", f"{run_id}/{error}", values, known)
    described = " on ".join(str(program[name]) for name in ("mode", "device_kind") if program.get(name))
    return Run(
        run_id,
        result["status"],
        None if result.get("reason") is None else str(result["reason"]),
        values,
        known,
        metrics,
        {name: str(reason) for name, reason in null_reasons.items()},
        tuple(map(str, result["overrides"])) if isinstance(result.get("overrides"), list) else (),
        None if result.get("data_sha256") is None else str(result["data_sha256"]),
        None if result.get("commit") is None else str(result["commit"]),
        described or None,
        (folder / "result.json").stat().st_mtime,
    )


# ------------------------------------------------------------------------------------------- runs that have no config


def _parsed(text: str) -> Any:
    """The value of an override as the config would hold it; text where it is no number, list or constant."""
    for read in (json.loads, float):
        try:
            return _frozen(read(text))
        except ValueError:
            continue
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _plan(base: Mapping[str, Any], overrides: list[Any]) -> dict[str, Any]:
    """What a plan tells of the values of one run: the keys that all runs share, and its overrides."""
    values = _values(base, {})
    for override in overrides:
        key, separator, text = str(override).lstrip("+").partition("=")
        if separator:
            values[key] = _parsed(text)
    return values


def _completed(run: Run, others: list[Run], groups: set[str]) -> Run:
    """`run` with the values that all runs of known config and of the same choice agree on."""
    values = dict(run.values)
    by_group: dict[str, list[Run]] = {}
    for key in dict.fromkeys(key for other in others for key in other.values):
        if key in values:
            continue
        group = key.partition(".")[0]
        if group not in by_group:
            same = [
                other for other in others if other.values.get(group) == run.values.get(group, other.values.get(group))
            ]
            by_group[group] = same if group in groups else others
        found = {other.value(key) for other in by_group[group]}
        if len(found) == 1 and not isinstance(value := found.pop(), Hole):
            values[key] = value
    return dataclasses.replace(run, values=values)


def collect(folder: Path | str) -> Runs:
    """The runs of a sweep folder: those in `sweep.json`, in its order, then those that only have a run folder.

    Raises:
      ConfigError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ConfigError("folder", folder, f"no such folder{nearest(folder.name, siblings)}")
    sweep: dict[str, Any] = {}
    problems: list[str] = []
    entries: dict[str, Any] = {}
    if (folder / "sweep.json").exists():
        try:
            sweep = _read(folder / "sweep.json")
            entries = _section(sweep, "runs", "sweep.json")
        except _UnreadableError as error:
            problems.append(f"{error}; runs that have no folder are not counted")
    present = {
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and ((entry / "config.json").exists() or (entry / "result.json").exists())
    }
    names = [*entries, *sorted(present - entries.keys())]
    if strange := [name for name in names if Path(name).name != name or name in ("", "..")]:
        problems.append(f"sweep.json: not the name of a run folder: {', '.join(strange)}")
        names = [name for name in names if name not in strange]
    if not names:
        remedy = "no runs in it; give the folder of a sweep"
        if (folder / "config.json").exists():
            remedy = f"this is one run; give the folder of its sweep: {folder.absolute().parent}"
        raise ConfigError("folder", folder, remedy)
    runs = [_run(folder / name) for name in names]
    known = [run for run in runs if run.known]
    base = sweep.get("base")
    base = base if isinstance(base, dict) else {}
    keys = {key for run in known for key in run.values}
    groups = keys & {key.partition(".")[0] for key in keys if "." in key}
    for index, run in enumerate(runs):
        if not run.known:
            entry = entries.get(run.run_id)
            overrides = entry.get("overrides") if isinstance(entry, dict) else None
            if isinstance(overrides, list):
                run = dataclasses.replace(run, values=_plan(base, overrides), overrides=tuple(map(str, overrides)))
                runs[index] = _completed(run, known, groups)
    name = sweep.get("name")
    return Runs(name if isinstance(name, str) and name else folder.absolute().name, tuple(runs), tuple(problems))
