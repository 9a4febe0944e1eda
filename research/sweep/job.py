"""A job is one point of a sweep. `bind` loads its data and checks that model, optimizer, budget and data fit."""

import contextlib
import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.covariates import KEYS
from research.data.examples import Dataset
from research.data.loading import load
from research.data.source import Splitting
from research.engine import Trainer
from research.errors import did_you_mean
from research.evaluation import Evaluation
from research.inputs import Budget, Model
from research.metrics import base, dependencies, direction, nearest_metric, undirected
from research.models.abilities import Checks, Forecasts, Reconstructs, able, takes_covariates, takes_masks, unmonitored
from research.optimizer import Optimizer, Players
from research.runs.folder import RunFolder, folder_with
from research.runs.load import check_parameters
from research.sweep.device import amount, host_memory
from research.tree import ConfigError, build, config_hash, flatten, keys, plain, structure

HASH_DIGITS = 12
DEEPEST = 1000  # the most layers: each of them is traced
GENERATED = ("rows", "length", "channels", "features")  # generated data have the product of these as their size
NOT_HASHED = {"data": ("root",)}  # section -> keys that say where files lie, not what they hold


@dataclasses.dataclass(frozen=True)
class Job:
    """The typed config of one run.

    Attributes:
      model, optimizer, trainer, data, seed: the parts that `config_hash` covers.
      evaluation: what is computed after training. It is not hashed, so a finished run can be evaluated again.
      choices: config group -> chosen option, for tables.
      overrides: the command-line overrides of this run.
      trusted: packages that `trusted_packages` names on the command line.
      name: of the run folder, if the sweep has given one (`manifest.named`).
    """

    model: Any
    optimizer: Optimizer | Players
    trainer: Trainer
    data: Splitting
    seed: int
    evaluation: Evaluation
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overrides: Sequence[str] = ()
    trusted: Sequence[str] = ()
    name: str = ""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], choices: Mapping[str, str], overrides: Sequence[str]) -> "Job":
        """Build every spec of a resolved config; keys of the sweep itself are ignored."""
        trusted = tuple(config["trusted_packages"])
        model = build(config["model"], key="model", trusted=trusted)
        data: Splitting = build(config["data"], key="data", trusted=trusted)
        return cls(
            model=model,
            optimizer=_optimizer(config["optimizer"]),
            trainer=build(config["trainer"], Trainer, key="trainer"),
            data=data.for_sequences() if "cell" in keys(type(model)) else data,  # a recurrent model
            seed=config["seed"],
            evaluation=build(config["evaluation"], Evaluation, key="evaluation"),
            choices=dict(choices),
            overrides=tuple(overrides),
            trusted=trusted,
        )

    def tree(self) -> dict[str, Any]:
        """The hashed parts as plain values; `config.json` holds them."""
        parts = {name: plain(getattr(self, name)) for name in ("model", "optimizer", "trainer", "data", "seed")}
        for section, names in NOT_HASHED.items():
            parts[section] = {key: value for key, value in parts[section].items() if key not in names}
        return parts

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of `tree()`, in hex."""
        return config_hash(self.tree())

    @property
    def run_id(self) -> str:
        """Folder name of the run: its overrides in short, and the first digits of the hash.

        The digits tell runs apart and find them again; the text before them is for people.
        """
        return self.name or f"{readable(self.overrides)}-{self.hash[:HASH_DIGITS]}"


def _optimizer(config: Any) -> Optimizer | Players:
    target = config.get("_target_") if isinstance(config, Mapping) else None
    players = target == f"{Players.__module__}.{Players.__qualname__}"
    return build(config, Players if players else Optimizer, key="optimizer")


NOT_IN_NAMES = (
    "name",
    "output_root",
    "objective",
    "trusted_packages",
    "sweep",
    "search",
    "report",
    "hydra",
    "evaluation",
)


def readable(overrides: Sequence[str], limit: int = 80, keys: Collection[str] | None = None) -> str:
    """Overrides as part of a folder name, in [A-Za-z0-9._=-]: `model.latent_dim=2` becomes `latent_dim=2`.

    Args:
      overrides: of the run; if a key is set twice, the last value counts.
      limit: most letters of the name.
      keys: the keys that the name shows; None shows all.
    """
    values: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if re.split(r"[./@]", key)[0] in NOT_IN_NAMES or key == "data.root" or (keys is not None and key not in keys):
            continue
        values[key] = Path(value.strip("'\"")).name if "/" in value else value
    shared = Counter(key.rpartition(".")[2] for key in values)  # two sections may have a key of the same name
    short = {key: last if shared[last := key.rpartition(".")[2]] == 1 else key for key in values}
    settings = [f"{short[key]}={text}" for key, text in values.items()]
    settings = [re.sub(r"[^A-Za-z0-9._=-]+", "_", setting) for setting in settings]
    # Drop whole settings: half of a value would read as another value.
    while len(settings) > 1 and len("-".join(settings)) > limit:
        settings.pop()
    return "-".join(settings).strip("_-.")[:limit].rstrip("_-.") or "run"


@dataclasses.dataclass(frozen=True)
class BoundJob:
    """A job together with its data; `bind` has checked that both fit.

    Attributes:
      job: the job.
      model: `job.model` bound to the facts of the data, such as the shape of a row.
      dataset: shared by all jobs of one data recipe.
    """

    job: Job
    model: Model
    dataset: Dataset

    @property
    def program_key(self) -> Any:
        """Everything that is compiled: jobs with equal keys share a program."""
        trainer = self.job.trainer
        return (
            structure((self.model, self.job.optimizer)),
            (trainer.batch_size, trainer.evaluation_batch, trainer.monitor, trainer.keep),
            (trainer.compute_dtype, trainer.accumulate, trainer.ema),
            dataclasses.replace(self.job.data, fold=None),
        )

    @functools.cached_property
    def compiled_key(self) -> Any:
        """`program_key` without what the rows hold: data of equal shapes and types, such as two splits of one set."""
        *settings, _ = self.program_key
        rows = self.dataset.compact, self.dataset.compact_split(self.job.data.fold)
        leaves, form = jax.tree.flatten(rows)
        return *settings, self.dataset.draw, form, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)

    @property
    def budget(self) -> Budget:
        """The trainer as the program sees it."""
        trainer = self.job.trainer
        return Budget.of(trainer, trainer.steps_per_epoch(self.dataset.facts), self.dataset.draw)


def bind(job: Job) -> BoundJob:
    """Load the data of a job and check that model, optimizer, budget and evaluation fit to them.

    Jobs of one data recipe share the loaded data.

    Raises:
      ConfigError: naming the key.
    """
    check_numbers(job.model, job.data)
    try:
        dataset = load(job.data)
    except MemoryError as error:
        raise ConfigError("data", type(job.data).__name__, f"it does not fit into the memory here ({error})") from None
    with _named("trainer"):
        job.trainer.check(dataset.facts)
    with _named("evaluation"):
        job.evaluation.check(dataset.facts)
    _check_forecasts(job.data, job.model)
    with _named("model"):
        model = job.model.bind(dataset.facts)
        checks: Any = model
        if isinstance(checks, Checks):
            checks.check(dataset.examples, job.trainer.batch_size, job.optimizer)
    _check_hidden(job.data, model)
    _check_players(job.optimizer, model, dataset)
    _check_monitor(job.trainer, model)
    return BoundJob(job=job, model=model, dataset=dataset)


def check_numbers(model: Any, data: Any) -> None:
    """Refuse lists of layers that are too long and generated data that are too large.

    The range of a single number is checked when the spec is built (`research.ranges`).

    Raises:
      ConfigError: naming the key.
    """
    for key, value in flatten({"model": plain(model)}).items():
        if isinstance(value, list) and len(value) > DEEPEST:
            raise ConfigError(key, f"{len(value):,} entries", f"must be at most {DEEPEST:,}")
    sizes = {name: getattr(data, name) for name in GENERATED if isinstance(getattr(data, name, None), int)}
    needed, memory = 8 * math.prod(sizes.values()), host_memory()
    if "rows" in sizes and memory is not None and needed > memory:
        name = max(sizes, key=sizes.__getitem__)
        here = f"this machine has {amount(memory)} of memory"
        remedy = f"data of these sizes take {amount(needed)}; {here}; choose a smaller size"
        raise ConfigError(f"data.{name}", sizes[name], remedy)


@contextlib.contextmanager
def _named(section: str) -> Iterator[None]:
    """Write the section of the config before the key of a refusal."""
    try:
        yield
    except ConfigError as error:
        raise error.under(section) from None


def _check_monitor(trainer: Trainer, model: Model) -> None:
    """Refuse to follow a metric that has no better or worse value.

    Raises:
      ConfigError: naming the key.
    """
    metric = base(trainer.monitor)
    if metric in unmonitored(model) and (trainer.keep == "best" or trainer.patience is not None):
        remedy = f"of a {type(model).__name__} a lower {metric} is not better; set trainer.keep=last"
        raise ConfigError("trainer.monitor", trainer.monitor, f"{remedy} and trainer.patience=null")
    if not direction(metric):
        near, loss = nearest_metric(trainer.monitor), "validation/loss"
        other = "" if near == loss else f", or {{key}}={loss}, which every model has"
        remedy = f"{undirected(trainer.monitor)}; set {{key}}={near}{other}"
        raise ConfigError("trainer.monitor", trainer.monitor, remedy)


def _check_hidden(data: Splitting, model: Model) -> None:
    """Refuse hidden values for a model that cannot reconstruct them.

    Raises:
      ConfigError: naming the key.
    """
    key = "hide" if data.hide is not None else "hide_train"
    value = getattr(data, key)
    if value is not None and not (able(model, Reconstructs) and takes_masks(model)):
        remedy = "use model=recurrent_ae, or a dense model with model.reads_mask=true, or set {key}=null"
        problem = f"a {type(model).__name__} with these settings does not reconstruct rows with missing values"
        raise ConfigError(f"data.{key}", value, f"{problem}; {remedy}")


def _check_forecasts(data: Splitting, model: Model) -> None:
    """Refuse covariates for a model that would not read them, and scales of series for one that would not undo them.

    Raises:
      ConfigError: naming the key.
    """
    given = {key: list(value) for key in KEYS if (value := getattr(data, key, ()))}
    if given and not takes_covariates(model):
        without = " ".join(f"'data.{key}=[]'" for key in given)
        remedy = f"set {without}, or use model=recurrent_forecaster"
        problem = f"a {type(model).__name__} does not read covariates"
        raise ConfigError(f"data.{next(iter(given))}", next(iter(given.values())), f"{problem}; {remedy}")
    if getattr(data, "scale_by", "all") == "series" and not able(model, Forecasts):
        remedy = "only forecasts return to the units of each series: set {key}=all, or use model=recurrent_forecaster"
        raise ConfigError("data.scale_by", "series", remedy)


def _check_players(optimizer: Optimizer | Players, model: Model, dataset: Dataset) -> None:
    """Refuse players that the model does not have, before the first program is compiled.

    Raises:
      ConfigError: naming the key.
    """
    if not isinstance(optimizer, Players):
        return
    rows = dataset.split(None).prepare(dataset.examples.take(np.arange(2)))
    known = sorted(jax.eval_shape(model.init, jax.random.key(0), rows))
    if optimizer.unmatched(known):
        remedy = f"the players of a {type(model).__name__} are {', '.join(known)}, the top-level keys of its parameters"
        raise ConfigError("optimizer", ", ".join(optimizer.players), f"{remedy}; optimizer=adam moves all of them")


def metric_dependencies(model: Model) -> dict[str, list[str]]:
    """Metric -> config keys that change what it measures.

    The key `run_id` stands for a metric whose values cannot be compared between any two runs.
    """
    of_model = dependencies(type(model), "model")
    of_model |= {name: ["run_id"] for name in unmonitored(model)}
    of_evaluation = dependencies(Evaluation, "evaluation")
    return {name: [*of_model.get(name, ()), *of_evaluation.get(name, ())] for name in {**of_model, **of_evaluation}}


# --------------------------------------------------------------------------------------------------------- warm starts


def check_warm_start(bound: BoundJob) -> None:
    """Refuse parameters that do not fit the model.

    Raises:
      ConfigError: they do not fit, or cannot be read.
    """
    if bound.job.trainer.warm_start is None:
        return
    rows = bound.dataset.split(None).prepare(bound.dataset.examples.take(np.arange(2)))
    wanted = jax.eval_shape(bound.model.init, jax.random.key(0), rows)
    problem = check_parameters(load_start(bound.job.trainer.warm_start), wanted)
    if problem is not None:
        raise ConfigError("trainer.warm_start", bound.job.trainer.warm_start, f"{problem}; name another run")


@functools.lru_cache(maxsize=64)
def load_start(path: str) -> Any:
    """Parameters of a finished run.

    Raises:
      ConfigError: there is no such run, or its parameters cannot be read.
    """
    if not Path(path).is_dir():
        meant = did_you_mean(folder_with("params.safetensors", Path(path)), "trainer.warm_start=")
        raise ConfigError("trainer.warm_start", path, f"no such folder{meant}; name the folder of a finished run")
    run = RunFolder(path)
    if not run.config.exists():
        meant = did_you_mean(folder_with(run.parameters.name, run.path), "trainer.warm_start=")
        raise ConfigError("trainer.warm_start", path, f"this is no run{meant}; name the folder of a finished run")
    try:
        return run.load_parameters()[0]
    except ConfigError as error:
        raise ConfigError("trainer.warm_start", path, error.remedy) from None


def start_of(bound: BoundJob) -> Any:
    """The parameters that a job begins with; None for fresh ones."""
    path = bound.job.trainer.warm_start
    return None if path is None else load_start(path)


def lineage(job: Job) -> dict[str, Any] | None:
    """Name and hash of the run that a job begins with; None for fresh parameters."""
    if job.trainer.warm_start is None:
        return None
    config = RunFolder(job.trainer.warm_start).read_config()
    return {"run": Path(job.trainer.warm_start).name, "config_hash": config["config_hash"]}
