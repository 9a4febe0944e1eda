"""Published time series, divided as published results divide them. Their files are in a folder of the user."""

import csv
import dataclasses
from collections.abc import Hashable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from research.data.ends import End, Ends
from research.data.files.arrays import read_npz
from research.data.files.local import PublishedFiles, blaming
from research.data.files.reading import read_text
from research.data.files.table import PLAIN, Table
from research.data.many_series import by_last, check_window, cut_series
from research.data.preparation import Preparation
from research.data.series import Windowed, refuse_folds, share_borders
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

    def ends(self, trained: Preparation) -> Ends:
        """The whole series, of which the windows are cut; its file tells no times."""
        del trained
        return Ends([End(self.stored().examples.x.series)])

    def channels(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the channels, and their values [S, C]."""
        raise NotImplementedError

    def borders(self, steps: int) -> tuple[int, int]:
        """First step of the validation block and of the test block."""
        raise NotImplementedError


@recipe
class ETT(PublishedSeries):
    """Oil temperature and six loads of electricity transformers, 7 channels (Zhou et al., 2021, arXiv:2012.07436).

    ETTh1 and ETTh2 have a step an hour, ETTm1 and ETTm2 one every 15 minutes. Months of 30 days: the first 12 are the
    training block, 4 each the validation and the test block, 8,640 + 2,880 + 2,880 hours; what the file holds beyond is
    not used. At `stride=1` an hourly file has 2,880 - horizon + 1 test windows, whatever the window.

    Attributes:
      file: name of the file, without `.csv`.
      months: calendar months of the training and of the validation block, such as (14, 5), where the test block is the
        rest of the file (Du et al., 2024, arXiv:2406.12747); null: the blocks above.
    """

    file: Literal["ETTh1", "ETTh2", "ETTm1", "ETTm2"] = added(before="ETTh1")
    months: tuple[Size, Size] | None = added(before=None)

    names: ClassVar = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    blocks: ClassVar = (8640, 2880, 2880)  # hours

    @property
    def files(self) -> PublishedFiles:  # type: ignore[override]
        """The one file."""
        return PublishedFiles("ett", (f"{self.file}.csv",), "https://github.com/zhouhaoyi/ETDataset")

    @property
    def steps_an_hour(self) -> int:
        """1, or 4 in steps of 15 minutes."""
        return 4 if self.file.startswith("ETTm") else 1

    def validate(self) -> None:
        """Refuse folds, and the season of an hourly file for steps of 15 minutes."""
        super().validate()
        if self.season == 24 and self.steps_an_hour == 4:
            remedy = f"24 steps of {self.file} are 6 hours; a day is {{key}}=96, and {{key}}=null names no season"
            raise ConfigError("season", self.season, remedy)

    def channels(self, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        """The values of the three blocks, or of the whole file where its months divide it."""
        table = _table(path, ("date", *self.names))
        step = steps_of(table, "date").step  # refuses steps that are missing or out of order
        expected = "1 hour" if self.steps_an_hour == 1 else "15 minutes"
        if step != expected:
            raise ConfigError("", None, f"{path.name} has steps of {step}, expected {expected}")
        values, steps = table.numbers(self.names), sum(self.blocks) * self.steps_an_hour
        if self.months is not None:
            return self.names, values
        if len(values) < steps:
            raise ConfigError("", None, f"{path.name} has {len(values)} rows, fewer than {steps}")
        return self.names, values[:steps]

    def borders(self, steps: int) -> tuple[int, int]:
        """After 12 and after 16 months of 30 days, or after the calendar months of the key."""
        if self.months is None:
            return self.blocks[0] * self.steps_an_hour, (self.blocks[0] + self.blocks[1]) * self.steps_an_hour
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


class Frequency(NamedTuple):
    """What the M4 competition says of the series of one frequency.

    Attributes:
      horizon: steps to predict.
      season: steps after which the series repeats, as the denominator of MASE has it.
    """

    horizon: int
    season: int


FREQUENCIES = {
    "Hourly": Frequency(48, 24),
    "Daily": Frequency(14, 1),
    "Weekly": Frequency(13, 1),
    "Monthly": Frequency(18, 12),
    "Quarterly": Frequency(8, 4),
    "Yearly": Frequency(6, 1),
}


@recipe
class M4(Splitting):
    """The series of one frequency of the M4 competition, of which the last steps are to predict (Makridakis et al.,
    2020): 414 hourly, 4,227 daily, 359 weekly, 48,000 monthly, 24,000 quarterly or 23,000 yearly ones.

    x [N, window, 1], target [N, horizon, 1]; naive_error [N, 1] is the mean |y_t - y_{t - season}| over the official
    training part of the row's series, the denominator of the competition's MASE. Test rows are the official ones, one
    of each series: they look back on the last `window` training values. Validation rows predict the last `horizon`
    training values of every series, and the targets of training rows end before these. What a short series lacks at the
    beginning of a window is masked, so that every series is tested.

    Attributes:
      frequency: horizon and season follow from it, see `FREQUENCIES`.
      scaling: "unit" has no meaning here.
      window: number of steps that are looked back on.
      stride: steps between training windows of one series, counted from the last one.
    """

    frequency: Literal["Hourly", "Daily", "Weekly", "Monthly", "Quarterly", "Yearly"] = added(before="Hourly")
    scaling: Literal["none", "standard", "minmax"]
    window: Size
    stride: Size

    @property
    def files(self) -> PublishedFiles:
        """The official training values, and those to predict."""
        names = (f"{self.frequency}-train.csv", f"{self.frequency}-test.csv")
        return PublishedFiles("m4", names, "https://github.com/Mcompetitions/M4-methods")

    @property
    def horizon(self) -> int:
        """Steps to predict."""
        return FREQUENCIES[self.frequency].horizon

    @property
    def season(self) -> int:
        """Steps of a season."""
        return FREQUENCIES[self.frequency].season

    def validate(self) -> None:
        """Refuse folds, because windows overlap."""
        refuse_folds(self)

    def stamp(self) -> Hashable:
        """State of the files."""
        return self.files.state(self.root)

    def stored(self) -> Source:
        """All windows, series after series: those of training, one of validation, one of test."""
        series = self._whole_series()
        starts = [by_last(len(values), self.window, self.horizon, self.stride) for values in series.values()]
        check_window(starts, self.window, self.horizon)
        name, sizes = f"m4_{self.frequency.lower()}", (self.window, self.horizon, self.season)
        return cut_series(name, series, starts, *sizes)

    def ends(self, trained: Preparation) -> Ends:
        """All series with the values that the competition asked for; the steps to come follow these."""
        del trained
        series = self._whole_series()
        return Ends([End(values, None, name) for name, values in series.items()]).filled(self.window)

    def _whole_series(self) -> dict[str, np.ndarray]:
        """The training values and those to predict of every series, [S, 1], in the order of the files."""
        training, later = (self._read(name) for name in self.files.names)
        if list(training) != list(later):
            problem = f"{' and '.join(self.files.names)} do not hold the same series in one order"
            raise ConfigError("root", self.root, problem)
        for name, values in later.items():
            if len(values) != self.horizon:
                problem = f"{self.files.names[1]}: {name} has {len(values)} values, not {self.horizon}"
                raise ConfigError("root", self.root, problem)
        return {name: np.concatenate([values, later[name]])[:, None] for name, values in training.items()}

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
