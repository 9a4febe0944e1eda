"""Proof of a folder: whole files, and runs trained again that come out as they were."""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.sweep.command import prepare, run
from research.sweep.job import bind, load_start
from research.sweep.proof.retrain import RunRecord, _judge, _scores, group_of, start
from research.sweep.proof.verify import _options, main
from research.sweep.train.display import Display

Jobs = Callable[..., list[Any]]
Train = Callable[..., list[Any]]


def sweep(folder: Path, jobs: list[Any], options: Any) -> list[Any]:
    about = {"name": folder.name, "objective": "validation/loss", "options": options, "display": Display()}
    return run(prepare(jobs, folder, options), jobs, **about)


@pytest.fixture
def train(tmp_path: Path, make_options: Callable[..., Any]) -> Train:
    """`train(jobs, mode="vmap")`: a sweep in the folder `sweep`."""
    return lambda jobs, name="sweep", **options: sweep(tmp_path / name, jobs, make_options(**options))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, make_jobs: Jobs, make_options: Callable[..., Any]) -> Path:
    """Three seeds in vmap mode, three evaluations each."""
    folder = tmp_path_factory.mktemp("verify") / "sweep"
    jobs = make_jobs("seed=0,1,2", "trainer.epochs=6", "trainer.evaluate_every=2")
    sweep(folder, jobs, make_options(mode="vmap"))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of that sweep."""
    return Path(shutil.copytree(original, tmp_path / "sweep"))


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`ended(folder, "--members", "3")`: exit code and all that was written."""

    def call(folder: Path, *arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(folder), *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def first(folder: Path) -> RunFolder:
    return RunFolder(min(folder.glob("*/result.json")).parent, ALONE)


def rewrite(run: RunFolder, **changes: Any) -> None:
    """Change a result, with hashes of the files as they are now."""
    result: Any = run.read_result()
    run.write_result({**result, "files": run.hashes(), **changes})


# ------------------------------------------------------------------------------------------------------- training again


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_runs_trained_again_have_the_same_bits(mode: str, train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any):
    train(make_jobs("model.beta=1,4", "seed=0,1,2", *(["data=digits"] if mode == "map" else [])), mode=mode)
    code, out = ended(tmp_path / "sweep", "--members", "2")
    assert code == 0
    assert "6 runs: 6 whole, 0 not finished, 0 damaged" in out
    assert out.count("bit-equal: ") == 2
    results = [RunFolder(path.parent).read_result() or {} for path in (tmp_path / "sweep").glob("*/result.json")]
    stamps = [result["verified"] for result in results if "verified" in result]
    assert [stamp["outcome"] for stamp in stamps] == ["bit-equal"] * 2
    code, out = ended(tmp_path / "sweep", "--members", "1000")
    assert code == 0
    assert out.count("bit-equal: ") == 6


def test_the_drawn_runs_change_and_can_be_drawn_again(folder: Path, ended: Any, monkeypatch: pytest.MonkeyPatch):
    from research.sweep.proof.intact import Finding

    monkeypatch.setattr("research.sweep.proof.verify._again", lambda run, *_: Finding(run.path.name, "bit-equal"))
    draws = [ended(folder, "--members", "1")[1].split("--seed ")[1].splitlines() for _ in range(12)]
    assert len({seed for seed, _ in draws}) == 12
    assert len({drawn for _, drawn in draws}) > 1
    for seed, drawn in draws[:3]:
        assert drawn in ended(folder, "--members", "1", "--seed", seed)[1]


def test_ends_of_every_kind_come_out_again(train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any):
    rates = "optimizer.learning_rate=1e30,1e-9,0.01"
    outcomes = train(make_jobs(rates, "trainer.patience=2", "trainer.monitor=validation/elbo_nats", "trainer.epochs=6"))
    assert {outcome.status for outcome in outcomes} >= {"diverged", "stopped"}
    code, out = ended(tmp_path / "sweep")
    assert code == 0
    assert out.count("bit-equal: ") == 3


def test_a_run_that_diverged_late_has_the_same_best_parameters(
    train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any
):
    grows = ("optimizer=sgd", "optimizer.learning_rate=4", "optimizer.warmup_epochs=4", "trainer.epochs=4")
    (outcome,) = train(make_jobs(*grows))
    assert outcome.status == "diverged"
    assert (outcome.folder / "params.safetensors").exists()
    code, out = ended(tmp_path / "sweep")
    assert code == 0
    assert "bit-equal: " in out
    rewrite(RunFolder(outcome.folder, ALONE), first_bad_step=outcome.result["first_bad_step"] + 1)
    assert ended(tmp_path / "sweep")[0] == 1


def test_a_pruned_run_is_trained_as_far_as_it_came(train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any):
    jobs = make_jobs("optimizer.learning_rate=1e-6,1e-5,0.01", "trainer.epochs=4")
    assert "pruned" in {outcome.status for outcome in train(jobs, prune="median")}
    code, out = ended(tmp_path / "sweep")
    assert code == 0
    assert out.count("bit-equal: ") == 3


def test_averaged_parameters_come_out_again_with_their_scores(
    train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any
):
    steps = ("trainer.compute_dtype=bfloat16", "trainer.accumulate=2", "trainer.batch_size=8")
    (outcome,) = train(make_jobs("trainer.ema=0.5", "trainer.keep=last", *steps))
    code, out = ended(tmp_path / "sweep")
    assert code == 0
    assert "bit-equal: " in out
    program = start(group_of(bind(outcome.job), outcome.result["program"], _options()))
    scores = _scores(program, program.collect(), RunFolder(outcome.folder).load_parameters()[0])
    assert scores == {name: outcome.result["metrics"][name] for name in scores}


def test_a_run_that_was_evaluated_again_keeps_its_new_metrics(
    train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any
):
    train(make_jobs("seed=0"))
    (outcome,) = train(make_jobs("seed=0", "evaluation.active_units=true"))
    assert "test/active_units" in outcome.result["metrics"]
    code, out = ended(tmp_path / "sweep")
    assert code == 0
    assert "bit-equal: " in out
    after: Any = RunFolder(outcome.folder).read_result()
    assert after.pop("verified")["outcome"] == "bit-equal"
    assert after == json.loads(json.dumps(outcome.result))


def test_a_warm_start_is_started_from_again(train: Train, make_jobs: Jobs, tmp_path: Path, ended: Any):
    (begun,) = train(make_jobs("seed=3"), name="begun")
    (outcome,) = train(make_jobs(f"trainer.warm_start={begun.folder}", "seed=0"))
    code, out = ended(tmp_path / "sweep")
    assert code == 0
    assert "bit-equal: " in out
    program = start(group_of(bind(outcome.job), outcome.result["program"], _options()))
    for one, other in zip(
        jax.tree.leaves(program.state.params),
        jax.tree.leaves(RunFolder(begun.folder).load_parameters()[0]),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    shutil.move(begun.folder, tmp_path / "elsewhere")
    load_start.cache_clear()
    code, out = ended(tmp_path / "sweep")
    assert code == 2
    assert "not checked: " in out
    assert "trainer.warm_start=" in out
    assert "no such folder" in out


def test_data_that_moved_are_named(train: Train, make_job: Callable[..., Any], tmp_path: Path, ended: Any):
    from research.tree import build, plain

    rows = np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)
    for place in ("here", "there", "others"):
        (tmp_path / place).mkdir()
    np.save(tmp_path / "here" / "rows.npy", rows)
    np.save(tmp_path / "others" / "rows.npy", rows + 1)
    plain_job = make_job("seed=0")
    known = {name: value for name, value in plain(plain_job.data).items() if name not in ("rows", "features", "rank")}
    own = {"_target_": "research.data.tables.Arrays", "path": "rows.npy", "test_path": None, "target": None}
    own |= {"key": None, "test_fraction": 0.2, "binarize": "none", "root": str(tmp_path / "here")}
    own |= {"decimal": "point", "encoding": "utf-8"}
    own |= dict.fromkeys(("task", "columns", "header", "separator", "missing"))
    known = {name: known[name] for name in known if name in ("split_seed", "validation_fraction", "folds", "fold")}
    sizes = {"scaling": "standard", "train_size": None, "validation_size": None, "test_size": None}
    data = build(known | sizes | own)
    train([dataclasses.replace(plain_job, data=data, overrides=(f"data.root={tmp_path / 'here'}",))])
    assert ended(tmp_path / "sweep")[0] == 0
    shutil.move(tmp_path / "here" / "rows.npy", tmp_path / "there" / "rows.npy")
    code, out = ended(tmp_path / "sweep")
    assert code == 2
    assert "not checked: " in out
    assert "--data-root FOLDER" in out
    code, out = ended(tmp_path / "sweep", "--data-root", str(tmp_path / "there"))
    assert code == 0
    assert "bit-equal: " in out
    code, out = ended(tmp_path / "sweep", "--data-root", str(tmp_path / "others"))
    assert code == 2
    assert "the data are not those of the run" in out


# --------------------------------------------------------------------------------------------------------- difference


def test_other_numbers_under_right_hashes_are_different(folder: Path, ended: Any):
    run = first(folder)
    params, scaling = run.load_parameters()
    params["encoder"]["output"]["bias"] = np.nextafter(params["encoder"]["output"]["bias"], np.float32(9))
    run.save_parameters(params, scaling)
    rewrite(run)
    code, out = ended(folder)
    assert code == 1
    assert f"different: {run.path.name}: its rows of metrics come out the same, but not " in out
    assert out.count("bit-equal: ") == 2
    assert (run.read_result() or {})["verified"]["outcome"] == "different"


def narrowed(run: RunFolder, factor: float, **metrics: float) -> None:
    """A run as from a program that was narrowed: its rows of epoch 4 differ by a factor."""
    header, *rows = [line.split(",") for line in run.metrics.read_text().splitlines()]
    at = header.index("validation/loss")
    rows[1][at] = str(float(rows[1][at]) * factor)
    run.metrics.write_text("".join(",".join(row) + "\n" for row in (header, *rows)))
    result: Any = run.read_result()
    rewrite(run, widths=[[0, 3], [2, 2]], metrics=result["metrics"] | metrics)


def test_a_narrowed_run_has_a_tolerance(folder: Path, ended: Any):
    run = first(folder)
    narrowed(run, 1 + 1e-6)
    code, out = ended(folder)
    assert code == 0
    assert f"within tolerance: {run.path.name}: largest relative difference 1e-06 (validation/loss), 1e-06 on " in out
    assert "its program was narrowed while it trained, to widths 3, 2: bits then depend on its neighbours" in out
    narrowed(run, 1 + 1e-4)
    code, out = ended(folder)
    assert code == 1
    assert f"different: {run.path.name}: largest relative difference 0.0001 (validation/loss)" in out


def test_final_metrics_may_differ_as_much_as_seeds_do(folder: Path, ended: Any):
    run = first(folder)
    values = [json.loads(path.read_text())["metrics"]["test/kl_nats"] for path in folder.glob("*/result.json")]
    own = (run.read_result() or {})["metrics"]["test/kl_nats"]
    spread = max(values) - min(values)
    narrowed(run, 1 + 1e-6, **{"test/kl_nats": own + 1.5 * spread})
    code, out = ended(folder)
    assert code == 1
    assert f"test/kl_nats was {own + 1.5 * spread:.6g} and is {own:.6g}, seeds differ by " in out


def test_metrics_belong_to_the_parameters_beside_them(folder: Path, ended: Any):
    run = first(folder)
    narrowed(run, 1 + 1e-6)
    params, scaling = run.load_parameters()
    run.save_parameters(jax.tree.map(lambda leaf: leaf * np.float32(1.01), params), scaling)
    rewrite(run)
    code, out = ended(folder)
    assert code == 1
    assert f"different: {run.path.name}: its metrics are not those of its parameters" in out


ENDED = {"status": "completed", "epochs": 4, "best_epoch": 4, "first_bad_step": None}


@pytest.mark.parametrize(
    ("change", "outcome", "said"),
    [
        ({}, "within tolerance", ""),
        ({"metrics": {"test/loss": 1.009}}, "within tolerance", "0.0089 (test/loss)"),
        ({"metrics": {"test/loss": 1.02}}, "different", "no other seed was trained, the limit is 0.01"),
        ({"metrics": {"test/loss": math.nan}}, "different", "test/loss was nan and is 1"),
        ({"metrics": {}}, "different", "test/loss was nan"),
        ({"rows": {2: {"train/loss": 1.0}, 4: {"train/loss": 1 + 3e-5}}}, "different", "3e-05 on losses of the first"),
        ({"rows": {2: {"train/loss": 1.0}, 9: {"train/loss": 7.0}}}, "within tolerance", ""),
        ({"ended": ENDED | {"epochs": 6}}, "within tolerance", "epochs was 6 and is 4"),
        ({"ended": ENDED | {"status": "stopped"}}, "different", "status was stopped and is completed"),
        ({"params": {"w": np.ones(3)}}, "different", "other names, types or shapes"),
    ],
)
def test_the_tolerance_is_on_early_losses_and_final_metrics(change: dict[str, Any], outcome: str, said: str):
    rows = {2: {"train/loss": 1.0}, 4: {"train/loss": 1.0}}
    now = RunRecord(ENDED, {"w": np.ones(2)}, {}, {"test/loss": 1.0}, rows)
    before = dataclasses.replace(now, **change)
    differing = [name for name in ENDED if before.ended[name] != now.ended[name]]
    found = _judge(before, now, differing, {}, exact=False)
    assert (found.outcome, said in found.detail) == (outcome, True), found


# ---------------------------------------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("file", ["params.safetensors", "metrics.csv", "config.json"])
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_a_damaged_file_is_caught(file: str, how: str, folder: Path, ended: Any):
    run = first(folder)
    path = run.path / file
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    code, out = ended(folder, "--members", "3")
    assert code == 1
    assert f"damaged: {run.path.name}: " in out
    assert file in out
    assert "3 runs: 2 whole, 0 not finished, 1 damaged" in out
    assert out.count("bit-equal: ") == 2


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def lose_a_row(run: RunFolder) -> None:
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join([*lines[:2], *lines[3:]]))
    rewrite(run)


