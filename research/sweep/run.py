"""A sweep from jobs to run folders: what is there already, the plan, the groups, the results."""

import dataclasses
import datetime
import functools
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.runs.folder import RunFolder, writable, write_atomically
from research.runs.summary import summary
from research.sweep.display import Display
from research.sweep.finish import finish
from research.sweep.job import HASH_DIGITS, Bound, Job, bind
from research.sweep.loop import Trained, train_group
from research.sweep.plan import Group, Options, plan
from research.sweep.program import Program, device_kind, on_device
from research.tree import ConfigError, config_hash, flatten, plain

KEPT = ("completed", "stopped", "diverged")  # statuses that are results; failed and interrupted runs are run again
HYDRA_FILES = ("multirun.yaml", "optimization_results.yaml")


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


def prepare(jobs: Sequence[Job], folder: Path, options: Options, *, whole: bool = True) -> Prepared:
    """Load the data, bind and group the jobs, compare with what the folder holds; writes nothing.

    `whole` says that these are all jobs of the command; else they are some points of a sweep that a sweeper has in
    hand, and what it sweeps cannot be told from them.

    Raises:
      ConfigError: a job cannot run, or the folder belongs to another sweep.
    """
    unique = list({job.hash: job for job in jobs}.values())
    if whole:
        check_sweep(folder, unique)
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
    for bound in todo:
        check_warm_start(bound)
    return Prepared(folder, todo, done, again, plan(todo, options))


def runs_in(folder: Path) -> dict[str, Path]:
    """First hash digits -> folder of the runs in a sweep folder."""
    if not folder.is_dir():
        return {}
    runs = (path.parent for path in folder.glob("*/config.json"))
    return {path.name.rpartition("-")[2]: path for path in runs}


# --------------------------------------------------------------------------------------------------- the sweep's file


