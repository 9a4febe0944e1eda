"""One command: `prepare` checks everything before anything is written, then `run` does the work."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import environment
from research.errors import nearest
from research.runs.files import writable
from research.runs.folder import RunFolder, short_commit
from research.runs.summary import summary
from research.sweep.begun import begun_groups, fresh_plan
from research.sweep.choosing import check_objective, check_pruning
from research.sweep.folder import (
    Outcome,
    Workload,
    cannot_continue,
    configurations,
    finished,
    group_folder,
    locked,
    own_result,
    runs_in,
    saved,
)
from research.sweep.job import HASH_DIGITS, BoundJob, Job, bind, check_warm_start
from research.sweep.manifest import check_sweep, planned_runs, read_manifest, record_report, write_manifest
from research.sweep.memory import check_memory, fitted
from research.sweep.options import Executor, Options
from research.sweep.train.display import Display
from research.sweep.train.finish import evaluate_again
from research.sweep.train.ledger import Ledger, config_content
from research.sweep.train.units import train
from research.tree import ConfigError, canonical, flatten, plain


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


# ------------------------------------------------------------------------------------------------------------- the work


def run(
    workload: Workload,
    jobs: Sequence[Job],
    *,
    name: str,
    objective: str,
    options: Options,
    display: Display,
    executor: Executor | None = None,
    register: Callable[[BoundJob, RunFolder], None] = lambda bound, run: None,
    report: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Train and evaluate what a command has to do; returns one outcome for every job, in the order of the jobs.

    Args:
      workload: what `prepare` returned.
      jobs: of the command.
      name: of the sweep.
      objective: the metric that Hydra's sweepers receive.
      options: of the sweep.
      display: shows what happens.
      executor: where groups are trained; None means in this process.
      register: called with a job and its folder before the first file of a run is written; Hydra writes its own files.
      report: the table that the sweep is made for; `sweep.json` records it.

    Raises:
      ConfigError: nothing can be written.
      LeaseLost: another command took the folder over.
      KeyboardInterrupt: the command was interrupted.
    """
    writable(workload.folder)
    with locked(workload.folder) as lease:
        ledger = Ledger(workload, jobs, name, objective, options, display, lease)
        for bound, path in workload.again:
            display.note(f"evaluating again: {path.name}")
            before = ledger.outcomes[bound.job.hash].result
            result = evaluate_again(bound, RunFolder(path, lease), before, ledger.shared["commit"])
            ledger.outcomes[bound.job.hash] = Outcome(bound.job, path, result)
        if note := _older_evaluations(workload, ledger.shared["commit"]):
            display.note(note)
        if workload.todo:
            bounds = {bound.job.hash: bound for group in workload.groups for bound in group.members}
            write_manifest(workload.folder, list(bounds.values()), name, workload.groups, lease)
        record_report(workload.folder, report, lease)
        if workload.todo:
            _begin(ledger, register)
            if executor is not None and executor.executor != "inline":
                from research.sweep.remote.dispatch import send_out

                send_out(ledger, executor, lease)
            else:
                with display.training(workload.groups):
                    train(ledger)
                display.goodput(ledger.spent)
            _delete_leftovers(ledger)
        summary(workload.folder, configurations(workload.folder), lease)
        return [ledger.outcomes[job.hash] for job in jobs if job.hash in ledger.outcomes]


def _older_evaluations(workload: Workload, commit: str | None) -> str | None:
    """A note on finished runs that this command leaves as they are and that other code evaluated; None without any.

    Uncommitted code has no name, so it counts as other code.
    """
    again = {bound.job.hash for bound, _ in workload.again}
    kept = [outcome.result for digest, outcome in workload.done.items() if digest not in again]
    by = [result.get("evaluation_commit") or result.get("commit") for result in kept if result["metrics"]]
    others = [name for name in by if commit and name and (name != commit or name.endswith("+"))]
    if not others:
        return None
    names = ", ".join(sorted({short_commit(name) for name in others}))
    finished_runs = "1 finished run stays" if len(others) == 1 else f"{len(others)} finished runs stay"
    how = "to evaluate again, give this command once with another evaluation=..., such as none, then as it is"
    return f"note: {finished_runs} as evaluated by commit {names}, without metrics that are newer; {how}"


def _delete_leftovers(ledger: Ledger) -> None:
    """Delete what killed commands left of groups of map mode that later commands planned anew: leases, old states."""
    folder = ledger.workload.folder
    for name, group in (read_manifest(folder) or {"groups": {}})["groups"].items():
        states = group_folder(folder, name)
        if group["mode"] != "map" or not states.exists() or saved(folder, name):
            continue
        if any(path.is_dir() for path in states.iterdir()):
            ledger.display.note(f"{states}: an older version saved this state; this one cannot use it and deletes it")
        ledger.forget(name)


def _begin(ledger: Ledger, register: Callable[[BoundJob, RunFolder], None]) -> None:
    """Delete checkpoints that no run can continue from, and write the first files of every run."""
    workload = ledger.workload
    planned = {bound.job.hash for bound in workload.todo}
    for unit in (unit for group in workload.groups for unit in group.units):
        paths = [ledger.folder(bound).path for bound in unit.members if bound.job.hash in planned]
        if any(map(cannot_continue, paths)):
            ledger.forget(unit.id)
    for bound in {bound.job.hash: bound for group in workload.groups for bound in group.members}.values():
        folder = ledger.folder(bound)
        if bound.job.hash in planned:
            register(bound, folder)
        folder.write_config(config_content(bound, ledger.name))
