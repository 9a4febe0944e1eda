"""The numbers that figures show: means over seeds with intervals, baselines, and the settings that distinguish runs."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from research.metrics import CHOOSING, base, direction, judges
from research.report.cell import Averaging, Cell, averaging, lacking, summarize
from research.report.collect import Hole, Run
from research.report.figures.style import key_label, literal
from research.report.keys import SEED, better, comparison_keys, distinct, peers, varying
from research.report.methods import methods_of, name_of, position
from research.report.statistics import interval
from research.report.table import Table
from research.report.texts import plural, shown

SPEAKING = frozenset({"model.cell", "model.likelihood", "data.problem", "optimizer.name"})  # their values need no key
METRICS = 4  # most main metrics that are drawn
Keys = Sequence[str]
Values = tuple[Any, ...]  # of some keys
Setting = tuple[Values, ...]  # the values of several lists of keys


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds (folds and all other settings of a seed averaged first).

    Attributes:
      seeds: seed -> its number; of folds where there is only one seed.
      band: 95 % t interval, None with one number.
      runs, cell: the runs, and their status.
    """

    value: float | None
    band: tuple[float, float] | None
    seeds: dict[Hashable, float]
    runs: Sequence[Run]
    cell: Cell
    over: Averaging

    @property
    def n(self) -> int:
        return len(self.seeds)


def mean_of(runs: Sequence[Run], metric: str, over: Averaging, lacks: int = 0) -> Mean:
    """The mean of a metric over some runs; `lacks` is the number of runs that other means have and this one has not."""
    cell = dataclasses.replace(summarize(runs, metric, over), lacks=lacks)
    seeds: dict[Hashable, float] = dict(enumerate(cell.values)) if over.over_folds else dict(cell.seeds)
    numbers = list(seeds.values())
    value = sum(numbers) / len(numbers) if numbers else None
    return Mean(value, interval(numbers), seeds, runs, cell, over)


def averages(table: Table, metric: str, *keys: Keys, runs: Iterable[Run] | None = None) -> dict[Setting, Mean]:
    """The mean of a metric at all values of several lists of keys, over all runs or those of one data set."""
    shown = tuple(key for names in keys for key in names) + tuple(data_keys(table) if runs is not None else ())
    over = _once(table, shown, lambda: averaging(table.runs, list(grouped(table.runs, shown).values()), shown))
    cells = grouped(table.runs if runs is None else runs, *keys)
    lacks = lacking(list(cells.values()))
    return {
        setting: mean_of(cells[setting], metric, over, len(pairs)) for setting, pairs in zip(cells, lacks, strict=True)
    }


def grouped(runs: Iterable[Run], *keys: Keys) -> dict[Setting, list[Run]]:
    """Runs by their values of several lists of keys, in the order of their first appearance."""
    cells: dict[Setting, list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(run.at(names) for names in keys), []).append(run)
    return cells


def best_of(means: Mapping[Setting, Mean], metric: str) -> Setting | None:
    """The setting of the best mean, the first among equals; never one whose runs are missing or did not finish."""
    best = None
    for setting, mean in means.items():
        if mean.cell.complete and (best is None or better(mean.value or 0.0, means[best].value or 0.0, metric)):
            best = setting
    return best if direction(metric) else None


def baseline_of(runs: Sequence[Run], metric: str) -> dict[str, float]:
    """Baseline -> its mean over these runs, folds and seeds alike; bounds are included."""
    means = {}
    for method in sorted({method for run in runs for method in methods_of(run, metric)}, key=position):
        numbers = [value for run in runs if (value := run.metrics.get(name_of(method, metric))) is not None]
        means[method] = sum(numbers) / len(numbers)
    return means


def known_values(runs: Iterable[Run], key: str) -> list[Any]:
    """The values of a key in their order."""
    return [value for value in distinct(runs, key) if not isinstance(value, Hole)]


def numeric(runs: Iterable[Run], key: str) -> list[float]:
    """The values of a key in their order if all are numbers, else nothing."""
    known = known_values(runs, key)
    return known if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known) else []


_kept: dict[Any, Any] = {}  # of the last sweep


def _once(table: Table, key: Values, compute: Callable[[], Any]) -> Any:
    """What a function returns; it is called once for each sweep, since it takes a second with ten thousand runs."""
    if _kept.get("runs") is not table.runs:
        _kept.clear()
        _kept["runs"] = table.runs
    if key not in _kept:
        _kept[key] = compute()
    return _kept[key]


