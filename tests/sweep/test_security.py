"""Sweep folders of somebody who means harm: nothing in them executes, and nothing is written outside of them."""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.runs.load import load
from research.sweep.command import prepare, run
from research.sweep.folder import GROUPS
from research.sweep.proof.verify import main as verify
from research.sweep.train.display import Display
from research.tree import ConfigError, config_hash

Jobs = Callable[..., Any]


class Bomb:
    """Executes when it is unpickled."""

    fired = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "fired", True)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, make_job: Jobs, make_options: Callable[..., Any]) -> Any:
    """Two finished runs, and a function that runs their command in a folder."""
    jobs, options = [make_job(f"seed={seed}", "trainer.epochs=3") for seed in (0, 1)], make_options(checkpoint_every=1)

    def call(folder: Path) -> list[Any]:
        about = {"name": folder.name, "objective": "", "options": options, "display": Display()}
        return run(prepare(jobs, folder, options), jobs, **about)

    folder = tmp_path_factory.mktemp("security") / "sweep"
    return call(folder), folder, call


@pytest.fixture
def trained(original: Any, tmp_path: Path) -> Any:
    """A copy of these runs in the folder `sweep`, and a function that runs their command again."""
    outcomes, folder, call = original
    shutil.copytree(folder, tmp_path / "sweep")
    copies = [dataclasses.replace(outcome, folder=tmp_path / "sweep" / outcome.folder.name) for outcome in outcomes]
    return copies, lambda: call(tmp_path / "sweep")


def test_pickles_in_the_place_of_files_do_not_fire(trained: Any, tmp_path: Path) -> None:
    (outcome, _), again = trained
    assert pickle.loads(pickle.dumps(Bomb())) is None
    assert Bomb.fired
    Bomb.fired = False
    (outcome.folder / "params.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"params\.safetensors is not the file"):
        load(outcome.folder)
    for name in ("result.json", "config.json"):
        (outcome.folder / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ConfigError, match="is damaged"):
            again()
        assert verify([str(tmp_path / "sweep"), "--members", "0"]) in (1, 2)
    assert not Bomb.fired


class Killed(BaseException):
    pass


class Breaking(Display):
    def chunk(self, number: int, epochs: int, metrics: Any, unit: int = 0) -> None:
        if epochs == 3:
            raise Killed


def test_pickles_and_links_in_a_checkpoint_do_not_fire(
    tmp_path: Path, make_job: Callable[..., Any], make_options: Callable[..., Any]
) -> None:
    jobs, options = [make_job("trainer.epochs=3")], make_options(checkpoint_every=1)
    folder = tmp_path / "sweep"
    about = {"name": "sweep", "objective": "", "options": options}
    with pytest.raises(Killed):
        run(prepare(jobs, folder, options), jobs, display=Breaking(), **about)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("hidden")
    older, newer = sorted((folder / GROUPS).glob("*/*.safetensors"))
    data = pickle.dumps(Bomb())
    newer.write_bytes(data)
    older.rename(older.with_name(f"00000001-{hashlib.sha256(data).hexdigest()}.safetensors")).write_bytes(data)
    older.with_name("00000000").symlink_to(secret)
    assert run(prepare(jobs, folder, options), jobs, display=Display(), **about)[0].status == "completed"
    assert (secret / "key").read_text() == "hidden"
    assert not Bomb.fired


def test_foreign_classes_in_a_config_are_not_made(trained: Any) -> None:
    (outcome, _), _ = trained
    path = outcome.folder / "config.json"
    for target in ("os.system", "research.tree.importlib.import_module", "subprocess.Popen", "research.app.Path"):
        record = json.loads(path.read_text())
        record["config"]["model"]["_target_"] = target
        record["config_hash"] = config_hash(record["config"])
        record["trusted_packages"] = ["os", "subprocess"]
        path.write_text(json.dumps(record))
        files = RunFolder(outcome.folder, ALONE)  # whoever changes a file can seal it as well
        sealed = {"config_hash": record["config_hash"], "files": files.hashes()}
        files.write_result((files.read_result() or {}) | sealed)
        with pytest.raises(ConfigError, match="_target_"):
            load(outcome.folder)


def test_hydras_record_of_a_run_is_never_read(trained: Any) -> None:
    (outcome, _), again = trained
    place = outcome.folder / ".hydra"
    place.mkdir(exist_ok=True)
    (place / "config.yaml").write_text("!!python/object/apply:os.system ['false']\n_target_: os.system\n")
    assert [o.status for o in again()] == ["completed"] * 2
    load(outcome.folder)


def test_a_run_folder_that_is_a_link_is_refused(trained: Any, tmp_path: Path) -> None:
    (outcome, _), again = trained
    elsewhere = tmp_path / "elsewhere"
    outcome.folder.rename(elsewhere)
    outcome.folder.symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    with pytest.raises(ConfigError, match="is a link; runs are written below their sweep alone"):
        again()
    assert verify([str(tmp_path / "sweep")]) == 2
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "0" * 13, ""])
def test_a_manifest_cannot_name_folders_elsewhere(name: str, trained: Any, tmp_path: Path) -> None:
    _, again = trained
    path = tmp_path / "sweep" / "sweep.json"
    manifest = json.loads(path.read_text())
    manifest["groups"][name] = {"mode": "map", "width": 1, "devices": 1, "members": ["0" * 64]}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="is damaged"):
        again()


