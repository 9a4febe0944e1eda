"""The folder of a run: which files it has, and when a file is refused."""

import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from research.errors import ConfigError, did_you_mean, nearest_folder
from research.networks.earlier import gates_apart
from research.runs.csv_files import MetricsFile
from research.runs.files import Held, digest, refuse_links, write_atomically

TRAINED = ("completed", "stopped", "diverged", "pruned")  # statuses of a run whose result has the hashes of its files
STATUSES = (*TRAINED, "failed", "interrupted")
ANEW = "or train the run anew under another name="


class RunFolder:
    """One run on disk.

    After training it has `config.json`, `metrics.csv`, `result.json` and, unless it diverged before its first
    evaluation, `params.safetensors`. The evaluation may add `clusters.safetensors` and `figures/`.

    Args:
      path: of the folder.
      lease: the lease under which it is written; None opens it for reading only.
    """

    def __init__(self, path: Path | str, lease: Held | None = None):
        self.path, self._lease = Path(path), lease
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.result = self.path / "result.json"
        self.parameters = self.path / "params.safetensors"
        self.clusters = self.path / "clusters.safetensors"
        self.figures = self.path / "figures"
        self._metrics = MetricsFile(self.metrics)

    @property
    def lease(self) -> Held:
        """The lease under which the run is written."""
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
        """The content of `config.json`.

        Raises:
          ConfigError: the folder or the file does not exist, or it is damaged.
        """
        if not self.path.exists():
            meant = did_you_mean(folder_with(self.config.name, self.path))
            raise ConfigError("folder", self.path, f"this folder does not exist{meant}; name the folder of one run")
        remedy = "no config.json is here; name the folder of one run"
        if not self.config.exists():
            remedy += for_example(folder_with(self.parameters.name, self.path))
        return self._read_json(self.config, remedy)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` as strict JSON: NaN and infinities become null with a reason in `null_reasons`."""
        before = result.get("null_reasons")
        reasons = dict(before) if isinstance(before, Mapping) else {}  # a result that was read may hold anything
        content = strict({name: value for name, value in result.items() if name != "null_reasons"}, "", reasons)
        text = json.dumps(content | {"null_reasons": reasons}, indent=1, allow_nan=False)
        write_atomically(self.result, (text + "\n").encode(), self.lease)

    def read_result(self) -> dict[str, Any] | None:
        """The content of `result.json`, or None before it is written."""
        return self._read_json(self.result, "") if self.result.exists() else None

    def _read_json(self, path: Path, missing: str) -> dict[str, Any]:
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

    # ---------------------------------------------------------------------------------------------- hashes of files

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that a result depends on, by name."""
        files = (self.config, self.metrics, self.parameters, self.clusters)
        return {file.name: digest(file) for file in files if file.exists()}

    def check_seal(self, *files: Path) -> None:
        """Refuse a trained run if a file is not the one that `result.json` has the hash of.

        Without arguments, config, metrics and parameters are checked. A run that has no result, or one that did not
        train to an end, has no hashes, and nothing is refused.

        Raises:
          ConfigError: a file is missing, changed or of another run, or `result.json` has no hash of it.
        """
        for file in files or (self.config, self.metrics, self.parameters):
            expected = self._sealed_hash(file)
            if expected is None:
                continue
            if not file.exists():
                raise ConfigError("folder", self.path, f"{file.name} is missing; restore it, {ANEW}")
            self._compare(file, digest(file), expected)

    def _compare(self, file: Path, actual: str, expected: str) -> None:
        if actual != expected:
            problem = f"{file.name} is not the file that result.json was written with (its hash differs)"
            raise ConfigError("folder", self.path, f"{problem}; restore it, {ANEW}")

    def _sealed_hash(self, file: Path) -> str | None:
        """The SHA-256 that `result.json` has of a file; None if the run is not trained or has no such file."""
        result = self.read_result() or {}
        if result.get("status") not in TRAINED:
            return None
        hashes = result.get("files")
        expected = hashes.get(file.name) if isinstance(hashes, dict) else None
        if isinstance(expected, str):
            return expected
        if result["status"] == "diverged" and file == self.parameters and not file.exists():
            return None  # it diverged before its first evaluation
        raise ConfigError("folder", self.path, f"result.json has no hash of {file.name}; restore it, {ANEW}")

    # ------------------------------------------------------------------------------------------------- metrics.csv

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append evaluations to `metrics.csv`; see `MetricsFile.append`."""
        if rows:
            self._metrics.append(rows, self.lease)

    def cut_metrics(self, step: int) -> None:
        """Drop the rows of `metrics.csv` after a step."""
        self._metrics.cut(step, self.lease)

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv` as numbers, in order of step."""
        return self._metrics.read()

    # ------------------------------------------------------------------------------------- parameters and figures

    def save_parameters(self, params: Mapping[str, Any], scaling: Mapping[str, Any]) -> None:
        """Write a nested dict of parameters, and the scaling of the data, to `params.safetensors`."""
        import safetensors.numpy

        flat = dict(_flat({"params": params, "scaling": scaling}))
        write_atomically(self.parameters, safetensors.numpy.save(flat), self.lease)

    def load_parameters(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The parameters as a nested dict of arrays, in the form of the present version, and the scaling of the data.

        Raises:
          ConfigError: the run kept no parameters (the error says why), or the file is damaged or not the one that
            `result.json` has the hash of.
        """
        if not self.parameters.exists():
            result = self.read_result() or {}
            reason = f" ({result['reason']})" if result.get("reason") else ""
            problem = f"this run is {result.get('status', 'unfinished')}{reason} and kept no parameters"
            raise ConfigError("folder", self.path, f"{problem}; choose another run")
        refuse_links(self.parameters)
        expected, content = self._sealed_hash(self.parameters), self.parameters.read_bytes()
        if expected is not None:
            self._compare(self.parameters, hashlib.sha256(content).hexdigest(), expected)
        try:
            tree = _nested(_arrays(content))
        except ValueError as error:
            remedy = f"{self.parameters.name} is damaged ({error}); restore it, {ANEW}"
            raise ConfigError("folder", self.path, remedy) from None
        return gates_apart(tree.get("params", {})), tree.get("scaling", {})

    def save_clusters(self, centres: np.ndarray) -> None:
        """Write the centres of the clusters that the evaluation found, [K, L], to `clusters.safetensors`."""
        import safetensors.numpy

        content = safetensors.numpy.save({"centres": np.ascontiguousarray(centres)})
        write_atomically(self.clusters, content, self.lease)

    def load_clusters(self) -> np.ndarray | None:
        """The centres of the clusters that the evaluation found, [K, L], or None.

        Raises:
          ConfigError: the file is damaged, or not the one that `result.json` has the hash of.
        """
        if not self.clusters.exists():
            return None
        refuse_links(self.clusters)
        hashes = (self.read_result() or {}).get("files")
        try:
            content = self.clusters.read_bytes()
            if isinstance(hashes, dict) and hashes.get(self.clusters.name) != hashlib.sha256(content).hexdigest():
                raise ValueError("it is not the file that was written")
            centres = _arrays(content).get("centres")
            if centres is None or centres.ndim != 2 or not np.isfinite(centres).all():
                raise ValueError("it holds no finite centres [K, L]")
            return centres
        except (ValueError, OSError) as error:
            raise ConfigError("folder", self.path, f"{self.clusters.name} is damaged ({error}); remove it") from None

    def write_figures(self, figures: Mapping[str, bytes]) -> None:
        """Write PNG bytes as `figures/<name>.png`. They are not forced to the disk, since they can be drawn again."""
        for name, data in figures.items():
            write_atomically(self.figures / f"{name}.png", data, self.lease, force=False)


