"""One run is trained again by the program that trained it, and compared with its record."""

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import compiling, engine, environment
from research.data.loading import preparation_of
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.sweep.device import device_kind, on_device
from research.sweep.job import BoundJob, check_warm_start, start_of
from research.sweep.options import Options
from research.sweep.plan import CANONICAL_WIDTHS, JobGroup, plan
from research.sweep.programs import Program, program_of
from research.sweep.proof.intact import Finding
from research.sweep.train.ledger import commit, versions
from research.sweep.train.writer import Writer
from research.tree import ConfigError, stack, unstack

EARLY, EARLY_TOLERANCE = 5, 1e-5  # epochs; relative tolerance of their losses
FALLBACK = 1e-2  # relative tolerance of final test metrics if no other seed was trained
ROUNDING = 1e-4  # relative tolerance between metrics of the same parameters


@dataclasses.dataclass
class RunRecord:
    """What training left of a run, as it is recorded or as it came out again.

    Attributes:
      ended: status, epochs, epoch of the kept parameters, and first step that was not finite (None: never).
      params: nested dict of arrays, or None.
      scaling: of the data.
      metrics: of the kept parameters.
      rows: epoch -> metrics of an evaluation.
    """

    ended: dict[str, Any]
    params: Any
    scaling: Mapping[str, np.ndarray]
    metrics: dict[str, float]
    rows: Mapping[int, Mapping[str, float]]


def retrain(path: Path, bound: BoundJob, options: Options, peers: Sequence[Path]) -> Finding:
    """Train one run again and compare: alone in map mode, and in vmap mode beside copies of itself at its width.

    Args:
      path: its folder.
      bound: its job.
      options: of a sweep on one device.
      peers: folders of finished runs; those that differ only in the seed show how much a metric varies.

    Raises:
      ConfigError: it cannot be trained again here.
    """
    result = RunFolder(path).read_result()
    assert result is not None
    group = group_of(bound, result["program"], options)
    program = start(group)
    before = _recorded(path, result)
    now, state = _trained(program, bound, result)
    differing = list(_differing(before, now))
    if not differing:
        return Finding(path.name, "bit-equal")
    doubts = list(_doubts(result, group))
    finding = _judge(before, now, differing, _spread(path, peers, now.metrics), exact=not doubts)
    if not finding.bad:
        scores = _losses(_scores(program, state, before.params))
        if _largest({name: before.metrics.get(name, value) for name, value in scores.items()}, scores) > ROUNDING:
            finding = Finding("", "different", "its metrics are not those of its parameters")
    return Finding(path.name, finding.outcome, "; ".join([finding.detail, *doubts]))


def group_of(bound: BoundJob, program: Mapping[str, Any], options: Options) -> JobGroup:
    """The group of a run, with copies of the run instead of its neighbours.

    Raises:
      ConfigError: the recorded program cannot exist.
    """
    mode, width = program["mode"], program["width"]
    if mode not in ("map", "vmap") or (mode == "vmap" and width not in CANONICAL_WIDTHS):
        raise ConfigError(
            "program", f"{mode} of width {width}", "no program has this mode and width; restore result.json"
        )
    (alone,) = plan([bound], options)
    if mode == "map":
        return dataclasses.replace(alone, mode="map", width=1, devices=1)
    devices = program.get("devices", 1)
    return dataclasses.replace(alone, mode="vmap", width=width, devices=min(devices, jax.local_device_count()))


def start(group: JobGroup) -> Program:
    """The program of a group with its initial state, with fresh parameters or those of a warm start."""
    for bound in group.members:
        check_warm_start(bound)
    params = [start_of(bound) for bound in group.members]
    return program_of(group, on_device(group.members[0].dataset), params)


def _recorded(path: Path, result: Mapping[str, Any]) -> RunRecord:
    run = RunFolder(path)
    params, scaling = run.load_parameters() if run.parameters.exists() else (None, {})
    metrics = {name: math.nan if value is None else value for name, value in result["metrics"].items()}
    ended = {name: result.get(name) for name in ("status", "epochs", "best_epoch", "first_bad_step")}
    return RunRecord(ended, params, scaling, metrics, {int(row["epoch"]): row for row in run.read_metrics()})


