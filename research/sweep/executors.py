"""Engines that run programs in other processes: joblib (local processes, Ray, Dask) and submitit (SLURM).

They are given `run_group` and two plain values, and give back its answer. Whatever else a program leaves is read from
the disk.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from research.ranges import Range
from research.sweep.worker import Answer, run_group
from research.tree import ConfigError, recipe

NEEDS = {"ray": ("ray", "ray"), "dask": ("distributed", "dask"), "submitit": ("submitit", "slurm")}  # module, extra
LOOK_EVERY = 0.2  # seconds between two looks at the jobs of submitit
END_WITHIN = 3.0  # seconds that cancelled jobs have
UNLIMITED = 60 * 24 * 365  # minutes; submitit ends local jobs after five, if it is told nothing


@recipe
class Executor:
    """Where programs are trained.

    Attributes:
      executor: "inline" in this process; "joblib" in local processes (loky); "ray" and "dask" on their clusters,
        through joblib; "submitit" as jobs of SLURM.
      workers: programs at the same time.
      address: of a running cluster ("auto" for Ray, tcp://... for Dask); null starts one on this machine.
      parameters: of submitit's executor, for example timeout_min, slurm_partition, and cluster=local for a trial.
    """

    executor: Literal["inline", "joblib", "ray", "dask", "submitit"]
    workers: Annotated[int, Range(1, 65_536)]
    address: str | None
    parameters: dict[str, Any]

    def validate(self) -> None:
        if self.executor in NEEDS:
            module, extra = NEEDS[self.executor]
            if importlib.util.find_spec(module) is None:
                remedy = f"it needs the package {module}: pip install -e '.[{extra}]'"
                raise ConfigError("executor", self.executor, remedy)


def send(executor: Executor, manifest: Path, numbers: Sequence[int], note: Callable[[str], None]) -> dict[int, Answer]:
    """Run these programs to their end, or to the first worker that dies; the answers of those that gave one."""
    if executor.executor == "submitit":
        return _send_to_slurm(executor, manifest, numbers, note)
    import joblib

    # joblib would run a single worker in this process; the second one of its pool is given nothing to do
    pool: dict[str, Any] = {"n_jobs": max(2, min(executor.workers, len(numbers)))}
    opened = {"joblib": _loky, "ray": _ray, "dask": _dask}[executor.executor]
    settings: Any = {"batch_size": 1, "pre_dispatch": executor.workers}
    try:
        with opened(executor, manifest.parent) as more, joblib.parallel_config(**pool, **more):
            found: Any = joblib.Parallel(**settings)(
                joblib.delayed(run_group)(str(manifest), number) for number in numbers
            )
        return dict(zip(numbers, found, strict=True))
    except ConfigError:
        raise
    except Exception as error:  # a worker died, and joblib took the others with it
        note(f"a worker ended: {short(error)}")
        return {}


@contextlib.contextmanager
def _loky(executor: Executor, launch: Path) -> Iterator[dict[str, Any]]:
    """Local processes, new ones for every try: joblib keeps its own for later, also those of a pool that has broken."""
    from joblib.externals.loky import get_reusable_executor

    # joblib takes names in ASCII only, so it cannot be the folder of the launch
    place = tempfile.TemporaryDirectory(prefix="joblib-", ignore_cleanup_errors=True)
    with place as temporary, sharing_an_accelerator():
        try:
            # idle processes end by themselves, should this one be killed
            yield {"backend": "loky", "temp_folder": temporary, "idle_worker_timeout": 10}
        finally:
            own: dict[str, Any] = {"reuse": True, "kill_workers": True}
            get_reusable_executor(**own).shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def sharing_an_accelerator() -> Iterator[None]:
    """Processes that start within take the memory of an accelerator as they need it, rather than most of it each."""
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    before = os.environ.get(name)
    os.environ.setdefault(name, "false")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@contextlib.contextmanager
def _ray(executor: Executor, launch: Path) -> Iterator[dict[str, Any]]:
    """A Ray cluster, with joblib's backend for it."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]

    ours = not ray.is_initialized()
    settings: Any = {"address": executor.address, "logging_level": logging.ERROR}
    place = None
    if executor.address is None:
        # paths of sockets are short, so it cannot be the folder of the launch
        place = tempfile.mkdtemp(prefix="ray-")
        settings |= {"num_cpus": max(2, executor.workers), "include_dashboard": False, "_temp_dir": place}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if ours:
            with warnings.catch_warnings(), own_signals():
                warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")  # to start a program at once
                ray.init(**settings)
        register_ray()
        # a worker that asks for no accelerator is shown none
        share = min(1.0, ray.cluster_resources().get("GPU", 0.0) / executor.workers)
        yield {"backend": "ray"} | ({"ray_remote_args": {"num_gpus": share}} if share else {})
    finally:
        if ours:
            ray.shutdown()
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Leave Ctrl-C and SIGTERM to the command.

    Processes that start within ignore Ctrl-C, which a terminal sends to all of them: the command tells their workers to
    stop, and those save their state. What Ray does to the handlers of this process is undone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _dask(executor: Executor, launch: Path) -> Iterator[dict[str, Any]]:
    """A Dask cluster; importing it registers joblib's backend."""
    from distributed import Client, LocalCluster  # pyright: ignore[reportMissingImports]

    logging.getLogger("distributed").setLevel(logging.ERROR)
    settings: Any = {"n_workers": executor.workers, "threads_per_worker": 1, "dashboard_address": None}
    with contextlib.ExitStack() as stack:
        address: Any = executor.address
        if address is None:
            stack.enter_context(sharing_an_accelerator())
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True))
            with own_signals():
                cluster = LocalCluster(**settings, local_directory=place)
            address = stack.enter_context(cluster)
        stack.enter_context(Client(address))
        yield {"backend": "dask"}


