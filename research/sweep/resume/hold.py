"""The lease on a sweep folder: one process at a time writes there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from research.runs.lease import Lease, acquire
from research.tree import ConfigError

LEASE = ".lease.json"
GROUPS = ".groups"  # leases of groups and checkpoints of units
LAUNCHES = ".launch"  # what a command hands to its workers

_held: dict[Path, Lease] = {}  # of this process


def hold(folder: Path) -> None:
    """Hold a sweep folder for this process until `release`. Nothing may be written there before.

    Raises:
      ConfigError: another command holds it, or it contains a link.
    """
    if folder in _held:
        return
    refuse_links(folder)
    _held[folder] = acquire(folder / LEASE, "name", folder.name)


def release() -> None:
    """Release all folders of this process; a folder that was made and stayed empty is removed."""
    while _held:
        _, lease = _held.popitem()
        lease.release()


def check_held(folder: Path) -> None:
    """Raise LeaseLost if this process held a folder and another process has taken it over."""
    if folder in _held:
        _held[folder].check()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """Hold a sweep folder inside a `with` block; if the process held it before, it holds it afterwards too."""
    before = folder in _held
    hold(folder)
    try:
        yield _held[folder]
    finally:
        if not before:
            _held.pop(folder).release()


def refuse_links(folder: Path) -> None:
    """Refuse a link anywhere in a sweep folder, because files written there would land elsewhere.

    Two folders are not searched: checkpoints, whose reader refuses links itself, and the files of executors.

    Raises:
      ConfigError: naming the link.
    """
    folders = [folder] if folder.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise linked(folder, Path(entry.path))
                if entry.is_dir(follow_symlinks=False) and entry.name not in (GROUPS, LAUNCHES):
                    folders.append(Path(entry.path))


def linked(folder: Path, link: Path) -> ConfigError:
    """The refusal of a link in a sweep folder."""
    return ConfigError("name", folder.name, f"{link} is a link; runs are written below their sweep alone, remove it")
