"""From jobs to run folders: what is written, what is skipped, what happens when something goes wrong."""

import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research import environment
from research.runs.load import load
from research.sweep.command import prepare, run
from research.sweep.folder import Outcome
from research.sweep.manifest import check_sweep
from research.sweep.train.display import Display
from research.tree import ConfigError

Jobs = Callable[..., list[Any]]
CONTRACT = {
    "run_id",
    "status",
    "reason",
    "overrides",
    "command",
    "config_hash",
    "data_sha256",
    "metrics",
    "seconds_device_share",
    "seconds_wall_group",
    "program",
    "versions",
    "commit",
}


def strict_json(path: Path) -> Any:
    """Parsed JSON; NaN and infinities are errors."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


class Sweeps:
    """Runs sweeps in one folder."""

    def __init__(self, folder: Path, make_options: Callable[..., Any]):
        self.folder, self.make_options = folder, make_options
        self.registered: list[Path] = []

    def __call__(self, jobs: list[Any], display: Display | None = None, **options: Any) -> list[Outcome]:
        chosen = self.make_options(**options)
        return run(
            prepare(jobs, self.folder, chosen),
            jobs,
            name=self.folder.name,
            objective="validation/loss",
            options=chosen,
            display=display or Display(),
            register=lambda bound, run: self.registered.append(run.path),
        )


@pytest.fixture
def sweep(tmp_path: Path, make_options: Callable[..., Any]) -> Sweeps:
    return Sweeps(tmp_path / "sweep", make_options)


def content(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Modification time and bytes of every file."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------ what is written


def test_every_run_has_its_files(sweep: Sweeps, make_jobs: Jobs) -> None:
    jobs = make_jobs("model.beta=1,4", "seed=0,1", "trainer.epochs=5", "trainer.evaluate_every=2")
    outcomes = sweep(jobs)
    assert [outcome.job.hash for outcome in outcomes] == [job.hash for job in jobs]
    assert sweep.registered == [sweep.folder / job.run_id for job in jobs]
    for outcome, job in zip(outcomes, jobs, strict=True):
        assert outcome.folder == sweep.folder / job.run_id
        result = strict_json(outcome.folder / "result.json")
        assert set(result) >= CONTRACT
        assert result["status"] == outcome.status == "completed"
        assert result["reason"] is None
        assert result["run_id"] == job.run_id
        assert result["overrides"] == list(job.overrides)
        assert result["config_hash"] == job.hash
        assert len(result["data_sha256"]) == 64
        assert result["program"].items() >= {"mode": "map", "width": 1, **environment.described()}.items()
        assert result["program"].keys() == {"mode", "width", "device_kind", "threads", "flags", "compiler"}
        assert result["seconds_device_share"] == result["seconds_wall_group"] > 0
        assert result["versions"].keys() >= {"python", "jax", "flax", "optax"}
        assert all(override in result["command"] for override in job.overrides)
        assert {"validation/loss", "test/loss", "test/kl_nats"} <= set(result["metrics"])
        assert outcome.objective() == result["metrics"]["validation/loss"]
        config = strict_json(outcome.folder / "config.json")
        assert config["config"] == job.tree()
        assert config["config_hash"] == job.hash
        assert list(outcome.folder.glob("events.out.tfevents.*"))
        rows = list(csv.DictReader((outcome.folder / "metrics.csv").read_text().splitlines()))
        assert [(row["step"], row["epoch"]) for row in rows] == [("8", "2"), ("16", "4"), ("20", "5")]
        assert {"train/loss", "validation/loss"} <= set(rows[0])
        best = min(float(row["validation/loss"]) for row in rows)
        assert result["metrics"]["validation/loss"] == pytest.approx(best, rel=1e-6)
        assert result["best_epoch"] == int(min(rows, key=lambda row: float(row["validation/loss"]))["epoch"])
    # four seeds and betas are four results
    assert len({outcome.result["metrics"]["test/loss"] for outcome in outcomes}) == 4


def test_parameters_of_a_run_can_be_used(sweep: Sweeps, make_jobs: Jobs) -> None:
    from research.sweep.job import bind

    jobs = make_jobs("seed=0,1")
    codes = []
    for outcome in sweep(jobs):
        loaded = load(outcome.folder)
        dataset = bind(outcome.job).dataset
        x = dataset.examples.take(dataset.splits[0].test).x
        codes.append(loaded.encode(x))
        assert codes[-1].shape == (16, 2)
        mse = np.square(loaded.reconstruct(x) - x).mean()
        assert mse == pytest.approx(outcome.result["metrics"]["test/reconstruction_mse"], rel=1e-4)
    assert not np.allclose(*codes)


def test_the_manifest_lists_what_was_swept(sweep: Sweeps, make_jobs: Jobs) -> None:
    jobs = make_jobs("model.beta=1,4", "seed=0,1", "trainer.epochs=2")
    sweep(jobs)
    manifest = strict_json(sweep.folder / "sweep.json")
    assert manifest["name"] == "sweep"
    assert manifest["swept"] == ["model.beta", "seed"]
    assert {name: about["config_hash"] for name, about in manifest["runs"].items()} == {j.run_id: j.hash for j in jobs}
    assert manifest["base"]["trainer.epochs"] == 2
    assert manifest["base"].keys().isdisjoint({"model.beta", "seed"})


def test_two_equal_jobs_are_one_run(sweep: Sweeps, make_jobs: Jobs) -> None:
    outcomes = sweep(make_jobs("seed=0,0"))
    assert len(outcomes) == 2
    assert outcomes[0].folder == outcomes[1].folder
    assert len(list(sweep.folder.glob("*/result.json"))) == 1


def test_early_stopping_is_a_status_with_a_reason(sweep: Sweeps, make_jobs: Jobs) -> None:
    jobs = make_jobs("trainer.target_loss=1e9", "trainer.epochs=4", "seed=0,1")
    for outcome in sweep(jobs):
        assert outcome.status == "stopped"
        assert "epoch 1" in outcome.result["reason"]
        assert len((outcome.folder / "metrics.csv").read_text().splitlines()) == 2


# ------------------------------------------------------------------------------------------------ what is there already


def test_finished_runs_are_skipped(sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = make_jobs("model.beta=1,4")
    first = sweep(jobs)
    before = content(sweep.folder)
    monkeypatch.setattr("research.sweep.train.units.program_of", None)  # nothing may train
    second = sweep(jobs)
    assert [outcome.result for outcome in second] == [strict_json(o.folder / "result.json") for o in first]
    assert content(sweep.folder) == before
    assert len(sweep.registered) == 2


def test_added_values_train_alone(sweep: Sweeps, make_jobs: Jobs) -> None:
    before: dict[Path, Any] = {}
    for outcome in sweep(make_jobs("seed=0,1")):
        before |= content(outcome.folder)
    outcomes = sweep(make_jobs("seed=0,1,2"))
    assert [outcome.status for outcome in outcomes] == ["completed"] * 3
    assert outcomes[2].result["program"]["width"] == 1
    after = content(sweep.folder)
    assert all(after[path] == state for path, state in before.items())
    assert len(strict_json(sweep.folder / "sweep.json")["runs"]) == 3


def test_in_map_mode_an_added_run_has_the_bits_it_would_have_had(
    sweep: Sweeps, make_jobs: Jobs, tmp_path: Path
) -> None:
    sweep(make_jobs("seed=0,1"))
    added = sweep(make_jobs("seed=0,1,2"))[2]
    whole = Sweeps(tmp_path / "whole", sweep.make_options)(make_jobs("seed=0,1,2"))[2]
    name = "params.safetensors"
    assert (added.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert added.result["metrics"] == whole.result["metrics"]


def test_another_evaluation_evaluates_again_without_training(
    sweep: Sweeps, make_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = sweep([make_job()])
    before = content(sweep.folder)
    assert "test/active_units" not in first.result["metrics"]
    monkeypatch.setattr("research.sweep.train.units.program_of", None)
    (second,) = sweep([make_job("evaluation.active_units=true")])
    assert second.folder == first.folder
    assert "test/active_units" in second.result["metrics"]
    for name, value in first.result["metrics"].items():
        assert second.result["metrics"][name] == value
    after = content(sweep.folder)
    for name in ("params.safetensors", "config.json", "metrics.csv"):
        assert after[first.folder / name] == before[first.folder / name]
    assert strict_json(first.folder / "result.json")["evaluation"]["active_units"] is True
    # and is then finished
    done = content(sweep.folder)
    sweep([make_job("evaluation.active_units=true")])
    assert content(sweep.folder) == done


def test_another_sweep_in_the_folder_is_refused_with_the_difference(sweep: Sweeps, make_jobs: Jobs) -> None:
    sweep(make_jobs("model.beta=1,4", "seed=0"))
    before = content(sweep.folder)
    with pytest.raises(ConfigError, match=r"trainer\.epochs: 2 there, 3 now.*choose another name=") as error:
        sweep(make_jobs("model.beta=1,4", "seed=0", "trainer.epochs=3"))
    assert error.value.key == "name"
    assert content(sweep.folder) == before


@pytest.mark.parametrize("more", [("model.beta=1,2,4",), ("model.beta=8",), ("model.beta=1,4", "seed=0,1")])
def test_a_folder_takes_more_values(more: tuple[str, ...], sweep: Sweeps, make_jobs: Jobs) -> None:
    sweep(make_jobs("model.beta=1,4"))
    check_sweep(sweep.folder, make_jobs(*more))


def test_a_folder_of_other_things_is_refused(sweep: Sweeps, make_jobs: Jobs) -> None:
    sweep.folder.mkdir()
    (sweep.folder / "thesis.tex").write_text("text")
    with pytest.raises(ConfigError, match=r"holds thesis\.tex and no sweep"):
        sweep(make_jobs("seed=0"))
    assert [path.name for path in sweep.folder.iterdir()] == ["thesis.tex"]


def test_a_refusal_names_three_differences_and_counts_the_others(sweep: Sweeps, make_jobs: Jobs) -> None:
    sweep(make_jobs("seed=0"))
    changed = ["model.beta=2", "model.latent_dim=3", "trainer.epochs=3", "trainer.batch_size=8", "trainer.keep=last"]
    with pytest.raises(ConfigError, match=r"model\.beta: 1\.0 there, 2\.0 now; .*; and 2 others\)") as refused:
        check_sweep(sweep.folder, make_jobs(*changed))
    assert refused.value.remedy.count(" there, ") == 3


@pytest.mark.parametrize("damage", ["{", "[]", '{"runs": {}}'])
def test_a_damaged_manifest_is_refused(damage: str, sweep: Sweeps, make_jobs: Jobs) -> None:
    sweep.folder.mkdir()
    (sweep.folder / "sweep.json").write_text(damage)
    with pytest.raises(ConfigError, match="damaged"):
        sweep(make_jobs("seed=0"))


def test_a_foreign_config_in_the_folder_of_a_run_is_refused(sweep: Sweeps, make_job: Callable[..., Any]) -> None:
    job = make_job("seed=0")
    folder = sweep.folder / job.run_id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config_hash": "0" * 64, "config": {}}))
    before = content(sweep.folder)
    with pytest.raises(ConfigError, match="another configuration; choose another name="):
        sweep([job])
    assert content(sweep.folder) == before


def test_changed_data_are_refused(sweep: Sweeps, make_job: Callable[..., Any]) -> None:
    (outcome,) = sweep([make_job()])
    path = outcome.folder / "result.json"
    path.write_text(json.dumps(strict_json(path) | {"data_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="the data are not those of the finished run"):
        sweep([make_job()])


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_a_failed_program_does_not_stop_the_others(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from research.models.dense_ae import DenseAE

    def broken(*_: Any) -> Any:
        raise RuntimeError("no such thing\nmore lines")

    jobs = make_jobs("model=vae,dense_ae", "model.hidden_dims=[4,3]", "seed=0,1")[::-1]  # the failing ones first
    with monkeypatch.context() as patch:
        patch.setattr(DenseAE, "loss", broken)
        outcomes = sweep(jobs)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "completed", "completed"]
    for outcome in outcomes[:2]:
        result = strict_json(outcome.folder / "result.json")
        assert set(result) >= CONTRACT
        assert result["reason"] == "RuntimeError: no such thing"
        assert result["metrics"] == {}
        assert np.isnan(outcome.objective())
        assert not (outcome.folder / "params.safetensors").exists()
    assert "no such thing" in capsys.readouterr().err
    # failed runs are run again, finished ones are not
    finished = content(outcomes[2].folder)
    again = sweep(jobs)
    assert [outcome.status for outcome in again] == ["completed"] * 4
    assert content(outcomes[2].folder) == finished


def test_fail_fast_stops_at_the_first_failed_program(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.models.dense_ae import DenseAE

    monkeypatch.setattr(DenseAE, "loss", lambda *_: 1 / 0)
    jobs = make_jobs("model=dense_ae,vae", "model.hidden_dims=[4,2]")
    outcomes = sweep(jobs, fail_fast=True)
    assert [outcome.status for outcome in outcomes] == ["failed"]
    assert "ZeroDivisionError" in outcomes[0].result["reason"]


def test_programs_at_the_same_time_give_what_they_give_one_after_another(
    sweep: Sweeps, make_jobs: Jobs, tmp_path: Path
) -> None:
    jobs = make_jobs("model.latent_dim=2,3,4", "seed=0,1")
    one_by_one = Sweeps(tmp_path / "one", sweep.make_options)(jobs)
    for one, other in zip(one_by_one, sweep(jobs, concurrency=3), strict=True):
        assert other.status == "completed"
        assert one.result["metrics"] == other.result["metrics"]
        for name in ("params.safetensors", "metrics.csv"):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


class Interrupting(Display):
    """Interrupts the training of one program, once the runs of those before it have their results."""

    def __init__(self, number: int, before: int):
        super().__init__()
        self.number = number
        self.before = threading.Semaphore(0), before

    def finished(self, number: int, result: Any) -> None:
        self.before[0].release()

    def chunk(self, number: int, epochs: int, metrics: Any, unit: int = 0) -> None:
        if number == self.number:
            assert all(self.before[0].acquire(timeout=60) for _ in range(self.before[1]))
            raise KeyboardInterrupt


def test_an_interrupt_marks_what_is_unfinished_and_goes_on_later(
    sweep: Sweeps, make_jobs: Jobs, tmp_path: Path
) -> None:
    jobs = make_jobs("model.latent_dim=2,3,4", "seed=0,1")
    # first, so that everything is compiled: what an interrupt waits for is over before its ten seconds
    whole = Sweeps(tmp_path / "whole", sweep.make_options)(jobs)
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs, Interrupting(1, before=2))
    results = [strict_json(sweep.folder / job.run_id / "result.json") for job in jobs]
    assert [result["status"] for result in results] == ["completed"] * 2 + ["interrupted"] * 4
    assert all(set(result) >= CONTRACT and result["reason"] for result in results[2:])
    finished = content(sweep.folder / jobs[0].run_id)
    outcomes = sweep(jobs)
    assert [outcome.status for outcome in outcomes] == ["completed"] * 6
    assert content(sweep.folder / jobs[0].run_id) == finished
    # and the results are those of an uninterrupted sweep
    for one, other in zip(outcomes, whole, strict=True):
        assert one.result["metrics"] == other.result["metrics"]
        for name in ("params.safetensors", "metrics.csv"):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


def test_an_interrupt_between_results_keeps_those_that_are_written(sweep: Sweeps, make_jobs: Jobs) -> None:
    class Late(Display):
        def finished(self, number: int, result: Any) -> None:
            raise KeyboardInterrupt

    jobs = make_jobs("seed=0,1")
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs, Late())
    statuses = [strict_json(sweep.folder / job.run_id / "result.json")["status"] for job in jobs]
    assert statuses[0] == "completed"
    assert statuses[1] in ("completed", "interrupted")  # as far as the background had come
    finished = content(sweep.folder / jobs[0].run_id)
    assert [outcome.status for outcome in sweep(jobs)] == ["completed"] * 2
    assert content(sweep.folder / jobs[0].run_id) == finished


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_a_diverged_member_has_a_reason_and_its_neighbour_healthy_bits(
    mode: str, sweep: Sweeps, make_jobs: Jobs, tmp_path: Path
) -> None:
    wild, calm = sweep(make_jobs("optimizer.learning_rate=1e30,0.01"), mode=mode)
    assert wild.status == "diverged"
    assert "not finite at step" in wild.result["reason"]
    assert "(epoch 1)" in wild.result["reason"]
    result = strict_json(wild.folder / "result.json")
    assert set(result) >= CONTRACT
    assert not [name for name in result["metrics"] if name.startswith("test/")]
    assert np.isnan(wild.objective())
    assert not (wild.folder / "params.safetensors").exists()
    with pytest.raises(ConfigError, match=r"diverged \(loss, gradient or update not finite at step"):
        load(wild.folder)
    healthy = Sweeps(tmp_path / "healthy", sweep.make_options)
    _, other = healthy(make_jobs("optimizer.learning_rate=0.02,0.01"), mode=mode)
    assert calm.status == other.status == "completed"
    assert calm.result["metrics"] == other.result["metrics"]
    for name in ("params.safetensors", "metrics.csv"):
        assert (calm.folder / name).read_bytes() == (other.folder / name).read_bytes()
    # a diverged run is a result: it is not trained again
    assert [o.status for o in sweep(make_jobs("optimizer.learning_rate=1e30,0.01"), mode=mode)] == [
        "diverged",
        "completed",
    ]
    assert len(sweep.registered) == 2


def test_a_run_that_diverges_late_keeps_its_best_parameters(sweep: Sweeps, make_jobs: Jobs) -> None:
    """A rate that grows over the warm-up: the first epoch is finite, the third is not."""
    grows = ("optimizer=sgd", "optimizer.learning_rate=4", "optimizer.warmup_epochs=4", "trainer.epochs=4")
    (outcome,) = sweep(make_jobs(*grows))
    assert outcome.status == "diverged"
    assert outcome.result["best_epoch"] == 1
    rows = (outcome.folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 3  # the row of the divergence is the last one
    kept = load(outcome.folder)
    assert all(np.isfinite(value).all() for value in kept.params["encoder"]["output"].values())
    # they are those that an unbroken run has after its first epoch
    (short,) = make_jobs(*grows[:3], "trainer.epochs=4", "trainer.target_loss=1e9")
    (stopped,) = Sweeps(sweep.folder.with_name("short"), sweep.make_options)([short])
    name = "params.safetensors"
    assert (stopped.folder / name).read_bytes() == (outcome.folder / name).read_bytes()


# ---------------------------------------------------------------------------------------------------------- warm start


def test_a_warm_start_goes_on_from_a_finished_run(sweep: Sweeps, make_jobs: Jobs, tmp_path: Path) -> None:
    (first,) = sweep(make_jobs("seed=3"))
    still = ("optimizer=sgd", "optimizer.learning_rate=1e-30", f"trainer.warm_start={first.folder}", "seed=0,1")
    for outcome in Sweeps(tmp_path / "on", sweep.make_options)(make_jobs(*still)):
        assert outcome.status == "completed"
        assert (outcome.folder / "params.safetensors").read_bytes() == (
            first.folder / "params.safetensors"
        ).read_bytes()
        assert outcome.result["lineage"] == {"run": first.folder.name, "config_hash": first.job.hash}


def test_a_warm_start_of_another_shape_is_refused_before_anything_is_written(
    sweep: Sweeps, make_jobs: Jobs, tmp_path: Path
) -> None:
    (first,) = sweep(make_jobs("seed=3"))
    other = Sweeps(tmp_path / "other", sweep.make_options)
    with pytest.raises(
        ConfigError, match=r"trainer\.warm_start.*shape \(2, 4\) of float32, this model needs shape \(3"
    ):
        other(make_jobs(f"trainer.warm_start={first.folder}", "model.latent_dim=3"))
    with pytest.raises(ConfigError, match=r"trainer\.warm_start.*no such folder"):
        other(make_jobs(f"trainer.warm_start={tmp_path / 'nowhere'}"))
    for folder in (tmp_path, sweep.folder):
        with pytest.raises(ConfigError, match=r"this is no run \(did you mean ") as caught:
            other(make_jobs(f"trainer.warm_start={folder}"))
        assert f"'trainer.warm_start=\"{first.folder}\"'" in str(caught.value)
    assert not other.folder.exists()


def test_a_folder_is_one_commands_at_a_time(sweep: Sweeps, make_job: Callable[..., Any]) -> None:
    from research.runs.lease import acquire
    from research.sweep.folder import LEASE

    with (
        acquire(sweep.folder / LEASE, "name", "sweep", interval=0.05),
        pytest.raises(ConfigError, match=r"name=sweep: held by .*pid \d+"),
    ):
        sweep([make_job()])
    assert not sweep.folder.exists()  # the holder had made it
    assert sweep([make_job()])[0].status == "completed"


def test_a_failed_evaluation_keeps_the_training_and_is_done_again(
    sweep: Sweeps, make_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("no codes today")

    with monkeypatch.context() as patch:
        patch.setattr("research.sweep.train.finish.evaluate_run", broken)
        (first,) = sweep([make_job("evaluation.active_units=true")])
    assert first.status == "completed"
    assert "test/loss" in first.result["metrics"]
    assert "no codes today" in first.result["null_reasons"]["test/evaluation"]
    monkeypatch.setattr("research.sweep.train.units.program_of", None)  # nothing may train
    (second,) = sweep([make_job("evaluation.active_units=true")])
    assert "test/active_units" in second.result["metrics"]
    assert "test/evaluation" not in second.result["metrics"]


def test_new_runs_on_changed_data_are_refused(sweep: Sweeps, make_job: Callable[..., Any]) -> None:
    (first,) = sweep([make_job()])
    path = first.folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="the data are not those of the run"):
        sweep([make_job("seed=7")])


def test_a_damaged_result_is_refused_before_anything_is_trained(sweep: Sweeps, make_job: Callable[..., Any]) -> None:
    (first,) = sweep([make_job()])
    (first.folder / "result.json").write_text("{")
    with pytest.raises(ConfigError, match=r"result\.json"):
        sweep([make_job("data.split_seed=6"), make_job("data.split_seed=7")])
    assert len(list(first.folder.parent.glob("*/config.json"))) == 1
