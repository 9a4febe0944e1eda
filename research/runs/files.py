"""Writing and reading single files safely: whole or not at all, never through a link, with a remedy in every error.

A process that stood still (SIGSTOP, a suspended laptop) may wake after another process has taken its folder over and
finished its work. So every object that writes gets a lease, and asks it just before a file appears under its name.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from research.errors import ConfigError

FULL = "no space is left on this disk; free some, or choose another output folder"
REFUSED = "this place cannot be written or read ({}); choose another output folder"
REMEDIES = {  # errors of the machine, which no change of this program would prevent
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "files may not become this large ({}); raise the limit (ulimit -f), or choose another output folder",
    errno.EROFS: REFUSED,
    errno.EACCES: REFUSED,
    errno.EPERM: REFUSED,
    errno.EIO: "the disk fails ({}); check it, or choose another output folder",
    errno.ESTALE: "the network disk fails ({}); try again, or choose another output folder",
    errno.ENAMETOOLONG: "this name is too long for the disk; choose a shorter one",
    errno.ELOOP: "links lead in a circle here; remove them",
    errno.EMFILE: "too many files are open ({}); raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine ({}); close some",
    errno.ENOMEM: "there is not enough memory ({}); close other programs",
}
LOST = 4  # exit code of a command whose folder another command took over


class LeaseLost(RuntimeError):
    """This process no longer holds the lease, and may write nothing any more."""


class Held(Protocol):
    """A lease, or several, under which files are written."""

    def check(self) -> None:
        """Raise LeaseLost if another process has taken the lease over, or its holder has released it."""
        ...


@dataclasses.dataclass(frozen=True)
class All:
    """Several leases that must all be held."""

    leases: Sequence[Held] = ()

    def check(self) -> None:
        """Raise LeaseLost if any of them is lost."""
        for lease in self.leases:
            lease.check()


ALONE = All()  # no lease at all: for temporary folders, which no other process knows


def disk_remedy(error: OSError) -> str | None:
    """What helps against an error of the machine; None if the error may be a bug of this program."""
    text = REMEDIES.get(error.errno or 0)
    return text and text.format(os.strerror(error.errno or 0))


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what a full disk, a limit or a read-only folder raises into a ConfigError that names the remedy."""
    try:
        yield
    except OSError as error:
        text = disk_remedy(error)
        if error.errno == errno.ENOENT:
            text = REFUSED.format(os.strerror(errno.ENOENT))
        elif isinstance(error, NotADirectoryError | FileExistsError):
            text = "a file stands where a folder is needed; remove it, or choose another output folder"
        if text is None:
            raise
        raise ConfigError("folder", path, text) from error


def write_atomically(path: Path, data: bytes, lease: Held, *, force: bool = True) -> None:
    """Write a whole file under its final name: write a temporary file beside it, force it to the disk, and rename it.

    With `force=False` it is not forced to the disk, so that a crash of the machine may lose it.

    Raises:
      ConfigError: the disk is full or cannot be written; the file keeps its old content.
      LeaseLost: another process has taken the folder over; the file keeps the content that process gave it.
    """
    lease.check()
    with clear_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if force:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            lease.check()  # again, because forcing a file to a busy disk takes long
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def refuse_links(path: Path) -> None:
    """Refuse a link, a pipe or a device in place of a file: reading or appending would reach elsewhere, or hang.

    A file that does not exist is not refused.

    Raises:
      ConfigError: the path is no regular file.
    """
    try:
        irregular = not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return
    if irregular:
        remedy = f"{path.name} is a link or no plain file, and is not followed; remove it"
        raise ConfigError("folder", path.parent, remedy)


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    refuse_links(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable(folder: Path | str) -> None:
    """Check that a folder can be written, by creating and removing a file.

    If the folder does not exist, its nearest existing parent is checked; no folder is made.

    Raises:
      ConfigError: it cannot be written.
    """
    nearest = Path(folder).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    with clear_errors(Path(folder)):
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
        descriptor, temporary = tempfile.mkstemp(prefix=".writable.", dir=nearest)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)
            os.unlink(temporary)
