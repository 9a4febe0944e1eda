"""Which settings tell runs apart, which metrics a table shows, and what makes two numbers comparable."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from research.metrics import base, direction
from research.report.collect import Hole, Run, Runs
from research.report.run import union
from research.tree import ConfigError, nearest

SEED, FOLD = "seed", "data.fold"
UNSHOWN = frozenset({"data.root"})  # where the data lie is no part of a run's result
LEARNING = frozenset(  # keys of the data that change what is learned from, not what the numbers are of
    {
        *("data.root", "data.folds", "data.fold", "data.fresh"),
        *("data.train_size", "data.validation_size", "data.validation_fraction"),
    }
)

DEFAULT_METRICS = (
    "test/loss",
    *("test/reconstruction_mse", "test/elbo_nats", "test/nll_nats", "test/kl_nats"),
    "test/active_units",
    *("test/accuracy", "test/cross_entropy", "test/mse", "test/mae", "test/smape", "test/mase"),
    *("test/probe_accuracy", "test/knn_accuracy", "test/auroc"),
    *("test/ari", "test/nmi", "test/rand_index", "test/cluster_accuracy", "test/silhouette"),
    *("test/discriminative_score", "test/predictive_score", "test/classifier_score"),
    *("test/diversity", "test/memorization"),
)
BEYOND_LOSS = ("test/cross_entropy", "test/mse", "test/generator_loss")  # repeat the loss, or show that it is a game's


def check(option: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """`names` without repetitions.

    Raises:
      ConfigError: one of them is not known; says the nearest that is.
    """
    known = list(known)
    for name in names:
        if name not in known:
            kind = "metric" if option == "metrics" else "key"
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
    keys = [key for key in union(run.values for run in [*runs, *planned]) if key not in {SEED, FOLD, *UNSHOWN}]
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

    The loss is left out where every run that has it also has one of `BEYOND_LOSS`, and something else is shown.
    """
    known = runs.metric_names()
    shown = tuple(name for name in DEFAULT_METRICS if name in known)
    losses = [run.metrics for run in runs if "test/loss" in run.metrics]
    if len(shown) > 1 and all(any(name in metrics for name in BEYOND_LOSS) for metrics in losses):
        shown = tuple(name for name in shown if name != "test/loss")
    return shown or tuple(sorted(name for name in known if name.startswith("test/"))) or DEFAULT_METRICS[:1]


def comparison_keys(metric: str, runs: Iterable[Run]) -> list[str]:
    """The keys that two numbers must agree on to be compared.

    Every metric: the data (horizon, window, scaling, ...). Numbers in nats: the likelihood and the bound too. The loss:
    everything that changes what it is a loss of, which is the model, its objective and its real-valued settings (beta
    weighs two terms, a latent size does not).
    """
    runs = list(runs)
    known = union(run.values for run in runs)
    keys = ["data", *(key for key in known if key.startswith("data.") and key not in LEARNING)]
    if metric.endswith("_nats") or base(metric) == "loss":
        keys += ["model.likelihood"]
    if base(metric) == "loss":
        settings = ("bound", "samples", "objective", "quantiles", "normalize", "game")
        keys += ["model", *(f"model.{key}" for key in settings), *_real(runs, known)]
    return keys


def _real(runs: Sequence[Run], known: Sequence[str]) -> list[str]:
    """The settings of models that are real numbers in any run, but dropout rates; in order of first appearance."""
    rest = {key for key in known if key.startswith("model.") and "dropout" not in key}
    found = []
    for run in runs:
        if new := [key for key in rest if isinstance(run.values.get(key), float)]:
            found += [key for key in run.values if key in new]
            rest -= set(new)
    return found


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
