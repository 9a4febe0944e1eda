"""The table of metrics, and which numbers of a metric may be compared.

Tables, figures, monitors and choices look up a metric here by its name. A metric without a row can be computed, but it
is never printed bold and chooses nothing.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from research.tree import constant_keys, hints, parts

Direction = Literal["lower", "higher", ""]
Fitted = Literal["", "scaling", "judge"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
      direction: which values are better. "" means neither: the metric is never bold, and nothing is chosen by it.
      label: the name of the metric in figures; empty: its own name in words.
      unit: the unit in figures.
      shown: tables show the metric by default, in the order of the table below.
      fitted: what the unit of the metric depends on: the scaling of the data, or a judge. Both may be fitted to the
        training rows; then two numbers are compared only between runs with the same training rows.
    """

    direction: Direction = ""
    label: str = ""
    unit: str = ""
    shown: bool = False
    fitted: Fitted = ""


def _lower(label: str = "", unit: str = "", *, shown: bool = False, fitted: Fitted = "") -> Metric:
    return Metric("lower", label, unit, shown, fitted)


def _higher(label: str = "", unit: str = "", *, shown: bool = False, fitted: Fitted = "") -> Metric:
    return Metric("higher", label, unit, shown, fitted)


def _of_intervals() -> dict[str, Metric]:
    """Rows without a direction: the right coverage is the share that the interval claims."""
    rows = {}
    for kind, prefix in (("", ""), ("_conformal", "conformal ")):
        for share in (*range(10, 100, 10), 95):
            interval, whole = f"of the {prefix}{share} % interval", share in (80, 95)
            rows[f"coverage_{share}{kind}"] = Metric("", f"coverage {interval}", shown=whole)
            if not whole:  # only the picture of the calibration looks at it
                continue
            rows[f"width_{share}{kind}"] = Metric("", f"width {interval}", fitted="scaling")
            rows[f"width_{share}{kind}_raw"] = Metric("", f"width {interval} in units of the data")
    return rows


