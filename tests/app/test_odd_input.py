"""Odd command lines, config files and damaged folders end in one line and exit code 2, and nothing is written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.report.cli import main as report
from research.sweep.proof.verify import main as verify

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["~seed"], "seed=null: every run needs this key; leave out ~seed"),
        (["~model"], "model=null: every run needs this key"),
        (["optimizer=[]"], "optimizer=null: every run needs this key"),
        (["hydra.launcher=1"], "hydra.launcher=1: expected a section of keys"),
        (["report=1"], "report=1: expected a section of keys"),
        (["sweep=1"], "sweep=1: expected a section of keys"),
        (["~report"], "report=null: every run needs this key"),
        (["=1"], "no override; write key=value"),
        (["", "seed=1"], "no override; write key=value"),
        (["-m", "~seed"], "seed=null: every run needs this key"),
        (["-m", "-c", "job"], "only one of --run, --multirun, --cfg"),
        (["--resolve"], "--resolve: it goes with --cfg or --help"),
        (["--config-name=nope"], "Cannot find primary config 'nope'"),
        (["--config-path=/nope"], "--config-path=/nope: no such folder"),
        (["--cfg", "job", "model=nope"], "model=nope: no such choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_odd_command_lines(command: Callable[..., Any], arguments: list[str], told: str, outputs: Path) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.error
    assert not outputs.exists()


CONFIGS = {
    "list": ("# @package _global_\n- a\n", "Cannot merge DictConfig with ListConfig"),
    "number": ("42\n", "Invalid loaded object type: int"),
    "tag": ("# @package _global_\nmodel: {beta: !!python/object/apply:os.getcwd []}\n", "only plain YAML is read"),
    "own_tag": ("# @package _global_\nseed: !foo 1\n", "only plain YAML is read"),
    "broken": ("a: [1, 2\nb: {\n", "only plain YAML is read"),
    "twice": ("# @package _global_\nseed: 1\nseed: 2\n", "found duplicate key seed"),
    "itself": ("# @package _global_\ndefaults:\n  - itself\n", "maximum recursion depth"),
    "section": ("# @package _global_\ntrainer: 3\n", "trainer=3: expected a section of keys"),
    "interpolation": ("# @package _global_\nseed: ${nope:1}\n", "Unsupported interpolation type nope"),
    "latin": (b"# @package _global_\nname: \xe9\n", "can't decode byte 0xe9"),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("arguments", [[], ["-m"], ["--cfg", "job"]], ids=["run", "sweep", "show"])
def test_odd_experiments(
    command: Callable[..., Any], name: str, arguments: list[str], outputs: Path, tmp_path: Path
) -> None:
    content, told = CONFIGS[name]
    (tmp_path / "experiment").mkdir()
    path = tmp_path / "experiment" / f"{name}.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = command(*arguments, f"--config-dir={tmp_path}", f"experiment={name}")
    if arguments[:1] == ["--cfg"] and ended.code == 0:  # it is composed, and only a run would refuse it
        assert name in ("section", "interpolation")
        return
    assert ended.code == 2
    assert told in ended.error
    assert not outputs.exists()


def test_an_empty_experiment_changes_nothing(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "empty.yaml").touch()
    assert command(f"--config-dir={tmp_path}", "experiment=empty", "sweep.plan_only=true").code == 0


# ------------------------------------------------------------------------------------------------------ damaged folders

FIELDS = ["reason", "metrics", "objective", "epochs", "trained_metrics", "data_sha256", "seconds_wall_group"]


def test_a_result_that_lacks_a_field_is_refused_and_kept(tiny: Callable[..., Any], outputs: Path) -> None:
    assert tiny("name=sweep").code == 0
    (path,) = outputs.glob("sweep/*/result.json")
    whole = path.read_text()
    for field in FIELDS:
        for changed in ({}, {field: {"of": "another kind"} if field != "metrics" else 5}):
            content = {name: value for name, value in json.loads(whole).items() if name != field} | changed
            path.write_text(json.dumps(content))
            for more in ((), ("evaluation.neighbors=3",)):
                ended = tiny("name=sweep", *more)
                assert ended.code == 2
                assert "result.json is not as this run wrote it" in ended.error
                assert field in ended.error
                assert json.loads(path.read_text()) == content


def test_a_folder_or_foreign_bytes_in_the_place_of_a_file(
    tiny: Callable[..., Any], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny("name=sweep").code == 0
    for file, damage in (("sweep.json", Path.mkdir), ("sweep.json", lambda path: path.write_bytes(b"\xff\x00"))):
        place = outputs / "damaged"
        shutil.copytree(outputs / "sweep", place)
        (place / file).unlink()
        damage(place / file)
        ended = tiny("name=damaged")
        assert ended.code == 2
        assert f"{file} is damaged" in ended.error
        assert verify([str(place)]) == 2
        assert "is damaged" in capsys.readouterr().err
        shutil.rmtree(place)


def test_hydras_own_files_are_never_parsed(tiny: Callable[..., Any], outputs: Path, tmp_path: Path) -> None:
    assert tiny("-m", "seed=0", "name=sweep").code == 0
    tag = f"data: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n"
    for path in [*outputs.glob("sweep/*/.hydra/*.yaml"), outputs / "sweep/multirun.yaml"]:
        path.write_text(tag)
    assert tiny("-m", "seed=0,1", "name=sweep").code == 0
    assert report([str(outputs / "sweep"), "--format", "html"]) == 0
    assert verify([str(outputs / "sweep"), "--members", "1"]) == 0
    assert not (tmp_path / "made").exists()


def test_a_removed_working_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = f"import os; os.rmdir({str(tmp_path / 'gone')!r}); from research.command import run; run(lambda: 0)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "gone", capture_output=True, text=True, env={"PYTHONPATH": ROOT}
    )
    assert done.returncode == 2
    assert done.stderr == "error: folder=.: the working folder was removed; change to one that exists\n"
