"""Hydra launcher that trains all jobs it is given as a few programs.

No JAX import here, and no `from __future__ import annotations` beside the dataclass: Hydra imports this file in every
application of the environment, and reads the annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class FusedLauncherConf:
    _target_: str = "hydra_plugins.fused.launcher.FusedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedLauncherConf, provider="latent-loom")


class FusedLauncher(Launcher):
    """Trains jobs of equal structure together; each still has the run folder and `.hydra/` of a job of its own."""

    def __init__(self) -> None:
        self.config: Any = None
        self.task_function: Any = None
        self.hydra_context: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hydra_plugins.fused.compose import compose_jobs
        from research import app

        app.register_resolvers()
        with app.refusals():
            configs = compose_jobs(self.hydra_context.config_loader, self.config, job_overrides)
            jobs = [app.job_of(config) for config in configs]
            by_hash = {job.hash: index for index, job in reversed(list(enumerate(jobs)))}
            returns: dict[str, JobReturn] = {}

            def register(bound: Any, folder: Path) -> None:
                index = by_hash[bound.job.hash]
                config = configs[index]
                with open_dict(config):
                    config.hydra.job.id = str(initial_job_idx + index)
                    config.hydra.job.num = initial_job_idx + index
                    config.hydra.sweep.dir = str(folder.parent)
                    config.hydra.sweep.subdir = folder.name
                returns[bound.job.hash] = run_job(
                    hydra_context=self.hydra_context,
                    task_function=lambda _: None,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                    configure_logging=False,
                )

            outcomes = app.train(jobs, configs[0], register)
        results = []
        found = {outcome.job.hash: outcome for outcome in outcomes}
        for job, config in zip(jobs, configs, strict=True):
            result = JobReturn(overrides=list(config.hydra.overrides.task), cfg=config, task_name="train")
            outcome = found.get(job.hash)
            if outcome is not None and outcome.status in ("completed", "stopped"):
                result.return_value, result.status = outcome.objective(), JobStatus.COMPLETED
            else:
                what = "not run" if outcome is None else f"{outcome.status}: {outcome.result['reason']}"
                result.return_value, result.status = app.Diverged(what), JobStatus.FAILED
            results.append(result)
        return results
