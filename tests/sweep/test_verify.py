"""Proof of a folder: whole files, runs trained again, a divergence that has a place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.runs.folder import RunFolder
from research.sweep.display import Display
from research.sweep.prepare import prepare
from research.sweep.run import run
from research.sweep.verify import main

Jobs = Callable[..., list[Any]]


@pytest.fixture
def trained(tmp_path: Path, make_options: Callable[..., Any]) -> Callable[..., list[Any]]:
    """`trained(jobs, mode="vmap")`: a sweep in the folder `sweep`."""

    def train(jobs: list[Any], **options: Any) -> list[Any]:
        chosen = make_options(**options)
        about = {"name": "sweep", "objective": "validation/loss", "options": chosen, "display": Display()}
        return run(prepare(jobs, tmp_path / "sweep", chosen), jobs, **about)

    return train


def verified(folder: Path) -> dict[str, Any]:
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    return {result["run_id"]: result.get("verified") for result in results}


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_runs_trained_again_have_the_same_bits(
    mode: str, trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make_jobs("model.beta=1,4", "seed=0,1,2", "data=digits")
    trained(jobs, mode=mode)
    assert main([str(tmp_path / "sweep"), "--members", "2"]) == 0
    out = capsys.readouterr().out
    assert "6 runs: 6 whole, 0 not finished, 0 damaged" in out
    assert out.count("bit-equal: ") == 2
    stamps = [stamp for stamp in verified(tmp_path / "sweep").values() if stamp]
    assert [stamp["outcome"] for stamp in stamps] == ["bit-equal"] * 2
    assert main([str(tmp_path / "sweep"), "--members", "1000"]) == 0  # a stamp spoils nothing
    assert capsys.readouterr().out.count("bit-equal: ") == 6


def test_ends_of_every_kind_are_reproduced(
    trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make_jobs("optimizer.learning_rate=1e30,1e-9,0.01", "trainer.patience=2", "trainer.epochs=5")
    statuses = {outcome.status for outcome in trained(jobs, prune="none")}
    assert statuses >= {"diverged", "completed"} or statuses >= {"diverged", "stopped"}
    assert main([str(tmp_path / "sweep")]) == 0
    assert capsys.readouterr().out.count("bit-equal: ") == 3


def test_a_pruned_run_is_compared_as_far_as_it_came(
    trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make_jobs("optimizer.learning_rate=1e-6,1e-5,0.01", "trainer.epochs=4")
    assert "pruned" in {outcome.status for outcome in trained(jobs, prune="median")}
    assert main([str(tmp_path / "sweep")]) == 0
    assert capsys.readouterr().out.count("bit-equal: ") == 3


@pytest.mark.parametrize("file", ["params.safetensors", "metrics.csv", "config.json"])
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_a_damaged_file_is_caught(
    file: str, how: str, trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = trained(make_jobs("seed=0,1"))
    path = outcomes[1].folder / file
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    assert main([str(tmp_path / "sweep"), "--members", "0"]) == 1
    captured = capsys.readouterr()
    assert "damaged: " in captured.out
    assert outcomes[1].folder.name in captured.out.replace("\n", "")


def test_other_numbers_under_right_hashes_are_different(
    trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = trained(make_jobs("seed=0"))
    folder = RunFolder(outcome.folder)
    params, scaling = folder.load_parameters()
    params["encoder"]["output"]["bias"] = params["encoder"]["output"]["bias"] + np.float32(0.5)
    folder.save_parameters(params, scaling)
    folder.write_result({**outcome.result, "files": folder.hashes()})
    assert main([str(tmp_path / "sweep")]) == 1
    assert "different: " in capsys.readouterr().out
    assert next(iter(verified(tmp_path / "sweep").values()))["outcome"] == "different"


def test_a_lost_row_and_a_lost_run_are_caught(
    trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = trained(make_jobs("seed=0,1", "trainer.epochs=3"))
    path = outcomes[0].folder / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))
    folder = RunFolder(outcomes[0].folder)
    folder.write_result({**outcomes[0].result, "files": folder.hashes()})
    shutil.rmtree(outcomes[1].folder)
    assert main([str(tmp_path / "sweep"), "--members", "0"]) == 1
    out = capsys.readouterr().out
    assert "metrics.csv lacks its row of epoch 2" in out.replace("\n", " ")
    assert "its folder is missing" in out.replace("\n", " ")


def test_what_cannot_be_verified_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no sweep.json is here" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


# --------------------------------------------------------------------------------------------------------------- replay


def test_a_divergence_has_a_step_a_quantity_and_an_operation(
    trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grows = ("optimizer=sgd", "optimizer.learning_rate=4", "optimizer.warmup_epochs=4", "trainer.epochs=4")
    jobs = make_jobs(*grows, "seed=0")
    outcome = trained(jobs, checkpoint_every=1)[0]
    assert outcome.status == "diverged"
    capsys.readouterr()
    step = outcome.result["first_bad_step"]
    assert main([str(tmp_path / "sweep"), "--replay", outcome.folder.name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"from the checkpoint of epoch {step // 4}"
    assert lines[1] == f"step {step} (epoch {step // 4 + 1})"
    assert lines[2].startswith("first not finite: ")
    assert any(line.startswith("first operation that gives something not finite: ") for line in lines)
    # and from the beginning the same
    shutil.rmtree(tmp_path / "sweep" / ".groups")
    assert main([str(tmp_path / "sweep"), "--replay", outcome.folder.name]) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[0].startswith("from the beginning")
    assert again[1:] == lines[1:]


def test_only_a_diverged_run_is_replayed(
    trained: Any, make_jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = trained(make_jobs("seed=0"))
    assert main([str(tmp_path / "sweep"), "--replay", outcome.folder.name]) == 2
    assert "this run is completed; only a diverged one" in capsys.readouterr().err
    assert main([str(tmp_path / "sweep"), "--replay", "../" + outcome.folder.name]) == 2
    assert "no such run" in capsys.readouterr().err
