"""What a metric measures for the jobs of a command, before it chooses between them: objectives and pruning."""

from collections.abc import Mapping, Sequence
from typing import Any

from research.evaluation import Evaluation
from research.metrics import FOLD, base, comparison_keys, dependencies, higher_is_better, judges
from research.models.abilities import unmonitored
from research.sweep.job import Bound, Job
from research.sweep.plan import Group, Options
from research.tree import ConfigError, flatten, nearest


def depends(model: Any) -> dict[str, list[str]]:
    """Metric -> keys that change what it measures; `run_id` where it tells nothing of one run beside another."""
    of_model = dependencies(type(model), "model")
    of_model |= {name: ["run_id"] for name in unmonitored(model)}
    of_evaluation = dependencies(Evaluation, "evaluation")
    return {name: [*of_model.get(name, ()), *of_evaluation.get(name, ())] for name in {**of_model, **of_evaluation}}


def separating(metric: str, bounds: Sequence[Bound]) -> list[str]:
    """The keys in which jobs differ so that a metric measures something else; folds and seeds are passed over."""
    values = [values_of(bound.job) for bound in bounds]
    of_kinds = {type(bound.model): depends(bound.model) for bound in bounds}
    keys = [key for key in comparison_keys(metric, values, of_kinds.values()) if key != FOLD]
    return [key for key in keys if key == "run_id" or len({repr(own.get(key)) for own in values}) > 1]


def values_of(job: Job) -> dict[str, Any]:
    """Flat config and choices of a job, as a report has them."""
    return {**job.choices, **flatten(job.tree())}


def comparable(bounds: Sequence[Bound], known: Sequence[str], swept: Sequence[str] = ()) -> str | None:
    """The metric of the validation rows that is best suited to choose between jobs; None without any.

    Args:
      known: names of the metrics that training gives.
      swept: further keys that will differ.
    """
    fitting = (name for name in judges(()) if name in known and not separating(name, bounds))
    return next((name for name in fitting if not set(swept) & set(all_keys(name, bounds))), None)


def all_keys(metric: str, bounds: Sequence[Bound]) -> list[str]:
    """Every key that changes what a metric measures for these jobs."""
    of_kinds = {type(bound.model): depends(bound.model) for bound in bounds}
    return comparison_keys(metric, [values_of(bound.job) for bound in bounds], of_kinds.values())


def check_objective(objective: str, bounds: Sequence[Bound], known: Sequence[str], swept: Sequence[str] = ()) -> None:
    """Refuse an objective that measures something else for some of the jobs.

    Args:
      known, swept: as of `comparable`.

    Raises:
      ConfigError: it does.
    """
    keys = [*separating(objective, bounds), *(key for key in all_keys(objective, bounds) if key in swept)]
    if keys := list(dict.fromkeys(keys)):
        other = comparable(bounds, known, swept)
        remedy = f"set objective={other or 'null'}"
        raise ConfigError("objective", objective, f"{_why(keys, bounds)}; {remedy}")


def check_pruning(options: Options, groups: Sequence[Group]) -> None:
    """Refuse to give up members that are judged by a metric which measures something else for their peers.

    Raises:
      ConfigError: they would be.
    """
    for group in groups if options.prune != "none" else ():
        monitor = group.bounds[0].job.trainer.monitor
        if keys := separating(monitor, group.bounds):
            other = comparable(group.bounds, group.metrics)
            remedy = f"set trainer.monitor={other}" if other else "set sweep.prune=none"
            why = f"peers are judged by trainer.monitor={monitor}, and {_why(keys, group.bounds)}"
            raise ConfigError("sweep.prune", options.prune, f"{why}; {remedy}")


def check_table(section: Mapping[str, Any], jobs: Sequence[Job], bounds: Sequence[Bound], known: Sequence[str]) -> None:
    """Refuse a table of keys that no job has, or that chooses what is no setting or what its metric does not compare.

    Args:
      section: the `report:` section of the command.
      jobs: of the command.
      bounds: those that are to be trained.
      known: as of `comparable`.

    Raises:
      ConfigError: it is such a table.
    """
    there = list({name: None for job in jobs for name in values_of(job)})
    for option in ("rows", "columns", "select"):
        for name in section.get(option) or ():
            if name not in there:
                raise ConfigError(f"report.{option}", name, f"no job has this key{nearest(name, there)}")
    by, chosen = section.get("by"), section.get("select") or ()
    placed = {*(section.get("rows") or ()), *(section.get("columns") or ()), "seed", FOLD}
    if no_settings := [key for key in chosen if key in placed]:
        remedy = "rows, columns, seeds and folds are no settings to choose; leave it out"
        raise ConfigError("report.select", no_settings[0], remedy)
    if by is not None and (apart := [key for key in separating(by, bounds) if key in chosen]):
        remedy = f"set report.by={comparable(bounds, known) or 'null'}"
        raise ConfigError("report.by", by, f"{_why(apart, bounds)}; {remedy}")


def _why(keys: Sequence[str], bounds: Sequence[Bound]) -> str:
    if "run_id" in keys:
        return f"of a {type(bounds[0].model).__name__} no value of it is better"
    return f"it measures something else where {', '.join(keys)} differ{'s' * (len(keys) == 1)}"


# ----------------------------------------------------------------------------------------------------- other sweepers


def check_direction(objective: str, minimizes: bool | None, key: str) -> None:
    """Refuse a sweeper that looks for the worst value of its objective.

    Args:
      minimizes: whether it looks for the lowest value; None where its config does not tell.
      key: of that setting, with the value that is right.

    Raises:
      ConfigError: it does.
    """
    better = "higher" if higher_is_better(objective) else "lower"
    if minimizes is not None and minimizes == (better == "higher"):
        remedy = f"{better} values of {base(objective)} are better, and the sweeper looks for the others; add {key}"
        raise ConfigError("objective", objective, remedy)


def sought(sweeper: Mapping[str, Any], objective: str) -> tuple[bool | None, str]:
    """Whether one of Hydra's sweepers (Optuna, Nevergrad, Ax) minimizes, and its setting that suits an objective."""
    high = higher_is_better(objective)
    if "direction" in sweeper:
        found = sweeper["direction"]
        word = str(getattr(found, "name", found))
        suited = f"hydra.sweeper.direction={'maximize' if high else 'minimize'}"
        return {"minimize": True, "maximize": False}.get(word), suited
    optim = sweeper.get("optim")
    if isinstance(optim, Mapping) and "maximize" in optim:
        return not optim["maximize"], f"hydra.sweeper.optim.maximize={str(high).lower()}"
    experiment = (sweeper.get("ax_config") or {}).get("experiment")
    if isinstance(experiment, Mapping) and "minimize" in experiment:
        return bool(experiment["minimize"]), f"hydra.sweeper.ax_config.experiment.minimize={str(not high).lower()}"
    return None, ""
