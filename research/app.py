"""The command: checks before Hydra starts, the Hydra task, exit codes. The only place that sees a config."""

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

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
    refuse,
)
from research.metrics import direction, undirected
from research.ranges import Seed
from research.tree import ConfigError, nearest, recipe

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
            remedy = "searches choose on the validation rows; set {key}=null, which takes a metric of theirs that fits"
            raise ConfigError("objective", self.objective, remedy)
        if self.objective is not None and not direction(self.objective):
            remedy = f"{undirected(self.objective)}; set {{key}}=null, which takes a metric that fits"
            raise ConfigError("objective", self.objective, remedy)


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

    own = ("name", "output_root", "seed", "objective", "trusted_packages")
    for key in (*own, "model", "data", "optimizer", "trainer", "evaluation", "sweep", "report"):
        if key not in tree:
            raise ConfigError(key, None, f"every run needs this key; leave out ~{key}")
    named = {key: tree[key] for key in own}
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
    from research.sweep.options import Options
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
    from research.sweep.remote.executors import Executor
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


def objective_of(config: DictConfig) -> str:
    """The metric that sweepers get; empty where none is named."""
    return "" if config.objective is None else str(config.objective)


def folder_of(config: DictConfig) -> Path:
    """The sweep folder: output_root/name, absolute."""
    return Path(str(config.output_root)).expanduser().absolute() / str(config.name)


def is_swept(key: str) -> bool:
    """Whether a key may have several values in one command."""
    return not any(key == name or key.startswith(f"{name}.") for name in NOT_SWEPT)


def run_id_of(config: DictConfig) -> str:
    """The folder name of a run: that of the run itself where its sweep has it, under whichever overrides."""
    from research.sweep.job import HASH_DIGITS
    from research.sweep.resume.hold import check_held
    from research.sweep.resume.manifest import runs_in

    with refusals():
        check_held(folder_of(config))  # Hydra writes into the folder of this name next
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
    register: Callable[[Any, Any], None] | None = None,
    executor: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Check, plan, train and evaluate jobs of one command; their outcomes in order (`swept`: see `prepare`)."""
    from research.sweep.command.prepare import prepare
    from research.sweep.command.run import run
    from research.sweep.device import use_compile_cache
    from research.sweep.train.display import Display

    use_compile_cache()
    display, options = Display(), options_of(config)
    prepared = checked.pop(tuple(job.hash for job in jobs), None)
    if prepared is None:
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
    from research.sweep.command.choosing import check_table
    from research.sweep.command.prepare import prepare
    from research.sweep.resume.hold import hold
    from research.sweep.train.display import Display

    check_places(config)
    options = options_of(config)
    report = report_of(config)
    launcher = section_of(config, "hydra.launcher")
    if str(launcher.get("_target_", "")).startswith("hydra_plugins.fused."):
        executor_of(launcher)
    if not options.plan_only:
        writable(folder_of(config))
        hold(folder_of(config))  # Hydra writes into the folder next
    prepared = prepare(jobs, folder_of(config), options, objective=objective_of(config))
    known = [name for group in prepared.groups for name in group.metrics]
    check_table(report, jobs, prepared.todo, known)
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
    from research.sweep.resume.hold import hold
    from research.sweep.resume.manifest import check_sweep

    check_places(config)
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
    if "basic_sweeper" in str(sweeper.get("_target_")):  # tries all points, and chooses none
        return
    objective = search_for(job, config, sorted(keys), sweeper)
    if config.objective is None:  # one for the whole search, whose points come one after another
        sys.argv.append(f"objective={objective}")


def search_for(job: Any, config: DictConfig, swept: Sequence[str], sweeper: Any) -> str:
    """The objective of a search over the keys `swept`: the one that is named, or one that measures the same throughout.

    Raises:
      ConfigError: there is none, or the sweeper would look for its worst value.
    """
    from research.sweep.command.choosing import check_direction, check_objective, comparable, sought
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


def main() -> None:
    """Entry point of `scripts/train.py`."""
    try:
        with refusals():
            _main()
    finally:
        if "research.sweep.resume.hold" in sys.modules:
            from research.sweep.resume.hold import release

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
    given = parse(arguments.overrides)
    searched = [override.value() for override in given if override.key_or_group == "hydra.searchpath"]
    places = [str(place).removeprefix("file://") for value in searched if isinstance(value, list) for place in value]
    primary = Path(__file__).parent / (CONF if arguments.config_path is None else arguments.config_path)
    for option, folder in (("--config-dir", arguments.config_dir), ("--config-path", primary)):
        if folder is not None and not Path(folder).is_dir():
            refuse(f"{option}={folder}: no such folder")
    for folder in (arguments.config_dir, primary if arguments.config_path else None, *places):
        if folder is not None:
            check_files(folder)
    if arguments.experimental_rerun is not None:
        refuse("--experimental-rerun: it would unpickle a file; give the command of the run again (its result.json)")
    if arguments.multirun:
        check_count(given)
    if not any(other):
        if arguments.resolve or arguments.package is not None:
            refuse("--resolve and --package belong to --cfg; add --cfg job")
        overrides = first_choices(arguments.overrides) if arguments.multirun else list(arguments.overrides)
        with refusals():
            config = compose(overrides, arguments.config_dir, primary, arguments.config_name or "train")
            if config.name is None:
                # one name for the whole command, whichever sweeper and launcher: a time would differ from job to job
                sys.argv.append(f"name={time.strftime('%Y-%m-%d_%H-%M-%S')}")
                overrides.append(sys.argv[-1])
                config.name = sys.argv[-1].partition("=")[2]
            job = job_of_config(config)
            if arguments.multirun:
                check_before_sweeper(job, config, arguments.overrides)
            else:
                from research.sweep.device import use_compile_cache

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
        refuse(str(error))  # options of Hydra's that do not go together, or a config that cannot be shown
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
        epilog="example: python scripts/encode.py outputs/sweep/RUN data.path=new.csv --clusters 10",
    )
    parser.add_argument("run", metavar="RUN_FOLDER", help="folder of a finished run")
    parser.add_argument(
        "overrides", nargs="*", metavar="data...", help="what changes of the run's own data keys, as in train.py"
    )
    parser.add_argument("--output", default="codes.csv", metavar="FILE", help=".csv or .parquet (default: codes.csv)")
    parser.add_argument(
        "--part", default="all", choices=("all", "train", "validation", "test"), help="rows (default: all)"
    )
    parser.add_argument(
        "--clusters", type=int, metavar="K", help="also assign each row to one of the K clusters of the run"
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="package of the run's own model"
    )
    arguments = parser.parse_intermixed_args()
    foreign = [override for override in arguments.overrides if not override.lstrip("+").startswith(("data=", "data."))]
    if foreign:
        refuse(f"{foreign[0]}: only data=... and data.key=... say which rows to encode")
    with refusals():
        from research.data.loading import load as load_data
        from research.runs.export import cluster_centres, encode_rows, rows_for, write_table
        from research.runs.load import load
        from research.tree import build

        run = load(arguments.run, arguments.trust)
        own = {**shipped_keys(run.config["data"]["_target_"]), **run.config["data"], "root": None}
        tree = data_keys(own, arguments.overrides)
        recipe = build(tree, key="data", trusted=arguments.trust)

        def part_of(name: str) -> tuple[Any, Any, Any]:
            """Stored rows of one part, their numbers and their classes as stored."""
            try:
                source = recipe.stored_for(run.preparation) if changed else recipe.stored()
            except ConfigError as error:
                raise error.under("data") from error.__cause__
            for note in source.notes if changed else ():
                sys.stderr.write(f"note: {note}\n")
            examples, names = rows_for(run, source)
            if name == "all":
                numbers = np.arange(len(examples))
            else:
                numbers = load_data(recipe).split(recipe.fold).rows(cast(Any, name))
            return examples.take(numbers), numbers, None if names is None else names[numbers]

        import numpy as np

        changed = {**tree, "root": None} != own
        stored, numbers, names = part_of(arguments.part)
        centres = None
        if arguments.clusters is not None:
            centres = cluster_centres(run, arguments.clusters, lambda: training_rows(run, own, tree["root"]))
        columns = encode_rows(run, stored, numbers, centres, names)
        write_table(arguments.output, columns)
    sys.stderr.write(f"wrote {len(columns['row'])} rows of {', '.join(columns)} to {arguments.output}\n")


def shipped_keys(target: str) -> dict[str, Any]:
    """All keys of a recipe as shipped: an older version may have kept fewer."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        if content.get("_target_") == target:
            return content
    return {}


