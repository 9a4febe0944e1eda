"""Replay of a diverged run: it is trained again from its last checkpoint, to name what was first not finite."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from research import engine
from research.compiling import compiled
from research.inputs import Budget
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.sweep.begun import like_recorded, rebuilt, shipped
from research.sweep.checkpoint import Checkpoints
from research.sweep.folder import group_folder, runs_in
from research.sweep.job import HASH_DIGITS, BoundJob
from research.sweep.manifest import read_manifest
from research.sweep.options import Options
from research.sweep.plan import JobGroup, group_id, plan
from research.sweep.program import Alone
from research.sweep.proof.retrain import start
from research.sweep.train.display import Display
from research.sweep.train.loop import group_identity
from research.tree import ConfigError, unstack

ROOT = Path(__file__).parents[3]
LATER = "it was written after the divergence"


def replay(path: Path, root: str | None, trusted: Sequence[str], options: Options, display: Display) -> bool:
    """Train a diverged run again in map mode, and print what was first not finite.

    A run of vmap mode has other bits in map mode, so it may diverge at another step, or not at all.

    Args:
      path: the run folder.
      root: where the data lie; None means where the run's own command found them.
      trusted: packages whose classes the run may name.
      options: of a sweep on one device.
      display: prints the lines.

    Returns:
      Whether something was not finite.

    Raises:
      ConfigError: the run did not diverge, or it cannot be trained again here.
    """
    result = RunFolder(path).read_result() or {}
    if result.get("status") != "diverged":
        status = result.get("status", "unfinished")
        raise ConfigError("--replay", path.name, f"this run is {status}; only a diverged one can be replayed")
    recorded = result.get("first_bad_step")
    if not isinstance(recorded, int) or recorded < 0:
        raise ConfigError("first_bad_step", recorded, f"{path.name}/result.json names no step; restore it")
    rebuild = lambda folder: rebuilt(folder, root, trusted, shipped("evaluation", "none"))
    bound = rebuild(path)
    if bound.dataset.streamed:
        remedy = "only rows in memory are replayed; train it anew with data.stream=false and replay that run"
        raise ConfigError("data.stream", True, remedy)
    (planned,) = plan([bound], options)
    program = start(dataclasses.replace(planned, mode="map", width=1, devices=1))
    assert isinstance(program, Alone)
    steps, epochs = program.budget.steps_per_epoch, bound.job.trainer.epochs
    display.note(f"it diverged at step {recorded} (epoch {recorded // steps + 1}) of {steps * epochs}")
    state = jax.device_get(program.state)
    restored = _restored(path, bound, recorded // steps, rebuild, options, state, display)
    if restored is None:
        display.note("from the beginning: no checkpoint lies before that step")
    else:
        display.note(f"from the checkpoint of epoch {restored[0]}")
        state = restored[1]
    lines = _first_bad_step(program, state)
    for line in lines:
        display.note(line)
    if not lines:
        trained = result.get("program") or {}
        mode, width = trained.get("mode"), trained.get("width")
        display.note(f"alone, in map mode, all {steps * epochs} steps are finite; it was trained in {mode} mode")
        display.note(f"at width {width}: the divergence depends on the last bits")
    return bool(lines)


def _restored(
    path: Path,
    bound: BoundJob,
    epoch: int,
    rebuild: Callable[[Path], BoundJob],
    options: Options,
    like: engine.State,
    display: Display,
) -> tuple[int, engine.State] | None:
    """Epoch and state of a run at its newest checkpoint that is not after `epoch`; `like` is a state of one job."""
    digest, folder = bound.job.hash, path.parent
    groups, present = (read_manifest(folder) or {"groups": {}})["groups"], runs_in(folder)
    records: dict[str, Any] = {
        group_id([digest], "map", 1): {"mode": "map", "width": 1, "devices": 1, "members": [digest]},
        **{name: record for name, record in groups.items() if record["mode"] == "vmap"},
    }
    for name, record in records.items():
        if digest not in record["members"] or not group_folder(folder, name).is_dir():
            continue
        try:
            members = [rebuild(present[each[:HASH_DIGITS]]) for each in record["members"]]
        except (KeyError, ConfigError) as error:
            display.note(f"the checkpoint cannot be read without all members of the program: {error}")
            continue
        group = like_recorded(record, members, options)
        restored = _group_state(group_folder(folder, name), group, epoch, like, display)
        if restored is not None:
            return restored[0], unstack(restored[1], record["members"].index(digest))
    return None


def _group_state(
    folder: Path, group: JobGroup, epoch: int, like: engine.State, display: Display
) -> tuple[int, engine.State] | None:
    """Epoch and state of a whole group at its newest checkpoint that is not after `epoch`."""

    def warn(line: str) -> None:
        if LATER not in line:
            display.note(line)

    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((group.rows, *leaf.shape), leaf.dtype), like)
    checkpoints = Checkpoints(folder, group_identity(group), warn, ALONE)  # nothing is written
    try:
        restored = checkpoints.restore(template, lambda done, _: LATER if done > epoch else None)
    finally:
        checkpoints.close()
    return restored and restored[:2]


def _first_bad_step(program: Alone, state: engine.State) -> list[str]:
    """Train until a step is not finite, and say what is not finite in it; empty if all steps are finite."""
    model, optimizer, member = jax.tree.map(jnp.asarray, program.inputs)
    data, budget = program.data, program.budget
    steps = budget.steps_per_epoch
    state = jax.tree.map(jnp.asarray, state)
    transformation = optimizer.build(budget.epochs, steps)

    @compiled()  # with the options of the run, so that it diverges at the same step
    def train(state: engine.State) -> engine.State:
        return engine.train_epoch(model, optimizer, state, member, data, budget)[0]

    @compiled()
    def inputs(state: engine.State, index: jax.Array) -> Any:
        epoch = engine.begin_epoch(state.step // steps, member, budget)
        return engine.step_inputs(epoch, index, state.step, member, data, budget)

    @compiled()
    def step(state: engine.State, *arguments: Any) -> engine.State:
        return engine.train_step(model, transformation, state, *arguments, budget=budget)[0]

    by_step = False
    while int(state.step) < steps * int(budget.epochs):
        if not by_step and int((after := train(state)).first_bad_step) == engine.NEVER:
            state = after
            continue
        # The first epoch that is not finite and all later ones go step by step. Single steps have other bits than a
        # whole epoch, so the bad step may come later.
        by_step = True
        for index in range(steps):
            arguments = inputs(state, jnp.int32(index))
            after = step(state, *arguments)
            if (bad := int(after.first_bad_step)) != engine.NEVER:
                lines = first_bad(model, transformation, state, *arguments, budget=budget)
                return [f"step {bad} (epoch {bad // steps + 1}) is the first that is not finite", *lines]
            state = after
    return []


def first_bad(
    model: Any, transformation: Any, state: engine.State, batch: Any, key: Any, clock: Any, budget: Budget
) -> list[str]:
    """Lines on what is not finite in one step: the first quantity, the layers, and the first operation.

    The operation is looked for with products of float32, whatever `trainer.compute_dtype` is.
    """
    of_step = jax.jit(lambda params: engine.loss_and_gradient(model, params, batch, key, clock, budget))
    (loss, metrics), gradient = of_step(state.params)
    updates, _ = jax.jit(transformation.update)(gradient, state.optimizer_state, state.params)
    quantities = {"parameter": state.params, "input": batch, "metric": metrics, "loss": loss, "gradient": gradient}
    bad = {quantity: _not_finite(tree) for quantity, tree in (quantities | {"update": updates}).items()}
    lines = []
    quantity = next((quantity for quantity, names in bad.items() if names), None)
    if quantity is not None:
        names = bad[quantity]
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        lines.append(f"first not finite: {quantity}{f' {names[0]}' if names[0] else ''}{more}")
    layers = lambda names: list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))
    bad_layers, all_layers = layers(bad["gradient"] or bad["update"]), layers(_names(gradient))
    if bad_layers:
        where = "every layer" if len(bad_layers) == len(all_layers) else ", ".join(bad_layers)
        lines.append(f"{'gradient' if bad['gradient'] else 'update'} not finite in: {where}")
    for part in _batches(batch, key, budget.accumulate):
        operation = _operation_of(lambda params, part=part: model.loss(params, *part, clock), state.params)
        if operation:
            return [*lines, f"first operation that gives something not finite: {operation}"]
    return lines


def _batches(batch: Any, key: Any, number: int) -> Iterator[tuple[Any, Any]]:
    """The batches of a step, each with its key."""
    if number == 1:
        yield batch, key
        return
    stacked = engine.batches_of(batch, key, number)
    for index in range(number):
        yield jax.tree.map(lambda leaf, index=index: leaf[index], stacked)


def _operation_of(loss_of: Callable[[Any], Any], params: Any) -> str | None:
    """The first operation of a loss, or else of its gradient, that gives something not finite."""
    leaves = jax.tree.leaves(params)
    operation = first_operation(jax.make_jaxpr(loss_of)(params), leaves)
    return operation or first_operation(jax.make_jaxpr(jax.grad(loss_of, has_aux=True))(params), leaves)


def _names(tree: Any) -> list[str]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named]


def _not_finite(tree: Any) -> list[str]:
    """Names of the arrays that are not finite."""
    return [name for name, leaf in zip(_names(tree), jax.tree.leaves(tree), strict=True) if not finite(leaf)]


# -------------------------------------------------------------------------------------------------- the first operation


def finite(value: Any) -> bool:
    """Whether all numbers of an array are finite; integers, flags and keys always are."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return True
    return bool(np.isfinite(np.asarray(value)).all())