def repeat_a_row(run: RunFolder) -> None:
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join([*lines, lines[-1]]))
    rewrite(run)


def change_result(**changes: Any) -> Callable[[RunFolder], None]:
    return lambda run: edit(run.result, lambda result: result.update(changes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lose_a_row, "metrics.csv lacks its row of epoch 4"),
        (repeat_a_row, "metrics.csv has rows that are no evaluation of this run, or has them twice"),
        (lambda run: (run.metrics.write_text(""), rewrite(run)), "metrics.csv lacks its row of epoch 2"),
        (lambda run: shutil.rmtree(run.path), "its folder is missing"),
        (lambda run: run.result.write_text("{"), "result.json is damaged"),
        (lambda run: run.result.write_text("[]"), "result.json is damaged (it holds no JSON object)"),
        (lambda run: run.result.write_text("[" * 100_000), "result.json is damaged"),
        (change_result(status="perfect"), "result.json has the status perfect, which no run has"),
        (change_result(status=["completed"]), "result.json has the status ['completed'], which no run has"),
        (change_result(epochs=7), "result.json has 7 epochs of 6"),
        (change_result(epochs="6"), "what its files hold is not what a run writes"),
        (change_result(files={}), "result.json has no hash of config.json"),
        (change_result(data_sha256="0" * 64), "result.json and sweep.json name different data"),
        (change_result(config_hash="0" * 64), "config.json and result.json belong to different configurations"),
        (
            lambda run: edit(run.result, lambda result: result["files"].update({"../secret": "0" * 64})),
            "result.json has a hash of ../secret, which is no file of a run",
        ),
        (
            lambda run: edit(run.config, lambda config: config["config"].update(seed=9)),
            "config.json was changed: the hash that it states is another",
        ),
    ],
)
def test_what_is_wrong_with_a_run_is_said(
    spoil: Callable[[RunFolder], Any], said: str, folder: Path, ended: Any
) -> None:
    run = first(folder)
    spoil(run)
    code, out = ended(folder, "--members", "0")
    assert code == 1
    assert f"damaged: {run.path.name}: {said}" in out
    assert "3 runs: 2 whole, 0 not finished, 1 damaged" in out


