"""Published time series, with the divisions that published results use."""

import csv
from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from research.data.examples import Examples, Windows
from research.data.local import locate, state
from research.data.readers import read_npz
from research.data.splits import Source, Splitting
from research.data.table_files import read_table
from research.data.times import steps_of
from research.data.windows import Windowed, naive_error, refuse_folds, share_borders
from research.ranges import OpenShare, Size
from research.tree import ConfigError, recipe


class Columns(NamedTuple):
    """Channels of a file: their names, and their values [S, C] float64."""

    names: tuple[str, ...]
    values: np.ndarray


def _stamp(root: str | None, folder: str, *names: str) -> Hashable:
    """State of the files wherever `locate` may find them."""
    if root is None:
        return None
    place = Path(root).expanduser()
    return state(inside / name for name in names for inside in (place / folder, place))


@recipe
class PublishedSeries(Windowed):
    """One series in one file below `root`."""

    folder: ClassVar[str]
    file: ClassVar[str]
    origin: ClassVar[str]

    def stamp(self) -> Hashable:
        """Place, size and time of the file."""
        return _stamp(self.root, self.folder, self.file)

    def stored(self) -> Source:
        """All windows."""
        path = locate(self.root, self.folder, self.file, self.origin)
        try:
            table = self.table(path)
        except ConfigError as error:
            raise error if error.key == "root" else ConfigError("root", self.root, error.remedy) from None
        return self.cut(self.folder, table.values, table.names, self.borders(len(table.values)))

    def table(self, path: Path) -> Columns:
        """The values of the file."""
        raise NotImplementedError

    def borders(self, steps: int) -> tuple[int, int]:
        """First step of the validation block and of the test block."""
        raise NotImplementedError


