"""A sweep loses its lease at any of its questions: from then on no file below its folder changes."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from research.runs.files import LeaseLost
from research.runs.lease import Lease
from research.sweep.command import prepare, run
from research.sweep.folder import LEASE
from research.sweep.train.display import Display
from research.tree import ConfigError

Files = dict[str, tuple[bytes, int]]


def files(folder: Path) -> Files:
    """Every file below a folder, with its content and when it was written.

    Not its leases, and what is being written under another name: it may go, or stay and count for nothing.
    """
    temporary = lambda path: path.name.startswith(".")
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not temporary(path)]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work for threads in the background is done at once.

    Then no thread stands between its question for the lease and its write while another one finds the lease lost.
    """

    def submit(self: ThreadPoolExecutor, work: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(work(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)


@pytest.fixture
def train(tmp_path: Path, make_jobs: Callable[..., list[Any]], make_options: Callable[..., Any]) -> Any:
    """Train two runs in a folder of the given name, with a checkpoint after every evaluation."""
    jobs, options = make_jobs("seed=0,1"), make_options(mode="vmap", checkpoint_every=1)

    def start(name: str) -> Path:
        folder = tmp_path / name
        run(prepare(jobs, folder, options), jobs, name="sweep", objective="", options=options, display=Display())
        return folder

    return start


def taken_at(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[Files]]:
    """Have another process take the folder just before its lease is asked for the `number`-th time."""
    asked, before = [0], list[Files]()
    check = Lease.check

    def asking(lease: Lease) -> None:
        if lease.path == folder / LEASE:
            asked[0] += 1
            if asked[0] == number:
                content = json.loads(lease.path.read_bytes())
                lease.path.write_text(json.dumps(content | {"token": "of another process"}))
                before.append(files(folder))
        check(lease)

    monkeypatch.setattr(Lease, "check", asking)
    return asked, before


def lost(numbers: range, train: Any, tmp_path: Path) -> None:
    for number in numbers:
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            _, before = taken_at(number, folder, patch)
            with pytest.raises(LeaseLost, match="another command took this folder over"):
                train(folder.name)
        assert files(folder) == before[0], number


def questions(train: Any, tmp_path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        asked, _ = taken_at(0, tmp_path / "whole", patch)
        train("whole")
    return asked[0]


def test_a_lease_that_is_lost_is_the_last_that_is_asked(train: Any, tmp_path: Path) -> None:
    number = questions(train, tmp_path)
    assert number > 40
    lost(range(2, number + 1, number // 7), train, tmp_path)


def test_a_place_that_the_next_holder_removed_is_told_as_a_lost_lease(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, key: str, name: str) -> None:
        lease = tmp_path / "gone" / LEASE
        lease.write_text(json.dumps(json.loads(lease.read_bytes()) | {"token": "of another process"}))
        raise ConfigError("name", name, "this place cannot be written")

    monkeypatch.setattr("research.sweep.train.ledger.acquire", gone)
    with pytest.raises(LeaseLost, match="another command took this folder over"):
        train("gone")


@pytest.mark.slow
def test_a_lease_that_is_lost_anywhere_is_the_last_that_is_asked(train: Any, tmp_path: Path) -> None:
    lost(range(1, questions(train, tmp_path) + 1), train, tmp_path)
