"""The folder of one run: which files it has, and how they are written so that no half-written file is ever seen."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from research.networks.earlier import gates_apart
from research.runs.held import Held
from research.tree import ConfigError

TRAINED = ("completed", "stopped", "diverged", "pruned")  # statuses of a run whose files its result has sealed
STATUSES = (*TRAINED, "failed", "interrupted")
ANEW = "or train the run anew under another name="
CHANGED = "{} is not the file that result.json was written with (its hash differs); restore it, " + ANEW
FULL = "no space is left on this disk; free some, or choose another output folder"
REFUSED = "this place cannot be written or read ({}); choose another output folder"
REMEDIES = {  # of what the machine refuses, whatever a program does
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


def disk_remedy(error: OSError) -> str | None:
    """What helps against an error of the machine; None where the error may be one of this program."""
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


def write_atomically(path: Path, data: bytes, lease: Held) -> None:
    """Write a file under its final name all at once: temporary file in the same folder, flush, fsync, rename.

    Raises:
      ConfigError: the disk is full or cannot be written; the file keeps its old content.
      LeaseLost: another process has the folder now; the file keeps the content which that one gave it.
    """
    lease.check()
    with clear_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            lease.check()  # once more: to force a file to a busy disk takes long
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def refuse_links(path: Path) -> None:
    """Refuse a file of a run that is a link, a pipe or a device: reading or appending would reach outside, or hang.

    Raises:
      ConfigError: it is one. A file that is not there is no concern.
    """
    try:
        irregular = not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return
    if irregular:
        raise ConfigError(
            "folder", path.parent, f"{path.name} is a link or no plain file, and is not followed; remove it"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    refuse_links(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable(folder: Path | str) -> None:
    """Check, by creating and removing a file, that a folder can be written; a folder that is not there yet is not made.

    Raises:
      ConfigError: it cannot.
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


@runtime_checkable
class SupportsArray(Protocol):
    """An array or a scalar of any library."""

    def __array__(self) -> np.ndarray: ...


