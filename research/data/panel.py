"""Windows of many series of your own in one long table: a column names the series that each row belongs to."""

import dataclasses
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from research.data.ends import End, Ends
from research.data.files.local import blaming, check_path, find, resolve, state
from research.data.files.reading import read_table
from research.data.files.table import ENDINGS, Form
from research.data.long_table import ManySeries, of_panel, read_long_table
from research.data.many_series import NONE, Starts, by_blocks, by_last, check_window, cut_series
from research.data.preparation import Preparation
from research.data.series import Windowed, check_channels, check_steps_left, share_borders
from research.data.source import Source
from research.ranges import Index, OpenShare, Size
from research.tree import ConfigError, inline, recipe


@recipe
class Panel(Windowed):
    """Windows of many series from a long table of your own: one row per series and step, one column per channel.

    Windows are as in `Windowed`, and none reaches from one series into the next. A cell that is empty or reads NA, NaN
    or null is a missing value: it is masked, never filled in. So is every step that a series leaves out. All series
    have one size of a step; they may be of unequal length, begin at different times, and their rows may be mixed.

    naive_error [N, C] is that of all steps of the row's series before its test steps.

    Attributes:
      path: the file, `.csv`, `.tsv` or `.parquet`, from the current folder, or from `root` if that is set.
      id_column: names the series of each row, text or whole numbers.
      time_column: its times grow within each series; null: the rows of a series follow step by step.
      values: the channels; null takes all other columns of numbers.
      form: how the table is written.
      split: "steps" cuts every series into three blocks of time. "last" holds back the last `horizon` steps of every
        series as test steps and the `horizon` steps before for validation, as the M4 competition does; the first
        steps of windows are masked where a series is too short.
      test_fraction, validation_fraction: shares of each series, see `Series`; not read with "last".
      test_steps, validation_steps: steps of each series in place of the shares.
    """

    path: str
    id_column: str | Index | None
    time_column: str | Index | None
    values: tuple[str | Index, ...] | None
    form: Form = inline()
    split: Literal["steps", "last"]
    test_fraction: OpenShare
    test_steps: Size | None
    validation_steps: Size | None

    def validate(self) -> None:
        """Refuse folds, files of unknown form, and keys that do not belong together."""
        super().validate()
        check_path("path", self.path, ENDINGS)
        self.form.check(self.path)
        if self.values is not None and not self.values:
            raise ConfigError("values", [], "name at least one column, or null for all of numbers")
        if self.split == "steps":
            return
        if self.horizon is None:
            remedy = "it holds back data.horizon steps of each series, so name them, for example data.horizon=24"
            raise ConfigError("split", "last", f"{remedy}; {{key}}=steps needs no horizon")
        for key in ("test_steps", "validation_steps"):
            if (steps := getattr(self, key)) is not None:
                remedy = f"data.split=last holds back data.horizon={self.horizon} steps of each series; {{key}}=null"
                raise ConfigError(key, steps, remedy)

    @property
    def file(self) -> Path:
        return resolve(self.root, self.path)

    def stamp(self) -> Hashable:
        """State of the file."""
        return state([self.file])

    def stored(self) -> Source:
        """All windows, series after series."""
        content = self.read_series()
        if self.split == "steps":
            longest = max(map(len, content.series.values()))
            check_steps_left(longest, self._borders(longest), self.test_steps, self.validation_steps)
        starts = [self._starts(len(values)) for values in content.series.values()]
        if self.split == "last" and self.horizon is not None:
            check_window(starts, self.window, self.horizon)
        source = self._source(content, starts, divided=True)
        with of_panel():
            check_channels(np.concatenate(self._training(content)), content.names)
        return source

    def stored_for(self, trained: Preparation) -> Source:
        """All windows of `path` for a run, with the channels and the step of its training, and without any division.

        Raises:
          ConfigError: a channel is missing, or was not there in training, the step is another one, or the file cannot
            be read.
        """
        content = self.read_series(trained)
        longest, needed = max(map(len, content.series.values())), self.window + (self.horizon or 0)
        if longest < needed:
            problem = f"the longest series has {longest} steps, and a window needs {self.window}"
            problem += f" + {self.horizon} steps" if self.horizon else " steps"
            raise ConfigError("window", self.window, problem)
        starts = []
        for values in content.series.values():
            start = np.arange(0, len(values) - needed + 1, self.stride)
            starts.append(Starts(0, start, np.full(len(start), NONE), len(values)))
        return self._source(content, starts, divided=False)

    def ends(self, trained: Preparation) -> Ends:
        """The steps of every series of `path` for a run, as for `stored_for`, and the times of the steps to come."""
        content = self.read_series(trained)
        series = [End(values, content.later.get(name), name) for name, values in content.series.items()]
        ends = Ends(series, content.notes)
        return ends.filled(self.window) if self.split == "last" else ends

    def _borders(self, steps: int) -> tuple[int, int]:
        """First step of the validation block and of the test block of a series."""
        if self.split == "last":
            return steps - 2 * (self.horizon or 0), steps - (self.horizon or 0)
        fractions = self.test_fraction, self.validation_fraction
        return share_borders(steps, *fractions, self.test_steps, self.validation_steps)

    def _starts(self, steps: int) -> Starts:
        """Where the windows of a series begin."""
        if self.split == "last":
            return by_last(steps, self.window, self.horizon or 0, self.stride)
        return by_blocks(steps, self._borders(steps), self.window, self.horizon, self.stride)

    def _training(self, content: ManySeries) -> list[np.ndarray]:
        """The steps of every series before its validation steps."""
        return [values[: max(self._borders(len(values))[0], 0)] for values in content.series.values()]

    def _source(self, content: ManySeries, starts: Sequence[Starts], divided: bool) -> Source:
        sizes = self.window, self.horizon, self.season
        names = content.names
        source = cut_series(self.file.stem, content.series, starts, *sizes, columns=names, divided=divided)
        return dataclasses.replace(
            source,
            binary=content.binary if content.binary.any() else None,
            notes=(*content.notes, *source.notes),
            preparation=Preparation(
                missing=self.form.numeric_marks, time_column=self.time_column, time_step=content.step
            ),
        )

    def read_series(self, trained: Preparation | None = None) -> ManySeries:
        """The channels of every series over all of its steps, with NaN for the steps that it leaves out.

        Args:
          trained: preparation of the run that the steps are for, as for `stored_for`.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        path = find("path", self.path, self.file)
        values = None if self.values is None else tuple(map(str, self.values))
        name, time = (None if key is None else str(key) for key in (self.id_column, self.time_column))
        with blaming("path", self.path), of_panel():
            return read_long_table(
                read_table(path, self.form, (name, time, *(values or ()))), name, time, values, trained
            )
