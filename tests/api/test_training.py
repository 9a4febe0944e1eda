"""`research.train` and `research.sweep` do what the command does, and say by exceptions what it says by exit codes."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import research
from research import app
from research.sweep.train.display import Display
from research.sweep.train.pool import WAKE_EVERY
from research.tree import ConfigError

ROOT = Path(__file__).parents[2]


def files(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> ConfigError:
    """The refusal of a call; it prints nothing on stderr and leaves nothing in the folder."""
    before, err = set(Path().rglob("*")), io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(ConfigError) as refused:
        call(*arguments, **named)
    assert err.getvalue() == ""
    assert set(Path().rglob("*")) == before
    return refused.value


def test_a_call_is_the_command(x: np.ndarray, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that a run records, typed for a folder of its own, leaves the same files."""
    run = research.train(x, *tiny, name="called")
    again = [line for line in run.result["overrides"] if not line.startswith("name=")]
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", *again, "name=typed"])
    app.statuses.clear()
    with contextlib.suppress(SystemExit):
        app.main()
    (typed,) = Path("outputs/typed").glob("*/result.json")
    assert typed.parent.name == run.folder.name
    for name in ("params.safetensors", "metrics.csv"):
        assert (typed.parent / name).read_bytes() == (run.folder / name).read_bytes()
    for name in ("config", "overrides"):
        texts = [(folder / ".hydra" / f"{name}.yaml").read_text() for folder in (typed.parent, run.folder)]
        theirs, ours = (yaml.safe_load(text.replace("name=typed", "name=called")) for text in texts)
        if name == "config":
            theirs["name"] = "called"
        assert sorted(theirs) == sorted(ours)
        assert theirs == ours or name == "overrides"
    assert set(files(run.folder / ".hydra")) == set(files(typed.parent / ".hydra"))


def test_a_sweep_is_the_command(x: np.ndarray, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = research.sweep(x, *tiny, "seed=range(2)", name="called")
    data = [line for line in results(sweep.folder)[0]["overrides"] if line.startswith("data")]
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "-m", *tiny, "seed=range(2)", *data, "name=typed"])
    app.statuses.clear()
    with contextlib.suppress(SystemExit):
        app.main()
    typed = Path("outputs/typed")
    assert (typed / "multirun.yaml").is_file()
    assert (sweep.folder / "multirun.yaml").is_file()
    theirs, ours = files(typed), files(sweep.folder)
    assert {name for name in ours if not name.startswith("data/")} == set(theirs)
    for name in theirs:
        if name.endswith(("params.safetensors", "metrics.csv")):
            assert theirs[name] == ours[name]