def first_operation(trace: ClosedJaxpr, arguments: Sequence[Any]) -> str | None:
    """Layer, name, shape and line of the first operation that turns finite values into others; None without one.

    The trace is evaluated operation by operation. `jax.debug_nans` names the operation too, but neither layer, shape
    nor time step; for an operation inside a loop over time it says only `scan`. `checkify` finds no infinite value.
    """
    variables, known = [*trace.jaxpr.constvars, *trace.jaxpr.invars], [*trace.consts, *arguments]
    values = dict(zip(variables, known, strict=True))
    for equation in trace.jaxpr.eqns:
        inputs = [atom.val if isinstance(atom, Literal) else values[atom] for atom in equation.invars]
        results = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
        results = results if equation.primitive.multiple_results else [results]
        if all(map(finite, inputs)) and not all(map(finite, results)):
            layer = str(equation.source_info.name_stack)
            name = _inside(equation.primitive.name, equation.params, inputs)
            name = name or f"{equation.primitive.name} of shape {results[0].shape}{_line(equation)}"
            return f"{layer}{'/' if layer else ''}{name}"
        values |= dict(zip(equation.outvars, results, strict=True))
    return None


def _line(equation: Any) -> str:
    """The line of this project that asks for an operation, as ` in file:line`."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    ours = [frame for frame in frames if Path(frame.file_name).is_relative_to(ROOT / "research")]
    return f" in {Path(ours[0].file_name).relative_to(ROOT)}:{ours[0].line_num}" if ours else ""


def _inside(primitive: str, params: Mapping[str, Any], inputs: Sequence[Any]) -> str | None:
    """The operation inside a function that is called, or inside the first step of a scan in which it happens."""
    if primitive in ("jit", "pjit"):
        return first_operation(params["jaxpr"], inputs)
    if primitive in ("checkpoint", "remat2"):  # names of `jax.checkpoint`
        return first_operation(ClosedJaxpr(params["jaxpr"], ()), inputs)
    if primitive in ("custom_jvp_call", "custom_vjp_call"):
        inner = params.get("call_jaxpr")
        return first_operation(inner, inputs) if isinstance(inner, ClosedJaxpr) else None
    if primitive != "scan":
        return None
    constants, carried = _scan_sizes(params)
    carry, rows = list(inputs[constants : constants + carried]), inputs[constants + carried :]
    step = jax.jit(jaxpr_as_fun(params["jaxpr"]))
    steps = range(params["length"])
    for index in reversed(steps) if params["reverse"] else steps:
        arguments = [*inputs[:constants], *carry, *(row[index] for row in rows)]
        results = step(*arguments)
        if not all(map(finite, results)):
            name = first_operation(params["jaxpr"], arguments)
            return name and f"time step {index}/{name}"
        carry = results[:carried]
    return None


def _scan_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers of constants and of carried values of a scan; jax 0.12 keeps trees instead of numbers."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()
    return len(list(constants.vals)), len(list(carry.vals))
