"""Groups that an earlier command began keep members, mode and width, so that their bits stay the same.

Their jobs are made again from their run folders.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from research.runs.folder import RunFolder
from research.sweep.folder import cannot_continue, saved
from research.sweep.job import HASH_DIGITS, NOT_HASHED, BoundJob, Job, bind
from research.sweep.options import Options
from research.sweep.plan import JobGroup, group_id, plan
from research.tree import ConfigError, config_hash, hints, plain, resolve_target

CONF = Path(__file__).parents[2] / "conf"


def begun_groups(
    folder: Path,
    records: Mapping[str, Any],
    todo: Sequence[BoundJob],
    known: Sequence[BoundJob],
    present: Mapping[str, Path],
    options: Options,
) -> list[JobGroup]:
    """Groups of an earlier command that contain jobs of `todo`.

    In vmap mode a group with a checkpoint is restored whole, together with members that are finished or that this
    command does not name. Without a checkpoint only the unfinished members are trained, beside copies of the first;
    at the same width they get the same bits. The same holds for members that diverged or were pruned and are tried
    again, because the checkpoint holds their end.
    In map mode a member depends on no other member, so groups are planned again. Only if members are compared with
    each other (`sweep.prune`) does a group of map mode stay as it was.

    Args:
      folder: of the sweep.
      records: group name -> record in `sweep.json`.
      todo: jobs to train.
      known: all jobs of the command.
      present: first hash digits -> run folder.
    """

    def member(digest: str, peer: BoundJob) -> BoundJob:
        """A member of a group; one that this command does not name is made from its run folder."""
        if digest in bounds:
            return bounds[digest]
        root = getattr(peer.job.data, "root", None)
        return rebuilt(present[digest[:HASH_DIGITS]], root, peer.job.trusted, plain(peer.job.evaluation))

    unfinished = {bound.job.hash: bound for bound in todo}
    asked = set(unfinished)
    anew = {digest for digest in unfinished if cannot_continue(present.get(digest[:HASH_DIGITS]))}
    bounds = {bound.job.hash: bound for bound in known}
    groups: list[JobGroup] = []
    # The newest record comes first, because a member that was tried again stands in several records.
    for (name, record), again in itertools.product(reversed(list(records.items())), (False, True)):
        here = [digest for digest in record["members"] if digest in unfinished and (digest in anew) == again]
        in_map = record["mode"] == "map"
        if not here or (in_map and (again or options.prune == "none")):
            continue
        members = here
        if in_map:  # leave out the members that are tried again
            members = [digest for digest in record["members"] if digest in here or digest not in asked]
        elif not again and saved(folder, name):
            members = record["members"]
        try:
            rows = [member(digest, unfinished[here[0]]) for digest in members]
        except (KeyError, ConfigError):  # a run folder is gone, so the group cannot be restored whole
            rows = [unfinished[digest] for digest in here]
        if record["devices"] > jax.local_device_count() and not in_map:
            devices = f"its programs were begun on {record['devices']} devices, and here are {jax.local_device_count()}"
            remedy = f"{devices}; continue on a machine with as many devices, or choose another name="
            raise ConfigError("name", folder.name, remedy)
        groups.append(like_recorded(record | ({"width": 1, "devices": 1} if in_map else {}), rows, options))
        for digest in here:
            del unfinished[digest]
    return groups[::-1]


def like_recorded(record: Mapping[str, Any], members: Sequence[BoundJob], options: Options) -> JobGroup:
    """A group of these members with the recorded mode, width and devices."""
    (alone,) = plan(members[:1], options)
    return dataclasses.replace(
        alone,
        members=tuple(members),
        mode=record["mode"],
        width=record["width"],
        devices=record["devices"],
        reason="begun before",
    )


def fresh_plan(folder: Path, todo: Sequence[BoundJob], options: Options) -> list[JobGroup]:
    """The plan of jobs that belong to no group yet; jobs that map mode has begun continue in map mode."""
    groups = plan(todo, options)
    in_vmap = [bound for group in groups if group.mode == "vmap" for bound in group.members]
    begun = {bound.job.hash for bound in in_vmap if saved(folder, group_id([bound.job.hash], "map", 1))}
    if not begun:
        return groups
    first = [bound for bound in todo if bound.job.hash in begun]
    rest = [bound for bound in todo if bound.job.hash not in begun]
    return plan(first, dataclasses.replace(options, mode="map")) + plan(rest, options)


def rebuilt(path: Path, root: str | None, trusted: Sequence[str], evaluation: Any = None) -> BoundJob:
    """The job of a run folder with its data.

    Args:
      path: the run folder.
      root: where the data lie; None means where the run's own command found them.
      trusted: packages whose classes may be named; they are never taken from the folder.
      evaluation: replaces that of the run.

    Raises:
      ConfigError: the configuration or the data have changed since the run was trained.
    """
    run = RunFolder(path)
    config, result = run.read_config(), run.read_result() or {}
    tree: Any = config.get("config")
    sections = ("model", "optimizer", "trainer", "data")
    complete = isinstance(tree, dict) and all(isinstance(tree.get(name), dict) for name in sections)
    if not complete or not isinstance(tree.get("seed"), int) or config_hash(tree) != config.get("config_hash"):
        raise ConfigError("folder", path, "its config.json does not give the hash that it states; it was changed")
    overrides = result.get("overrides", [])
    overrides = [line for line in overrides if isinstance(line, str)] if isinstance(overrides, list) else []
    if root is None:
        roots = [line.partition("=")[2].strip("'\"") for line in overrides if line.startswith("data.root=")]
        root = roots[-1] if roots and roots[-1] != "null" else None
    elif root == "null":
        root = None
    fields = hints(resolve_target(tree["data"].get("_target_"), trusted))
    for section, names in NOT_HASHED.items():
        tree = tree | {section: tree[section] | {name: root for name in names if name in fields}}
    evaluation = evaluation or result.get("evaluation") or shipped("evaluation", "none")
    beside = {"evaluation": evaluation, "trusted_packages": list(trusted)}
    job = Job.from_config({**tree, **beside}, config.get("choices", {}), overrides)
    if job.hash != config["config_hash"]:
        remedy = "its config.json is not as this version writes it; use the version that wrote it"
        raise ConfigError("folder", path, remedy)
    bound = bind(job)
    if result and result.get("data_sha256") != bound.dataset.sha256:
        raise ConfigError("data", bound.dataset.name, f"the data are not those of the run {path.name}")
    return bound


def shipped(*names: str) -> dict[str, Any]:
    """Content of a shipped config together with those that its `defaults` name: `shipped("evaluation", "none")`."""
    import yaml

    content = yaml.safe_load((CONF / Path(*names)).with_suffix(".yaml").read_text(encoding="utf-8"))
    for name in content.pop("defaults", []):
        if isinstance(name, str) and name != "_self_":
            content = shipped(*names[:-1], name) | content
    return content
