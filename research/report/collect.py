"""Collect a sweep folder: one record for each run, also for runs that are planned, lost or damaged."""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.errors import nearest
from research.report.run import (
    FINISHED,
    STATUSES,
    Hole,
    Run,
    UnreadableError,
    frozen,
    holds_run,
    read_object,
    read_run,
    section,
    union,
    values_of,
)
from research.runs.folder import check_sweep_folder, no_sweep
from research.tree import ConfigError

__all__ = ["FINISHED", "STATUSES", "Hole", "Run", "Runs", "collect"]


@dataclasses.dataclass(frozen=True)
class Runs:
    """All runs of a sweep.

    Attributes:
      name: of the sweep.
      records: one for each run, in the order in which the runs were planned.
      problems: what could not be read beside the runs, in words.
      plan: content of `sweep.json`; empty if there is none.
    """

    name: str
    records: tuple[Run, ...]
    problems: tuple[str, ...] = ()
    plan: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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

    def including(self, statuses: Sequence[str]) -> "Runs":
        """The same runs, where runs of these statuses are averaged too; a cell that holds one is never the best.

        Raises:
          ConfigError: an unknown status.
        """
        for status in statuses:
            if status not in STATUSES:
                remedy = f"expected some of {', '.join(STATUSES)}{nearest(status, STATUSES)}"
                raise ConfigError("include", status, remedy)
        records = (dataclasses.replace(run, included=run.status in statuses) for run in self.records)
        return dataclasses.replace(self, records=tuple(records)) if statuses else self

    def frame(self) -> Any:
        """A pandas DataFrame with one row for each run.

        Its columns are run_id, status, reason, seed, fold, then config keys and choices, then metrics; a metric that
        is null is NaN.
        """
        import pandas

        rows = [
            {"run_id": run.run_id, "status": run.status, "reason": run.reason}
            | {"seed": run.values.get("seed"), "fold": run.values.get("data.fold")}
            | {key: value for key, value in run.values.items() if key != "seed"}
            | {name: math.nan if value is None else value for name, value in run.metrics.items()}
            for run in self.records
        ]
        return pandas.DataFrame(rows)


def collect(folder: Path | str) -> Runs:
    """The runs of a sweep folder: those that `sweep.json` names, in its order, then run folders that it does not name.

    Raises:
      ConfigError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    check_sweep_folder(folder)
    plan: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    problems: list[str] = []
    if (folder / "sweep.json").exists():
        try:
            plan = read_object(f"{folder}/sweep.json")
            entries = section(plan, "runs", "sweep.json")
        except UnreadableError as error:
            problems.append(f"{error}; runs that have no folder are not counted")
    folders = [entry.name for entry in os.scandir(folder) if os.path.isdir(entry.path) and holds_run(entry.path)]
    names = [*entries, *sorted(set(folders) - entries.keys())]
    if strange := [name for name in names if Path(name).name != name or name in ("", "..")]:
        problems.append(f"sweep.json: not the name of a run folder: {', '.join(strange)}")
        names = [name for name in names if name not in strange]
    if not names:
        raise no_sweep(folder, "no runs in it")
    runs = _planned([read_run(str(folder), name) for name in names], plan, entries)
    name = plan.get("name")
    name = name if isinstance(name, str) and name else folder.absolute().name
    return Runs(name, tuple(runs), tuple(problems), plan)


# ------------------------------------------------------------------------------------------- runs that have no config


def _planned(runs: Sequence[Run], plan: Mapping[str, Any], entries: Mapping[str, Any]) -> list[Run]:
    """The runs; those that have no config get the values that were planned for them, as far as these are certain.

    Certain are the keys that all jobs share (`base`), the overrides of the run, and the values that all runs of known
    config have in common, or all of those with the same choice (`model=vae`).
    """
    base = plan.get("base")
    base = base if isinstance(base, dict) else {}
    known = [run for run in runs if run.known]
    keys = union(run.values for run in known)
    groups = {key.partition(".")[0] for key in keys if "." in key} & set(keys)

    @functools.cache
    def common(group: str, choice: Any) -> dict[str, Any]:
        alike = [run for run in known if not group or run.values.get(group) == choice]
        values = {key: {run.value(key) for run in alike} for key in keys}
        single = {key: next(iter(several)) for key, several in values.items() if len(several) == 1}
        return {key: value for key, value in single.items() if not isinstance(value, Hole)}

    def completed(run: Run) -> Run:
        entry = entries.get(run.run_id)
        overrides = entry.get("overrides") if isinstance(entry, dict) else None
        if (run.known and run.overrides) or not isinstance(overrides, list):
            return run
        run = dataclasses.replace(run, overrides=tuple(map(str, overrides)))
        if run.known:
            return run
        values = values_of(base, {})
        for override in run.overrides:
            key, separator, text = override.lstrip("+").partition("=")
            if separator:
                values[key] = _parsed(text)
        certain: dict[str, Any] = {}
        for key in keys:
            group = key.partition(".")[0]
            agreed = common(group, values[group]) if group in groups and group in values else common("", None)
            if key in agreed:
                certain[key] = agreed[key]
        return dataclasses.replace(run, values=values | certain | values)  # what was planned comes first, and holds

    return list(map(completed, runs))


def _parsed(text: str) -> Any:
    """The value of an override as the config would hold it: a number, list or constant, or else text."""
    for convert in (json.loads, float):
        try:
            return frozen(convert(text.lower() if text.lower() in ("true", "false", "null") else text))
        except ValueError:
            continue
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
