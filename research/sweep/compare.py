"""One run trained again by the program that trained it, and how far it comes out the same."""

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import engine, environment
from research.data.loading import preparation_of
from research.runs.folder import RunFolder
from research.runs.held import ALONE
from research.sweep.job import Bound
from research.sweep.loop import Writer
from research.sweep.plan import CANONICAL_WIDTHS, Group, Options, plan
from research.sweep.prepare import check_warm_start, load_start
from research.sweep.program import Alone, Together, device_kind, on_device, program_of
from research.sweep.record import versions
from research.sweep.whole import Finding
from research.tree import ConfigError, stack, unstack

EARLY, EARLY_TOLERANCE = 5, 1e-5  # epochs; relative, on their losses
FALLBACK = 1e-2  # relative, on final test metrics, where no other seed says how much they spread
ROUNDING = 1e-4  # relative, between metrics of the same parameters


@dataclasses.dataclass
class Run:
    """What training left of a run, as it is recorded or as it came out again.

    Attributes:
      ended: status, epochs, epoch of the kept parameters and first step that was not finite (None: never).
      params: nested dict, or None.
      scaling: of the data.
      metrics: of the kept parameters.
      rows: of the evaluations, by epoch.
    """

    ended: dict[str, Any]
    params: Any
    scaling: Mapping[str, np.ndarray]
    metrics: dict[str, float]
    rows: Mapping[int, Mapping[str, float]]


def again(path: Path, bound: Bound, options: Options, peers: Sequence[Path]) -> Finding:
    """Train one run again, alone in map mode, in vmap mode among copies of itself at its width, and compare.

    Args:
      path: its folder.
      bound: its job.
      options: of a sweep on one device.
      peers: folders of finished runs; those that differ in the seed alone say how much a metric spreads.

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
    why = list(_doubts(result, group))
    judged = _judge(before, now, differing, _spread(path, peers, now.metrics), exact=not why)
    if not judged.bad:
        scores = _losses(_scores(program, state, before.params))
        if (
            max((_relative(before.metrics.get(name, value), value) for name, value in scores.items()), default=0)
            > ROUNDING
        ):
            judged = Finding("", "different", "its metrics are not those of its parameters")
    return dataclasses.replace(judged, run=path.name, detail="; ".join([judged.detail, *why]))


def group_of(bound: Bound, program: Mapping[str, Any], options: Options) -> Group:
    """The program that trained a run, with copies of it in the place of its neighbours."""
    mode, width = program["mode"], program["width"]
    if mode not in ("map", "vmap") or (mode == "vmap" and width not in CANONICAL_WIDTHS):
        raise ConfigError("program", f"{mode} of width {width}", "no program is like this; restore result.json")
    (like,) = plan([bound], options)
    if mode == "map":
        return dataclasses.replace(like, mode="map", width=1, devices=1)
    devices = program.get("devices", 1)
    return dataclasses.replace(like, mode="vmap", width=width, devices=min(devices, jax.local_device_count()))


def start(group: Group) -> Alone | Together:
    """The program of a group with its initial state, from fresh parameters or from those of a warm start."""
    for bound in group.bounds:
        check_warm_start(bound)
    starts = [bound.job.trainer.warm_start for bound in group.bounds]
    params = [None if place is None else load_start(place) for place in starts]
    return program_of(group, on_device(group.bounds[0].dataset), params)


def _recorded(path: Path, result: Mapping[str, Any]) -> Run:
    run = RunFolder(path)
    params, scaling = run.load_parameters() if run.parameters.exists() else (None, {})
    metrics = {name: math.nan if value is None else value for name, value in result["metrics"].items()}
    ended = {name: result.get(name) for name in ("status", "epochs", "best_epoch", "first_bad_step")}
    return Run(ended, params, scaling, metrics, {int(row["epoch"]): row for row in run.read_metrics()})


def _trained(program: Alone | Together, bound: Bound, result: Mapping[str, Any]) -> tuple[Run, engine.State]:
    """The run as it comes out now, and the last state; alone nobody is pruned, so that such a run ends where it did."""
    trainer, pruned = bound.job.trainer, result["status"] == "pruned"
    last, done = min(result["epochs"], trainer.epochs) if pruned else trainer.epochs, 0
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(place, ALONE)
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
    ended |= {"best_epoch": never(trained.best_epoch), "first_bad_step": never(writer.bad_step[0])}
    finite = {name: value if math.isfinite(value) else math.nan for name, value in scores.items()}
    return Run(ended, params, scaling, finite, rows), state


def _scores(program: Alone | Together, state: engine.State, params: Any) -> dict[str, float]:
    """Metrics of given parameters by the program of a run; none without parameters."""
    if params is None:
        return {}
    rows = stack([params] * program.group.rows)
    best = None if state.best_params is None else rows
    values = program.score(dataclasses.replace(state, params=rows, best_params=best))
    return {name: float(value[0]) for name, value in values.items()}


# ------------------------------------------------------------------------------------------------------------ comparing


def _differing(before: Run, now: Run) -> Iterator[str]:
    """What is not the same to the last bit; evaluations after training are not made again and not compared."""
    yield from (name for name in now.ended if before.ended[name] != now.ended[name])
    if before.rows.keys() != now.rows.keys():
        yield "the number of rows"
    common = before.rows.keys() & now.rows.keys()
    rows = ((before.rows[epoch], now.rows[epoch], name) for epoch in common for name in now.rows[epoch])
    yield from (name for old, new, name in rows if not _same(old.get(name, math.nan), new[name]))
    yield from (name for name, value in now.metrics.items() if not _same(before.metrics.get(name, math.nan), value))
    old, new = _leaves(before), _leaves(now)
    yield from sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _leaves(run: Run) -> dict[str, tuple[Any, ...]]:
    """Name -> type, shape and bytes of every array."""
    scaling = {name: np.asarray(value, np.float32) for name, value in run.scaling.items()}  # older runs kept float32
    named = jax.tree_util.tree_leaves_with_path({"params": run.params, "scaling": scaling})
    arrays = [(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in named]
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays}


def _losses(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.endswith("/loss")}


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _relative(one: float, other: float) -> float:
    if _same(one, other):
        return 0.0
    difference = abs(one - other) / max(abs(one), abs(other))
    return difference if math.isfinite(difference) else math.inf


def _relative_of(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The largest relative difference of numbers of the same name."""
    return max((_relative(before.get(name, math.nan), value) for name, value in now.items()), default=0.0)


