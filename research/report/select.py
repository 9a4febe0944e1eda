"""Settings chosen on the validation rows, before anything of the test rows is looked at."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.metrics import direction
from research.report.collect import FINISHED, STATUSES, Run, Runs
from research.report.keys import SEED, better, check
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
      incomplete: cells in which no setting had finished in all its runs.
      stood_back: number of settings that could not be chosen because some of their runs have no number.
      left_out: number of runs of settings that were not chosen.
      everything: the runs that were there before.
    """

    keys: tuple[str, ...]
    by: str
    chosen: Mapping[tuple[Values, Values], Values]
    offered: int
    incomplete: tuple[tuple[Values, Values], ...]
    stood_back: int
    left_out: int
    everything: Runs


def judge_of(runs: Runs, metrics: Sequence[str]) -> str:
    """The metric that choices are made by: the validation twin of the first metric that has one, else the loss."""
    known = set(runs.metric_names())
    twins = [name.replace("test/", "validation/", 1) for name in metrics if name.startswith("test/")]
    return next((name for name in twins if name in known and direction(name)), "validation/loss")


def select(
    runs: Runs, row_keys: Sequence[str], column_keys: Sequence[str], keys: Sequence[str], by: str
) -> tuple[Runs, Selection]:
    """Keep in every cell the runs of the one setting of `keys` whose mean of `by` is best.

    Seeds count alike: folds and copies of one seed are averaged first. Settings some of whose runs did not finish stand
    back; where a cell has no other, they are chosen among, and said to be incomplete.

    Raises:
      ConfigError: an unknown key, one that is a row or column, or a metric that is not of the validation rows.
    """
    keys = check("select", keys, runs.config_keys())
    for key in keys:
        if key in row_keys or key in column_keys or key in (SEED, "data.fold"):
            raise ConfigError("select", key, "rows, columns, seeds and folds are no settings to choose; leave it out")
    if not by.startswith("validation/"):
        raise ConfigError("by", by, "settings are chosen on the validation rows: name a metric validation/...")
    (by,) = check("metrics", [by], runs.metric_names())
    if not direction(by):
        raise ConfigError("by", by, "neither low nor high values of it are better")

    def at(run: Run, names: Sequence[str]) -> Values:
        return tuple(run.value(name) for name in names)

    chosen: dict[tuple[Values, Values], Values] = {}
    kept: set[int] = set()
    incomplete: list[tuple[Values, Values]] = []
    offered = stood_back = 0
    for cell in group(list(runs), lambda run: at(run, (*row_keys, *column_keys))):
        place = at(cell[0], row_keys), at(cell[0], column_keys)
        settings = group(cell, lambda run: at(run, keys))
        offered = max(offered, len(settings))
        whole = [own for own in settings if all(run.finished and run.metrics.get(by) is not None for run in own)]
        if not whole:
            incomplete.append(place)
        else:
            stood_back += len(settings) - len(whole)
        scores = [(score, own) for own in whole or settings if (score := _mean(own, by)) is not None]
        best = settings[0] if not scores else scores[0][1]
        if scores:
            top = scores[0][0]
            for score, own in scores[1:]:
                if better(score, top, by):
                    top, best = score, own
        chosen[place] = at(best[0], keys)
        kept |= {id(run) for run in best}
    left = tuple(run for run in runs if id(run) in kept)
    selection = Selection(keys, by, chosen, offered, tuple(incomplete), stood_back, len(runs) - len(left), runs)
    return dataclasses.replace(runs, records=left), selection


def _mean(runs: Sequence[Run], metric: str) -> float | None:
    """The mean over seeds of the means of every seed; None without a number."""
    seeds: dict[Any, list[float]] = {}
    for run in runs:
        if run.finished and (value := run.metrics.get(metric)) is not None:
            seeds.setdefault(run.value(SEED), []).append(value)
    return float(np.mean([np.mean(values) for values in seeds.values()])) if seeds else None


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
