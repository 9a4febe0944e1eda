"""A command that stood still while another took its folder and finished wakes, writes nothing and says who has it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from research.report import cli
from research.runs import lease as module
from research.runs.files import LOST

Command = Callable[..., Any]
SWEEP = (
    "-m",
    "data=low_rank",
    "model.likelihood=gaussian",
    "model.hidden_dims=[4]",
    "model.latent_dim=2",
    "data.train_size=64",
    "data.validation_size=16",
    "data.test_size=16",
    "trainer.epochs=2",
    "trainer.evaluate_every=1",
    "trainer.batch_size=16",
    "evaluation=none",
    "seed=0,1",
    "sweep.mode=map",
    "sweep.checkpoint_every=1",
    "sweep.concurrency=1",  # a second thread could be stopped between its question for the lease and its write
)
INTERVAL = 0.05  # seconds between two movements of a lease: three of them without one, and it is taken over

# Each line it is given names a phase; it runs the command of that phase, stops itself there, and says how it ended.
VICTIM = f"""
import os, signal, sys, time
from research.runs import lease
lease.acquire.__kwdefaults__["interval"] = {INTERVAL}
import research.report.table, research.sweep.train.finish, research.sweep.command
from research import app
from research.report import cli
from research.sweep.train.display import Display

def stopping(owner, name, before=0):
    original, calls = getattr(owner, name), []
    def stop(*arguments, **named):
        calls.append(name)
        if len(calls) <= before:
            return original(*arguments, **named)
        setattr(owner, name, original)
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGSTOP)
        while not os.path.exists("awake"):  # the signal may reach another thread first
            time.sleep(0.01)
        os.remove("awake")
        return original(*arguments, **named)
    setattr(owner, name, stop)

PHASES = dict(
    training=(Display, "chunk"),
    evaluating=(research.sweep.train.finish, "evaluate_run", 1),  # of the second member: no other one trains any more
    summary=(research.sweep.command, "summary"),
    reporting=(research.report.table, "table_of"),
)
for line in sys.stdin:
    phase, *arguments = line.split()
    stopping(*PHASES[phase])
    try:
        if phase == "reporting":
            code = cli.main(arguments)
        else:
            app.statuses.clear()
            sys.argv = ["scripts/train.py", *arguments]
            app.main()
            code = 0
    except SystemExit as ended:
        code = ended.code
    print("ended", code, file=sys.stderr, flush=True)
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of this process move as fast as those of the victim."""
    monkeypatch.setitem(module.acquire.__kwdefaults__, "interval", INTERVAL)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [sys.executable, "-c", VICTIM], cwd=tmp_path, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.send_signal(signal.SIGCONT)
        child.communicate()


def begin(child: subprocess.Popen[str], *words: str) -> None:
    """Start the command of a phase, and wait until it has stopped itself."""
    assert child.stdin is not None
    child.stdin.write(" ".join(words) + "\n")
    child.stdin.flush()
    end = time.monotonic() + 300
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def wake(child: subprocess.Popen[str], folder: Path) -> list[str]:
    """Let it go on; what it says until its command has ended, the code last."""
    assert child.stderr is not None
    (folder / "awake").touch()
    child.send_signal(signal.SIGCONT)
    lines = []
    for line in child.stderr:
        lines.append(line.strip())
        if line.startswith("ended"):
            break
    return lines


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, with its content and when it was written."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def without_temporaries(before: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The files of before; a thread that was stopped within a file may have removed its temporary."""
    return {name: file for name, file in before.items() if (folder / name).exists() or Path(name).name[0] != "."}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="whether a process has stopped is read in /proc")
def test_a_stopped_command_writes_nothing_once_another_has_finished_its_work(
    victim: subprocess.Popen[str], command: Command, outputs: Path, tmp_path: Path
) -> None:
    for phase, ends in (
        ("training", True),
        ("evaluating", False),
        ("evaluating", True),
        ("summary", False),
    ):
        arguments = (*SWEEP, f"name={phase}{ends}")
        begin(victim, phase, *arguments, f"output_root={outputs}")
        folder = outputs / f"{phase}{ends}"
        ended = command(*arguments)
        assert ended.code == 0, ended.err
        before = files(folder)
        assert sum(name.endswith("result.json") for name in before) == 2
        assert any(name.startswith("summary/") for name in before)
        if ends:
            victim.send_signal(signal.SIGTERM)
        *said, code = wake(victim, tmp_path)
        assert files(folder) == without_temporaries(before, folder), (phase, ends)
        assert code == f"ended {LOST}", (phase, ends, said)
        assert "another command took this folder over while this one stood still" in said[-1]
        assert len([line for line in said if line.startswith("error")]) == 1, said
    folder = outputs / "evaluatingFalse"
    begin(victim, "reporting", str(folder), "--figures", "none")
    assert cli.main([str(folder), "--figures", "none"]) == 0
    before = files(folder)
    assert "report/table.md" in before
    *said, code = wake(victim, tmp_path)
    assert files(folder) == before
    assert code == f"ended {LOST}", said
