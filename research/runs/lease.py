"""One process at a time: a lease is a file that names the process which works in a folder, and a counter that it moves.

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
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

from research.runs import claim
from research.runs.held import LeaseLost

INTERVAL = 2.0  # seconds between two movements of the counter
SHORTEST, LONGEST = 0.01, 60.0  # seconds; an interval in a file counts as at least and at most this
STILL, POLLS = 3, 4  # intervals without movement after which a lease is stale; looks at the file in each interval
LOOKS, PAUSE = 5, 0.02  # how often, and after how many seconds, a holder looks again for a file that is missing
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


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
        descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            content = os.pread(descriptor, claim.LIMIT, 0)
            fields = claim.parse(content)
            if fields is None or not self._owns(content):
                return False
            os.pwrite(descriptor, claim.next_count(fields), len(claim.OPENING))
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
        return claim.has_token(content, self.token) and os.getpid() == self._pid

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
            content = claim.read(self.path)
        except claim.Irregular:
            return True
        return content is not None and not claim.has_token(content, self.token)


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
    token = secrets.token_hex(16)
    with contextlib.ExitStack() as undo:
        try:
            created = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
            undo.callback(_remove_empty, created)
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                content = claim.read(path)
                if content is None:
                    with contextlib.suppress(FileNotFoundError):  # another process has just removed the folder it made
                        if _create(path, claim.compose(token, interval)):
                            lease = Lease(path, token, interval, sleep, created)
                            undo.pop_all()
                            return lease
                elif (moved := _watch(path, content, sleep)) is not None:
                    advice = f"wait for it, end it, or choose another {other} (lease {path})"
                    _refuse(key, name, f"held by {claim.describe(moved)}; {advice}")
        except claim.Irregular:
            _refuse(key, name, f"{path} is no regular file, so it is no lease; remove it, or choose another {other}")
        except OSError:
            from research.runs.files import clear_errors  # imports JAX, for which only a refusal has the time

            with clear_errors(path.parent):
                raise


def holder(path: Path) -> str | None:
    """Who holds a lease, in one line, or None; a silent holder counts until somebody takes the lease over."""
    try:
        content = claim.read(path)
    except claim.Irregular:
        return "nobody: no regular file"
    return None if content is None else claim.describe(content)


def _check(path: Path, token: str, sleep: Callable[[float], object]) -> None:
    """Raise LeaseLost unless the file has this token.

    A missing file is looked for again, because a watcher that came too late may have it aside for a moment.
    """
    content = None
    with contextlib.suppress(OSError):  # the common case takes a third of the time this way, and every write asks
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if f'"token": "{token}"'.encode() in os.read(descriptor, claim.LIMIT):
                return
        finally:
            os.close(descriptor)
    try:
        for _ in range(LOOKS):
            if (content := claim.read(path)) is not None:
                break
            sleep(PAUSE)
    except claim.Irregular:
        content = b""
    except OSError:  # a disk that fails says nothing about who holds the lease
        return
    if content is None or not claim.has_token(content, token):
        now = "it is gone" if content is None else f"now held by {claim.describe(content)}"
        remedy = "another command took this folder over while this one stood still; this one writes nothing more"
        raise LeaseLost(f"the lease {path} is no longer ours ({now}): {remedy}")


def _watch(path: Path, content: bytes, sleep: Callable[[float], object]) -> bytes | None:
    """Watch a lease: its content once it moves, or None once it is released, or was stale and is removed.

    The watcher counts pauses and reads no clock. Each pause lasts at least its time by the monotonic clock, and a
    watcher that stood still itself gives the holder the rest of its time.
    """
    fields = claim.parse(content)  # None: damaged, so it is watched by its bytes alone
    pause = min(max(fields["interval"] if fields else INTERVAL, SHORTEST), LONGEST) / POLLS
    for _ in range(STILL * POLLS):
        if fields and claim.ended(fields):
            break
        sleep(pause)
        latest = claim.read(path)
        if latest != content:
            return latest
    return None if _remove(path, lambda latest: latest == content) else claim.read(path)


def _remove(path: Path, expected: Callable[[bytes], bool]) -> bool:
    """Remove the file if its content is as expected; False if it is not, or if another process was faster.

    No system call removes a file on a condition. So the file is renamed, which only one process can do, and read again.
    If it turns out to be another holder's, it goes back under its name, unless there is a new file by then.
    """
    content = claim.read(path)
    if content is None or not expected(content):
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    removed = False
    try:
        content = claim.read(aside)
        removed = content is not None and expected(content)
    finally:
        if not removed:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path, follow_symlinks=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
    return removed


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
        return claim.read(path) == content  # a network disk may lose the answer to a link that it has made
    except OSError as error:
        if error.errno in NO_LINKS:
            _refuse("folder", path.parent, "a lease needs hard links, which this disk has not; choose another folder")
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _refuse(key: str, value: Any, remedy: str) -> NoReturn:
    from research.tree import ConfigError  # imports JAX, for which only a refusal has the time

    raise ConfigError(key, value, remedy)
