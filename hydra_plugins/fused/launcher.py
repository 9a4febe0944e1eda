"""A Hydra launcher that trains all its jobs with a few programs.

Hydra imports this file in every application of the Python environment, so it must not import JAX. Hydra reads the
annotations of the dataclass, so `from __future__ import annotations` is not possible here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

SUBMITIT = ("cluster", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "slurm_partition", "slurm_account")


@dataclass
class FusedLauncherConf:
    _target_: str = "hydra_plugins.fused.launcher.FusedLauncher"
    executor: str = "inline"  # inline | joblib | ray | dask | submitit (`research.sweep.remote.dispatch`)
    workers: int = 2  # groups that are trained at the same time, unless inline
    address: str | None = None  # of a running cluster
    # of submitit; further ones with +hydra.launcher.parameters.NAME=
    parameters: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(SUBMITIT))


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedLauncherConf, provider="latent-loom")


class FusedLauncher(Launcher):
    """Trains jobs of equal structure together; each job still has its own run folder and its own `.hydra/`."""

    def __init__(self, **executor: Any) -> None:
        self.executor = executor
        self.config: Any = None
        self.task_function: Any = None
        self.hydra_context: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hydra_plugins.fused.compose import composer
        from research import app, config

        config.register_resolvers()
        swept = swept_by_command(self.config)
        compose = composer(self.hydra_context.config_loader, self.config).compose
        composed = [compose(overrides) for overrides in job_overrides]
        jobs = [config.job_of(point.tree(), point.base.choices, point.overrides) for point in composed]
        by_hash = {job.hash: index for index, job in reversed(list(enumerate(jobs)))}

        def register(bound: Any, run: Any) -> None:
            index = by_hash[bound.job.hash]
            composed[index].write(initial_job_idx + index, run.path, run.lease)

        outcomes = app.train(jobs, self.config, swept, register, self.executor)
        results = []
        by_job = {outcome.job.hash: outcome for outcome in outcomes}
        for job in jobs:
            result = JobReturn(overrides=list(job.overrides), task_name="train")
            outcome = by_job.get(job.hash)
            if outcome is not None and outcome.status in ("completed", "stopped"):
                result.return_value, result.status = outcome.objective(), JobStatus.COMPLETED
            else:
                reason = "not run" if outcome is None else f"{outcome.status}: {outcome.result['reason']}"
                result.return_value, result.status = app.Diverged(reason), JobStatus.FAILED
            results.append(result)
        return results


def swept_by_command(config: DictConfig) -> set[str]:
    """Keys that a command sweeps: those with several values, and those that the config of its sweeper names."""
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    keys = {override.key_or_group for override in parsed if override.is_sweep_override()}
    for section in ("params", "search_space"):
        keys |= set(OmegaConf.select(config, f"hydra.sweeper.{section}") or {})
    return keys