def short_commit(commit: str) -> str:
    """The first 12 digits of a commit, with its `+` for uncommitted code."""
    return commit[:12] + "+" * (len(commit) > 12 and commit.endswith("+"))


def folder_with(file: str, path: Path) -> Path | None:
    """The folder with a file of this name that a path means: itself, one of its two parents, or the newest one inside.

    Of a path that does not exist, the folder of the most similar name is searched, also below `outputs`.
    """
    meant = nearest_folder(path) or nearest_folder(Path("outputs") / path)
    if meant is None:
        return None
    for folder in (meant, *meant.parents[:2]):
        if (folder / file).is_file():
            return folder
    inside = [path for pattern in (f"*/{file}", f"*/*/{file}") for path in meant.glob(pattern)]
    return max(inside, key=lambda path: path.stat().st_mtime).parent if inside else None


def for_example(path: Path | None) -> str:
    """`, for example PATH`, as it can be pasted; empty without a path."""
    return "" if path is None else f", for example {shlex.quote(str(path))}"


def check_sweep_folder(folder: Path) -> None:
    """Refuse a path that is no folder, and name the sweep that is meant."""
    if folder.is_dir():
        return
    if folder.exists():
        raise no_sweep(folder, "this is a file")
    meant = did_you_mean(folder_with("sweep.json", folder) or nearest_folder(folder))
    raise ConfigError("folder", folder, f"no such folder{meant}; name the folder of a sweep")


def no_sweep(folder: Path, problem: str) -> ConfigError:
    """The error of a path that holds no sweep; it names the sweep of a run, or a sweep nearby as an example."""
    if (folder / "config.json").exists():
        sweep = shlex.quote(str(folder.absolute().parent))
        return ConfigError("folder", folder, f"this is one run; name the folder of its sweep: {sweep}")
    example = for_example(folder_with("sweep.json", folder if folder.is_dir() else folder.parent))
    return ConfigError("folder", folder, f"{problem}; name the folder of a sweep{example}")


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, which holds no code.

    Raises:
      ValueError: the content is damaged.
    """
    import safetensors.numpy

    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a nested dict by their path, `params/encoder/kernel`."""
    for name, value in tree.items():
        if "/" in str(name):
            raise ValueError(f"parameter name {name!r} holds the separator '/'")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.array(value, order="C")


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The nested dict of arrays that `_flat` has made flat.

    Raises:
      ValueError: a path is both an array and a section.
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split("/")
        section: Any = tree
        for step in sections:
            section = section.setdefault(step, {}) if isinstance(section, dict) else section
        if not isinstance(section, dict) or name in section:
            raise ValueError(f"{path} is both an array and a section")
        section[name] = value
    return tree


@runtime_checkable
class SupportsArray(Protocol):
    """An array or a scalar of any library."""

    def __array__(self) -> np.ndarray: ...


def strict(value: Any, key: str, reasons: dict[str, str]) -> Any:
    """`value` as strict JSON: arrays become lists, NaN and infinities become null with an entry in `reasons`.

    Args:
      value: mappings, sequences, arrays, paths and plain values.
      key: the name of the value for `reasons`; empty at the top, and names below `metrics` stand alone.
      reasons: name -> why the value is null; entries that exist are kept.
    """
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
