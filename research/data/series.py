"""A time series of your own."""

from collections.abc import Hashable
from pathlib import Path

from research.data.columns import read_columns
from research.data.local import state
from research.data.splits import Source
from research.data.windows import Windowed, share_borders
from research.ranges import OpenShare
from research.tree import ConfigError, nearest, recipe

ENDINGS = (".csv", ".parquet")


@recipe
class Series(Windowed):
    """Windows of a time series from a file of your own: one row per step, one column per channel.

    A cell that is empty or reads NA, NaN or null is a missing value: it is masked, never filled in.

    Attributes:
      path: the file, `.csv` or `.parquet`, from the current folder, or from `root` where that is given.
      columns: the channels; null takes every column but the time.
      time_column: checked to increase from row to row, and no part of x; null: rows are in the order of time.
      test_fraction: share of the steps, the last ones.
      validation_fraction: share of the steps that are not test steps, the last of them.
    """

    path: str
    columns: tuple[str, ...] | None
    time_column: str | None
    test_fraction: OpenShare

    def validate(self) -> None:
        """Refuse files of unknown form.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        super().validate()
        if self.path == "???":
            raise ConfigError("path", self.path, "name your file, for example data.path=my.csv")
        if Path(self.path).suffix.lower() not in ENDINGS:
            raise ConfigError("path", self.path, f"expected a file that ends in {' or '.join(ENDINGS)}")
        if self.columns is not None and not self.columns:
            raise ConfigError("columns", [], "name at least one column, or null for all")

    @property
    def file(self) -> Path:
        return Path(self.root or "").expanduser() / Path(self.path).expanduser()

    def stamp(self) -> Hashable:
        """Place, size and time of the file."""
        return state([self.file])

    def read(self) -> Source:
        """All windows."""
        path, folder = self.file, self.file.parent
        if not path.is_file():
            known = [item.name for item in folder.iterdir()] if folder.is_dir() else []
            there = f"no file {path.absolute()}{nearest(path.name, known)}"
            raise ConfigError("path", self.path, there if folder.is_dir() else f"no folder {folder.absolute()}")
        try:
            table = read_columns(path, self.columns, self.time_column)
        except ConfigError as error:
            raise error if error.key else ConfigError("path", self.path, error.remedy) from None
        except OSError as error:
            raise ConfigError("path", self.path, f"it cannot be read: {error.strerror or error}") from None
        borders = share_borders(len(table.values), self.test_fraction, self.validation_fraction)
        return self.cut(path.stem, table.values, table.names, borders)
