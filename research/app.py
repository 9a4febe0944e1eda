"""The training command: every check comes before Hydra starts, then Hydra calls `task` or the fused launcher."""

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from research.compose import (
    CONF,
    UNCOMPOSABLE,
    check_count,
    check_files,
    check_places,
    compose,
    first_choices,
    parse,
    refusals,
    refused,
)
from research.config import (
    command_keys,
    executor_of,
    folder_of,
    is_swept,
    job_of_config,
    objective_of,
    options_of,
    register_resolvers,
    report_of,
    search_of,
    section_of,
)
from research.errors import did_you_mean, nearest_folder
from research.tree import ConfigError

STATUS_CODES = {"failed": 1, "diverged": 3}

statuses: list[str] = []  # the status of every run of this command
checked: dict[tuple[str, ...], Any] = {}  # hashes of jobs -> what `check` prepared for them before Hydra started
silent: set[str] = set()  # what a call from Python does not print: "table", "progress"


class Diverged(RuntimeError):
    """Handed to Hydra as the return value of a run that diverged."""


def train(
    jobs: Sequence[Any],
    config: DictConfig,
    swept: Collection[str] | None = (),
    register: Callable[[Any, Any], None] | None = None,
    executor: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Check, plan, train and evaluate the jobs of one command.

    Args:
      config: of the command, with its `hydra` node.
      swept: keys that have several values in the command, see `research.sweep.command`.
      register: is called once for every job, with its bound job and its run folder, before training.
      executor: the keys of `hydra.launcher`; None trains in this process.

    Returns:
      The outcome of every job, in their order.
    """
    from research.sweep.command import prepare, run
    from research.sweep.device import use_compile_cache
    from research.sweep.manifest import named
    from research.sweep.train.display import Display

    use_compile_cache()
    display, options = Display(quiet="progress" in silent), options_of(config)
    prepared = checked.pop(tuple(job.hash for job in jobs), None)
    if prepared is None:
        jobs = named(jobs, folder_of(config), {*command_keys, *(swept or ())})
        prepared = prepare(jobs, folder_of(config), options, objective=objective_of(config), swept=swept)
    display.plan(prepared.groups, prepared.beside)
    extra = {} if register is None else {"register": register}
    outcomes = run(
        prepared,
        jobs,
        name=str(config.name),
        objective=objective_of(config),
        options=options,
        display=display,
        executor=None if executor is None else executor_of(executor),
        report=report_of(config),
        **extra,
    )
    statuses.extend(outcome.status for outcome in outcomes)
    return outcomes


def task(config: DictConfig) -> float:
    """Train one run, as Hydra's task in a command; see `point`."""
    with refusals():  # Hydra would catch an exception
        return point(config)


def point(config: DictConfig) -> float:
    """Train one run.

    Returns:
      The objective that Hydra's sweepers get; NaN if the run did not complete.

    Raises:
      Diverged: the run did not complete, in a sweep.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    full = config.copy()
    with open_dict(full):
        full["hydra"] = HydraConfig.get()
    alone = HydraConfig.get().mode == RunMode.RUN
    (outcome,) = train([job_of_config(full)], full, () if alone else None)
    if alone:
        show_table(folder_of(full))
    if outcome.status not in ("completed", "stopped"):
        if not alone:  # Hydra's sweepers learn of a failure by an exception
            raise Diverged(f"{outcome.status}: {outcome.result['reason']}")
        return float("nan")
    return outcome.objective()


def show_table(folder: Path, search: bool = False) -> None:
    """Print the table of a sweep folder, its best run, and the commands that show more of it.

    Of a search the best run is left out, because its best point is printed.
    """
    if "table" in silent:
        return
    from rich.console import Console

    from research.report.collect import collect
    from research.report.page_data import best_line, best_run
    from research.report.spec import recorded
    from research.report.table import measured, table_of
    from research.report.terminal import show

    console = Console(highlight=False)
    shown, best = os.path.relpath(folder), None
    try:
        runs = collect(folder)
        section = recorded(runs.plan, folder)
        table = table_of(measured(runs, section, folder), section)
        show(table)
        best = None if search else best_run(runs, table.metrics)
    except ConfigError as error:  # without a table the runs are still valid
        console.print(f"no table: {error}", markup=False, soft_wrap=True)
    if best is not None:
        console.print(f"\n{best_line(*best, shown)}", markup=False, soft_wrap=True)
    console.print(
        f"\nruns in {shown}; tensorboard --logdir {shown}; python scripts/report.py {shown}",
        markup=False,
        soft_wrap=True,
    )


def note(text: str) -> None:
    """Print one line of a search."""
    from research.sweep.train.display import Display

    Display(quiet="table" in silent).note(text)


def check(jobs: Sequence[Any], config: DictConfig) -> bool:
    """Refuse everything that can be refused, before a file is written.

    Returns:
      True if the command asked for the plan only, which is printed here.
    """
    from research.sweep.train.display import Display

    prepared = checked_work(jobs, config)
    if options_of(config).plan_only:
        Display(quiet="progress" in silent).plan(prepared.groups, prepared.beside)
        return True
    checked[tuple(job.hash for job in jobs)] = prepared
    return False


def check_search(jobs: Sequence[Any], config: DictConfig, keys: Collection[str]) -> str:
    """Refuse a search that cannot be made, before a file is written.

    Args:
      jobs: at points that show whether the keys can be searched.
      keys: that are searched.

    Returns:
      The objective: the named one, or one that measures the same at all points; empty if the folder's study names it.

    Raises:
      ConfigError: a point cannot be trained, or no metric can judge all points.
    """
    from research.sweep.choosing import check_objective, comparable
    from research.sweep.folder import SEARCH, runs_in

    folder = folder_of(config)
    if not (begun := (folder / SEARCH).exists()) and runs_in(folder):
        raise ConfigError("name", folder.name, f"{folder} holds a sweep that is no search; choose another name=")
    prepared = checked_work(jobs, config, keys)
    objective = objective_of(config)
    if begun:
        return objective
    names = [group.metrics for group in prepared.groups]
    known = [name for name in names[0] if all(name in others for others in names)]
    if not known:
        group = next(group for group in prepared.groups if not group.metrics)
        raise ConfigError("model", type(group.members[0].model).__name__, group.reason)
    objective = objective or comparable(prepared.todo, known, sorted(keys)) or ""
    if not objective:
        remedy = f"no metric of the validation rows measures the same for every {', '.join(keys)}; search fewer keys"
        raise ConfigError("objective", None, remedy)
    check_objective(objective, prepared.todo, known, sorted(keys))
    return objective


def checked_work(jobs: Sequence[Any], config: DictConfig, keys: Collection[str] = ()) -> Any:
    """The workload of some jobs after every check; nothing is written but the lease on the folder.

    Args:
      keys: that the command varies beyond what these jobs show.
    """
    from research.runs.files import writable
    from research.sweep.choosing import check_table
    from research.sweep.command import prepare
    from research.sweep.folder import hold
    from research.sweep.manifest import named

    check_places(config)
    options = options_of(config)
    report = report_of(config)
    launcher = section_of(config, "hydra.launcher")
    if str(launcher.get("_target_", "")).startswith("hydra_plugins.fused."):
        executor = executor_of(launcher).executor
        if options.across and executor != "inline":
            remedy = f"workers do not compare their programs with each other ({executor}); set sweep.peers=program"
            raise ConfigError("sweep.peers", options.peers, remedy)
    if not options.plan_only:
        writable(folder_of(config))
        hold(folder_of(config))  # next, Hydra writes into the folder
    jobs = named(jobs, folder_of(config), command_keys)
    prepared = prepare(jobs, folder_of(config), options, objective=objective_of(config), swept=keys)
    known = [name for group in prepared.groups for name in group.metrics]
    check_table(report, jobs, prepared.todo, known)
    return prepared


def check_before_sweeper(job: Any, config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Refuse what a sweeper other than ours would find too late: it writes into the folder before any job exists.

    Args:
      job: one point of the sweep.
      config: the config of that point.
      overrides: those of the command, with all their values.

    Returns:
      Overrides that the command needs besides: a search needs one metric that judges all its points.
    """
    from research.runs.files import writable
    from research.sweep.folder import hold
    from research.sweep.manifest import check_sweep

    check_places(config)
    sweeper = section_of(config, "hydra.sweeper")
    if str(sweeper.get("_target_", "")).startswith("hydra_plugins.fused."):
        return []
    if search := search_of(config):
        raise ConfigError(
            "search.trials", search.trials, "only the sweeper of this project reads it; leave out hydra/sweeper"
        )
    if options_of(config).plan_only:
        remedy = "this sweeper chooses its points while it runs, so there is no plan; leave out hydra/sweeper"
        raise ConfigError("sweep.plan_only", True, remedy)
    report_of(config)
    keys = swept_keys(config, overrides)
    for key in sorted(keys):
        if not is_swept(key):
            raise refused(key, f"one command has one {key}; give one value")
    writable(folder_of(config))
    hold(folder_of(config))
    check_sweep(folder_of(config), [job], keys)
    if "basic_sweeper" in str(sweeper.get("_target_")):  # it tries all points and chooses between none
        return []
    objective = search_for(job, config, sorted(keys), sweeper)
    return [f"objective={objective}"] if config.objective is None else []


def swept_keys(config: DictConfig, overrides: Sequence[str]) -> set[str]:
    """The keys that a command with these overrides sweeps, with those that the config of its sweeper names."""
    keys = {override.key_or_group for override in parse(overrides) if override.is_sweep_override()}
    sweeper = section_of(config, "hydra.sweeper")
    return keys.union(*(sweeper.get(section) or {} for section in ("params", "search_space")))


def search_for(job: Any, config: DictConfig, swept: Sequence[str], sweeper: Any) -> str:
    """The metric by which a search over the keys `swept` chooses: the named one, or one that is comparable throughout.

    Raises:
      ConfigError: no metric is comparable, or the sweeper would look for the worst value.
    """
    from research.sweep.choosing import check_direction, check_objective, comparable, sought
    from research.sweep.job import bind
    from research.sweep.measure import measure

    bounds = [bind(job)]
    measured = measure(bounds[0])
    if measured.problem:
        raise ConfigError("model", type(bounds[0].model).__name__, measured.problem)
    known = measured.metrics
    objective = objective_of(config) or comparable(bounds, known, swept)
    if not objective:
        remedy = f"no metric of the validation rows measures the same for every {', '.join(swept)}; sweep fewer keys"
        raise ConfigError("objective", None, remedy)
    check_objective(objective, bounds, known, swept)
    check_direction(objective, *sought(sweeper, objective))
    return objective


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse options of Hydra that contradict each other, files that it could not read, and sweeps of too many jobs."""
    actions = (arguments.cfg, arguments.info, arguments.shell_completion, arguments.run, arguments.multirun)
    if sum(map(bool, actions)) > 1:
        raise ConfigError("", None, "only one of --run, --multirun, --cfg, --info and --shell-completion can be given")
    if arguments.resolve and not (arguments.cfg or arguments.help):
        raise refused("--resolve", "it goes with --cfg or --help")
    if arguments.experimental_rerun is not None:
        remedy = "it would unpickle a file; give the command of the run again (its result.json)"
        raise refused("--experimental-rerun", remedy)
    overrides = parse(arguments.overrides)
    paths = [override.value() for override in overrides if override.key_or_group == "hydra.searchpath"]
    searched = [str(path).removeprefix("file://") for value in paths if isinstance(value, list) for path in value]
    for option, folder in (("--config-dir", arguments.config_dir), ("--config-path", primary_folder(arguments))):
        if folder is not None and not Path(folder).is_dir():
            meant = did_you_mean(nearest_folder(Path(folder)), f"{option}=")
            raise refused(f"{option}={folder}", f"no such folder{meant}")
    users_primary = primary_folder(arguments) if arguments.config_path else None
    for folder in (arguments.config_dir, users_primary, *searched):
        if folder is not None:
            check_files(folder)
    if arguments.multirun:
        searches = any(override.key_or_group == "search.trials" for override in overrides)
        for counted in [[override] for override in overrides] if searches else [overrides]:  # no product is tried
            check_count(counted)


def check_order(arguments: Sequence[str]) -> None:
    """Refuse `-m` between the keys, and keys with dashes; the error is what to write."""
    for argument in arguments:
        if re.match(r"--?[a-z_]+(\.[a-z_.]+)?=", argument) and not argument.startswith(("--config", "--package")):
            raise refused(argument, f"keys have no dashes; write {shlex.quote(argument.lstrip('-'))}")
    flags = [argument for argument in arguments if argument.startswith("-")]
    if set(flags) <= {"-m", "--multirun"}:
        command = ["python", "scripts/train.py", "-m", *(argument for argument in arguments if argument not in flags)]
        raise refused(flags[0], f"it stands before all keys: {shlex.join(command)}")


def primary_folder(arguments: argparse.Namespace) -> Path:
    """The folder of the primary config: ours, or that of --config-path."""
    return Path(__file__).parent / (CONF if arguments.config_path is None else arguments.config_path)


def check_command(arguments: argparse.Namespace) -> bool:
    """Refuse what is wrong with the command before Hydra starts.

    Returns:
      True if the command asked for the plan only, which is printed here.
    """
    if arguments.resolve or arguments.package is not None:
        raise ConfigError("", None, "--resolve and --package belong to --cfg; add --cfg job")
    places = (arguments.config_dir, primary_folder(arguments), arguments.config_name or "train")
    job, config, more = first_point(arguments.overrides, arguments.multirun, *places)
    sys.argv.extend(more)
    if arguments.multirun:
        return False
    from research.sweep.device import use_compile_cache

    use_compile_cache()
    return check([job], config)


def name_by_time(config: DictConfig) -> str:
    """The time as the name of a sweep; a second sweep of the same second gets a number."""
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    names = (now, *(f"{now}_{number}" for number in range(2, 1000)))
    return next((name for name in names if not (folder_of(config).parent / name).exists()), now)


def first_point(overrides: Sequence[str], several: bool, *places: Any) -> tuple[Any, DictConfig, list[str]]:
    """Compose the first point of a command, and refuse what Hydra or a sweeper would find too late.

    Args:
      overrides: of the command.
      several: whether they may name several points.
      places: of the primary config and of further ones, see `compose`.

    Returns:
      The job of the first point, its config, and overrides that the command needs besides.
    """
    config, more = compose(first_choices(overrides) if several else list(overrides), *places), []
    if config.name is None:
        # The name is fixed here for the whole command; Hydra would read the clock again for every job.
        config.name = name_by_time(config)
        more.append(f"name={config.name}")
    command_keys.clear()
    command_keys.update(swept_keys(config, overrides) if several else ())
    job = job_of_config(config)
    if (search := search_of(config)) and not several:
        remedy = "a search is a sweep over a range: -m {key}=64 'model.beta=interval(0.1,10)'"
        raise ConfigError("search.trials", search.trials, remedy)
    return job, config, more + (check_before_sweeper(job, config, overrides) if several else [])


def main() -> None:
    """Entry point of `scripts/train.py`."""
    try:
        with refusals():
            _main()
    finally:
        if "research.sweep.folder" in sys.modules:
            from research.sweep.folder import release

            release()


def _main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes every error on instead of printing its own traceback
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    arguments, rest = parser.parse_known_args()
    if rest:
        check_order(sys.argv[1:])
        parser.parse_args()  # refuses an option that it does not know
    asks_hydra = (arguments.help, arguments.hydra_help, arguments.cfg, arguments.info, arguments.shell_completion)
    if arguments.help:
        from research.explain import explain, topics_of

        if topics := topics_of(arguments.overrides):
            return explain(topics, arguments.config_dir)
    check_arguments(arguments)
    register_resolvers()
    if not any(asks_hydra) and check_command(arguments):
        return
    import hydra

    try:
        with refusals(arguments.overrides):
            hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(task)()
    except UNCOMPOSABLE as error:
        if not any(asks_hydra):  # raised by a task, so it is a bug
            raise
        # options of Hydra contradict each other, or a config cannot be shown
        raise ConfigError("", None, str(error)) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: finished runs are kept, the same command goes on with the rest\n")
        raise SystemExit(130) from None
    if statuses:
        raise SystemExit(max((STATUS_CODES.get(status, 0) for status in statuses), key=lambda code: (code == 1, code)))
