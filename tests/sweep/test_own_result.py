"""The finished run of a job: its own result alone, whole, beside the files that it sealed; the code that made it."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.evaluation import evaluate_run
from research.runs.folder import RunFolder
from research.sweep.command import prepare, run
from research.sweep.folder import own_result
from research.sweep.job import check_warm_start
from research.sweep.proof.intact import check_files
from research.sweep.train import ledger
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


def commit_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(ledger, "__file__", str(root / "research" / "sweep" / "train" / "ledger.py"))
    return ledger.commit.__wrapped__()


@pytest.mark.needs("git")
def test_the_commit_has_a_plus_if_the_code_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(tmp_path, monkeypatch) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "research" / "models").mkdir(parents=True)
    (tmp_path / "outputs").mkdir()
    for other in ("notes.txt", "outputs/table.md", "research/models/own.pyc"):
        (tmp_path / other).write_text("")
    clean = commit_of(tmp_path, monkeypatch)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "research" / "models" / "own.py").write_text("")
    assert commit_of(tmp_path, monkeypatch) == f"{clean}+"
    (tmp_path / "research" / "models" / "own.py").unlink()
    (tmp_path / ".gitignore").write_text("*.pyc\n*.pyo\n")
    assert commit_of(tmp_path, monkeypatch) == f"{clean}+"


def test_a_result_names_the_code_that_trained_and_the_code_that_evaluated_again(
    train: Train, make_jobs: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Display, "note", lambda self, text: notes.append(text))
    jobs = make_jobs("seed=0,1")
    older, newer = "a" * 40, "b" * 40

    def commits(at: str, asked: list[Any]) -> list[tuple[str, str | None]]:
        monkeypatch.setattr(ledger, "commit", lambda: at)
        notes.clear()
        results = [outcome.result for outcome in train(asked)]
        return [(result["commit"], result.get("evaluation_commit")) for result in results]

    assert commits(older, jobs) == [(older, None)] * 2
    assert commits(older, jobs) == [(older, None)] * 2
    assert not [note for note in notes if "finished" in note]
    assert commits(newer, jobs) == [(older, None)] * 2
    (note,) = [note for note in notes if "finished" in note]
    assert note.startswith("note: 2 finished runs stay as evaluated by commit aaaaaaaaaaaa, without metrics")
    assert commits(newer, evaluated_anew(jobs)) == [(older, newer)] * 2
    assert commits(newer, jobs) == [(older, newer)] * 2
    assert commits(newer, jobs) == [(older, newer)] * 2
    assert not [note for note in notes if "finished" in note]
    assert commits(older, evaluated_anew(jobs)) == [(older, None)] * 2


def test_a_metric_that_is_new_comes_to_finished_runs_as_the_note_says(
    train: Train, make_jobs: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs("seed=0,1")
    before = [outcome.result for outcome in train(jobs)]

    def with_another(subject: Any) -> Any:
        findings = evaluate_run(subject)
        findings.add({"code_norm": 1.0}, "test/")
        return findings

    monkeypatch.setattr("research.sweep.train.finish.evaluate_run", with_another)
    train(jobs)
    assert [outcome.result["metrics"] for outcome in train(jobs)] == [result["metrics"] for result in before]
    train(evaluated_anew(jobs))
    for result, first in zip([outcome.result for outcome in train(jobs)], before, strict=True):
        assert result["metrics"] == first["metrics"] | {"test/code_norm": 1.0}
        assert result["evaluation"] == first["evaluation"]
