"""What the environment says changes no number, or is recorded and refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import research
from research import compiling, environment
from research.tree import ConfigError

ROOT = Path(__file__).parents[1]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
TINY = ["data=low_rank", "data.rows=120", "trainer.epochs=1", "evaluation=none", "model.likelihood=gaussian"]
FLAG = " ".join(sorted([*os.environ.get("XLA_FLAGS", "").split(), "--xla_cpu_enable_fast_math=true"]))
ON_ONE_CORE = """
import os, runpy
os.sched_setaffinity(0, [{core}])
runpy.run_path({path!r}, run_name="__main__")
"""


def command(script: str, *arguments: str, core: int | None = None, **switches: str) -> subprocess.CompletedProcess[str]:
    """Run a script with variables of the environment, on one core if one is given."""
    path = str(ROOT / "scripts" / script)
    start = [path] if core is None else ["-c", ON_ONE_CORE.format(core=core, path=path)]
    line = [sys.executable, *start, *arguments]
    others = {key: value for key, value in os.environ.items() if key not in environment.POOL}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env={**others, **switches})


def result(folder: Path) -> dict[str, Any]:
    """The result of the only run of a sweep folder."""
    (path,) = folder.glob("*/result.json")
    return json.loads(path.read_text())


def trained(found: dict[str, Any]) -> list[Any]:
    """Scores by the programs and hashes of the files; numpy's sums (`reference/`) hang on cores in last digits."""
    files = {name: value for name, value in found["files"].items() if name != "config.json"}  # it holds the name
    return [files, {name: found["metrics"][name] for name in found["trained_metrics"]}]


