"""The command: checks before Hydra starts, the Hydra task, exit codes. The only place that sees a config."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf, open_dict

from research.tree import ConfigError, nearest, recipe

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
USAGE_ERROR = 2
STATUS_CODES = {"failed": 1, "diverged": 3}

NOT_SWEPT = ("name", "output_root", "objective", "trusted_packages", "sweep.mode", "sweep.max_width", "sweep.plan_only")

statuses: list[str] = []  # of every run of this command
checked: dict[tuple[str, ...], Any] = {}  # hashes of jobs -> what was prepared for them before Hydra started


@recipe
class Settings:
    """The keys beside the groups."""

    name: str
    output_root: str
    seed: int
    objective: str
    trusted_packages: tuple[str, ...]

    def validate(self) -> None:
        if self.seed < 0 or self.seed >= 2**32:
            raise ConfigError("seed", self.seed, "must lie in 0 ... 4294967295")
        if self.name in ("reference", ".", "..") or not self.name or set(self.name) & set("/\\\0"):
            raise ConfigError(
                "name", self.name, "must be a plain folder name, and not 'reference' (the committed tables)"
            )


class Diverged(RuntimeError):
    """Handed to Hydra as the return value of a run that diverged."""


# ------------------------------------------------------------------------------------------------------ config -> job


def job_of(tree: Mapping[str, Any], choices: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """The job that a resolved config describes.

    Args:
      tree: plain values, without the `hydra` node.
      choices: config group -> option.
      overrides: those of this job on the command line.

    Raises:
      ConfigError: naming the key.
    """
    from research.sweep.job import Job
    from research.tree import build

    named = {key: tree[key] for key in ("name", "output_root", "seed", "objective", "trusted_packages")}
    build({**named, "name": tree["name"] or "unnamed"}, Settings)
    chosen = {key: str(value) for key, value in choices.items() if "hydra" not in key and value}
    return Job.from_config(tree, chosen, overrides)


def job_of_config(config: DictConfig) -> Any:
    """The job of a config that Hydra composed, with its `hydra` node."""
    sections = OmegaConf.create({key: config._get_node(key) for key in config if key != "hydra"})
    tree: Any = OmegaConf.to_container(sections, resolve=True)
    return job_of(tree, config.hydra.runtime.choices, list(config.hydra.overrides.task))


def options_of(config: DictConfig) -> Any:
    """Settings of the sweep itself."""
    from research.sweep.plan import Options
    from research.tree import build

    return build(OmegaConf.to_container(config.sweep, resolve=True), Options, key="sweep")


def folder_of(config: DictConfig) -> Path:
    """The sweep folder: output_root/name, absolute."""
    return Path(str(config.output_root)).expanduser().absolute() / str(config.name)


def register_resolvers() -> None:
    """`${run_id:}`: the folder name of a run, from its config."""
    OmegaConf.register_new_resolver("run_id", lambda *, _root_: job_of_config(_root_).run_id, replace=True)


# ----------------------------------------------------------------------------------------------------------- running


def train(jobs: Sequence[Any], config: DictConfig, register: Callable[[Any, Path], None] | None = None) -> list[Any]:
    """Check, plan, train and evaluate jobs of one command; their outcomes in order."""
    from hydra.types import RunMode

    from research.sweep.display import Display
    from research.sweep.prepare import prepare
    from research.sweep.program import use_compile_cache
    from research.sweep.run import run

    use_compile_cache()
    display, options = Display(), options_of(config)
    # a sweep is checked as a whole by our sweeper; another sweeper hands over some points at a time
    whole = config.hydra.mode != RunMode.MULTIRUN
    prepared = checked.pop(tuple(job.hash for job in jobs), None)
    if prepared is None:
        prepared = prepare(jobs, folder_of(config), options, whole=whole)
    display.plan(prepared.groups, len(prepared.done))
    extra = {} if register is None else {"register": register}
    outcomes = run(
        prepared,
        jobs,
        name=str(config.name),
        objective=str(config.objective),
        options=options,
        display=display,
        **extra,
    )
    statuses.extend(outcome.status for outcome in outcomes)
    return outcomes


def task(config: DictConfig) -> float:
    """Hydra's task: one run. Returns the objective."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    full = config.copy()
    with open_dict(full):
        full["hydra"] = HydraConfig.get()
    with refusals():
        (outcome,) = train([job_of_config(full)], full)
    if HydraConfig.get().mode == RunMode.RUN:
        show_table(folder_of(full))
    if outcome.status not in ("completed", "stopped"):
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # Hydra's sweepers learn of it from an exception
            raise Diverged(f"{outcome.status}: {outcome.result['reason']}")
        return float("nan")
    return outcome.objective()


