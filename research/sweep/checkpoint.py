"""The state of a group on disk, saved beside the training, so that a killed sweep goes on with the same bits.

A generation is a folder `<epoch>`: `arrays/`, written by Orbax, and `seal.json`, which says whose state it is and holds
a SHA-256 of every leaf and of every file in `arrays/`. Orbax writes under a temporary name; its renaming is the commit.
Restoring trusts nothing: no array file is parsed before its digest is found right, and whatever is wrong with a
generation ends in a line of warning and the generation before. Nothing is pickled or unpickled.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from research.runs.folder import clear_errors, write_atomically
from research.runs.held import Held, LeaseLost
from research.tree import ConfigError

FORMAT, SEAL, ARRAYS = 1, "seal.json", "arrays"
GENERATION = re.compile(r"([0-9]{8}|[1-9][0-9]{8,11})(\.orbax-checkpoint-tmp.*)?")  # with the suffix: not committed
MOST_BYTES = 8 << 20  # of a seal; of a generation it is this, 4 KiB a leaf, and four times the bytes of the leaves
MOST_ENTRIES = 10_000  # files and folders of a generation

_one_at_a_time = threading.Lock()


class Unusable(Exception):
    """Why a generation is passed over."""


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}checkpoint{os.sep}" not in record.pathname


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax, for one thread at a time: it counts its operations per process, and two at once mix up their folders.

    Imported late: most commands save no state, and it takes 0.2 to 0.5 s.
    """
    with _one_at_a_time:
        import orbax.checkpoint as ocp

        # what goes wrong is told by this module; no level is changed, so that others keep their messages
        logging.getLogger("absl").addFilter(_not_of_orbax)
        yield ocp


def _described(tree: Any) -> list[dict[str, Any]]:
    """What is written of every leaf; names are unique, and need no class of optax or of this project to be read."""
    described = []
    for index, (keys, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(tree)[0]):
        path, dtype = jax.tree_util.keystr(keys), np.dtype(leaf.dtype)
        name = f"{index:04d}.{re.sub('[^A-Za-z0-9_]+', '.', path)[:80].strip('.')}"
        size = int(np.prod(leaf.shape, dtype=np.int64)) * dtype.itemsize
        described.append({"name": name, "path": path, "shape": list(leaf.shape), "dtype": dtype.name, "bytes": size})
    return described


def _digest(data: Any) -> str:
    plain = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else data
    return hashlib.sha256(plain).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _file_digests(folder: Path, most_bytes: float = float("inf"), sync: bool = False) -> dict[str, str]:
    """SHA-256 of the files in `arrays/`; links, pipes, devices, and more than there can be, are refused anywhere."""
    digests, folders, entries, size = {}, [folder], 0, 0
    while folders:
        with os.scandir(folders.pop()) as scanned:
            for entry in scanned:
                entries, size = entries + 1, size + entry.stat(follow_symlinks=False).st_size
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise Unusable(f"{entry.name} is a link or no plain file, and is not followed")
                elif folder / ARRAYS in (path := Path(entry.path)).parents:
                    digests[path.relative_to(folder).as_posix()] = ""
                if entries > MOST_ENTRIES or size > most_bytes:
                    raise Unusable("it holds far more than the state of this group takes")
    for name in digests:
        with open(folder / name, "rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
            if sync:
                os.fsync(file.fileno())
    return digests


def _commit(path: Path, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any], lease: Held) -> None:
    """Write arrays and seal; the seal comes when nothing changes the arrays any more, just before the commit."""

    def seal(folder: Path) -> None:
        sealed = {**content, "files": _file_digests(folder, sync=True)}
        data = {"sha256": _digest(_canonical(sealed)), "content": sealed}
        write_atomically(folder / SEAL, json.dumps(data, indent=1).encode(), lease)

    with _orbax() as ocp:
        handler = ocp.CompositeCheckpointHandler(**{ARRAYS: ocp.PyTreeCheckpointHandler()})
        finalize = handler.finalize
        handler.finalize = lambda folder: (finalize(folder), seal(Path(folder)))
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(path, args=ocp.args.Composite(**{ARRAYS: ocp.args.PyTreeSave(dict(arrays))}))


