"""The groups of a command, sent to workers in other processes or on other machines.

A worker receives the path of a manifest and the number of a group. It reads there what to train, and writes the run
folders itself. The command reads the results from the disk, so a worker may die at any moment: another worker then
continues its group from the checkpoint. A worker works as long as the manifest exists. To stop, the command deletes the
manifest, and every worker saves its state and ends, wherever it runs.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from research import environment
from research.runs.files import clear_errors, write_atomically
from research.runs.lease import Lease
from research.sweep.folder import LAUNCHES, Outcome, saved
from research.sweep.job import Job
from research.sweep.options import Executor
from research.sweep.plan import JobGroup
from research.sweep.remote.executors import send
from research.sweep.remote.worker import FAILED, Answer
from research.sweep.train.display import Display
from research.sweep.train.ledger import Ledger, fail
from research.sweep.train.signals import LEAVE_AFTER, handled
from research.tree import ConfigError, plain

TRIES = 3  # the most workers that may try a group without any progress
LOOK_EVERY = 1.0  # seconds between two looks at the results on the disk
KILL_AFTER = 6.0  # seconds that workers have to save their state when the command is to stop


def send_out(ledger: Ledger, executor: Executor, lease: Lease) -> None:
    """Have all groups trained by workers.

    Args:
      ledger: of the command; it receives the results.
      executor: where the groups are trained.
      lease: on the sweep folder; workers write as long as it is held.

    Raises:
      ConfigError: no worker can continue, for example because the disk is full.
      KeyboardInterrupt: the command was interrupted; all workers have ended.
    """
    folder = ledger.workload.folder
    launch = folder / LAUNCHES / secrets.token_hex(8)
    lease.check()
    with clear_errors(folder):
        shutil.rmtree(launch.parent, ignore_errors=True)  # of a command that was killed; its workers end
        launch.mkdir(parents=True, mode=0o700)
    manifest = launch / "manifest.json"
    results = Results(ledger)
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, launch)
            content = launch_content(ledger, executor) | {"holder": lease.token}
            write_atomically(manifest, json.dumps(content).encode(), lease)
            os.chmod(manifest, 0o600)
            stop = stack.enter_context(stopping(manifest, results.leave, ledger.display))
            given_up = _until_done(ledger, executor, lease, manifest, results, stop)
    except KeyboardInterrupt:
        results.read_all()
        ledger.interrupt()
        raise
    for number, reason in given_up.items():
        group = ledger.workload.groups[number]
        for _, bound in ledger.todo(group):
            result = fail(ledger.folder(bound), ledger.frame(bound, group), RuntimeError(reason))
            ledger.settle(number, group, bound, result)
    for group in ledger.workload.groups:
        if not ledger.todo(group):  # a worker may have died before it deleted the checkpoints
            ledger.clean(group)


def _remove(launch: Path) -> None:
    """Delete the folder of a launch; the manifest goes first, so that a worker that still runs ends."""
    (launch / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(launch, ignore_errors=True)
    with contextlib.suppress(OSError):
        launch.parent.rmdir()


class Results:
    """The results that workers write, as the command reads them from the disk."""

    def __init__(self, ledger: Ledger):
        self.ledger, self.groups = ledger, ledger.workload.groups
        self._known = {bound.job.hash: self._stamp(bound) for group in self.groups for bound in group.members}

    def _stamp(self, bound: Any) -> tuple[int, int] | None:
        """Identity of the `result.json` of a run; a new one has another. None without a result."""
        with contextlib.suppress(FileNotFoundError):
            status = self.ledger.folder(bound).result.stat()
            return status.st_ino, status.st_mtime_ns
        return None

    def read(self, number: int) -> int:
        """Read the new results of a group; returns the number of its runs that have none yet."""
        ledger = self.ledger
        ended = dataclasses.replace(ledger.options, retry="none").kept
        for _, bound in ledger.todo(self.groups[number]):
            stamp, run = self._stamp(bound), ledger.folder(bound)
            if stamp == self._known[bound.job.hash]:  # the result of an earlier command, which is to be replaced
                continue
            self._known[bound.job.hash] = stamp
            result = run.read_result()
            if result is not None and result["status"] in ended:
                ledger.outcomes[bound.job.hash] = Outcome(bound.job, run.path, result)
                ledger.display.finished(number, result)
        return len(ledger.todo(self.groups[number]))

    def read_all(self) -> None:
        """Read the new results of all groups."""
        for number in range(len(self.groups)):
            self.read(number)

    def leave(self) -> None:
        """End this process at once."""
        with contextlib.suppress(Exception):
            self.read_all()
        self.ledger.leave()

    def progress(self, number: int) -> tuple[int, str]:
        """The number of runs without a result, and the newest checkpoint of each unit."""
        newest = [saved(self.ledger.workload.folder, unit.id)[-1:] for unit in self.groups[number].units]
        return self.read(number), str(newest)


def _until_done(
    ledger: Ledger, executor: Executor, lease: Lease, manifest: Path, results: Results, stop: threading.Event
) -> dict[int, str]:
    """Send groups out until all have their results; returns number and reason of those that were given up."""
    groups, display = ledger.workload.groups, ledger.display
    waiting, given_up = dict.fromkeys(range(len(groups)), 0), dict[int, str]()  # number -> tries without progress
    ended: set[int] = set()

    def look() -> None:
        for number in waiting.keys() - ended:
            if not results.read(number):
                ended.add(number)
                display.note(f"program {number + 1} of {len(groups)} ended: {len(groups[number].members)} runs")

    while waiting:
        before = {number: results.progress(number) for number in waiting}
        with repeating(look):
            answers = send(executor, manifest, list(waiting), display.note)
        lease.check()  # if another command took over, it is no failure that the workers wrote nothing
        look()
        _show(answers, stop)
        for number, tries in list(waiting.items()):
            now = results.progress(number)
            waiting[number] = 0 if now != before[number] else tries + 1
            if now[0] == 0:
                del waiting[number]
            elif waiting[number] == TRIES:
                del waiting[number]
                reason = answers[number]["reason"] if number in answers else None
                given_up[number] = f"{TRIES} workers ended without a result" + (f" ({reason})" if reason else "")
        if (manifest.parent / FAILED).exists():  # with sweep.fail_fast
            break
        if waiting:
            shown = ", ".join(str(number + 1) for number in waiting)
            display.note(f"runs of program {shown} have no result; other workers go on with them")
    return given_up


def _show(answers: dict[int, Answer], stop: threading.Event) -> None:
    """Print the tracebacks of workers.

    Raises:
      KeyboardInterrupt: the command is to stop.
      ConfigError: a worker says that none can continue.
    """
    for answer in answers.values():
        for text in answer["errors"]:
            sys.stderr.write(text)
    if stop.is_set():
        raise KeyboardInterrupt
    for answer in answers.values():
        if answer["refusal"] is not None:
            raise ConfigError(*answer["refusal"])


@contextlib.contextmanager
def repeating(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` once a second in a thread of its own."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(LOOK_EVERY):
            with contextlib.suppress(OSError, ConfigError):  # the main thread will meet the same error
                look()

    thread = threading.Thread(target=repeat, name="look", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def stopping(manifest: Path, leave: Callable[[], None], display: Display) -> Iterator[threading.Event]:
    """Stop the workers at Ctrl-C and SIGTERM.

    At the first signal they save their state and end. Six seconds later, or at a second signal, they are killed. Nine
    seconds later, or at a third signal, the command leaves.
    """
    stop, killing = threading.Event(), threading.Event()
    main = threading.main_thread().ident
    assert main is not None
    kill = threading.Timer(KILL_AFTER, signal.pthread_kill, (main, signal.SIGINT))
    last = threading.Timer(LEAVE_AFTER, leave)
    kill.daemon = last.daemon = True

    def handle() -> None:
        if not stop.is_set():
            stop.set()
            with contextlib.suppress(OSError):
                manifest.unlink(missing_ok=True)
            kill.start()
            last.start()
            display.note("stopping: workers save their state after the step under way; once more to kill them")
        elif not killing.is_set():
            killing.set()
            kill.cancel()
            raise KeyboardInterrupt
        else:
            leave()

    with handled(handle):
        try:
            yield stop
        finally:
            kill.cancel()
            last.cancel()


# --------------------------------------------------------------------------------------------------------- the manifest


def launch_content(ledger: Ledger, executor: Executor) -> dict[str, Any]:
    """What the workers need to know, as JSON values."""
    return {
        "name": ledger.name,
        "folder": str(ledger.workload.folder),
        "objective": ledger.shared["objective"],
        "options": {**dataclasses.asdict(ledger.options), "concurrency": _threads(ledger, executor)},
        "hparams": ledger.hparams,
        "environment": environment.described(),
        "working_directory": os.getcwd(),
        "paths": [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(":") if path],
        "groups": [described(group) for group in ledger.workload.groups],
    }


def _threads(ledger: Ledger, executor: Executor) -> int | None:
    """Threads of each worker: as `sweep.concurrency` says, or a share of the cores if all workers run on this machine.

    None means as many as a worker finds cores.
    """
    options = ledger.options
    local = executor.executor == "joblib" or (executor.executor in ("ray", "dask") and executor.address is None)
    if options.concurrency is not None or not local:
        return options.concurrency
    return max(1, options.threads // min(executor.workers, len(ledger.workload.groups)))


def described(group: JobGroup) -> dict[str, Any]:
    """A group as JSON values."""
    members = [
        {"config": config(bound.job), "choices": dict(bound.job.choices), "overrides": list(bound.job.overrides)}
        for bound in group.members
    ]
    return {"mode": group.mode, "width": group.width, "devices": group.devices, "members": members}


def config(job: Job) -> dict[str, Any]:
    """The config from which `Job.from_config` makes the same job; only `data.root` becomes an absolute path."""
    sections = ("model", "optimizer", "trainer", "data", "seed", "evaluation")
    tree: dict[str, Any] = {name: plain(getattr(job, name)) for name in sections}
    tree["trusted_packages"] = list(job.trusted)
    if tree["data"].get("root") is not None:
        tree["data"]["root"] = str(Path(tree["data"]["root"]).expanduser().absolute())
    return tree
