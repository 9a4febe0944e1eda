"""The command: checks before Hydra starts, the Hydra task, exit codes. The only place that sees a config."""

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from research.compose import CONF, UNCOMPOSABLE, compose, first_choices, parse, refusals, refuse
from research.tree import ConfigError, recipe

STATUS_CODES = {"failed": 1, "diverged": 3}

NOT_SWEPT = ("name", "output_root", "objective", "trusted_packages", "sweep", "report")  # and what lies below them

LONGEST_NAME = 255  # bytes of a folder's name

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
        if len(self.name.encode()) > LONGEST_NAME:
            raise ConfigError("name", f"{self.name[:20]}...", f"is too long; at most {LONGEST_NAME} bytes")


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

    settings = ("name", "output_root", "seed", "objective", "trusted_packages")
    for key in (*settings, "model", "optimizer", "trainer", "data", "evaluation"):
        if key not in tree:
            raise ConfigError(key, None, f"every run needs this key; leave out ~{key}, or name a choice")
    named = {key: tree[key] for key in settings}
    build({**named, "name": "unnamed" if tree["name"] is None else tree["name"]}, Settings)
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

    return build(section_of(config, "sweep"), Options, key="sweep")


def section_of(config: DictConfig, key: str) -> dict[str, Any]:
    """A section of a config in plain values; empty where there is none.

    Raises:
      ConfigError: it is no section.
    """
    section = OmegaConf.select(config, key)
    if section is None:
        return {}
    if not isinstance(section, DictConfig):
        raise ConfigError(key, section, f"expected a section of keys; set those below it: {key}.KEY=...")
    return OmegaConf.to_container(section, resolve=True)  # type: ignore[return-value]


def executor_of(settings: Any) -> Any:
    """Where programs are trained: the keys of `hydra.launcher`."""
    from research.sweep.executors import Executor
    from research.tree import build

    plain: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else dict(settings)
    return build({key: value for key, value in plain.items() if key != "_target_"}, Executor, key="hydra.launcher")


def report_of(config: DictConfig) -> dict[str, Any]:
    """The `report:` section, checked, in plain values."""
    from research.report.spec import Report
    from research.tree import build, plain

    section = section_of(config, "report")
    build(section, Report, key="report")
    return plain(section)


def folder_of(config: DictConfig) -> Path:
    """The sweep folder: output_root/name, absolute."""
    return Path(str(config.output_root)).expanduser().absolute() / str(config.name)


def is_swept(key: str) -> bool:
    """Whether a key may have several values in one command."""
    return not any(key == name or key.startswith(f"{name}.") for name in NOT_SWEPT)


def run_id_of(config: DictConfig) -> str:
    """The folder name of a run: that of the run itself where its sweep has it, under whichever overrides."""
    from research.sweep.job import HASH_DIGITS
    from research.sweep.manifest import runs_in

    job = job_of_config(config)
    present = runs_in(folder_of(config), job.hash[:HASH_DIGITS])
    return next((path.name for path in present.values()), job.run_id)


def register_resolvers() -> None:
    """`${run_id:}`: the folder name of a run, from its config."""
    OmegaConf.register_new_resolver("run_id", lambda *, _root_: run_id_of(_root_), replace=True)


# ----------------------------------------------------------------------------------------------------------- running


