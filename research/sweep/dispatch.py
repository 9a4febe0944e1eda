"""Programs sent to workers in other processes and on other machines.

A worker gets the path of a manifest and the number of a program, nothing else: it reads what to train there and writes
the run folders itself. What became of a program is read from the disk, so that a worker may die at any moment: the
program is then given to another, which goes on from its checkpoint. A worker works for as long as the manifest lies
there; so a command that is to stop removes it, and every worker saves its state and ends, wherever it runs.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from research.runs.folder import clear_errors, write_atomically
from research.runs.lease import Lease
from research.sweep.display import Display
from research.sweep.executors import Executor, send
from research.sweep.job import Job
from research.sweep.manifest import LAUNCHES, saved
from research.sweep.plan import Group
from research.sweep.worker import FAILED
from research.tree import ConfigError, plain

TRIES = 3  # of a program, without any progress
LOOK_EVERY = 1.0  # seconds between two looks at the results on the disk
KILL_AFTER = 6.0  # seconds that workers have to save their state when the command is to stop
LEAVE_AFTER = 9.0  # seconds after which a command that is to stop leaves, whatever is still under way


def dispatch(
    groups: Sequence[Group],
    folder: Path,
    lease: Lease,
    executor: Executor,
    shared: dict[str, Any],
    settle: Callable[[int], int],
    leave: Callable[[], None],
    display: Display,
) -> dict[int, str]:
    """Have programs trained elsewhere; numbers of those that were given up, and why.

    Args:
      groups: the programs.
      folder: of the sweep.
      lease: on that folder; workers write for as long as it is held.
      executor: where they are trained.
      shared: what all workers need beside the programs.
      settle: reads the results of a program from the disk and says how many of its runs have none.
      leave: ends this process at once.
      display: takes a line for every program that has ended.

    Raises:
      ConfigError: a worker cannot go on, as with a full disk.
      KeyboardInterrupt: the command is to stop; all workers have ended.
    """
    launch = folder / LAUNCHES / secrets.token_hex(8)
    lease.check()
    with clear_errors(folder):
        shutil.rmtree(launch.parent, ignore_errors=True)  # of a command that was killed; its workers end
        launch.mkdir(parents=True, mode=0o700)
    manifest = launch / "manifest.json"
    try:
        content = shared | {"folder": str(folder), "holder": lease.token}
        content["groups"] = [described(group) for group in groups]
        write_atomically(manifest, json.dumps(content).encode(), lease)
        os.chmod(manifest, 0o600)
        with stopping(manifest, leave, display) as stop:
            return _until_done(groups, folder, lease, executor, manifest, settle, stop, display)
    finally:
        manifest.unlink(missing_ok=True)  # first: a worker that is left somewhere ends
        shutil.rmtree(launch, ignore_errors=True)
        with contextlib.suppress(OSError):
            launch.parent.rmdir()


def _until_done(
    groups: Sequence[Group],
    folder: Path,
    lease: Lease,
    executor: Executor,
    manifest: Path,
    settle: Callable[[int], int],
    stop: threading.Event,
    display: Display,
) -> dict[int, str]:
    def state(number: int) -> tuple[int, str]:
        """Runs without a result, and the newest checkpoint of each unit."""
        newest = [saved(folder, unit.id)[-1:] for unit in groups[number].units]
        return settle(number), str(newest)

    waiting, given_up = dict.fromkeys(range(len(groups)), 0), dict[int, str]()  # number -> tries without progress
    ended: set[int] = set()

    def look() -> None:
        for number in waiting.keys() - ended:
            if not settle(number):
                ended.add(number)
                display.note(f"program {number + 1} of {len(groups)} ended: {len(groups[number].bounds)} runs")

    while waiting:
        before = {number: state(number) for number in waiting}
        with repeating(look):
            answers = send(executor, manifest, list(waiting), display.note)
        lease.check()  # workers that wrote nothing for another command's sake are no failure
        look()
        for answer in answers.values():
            for text in answer["errors"]:
                sys.stderr.write(text)
        if stop.is_set():
            raise KeyboardInterrupt
        for answer in answers.values():
            if answer["refusal"] is not None:
                raise ConfigError(*answer["refusal"])
        for number, tries in list(waiting.items()):
            now = state(number)
            waiting[number] = 0 if now != before[number] else tries + 1
            if now[0] == 0:
                del waiting[number]
            elif waiting[number] == TRIES:
                del waiting[number]
                reason = answers[number]["reason"] if number in answers else None
                given_up[number] = f"{TRIES} workers ended without a result" + (f" ({reason})" if reason else "")
        if (manifest.parent / FAILED).exists():  # with sweep.fail_fast
            return given_up
        if waiting:
            shown = ", ".join(str(number + 1) for number in waiting)
            display.note(f"runs of program {shown} have no result; other workers go on with them")
    return given_up


@contextlib.contextmanager
def repeating(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` now and then, in a thread of its own."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(LOOK_EVERY):
            with contextlib.suppress(OSError, ConfigError):  # told when the main thread looks
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
    """Ctrl-C and SIGTERM: the workers save their state and end, are killed six seconds later, or by a second signal.

    After nine seconds, or a third signal, the command leaves, whatever is still under way.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    main, killing = threading.main_thread().ident, threading.Event()
    assert main is not None
    kill = threading.Timer(KILL_AFTER, signal.pthread_kill, (main, signal.SIGINT))
    last = threading.Timer(LEAVE_AFTER, leave)
    kill.daemon = last.daemon = True

    def handle(number: int, frame: Any) -> None:
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

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        kill.cancel()
        last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def described(group: Group) -> dict[str, Any]:
    """A program as plain values."""
    members = [
        {"config": config(bound.job), "choices": dict(bound.job.choices), "overrides": list(bound.job.overrides)}
        for bound in group.bounds
    ]
    return {"mode": group.mode, "width": group.width, "devices": group.devices, "members": members}


def config(job: Job) -> dict[str, Any]:
    """What `Job.from_config` makes the same job from: what is hashed stays as the command has it."""
    sections = ("model", "optimizer", "trainer", "data", "seed", "evaluation")
    tree: dict[str, Any] = {name: plain(getattr(job, name)) for name in sections}
    tree["trusted_packages"] = list(job.trusted)
    if tree["data"].get("root") is not None:
        tree["data"]["root"] = str(Path(tree["data"]["root"]).expanduser().absolute())
    return tree
