"""What the README shows works as it stands."""

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def train(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, "evaluation=none", "trainer.epochs=1"]
    return subprocess.run(
        [*command, f"output_root={folder}"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
    )


def test_there_are_two_set_up_commands_of_one_line_each() -> None:
    setup = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("pip install")]
    assert len(setup) == 2
    assert "scripts/train.py -m" in setup[0]
    assert "pytest" in setup[1]


def test_python_example_runs(tmp_path: Path) -> None:
    """The session under "Using a run", on a run of two latents."""
    done = train("model.latent_dim=2", "name=readme", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in tmp_path.glob("readme/*/result.json"))
    (session,) = [block for block in blocks("python") if ">>>" in block]
    x = np.random.default_rng(0).integers(0, 17, (5, 8, 8), np.uint8)
    test = doctest.DocTestParser().get_doctest(session, {"folder": folder, "x": x}, "README", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_model_of_your_own_sweeps_in_one_program(tmp_path: Path) -> None:
    (source,) = [block for block in blocks("python") if "my_package" in block]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "models.py").write_text(source)
    (command,) = [block for block in blocks("bash") if "my_package" in block]
    arguments = shlex.split(command.partition("train.py")[2])
    done = train(*arguments, folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "3 jobs, 1 program" in done.stdout
    refused = train(*(a for a in arguments if "trusted" not in a), folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 2
    assert "trusted_packages=[my_package]" in refused.stderr


def test_links_and_files_exist() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"`((?:research|scripts|conf|hydra_plugins)/[A-Za-z0-9_/.]+)`", README):
        if "NAME" not in name and "convolutional" not in name:
            assert (ROOT / name).exists(), name
