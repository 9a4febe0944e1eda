"""Published files from a local folder or from mirrors. A file is accepted only if its SHA-256 is the published one."""

import hashlib
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

from research.data.files.local import locate
from research.tree import ConfigError

log = logging.getLogger(__name__)

LARGEST = 2**30  # bytes after decompression, so that no file can fill the memory


class Unusable(Exception):
    """The content of a file is not the published one; the text says why."""


def fetch(name: str, sha256: str, *, folder: str, mirrors: Sequence[str], root: str | None) -> bytes:
    """The decompressed content of a published gzip file.

    With `root` the file is read from `root` or `root/folder`, compressed or not, and nothing is downloaded. Without
    `root` it is read from the cache of the user's account, or downloaded from the first mirror that has it.

    Args:
      name: file name, ending in `.gz`.
      sha256: of the decompressed content; how a file is compressed does not matter.
      folder: name of the data set's own folder in the cache.
      mirrors: addresses that end in `/`, tried one after another.
      root: local folder.

    Raises:
      ConfigError: the file is missing, cut short or not the published one, or no mirror has it.
    """
    if root is None:
        return _download(name, sha256, folder, mirrors)
    path = locate(root, folder, (name, name.removesuffix(".gz")), remedy=". data.root=null downloads the file")
    try:
        return check(path, sha256)
    except Unusable as error:
        remedy = "copy it again, or use data.root=null to download it"
        raise ConfigError("root", root, f"{path.name} cannot be used: {error}; {remedy}") from None
    except OSError as error:
        raise ConfigError("root", root, f"{path.name} cannot be read: {error.strerror}") from None


def decompress(content: bytes, largest: int = LARGEST) -> bytes:
    """The content of a gzip file of at most `largest` bytes.

    Raises:
      Unusable: it is damaged, cut short or too large.
    """
    pieces: list[bytes] = []
    while content:
        stream = zlib.decompressobj(wbits=31)
        try:
            pieces.append(stream.decompress(content, largest + 1))
        except zlib.error as error:
            raise Unusable(f"it is not a gzip file, or is damaged ({error})") from None
        largest -= len(pieces[-1])
        if largest < 0:
            raise Unusable(f"its content is larger than {LARGEST} bytes")
        if not stream.eof:
            raise Unusable("it is cut short: the gzip stream ends early")
        content = stream.unused_data.lstrip(b"\0")
    return b"".join(pieces)


def check(path: Path, sha256: str) -> bytes:
    """The decompressed content of a file, `.gz` or not.

    Raises:
      Unusable: its SHA-256 is another one, or it cannot be decompressed.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        if not content:
            raise Unusable("it is empty")
        content = decompress(content)
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        problem = f"SHA-256 of the decompressed content is {digest}, expected {sha256}"
        raise Unusable(f"it is not the published file: {problem}")
    return content


def _download(name: str, sha256: str, folder: str, mirrors: Sequence[str]) -> bytes:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # at INFO it prints the hash of the compressed file as advice
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
    remedy = "Put the file into a folder and set data.root=FOLDER"
    raise ConfigError("root", None, f"no mirror has {name} ({'; '.join(failures)}). {remedy}")
