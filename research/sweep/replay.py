"""A diverged run trained again from its last checkpoint, step by step, to name what was the first to be not finite."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from research import engine
from research.runs.folder import RunFolder
from research.runs.held import ALONE
from research.sweep.checkpoint import Checkpoints
from research.sweep.compare import start
from research.sweep.display import Display
from research.sweep.job import HASH_DIGITS, Bound
from research.sweep.manifest import group_folder, read_manifest, runs_in
from research.sweep.plan import Group, Options, group_id, plan
from research.sweep.prepare import rebuilt, shipped
from research.sweep.program import Alone
from research.sweep.record import group_identity
from research.tree import ConfigError, unstack

ROOT = Path(__file__).parents[2]
LATER = "it was written after the divergence"


def replay(path: Path, root: str | None, trusted: Sequence[str], options: Options, display: Display) -> bool:
    """Train a diverged run alone from its last checkpoint, and say what was first not finite; False if nothing.

    Alone means in map mode. Bits of a run of vmap mode differ from that, so that it may diverge at another step.

    Raises:
      ConfigError: the run did not diverge, or cannot be trained again here.
    """
    result = RunFolder(path).read_result() or {}
    if result.get("status") != "diverged":
        status = result.get("status", "unfinished")
        raise ConfigError("--replay", path.name, f"this run is {status}; only a diverged one can be replayed")
    recorded = result.get("first_bad_step")
    if not isinstance(recorded, int) or recorded < 0:
        raise ConfigError("first_bad_step", recorded, f"{path.name}/result.json names no step; restore it")
    rebuild = lambda place: rebuilt(place, root, trusted, shipped("evaluation", "none"))
    bound = rebuild(path)
    (like,) = plan([bound], options)
    program = start(dataclasses.replace(like, mode="map", width=1, devices=1))
    steps, epochs = program.budget.steps_per_epoch, bound.job.trainer.epochs
    display.note(f"it diverged at step {recorded} (epoch {recorded // steps + 1}) of {steps * epochs}")
    assert isinstance(program, Alone)
    state = jax.device_get(program.state)
    found = _checkpoint(path, bound, recorded // steps, rebuild, options, state, display)
    if found is None:
        display.note("from the beginning: no checkpoint lies before that step")
    else:
        display.note(f"from the checkpoint of epoch {found[0]}")
        state = found[1]
    lines = _first_bad_step(program, state)
    for line in lines:
        display.note(line)
    if not lines:
        mode, width = (result.get("program") or {}).get("mode"), (result.get("program") or {}).get("width")
        display.note(f"alone, in map mode, all {steps * epochs} steps are finite; it was trained in {mode} mode")
        display.note(f"at width {width}: the divergence hangs on the last bits")
    return bool(lines)


def _checkpoint(
    path: Path, bound: Bound, epoch: int, rebuild: Any, options: Options, one: engine.State, display: Display
) -> tuple[int, engine.State] | None:
    """Epoch and state of a run at its newest usable checkpoint that is not after `epoch`; `one`: a state like it."""
    manifest, present = read_manifest(path.parent) or {"groups": {}}, runs_in(path.parent)
    begun: dict[str, Any] = {"mode": "map", "width": 1, "devices": 1, "members": [bound.job.hash]}
    alone = {group_id(begun["members"], "map", 1): begun}
    in_vmap = {name: about for name, about in manifest["groups"].items() if about["mode"] == "vmap"}
    for name, about in (alone | in_vmap).items():
        place = group_folder(path.parent, name)
        if bound.job.hash not in about["members"] or not place.is_dir():
            continue
        try:
            bounds = [rebuild(present[digest[:HASH_DIGITS]]) for digest in about["members"]]
        except (KeyError, ConfigError) as error:
            display.note(f"the checkpoint cannot be read without all members of the program: {error}")
            continue
        (like,) = plan(bounds[:1], options)
        own = {key: about[key] for key in ("mode", "width", "devices")}
        found = _restored(place, dataclasses.replace(like, bounds=tuple(bounds), **own), epoch, one, display)
        if found is not None:
            return found[0], unstack(found[1], about["members"].index(bound.job.hash))
    return None


def _restored(
    place: Path, group: Group, epoch: int, one: engine.State, display: Display
) -> tuple[int, engine.State] | None:
    """Epoch and state of a whole group."""

    def warn(line: str) -> None:
        if LATER not in line:
            display.note(line)

    whole = lambda leaf: jax.ShapeDtypeStruct((group.rows, *leaf.shape), leaf.dtype)
    checkpoints = Checkpoints(place, group_identity(group), warn, ALONE)  # it is only read
    try:
        found = checkpoints.restore(jax.tree.map(whole, one), lambda done, _: LATER if done > epoch else None)
    finally:
        checkpoints.close()
    return found and found[:2]


def _first_bad_step(program: Alone, state: engine.State) -> list[str]:
    """Train on until a step is not finite, and say of that step what is not; nothing if all are."""
    model, optimizer, member = jax.tree.map(jnp.asarray, program.inputs)
    data, budget = program.data, program.budget
    steps = budget.steps_per_epoch
    state = jax.tree.map(jnp.asarray, state)
    transformation = optimizer.build(budget.epochs, steps)

    @jax.jit
    def train(state: engine.State) -> engine.State:
        return engine.train_epoch(model, optimizer, state, member, data, budget)[0]

    @jax.jit
    def inputs(state: engine.State, index: jax.Array) -> Any:
        epoch = engine.begin_epoch(state.step // steps, member, budget)
        return engine.step_inputs(epoch, index, state.step, member, data, budget)

    step = jax.jit(lambda state, *given: engine.train_step(model, transformation, state, *given)[0])
    by_step = False
    while int(state.step) < steps * int(budget.epochs):
        if not by_step and int((after := train(state)).first_bad_step) == engine.NEVER:
            state = after
            continue
        # once an epoch was not finite all go step by step: their bits differ, and so may the step
        by_step = True
        for index in range(steps):
            given = inputs(state, jnp.int32(index))
            after = step(state, *given)
            if int(after.first_bad_step) != engine.NEVER:
                bad = int(after.first_bad_step)
                lines = first_bad(model, transformation, state, *given)
                return [f"step {bad} (epoch {bad // steps + 1}) is the first that is not finite", *lines]
            state = after
    return []


def first_bad(model: Any, transformation: Any, state: engine.State, batch: Any, key: Any, clock: Any) -> list[str]:
    """Lines on what is not finite in one step: the first quantity, the layers, and the operation it came from."""
    value = lambda params: model.loss(params, batch, key, clock)
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(state.params)
    updates, _ = jax.jit(transformation.update)(gradient, state.optimizer_state, state.params)
    quantities = {"parameter": state.params, "input": batch, "metric": metrics, "loss": loss, "gradient": gradient}
    found = {what: _not_finite(tree) for what, tree in (quantities | {"update": updates}).items()}
    lines = []
    for what, names in found.items():
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            lines.append(f"first not finite: {what}{f' {names[0]}' if names[0] else ''}{more}")
            break
    layers = lambda names: list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))
    bad, every = layers(found["gradient"] or found["update"]), layers(_names(gradient))
    if bad:
        where = "every layer" if len(bad) == len(every) else ", ".join(bad)
        lines.append(f"{'gradient' if found['gradient'] else 'update'} not finite in: {where}")
    leaves = jax.tree.leaves(state.params)
    place = first_operation(jax.make_jaxpr(value)(state.params), leaves)
    place = place or first_operation(jax.make_jaxpr(jax.grad(value, has_aux=True))(state.params), leaves)
    if place:
        lines.append(f"first operation that gives something not finite: {place}")
    return lines


def _names(tree: Any) -> list[str]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(where, simple=True, separator="/") for where, _ in named]


def _not_finite(tree: Any) -> list[str]:
    """Names of the arrays that are not finite."""
    return [name for name, leaf in zip(_names(tree), jax.tree.leaves(tree), strict=True) if not _finite(leaf)]


def first_operation(closed: ClosedJaxpr, arguments: Sequence[Any]) -> str | None:
    """The first operation of a trace that makes something not finite of finite values: its layer, name and shape."""
    values = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *arguments], strict=True))
    for equation in closed.jaxpr.eqns:
        given = [atom.val if isinstance(atom, Literal) else values[atom] for atom in equation.invars]
        found = equation.primitive.bind(*given, **equation.primitive.get_bind_params(equation.params))
        results = found if equation.primitive.multiple_results else [found]
        values |= dict(zip(equation.outvars, results, strict=True))
        if all(map(_finite, given)) and not all(map(_finite, results)):
            deeper = _inside(equation.primitive.name, equation.params, given)
            layer = str(equation.source_info.name_stack)
            name = deeper or f"{equation.primitive.name} of shape {results[0].shape}{_line(equation)}"
            return f"{layer}{'/' if layer else ''}{name}"
    return None


def _line(equation: Any) -> str:
    """Where this project asks for an operation, as ` in file:line`."""
    frames = getattr(equation.source_info.traceback, "frames", ())
    own = [frame for frame in frames if Path(frame.file_name).is_relative_to(ROOT / "research")]
    return f" in {Path(own[0].file_name).relative_to(ROOT)}:{own[0].line_num}" if own else ""


def _inside(name: str, parameters: Mapping[str, Any], given: Sequence[Any]) -> str | None:
    """The operation within a function that is called, or within the first step of a loop over time that shows it."""
    if name in ("jit", "pjit"):
        return first_operation(parameters["jaxpr"], given)
    if name in ("custom_jvp_call", "custom_vjp_call"):
        inner = parameters.get("call_jaxpr")
        return first_operation(inner, given) if isinstance(inner, ClosedJaxpr) else None
    if name != "scan":
        return None
    consts, carry_size = _scan_sizes(parameters)
    carried = consts + carry_size
    order = range(parameters["length"])
    carry = list(given[consts:carried])
    body = parameters["jaxpr"]
    run = jax.jit(jaxpr_as_fun(body))
    for index in reversed(order) if parameters["reverse"] else order:
        inputs = [*given[:consts], *carry, *(leaf[index] for leaf in given[carried:])]
        results = run(*inputs)
        if not all(map(_finite, results)):
            place = first_operation(body, inputs)
            return place and f"time step {index}/{place}"
        carry = results[:carry_size]
    return None


def _scan_sizes(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers of constants and carried values of a scan; jax 0.12 keeps trees in the place of numbers."""
    if "num_consts" in parameters:
        return parameters["num_consts"], parameters["num_carry"]
    consts, carry, _ = parameters["ft_in"].unpack()
    return len(list(consts.vals)), len(list(carry.vals))


def _finite(value: Any) -> bool:
    """Whether all numbers are finite; integers, flags and keys always are."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return True
    return bool(np.isfinite(np.asarray(value)).all())
