"""Settings chosen on the validation rows, before anything of the test rows is looked at."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from research.metrics import direction, judges, undirected
from research.report.cell import pairs_of
from research.report.collect import FINISHED, STATUSES, Run, Runs
from research.report.keys import FOLD, SEED, apart, better, check
from research.report.statistics import mean_of
from research.report.texts import shown
from research.tree import ConfigError, group, nearest

Values = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen in each cell.

    Attributes:
      keys: whose values were chosen.
      by: metric of the validation rows.
      chosen: (row, column) -> values of the keys.
      offered: number of settings to choose among, at most.
      incomplete: cells in which every setting lacks numbers of `by` that others have, or that were planned.
      blind: cells in which no setting has a number of `by`, so that the first one is shown.
      stood_back: number of settings that could not be chosen because some of their runs did not
        finish, are absent or have no number.
      left_out: number of runs of settings that were not chosen.
      everything: the runs that were there before.
      seeds: cells whose chosen setting has fewer seeds than the cell, in words.
    """

    keys: tuple[str, ...]
    by: str
    chosen: Mapping[tuple[Values, Values], Values]
    offered: int
    incomplete: tuple[tuple[Values, Values], ...]
    stood_back: int
    left_out: int
    everything: Runs
    seeds: tuple[str, ...] = ()
    blind: tuple[tuple[Values, Values], ...] = ()


def judge_of(runs: Runs, cells: Sequence[Sequence[Run]], keys: Sequence[str], metrics: Sequence[str]) -> str:
    """The metric that settings of `keys` are chosen by: the first of `judges(metrics)` that compares all of a cell.

    Raises:
      ConfigError: there is none.
    """
    finished = [run for run in runs if run.finished]
    known = {name for run in finished for name, value in run.metrics.items() if value is not None}
    fitting = [name for name in judges(metrics) if name in known and not _separated(name, cells)]
    everywhere = [name for name in fitting if all(name in run.metrics for run in finished)]
    if not fitting:
        remedy = "no metric of the validation rows has numbers that measure the same in all of these settings"
        raise ConfigError("select", ",".join(keys), f"{remedy}; choose nothing: --rows {','.join(keys)}")
    return (everywhere or fitting)[0]


def _separated(metric: str, cells: Sequence[Sequence[Run]]) -> list[str]:
    """The keys that keep some settings of a cell from being compared by a metric."""
    return list(dict.fromkeys(key for cell in cells for key in apart(metric, cell, folds=False)))


def _check_judge(by: str, runs: Runs, cells: Sequence[Sequence[Run]], keys: Sequence[str]) -> str:
    """The metric that was asked for, if settings may be chosen by it.

    Raises:
      ConfigError: it is not of the validation rows, unknown, of no direction, or measures something else in some.
    """
    problem = ""
    if not by.startswith("validation/"):
        problem = "settings are chosen on the validation rows"
    else:
        (by,) = check("by", [by], runs.metric_names())
        if not direction(by):
            problem = undirected(by)
        elif separating := _separated(by, cells):
            named = f"{', '.join(separating)} differ{'s' * (len(separating) == 1)}"
            problem = f"it measures something else where {named}"
    if problem:
        try:
            other = judge_of(runs, cells, keys, [by])
            remedy = f"choose by another metric, --by {other} (in a config report.by={other})"
        except ConfigError as error:
            remedy = error.remedy
        raise ConfigError("by", by, f"{problem}; {remedy}")
    return by