def show_table(folder: Path) -> None:
    """Print the table of a sweep folder, and where it is."""
    from rich.console import Console

    from research.report import render
    from research.report.collect import collect
    from research.report.table import table

    console = Console(highlight=False)
    with contextlib.suppress(ConfigError):  # a folder without a finished run has no table
        console.print(render.markdown(table(collect(folder)), None), markup=False, soft_wrap=True)
    shown = os.path.relpath(folder)
    console.print(
        f"\nruns in {shown}; tensorboard --logdir {shown}; python scripts/report.py {shown}",
        markup=False,
        soft_wrap=True,
    )


def check(jobs: Sequence[Any], config: DictConfig) -> bool:
    """Everything that can be refused is refused here, before a file is written; True if only the plan was asked for."""
    from research.runs.folder import writable
    from research.sweep.display import Display
    from research.sweep.prepare import prepare

    options = options_of(config)
    prepared = prepare(jobs, folder_of(config), options)
    if options.plan_only:
        Display().plan(prepared.groups, len(prepared.done))
        return True
    writable(prepared.folder)
    checked[tuple(job.hash for job in jobs)] = prepared
    return False


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn a refused setting into one message on stderr and exit code 2."""
    try:
        yield
    except ConfigError as error:
        refuse(str(error))


def refuse(message: str) -> NoReturn:
    """Say why nothing was done, and leave."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(USAGE_ERROR)


# ------------------------------------------------------------------------------------------------------ before Hydra


def first_choices(overrides: Sequence[str]) -> list[str]:
    """The overrides of the first point of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    chosen = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_discrete_sweep():
            chosen.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        elif not override.is_sweep_override():
            chosen.append(override.input_line or "")
    return chosen


def compose(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The config of one run as Hydra composes it, with its `hydra` node; or a refusal with the nearest key."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException

    extra = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"]
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
            config = hydra.compose("train", overrides=[*overrides, *extra], return_hydra_config=True)
    except HydraException as error:
        refuse(explain(error, overrides))
    finally:
        GlobalHydra.instance().clear()
    HydraConfig.instance().set_config(config)
    return config


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint about an override in one line, with the nearest key or option."""
    import re

    text = str(error).strip()
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        given = next((o for o in overrides if o.partition("=")[0].lstrip("+~") == key), key)
        near = nearest(key, known_keys(overrides, key))
        return f"{given}: no such key{near}; all keys: python scripts/train.py --cfg job"
    option = re.search(r"Could not find '([^/']+(?:/[^/']+)*)/([^']+)'", text)
    if option:
        group, name = option.groups()
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"{group}={name}: no such choice{nearest(name, options)}; known: {', '.join(options)}"
    cause = error.__cause__
    return text + (f" ({str(cause).strip().splitlines()[0]})" if cause and str(cause).strip() else "")


