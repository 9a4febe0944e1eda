"""Copies of runs in the real stores of MLflow (a database) and Weights & Biases (offline): complete, and made once."""

import importlib.util
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import research
from research import mirror
from research.mirror import main
from research.runs.files import digest
from research.runs.folder import RunFolder

COMMON = ("data=digits", "data.train_size=64", "data.validation_size=16", "data.test_size=16", "model.hidden_dims=[4]")
TINY = (*COMMON, "model.latent_dim=2", "trainer.epochs=2", "trainer.evaluate_every=1", "evaluation=none")
# The command four times: as it is, again, with results that changed, again. The libraries take seconds to import.
SCENARIO = """
import json, sys
from pathlib import Path
from research.mirror import main

sys.argv = ["mirror.py", "sweep", "--to", sys.argv[1], "--parameters"]
main()
main()
for path in Path("sweep").glob("*/result.json"):
    result = json.loads(path.read_text())
    if result["status"] == "completed":
        path.write_text(json.dumps(result | {"metrics": {**result["metrics"], "test/loss": -123.0}}))
main()
main()
"""
READ = """
import json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

data, at, whole = open(sys.argv[1], "rb").read(), 7, b""
rows, facts = [], {}
while at + 7 <= len(data):  # a log of LevelDB: blocks of 32 KiB, parts of records with a header of 7 bytes
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
    whole += data[at + 7 : at + 7 + size]
    at += 7 + size
    if kind in (1, 4):
        record, whole = Record.FromString(whole), b""
        which = record.WhichOneof("record_type")
        key = lambda item: item.key or ".".join(item.nested_key)
        if which == "history":
            rows.append({key(item): json.loads(item.value_json) for item in record.history.item})
        if which == "run":
            config = {key(item): json.loads(item.value_json) for item in record.run.config.update}
            facts |= {"id": record.run.run_id, "name": record.run.display_name, "project": record.run.project}
            facts |= {"tags": list(record.run.tags), "config": config}
        if which == "summary":
            facts.setdefault("summary", {}).update({key(i): json.loads(i.value_json) for i in record.summary.update})
print(json.dumps([rows, facts]))
"""


def png() -> bytes:
    """A picture of one pixel."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (1, 1)).save(file, "png")
    return file.getvalue()


PNG = png()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run with a figure, one that is said to have diverged, and one that was interrupted."""
    folder = tmp_path_factory.mktemp("mirror")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        research.sweep("data=digits", *TINY[1:], "seed=0,1,2", name="sweep")
    for path, status in zip(
        sorted((folder / "outputs/sweep").glob("seed=*")), ("", "diverged", "interrupted"), strict=True
    ):
        result = json.loads((path / "result.json").read_text())
        if status:
            (path / "result.json").write_text(json.dumps(result | {"status": status, "reason": "for a test"}))
        else:
            (path / "figures").mkdir()
            (path / "figures/codes.png").write_bytes(PNG)
    return folder / "outputs/sweep"


def run(module: str, sweep: Path, folder: Path) -> tuple[Path, list[str]]:
    """The folder in which the scenario ran, on a copy of the sweep, and the last line of each command."""
    if importlib.util.find_spec(module) is None:
        end = pytest.fail if os.environ.get("LOOM_REQUIRE_TOOLS") else pytest.skip
        end(f"{module} is not installed: pip install -e '.[{module}]'")
    shutil.copytree(sweep, folder / "sweep")
    done = subprocess.run(
        [sys.executable, "-c", SCENARIO, module], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, [line for line in done.stderr.splitlines() if " runs are in " in line]


CHANGES = [["2 new"], ["2 as before"], ["1 as before", "1 evaluated anew"], ["2 as before"]]


def changes(lines: list[str]) -> list[list[str]]:
    """What each command said that it did."""
    return [sorted(line.rpartition(": ")[2].split(", ")) for line in lines]


def expected(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any], dict[str, Any]]:
    """Curves, result and record of the configuration of the completed run."""
    files = RunFolder(next(folder.glob("sweep/seed=0*")))
    return files.read_metrics(), files.read_result() or {}, files.read_config()


