"""Nothing that is read from a run or sweep folder can execute, or reach outside of it."""

import ast
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.runs.load import load
from research.sweep.display import Display
from research.sweep.manifest import GROUPS
from research.sweep.prepare import prepare
from research.sweep.run import run
from research.sweep.verify import main as verify
from research.tree import ConfigError, config_hash

ROOT = Path(__file__).parents[2]
Jobs = Callable[..., list[Any]]

# module -> what of it would execute what it reads; "*": the whole module
FORBIDDEN = {
    **{name: {"*"} for name in ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal")},
    "joblib": {"load", "dump"},
    "torch": {"load"},
    "pandas": {"read_pickle"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load", "Loader", "UnsafeLoader", "FullLoader"},
    "os": {"system", "popen"},
    "builtins": {"eval", "exec"},
}


def sources() -> list[Path]:
    folders = ("research", "hydra_plugins", "scripts")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def dangers(text: str) -> Iterator[str]:
    """What a module uses of `FORBIDDEN`, and arrays or shells that are opened without a guard."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if "*" in FORBIDDEN.get(alias.name.split(".")[0], ()))
        if isinstance(node, ast.ImportFrom) and node.module:
            found = FORBIDDEN.get(node.module.split(".")[0], set())
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name in found or "*" in found)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in FORBIDDEN.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
            if node.value.id == "np" and node.attr == "load" and "allow_pickle=False" not in text:
                yield "np.load"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN["builtins"]:
            yield node.func.id
        if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
            off = isinstance(node.value, ast.Constant) and node.value.value is False
            yield from () if off else (f"{node.arg}=",)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_unpickle_or_evaluate(path: Path) -> None:
    assert list(dangers(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from dill import loads",
        "import joblib\njoblib.load(p)",
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import yaml\nyaml.load(t, yaml.Loader)",
        "eval(t)",
        "import subprocess\nsubprocess.run(t, shell=True)",
        "import os\nos.system(t)",
    ],
)
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert list(dangers(text))


# ---------------------------------------------------------------------------------------------------- malicious folders


class Bomb:
    """Executes when it is unpickled."""

    fired = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "fired", True)


@pytest.fixture
def trained(tmp_path: Path, make_job: Callable[..., Any], make_options: Callable[..., Any]) -> Any:
    """One finished run, and a function that runs its command again."""
    jobs = [make_job("seed=0", "trainer.epochs=3"), make_job("seed=1", "trainer.epochs=3")]

    def again(display: Display | None = None) -> list[Any]:
        options = make_options(checkpoint_every=1)
        about = {"name": "sweep", "objective": "", "options": options, "display": display or Display()}
        return run(prepare(jobs, tmp_path / "sweep", options), jobs, **about)

    return again(), again


def test_pickles_in_the_place_of_files_do_not_fire(trained: Any, tmp_path: Path) -> None:
    (outcome, _), again = trained
    assert pickle.loads(pickle.dumps(Bomb())) is None
    assert Bomb.fired
    Bomb.fired = False
    (outcome.folder / "params.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"params\.safetensors is damaged"):
        load(outcome.folder)
    for name in ("result.json", "config.json"):
        (outcome.folder / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ConfigError, match="is damaged"):
            again()
        assert verify([str(tmp_path / "sweep"), "--members", "0"]) in (1, 2)
    assert not Bomb.fired


def test_a_header_that_promises_too_much_is_refused(trained: Any) -> None:
    (outcome, _), _ = trained
    (outcome.folder / "params.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ConfigError, match="is damaged"):
        load(outcome.folder)


class Killed(BaseException):
    pass


class Breaking(Display):
    def chunk(self, number: int, epochs: int, metrics: Any) -> None:
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
    generations = sorted((folder / GROUPS).glob("*/[0-9]*"))
    for path in [file for file in generations[-1].rglob("*") if file.is_file()]:
        path.write_bytes(pickle.dumps(Bomb()))
    older = generations[0].with_name("00000000")
    older.symlink_to(secret)
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


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "reference", "a\\b"])
def test_names_cannot_leave_the_output_folder(name: str) -> None:
    from research.app import Settings
    from research.tree import build

    settings = {"output_root": "outputs", "seed": 0, "objective": "x", "trusted_packages": []}
    with pytest.raises(ConfigError, match="must be a plain folder name"):
        build({**settings, "name": name}, Settings)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from research.data import readers

    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * 50_000_000)
    monkeypatch.setattr(readers, "LARGEST", 1_000_000)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(ConfigError, match=r"declare .* bytes of content; not unpacked"):
        readers.read_npz(path, None, None)
    assert os.path.getsize(path) < 100_000


def test_the_page_of_a_sweep_escapes_what_it_shows(trained: Any, tmp_path: Path) -> None:
    """Tables in Markdown and LaTeX hold names of runs and reasons, which anyone may have written into a folder."""
    from research.report import render
    from research.report.collect import collect
    from research.report.table import table

    (outcome, _), _ = trained
    path = outcome.folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "failed", "reason": "<script>|\\input{x}"}))
    text = render.markdown(table(collect(tmp_path / "sweep")), None)
    assert "<script>" not in text
