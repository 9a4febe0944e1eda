"""Settings that are chosen on the validation rows, before anything of the test rows is looked at."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from research.metrics import direction, judges, undirected
from research.report.cell import Values, cells_of, pairs_of
from research.report.collect import Run, Runs
from research.report.keys import FOLD, SEED, apart, better, check
from research.report.statistics import mean_of
from research.tree import ConfigError, group


@dataclasses.dataclass(frozen=True)
class Choice:
    """The setting that was chosen in one cell.

    Attributes:
      values: of the keys whose values are chosen.
      runs: of the chosen setting.
      offered: number of settings that the cell has.
      scored: whether some setting has a number of the metric that chooses; otherwise the first setting is shown.
      complete: whether the chosen setting has a number for every seed and fold that some setting of the cell has.
      passed_over: number of settings that could not be chosen because they are not complete and others are.
      seeds: number of seeds of the chosen setting, and of the cell.
    """

    values: Values
    runs: Sequence[Run]
    offered: int
    scored: bool
    complete: bool
    passed_over: int
    seeds: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen: values of `keys`, in every cell, by the metric `by` of the validation rows.

    `everything` are all runs of the sweep, also those of settings that were not chosen.
    """

    keys: tuple[str, ...]
    by: str
    choices: Mapping[tuple[Values, Values], Choice]
    everything: Runs

    @property
    def chosen(self) -> dict[tuple[Values, Values], Values]:
        """(row, column) -> the values that were chosen."""
        return {cell: choice.values for cell, choice in self.choices.items()}


def select(
    runs: Runs,
    row_keys: Sequence[str],
    column_keys: Sequence[str],
    keys: Sequence[str],
    by: str | None = None,
    metrics: Sequence[str] = (),
) -> tuple[Runs, Selection]:
    """Keep in every cell the runs of that setting of `keys` whose mean of `by` is best.

    The mean is over seeds, each the mean over its folds and copies. Without `by`, `judge_of` names the metric.

    Raises:
      ConfigError: an unknown key, a key that is a row or column, or a metric by which settings cannot be chosen.
    """
    keys = check("select", keys, runs.config_keys())
    for key in keys:
        if key in row_keys or key in column_keys or key in (SEED, FOLD):
            raise ConfigError("select", key, "rows, columns, seeds and folds are no settings to choose; leave it out")
    cells = cells_of(runs, row_keys, column_keys)
    if by is None:
        by = judge_of(runs, cells.values(), keys, metrics)
    else:
        _check_judge(by, runs, cells.values(), keys)
    choices = {cell: _choose(of_cell, keys, by) for cell, of_cell in cells.items()}
    kept = {id(run) for choice in choices.values() for run in choice.runs}
    records = tuple(run for run in runs if id(run) in kept)
    return dataclasses.replace(runs, records=records), Selection(keys, by, choices, runs)


# --------------------------------------------------------------------------------------------- the metric that chooses


def judge_of(runs: Runs, cells: Iterable[Sequence[Run]], keys: Sequence[str], metrics: Sequence[str]) -> str:
    """The metric that chooses settings of `keys`: the first of `judges(metrics)` that may compare all runs of a cell.

    A metric that all finished runs report comes before one that only some report.

    Raises:
      ConfigError: there is none.
    """
    finished = [run for run in runs if run.finished]
    known = {name for run in finished for name, value in run.metrics.items() if value is not None}
    fitting = [name for name in judges(metrics) if name in known and not _separating(name, cells)]
    everywhere = [name for name in fitting if all(name in run.metrics for run in finished)]
    if not fitting:
        remedy = "no metric of the validation rows has numbers that measure the same in all of these settings"
        raise ConfigError("select", ",".join(keys), f"{remedy}; choose nothing: --rows {','.join(keys)}")
    return (everywhere or fitting)[0]


def _separating(metric: str, cells: Iterable[Sequence[Run]]) -> list[str]:
    """The keys because of which some runs of a cell cannot be compared by a metric."""
    return list(dict.fromkeys(key for cell in cells for key in apart(metric, cell, folds=False)))


def _check_judge(by: str, runs: Runs, cells: Iterable[Sequence[Run]], keys: Sequence[str]) -> None:
    """Refuse a metric that may not choose, and name one that may.

    Raises:
      ConfigError: it is not of the validation rows, unknown, without direction, or not comparable within a cell.
    """
    problem = ""
    if not by.startswith("validation/"):
        problem = "settings are chosen on the validation rows"
    elif not direction(*check("by", [by], runs.metric_names())):
        problem = undirected(by)
    elif separating := _separating(by, cells):
        problem = f"it measures something else where {', '.join(separating)} differ{'s' * (len(separating) == 1)}"
    if problem:
        try:
            metric = judge_of(runs, cells, keys, [by])
            remedy = f"choose by another metric, --by {metric} (in a config report.by={metric})"
        except ConfigError as error:
            remedy = error.remedy
        raise ConfigError("by", by, f"{problem}; {remedy}")


# ------------------------------------------------------------------------------------------------------------- one cell


def _choose(cell: Sequence[Run], keys: Sequence[str], by: str) -> Choice:
    """The best setting of a cell.

    A setting is complete if all its runs have a number of `by` and it has every seed and fold that some setting of the
    cell finished. Only complete settings are compared. If there are none, all settings are compared at the seeds and
    folds that all of them have.
    """
    settings = group(cell, lambda run: run.at(keys))
    wanted = pairs_of(cell, finished=True).keys()
    complete = [
        runs
        for runs in settings
        if wanted <= pairs_of(runs).keys() and all(run.finished and run.metrics.get(by) is not None for run in runs)
    ]
    scores = _scores(complete or settings, by)
    top, best = scores[0] if scores else (0.0, settings[0])
    for score, runs in scores[1:]:
        if better(score, top, by):
            top, best = score, runs
    return Choice(
        values=best[0].at(keys),
        runs=best,
        offered=len(settings),
        scored=bool(scores),
        complete=bool(complete),
        passed_over=len(settings) - len(complete) if scores and complete else 0,
        seeds=(len({run.value(SEED) for run in best}), len({run.value(SEED) for run in cell})),
    )


def _scores(settings: Sequence[Sequence[Run]], metric: str) -> list[tuple[float, Sequence[Run]]]:
    """(mean of a metric, runs) of the settings that have numbers, at the seeds and folds that all of these have.

    If they have none in common, each mean is over the seeds and folds of its setting.
    """
    scored = []
    for runs in settings:
        if numbered := [run for run in runs if run.finished and run.metrics.get(metric) is not None]:
            scored.append((runs, numbered))
    common = set.intersection(*(set(pairs_of(numbered)) for _, numbered in scored)) if scored else set()
    scores = []
    for runs, numbered in scored:
        shared = [run for run in numbered if run.at((SEED, FOLD)) in common] or numbered
        seeds = group(shared, lambda run: run.value(SEED))
        means = [mean_of([run.metrics[metric] or 0.0 for run in of_seed]) for of_seed in seeds]
        scores.append((mean_of(means), runs))
    return scores
