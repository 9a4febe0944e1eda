"""Checkpoints: the training state of a unit on disk, so that a killed sweep continues with the same bits.

A generation is one file, `<epoch>-<SHA-256 of the file>.safetensors`; its metadata say whose state it is. The file gets
this name only when it is complete. `restore` parses nothing before the digest is right. If a generation cannot be used,
the sweep prints one line that says why and uses the generation before. Nothing is pickled or unpickled.
"""

import errno
import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.runs.files import Held, clear_errors, write_atomically

FORMAT = 2
COMPLETE = re.compile(r"([0-9]{8,12})-([0-9a-f]{64})\.safetensors")
ANY = re.compile(r"\.?([0-9]{8,12})\b.*")  # also half-written files, and the folders of older versions
MOST_BYTES = 64 << 20  # a file may be this much larger than four times its state


def generations(folder: Path, name: re.Pattern[str] = COMPLETE) -> list[tuple[int, Path]]:
    """(epoch, path) of the generations in a folder, oldest first."""
    paths = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
    return sorted((int(match[1]), path) for path in paths if (match := name.fullmatch(path.name)))


def remove(path: Path, lease: Held) -> None:
    """Delete a file, a link (not what it points to) or a folder (no link in it is followed)."""
    lease.check()
    with clear_errors(path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _described(tree: Any) -> list[list[Any]]:
    """Name, shape and type of every leaf."""
    leaves = enumerate(jax.tree_util.tree_flatten_with_path(tree)[0])
    named = [(f"{number:04d}{jax.tree_util.keystr(keys)}", leaf) for number, (keys, leaf) in leaves]
    return [[name, list(leaf.shape), str(leaf.dtype)] for name, leaf in named]


def _code(dtype: np.dtype) -> str:
    """The name of a type in a safetensors file."""
    kinds = {"b": "BOOL", "f": f"F{8 * dtype.itemsize}", "i": f"I{8 * dtype.itemsize}", "u": f"U{8 * dtype.itemsize}"}
    return "BF16" if dtype.name == "bfloat16" else kinds[dtype.kind]


class Checkpoints:
    """The newest two generations of one unit; each folder has one object, which one thread uses.

    Args:
      identity: JSON values that say whose state this is; a checkpoint with another identity is not used.
      warn: takes one line for every generation that cannot be used.
      lease: is checked before a file gets its name and before files are deleted.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], warn: Callable[[str], None], lease: Held):
        self.folder, self.warn, self.lease = Path(folder).absolute(), warn, lease
        self.identity = json.loads(json.dumps(identity))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._refused: set[Path] = set()

    def epochs(self) -> list[int]:
        """Epochs of the complete generations, oldest first."""
        return [epoch for epoch, _ in generations(self.folder)]

    def save(self, epoch: int, state: Any, record: Mapping[str, Any]) -> None:
        """Write a generation in the background. It waits for the one before, and raises what `wait` raises.

        `state` holds arrays on the host whose memory nobody changes any more; `restore` returns `record`, JSON values.
        """
        self.wait()
        leaves = _described(state)
        head = {"format": FORMAT, "identity": self.identity, "epoch": epoch, "record": record, "leaves": leaves}
        arrays = zip(leaves, jax.tree.leaves(state), strict=True)
        named = {name: np.asarray(array, order="C") for (name, *_), array in arrays}
        self._pending = self._writer.submit(self._write, epoch, named, json.dumps(head))

    def _write(self, epoch: int, arrays: dict[str, np.ndarray], head: str) -> None:
        import safetensors.numpy

        self.lease.check()
        with clear_errors(self.folder):
            if self.folder.is_symlink():
                raise FileExistsError(errno.EEXIST, "a link stands where a folder is needed")
            self.folder.mkdir(parents=True, exist_ok=True)
            before = generations(self.folder)
            self._keep([path for _, path in before])  # delete what a killed process has left
            usage = shutil.disk_usage(self.folder)
            if usage.total > 0 and usage.free < sum(array.nbytes for array in arrays.values()):
                raise OSError(errno.ENOSPC, "it would not fit")
            data = safetensors.numpy.save(arrays, {"checkpoint": head})
            new = self.folder / f"{epoch:08d}-{hashlib.sha256(data).hexdigest()}.safetensors"
            write_atomically(new, data, self.lease)
            older = [path for then, path in before if then < epoch and path not in self._refused]
            self._keep([*older[-1:], new])  # a later generation belongs to a training that was given up

    def _keep(self, kept: Collection[Path]) -> None:
        for _, path in generations(self.folder, ANY):
            if path not in kept:
                remove(path, self.lease)

    def restore(
        self, template: Any, refuse: Callable[[int, dict[str, Any]], str | None] = lambda epoch, record: None
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Epoch, state and `record` of the newest usable generation; None without one. Wrong files raise nothing.

        Args:
          template: arrays or jax.ShapeDtypeStruct; the state must have their structure, shapes and types.
          refuse: says of (epoch, record) why an intact generation cannot be used; None if it can.
        """
        self.wait()
        restored, wrong = None, {}
        if self.folder.is_symlink():
            wrong[self.folder] = "a link stands where a folder is needed"
        for epoch, path in reversed(generations(self.folder, ANY)):
            try:
                state, record = self._read(epoch, path, template)
                if (reason := refuse(epoch, record)) is not None:
                    raise ValueError(reason)
                restored = epoch, state, record
                break
            except Exception as error:  # a foreign file can be wrong in any way
                wrong[path] = " ".join(str(error).split())[:200] or type(error).__name__
        self._refused |= set(wrong)
        used = f"the checkpoint of epoch {restored[0]} is used" if restored else "the group starts from the beginning"
        for path, reason in wrong.items():
            self.warn(f"{path}: {reason}; {used}")
        return restored

    def _read(self, epoch: int, path: Path, template: Any) -> tuple[Any, dict[str, Any]]:
        import safetensors

        name, leaves, described = COMPLETE.fullmatch(path.name), jax.tree.leaves(template), _described(template)
        if name is None:
            raise ValueError("it is not complete" if path.name.startswith(".") else "an older version wrote it")
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError("it is a link or no plain file, and is not followed")
        if path.lstat().st_size > 4 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + MOST_BYTES:
            raise ValueError("it holds far more than the state of this group takes")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != name[2]:
            raise ValueError("it is damaged: its content does not have the digest in its name")
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        head = json.loads(header["__metadata__"]["checkpoint"])
        if (head["epoch"], head["format"]) != (epoch, FORMAT):
            raise ValueError(f"it is of epoch {head['epoch']} in format {head['format']}")
        if (theirs := head["identity"]) != self.identity:
            keys = {*self.identity, *theirs}
            differing = sorted(key for key in keys if self.identity.get(key) != theirs.get(key))
            raise ValueError(f"it belongs to another group ({', '.join(differing)})")
        if head["leaves"] != described:
            raise ValueError("its state has other leaves, shapes or types")
        stored = dict(safetensors.deserialize(data))
        for (name, shape, _), leaf in zip(described, leaves, strict=True):
            if stored[name]["dtype"] != _code(leaf.dtype) or list(stored[name]["shape"]) != shape:
                raise ValueError(f"{name} has another shape or type than its description")
        named = [(stored[name]["data"], leaf) for (name, *_), leaf in zip(described, leaves, strict=True)]
        arrays = [np.frombuffer(buffer, leaf.dtype).reshape(leaf.shape).copy() for buffer, leaf in named]
        return jax.tree.unflatten(jax.tree.structure(template), arrays), head["record"]

    def wait(self) -> None:
        """Wait until the last generation is on disk; raises ConfigError or LeaseLost if it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """As `wait`, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
