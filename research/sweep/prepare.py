"""Everything that is known and checked about a command before anything is written."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.runs.folder import RunFolder
from research.sweep.job import HASH_DIGITS, Bound, Job, bind
from research.sweep.manifest import check_sweep, runs_in
from research.sweep.plan import Group, Options, plan
from research.tree import ConfigError, canonical, nearest, plain

KEPT = ("completed", "stopped", "diverged")  # statuses that are results; failed and interrupted runs are run again


@dataclasses.dataclass
class Outcome:
    """What became of one job.

    Attributes:
      job: the job.
      folder: its run folder.
      result: content of `result.json`.
    """

    job: Job
    folder: Path
    result: dict[str, Any]

    @property
    def status(self) -> str:
        return self.result["status"]

    def objective(self) -> float:
        """The metric that Hydra's sweepers get; NaN where the run has none."""
        value = self.result["metrics"].get(self.result["objective"])
        return float("nan") if value is None else float(value)


@dataclasses.dataclass
class Prepared:
    """Everything that is known and checked before anything is written.

    Attributes:
      folder: of the sweep.
      todo: jobs to train.
      done: hash -> outcome of runs that are finished here already.
      again: finished runs whose evaluation is to be done anew.
      groups: the plan of `todo`.
    """

    folder: Path
    todo: list[Bound]
    done: dict[str, Outcome]
    again: list[tuple[Bound, Path]]
    groups: list[Group]


def prepare(
    jobs: Sequence[Job], folder: Path, options: Options, *, objective: str = "", swept: Collection[str] | None = ()
) -> Prepared:
    """Load the data, bind and group the jobs, compare with what the folder holds; writes nothing.

    `swept` are keys that a sweeper varies beyond what these jobs show; None: it cannot be known, as these are some
    points of a sweep that was checked as a whole before. `objective` is refused where training cannot give it.

    Raises:
      ConfigError: a job cannot run, or the folder belongs to another sweep.
    """
    unique = list({job.hash: job for job in jobs}.values())
    if swept is not None:
        check_sweep(folder, unique, swept)
    present = runs_in(folder)
    todo, done, again = [], {}, []
    for job in unique:
        path = present.get(job.hash[:HASH_DIGITS])
        result = None
        if path is not None:
            run = RunFolder(path)
            if run.config.exists() and run.read_config().get("config_hash") != job.hash:
                raise ConfigError(
                    "name", folder.name, f"{path} holds the run of another configuration; choose another name="
                )
            result = run.read_result()
        bound = bind(job)
        if path is None or result is None or result["status"] not in KEPT:
            todo.append(bound)
            continue
        if result["data_sha256"] != bound.dataset.sha256:
            raise ConfigError(
                "data", bound.dataset.name, f"the data are not those of the finished run {path}; choose another name="
            )
        done[job.hash] = Outcome(job, path, result)
        if result["evaluation"] != plain(job.evaluation) and result["status"] != "diverged":
            again.append((bound, path))
    check_data(todo, present.values())
    for bound in todo:
        check_warm_start(bound)
    groups = plan(todo, options)
    for group in groups:
        if objective.startswith("validation/") and group.metrics and objective not in group.metrics:
            remedy = f"no such metric{nearest(objective, group.metrics)}; known: {', '.join(group.metrics)}"
            raise ConfigError("objective", objective, remedy)
    return Prepared(folder, todo, done, again, groups)


def check_data(todo: Sequence[Bound], folders: Iterable[Path]) -> None:
    """Refuse new runs on data whose content is no longer that of finished runs of the same recipe beside them."""
    without_fold = lambda tree: canonical({key: value for key, value in tree["data"].items() if key != "fold"})
    hashes = {without_fold(bound.job.tree()): bound.dataset for bound in todo}
    for path in folders if hashes else ():
        run = RunFolder(path)
        result = run.read_result() or {}
        dataset = hashes.get(without_fold(run.read_config()["config"]))
        if dataset is not None and result.get("data_sha256", dataset.sha256) != dataset.sha256:
            raise ConfigError("data", dataset.name, f"the data are not those of the run {path}; choose another name=")


def check_warm_start(bound: Bound) -> None:
    """Refuse a `warm_start` whose parameters are not those of this model."""
    if bound.job.trainer.warm_start is None:
        return
    given = load_start(bound.job.trainer.warm_start)
    key = jax.random.key(0)
    wanted = jax.eval_shape(lambda: bound.model.init(key, bound.dataset.examples.take(np.arange(2))))
    shapes = lambda tree: {
        jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    have, want = shapes(given), shapes(wanted)
    for name in sorted({*have, *want}):
        if have.get(name) != want.get(name):
            remedy = f"its parameter {name} has shape {have.get(name)}, this model needs {want.get(name)}"
            raise ConfigError("trainer.warm_start", bound.job.trainer.warm_start, remedy)


@functools.lru_cache(maxsize=64)
def load_start(path: str) -> Any:
    """Parameters of a finished run."""
    if not Path(path).is_dir():
        raise ConfigError("trainer.warm_start", path, "no such folder; name the folder of a finished run")
    try:
        return RunFolder(path).load_parameters()[0]
    except ConfigError as error:
        raise ConfigError("trainer.warm_start", path, error.remedy) from None
