"""Nothing that is read can execute, reach outside of its folder, hang, or fill the memory."""

import ast
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.data.files import arrays as readers
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.tree import ConfigError, build, config_hash, resolve_target

ROOT = Path(__file__).parents[1]
FOLDERS = ("research", "hydra_plugins", "scripts")

# whole modules, and single functions, that execute what they read
MODULES = {"pickle", "_pickle", "cPickle", "pickle5", "dill", "cloudpickle", "jsonpickle", "shelve", "marshal"}
NAMES = {
    *("eval", "exec", "__import__"),
    *(f"builtins.{name}" for name in ("eval", "exec", "__import__")),
    *("os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.spawnv"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
    *("joblib.load", "torch.load", "pandas.read_pickle", "pandas.io.pickle.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *(f"yaml.{kind}" for kind in ("Loader", "CLoader", "UnsafeLoader", "CUnsafeLoader", "FullLoader", "CFullLoader")),
}
ONLY_FALSE = ("allow_pickle", "shell")  # keywords of any call
LOADS = ("numpy.load", "numpy.lib.format.read_array", "numpy.lib.npyio.load")  # must say allow_pickle=False


def dangers(text: str) -> Iterator[str]:
    """What a module uses of the above, under whatever name it imports it."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    known: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                yield from (alias.name,) if alias.name.split(".")[0] in MODULES else ()
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if str(node.module).split(".")[0] in MODULES or alias.name in MODULES:
                    yield f"{node.module}.{alias.name}"

    def full(node: ast.AST) -> str | None:
        """The dotted name that an expression stands for."""
        if isinstance(node, ast.Name):
            return known.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := full(node.value)) is not None:
            return f"{owner}.{node.attr}"
        return None

    safe = set()
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        off = {name for name, value in keywords.items() if isinstance(value, ast.Constant) and value.value is False}
        yield from (f"{name}=" for name in ONLY_FALSE if name in keywords and name not in off)
        if full(node.func) in LOADS and "allow_pickle" in off:
            safe.add(node.func)
        if full(node.func) in ("importlib.import_module", "getattr") and {"pickle", "eval", "exec", "system"} & {
            str(value.value) for value in node.args if isinstance(value, ast.Constant)
        }:
            yield ast.unparse(node)
    for node in nodes:
        name = full(node)
        if name in NAMES or (name in LOADS and node not in safe):
            yield name


@pytest.mark.parametrize(
    "path",
    [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_module_can_unpickle_or_evaluate(path: Path) -> None:
    assert list(dangers(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import _pickle as quick",
        "def f():\n    from pickle import loads",
        "from dill import loads",
        "from six.moves import cPickle",
        "import shelve",
        "import marshal",
        "import joblib\njoblib.load(p)",
        "from joblib import load as read\nread(p)",
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "import numpy as np\nnp.load(p, None, True)",
        "import numpy as np\nnp.load(p, allow_pickle=False)\nread = np.load",
        "from numpy import load\nload(p)",
        "import numpy as np\nnp.lib.format.read_array(p, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(p)",
        "import torch\ntorch.load(p)",
        "import yaml\nyaml.load(t, yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(t)",
        "from yaml import full_load\nfull_load(t)",
        "import yaml\nclass Mine(yaml.Loader): ...",
        "eval(t)",
        "exec(t)",
        "import builtins\nbuiltins.eval(t)",
        "run = eval",
        "__import__('pickle').loads(t)",
        "import importlib\nimportlib.import_module('pickle')",
        "getattr(os, 'system')(t)",
        "import subprocess\nsubprocess.run(t, shell=True)",
        "from subprocess import getoutput\ngetoutput(t)",
        "import os\nos.system(t)",
        "from os import system as run\nrun(t)",
    ],
)
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert list(dangers(text))


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import yaml\nyaml.safe_load(t)",
        "import json\njson.load(f)",
        "import re\nre.compile(t)",
        "program.compile()",
        "import subprocess\nsubprocess.run([t])",
    ],
)
def test_the_search_leaves_the_rest_alone(text: str) -> None:
    assert list(dangers(text)) == []


# ------------------------------------------------------------------------------------------------------ foreign classes

FOREIGN = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "flax.linen.Dense",
    "research.tree.importlib.import_module",  # a module is no package
    "research.runs.folder.os.system",
    "research.app.Path",  # a foreign class under an address of this project
    "research.sweep.train.units.ThreadPoolExecutor",
    "research.networks.dense.nn.Dense",
    "research.sweep.command.prepare",  # a function of this project
    "research.runs.folder.RunFolder",  # a class that no config may make
    "research.tree.ConfigError",
    "researchers.Model",
    "research",
    "research.",
    ".research.models.vae.VAE",
    "research..models.vae.VAE",
    "research.models.vae.VAE.__init__",
    "research.models.vae.__builtins__",
    "research.models.vae\0.VAE",
    "../research/models/vae.VAE",
    "",
    None,
    ["research.models.vae.VAE"],
]


@pytest.mark.parametrize("target", FOREIGN, ids=repr)
def test_a_foreign_target_is_refused(target: Any) -> None:
    with pytest.raises(ConfigError, match="_target_"):
        resolve_target(target)
    with pytest.raises(ConfigError, match=r"model\._target_"):
        build({"_target_": target, "command": "true"}, key="model")


def test_trust_is_for_a_package_and_not_for_what_begins_like_it() -> None:
    with pytest.raises(ConfigError, match="_target_"):
        resolve_target("os.system", ["o"])
    with pytest.raises(ConfigError, match="must be a @spec"):
        resolve_target("os.system", ["os"])


# ----------------------------------------------------------------------------------------------------- data of users


class Bomb:
    """Executes when it is unpickled."""

    fired = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "fired", True)


def archive(path: Path, content: bytes, name: str = "x.npy", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(name, content)
    return path


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """The head of an `.npy` file that promises so much."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LARGEST", 1_000_000)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = archive(tmp_path / "bomb.npz", header((5_000_000,)) + b"\0" * 20_000_000, method=method)
        assert os.path.getsize(path) < 30_000
        with monkeypatch.context() as patch:
            patch.setattr(np, "load", None)
            patch.setattr(zipfile.ZipFile, "open", None)
            with pytest.raises(ConfigError, match=r"declare 20000128 bytes of content; not unpacked"):
                readers.read_npz(path, None, None)


def test_the_limit_of_an_archive_is_no_more_than_a_small_machine_has() -> None:
    assert readers.LARGEST <= 2**30
    assert readers.RATIO <= 100


def test_an_archive_that_understates_itself_is_not_read_further(tmp_path: Path) -> None:
    """The sizes in the directory of a bomb say 100 bytes: no more than these are unpacked."""
    path = archive(tmp_path / "bomb.npz", header((5_000_000,)) + b"\0" * 20_000_000)
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + at, 100)
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match=r"is not a valid \.npz file or is damaged"):
        readers.read_npz(path, None, None)


