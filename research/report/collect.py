"""A sweep folder as one record a run; a run that is planned, lost or broken is a record too."""

import dataclasses
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.report import cache
from research.report.run import (
    FINISHED,
    STATUSES,
    Hole,
    Place,
    Run,
    UnreadableError,
    frozen,
    has_file,
    look,
    read,
    run_of,
    section,
    union,
    values_of,
)
from research.tree import ConfigError, nearest

__all__ = ["FINISHED", "STATUSES", "Hole", "Run", "Runs", "collect"]


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
        return union(run.values for run in self.records)

    def metric_names(self) -> list[str]:
        """All metrics that any run reports."""
        return union(run.metrics for run in self.records)

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


# ------------------------------------------------------------------------------------------- runs that have no config


def _parsed(text: str) -> Any:
    """The value of an override as the config would hold it; text where it is no number, list or constant."""
    for convert in (json.loads, float):
        try:
            return frozen(convert(text.lower() if text.lower() in ("true", "false", "null") else text))
        except ValueError:
            continue
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _plan(base: Mapping[str, Any], overrides: list[Any]) -> dict[str, Any]:
    """What a plan tells of the values of one run: the keys that all runs share, and its overrides."""
    values = values_of(base, {})
    for override in overrides:
        key, separator, text = str(override).lstrip("+").partition("=")
        if separator:
            values[key] = _parsed(text)
    return values


class _Agreement:
    """The values that runs of known config agree on, all of them or those of one choice."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = runs
        self.keys = union(run.values for run in runs)
        self.groups = set(self.keys) & {key.partition(".")[0] for key in self.keys if "." in key}
        self._agreed: dict[tuple[str, Any], dict[str, Any]] = {}

    def complete(self, run: Run) -> Run:
        """`run` with the values that all runs agree on, or all of the same choice."""
        values = dict(run.values)
        for key in self.keys:
            if key not in values:
                group = key.partition(".")[0]
                chosen = group in self.groups and group in run.values
                agreed = self._among(group, run.values[group]) if chosen else self._among("", None)
                if key in agreed:
                    values[key] = agreed[key]
        return dataclasses.replace(run, values=values)

    def _among(self, group: str, choice: Any) -> dict[str, Any]:
        if (group, choice) not in self._agreed:
            same = [run for run in self.runs if not group or run.values.get(group) == choice]
            keys = [key for key in self.keys if not group or key.partition(".")[0] == group]
            found = {key: {run.value(key) for run in same} for key in keys}
            self._agreed[group, choice] = {
                key: value
                for key, own in found.items()
                if len(own) == 1 and not isinstance(value := next(iter(own)), Hole)
            }
        return self._agreed[group, choice]


def _records(folder: str, places: Mapping[str, Place], cached: bool) -> list[Run]:
    """The record of every run, from the cache if neither of its files has changed."""
    found = {name: cache.identity(place.config, place.result) for name, place in places.items()}
    identities = {name: own for name, own in found.items() if own is not None}
    kept = cache.load(Path(folder), identities) if cached else {}
    runs: list[Run] = []
    for name, place in places.items():
        if name in kept and place.folder is not None and stat.S_ISDIR(place.folder.st_mode):
            runs.append(Run(run_id=name, written=place.result.st_mtime if place.result else None, **kept[name]))
        else:
            runs.append(run_of(f"{folder}/{name}", name, place))
    cacheable = [
        (identities[run.run_id], run)
        for run in runs
        if run.run_id in identities and run.known and run.status != "unreadable"  # that may be the fault of the disk
    ]
    anew = sum(run.run_id not in kept for _, run in cacheable)
    if cached and len(cacheable) >= cache.SMALLEST and anew > cache.RENEW * len(cacheable):
        cache.save(Path(folder), cacheable)
    return runs


def check_folder(folder: Path) -> None:
    """Refuse what is no folder, with the nearest name beside it."""
    if not folder.is_dir():
        if folder.exists():
            raise ConfigError("folder", folder, "this is a file; give the folder of a sweep")
        siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ConfigError("folder", folder, f"no such folder{nearest(folder.name, siblings)}")


def collect(folder: Path | str, cached: bool = True) -> Runs:
    """The runs of a sweep folder: those in `sweep.json`, in its order, then those that only have a run folder.

    Of a large sweep, runs that have not changed are read from a cache beside them (`cache`), if `cached`.

    Raises:
      ConfigError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    check_folder(folder)
    sweep: dict[str, Any] = {}
    problems: list[str] = []
    entries: dict[str, Any] = {}
    if (folder / "sweep.json").exists():
        try:
            sweep = read(f"{folder}/sweep.json", os.lstat(folder / "sweep.json"))
            entries = section(sweep, "runs", "sweep.json")
        except UnreadableError as error:
            problems.append(f"{error}; runs that have no folder are not counted")
    with os.scandir(folder) as scanned:
        folders = [entry for entry in scanned if entry.is_dir(follow_symlinks=False) or os.path.isdir(entry.path)]
    places = {entry.name: look(entry.path) for entry in folders}
    present = {name for name, place in places.items() if place.problem or has_file(f"{folder}/{name}", place)}
    names = [*entries, *sorted(present - entries.keys())]
    if strange := [name for name in names if Path(name).name != name or name in ("", "..")]:
        problems.append(f"sweep.json: not the name of a run folder: {', '.join(strange)}")
        names = [name for name in names if name not in strange]
    if not names:
        remedy = "no runs in it; give the folder of a sweep"
        if (folder / "config.json").exists():
            remedy = f"this is one run; give the folder of its sweep: {folder.absolute().parent}"
        raise ConfigError("folder", folder, remedy)
    runs = _records(str(folder), {name: places.get(name) or look(f"{folder}/{name}") for name in names}, cached)
    agreement = _Agreement([run for run in runs if run.known])
    base = sweep.get("base")
    base = base if isinstance(base, dict) else {}
    for index, run in enumerate(runs):
        if run.known and run.overrides:
            continue
        entry = entries.get(run.run_id)
        overrides = entry.get("overrides") if isinstance(entry, dict) else None
        if isinstance(overrides, list):
            run = dataclasses.replace(run, overrides=tuple(map(str, overrides)))
            if not run.known:
                run = agreement.complete(dataclasses.replace(run, values=_plan(base, overrides)))
            runs[index] = run
    name = sweep.get("name")
    return Runs(name if isinstance(name, str) and name else folder.absolute().name, tuple(runs), tuple(problems))