def known_keys(overrides: Sequence[str], wrong: str) -> list[str]:
    """Dotted keys of the config without the value overrides (the group choices are kept)."""
    from research.tree import flatten

    groups = [
        o for o in overrides if "." not in o.partition("=")[0] and (CONF / o.partition("=")[0].lstrip("+")).is_dir()
    ]
    try:
        config = compose([o for o in groups if o.partition("=")[0] != wrong])
    except SystemExit:
        return []
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree.pop("hydra")
    return [key for key in [*flatten(tree), *tree] if not key.endswith("_target_")]


def main() -> None:
    """Entry point of `scripts/train.py`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from hydra._internal.utils import get_args_parser
    from hydra.errors import HydraException

    arguments = get_args_parser().parse_args()
    other = (arguments.help, arguments.hydra_help, arguments.cfg, arguments.info, arguments.shell_completion)
    register_resolvers()
    if not any(other) and arguments.config_name is None and arguments.config_path is None:
        try:
            overrides = first_choices(arguments.overrides) if arguments.multirun else list(arguments.overrides)
        except HydraException as error:
            refuse(str(error))
        with refusals():
            config = compose(overrides, arguments.config_dir)
            if config.name is None:
                # one name for the whole command, whichever sweeper and launcher: a time would differ from job to job
                sys.argv.append(f"name={time.strftime('%Y-%m-%d_%H-%M-%S')}")
                overrides.append(sys.argv[-1])
                config.name = sys.argv[-1].partition("=")[2]
            job = job_of_config(config)
            if not arguments.multirun:
                from research.sweep.program import use_compile_cache

                use_compile_cache()
                if check([job], config):
                    return
    import hydra

    try:
        hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(task)()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: finished runs are kept, the same command goes on with the rest\n")
        raise SystemExit(130) from None
    if statuses:
        raise SystemExit(max((STATUS_CODES.get(status, 0) for status in statuses), key=lambda code: (code == 1, code)))


def encode() -> None:
    """Entry point of `scripts/encode.py`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="encode.py",
        description="Write codes, scores and cluster assignments of the rows of a data set as CSV or Parquet.",
        epilog="example: python scripts/encode.py outputs/sweep/RUN data=arrays data.path=new.csv --clusters 10",
    )
    parser.add_argument("run", metavar="RUN_FOLDER", help="folder of a finished run")
    parser.add_argument(
        "overrides", nargs="*", metavar="data=...", help="the data, as in train.py; default: the run's own"
    )
    parser.add_argument("--output", default="codes.csv", metavar="FILE", help=".csv or .parquet (default: codes.csv)")
    parser.add_argument(
        "--part", default="all", choices=("all", "train", "validation", "test"), help="rows (default: all)"
    )
    parser.add_argument("--clusters", type=int, metavar="K", help="also assign each row to one of K k-means clusters")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package of the run's own model"
    )
    arguments = parser.parse_args()
    foreign = [override for override in arguments.overrides if not override.lstrip("+").startswith(("data=", "data."))]
    if foreign:
        refuse(f"{foreign[0]}: only data=... and data.key=... say which rows to encode")
    with refusals():
        from research.data.loading import load as load_data
        from research.runs.export import encode_rows, write_table
        from research.runs.load import load
        from research.tree import build

        run = load(arguments.run, arguments.trust)
        own = dict(run.config["data"])
        named = any(override.startswith("data=") for override in arguments.overrides)
        if named or not arguments.overrides:
            chosen = list(arguments.overrides)
            tree: Any = OmegaConf.to_container(compose(chosen).data, resolve=True) if chosen else {**own, "root": None}
        else:  # the run's own data with other keys
            import yaml

            tree = {**own, "root": None}
            for override in arguments.overrides:
                key, _, value = override.partition("=")
                tree[key.removeprefix("data.")] = yaml.safe_load(value)
        columns = encode_rows(
            run, load_data(build(tree, key="data", trusted=arguments.trust)), arguments.part, arguments.clusters
        )
        write_table(arguments.output, columns)
    sys.stderr.write(f"wrote {len(columns['row'])} rows of {', '.join(columns)} to {arguments.output}\n")
