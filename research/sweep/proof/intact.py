"""Whether the files of a sweep are those that were written: hashes, rows, and records that belong together."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.runs.files import digest
from research.runs.folder import STATUSES, TRAINED, RunFolder
from research.sweep.folder import runs_in
from research.sweep.job import HASH_DIGITS
from research.sweep.manifest import read_manifest
from research.tree import ConfigError, config_hash


@dataclasses.dataclass
class Finding:
    """What verification found out about one run.

    Attributes:
      run: name of its folder.
      outcome: of its files "whole", "damaged" or "not finished"; of its repeated training "bit-equal",
        "within tolerance", "different" or "not checked".
      detail: what is damaged, how large the difference is, or why the run could not be checked.
    """

    run: str
    outcome: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        return self.outcome in ("damaged", "different")

    def __str__(self) -> str:
        return f"{self.outcome}: {self.run}{f': {self.detail}' if self.detail else ''}"


def check_files(folder: Path) -> list[Finding]:
    """One finding for every run of a sweep: first those in `sweep.json`, then other run folders."""
    planned = (read_manifest(folder) or {"runs": {}})["runs"]
    present = runs_in(folder)
    findings = []
    for name, record in planned.items():
        digits = record.get("config_hash") if isinstance(record, Mapping) else None
        if not isinstance(digits, str) or Path(name).name != name or name in ("", ".", ".."):
            findings.append(Finding(name, "damaged", "sweep.json does not describe it as a run; restore sweep.json"))
            continue
        path = present.pop(digits[:HASH_DIGITS], folder / name)
        findings.append(_check(path, record) if path.is_dir() else Finding(name, "damaged", "its folder is missing"))
    return findings + [_check(path, {}) for path in present.values()]


def _check(path: Path, planned: Mapping[str, Any]) -> Finding:
    """The finding for one run folder, whatever its files hold."""
    try:
        problem = _problem(RunFolder(path), planned)
    except ConfigError as error:
        return Finding(path.name, "damaged", error.remedy)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding(path.name, "damaged", f"what its files hold is not what a run writes ({reason})")
    if problem is None:
        return Finding(path.name, "not finished")
    return Finding(path.name, "damaged" if problem else "whole", problem)


def _problem(run: RunFolder, planned: Mapping[str, Any]) -> str | None:
    """What is wrong with a run; empty if nothing is, None if the run has not ended."""
    config, result = run.read_config(), run.read_result()
    if config_hash(config["config"]) != config["config_hash"]:
        return "config.json was changed: the hash that it states is another"
    if planned.get("config_hash", config["config_hash"]) != config["config_hash"]:
        return "config.json and sweep.json belong to different configurations"
    if result is None or result["status"] == "interrupted":
        return None
    if result["status"] not in STATUSES:
        return f"result.json has the status {result['status']}, which no run has"
    if result["config_hash"] != config["config_hash"]:
        return "config.json and result.json belong to different configurations"
    if planned.get("data_sha256", result["data_sha256"]) != result["data_sha256"]:
        return "result.json and sweep.json name different data"
    if result["status"] not in TRAINED:
        return ""
    return _files_problem(run, result) or _rows_problem(run, config["config"]["trainer"], result["epochs"])


def _files_problem(run: RunFolder, result: Mapping[str, Any]) -> str:
    """The first file that is missing or does not have its hash; empty if there is none."""
    files = {file.name: file for file in (run.config, run.metrics, run.parameters, run.clusters)}
    hashes = result.get("files", {})
    for name in dict.fromkeys((*files, *hashes)):
        if name not in files:
            return f"result.json has a hash of {name}, which is no file of a run"
        # Only some evaluations find clusters, and a run that diverged at once has no parameters.
        optional = name == run.clusters.name or (name == run.parameters.name and result["status"] == "diverged")
        if optional and name not in hashes and not files[name].exists():
            continue
        if not files[name].exists():
            return f"{name} is missing"
        if name not in hashes:
            return f"result.json has no hash of {name}"
        if digest(files[name]) != hashes[name]:
            return f"{name} is not the file that was written"
    return ""


def _rows_problem(run: RunFolder, trainer: Mapping[str, Any], last: int) -> str:
    """The first evaluation that `metrics.csv` lacks or has without need; empty if there is none."""
    every, most = trainer["evaluate_every"], trainer["epochs"]
    if not 0 < last <= most:
        return f"result.json has {last} epochs of {most}"
    wanted = [*range(every, last, every), last]
    if last % every and last != most:
        return f"result.json ends after {last} epochs, and every {every} there is an evaluation"
    epochs = [int(row["epoch"]) for row in run.read_metrics()]
    missing = [epoch for epoch in wanted if epoch not in epochs]
    if missing:
        return f"metrics.csv lacks its row of epoch {missing[0]}"
    return "" if epochs == wanted else "metrics.csv has rows that are no evaluation of this run, or has them twice"
