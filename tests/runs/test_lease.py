"""One worker at a time: who gets a lease, who is told no, and who finds out that it was lost."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from research.runs import lease as module
from research.runs.files import LeaseLost
from research.runs.lease import INTERVAL, LONGEST, OPENING, POLLS, STILL, Lease, acquire, holder
from research.tree import ConfigError

ROOT = Path(__file__).parents[2]
SECONDS = 300.0  # after which a test that waits for another thread or process has failed
SILENT = 60.0  # an interval in which no heartbeat comes while a test runs: only the test itself moves the counter
HOLD = """
import sys
from pathlib import Path
from research.runs.files import LeaseLost
from research.runs.lease import acquire
lease = acquire(Path(sys.argv[1]), "name", "sweep", interval=0.05)
print("held", flush=True)
sys.stdin.readline()
try:
    lease.check()
    print("kept", flush=True)
except LeaseLost:
    print("lost", flush=True)
lease.release()
"""
FORK = """
import os, sys, time
from pathlib import Path
from research.runs.files import LeaseLost
from research.runs.lease import acquire
path = Path(sys.argv[1])
lease = acquire(path, "name", "sweep", interval=60)
child = os.fork()
if child == 0:
    before = path.read_bytes()
    assert not lease.beat()
    lease.release()
    try:
        lease.check()
    except LeaseLost:
        os._exit(0 if path.read_bytes() == before else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
lease.check()
assert lease.beat()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep" / "planner.json"


@pytest.fixture
def taken() -> Iterator[Callable[..., Lease]]:
    """`taken(path)`: a lease whose counter only the test moves, released at the end."""
    with contextlib.ExitStack() as leases:
        yield lambda path, **settings: leases.enter_context(take(path, **settings))


def take(path: Path, **settings: Any) -> Lease:
    return acquire(path, "name", "sweep", **{"interval": SILENT, "sleep": never} | settings)


def never(seconds: float) -> None:
    raise AssertionError(f"waited {seconds} seconds for nothing")


def at_once(seconds: float) -> None:
    """A pause that takes no time: watchers count pauses."""


def content(path: Path, **changes: Any) -> bytes:
    """What a silent holder on another machine would have written, with some fields changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"pid": os.getpid(), "started": 1, "host": "elsewhere", "machine": "elsewhere boot pid", "token": "theirs"}
    fields = own | {"interval": INTERVAL, "since": "2026-01-01 00:00:00 +0000"} | changes
    written = f"{OPENING}{7:12d}, {json.dumps(fields)[1:]}\n".encode()
    assert module.parse(written) == {"counter": 7, **fields}
    path.write_bytes(written)
    return written


def moves(path: Path) -> None:
    """One beat of the holder that `content` made."""
    found = json.loads(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(f"{found['counter']:12d}".encode(), b"%12d" % (found["counter"] + 1)))


def token(path: Path) -> str:
    return json.loads(path.read_bytes())["token"]


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir()) if path.parent.exists() else []


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.002)


def beating(path: Path) -> bool:
    return any(thread.name == f"lease {path.name}" for thread in threading.enumerate())


def pauses_until_taken(path: Path) -> list[float]:
    pauses: list[float] = []
    with take(path, sleep=pauses.append) as lease:
        assert token(path) == lease.token
        assert names(path) == [path.name]
    return pauses


def fail(code: int) -> Callable[..., Any]:
    def raising(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return raising


@contextlib.contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def says(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


# ------------------------------------------------------------------------------------------------- one holder at a time


def test_the_file_says_who_holds_it_and_nothing_else_is_left(path: Path) -> None:
    assert holder(path) is None
    with take(path) as lease:
        lease.check()
        found = json.loads(path.read_bytes())
        assert (found["pid"], found["host"], found["interval"]) == (os.getpid(), os.uname().nodename, SILENT)
        assert holder(path) == f"pid {os.getpid()} on {os.uname().nodename} since {found['since']}"
        assert names(path) == [path.name]
    assert names(path) == []
    assert holder(path) is None


def test_a_second_one_in_the_same_process_is_told_who_holds_it(path: Path, taken: Callable[..., Lease]) -> None:
    first = taken(path)
    with pytest.raises(ConfigError) as refusal:
        take(path, sleep=lambda seconds: first.beat())
    assert (refusal.value.key, refusal.value.value) == ("name", "sweep")
    message = str(refusal.value)
    assert message.startswith(f"name=sweep: held by pid {os.getpid()} on {os.uname().nodename} since 2")
    assert "wait for it, end it, or choose another name=" in message
    first.check()
    assert names(path) == [path.name]


def test_two_leases_in_one_folder_know_nothing_of_each_other(path: Path, taken: Callable[..., Lease]) -> None:
    taken(path)
    taken(path.with_name("group-0.json"))
    assert names(path) == ["group-0.json", path.name]


def test_a_holder_in_another_process_is_named_and_its_release_lets_the_next_one_in(path: Path) -> None:
    with process(HOLD, path) as child:
        assert says(child) == "held"
        seen = path.read_bytes()
        with pytest.raises(ConfigError, match=f"held by pid {child.pid} on {os.uname().nodename} since"):
            take(path, sleep=lambda seconds: wait_until(lambda: path.read_bytes() != seen))
        assert token(path) == json.loads(seen)["token"]
        child.communicate("end\n")
        with take(path) as lease:
            lease.check()


def test_a_watcher_gets_a_lease_that_is_released_while_it_watches(path: Path) -> None:
    first = take(path)
    with take(path, sleep=lambda seconds: first.release()) as second:
        assert token(path) == second.token != first.token


def test_release_may_be_called_twice_and_stops_the_counter(path: Path, taken: Callable[..., Lease]) -> None:
    first = take(path, interval=0.01, sleep=at_once)
    before = path.read_bytes()
    wait_until(lambda: path.read_bytes() != before)
    first.release()
    with pytest.raises(LeaseLost, match="gone"):
        first.check()
    wait_until(lambda: not beating(path))
    second = taken(path)
    first.release()
    second.check()


@pytest.mark.parametrize("interval", [0.0, -1.0, LONGEST + 1, float("nan")])
def test_an_interval_that_watchers_would_not_believe_is_refused(path: Path, interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        take(path, interval=interval)
    assert not path.parent.exists()


def test_a_forked_child_leaves_the_lease_alone(path: Path) -> None:
    with process(FORK, path) as child:
        assert child.wait(SECONDS) == 0


def test_importing_leases_imports_no_jax() -> None:
    script = "import sys, research.runs.lease; assert not {'jax', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# ---------------------------------------------------------------------------------------------- dead and silent holders


def test_a_killed_holder_is_followed_at_once(path: Path) -> None:
    with process(HOLD, path) as child:
        assert says(child) == "held"
        child.kill()
        child.wait(SECONDS)
        theirs = token(path)
        with take(path, sleep=never) as lease:
            lease.check()
            assert token(path) == lease.token != theirs
            assert names(path) == [path.name]


def test_a_process_number_that_was_given_again_is_not_the_holder(path: Path) -> None:
    own = module.started(os.getpid())
    content(path, machine=module.machine(), pid=os.getpid(), started=own + 1)
    take(path, sleep=never).release()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_a_living_process_here_is_given_its_time(path: Path, own: bool, known: bool) -> None:
    pid = os.getpid() if own else 1
    content(path, machine=module.machine(), pid=pid, started=module.started(pid) if known else 0)
    assert len(pauses_until_taken(path)) == STILL * POLLS


def test_a_process_of_another_user_lives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    content(path, machine=module.machine(), started=0)
    monkeypatch.setattr(module.os, "kill", forbid)
    assert len(pauses_until_taken(path)) == STILL * POLLS


@pytest.mark.parametrize("part", [0, 1, 2], ids=["host", "boot", "container"])
def test_a_process_is_looked_for_on_its_own_machine_only(path: Path, part: int) -> None:
    machine = module.machine().split()
    assert machine[0] == os.uname().nodename
    assert machine[1:] == [
        Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        os.readlink("/proc/self/ns/pid"),
    ]
    machine[part] += "0"
    content(path, machine=" ".join(machine), pid=2**31 - 1)
    assert len(pauses_until_taken(path)) == STILL * POLLS


def test_without_proc_a_dead_holder_is_given_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROC", path.parent)
    take(path).release()
    content(path, machine=module.machine(), pid=2**31 - 1)
    assert len(pauses_until_taken(path)) == STILL * POLLS


@pytest.mark.parametrize(("written", "believed"), [(2.0, 2.0), (0.5, 0.5), (1e9, LONGEST), (1e-9, module.SHORTEST)])
def test_a_silent_holder_elsewhere_is_followed_after_three_of_its_own_intervals(
    path: Path, written: float, believed: float
) -> None:
    content(path, interval=written)
    pauses = pauses_until_taken(path)
    assert len(pauses) == STILL * POLLS
    assert sum(pauses) == pytest.approx(3 * believed)


@pytest.mark.parametrize("last", [1, 5, STILL * POLLS])
def test_a_holder_elsewhere_that_moves_is_reported_at_once(path: Path, last: int) -> None:
    content(path)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == last:
            moves(path)

    with pytest.raises(ConfigError, match=f"held by pid {os.getpid()} on elsewhere since 2026-01-01 00:00:00"):
        take(path, sleep=pause)
    assert len(pauses) == last
    assert token(path) == "theirs"
    assert names(path) == [path.name]


@pytest.mark.parametrize("now", [0.0, -1e9, 1e12])
def test_no_clock_is_compared(path: Path, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    content(path, since="2999-01-01 00:00:00 +0000")
    os.utime(path, (now, now))
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(ConfigError, match="held by"):
        take(path, sleep=lambda seconds: moves(path))
    assert len(pauses_until_taken(path)) == STILL * POLLS


# ----------------------------------------------------------------------------------------------------------- takeovers


@pytest.mark.parametrize("holds", ["dead", "silent"])
def test_of_two_watchers_one_gets_a_stale_lease(path: Path, holds: str) -> None:
    changes = {"machine": module.machine(), "pid": 2**31 - 1} if holds == "dead" else {}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(60):
            race(path, content(path, **changes))
    finally:
        sys.setswitchinterval(interval)


def race(path: Path, stale: bytes) -> None:
    won: list[Lease] = []
    refused: list[ConfigError] = []
    start = threading.Barrier(2)

    def pause(seconds: float) -> None:
        time.sleep(0)
        if module.read(path) not in (None, stale):  # what the other one made: its counter moves
            wait_until(lambda: len(won) > 0)
            with contextlib.suppress(FileNotFoundError):
                won[0].beat()

    def watch() -> None:
        start.wait(SECONDS)
        try:
            won.append(take(path, sleep=pause))
        except ConfigError as error:
            refused.append(error)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(SECONDS)
    assert (len(won), len(refused)) == (1, 1)
    won[0].check()
    assert names(path) == [path.name]
    won[0].release()


def before_rename(monkeypatch: pytest.MonkeyPatch, event: Callable[[], object]) -> None:
    """Let something happen once, after the last look at a stale file and before it is renamed."""
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        monkeypatch.setattr(module.os, "rename", rename)
        event()
        rename(source, target)

    monkeypatch.setattr(module.os, "rename", late)


def test_a_holder_that_moves_at_the_last_moment_keeps_its_lease(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content(path)
    before_rename(monkeypatch, lambda: moves(path))
    with pytest.raises(ConfigError, match=r"held by .* on elsewhere"):
        take(path, sleep=at_once)
    assert token(path) == "theirs"
    assert names(path) == [path.name]


def test_a_watcher_that_is_too_late_gives_back_what_it_took(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content(path)
    with contextlib.ExitStack() as leases:
        before_rename(monkeypatch, lambda: leases.enter_context(take(path, sleep=at_once)))
        with pytest.raises(ConfigError, match=f"held by pid {os.getpid()} on {os.uname().nodename}"):
            take(path, sleep=at_once)
        assert token(path) != "theirs"
        assert names(path) == [path.name]


def test_a_file_that_changed_before_the_last_look_is_not_taken_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    first = taken(path)
    monkeypatch.setattr(module, "ended", lambda found: True)
    monkeypatch.setattr(module.os, "rename", fail(errno.EIO))
    stale = path.read_bytes()
    first.beat()
    assert module._watch(path, stale, never) == path.read_bytes()


def test_a_file_that_vanishes_under_a_watcher_is_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content(path)
    before_rename(monkeypatch, path.unlink)
    with take(path, sleep=at_once) as lease:
        lease.check()


def test_what_comes_while_a_file_is_aside_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    first = taken(path)
    stale = path.read_bytes()
    monkeypatch.setattr(module, "ended", lambda found: found["token"] == first.token)
    later: list[Lease] = []
    rename = os.rename

    def slow(source: Any, target: Any) -> None:
        first.beat()  # so that it goes back
        rename(source, target)
        monkeypatch.setattr(module.os, "rename", rename)
        later.append(taken(path))

    monkeypatch.setattr(module.os, "rename", slow)
    assert module._watch(path, stale, never) == path.read_bytes()
    later[0].check()
    with pytest.raises(LeaseLost, match="now held by"):
        first.check()
    assert names(path) == [path.name]


def test_a_suspended_holder_is_followed_and_finds_out(path: Path) -> None:
    with process(HOLD, path) as child:
        assert says(child) == "held"
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        pauses: list[float] = []
        with take(path, sleep=pauses.append) as lease:
            assert len(pauses) == STILL * POLLS
            ours = path.read_bytes()
            os.kill(child.pid, signal.SIGCONT)
            assert child.communicate("go on\n")[0].strip() == "lost"
            assert path.read_bytes() == ours  # neither moved nor removed by the one that woke up
            lease.check()


def test_a_holder_suspended_within_a_beat_does_not_touch_its_follower(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    first = taken(path)
    later: list[Lease] = []
    write = os.pwrite

    def late(*arguments: Any) -> int:
        monkeypatch.setattr(module.os, "pwrite", write)
        later.append(taken(path, sleep=at_once))
        return write(*arguments)

    monkeypatch.setattr(module.os, "pwrite", late)
    first.beat()
    (second,) = later
    assert json.loads(path.read_bytes())["counter"] == 0
    second.check()
    assert not first.beat()
    with pytest.raises(LeaseLost, match=f"now held by pid {os.getpid()}"):
        first.check()
    first.release()
    second.check()


def test_a_release_at_the_moment_of_a_takeover_gives_back_what_it_took(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    first = taken(path)
    later: list[Lease] = []
    before_rename(monkeypatch, lambda: later.append(taken(path, sleep=at_once)))
    first.release()
    later[0].check()
    assert names(path) == [path.name]


def test_a_heartbeat_ends_when_the_file_is_another_holders(path: Path, taken: Callable[..., Lease]) -> None:
    taken(path, interval=0.01)
    theirs = content(path.with_name("other.json"))
    os.replace(path.with_name("other.json"), path)
    wait_until(lambda: not beating(path))
    assert path.read_bytes() == theirs


# -------------------------------------------------------------------------------------------- damaged and foreign files


FIELDS = dict.fromkeys(module.TYPES, 1) | dict.fromkeys(("token", "host", "machine", "since"), "a") | {"interval": 1.0}


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\x00",
        b"{",
        b"7",
        b"[" * 5000,
        b"{}",
        *(json.dumps(FIELDS | {"pid": wrong}).encode() for wrong in ("1", 0, 10**30, True)),
        *(json.dumps(FIELDS | {"interval": wrong}).encode() for wrong in (float("nan"), float("inf"), -1.0, 0.0, None)),
    ],
)
def test_a_damaged_lease_is_watched_by_its_bytes(path: Path, damaged: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damaged)
    assert holder(path) == "an unknown process (its lease is damaged)"
    with pytest.raises(ConfigError, match="held by an unknown process"):
        take(path, sleep=lambda seconds: path.write_bytes(b" " + damaged))
    pauses = pauses_until_taken(path)
    assert len(pauses) == STILL * POLLS
    assert sum(pauses) == pytest.approx(3 * INTERVAL)


def test_the_fields_of_the_damaged_ones_are_otherwise_right() -> None:
    assert module.parse(json.dumps(FIELDS).encode()) == FIELDS


def link(path: Path) -> None:
    path.with_name("target").write_bytes(b"kept")
    path.symlink_to("target")


STRANGERS = {
    "link": link,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_regular_file_is_refused_and_left(path: Path, stranger: str) -> None:
    path.parent.mkdir()
    STRANGERS[stranger](path)
    before = names(path)
    with pytest.raises(ConfigError, match=r"no regular file.*remove it, or choose another name=") as refusal:
        take(path)
    assert (refusal.value.key, refusal.value.value) == ("name", "sweep")
    assert holder(path) == "nobody: no regular file"
    assert names(path) == before
    assert stranger != "link" or path.read_bytes() == b"kept"


def test_a_link_in_place_of_the_lease_is_a_loss(path: Path, taken: Callable[..., Lease]) -> None:
    lease = taken(path)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    assert path.is_symlink()


def test_what_a_file_says_cannot_steer_a_terminal(path: Path) -> None:
    content(path, host="\x1b[2Jhost\n", since="s" * 1000)
    assert holder(path) == f"pid {os.getpid()} on [2Jhost since {'s' * 60}"


# --------------------------------------------------------------------------------------------------- disks that fail


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("fsync", errno.ENOSPC, "no space"),
        ("link", errno.EROFS, "cannot be written"),
        ("link", errno.EPERM, "needs hard links"),
        ("link", errno.EOPNOTSUPP, "needs hard links"),
    ],
)
def test_a_lease_that_cannot_be_made_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    monkeypatch.setattr(module.os, call, fail(code))
    with pytest.raises(ConfigError, match=words):
        take(path)
    assert names(path) == []


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.parent.write_bytes(b"")
    assert holder(path) is None
    with pytest.raises(ConfigError, match="a file stands where a folder is needed"):
        take(path)


def test_a_link_whose_answer_was_lost_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def forgetful(source: Any, target: Any) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(module.os, "link", forgetful)
    take(path).release()


def test_a_full_disk_does_not_end_the_heartbeat(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    tried = threading.Semaphore(0)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "pwrite", lambda *arguments: (tried.release(), fail(errno.ENOSPC)()))
        lease = taken(path, interval=0.01)
        assert all(tried.acquire(timeout=SECONDS) for _ in range(3))
        still = path.read_bytes()
        lease.check()
    wait_until(lambda: path.read_bytes() != still)


def test_a_folder_that_vanishes_is_a_loss_and_may_come_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    lease = taken(path, interval=0.01, sleep=at_once)
    away = path.parent.rename(path.parent.with_name("away"))
    tried = threading.Semaphore(0)
    monkeypatch.setattr(lease, "beat", lambda: (tried.release(), Lease.beat(lease))[1])
    with pytest.raises(LeaseLost, match="gone"):
        lease.check()
    assert not path.parent.exists()
    assert all(tried.acquire(timeout=SECONDS) for _ in range(3))
    away.rename(path.parent)
    lease.check()
    before = path.read_bytes()
    wait_until(lambda: path.read_bytes() != before)


def test_a_file_that_a_watcher_has_aside_for_a_moment_is_not_lost(path: Path) -> None:
    aside = path.with_name("aside")
    with take(path, sleep=lambda seconds: os.link(aside, path)) as lease:
        path.rename(aside)
        lease.check()


def test_a_disk_that_fails_says_nothing_about_the_holder(
    path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[..., Lease]
) -> None:
    lease = taken(path)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", fail(errno.EIO))
        lease.check()
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", fail(errno.ESTALE))
        patch.setattr(lease, "_sleep", at_once)
        with pytest.raises(LeaseLost):
            lease.check()
