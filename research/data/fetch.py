"""Published files, from a local folder or from mirrors, accepted only with the right content."""

import hashlib
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

from research.tree import ConfigError

log = logging.getLogger(__name__)

LARGEST = 2**30  # bytes after decompression: a mirror must not be able to fill the memory


class Unusable(Exception):
    """A file whose content is not the published one; the text says why."""


def fetch(name: str, sha256: str, *, folder: str, mirrors: Sequence[str], root: str | None) -> bytes:
    """The decompressed content of a published gzip file.

    With `root` the file is read from `root` or `root/folder`, compressed or not, and nothing is downloaded. Without, it
    is taken from the cache of the user's account, or from the first mirror that has it.

    Args:
      name: file name, ending in `.gz`.
      sha256: of the decompressed content, so that a file compressed in another way is accepted.
      folder: name of the data set's own folder in the cache.
      mirrors: addresses that end in `/`, tried in turn.
      root: local folder.

    Raises:
      ConfigError: the file is missing, cut short or not the published one, or no mirror has it.
    """
    if root is not None:
        return _read_local(name, sha256, folder, Path(root).expanduser())
    return _download(name, sha256, folder, mirrors)


def decompress(content: bytes, largest: int = LARGEST) -> bytes:
    """The content of a gzip file, or an Unusable that says what is wrong with it."""
    pieces: list[bytes] = []
    while content:
        stream = zlib.decompressobj(wbits=31)
        try:
            pieces.append(stream.decompress(content, largest + 1))
        except zlib.error as error:
            raise Unusable(f"it is no gzip file or is damaged ({error})") from None
        largest -= len(pieces[-1])
        if largest < 0:
            raise Unusable(f"its content is larger than {LARGEST} bytes")
        if not stream.eof:
            raise Unusable("it is cut short: the gzip stream ends early")
        content = stream.unused_data.lstrip(b"\0")
    return b"".join(pieces)


def check(path: Path, sha256: str) -> bytes:
    """The decompressed content of a file (`.gz` or plain) whose SHA-256 is as expected, or an Unusable."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        if not content:
            raise Unusable("it is empty")
        content = decompress(content)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise Unusable(
            f"it is not the published file: SHA-256 of the decompressed content is {found}, expected {sha256}"
        )
    return content


def _read_local(name: str, sha256: str, folder: str, root: Path) -> bytes:
    if not root.is_dir():
        raise ConfigError("root", root, f"no such folder (looked for {root.absolute()})")
    plain = name.removesuffix(".gz")
    tried = [root / folder / name, root / folder / plain, root / name, root / plain]
    path = next((path for path in tried if path.is_file()), None)
    if path is None:
        inside = sorted(item.name for item in root.iterdir())
        listing = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "") if inside else "nothing"
        raise ConfigError(
            "root",
            root,
            f"{name} is neither there nor in its folder {folder}; there is: {listing}. Null downloads the file",
        )
    try:
        return check(path, sha256)
    except Unusable as error:
        remedy = "copy it again, or use data.root=null to download it"
        raise ConfigError("root", root, f"{path.name} cannot be used: {error}; {remedy}") from None
    except OSError as error:
        raise ConfigError("root", root, f"{path.name} cannot be read: {error.strerror}") from None


def _download(name: str, sha256: str, folder: str, mirrors: Sequence[str]) -> bytes:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it would print the hash of the compressed file as advice
    cache = Path(pooch.os_cache("latent-loom")) / folder
    path = cache / name
    if path.is_file():
        try:
            return check(path, sha256)
        except Unusable as error:
            log.warning("%s is downloaded again: %s", path, error)
            path.unlink(missing_ok=True)
    failures = []
    for mirror in mirrors:
        log.info("downloading %s%s", mirror, name)
        try:
            pooch.retrieve(mirror + name, known_hash=None, fname=name, path=cache)
            return check(path, sha256)
        except Unusable as error:
            path.unlink(missing_ok=True)
            failures.append(f"{mirror}: {error}")
        except (OSError, ValueError) as error:  # no network, no such file, no space: the next mirror may still work
            path.unlink(missing_ok=True)
            failures.append(f"{mirror}: {type(error).__name__}")
    raise ConfigError(
        "root",
        None,
        f"no mirror has {name} ({'; '.join(failures)}). Put the file into a folder and set data.root=FOLDER",
    )
