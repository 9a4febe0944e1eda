"""The naive methods, bounds and exact values beside the models, computed on the same data: their names and rows."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.collect import Hole, Run, Runs
from research.report.keys import FOLD, SEED, ranking
from research.report.statistics import EQUAL, mean_of
from research.tree import group

REFERENCE = "reference"
PERFECT = "perfect_code"
LABELS = {  # in the order of their rows; a method that is not listed stands before "shuffled"
    "pca": "PCA",
    "mean": "mean",
    "random_code": "random code",
    "raw_kmeans": "k-means on raw rows",
    "padded_raw_kmeans": "k-means on raw rows, last value repeated",
    "resampled_raw_kmeans": "k-means on raw rows, resampled",
    "pca_kmeans": "k-means on PCA",
    "padded_pca_kmeans": "k-means on PCA, last value repeated",
    "resampled_pca_kmeans": "k-means on PCA, resampled",
    "repeat_last": "repeat last",
    "seasonal_naive": "seasonal naive",
    "linear": "one linear layer",
    "majority": "majority class",
    "logistic": "logistic regression",
    "padded_logistic": "logistic regression, last value repeated",
    "resampled_logistic": "logistic regression, resampled",
    "constant": "training mean",
    "channel_mean": "training mean of the channel",
    "last_value": "last value",
    "linear_interpolation": "linear interpolation",
    "memoryless": "memoryless",
    "mean_distance": "distance to the mean",
    "pca_residual": "PCA residual",
    "knn_distance": "distance to the k-th neighbour",
    "untrained": "fresh parameters",
    "permuted": "chance",
    "shuffled": "shuffled in time",
    "real": "real data",
    "real_vs_real": "real against real",
    PERFECT: "the factors themselves",
    REFERENCE: "exact",
}
SIZED = frozenset(  # methods that have as many numbers as the model has latents
    {"pca", "pca_kmeans", "padded_pca_kmeans", "resampled_pca_kmeans", "pca_residual", "random_code"}
)
ORIGINS = {  # methods that are not computed from the data alone
    "untrained": "the parameters from which the same seeds started",
    "permuted": "the codes themselves, the rows of one of each pair in random order",
}
FITTED = frozenset({"linear", "logistic", "padded_logistic", "resampled_logistic"})
# methods that predict one value or class for every row
MEANS = frozenset({"mean", "constant", "channel_mean", "majority"})
REAL = frozenset({"real", "real_vs_real"})
BOUNDS = REAL | {REFERENCE, PERFECT}  # a model may reach these; it does not have to beat them


def label(method: str) -> str:
    """The name of a method in a table."""
    return LABELS.get(method, method)


def position(method: str) -> tuple[int, str]:
    """Sort key of the rows of methods."""
    order = list(LABELS)
    return (order.index(method if method in LABELS else "shuffled"), method)


def name_of(method: str, metric: str) -> str:
    """The name under which a run keeps the value of a method for a metric of the test rows."""
    bare = metric.removeprefix("test/")
    return f"{REFERENCE}/{bare}" if method == REFERENCE else f"baseline/{method}/{bare}"


def methods_of(run: Run, metric: str) -> list[str]:
    """The methods of which a run has a value for a metric of the test rows."""
    return [method for method, name in _named(metric, tuple(run.metrics)) if run.metrics[name] is not None]


def known_methods(metric: str, names: Sequence[str]) -> list[str]:
    """The methods that stand in the names of metrics for a metric of the test rows."""
    return [method for method, _ in _named(metric, tuple(names))]


@functools.lru_cache(maxsize=1024)
def _named(metric: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """(method, name) among the metrics of a run; it is kept because most runs of a sweep have the same metrics."""
    if not metric.startswith("test/"):
        return []
    methods = [name.split("/")[1] if name.startswith("baseline/") else REFERENCE for name in names]
    return [(method, name) for method, name in zip(methods, names, strict=True) if name == name_of(method, metric)]


# ---------------------------------------------------------------------------------------------------------------- rows


Point = tuple[Run, str, float]  # a run, a metric, and the value that the method has in this run


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The values of one method, `cells[column, metric]`; `row` holds `Hole.ANY` for keys that do not change them."""

    method: str
    row: tuple[Any, ...]
    cells: Mapping[tuple[tuple[Any, ...], str], float]

    @property
    def label(self) -> str:
        return label(self.method)

    def value(self, row: Sequence[Any], column: tuple[Any, ...], metric: str) -> float | None:
        """The value beside a cell of a model; None if this row is not about it."""
        is_about = all(ours in (Hole.ANY, theirs) for ours, theirs in zip(self.row, row, strict=True))
        return self.cells.get((column, metric)) if is_about else None


def baselines(
    runs: Runs, row_keys: Sequence[str], column_keys: Sequence[str], metrics: Sequence[str], averaged: Sequence[str]
) -> list[Baseline]:
    """The rows of all methods: one for each combination of those row keys that change the values of the method.

    Runs that did not finish count too, since a naive method does not depend on what became of the model. Values are
    averaged over folds and the keys in `averaged`.
    """
    points: dict[str, list[Point]] = {}
    for run in runs:
        for metric in metrics:
            for method in methods_of(run, metric):
                value = run.metrics[name_of(method, metric)]
                assert value is not None
                points.setdefault(method, []).append((run, metric, value))
    rows = []
    for method, of_method in points.items():
        keys = _deciding(of_method, row_keys, (*column_keys, FOLD, *averaged))
        for of_row in group(of_method, lambda point, keys=keys: point[0].at(keys)):
            row = tuple(of_row[0][0].value(key) if key in keys else Hole.ANY for key in row_keys)
            cells = group(of_row, lambda point: (point[0].at(column_keys), point[1]))
            means = {(cell[0][0].at(column_keys), cell[0][1]): _mean(cell, averaged) for cell in cells}
            rows.append(Baseline(method, row, means))
    rank = ranking(runs, row_keys)
    return sorted(rows, key=lambda row: (position(row.method), rank(row.row)))


def _mean(points: Sequence[Point], averaged: Sequence[str]) -> float:
    """The mean over folds; each fold counts once, however many runs report it."""
    settings = group(points, lambda point: point[0].at((FOLD, *averaged)))
    return mean_of([mean_of([value for *_, value in of_setting]) for of_setting in settings])


def _deciding(points: Sequence[Point], row_keys: Sequence[str], others: Sequence[str]) -> list[str]:
    """The fewest row keys that, with the keys in `others`, decide the values of a method.

    Latent size and data are given up last. If not even all row keys decide the values, the method was drawn with the
    seed, and values are compared at equal seeds.
    """

    def decide(keys: Sequence[str], others: Sequence[str]) -> bool:
        first: dict[tuple[Any, ...], float] = {}
        return all(
            math.isclose(first.setdefault((metric, *run.at((*keys, *others))), value), value, rel_tol=EQUAL)
            for run, metric, value in points
        )

    if not decide(row_keys, others):
        others = (*others, SEED)
    keys = list(row_keys)
    for key in sorted(row_keys, key=lambda key: key == "model.latent_dim" or key.partition(".")[0] == "data"):
        fewer = [kept for kept in keys if kept != key]
        if decide(fewer, others):
            keys = fewer
    return keys