def test_the_same_call_trains_nothing_and_more_values_add_runs(
    x: np.ndarray, tiny: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    first = research.sweep(x, *tiny, "seed=0,1", name="mine")
    before = {path: path.stat().st_mtime_ns for path in first.folder.glob("*/result.json")}
    capsys.readouterr()
    again = research.sweep(x.tolist(), *tiny, "seed=0,1", name="mine")
    assert "0 jobs, 0 programs (2 more finished already)" in capsys.readouterr().out
    more = research.sweep(x, *tiny, "seed=range(4)", name="mine")
    assert len(again.runs) == 4  # a sweep is its folder, as it is now
    assert len(more.runs) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    alone = research.train(x, *tiny, "seed=1", name="mine")
    assert alone.folder in {path.parent for path in before}


def test_data_need_not_be_in_memory(tiny: tuple[str, ...]) -> None:
    run = research.train("data=low_rank", "data.rows=60", *tiny, name="named")
    assert run.config["data"]["_target_"].endswith("LowRank")


def test_columns_may_have_any_name(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    for name in ("kind of, it's", "true", "7", "a=b", "ü"):
        table = pd.DataFrame(x).assign(**{name: np.arange(60) % 3})
        run = research.train(table, *tiny, "trainer.epochs=1", y=name)
        assert run.preparation.columns == tuple(str(column) for column in pd.DataFrame(x))
        assert run.config["data"]["target"] == name


def test_python_names_what_it_refuses(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    holes = np.where(x > 2, np.nan, x)
    cases = [
        ("x", "fill or remove such rows", (holes, *tiny), {}),
        ("x", "fill or remove such rows", (np.ma.masked_greater(x, 2), *tiny), {}),
        ("x", "expected numbers", (x.astype(str), *tiny), {}),
        ("x", "not all numbers", (np.array([[object()] * 2] * 9), *tiny), {}),
        ("x", "its shape is (60,)", (x[:, 0], *tiny), {}),
        ("x", "differ in the first axis only", ([x[:, :2], x], *tiny), {}),
        ("x", "expected an array", (3.0, *tiny), {}),
        ("y", "one for each of the 60 rows", (x, *tiny), {"y": np.arange(5)}),
        ("y", "columns of a pandas table have names", (x, *tiny), {"y": "species"}),
        ("y", "no such column", (pd.DataFrame(x), *tiny), {"y": "species"}),
        ("y", "its index is not that of x", (pd.DataFrame(x), *tiny), {"y": pd.Series(range(60), range(1, 61))}),
        ("y", "not given", tiny, {"y": [1]}),
        ("lengths", "one for each of the 60 rows", (x, *tiny), {"lengths": [3, 4]}),
        ("lengths", "have their own", ([x[:3], x[:5]], *tiny), {"lengths": [3, 5]}),
        ("model.bta", "did you mean 'model.beta'?", (x, *tiny, "model.bta=2"), {}),
        ("model.beta", "expected", (x, *tiny, "model.beta=high"), {}),
        ("model", "no such choice", (x, *tiny, "model=va"), {}),
        ("model.beta", "research.sweep(...)", (x, *tiny, "model.beta=1,2"), {}),
        ("model.hidden_dims", "model.hidden_dims=[4,5]", (x, "model.hidden_dims=4,5"), {}),
        ("name", "plain folder name", (x, *tiny), {"name": "../up"}),
        ("name", "leave one of them out", (x, *tiny, "name=a"), {"name": "b"}),
        ("name", "expected a text: name='3'", (x, *tiny), {"name": 3}),
        ("data", "the rows are those of x", (x, *tiny, "data=digits"), {}),
        ("data.path", "the rows are those of x", (x, *tiny, "data.path=a.csv"), {}),
        ("overrides", "is a text", (x, x, *tiny), {}),
        ("", "--cfg: options of the command", (x, "--cfg", *tiny), {}),
        ("sweep.plan_only", "research.sweep", (x, *tiny, "sweep.plan_only=true"), {}),
    ]
    for key, text, arguments, named in cases:
        error = refusal(research.train, *arguments, **named)
        assert error.key == key, error
        assert text in str(error), error
        assert ".npz" not in str(error), error
        assert ".csv" not in str(error) or key == "data.path", error
    error = refusal(research.sweep, x, *tiny, "name=a,b")
    assert "one command has one name" in str(error)
    error = refusal(research.sweep, x, *tiny, "seed=range(1e9)")
    assert "jobs in one command" in str(error)


def test_remedies_are_calls_and_not_commands(x: np.ndarray) -> None:
    labels = [0, 1] * 30
    error = refusal(research.sweep, x, "model=vae,dense_ae", "model.beta=choice(4, 5)", "name=a", y=labels)
    first = "research.sweep(x, 'model=vae', 'model.beta=choice(4, 5)', 'name=a', y=y)"
    assert f"give two calls: {first} ; research.sweep(x, 'model=dense_ae', 'name=a-dense_ae', y=y)" in str(error)
    error = refusal(research.sweep, "model=vae,dense_ae", "model.beta=4")
    assert "research.sweep('model=vae', 'model.beta=4') ; research.sweep('model=dense_ae')" in str(error)


def test_other_rows_are_another_sweep(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    research.train(x, *tiny, name="mine")
    error = refusal(research.train, x + 1, *tiny, name="mine")
    assert error.key == "name"
    assert "holds another sweep (data.path" in str(error)


def test_a_plan_writes_nothing(x: np.ndarray, tiny: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    sweep = research.sweep(x, *tiny, "model.latent_dim=2,3", "sweep.plan_only=true", name="planned")
    assert "2 jobs, 2 programs" in capsys.readouterr().out
    assert list(sweep.runs) == []
    assert not list(Path().iterdir())


def test_a_diverged_run_is_an_error_or_a_status(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    wild = (*tiny, "optimizer.learning_rate=1e30")
    with pytest.raises(RuntimeError, match=r"the run diverged: .*outputs/alone"):
        research.train(x, *wild, name="alone")
    sweep = research.sweep(x, *tiny, "optimizer.learning_rate=1e-3,1e30", name="both")
    assert sorted(sweep.frame().status) == ["completed", "diverged"]
    assert len(sweep.runs) == 1


def test_hydra_and_the_command_line_are_left_alone(
    x: np.ndarray, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    config = HydraConfig.instance().cfg
    research.train(x, *tiny, name="one")
    with pytest.raises(ConfigError):
        research.sweep(x, *tiny, "model.bta=1,2", name="two")
    assert GlobalHydra.instance().hydra is None
    assert HydraConfig.instance().cfg is config
    assert not app.checked
    assert not app.statuses
    assert not app.silent
    assert sys.argv == ["ipykernel_launcher.py", "-f", "kernel.json"]


def test_an_interrupt_leaves_a_sweep_that_goes_on(
    x: np.ndarray, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is interrupted, the session lives, and the same call has the bits of an undisturbed one."""
    calls = (*tiny, "trainer.epochs=6", "seed=range(2)")
    whole = research.sweep(x, *calls, name="whole")
    shown = Display.chunk

    def interrupted(self: Display, *arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(Display, "chunk", shown)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(3 * WAKE_EVERY)  # the main thread handles each of them
        shown(self, *arguments, **named)

    monkeypatch.setattr(Display, "chunk", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        research.sweep(x, *calls, name="broken")
    assert signal.getsignal(signal.SIGINT) is handler
    assert GlobalHydra.instance().hydra is None
    assert "interrupted" in {result["status"] for result in results(Path("outputs/broken"))}
    resumed = research.sweep(x, *calls, name="broken")
    for ours, theirs in zip(resumed.runs, whole.runs, strict=True):
        assert (ours.folder / "params.safetensors").read_bytes() == (theirs.folder / "params.safetensors").read_bytes()


def test_calls_of_several_threads_wait_for_each_other(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    threads = [
        threading.Thread(target=research.train, args=(x, *tiny, f"seed={seed}"), kwargs={"name": f"run{seed}"})
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(2):
        assert [result["status"] for result in results(Path(f"outputs/run{seed}"))] == ["completed"]


def test_other_sweepers_and_launchers_work(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    sweep = research.sweep(x, *tiny, "seed=0,1", "hydra/launcher=basic", "hydra/sweeper=basic", name="basic")
    assert list(sweep.frame().status) == ["completed"] * 2


AFTER_JAX = """
import jax, numpy as np
{before}
import research
x = np.random.default_rng(0).normal(size=(60, 5))
run = research.train(x, *{tiny!r}, name={name!r})
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    others = {key: value for key, value in os.environ.items() if key not in research.environment.POOL}
    search = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**others, **search, **environment}, check=False)


def test_jax_may_be_imported_first(x: np.ndarray, tiny: tuple[str, ...]) -> None:
    """A session that started JAX with one thread would have other bits, and is told so; other settings are refused."""
    early = python(AFTER_JAX.format(before="", tiny=tiny, name="early"), NPROC="1")
    assert early.returncode == 0, early.stderr
    assert "note" not in early.stderr
    one = python(AFTER_JAX.format(before="jax.devices()", tiny=tiny, name="one"), NPROC="1")
    assert one.returncode == 0, one.stderr
    assert "JAX was started with one thread before research was imported" in one.stderr
    wide = python(AFTER_JAX.format(before="jax.config.update('jax_enable_x64', True)", tiny=tiny, name="wide"))
    assert "ConfigError: jax_enable_x64=True: results would not be those of other runs" in wide.stderr
    assert not Path("outputs/wide").exists()
