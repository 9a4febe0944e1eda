"""A Hydra sweeper over the product of all choices, which gives all jobs to the launcher at once, or a search.

It must not import JAX; see `launcher.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class FusedSweeperConf:
    _target_: str = "hydra_plugins.fused.sweeper.FusedSweeper"
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="fused", node=FusedSweeperConf, provider="latent-loom")


class FusedSweeper(Sweeper):
    """Like Hydra's basic sweeper, but it builds and checks every job before the first file is written.

    With `search.trials` it tries some points of the values and intervals instead of all values (`search.py`).

    A failed or diverged job does not end the sweep; the exit code tells of it at the end.

    Args:
      params: swept keys that a config sets (`hydra.sweeper.params`); the command line replaces them.
    """

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params
        self.config: Any = None
        self.hydra_context: Any = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        from hydra_plugins.fused.compose import composer
        from hydra_plugins.fused.search import Searching
        from research import app, config
        from research.compose import check_count, explained, refused
        from research.sweep.device import use_compile_cache
        from research.sweep.folder import check_held

        arguments = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        config.register_resolvers()
        use_compile_cache()
        loader = self.hydra_context.config_loader
        with explained(arguments):
            overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
            for override in overrides:
                if override.is_sweep_override() and not config.is_swept(override.key_or_group):
                    key = override.key_or_group
                    raise refused(key, f"one command has one {key}; give one value")
            if search := config.search_of(self.config):
                return Searching(overrides, self.config, loader, self.launcher, search).run()
            check_count(overrides)
            (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
            compose = composer(loader, self.config).compose
            composed = [compose(overrides) for overrides in jobs]
            if app.check(
                [config.job_of(point.tree(), point.base.choices, point.overrides) for point in composed], self.config
            ):
                return []
            folder = config.folder_of(self.config)
            check_held(folder)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, Path(folder) / "multirun.yaml")
        returns = self.launcher.launch(jobs, initial_job_idx=0)
        app.show_table(folder)
        return returns
