"""Read one run folder: its `config.json` and `result.json` become a `Run`.

Links are never followed, and nothing but plain files is opened: a report may be made of a folder that somebody sent.
"""

import json
import math
import os
import stat
import sys
from collections.abc import Mapping
from typing import Any

from research.report.run import EVALUATION, Run, frozen


class UnreadableError(ValueError):
    """A file does not hold what it should; the text names the file."""


def lstat(path: str) -> os.stat_result | None:
    """What lies at a path, links not followed; None if nothing does."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file name may contain "\0"
        return None


def holds_run(path: str) -> bool:
    """Whether a folder is that of a run which began; one that cannot be opened counts, so that it is reported."""
    try:
        return any(lstat(f"{path}/{name}") for name in ("config.json", "result.json"))
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
    except (ValueError, OSError, RecursionError) as error:
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
        status, written = lstat(path), lstat(f"{path}/result.json")
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
    metrics, infinite = _numbers(section(result, "metrics", "result.json"))
    null_reasons = infinite | section(result, "null_reasons", "result.json")
    program = section(result, "program", "result.json")
    depends = _depends(result)
    overrides, versions, seconds = (result.get(name) for name in ("overrides", "versions", "seconds_device_share"))
    return Run(
        run_id,
        result["status"],
        _text(result.get("reason")),
        {**values, **_evaluation(result, depends)},
        metrics=metrics,
        null_reasons={name: str(reason) for name, reason in null_reasons.items()},
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        data_sha256=_text(result.get("data_sha256")),
        commit=_text(result.get("commit")),
        program=" on ".join(str(program[name]) for name in ("mode", "device_kind") if program.get(name)) or None,
        written=written,
        depends=depends,
        command=_text(result.get("command")),
        seconds=float(seconds) if isinstance(seconds, int | float) and _finite(seconds) else None,
        objective=_text(result.get("objective")),
        versions={str(name): str(text) for name, text in versions.items()} if isinstance(versions, dict) else {},
    )


def _text(entry: Any) -> str | None:
    return None if entry is None else str(entry)


def _numbers(metrics: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The metrics, and a reason for those that are infinite: 1e999 is valid JSON."""
    numbers: dict[str, float | None] = {}
    infinite: dict[str, str] = {}
    for name, value in metrics.items():
        if value is None or (isinstance(value, (int, float)) and _finite(value)):
            numbers[sys.intern(name)] = value
        elif isinstance(value, (int, float)):
            numbers[sys.intern(name)] = None
            infinite[name] = "infinite"
    return numbers, infinite


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
