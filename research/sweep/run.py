"""A sweep from what was prepared to run folders: groups train one after another, results are written beside it."""

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax

from research.runs.folder import RunFolder, writable
from research.runs.summary import summary
from research.sweep import record
from research.sweep.display import Display
from research.sweep.finish import finish
from research.sweep.job import Bound, Job
from research.sweep.loop import Trained, train_group
from research.sweep.manifest import configurations, locked, write_manifest
from research.sweep.plan import Group, Options
from research.sweep.prepare import Outcome, Prepared, load_start
from research.sweep.program import Program, device_kind, on_device
from research.tree import ConfigError, plain


# one at a time: kernels of LAPACK (orthogonal initialisers) in two programs can wait on each other for ever on CPU
initializing = threading.Lock()


class Stopped(Exception):
    """Leaves a training when the command is to stop."""


class Sweep:
    """The runs of one command under way.

    As many programs as `sweep.concurrency` says compile and train at the same time: on a CPU most operations of one
    program occupy a single core. What follows for each trained member (evaluation, pictures, files) is done meanwhile in
    one background thread.

    Attributes:
      outcomes: hash of a job -> what became of it.
    """

    def __init__(self, prepared: Prepared, jobs: Sequence[Job], name: str, objective: str, display: Display):
        self.prepared, self.display, self.name = prepared, display, name
        self.outcomes = dict(prepared.done)
        self.hparams = record.hyperparameters(jobs)
        self.shared = {"objective": objective, "versions": record.versions(), "commit": record.commit()}
        self.folders = {bound.job.hash: RunFolder(prepared.folder / bound.job.run_id) for bound in prepared.todo}
        self.futures: list[Future[None]] = []
        self.stop, self.failed = threading.Event(), threading.Event()
        # programs that are compiled once though several groups have them wait for each other
        self.compiling: defaultdict[Any, threading.Lock] = defaultdict(threading.Lock)

    def train(self, options: Options) -> None:
        """Train all groups, and finish their members; an interruption or a full disk leaves through here."""
        background = ThreadPoolExecutor(1, "finish")
        background.submit(_import_early)
        workers = ThreadPoolExecutor(min(options.programs_at_once, len(self.prepared.groups)), "train")
        try:
            numbers = range(len(self.prepared.groups))
            under_way = [workers.submit(self.train_one, number, background, options) for number in numbers]
            for future in as_completed(under_way):
                future.result()
            for future in self.futures:
                future.result()
        except BaseException as error:
            self.stop.set()
            workers.shutdown(cancel_futures=True)
            background.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                self.interrupt()
            raise
        workers.shutdown()
        background.shutdown()

    def train_one(self, number: int, background: ThreadPoolExecutor, options: Options) -> None:
        """Train one group and hand its members to the background."""
        if self.stop.is_set() or (options.fail_fast and self.failed.is_set()):
            return
        group = self.prepared.groups[number]
        self.display.begin(number)
        try:
            with self.compiling[group.bounds[0].program_key, group.width]:
                program, seconds = self.build(group)
            folders = [self.folder(bound) for bound in group.bounds]
            show = functools.partial(self.chunk_done, number)
            trained = train_group(group, program, folders, show, seconds)
            del program
        except (ConfigError, Stopped):
            raise  # a full disk, say: nothing more can be written
        except Exception as error:
            self.display.error(error)
            for bound in group.bounds:
                self.settle(number, bound, record.fail(self.folder(bound), self.frame(bound, group), error))
            self.failed.set()
            return
        self.display.evaluating(number, len(trained))
        for bound, member in zip(group.bounds, trained, strict=True):
            self.futures.append(background.submit(self.finish, number, group, bound, member))

    def chunk_done(self, number: int, epochs: int, metrics: dict[str, Any]) -> None:
        """Show a chunk; leave if the command is to stop."""
        self.display.chunk(number, epochs, metrics)
        if self.stop.is_set():
            raise Stopped

    def build(self, group: Group) -> tuple[Program, float]:
        """A compiled program with its initial state, and the seconds that took."""
        started = time.monotonic()
        starts = [bound.job.trainer.warm_start for bound in group.bounds]
        params = [load_start(path) for path in starts if path is not None]
        data = on_device(group.bounds[0].dataset)
        with initializing:
            program = Program(group, data, params or None)
            jax.block_until_ready(program.state)
        program.compile()
        return program, time.monotonic() - started

    def finish(self, number: int, group: Group, bound: Bound, trained: Trained) -> None:
        """Evaluate one member and write its result."""
        folder, frame = self.folder(bound), self.frame(bound, group)
        try:
            result = finish(bound, folder, frame, trained, self.hparams[bound.job.hash])
        except ConfigError:
            raise
        except Exception as error:  # its own evaluation; the others' results are good
            self.display.error(error)
            result = record.fail(folder, frame, error)
        self.settle(number, bound, result)

    def interrupt(self) -> None:
        """Mark what has no result yet."""
        for group in self.prepared.groups:
            for bound in group.bounds:
                if bound.job.hash not in self.outcomes:
                    content = record.unfinished(self.frame(bound, None), "interrupted", "interrupted by the user")
                    self.folder(bound).write_result(content)

    def settle(self, number: int, bound: Bound, result: dict[str, Any]) -> None:
        """A job has its result."""
        self.outcomes[bound.job.hash] = Outcome(bound.job, self.folder(bound).path, result)
        self.display.finished(number, result)

    def folder(self, bound: Bound) -> RunFolder:
        """Where a job's run lies."""
        return self.folders[bound.job.hash]

    def frame(self, bound: Bound, group: Group | None) -> dict[str, Any]:
        """The part of a result that is known before training."""
        program = None
        if group is not None:
            program = {"mode": group.mode, "width": group.width, "device_kind": device_kind()}
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
    register: Callable[[Bound, Path], None] = lambda bound, path: None,
) -> list[Outcome]:
    """Train and evaluate what is to be done; one outcome per job, in the order given.

    `register(bound, folder)` is called before a run's first file is written (Hydra writes its own files there).
    """
    writable(prepared.folder)
    with locked(prepared.folder):
        sweep = Sweep(prepared, jobs, name, objective, display)
        for bound, path in prepared.again:
            display.note(f"evaluating again: {path.name}")
            sweep.outcomes[bound.job.hash] = evaluate_again(bound, path, sweep.outcomes[bound.job.hash].result)
        if prepared.todo:
            write_manifest(prepared.folder, list({job.hash: job for job in jobs}.values()), name)
            for bound in prepared.todo:
                folder = sweep.folder(bound)
                register(bound, folder.path)
                folder.write_config(record.config_content(bound, name))
            with display.training(prepared.groups):
                sweep.train(options)
            summary(prepared.folder, configurations(prepared.folder))
        return [sweep.outcomes[job.hash] for job in jobs if job.hash in sweep.outcomes]


def _import_early() -> None:
    """Import what evaluation needs (1.5 s) while the first program compiles."""
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401


def evaluate_again(bound: Bound, path: Path, result: Mapping[str, Any]) -> Outcome:
    """New metrics of a finished run, without training."""
    run = RunFolder(path)
    params, _ = run.load_parameters()
    trainer = Trained(
        status=result["status"],
        reason=result["reason"],
        params=params,
        epochs=result["epochs"],
        metrics={name: value for name, value in result["metrics"].items() if name in result["trained_metrics"]},
        best_epoch=result["best_epoch"],
        seconds_compile_group=result["seconds_compile_group"],
        seconds_wall_group=result["seconds_wall_group"],
        seconds_device_share=result["seconds_device_share"],
    )
    return Outcome(
        bound.job, path, finish(bound, run, {**result, "evaluation": plain(bound.job.evaluation)}, trainer, None)
    )
