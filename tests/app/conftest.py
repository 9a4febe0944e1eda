"""The command, run inside the test's process in an empty folder."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = (
    "model.hidden_dims=[4]",
    "model.latent_dim=2",
    "data.train_size=64",
    "data.validation_size=16",
    "data.test_size=16",
    "trainer.epochs=2",
    "trainer.evaluate_every=1",
    "trainer.batch_size=16",
    "evaluation=none",
    "sweep.mode=map",  # tests then share the programs of single jobs through the compile cache
)


@dataclasses.dataclass
class Ended:
    """How a command ended."""

    code: Any
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a refusal."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ended]:
    """`command("-m", "seed=0,1")`: run the training command with its outputs below the test's folder."""
    from research import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, output_root: str | None = None) -> Ended:
        app.statuses.clear()
        root = tmp_path / "outputs" if output_root is None else output_root
        monkeypatch.setattr(sys, "argv", ["scripts/train.py", *arguments, f"output_root={root}"])
        capsys.readouterr()
        code: Any = 0
        try:
            app.main()
        except SystemExit as ended:
            code = ended.code or 0
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def tiny(command: Callable[..., Ended]) -> Callable[..., Ended]:
    """As `command`, with sizes that train in no time."""

    def run(*arguments: str) -> Ended:
        keys = {argument.partition("=")[0] for argument in arguments}
        defaults = [default for default in TINY if default.partition("=")[0] not in keys]
        flags = [argument for argument in arguments if argument.startswith("-")]
        return command(*flags, *defaults, *(argument for argument in arguments if argument not in flags))

    return run


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Where `command` writes."""
    return tmp_path / "outputs"


def results(folder: Path) -> list[dict[str, Any]]:
    """All results of a sweep, by folder name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


@pytest.fixture(name="results")
def results_fixture() -> Callable[[Path], list[dict[str, Any]]]:
    """`results(folder)`: all results of a sweep folder."""
    return results