def test_pickles_in_arrays_do_not_fire(tmp_path: Path) -> None:
    array = np.empty(1, object)
    array[0] = Bomb()
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    archive(tmp_path / "inner.npz", pickle.dumps(Bomb()))
    for name in ("x.npy", "x.npz", "plain.npy", "plain.npz", "inner.npz"):
        read = readers.READERS[Path(name).suffix]
        with pytest.raises(ConfigError, match="pickles are never loaded"):
            read(tmp_path / name, None, None)
    assert not Bomb.fired
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.fired  # it is armed
    Bomb.fired = False


def test_a_header_that_promises_more_than_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(header((2**40, 8)) + b"\0" * 64)
    archive(tmp_path / "x.npz", header((2**40, 8)) + b"\0" * 64)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ConfigError, match=r"cut short|is damaged"):
            readers.READERS[Path(name).suffix](tmp_path / name, None, None)


# ----------------------------------------------------------------------------------------------------- files of a run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A folder with all files of a run, though none that trained."""
    folder = RunFolder(tmp_path / "run", ALONE)
    config = {"model": {"_target_": "os.system", "command": "true"}, "seed": 0}
    folder.write_config({"config": config, "config_hash": config_hash(config), "trusted_packages": ["os"]})
    folder.append_metrics([{"step": 4, "epoch": 1, "train/loss": 1.0}])
    folder.save_parameters({"layer": {"bias": np.ones(2, np.float32)}}, {"shift": np.zeros((), np.float32)})
    folder.write_result({"status": "completed", "metrics": {}, "files": folder.hashes()})
    return folder


READS: dict[str, Callable[[RunFolder], Any]] = {
    "config.json": RunFolder.read_config,
    "result.json": RunFolder.read_result,
    "metrics.csv": RunFolder.read_metrics,
    "params.safetensors": RunFolder.load_parameters,
}


