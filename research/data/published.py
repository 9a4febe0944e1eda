"""Published time series, divided as published results divide them. Their files are in a folder of the user."""

import csv
import dataclasses
from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from research.data.examples import Examples, Windows
from research.data.files.arrays import read_npz
from research.data.files.local import PublishedFiles, blaming
from research.data.files.reading import read_text
from research.data.files.table import PLAIN, Table
from research.data.series import Windowed, naive_error, refuse_folds, share_borders
from research.data.source import Source, Splitting
from research.data.times import steps_of, times_of
from research.ranges import OpenShare, Size
from research.tree import ConfigError, added, recipe


@recipe
class PublishedSeries(Windowed):
    """One series in one published file. A subclass names the file, reads it, and says where its blocks begin."""

    files: ClassVar[PublishedFiles]

    def stamp(self) -> Hashable:
        """State of the file."""
        return self.files.state(self.root)

    def stored(self) -> Source:
        """All windows."""
        path = self.files.locate(self.root)
        with blaming("root", self.root, every_error=True):
            names, values = self.channels(path)
        return self.cut(self.files.folder, values, names, self.borders(len(values)))

    def channels(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the channels, and their values [S, C]."""
        raise NotImplementedError

    def borders(self, steps: int) -> tuple[int, int]:
        """First step of the validation block and of the test block."""
        raise NotImplementedError


@recipe
class ETT(PublishedSeries):
    """ETTh1: hourly oil temperature and six loads of an electricity transformer (Zhou et al., 2021, arXiv:2012.07436).

    7 channels; the first 8,640 hours are the training block, 2,880 hours each the validation and the test block; what
    the file holds beyond is not used. At `stride=1` there are 2,880 - horizon + 1 test windows, whatever the window.

    Attributes:
      months: calendar months of the training and of the validation block, such as (14, 5), where the test block is the
        rest of the file (Du et al., 2024, arXiv:2406.12747); null: the blocks above.
    """

    months: tuple[Size, Size] | None = added(before=None)

    files: ClassVar = PublishedFiles("ett", ("ETTh1.csv",), "https://github.com/zhouhaoyi/ETDataset")
    names: ClassVar = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    blocks: ClassVar = (8640, 2880, 2880)

    def channels(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """The values of the three blocks."""
        table, steps = _table(path, ("date", *self.names)), sum(self.blocks)
        steps_of(table, "date")  # refuses hours that are missing or out of order
        values = table.numbers(self.names)
        if self.months is not None:
            return self.names, values
        if len(values) < steps:
            raise ConfigError("", None, f"{path.name} has {len(values)} rows, fewer than {steps}")
        return self.names, values[:steps]

    def borders(self, steps: int) -> tuple[int, int]:
        """After 8,640 and after 11,520 hours, or after the months."""
        if self.months is None:
            return self.blocks[0], self.blocks[0] + self.blocks[1]
        path = self.files.locate(self.root)
        months = times_of(_table(path, ("date", *self.names)), "date").astype("datetime64[M]")
        first = np.flatnonzero(np.append(True, months[1:] != months[:-1]))  # first step of every month
        if sum(self.months) >= len(first):
            remedy = f"{path.name} has {len(first)} months, and the last ones are the test block; name fewer"
            raise ConfigError("months", list(self.months), remedy)
        return int(first[self.months[0]]), int(first[sum(self.months)])


@recipe
class ByShares(PublishedSeries):
    """A series without a published division.

    Attributes:
      test_fraction: share of the steps, the last ones.
      validation_fraction: share of the steps that are not test steps, the last of them.
    """

    test_fraction: OpenShare

    def borders(self, steps: int) -> tuple[int, int]:
        """By the shares."""
        return share_borders(steps, self.test_fraction, self.validation_fraction)


@recipe
class Stock(ByShares):
    """3,685 daily prices and volumes of a share, 6 channels, in the order of time (Yoon et al., 2019, TimeGAN).

    The code that the authors published reverses the order, that is, it trains on reversed time.
    """

    files: ClassVar = PublishedFiles("stock", ("stock_data.csv",), "https://github.com/jsyoon0823/TimeGAN")
    names: ClassVar = ("Open", "High", "Low", "Close", "Adj_Close", "Volume")

    def channels(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """All rows."""
        return self.names, _table(path, self.names).numbers(self.names)


@recipe
class Energy(ByShares):
    """19,734 steps of ten minutes, 28 channels: the use of energy in a house, and weather (Candanedo et al., 2017).

    The file holds windows of 24 steps, each one step after the window before; they are joined to one series again.
    """

    files: ClassVar = PublishedFiles("energy", ("energy_windows.npz",), "https://github.com/abudesai/timeVAE")

    def channels(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """The series from which the windows were cut."""
        x = read_npz(path, "data", None)[0]
        if x.ndim != 3 or x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ConfigError("", None, f"{path.name} holds {x.dtype} {x.shape}; expected windows [N, T, C]")
        if not np.array_equal(x[1:, :-1], x[:-1, 1:]):
            raise ConfigError("", None, f"{path.name}: its windows do not follow one another step by step")
        values = np.concatenate([x[0], x[1:, -1]])
        return tuple(map(str, range(values.shape[1]))), values


@recipe
class M4(Splitting):
    """M4 Hourly: 414 hourly series of 700 to 960 values, 48 to predict (Makridakis et al., 2020).

    x [N, window, 1], target [N, 48, 1]; naive_error [N, 1] is the mean |y_t - y_{t-24}| over the official training part
    of the row's series, the denominator of the competition's MASE. Test rows are the 414 official ones: they look back
    on the last `window` training values. Validation rows predict the last 48 training values of every series, and the
    targets of training rows end before these.

    Attributes:
      scaling: "unit" has no meaning here.
      window: number of steps that are looked back on.
      stride: steps between training windows of one series, counted from the last one.
    """

    scaling: Literal["none", "standard", "minmax"]
    window: Size
    stride: Size

    files: ClassVar = PublishedFiles(
        "m4", ("Hourly-train.csv", "Hourly-test.csv"), "https://github.com/Mcompetitions/M4-methods"
    )
    horizon: ClassVar[int] = 48
    season: ClassVar[int] = 24

    def validate(self) -> None:
        """Refuse folds, because windows overlap."""
        refuse_folds(self)

    def stamp(self) -> Hashable:
        """State of the files."""
        return self.files.state(self.root)

    def stored(self) -> Source:
        """All windows, series after series: those of training, one of validation, one of test."""
        training, later = (self._read(name) for name in self.files.names)
        if list(training) != list(later):
            problem = f"{' and '.join(self.files.names)} do not hold the same series in one order"
            raise ConfigError("root", self.root, problem)
        starts, parts, errors, offset = [], [], [], 0
        for name, values in training.items():
            if len(later[name]) != self.horizon:
                problem = f"{self.files.names[1]}: {name} has {len(later[name])} values, not {self.horizon}"
                raise ConfigError("root", self.root, problem)
            last = len(values) - 2 * self.horizon - self.window  # where the last training window begins
            if last < 0:
                remedy = f"series {name} has {len(values)} values; window + 2 * {self.horizon} must not be more"
                raise ConfigError("window", self.window, remedy)
            start = np.arange(last % self.stride, last + 1, self.stride)
            starts.append(offset + np.append(start, [last + self.horizon, last + 2 * self.horizon]))
            parts.append(np.repeat([0, 1, 2], [len(start), 1, 1]))
            errors.append(np.repeat(naive_error(values[:, None], self.season), len(start) + 2))
            offset += len(values) + self.horizon
        start, part = np.concatenate(starts).astype(np.int32), np.concatenate(parts)
        joined = [values for name in training for values in (training[name], later[name])]
        series = np.concatenate(joined).astype(np.float32)[:, None]
        return Source(
            "m4_hourly",
            "sequence",
            Examples(
                x=Windows(series, start, self.window),
                target=Windows(series, start + np.int32(self.window), self.horizon),
                naive_error=np.concatenate(errors)[:, None],
            ),
            test=part == 2,
            validation=part == 1,
            season=self.season,
            scale_target=True,
        )

    def _read(self, name: str) -> dict[str, np.ndarray]:
        """The series of a file by their names, in its order. A line holds a name and values, up to an empty cell."""
        path = self.files.locate(self.root, name)
        series: dict[str, np.ndarray] = {}
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            if next(reader, [])[:2] != ["V1", "V2"]:
                raise ConfigError("root", self.root, f"{path.name}, line 1: expected the header V1,V2,V3,...")
            for cells in reader:
                try:
                    end = cells.index("") if "" in cells else len(cells)
                    values = np.array(cells[1:end], np.float64)
                except ValueError as error:
                    raise ConfigError("root", self.root, f"{path.name}, line {reader.line_num}: {error}") from None
                if not np.isfinite(values).all() or any(cells[end:]) or cells[0] in series or not len(values):
                    remedy = "expected a name that is new, and numbers without gaps"
                    raise ConfigError("root", self.root, f"{path.name}, line {reader.line_num}: {remedy}")
                series[cells[0]] = values
        return series


def _table(path: Path, names: tuple[str, ...]) -> Table:
    """A published table; one whose first line does not hold these names is refused."""
    table = read_text(path, dataclasses.replace(PLAIN, header=True))
    if table.names != names:
        shown = ",".join(table.names)[:80]
        raise ConfigError("", None, f"{path.name}, line 1: expected {','.join(names)}, found {shown}")
    return table