def _trained(program: Program, bound: BoundJob, result: Mapping[str, Any]) -> tuple[RunRecord, engine.State]:
    """The run as it comes out now, and its last state. A pruned run is trained for as many epochs as it was before."""
    trainer, pruned = bound.job.trainer, result["status"] == "pruned"
    last, done = min(result["epochs"], trainer.epochs) if pruned else trainer.epochs, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(temporary, ALONE)
        writer = Writer([folder], program.budget.steps_per_epoch, trainer)
        while done < last and writer.learning():
            epochs = min(trainer.evaluate_every, trainer.epochs - done)
            metrics = program.read(program.train(epochs))
            done += epochs
            writer.write(done, metrics, program.slots)
        rows = {int(row["epoch"]): row for row in folder.read_metrics()}
    if pruned and writer.learning():
        writer.pruned[0] = done
    state = program.collect()
    trained = writer.outcome(0, int(state.best_epoch[0]))
    params = None if trained.params is None else unstack(engine.kept_params(state), 0)
    scores = {} if trained.status == "diverged" else {k: float(v[0]) for k, v in program.score(state).items()}
    scaling = {} if params is None else preparation_of(bound.dataset, bound.job.data.fold).scaling()
    never = lambda number: None if number == engine.NEVER else number
    ended = {"status": trained.status, "epochs": trained.epochs}
    ended |= {"best_epoch": never(trained.best_epoch), "first_bad_step": never(trained.bad_step)}
    finite = {name: value if math.isfinite(value) else math.nan for name, value in scores.items()}
    return RunRecord(ended, params, scaling, finite, rows), state


def _scores(program: Program, state: engine.State, params: Any) -> dict[str, float]:
    """Metrics of given parameters, computed by the program of a run; empty without parameters."""
    if params is None:
        return {}
    rows = stack([params] * program.group.rows)
    best, average = (None if now is None else rows for now in (state.best_params, state.average))
    values = program.score(dataclasses.replace(state, params=rows, best_params=best, average=average))
    return {name: float(value[0]) for name, value in values.items()}


# ------------------------------------------------------------------------------------------------------------ comparing


def _differing(before: RunRecord, now: RunRecord) -> Iterator[str]:
    """Names of everything that is not equal to the last bit. Evaluations after training are not made again."""
    yield from (name for name in now.ended if before.ended[name] != now.ended[name])
    if before.rows.keys() != now.rows.keys():
        yield "the number of rows"
    for old, new in ((before.rows[epoch], now.rows[epoch]) for epoch in before.rows.keys() & now.rows.keys()):
        yield from (name for name in new if not _same(old.get(name, math.nan), new[name]))
    yield from (name for name, value in now.metrics.items() if not _same(before.metrics.get(name, math.nan), value))
    old, new = _leaves(before), _leaves(now)
    yield from sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _leaves(run: RunRecord) -> dict[str, tuple[Any, ...]]:
    """Name -> type, shape and bytes of every array."""
    scaling = {name: np.asarray(value, np.float32) for name, value in run.scaling.items()}  # as earlier versions kept
    named = jax.tree_util.tree_leaves_with_path({"params": run.params, "scaling": scaling})
    arrays = [(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in named]
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays}


def _losses(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.endswith("/loss")}


def _same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _relative(first: float, second: float) -> float:
    if _same(first, second):
        return 0.0
    difference = abs(first - second) / max(abs(first), abs(second))
    return difference if math.isfinite(difference) else math.inf


