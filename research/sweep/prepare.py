"""Everything that is known and checked about a command before anything is written."""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import environment
from research.runs.folder import STATUSES, TRAINED, RunFolder
from research.runs.load import check_parameters
from research.sweep.choosing import check_objective, check_pruning
from research.sweep.job import HASH_DIGITS, NOT_HASHED, Bound, Job, bind
from research.sweep.manifest import check_sweep, described, read_manifest, runs_in, saved
from research.sweep.memory import fitted
from research.sweep.plan import Group, Options, group_id, plan
from research.sweep.size import check_memory
from research.tree import ConfigError, canonical, config_hash, flatten, hints, nearest, plain, resolve_target


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
      done: hash -> outcome of runs that are finished here already, with those of `groups` that no job names.
      again: finished runs whose evaluation is to be done anew.
      groups: the plan of `todo`.
      outdated: names of states that an older version saved of whole groups of map mode; they are of no use.
    """

    folder: Path
    todo: list[Bound]
    done: dict[str, Outcome]
    again: list[tuple[Bound, Path]]
    groups: list[Group]
    outdated: list[str] = dataclasses.field(default_factory=list)

    @property
    def beside(self) -> int:
        """How many finished runs are in none of the programs."""
        planned = {bound.job.hash for group in self.groups for bound in group.bounds}
        return len(self.done.keys() - planned)


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
    check_twins(jobs)
    if swept is not None:
        check_sweep(folder, unique, swept)
    environment.check()
    environment.described()  # refuses a device that is not there
    present = runs_in(folder)
    todo, done, again, kept = [], {}, [], []
    for job in unique:
        path = present.get(job.hash[:HASH_DIGITS])
        result = None
        if path is not None:
            run = RunFolder(path)
            if run.config.exists() and run.read_config().get("config_hash") != job.hash:
                raise ConfigError(
                    "name", folder.name, f"{path} holds the run of another configuration; choose another name="
                )
            result = own_result(run, job)
        bound = bind(job)
        if path is None or result is None or result.get("status") not in options.kept:
            todo.append(bound)
            continue
        if result.get("data_sha256") != bound.dataset.sha256:
            raise ConfigError(
                "data", bound.dataset.name, f"the data are not those of the finished run {path}; choose another name="
            )
        done[job.hash] = Outcome(job, path, result)
        kept.append((bound, path))
        if result.get("evaluation") != plain(job.evaluation) and result["status"] not in ("diverged", "failed"):
            again.append((bound, path))
    manifest = read_manifest(folder) or {"runs": {}, "groups": {}}
    begun_with = {about.get("config_hash"): about.get("data_sha256") for about in described(manifest).values()}
    for bound in todo:
        planned = begun_with.get(bound.job.hash) or bound.dataset.sha256
        if planned != bound.dataset.sha256:
            remedy = f"the data are not those that {bound.job.run_id} was begun with; choose another name="
            raise ConfigError("data", bound.dataset.name, remedy)
    check_data(todo, present.values())
    for bound in todo:
        check_warm_start(bound)
    begun = begun_groups(folder, manifest["groups"], todo, [*todo, *(bound for bound, _ in kept)], present, options)
    taken = {bound.job.hash for group in begun for bound in group.bounds}
    named = {job.hash for job in unique}
    unnamed = [bound.job for group in begun for bound in group.bounds if bound.job.hash not in named]
    # a program is restored whole, and what its other members have is not this command's to change
    done |= finished(unnamed, folder, dataclasses.replace(options, retry="none"))
    fresh = fresh_plan(folder, [bound for bound in todo if bound.job.hash not in taken], options)
    for group in fresh:
        check_memory(group.bounds[0].job, group.parameters, group.bytes / group.width)
    for group in begun:  # as wide as it was; its bytes are those of one member
        check_memory(group.bounds[0].job, group.parameters, group.bytes * group.width, group.width)
    groups = begun + [part for group in fresh for part in fitted(group, options)]
    for group in groups:
        if objective.startswith("validation/") and group.metrics and objective not in group.metrics:
            remedy = f"no such metric{nearest(objective, group.metrics)}; known: {', '.join(group.metrics)}"
            raise ConfigError("objective", objective, remedy)
    if objective and unique:
        everyone = [*todo, *(bound for bound, _ in kept)]
        check_objective(objective, everyone, [name for group in groups for name in group.metrics])
    check_pruning(options, groups)
    of_map = [name for name, about in manifest["groups"].items() if about["mode"] == "map" and about["width"] > 1]
    return Prepared(folder, todo, done, again, groups, [name for name in of_map if saved(folder, name)])


def fresh_plan(folder: Path, todo: Sequence[Bound], options: Options) -> list[Group]:
    """The plan of runs that belong to no group yet; those that map mode has begun go on in map mode."""
    groups = plan(todo, options)
    in_vmap = [bound for group in groups if group.mode == "vmap" for bound in group.bounds]
    begun = {bound.job.hash for bound in in_vmap if saved(folder, group_id([bound.job.hash], "map", 1))}
    if not begun:
        return groups
    apart = [[bound for bound in todo if (bound.job.hash in begun) == there] for there in (True, False)]
    return plan(apart[0], dataclasses.replace(options, mode="map")) + plan(apart[1], options)


def check_twins(jobs: Sequence[Job]) -> None:
    """Refuse jobs that are one run and differ in what is no part of it: one of them would be lost.

    Raises:
      ConfigError: naming the key.
    """
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.hash, job)
        for section in () if other is job else ("evaluation", "data"):
            before, now = (flatten({section: plain(getattr(one, section))}) for one in (other, job))
            for key in now:
                if now[key] != before.get(key):
                    remedy = f"the same run is asked for with {before.get(key)}; {key} cannot be swept, give one value"
                    raise ConfigError(key, now[key], remedy)


NUMBERS = ("seconds_compile_group", "seconds_wall_group", "seconds_device_share")
KINDS: dict[str, Any] = {"data_sha256": str, "objective": str, "metrics": dict, "reason": str | None}  # of any result
KINDS_TRAINED = {"epochs": int, "best_epoch": int | None, "trained_metrics": list, "files": dict}
KINDS_TRAINED |= dict.fromkeys(NUMBERS, int | float | None)
KINDS_ADDED = {"first_bad_step": int | None, "widths": list, "resumed_at": list}  # an older version may lack them


def own_result(run: RunFolder, job: Job) -> dict[str, Any] | None:
    """The result of a job's run, or None before there is one.

    Raises:
      ConfigError: it is of another run, or lacks what a run writes.
    """
    result = run.read_result()
    if result is None:
        return None
    try:
        if result["status"] not in STATUSES:
            raise ValueError(f"status {result['status']!r} is none that a run has")
        if result["config_hash"] != job.hash or not result["run_id"].endswith(job.hash[:HASH_DIGITS]):
            raise ValueError(f"it is the result of another run, {result['run_id']}")
        kinds = KINDS | (KINDS_TRAINED if result["status"] in TRAINED else {})
        if result["status"] in TRAINED:
            kinds |= {name: KINDS_ADDED[name] for name in KINDS_ADDED if name in result}
        for name, kind in kinds.items():
            if not isinstance(result[name], kind):
                raise ValueError(f"{name} is {result[name]!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        remedy = f"result.json is not as this run wrote it ({what}); restore it, or remove it to train the run anew"
        raise ConfigError("folder", run.path, remedy) from None
    return result


def finished(jobs: Sequence[Job], folder: Path, options: Options) -> dict[str, Outcome]:
    """Hash -> outcome of the jobs that have a result here which is kept."""
    present = runs_in(folder)
    found: dict[str, Outcome] = {}
    for job in jobs:
        path = present.get(job.hash[:HASH_DIGITS])
        result = None if path is None else own_result(RunFolder(path), job)
        if path is not None and result is not None and result.get("status") in options.kept:
            found[job.hash] = Outcome(job, path, result)
    return found


def begun_groups(
    folder: Path,
    records: Mapping[str, Any],
    todo: Sequence[Bound],
    known: Sequence[Bound],
    present: Mapping[str, Path],
    options: Options,
) -> list[Group]:
    """Programs that an earlier command began: they keep members, mode and width.

    In vmap mode a program with a checkpoint is restored whole, with members that are finished or that this command does
    not name. Without a checkpoint the members that are not finished train again beside copies, which gives them the
    same bits at the same width. So do members that are tried again after they diverged or were pruned: in a checkpoint
    they have ended already. In map mode a member depends on nobody, and groups are planned anew; but where members are
    compared (`sweep.prune`) a group stays as it was.
    """

    def known_there(digest: str, peer: Bound) -> Bound:
        """A member that this command does not name."""
        root = getattr(peer.job.data, "root", None)
        return rebuilt(present[digest[:HASH_DIGITS]], root, peer.job.trusted, plain(peer.job.evaluation))

    unfinished = {bound.job.hash: bound for bound in todo}
    asked = set(unfinished)
    anew = {digest for digest in unfinished if ended(present.get(digest[:HASH_DIGITS]))}
    bounds = {bound.job.hash: bound for bound in known}
    found: list[Group] = []
    # the newest first: a member that was tried again stands in several
    for (name, about), again in itertools.product(reversed(list(records.items())), (False, True)):
        own = [digest for digest in about["members"] if digest in unfinished and (digest in anew) == again]
        if not own:
            continue
        members, in_map = own, about["mode"] == "map"
        if in_map and (again or options.prune == "none"):
            continue
        if in_map:  # without members that are tried again
            members = [digest for digest in about["members"] if digest in own or digest not in asked]
        elif not again and saved(folder, name):
            members = about["members"]
        peer = unfinished[own[0]]
        try:
            rows = [bounds.get(digest) or known_there(digest, peer) for digest in members]
        except (KeyError, ConfigError):  # a member's folder is gone: its program cannot be restored whole
            rows = [unfinished[digest] for digest in own]
        (like,) = plan(rows[:1], options)
        if about["devices"] > jax.local_device_count() and not in_map:
            remedy = f"its programs were begun on {about['devices']} devices, and here are {jax.local_device_count()}"
            raise ConfigError("name", folder.name, f"{remedy}; go on where there are as many, or choose another name=")
        begun = {name: about[name] for name in ("mode", "width", "devices")}
        begun |= {"width": 1, "devices": 1} if in_map else {}
        found.append(dataclasses.replace(like, bounds=tuple(rows), reason="begun before", **begun))
        for digest in own:
            del unfinished[digest]
    return found[::-1]


def ended(path: Path | None) -> bool:
    """Whether a run has an end from which its training cannot go on."""
    return path is not None and (RunFolder(path).read_result() or {}).get("status") in ("diverged", "pruned")


def rebuilt(path: Path, root: str | None, trusted: Sequence[str], evaluation: Any = None) -> Bound:
    """The job of a run folder with its data, from what is written there.

    Args:
      root: where the data lie, if not where the run's own command said.
      trusted: packages whose classes may be named; never taken from the folder.
      evaluation: in place of the run's own.

    Raises:
      ConfigError: the configuration was changed, or the data are others.
    """
    run = RunFolder(path)
    config, result = run.read_config(), run.read_result() or {}
    tree: Any = config.get("config")
    overrides = result.get("overrides", [])
    sections = ("model", "optimizer", "trainer", "data")
    described = isinstance(tree, dict) and all(isinstance(tree.get(name), dict) for name in sections)
    if not described or not isinstance(tree.get("seed"), int) or config_hash(tree) != config.get("config_hash"):
        raise ConfigError("folder", path, "its config.json does not give the hash that it states; it was changed")
    overrides = [line for line in overrides if isinstance(line, str)] if isinstance(overrides, list) else []
    given = [line.partition("=")[2].strip("'\"") for line in overrides if line.startswith("data.root=")]
    place = root if root is not None else next(reversed(given), "null")
    fields = hints(resolve_target(tree["data"].get("_target_"), trusted))
    for section, names in NOT_HASHED.items():
        places = {name: None if place == "null" else place for name in names if name in fields}
        tree = tree | {section: tree[section] | places}
    evaluation = evaluation or result.get("evaluation") or shipped("evaluation", "none")
    more = {"evaluation": evaluation, "trusted_packages": list(trusted)}
    job = Job.from_config({**tree, **more}, config.get("choices", {}), overrides)
    if job.hash != config["config_hash"]:
        remedy = "its config.json is not as this version writes it; use the version that wrote it"
        raise ConfigError("folder", path, remedy)
    bound = bind(job)
    if result and result.get("data_sha256") != bound.dataset.sha256:
        raise ConfigError("data", bound.dataset.name, f"the data are not those of the run {path.name}")
    return bound


def shipped(*names: str) -> dict[str, Any]:
    """Content of a shipped config upon those beside it that it builds on: `shipped("evaluation", "none")`."""
    import yaml

    path = Path(__file__).parents[2] / "conf" / Path(*names)
    content = yaml.safe_load(path.with_suffix(".yaml").read_text(encoding="utf-8"))
    for beside in content.pop("defaults", []):
        if isinstance(beside, str) and beside != "_self_":
            content = shipped(*names[:-1], beside) | content
    return content


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
    rows = bound.dataset.split(None).prepare(bound.dataset.examples.take(np.arange(2)))
    wanted = jax.eval_shape(bound.model.init, key, rows)
    problem = check_parameters(given, wanted)
    if problem is not None:
        raise ConfigError("trainer.warm_start", bound.job.trainer.warm_start, f"{problem}; name another run")


@functools.lru_cache(maxsize=64)
def load_start(path: str) -> Any:
    """Parameters of a finished run."""
    if not Path(path).is_dir():
        raise ConfigError("trainer.warm_start", path, "no such folder; name the folder of a finished run")
    try:
        return RunFolder(path).load_parameters()[0]
    except ConfigError as error:
        raise ConfigError("trainer.warm_start", path, error.remedy) from None