METRICS = {
    # models that reconstruct
    "loss": _lower(shown=True, fitted="scaling"),
    "reconstruction_mse": _lower("reconstruction MSE", shown=True, fitted="scaling"),
    "reconstruction_mse_raw": _lower("reconstruction MSE in units of the data", shown=True),
    "elbo_nats": _higher("ELBO", "nats", shown=True, fitted="scaling"),
    "nll_nats": _lower("NLL", "nats", shown=True, fitted="scaling"),
    "kl_nats": Metric("", "KL", "nats", shown=True),  # a collapsed model has 0
    "iwae_nats": _higher("iwae", "nats", fitted="scaling"),
    "reconstruction_nats": _lower("reconstruction", "nats", fitted="scaling"),
    "active_units": Metric(shown=True),  # a count
    # predictions and forecasts
    "accuracy": _higher(shown=True),
    "cross_entropy": _lower("", "nats", shown=True),
    "step_cross_entropy": _lower("cross-entropy of a step", "nats", shown=True),
    "mse": _lower("MSE", shown=True, fitted="scaling"),
    "mae": _lower("MAE", shown=True, fitted="scaling"),
    "mse_raw": _lower("MSE in units of the data", shown=True),
    "mae_raw": _lower("MAE in units of the data", shown=True),
    "smape": _lower("sMAPE", "%", shown=True),
    "mase": _lower("MASE", shown=True),
    # intervals of forecasts
    "crps": _lower("CRPS", shown=True, fitted="scaling"),
    "crps_raw": _lower("CRPS in units of the data", shown=True),
    **_of_intervals(),
    # hidden values
    "imputation_mae": _lower("imputation MAE", shown=True, fitted="scaling"),
    "imputation_mse": _lower("imputation MSE", shown=True, fitted="scaling"),
    "imputation_mae_raw": _lower("imputation MAE in units of the data", shown=True),
    "imputation_mse_raw": _lower("imputation MSE in units of the data", shown=True),
    # codes
    "probe_accuracy": _higher(shown=True),
    "knn_accuracy": _higher("k-NN accuracy", shown=True),
    "auroc": _higher("AUROC", shown=True),
    "auprc": _higher("AUPRC", shown=True),
    "ari": _higher("ARI", shown=True),
    "nmi": _higher("NMI", shown=True),
    "rand_index": _higher(shown=True),
    "cluster_accuracy": _higher(shown=True),
    "silhouette": _higher(shown=True),
    "code_cka": Metric("", "CKA of codes between seeds", shown=True),  # a code that never changes is not thereby good
    "code_cca": Metric("", "mean CCA of codes between seeds", shown=True),
    # samples
    "discriminative_score": _lower(shown=True),
    "predictive_score": _lower(shown=True, fitted="scaling"),
    "classifier_score": _lower(shown=True),
    "energy_distance": _lower(shown=True, fitted="scaling"),
    "diversity": Metric(shown=True),  # 1 is right
    "memorization": Metric(shown=True),  # .5 is right
    "sample_precision": _higher(fitted="judge"),
    "sample_recall": _higher(fitted="judge"),
    "density": Metric(),  # 1 is right
    "coverage": _higher(fitted="judge"),
    "frechet_distance": _lower("Fréchet distance", fitted="judge"),
    # anomalies, at a threshold
    "precision": _higher(),
    "recall": _higher(),
    "false_positive_rate": _lower(),
    # single dimensions and factors
    "mig": _higher("MIG"),
    "dci_disentanglement": _higher("DCI disentanglement"),
    "dci_completeness": _higher("DCI completeness"),
    "dci_informativeness": _higher("DCI informativeness"),
    "sap": _higher("SAP"),
    "modularity": _higher(),
    "factor_vae_score": _higher("FactorVAE score"),
    "beta_vae_score": _higher("beta-VAE score"),
    # metrics of which neither low nor high values are better
    "shuffled_nats": Metric(unit="nats"),
    "mutual_information_nats": Metric(unit="nats"),  # a code that says nothing has 0, as a good total_correlation
    "total_correlation": Metric(),
    "collapsed": Metric(),
    "clusters": Metric(),  # a count
    **dict.fromkeys(("codebook_perplexity", "codebook_used", "commitment", "penalty"), Metric()),
    **dict.fromkeys(("gradient_reach", "gradient_reach_at_start", "gradient_penalty"), Metric()),
    **dict.fromkeys(("generator_loss", "discriminator_loss", "discriminator_accuracy"), Metric()),  # of a GAN
    **dict.fromkeys(("real_value", "fake_value"), Metric()),
    # how far another metric can be trusted
    **dict.fromkeys(("nll_standard_error", "nll_effective_samples", "nll_effective_share"), Metric()),
    **dict.fromkeys(("classifier_null", "classifier_p_value", "sampling_classifier_accuracy"), Metric()),
}
# If nobody names a metric, settings are chosen by the first of these that all runs have and may be compared by.
CHOOSING = (
    *("imputation_mae", "imputation_mae_raw"),
    *("iwae_nats", "elbo_nats", "accuracy", "cross_entropy", "mse", "mse_raw"),
    *("reconstruction_mse", "reconstruction_mse_raw", "energy_distance", "loss"),
)
FOLD, SCALING = "data.fold", "data.scaling"
FITTED = ("standard", "minmax")  # scalings that are fitted to the training rows
ROWS = {  # the keys that choose the rows of a part; the test rows depend on all other keys of the data
    "train": ("data.train_size", "data.validation_fraction", "data.folds", FOLD),
    "validation": ("data.validation_fraction", "data.validation_size", "data.folds", FOLD),
}
# keys that change no test row
NOT_TEST = frozenset({"data.root", "data.fresh", "data.hide_train", SCALING}).union(*ROWS.values())
RAW = "_raw"  # ends the name of an error in the units of the data


def base(name: str) -> str:
    """The name of a metric without its part: `test/loss` -> `loss`."""
    return name.rpartition("/")[2]


def metric(name: str) -> Metric:
    """The row of a metric, by its base name; an empty row for a metric that the table does not have."""
    return METRICS.get(base(name), Metric())


def direction(name: str) -> Direction:
    """Which values of a metric are better; "" if the table gives it no direction or does not have it."""
    return metric(name).direction


def higher_is_better(name: str) -> bool:
    """Whether higher values of a metric are better; False if lower values are, or neither."""
    return direction(name) == "higher"


def undirected(name: str) -> str:
    """Why nothing can be chosen by a metric: the end of an error text."""
    if base(name) in METRICS:
        return "neither low nor high values of it are better"
    guess = f" (did you mean '{similar[0]}'?)" if (similar := _similar(name)) else ""
    return f"the table of metrics (research/metrics.py) gives it no direction{guess}"


