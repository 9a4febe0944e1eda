"""The record of one run, and how it is read from the run's `config.json` and `result.json`.

Links are never followed, and nothing but plain files is opened: a report may be made of a folder that somebody sent.
"""

import dataclasses
import functools
import json
import math
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

FINISHED = ("completed", "stopped")
STATUSES = (*FINISHED, "diverged", "failed", "interrupted", "pruned", "missing", "unreadable")
EVALUATION = "evaluation."  # prefix of the keys of what is computed after training
RECORDED = ("run_id", "data_sha256")  # keys that comparisons use although no config has them


class Hole(Enum):
    """Why a run has no value for a key."""

    ABSENT = "–"  # the config of the run has no such key
    UNKNOWN = "?"  # the config could not be read, or was never written
    ANY = ""  # only in the row of a baseline: the key does not change its value


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      run_id: name of the run folder.
      status: one of `STATUSES`.
      reason: why the run did not finish.
      values: flat config (`model.latent_dim`), and the choice of each group under its bare name (`model`).
      known: whether `values` is the whole config; otherwise it holds what the sweep planned.
      metrics: name -> number; None where the number was not finite.
      null_reasons: metric -> why it is None.
      overrides: what the command line changed, as `key=value`.
      program: mode and kind of device, in words.
      written: when `result.json` was written, in seconds since 1970.
      depends: metric -> keys that change what it measures; None if the result does not say so.
      command: the command that trains this run alone.
      seconds: the run's share of the training time of its program.
      objective: the metric that sweepers which search were given.
      versions: package -> version.
      steps_per_epoch: training steps of an epoch; None if the result does not say so.
      still_improves: whether the monitored metric was far from flat at the end; None if that is not known.
      similar: metric between runs -> run_id -> similarity to that run; only where a report computed it.
      included: whether the run is averaged although it did not finish, because the user asked for it.
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
    evaluation_commit: str | None = None
    program: str | None = None
    written: float | None = None
    depends: Mapping[str, tuple[str, ...]] | None = None
    command: str | None = None
    seconds: float | None = None
    objective: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    steps_per_epoch: int | None = None
    still_improves: bool | None = None
    similar: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    included: bool = False

    @property
    def finished(self) -> bool:
        """Whether the run has numbers that may be averaged."""
        return self.included or self.status in FINISHED

    def value(self, key: str) -> Any:
        """The value of a key, or the `Hole` in its stead; the keys of `RECORDED` have values too."""
        try:
            return self.values[key]
        except KeyError:
            if key in RECORDED:
                return getattr(self, key)
            if not self.known:
                return Hole.UNKNOWN
            section, _, name = key.rpartition(".")
            return _default(self.values.get(f"{section}._target_"), name)

    def at(self, keys: Iterable[str]) -> tuple[Any, ...]:
        """The values of several keys."""
        return tuple(map(self.value, keys))


@functools.cache
def _default(target: Any, name: str) -> Any:
    """The value of a key that configs leave out while it has its default (`added` in research.tree), else a hole."""
    from research.tree import ConfigError, keys, resolve_target  # importing it loads JAX, and few reports need it

    try:
        key = keys(resolve_target(target)).get(name)
    except ConfigError:  # there is no target, or it is a class of another package
        return Hole.ABSENT
    return Hole.ABSENT if key is None or key.added is dataclasses.MISSING else frozen(key.added)


def frozen(value: Any) -> Any:
    """The value with tuples for lists and JSON text for mappings, so that it can be compared and hashed."""
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of all mappings, in order of first appearance."""
    merged: dict[str, Any] = {}
    for mapping in mappings:
        merged.update(mapping)
    return list(merged)


def count_statuses(runs: Iterable[Run]) -> dict[str, int]:
    """Status -> number of runs, in the order of `STATUSES`."""
    counts = Counter(run.status for run in runs)
    return {status: counts[status] for status in dict.fromkeys((*STATUSES, *counts)) if counts[status]}


# ------------------------------------------------------------------------------------------------------------- reading


class UnreadableError(ValueError):
    """A file does not hold what it should; the text names the file."""


def _lstat(path: str) -> os.stat_result | None:
    """What lies at a path, links not followed; None if nothing does."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file name may contain "\0"
        return None


def holds_run(path: str) -> bool:
    """Whether a folder is that of a run which began; one that cannot be opened counts, so that it is reported."""
    try:
        return any(_lstat(f"{path}/{name}") for name in ("config.json", "result.json"))
    except OSError:
        return True


