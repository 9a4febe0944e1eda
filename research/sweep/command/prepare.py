"""Everything that a command checks before it writes anything."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from research import environment
from research.runs.folder import RunFolder
from research.sweep.command.choosing import check_objective, check_pruning
from research.sweep.job import HASH_DIGITS, BoundJob, Job, bind
from research.sweep.limits import check_memory
from research.sweep.memory import fitted
from research.sweep.options import Options
from research.sweep.resume.begun import begun_groups, fresh_plan
from research.sweep.resume.manifest import check_sweep, planned_runs, read_manifest, runs_in
from research.sweep.resume.results import Outcome, Workload, finished, own_result
from research.sweep.warm_start import check_warm_start
from research.tree import ConfigError, canonical, flatten, nearest, plain


def prepare(
    jobs: Sequence[Job], folder: Path, options: Options, *, objective: str = "", swept: Collection[str] | None = ()
) -> Workload:
    """Load the data, bind the jobs, compare them with what the folder holds, and group them. Nothing is written.

    Args:
      jobs: of the command.
      folder: of the sweep.
      options: of the sweep.
      objective: is refused if training cannot give it; empty means none.
      swept: keys that a sweeper varies beyond what these jobs show. None means that they are not known, because these
        jobs are part of a sweep that was checked as a whole before.

    Raises:
      ConfigError: a job cannot run, or the folder belongs to another sweep.
    """
    unique = list({job.hash: job for job in jobs}.values())
    check_twins(jobs)
    if swept is not None:
        check_sweep(folder, unique, swept)
    environment.check()
    environment.described()  # refuses a device that is not there
    present = runs_in(folder)
    todo, done, again, kept = [], {}, [], []
    for job in unique:
        path = present.get(job.hash[:HASH_DIGITS])
        result = None if path is None else _result(RunFolder(path), job)
        bound = bind(job)
        if path is None or result is None or result["status"] not in options.kept:
            todo.append(bound)
            continue
        _check_same_data(bound, result.get("data_sha256"), f"of the finished run {path}")
        done[job.hash] = Outcome(job, path, result)
        kept.append(bound)
        if result.get("evaluation") != plain(job.evaluation) and result["status"] not in ("diverged", "failed"):
            again.append((bound, path))
    manifest = read_manifest(folder) or {"runs": {}, "groups": {}}
    recorded = {run.get("config_hash"): run.get("data_sha256") for run in planned_runs(manifest).values()}
    for bound in todo:
        _check_same_data(bound, recorded.get(bound.job.hash), f"that {bound.job.run_id} was begun with")
    check_data(todo, present.values())
    for bound in todo:
        check_warm_start(bound)
    begun = begun_groups(folder, manifest["groups"], todo, [*todo, *kept], present, options)
    members = {bound.job.hash: bound.job for group in begun for bound in group.members}
    named = {job.hash for job in unique}
    # A group is restored whole, but this command does not change results of members that it does not name.
    others = [job for digest, job in members.items() if digest not in named]
    done |= finished(others, folder, dataclasses.replace(options, retry="none"))
    fresh = fresh_plan(folder, [bound for bound in todo if bound.job.hash not in members], options)
    for group in fresh:
        check_memory(group.members[0].job.model, group.parameters, group.bytes / group.width)
    for group in begun:  # its width is fixed, and its `bytes` are those of one member
        check_memory(group.members[0].job.model, group.parameters, group.bytes * group.width, group.width)
    groups = begun + [part for group in fresh for part in fitted(group, options)]
    for group in groups:
        if objective.startswith("validation/") and group.metrics and objective not in group.metrics:
            remedy = f"no such metric{nearest(objective, group.metrics)}; known: {', '.join(group.metrics)}"
            raise ConfigError("objective", objective, remedy)
    if objective and unique:
        check_objective(objective, [*todo, *kept], [name for group in groups for name in group.metrics])
    check_pruning(options, groups)
    return Workload(folder, todo, done, again, groups)


def _result(run: RunFolder, job: Job) -> dict | None:
    """The result of a job in a folder whose name has its hash digits; None if there is none.

    Raises:
      ConfigError: the folder holds another run, or the result is damaged.
    """
    if run.config.exists() and run.read_config().get("config_hash") != job.hash:
        remedy = f"{run.path} holds the run of another configuration; choose another name="
        raise ConfigError("name", run.path.parent.name, remedy)
    return own_result(run, job)


def _check_same_data(bound: BoundJob, recorded: str | None, run: str) -> None:
    """Refuse data whose hash is not the recorded one."""
    if recorded is not None and recorded != bound.dataset.sha256:
        raise ConfigError("data", bound.dataset.name, f"the data are not those {run}; choose another name=")


def check_data(todo: Sequence[BoundJob], folders: Iterable[Path]) -> None:
    """Refuse to train on data that have changed since other runs of the same recipe here were trained.

    Raises:
      ConfigError: they have.
    """
    without_fold = lambda tree: canonical({key: value for key, value in tree["data"].items() if key != "fold"})
    bounds = {without_fold(bound.job.tree()): bound for bound in todo}
    for path in folders if bounds else ():
        run = RunFolder(path)
        result = run.read_result() or {}  # a damaged result is refused here, since the summary reads all of them
        bound = bounds.get(without_fold(run.read_config()["config"]))
        if bound is not None:
            _check_same_data(bound, result.get("data_sha256"), f"of the run {path}")


def check_twins(jobs: Sequence[Job]) -> None:
    """Refuse jobs with one hash that differ in keys that are not hashed: they would share a run folder.

    Raises:
      ConfigError: naming the key.
    """
    seen: dict[str, Job] = {}
    for job in jobs:
        twin = seen.setdefault(job.hash, job)
        for section in () if twin is job else ("evaluation", "data"):
            before, now = (flatten({section: plain(getattr(each, section))}) for each in (twin, job))
            for key in now:
                if now[key] != before.get(key):
                    remedy = f"the same run is asked for with {before.get(key)}; {key} cannot be swept, give one value"
                    raise ConfigError(key, now[key], remedy)
