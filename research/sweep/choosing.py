"""Checks of the metrics by which a command chooses between jobs: objective, pruning and the table of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from research.errors import nearest
from research.metrics import FOLD, METRICS, base, comparison_keys, higher_is_better, judges
from research.sweep.job import BoundJob, Job, metric_dependencies
from research.sweep.options import Options
from research.sweep.plan import SCHEDULE, JobGroup
from research.tree import ConfigError, flatten

PARTS = ("train", "validation", "test")  # of the data, of which metrics are


def separating(metric: str, bounds: Sequence[BoundJob]) -> list[str]:
    """Keys in which the jobs differ and that change what a metric measures; folds and seeds do not count."""
    values = [values_of(bound.job) for bound in bounds]
    keys = [key for key in all_keys(metric, bounds) if key != FOLD]
    return [key for key in keys if key == "run_id" or len({repr(job.get(key)) for job in values}) > 1]


def all_keys(metric: str, bounds: Sequence[BoundJob]) -> list[str]:
    """Every key that changes what a metric measures for these jobs."""
    of_kinds = {type(bound.model): metric_dependencies(bound.model) for bound in bounds}
    return comparison_keys(metric, [values_of(bound.job) for bound in bounds], of_kinds.values())


def values_of(job: Job) -> dict[str, Any]:
    """Flat config and choices of a job, as a report has them."""
    return {**job.choices, **flatten(job.tree())}


def comparable(bounds: Sequence[BoundJob], known: Sequence[str], swept: Sequence[str] = ()) -> str | None:
    """The most suitable validation metric that measures the same for all jobs; None if there is none.

    Args:
      bounds: the jobs.
      known: names of the metrics that training gives.
      swept: further keys that will differ.
    """
    fitting = (name for name in judges(()) if name in known and not separating(name, bounds))
    return next((name for name in fitting if not set(swept) & set(all_keys(name, bounds))), None)


def check_objective(
    objective: str, bounds: Sequence[BoundJob], known: Sequence[str], swept: Sequence[str] = ()
) -> None:
    """Refuse an objective that does not measure the same for all jobs. `known`, `swept`: see `comparable`.

    Raises:
      ConfigError: naming a metric that does.
    """
    keys = [*separating(objective, bounds), *(key for key in all_keys(objective, bounds) if key in swept)]
    if keys := list(dict.fromkeys(keys)):
        remedy = f"set objective={comparable(bounds, known, swept) or 'null'}"
        raise ConfigError("objective", objective, f"{_why(keys, bounds)}; {remedy}")


def check_pruning(options: Options, groups: Sequence[JobGroup]) -> None:
    """Refuse to prune members by a metric that does not measure the same for their peers.

    Raises:
      ConfigError: naming a metric that does.
    """
    if options.across and groups:
        _check_across(options, groups)
    peers = [(group.members, group.metrics) for group in groups if options.prune != "none"]
    if options.across and groups:
        names = [name for name in groups[0].metrics if all(name in group.metrics for group in groups)]
        peers = [(tuple(bound for group in groups for bound in group.members), tuple(names))]
    for members, metrics in peers:
        monitor = members[0].job.trainer.monitor
        if keys := separating(monitor, members):
            metric = comparable(members, metrics)
            remedy = f"set trainer.monitor={metric}" if metric else "set sweep.prune=none"
            why = f"peers are judged by trainer.monitor={monitor}, and {_why(keys, members)}"
            raise ConfigError("sweep.prune", options.prune, f"{why}; {remedy}")


def _check_across(options: Options, groups: Sequence[JobGroup]) -> None:
    """Refuse to compare points across programs that do not advance in one rhythm.

    Raises:
      ConfigError: a group is trained in vmap mode, or a key of the schedule differs.
    """
    if any(group.mode == "vmap" for group in groups):
        raise ConfigError("sweep.peers", options.peers, "programs are compared in map mode only; set sweep.mode=map")
    trainers = [bound.job.trainer for group in groups for bound in group.members]
    for name in (*SCHEDULE, "monitor"):
        values = list(dict.fromkeys(getattr(trainer, name) for trainer in trainers))
        if len(values) > 1:
            remedy = f"points are compared at equal epochs by one metric; give one trainer.{name}, not {values[:2]}"
            raise ConfigError("sweep.peers", options.peers, remedy)


def check_table(
    section: Mapping[str, Any], jobs: Sequence[Job], bounds: Sequence[BoundJob], known: Sequence[str]
) -> None:
    """Refuse a table of the report that these jobs cannot fill.

    Its rows, its columns and what its means are over must be keys of a job. Its `select` keys must be settings, and the
    metric `by` must measure the same for all their values.

    Args:
      section: the `report:` section of the command.
      jobs: of the command.
      bounds: the jobs that are to be trained.
      known: names of the metrics that training gives.

    Raises:
      ConfigError: naming the key.
    """
    keys = list({name: None for job in jobs for name in values_of(job)})
    for option in ("rows", "columns", "over", "select"):
        for name in section.get(option) or ():
            if name not in keys:
                raise ConfigError(f"report.{option}", name, f"no job has this key{nearest(name, keys)}")
    check_names(section, jobs, known)
    by, chosen = section.get("by"), section.get("select") or ()
    no_settings = {*(section.get("rows") or ()), *(section.get("columns") or ()), "seed", FOLD}
    for key in chosen:
        if key in no_settings:
            remedy = "rows, columns, seeds and folds are no settings to choose; leave it out"
            raise ConfigError("report.select", key, remedy)
    if by is not None and (apart := [key for key in separating(by, bounds) if key in chosen]):
        remedy = f"set report.by={comparable(bounds, known) or 'null'}"
        raise ConfigError("report.by", by, f"{_why(apart, bounds)}; {remedy}")


def check_names(section: Mapping[str, Any], jobs: Sequence[Job], known: Sequence[str]) -> None:
    """Refuse names and decimals (`report.names`, `report.decimals`) of what no run of these jobs will have.

    Raises:
      ConfigError: naming what is unknown.
    """
    values = [values_of(job) for job in jobs]
    metrics = list(dict.fromkeys([*known, *(f"{part}/{name}" for part in PARTS for name in METRICS)]))
    nameable = dict.fromkeys(name for job in values for name in job)
    nameable |= dict.fromkeys(text for job in values for text in job.values() if isinstance(text, str))
    for option, names in (("names", [*nameable, *metrics]), ("decimals", metrics)):
        for name in section.get(option) or {}:
            if name not in names and not (name.startswith("baseline/") and base(name) in METRICS):
                kind = "key, metric or value" if option == "names" else "metric"
                raise ConfigError(f"report.{option}", name, f"no job has this {kind}{nearest(name, names)}")


def _why(keys: Sequence[str], bounds: Sequence[BoundJob]) -> str:
    if "run_id" in keys:
        return f"of a {type(bounds[0].model).__name__} no value of it is better than another"
    return f"it does not measure the same where {', '.join(keys)} differ{'s' * (len(keys) == 1)}"


# ----------------------------------------------------------------------------------------------------- other sweepers


def check_direction(objective: str, minimizes: bool | None, key: str) -> None:
    """Refuse a sweeper that looks for the worst value of its objective.

    Args:
      objective: the metric.
      minimizes: whether the sweeper looks for the lowest value; None if its config does not tell.
      key: the setting of the sweeper with the right value.

    Raises:
      ConfigError: it does.
    """
    better = "higher" if higher_is_better(objective) else "lower"
    if minimizes is not None and minimizes == (better == "higher"):
        remedy = f"{better} values of {base(objective)} are better, and the sweeper looks for the others; add {key}"
        raise ConfigError("objective", objective, remedy)


def sought(sweeper: Mapping[str, Any], objective: str) -> tuple[bool | None, str]:
    """Whether one of Hydra's sweepers (Optuna, Nevergrad, Ax) minimizes, and the setting that suits an objective."""
    high = higher_is_better(objective)
    if "direction" in sweeper:
        direction = getattr(sweeper["direction"], "name", sweeper["direction"])
        setting = f"hydra.sweeper.direction={'maximize' if high else 'minimize'}"
        return {"minimize": True, "maximize": False}.get(str(direction)), setting
    optim = sweeper.get("optim")
    if isinstance(optim, Mapping) and "maximize" in optim:
        return not optim["maximize"], f"hydra.sweeper.optim.maximize={str(high).lower()}"
    experiment = (sweeper.get("ax_config") or {}).get("experiment")
    if isinstance(experiment, Mapping) and "minimize" in experiment:
        return bool(experiment["minimize"]), f"hydra.sweeper.ax_config.experiment.minimize={str(not high).lower()}"
    return None, ""