def test_runs_without_an_end_are_not_damaged(folder: Path, ended: Any):
    run, *_, last = (RunFolder(path.parent, ALONE) for path in sorted(folder.glob("*/result.json")))
    run.result.unlink()
    change_result(status="interrupted")(last)
    code, out = ended(folder, "--members", "0")
    assert code == 0
    assert "3 runs: 1 whole, 2 not finished, 0 damaged" in out


def test_a_run_that_was_put_there_is_checked_too(folder: Path, ended: Any):
    edit(folder / "sweep.json", lambda manifest: manifest["runs"].pop(first(folder).path.name))
    code, out = ended(folder, "--members", "0")
    assert code == 0
    assert "3 runs: 3 whole" in out
    first(folder).parameters.unlink()
    assert ended(folder, "--members", "0")[0] == 1


# -------------------------------------------------------------------------------------------------- the stamp, refusals


def test_a_stamp_spoils_nothing(folder: Path, ended: Any, make_jobs: Jobs, make_options: Any, monkeypatch: Any):
    from research.report.collect import collect

    path = first(folder).result
    os.utime(path, (1e9, 1e9))
    before = json.loads(path.read_text())
    assert ended(folder, "--members", "3")[0] == 0
    assert ended(folder, "--members", "3")[0] == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    after = json.loads(path.read_text(), parse_constant=refuse)
    assert after.pop("verified").keys() == {"outcome", "detail", "at", "commit", "device_kind"}
    assert after == before
    assert path.stat().st_mtime == 1e9  # reports say when the newest run was trained
    assert [run.status for run in collect(folder)] == ["completed"] * 3
    monkeypatch.setattr("research.sweep.train.units.program_of", None)  # nothing may train
    jobs = make_jobs("seed=0,1,2", "trainer.epochs=6", "trainer.evaluate_every=2")
    assert [outcome.status for outcome in sweep(folder, jobs, make_options(mode="vmap"))] == ["completed"] * 3


