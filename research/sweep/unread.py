"""Which numbers of a job its program never reads: a sweep of one would train equal runs without a word."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.interpreters import partial_eval

from research.engine import Budget, Data, Member, State, evaluate, initialize, train_epoch
from research.sweep.job import Bound
from research.tree import keys, stack, unstack


def unread_numbers(
    bounds: Sequence[Bound], state: State, member: Member, data: Data, budget: Budget
) -> tuple[str, ...]:
    """Config keys of the numbers that differ between jobs of one structure, and that nothing they compute depends on.

    What they compute is the state before the first step, that after an epoch, the training metrics and an evaluation.
    """
    first, *others = map(numbers, bounds)
    differing = [key for key in first if any(other[key] != first[key] for other in others)]
    if not differing:
        return ()
    tree = unstack(stack([{"model": bounds[0].model, "optimizer": bounds[0].job.optimizer}]), 0)

    def everything(tree: Any, state: State, member: Member, data: Data) -> Any:
        model, optimizer = tree["model"], tree["optimizer"]
        new, metrics = train_epoch(model, optimizer, state, member, data, budget)
        evaluated = evaluate(model, new.params, member.seed, member.split, data, "validation", budget)
        return initialize(model, optimizer, member, data, budget), new, metrics, evaluated

    jaxpr = jax.make_jaxpr(everything)(tree, state, member, data).jaxpr
    _, read = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    read_keys = {key for key, used in zip(first, read, strict=False) if used}
    return tuple(key for key in differing if key not in read_keys)


def numbers(bound: Bound) -> dict[str, Any]:
    """Config key -> number, of the model and the optimizer."""
    tree = {"model": bound.model, "optimizer": bound.job.optimizer}
    named = {(key.path): name for name, key in keys(type(bound.model)).items()}
    found = {}
    for path, value in jax.tree_util.tree_leaves_with_path(tree):
        steps = names(path)
        own = named.get(steps[1:]) if steps[0] == "model" else None
        found[key_of(path) if own is None else f"model.{own}"] = value
    return found


def names(path: Sequence[Any]) -> tuple[str, ...]:
    """The fields and keys on the way to a leaf."""
    return tuple(str(getattr(step, "name", None) or getattr(step, "key", None)) for step in path)


def key_of(path: Sequence[Any]) -> str:
    """The config key of a leaf: flat numbers of an optimizer, `period` beside the other keys of a player."""
    steps = names(path)
    if "periods" in steps:
        return ".".join([*(step for step in steps if step != "periods"), "period"])
    return ".".join(step for step in steps if step not in ("numbers", "players"))
