"""Do the work that `prepare` has found: train, evaluate and record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from research.runs.files import writable
from research.runs.folder import RunFolder
from research.runs.summary import summary
from research.sweep.job import BoundJob, Job
from research.sweep.options import Options
from research.sweep.remote.dispatch import send_out
from research.sweep.remote.executors import Executor
from research.sweep.resume.hold import locked
from research.sweep.resume.manifest import (
    configurations,
    group_folder,
    read_manifest,
    record_report,
    saved,
    write_manifest,
)
from research.sweep.resume.results import Outcome, Workload, cannot_continue
from research.sweep.train import record
from research.sweep.train.display import Display
from research.sweep.train.finish import evaluate_again
from research.sweep.train.goodput import describe
from research.sweep.train.ledger import Ledger
from research.sweep.train.units import train


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
            result = evaluate_again(bound, RunFolder(path, lease), ledger.outcomes[bound.job.hash].result)
            ledger.outcomes[bound.job.hash] = Outcome(bound.job, path, result)
        if workload.todo:
            bounds = {bound.job.hash: bound for group in workload.groups for bound in group.members}
            write_manifest(workload.folder, list(bounds.values()), name, workload.groups, lease)
        record_report(workload.folder, report, lease)
        if workload.todo:
            _begin(ledger, register)
            if executor is not None and executor.executor != "inline":
                send_out(ledger, executor, lease)
            else:
                with display.training(workload.groups):
                    train(ledger)
                display.note(describe(ledger.goodputs))
            _delete_leftovers(ledger)
        summary(workload.folder, configurations(workload.folder), lease)
        return [ledger.outcomes[job.hash] for job in jobs if job.hash in ledger.outcomes]


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
        folder.write_config(record.config_content(bound, ledger.name))
