"""Warm starts (`trainer.warm_start`): a job begins with the parameters of a finished run."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.runs.folder import RunFolder
from research.runs.load import check_parameters
from research.sweep.job import BoundJob, Job
from research.tree import ConfigError


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
        raise ConfigError("trainer.warm_start", path, "no such folder; name the folder of a finished run")
    try:
        return RunFolder(path).load_parameters()[0]
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