def link(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def pipe(path: Path, elsewhere: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path, elsewhere: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [link, pipe, endless])
@pytest.mark.parametrize("name", READS)
def test_what_is_no_plain_file_is_not_read(
    name: str, put: Callable[[Path, Path], None], run: RunFolder, tmp_path: Path
) -> None:
    put(run.path / name, tmp_path / "elsewhere")
    refused = rf"run: {name} is a link or no plain file, and is not followed; remove it"
    with pytest.raises(ConfigError, match=refused):
        READS[name](run)
    if name != "result.json":
        with pytest.raises(ConfigError, match=refused):
            run.hashes()


def test_rows_are_not_appended_to_what_a_link_points_to(run: RunFolder, tmp_path: Path) -> None:
    link(run.metrics, tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    with pytest.raises(ConfigError, match=r"metrics\.csv is a link"):
        RunFolder(run.path, ALONE).append_metrics([{"step": 8, "epoch": 2, "train/loss": 1.0}])
    run.write_result({"status": "failed"})  # a whole file takes the place of whatever stood there
    assert (tmp_path / "elsewhere").read_bytes() == before


def tensors(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


FLOAT = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Bomb()),
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"unclaimed",
        tensors({"params/x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)),
        tensors({"params/x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(4)),
        tensors({"params/x": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        tensors({"params/x": FLOAT | {"data_offsets": [-4, 0]}}, bytes(4)),
        tensors({"params": FLOAT, "params/x": FLOAT | {"data_offsets": [4, 8]}}, bytes(8)),
        tensors({"params/x/y": FLOAT, "params/x": FLOAT | {"data_offsets": [4, 8]}}, bytes(8)),
    ],
)
def test_a_malicious_file_of_parameters_is_refused(content: bytes, run: RunFolder) -> None:
    run.parameters.write_bytes(content)
    with pytest.raises(ConfigError, match=r"params\.safetensors is not the file"):
        run.load_parameters()
    run.write_result({"status": "completed", "files": run.hashes()})  # whoever wrote it can write its hash too
    with pytest.raises(ConfigError, match=r"params\.safetensors is damaged"):
        run.load_parameters()
    assert not Bomb.fired


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"{", b"\xff\xfe", b"[" * 100_000, pickle.dumps(Bomb())])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_malicious_record_is_refused(name: str, content: bytes, run: RunFolder) -> None:
    (run.path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name} is damaged"):
        READS[name](run)
    assert not Bomb.fired


def test_a_loaded_run_makes_no_foreign_class_whatever_it_says_of_trust(run: RunFolder) -> None:
    import research

    with pytest.raises(ConfigError, match=r"model\._target_=os\.system"):
        research.load(run.path)
    with pytest.raises(ConfigError, match="must be a @spec, a @recipe or a Linen module"):
        research.load(run.path, ["os"])


def test_encoding_with_a_foreign_class_is_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from research import encode

    monkeypatch.chdir(run.path.parent)
    monkeypatch.setattr("sys.argv", ["encode.py", str(run.path), "data=digits"])
    with pytest.raises(SystemExit) as ended:
        encode.main()
    assert ended.value.code == 2
    assert "model._target_=os.system" in capsys.readouterr().err
    assert not (run.path.parent / "codes.csv").exists()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", ".", "", "reference", "a\\b", "a\0b"])
def test_names_cannot_leave_the_output_folder(name: str) -> None:
    from research.config import Settings

    settings = {"output_root": "outputs", "seed": 0, "objective": "x", "trusted_packages": []}
    with pytest.raises(ConfigError, match="must be a plain folder name"):
        build({**settings, "name": name}, Settings)


@pytest.mark.parametrize(
    "override", ["data.path=/etc/x.csv", "model.a=../../b", "x=\0\n\x1b[2J", "seed=..", "a=" + "b" * 999]
)
def test_folders_of_runs_have_plain_names(override: str) -> None:
    from research.sweep.job import readable

    name = readable([override])
    assert Path(name).name == name
    assert not name.startswith(".")
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=-")
    assert len(name) <= 80


def test_what_was_read_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from research.sweep.train.display import Display

    Display().note("damaged: \x1b]0;title\x07\x1b[2J[red]run[/red]\r")
    assert capsys.readouterr().out == "damaged: ?]0;title??[2J[red]run[/red]?\n"
