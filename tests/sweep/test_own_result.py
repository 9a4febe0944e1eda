"""What is taken for the finished run of a job: its own result alone, whole, and beside the files that it sealed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.runs.folder import RunFolder
from research.sweep.command import prepare, run
from research.sweep.folder import own_result
from research.sweep.job import check_warm_start
from research.sweep.proof.intact import check_files
from research.sweep.train.display import Display
from research.tree import ConfigError

Train = Callable[..., list[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def train(folder: Path, make_options: Callable[..., Any]) -> Train:
    def start(jobs: list[Any]) -> list[Any]:
        options = make_options()
        about = {"name": folder.name, "objective": "validation/loss", "options": options}
        return run(prepare(jobs, folder, options), jobs, display=Display(), **about)

    return start


def evaluated_anew(jobs: list[Any]) -> list[Any]:
    """The same runs with another evaluation."""
    return [dataclasses.replace(job, evaluation=dataclasses.replace(job.evaluation, neighbors=7)) for job in jobs]


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["params.safetensors", "metrics.csv"])
def test_files_of_another_run_are_neither_evaluated_nor_sealed_again(
    name: str, train: Train, folder: Path, make_jobs: Callable[..., list[Any]]
) -> None:
    jobs = make_jobs("seed=0,1")
    one, other = (outcome.folder for outcome in train(jobs))
    swap(one / name, other / name)
    before = files(folder)
    with pytest.raises(ConfigError, match=rf"{name} is not the file that result\.json was written with"):
        train(evaluated_anew(jobs))
    assert files(folder) == before
    assert [finding.outcome for finding in check_files(folder)] == ["damaged", "damaged"]


def test_parameters_that_are_not_a_runs_own_start_no_other(
    train: Train, make_jobs: Callable[..., list[Any]], make_bounds: Callable[..., list[Any]]
) -> None:
    one, other = (outcome.folder for outcome in train(make_jobs("seed=0,1")))
    swap(one / "params.safetensors", other / "params.safetensors")
    (begun,) = make_bounds(f"trainer.warm_start={one}")
    with pytest.raises(ConfigError, match=r"trainer\.warm_start=.*params\.safetensors is not the file"):
        check_warm_start(begun)


def test_a_run_that_is_evaluated_again_keeps_its_seal(
    train: Train, folder: Path, make_jobs: Callable[..., list[Any]]
) -> None:
    jobs = make_jobs("seed=0,1")
    sealed = [outcome.result["files"] for outcome in train(jobs)]
    assert [outcome.result["files"] for outcome in train(evaluated_anew(jobs))] == sealed
    assert [finding.outcome for finding in check_files(folder)] == ["whole", "whole"]


def test_the_result_of_another_run_is_not_a_finished_run(
    train: Train, folder: Path, make_jobs: Callable[..., list[Any]]
) -> None:
    jobs = make_jobs("seed=0,1")
    one, other = (outcome.folder for outcome in train(jobs))
    (one / "result.json").write_bytes((other / "result.json").read_bytes())
    before = files(folder)
    with pytest.raises(ConfigError, match=rf"the result of another run, {other.name}\); restore it, or remove it"):
        train(jobs)
    assert files(folder) == before


def test_a_result_without_a_field_is_refused_in_one_line(
    train: Train, make_job: Callable[..., Any], folder: Path
) -> None:
    job = make_job()
    (outcome,) = train([job])
    path, content = outcome.folder / "result.json", dict(outcome.result)
    needed = ("status", "run_id", "config_hash", "data_sha256", "objective", "metrics", "reason", "epochs", "files")
    for name in (*needed, "best_epoch", "trained_metrics", "seconds_wall_group"):
        path.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
        with pytest.raises(ConfigError, match=rf"it has no '{name}'") as refusal:
            own_result(RunFolder(path.parent), job)
        assert "\n" not in str(refusal.value)
    for name, value in (("status", "done"), ("status", []), ("metrics", 3), ("epochs", "2"), ("run_id", None)):
        path.write_text(json.dumps({**content, name: value}))
        with pytest.raises(ConfigError, match=r"result\.json is not as this run wrote it"):
            own_result(RunFolder(path.parent), job)
