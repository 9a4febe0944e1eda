"""Windows of many series of your own in one long table: a column names the series that each row belongs to."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from research.data.covariates import Coding, Part, Wanted
from research.data.ends import End, Ends
from research.data.files.local import blaming, check_path, find, resolve, state
from research.data.files.reading import read_table
from research.data.files.table import ENDINGS, Form
from research.data.long_table import ManySeries, of_panel, read_long_table
from research.data.many_series import NONE, Starts, by_blocks, by_last, check_window, cut_series
from research.data.preparation import Preparation
from research.data.scaled_series import of_run, scaled_alone
from research.data.scaling import Scaling
from research.data.series import Windowed, check_channels, check_steps_left, share_borders
from research.data.source import Source
from research.ranges import Index, OpenShare, Size
from research.tree import ConfigError, added, inline, recipe


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
      known: columns of numbers whose values are known before their steps come, and which the forecaster reads for the
        steps to come too. A step beyond the last value of its series may have a row with nothing but these.
      calendar: parts of the time that the forecaster reads likewise, see `covariates.calendar`.
      static: columns that are constant in every series: numbers, or text, whose classes are one-hot.
      scale_by: "all": one shift and scale of each channel for all series. "series": those of each series, fitted on its
        steps before its validation steps. A series in which a channel does not vary there is left out.
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
    known: tuple[str | Index, ...] = added(before=())
    calendar: tuple[Part, ...] = added(before=())
    static: tuple[str | Index, ...] = added(before=())
    scale_by: Literal["all", "series"] = added(before="all")

    def validate(self) -> None:
        """Refuse folds, files of unknown form, and keys that do not belong together."""
        super().validate()
        check_path("path", self.path, ENDINGS)
        self.form.check(self.path)
        if self.values is not None and not self.values:
            raise ConfigError("values", [], "name at least one column, or null for all of numbers")
        Wanted.of(self)
        if self.scale_by == "series" and self.horizon is None:
            remedy = "windows are brought back to the units of the data for forecasts: data.horizon=24, or {key}=all"
            raise ConfigError("scale_by", "series", remedy)
        if self.scale_by == "series" and self.scaling == "none":
            raise ConfigError(
                "scale_by", "series", "data.scaling=none scales nothing: data.scaling=standard, or {key}=all"
            )
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
        scalings = None
        if self.scale_by == "series":
            content, scalings = scaled_alone(content, self.scaling, self._training(content))
        starts = [self._starts(len(values)) for values in content.series.values()]
        if self.split == "last" and self.horizon is not None:
            check_window(starts, self.window, self.horizon)
        coding = None
        if any(content.wanted):
            training = [content.known[name][: len(rows)] for name, rows in self._training(content).items()]
            coding = Coding.fit(content.wanted, np.concatenate(training), list(content.static.values()), self.scaling)
        source = self._source(content, starts, coding, scalings, divided=True)
        with of_panel():
            check_channels(np.concatenate(list(self._training(content).values())), content.names)
        return source

    def stored_for(self, trained: Preparation) -> Source:
        """All windows of `path` for a run, with the channels and the step of its training, and without any division.

        Raises:
          ConfigError: a channel is missing, or was not there in training, the step is another one, or the file cannot
            be read.
        """
        content = self.read_series(trained)
        content, scalings = of_run(content, self.scaling, self.scale_by, trained)
        longest, needed = max(map(len, content.series.values())), self.window + (self.horizon or 0)
        if longest < needed:
            problem = f"the longest series has {longest} steps, and a window needs {self.window}"
            problem += f" + {self.horizon} steps" if self.horizon else " steps"
            raise ConfigError("window", self.window, problem)
        starts = []
        for values in content.series.values():
            start = np.arange(0, len(values) - needed + 1, self.stride)
            starts.append(Starts(0, start, np.full(len(start), NONE), len(values)))
        return self._source(content, starts, Coding.of_run(trained.covariates, content.wanted), scalings, divided=False)

    def ends(self, trained: Preparation) -> Ends:
        """The steps of every series of `path` for a run, as for `stored_for`, and the times of the steps to come."""
        content = self.read_series(trained, self.horizon or 0)
        content, scalings = of_run(content, self.scaling, self.scale_by, trained)
        known, static = self._coded(content, Coding.of_run(trained.covariates, content.wanted))
        series = [
            End(
                values,
                content.later.get(name),
                name,
                known.get(name),
                static.get(name),
                None if scalings is None else scalings[name],
            )
            for name, values in content.series.items()
        ]
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

    def _training(self, content: ManySeries) -> dict[str, np.ndarray]:
        """The steps of every series before its validation steps."""
        return {name: values[: max(self._borders(len(values))[0], 0)] for name, values in content.series.items()}

    def _coded(self, content: ManySeries, coding: Coding | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What is known of the steps of every series, and of every series, as models see it; empty where nothing is."""
        known: dict[str, np.ndarray] = {}
        static: dict[str, np.ndarray] = {}
        if coding is not None and (coding.known or coding.calendar):
            known = {name: coding.of_steps(values) for name, values in content.known.items()}
        if coding is not None and coding.static:
            static = {name: coding.of_series(cells) for name, cells in content.static.items()}
        return known, static

    def _source(
        self,
        content: ManySeries,
        starts: Sequence[Starts],
        coding: Coding | None,
        scalings: Mapping[str, Scaling] | None,
        divided: bool,
    ) -> Source:
        known, static = self._coded(content, coding)
        source = cut_series(
            self.file.stem,
            content.series,
            starts,
            self.window,
            self.horizon,
            self.season,
            columns=content.names,
            divided=divided,
            known=known,
            static=static,
            scalings=scalings,
        )
        series = None
        if scalings is not None:
            series = {name: (scaling.shift.tolist(), scaling.scale.tolist()) for name, scaling in scalings.items()}
        return dataclasses.replace(
            source,
            binary=content.binary if content.binary.any() else None,
            notes=(*content.notes, *source.notes),
            preparation=Preparation(
                missing=self.form.numeric_marks,
                time_column=self.time_column,
                time_step=content.step,
                covariates=None if coding is None else coding.record(),
                series=series,
            ),
        )

    def read_series(self, trained: Preparation | None = None, ahead: int = 0) -> ManySeries:
        """The channels of every series over all of its steps, with NaN for the steps that it leaves out.

        Args:
          trained: preparation of the run that the steps are for, as for `stored_for`.
          ahead: steps after the last value of which covariates must be known.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        path, wanted = find("path", self.path, self.file), Wanted.of(self)
        values = None if self.values is None else tuple(map(str, self.values))
        name, time = (None if key is None else str(key) for key in (self.id_column, self.time_column))
        with blaming("path", self.path), of_panel():
            table = read_table(path, self.form, (name, time, *(values or ()), *wanted.known, *wanted.static))
            return read_long_table(table, name, time, values, trained, wanted, ahead)