def _largest(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The largest relative difference between numbers of the same name."""
    return max((_relative(before.get(name, math.nan), value) for name, value in now.items()), default=0.0)


def _judge(
    before: RunRecord, now: RunRecord, differing: Sequence[str], spread: Mapping[str, float], *, exact: bool
) -> Finding:
    """Whether the differences lie within the tolerance, and the largest one.

    With `exact`, nothing is known that could change the bits, so equal rows must come from equal parameters.
    """
    ends = [f"{name} was {before.ended[name]} and is {now.ended[name]}" for name in now.ended if name in differing]
    if before.ended["status"] != now.ended["status"]:
        return Finding("", "different", ends[0])
    shapes = [{name: leaf[:2] for name, leaf in _leaves(run).items()} for run in (before, now)]
    if shapes[0] != shapes[1]:
        return Finding("", "different", "its parameters have other names, types or shapes")
    rows = [(epoch, before.rows[epoch], now.rows[epoch]) for epoch in sorted(before.rows.keys() & now.rows.keys())]
    complete = len(rows) == len(before.rows) == len(now.rows)
    if exact and complete and not any(_largest(old, new) for _, old, new in rows):
        names = ", ".join(list(dict.fromkeys(differing))[:3])
        return Finding("", "different", f"its rows of metrics come out the same, but not {names}")
    early = [_largest(_losses(old), _losses(new)) for epoch, old, new in rows if epoch <= EARLY]
    differences: dict[str, float] = {}
    for old, new in [(before.metrics, now.metrics), *((old, new) for _, old, new in rows)]:
        for name, value in new.items():
            differences[name] = max(differences.get(name, 0.0), _relative(old.get(name, math.nan), value))
    largest = max(differences, key=lambda name: differences[name], default="")
    details = [f"largest relative difference {differences.get(largest, 0.0):.2g} ({largest})"]
    details += [f"{max(early):.2g} on losses of the first {EARLY} epochs"] if early else []
    details += ends
    for name, value in now.metrics.items():
        old = before.metrics.get(name, math.nan)
        allowed = max(spread.get(name, FALLBACK * abs(value)), EARLY_TOLERANCE * abs(value))
        if name.startswith("test/") and not (_same(old, value) or abs(old - value) <= allowed):
            limit = "seeds differ by" if name in spread else "no other seed was trained, the limit is"
            details.append(f"{name} was {old:.6g} and is {value:.6g}, {limit} {allowed:.2g}")
            return Finding("", "different", ", ".join(details))
    within = max(early, default=0.0) <= EARLY_TOLERANCE
    return Finding("", "within tolerance" if within else "different", ", ".join(details))


def _spread(path: Path, peers: Sequence[Path], now: Mapping[str, float]) -> dict[str, float]:
    """Range of every final metric over the seeds, this run included; empty if no other seed was trained."""
    without_seed = lambda folder: RunFolder(folder).read_config()["config"] | {"seed": None}
    config, values = without_seed(path), {name: [value] for name, value in now.items()}
    for peer in peers:
        result = RunFolder(peer).read_result() or {}
        if peer != path and result.get("status") in ("completed", "stopped") and without_seed(peer) == config:
            for name in values:
                values[name] += [value] if (value := result["metrics"].get(name)) is not None else []
    return {name: max(seeds) - min(seeds) for name, seeds in values.items() if len(seeds) > 1}


def _doubts(result: Mapping[str, Any], group: JobGroup) -> Iterator[str]:
    """Why the bits of a run may have changed without a fault."""
    program, widths = result["program"], result.get("widths") or []
    if group.mode == "vmap" and len(widths) > 1:
        history = ", ".join(str(width) for _, width in widths)
        yield f"its program was narrowed while it trained, to widths {history}: bits then depend on its neighbours"
    if group.mode == "vmap" and program.get("devices", 1) > 1:
        yield f"it was trained on {program['devices']} devices, now on {group.devices}"
    if program["device_kind"] != device_kind():
        yield f"it was trained on {program['device_kind']}, now on {device_kind()}"
    before, now = program.get("compiler") or {}, compiling.options()
    if before != now:
        yield f"it was compiled with the options {before}, now with {now}"
    yield from environment.differences(program)
    then = result.get("versions") or {}
    changed = [f"{name} {then.get(name)} -> {value}" for name, value in versions().items() if then.get(name) != value]
    if changed:
        yield f"versions differ: {', '.join(changed)}"
    if result.get("commit") != commit():
        yield f"it was trained by commit {result.get('commit')}, now by {commit()}: sums may be taken in another order"
