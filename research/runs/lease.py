"""One process at a time: a lease is a file that names the process which works in a folder, and a counter that it moves.

The file is one line of JSON. The counter stands first and in a fixed width, so that moving it changes no other byte.

**Alive or not.** Only movement counts. A watcher reads the file until it changes, which means that the holder is alive,
or until it has stood still for three of the holder's intervals. The watcher counts its own pauses; the clocks of two
machines are never compared.

**Atomic.** The file is created by a link and removed by a rename, which are atomic on shared disks too. The counter is
written into the file itself: a rename over the file could hit that of a successor, while a write reaches only the file
that was opened.

**What remains.** A holder that stood still learns that it lost the lease when it asks, so `check` must come before each
write. While a watcher verifies a file that it has moved aside, the name is free for an instant. Whoever takes it then
is the holder, and the holder before finds out by `check`. There is at most one file of this name, so there are never
two holders whose `check` passes.
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
from typing import Any, Self

from research.errors import ConfigError
from research.runs.files import LeaseLost, clear_errors

INTERVAL = 2.0  # seconds between two movements of the counter
SHORTEST, LONGEST = 0.01, 60.0  # seconds; an interval in a file counts as at least and at most this
STILL, POLLS = 3, 4  # intervals without movement after which a lease is stale; looks at the file in each interval
LOOKS, PAUSE = 5, 0.02  # how often, and after how many seconds, a holder looks again for a file that is missing
LIMIT = 4096  # bytes; a lease has a few hundred
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK  # no link is followed, and a pipe is not waited for
PROC = Path("/proc")
OPENING = '{"counter": '  # the counter follows
TYPES = dict.fromkeys(("token", "host", "machine", "since"), str) | {"interval": float}
TYPES |= dict.fromkeys(("counter", "pid", "started"), int)


class Irregular(OSError):
    """A link, folder or device stands where a lease belongs. It is neither read nor removed."""


class Lease:
    """A lease that this process holds, from `acquire`; a daemon thread moves its counter until it is released.

    Attributes:
      path: of its file.
      token: tells this holder from all others.
      interval: seconds between two movements of the counter.
      created: folders that were made for the file. They are removed with it if they are empty.
    """

    def __init__(
        self, path: Path, token: str, interval: float, sleep: Callable[[float], object], created: Sequence[Path] = ()
    ):
        self.path, self.token, self.interval, self.created = path, token, interval, created
        self._sleep = sleep
        self._pid = os.getpid()  # a forked child inherits this object and must leave the file alone
        self._stop = threading.Event()
        threading.Thread(target=self._heartbeat, name=f"lease {path.name}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def beat(self) -> bool:
        """Move the counter once; return False, and write nothing, if the file is another holder's.

        A file keeps its token for life. So a file that had this token when it was opened may be written, even if it was
        renamed since. There is no fsync: other processes see the write without it, and it would wait on a busy disk.
        """
        descriptor = os.open(self.path, os.O_RDWR | SAFELY)
        try:
            content = os.pread(descriptor, LIMIT, 0)
            fields = parse(content)
            if fields is None or not self._owns(content):
                return False
            os.pwrite(descriptor, b"%12d" % (fields["counter"] + 1), len(OPENING))
            return True
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raise LeaseLost if another process took the lease over or removed it."""
        if os.getpid() != self._pid:
            raise LeaseLost(f"the lease {self.path} belongs to the process that this one was forked from")
        _check(self.path, self.token, self._sleep)

    def release(self) -> None:
        """Stop the counter and remove the file if it is this holder's.

        A second call does nothing, and neither does a call in a forked child.
        """
        if os.getpid() == self._pid:  # first, because another thread may have held the event's lock at the fork
            self._stop.set()
            with contextlib.suppress(OSError):
                _remove(self.path, self._owns)
            _remove_empty(self.created)

    def _owns(self, content: bytes) -> bool:
        return has_token(content, self.token) and os.getpid() == self._pid

    def _heartbeat(self) -> None:
        while not self._stop.wait(self.interval):
            with contextlib.suppress(OSError):  # a full disk or a missing folder may come back
                if not self.beat():
                    return


class Borrowed:
    """The lease of another process, under which a worker writes on behalf of that process."""

    def __init__(self, path: Path, token: str):
        self.path, self.token = path, token

    def check(self) -> None:
        """Raise LeaseLost if the other process has released the lease, or lost it."""
        _check(self.path, self.token, time.sleep)

    def lost(self) -> bool:
        """Whether another process holds the lease; False also if there is no file, which says nothing."""
        try:
            content = read(self.path)
        except Irregular:
            return True
        return content is not None and not has_token(content, self.token)


def acquire(
    path: Path,
    key: str,
    name: str,
    *,
    other: str = "name=",
    interval: float = INTERVAL,
    sleep: Callable[[float], object] = time.sleep,
) -> Lease:
    """Take a lease. A lease of a process that ended or stands still is taken over; while it is held nothing is written.

    Args:
      path: of the file; its folders are made.
      key, name: the setting and its value that the refusal names.
      other: what the refusal advises to choose anew.
      interval: seconds between two movements of the counter.
      sleep: how to pause.

    Raises:
      ConfigError: `key=name` is held by another process, which the error names, or the file cannot be made.
    """
    if not SHORTEST <= interval <= LONGEST:
        raise ValueError(f"interval={interval}: must be between {SHORTEST} and {LONGEST} seconds")
    token, created = secrets.token_hex(16), []
    try:
        with clear_errors(path.parent):
            created = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                content = read(path)
                if content is None:
                    with contextlib.suppress(FileNotFoundError):  # another process has just removed the folder it made
                        if _create(path, compose(token, interval)):
                            return Lease(path, token, interval, sleep, created)
                elif (moved := _watch(path, content, sleep)) is not None:
                    advice = f"wait for it, end it, or choose another {other} (lease {path})"
                    raise ConfigError(key, name, f"held by {describe(moved)}; {advice}")
    except Irregular:
        _remove_empty(created)
        remedy = f"{path} is no regular file, so it is no lease; remove it, or choose another {other}"
        raise ConfigError(key, name, remedy) from None
    except BaseException:
        _remove_empty(created)
        raise


