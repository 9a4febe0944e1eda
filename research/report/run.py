"""One run of a sweep as a record, read from `config.json` and `result.json` of its folder."""

import dataclasses
import functools
import json
import math
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

FINISHED = ("completed", "stopped")
STATUSES = (*FINISHED, "diverged", "failed", "interrupted", "pruned", "missing", "unreadable")


EVALUATION = "evaluation."  # begins the keys of what was computed after training
RECORDED = ("run_id", "data_sha256")  # keys of comparisons that are in no config


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
      depends: metric -> keys that change what it measures; None of a result that does not say so.
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
    depends: Mapping[str, tuple[str, ...]] | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    def value(self, key: str) -> Any:
        """The value of a key, or the kind of hole there is in its place; `run_id` and `data_sha256` are keys too."""
        try:
            return self.values[key]
        except KeyError:
            if key in RECORDED:
                return getattr(self, key)
            if not self.known:
                return Hole.UNKNOWN
            section, _, name = key.rpartition(".")
            return _unwritten(self.values.get(f"{section}._target_"), name)


@functools.cache
def _unwritten(target: Any, name: str) -> Any:
    """The value of a key that configs leave out at this value (`research.tree.added`); of other keys a hole."""
    from research.tree import ConfigError, keys, resolve_target  # which loads JAX, and is seldom needed

    try:
        key = keys(resolve_target(target)).get(name)
    except ConfigError:  # no target, or a class of another package
        return Hole.ABSENT
    return Hole.ABSENT if key is None or key.added is dataclasses.MISSING else frozen(key.added)


def union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of all mappings, in order of first appearance."""
    found: dict[str, Any] = {}
    for own in mappings:
        found.update(own)
    return list(found)


# ------------------------------------------------------------------------------------------------------------- reading


class UnreadableError(ValueError):
    """A file that is not what it should be; the text names it."""


class Place(NamedTuple):
    """What lies where a run is expected, links not followed, before anything of it is read."""

    folder: os.stat_result | None = None
    config: os.stat_result | None = None
    result: os.stat_result | None = None
    problem: str | None = None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: "\0" is in no name of a file
        return None


def look(path: str) -> Place:
    """What lies at the place of a run folder."""
    try:
        folder = _stat(path)
        if folder is None:
            return Place()
        return Place(folder, _stat(f"{path}/config.json"), _stat(f"{path}/result.json"))
    except OSError as error:
        return Place(problem=error.strerror or str(error))


def _exists(path: str, found: os.stat_result | None) -> bool:
    return found is not None and (not stat.S_ISLNK(found.st_mode) or os.path.exists(path))


def has_file(path: str, place: Place) -> bool:
    """Whether it is the folder of a run that began."""
    return _exists(f"{path}/config.json", place.config) or _exists(f"{path}/result.json", place.result)


def _refuse(token: str) -> None:
    raise ValueError(f"{token} is not strict JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def read(path: str, found: os.stat_result | None) -> dict[str, Any]:
    """The JSON object in a file, `found` being what was seen there.

    Raises:
      UnreadableError: it is no plain file, or holds anything but one object of strict JSON.
    """
    where = os.path.basename(path)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise UnreadableError(f"{where}: a link or no plain file, and not followed")
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.readall()
        content = _decoder.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except (ValueError, OSError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableError(f"{where}: {reason}") from None
    if not isinstance(content, dict):
        raise UnreadableError(f"{where}: not a JSON object")
    return content


def section(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """One entry of the file `where`, empty if it is not there; UnreadableError if it is no JSON object."""
    found = content.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UnreadableError(f"{where}: '{name}' is not a JSON object")
    return found


def frozen(value: Any) -> Any:
    """Lists as tuples and what is left of dicts as text, so that every value of a run can be compared and hashed."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _flatten(config: Mapping[str, Any], prefix: str, values: dict[str, Any]) -> None:
    """`tree.flatten` of what JSON can hold, frozen; all runs share one text for each key."""
    for name, value in config.items():
        if value and isinstance(value, dict):
            _flatten(value, f"{prefix}{name}.", values)
        else:
            values[sys.intern(f"{prefix}{name}")] = frozen(value) if isinstance(value, (dict, list)) else value


def values_of(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices and the flat config of a run."""
    values = {key: frozen(value) for key, value in choices.items()}
    _flatten(config, "", values)
    return values


def _depends(result: Mapping[str, Any]) -> dict[str, tuple[str, ...]] | None:
    """What the result says of its metrics; None where it says nothing."""
    if result.get("depends") is None:
        return None
    found = section(result, "depends", "result.json")
    if not all(isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in found.values()):
        raise UnreadableError("result.json: 'depends' is not lists of keys")
    return {sys.intern(name): tuple(map(sys.intern, keys)) for name, keys in found.items()}


def _evaluated(result: Mapping[str, Any], depends: Mapping[str, tuple[str, ...]] | None) -> dict[str, Any]:
    """The settings of the evaluation that some metric depends on, as values of the run."""
    settings = result.get("evaluation")
    settings = settings if isinstance(settings, dict) else {}
    wanted = {key for keys in (depends or {}).values() for key in keys if key.startswith(EVALUATION)}
    return {key: frozen(settings[name]) for key in sorted(wanted) if (name := key.removeprefix(EVALUATION)) in settings}


def _numbers(metrics: Mapping[str, Any], null_reasons: dict[str, Any]) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        if value is None or (isinstance(value, (int, float)) and _finite(value)):
            numbers[sys.intern(name)] = value
        elif isinstance(value, (int, float)):  # 1e999 is valid JSON
            numbers[sys.intern(name)] = None
            null_reasons.setdefault(name, "infinite")
    return numbers


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def run_of(path: str, run_id: str, place: Place) -> Run:
    """The record of one run folder."""
    values: dict[str, Any] = {}
    known = False
    config: dict[str, Any] = {}
    if place.problem:
        return Run(run_id, "unreadable", f"{run_id}: {place.problem}", known=False)
    try:
        if place.folder is not None and stat.S_ISLNK(place.folder.st_mode):
            return Run(run_id, "unreadable", f"{run_id} is a link, and not followed", known=False)
        if place.folder is None or not stat.S_ISDIR(place.folder.st_mode):
            return Run(run_id, "missing", "not started", known=False)
        has_result = _exists(f"{path}/result.json", place.result)
        if has_file(path, place):
            config = read(f"{path}/config.json", place.config)
            sections = [section(config, name, "config.json") for name in ("config", "choices")]
            values, known = values_of(*sections), True
        if not has_result:
            return Run(run_id, "missing", "no result yet", values, known)
        result = read(f"{path}/result.json", place.result)
        if not isinstance(result.get("status"), str):
            raise UnreadableError("result.json: it has no status")
        if result.get("config_hash") != config.get("config_hash"):
            raise UnreadableError("result.json: its config_hash is not that of config.json")
        null_reasons = section(result, "null_reasons", "result.json")
        metrics = _numbers(section(result, "metrics", "result.json"), null_reasons)
        program = section(result, "program", "result.json")
        depends = _depends(result)
        values |= _evaluated(result, depends)
    except UnreadableError as error:
        return Run(run_id, "unreadable", f"{run_id}/{error}", values, known)
    except RecursionError:
        return Run(run_id, "unreadable", f"{run_id}/config.json: nested too deeply", values, known)
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
        None if place.result is None else place.result.st_mtime,
        depends,
    )
