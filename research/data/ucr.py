"""Classified time series of the UCR and UEA archives."""

import dataclasses
import importlib.util
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from research.data.examples import Examples
from research.data.files.archive import Series, read_arrays, read_ts, read_tsv
from research.data.files.local import listing, no_root, state
from research.data.preparation import Preparation, pad, series_moments
from research.data.source import Source, Splitting
from research.errors import nearest
from research.tree import ConfigError, recipe

TOLERANCE = 0.01  # of a mean of 0 and a deviation of 1
FORMS = (
    ("{problem}_TRAIN.ts", "{problem}_TEST.ts"),
    ("{problem}_TRAIN.tsv", "{problem}_TEST.tsv"),
    ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"),
)


@recipe
class UCR(Splitting):
    """One problem of the archives (Dau et al., 2018, arXiv:1810.07758; Bagnall et al., 2018, arXiv:1811.00075).

    x [N, T, C] float32, label [N] int32: the class names, sorted, are 0 to K - 1 (by value where all are numbers). The
    published test part is kept. Series of unequal length are padded, with `length`; missing values are not `observed`.

    Attributes:
      root: folder that holds the folder of the problem, or that folder; null reads the files of the package aeon,
        without importing it.
      problem: name of the problem, for example BasicMotions.
      scaling: "unit" has no meaning here.
      zscore: scale every channel of every series to mean 0 and deviation 1 over its own steps, a constant one to 0, as
        most problems of the archive already are. A note says what that changes.
      anomaly: name of a class that counts as anomalous: its series are test rows only, those of the training file too,
        and the label is 1 for them and 0 for all others.
    """

    scaling: Literal["none", "standard", "minmax"]
    problem: str
    zscore: bool
    anomaly: str | None

    def validate(self) -> None:
        """Refuse names that cannot be file names."""
        super().validate()
        if self.problem == "???" or not self.problem or Path(self.problem).name != self.problem:
            raise ConfigError("problem", self.problem, "name one, for example data.problem=BasicMotions")

    # ------------------------------------------------------------------------------------------------------ the files

    def stamp(self) -> Hashable:
        """State of the files."""
        return state(self._files() or ())

    def _folder(self) -> Path | None:
        """The folder that holds the folders of problems; None without `root` and the package aeon."""
        if self.root is not None:
            return Path(self.root).expanduser()
        aeon = importlib.util.find_spec("aeon")
        if aeon is None or not aeon.submodule_search_locations:
            return None
        return Path(aeon.submodule_search_locations[0]) / "datasets" / "data"

    def _files(self) -> tuple[Path, ...] | None:
        """The files of the problem, or None."""
        if (folder := self._folder()) is None:
            return None
        for base in (folder / self.problem, folder, folder / "ucr" / self.problem):
            for names in FORMS:
                files = tuple(base / name.format(problem=self.problem) for name in names)
                # Only the folder tells to which problem x_train.npy belongs.
                named = len(files) == 2 or base.absolute().name == self.problem
                if named and all(path.is_file() for path in files):
                    return files
        return None

    def _missing(self) -> ConfigError:
        """Why there are no files, as seen in the folder of the problems."""
        if (folder := self._folder()) is None:
            remedy = "data.root=FOLDER, or install some problems: pip install aeon --no-deps"
            return ConfigError("root", None, f"name the folder of your files, {remedy}")
        if (folder / "ucr").is_dir() and not (folder / self.problem).is_dir():
            folder = folder / "ucr"
        inside = folder / self.problem
        expected = f"{self.problem}_TRAIN.ts and _TEST.ts (or .tsv), or {', '.join(FORMS[-1])}"
        if not folder.is_dir():
            return no_root(str(self.root or folder), f"the folder {self.problem} with {expected}")
        if inside.is_dir():
            return ConfigError("problem", self.problem, f"{inside} must hold {expected}; it holds: {listing(inside)}")
        known = [item.name for item in folder.iterdir() if item.is_dir()]
        where = "aeon brings no such problem along" if self.root is None else f"{folder.absolute()} has no such folder"
        remedy = f"{where}{nearest(self.problem, known)}; it holds: {listing(folder)}"
        return ConfigError("problem", self.problem, f"{remedy}. Expected {expected}")

    # ------------------------------------------------------------------------------------------------------- the rows

    def stored(self) -> Source:
        """All rows, those of the training file first."""
        if (files := self._files()) is None:
            raise self._missing()
        if len(files) == 2:
            reader = read_ts if files[0].suffix == ".ts" else read_tsv
            parts = [reader(path) for path in files]
        else:
            parts = read_arrays(*files)
        channels = [part.values[0].shape[1] for part in parts]
        if channels[0] != channels[1]:
            problem = f"{channels[0]} channels for training but {channels[1]} for testing"
            raise ConfigError("problem", self.problem, problem)
        x, length = pad([*parts[0].values, *parts[1].values])
        gaps, inside = np.isnan(x), np.arange(x.shape[1]) < length[:, None]
        observed = ~gaps & inside[..., None]
        rows = Examples(
            x=np.where(gaps, 0, x),
            length=None if inside.all() else length,
            observed=observed if gaps.any() else None,
        )
        test = np.repeat([False, True], [len(part.values) for part in parts])
        label, classes = self._label(parts)
        if self.anomaly is not None:
            assert label is not None
            test = test | (label == 1)
            if test.all():
                raise ConfigError("anomaly", self.anomaly, "the training file has no series of another class")
        values = [part.targets for part in parts if part.targets is not None]
        target = np.concatenate(values) if values else None
        return Source(
            self.problem,
            "sequence",
            dataclasses.replace(rows, label=label, target=target),
            test=test,
            anomaly=self.anomaly is not None,
            classes=classes,
            preparation=Preparation(zscore=self.zscore),
            notes=self._zscore_notes(rows),
        )

    def _zscore_notes(self, rows: Examples) -> tuple[str, ...]:
        """What `zscore` does to the series as they are stored, or would do; nothing if there is nothing to choose."""
        if are_standardized(rows):
            stored = f"the series of {self.problem} have mean 0 and deviation 1 as stored"
            return (f"{stored}; data.zscore=true changes little",) if self.zscore else ()
        if self.zscore:
            return (
                f"data.zscore=true: every channel of every series of {self.problem} gets mean 0 and deviation 1, and"
                " loses its level and its size; data.zscore=false keeps them",
            )
        return (
            f"data.zscore=false: the series of {self.problem} keep their level and their size; with data.zscore=true"
            " every channel of every series gets mean 0 and deviation 1",
        )

    def _label(self, parts: Sequence[Series]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Classes as 0 to K - 1, or 1 for the anomalous class, [N] int32, and their names; None without classes."""
        unlabelled = [part.classes is None for part in parts]
        if any(unlabelled):
            if not all(unlabelled):
                raise ConfigError("problem", self.problem, "only one of its two files has classes")
            if self.anomaly is not None:
                raise ConfigError("anomaly", self.anomaly, f"the series of {self.problem} have no classes")
            return None, None
        names = [name for part in parts for name in part.classes or ()]
        classes = in_order(set(names))
        if self.anomaly is None:
            return np.asarray([classes.index(name) for name in names], np.int32), tuple(classes)
        if self.anomaly not in classes:
            remedy = f"no such class{nearest(self.anomaly, classes)}; its classes are: {', '.join(classes)}"
            raise ConfigError("anomaly", self.anomaly, remedy)
        return np.asarray([name == self.anomaly for name in names], np.int32), None


def are_standardized(rows: Examples) -> bool:
    """Whether every channel of every series has mean 0 and deviation 1, within .01.

    Deviations whose squares were divided by T - 1, as those of ItalyPowerDemand, count too; so does a constant 0.
    """
    mean, deviation = series_moments(rows)
    mask = np.ones(rows.x.shape, bool) if rows.mask is None else rows.mask
    steps = np.maximum(mask.sum(1, keepdims=True), 1)
    lowest = np.sqrt((steps - 1) / steps)
    known = steps > 1
    return bool(
        (np.abs(mean) < TOLERANCE).all()
        and (deviation < 1 + TOLERANCE).all()
        and (deviation > lowest - TOLERANCE)[known].all()
    )


def in_order(names: set[str]) -> list[str]:
    """Names in the order of their values if all are finite numbers, else in alphabetical order."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        return sorted(names)
    return sorted(names, key=lambda name: (float(name), name)) if np.isfinite(values).all() else sorted(names)
