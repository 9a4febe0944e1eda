"""What the READMEs show works as it stands: every block of Python and every command."""

import doctest
import re
import runpy
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
READMES = sorted(
    [
        ROOT / "README.md",
        *(
            path
            for folder in ("research", "conf", "scripts", "hydra_plugins", "tests")
            for path in (ROOT / folder).rglob("README.md")
        ),
    ]
)
PACKAGES = sorted({path.parent for path in (ROOT / "research").rglob("*.py")} - {ROOT / "research"})
FIRST = ("model.latent_dim=2,8", "seed=range(3)", "model.likelihood=gaussian", "model.scale=0.1", "name=first")
TINY = ("model.hidden_dims=[4]", "data.train_size=64", "data.validation_size=32", "data.test_size=32", "sweep.mode=map")
PLACEHOLDERS = ("FOLDER", "...", ".csv", ".npz")  # a user puts a file or a folder of their own there


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every command in a README, without its comment."""
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


ALL = [(shown(path), words) for path in READMES for words in commands(path) if words]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first command of the README was typed, with smaller networks and one epoch."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, folder, "train.py", "-m", *FIRST, *TINY, "trainer.epochs=1", "evaluation=none") == 0
    return folder


def call(patch: pytest.MonkeyPatch, folder: Path, script: str, *arguments: str) -> int:
    """Type a command in a folder; its exit code."""
    from research import app

    main: Callable[[], Any] = runpy.run_path(str(ROOT / "scripts" / script), run_name="readme")["main"]
    patch.chdir(folder)
    patch.setattr(sys, "argv", [f"scripts/{script}", *arguments])
    app.statuses.clear()
    try:
        return int(main() or 0)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_there_are_two_set_up_commands_of_one_line_each() -> None:
    setup = [words for name, words in ALL if words[0] == "pip" and name == "README.md"]
    assert len(setup) == 2
    assert "scripts/train.py" in setup[0]
    assert "pytest" in setup[1]


@pytest.mark.parametrize(
    ("readme", "words"), [row for row in ALL if "scripts/train.py" in row[1] and row[1][0] != "pip"], ids=str
)
def test_training_commands_are_planned(
    readme: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a command that reads a user's file, the keys are checked; any other is planned as it stands."""
    from research.compose import compose, first_choices
    from research.config import job_of_config, register_resolvers

    arguments = words[words.index("scripts/train.py") + 1 :]
    if "PYTHONPATH=." in words:  # `test_a_model_of_your_own_sweeps_in_one_program`
        return
    if any(placeholder in word for word in arguments for placeholder in PLACEHOLDERS):
        register_resolvers()
        job_of_config(compose([*first_choices([word for word in arguments if word != "-m"]), "name=readme"]))
        return
    assert call(monkeypatch, tmp_path, "train.py", *arguments, "sweep.plan_only=true") == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("readme", "words"),
    [
        row
        for row in ALL
        if row[1][0] == "python" and "scripts/train.py" not in row[1] and row[1][1] != "scripts/bench.py"
    ],
    ids=str,
)
def test_other_commands_run(readme: str, words: list[str], first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run, *_) = sorted(path.parent.name for path in first.glob("outputs/first/*/result.json"))
    arguments = [word.replace("RUN", run) if word.endswith("/RUN") else word for word in words[2:]]
    assert call(monkeypatch, first, Path(words[1]).name, *arguments) == 0


def test_every_command_is_tried() -> None:
    """No command of a README escapes the tests above: it is one of the scripts, the set-up or TensorBoard."""
    for readme, words in ALL:
        scripts = [word for word in words if word.startswith("scripts/")]
        assert words[0] in ("pip", "tensorboard") or scripts, f"{readme}: {words}"
        for script in scripts:
            assert (ROOT / script).is_file(), f"{readme}: {script}"


