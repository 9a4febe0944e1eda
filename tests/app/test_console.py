"""Consoles of any encoding, streams that nobody reads, and limits of the machine: what a command says, and its code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAYS = "from research.command import run; run(lambda: print('0.5 \\u00b1 0.1 \\u8a9e \\udcff'))"


def ended(*command: str, folder: Path, shell: str = "", **switches: str) -> subprocess.CompletedProcess[bytes]:
    """A Python process with the project on its path; `shell` follows the command."""
    quoted = " ".join(f"'{word}'" for word in (sys.executable, *command)) if shell else ""
    line = ["bash", "-c", f"{quoted} {shell}"] if shell else [sys.executable, *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **switches}
    return subprocess.run(line, cwd=folder, capture_output=True, env=environment)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"0.5 ? 0.1 ? ?\n"),
        ("cp1252", b"0.5 \xb1 0.1 ? ?\n"),
        ("utf-8", "0.5 ± 0.1 語 ?\n".encode()),
        ("utf-8:strict", "0.5 ± 0.1 語 ?\n".encode()),
    ],
)
def test_what_a_console_cannot_show_is_replaced(encoding: str, shown: bytes, tmp_path: Path) -> None:
    done = ended("-c", SAYS, folder=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"")


MANY = 'from research.command import run; run(lambda: [print("x" * 99) for _ in range(9999)] and None)'


@pytest.mark.parametrize("shell", ["| head -1; exit ${PIPESTATUS[0]}", ">&-", "2>&- >&-", "<&- >&- 2>&-"])
def test_a_stream_that_nobody_reads_is_no_harm(shell: str, tmp_path: Path) -> None:
    done = ended("-c", MANY, folder=tmp_path, shell=shell)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_printed_never_lands_in_a_file_that_took_a_closed_stream(tmp_path: Path) -> None:
    opens = "f = open('file', 'w'); f.write('content'); print('printed'); os.write(1, b'printed'); os.write(2, b'told')"
    script = f"import os; from research.command import run; run(lambda: exec({opens!r}))"
    (tmp_path / "script.py").write_text(script)
    done = ended("script.py", folder=tmp_path, shell=">&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "content"


def test_a_working_folder_that_was_removed_is_told(tmp_path: Path) -> None:
    script = (
        "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); from research.command import run; "
    )
    done = ended("-c", script + "run(lambda: print('begun'))", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: folder=.: the working folder was removed; change to one that exists\n"


def test_a_full_disk_below_stdout_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        return
    done = ended("-c", MANY, folder=tmp_path, shell=">/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: what was printed could not be written to its end")


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        ("OSError(28, 'No space left on device', 'table.md')", 2, "error: table.md: no space is left on this disk"),
        ("OSError(27, 'File too large')", 2, "error: disk: files may not become this large"),
        ("KeyboardInterrupt()", 130, ""),
        ("SystemExit(3)", 3, ""),
        ("KeyError('bug')", 1, "Traceback"),
        ("FileNotFoundError(2, 'No such file or directory', 'bug')", 1, "Traceback"),
    ],
)
def test_known_errors_are_one_line_and_bugs_show_their_traceback(
    raised: str, code: int, told: str, tmp_path: Path
) -> None:
    script = f"from research.command import run\ndef main():\n    raise {raised}\nrun(main)"
    done = ended("-c", script, folder=tmp_path)
    assert done.returncode == code
    assert done.stderr.decode().startswith(told)
    assert told == "Traceback" or done.stderr.count(b"\n") == bool(told)


def test_a_command_is_whole_on_an_ascii_console_into_a_closed_pipe(tmp_path: Path) -> None:
    train = [str(ROOT / "scripts/train.py"), "data=low_rank", "data.rows=120", "model.likelihood=gaussian"]
    train += ["trainer.epochs=1", "evaluation=none", "output_root=.", "name=sweep"]
    ascii_console = {"PYTHONIOENCODING": "ascii"}
    done = ended(*train, folder=tmp_path, shell="| true; exit ${PIPESTATUS[0]}", **ascii_console)
    assert (done.returncode, done.stderr) == (0, b"")
    (run,) = (path.parent for path in tmp_path.glob("sweep/*/result.json"))
    for script in (["report.py", "sweep", "--figures", "none"], ["verify.py", "sweep"], ["encode.py", str(run)]):
        done = ended(str(ROOT / "scripts" / script[0]), *script[1:], folder=tmp_path, **ascii_console)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    assert "±" not in (tmp_path / "sweep/report/table.md").read_text()  # one run has no spread
    assert "↓" in (tmp_path / "sweep/report/table.md").read_text()


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_a_limit_of_file_sizes_is_told_while_hydra_writes(launcher: str, tmp_path: Path) -> None:
    limit = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); "
    limit += f"runpy.run_path({str(ROOT / 'scripts/train.py')!r}, run_name='__main__')"
    line = ["-m", "seed=0,1", f"hydra/launcher={launcher}", "data=low_rank", "data.rows=120", "evaluation=none"]
    line += ["model.likelihood=gaussian", "trainer.epochs=1", "output_root=.", "name=sweep"]
    done = ended("-c", limit, *line, folder=tmp_path)
    assert done.returncode == 2
    (told,) = done.stderr.decode().splitlines()
    assert "files may not become this large" in told
