"""A sweep from what was prepared to run folders: groups train one after another, results are written beside it."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NoReturn

import jax

from research import environment
from research.runs.folder import RunFolder, writable
from research.runs.held import LOST, All, Held, LeaseLost
from research.runs.lease import Lease, acquire
from research.runs.summary import summary
from research.sweep import record
from research.sweep.checkpoint import Checkpoints
from research.sweep.dispatch import LEAVE_AFTER
from research.sweep.display import Display
from research.sweep.elsewhere import send_out
from research.sweep.executors import Executor
from research.sweep.finish import evaluate_again, finish
from research.sweep.goodput import Goodput, describe
from research.sweep.job import HASH_DIGITS, Bound, Job
from research.sweep.loop import Control, Stopped, Trained, train_group
from research.sweep.manifest import (
    LEASE,
    configurations,
    group_folder,
    locked,
    record_report,
    replace_group,
    runs_in,
    write_manifest,
)
from research.sweep.memory import halves, out_of_memory
from research.sweep.plan import Group, Options
from research.sweep.prepare import Outcome, Prepared, ended, load_start
from research.sweep.program import Program, device_kind, on_device
from research.tree import ConfigError

# one at a time: kernels of LAPACK (orthogonal initialisers) in two programs can wait on each other for ever on CPU
initializing = threading.Lock()
INTERRUPTED = 130
WAKE_EVERY = 0.2  # seconds


class Sweep:
    """The runs of one command under way.

    As many programs as `sweep.concurrency` says compile and train at the same time: on a CPU most operations of one
    program occupy a single core. What follows for each trained member (evaluation, pictures, files) is done meanwhile
    in one background thread.

    Attributes:
      lease: on the whole folder, or of the command on whose behalf a worker writes.
      outcomes: hash of a job -> what became of it.
      goodputs: where the time went, by group.
      stop: set when the command is to stop.
    """

    def __init__(
        self,
        prepared: Prepared,
        jobs: Sequence[Job],
        name: str,
        objective: str,
        options: Options,
        display: Display,
        lease: Held,
    ):
        self.prepared, self.display, self.name, self.options = prepared, display, name, options
        self.lease = lease
        self.outcomes = dict(prepared.done)
        bounds = [bound for group in prepared.groups for bound in group.bounds]
        self.hparams = record.hyperparameters([*jobs, *(bound.job for bound in bounds)])
        self.shared = {"objective": objective, "versions": record.versions(), "commit": record.commit()}
        present = runs_in(prepared.folder)
        self.folders = {
            digest: RunFolder(present.get(digest[:HASH_DIGITS], prepared.folder / bound.job.run_id), lease)
            for digest, bound in {bound.job.hash: bound for bound in bounds}.items()
        }
        self.futures: list[Future[None]] = []
        self.goodputs: list[Goodput] = []
        self.programs: dict[str, Lease] = {}  # of groups under way
        self.stop, self.failed = threading.Event(), threading.Event()
        # programs that are compiled once though several groups have them wait for each other
        self.compiling: defaultdict[Any, threading.Lock] = defaultdict(threading.Lock)
        self.left = {group.id: len(self.todo(group)) for group in prepared.groups}

    def todo(self, group: Group) -> list[tuple[int, Bound]]:
        """Members without a result, with their numbers; a program that is restored whole may have others too."""
        return [(number, bound) for number, bound in enumerate(group.bounds) if bound.job.hash not in self.outcomes]

    def train(self) -> None:
        """Train all groups, and finish their members; an interruption or a full disk leaves through here."""
        background = ThreadPoolExecutor(1, "finish")
        background.submit(_import_early)
        groups = self.prepared.groups
        workers = ThreadPoolExecutor(min(self.options.programs_at_once, len(groups)), "train")
        with self.stopping():
            try:
                under_way = [workers.submit(self.train_one, number, background) for number in range(len(groups))]
                results(under_way)
                results(self.futures)
            except BaseException as error:
                self.stop.set()
                workers.shutdown(cancel_futures=True)
                background.shutdown(cancel_futures=True)
                if isinstance(error, KeyboardInterrupt | Stopped):
                    self.interrupt()
                    raise KeyboardInterrupt from None
                if isinstance(error, ConfigError):
                    self.lease.check()  # a place that is gone may have been removed by the command that took over
                raise
            finally:
                for group in list(self.programs):
                    self.programs.pop(group).release()
        workers.shutdown()
        background.shutdown()

    def leave(self) -> NoReturn:
        """End this process at once."""
        code = INTERRUPTED
        try:
            self.interrupt()
        except LeaseLost as error:
            sys.stderr.write(f"error: {error}\n")
            code = LOST
        except Exception:
            pass
        sys.stdout.flush()
        os._exit(code)

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the command after the chunk under way, or after ten seconds; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        timer = threading.Timer(LEAVE_AFTER, self.leave)
        timer.daemon = True

        def handle(number: int, frame: Any) -> None:
            if self.stop.is_set():
                os._exit(INTERRUPTED)
            self.stop.set()
            timer.start()
            self.display.note("stopping: the state is saved after the step under way; once more to leave at once")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)

    def train_one(self, number: int, background: ThreadPoolExecutor) -> None:
        """Train one group and hand its members to the background."""
        if self.stop.is_set():
            raise Stopped
        if self.options.fail_fast and self.failed.is_set():
            return
        waiting = [self.prepared.groups[number]]
        while waiting:
            group = waiting.pop(0)
            try:
                self.train_group(number, group, background)
            except (ConfigError, LeaseLost, Stopped):
                raise  # a full disk, say: nothing more can be written
            except Exception as error:
                narrower = halves(group) if out_of_memory(error) else []
                if narrower:
                    self.display.note(
                        f"program {number + 1}: out of memory at width {group.width}; again at {narrower[0].width}"
                    )
                    replace_group(self.prepared.folder, group, narrower, self.lease)
                    self.let_go(group)
                    self.left |= {part.id: len(self.todo(part)) for part in narrower}
                    waiting = narrower + waiting
                    continue
                self.display.error(error)
                for _, bound in self.todo(group):
                    self.settle(number, group, bound, record.fail(self.folder(bound), self.frame(bound, group), error))
                self.failed.set()

    def train_group(self, number: int, group: Group, background: ThreadPoolExecutor) -> None:
        """Train a group from its checkpoint or its beginning, holding its lease until all members have a result."""
        self.display.begin(number)
        place = group_folder(self.prepared.folder, group.id)
        goodput = Goodput()
        self.goodputs.append(goodput)
        self.programs[group.id] = acquire(place / LEASE, "name", self.prepared.folder.name)
        held = self.write_under(group, self.lease, self.programs[group.id])
        with self.compiling[group.bounds[0].program_key, group.width]:
            started = time.monotonic()
            program = self.build(group)
            goodput.compile = time.monotonic() - started
        checkpoints = Checkpoints(place, record.group_identity(group), self.display.note, held)

        def progress(epochs: int, metrics: Mapping[str, Any]) -> None:
            held.check()
            self.display.chunk(number, epochs, metrics)

        settled = set(range(len(group.bounds))) - {member for member, _ in self.todo(group)}
        commit = self.shared["commit"]
        control = Control(progress, self.stop.is_set, self.display.note, checkpoints, commit, settled)
        folders = [self.folder(bound) for bound in group.bounds]
        try:
            trained = train_group(group, program, folders, self.options, control, goodput)
        finally:
            checkpoints.close()
        self.display.evaluating(number, len(trained))
        for index, bound in self.todo(group):
            self.futures.append(background.submit(self.finish, number, group, bound, trained[index]))
        if not self.todo(group):
            self.clean(group)

    def write_under(self, group: Group, *leases: Held) -> Held:
        """Have the runs of a group written for as long as these leases are held; returns all of them as one."""
        held = All(leases)
        for bound in group.bounds:
            self.folders[bound.job.hash] = RunFolder(self.folder(bound).path, held)
        return held

    def let_go(self, group: Group) -> None:
        """Release the lease of a group."""
        if group.id in self.programs:
            self.write_under(group, self.lease)
            self.programs.pop(group.id).release()

    def build(self, group: Group) -> Program:
        """A compiled program with its initial state."""
        starts = [bound.job.trainer.warm_start for bound in group.bounds]
        params = [load_start(path) for path in starts if path is not None]
        data = on_device(group.bounds[0].dataset)
        with initializing:
            program = Program(group, data, params or None)
            jax.block_until_ready(program.state)
        program.compile()
        return program

    def finish(self, number: int, group: Group, bound: Bound, trained: Trained) -> None:
        """Evaluate one member and write its result."""
        if self.stop.is_set():
            raise Stopped
        folder, frame = self.folder(bound), self.frame(bound, group)
        try:
            result = finish(bound, folder, frame, trained, self.hparams[bound.job.hash])
        except (ConfigError, LeaseLost):
            raise
        except Exception as error:  # its own evaluation; the others' results are good
            self.display.error(error)
            result = record.fail(folder, frame, error)
        self.settle(number, group, bound, result)

    def interrupt(self) -> None:
        """Mark what has no result yet."""
        for group in self.prepared.groups:
            for _, bound in self.todo(group):
                content = record.unfinished(self.frame(bound, None), "interrupted", "interrupted by the user")
                self.folder(bound).write_result(content)

    def settle(self, number: int, group: Group, bound: Bound, result: dict[str, Any]) -> None:
        """A job has its result; the state of a program is removed with its last one."""
        self.outcomes[bound.job.hash] = Outcome(bound.job, self.folder(bound).path, result)
        self.left[group.id] -= 1
        if not self.left[group.id]:
            self.clean(group)
        self.display.finished(number, result)

    def clean(self, group: Group) -> None:
        """Remove the state of a finished program, unless a member diverged: `verify.py --replay` starts from it."""
        self.let_go(group)
        results = [self.folder(bound).read_result() or {} for bound in group.bounds]
        if all(result.get("status") in ("completed", "stopped", "pruned") for result in results):
            self.forget(group)

    def forget(self, group: Group) -> None:
        """Remove the state of a program."""
        place = group_folder(self.prepared.folder, group.id)
        Checkpoints(place, {}, self.display.note, self.lease).remove()
        with contextlib.suppress(OSError):
            place.parent.rmdir()  # with the last one

    def folder(self, bound: Bound) -> RunFolder:
        """Where a job's run lies."""
        return self.folders[bound.job.hash]

    def frame(self, bound: Bound, group: Group | None) -> dict[str, Any]:
        """The part of a result that is known before training."""
        program = None
        if group is not None:
            program = {"mode": group.mode, "width": group.width, "device_kind": device_kind()} | environment.described()
            if group.devices > 1:
                program["devices"] = group.devices
        size = {"parameters": None if group is None else group.parameters}
        return self.shared | {"program": program} | size | record.identity(bound, self.folder(bound))


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
            for group in prepared.groups:
                if any(bound.job.hash in planned and ended(sweep.folder(bound).path) for bound in group.bounds):
                    sweep.forget(group)  # of an earlier try
            for bound in bounds.values():
                folder = sweep.folder(bound)
                if bound.job.hash in planned:
                    register(bound, folder)
                folder.write_config(record.config_content(bound, name))
            if executor is not None and executor.executor != "inline":
                send_out(sweep, executor, lease)
            else:
                with display.training(prepared.groups):
                    sweep.train()
                display.note(describe(sweep.goodputs))
        summary(prepared.folder, configurations(prepared.folder), lease)
        return [sweep.outcomes[job.hash] for job in jobs if job.hash in sweep.outcomes]


def results(futures: Iterable[Future[Any]]) -> None:
    """Wait for all, and raise what the first one that fails raises.

    It wakes now and then: a signal that comes while a thread is about to sleep in a lock wakes nobody, and Ctrl-C would
    have to wait for the next program to end.
    """
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, WAKE_EVERY, FIRST_COMPLETED)
        for future in done:
            future.result()


def _import_early() -> None:
    """Import what evaluation needs (1.5 s) while the first program compiles."""
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401
