"""Programs sent to other processes and machines, by joblib (local processes, Ray, Dask) or submitit (SLURM).

A worker gets the path of a manifest and the number of a program, nothing else: it reads what to train there, writes the
run folders itself, and returns nothing. What became of a program is read from the disk, so that a worker may die at any
moment: the program is then given to another, which goes on from its checkpoint.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from research.runs.folder import clear_errors, write_atomically
from research.sweep.display import Display
from research.sweep.job import Job
from research.sweep.manifest import LAUNCHES
from research.sweep.plan import Group
from research.sweep.worker import run_group
from research.tree import ConfigError, plain, recipe

NEEDS = {"ray": ("ray", "ray"), "dask": ("distributed", "dask"), "submitit": ("submitit", "slurm")}  # module, extra
TRIES = 3  # of a program without any progress


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
    workers: int
    address: str | None
    parameters: dict[str, Any]

    def validate(self) -> None:
        if self.workers < 1:
            raise ConfigError("workers", self.workers, "must be at least 1")
        if self.executor in NEEDS:
            module, extra = NEEDS[self.executor]
            if importlib.util.find_spec(module) is None:
                remedy = f"it needs the package {module}: pip install -e '.[{extra}]'"
                raise ConfigError("executor", self.executor, remedy)


def dispatch(
    groups: Sequence[Group],
    folder: Path,
    executor: Executor,
    shared: dict[str, Any],
    settle: Callable[[int], int],
    display: Display,
) -> list[int]:
    """Have programs trained elsewhere; numbers of those that were given up.

    `shared` is what all workers need beside the programs. `settle(number)` reads the results of a program from the disk
    and says how many of its runs have none.
    """
    launch = folder / LAUNCHES / secrets.token_hex(8)
    with clear_errors(folder):
        launch.mkdir(parents=True, mode=0o700)
    try:
        manifest = launch / "manifest.json"
        content = shared | {"folder": str(folder), "groups": [described(group) for group in groups]}
        write_atomically(manifest, json.dumps(content).encode())
        os.chmod(manifest, 0o600)
        waiting, left, tries = list(range(len(groups))), sum(len(group.bounds) for group in groups), 0
        while waiting and tries < TRIES:
            submit(executor, manifest, waiting, launch, display)
            now = {number: settle(number) for number in waiting}
            waiting = [number for number, missing in now.items() if missing]
            tries = 0 if sum(now.values()) < left else tries + 1
            left = sum(now.values())
            if waiting:
                display.note(f"{len(waiting)} programs have runs without a result; they are given to other workers")
        return waiting
    finally:
        shutil.rmtree(launch, ignore_errors=True)
        with contextlib.suppress(OSError):
            launch.parent.rmdir()


def described(group: Group) -> dict[str, Any]:
    """A program as plain values."""
    members = [
        {"config": config(bound.job), "choices": dict(bound.job.choices), "overrides": list(bound.job.overrides)}
        for bound in group.bounds
    ]
    return {"mode": group.mode, "width": group.width, "devices": group.devices, "members": members}


def config(job: Job) -> dict[str, Any]:
    """What `Job.from_config` makes the job from; folders are absolute, since a worker may stand elsewhere."""
    sections = ("model", "optimizer", "trainer", "data", "seed", "evaluation")
    tree: dict[str, Any] = {name: plain(getattr(job, name)) for name in sections}
    tree["trusted_packages"] = list(job.trusted)
    for section, key in (("data", "root"), ("trainer", "warm_start")):
        if tree[section].get(key) is not None:
            tree[section][key] = str(Path(tree[section][key]).expanduser().absolute())
    return tree


def submit(executor: Executor, manifest: Path, numbers: Sequence[int], launch: Path, display: Display) -> None:
    """Run these programs to their end, or to the first worker that dies."""
    if executor.executor == "submitit":
        _submit_to_slurm(executor, manifest, numbers, launch, display)
        return
    import joblib

    opened = {"joblib": _loky, "ray": _ray, "dask": _dask}[executor.executor]
    backend = {"joblib": "loky"}.get(executor.executor, executor.executor)
    settings: Any = {"batch_size": 1, "pre_dispatch": "all"}
    try:
        with opened(executor), joblib.parallel_config(backend=backend, n_jobs=executor.workers):
            joblib.Parallel(**settings)(joblib.delayed(run_group)(str(manifest), number) for number in numbers)
    except ConfigError:
        raise
    except Exception as error:  # a worker died, and joblib took the others with it
        display.note(f"a worker ended: {_short(error)}")


def _submit_to_slurm(
    executor: Executor, manifest: Path, numbers: Sequence[int], launch: Path, display: Display
) -> None:
    import submitit  # pyright: ignore[reportMissingImports]

    parameters = {name: value for name, value in executor.parameters.items() if value is not None}
    slurm = submitit.AutoExecutor(folder=launch / "submitit", cluster=parameters.pop("cluster", None))
    slurm.update_parameters(**parameters)
    for start in range(0, len(numbers), executor.workers):
        own = numbers[start : start + executor.workers]
        jobs = [(number, slurm.submit(run_group, str(manifest), number)) for number in own]
        try:
            for number, job in jobs:
                error = job.exception()
                if error is not None:
                    display.note(f"program {number + 1}: {_short(error)}")
        except BaseException:  # the command is to end, and its jobs with it
            for _, job in jobs:
                job.cancel()
            raise


@contextlib.contextmanager
def _loky(executor: Executor) -> Iterator[None]:
    """Local processes, new ones for every try: joblib keeps its own for later, also those of a pool that has broken."""
    from joblib.externals.loky import get_reusable_executor

    try:
        yield
    finally:
        get_reusable_executor(max_workers=executor.workers).shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def _ray(executor: Executor) -> Iterator[None]:
    """A Ray cluster, with joblib's backend for it."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]

    ours = not ray.is_initialized()
    if ours:
        local = {} if executor.address else {"num_cpus": executor.workers, "include_dashboard": False}
        settings: Any = {"address": executor.address, "logging_level": "ERROR", **local}
        ray.init(**settings)
    register_ray()
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


@contextlib.contextmanager
def _dask(executor: Executor) -> Iterator[None]:
    """A Dask cluster; importing it registers joblib's backend."""
    from distributed import Client, LocalCluster  # pyright: ignore[reportMissingImports]

    settings: Any = {"n_workers": executor.workers, "threads_per_worker": 1, "dashboard_address": None}
    with contextlib.ExitStack() as stack:
        address = executor.address or stack.enter_context(LocalCluster(**settings))
        stack.enter_context(Client(address))
        yield


def _short(error: BaseException) -> str:
    first = [(str(one).strip().splitlines() or [""]) for one in (error, error.__cause__) if one is not None]
    reason = f" ({first[1][-1][:200]})" if len(first) > 1 else ""
    return f"{type(error).__name__}: {first[0][0][:200]}{reason}"