def test_mlflow_holds_every_run_once(sweep, tmp_path) -> None:
    folder, lines = run("mlflow", sweep, tmp_path)
    assert all(line.startswith("2 of 3 runs are in sqlite:///mlflow.db: ") for line in lines)
    assert changes(lines) == CHANGES
    curves, result, record = expected(folder)
    store = sqlite3.connect(folder / "mlflow.db")
    try:
        assert store.execute("select name from experiments where name = 'sweep'").fetchall() == [("sweep",)]
        runs = store.execute("select run_uuid, name, status, lifecycle_stage from runs order by name").fetchall()
        assert [(status, stage) for _, _, status, stage in runs] == [("FINISHED", "active"), ("FAILED", "active")]
        number, name, *_ = runs[0]
        assert name == result["run_id"]
        tags = dict(store.execute("select key, value from tags where run_uuid = ?", [number]).fetchall())
        params = dict(store.execute("select key, value from params where run_uuid = ?", [number]).fetchall())
        metrics = store.execute("select key, step, value from metrics where run_uuid = ?", [number]).fetchall()
        latest = store.execute(
            "select value from latest_metrics where key = 'test/loss' and run_uuid = ?", [number]
        ).fetchall()
    finally:
        store.close()
    assert {name: tags[name] for name in ("status", "config_hash", "commit")} == {
        name: result[name] for name in ("status", "config_hash", "commit")
    }
    assert tags["overrides"] == " ".join(result["overrides"])
    assert params["model.latent_dim"] == "2"
    assert params["optimizer.learning_rate"] == str(record["config"]["optimizer"]["learning_rate"])
    for row in curves:
        for key, value in row.items():
            if key != "step":
                assert metrics.count((key, int(row["step"]), value)) == 1, key
    values = {key: value for key, step, value in metrics if step == curves[-1]["step"]}
    assert len(curves) == 2
    assert values["final/validation/loss"] == result["metrics"]["validation/loss"]
    assert latest == [(-123.0,)]
    (artifacts,) = (folder / "mlruns" / "sweep").glob(f"{number}/artifacts")
    assert (artifacts / "figures/codes.png").read_bytes() == PNG
    assert digest(artifacts / "params.safetensors") == result["files"]["params.safetensors"]


def test_wandb_holds_every_run_once(sweep, tmp_path) -> None:
    folder, lines = run("wandb", sweep, tmp_path)
    assert changes(lines) == CHANGES
    copies = sorted(folder.glob("wandb/offline-run-*"))
    assert len(copies) == len(list((folder / "wandb").iterdir())) == 3
    curves, result, record = expected(folder)
    of_completed = [path for path in copies if f"-{result['config_hash'][:12]}-" in path.name]
    scores = []
    for copy in of_completed:
        (log,) = copy.glob("run-*.wandb")
        read = subprocess.run([sys.executable, "-c", READ, log], capture_output=True, text=True, check=True)
        rows, facts = json.loads(read.stdout)
        assert facts["project"] == "sweep"
        assert facts["name"] == result["run_id"]
        assert facts["tags"] == ["completed"]
        assert facts["config"]["model.latent_dim"] == 2
        assert facts["config"]["config_hash"] == result["config_hash"]
        assert facts["config"]["optimizer.learning_rate"] == record["config"]["optimizer"]["learning_rate"]
        assert len(rows) == len(curves)
        for row, curve in zip(rows, curves, strict=True):
            assert row["_step"] == curve["step"]
            assert {name: row[name] for name in curve if name != "step"} == {
                n: v for n, v in curve.items() if n != "step"
            }
        assert facts["summary"]["final/validation/loss"] == result["metrics"]["validation/loss"]
        scores.append(facts["summary"]["test/loss"])
        (picture,) = copy.glob("files/media/images/figures/*.png")
        assert picture.read_bytes() == PNG
        assert digest(copy / "files/params.safetensors") == result["files"]["params.safetensors"]
    assert len(scores) == 2
    assert scores.count(-123.0) == 1  # in any order: names of copies count seconds


@pytest.mark.parametrize("target", ["mlflow", "wandb"])
def test_a_missing_library_is_one_line(target, sweep, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, target, None)
    monkeypatch.setattr(sys, "argv", ["mirror.py", str(sweep), "--to", target])
    with pytest.raises(ValueError, match=rf"--to={target}: .*pip install -c constraints.txt -e '.\[{target}\]'"):
        main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [(), ("--parameters",)])
def test_a_note_says_that_old_copies_get_no_parameters(options, sweep, monkeypatch, capsys) -> None:
    class Same:
        def __init__(self, *_: str):
            pass

        def add(self, _: Any) -> str:
            return "as before"

    monkeypatch.setattr(mirror, "MLflow", Same)
    monkeypatch.setattr(sys, "argv", ["mirror.py", str(sweep), "--to", "mlflow", *options])
    main()
    assert ("made without --parameters" in capsys.readouterr().err) == bool(options)


def test_files_that_were_changed_are_not_copied(sweep, tmp_path, monkeypatch) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    path = next(tmp_path.glob("sweep/seed=0*/metrics.csv"))
    path.write_text(path.read_text().replace("1,", "7,", 1))
    monkeypatch.setattr(sys, "argv", ["mirror.py", str(tmp_path / "sweep"), "--to", "mlflow"])
    with pytest.raises(ValueError, match=r"metrics\.csv is not the file"):
        main()