def data_keys(own: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The data keys of a run with those changed that are named.

    `data=NAME` of the run's own kind of data changes the keys that its file sets beside those that it starts from; of
    another kind it sets all keys.

    Args:
      own: data keys of the run.
      overrides: `data=NAME` and `data.key=value`, as for training.

    Raises:
      ConfigError: an unknown key.
    """
    tree = dict(own)
    parsed = parse(overrides)
    for override in parsed:
        if override.key_or_group == "data":
            composed: Any = OmegaConf.to_container(compose([override.input_line or ""]).data, resolve=False)
            if composed["_target_"] == tree["_target_"]:
                content: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{override.value()}.yaml"))
                named = {key: value for key, value in content.items() if key != "_target_"}
                tree |= {key: value for key, value in named.items() if "defaults" in content and key != "defaults"}
            else:
                tree = composed
    for override in parsed:
        if override.key_or_group != "data":
            key = override.key_or_group.removeprefix("data.")
            if override.is_sweep_override() or "." in key:
                raise ConfigError(override.key_or_group, override.value(), "expected one value for a key of the data")
            if key not in tree:
                raise ConfigError(override.key_or_group, override.value(), f"no such key{nearest(key, list(tree))}")
            tree[key] = override.value()
    missing = [key for key, value in tree.items() if isinstance(value, str) and value == "???"]
    if missing:
        raise ConfigError(f"data.{missing[0]}", "???", f"name it: data.{missing[0]}=...")
    return tree


def training_rows(run: Any, own: Mapping[str, Any], root: str | None) -> tuple[Any, Any]:
    """Stored training rows of a run and their numbers, read again.

    Raises:
      ConfigError: they cannot be read, or are not those of the training.
    """
    from research.data.loading import load as load_data
    from research.runs.export import rows_for
    from research.tree import build

    recipe = build({**own, "root": root}, key="data")
    try:
        dataset = load_data(recipe)
        if run.result.get("data_sha256", dataset.sha256) != dataset.sha256:
            raise ConfigError("data", dataset.name, "the data are no longer those of the training")
        numbers = dataset.split(recipe.fold).rows("train")
        return rows_for(run, recipe.stored())[0].take(numbers), numbers
    except ConfigError as error:
        remedy = "clusters are found on the training rows of the run, and these cannot be read"
        raise ConfigError("--clusters", error.value, f"{remedy} ({error.key}: {error.remedy})") from None