def holder(path: Path) -> str | None:
    """Who holds a lease, in one line, or None; a silent holder counts until somebody takes the lease over."""
    try:
        content = read(path)
    except Irregular:
        return "nobody: no regular file"
    return None if content is None else describe(content)


# ------------------------------------------------------------------------------------------------------------ the file


def compose(token: str, interval: float) -> bytes:
    """The content of a new lease of this process."""
    process = {"pid": os.getpid(), "started": started(os.getpid()), "machine": machine()}
    # these two are printed, and nothing is computed from them
    shown = {"host": os.uname().nodename, "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    rest = json.dumps({"token": token, "interval": float(interval)} | process | shown)
    return f"{OPENING}{0:12d}, {rest[1:]}\n".encode()


def read(path: Path) -> bytes | None:
    """The content of a lease, or None if there is no file; a link is not followed and a device not opened.

    Raises:
      Irregular: the path is no regular file.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise Irregular(errno.EINVAL, "no regular file", str(path))
        with open(os.open(path, os.O_RDONLY | SAFELY), "rb") as file:
            return file.read(LIMIT)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def parse(content: bytes) -> dict[str, Any] | None:
    """The fields of a lease, or None if it is damaged."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or any(type(fields.get(name)) is not kind for name, kind in TYPES.items()):
        return None
    return fields if 0 < fields["interval"] < math.inf and 0 < fields["pid"] < 2**31 else None


def has_token(content: bytes, token: str) -> bool:
    """Whether a lease is that of a holder."""
    fields = parse(content)
    return fields is not None and fields["token"] == token


def describe(content: bytes) -> str:
    """Who holds a lease, in words; characters that could steer a terminal are left out."""
    fields = parse(content)
    if fields is None:
        return "an unknown process (its lease is damaged)"
    host, since = ("".join(filter(str.isprintable, fields[name]))[:60] for name in ("host", "since"))
    return f"pid {fields['pid']} on {host} since {since}"


def _check(path: Path, token: str, sleep: Callable[[float], object]) -> None:
    """Raise LeaseLost unless the file has this token.

    A missing file is looked for again, because a watcher that came too late may have it aside for a moment.
    """
    content = None
    try:
        for _ in range(LOOKS):
            if (content := read(path)) is not None:
                break
            sleep(PAUSE)
    except Irregular:
        content = b""
    except OSError:  # a disk that fails says nothing about who holds the lease
        return
    if content is None or not has_token(content, token):
        now = "it is gone" if content is None else f"now held by {describe(content)}"
        remedy = "another command took this folder over while this one stood still; this one writes nothing more"
        raise LeaseLost(f"the lease {path} is no longer ours ({now}): {remedy}")


def _watch(path: Path, content: bytes, sleep: Callable[[float], object]) -> bytes | None:
    """Watch a lease: its content once it moves, or None once it is released, or was stale and is removed.

    The watcher counts pauses and reads no clock. Each pause lasts at least its time by the monotonic clock, and a
    watcher that stood still itself gives the holder the rest of its time.
    """
    fields = parse(content)  # None: damaged, so it is watched by its bytes alone
    pause = min(max(fields["interval"] if fields else INTERVAL, SHORTEST), LONGEST) / POLLS
    for _ in range(STILL * POLLS):
        if fields and ended(fields):
            break
        sleep(pause)
        latest = read(path)
        if latest != content:
            return latest
    return None if _remove(path, lambda latest: latest == content) else read(path)


def _create(path: Path, content: bytes) -> bool:
    """Make the file with its whole content at once; False if there is a file."""
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
        return read(path) == content  # a network disk may lose the answer to a link that it has made
    except OSError as error:
        if error.errno in NO_LINKS:
            remedy = "a lease needs hard links, which this disk has not; choose another folder"
            raise ConfigError("folder", path.parent, remedy) from None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _remove(path: Path, expected: Callable[[bytes], bool]) -> bool:
    """Remove the file if its content is as expected; False if it is not, or if another process was faster.

    No system call removes a file on a condition. So the file is renamed, which only one process can do, and read again.
    If it turns out to be another holder's, it goes back under its name, unless there is a new file by then.
    """
    content = read(path)
    if content is None or not expected(content):
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    removed = False
    try:
        content = read(aside)
        removed = content is not None and expected(content)
    finally:
        if not removed:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path, follow_symlinks=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
    return removed


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


# --------------------------------------------------------------------------------------------------------- the process


def ended(fields: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and has certainly ended.

    It has if no process has its number, or if the process with its number started at another time.
    """
    if not fields["machine"] or fields["machine"] != machine():
        return False
    try:
        with contextlib.suppress(PermissionError):  # a process of another user is alive
            os.kill(fields["pid"], 0)
    except ProcessLookupError:
        return True
    now = started(fields["pid"])
    return 0 not in (now, fields["started"]) and now != fields["started"]


def machine() -> str:
    """Host, boot and container, within which a process number means one process; empty if unknown."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{os.uname().nodename} {boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process started, in ticks since the boot; 0 if unknown."""
    try:
        return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
