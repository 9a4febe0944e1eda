"""The table of metrics: what every table, monitor, choice and curve knows of a metric by its name."""

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from research.tree import hints, nearest, parts

Direction = Literal["lower", "higher", ""]
Fitted = Literal["", "scaling", "judge"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    Attributes:
      direction: which values are better; "": neither, so that it is never bold, monitored or chosen by.
      label: in figures; empty: its name in words.
      unit: in figures.
      shown: tables show it unless told otherwise, in the order of the table below.
      fitted: what decides its units and may be fitted to the training rows: the scaling of the data, or a judge.
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


METRICS = {
    # of models that reconstruct
    "loss": _lower(shown=True, fitted="scaling"),
    "reconstruction_mse": _lower("reconstruction MSE", shown=True, fitted="scaling"),
    "reconstruction_mse_raw": _lower("reconstruction MSE in units of the data", shown=True),
    "elbo_nats": _higher("ELBO", "nats", shown=True, fitted="scaling"),
    "nll_nats": _lower("NLL", "nats", shown=True, fitted="scaling"),
    "kl_nats": Metric("", "KL", "nats", shown=True),  # 0 of a collapsed model
    "iwae_nats": _higher("iwae", "nats", fitted="scaling"),
    "reconstruction_nats": _lower("reconstruction", "nats", fitted="scaling"),
    "active_units": Metric(shown=True),  # a count
    # of predictions and forecasts
    "accuracy": _higher(shown=True),
    "cross_entropy": _lower("", "nats", shown=True),
    "mse": _lower("MSE", shown=True, fitted="scaling"),
    "mae": _lower("MAE", shown=True, fitted="scaling"),
    "mse_raw": _lower("MSE in units of the data", shown=True),
    "mae_raw": _lower("MAE in units of the data", shown=True),
    "smape": _lower("sMAPE", "%", shown=True),
    "mase": _lower("MASE", shown=True),
    # of codes
    "probe_accuracy": _higher(shown=True),
    "knn_accuracy": _higher("k-NN accuracy", shown=True),
    "auroc": _higher("AUROC", shown=True),
    "ari": _higher("ARI", shown=True),
    "nmi": _higher("NMI", shown=True),
    "rand_index": _higher(shown=True),
    "cluster_accuracy": _higher(shown=True),
    "silhouette": _higher(shown=True),
    # of samples
    "discriminative_score": _lower(shown=True),
    "predictive_score": _lower(shown=True, fitted="scaling"),
    "classifier_score": _lower(shown=True),
    "diversity": Metric(shown=True),  # right at 1
    "memorization": Metric(shown=True),  # right at .5
    "sample_precision": _higher(fitted="judge"),
    "sample_recall": _higher(fitted="judge"),
    "density": Metric(),  # right at 1
    "coverage": _higher(fitted="judge"),
    "frechet_distance": _lower("Fréchet distance", fitted="judge"),
    # of anomalies, at a threshold
    "precision": _higher(),
    "recall": _higher(),
    "false_positive_rate": _lower(),
    # of single dimensions and factors
    "mig": _higher("MIG"),
    "dci_disentanglement": _higher("DCI disentanglement"),
    "dci_completeness": _higher("DCI completeness"),
    "dci_informativeness": _higher("DCI informativeness"),
    "sap": _higher("SAP"),
    "modularity": _higher(),
    "factor_vae_score": _higher("FactorVAE score"),
    "beta_vae_score": _higher("beta-VAE score"),
    # neither low nor high values are better
    "shuffled_nats": Metric(unit="nats"),
    "mutual_information_nats": Metric(unit="nats"),  # 0, as total_correlation, of a code that says nothing
    "total_correlation": Metric(),
    "collapsed": Metric(),
    "clusters": Metric(),  # a count
    **dict.fromkeys(("codebook_perplexity", "codebook_used", "commitment", "penalty"), Metric()),
    **dict.fromkeys(("gradient_reach", "gradient_reach_at_start", "gradient_penalty"), Metric()),
    **dict.fromkeys(("generator_loss", "discriminator_loss", "discriminator_accuracy"), Metric()),  # of a game
    **dict.fromkeys(("real_value", "fake_value"), Metric()),
    # of another metric, or of its judge
    **dict.fromkeys(("nll_standard_error", "nll_effective_samples", "nll_effective_share"), Metric()),
    **dict.fromkeys(("classifier_null", "classifier_p_value", "sampling_classifier_accuracy"), Metric()),
}
# What chooses between settings where nobody names a metric: the first that all runs have and may be compared by.
CHOOSING = (
    *("iwae_nats", "elbo_nats", "accuracy", "cross_entropy", "mse", "mse_raw"),
    *("reconstruction_mse", "reconstruction_mse_raw", "loss"),
)
FOLD, SCALING = "data.fold", "data.scaling"
FITTED = ("standard", "minmax")  # scalings that training rows decide
HELD_OUT = ("data.validation_fraction", "data.validation_size", "data.folds", FOLD)  # choose the validation rows
TRAINING = ("data.train_size", "data.validation_fraction", "data.folds", FOLD)  # choose the training rows
LEARNING = frozenset({"data.root", "data.fresh", *HELD_OUT, *TRAINING})  # change no test row
RAW = "_raw"  # ends the name of an error in the units of the data


def base(name: str) -> str:
    """The metric without its part: `test/loss` -> `loss`."""
    return name.rpartition("/")[2]


def metric(name: str) -> Metric:
    """What the table says of a metric, by its base name; of one that it does not have, nothing."""
    return METRICS.get(base(name), Metric())


def direction(name: str) -> Direction:
    """Which values of a metric are better; "" of metrics that the table gives no direction, or does not have."""
    return metric(name).direction


def higher_is_better(name: str) -> bool:
    """Whether higher values of a metric are better; False if lower ones are, or neither."""
    return direction(name) == "higher"


def undirected(name: str) -> str:
    """Why a metric chooses nothing."""
    if base(name) in METRICS:
        return "neither low nor high values of it are better"
    part = name.removesuffix(base(name))
    guess = nearest(name, [f"{part}{known}" for known in METRICS])
    return f"the table of metrics (research/metrics.py) gives it no direction{guess}"


def judges(names: Sequence[str]) -> list[str]:
    """Metrics of the validation rows to choose by, the best suited first: twins of `names`, then `CHOOSING`."""
    twins = [name.replace("test/", "validation/", 1) for name in names if name.startswith(("test/", "validation/"))]
    return [name for name in dict.fromkeys([*twins, *(f"validation/{name}" for name in CHOOSING)]) if direction(name)]


def comparison_keys(
    name: str, values: Sequence[Mapping[str, Any]], depends: Iterable[Mapping[str, Sequence[str]] | None]
) -> list[str]:
    """The keys that two runs must agree on so that their numbers of a metric measure the same.

    Every metric: the data and their test rows (horizon, window, split_seed, ...). Of validation or training rows: what
    chooses those rows too. Where the scaling of the data, or a judge, is fitted to the training rows and decides the
    units: the scaling, and what chooses the training rows. Then what the specs of model and evaluation say
    (`dependencies`); of a run that does not say, a loss and numbers in nats agree on all settings of the model. A loss
    is of one kind of model.

    Args:
      name: of the metric.
      values: flat config and choices of each run.
      depends: their `dependencies`, each once; None of a run that does not say.
    """
    known: dict[str, Any] = {}
    for own in values:
        known.update(own)
    of_table, bare = metric(name), base(name)
    keys = ["data", *(key for key in known if key.startswith("data.") and key not in {*LEARNING, SCALING})]
    part = name.partition("/")[0]
    if part == "validation":
        keys += HELD_OUT
    if of_table.fitted:
        keys.append(SCALING)
    fitted = of_table.fitted == "judge" or any(own.get(SCALING) in FITTED for own in values)
    if part == "train" or (of_table.fitted and fitted):
        keys += TRAINING
    if bare == "loss":
        keys += ["model", "model._target_"]
    for of_run in depends:
        if of_run is not None:
            keys += of_run.get(bare, ())
        elif bare == "loss" or bare.endswith("_nats"):
            keys += [key for key in known if key.startswith("model.")]
    return list(dict.fromkeys(keys))


def dependencies(cls: type, section: str) -> dict[str, list[str]]:
    """Metric -> the keys below `section` that change what it measures, of a spec and of its parts.

    Every part says so in `depends`, by its own field names: two numbers of a metric are compared only where these are
    equal. All numbers of a part that says nothing count as parts of the loss.
    """
    found: dict[str, list[str]] = {}
    for metric, settings in _depends(cls):
        known = found.setdefault(metric, [])
        known += [key for key in (f"{section}.{setting}" for setting in settings) if key not in known]
    return found


def _depends(cls: type) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Metric and keys, of a class, its bases and its inline parts."""
    types = hints(cls)
    for base_ in cls.__mro__:
        told = vars(base_).get("depends")
        if told is None:
            fields = [name for name in vars(base_).get("__annotations__", {}) if float in _members(types.get(name))]
            told = {"loss": tuple(fields)} if fields else {}
        yield from told.items()
    for name, part in parts(cls).items():
        for metric, settings in _depends(part):
            yield metric, tuple(name if setting == "kind" else setting for setting in settings)


def _members(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) or (hint,)