def _read_arrays(folder: Path, leaves: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Read numpy arrays, after a look at the shapes that they have on disk; no device is involved."""
    with _orbax() as ocp, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        stored = checkpointer.metadata(folder).item_metadata.tree
        if {name: list(array.shape) for name, array in stored.items()} != {x["name"]: x["shape"] for x in leaves}:
            raise Unusable("its arrays have other shapes than its seal says")
        plain = {leaf["name"]: ocp.RestoreArgs(restore_type=np.ndarray) for leaf in leaves}
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(item=dict(plain), restore_args=plain))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _discard(path: Path) -> None:
    """Delete a file, a link (not what it points to) or a folder (in which no link is followed either)."""
    shutil.rmtree(path) if _is_folder(path) else path.unlink(missing_ok=True)


def _raise_clearly(error: BaseException, folder: Path) -> NoReturn:
    """Raise the ConfigError of a failed save; Orbax's array store gives the system's error number in its text only."""
    cause: BaseException | None = error
    while cause is not None:
        told = re.search(r"os_error_code='(\d+)'", str(cause))
        code = cause.errno if isinstance(cause, OSError) else int(told[1]) if told else None
        if code is not None:
            try:
                with clear_errors(folder):
                    raise OSError(code, os.strerror(code)) from error
            except OSError as other:
                remedy = f"no checkpoint can be written here ({other}); choose another output folder"
                raise ConfigError("folder", folder, remedy) from error
        cause = cause.__cause__ or cause.__context__
    raise error


class Checkpoints:
    """The newest two generations of one group's state; for use by one thread, beside others with other folders.

    Args:
      folder: of this group alone.
      identity: plain JSON that says whose state this is; a checkpoint with another identity is not used.
      warn: takes a line on what is wrong with a generation and what is used instead.
      lease: under which the folder is written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], warn: Callable[[str], None], lease: Held):
        self.folder, self.warn, self.lease = Path(folder).absolute(), warn, lease
        self.identity = json.loads(_canonical(identity))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._refused: set[Path] = set()

    def save(self, epoch: int, state: Any, about: Mapping[str, Any]) -> None:
        """Write a generation in the background, once the one before is written.

        Args:
          epoch: epochs done.
          state: arrays on the host, in memory that nobody changes any more.
          about: plain JSON that `restore` gives back.

        Raises:
          ConfigError: the save before this one failed; older generations are as they were.
        """
        self.wait()
        leaves, arrays = _described(state), [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        head = {"format": FORMAT, "identity": self.identity, "epoch": epoch, "about": about, "leaves": leaves}
        if len(_canonical(head)) > MOST_BYTES // 4:
            raise ValueError(f"identity and about of a state take more than {MOST_BYTES // 4} bytes")
        self._pending = self._writer.submit(self._write, epoch, arrays, json.loads(_canonical(head)))

    def _write(self, epoch: int, arrays: Sequence[np.ndarray], head: dict[str, Any]) -> None:
        path = self.folder / f"{epoch:08d}"
        self.lease.check()
        if self.folder.is_symlink():
            raise FileExistsError(errno.EEXIST, "a link stands where a folder is needed")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep(lambda other: other.name.isdigit())
        usage = shutil.disk_usage(self.folder)
        if usage.total > 0 and usage.free < sum(array.nbytes for array in arrays):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # before half of it is written
        named = list(zip(head["leaves"], arrays, strict=True))
        for leaf, array in named:
            leaf["sha256"] = _digest(array)
        _discard(path)  # of the same epoch: not usable, or the same bits once more
        try:  # arrays without an element are not stored: Orbax refuses them
            _commit(path, {leaf["name"]: array for leaf, array in named if array.size}, head, self.lease)
        except BaseException:
            self.lease.check()  # what lies there may be of another process, and what was begun here is not committed
            with contextlib.suppress(OSError):  # otherwise the next save removes it
                self._keep(lambda other: other.name.isdigit())
            raise
        self.lease.check()
        before = [self.folder / f"{other:08d}" for other in self.epochs() if other < epoch]
        kept = {path, *[other for other in before if other not in self._refused][-1:]}
        self._keep(kept.__contains__)  # later ones are of a training that was given up

    def _keep(self, wanted: Callable[[Path], bool]) -> None:
        for _, path in self._generations():
            if not wanted(path):
                _discard(path)

    def _generations(self) -> list[tuple[int, Path]]:
        """All that is named like a generation, committed or not, oldest first."""
        paths = self.folder.iterdir() if _is_folder(self.folder) else ()
        return sorted((int(match[1]), path) for path in paths if (match := GENERATION.fullmatch(path.name)))

    def epochs(self) -> list[int]:
        """Epochs of the committed generations, oldest first."""
        return [epoch for epoch, path in self._generations() if path.name.isdigit() and _is_folder(path)]

    def restore(
        self, template: Any, accept: Callable[[int, dict[str, Any]], str | None] = lambda epoch, about: None
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Epoch, state (numpy arrays in the structure of `template`) and `about` of the newest usable generation.

        Args:
          template: arrays or jax.ShapeDtypeStruct, of the shapes and types that the state has to have.
          accept: says of (epoch, about) why a whole generation is not to be used all the same; None: it is.

        Returns:
          None where none can be used. What is wrong with a generation is told in one line and never raised.
        """
        self.wait()
        found, wrong = None, {}
        if self.folder.is_symlink():
            wrong[self.folder] = "a link stands where a folder is needed"
        for epoch, path in reversed(self._generations()):
            try:
                state, about = self._read(epoch, path, _described(template))
                if (why := accept(epoch, about)) is not None:
                    raise Unusable(why)
                found = epoch, state, about
                break
            except Exception as error:  # files from anywhere can be wrong in any way
                wrong[path] = " ".join(str(error).split())[:200] or type(error).__name__
        self._refused |= set(wrong)
        instead = f"the checkpoint of epoch {found[0]} is used" if found else "the group starts from the beginning"
        for path, why in wrong.items():
            self.warn(f"{path}: {why}; {instead}")
        return found and (found[0], jax.tree.unflatten(jax.tree.structure(template), found[1]), found[2])

    def _read(self, epoch: int, path: Path, leaves: list[dict[str, Any]]) -> tuple[list[np.ndarray], dict[str, Any]]:
        if not path.name.isdigit():
            raise Unusable("it was not written to its end")
        if not _is_folder(path):
            raise Unusable("it is a link or no folder, and is not followed")
        files = _file_digests(path, MOST_BYTES + sum(4 * leaf["bytes"] + 4096 for leaf in leaves))
        with open(path / SEAL, "rb") as file:
            sealed = json.loads(file.read(MOST_BYTES))  # what is cut off there is no JSON
        content: Any = sealed["content"]
        if _digest(_canonical(content)) != sealed["sha256"]:
            raise Unusable(f"{SEAL} is damaged")
        if content["format"] != FORMAT or content["epoch"] != epoch:
            raise Unusable(f"it is of epoch {content['epoch']} in format {content['format']}")
        ours, theirs = self.identity, content["identity"]
        if theirs != ours:
            differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
            raise Unusable(f"it belongs to another group ({', '.join(differing)})")
        if [{**leaf, "sha256": None} for leaf in content["leaves"]] != [{**leaf, "sha256": None} for leaf in leaves]:
            raise Unusable("its state has other leaves, shapes or types")
        if files != content["files"]:
            raise Unusable("a file is missing, foreign or damaged")
        arrays = _read_arrays(path / ARRAYS, [leaf for leaf in leaves if leaf["bytes"]])
        arrays |= {leaf["name"]: np.zeros(leaf["shape"], leaf["dtype"]) for leaf in leaves if not leaf["bytes"]}
        for leaf in content["leaves"]:
            array = arrays[leaf["name"]]
            if array.dtype.name != leaf["dtype"] or _digest(array) != leaf["sha256"]:
                raise Unusable(f"{leaf['path']} has other bytes than were saved")
        return [arrays[leaf["name"]] for leaf in leaves], content["about"]

    def wait(self) -> None:
        """Wait until what was saved is on disk.

        Raises:
          ConfigError: it could not be written.
          LeaseLost: another process has the folder now.
        """
        if self._pending is not None:
            error = self._pending.exception()
            self._pending = None
            if isinstance(error, LeaseLost):
                raise error
            if error is not None:
                _raise_clearly(error, self.folder)

    def close(self) -> None:
        """As `wait`, and let go of the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def remove(self) -> None:
        """Delete the folder; a save that failed does not matter any more."""
        with contextlib.suppress(Exception):
            self.wait()
        self.lease.check()
        with clear_errors(self.folder):
            _discard(self.folder)
