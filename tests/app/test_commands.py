"""What the command prints, writes and ends with."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
Command = Callable[..., Any]
Results = Callable[[Path], list[dict[str, Any]]]


def runs(folder: Path) -> dict[str, Path]:
    """Hash digits -> run folder."""
    return {path.parent.name.rpartition("-")[2]: path.parent for path in folder.glob("*/config.json")}


def same_run(one: Path, other: Path) -> None:
    """The same parameters, curves and metrics bit for bit."""
    for name in ("params.safetensors", "metrics.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (one, other))
    assert first["metrics"] == second["metrics"]
    assert first["config_hash"] == second["config_hash"]


# -------------------------------------------------------------------------------------------------- sweeps and programs


def test_numbers_and_seeds_share_a_program(tiny: Command, outputs: Path, results: Results) -> None:
    sweep = ("-m", "model=vae", "model.latent_dim=2,3", "model.beta=1,4", "seed=0,1", "sweep.mode=vmap", "name=grid")
    ended = tiny(*sweep)
    assert ended.code == 0, ended.err
    assert "8 jobs, 2 programs\n" in ended.out
    written = results(outputs / "grid")
    assert [result["status"] for result in written] == ["completed"] * 8
    assert {tuple(result["program"].items())[:2] for result in written} == {(("mode", "vmap"), ("width", 4))}
    assert len({result["metrics"]["test/loss"] for result in written}) == 8
    # and nothing is left to do
    again = tiny(*sweep)
    assert again.code == 0
    assert "0 jobs, 0 programs (8 more finished already)" in again.out


def test_families_are_programs_of_one_sweep_folder(tiny: Command, outputs: Path, results: Results) -> None:
    ended = tiny("-m", "model=dense_ae,vae", "seed=0,1")
    assert ended.code == 0, ended.err
    assert "4 jobs, 2 programs\n" in ended.out
    (folder,) = outputs.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name)
    assert len(results(folder)) == 4


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_one_command_has_one_name_whatever_is_swept(
    launcher: str, tiny: Command, outputs: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name it is the time of the command, not of the job."""
    import itertools

    ticks = itertools.count(1_000_000_000, 100)
    monkeypatch.setattr("research.app.time.strftime", lambda *_: f"time_{next(ticks)}")
    ended = tiny("-m", "model=dense_ae,vae", f"hydra/launcher={launcher}")
    assert ended.code == 0, ended.err
    (folder,) = outputs.iterdir()
    assert len(results(folder)) == 2
    assert all(path.parent.parent == folder for path in outputs.rglob("result.json"))


def test_the_fused_launcher_gives_what_one_by_one_gives(tiny: Command, outputs: Path) -> None:
    sweep = ["model.latent_dim=2,3", "model.beta=1,4"]
    for launcher in ("fused", "basic"):
        ended = tiny("-m", *sweep, f"name={launcher}", f"hydra/launcher={launcher}")
        assert ended.code == 0, ended.err
    fused, basic = runs(outputs / "fused"), runs(outputs / "basic")
    assert fused.keys() == basic.keys()
    assert len(fused) == 4
    for key, folder in fused.items():
        assert folder.name == basic[key].name
        same_run(folder, basic[key])


def test_a_run_alone_is_that_run_of_a_sweep(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "model.beta=1,4", "seed=0,1", "name=sweep").code == 0
    assert tiny("model.beta=4", "seed=1", "name=alone").code == 0
    ((key, alone),) = runs(outputs / "alone").items()
    same_run(alone, runs(outputs / "sweep")[key])


def test_a_run_keeps_its_folder_under_other_overrides(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "seed=0,1", "name=sweep").code == 0
    before = {path.name for path in (outputs / "sweep").iterdir()}
    for flag in ([], ["-m"]):
        assert tiny(*flag, "model.beta=1.0", "seed=1", "name=sweep").code == 0
        assert {path.name for path in (outputs / "sweep").iterdir()} == before


