"""Files in a folder of the user's."""

import filecmp
from collections.abc import Hashable, Iterable
from pathlib import Path

from research.tree import ConfigError, nearest


def state(paths: Iterable[Path]) -> Hashable:
    """Place, size and time of files, None for a missing one: equal states mean files that need no new reading."""
    found = ((path.absolute(), path.stat() if path.is_file() else None) for path in paths)
    return tuple((path, None if status is None else (status.st_size, status.st_mtime_ns)) for path, status in found)


def find(key: str, value: str, path: Path) -> Path:
    """The file that a key names.

    Raises:
      ConfigError: naming the key, and the nearest file or the missing folder.
    """
    if path.is_file():
        return path
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(key, value, f"no folder {folder.absolute()}")
    raise ConfigError(
        key, value, f"no file {path.absolute()}{nearest(path.name, [item.name for item in folder.iterdir()])}"
    )


def same_content(first: Path, second: Path) -> bool:
    """Whether two files are one, by a link or by what they hold."""
    if first.samefile(second):
        return True
    return first.stat().st_size == second.stat().st_size and filecmp.cmp(first, second, shallow=False)


def listing(folder: Path) -> str:
    """The first few names in a folder, for an error message."""
    inside = sorted(item.name for item in folder.iterdir())
    return ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") if inside else "nothing"


def locate(root: str | None, folder: str, name: str, origin: str) -> Path:
    """The file `name`, in `root` or in `root/folder`.

    Args:
      root: the key `root` of a recipe.
      folder: the data set's own folder.
      name: file name.
      origin: where the file comes from, for the message.

    Raises:
      ConfigError: no folder is named, or the file is in neither place.
    """
    if root is None:
        raise ConfigError("root", None, f"put {name} ({origin}) into a folder and set data.root=FOLDER")
    place = Path(root).expanduser()
    if not place.is_dir():
        raise ConfigError("root", root, f"no such folder (looked for {place.absolute()})")
    path = next((path for path in (place / folder / name, place / name) if path.is_file()), None)
    if path is None:
        near = nearest(name, [item.name for item in place.iterdir()])
        raise ConfigError(
            "root",
            root,
            f"{name} ({origin}) is neither there nor in its folder {folder}{near}; there is: {listing(place)}",
        )
    return path
