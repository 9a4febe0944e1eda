"""Engines that run workers: joblib (local processes, Ray, Dask) and submitit (SLURM).

An engine receives `run_group` and two plain values, and returns its answer. Everything else is read from the disk.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from research.sweep.options import Executor
from research.sweep.remote.worker import Answer, run_group
from research.sweep.train.signals import ignored
from research.tree import ConfigError

LOOK_EVERY = 0.2  # seconds between two looks at the jobs of submitit
END_WITHIN = 3.0  # seconds that cancelled jobs have to end
UNLIMITED = 60 * 24 * 365  # minutes; without it, submitit ends local jobs after five


def send(executor: Executor, manifest: Path, numbers: Sequence[int], note: Callable[[str], None]) -> dict[int, Answer]:
    """Run the groups of these numbers until all have ended or a worker has died; returns the answers that came."""
    if executor.executor == "submitit":
        return _send_to_slurm(executor, manifest, numbers, note)
    import joblib

    # joblib runs a pool of one worker in this process, so the pool has at least two; the second one stays idle.
    pool: dict[str, Any] = {"n_jobs": max(2, min(executor.workers, len(numbers)))}
    opened = {"joblib": _loky, "ray": _ray, "dask": _dask}[executor.executor]
    settings: Any = {"batch_size": 1, "pre_dispatch": executor.workers}
    try:
        with opened(executor, manifest.parent) as more, joblib.parallel_config(**pool, **more):
            tasks = (joblib.delayed(run_group)(str(manifest), number) for number in numbers)
            answers: Any = joblib.Parallel(**settings)(tasks)
        return dict(zip(numbers, answers, strict=True))
    except ConfigError:
        raise
    except Exception as error:  # a worker died, and joblib ended the others
        note(f"a worker ended: {short(error)}")
        return {}


@contextlib.contextmanager
def _loky(executor: Executor, launch: Path) -> Iterator[dict[str, Any]]:
    """Local processes. Every try has new ones, because joblib would reuse its processes even from a broken pool."""
    from joblib.externals.loky import get_reusable_executor

    # joblib accepts only ASCII names, so this cannot be the folder of the launch.
    folder = tempfile.TemporaryDirectory(prefix="joblib-", ignore_cleanup_errors=True)
    with folder as temporary, sharing_an_accelerator():
        try:
            # If this process is killed, idle workers end by themselves.
            yield {"backend": "loky", "temp_folder": temporary, "idle_worker_timeout": 10}
        finally:
            reuse: dict[str, Any] = {"reuse": True, "kill_workers": True}
            get_reusable_executor(**reuse).shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def sharing_an_accelerator() -> Iterator[None]:
    """Processes that start inside allocate the memory of an accelerator as they need it, instead of most of it each."""
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
    folder = None
    if executor.address is None:
        # Paths of sockets must be short, so this cannot be the folder of the launch.
        folder = tempfile.mkdtemp(prefix="ray-")
        settings |= {"num_cpus": max(2, executor.workers), "include_dashboard": False, "_temp_dir": folder}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if ours:
            with warnings.catch_warnings(), ignored():
                warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")  # and started another program
                ray.init(**settings)
        register_ray()
        # Ray hides the accelerators from a worker that asks for none.
        share = min(1.0, ray.cluster_resources().get("GPU", 0.0) / executor.workers)
        yield {"backend": "ray"} | ({"ray_remote_args": {"num_gpus": share}} if share else {})
    finally:
        if ours:
            ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _dask(executor: Executor, launch: Path) -> Iterator[dict[str, Any]]:
    """A Dask cluster; importing `distributed` registers its backend with joblib."""
    from distributed import Client, LocalCluster  # pyright: ignore[reportMissingImports]

    logging.getLogger("distributed").setLevel(logging.ERROR)
    settings: Any = {"n_workers": executor.workers, "threads_per_worker": 1, "dashboard_address": None}
    with contextlib.ExitStack() as stack:
        address: Any = executor.address
        if address is None:
            stack.enter_context(sharing_an_accelerator())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True))
            with ignored():
                cluster = LocalCluster(**settings, local_directory=folder)
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
            if not manifest.exists():  # the command is to stop, and its workers see that too
                waiting.clear()
            while waiting and len(jobs) < executor.workers:
                number = waiting.pop(0)
                with ignored():
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
                # A local job passes this signal on to its worker; a second one ends the worker at once.
                job.cancel() if local is None else local.terminate()
            time.sleep(LOOK_EVERY)
            left = [job for job in left if not job.done()]
    return answers


def short(error: BaseException) -> str:
    """An error in one line, with the last line of its cause, in which engines say what happened."""
    first = [(str(each).strip().splitlines() or [""]) for each in (error, error.__cause__) if each is not None]
    reason = f" ({first[1][-1][:200]})" if len(first) > 1 else ""
    return f"{type(error).__name__}: {first[0][0][:200]}{reason}"