def test_the_command_of_a_result_reproduces_it(tiny: Command, command: Command, outputs: Path) -> None:
    assert tiny("-m", "model.beta=1,4", "data.root='a b'", "name=sweep").code == 0
    for key, folder in runs(outputs / "sweep").items():
        words = shlex.split(json.loads((folder / "result.json").read_text())["command"])
        assert words[:2] == ["python", "scripts/train.py"]
        rest = [word for word in words[2:] if not word.startswith("output_root=")]
        assert command(*rest, f"name=again_{key}").code == 0
        same_run(runs(outputs / f"again_{key}")[key], folder)


def test_a_plan_writes_nothing(tiny: Command, outputs: Path, tmp_path: Path) -> None:
    for arguments in (["-m", "seed=0,1,2", "model.latent_dim=2,4"], ["seed=1"]):
        ended = tiny(*arguments, "sweep.plan_only=true", "name=planned")
        assert ended.code == 0
        assert ("6 jobs, 2 programs" if "-m" in arguments else "1 job, 1 program") in ended.out
    assert not outputs.exists()
    assert list(tmp_path.iterdir()) == []


def test_help_lists_choices_and_no_parts_of_them(command: Command) -> None:
    shown = command("--help").out
    choices = shown.partition("== Choices")[2].partition("== All keys")[0].splitlines()[1:]
    assert any(line.startswith("data: ") and "digits" in line for line in choices)
    assert [line for line in choices if "/" in line] == []


@pytest.mark.parametrize(
    "sweep", ["model=glob([vae*,dense*])", "model=choice(vae,dense_ae)", "seed=range(2)", "model.beta=1.0,2.0"]
)
def test_every_sweep_of_hydras_grammar_is_planned(sweep: str, tiny: Command) -> None:
    ended = tiny("-m", sweep, "sweep.plan_only=true")
    assert ended.code == 0, ended.err
    assert "2 jobs" in ended.out


def test_sweeps_of_a_config_are_replaced_by_the_command(command: Command) -> None:
    common = ["experiment=pca_mnist", "data=digits", "sweep.plan_only=true"]
    assert "3 jobs, 3 programs" in command("-m", *common).out
    assert "1 job, 1 program" in command("-m", *common, "model.latent_dim=5").out


# ---------------------------------------------------------------------------------------------------------- exit codes


def test_a_diverged_run_ends_with_three(tiny: Command, outputs: Path, results: Results) -> None:
    ended = tiny("-m", "optimizer.learning_rate=1e30,0.01", "name=wild")
    assert ended.code == 3
    assert sorted(result["status"] for result in results(outputs / "wild")) == ["completed", "diverged"]
    assert "Traceback" not in ended.err
    assert tiny("optimizer.learning_rate=1e30", "name=alone").code == 3


def test_a_failed_run_ends_with_one(
    tiny: Command, outputs: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.models.dense_ae import DenseAE

    monkeypatch.setattr(DenseAE, "loss", lambda *_: 1 / 0)
    ended = tiny(
        "-m", "model=dense_ae,vae", "model.hidden_dims=[5]", "optimizer.learning_rate=1e30,0.01", "name=failed"
    )
    assert ended.code == 1  # though one diverged as well
    statuses = sorted(result["status"] for result in results(outputs / "failed"))
    assert statuses == ["completed", "diverged", "failed", "failed"]


def test_an_interrupt_ends_with_130(
    tiny: Command, outputs: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("research.sweep.train.display.Display.chunk", interrupt)
        ended = tiny("-m", "seed=0,1", "name=cut")
    assert ended.code == 130
    assert "the same command goes on with the rest" in ended.err
    assert "Traceback" not in ended.err
    assert [result["status"] for result in results(outputs / "cut")] == ["interrupted"] * 2
    assert tiny("-m", "seed=0,1", "name=cut").code == 0
    assert [result["status"] for result in results(outputs / "cut")] == ["completed"] * 2


# -------------------------------------------------------------------------------------------------------------- configs


def options() -> list[str]:
    return sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))


