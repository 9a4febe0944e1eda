"""What a lease file says: which process holds it, on which machine, and a counter that its holder moves.

The file is one line of JSON. The counter stands first and in a fixed width, so that moving it changes no other byte.
"""

import contextlib
import errno
import json
import math
import os
import stat
import time
from pathlib import Path
from typing import Any

LIMIT = 4096  # bytes; a lease has a few hundred
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
PROC = Path("/proc")
OPENING = '{"counter": '  # the counter follows
TYPES = dict.fromkeys(("token", "host", "machine", "since"), str) | {"interval": float}
TYPES |= dict.fromkeys(("counter", "pid", "started"), int)


class Irregular(OSError):
    """A link, folder or device stands where a lease belongs. It is neither read nor removed."""


def compose(token: str, interval: float) -> bytes:
    """The content of a new lease of this process."""
    process = {"pid": os.getpid(), "started": started(os.getpid()), "machine": machine()}
    # these two are printed, and nothing is computed from them
    shown = {"host": os.uname().nodename, "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    rest = json.dumps({"token": token, "interval": float(interval)} | process | shown)
    return f"{OPENING}{0:12d}, {rest[1:]}\n".encode()


def next_count(fields: dict[str, Any]) -> bytes:
    """The counter of a lease, moved by one; it belongs behind `OPENING`."""
    return f"{fields['counter'] + 1:12d}".encode()


def read(path: Path) -> bytes | None:
    """The content of a lease, or None if there is no file; a link is not followed and a device not opened.

    Raises:
      Irregular: the path is no regular file.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise Irregular(errno.EINVAL, "no regular file", str(path))
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
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