def _judge(before: Run, now: Run, differing: Sequence[str], spread: Mapping[str, float], *, exact: bool) -> Finding:
    """Whether what is not equal lies within the tolerance, and the largest difference.

    `exact`: nothing is known that could change the bits, so that equal rows come from equal parameters.
    """
    ends = [f"{name} was {before.ended[name]} and is {now.ended[name]}" for name in now.ended if name in differing]
    if before.ended["status"] != now.ended["status"]:
        return Finding("", "different", ends[0])
    shapes = [{name: about[:2] for name, about in _leaves(run).items()} for run in (before, now)]
    if shapes[0] != shapes[1]:
        return Finding("", "different", "its parameters have other names, types or shapes")
    rows = [(epoch, before.rows[epoch], now.rows[epoch]) for epoch in sorted(before.rows.keys() & now.rows.keys())]
    rows_equal = len(rows) == len(before.rows) == len(now.rows) and not any(
        _relative_of(old, new) for _, old, new in rows
    )
    if exact and rows_equal:
        names = ", ".join(list(dict.fromkeys(differing))[:3])
        return Finding("", "different", f"its rows of metrics come out the same, but not {names}")
    losses = [(epoch, _losses(old), _losses(new)) for epoch, old, new in rows]
    early = max((_relative_of(old, new) for epoch, old, new in losses if epoch <= EARLY), default=None)
    differences = {name: _relative(before.metrics.get(name, math.nan), value) for name, value in now.metrics.items()}
    for _, old, new in rows:
        for name, value in new.items():
            differences[name] = max(differences.get(name, 0.0), _relative(old.get(name, math.nan), value))
    largest = max(differences, key=lambda name: differences[name], default="")
    words = [f"largest relative difference {differences.get(largest, 0.0):.2g} ({largest})"]
    words += [f"{early:.2g} on losses of the first {EARLY} epochs"] if early is not None else []
    words += ends
    for name, value in now.metrics.items():
        old = before.metrics.get(name, math.nan)
        allowed = max(spread.get(name, FALLBACK * abs(value)), EARLY_TOLERANCE * abs(value))
        if name.startswith("test/") and not (_same(old, value) or abs(old - value) <= allowed):
            limit = "seeds differ by" if name in spread else "no other seed was trained, the limit is"
            words.append(f"{name} was {old:.6g} and is {value:.6g}, {limit} {allowed:.2g}")
            return Finding("", "different", ", ".join(words))
    return Finding("", "different" if (early or 0.0) > EARLY_TOLERANCE else "within tolerance", ", ".join(words))


def _spread(path: Path, peers: Sequence[Path], now: Mapping[str, float]) -> dict[str, float]:
    """Range of the final metrics as they come out now and over other seeds; nothing where no other was trained."""
    without_seed = lambda place: RunFolder(place).read_config()["config"] | {"seed": None}
    own, values = without_seed(path), {name: [value] for name, value in now.items()}
    for peer in peers:
        result = RunFolder(peer).read_result() or {}
        if peer != path and result.get("status") in ("completed", "stopped") and without_seed(peer) == own:
            for name in values:
                values[name] += [value] if (value := result["metrics"].get(name)) is not None else []
    return {name: max(found) - min(found) for name, found in values.items() if len(found) > 1}


def _doubts(result: Mapping[str, Any], group: Group) -> Iterator[str]:
    """Why the bits of a run could not be promised."""
    program, widths = result["program"], result.get("widths") or []
    if group.mode == "vmap" and len(widths) > 1:
        history = ", ".join(str(width) for _, width in widths)
        yield f"its program was narrowed while it trained, to widths {history}: bits then depend on its neighbours"
    if group.mode == "vmap" and program.get("devices", 1) > 1:
        yield f"it was trained on {program['devices']} devices, now on {group.devices}"
    if program["device_kind"] != device_kind():
        yield f"it was trained on {program['device_kind']}, now on {device_kind()}"
    yield from environment.differences(program)
    then = result.get("versions") or {}
    other = [f"{name} {then.get(name)} -> {value}" for name, value in versions().items() if then.get(name) != value]
    if other:
        yield f"versions differ: {', '.join(other)}"