@pytest.mark.parametrize("option", options())
def test_every_shipped_option_composes_and_builds(option: str) -> None:
    from research import compose
    from research import config as composed

    mandatory = {f"data={name}": "data.path=rows.csv" for name in ("arrays", "series", "panel")}
    mandatory |= {"data=ucr": "data.problem=A", "data=folder": "data.path=pictures"}
    mandatory |= {"data=memory": "data.path=rows.npz"}
    extra = [mandatory[option]] if option in mandatory else []
    composed.register_resolvers()
    config = compose.compose([option, *extra])
    group, _, name = option.partition("=")
    job = composed.job_of_config(config)
    assert composed.job_of_config(config) == job
    if group != "experiment":
        assert job.choices[group] == name
    from research.tree import build

    assert build(job.tree()["model"]) == job.model


# ------------------------------------------------------------------------------------------------------ other sweepers


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.filterwarnings("default")
def test_optuna_gets_the_objective(jobs: int, tiny: Command, outputs: Path, results: Results) -> None:
    import yaml

    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", f"hydra.sweeper.n_jobs={jobs}"]
    sweeper += ["hydra.sweeper.sampler.seed=1", "hydra.sweeper.direction=maximize"]
    ended = tiny("-m", *sweeper, "model.beta=interval(0.5,2)", "name=search", "trainer.epochs=1")
    assert ended.code == 0, ended.err
    found = results(outputs / "search")
    assert [result["status"] for result in found] == ["completed"] * 3
    best = yaml.safe_load((outputs / "search" / "optimization_results.yaml").read_text())
    values = {result["metrics"]["validation/elbo_nats"]: result for result in found}
    assert best["best_value"] == max(values)
    assert f"model.beta={best['best_params']['model.beta']}" in values[max(values)]["overrides"]


SEARCH = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "model.beta=interval(0.01,2)"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["objective=validation/loss"],
            "it does not measure the same where model.beta differs; set objective=validation",
        ),
        ([], "objective=validation/elbo_nats: higher values of elbo_nats are better, and the sweeper looks for"),
        (["objective=test/elbo_nats"], "objective=test/elbo_nats: a search chooses by the validation rows"),
        (["objective=validation/kl_nats"], "neither low nor high values"),
        (["objective=validation/r2"], "(research/metrics.py) gives it no direction"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_search_over_beta_is_refused_where_its_objective_would_mislead(
    arguments: list[str], said: str, tiny: Command, outputs: Path
) -> None:
    ended = tiny(*SEARCH, "name=search", *arguments)
    assert ended.code == 2
    assert said in ended.error
    assert not outputs.exists()


@pytest.mark.filterwarnings("default")
def test_other_sweepers_refuse_the_folder_of_another_sweep_too(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "model.beta=1,2", "name=there", "trainer.epochs=1").code == 0
    before = {path for path in outputs.rglob("*") if path.is_file()}
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "model.beta=interval(0.5,2)"]
    ended = tiny("-m", *sweeper, "name=there", "trainer.epochs=1", "trainer.keep=last")
    assert ended.code == 2
    assert "trainer.keep: best there, last now" in ended.err
    assert {path for path in outputs.rglob("*") if path.is_file()} == before


def test_hydras_own_sweeper_writes_nothing_into_the_folder_of_another_sweep(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "model.beta=1,2", "name=there", "trainer.epochs=1").code == 0
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    ended = tiny("-m", "hydra/sweeper=basic", "model.beta=1,2", "name=there", "trainer.epochs=3")
    assert ended.code == 2
    assert "trainer.epochs: 1 there, 3 now" in ended.error
    assert {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()} == before


# --------------------------------------------------------------------------------------------------- the real command


def shell(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def test_the_script_starts_anywhere_and_refuses_quickly(tmp_path: Path) -> None:
    ended = shell("model.latent_dmi=2", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: model.latent_dmi=2: no such key (did you mean 'model.latent_dim'?)")
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_script_trains_below_the_current_folder(tmp_path: Path) -> None:
    tiny = [
        "model.hidden_dims=[4]",
        "trainer.epochs=1",
        "data.train_size=64",
        "trainer.batch_size=16",
        "evaluation=none",
    ]
    ended = shell(*tiny, "name=here", "sweep.mode=map", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    (result,) = (tmp_path / "outputs" / "here").glob("*/result.json")
    assert json.loads(result.read_text())["status"] == "completed"