def test_one_run_that_cannot_be_trained_leaves_the_others(
    folder: Path, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.sweep.proof import verify

    retrain, broken = verify.retrain, first(folder).path

    def sometimes(path: Path, *about: Any) -> Any:
        if path == broken:
            raise ArithmeticError("no such thing\nmore lines")
        return retrain(path, *about)

    monkeypatch.setattr(verify, "retrain", sometimes)
    code, out = ended(folder)
    assert code == 2
    assert f"not checked: {broken.name}: ArithmeticError: no such thing\n" in out
    assert out.count("bit-equal: ") == 2
    assert "verified" not in (first(folder).read_result() or {})


REFUSED: list[tuple[list[str], list[str]]] = [
    (["nowhere"], ["folder=", "no such folder"]),
    (["swepe"], ["no such folder (did you mean '/", "/sweep'?); name the folder of a sweep"]),
    (["sweep/sweep.json"], ["this is a file; name the folder of a sweep"]),
    (["empty"], ["no sweep.json is here; name the folder of a sweep"]),
    (["."], ["no sweep.json is here; name the folder of a sweep, for example /"]),
    (["RUN"], ["this is one run; name the folder of its sweep: ", "/sweep"]),
    (["sweep", "--members", "-1"], ["--members=-1: must not be negative"]),
    (["sweep", "--seed", "-1"], ["--seed=-1: must not be negative"]),
    (["sweep", "--data-root", "nowhere"], ["--data-root=nowhere: no such folder"]),
    (["sweep", "--replay", "../sweep"], ["--replay=../sweep: no such run in "]),
    (["sweep", "--replay", ".."], ["--replay=..: no such run in "]),
    (["sweep", "--replay", ""], ["--replay=: no such run in "]),
    (["sweep", "--replay", "RUN"], ["this run is completed; only a diverged one can be replayed"]),
    (["damaged"], ["sweep.json is damaged; restore or remove it"]),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_verified_is_refused_in_one_line(
    arguments: list[str], said: list[str], folder: Path, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    (folder.parent / "damaged").mkdir()
    (folder.parent / "damaged" / "sweep.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    name = first(folder).path.name
    place, *rest = [f"sweep/{name}" if word == "RUN" and not at else word for at, word in enumerate(arguments)]
    code, out = ended(Path(place), *(name if word == "RUN" else word for word in rest))
    assert code == 2
    assert out.startswith("error: ")
    assert len(out.splitlines()) == 1
    for words in said:
        assert words in out
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before
