"""A job: one point of a sweep, ready to be grouped."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.examples import Dataset
from research.data.loading import load
from research.data.source import Splitting
from research.engine import Model, Trainer
from research.evaluation import Evaluation
from research.metrics import base, direction, undirected
from research.models.abilities import Checks, unmonitored
from research.optimizer import Optimizer, Players
from research.sweep.size import check_numbers
from research.tree import ConfigError, build, config_hash, plain, structure

HASH_DIGITS = 12
# of the typed tree, what says where things are rather than what they are
NOT_HASHED = {"data": ("root",)}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to be: a tree of specs, and beside it what does not enter a program.

    Attributes:
      model, optimizer, trainer, data, seed: the tree that is hashed.
      evaluation: what is computed after training; not hashed, so that a finished run can be evaluated anew.
      choices: config group -> chosen option, for tables.
      overrides: the command-line overrides of this run.
      trusted: packages named by `trusted_packages`.
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any], choices: Mapping[str, str], overrides: Sequence[str]) -> "Job":
        """Build every spec of a resolved config; the remaining keys are the sweep's."""
        trusted = tuple(config["trusted_packages"])
        return cls(
            model=build(config["model"], key="model", trusted=trusted),
            optimizer=_optimizer(config["optimizer"]),
            trainer=build(config["trainer"], Trainer, key="trainer"),
            data=build(config["data"], key="data", trusted=trusted),
            seed=config["seed"],
            evaluation=build(config["evaluation"], Evaluation, key="evaluation"),
            choices=dict(choices),
            overrides=tuple(overrides),
            trusted=trusted,
        )

    def tree(self) -> dict[str, Any]:
        """The typed tree as plain values: what `config.json` holds."""
        parts = {name: plain(getattr(self, name)) for name in ("model", "optimizer", "trainer", "data", "seed")}
        for section, names in NOT_HASHED.items():
            parts[section] = {key: value for key, value in parts[section].items() if key not in names}
        return parts

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the tree."""
        return config_hash(self.tree())

    @property
    def run_id(self) -> str:
        """Folder name: the overrides in short, and the first digits of the hash."""
        return f"{readable(self.overrides)}-{self.hash[:HASH_DIGITS]}"


def _optimizer(config: Any) -> Optimizer | Players:
    target = config.get("_target_") if isinstance(config, Mapping) else None
    players = target == f"{Players.__module__}.{Players.__qualname__}"
    return build(config, Players if players else Optimizer, key="optimizer")


NOT_IN_NAMES = ("name", "output_root", "objective", "trusted_packages", "sweep", "report", "hydra", "evaluation")


def readable(overrides: Sequence[str], limit: int = 80) -> str:
    """Overrides as part of a folder name, in [A-Za-z0-9._=-]: `model.latent_dim=2` -> `latent_dim=2`."""
    words = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if re.split(r"[./@]", key)[0] in NOT_IN_NAMES or key == "data.root":
            continue
        text = Path(value.strip("'\"")).name if "/" in value else value
        words.append(f"{key.rpartition('.')[2]}={text}")
    words = [re.sub(r"[^A-Za-z0-9._=-]+", "_", word) for word in words]
    # whole words, as half a value would be another value
    while len(words) > 1 and len("-".join(words)) > limit:
        words.pop()
    return "-".join(words).strip("_-.")[:limit].rstrip("_-.") or "run"


@dataclasses.dataclass(frozen=True)
class Bound:
    """A job together with its data: the model knows the feature shape, and both are known to fit.

    Attributes:
      job: the job.
      model: `job.model` bound to the facts of the data.
      dataset: shared by all jobs of one data recipe.
    """

    job: Job
    model: Model
    dataset: Dataset

    @property
    def program_key(self) -> Any:
        """What is compiled: jobs with equal keys share a program."""
        trainer = self.job.trainer
        return (
            structure((self.model, self.job.optimizer)),
            (trainer.batch_size, trainer.evaluation_batch, trainer.monitor, trainer.keep),
            dataclasses.replace(self.job.data, fold=None),
        )


def bind(job: Job) -> Bound:
    """Load the data of a job (once for all jobs of one recipe) and check that model, budget and data fit.

    Raises:
      ConfigError: naming the key.
    """
    check_numbers(job)
    try:
        dataset = load(job.data)
    except MemoryError as error:
        raise ConfigError("data", type(job.data).__name__, f"it does not fit into the memory here ({error})") from None
    try:
        job.trainer.check(dataset.facts)
    except ConfigError as error:
        raise error.under("trainer") from None
    try:
        job.evaluation.check(dataset.facts)
    except ConfigError as error:
        raise error.under("evaluation") from None
    try:
        model = job.model.bind(dataset.facts)
        checks: Any = model
        if isinstance(checks, Checks):
            checks.check(dataset.examples, job.trainer.batch_size, job.optimizer)
    except ConfigError as error:
        raise error.under("model") from None
    _check_players(job.optimizer, model, dataset)
    watched = base(job.trainer.monitor)
    follows = job.trainer.keep == "best" or job.trainer.patience is not None
    if follows and watched in unmonitored(model):
        remedy = f"of a {type(model).__name__} a lower {watched} is not better; set trainer.keep=last"
        raise ConfigError("trainer.monitor", job.trainer.monitor, f"{remedy} and trainer.patience=null")
    if not direction(watched):
        raise ConfigError(
            "trainer.monitor", job.trainer.monitor, f"{undirected(job.trainer.monitor)}; set {{key}}=validation/loss"
        )
    return Bound(job=job, model=model, dataset=dataset)


def _check_players(optimizer: Optimizer | Players, model: Model, dataset: Dataset) -> None:
    """Refuse players that are not the model's, before the first program is compiled.

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
