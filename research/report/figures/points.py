"""The numbers that figures show: means over seeds with intervals, baselines, and the settings that distinguish runs."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from research.metrics import CHOOSING, base, judges
from research.report.cell import Averaging, Cell, averaging, lacking, summarize
from research.report.collect import Hole, Run, Runs
from research.report.figures.style import key_label, literal
from research.report.keys import SEED, better, comparison_keys, distinct, peers, varying
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
      cell: the runs with their status.
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
    """The mean of every cell; it says how many seeds and folds of the other cells it lacks."""
    means = {}
    for (where, runs), lacks in zip(cells.items(), lacking(list(cells.values())), strict=True):
        mean = mean_of(runs, metric, over)
        means[where] = dataclasses.replace(mean, cell=dataclasses.replace(mean.cell, lacks=len(lacks)))
    return means


def averaging_of(table: Table, keys: Sequence[str]) -> Averaging:
    """What means are over when only `keys` distinguish runs."""
    cells = group(list(table.runs), lambda run: values(run, keys))
    return averaging(table.runs, cells, keys)


def values(run: Run, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(run.value(key) for key in keys)


def grouped(runs: Iterable[Run], *keys: Sequence[str]) -> dict[Any, list[Run]]:
    """Runs by their values of several lists of keys, each a tuple, in the order of their first appearance."""
    cells: dict[Any, list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(values(run, names) for names in keys), []).append(run)
    return cells


def numeric(runs: Iterable[Run], key: str) -> list[float]:
    """The values of a key in their order if all are numbers, else nothing."""
    known = [value for value in distinct(runs, key) if not isinstance(value, Hole)]
    return known if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known) else []


_varying: list[tuple[Runs, list[str]]] = []  # of the last sweep: a second's work with ten thousand runs


def swept(table: Table) -> list[str]:
    """The keys that distinguish runs; those of the table's rows and columns first."""
    if not _varying or _varying[0][0] is not table.runs:
        _varying[:] = [(table.runs, varying(table.runs))]
    keys = _varying[0][1]
    first = [key for key in (*table.row_keys, *table.column_keys) if key in keys]
    return [*first, *(key for key in keys if key not in first)]


def main_metrics(table: Table, most: int = METRICS) -> list[str]:
    """The first metrics of the table that any finished run has a number of."""
    known = {name for run in table.runs if run.finished for name, value in run.metrics.items() if value is not None}
    return [metric for metric in table.metrics if metric in known][:most]


def apart(metric: str, table: Table) -> list[str]:
    """The swept keys whose runs cannot be compared by a metric (losses of different beta, different data)."""
    separating = set(comparison_keys(metric, table.runs))
    return [key for key in swept(table) if key in separating]


def baseline_of(runs: Sequence[Run], metric: str) -> dict[str, float]:
    """Baseline -> its mean over these runs, folds and seeds alike; bounds are included."""
    means = {}
    for method in sorted({method for run in runs for method in methods_of(run, metric)}, key=position):
        numbers = [value for run in runs if (value := run.metrics.get(name_of(method, metric))) is not None]
        means[method] = sum(numbers) / len(numbers)
    return means


def word(value: Any) -> str:
    """A value of a config key as figures write it."""
    return literal(shown(value))


def label_of(table: Table, keys: Sequence[str], row: Sequence[Any]) -> str:
    """Values of keys in words: `latent dim 8`, `warmup none`; the bare value where it speaks for itself (`gru`)."""
    parts = []
    for key, value in zip(keys, row, strict=True):
        plain = isinstance(value, Hole) or (isinstance(value, str) and ("." not in key or key in SPEAKING))
        parts.append(word(value) if plain else f"{key_label(key)} {word(value)}")
    return ", ".join(parts)


def averaged_words(table: Table, over: Averaging, means: Iterable[Mean], bands: bool = True) -> str:
    """Sentences of a caption that say what points and bands are, and which runs are missing from them."""
    means = list(means)
    counts = sorted({mean.n for mean in means if mean.n})
    what = "folds" if over.over_folds else "seeds"
    if not counts or counts[-1] == 1:
        text = "One run at each point." if not over.keys else "One seed at each point."
    else:
        text = f"Means over {counted(counts)} {what}"
        if over.folds > 1 and not over.over_folds:
            text += f" (each the mean over {over.folds} folds)"
        text += "; bands and bars are 95 % t intervals." if bands else "."
    if over.keys:
        text += f" Also averaged over {', '.join(over.keys)}."
    left_out = {run for mean in means for run in mean.cell.runs}
    statuses = [run.status for run in table.runs if run.run_id in left_out and not run.finished]
    if statuses:
        text += f" {plural(len(statuses), 'run')} left out ({', '.join(sorted(set(statuses)))})."
    return text


def shown_runs(means: Iterable[Mean]) -> tuple[str, ...]:
    """Ids of the runs that means are of."""
    return tuple(dict.fromkeys(run for mean in means for run in mean.cell.runs))


def counted(counts: Iterable[int]) -> str:
    """`3`, or `2 to 3` where numbers differ."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


# ------------------------------------------------------------------------------------------- which runs are the best


def data_keys(table: Table) -> list[str]:
    """The swept keys that make another data set."""
    separating = set(comparison_keys("test/accuracy", table.runs))
    return [key for key in swept(table) if key in separating]


def method_keys(table: Table) -> list[str]:
    """The swept keys that leave the data set as it is."""
    of_data = data_keys(table)
    return [key for key in swept(table) if key not in of_data]


def judge_of(table: Table) -> str:
    """The metric of the validation rows by which runs are chosen.

    It is the metric by which most runs on one data set may be compared (losses of different beta may not), the first
    of `CHOOSING` among equals, and the loss where no run has any.
    """
    keys = data_keys(table)
    of_data = group([run for run in table.runs if run.finished], lambda run: values(run, keys))
    comparable: dict[str, int] = {}
    for metric in judges(table.metrics):
        having = [[run for run in runs if run.metrics.get(metric) is not None] for runs in of_data]
        comparable[metric] = sum(len(peers(metric, runs)[0]) for runs in having if runs)
    order = lambda metric: CHOOSING.index(base(metric)) if base(metric) in CHOOSING else len(CHOOSING)
    best = max(sorted(comparable, key=order), key=lambda metric: comparable[metric])
    return best if comparable[best] else "validation/loss"


def ranked(runs: Sequence[Run], judge: str) -> list[Run]:
    """The finished runs that a metric compares, the best first."""
    scored, _ = peers(judge, [run for run in runs if run.finished and run.metrics.get(judge) is not None])
    sign = -1 if better(1.0, 0.0, judge) else 1
    return sorted(scored, key=lambda run: sign * (run.metrics[judge] or 0.0))


def seed_of(run: Run) -> int | None:
    seed = run.value(SEED)
    return seed if isinstance(seed, int) else None
