"""Which settings tell runs apart, which metrics a table shows, and when two numbers may be compared."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from research import metrics
from research.errors import nearest
from research.metrics import METRICS, RAW, direction
from research.report.collect import Hole, Run, Runs
from research.report.run import EVALUATION, union
from research.tree import ConfigError, group

SEED, FOLD = "seed", metrics.FOLD
SPLIT_SEED = "data.split_seed"
CODE_CKA, CODE_CCA = "test/code_cka", "test/code_cca"  # between runs; reports compute them (`report.stability`)
UNSHOWN = frozenset({"data.root"})  # where the data lie does not change a result
DEFAULT_METRICS = tuple(f"test/{name}" for name, known in METRICS.items() if known.shown)
PREDICTED, FORECAST = f"test/mae{RAW}", "test/mase"  # an error of predicted values; a metric of forecasts only
BEYOND_LOSS = ("test/cross_entropy", "test/mse", "test/generator_loss")  # they replace the loss in a table


def check(option: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """`names` without repetitions.

    Raises:
      ConfigError: one of them is not known; the message names the nearest one that is.
    """
    known = list(known)
    for name in names:
        if name not in known:
            kind = {"names": "key, metric or value"}.get(option, "key")
            kind = "metric" if option in ("metrics", "by", "decimals") else kind
            raise ConfigError(option, name, f"no run has this {kind}{nearest(name, known)}")
    return tuple(dict.fromkeys(names))


def distinct(runs: Iterable[Run], key: str) -> list[Any]:
    """The values of a key: numbers in ascending order, then other values in order of appearance, then holes."""
    values = list(dict.fromkeys(run.value(key) for run in runs))

    def order(value: Any) -> tuple[int, float]:
        number = isinstance(value, int | float)
        return (0, value) if number else (2 if isinstance(value, Hole) else 1, 0)

    return sorted(values, key=order)


def count(runs: Iterable[Run], key: str) -> int:
    """The number of values of a key, holes not counted."""
    return len(set(distinct(runs, key)) - set(Hole))


def varying(runs: Iterable[Run]) -> list[str]:
    """The keys other than seed and fold that tell runs apart: first choices, then keys in the order of the config.

    A key that follows from keys already taken (`model._target_` from `model`) is left out unless it was overridden, and
    so is the seed of the split where a config takes it from the seed of the run.
    Runs that have no config yet count with their overrides, so that a sweep that has only begun varies in the same keys
    as a finished one.
    """
    planned = list(runs)
    runs = [run for run in planned if run.known] or planned
    keys = union(run.values for run in [*runs, *planned])
    keys = [key for key in keys if key not in {SEED, FOLD, *UNSHOWN} and not key.startswith(EVALUATION)]
    overridden: dict[str, set[str]] = {}
    for text in {text for run in planned for text in run.overrides}:
        key, _, value = text.lstrip("+").partition("=")
        overridden.setdefault(key, set()).add(value)
    several = {key for key, texts in overridden.items() if len(texts) > 1}
    candidates = [key for key in keys if _varies(planned if key in several else runs, key)]
    chosen = [key for key in candidates if key in overridden]
    partly = [key for key in keys if key not in candidates and any(key not in run.values for run in runs)]
    for key in [*candidates, *partly]:
        if key not in chosen and not _follows(runs, key, chosen):
            chosen.append(key)
    if SPLIT_SEED not in overridden and SPLIT_SEED in chosen and seed_splits(runs):
        chosen.remove(SPLIT_SEED)
    return sorted(chosen, key=keys.index)


def seed_splits(runs: Iterable[Run]) -> bool:
    """Whether the seed of a run decides the seed of its split."""
    return _follows([run for run in runs if run.known], SPLIT_SEED, (SEED,))


def _varies(runs: Sequence[Run], key: str) -> bool:
    return len({run.values[key] for run in runs if key in run.values}) > 1


def _follows(runs: Sequence[Run], key: str, others: Sequence[str]) -> bool:
    """Whether runs that agree in the other keys agree in this one too."""
    first: dict[tuple[Any, ...], Any] = {}
    return all(first.setdefault(run.at(others), run.value(key)) == run.value(key) for run in runs)


def default_metrics(runs: Runs) -> tuple[str, ...]:
    """The metrics that a table shows by default.

    These are the metrics of `DEFAULT_METRICS` that some run has; without any, all metrics of the test rows; without
    any, the first of `DEFAULT_METRICS`, so that reasons have a place. The loss is left out if all runs that have it
    also have one of `BEYOND_LOSS` and another metric is shown. An error in units of the data is left out if its scaled
    twin may be compared between the same runs. The mean absolute error of predicted values stays all the same, where it
    differs from its twin: a prediction is judged in the units of what it predicts.
    """
    known = runs.metric_names()
    shown = tuple(name for name in DEFAULT_METRICS if name in known)
    scaled = {name: apart(name.removesuffix(RAW), runs, folds=False) for name in shown if name.endswith(RAW)}
    regression = {PREDICTED} if _is_regression(runs) else set()
    needed = {name for name in scaled if set(scaled[name]) - set(apart(name, runs))} | regression
    shown = tuple(name for name in shown if name not in scaled or name in needed)
    losses = [run.metrics for run in runs if "test/loss" in run.metrics]
    if len(shown) > 1 and all(any(name in metrics for name in BEYOND_LOSS) for metrics in losses):
        shown = tuple(name for name in shown if name != "test/loss")
    return shown or tuple(sorted(name for name in known if name.startswith("test/"))) or DEFAULT_METRICS[:1]


def _is_regression(runs: Runs) -> bool:
    """Whether runs predict values that they see scaled, and forecast none."""
    both = [run.metrics for run in runs if PREDICTED in run.metrics]
    if any(FORECAST in metrics for metrics in both):
        return False
    return any(metrics[PREDICTED] != metrics.get(PREDICTED.removesuffix(RAW)) for metrics in both)


def comparison_keys(metric: str, runs: Iterable[Run]) -> list[str]:
    """The keys in which two runs must agree for their numbers of a metric to be comparable.

    They are those of `research.metrics.comparison_keys`, and the SHA-256 of the data.
    """
    runs = list(runs)
    depends = {id(run.depends): run.depends for run in runs if run.finished}.values()
    return [*metrics.comparison_keys(metric, [run.values for run in runs], depends), "data_sha256"]


def apart(metric: str, runs: Iterable[Run], *, folds: bool = True) -> list[str]:
    """The comparison keys of a metric in which finished runs differ.

    With `folds=False` the fold is not among them: means over the same folds may be compared.
    """
    finished = [run for run in runs if run.finished]
    keys = [key for key in comparison_keys(metric, finished) if folds or key != FOLD]
    return [key for key in keys if len({run.value(key) for run in finished}) > 1]


def peers(metric: str, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The largest set of runs that a metric may compare (the first of equal size), and the keys between the sets."""
    keys = apart(metric, runs)
    return max(group(runs, lambda run: run.at(keys)), key=len, default=[]), keys


def better(first: float, second: float, metric: str) -> bool:
    """Whether `first` is the better value of a metric; False for a metric without direction."""
    return {"lower": first < second, "higher": first > second}.get(direction(metric), False)


def ranking(runs: Iterable[Run], keys: Sequence[str]) -> Callable[[Sequence[Any]], list[int]]:
    """A sort key for tuples of values of `keys`: values in the order of `distinct`, `Hole.ANY` before them."""
    runs = list(runs)
    ranks = [{value: rank for rank, value in enumerate(distinct(runs, key))} for key in keys]
    return lambda values: [-1 if value is Hole.ANY else rank[value] for rank, value in zip(ranks, values, strict=True)]