def nearest_metric(name: str) -> str:
    """What to name instead of a metric by which nothing can be chosen: the most similar one, or the loss."""
    similar = [] if base(name) in METRICS else _similar(name)
    return similar[0] if similar else f"{name.removesuffix(base(name))}loss"


def _similar(name: str) -> list[str]:
    """The metric with a direction whose name is most similar, of the same part; none if no name is similar."""
    bare = base(name)
    directed = [known for known in METRICS if direction(known)]
    return [name.removesuffix(bare) + known for known in difflib.get_close_matches(bare, directed, n=1, cutoff=0.5)]


def judges(names: Sequence[str]) -> list[str]:
    """Metrics of the validation rows to choose by, the best suited first.

    They are the counterparts of `names`, `validation/x` for `test/x`, and then those of `CHOOSING`.
    """
    wanted = [name.replace("test/", "validation/", 1) for name in names if name.startswith(("test/", "validation/"))]
    return [name for name in dict.fromkeys([*wanted, *(f"validation/{name}" for name in CHOOSING)]) if direction(name)]


def comparison_keys(
    name: str, values: Sequence[Mapping[str, Any]], depends: Iterable[Mapping[str, Sequence[str]] | None]
) -> list[str]:
    """The keys that two runs must agree on, so that their numbers of a metric measure the same.

    * Every metric needs the same test rows, so runs must agree on the keys of the data (horizon, window, split_seed)
      apart from those that only choose training or validation rows.
    * A metric of validation or training rows needs agreement on the keys that choose those rows.
    * A metric whose unit depends on the scaling or on a judge needs the same scaling. If that scaling, or the judge, is
      fitted to the training rows, it needs the same training rows.
    * A loss needs the same kind of model.
    * The specs of model and evaluation add the settings that change what the metric measures (`dependencies`). For a
      run that does not have them, a loss and numbers in nats need agreement on all settings of the model.

    Args:
      name: the metric.
      values: flat config and choices of each run.
      depends: `dependencies` of the runs, each once; None for a run that has none on record.
    """
    keys_of_runs = dict.fromkeys(key for of_run in values for key in of_run)
    row, bare, part = metric(name), base(name), name.partition("/")[0]
    keys = ["data", *(key for key in keys_of_runs if key.startswith("data.") and key not in NOT_TEST)]
    if part == "validation":
        keys += ROWS["validation"]
    if row.fitted:
        keys.append(SCALING)
    fitted = row.fitted == "judge" or any(of_run.get(SCALING) in FITTED for of_run in values)
    if part == "train" or (row.fitted and fitted):
        keys += ROWS["train"]
    if bare == "loss":
        keys += ["model", "model._target_"]
    for of_run in depends:
        if of_run is not None:
            keys += of_run.get(bare, ())
        elif bare == "loss" or bare.endswith("_nats"):
            keys += [key for key in keys_of_runs if key.startswith("model.")]
    return list(dict.fromkeys(keys))


def dependencies(cls: type, section: str) -> dict[str, list[str]]:
    """Metric -> the keys below `section` that change what it measures, for a spec and its parts.

    A class lists them in its class variable `depends`, by its own field names. Two rules protect a class that lists too
    little, so that no table compares losses which measure different things:

    * All numbers of a `@spec` count as parts of the loss, except those that its class variable `unscored` names. These
      change how a model learns, and not what its loss measures on validation rows.
    * If a `@spec` has no `depends`, its sizes and choices count as parts of the loss as well.
    """
    keys_of: dict[str, list[str]] = {}
    for name, settings in _depends(cls):
        keys = keys_of.setdefault(name, [])
        free = (f"{section}.{setting}" for setting in settings if setting not in constant_keys(cls))
        keys += [key for key in free if key not in keys]
    return keys_of


def _depends(cls: type) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Metric and field names, of a class, its bases and its inline parts."""
    types = hints(cls)
    for parent in cls.__mro__:
        depends = vars(parent).get("depends")
        yield from (depends or {}).items()
        if vars(parent).get("__tree__") == "spec":
            fields = [
                name for name in vars(parent).get("__annotations__", {}) if name in types.keys() - parts(cls).keys()
            ]
            counted = fields if depends is None else [name for name in fields if float in _members(types[name])]
            if of_loss := tuple(name for name in counted if name not in vars(parent).get("unscored", ())):
                yield "loss", of_loss
    for name, part in parts(cls).items():
        for of_metric, settings in _depends(part):
            yield of_metric, tuple(name if setting == "kind" else setting for setting in settings)


def _members(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) or (hint,)
