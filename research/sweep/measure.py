"""The size of a program, and the numbers that it never reads, from its trace alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.interpreters import partial_eval

from research.data.preparation import Binarize
from research.engine import State, chunk, initialize, train_epoch
from research.inputs import EVALUATE, Budget, Data, JobInputs, purpose_key
from research.scores import evaluate_batch, evaluation_rows
from research.sweep.blocks import bytes_in_flight
from research.sweep.job import BoundJob
from research.tree import ConfigError, keys, stack, unstack


class Measure(NamedTuple):
    """Facts about the program of a job.

    Attributes:
      parameters: number of parameters of one member.
      state_bytes: bytes of the training state of one member.
      data_bytes: bytes of the rows on the device, which all members share.
      metrics: names of the metrics that an evaluation during training gives.
      problem: why the program cannot be traced; None if it can.
      unread: config keys of numbers that differ between the jobs but that the program never reads.
    """

    parameters: int
    state_bytes: int
    data_bytes: int
    metrics: tuple[str, ...]
    problem: str | None = None
    unread: tuple[str, ...] = ()


def measure(bound: BoundJob, others: Sequence[BoundJob] = ()) -> Measure:
    """Measure the program of a job; `others` are further jobs of the same structure.

    A model that cannot be traced is no error here: its program fails when it is compiled, and other programs train.

    Raises:
      ConfigError: the model has no metric of the name `trainer.monitor`.
    """
    examples, budget = bound.dataset.compact, bound.budget
    if bound.dataset.streamed:  # a trace needs no rows
        examples = dataclasses.replace(examples, x=jax.ShapeDtypeStruct(examples.x.shape, examples.x.dtype))
    member, data = JobInputs(np.uint32(0), bound.dataset.compact_split(None)), Data(examples, examples)
    model, optimizer = unstack(stack([(bound.model, bound.job.optimizer)]), 0)  # numbers as they enter a program

    def start(model: Any, optimizer: Any, member: JobInputs, data: Data) -> State:
        return initialize(model, optimizer, member, data, budget)

    def train(model: Any, optimizer: Any, state: State, member: JobInputs, data: Data, epochs: Any, test: Any) -> Any:
        return chunk(model, optimizer, state, member, data, epochs, budget, test)

    rows = _bytes(examples) * (2 if isinstance(budget.draw, Binarize) else 1)
    if bound.dataset.streamed:
        rows += bytes_in_flight(bound.dataset, budget) - _bytes(examples.x)
    try:
        state = jax.eval_shape(start, model, optimizer, member, data)
        # jit keeps the traces of an epoch and of an evaluation, and the program uses them again.
        _, metrics = jax.eval_shape(train, model, optimizer, state, member, data, np.int32(1), np.bool_(False))
    except ConfigError:
        raise
    except Exception as error:
        return Measure(0, 0, rows, (), f"cannot be traced: {(str(error).strip().splitlines() or [repr(error)])[0]}")
    return Measure(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=_bytes(state) + _bytes(member),
        data_bytes=rows,
        metrics=tuple(name for name in metrics if not name.startswith("test/")),
        unread=unread_numbers([bound, *others], state, member, data, budget),
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def unread_numbers(
    bounds: Sequence[BoundJob], state: State, member: JobInputs, data: Data, budget: Budget
) -> tuple[str, ...]:
    """Config keys of numbers that differ between jobs of one structure, although no result depends on them.

    The results are the initial state, the state and the metrics after an epoch, and an evaluation.
    """
    first, *others = map(numbers, bounds)
    differing = [key for key in first if any(other[key] != first[key] for other in others)]
    if not differing:
        return ()
    tree = unstack(stack([{"model": bounds[0].model, "optimizer": bounds[0].job.optimizer}]), 0)
    # `scores.evaluate` is a loop over batches; the analysis below takes all that a loop is given for read.
    rows = np.zeros(evaluation_rows(member.split, budget), np.int32)

    def results(tree: Any, state: State, member: JobInputs, data: Data) -> Any:
        model, optimizer = tree["model"], tree["optimizer"]
        trained, metrics = train_epoch(model, optimizer, state, member, data, budget)
        key, weight = purpose_key(member.seed, EVALUATE), np.ones(len(rows), np.float32)
        evaluated = evaluate_batch(model, trained.params, key, rows, rows, weight, member.split, data, budget)
        return initialize(model, optimizer, member, data, budget), trained, metrics, evaluated

    jaxpr = jax.make_jaxpr(results)(tree, state, member, data).jaxpr
    _, used_inputs = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    read = {key for key, used in zip(first, used_inputs, strict=False) if used}
    return tuple(key for key in differing if key not in read)


def numbers(bound: BoundJob) -> dict[str, Any]:
    """Config key -> number, for the leaves of model and optimizer in the order of their tree."""
    tree = {"model": bound.model, "optimizer": bound.job.optimizer}
    config_names = {key.path: name for name, key in keys(type(bound.model)).items()}
    values = {}
    for path, value in jax.tree_util.tree_leaves_with_path(tree):
        steps = _steps(path)
        inline = config_names.get(steps[1:]) if steps[0] == "model" else None
        values[key_of(path) if inline is None else f"model.{inline}"] = value
    return values


def _steps(path: Sequence[Any]) -> tuple[str, ...]:
    """Names of the fields and keys on the way to a leaf."""
    return tuple(str(getattr(step, "name", None) or getattr(step, "key", None)) for step in path)


def key_of(path: Sequence[Any]) -> str:
    """The config key of a leaf: the numbers of an optimizer are flat, and `period` is a key of its player."""
    steps = _steps(path)
    if "periods" in steps:
        return ".".join([*(step for step in steps if step != "periods"), "period"])
    return ".".join(step for step in steps if step not in ("numbers", "players"))