def select(
    runs: Runs,
    row_keys: Sequence[str],
    column_keys: Sequence[str],
    keys: Sequence[str],
    by: str | None = None,
    metrics: Sequence[str] = (),
) -> tuple[Runs, Selection]:
    """Keep in every cell the runs of the one setting of `keys` whose mean of `by` is best.

    Without `by`, `judge_of` names the metric. Seeds count alike: folds and copies of one seed are averaged first.
    Settings some of whose runs did not finish, or that lack seeds or folds of others, stand back. Where a cell has no
    other, these are chosen among by the seeds and folds that all of them have, and said to be incomplete.

    Raises:
      ConfigError: an unknown key, one that is a row or column, or a metric by which settings cannot be chosen.
    """
    keys = check("select", keys, runs.config_keys())
    for key in keys:
        if key in row_keys or key in column_keys or key in (SEED, "data.fold"):
            raise ConfigError("select", key, "rows, columns, seeds and folds are no settings to choose; leave it out")

    def at(run: Run, names: Sequence[str]) -> Values:
        return tuple(run.value(name) for name in names)

    cells = group(list(runs), lambda run: at(run, (*row_keys, *column_keys)))
    by = judge_of(runs, cells, keys, metrics) if by is None else _check_judge(by, runs, cells, keys)
    chosen: dict[tuple[Values, Values], Values] = {}
    kept: set[int] = set()
    incomplete: list[tuple[Values, Values]] = []
    blind: list[tuple[Values, Values]] = []
    seeds: list[str] = []
    offered = stood_back = 0
    for cell in cells:
        place = at(cell[0], row_keys), at(cell[0], column_keys)
        settings = group(cell, lambda run: at(run, keys))
        offered = max(offered, len(settings))
        wanted = pairs_of(cell, finished=True).keys()
        whole = [
            own
            for own in settings
            if wanted <= pairs_of(own).keys() and all(run.finished and run.metrics.get(by) is not None for run in own)
        ]
        scores = _scores(whole or settings, by)
        if not scores:
            blind.append(place)
        elif not whole:
            incomplete.append(place)
        else:
            stood_back += len(settings) - len(whole)
        best = settings[0] if not scores else scores[0][1]
        if scores:
            top = scores[0][0]
            for score, own in scores[1:]:
                if better(score, top, by):
                    top, best = score, own
        chosen[place] = at(best[0], keys)
        left, there = ({run.value(SEED) for run in own} for own in (best, cell))
        if len(left) < len(there):
            where = ", ".join(map(shown, (*place[0], *place[1]))) or "what is shown"
            seeds.append(f"{where} has {len(left)} of {len(there)} seeds")
        kept |= {id(run) for run in best}
    left_over = tuple(run for run in runs if id(run) in kept)
    number = len(runs) - len(left_over)
    selection = Selection(
        keys, by, chosen, offered, tuple(incomplete), stood_back, number, runs, tuple(seeds), tuple(blind)
    )
    return dataclasses.replace(runs, records=left_over), selection


def _scores(settings: Sequence[Sequence[Run]], metric: str) -> list[tuple[float, Sequence[Run]]]:
    """(mean of a metric, runs) of the settings that have numbers, at the seeds and folds that all of these have.

    Where they have none in common, each mean is over its own seeds and folds.
    """
    having = [[run for run in own if run.finished and run.metrics.get(metric) is not None] for own in settings]
    pairs = [pairs_of(own).keys() for own in having if own]
    common = set.intersection(*map(set, pairs)) if pairs else set()
    found = []
    for own, numbered in zip(settings, having, strict=True):
        alike = [run for run in numbered if (run.value(SEED), run.value(FOLD)) in common] or numbered
        if alike:
            found.append((_mean(alike, metric), own))
    return found


def _mean(runs: Sequence[Run], metric: str) -> float:
    """The mean over seeds of the means of every seed."""
    seeds: dict[Any, list[float]] = {}
    for run in runs:
        seeds.setdefault(run.value(SEED), []).append(run.metrics[metric] or 0.0)
    return mean_of([mean_of(values) for values in seeds.values()])


class Included(Run):
    """A run that is averaged though it did not finish, because that was asked for."""

    @property
    def finished(self) -> bool:
        return True


def including(runs: Runs, statuses: Sequence[str]) -> Runs:
    """The runs, those of these statuses averaged too; a cell that holds one is never marked best.

    Raises:
      ConfigError: an unknown status.
    """
    for status in statuses:
        if status not in STATUSES:
            raise ConfigError("include", status, f"expected some of {', '.join(STATUSES)}{nearest(status, STATUSES)}")
    wanted = set(statuses) - set(FINISHED)

    def one(run: Run) -> Run:
        if run.status not in wanted:
            return run
        return Included(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})

    return dataclasses.replace(runs, records=tuple(map(one, runs))) if wanted else runs
