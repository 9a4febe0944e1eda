"""One worker at a time: a lease is a file that says who works here, with a counter that moves while the holder lives.

Only movement counts: a watcher reads the file until it changes (the holder lives) or has stood still for three of the
holder's intervals by the watcher's own pauses; clocks of two machines are never compared. The file comes and goes by
link and rename, atomic also where machines share a disk. Its counter is written into the file itself: a rename over it
could hit a successor's file, a write reaches only the file that was opened.

What remains: a holder that stood still learns of its loss when it asks, so `check` belongs before all that it writes;
and while a watcher verifies what it took aside, the name is free for an instant. Whoever takes it then is the holder,
and the one before is told. There is one file of this name at most, hence never two holders whose `check` passes.
"""

import contextlib
import errno
import json
import math
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

from research.runs.held import LeaseLost

INTERVAL = 2.0  # seconds between two movements of the counter
SHORTEST, LONGEST = 0.01, 60.0  # what is believed of an interval that a file gives
STILL, POLLS = 3, 4  # intervals without movement after which a lease is stale; looks at the file in one interval
LOOKS, PAUSE = 5, 0.02  # how often, and after how many seconds, a holder looks again for a file that is not there
LIMIT = 4096  # bytes; a lease has a few hundred
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
PROC = Path("/proc")
OPENING = '{"counter": '  # the counter follows in a fixed width, so that moving it changes nothing else
TYPES = dict.fromkeys(("token", "host", "machine", "since"), str) | {"interval": float}
TYPES |= dict.fromkeys(("counter", "pid", "started"), int)


class _Irregular(OSError):
    """A link, folder or device stands where a lease belongs: it is neither read nor removed."""


