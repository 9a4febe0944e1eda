"""Proof of a sweep folder: every file is whole, and runs that are trained again have the same outcome."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.runs.folder import RunFolder, digest
from research.sweep.display import Display
from research.sweep.goodput import Goodput
from research.sweep.job import HASH_DIGITS, Bound
from research.sweep.loop import Control, Trained, train_group
from research.sweep.manifest import locked, read_manifest, runs_in
from research.sweep.plan import Group, Options, plan
from research.sweep.prepare import load_start, rebuilt, shipped
from research.sweep.program import Program, device_kind, on_device
from research.sweep.record import commit, versions
from research.sweep.replay import replay
from research.tree import ConfigError, build, flatten

EARLY, EARLY_TOLERANCE = 5, 1e-5  # relative, on the losses of the first epochs
TRAINED = ("completed", "stopped", "diverged", "pruned")


@dataclasses.dataclass
class Finding:
    """What is known of one run.

    Attributes:
      run: name of its folder.
      outcome: "whole", "damaged", "bit-equal", "within tolerance" or "different".
      detail: what is damaged or how large the difference is.
    """

    run: str
    outcome: str
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.outcome not in ("damaged", "different")


# ---------------------------------------------------------------------------------------------------------- whole files


def whole(folder: Path) -> list[Finding]:
    """Every planned run has its result, its files have the hashes written there, and no row of metrics is missing."""
    manifest = read_manifest(folder) or {"runs": {}}
    present = runs_in(folder)
    findings = []
    for name, about in manifest["runs"].items():
        path = present.get(about["config_hash"][:HASH_DIGITS])
        findings.append(Finding(name, "damaged", "its folder is missing") if path is None else _whole_run(path))
    return findings


def _whole_run(path: Path) -> Finding:
    run = RunFolder(path)
    try:
        config, result = run.read_config(), run.read_result()
    except ConfigError as error:
        return Finding(path.name, "damaged", error.remedy)
    if result is None or result["status"] not in (*TRAINED, "failed"):
        return Finding(path.name, "whole", "not finished")
    if config["config_hash"] != result["config_hash"]:
        return Finding(path.name, "damaged", "config.json and result.json belong to different configurations")
    for file, wanted in result.get("files", {}).items():
        if not (path / file).exists():
            return Finding(path.name, "damaged", f"{file} is missing")
        if digest(path / file) != wanted:
            return Finding(path.name, "damaged", f"{file} is not the file that was written")
    if result["status"] in TRAINED:
        every = config["config"]["trainer"]["evaluate_every"]
        last = result["epochs"]
        ends = {min(end, last) for end in range(every, last + every, every)}
        missing = sorted(ends - {int(row["epoch"]) for row in run.read_metrics()})
        if missing:
            return Finding(path.name, "damaged", f"metrics.csv lacks its row of epoch {missing[0]}")
    return Finding(path.name, "whole")


# ------------------------------------------------------------------------------------------------------- training again


def again(path: Path, bound: Bound, options: Options, peers: Sequence[Path]) -> Finding:
    """Train one run again, alone in map mode, or in vmap mode among copies at its width, and compare."""
    run = RunFolder(path)
    result = run.read_result()
    assert result is not None
    program = result["program"]
    (like,) = plan([bound], options)
    group = dataclasses.replace(like, mode=program["mode"], width=1 if program["mode"] == "map" else program["width"])
    with tempfile.TemporaryDirectory() as place:
        copy = RunFolder(Path(place))
        (trained,) = _train(group, [copy], options)
        ours, theirs = _numbers(run, result["metrics"]), _numbers(copy, trained.metrics, trained.params)
        rows, rows_again = run.read_metrics(), copy.read_metrics()
    if trained.status != result["status"] and result["status"] != "pruned":
        return Finding(path.name, "different", f"it was {result['status']}, and is {trained.status} now")
    if result["status"] == "pruned":  # alone there is nobody to be worse than
        rows_again = rows_again[: len(rows)]
        ours, theirs = {}, {}
    largest = max([*_differences(ours, theirs), *_row_differences(rows, rows_again)], default=0.0)
    if largest == 0.0:
        return Finding(path.name, "bit-equal")
    if not any(_row_differences(rows, rows_again)):
        return Finding(path.name, "different", "it has the same rows of metrics, but other parameters or final metrics")
    early = [row for row in rows if row["epoch"] <= EARLY]
    drift = max(_row_differences(early, rows_again[: len(early)]), default=0.0)
    spread = _spread(path, peers)
    final = {
        name: abs(value - trained.metrics.get(name, math.nan))
        for name, value in result["metrics"].items()
        if name in trained.metrics and value is not None
    }
    far = [name for name, difference in final.items() if not difference <= spread.get(name, math.inf)]
    where = "" if program["device_kind"] == device_kind() else f"; it was trained on {program['device_kind']}"
    other = {name: value for name, value in versions().items() if result["versions"].get(name) != value}
    where += f"; versions differ: {other}" if other else ""
    detail = f"largest relative difference {largest:.2g}, {drift:.2g} in the first {EARLY} epochs{where}"
    if drift <= EARLY_TOLERANCE and not far:
        return Finding(path.name, "within tolerance", detail)
    return Finding(path.name, "different", detail + (f"; {far[0]} is further off than seeds are" if far else ""))


def _train(group: Group, folders: Sequence[RunFolder], options: Options) -> list[Trained]:
    starts = [bound.job.trainer.warm_start for bound in group.bounds]
    params = [load_start(place) for place in starts if place is not None]
    program = Program(group, on_device(group.bounds[0].dataset), params or None)
    quiet = dataclasses.replace(options, prune="none", narrow=False)
    return train_group(group, program, folders, quiet, Control(lambda epochs, metrics: None), Goodput())


def _numbers(run: RunFolder, metrics: Mapping[str, Any], params: Any = None) -> dict[str, np.ndarray]:
    """Parameters and metrics of training by name."""
    if params is None and run.parameters.exists():
        params, _ = run.load_parameters()
    named = jax.tree_util.tree_leaves_with_path(params) if params is not None else []
    numbers = {f"params{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in named}
    return numbers | {name: np.asarray(np.nan if value is None else value) for name, value in metrics.items()}


def _relative(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return math.inf
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    scale = np.maximum(np.abs(one), np.abs(other))
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = np.where(scale > 0, np.abs(one - other) / scale, 0.0)
    return math.inf if not np.isfinite(parts).all() else float(parts.max())


def _differences(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> list[float]:
    """Relative differences of what both have: evaluations after training are not made again."""
    params = [name for name in {*ours, *theirs} if name.startswith("params") and not (name in ours and name in theirs)]
    return [math.inf] * len(params) + [_relative(ours[name], theirs[name]) for name in theirs if name in ours]


def _row_differences(rows: Sequence[Mapping[str, float]], again: Sequence[Mapping[str, float]]) -> list[float]:
    if len(rows) != len(again):
        return [math.inf]
    nan = math.nan
    return [
        _relative(np.asarray(one.get(name, nan)), np.asarray(other.get(name, nan)))
        for one, other in zip(rows, again, strict=True)
        for name in {*one, *other}
    ]


def _spread(path: Path, peers: Sequence[Path]) -> dict[str, float]:
    """Range of every final metric over runs that differ in the seed alone; without any, nothing is claimed."""
    without_seed = lambda place: {
        key: value for key, value in flatten(RunFolder(place).read_config()["config"]).items() if key != "seed"
    }
    own = without_seed(path)
    values: dict[str, list[float]] = {}
    for peer in peers:
        result = RunFolder(peer).read_result() or {}
        if result.get("status") in ("completed", "stopped") and without_seed(peer) == own:
            for name, value in result["metrics"].items():
                if value is not None:
                    values.setdefault(name, []).append(value)
    return {name: max(found) - min(found) for name, found in values.items() if len(found) > 1}


def stamp(path: Path, finding: Finding) -> None:
    """Write into `result.json` what came out."""
    run = RunFolder(path)
    result = run.read_result()
    assert result is not None
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"outcome": finding.outcome, "detail": finding.detail, "at": now}
    run.write_result({**result, "verified": about | {"commit": commit(), "device_kind": device_kind()}})


def verify(
    folder: Path, members: int, seed: int, root: str | None, trusted: Sequence[str], options: Options, display: Display
) -> bool:
    """Check all files, and train some runs again; whether all is good."""
    if read_manifest(folder) is None:
        raise ConfigError("folder", folder, "no sweep.json is here; name the folder of a sweep")
    with locked(folder):
        findings = whole(folder)
        bad = [finding for finding in findings if not finding.good]
        for finding in bad:
            display.note(f"{finding.outcome}: {finding.run}: {finding.detail}")
        unfinished = sum(finding.detail == "not finished" for finding in findings)
        display.note(
            f"{len(findings)} runs: {len(findings) - len(bad) - unfinished} whole, {unfinished} not finished, "
            f"{len(bad)} damaged"
        )
        present, damaged = runs_in(folder), {finding.run for finding in bad}
        trained = [
            path
            for path in sorted(present.values())
            if path.name not in damaged and (RunFolder(path).read_result() or {}).get("status") in TRAINED
        ]
        chosen = np.random.default_rng(seed).permutation(len(trained))[:members]
        for path in [trained[index] for index in chosen]:
            bound = rebuilt(path, root, trusted)
            finding = again(path, bound, options, trained)
            stamp(path, finding)
            display.note(f"{finding.outcome}: {finding.run}{f': {finding.detail}' if finding.detail else ''}")
            bad += [] if finding.good else [finding]
    return not bad


# -------------------------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `scripts/verify.py`; 0: all is good, 1: something is damaged or different, 2: refused."""
    import argparse
    import sys

    parser = argparse.ArgumentParser(
        prog="verify.py",
        description="Check that every file of a sweep is whole, and train some of its runs again to compare.",
        epilog="example: python scripts/verify.py outputs/first --members 3",
    )
    parser.add_argument("folder", metavar="SWEEP_FOLDER", type=Path)
    parser.add_argument("--members", type=int, default=3, metavar="N", help="runs to train again (default: 3; 0: none)")
    parser.add_argument("--seed", type=int, default=0, help="which ones are drawn (default: 0)")
    parser.add_argument(
        "--replay", metavar="RUN", help="train this diverged run again and name what was first not finite"
    )
    parser.add_argument("--data-root", metavar="FOLDER", help="where the data lie, if not where the sweep found them")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package of the runs' own models"
    )
    chosen = parser.parse_args(arguments)
    display = Display()
    from research.sweep.program import use_compile_cache

    use_compile_cache()
    try:
        options = _options()
        folder = chosen.folder.absolute()
        if chosen.members < 0:
            raise ConfigError("--members", chosen.members, "must not be negative")
        if chosen.replay:
            found = [path for path in runs_in(folder).values() if chosen.replay == path.name]
            if not found:
                raise ConfigError("--replay", chosen.replay, f"no such run in {folder}")
            return 0 if replay(found[0], chosen.data_root, chosen.trust, options, display) else 1
        good = verify(folder, chosen.members, chosen.seed, chosen.data_root, chosen.trust, options, display)
        return 0 if good else 1
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _options() -> Options:
    """The settings of a sweep as shipped, for one program at a time on one device."""
    settings = {**shipped("train")["sweep"], "mode": "map", "concurrency": 1, "devices": 1}
    return build(settings, Options, key="sweep")