@pytest.mark.parametrize("readme", READMES, ids=shown)
def test_python_blocks_run(
    readme: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sessions give what they show; a whole file is imported as a module."""
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks(readme, "python")):
        if ">>>" in block:
            if readme == ROOT / "README.md":
                first: Path = request.getfixturevalue("first")
                folder = next(first.glob("outputs/first/*latent_dim=2*/result.json")).parent
                names = {"folder": folder, "x": np.random.default_rng(0).integers(0, 17, (5, 8, 8), np.uint8)}
            test = doctest.DocTestParser().get_doctest(block, names, shown(readme), None, 0)
            assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False).failed == 0
            names = test.globs
        else:
            module = types.ModuleType(f"readme_block_{number}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(compile(block, f"{shown(readme)}, block {number}", "exec"), module.__dict__)


def test_a_model_of_your_own_sweeps_in_one_program(tmp_path: Path) -> None:
    """The package of the README, written to a file and trained by the README's command."""
    (source,) = [block for block in blocks(ROOT / "README.md", "python") if "my_package" in block]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "models.py").write_text(source)
    (words,) = [words for name, words in ALL if name == "README.md" and "PYTHONPATH=." in words]
    arguments = [*words[words.index("scripts/train.py") + 1 :], *TINY[:-1], "trainer.epochs=1", "evaluation=none"]

    def train(*arguments: str) -> subprocess.CompletedProcess[str]:
        import os

        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    done = train(*arguments)
    assert done.returncode == 0, done.stderr
    assert "3 jobs, 1 program" in done.stdout
    refused = train(*(word for word in arguments if "trusted" not in word))
    assert refused.returncode == 2
    assert "trusted_packages=[my_package]" in refused.stderr


@pytest.mark.parametrize("readme", READMES, ids=shown)
def test_links_and_files_exist(readme: Path) -> None:
    text = readme.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (readme.parent / link).exists(), link
    for name in re.findall(r"`((?:research|scripts|conf|hydra_plugins|tests)/[A-Za-z0-9_/.]+)`", text):
        if "NAME" not in name and "denoiser" not in name:  # the files that a reader would make
            assert (ROOT / name).exists(), name


def test_every_package_has_a_readme_and_the_root_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    for package in PACKAGES:
        assert (package / "README.md").is_file() or (package.parent / "README.md").is_file(), package


@pytest.mark.parametrize("folder", [ROOT / "research", *PACKAGES], ids=shown)
def test_a_readme_names_every_file_of_its_folder_and_no_other(folder: Path) -> None:
    readme = folder / "README.md"
    text = readme.read_text() if readme.is_file() else (folder.parent / "README.md").read_text()
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    if readme.is_file():
        for name in re.findall(r"`([a-z_/]+\.(?:py|html|css|js))`", " ".join(cells)):
            assert (folder / name).is_file(), f"{shown(readme)} names {name}"
        for file in folder.glob("*.py"):
            assert file.name == "__init__.py" or f"`{file.name}`" in " ".join(cells), (
                f"{shown(readme)} lacks {file.name}"
            )
    else:  # a small package has a row in the README above it, which names its files without their ending
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{folder.name}/`")]
        for file in folder.glob("*.py"):
            assert file.name == "__init__.py" or f"`{file.stem}`" in row, f"{shown(folder)} lacks {file.name}"


def test_the_size_of_the_core_is_as_stated() -> None:
    text = (ROOT / "README.md").read_text()
    (stated,) = re.findall(r"The core has ([\d,]+) lines", text)
    table = text[text.index("The core has") :]
    files = [name for line in table.splitlines() if line.startswith("| `") for name in re.findall(r"`(\S+\.py)`", line)]
    lines = sum(len((ROOT / name).read_text().splitlines()) for name in files)
    assert abs(lines - int(stated.replace(",", ""))) <= 50, lines


def test_every_test_that_the_table_of_laws_names_exists() -> None:
    names = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", (ROOT / "tests" / "README.md").read_text())
    assert len(names) > 30
    for file, name in names:
        path = ROOT / "tests" / file
        assert f"def {name}(" in path.read_text(), f"{file}::{name}"
