"""Programs that are trained by workers elsewhere: results are those of one process, also when a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research.sweep.folder import GROUPS, LAUNCHES, LEASE, saved
from research.sweep.manifest import read_manifest
from research.sweep.plan import group_id

ROOT = Path(__file__).parents[2]
SWEEP = ["model.latent_dim=2,3", "seed=0,1", "model.hidden_dims=[4]", "evaluation=none", "sweep.mode=map"]
SWEEP += ["data.train_size=64", "trainer.batch_size=16", "trainer.epochs=40", "trainer.evaluate_every=1"]
SWEEP += ["sweep.checkpoint_every=2", "optimizer.learning_rate=0.01"]
MORE = {"submitit": ["hydra.launcher.parameters.cluster=local"]}


def start(root: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *SWEEP, f"output_root={root}", f"name={name}"]
    with open(root / f"{name}.log", "ab") as log:
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        return subprocess.Popen([*command, *more], cwd=root, stdout=log, stderr=log, env=environment)


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep in one process."""
    root = tmp_path_factory.mktemp("inline")
    assert start(root, "inline").wait(300) == 0, (root / "inline.log").read_text()
    return root / "inline"


def saved_groups(folder: Path) -> list[str]:
    """Groups of which a unit has a committed checkpoint."""
    found = []
    for name, about in ((read_manifest(folder) or {"groups": {}})["groups"]).items():
        alone = [group_id([digest], "map", 1) for digest in about["members"]]
        if any(saved(folder, unit) for unit in (alone if about["mode"] == "map" else [name])):
            found.append(name)
    return found


def kill_a_worker(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Kill the worker of the first program that has a checkpoint; its process id is in the lease of the program."""
    began = time.monotonic()
    while time.monotonic() - began < 200 and process.poll() is None:
        for group in saved_groups(folder):
            try:
                pid = json.loads((folder / GROUPS / group / LEASE).read_text())["pid"]
                assert pid not in (process.pid, os.getpid())
                os.kill(pid, signal.SIGKILL)
                return pid
            except (FileNotFoundError, ProcessLookupError, ValueError):
                continue
        time.sleep(0.01)
    raise AssertionError("no worker was there to be killed")


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["joblib", "ray", "dask", "submitit"])
def test_a_killed_workers_program_goes_to_another_and_results_are_equal(
    executor: str, inline: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, "sweep", f"hydra.launcher.executor={executor}", *MORE.get(executor, []))
    kill_a_worker(tmp_path / "sweep", process)
    code = process.wait(300)
    log = (tmp_path / "sweep.log").read_text()
    assert code == 0, log
    runs = sorted(path.parent.name for path in inline.glob("*/result.json"))
    assert len(runs) == 4
    resumed = []
    for name in runs:
        for file in ("params.safetensors", "metrics.csv"):
            assert (inline / name / file).read_bytes() == (tmp_path / "sweep" / name / file).read_bytes()
        one, other = (json.loads((root / name / "result.json").read_text()) for root in (inline, tmp_path / "sweep"))
        assert one["metrics"] == other["metrics"]
        own = [
            [line for line in result["overrides"] if not line.startswith(("output_root=", "name="))]
            for result in (one, other)
        ]
        assert own[0] == own[1]
        resumed.append(other["resumed_at"])
    assert any(resumed), log
    assert not (tmp_path / "sweep" / LAUNCHES).exists()
    assert not (tmp_path / "sweep" / GROUPS).exists()
    assert "4 runs: 4 completed" in log
