"""The naive methods, bounds and exact values beside the models: where runs keep them, and how tables call them."""

import functools

from research.report.collect import Run

REFERENCE = "reference"
PERFECT = "perfect_code"
LABELS = {  # in the order of their rows; a method that is not listed stands before "shuffled"
    "pca": "PCA",
    "mean": "mean",
    "random_code": "random code",
    "raw_kmeans": "k-means on raw series",
    "padded_raw_kmeans": "k-means on raw series, last value repeated",
    "resampled_raw_kmeans": "k-means on raw series, resampled",
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
    "memoryless": "memoryless",
    "mean_distance": "distance to the mean",
    "pca_residual": "PCA residual",
    "shuffled": "shuffled in time",
    "real": "real data",
    "real_vs_real": "real against real",
    PERFECT: "the factors themselves",
    REFERENCE: "exact",
}
SIZED = frozenset(  # methods that have as many numbers as the model has latents
    {"pca", "pca_kmeans", "padded_pca_kmeans", "resampled_pca_kmeans", "pca_residual", "random_code"}
)
FITTED = frozenset({"linear", "logistic", "padded_logistic", "resampled_logistic"})
MEANS = frozenset({"mean", "constant", "majority"})  # methods that predict one value or class for every row
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


@functools.lru_cache(maxsize=1024)
def _named(metric: str, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(method, name) among the metrics of a run; it is kept because most runs of a sweep have the same metrics."""
    pairs = []
    for name in names if metric.startswith("test/") else ():
        if name.startswith(("baseline/", f"{REFERENCE}/")):
            method = REFERENCE if name.startswith(f"{REFERENCE}/") else name.split("/")[1]
            if name == name_of(method, metric):
                pairs.append((method, name))
    return tuple(pairs)