def _send_to_slurm(
    executor: Executor, manifest: Path, numbers: Sequence[int], note: Callable[[str], None]
) -> dict[int, Answer]:
    import submitit  # pyright: ignore[reportMissingImports]

    parameters = {name: value for name, value in executor.parameters.items() if value is not None}
    parameters |= {name: list(value) for name, value in parameters.items() if isinstance(value, tuple)}
    try:
        slurm = submitit.AutoExecutor(folder=manifest.parent / "submitit", cluster=parameters.pop("cluster", None))
        if slurm.cluster != "slurm":
            parameters.setdefault("timeout_min", UNLIMITED)
        slurm.update_parameters(**parameters)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise ConfigError("hydra.launcher.parameters", parameters, f"submitit refuses them: {error}") from None
    answers: dict[int, Answer] = {}
    waiting, jobs = list(numbers), dict[int, Any]()
    try:
        while waiting or jobs:
            if not manifest.exists():  # the command is to end, and its workers see that too
                waiting.clear()
            while waiting and len(jobs) < executor.workers:
                number = waiting.pop(0)
                with own_signals():
                    jobs[number] = slurm.submit(run_group, str(manifest), number)
            for number in [number for number, job in jobs.items() if job.done()]:
                job = jobs.pop(number)
                error = job.exception()
                if error is None:
                    answers[number] = job.result()
                else:
                    note(f"program {number + 1}: a worker ended: {short(error)}")
            time.sleep(LOOK_EVERY)
    finally:
        end = time.monotonic() + END_WITHIN
        left = list(jobs.values())
        while left and time.monotonic() < end:
            for job in left:
                local = getattr(job, "_process", None)
                # a local job hands this signal to its worker, whose second one ends it at once
                job.cancel() if local is None else local.terminate()
            time.sleep(LOOK_EVERY)
            left = [job for job in left if not job.done()]
    return answers


def short(error: BaseException) -> str:
    """An error in one line, with the last line of its cause, where engines tell what it was."""
    first = [(str(one).strip().splitlines() or [""]) for one in (error, error.__cause__) if one is not None]
    reason = f" ({first[1][-1][:200]})" if len(first) > 1 else ""
    return f"{type(error).__name__}: {first[0][0][:200]}{reason}"