@pytest.fixture(scope="module")
def trained_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep `a`: one job, with a flag of XLA and a pool of three threads. Copy what you change."""
    folder = tmp_path_factory.mktemp("environment")
    done = command("train.py", *TINY, f"output_root={folder}", "name=a", XLA_FLAGS=FLAG, NPROC="3")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(not CORES, reason="this system cannot bind a process to a core")
def test_one_core_gives_the_bits_of_two(tmp_path: Path) -> None:
    large = ["data=low_rank", "data.rows=1200", "data.features=784", "model.hidden_dims=[500]", "model.latent_dim=20"]
    large += ["trainer.batch_size=512", "model.likelihood=gaussian", "trainer.epochs=1", "evaluation=none"]
    large += [f"output_root={tmp_path}"]
    one = command("train.py", *large, "name=one", core=CORES[0], NPROC="1")
    two = command("train.py", *large, "name=two", NPROC="2")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    first, second = result(tmp_path / "one"), result(tmp_path / "two")
    assert trained(first) == trained(second)
    assert first["program"]["threads"] == second["program"]["threads"] == 2


def test_switches_that_change_numbers_are_left_out(trained_sweep: Path, tmp_path: Path) -> None:
    switches = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    same: dict[str, str] = {"XLA_FLAGS": FLAG, "NPROC": "3"}
    other = command("train.py", *TINY, f"output_root={tmp_path}", "name=b", **same, **switches)
    assert other.returncode == 0, other.stderr
    for name, value in switches.items():
        assert f"note: {name}={value} is left out" in other.stderr
    assert trained(result(trained_sweep / "a")) == trained(result(tmp_path / "b"))
    proof = command("verify.py", str(trained_sweep / "a"), "--members", "1", **same, JAX_ENABLE_X64="1")
    assert "bit-equal" in proof.stdout
    assert proof.returncode == 0


def test_other_flags_of_xla_are_recorded_and_refused(trained_sweep: Path) -> None:
    assert result(trained_sweep / "a")["program"]["flags"] == {"XLA_FLAGS": FLAG}
    before = {path: path.read_bytes() for path in trained_sweep.rglob("*") if path.is_file()}
    refused = command("train.py", *TINY, f"output_root={trained_sweep}", "name=a", "seed=1", NPROC="3")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"XLA_FLAGS was '{FLAG}' and is '{environment.flags().get('XLA_FLAGS', '')}' now" in refused.stderr
    assert {path: path.read_bytes() for path in trained_sweep.rglob("*") if path.is_file()} == before


def test_a_sweep_goes_on_with_the_pool_that_it_was_begun_with(trained_sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_sweep / "a", tmp_path / "a")
    root = f"output_root={tmp_path}"
    again = command("train.py", "-m", *TINY, root, "name=a", "seed=0,1", XLA_FLAGS=FLAG, NPROC="1")
    assert again.returncode == 0, again.stderr
    assert "XLA's pool gets 3 threads" in again.stderr
    threads = [json.loads(path.read_text())["program"]["threads"] for path in (tmp_path / "a").glob("*/result.json")]
    assert threads == [3, 3]


def test_a_device_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    refused = command("train.py", *TINY, f"output_root={tmp_path}", JAX_PLATFORMS="nonsense")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: JAX_PLATFORMS=nonsense: JAX finds no such device")
    assert len(refused.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- the functions


def test_xla_counts_its_threads_as_we_do() -> None:
    jax.devices()
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not names or sum(name.startswith("tf_XLAEigen") for name in names) == environment.threads()
    assert environment.threads() >= 2


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"NPROC": "7"}, 7),
        ({"NPROC": "1"}, 2),
        ({"NPROC": "0"}, 2),
        ({"PJRT_NPROC": "5", "NPROC": "7"}, 5),
        ({"PJRT_NPROC": "1000000", "NPROC": "3"}, 3),
        ({"NPROC": "many"}, max(2, len(CORES) or os.cpu_count() or 1)),
    ],
)
def test_the_pool_has_two_threads_at_least(
    variables: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in environment.POOL:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environment, "started", lambda: False)
    environment.fix()
    assert environment.threads() == threads
    assert os.environ["PJRT_NPROC"] == str(threads)


def test_a_pool_that_is_there_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = environment.described()
    assert environment.differences(now) == []
    assert environment.differences(None) == []  # of an older version: it is not known
    other = now["threads"] + 1
    environment.go_on({**now, "threads": other})  # too late
    (line,) = environment.differences({**now, "threads": other})
    assert f"start Python with PJRT_NPROC={other}" in line
    for damaged in ("many", -1, 10**9, True, 2.0):
        monkeypatch.setattr(environment, "started", lambda: False)
        environment.go_on({**now, "threads": damaged})
        assert environment.threads() == now["threads"]


@pytest.mark.parametrize(
    ("threads", "said"), [(3000, "PJRT_NPROC=3000"), (10**9, "restore the record"), ("4", "no pool")]
)
def test_a_pool_that_cannot_be_is_not_advised(threads: Any, said: str) -> None:
    (told,) = environment.differences({"threads": threads, "flags": environment.flags()})
    assert said in told


def test_flags_are_compared_without_their_order_and_number_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", " --xla_b=1  --xla_force_host_platform_device_count=8 --xla_a=2 --xla_dump_to=/x")
    assert environment.flags() == {"XLA_FLAGS": "--xla_a=2 --xla_b=1"}


def test_flags_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flags").write_text("--xla_b=1\n--xla_a=2\n")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    assert environment.flags() == {"XLA_FLAGS": "--xla_a=2 --xla_b=1"}


def test_settings_made_by_code_are_refused_in_a_notebook() -> None:
    with jax.enable_x64(True), pytest.raises(ConfigError, match=r"jax_enable_x64=True: .*jax.config.update"):
        research.load  # noqa: B018
    with jax.default_matmul_precision("highest"):
        assert environment.flags()["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"
    environment.check()


def test_verify_says_that_the_environment_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from research.sweep.device import device_kind
    from research.sweep.proof.retrain import _doubts
    from research.sweep.train.ledger import commit, versions

    monkeypatch.setenv("XLA_FLAGS", "")
    then = environment.described()
    program = {"device_kind": device_kind(), "threads": then["threads"] + 1, "flags": {"XLA_FLAGS": "--xla_a=1"}}
    program["compiler"] = compiling.options()
    result = {"versions": versions(), "commit": commit()}
    group: Any = SimpleNamespace(mode="map", devices=1)
    said = list(_doubts({"program": program, **result}, group))
    assert said[0].startswith(f"XLA's pool had {then['threads'] + 1} threads and has {then['threads']} now")
    assert said[1:] == ["XLA_FLAGS was '--xla_a=1' and is '' now"]
    assert not list(_doubts({"program": program | then, **result}, group))
    (earlier,) = _doubts({"program": program | then, **result, "commit": "0" * 40}, group)
    assert earlier.startswith(f"it was trained by commit {'0' * 40}, now by {commit()}")
    (compiled,) = _doubts({"program": program | then | {"compiler": {"xla_a": 1}}, **result}, group)
    assert compiled == f"it was compiled with the options {{'xla_a': 1}}, now with {compiling.options()}"


# ------------------------------------------------------------------------------------------------------------ the suite


@pytest.mark.parametrize(("required", "ends"), [("", "2 skipped"), ("1", "2 errors")])
def test_tests_whose_tools_are_missing_are_skipped_but_not_in_ci(required: str, ends: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-n0", "tests/report/test_report_latex.py", "-k", "compiles"]
    variables = {**os.environ, "PATH": str(tmp_path), "LOOM_REQUIRE_TOOLS": required}
    done = subprocess.run(
        [*command, "-rs", "--no-header", "-v"], cwd=ROOT, capture_output=True, text=True, env=variables
    )
    assert ends in done.stdout
    assert "pdflatex is not installed; on Debian: apt-get install texlive-latex-base" in done.stdout
    assert done.returncode == bool(required)
