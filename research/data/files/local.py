"""Finding files in a folder of the user, and saying which key is to blame when a file cannot be read."""

import contextlib
import filecmp
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research.tree import ConfigError, nearest


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
        raise ConfigError(key, value, f"no folder {folder.absolute()}")
    names = [item.name for item in folder.iterdir()]
    raise ConfigError(key, value, f"no file {path.absolute()}{nearest(path.name, names)}")


def same_content(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, or to two files with the same bytes."""
    if first.samefile(second):
        return True
    return first.stat().st_size == second.stat().st_size and filecmp.cmp(first, second, shallow=False)


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
        raise ConfigError("root", root, f"no such folder (looked for {base.absolute()})")
    for path in (inside / name for inside in (base / folder, base) for name in names):
        if path.is_file():
            return path
    near = nearest(names[0], [item.name for item in base.iterdir()])
    problem = f"{names[0]}{origin} is neither in this folder nor in the folder {folder} inside it{near}"
    raise ConfigError("root", root, f"{problem}; this folder holds: {listing(base)}{remedy}")
