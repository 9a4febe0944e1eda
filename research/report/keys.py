"""Which settings tell runs apart, which metrics a table shows, and what makes two numbers comparable."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from research import metrics
from research.metrics import METRICS, RAW, direction
from research.report.collect import Hole, Run, Runs
from research.report.run import EVALUATION, union
from research.tree import ConfigError, group, nearest

SEED, FOLD = "seed", metrics.FOLD
UNSHOWN = frozenset({"data.root"})  # where the data lie is no part of a run's result
DEFAULT_METRICS = tuple(f"test/{name}" for name, known in METRICS.items() if known.shown)
BEYOND_LOSS = ("test/cross_entropy", "test/mse", "test/generator_loss")  # repeat the loss, or show that it is a game's


def check(option: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """`names` without repetitions.

    Raises:
      ConfigError: one of them is not known; says the nearest that is.
    """
    known = list(known)
    for name in names:
        if name not in known:
            kind = "metric" if option in ("metrics", "by") else "key"
            raise ConfigError(option, name, f"no run has this {kind}{nearest(name, known)}")
    return tuple(dict.fromkeys(names))


def distinct(runs: Iterable[Run], key: str) -> list[Any]:
    """The values of a key, numbers in their order and before the rest, the rest in order of first appearance."""
    values = list(dict.fromkeys(run.value(key) for run in runs))

    def order(value: Any) -> tuple[int, float]:
        number = isinstance(value, int | float)
        return (0, value) if number else (2 if isinstance(value, Hole) else 1, 0)

    return sorted(values, key=order)


def varying(runs: Iterable[Run]) -> list[str]:
    """The keys other than seed and fold that tell the runs apart: first choices, then keys in the order of the config.

    A key that follows from those already taken (`model._target_` from `model`) is left out, unless it was overridden.
    Of runs that have no config yet, what was overridden in several ways counts: a sweep that has only begun varies in
    the same keys as a finished one.
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
    taken = [key for key in candidates if key in overridden]
    partly = [key for key in keys if key not in candidates and any(key not in run.values for run in runs)]
    for key in [*candidates, *partly]:
        if key not in taken and not _follows(runs, key, taken):
            taken.append(key)
    return sorted(taken, key=keys.index)


def _varies(runs: Sequence[Run], key: str) -> bool:
    return len({run.values[key] for run in runs if key in run.values}) > 1


def _follows(runs: Sequence[Run], key: str, others: Sequence[str]) -> bool:
    seen: dict[tuple[Any, ...], Any] = {}
    for run in runs:
        value = run.value(key)
        if seen.setdefault(tuple(map(run.value, others)), value) != value:
            return False
    return True


def default_metrics(runs: Runs) -> tuple[str, ...]:
    """Those of `DEFAULT_METRICS` that exist; else all of the test split; else the loss, so that holes have a place.

    The loss is left out where every run that has it also has one of `BEYOND_LOSS`, and something else is shown; errors
    in units of the data where those in scaled units may be compared as well.
    """
    known = runs.metric_names()
    shown = tuple(name for name in DEFAULT_METRICS if name in known)
    scaled = {name: apart(name.removesuffix(RAW), runs, folds=False) for name in shown if name.endswith(RAW)}
    shown = tuple(name for name in shown if name not in scaled or set(scaled[name]) - set(apart(name, runs)))
    losses = [run.metrics for run in runs if "test/loss" in run.metrics]
    if len(shown) > 1 and all(any(name in metrics for name in BEYOND_LOSS) for metrics in losses):
        shown = tuple(name for name in shown if name != "test/loss")
    return shown or tuple(sorted(name for name in known if name.startswith("test/"))) or DEFAULT_METRICS[:1]


def comparison_keys(metric: str, runs: Iterable[Run]) -> list[str]:
    """The keys that two numbers must agree on to be compared: those of `metrics.comparison_keys`, and equal data."""
    runs = list(runs)
    depends = {id(run.depends): run.depends for run in runs if run.finished}.values()
    return [*metrics.comparison_keys(metric, [run.values for run in runs], depends), "data_sha256"]


def apart(metric: str, runs: Iterable[Run], *, folds: bool = True) -> list[str]:
    """The keys in which finished runs differ, so that they are not compared by a metric; `folds=False` passes over it.

    Runs of several folds are compared as means over the same folds; then the fold separates nothing.
    """
    finished = [run for run in runs if run.finished]
    keys = [key for key in comparison_keys(metric, finished) if folds or key != FOLD]
    return [key for key in keys if len({run.value(key) for run in finished}) > 1]


def peers(metric: str, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The most of these runs that may be compared by a metric (the first of equally many), and what parts them."""
    keys = apart(metric, runs)
    alike = group(runs, lambda run: tuple(run.value(key) for key in keys))
    return max(alike, key=len, default=[]), keys


def better(one: float, other: float, metric: str) -> bool:
    """Whether `one` is the better value of a metric; False if it has no direction."""
    return {"lower": one < other, "higher": one > other}.get(direction(metric), False)


def ranking(runs: Iterable[Run], keys: Sequence[str]) -> Callable[[Sequence[Any]], list[int]]:
    """Sort key for tuples of values of `keys`, in the order of `distinct`; keys that do not matter come first."""
    runs = list(runs)
    order = [{value: place for place, value in enumerate(distinct(runs, key))} for key in keys]
    return lambda values: [
        -1 if value is Hole.ANY else known[value] for known, value in zip(order, values, strict=True)
    ]
