"""A diverged run trained again from its last checkpoint, step by step, to name what was the first to be not finite."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from research import engine
from research.runs.folder import RunFolder
from research.sweep.checkpoint import Checkpoints
from research.sweep.display import Display
from research.sweep.job import HASH_DIGITS, Bound
from research.sweep.manifest import group_folder, read_manifest, runs_in
from research.sweep.plan import Options, plan
from research.sweep.prepare import rebuilt
from research.sweep.program import Program, on_device
from research.sweep.record import group_identity
from research.tree import ConfigError, unstack


def replay(path: Path, root: str | None, trusted: Sequence[str], options: Options, display: Display) -> bool:
    """Train a diverged run alone from its last checkpoint, and say what was first not finite; False if nothing."""
    run = RunFolder(path)
    result = run.read_result() or {}
    if result.get("status") != "diverged":
        status = result.get("status", "unfinished")
        raise ConfigError("--replay", path.name, f"this run is {status}; only a diverged one can be replayed")
    bound = rebuilt(path, root, trusted)
    (group,) = plan([bound], options)
    budget, last = group.budget, result["first_bad_step"]
    program = Program(group, on_device(bound.dataset), None)
    state = _before(path, bound, root, trusted, options, last // budget.steps_per_epoch, program, display)
    model, optimizer, member = jax.tree.map(jnp.asarray, unstack(program.inputs, 0))
    data = program.data
    whole_epochs = last // budget.steps_per_epoch - int(state.step) // budget.steps_per_epoch
    run_epochs = jax.jit(
        lambda state, count: jax.lax.fori_loop(
            0, count, lambda _, state: engine.train_epoch(model, optimizer, state, member, data, budget)[0], state
        )
    )
    state = run_epochs(state, np.int32(max(whole_epochs, 0)))
    epoch = engine.begin_epoch(state.step // budget.steps_per_epoch, member, budget)
    transformation = optimizer.build(budget.trainer.epochs, budget.steps_per_epoch)

    def inputs(state: Any, index: Any) -> Any:
        return engine.step_inputs(epoch, index, state.step, member, data, budget)

    step = jax.jit(lambda state, index: engine.train_step(model, transformation, state, *inputs(state, index))[0])
    for index in range(budget.steps_per_epoch):
        after = step(state, jnp.int32(index))
        if int(after.first_bad_step) != engine.NEVER:
            bad = int(after.first_bad_step)
            display.note(f"step {bad} (epoch {bad // budget.steps_per_epoch + 1})")
            for line in first_bad(model, transformation, state, *inputs(state, jnp.int32(index))):
                display.note(line)
            return True
        state = after
    display.note(f"alone, in map mode, every step of epoch {int(state.step) // budget.steps_per_epoch} is finite")
    return False


def _before(
    path: Path,
    bound: Bound,
    root: str | None,
    trusted: Sequence[str],
    options: Options,
    epoch: int,
    program: Program,
    display: Display,
) -> Any:
    """The state of a run at its newest checkpoint that is not after `epoch`, or at the beginning."""
    manifest, present = read_manifest(path.parent), runs_in(path.parent)
    start = jax.tree.map(lambda leaf: leaf[0], jax.device_get(program.state))
    for name, about in (manifest or {"groups": {}})["groups"].items():
        place = group_folder(path.parent, name)
        if bound.job.hash not in about["members"] or not place.is_dir():
            continue
        try:
            bounds = [rebuilt(present[digits[:HASH_DIGITS]], root, trusted) for digits in about["members"]]
        except (KeyError, ConfigError):
            continue
        (like,) = plan(bounds[:1], options)
        own = {key: about[key] for key in ("mode", "width", "devices")}
        group = dataclasses.replace(like, bounds=tuple(bounds), **own)
        rows = group.rows
        template = jax.tree.map(lambda leaf, rows=rows: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), start)
        checkpoints = Checkpoints(place, group_identity(group), lambda line: None)
        early = lambda done, _: None if done <= epoch else "it is of a later epoch"
        found = checkpoints.restore(template, early)
        checkpoints.close()
        if found is not None:
            display.note(f"from the checkpoint of epoch {found[0]}")
            return unstack(found[1], about["members"].index(bound.job.hash))
    display.note("from the beginning: no checkpoint lies before the step")
    return start


def first_bad(model: Any, transformation: Any, state: Any, batch: Any, key: Any, clock: Any) -> list[str]:
    """Lines on what is not finite in one step: the first quantity, its layer, and the operation it came from."""
    value = lambda params: model.loss(params, batch, key, clock)
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(state.params)
    updates, _ = transformation.update(gradient, state.optimizer_state, state.params)
    lines = []
    for what, tree in (
        ("parameter", state.params),
        ("input", batch),
        ("metric", metrics),
        ("loss", loss),
        ("gradient", gradient),
        ("update", updates),
    ):
        bad = [
            jax.tree_util.keystr(where, simple=True, separator="/")
            for where, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(np.asarray(leaf)).all()
        ]
        if bad:
            named = f" {bad[0]}" if bad[0] else ""
            lines.append(f"first not finite: {what}{named}" + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))
            break
    layers = [
        jax.tree_util.keystr(where[:-1], simple=True, separator="/")
        for where, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.isfinite(np.asarray(leaf)).all()
    ]
    everywhere = len(set(layers)) == len({where[:-1] for where, _ in jax.tree_util.tree_leaves_with_path(gradient)})
    lines.append(
        f"gradient not finite in: {'every layer' if everywhere else ', '.join(dict.fromkeys(layers)) or 'no layer'}"
    )
    place = first_operation(jax.make_jaxpr(value)(state.params), jax.tree.leaves(state.params))
    place = place or first_operation(
        jax.make_jaxpr(jax.grad(value, has_aux=True))(state.params), jax.tree.leaves(state.params)
    )
    if place:
        lines.append(f"first operation that gives something not finite: {place}")
    return lines


def first_operation(closed: Any, arguments: Sequence[Any]) -> str | None:
    """The first operation of a trace that makes something not finite of finite values: its layer and its name."""
    values = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *arguments], strict=True))
    for equation in closed.jaxpr.eqns:
        given = [atom.val if isinstance(atom, Literal) else values[atom] for atom in equation.invars]
        found = equation.primitive.bind(*given, **equation.primitive.get_bind_params(equation.params))
        results = found if equation.primitive.multiple_results else [found]
        values |= dict(zip(equation.outvars, results, strict=True))
        if all(map(_finite, given)) and not all(map(_finite, results)):
            inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
            deeper = first_operation(inner, given) if inner is not None else None
            layer = str(equation.source_info.name_stack)
            return deeper or f"{layer}{'/' if layer else ''}{equation.primitive.name} of shape {results[0].shape}"
    return None


def _finite(value: Any) -> bool:
    """Whether all numbers are finite; integers, flags and keys always are."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return True
    return bool(np.isfinite(np.asarray(value)).all())