@recipe
class ETT(PublishedSeries):
    """ETTh1: hourly oil temperature and six loads of an electricity transformer (Zhou et al., 2021, arXiv:2012.07436).

    7 channels; the first 8,640 hours are the training block, 2,880 hours each the validation and the test block; what
    the file holds beyond is not used. At `stride=1` there are 2,880 - horizon + 1 test windows, whatever the window.
    """

    folder: ClassVar[str] = "ett"
    file: ClassVar[str] = "ETTh1.csv"
    origin: ClassVar[str] = "https://github.com/zhouhaoyi/ETDataset"
    names: ClassVar[tuple[str, ...]] = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    steps: ClassVar[tuple[int, int, int]] = (8640, 2880, 2880)

    def table(self, path: Path) -> Columns:
        """The values of the three blocks."""
        _check_header(path, ("date", *self.names))
        file = read_table(path)
        steps_of(file, "date")
        table = Columns(self.names, file.numbers(self.names))
        if len(table.values) < sum(self.steps):
            raise ConfigError(
                "root", self.root, f"{path.name} has {len(table.values)} rows, fewer than {sum(self.steps)}"
            )
        return table._replace(values=table.values[: sum(self.steps)])

    def borders(self, steps: int) -> tuple[int, int]:
        """After 8,640 and after 11,520 hours."""
        return self.steps[0], self.steps[0] + self.steps[1]


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

    The code that the authors published turns the order round, that is, it trains on reversed time.
    """

    folder: ClassVar[str] = "stock"
    file: ClassVar[str] = "stock_data.csv"
    origin: ClassVar[str] = "https://github.com/jsyoon0823/TimeGAN"
    names: ClassVar[tuple[str, ...]] = ("Open", "High", "Low", "Close", "Adj_Close", "Volume")

    def table(self, path: Path) -> Columns:
        """All rows."""
        _check_header(path, self.names)
        return Columns(self.names, read_table(path).numbers(self.names))


@recipe
class Energy(ByShares):
    """19,734 steps of ten minutes, 28 channels: the use of energy in a house, and weather (Candanedo et al., 2017).

    The file holds windows of 24 steps that begin one step after another; they are joined to one series again.
    """

    folder: ClassVar[str] = "energy"
    file: ClassVar[str] = "energy_windows.npz"
    origin: ClassVar[str] = "https://github.com/abudesai/timeVAE"

    def table(self, path: Path) -> Columns:
        """The series that the windows were cut from."""
        x = read_npz(path, "data", None).x
        if x.ndim != 3 or x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ConfigError("root", self.root, f"{path.name} holds {x.dtype} {x.shape}; expected windows [N, T, C]")
        if not np.array_equal(x[1:, :-1], x[:-1, 1:]):
            raise ConfigError("root", self.root, f"{path.name}: its windows do not follow one another step by step")
        values = np.concatenate([x[0], x[1:, -1]])
        return Columns(tuple(map(str, range(values.shape[1]))), values)


@recipe
class M4(Splitting):
    """M4 Hourly: 414 hourly series of 700 to 960 values, 48 to predict (Makridakis et al., 2020).

    x [N, window, 1], target [N, 48, 1]; naive_error [N, 1] is the mean |y_t - y_{t-24}| over the official training part
    of the row's series, the denominator of the competition's MASE. Test rows are the 414 official ones: they look back
    on the last `window` training values. Validation rows predict the last 48 training values of every series, and the
    targets of training rows end before these.

    Attributes:
      scaling: "unit" has no meaning here.
      window: steps that are looked back on.
      stride: steps between training windows of one series, counted from the last one.
    """

    scaling: Literal["none", "standard", "minmax"]
    window: Size
    stride: Size

    folder: ClassVar[str] = "m4"
    files: ClassVar[tuple[str, str]] = ("Hourly-train.csv", "Hourly-test.csv")
    origin: ClassVar[str] = "https://github.com/Mcompetitions/M4-methods"
    horizon: ClassVar[int] = 48
    season: ClassVar[int] = 24

    def validate(self) -> None:
        """Refuse folds.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        refuse_folds(self)
        super().validate()

    def stamp(self) -> Hashable:
        """Place, size and time of the files."""
        return _stamp(self.root, self.folder, *self.files)

    def stored(self) -> Source:
        """All windows, series after series: those of training, one of validation, one of test."""
        training, later = (self._read(name) for name in self.files)
        if list(training) != list(later):
            raise ConfigError("root", self.root, f"{' and '.join(self.files)} do not hold the same series in one order")
        starts, parts, errors, offset = [], [], [], 0
        for name, values in training.items():
            if len(later[name]) != self.horizon:
                raise ConfigError("root", self.root, f"{self.files[1]}: {name} has {len(later[name])} values, not 48")
            last = len(values) - 2 * self.horizon - self.window
            if last < 0:
                remedy = f"series {name} has {len(values)} values; window + 2 * {self.horizon} must not be more"
                raise ConfigError("window", self.window, remedy)
            own = np.arange(last % self.stride, last + 1, self.stride)
            starts.append(offset + np.append(own, [last + self.horizon, last + 2 * self.horizon]))
            parts.append(np.repeat([0, 1, 2], [len(own), 1, 1]))
            errors.append(np.repeat(naive_error(values[:, None], self.season), len(own) + 2))
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
        """Series by name, in the order of the file: a name and then values, to the first empty cell."""
        path = locate(self.root, self.folder, name, self.origin)
        found: dict[str, np.ndarray] = {}
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
                if not np.isfinite(values).all() or any(cells[end:]) or cells[0] in found or not len(values):
                    remedy = "expected a name that is new, and numbers without gaps"
                    raise ConfigError("root", self.root, f"{path.name}, line {reader.line_num}: {remedy}")
                found[cells[0]] = values
        return found


def _check_header(path: Path, names: tuple[str, ...]) -> None:
    """Refuse a file whose first line is not these names."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        found = file.readline().strip()
    if found != ",".join(names):
        raise ConfigError("", None, f"{path.name}, line 1: expected {','.join(names)}, found {found[:80]}")
