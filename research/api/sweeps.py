"""A sweep as an object: its runs, its table, its best run, its figures and its page."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from research.api.shown import Figures, ShownTable
from research.errors import nearest
from research.metrics import direction, undirected
from research.report import cli
from research.report.collect import Runs, collect
from research.report.figures import draw
from research.report.keys import apart, better, check
from research.report.run import Run as Record
from research.report.run import count_statuses
from research.report.select import judge_of
from research.report.spec import recorded
from research.report.table import Table, measured, table_of
from research.runs.load import load
from research.runs.run import Run
from research.tree import ConfigError


class Sweep:
    """The runs of a sweep folder, as they lie on the disk now.

    >>> sweep = Sweep("outputs/mine")
    >>> sweep.frame()[["run_id", "status"]]

    Args:
      folder: of the sweep.
      trusted_packages: packages whose models may be made besides those of this project.

    Attributes:
      folder: of the sweep, absolute.
    """

    def __init__(self, folder: Path | str, trusted_packages: Sequence[str] = ()):
        self.folder = Path(folder).expanduser().absolute()
        self._trusted = tuple(trusted_packages)

    def __repr__(self) -> str:
        try:
            runs = self._collected()
        except ConfigError:
            return f"Sweep({str(self.folder)!r}): no runs"
        counts = ", ".join(f"{number} {status}" for status, number in count_statuses(runs).items())
        return f"Sweep({str(self.folder)!r}): {counts}"

    def _collected(self) -> Runs:
        return collect(self.folder)

    @property
    def runs(self) -> "Finished":
        """The finished runs, in the order in which they were planned; a run is loaded when it is asked for."""
        finished = [run.run_id for run in self._collected() if run.finished] if self.folder.is_dir() else []
        return Finished(self.folder, finished, self._trusted)

    def frame(self) -> Any:
        """A pandas table with one row for each run: run_id, status, reason, seed, fold, config keys, metrics."""
        return self._collected().frame()

    def table(
        self,
        rows: Sequence[str] | str | None = None,
        columns: Sequence[str] | str | None = None,
        metrics: Sequence[str] | str | None = None,
    ) -> ShownTable:
        """Means over seeds with everything that `scripts/report.py` prints beside them; a notebook shows it as HTML.

        Args:
          rows: config keys; None takes those that the sweep recorded (`report.rows`), or all that vary.
          columns: config keys beside the metrics.
          metrics: names; None takes the usual metrics of the test rows.

        Raises:
          ConfigError: no run has such a key or metric.
        """
        return ShownTable(self._table(rows, columns, metrics))

    def _table(
        self,
        rows: Sequence[str] | str | None = None,
        columns: Sequence[str] | str | None = None,
        metrics: Sequence[str] | str | None = None,
    ) -> Table:
        runs = self._collected()
        section = recorded(runs.plan, self.folder)
        runs = measured(runs, section, self.folder)
        entries = {"rows": _names(rows), "columns": _names(columns), "metrics": _names(metrics)}
        check("metrics", entries["metrics"] or (), runs.metric_names())
        changes = {name: value for name, value in entries.items() if value is not None}
        return table_of(runs, dataclasses.replace(section, **changes))

    def best(self, metric: str | None = None) -> Run:
        """The best finished run by a metric of the validation rows.

        Args:
          metric: its name; None takes one that measures the same in all finished runs.

        Raises:
          ConfigError: the metric is not of the validation rows, has no better or worse value, or measures something
            else in some runs.
        """
        runs = self._collected()
        finished = [run for run in runs if run.finished]
        if not finished:
            raise ConfigError("folder", self.folder, "no run of this sweep finished; frame() shows why")
        if metric is None:
            metric = _judge(runs, finished, ())
        elif problem := _unfit(metric, runs, finished):
            raise ConfigError("metric", metric, f"{problem}; give {_judge(runs, finished, [str(metric)])!r}")
        values = [(value, run) for run in finished if (value := run.metrics.get(metric)) is not None]
        if not values:
            raise ConfigError("metric", metric, "no finished run has a value of it; frame() shows what there is")
        best_value, best_run = values[0]
        for value, run in values[1:]:
            if better(value, best_value, metric):
                best_value, best_run = value, run
        return load(self.folder / best_run.run_id, self._trusted)

    def figure(self, kind: str) -> Figures:
        """The figures of one kind, such as "metric_over_key"; a notebook shows them.

        Raises:
          ConfigError: no such kind, or it does not apply to this sweep.
        """
        problems: list[str] = []
        figures = draw(self._table(), self.folder, [str(kind)], problems.append)
        if not figures:
            raise ConfigError("figure", kind, "; ".join(problems) or "nothing to draw")
        return Figures(figures)

    def page(self) -> Path:
        """Write the page of the sweep (table, figures, runs) as `scripts/report.py` does; returns its path."""
        cli.write(str(self.folder), "--format", "html")
        return self.folder / "report" / "page.html"


class Finished(Sequence[Run]):
    """The finished runs of a sweep: `runs[0]`, `runs["run_id"]`, `for run in runs`. Each is loaded when asked for."""

    def __init__(self, folder: Path, names: Sequence[str], trusted_packages: Sequence[str]):
        self._folder, self._names, self._trusted = folder, tuple(names), tuple(trusted_packages)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int | str) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> "Finished": ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Finished(self._folder, self._names[index], self._trusted)
        if isinstance(index, str):
            if index not in self._names:
                raise KeyError(f"no finished run {index}{nearest(index, self._names)}")
            return load(self._folder / index, self._trusted)
        return load(self._folder / self._names[index], self._trusted)

    def __iter__(self) -> Iterator[Run]:
        return (load(self._folder / name, self._trusted) for name in self._names)

    def __repr__(self) -> str:
        return f"<{len(self)} finished runs: {', '.join(self._names)}>"


def _names(keys: Sequence[str] | str | None) -> tuple[str, ...] | None:
    return (keys,) if isinstance(keys, str) else None if keys is None else tuple(keys)


def _unfit(metric: str, runs: Runs, finished: Sequence[Record]) -> str:
    """Why a metric cannot choose between the finished runs; empty if it can."""
    if not str(metric).startswith("validation/"):
        return "runs are chosen by the validation rows"
    if not direction(*check("metric", [metric], runs.metric_names())):
        return undirected(metric)
    differing = apart(metric, finished)
    return f"it measures something else where {', '.join(differing)} differ" if differing else ""


def _judge(runs: Runs, finished: Sequence[Record], metrics: Sequence[str]) -> str:
    """A metric of the validation rows that can choose between the finished runs, first one like `metrics`.

    Raises:
      ConfigError: there is none.
    """
    problem = "no metric of the validation rows measures the same in all of these runs"
    try:
        metric = judge_of(runs, [finished], ["run_id"], metrics)
    except ConfigError:
        metric = ""
    if not metric or _unfit(metric, runs, finished):
        raise ConfigError("metric", None, f"{problem}; choose within a part of frame()")
    return metric
