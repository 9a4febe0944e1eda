"""Runs -> the numbers that figures show: means over seeds with intervals, naive methods, and what tells runs apart."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from research.report.cell import Averaging, Cell, averaging, lacking, summarize
from research.report.collect import Hole, Run, Runs
from research.report.keys import comparison_keys, distinct, varying
from research.report.methods import methods_of, name_of, position
from research.report.statistics import interval
from research.report.table import Table
from research.report.texts import plural, shown
from research.tree import group

SPEAKING = frozenset({"model.cell", "model.likelihood", "data.problem", "optimizer.name"})  # their values need no key
P = TypeVar("P")
METRICS = 4  # most main metrics that are drawn


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds (folds and all other settings of a seed averaged first).

    Attributes:
      seeds: seed -> its number; of folds where there is only one seed.
      low, high: 95 % t interval, None with one number.
      cell: what became of the runs.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    seeds: dict[Hashable, float]
    cell: Cell


def mean_of(runs: Sequence[Run], metric: str, over: Averaging) -> Mean:
    """The mean of a metric over some runs."""
    cell = summarize(runs, metric, over)
    seeds: dict[Hashable, float] = dict(enumerate(cell.values)) if over.over_folds else dict(cell.seeds)
    numbers = list(seeds.values())
    band = interval(numbers)
    value = sum(numbers) / len(numbers) if numbers else None
    return Mean(value, *(band or (None, None)), len(numbers), seeds, cell)


def means_of(cells: Mapping[P, Sequence[Run]], metric: str, over: Averaging) -> dict[P, Mean]:
    """The mean at every place; its cell says how many seeds and folds of other places it lacks."""
    found = {}
    for (place, runs), lacks in zip(cells.items(), lacking(list(cells.values())), strict=True):
        mean = mean_of(runs, metric, over)
        found[place] = dataclasses.replace(mean, cell=dataclasses.replace(mean.cell, lacks=len(lacks)))
    return found


def averaging_of(table: Table, keys: Sequence[str]) -> Averaging:
    """What means are over when only `keys` are told apart."""
    cells = group(list(table.runs), lambda run: values(run, keys))
    return averaging(table.runs, cells, keys)


def values(run: Run, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(run.value(key) for key in keys)


def numeric(runs: Runs, key: str) -> list[float]:
    """The values of a key in their order if all are numbers, else nothing."""
    found = [value for value in distinct(runs, key) if not isinstance(value, Hole)]
    return found if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found) else []


_varying: list[tuple[Runs, list[str]]] = []  # of the last sweep: a second's work with ten thousand runs


def swept(table: Table) -> list[str]:
    """The keys that tell runs apart; those of the table's rows and columns first."""
    if not _varying or _varying[0][0] is not table.runs:
        _varying[:] = [(table.runs, varying(table.runs))]
    found = _varying[0][1]
    first = [key for key in (*table.row_keys, *table.column_keys) if key in found]
    return [*first, *(key for key in found if key not in first)]


def main_metrics(table: Table, most: int = METRICS) -> list[str]:
    """The first metrics of the table that any finished run has a number of."""
    known = {name for run in table.runs if run.finished for name, value in run.metrics.items() if value is not None}
    return [metric for metric in table.metrics if metric in known][:most]


def apart(metric: str, table: Table) -> list[str]:
    """The swept keys whose runs cannot be compared by a metric (losses of different beta, different data)."""
    separating = set(comparison_keys(metric, table.runs))
    return [key for key in swept(table) if key in separating]


def baseline_of(runs: Sequence[Run], metric: str) -> dict[str, float]:
    """Naive method -> its mean over these runs, folds and seeds alike; bounds are left in."""
    methods = {method for run in runs for method in methods_of(run, metric)}
    found = {}
    for method in sorted(methods, key=position):
        numbers = [value for run in runs if (value := run.metrics.get(name_of(method, metric))) is not None]
        found[method] = sum(numbers) / len(numbers)
    return found


def word(value: Any) -> str:
    """A value of a config key as figures write it."""
    from research.report.figures.style import literal

    return literal(shown(value))


def label_of(table: Table, keys: Sequence[str], row: Sequence[Any]) -> str:
    """Values of keys in words: `latent dim 8`, `warmup none`; the bare value where it speaks for itself (`gru`)."""
    from research.report.figures.style import key_label

    parts = []
    for key, value in zip(keys, row, strict=True):
        plain = isinstance(value, Hole) or (isinstance(value, str) and ("." not in key or key in SPEAKING))
        parts.append(word(value) if plain else f"{key_label(key)} {word(value)}")
    return ", ".join(parts)


def averaged_words(table: Table, over: Averaging, means: Sequence[Mean], bands: bool = True) -> str:
    """What points and bands are, in one or two sentences."""
    counts = sorted({mean.n for mean in means if mean.n})
    what = "folds" if over.over_folds else "seeds"
    if not counts or counts[-1] == 1:
        text = "One run at each point." if not over.keys else "One seed at each point."
    else:
        many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        text = f"Means over {many} {what}"
        if over.folds > 1 and not over.over_folds:
            text += f" (each the mean over {over.folds} folds)"
        text += "; bands and bars are 95 % t intervals." if bands else "."
    if over.keys:
        text += f" Also averaged over {', '.join(over.keys)}."
    left = {run: status for mean in means for run, status in _unfinished(table, mean.cell)}
    if left:
        kinds = ", ".join(sorted(set(left.values())))
        text += f" {plural(len(left), 'run')} left out ({kinds})."
    return text


def _unfinished(table: Table, cell: Cell) -> list[tuple[str, str]]:
    own = set(cell.runs)
    return [(run.run_id, run.status) for run in table.runs if run.run_id in own and not run.finished]


def shown_runs(means: Sequence[Mean]) -> tuple[str, ...]:
    """Ids of the runs that means are of."""
    return tuple(dict.fromkeys(run for mean in means for run in mean.cell.runs))
