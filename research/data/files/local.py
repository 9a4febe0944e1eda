"""Finding files: in a folder of the user, in the cache of the account, or at a mirror; and which key is to blame."""

import contextlib
import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research.errors import did_you_mean, most_similar, nearest, nearest_folder
from research.tree import ConfigError

log = logging.getLogger(__name__)

LARGEST = 2**30  # bytes after decompression, so that no file can fill the memory


def state(paths: Iterable[Path]) -> Hashable:
    """Path, size and time of each file, None for a missing one. While this is equal, no file needs to be read again."""
    status = ((path.absolute(), path.stat() if path.is_file() else None) for path in paths)
    return tuple((path, None if stat is None else (stat.st_size, stat.st_mtime_ns)) for path, stat in status)


@contextlib.contextmanager
def blaming(key: str, value: object, *, every_error: bool = False) -> Iterator[None]:
    """Errors raised inside are errors of this key: those without a key, or all of them with `every_error`."""
    try:
        yield
    except ConfigError as error:
        if error.key and not every_error:
            raise
        raise ConfigError(key, value, error.remedy) from None
    except OSError as error:
        raise ConfigError(key, value, f"it cannot be read: {error.strerror or error}") from None


def check_path(key: str, path: str, endings: Sequence[str]) -> None:
    """Refuse a path that is not set, or that ends otherwise."""
    if path == "???":
        raise ConfigError(key, path, "name your file, for example data.path=my.csv")
    if Path(path).suffix.lower() not in endings:
        raise ConfigError(key, path, f"expected a file that ends in {', '.join(endings)}")


def resolve(root: str | None, path: str) -> Path:
    """A path of the user, from the folder `root` or from the current one."""
    return Path(root or "").expanduser() / Path(path).expanduser()


def find(key: str, value: str, path: Path) -> Path:
    """The file that a key names.

    Args:
      key, value: the key and its value, for errors.
      path: the file.

    Raises:
      ConfigError: the file or its folder does not exist; the error names the file with the nearest name.
    """
    if path.is_file():
        return path
    folder = path.parent
    if not folder.is_dir():
        near = nearest_folder(folder)
        meant = did_you_mean(near and near / path.name, "{key}=")
        raise ConfigError(key, value, f"no folder {folder.absolute()}{meant}")
    near = most_similar(path.name, [item.name for item in folder.iterdir() if item.is_file()])
    meant = did_you_mean(None if near is None else Path(value).with_name(near), "{key}=")
    raise ConfigError(key, value, f"no file {path.absolute()}{meant}")


def listing(folder: Path) -> str:
    """The first few names in a folder, for an error message."""
    names = sorted(item.name for item in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


class PublishedFiles(NamedTuple):
    """Published files that the user puts into a folder: `root` itself, or the data set's own folder inside it.

    Attributes:
      folder: name of the data set's own folder.
      names: names of the files.
      origin: where the files come from, for error messages.
    """

    folder: str
    names: tuple[str, ...]
    origin: str

    def state(self, root: str | None) -> Hashable:
        """State of the files in both places where they may lie, see `state`."""
        if root is None:
            return None
        base = Path(root).expanduser()
        return state(folder / name for name in self.names for folder in (base / self.folder, base))

    def locate(self, root: str | None, name: str | None = None) -> Path:
        """The file of this name, or the first of `names`.

        Raises:
          ConfigError: `root` is null or not a folder, or the file is in neither place.
        """
        return locate(root, self.folder, (name or self.names[0],), f" ({self.origin})")


def no_root(root: str, expected: str) -> ConfigError:
    """The error of a folder `root` that does not exist; it names the folder that is meant, and the files in it."""
    base = Path(root).expanduser()
    meant = did_you_mean(nearest_folder(base), "data.root=")
    absolute = "" if base.is_absolute() else f" (looked for {base.absolute()})"
    return ConfigError("root", root, f"no such folder{meant}{absolute}; it must hold {expected}")


def locate(root: str | None, folder: str, names: Sequence[str], origin: str = "", remedy: str = "") -> Path:
    """The first file that exists in `root/folder` or in `root`.

    Args:
      root: the key `root` of a recipe.
      folder: the data set's own folder.
      names: names that the file may have; errors mention the first.
      origin, remedy: further text for errors.

    Raises:
      ConfigError: `root` is null or not a folder, or no such file is in either place.
    """
    if root is None:
        raise ConfigError("root", None, f"put {names[0]}{origin} into a folder and set data.root=FOLDER")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise no_root(root, f"{folder}/{names[0]} or {names[0]}{origin}")
    for path in (inside / name for inside in (base / folder, base) for name in names):
        if path.is_file():
            return path
    near = nearest(names[0], [item.name for item in base.iterdir()])
    problem = f"{names[0]}{origin} is neither in this folder nor in the folder {folder} inside it{near}"
    raise ConfigError("root", root, f"{problem}; this folder holds: {listing(base)}{remedy}")


# ------------------------------------------------------------------------------------------------- files with a SHA-256


class Unusable(Exception):
    """The content of a file is not the published one; the text says why."""


def fetch(name: str, sha256: str, *, folder: str, mirrors: Sequence[str], root: str | None) -> bytes:
    """The content of a published file; of a gzip file the decompressed one.

    With `root` the file is read from `root` or `root/folder`, compressed or not, and nothing is downloaded. Without
    `root` it is read from the cache of the user's account, or downloaded from the first mirror that has it.

    Args:
      name: file name; what ends in `.gz` is decompressed.
      sha256: of the content; how a gzip file is compressed does not matter.
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
    try:
        with gzip.open(io.BytesIO(content)) as file:
            pieces = file.read(largest + 1)
    except EOFError:
        raise Unusable("it is cut short: the gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Unusable(f"it is not a gzip file, or is damaged ({error})") from None
    if len(pieces) > largest:
        raise Unusable(f"its content is larger than {largest} bytes")
    return pieces


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
