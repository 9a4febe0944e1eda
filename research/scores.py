"""Scores of one job: means of the model's metrics over its validation and test rows, inside a program."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.data.examples import Split
from research.data.preparation import Binarize
from research.inputs import EVALUATE, Budget, Data, Model, purpose_key


@jax.jit  # inside a program: the plan traces it first, and the program uses that trace again
def evaluate(
    model: Model, params: Any, seed: Any, split: Split, data: Data, budget: Budget, test: Bool[Array, ""] | bool
) -> dict[str, Float[Array, ""]]:
    """Means of the model's metrics over the validation rows, and over the test rows if `test`; otherwise those are NaN.

    One loop computes both parts, so a program holds the evaluation once. Every row counts once, whatever the
    evaluation batch.
    """
    validation, of_test = (evaluation_batches(split, part, budget) for part in ("validation", "test"))
    rows, weight = (jnp.concatenate(arrays) for arrays in zip(validation, of_test, strict=True))
    first_test, key = len(validation[0]), purpose_key(seed, EVALUATE)

    def sums_of(index: Int[Array, ""]) -> dict[str, jax.Array]:
        return evaluate_batch(model, params, key, rows[index], rows[index], weight[index], split, data, budget)

    def add(index: Int[Array, ""], sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {name: sums[name].at[index].set(value) for name, value in sums_of(index).items()}

    shapes = jax.eval_shape(sums_of, jnp.int32(0))
    zeros = {name: jnp.zeros(len(rows), shape.dtype) for name, shape in shapes.items()}
    sums = jax.lax.fori_loop(0, jnp.where(test, len(rows), first_test), add, zeros)
    means = {f"validation/{name}": value[:first_test].sum() / weight[:first_test].sum() for name, value in sums.items()}
    for name, value in sums.items():
        means[f"test/{name}"] = jnp.where(test, value[first_test:].sum() / weight[first_test:].sum(), jnp.nan)
    return means


def evaluation_batches(
    split: Split, part: Literal["validation", "test"], budget: Budget
) -> tuple[Int[Array, "steps B"], Float[Array, "steps B"]]:
    """The rows of one part in batches, and their weights; the last batch is filled up with row 0 at weight 0."""
    size = evaluation_rows(split, budget)
    rows, weight = jnp.asarray(getattr(split, part)), jnp.asarray(getattr(split, f"{part}_weight"))
    padding = -len(rows) % size
    return jnp.pad(rows, (0, padding)).reshape(-1, size), jnp.pad(weight, (0, padding)).reshape(-1, size)


def evaluation_rows(split: Split, budget: Budget) -> int:
    """Rows in a step of an evaluation, at most `evaluation_batch`.

    These are all validation rows, so that a training evaluates no padding, or an eighth of a much larger test part.
    """
    validation, test = len(split.validation), len(split.test)
    return min(budget.evaluation_batch, max(validation, -(-test // 8)))


@jax.jit  # `evaluate` asks for the shapes of its results first
def evaluate_batch(
    model: Model,
    params: Any,
    key: Key[Array, ""],
    numbers: Int[Array, " B"],
    places: Int[Array, " B"],
    weight: Float[Array, " B"],
    split: Split,
    data: Data,
    budget: Budget,
) -> dict[str, Float[Array, ""]]:
    """Sums of the model's metrics over the rows of a batch whose weight is not 0.

    Args:
      key: of all evaluations; a row draws with its number.
      numbers: of the rows in the data set.
      places: of the rows in `data`.
    """
    batch = data.evaluation.take(places)
    batch = batch if isinstance(budget.draw, Binarize) else split.prepare(batch)
    batch = dataclasses.replace(batch, x=batch.x.astype(jnp.float32))
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(numbers)
    values = model.evaluate(params, batch, keys)
    return {name: jnp.where(weight > 0, value, 0.0).sum() for name, value in values.items()}
