"""No object that writes into a sweep writes without a lease, nor after it has lost it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.runs.events import EventFile, projector
from research.runs.files import ALONE, All, Held, LeaseLost, write_atomically
from research.runs.folder import RunFolder
from research.runs.summary import summary
from research.sweep import manifest
from research.sweep.checkpoint import Checkpoints, remove

STATE = {"a": np.zeros(3, np.float32)}


class Taken:
    """A lease that is lost once `asked` questions were answered."""

    def __init__(self, asked: int = 0):
        self.asked = asked

    def check(self) -> None:
        self.asked -= 1
        if self.asked < 0:
            raise LeaseLost("now held by pid 1 on elsewhere")


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, with its content and when it was written."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two runs with metrics, parameters, a figure and events, a manifest, and the state of a program."""
    for name in ("a", "b"):
        run = RunFolder(tmp_path / name, ALONE)
        run.append_metrics([{"step": step, "epoch": step, "train/loss": 1.0} for step in (1, 2, 3)])
        run.save_parameters({"weight": np.ones(2, np.float32)}, {})
        run.write_figures({"rows": b"png"})
        run.write_result({"status": "completed", "files": run.hashes()})
        EventFile(run.path, ALONE).append([(step, 0.0, {"train/loss": 1.0}) for step in (1, 2, 3)])
    content = {"name": "s", "base": {}, "swept": [], "runs": {}, "groups": {}}
    manifest._write(tmp_path, content, ALONE)
    checkpoints = Checkpoints(tmp_path / manifest.GROUPS / "0", {}, pytest.fail, ALONE)
    checkpoints.save(1, STATE, {})
    checkpoints.close()
    return tmp_path


def save(folder: Path, lease: Held) -> None:
    checkpoints = Checkpoints(folder / manifest.GROUPS / "0", {}, pytest.fail, lease)
    checkpoints.save(2, STATE, {})
    checkpoints.close()


CODES = np.zeros((4, 2))
WRITERS: dict[str, Callable[[Path, Any], Any]] = {
    "file": lambda folder, lease: write_atomically(folder / "sweep.json", b"", lease),
    "config": lambda folder, lease: RunFolder(folder / "c", lease).write_config({"config_hash": "0"}),
    "result": lambda folder, lease: RunFolder(folder / "a", lease).write_result({"status": "interrupted"}),
    "rows": lambda folder, lease: RunFolder(folder / "a", lease).append_metrics(
        [{"step": 4, "epoch": 4, "train/loss": 2.0}]
    ),
    "rows again": lambda folder, lease: RunFolder(folder / "a", lease).append_metrics(
        [{"step": 2, "epoch": 2, "train/loss": 2.0}]
    ),
    "cut": lambda folder, lease: RunFolder(folder / "a", lease).cut_metrics(1),
    "parameters": lambda folder, lease: RunFolder(folder / "a", lease).save_parameters({"w": np.zeros(1)}, {}),
    "figures": lambda folder, lease: RunFolder(folder / "a", lease).write_figures({"rows": b"other", "more": b""}),
    "events": lambda folder, lease: EventFile(folder / "a", lease).append([(4, 0.0, {"train/loss": 2.0})]),
    "events again": lambda folder, lease: EventFile(folder / "a", lease).append([(2, 0.0, {"train/loss": 2.0})]),
    "new events": lambda folder, lease: EventFile(folder / "c", lease).text("about", "run"),
    "projector": lambda folder, lease: projector(
        folder / "a", lease, CODES, CODES[:, 0], (np.zeros((4, 4), np.uint8), 2, 2)
    ),
    "summary": lambda folder, lease: summary(folder, {"all": [folder / "a", folder / "b"]}, lease),
    "plan": lambda folder, lease: manifest.write_manifest(folder, [], "other", [], lease),
    "report": lambda folder, lease: manifest.record_report(folder, {"rows": ["seed"]}, lease),
    "checkpoint": save,
    "end of a state": lambda folder, lease: remove(folder / manifest.GROUPS / "0", lease),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_written_without_the_lease(writer: str, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if writer == "plan":
        monkeypatch.setattr(manifest, "base", lambda jobs: {})
    before = files(sweep)
    with pytest.raises(LeaseLost, match="pid 1 on elsewhere"):
        WRITERS[writer](sweep, Taken())
    assert files(sweep) == before
    assert not (sweep / "c").exists()
    assert not (sweep / "summary").exists()
    WRITERS[writer](sweep, ALONE)  # with it all this is written
    assert files(sweep) != before


def test_a_lease_that_is_lost_while_a_file_is_forced_to_the_disk_keeps_the_file(sweep: Path) -> None:
    before = files(sweep)
    with pytest.raises(LeaseLost):
        RunFolder(sweep / "a", Taken(1)).write_result({"status": "interrupted"})
    assert files(sweep) == before


def test_a_run_that_was_opened_without_a_lease_is_only_read(sweep: Path) -> None:
    run, before = RunFolder(sweep / "a"), files(sweep)
    assert run.read_metrics()[0]["step"] == 1
    with pytest.raises(TypeError, match="without a lease, and can only be read"):
        run.write_result({})
    assert files(sweep) == before


def test_of_several_leases_all_must_be_held() -> None:
    All((ALONE, All())).check()
    with pytest.raises(LeaseLost):
        All((ALONE, Taken())).check()


def test_a_summary_that_another_wrote_meanwhile_stays(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"all": [sweep / "a", sweep / "b"]}
    summary(sweep, groups, ALONE)
    for member in groups["all"]:
        os.utime(member / "metrics.csv", ns=(2**61, 2**61))
    before, mkdir, lease = files(sweep), Path.mkdir, Taken(100)

    def taken(path: Path, *arguments: Any, **named: Any) -> None:
        mkdir(path, *arguments, **named)
        lease.asked = 0

    monkeypatch.setattr(Path, "mkdir", taken)
    with pytest.raises(LeaseLost):
        summary(sweep, groups, lease)
    assert files(sweep) == before