def strict(value: Any, key: str, reasons: dict[str, str]) -> Any:
    """`value` as strict JSON allows it: arrays as lists, NaN and infinities as null with an entry in `reasons`."""
    if isinstance(value, Mapping):
        prefix = "" if key in ("", "metrics") else f"{key}."
        return {str(name): strict(item, f"{prefix}{name}", reasons) for name, item in value.items()}
    if isinstance(value, SupportsArray):
        value = np.asarray(value).tolist()
    if isinstance(value, tuple | list):
        return [strict(item, f"{key}[{index}]", reasons) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        reasons.setdefault(key, "not a number" if math.isnan(value) else f"{'-' if value < 0 else ''}infinite")
        return None
    return str(value) if isinstance(value, os.PathLike) else value


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if "/" in str(name):
            raise ValueError(f"parameter name {name!r} holds the separator '/'")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", np.array(value, order="C")


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split("/")
        section: Any = tree
        for step in sections:
            section = section.setdefault(step, {})
            if not isinstance(section, dict):
                raise ValueError(f"{path} lies below an array")
        if name in section:
            raise ValueError(f"{path} is both an array and a section")
        section[name] = value
    return tree


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


class RunFolder:
    """One run on disk: `config.json`, `metrics.csv`, `result.json`, `params.safetensors`, events and `figures/`.

    Args:
      path: of the folder.
      lease: under which it is written; None: it can only be read.
    """

    def __init__(self, path: Path | str, lease: Held | None = None):
        self.path, self._lease = Path(path), lease
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.result = self.path / "result.json"
        self.parameters = self.path / "params.safetensors"
        self.clusters = self.path / "clusters.safetensors"
        self.figures = self.path / "figures"
        self._columns: list[str] | None = None
        self._last_step = -math.inf

    @property
    def lease(self) -> Held:
        """Under which the run is written."""
        if self._lease is None:
            raise TypeError(f"{self.path} was opened without a lease, and can only be read")
        return self._lease

    # ------------------------------------------------------------------------------------------ config and result

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.json` once; `config` holds at least `config` (the typed tree) and its `config_hash`.

        Raises:
          ConfigError: the folder belongs to another configuration.
        """
        if self.config.exists():
            present = self.read_config().get("config_hash")
            if present != config["config_hash"]:
                remedy = f"this folder holds the run of another configuration ({present}); choose another name="
                raise ConfigError("folder", self.path, remedy)
            return
        write_atomically(self.config, (json.dumps(config, indent=1) + "\n").encode(), self.lease)

    def read_config(self) -> dict[str, Any]:
        """The content of `config.json`; ConfigError where there is none."""
        return self._read(self.config, "no config.json is here; name the folder of one run")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` as strict JSON: NaN and infinities become null with a reason in `null_reasons`."""
        given = result.get("null_reasons")
        reasons = dict(given) if isinstance(given, Mapping) else {}  # a result that is read again may have anything
        content = strict({name: value for name, value in result.items() if name != "null_reasons"}, "", reasons)
        text = json.dumps(content | {"null_reasons": reasons}, indent=1, allow_nan=False)
        write_atomically(self.result, (text + "\n").encode(), self.lease)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that a result stands on."""
        files = (self.config, self.metrics, self.parameters, self.clusters)
        return {file.name: digest(file) for file in files if file.exists()}

    def read_result(self) -> dict[str, Any] | None:
        """The content of `result.json`, or None before there is one."""
        return self._read(self.result, "") if self.result.exists() else None

    def check_seal(self, *files: Path) -> None:
        """Refuse a trained run one of whose files, or of those given, is not what `result.json` has the hash of.

        A run without a result, or with one that says it did not train to an end, has no seal, and nothing is refused.

        Raises:
          ConfigError: a file is missing, changed or of another run, or `result.json` has no hash of it.
        """
        for file in files or (self.config, self.metrics, self.parameters):
            wanted = self._seal(file)
            if wanted is not None and not file.exists():
                raise ConfigError("folder", self.path, f"{file.name} is missing; restore it, {ANEW}")
            if wanted is not None and digest(file) != wanted:
                raise ConfigError("folder", self.path, CHANGED.format(file.name))

    def _seal(self, file: Path) -> str | None:
        """The SHA-256 that `result.json` has of a file; None where the run is not trained, or has no such file."""
        result = self.read_result() or {}
        if result.get("status") not in TRAINED:
            return None
        seals = result.get("files")
        wanted = seals.get(file.name) if isinstance(seals, dict) else None
        if isinstance(wanted, str):
            return wanted
        if result["status"] == "diverged" and file == self.parameters and not file.exists():
            return None  # it diverged before its first evaluation
        raise ConfigError("folder", self.path, f"result.json has no hash of {file.name}; restore it, {ANEW}")

    def _read(self, path: Path, missing: str) -> dict[str, Any]:
        refuse_links(path)
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it holds no JSON object")
            return content
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError("folder", self.path, missing) from None
        except (ValueError, RecursionError) as error:
            raise ConfigError("folder", self.path, f"{path.name} is damaged ({error}); restore or remove it") from None

    # ------------------------------------------------------------------------------------------------- metrics.csv

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append evaluations, each with its `step`, in one open, write and close.

        The first row ever written fixes the columns. Rows already on disk from the first new step on are replaced, so a
        resumed run repeats nothing.

        Raises:
          ValueError: a row has no step, or a column that the first row had not.
        """
        if not rows:
            return
        columns = self._open_metrics() or list(rows[0])
        for row in rows:
            unknown = [name for name in row if name not in columns]
            if unknown or "step" not in row:
                raise ValueError(
                    f"metrics row: {f'unknown column {unknown[0]!r}' if unknown else 'no step'}; {columns}"
                )
        latest = {row["step"]: row for row in rows}  # the last of several rows for one step counts
        steps = sorted(latest)
        lines = [[_cell(latest[step].get(name)) for name in columns] for step in steps]
        if self._columns is None:
            write_atomically(self.metrics, _csv([columns, *lines]), self.lease)
        elif steps[0] <= self._last_step:
            header, *present = self._rows()
            at = header.index("step")
            kept = [row for row in present if float(row[at]) < steps[0]]
            write_atomically(self.metrics, _csv([header, *kept, *lines]), self.lease)
        else:
            self.lease.check()
            with clear_errors(self.path), open(self.metrics, "ab") as file:
                file.write(_csv(lines))
        self._columns, self._last_step = columns, steps[-1]

    def cut_metrics(self, step: int) -> None:
        """Drop the rows after a step, which are to be written again."""
        if not self.metrics.exists():
            return
        header, *present = self._rows() or [[]]
        if "step" not in header:
            return
        kept = [row for row in present if float(row[header.index("step")]) <= step]
        write_atomically(self.metrics, _csv([header, *kept]), self.lease)
        self._columns = None

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv` as numbers (empty cells and text left out), in order of step."""
        if not self.metrics.exists():
            return []
        header, *rows = self._rows() or [[]]
        numbers = []
        for row in rows:
            pairs = ((name, _number(cell)) for name, cell in zip(header, row, strict=True))
            numbers.append({name: value for name, value in pairs if value is not None})
        return numbers

    def _rows(self) -> list[list[str]]:
        """Header and rows of `metrics.csv`, each with a step, without a line that was cut short."""
        refuse_links(self.metrics)
        try:
            text = self.metrics.read_text(encoding="utf-8")
            rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
            rows = [row for row in rows if len(row) == len(rows[0])]
            for row in rows[1:]:
                int(float(row[rows[0].index("step")]))
        except (ValueError, OverflowError, csv.Error) as error:
            raise ConfigError("folder", self.path, f"metrics.csv is damaged ({error}); restore it, {ANEW}") from None
        return rows

    def _open_metrics(self) -> list[str] | None:
        """The columns on disk, or None; what a killed process left of a last line is removed."""
        if self._columns is None and self.metrics.exists():
            rows = self._rows()
            if rows:
                write_atomically(self.metrics, _csv(rows), self.lease)
                self._columns = rows[0]
                self._last_step = float(rows[-1][rows[0].index("step")]) if len(rows) > 1 else -math.inf
        return self._columns

    # ------------------------------------------------------------------------------------- parameters and figures

    def save_parameters(self, params: Mapping[str, Any], scaling: Mapping[str, Any]) -> None:
        """Write `params.safetensors`: `params/<path>` of a nested dict of arrays, and `scaling/<name>`."""
        import safetensors.numpy

        flat = dict(_flat(params, "params")) | dict(_flat(scaling, "scaling"))
        write_atomically(self.parameters, safetensors.numpy.save(flat), self.lease)

    def load_parameters(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The parameters as a nested dict of arrays, and the scaling that belongs to them.

        Raises:
          ConfigError: the run kept none (it says why), or the file is damaged or not the one that its result sealed.
        """
        import safetensors.numpy

        if not self.parameters.exists():
            result = self.read_result() or {}
            status, reason = result.get("status", "unfinished"), result.get("reason")
            remedy = (
                f"this run is {status}{f' ({reason})' if reason else ''} and kept no parameters; choose another run"
            )
            raise ConfigError("folder", self.path, remedy)
        refuse_links(self.parameters)
        wanted, content = self._seal(self.parameters), self.parameters.read_bytes()
        if wanted is not None and hashlib.sha256(content).hexdigest() != wanted:
            raise ConfigError("folder", self.path, CHANGED.format(self.parameters.name))
        try:
            tree = _nested(safetensors.numpy.load(content))
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError("folder", self.path, f"{self.parameters.name} is damaged ({error})") from None
        return gates_apart(tree.get("params", {})), tree.get("scaling", {})

    def save_clusters(self, centres: np.ndarray) -> None:
        """Write `clusters.safetensors`: the centres of the clusters that the evaluation found, [K, L]."""
        import safetensors.numpy

        write_atomically(self.clusters, safetensors.numpy.save({"centres": np.ascontiguousarray(centres)}), self.lease)

    def load_clusters(self) -> np.ndarray | None:
        """The centres of the clusters that the evaluation found, [K, L], or None.

        Raises:
          ConfigError: the file is damaged, or not the one that was written.
        """
        if not self.clusters.exists():
            return None
        import safetensors.numpy

        refuse_links(self.clusters)
        result = self.read_result()
        seals = None if result is None else result.get("files")
        try:
            content = self.clusters.read_bytes()
            if isinstance(seals, dict) and seals.get(self.clusters.name) != hashlib.sha256(content).hexdigest():
                raise ValueError("it is not the file that was written")
            centres = safetensors.numpy.load(content)["centres"]
            if centres.ndim != 2 or not np.isfinite(centres).all():
                raise ValueError(f"it holds no finite centres [K, L], but {centres.shape}")
            return centres
        except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
            raise ConfigError("folder", self.path, f"{self.clusters.name} is damaged ({error}); remove it") from None

    def write_figures(self, figures: Mapping[str, bytes]) -> None:
        """Write PNG bytes as `figures/<name>.png`; a figure can be made again, so these are not forced to the disk."""
        if not figures:
            return
        self.lease.check()
        with clear_errors(self.path):
            self.figures.mkdir(parents=True, exist_ok=True)
            for name, data in figures.items():
                self.lease.check()
                temporary = self.figures / f".{name}.png"
                temporary.write_bytes(data)
                temporary.replace(self.figures / f"{name}.png")


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