def _refuse(token: str) -> None:
    raise ValueError(f"{token} is not strict JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def read_object(path: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UnreadableError: the file is no plain file, cannot be read, or does not hold one object of strict JSON.
    """
    name = os.path.basename(path)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise UnreadableError(f"{name}: a link or no plain file, and not followed")
        with open(path, "rb", buffering=0) as file:
            text = file.readall()
        content = _decoder.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError(f"{name}: it is nested too deeply") from None
    except (ValueError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableError(f"{name}: {reason}") from None
    if not isinstance(content, dict):
        raise UnreadableError(f"{name}: not a JSON object")
    return content


def section(content: Mapping[str, Any], name: str, file: str) -> dict[str, Any]:
    """One entry of a file, empty if it is not there; UnreadableError if it is no JSON object."""
    entry = content.get(name)
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise UnreadableError(f"{file}: '{name}' is not a JSON object")
    return entry


def values_of(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices and the flat config of a run, frozen; all runs share one text for each key."""
    values = {key: frozen(value) for key, value in choices.items()}

    def flatten(tree: Mapping[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if value and isinstance(value, dict):
                flatten(value, f"{prefix}{name}.")
            else:
                values[sys.intern(f"{prefix}{name}")] = frozen(value)

    flatten(config, "")
    return values


def read_run(folder: str, run_id: str) -> Run:
    """The record of one run; a folder that is missing or damaged has a record that says so."""
    path = f"{folder}/{run_id}"
    try:
        status, written = _lstat(path), _lstat(f"{path}/result.json")
    except OSError as error:
        return Run(run_id, "unreadable", f"{run_id}: {error.strerror}", known=False)
    if status is not None and stat.S_ISLNK(status.st_mode):
        return Run(run_id, "unreadable", f"{run_id} is a link, and not followed", known=False)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return Run(run_id, "missing", "not started", known=False)
    if not holds_run(path):
        return Run(run_id, "missing", "no result yet", known=False)
    values: dict[str, Any] = {}
    known = False
    try:
        config = read_object(f"{path}/config.json")
        values = values_of(section(config, "config", "config.json"), section(config, "choices", "config.json"))
        known = True
        if written is None:
            return Run(run_id, "missing", "no result yet", values)
        result = read_object(f"{path}/result.json")
        if result.get("config_hash") != config.get("config_hash"):
            raise UnreadableError("result.json: its config_hash is not that of config.json")
        return _run_of(run_id, values, result, written.st_mtime)
    except UnreadableError as error:
        return Run(run_id, "unreadable", f"{run_id}/{error}", values, known)
    except RecursionError:
        return Run(run_id, "unreadable", f"{run_id}: its files are nested too deeply", values, known)


def _run_of(run_id: str, values: Mapping[str, Any], result: Mapping[str, Any], written: float) -> Run:
    """The record of a run that has a result; UnreadableError where the result is not what training writes."""
    if not isinstance(result.get("status"), str):
        raise UnreadableError("result.json: it has no status")
    numbers = section(result, "metrics", "result.json")
    metrics = {sys.intern(name): n for name, n in numbers.items() if n is None or isinstance(n, int | float)}
    infinite = [name for name, n in metrics.items() if n is not None and not _finite(n)]  # 1e999 is valid JSON
    null_reasons = dict.fromkeys(infinite, "infinite") | section(result, "null_reasons", "result.json")
    program = section(result, "program", "result.json")
    depends = _depends(result)
    steps, improves = result.get("steps_per_epoch"), result.get("still_improves")
    overrides, versions, seconds = (result.get(name) for name in ("overrides", "versions", "seconds_device_share"))

    def text(name: str) -> str | None:
        return None if result.get(name) is None else str(result[name])

    return Run(
        run_id,
        result["status"],
        text("reason"),
        {**values, **_evaluation(result, depends)},
        metrics=metrics | dict.fromkeys(infinite),
        null_reasons={name: str(reason) for name, reason in null_reasons.items()},
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        data_sha256=text("data_sha256"),
        commit=text("commit"),
        evaluation_commit=text("evaluation_commit"),
        program=" on ".join(str(program[name]) for name in ("mode", "device_kind") if program.get(name)) or None,
        written=written,
        depends=depends,
        command=text("command"),
        seconds=float(seconds) if isinstance(seconds, int | float) and _finite(seconds) else None,
        objective=text("objective"),
        steps_per_epoch=steps if type(steps) is int and steps > 0 else None,
        still_improves=improves if isinstance(improves, bool) else None,
        versions={str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {},
    )


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def _depends(result: Mapping[str, Any]) -> dict[str, tuple[str, ...]] | None:
    """Metric -> keys that change what it measures; None if the result does not say so."""
    if result.get("depends") is None:
        return None
    depends = section(result, "depends", "result.json")
    if not all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in depends.values()):
        raise UnreadableError("result.json: 'depends' does not map metrics to lists of keys")
    return {sys.intern(name): tuple(map(sys.intern, keys)) for name, keys in depends.items()}


def _evaluation(result: Mapping[str, Any], depends: Mapping[str, tuple[str, ...]] | None) -> dict[str, Any]:
    """The settings of the evaluation that some metric depends on, as values of the run."""
    settings = result.get("evaluation")
    settings = settings if isinstance(settings, dict) else {}
    keys = {key for keys in (depends or {}).values() for key in keys if key.startswith(EVALUATION)}
    return {key: frozen(settings[name]) for key in sorted(keys) if (name := key.removeprefix(EVALUATION)) in settings}