def test_the_page_of_a_sweep_escapes_what_it_shows(trained: Any, tmp_path: Path) -> None:
    """Tables and the page hold names of runs and reasons, which anyone may have written into a folder."""
    from research.report.collect import collect
    from research.report.formats import latex, markdown
    from research.report.page import page
    from research.report.table import table

    (outcome, _), _ = trained
    path = outcome.folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "failed", "reason": "<script>|\\input{x}"}))
    made = table(collect(tmp_path / "sweep"))
    assert r"\<script\>\|" in markdown(made)
    assert r"\input" not in latex(made)
    assert page(made, tmp_path / "sweep", []).count("<script>") == 1  # its own


# ---------------------------------------------------------------------------------------------------------------- links


def tree(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def reported(folder: Path) -> list[str]:
    from research.report.collect import collect

    return [run.status for run in collect(folder)]


@pytest.mark.parametrize(
    "name",
    [
        *("RUN/config.json", "RUN/result.json", "RUN/metrics.csv", "RUN/params.safetensors", "RUN/figures"),
        *("RUN/.hydra", "RUN/events.out.tfevents.0000000000.run", "multirun.yaml", "report", ".groups", "sweep.json"),
    ],
)
def test_a_link_in_a_sweep_is_refused_before_anything_is_written(name: str, trained: Any, tmp_path: Path) -> None:
    """Whatever would be read is the true file, so that only the link speaks against it."""
    (outcome, _), again = trained
    path = tmp_path / "sweep" / name.replace("RUN", outcome.folder.name)
    elsewhere = tmp_path / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    else:
        elsewhere.mkdir()
    path.symlink_to(elsewhere)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=rf"{path.name} is a link"):
        again()
    assert verify([str(tmp_path / "sweep")]) == 2
    assert tree(tmp_path) == before
    assert reported(tmp_path / "sweep")[0] == (
        "unreadable" if path.name in ("config.json", "result.json") else "completed"
    )