def swept(table: Table) -> list[str]:
    """The keys that distinguish runs; those of the table's rows and columns first."""
    keys = _once(table, ("varying",), lambda: varying(table.runs))
    first = [key for key in (*table.row_keys, *table.column_keys) if key in keys]
    return [*first, *(key for key in keys if key not in first)]


def apart(metric: str, table: Table) -> list[str]:
    """The swept keys whose runs cannot be compared by a metric (losses of different beta, different data)."""
    separating = set(comparison_keys(metric, table.runs))
    return [key for key in swept(table) if key in separating]


def data_keys(table: Table) -> list[str]:
    """The swept keys that make another data set."""
    return apart("test/accuracy", table)


def method_keys(table: Table) -> list[str]:
    """The swept keys that leave the data set as it is."""
    of_data = data_keys(table)
    return [key for key in swept(table) if key not in of_data]


def main_metrics(table: Table, most: int = METRICS) -> list[str]:
    """The first metrics of the table that any finished run has a number of."""
    known = {name for run in table.runs if run.finished for name, value in run.metrics.items() if value is not None}
    return [metric for metric in table.metrics if metric in known][:most]


def judge_of(table: Table) -> str:
    """The metric of the validation rows by which runs are chosen.

    It is the metric by which most runs on one data set may be compared (losses of different beta may not), the first
    of `CHOOSING` among equals, and the loss where no run has any.
    """
    of_data = grouped([run for run in table.runs if run.finished], data_keys(table)).values()
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
    return sorted(scored, key=lambda run: run.metrics[judge] or 0.0, reverse=better(1.0, 0.0, judge))


def seed_of(run: Run) -> int | None:
    seed = run.value(SEED)
    return seed if isinstance(seed, int) else None


def word(value: Any) -> str:
    """A value of a config key as figures write it."""
    return literal(shown(value))


def label_of(keys: Keys, row: Sequence[Any]) -> str:
    """Values of keys in words: `latent dim 8`, `warmup none`; the bare value where it speaks for itself (`gru`)."""
    parts = []
    for key, value in zip(keys, row, strict=True):
        plain = isinstance(value, Hole) or (isinstance(value, str) and ("." not in key or key in SPEAKING))
        parts.append(word(value) if plain else f"{key_label(key)} {word(value)}")
    return ", ".join(parts)


def averaged_words(table: Table, means: Iterable[Mean], bands: bool = True) -> str:
    """Sentences of a caption that say what points and bands are, and which runs are missing from them."""
    means = list(means)
    over = means[0].over
    counts = [mean.n for mean in means if mean.n]
    if max(counts, default=1) == 1:
        text = "One seed at each point." if over.keys else "One run at each point."
    else:
        text = f"Means over {counted(counts)} {'folds' if over.over_folds else 'seeds'}"
        if over.folds > 1 and not over.over_folds:
            text += f" (each the mean over {over.folds} folds)"
        text += "; bands and bars are 95 % t intervals." if bands else "."
    if over.keys:
        text += f" Also averaged over {', '.join(over.keys)}."
    shown = set(runs_of(means))
    statuses = [run.status for run in table.runs if run.run_id in shown and not run.finished]
    if statuses:
        text += f" {plural(len(statuses), 'run')} left out ({', '.join(sorted(set(statuses)))})."
    return text


def extremes(means: Mapping[Setting, Mean], metric: str, *keys: Keys, comparable: bool = True) -> str:
    """The smallest, the largest and, if all may be compared, the best mean in words."""
    known = {setting: mean.value for setting, mean in means.items() if mean.value is not None}

    def named(setting: Setting) -> str:
        flat = label_of([key for names in keys for key in names], [value for values in setting for value in values])
        return f"{known[setting]:.4g} at {flat}"

    low, high = min(known, key=lambda setting: known[setting]), max(known, key=lambda setting: known[setting])
    if known[low] == known[high]:
        return f"All means are near {known[low]:.4g}."
    best = best_of(means, metric) if comparable else None
    text = f"eans reach from {named(low)} to {named(high)}."
    return f"The best mean is {named(best)}; m{text}" if best is not None and best in (low, high) else f"M{text}"


def runs_of(means: Iterable[Mean]) -> tuple[str, ...]:
    """Ids of the runs that means are of."""
    return tuple(dict.fromkeys(run for mean in means for run in mean.cell.runs))


def counted(counts: Iterable[int]) -> str:
    """`3`, or `2 to 3` where numbers differ."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"
