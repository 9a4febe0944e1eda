"""What a worker does: train and evaluate one program of a manifest, and write its run folders."""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import jax
from rich.console import Console

from research import environment
from research.runs.held import LeaseLost
from research.runs.lease import Borrowed, acquire, holder
from research.sweep.display import Display
from research.sweep.job import Job, bind
from research.sweep.manifest import LEASE, group_folder
from research.sweep.plan import Options, plan
from research.sweep.prepare import Prepared, finished
from research.sweep.program import use_compile_cache
from research.tree import ConfigError, build

FAILED = "failed"  # beside the manifest: with sweep.fail_fast no program is begun any more
LOOK_EVERY = 0.5  # seconds between two looks at the manifest
SILENT = 30.0  # seconds without a movement in the lease of the folder after which the command is dead
EXIT_AFTER = 6.0  # seconds that a worker has to save its state once the command has ended
WAIT = 60.0  # seconds for a worker that lost its connection to let go of the program


class Answer(TypedDict):
    """What a worker says at its end, in plain values; its results are on the disk.

    Attributes:
      errors: tracebacks of runs that failed.
      reason: why the program has no result, in one line.
      refusal: key, value and remedy of a setting or a disk that lets no worker go on.
    """

    errors: list[str]
    reason: str | None
    refusal: tuple[str, str, str] | None


class Remote(Display):
    """Lines under the number that the program has in the command: several workers may write to one terminal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.console = Console(highlight=False, force_terminal=False)
        self.number, self.errors = number, list[str]()

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):  # a line that nobody can read stops no program
            super().note(f"program {self.number + 1}: {text}")

    def chunk(self, number: int, epochs: int, metrics: Mapping[str, Any], unit: int = 0) -> None:
        """Nothing: the command tells when the program has ended."""

    def finished(self, number: int, result: Mapping[str, Any]) -> None:
        """Nothing: the command reads it from the disk."""

    def error(self, error: BaseException) -> None:
        self.errors.append("".join(traceback.format_exception(error)))


def run_group(manifest: str, number: int) -> Answer:
    """Train and evaluate one program; its members that have a result keep it, so that a second try is no harm.

    Nothing is raised: engines would take the workers of other programs with this one.
    """
    display = Remote(number)
    answer: Answer = {"errors": display.errors, "reason": None, "refusal": None}
    try:
        with contextlib.ExitStack() as stack:
            _train(Path(manifest), number, display, stack)
    except KeyboardInterrupt:  # the state is saved
        pass
    except LeaseLost as error:
        answer["reason"] = str(error)
    except ConfigError as error:
        answer["refusal"] = (error.key, str(error.value), error.remedy)
    except Exception as error:
        display.error(error)
        answer["reason"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return answer


def _train(manifest: Path, number: int, display: Remote, stack: contextlib.ExitStack) -> None:
    """Train and evaluate one program; `stack` undoes what that changes in the process.

    Raises:
      ConfigError: the manifest could have been written by somebody else, or no worker can go on.
      LeaseLost: the command has let its folder go, or another one has taken it over.
      KeyboardInterrupt: the command is to stop.
    """
    from research.sweep.ledger import Sweep
    from research.sweep.units import train

    try:
        about = manifest.parent.lstat()
        if about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise ConfigError("manifest", manifest, "its folder must belong to this user alone (mode 0700)")
        content = json.loads(manifest.read_bytes())
    except FileNotFoundError:  # the command has ended
        return
    if (manifest.parent / FAILED).exists():
        return
    sys.path.extend(place for place in content["paths"] if place not in sys.path)  # of packages that the command trusts
    environment.go_on(content["environment"])
    if switches := environment.differences(content["environment"]):
        raise ConfigError("", None, f"a worker's environment is not that of the command: {switches[0]}")
    use_compile_cache()
    if Path(content["working_directory"]).is_dir():
        stack.enter_context(contextlib.chdir(content["working_directory"]))  # relative paths are the command's
    described, options = content["groups"][number], build(content["options"], Options)
    if described["devices"] > jax.local_device_count():
        remedy = f"the program is for so many devices, and this worker has {jax.local_device_count()}"
        raise ConfigError("sweep.devices", described["devices"], remedy)
    rows = described["members"]
    jobs = [Job.from_config(row["config"], row["choices"], row["overrides"]) for row in rows]
    bounds = [bind(job) for job in jobs]
    folder = Path(content["folder"])
    if len(finished(jobs, folder, options)) == len(jobs):
        return
    (like,) = plan(bounds[:1], options)
    own = {name: described[name] for name in ("mode", "width", "devices")}
    group = dataclasses.replace(like, bounds=tuple(bounds), **own)
    lease, stop = Borrowed(folder / LEASE, content["holder"]), threading.Event()
    with following(Command(manifest, lease), stop), display.training([group]):
        wait_for(group_folder(folder, group.id) / LEASE, folder.name, stop)
        done = finished(jobs, folder, options)  # also by the worker that was waited for
        todo = [bound for bound in bounds if bound.job.hash not in done]
        prepared = Prepared(folder, todo, done, [], [group])
        sweep = Sweep(prepared, jobs, content["name"], content["objective"], options, display, lease)
        sweep.stop = stop
        sweep.hparams = content["hparams"]  # of the whole sweep: a program does not show what is swept beyond it
        if todo:
            train(sweep)
    if options.fail_fast and sweep.failed.is_set():
        (manifest.parent / FAILED).touch()


class Command:
    """Whether the command that sent the program out still wants it."""

    def __init__(self, manifest: Path, lease: Borrowed):
        self.manifest, self.lease = manifest, lease
        self.moved, self.seen = time.monotonic(), b""

    def ended(self) -> bool:
        """The manifest is gone, another command works in the folder, or none does: the lease stands still."""
        if not self.manifest.exists() or self.lease.lost():
            return True
        with contextlib.suppress(OSError):  # not there for an instant, or a shared disk that fails
            now = self.lease.path.read_bytes()
            if now != self.seen:
                self.moved, self.seen = time.monotonic(), now
        return time.monotonic() - self.moved > SILENT


@contextlib.contextmanager
def following(command: Command, stop: threading.Event) -> Iterator[None]:
    """Stop when the command has ended; a process that is still at work some seconds later is left at once."""
    done, alone = threading.Event(), threading.current_thread() is threading.main_thread()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            with contextlib.suppress(OSError):  # of a shared disk
                if not command.ended():
                    continue
                stop.set()
                if not done.wait(EXIT_AFTER) and alone:  # a process of Dask may have other tasks
                    os._exit(1)
                return

    thread = threading.Thread(target=look, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def wait_for(lease: Path, name: str, stop: threading.Event) -> None:
    """Wait while another worker holds the program: the command gave it up, and it ends when it sees that.

    Raises:
      ConfigError: it does not let go, or a lease cannot be made.
    """
    end = time.monotonic() + WAIT
    while not stop.is_set():
        try:
            acquire(lease, "name", name).release()
            return
        except ConfigError:
            if holder(lease) is None or time.monotonic() > end:
                raise