class Lease:
    """A lease that this process holds, made by `acquire`; a daemon thread moves its counter until it is released.

    Attributes:
      path: of its file.
      token: tells this holder from all others.
      made: folders that were made for the file, and are removed with it where they stayed empty.
    """

    def __init__(
        self, path: Path, token: str, interval: float, sleep: Callable[[float], object], made: Sequence[Path] = ()
    ):
        self.path, self.token, self.interval, self.made = path, token, interval, made
        self._sleep = sleep
        self._pid = os.getpid()  # a forked child inherits this object and must leave the file alone
        self._stop = threading.Event()
        threading.Thread(target=self._heartbeat, name=f"lease {path.name}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def beat(self) -> bool:
        """Move the counter once; False, and nothing written, if the file is not ours.

        A file keeps its token for life, so one that was seen to be ours takes the write even if it was renamed since.
        No fsync: other processes see the write without it, and a busy disk would hold the counter still.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            content = os.pread(descriptor, LIMIT, 0)
            found = _parse(content)
            if found is None or not self._owns(content):
                return False
            os.pwrite(descriptor, f"{found['counter'] + 1:12d}".encode(), len(OPENING))
            return True
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raise LeaseLost if the lease was taken over or removed."""
        if os.getpid() != self._pid:
            raise LeaseLost(f"the lease {self.path} belongs to the process that this one was forked from")
        _check(self.path, self.token, self._sleep)

    def release(self) -> None:
        """Stop the counter and remove the file if it is ours; a second call, or one in a forked child, does nothing."""
        if os.getpid() == self._pid:  # the event's lock may have been held at the fork
            self._stop.set()
            with contextlib.suppress(OSError):
                _remove(self.path, self._owns)
            _remove_empty(self.made)

    def _owns(self, content: bytes) -> bool:
        return _has(content, self.token) and os.getpid() == self._pid

    def _heartbeat(self) -> None:
        while not self._stop.wait(self.interval):
            with contextlib.suppress(OSError):  # a full disk or a missing folder may pass
                if not self.beat():
                    return


def acquire(
    path: Path,
    key: str,
    name: str,
    *,
    other: str = "name=",
    interval: float = INTERVAL,
    sleep: Callable[[float], object] = time.sleep,
) -> Lease:
    """Take the lease, from a dead or silent holder if need be; nothing is written while somebody else holds it.

    `other` is what the refusal advises to choose anew.

    Raises:
      ConfigError: `key=name` is held by another process (it says which), or the file cannot be made.
    """
    if not SHORTEST <= interval <= LONGEST:
        raise ValueError(f"interval={interval}: must be between {SHORTEST} and {LONGEST} seconds")
    token, made = secrets.token_hex(16), list[Path]()
    try:
        return _acquire(path, (key, name, other), token, interval, sleep, made)
    except BaseException:
        _remove_empty(made)
        raise


def _acquire(
    path: Path,
    place: tuple[str, str, str],
    token: str,
    interval: float,
    sleep: Callable[[float], object],
    made: list[Path],
) -> Lease:
    key, name, other = place
    try:
        made += [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            found = _read(path)
            if found is None:
                with contextlib.suppress(FileNotFoundError):  # the last holder has just removed the folder it had made
                    if _create(path, _compose(token, interval)):
                        return Lease(path, token, interval, sleep, made)
            elif (held := _watch(path, found, sleep)) is not None:
                remedy = f"held by {_describe(held)}; wait for it, end it, or choose another {other} (lease {path})"
                _refuse(key, name, remedy)
    except _Irregular:
        _refuse(key, name, f"{path} is no regular file, so it is no lease; remove it, or choose another {other}")
    except OSError as error:
        from research.runs.folder import clear_errors

        with clear_errors(path.parent):
            raise error


class Borrowed:
    """The lease of another process, which a worker writes under on that one's behalf."""

    def __init__(self, path: Path, token: str):
        self.path, self.token = path, token

    def check(self) -> None:
        """Raise LeaseLost if that process has let it go, or another has taken it over."""
        _check(self.path, self.token, time.sleep)

    def lost(self) -> bool:
        """Whether another process holds the lease; a file that is not there is no answer."""
        try:
            content = _read(self.path)
        except _Irregular:
            return True
        return content is not None and not _has(content, self.token)


def _check(path: Path, token: str, sleep: Callable[[float], object]) -> None:
    """Raise LeaseLost unless the file has this token.

    A file that is not there is looked for again: a watcher that was too late may have it aside for a moment.
    """
    content = None
    with contextlib.suppress(OSError):  # the common case in a third of the time: every write asks
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if f'"token": "{token}"'.encode() in os.read(descriptor, LIMIT):
                return
        finally:
            os.close(descriptor)
    try:
        for _ in range(LOOKS):
            if (content := _read(path)) is not None:
                break
            sleep(PAUSE)
    except _Irregular:
        content = b""
    except OSError:  # a disk that fails says nothing about who holds the lease
        return
    if content is None or not _has(content, token):
        now = "it is gone" if content is None else f"now held by {_describe(content)}"
        remedy = "another command took this folder over while this one stood still; this one writes nothing more"
        raise LeaseLost(f"the lease {path} is no longer ours ({now}): {remedy}")


def _has(content: bytes, token: str) -> bool:
    found = _parse(content)
    return found is not None and found["token"] == token


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def holder(path: Path) -> str | None:
    """Who holds a lease, in one line, or None; a silent holder counts until somebody takes the lease over."""
    try:
        content = _read(path)
    except _Irregular:
        return "nobody: no regular file"
    return None if content is None else _describe(content)


def _watch(path: Path, found: bytes, sleep: Callable[[float], object]) -> bytes | None:
    """What the file holds once it moves; None when the way is free: released, or stale and removed.

    Pauses are counted, not read off a clock: each lasts its time by the monotonic clock at least, and a watcher that
    stood still itself gives the holder the rest of its time.
    """
    state = _parse(found)
    pause = min(max(state["interval"] if state else INTERVAL, SHORTEST), LONGEST) / POLLS
    for _ in range(STILL * POLLS):
        if state and _ended(state):
            break
        sleep(pause)
        latest = _read(path)
        if latest != found:
            return latest
    return None if _remove(path, lambda content: content == found) else _read(path)


def _remove(path: Path, expected: Callable[[bytes], bool]) -> bool:
    """Remove the file if its content is as expected; False if it is not, or somebody else was faster.

    No call removes a file on a condition. So it is renamed, which only one process can do, and read again; what turns
    out to be another's goes back under its name, unless that has a new file by now.
    """
    content = _read(path)
    if content is None or not expected(content):
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    removed = False
    try:
        content = _read(aside)
        removed = content is not None and expected(content)
    finally:
        if not removed:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path, follow_symlinks=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
    return removed


def _create(path: Path, content: bytes) -> bool:
    """Make the file with its whole content at once; False if there is one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.link(temporary, path)
        return True
    except FileExistsError:
        return _read(path) == content  # a network may lose the answer to a link that was made
    except OSError as error:
        if error.errno in NO_LINKS:
            _refuse("folder", path.parent, "a lease needs hard links, which this disk has not; choose another folder")
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _read(path: Path) -> bytes | None:
    """The content, None if there is no file; a link is not followed and a device not opened."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _Irregular(errno.EINVAL, "no regular file", str(path))
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(LIMIT)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def _compose(token: str, interval: float) -> bytes:
    process = {"pid": os.getpid(), "started": _started(os.getpid()), "machine": _machine()}
    shown = {"host": os.uname().nodename, "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}  # nothing is computed from it
    rest = json.dumps({"token": token, "interval": float(interval)} | process | shown)
    return f"{OPENING}{0:12d}, {rest[1:]}\n".encode()


def _parse(content: bytes) -> dict[str, Any] | None:
    """The fields of a lease, or None if it is damaged; a damaged one is watched by its bytes alone."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in TYPES.items()):
        return None
    return found if 0 < found["interval"] < math.inf and 0 < found["pid"] < 2**31 else None


def _describe(content: bytes) -> str:
    found = _parse(content)
    if found is None:
        return "an unknown process (its lease is damaged)"
    host, since = ("".join(filter(str.isprintable, found[name]))[:60] for name in ("host", "since"))
    return f"pid {found['pid']} on {host} since {since}"


def _machine() -> str:
    """Where a process number means one process: this boot of this host, and the container; empty if unknown."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{os.uname().nodename} {boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process started, in ticks since the boot; 0 if unknown."""
    try:
        return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _ended(found: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and is certainly no more: no such process, or its number was reused."""
    if not found["machine"] or found["machine"] != _machine():
        return False
    try:
        with contextlib.suppress(PermissionError):  # it lives, under another user
            os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    now = _started(found["pid"])
    return 0 not in (now, found["started"]) and now != found["started"]


def _refuse(key: str, value: Any, remedy: str) -> NoReturn:
    from research.tree import ConfigError  # imports JAX, which only a refusal can afford

    raise ConfigError(key, value, remedy)