def check_sweep(folder: Path, jobs: Sequence[Job]) -> None:
    """Refuse a folder whose earlier runs have other values of keys that neither they nor these jobs sweep."""
    manifest = read_manifest(folder)
    if manifest is None:
        entries = folder.iterdir() if folder.is_dir() else ()
        foreign = [path.name for path in entries if path.name not in HYDRA_FILES and not (path / ".hydra").is_dir()]
        if foreign and not runs_in(folder):
            raise ConfigError("name", folder.name, f"{folder} holds {foreign[0]} and no sweep; choose another name=")
        return
    then, now = manifest["base"], base(jobs)
    swept = set(manifest["swept"]) | set(swept_keys(jobs))
    changed = [
        f"{key}: {then.get(key)} there, {now.get(key)} now"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key) and not any(key == name or key.startswith(f"{name}.") for name in swept)
    ]
    if changed:
        shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ConfigError("name", folder.name, f"{folder} holds another sweep ({shown}); choose another name=")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Content of `sweep.json`, or None."""
    path = folder / "sweep.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError("name", folder.name, f"{path} is damaged; restore or remove it") from None


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Override keys whose values differ between the jobs."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job.overrides:
            key, _, value = override.lstrip("+").partition("=")
            values.setdefault(key, set()).add(value)
    partial = {key for key in values if any(key not in _keys(job) for job in jobs)}
    return [key for key, found in values.items() if len(found) > 1 or key in partial]


def _keys(job: Job) -> set[str]:
    return {override.lstrip("+").partition("=")[0] for override in job.overrides}


def base(jobs: Sequence[Job]) -> dict[str, Any]:
    """Flat typed tree of the keys that all jobs share."""
    first, *others = [flatten(job.tree()) for job in jobs]
    return {key: value for key, value in first.items() if all(other.get(key, "absent") == value for other in others)}


def write_manifest(folder: Path, jobs: Sequence[Job], name: str) -> None:
    """Record the planned runs in `sweep.json`, beside those of earlier commands."""
    manifest = read_manifest(folder) or {"name": name, "base": base(jobs), "swept": [], "runs": {}}
    now = base(jobs)
    shared = {key: value for key, value in manifest["base"].items() if now.get(key, "absent") == value}
    changed = {key for key in {*now, *manifest["base"]} if key not in shared}
    swept = sorted({*manifest["swept"], *swept_keys(jobs), *(changed if manifest["runs"] else ())})
    runs = manifest["runs"] | {job.run_id: {"overrides": list(job.overrides), "config_hash": job.hash} for job in jobs}
    content = manifest | {"base": shared, "swept": swept, "runs": runs}
    write_atomically(folder / "sweep.json", (json.dumps(content, indent=1) + "\n").encode())


# ---------------------------------------------------------------------------------------------------------- warm start


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


def lineage(job: Job) -> dict[str, Any] | None:
    """Where a warm-started run comes from."""
    if job.trainer.warm_start is None:
        return None
    config = RunFolder(job.trainer.warm_start).read_config()
    return {"run": Path(job.trainer.warm_start).name, "config_hash": config["config_hash"]}


# ---------------------------------------------------------------------------------------------------------------- run


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
    folder, outcomes = prepared.folder, dict(prepared.done)
    writable(folder)
    if prepared.todo:
        write_manifest(folder, list({job.hash: job for job in jobs}.values()), name)
    hparams = hyperparameters(jobs)
    for bound, path in prepared.again:
        display.note(f"evaluating again: {path.name}")
        outcomes[bound.job.hash] = evaluate_again(bound, path, outcomes[bound.job.hash].result)
    paths = {bound.job.hash: folder / bound.job.run_id for bound in prepared.todo}
    for bound in prepared.todo:
        register(bound, paths[bound.job.hash])
        RunFolder(paths[bound.job.hash]).write_config(config_content(bound, name))
    shared = {"objective": objective, "versions": versions(), "commit": commit()}
    with display.training(prepared.groups):
        for number, group in enumerate(prepared.groups):
            folders = [RunFolder(paths[bound.job.hash]) for bound in group.bounds]
            about = {**shared, "program": {"mode": group.mode, "width": group.width, "device_kind": device_kind()}}
            common = [about | identity(bound, run) for bound, run in zip(group.bounds, folders, strict=True)]
            display.begin(number)
            try:
                data = on_device(group.bounds[0].dataset)
                starts = [bound.job.trainer.warm_start for bound in group.bounds]
                params = [load_start(path) for path in starts if path is not None]
                program = Program(group, data, params or None)
                trained = train_group(group, program, folders, functools.partial(display.chunk, number))
                del program
                display.evaluating(number, len(trained))
                for bound, run, content, member in zip(group.bounds, folders, common, trained, strict=True):
                    try:
                        result = finish(bound, run, content, member, hparams[bound.job.hash])
                    except ConfigError:
                        raise
                    except Exception as error:  # its own evaluation; the others' results are good
                        display.error(error)
                        result = fail(run, content, error)
                    outcomes[bound.job.hash] = Outcome(bound.job, run.path, result)
                    display.finished(number, result)
            except KeyboardInterrupt:
                for waiting in prepared.groups[number:]:
                    for bound in waiting.bounds:
                        if bound.job.hash not in outcomes:
                            run = RunFolder(paths[bound.job.hash])
                            content = {**shared, "program": None} | identity(bound, run)
                            run.write_result(unfinished(content, "interrupted", "interrupted by the user"))
                raise
            except ConfigError:
                raise  # a full disk, say: nothing more can be written
            except Exception as error:
                for bound, run, content in zip(group.bounds, folders, common, strict=True):
                    if bound.job.hash not in outcomes:
                        result = fail(run, content, error)
                        outcomes[bound.job.hash] = Outcome(bound.job, run.path, result)
                        display.finished(number, result)
                display.error(error)
                if options.fail_fast:
                    break
    if prepared.todo:
        summary(folder, configurations(folder))
    return [outcomes[job.hash] for job in jobs if job.hash in outcomes]


def configurations(folder: Path) -> dict[str, list[Path]]:
    """Runs of a sweep folder that differ in nothing but their seed: short name -> run folders."""
    found: dict[str, list[Path]] = {}
    for path in sorted(runs_in(folder).values()):
        run = RunFolder(path)
        if (run.read_result() or {}).get("status") in ("completed", "stopped"):
            tree = {key: value for key, value in run.read_config()["config"].items() if key != "seed"}
            words = [word for word in path.name.rpartition("-")[0].split("-") if not word.startswith("seed=")]
            found.setdefault(f"{'-'.join(words)}-{config_hash(tree)[:HASH_DIGITS]}", []).append(path)
    return found


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
        seconds_wall_group=result["seconds_wall_group"],
        seconds_device_share=result["seconds_device_share"],
    )
    return Outcome(bound.job, path, finish(bound, run, dict(result), trainer, None))


def fail(run: RunFolder, content: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Write the result of a run that raised; returns it."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    result = unfinished(content, "failed", f"{type(error).__name__}: {first_line}")
    run.write_result(result)
    return result


def unfinished(content: Mapping[str, Any], status: str, reason: str) -> dict[str, Any]:
    """The result of a run that has none."""
    nothing = {"epochs": 0, "best_epoch": None, "seconds_wall_group": None, "seconds_device_share": None}
    return {**content, **nothing, "status": status, "reason": reason, "metrics": {}, "null_reasons": {}}


def identity(bound: Bound, run: RunFolder) -> dict[str, Any]:
    """The part of `result.json` that is known before training."""
    job = bound.job
    return {
        "run_id": run.path.name,
        "overrides": list(job.overrides),
        "command": command(job),
        "config_hash": job.hash,
        "data_sha256": bound.dataset.sha256,
        "evaluation": plain(job.evaluation),
        "lineage": lineage(job),
    }


def command(job: Job) -> str:
    """What reproduces this run alone."""
    overrides = [override for override in job.overrides if override.partition("=")[0] not in ("name", "hydra.mode")]
    return shlex.join(["python", "scripts/train.py", *overrides])


def config_content(bound: Bound, name: str) -> dict[str, Any]:
    """What `config.json` holds: the hashed tree, and what is needed to use the run without its data."""
    job = bound.job
    tree = job.tree()
    assert config_hash(tree) == job.hash
    return {
        "config": tree,
        "config_hash": job.hash,
        "name": name,
        "choices": dict(job.choices),
        "trusted_packages": list(job.trusted),
        "facts": {**dataclasses.asdict(bound.dataset.facts), "name": bound.dataset.name},
    }


def hyperparameters(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Hash -> swept keys and their values (of a single job: its overrides), for the HParams page."""
    from research.runs.events import unify

    keys = swept_keys(jobs) or sorted(set().union(*map(_keys, jobs)))
    rows = []
    for job in jobs:
        flat = {**flatten(job.tree()), **job.choices}
        rows.append({key: flat[key] for key in keys if key in flat})
    return {job.hash: row for job, row in zip(jobs, unify(rows), strict=True)}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computes."""
    from importlib.metadata import version

    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


@functools.cache
def commit() -> str | None:
    """The commit of this repository, with `+` for uncommitted changes; None outside of git."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """Default name of a sweep."""
    return datetime.datetime.fromtimestamp(time.time()).strftime("%Y-%m-%d_%H-%M-%S")
