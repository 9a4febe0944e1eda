"""A time series of your own."""

import dataclasses
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data import checks
from research.data.columns import ENDINGS, Decimal, Form, Separator
from research.data.local import find, state
from research.data.preparation import Preparation
from research.data.splits import Source
from research.data.table_files import read_table
from research.data.times import steps_of
from research.data.windows import Windowed, share_borders
from research.ranges import Finite64, Index, OpenShare
from research.tree import ConfigError, recipe


class Content(NamedTuple):
    """What the file holds.

    Attributes:
      names: of the channels.
      values: one row per step, NaN where a value or a whole step is missing, [S, C] float64.
      binary: channels that are bool or hold only the whole numbers 0 and 1, [C] bool.
      step: size of a step, where there is a time column.
      notes: what was left out or noticed.
    """

    names: tuple[str, ...]
    values: np.ndarray
    binary: np.ndarray
    step: str | None
    notes: tuple[str, ...]


@recipe
class Series(Windowed):
    """Windows of a time series from a file of your own: one row per step, one column per channel.

    A cell that is empty or reads NA, NaN or null is a missing value: it is masked, never filled in. So is every step
    that the time column leaves out.

    Attributes:
      path: the file, `.csv`, `.tsv` or `.parquet`, from the current folder, or from `root` where that is given.
      columns: the channels; null takes every column but the time, and refuses those that count the rows.
      time_column: increases by one step or several, and is no part of x; null: rows follow step by step.
      header, separator, decimal, encoding, missing: how a table is written, see `columns.Form`.
      test_fraction: share of the steps, the last ones.
      validation_fraction: share of the steps that are not test steps, the last of them.
    """

    path: str
    columns: tuple[str | Index, ...] | None
    time_column: str | Index | None
    header: bool | None
    separator: Separator | None
    decimal: Decimal
    encoding: str
    missing: tuple[Finite64 | str, ...] | None
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
            raise ConfigError("path", self.path, f"expected a file that ends in {', '.join(ENDINGS)}")
        Form.of(self, self.path)
        if self.columns is not None and not self.columns:
            raise ConfigError("columns", [], "name at least one column, or null for all")

    @property
    def file(self) -> Path:
        return Path(self.root or "").expanduser() / Path(self.path).expanduser()

    def stamp(self) -> Hashable:
        """Place, size and time of the file."""
        return state([self.file])

    def stored(self) -> Source:
        """All windows."""
        content = self.read_steps()
        borders = share_borders(len(content.values), self.test_fraction, self.validation_fraction)
        source = self.cut(self.file.stem, content.values, content.names, borders)
        return self._described(source, content)

    def stored_for(self, trained: Preparation) -> Source:
        """All windows of `path` for a run, with the channels that it was trained on, and without any division.

        Args:
          trained: a `Preparation`: `columns` are matched by name, and `time_step` is the step.

        Raises:
          ConfigError: a channel is missing or foreign, the step is another one, or the file cannot be read.
        """
        content = self.read_steps(trained)
        return self._described(self.cut(self.file.stem, content.values, content.names, None), content)

    def _described(self, source: Source, content: Content) -> Source:
        binary = content.binary if content.binary.any() else None
        notes = (*content.notes, *source.notes)
        return dataclasses.replace(source, binary=binary, time_step=content.step, notes=notes)

    def read_steps(self, trained: Preparation | None = None) -> Content:
        """The channels over all steps of the file, those between its rows too.

        Args:
          trained: a `Preparation`, as for `stored_for`.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        path = find("path", self.path, self.file)
        try:
            return self._read(path, trained)
        except ConfigError as error:
            raise error if error.key else ConfigError("path", self.path, error.remedy) from None
        except OSError as error:
            raise ConfigError("path", self.path, f"it cannot be read: {error.strerror or error}") from None

    def _read(self, path: Path, trained: Preparation | None) -> Content:
        columns = None if self.columns is None else tuple(map(str, self.columns))
        time = None if self.time_column is None else str(self.time_column)
        table = read_table(path, Form.of(self, self.path), keep=(time, *(columns or ())))
        if time is None and table.index_of_times:
            remedy = f"the index '{table.index}' holds times: data.time_column={table.index}"
            if str(table.index).startswith("__"):
                remedy = (
                    "the index holds times; name it (pandas: table.index.name = 'time'), then data.time_column=time"
                )
            raise ConfigError("time_column", None, f"{path.name}: {remedy}")
        if trained is None:
            checks.refuse_many_series(table, time)
        known = None if trained is None else trained.columns
        chosen, notes = checks.choose(table, columns, {"time_column": time}, known, trained is not None)
        values = table.numbers(chosen)
        kinds = [table.column(name).kind for name in chosen]
        binary = [checks.is_binary(kind, column) for kind, column in zip(kinds, values.T, strict=True)]
        if trained is None:
            notes += checks.marks_note(path.name, chosen, values)
            notes += checks.unused_marks_note(table, chosen, self.missing)
            notes += checks.grouped_note(table, chosen)
        step = None
        if time is not None:
            steps = steps_of(table, time, None if trained is None else trained.time_step)
            step, count = steps.step, int(steps.place[-1]) + 1 - len(steps.place)
            if count:
                row = int(np.argmax(np.diff(steps.place) > 1))
                first = f"the first after {table.place(row)}"
                notes.append(f"{count} of {int(steps.place[-1]) + 1} steps of {step} are missing and masked, {first}")
                whole = np.full((int(steps.place[-1]) + 1, len(chosen)), np.nan)
                whole[steps.place] = values
                values = whole
        names = tuple(chosen)
        return Content(names, values, np.array(binary, bool), step, tuple(notes))
