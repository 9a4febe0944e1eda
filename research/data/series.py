"""A time series of your own, from a table with one row per step."""

import dataclasses
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data import checks
from research.data.columns import read_features
from research.data.files.local import blaming, check_path, find, resolve, state
from research.data.files.reading import read_table
from research.data.files.table import ENDINGS, Form, Table
from research.data.preparation import Preparation
from research.data.source import Source
from research.data.times import steps_of
from research.data.windows import Windowed, share_borders
from research.ranges import Index, OpenShare
from research.tree import ConfigError, inline, recipe


class Content(NamedTuple):
    """The steps that a file holds.

    Attributes:
      names: names of the channels.
      values: one row per step, NaN where a value or a whole step is missing, [S, C] float64.
      binary: channels that are bool or hold only the whole numbers 0 and 1, [C] bool.
      step: size of a step in words, where there is a time column.
      notes: what was left out or noticed.
    """

    names: list[str]
    values: np.ndarray
    binary: np.ndarray
    step: str | None
    notes: list[str]


@recipe
class Series(Windowed):
    """Windows of a time series from a file of your own: one row per step, one column per channel.

    A cell that is empty or reads NA, NaN or null is a missing value: it is masked, never filled in. So is every step
    that the time column leaves out.

    Attributes:
      path: the file, `.csv`, `.tsv` or `.parquet`, from the current folder, or from `root` if that is set.
      columns: the channels; null takes every column but the time, and refuses columns that count or date the rows.
      time_column: its times grow by one step or several, and are not part of x; null: rows follow step by step.
      form: how the table is written.
      test_fraction: share of the steps, the last ones.
      validation_fraction: share of the steps that are not test steps, the last of them.
    """

    path: str
    columns: tuple[str | Index, ...] | None
    time_column: str | Index | None
    form: Form = inline()
    test_fraction: OpenShare

    def validate(self) -> None:
        """Refuse folds and files of unknown form."""
        super().validate()
        check_path("path", self.path, ENDINGS)
        self.form.check(self.path)
        if self.columns is not None and not self.columns:
            raise ConfigError("columns", [], "name at least one column, or null for all")

    @property
    def file(self) -> Path:
        return resolve(self.root, self.path)

    def stamp(self) -> Hashable:
        """State of the file."""
        return state([self.file])

    def stored(self) -> Source:
        """All windows."""
        content = self.read_steps()
        borders = share_borders(len(content.values), self.test_fraction, self.validation_fraction)
        return self._source(content, borders)

    def stored_for(self, trained: Preparation) -> Source:
        """All windows of `path` for a run, with the channels and the step of its training, and without any division.

        Raises:
          ConfigError: a channel is missing, or was not there in training, the step is another one, or the file cannot
            be read.
        """
        return self._source(self.read_steps(trained), None)

    def _source(self, content: Content, borders: tuple[int, int] | None) -> Source:
        source = self.cut(self.file.stem, content.values, content.names, borders)
        return dataclasses.replace(
            source,
            binary=content.binary if content.binary.any() else None,
            notes=(*content.notes, *source.notes),
            preparation=Preparation(
                missing=self.form.numeric_marks, time_column=self.time_column, time_step=content.step
            ),
        )

    def read_steps(self, trained: Preparation | None = None) -> Content:
        """The channels over all steps of the file, with NaN for the steps that it leaves out.

        Args:
          trained: preparation of the run that the steps are for, as for `stored_for`.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        path = find("path", self.path, self.file)
        columns = None if self.columns is None else tuple(map(str, self.columns))
        time = None if self.time_column is None else str(self.time_column)
        with blaming("path", self.path):
            table = read_table(path, self.form, keep=(time, *(columns or ())))
            if time is None:
                _refuse_times_in_index(table)
            if trained is None:
                checks.refuse_many_series(table, time)
            names, values, binary, notes = read_features(table, columns, {"time_column": time}, trained)
            if trained is None:
                notes += checks.table_notes(table, names, values)
            step = None
            if time is not None:
                steps = steps_of(table, time, None if trained is None else trained.time_step)
                rows, step = values, steps.step
                values = np.full((int(steps.number[-1]) + 1, rows.shape[1]), np.nan)
                values[steps.number] = rows
                if missing := len(values) - table.size:
                    row = int(np.argmax(np.diff(steps.number) > 1))
                    text = f"{missing} of {len(values)} steps of {step} are missing and masked"
                    notes.append(f"{text}, the first after {table.place(row)}")
            return Content(names, values, binary, step, notes)


def _refuse_times_in_index(table: Table) -> None:
    """Refuse a table of pandas whose times are in its index, which is not a column."""
    if not table.index_of_times:
        return
    remedy = f"the index '{table.index}' holds times: data.time_column={table.index}"
    if str(table.index).startswith("__"):
        remedy = "the index holds times; name it (pandas: table.index.name = 'time'), then data.time_column=time"
    raise ConfigError("time_column", None, f"{table.path.name}: {remedy}")
