"""A command from what was prepared to run folders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from research.runs.folder import RunFolder, writable
from research.runs.summary import summary
from research.sweep import record
from research.sweep.display import Display
from research.sweep.elsewhere import send_out
from research.sweep.executors import Executor
from research.sweep.finish import evaluate_again
from research.sweep.goodput import describe
from research.sweep.job import Bound, Job
from research.sweep.ledger import Sweep
from research.sweep.manifest import configurations, locked, record_report, write_manifest
from research.sweep.plan import Options
from research.sweep.prepare import Outcome, Prepared, ended
from research.sweep.units import train


def run(
    prepared: Prepared,
    jobs: Sequence[Job],
    *,
    name: str,
    objective: str,
    options: Options,
    display: Display,
    executor: Executor | None = None,
    register: Callable[[Bound, RunFolder], None] = lambda bound, run: None,
    report: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Train and evaluate what is to be done; one outcome per job, in the order given.

    `register(bound, run)` is called before a run's first file is written (Hydra writes its own files there).
    `report` is recorded in `sweep.json`: the table that the sweep is made for.
    """
    writable(prepared.folder)
    with locked(prepared.folder) as lease:
        sweep = Sweep(prepared, jobs, name, objective, options, display, lease)
        planned = {bound.job.hash for bound in prepared.todo}
        for bound, path in prepared.again:
            display.note(f"evaluating again: {path.name}")
            result = evaluate_again(bound, RunFolder(path, lease), sweep.outcomes[bound.job.hash].result)
            sweep.outcomes[bound.job.hash] = Outcome(bound.job, path, result)
        if not prepared.todo:
            record_report(prepared.folder, report, lease)
        else:
            bounds = {bound.job.hash: bound for group in prepared.groups for bound in group.bounds}
            write_manifest(prepared.folder, list(bounds.values()), name, prepared.groups, lease)
            record_report(prepared.folder, report, lease)
            for unit in (unit for group in prepared.groups for unit in group.units):
                if any(bound.job.hash in planned and ended(sweep.folder(bound).path) for bound in unit.bounds):
                    sweep.forget(unit.id)  # of an earlier try
            for name in prepared.outdated:
                sweep.forget(name)
            if prepared.outdated:
                display.note("what an older version had saved of unfinished runs is not used; they begin anew")
            for bound in bounds.values():
                folder = sweep.folder(bound)
                if bound.job.hash in planned:
                    register(bound, folder)
                folder.write_config(record.config_content(bound, name))
            if executor is not None and executor.executor != "inline":
                send_out(sweep, executor, lease)
            else:
                with display.training(prepared.groups):
                    train(sweep)
                display.note(describe(sweep.goodputs))
        summary(prepared.folder, configurations(prepared.folder), lease)
        return [sweep.outcomes[job.hash] for job in jobs if job.hash in sweep.outcomes]