def train(
    jobs: Sequence[Any],
    config: DictConfig,
    swept: Collection[str] | None = (),
    register: Callable[[Any, Path], None] | None = None,
    executor: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Check, plan, train and evaluate jobs of one command; their outcomes in order (`swept`: see `prepare`)."""
    from research.sweep.display import Display
    from research.sweep.prepare import prepare
    from research.sweep.program import use_compile_cache
    from research.sweep.run import run

    use_compile_cache()
    display, options = Display(), options_of(config)
    prepared = checked.pop(tuple(job.hash for job in jobs), None)
    if prepared is None:
        prepared = prepare(jobs, folder_of(config), options, objective=str(config.objective), swept=swept)
    display.plan(prepared.groups, prepared.beside)
    extra = {} if register is None else {"register": register}
    outcomes = run(
        prepared,
        jobs,
        name=str(config.name),
        objective=str(config.objective),
        options=options,
        display=display,
        executor=None if executor is None else executor_of(executor),
        report=report_of(config),
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
    alone = HydraConfig.get().mode == RunMode.RUN
    with refusals():
        (outcome,) = train([job_of_config(full)], full, () if alone else None)
    if alone:
        show_table(folder_of(full))
    if outcome.status not in ("completed", "stopped"):
        if not alone:  # Hydra's sweepers learn of it from an exception
            raise Diverged(f"{outcome.status}: {outcome.result['reason']}")
        return float("nan")
    return outcome.objective()


def show_table(folder: Path) -> None:
    """Print the table of a sweep folder, and where it is."""
    from rich.console import Console

    from research.report.collect import collect
    from research.report.markdown import markdown
    from research.report.spec import recorded
    from research.report.table import table_of

    console = Console(highlight=False)
    try:
        console.print(markdown(table_of(collect(folder), recorded(folder))), markup=False, soft_wrap=True)
    except ConfigError as error:  # the runs are good all the same
        console.print(f"no table: {error}", markup=False, soft_wrap=True)
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
    from research.sweep.manifest import hold
    from research.sweep.prepare import prepare

    options = options_of(config)
    report_of(config)
    launcher = section_of(config, "hydra.launcher")
    if str(launcher.get("_target_", "")).startswith("hydra_plugins.fused."):
        executor_of(launcher)
    if not options.plan_only:
        writable(folder_of(config))
        hold(folder_of(config))  # Hydra writes into the folder next
    prepared = prepare(jobs, folder_of(config), options, objective=str(config.objective))
    if options.plan_only:
        Display().plan(prepared.groups, prepared.beside)
        return True
    checked[tuple(job.hash for job in jobs)] = prepared
    return False


def check_before_sweeper(job: Any, config: DictConfig, given: Sequence[str]) -> None:
    """Refuse what another sweeper than ours would find out too late: it writes into the folder before any job is made.

    Args:
      job: one point of the sweep.
      config: of that point.
      given: overrides of the command, with all their values.
    """
    from research.runs.folder import writable
    from research.sweep.manifest import check_sweep, hold

    sweeper = section_of(config, "hydra.sweeper")
    if str(sweeper.get("_target_", "")).startswith("hydra_plugins.fused."):
        return
    if options_of(config).plan_only:
        remedy = "this sweeper chooses its points while it runs, so there is no plan; leave out hydra/sweeper"
        raise ConfigError("sweep.plan_only", True, remedy)
    report_of(config)
    keys = {override.key_or_group for override in parse(given) if override.is_sweep_override()}
    for section in ("params", "search_space"):
        keys |= set(sweeper.get(section) or {})
    for key in sorted(keys):
        if not is_swept(key):
            refuse(f"{key}: one command has one {key}; give one value")
    writable(folder_of(config))
    hold(folder_of(config))
    check_sweep(folder_of(config), [job], keys)


def main() -> None:
    """Entry point of `scripts/train.py`."""
    try:
        with refusals():
            _main()
    finally:
        if "research.sweep.manifest" in sys.modules:
            from research.sweep.manifest import release

            release()


def _main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands every error on, instead of printing a traceback of its own
    from hydra._internal.utils import get_args_parser

    arguments = get_args_parser().parse_args()
    other = (arguments.help, arguments.hydra_help, arguments.cfg, arguments.info, arguments.shell_completion)
    if sum(map(bool, (*other[2:], arguments.run, arguments.multirun))) > 1:
        refuse("only one of --run, --multirun, --cfg, --info and --shell-completion can be given")
    if arguments.resolve and not (arguments.cfg or arguments.help):
        refuse("--resolve: it goes with --cfg or --help")
    register_resolvers()
    if not any(other) and arguments.config_name is None and arguments.config_path is None:
        overrides = first_choices(arguments.overrides) if arguments.multirun else list(arguments.overrides)
        with refusals():
            config = compose(overrides, arguments.config_dir)
            if config.name is None:
                # one name for the whole command, whichever sweeper and launcher: a time would differ from job to job
                sys.argv.append(f"name={time.strftime('%Y-%m-%d_%H-%M-%S')}")
                overrides.append(sys.argv[-1])
                config.name = sys.argv[-1].partition("=")[2]
            job = job_of_config(config)
            if arguments.multirun:
                check_before_sweeper(job, config, arguments.overrides)
            else:
                from research.sweep.program import use_compile_cache

                use_compile_cache()
                if check([job], config):
                    return
    import hydra

    try:
        with refusals(arguments.overrides):
            hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(task)()
    except UNCOMPOSABLE as error:
        if not any(other):  # of a task it is a bug
            raise
        refuse(f"this configuration cannot be shown ({error})")
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
        recipe = build(tree, key="data", trusted=arguments.trust)
        columns = encode_rows(run, load_data(recipe), arguments.part, arguments.clusters, recipe.fold)
        write_table(arguments.output, columns)
    sys.stderr.write(f"wrote {len(columns['row'])} rows of {', '.join(columns)} to {arguments.output}\n")
