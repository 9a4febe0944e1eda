"""A worker trains and evaluates one group of a manifest, and writes its run folders."""

import contextlib
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
from research.runs.files import LeaseLost
from research.runs.lease import Borrowed, acquire, holder
from research.sweep.begun import like_recorded
from research.sweep.device import use_compile_cache
from research.sweep.folder import LEASE, Workload, finished, group_folder
from research.sweep.job import Job, bind
from research.sweep.options import Options
from research.sweep.train.display import Display
from research.sweep.train.ledger import Ledger
from research.sweep.train.units import train
from research.tree import ConfigError, build

FAILED = "failed"  # a file beside the manifest: with sweep.fail_fast, no group is begun any more
LOOK_EVERY = 0.5  # seconds between two looks at the manifest
SILENT = 30.0  # seconds after which a command whose lease has not changed is dead
EXIT_AFTER = 6.0  # seconds that a worker has to save its state once the command has ended
WAIT = 60.0  # seconds that a worker whose connection was lost has to release its group


class Answer(TypedDict):
    """What a worker returns, as plain values; its results are on the disk.

    Attributes:
      errors: tracebacks of failed runs.
      reason: why the group has no result, in one line.
      refusal: key, value and remedy of an error that stops every worker, such as a full disk.
    """

    errors: list[str]
    reason: str | None
    refusal: tuple[str, str, str] | None


class Remote(Display):
    """Prints lines that begin with the number of the group, because several workers may write to one terminal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.console = Console(highlight=False, force_terminal=False)
        self.number, self.errors = number, list[str]()

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):  # the terminal may be gone
            super().note(f"program {self.number + 1}: {text}")

    def chunk(self, number: int, epochs: int, metrics: Mapping[str, Any], unit: int = 0) -> None:
        """Print nothing: the command prints a line when the group has ended."""

    def finished(self, number: int, result: Mapping[str, Any]) -> None:
        """Print nothing: the command reads the result from the disk."""

    def error(self, error: BaseException) -> None:
        self.errors.append("".join(traceback.format_exception(error)))


def run_group(manifest: str, number: int) -> Answer:
    """Train and evaluate one group. Members that have a result keep it, so a second try does no harm.

    It raises nothing, because some engines end the workers of all groups after an exception in one.
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
    """Train and evaluate one group; `stack` restores the working directory.

    Raises:
      ConfigError: another user could have written the manifest, or no worker can continue.
      LeaseLost: the command has released its folder, or another command has taken it over.
      KeyboardInterrupt: the command is to stop.
    """
    content = _read(manifest)
    if content is None or (manifest.parent / FAILED).exists():
        return
    sys.path.extend(path for path in content["paths"] if path not in sys.path)  # of packages that the command trusts
    environment.go_on(content["environment"])
    if switches := environment.differences(content["environment"]):
        raise ConfigError("", None, f"a worker's environment is not that of the command: {switches[0]}")
    use_compile_cache()
    if Path(content["working_directory"]).is_dir():
        stack.enter_context(contextlib.chdir(content["working_directory"]))  # for relative paths in the config
    described, options = content["groups"][number], build(content["options"], Options)
    if described["devices"] > jax.local_device_count():
        remedy = f"the group needs this many devices, and this worker has {jax.local_device_count()}"
        raise ConfigError("sweep.devices", described["devices"], remedy)
    jobs = [Job.from_config(row["config"], row["choices"], row["overrides"]) for row in described["members"]]
    bounds = [bind(job) for job in jobs]
    folder = Path(content["folder"])
    if len(finished(jobs, folder, options)) == len(jobs):
        return
    group = like_recorded(described, bounds, options)
    lease, stop = Borrowed(folder / LEASE, content["holder"]), threading.Event()
    with following(Command(manifest, lease), stop), display.training([group]):
        wait_for(group_folder(folder, group.id) / LEASE, folder.name, stop)
        done = finished(jobs, folder, options)  # the worker that held the group may have finished members
        todo = [bound for bound in bounds if bound.job.hash not in done]
        workload = Workload(folder, todo, done, [], [group])
        ledger = Ledger(workload, jobs, content["name"], content["objective"], options, display, lease)
        ledger.stop = stop
        ledger.hparams = content["hparams"]  # one group does not show which keys the whole sweep varies
        if todo:
            train(ledger)
    if options.fail_fast and ledger.failed.is_set():
        (manifest.parent / FAILED).touch()


def _read(manifest: Path) -> dict[str, Any] | None:
    """Content of the manifest; None if it is gone, because the command has ended.

    Raises:
      ConfigError: another user could have written it.
    """
    try:
        status = manifest.parent.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ConfigError("manifest", manifest, "its folder must belong to this user alone (mode 0700)")
        return json.loads(manifest.read_bytes())
    except FileNotFoundError:
        return None


class Command:
    """The command that has sent a group out, as a worker sees it on the disk."""

    def __init__(self, manifest: Path, lease: Borrowed):
        self.manifest, self.lease = manifest, lease
        self.changed_at, self.content = time.monotonic(), b""

    def ended(self) -> bool:
        """Whether the manifest is gone, another command holds the folder, or the lease has stopped changing."""
        if not self.manifest.exists() or self.lease.lost():
            return True
        with contextlib.suppress(OSError):  # the file is missing for an instant, or a network disk fails
            content = self.lease.path.read_bytes()
            if content != self.content:
                self.changed_at, self.content = time.monotonic(), content
        return time.monotonic() - self.changed_at > SILENT


@contextlib.contextmanager
def following(command: Command, stop: threading.Event) -> Iterator[None]:
    """Set `stop` when the command has ended; if the `with` block does not end within some seconds, end the process."""
    done, alone = threading.Event(), threading.current_thread() is threading.main_thread()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            with contextlib.suppress(OSError):  # of a network disk
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
    """Wait while another worker holds the group. The command has given that worker up, and it ends when it sees that.

    Raises:
      ConfigError: it does not release the group, or a lease cannot be made.
    """
    end = time.monotonic() + WAIT
    while not stop.is_set():
        try:
            acquire(lease, "name", name).release()
            return
        except ConfigError:
            if holder(lease) is None or time.monotonic() > end:
                raise
