"""What a composed configuration says: the job of each point, and the settings that a whole command shares.

Only `app`, `compose`, `encode` and the Hydra plugins see a Hydra config; below them everything is a typed spec.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from research.metrics import direction, undirected
from research.ranges import Seed
from research.tree import ConfigError, recipe

LONGEST_NAME = 255  # bytes that a file system allows in the name of a folder
# Keys that have one value in a command, and so have all keys below them.
NOT_SWEPT = ("name", "output_root", "objective", "trusted_packages", "sweep", "search", "report")
TOP_KEYS = ("name", "output_root", "seed", "objective", "trusted_packages")
command_keys: set[str] = set()  # the keys that the command of this process sweeps; they name its runs
SECTIONS = ("model", "data", "optimizer", "trainer", "evaluation", "sweep", "report")


@recipe
class Settings:
    """The keys that stand at the top of a configuration, outside every group."""

    name: str
    output_root: str
    seed: Seed
    objective: str | None
    trusted_packages: tuple[str, ...]

    def validate(self) -> None:
        plain = not any(letter < " " or letter in "/\\\x7f" for letter in self.name)
        if self.name in ("reference", ".", "..", "") or not plain:
            raise ConfigError(
                "name", self.name, "must be a plain folder name, and not 'reference' (the committed tables)"
            )
        if len(self.name.encode()) > LONGEST_NAME:
            raise ConfigError("name", f"{self.name[:20]}...", f"is too long; at most {LONGEST_NAME} bytes")
        if self.objective is not None and not self.objective.startswith("validation/"):
            remedy = "a search chooses by the validation rows; set {key}=null, which takes a metric of theirs that fits"
            raise ConfigError("objective", self.objective, remedy)
        if self.objective is not None and not direction(self.objective):
            remedy = f"{undirected(self.objective)}; set {{key}}=null, which takes a metric that fits"
            raise ConfigError("objective", self.objective, remedy)


def job_of(tree: Mapping[str, Any], choices: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """The job that a resolved config describes.

    Args:
      tree: the plain values of the config, without the `hydra` node.
      choices: config group -> chosen option.
      overrides: the part of the command line that belongs to this job.

    Raises:
      ConfigError: a key is missing, unknown or cannot have its value.
    """
    from research.sweep.job import Job
    from research.tree import build

    for key in (*TOP_KEYS, *SECTIONS):
        if key not in tree:
            raise ConfigError(key, None, f"every run needs this key; leave out ~{key}")
    top = {key: tree[key] for key in TOP_KEYS}
    build({**top, "name": "unnamed" if tree["name"] is None else tree["name"]}, Settings)
    chosen = {key: str(value) for key, value in choices.items() if "hydra" not in key and value}
    return Job.from_config(tree, chosen, overrides)


def job_of_config(config: DictConfig) -> Any:
    """The job of a config that Hydra composed, with its `hydra` node."""
    sections = OmegaConf.create({key: config._get_node(key) for key in config if key != "hydra"})
    tree: Any = OmegaConf.to_container(sections, resolve=True)
    return job_of(tree, config.hydra.runtime.choices, list(config.hydra.overrides.task))


def options_of(config: DictConfig) -> Any:
    """Settings of the sweep itself."""
    from research.sweep.options import Options
    from research.tree import build

    return build(section_of(config, "sweep"), Options, key="sweep")


def search_of(config: DictConfig) -> Any:
    """How the command searches; None if it does not."""
    from research.sweep.search.study import Search
    from research.tree import build

    section = section_of(config, "search")  # a primary config of a user's own may have none
    search = build(section, Search, key="search") if section else None
    return None if search is None or search.trials is None else search


def section_of(config: DictConfig, key: str) -> dict[str, Any]:
    """A section of a config in plain values; empty if the config has no such section.

    Raises:
      ConfigError: the key holds a single value.
    """
    section = OmegaConf.select(config, key)
    if section is None:
        return {}
    if not isinstance(section, DictConfig):
        raise ConfigError(key, section, f"expected a section of keys; set those below it: {key}.KEY=...")
    return OmegaConf.to_container(section, resolve=True)  # type: ignore[return-value]


def executor_of(settings: Any) -> Any:
    """The executor that `hydra.launcher` describes: where the programs are trained."""
    from research.sweep.options import Executor
    from research.tree import build

    plain: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else dict(settings)
    return build({key: value for key, value in plain.items() if key != "_target_"}, Executor, key="hydra.launcher")


def report_of(config: DictConfig) -> dict[str, Any]:
    """The `report:` section, checked, in plain values. Names, decimals, `over` and stability stand in it if set.

    So earlier versions can read the `sweep.json` of a sweep without them.
    """
    from research.report.spec import Report
    from research.tree import build, plain

    section = section_of(config, "report")
    build(section, Report, key="report")
    optional = ("names", "decimals", "over", "stability")
    return {key: value for key, value in plain(section).items() if value or key not in optional}


def objective_of(config: DictConfig) -> str:
    """The metric that Hydra's sweepers get; an empty text if the command names none."""
    return "" if config.objective is None else str(config.objective)


def folder_of(config: DictConfig) -> Path:
    """The sweep folder: output_root/name, absolute."""
    return Path(str(config.output_root)).expanduser().absolute() / str(config.name)


def is_swept(key: str) -> bool:
    """Whether a key may have several values in one command."""
    return not any(key == name or key.startswith(f"{name}.") for name in NOT_SWEPT)


def run_id_of(config: DictConfig) -> str:
    """The folder name of a run; a run that the sweep folder already has keeps its name."""
    from research.sweep.folder import check_held
    from research.sweep.manifest import named

    check_held(folder_of(config))  # next, Hydra writes into the folder of this name
    (job,) = named([job_of_config(config)], folder_of(config), command_keys)
    return job.run_id


def choices() -> str:
    """One line for each config group with its choices, for --help; parts that other files include are left out."""
    loader = GlobalHydra.instance().config_loader()
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    return "\n".join(f"{group}: {', '.join(loader.get_group_options(group))}" for group in sorted(groups))


def register_resolvers() -> None:
    """`${run_id:}`: the folder name of a run, from its config. `${choices:}`: the choices of every config group."""
    OmegaConf.register_new_resolver("run_id", lambda *, _root_: run_id_of(_root_), replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)
