"""The programs of a sweep under way, trained by workers elsewhere."""

import contextlib
import dataclasses
import os
from pathlib import Path

from research import environment
from research.runs.folder import RunFolder
from research.runs.lease import Lease
from research.sweep import record
from research.sweep.dispatch import dispatch
from research.sweep.executors import Executor
from research.sweep.ledger import Sweep
from research.sweep.prepare import Outcome


def send_out(sweep: Sweep, executor: Executor, lease: Lease) -> None:
    """Have the programs trained by workers elsewhere, under this lease; their results are read from the disk."""
    groups = sweep.prepared.groups
    shared = {
        "name": sweep.name,
        "objective": sweep.shared["objective"],
        "options": {**dataclasses.asdict(sweep.options), "concurrency": _threads(sweep, executor)},
        "hparams": sweep.hparams,
        "environment": environment.described(),
        "working_directory": os.getcwd(),
        "paths": [str(Path(place).absolute()) for place in os.environ.get("PYTHONPATH", "").split(":") if place],
    }

    known = {bound.job.hash: _stamp(sweep.folder(bound)) for group in groups for bound in group.bounds}

    def settle(number: int) -> int:
        for _, bound in sweep.todo(groups[number]):
            if _stamp(sweep.folder(bound)) == known[bound.job.hash]:  # of an earlier command, and to be tried again
                continue
            known[bound.job.hash] = _stamp(sweep.folder(bound))
            result = sweep.folder(bound).read_result()
            if result is not None and result["status"] in dataclasses.replace(sweep.options, retry="none").kept:
                sweep.outcomes[bound.job.hash] = Outcome(bound.job, sweep.folder(bound).path, result)
                sweep.display.finished(number, result)
        return len(sweep.todo(groups[number]))

    def interrupt() -> None:
        for number in range(len(groups)):
            settle(number)
        sweep.interrupt()

    def leave() -> None:
        with contextlib.suppress(Exception):
            for number in range(len(groups)):
                settle(number)
        sweep.leave()

    try:
        given_up = dispatch(groups, sweep.prepared.folder, lease, executor, shared, settle, leave, sweep.display)
    except KeyboardInterrupt:
        interrupt()
        raise
    for number, reason in given_up.items():
        for _, bound in sweep.todo(groups[number]):
            result = record.fail(sweep.folder(bound), sweep.frame(bound, groups[number]), RuntimeError(reason))
            sweep.settle(number, groups[number], bound, result)
    for group in groups:
        if not sweep.todo(group):  # a worker may have died before it did so
            sweep.clean(group)


def _threads(sweep: Sweep, executor: Executor) -> int | None:
    """Threads of each worker: those of the command's `sweep.concurrency`, or a share of the cores where all workers are
    on this machine; None: as many as a worker finds cores.
    """
    here = executor.executor == "joblib" or (executor.executor in ("ray", "dask") and executor.address is None)
    if sweep.options.concurrency is not None or not here:
        return sweep.options.concurrency
    return max(1, sweep.options.threads // min(executor.workers, len(sweep.prepared.groups)))


def _stamp(run: RunFolder) -> tuple[int, int] | None:
    """What tells one `result.json` of a run from the next; None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        about = run.result.stat()
        return about.st_ino, about.st_mtime_ns
    return None