def test_a_report_is_not_written_through_a_link(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from research.report.cli import main as report

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sweep" / "report").symlink_to(tmp_path / "elsewhere")
    assert report([str(tmp_path / "sweep")]) == 2
    assert "it is a link; remove it, or name a place: --output" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert report([str(tmp_path / "sweep"), "--output", str(tmp_path / "elsewhere")]) == 0


def test_a_pipe_in_the_place_of_a_result_does_not_hang(trained: Any, tmp_path: Path) -> None:
    (outcome, _), again = trained
    (outcome.folder / "result.json").unlink()
    os.mkfifo(outcome.folder / "result.json")
    assert verify([str(tmp_path / "sweep"), "--members", "0"]) == 1
    assert reported(tmp_path / "sweep") == ["unreadable", "completed"]
    for read in (again, lambda: load(outcome.folder)):
        with pytest.raises(ConfigError, match=r"result\.json is a link or no plain file"):
            read()


# ------------------------------------------------------------------------------------------------------------- manifest


@pytest.mark.parametrize("name", ["../secret", "/tmp/secret", "..", "a/../../secret"])
def test_a_manifest_cannot_name_runs_elsewhere(
    name: str, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome, other), again = trained
    secret = tmp_path / "secret"
    shutil.copytree(other.folder, secret)
    path = tmp_path / "sweep" / "sweep.json"
    manifest = json.loads(path.read_text())
    manifest["runs"] |= {name: manifest["runs"][outcome.folder.name] | {"config_hash": "0" * 64}}
    path.write_text(json.dumps(manifest))
    before = tree(secret)
    capsys.readouterr()
    assert verify([str(tmp_path / "sweep"), "--members", "0"]) == 1
    assert "sweep.json does not describe it as a run; restore sweep.json" in capsys.readouterr().out
    assert reported(tmp_path / "sweep") == ["completed"] * 2
    assert [outcome.status for outcome in again()] == ["completed"] * 2
    assert tree(secret) == before


@pytest.mark.parametrize(
    "entry", [None, [], "x", {}, {"config_hash": 3}, {"config_hash": None}, {"config_hash": "../../x", "overrides": 1}]
)
def test_a_manifest_of_other_things_is_told(entry: Any, trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "sweep" / "sweep.json"
    manifest = json.loads(path.read_text())
    manifest["runs"]["x"] = entry
    path.write_text(json.dumps(manifest))
    assert verify([str(tmp_path / "sweep"), "--members", "0"]) == 1
    assert set(reported(tmp_path / "sweep")) <= {"completed", "missing"}


# ------------------------------------------------------------------------------------------------ trained or used again


@pytest.mark.parametrize("section", ["model", "data", "optimizer", "trainer"])
def test_a_run_is_not_trained_again_with_foreign_classes(
    section: str, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All hashes are right, and the folder trusts everybody."""
    from research.sweep.begun import rebuilt

    (outcome, _), _ = trained
    folder = RunFolder(outcome.folder, ALONE)
    record = folder.read_config()
    record["config"][section]["_target_"] = "os.system"
    digest = config_hash(record["config"])
    folder.config.write_text(json.dumps(record | {"config_hash": digest, "trusted_packages": ["os"]}))
    ended = {"status": "diverged", "first_bad_step": 1, "config_hash": digest, "files": folder.hashes()}
    folder.write_result({**outcome.result, **ended})
    with pytest.raises(ConfigError, match=r"_target_=os\.system"):
        rebuilt(outcome.folder, None, [])
    assert verify([str(tmp_path / "sweep"), "--replay", outcome.folder.name]) == 2
    assert "_target_=os.system" in capsys.readouterr().err
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"base": {}, "swept": [], "runs": {}, "groups": {}}))
    assert verify([str(tmp_path / "sweep")]) == 2
    assert f"not checked: {outcome.folder.name}: " in capsys.readouterr().out


def test_a_program_of_impossible_size_is_not_built(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome, _), _ = trained
    path = outcome.folder / "result.json"
    for mode, width in (("vmap", 10**9), ("vmap", "9"), ("vmap", -1), ("loop", 2)):
        program = {**outcome.result["program"], "mode": mode, "width": width}
        path.write_text(json.dumps({**outcome.result, "program": program}))
        assert verify([str(tmp_path / "sweep")]) == 2
        out = capsys.readouterr().out
        reason = f"program={mode} of width {width}: no program has this mode and width"
        assert f"not checked: {outcome.folder.name}: {reason}" in out


def test_encoding_with_pickled_parameters_is_refused(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from research import encode

    (outcome, _), _ = trained
    (outcome.folder / "params.safetensors").write_bytes(pickle.dumps(Bomb()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["encode.py", str(outcome.folder), "data=digits"])
    with pytest.raises(SystemExit) as ended:
        encode.main()
    assert ended.value.code == 2
    assert "params.safetensors is not the file" in capsys.readouterr().err
    assert not (tmp_path / "codes.csv").exists()
    assert not Bomb.fired
