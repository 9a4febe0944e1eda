"""Abilities of a trained model on any number of rows, by one compiled program of a fixed batch size."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.compiling import compiled
from research.data.examples import Examples, count_rows, map_rows


def even(rows: int, most: int) -> int:
    """The batch size that divides `rows` most evenly into batches of at most `most` rows."""
    return -(-rows // max(1, -(-rows // most)))


def batches(examples: Any, size: int) -> Iterator[tuple[Any, int, int]]:
    """Cut rows into batches of exactly `size` rows.

    The last batch starts earlier instead of being short, so that it repeats rows of the batch before. If there are
    fewer than `size` rows in all, the last row is repeated.

    Returns:
      For each batch: the batch, the number of its first row, and how many of its leading rows are repeated ones.
    """
    total = count_rows(examples)
    if total < size:
        rows = np.minimum(np.arange(size), total - 1)
        yield map_rows(lambda array: array[rows], examples), 0, 0
        return
    for first in range(0, total, size):
        start = min(first, total - size)
        yield map_rows(functools.partial(_slice, start=start, size=size), examples), start, first - start


def _slice(array: Any, start: int, size: int) -> Any:
    if not isinstance(array, jax.Array):
        return array[start : start + size]
    return jax.lax.dynamic_slice_in_dim(array, start, size)  # one program for every start


def over(function: Callable[[Any, Any], Any], examples: Any, size: int) -> Any:
    """Apply `function(batch, row numbers [size])` to all rows, and join its results.

    Returns:
      A tree of numpy arrays [N, ...], as the function returns it.

    Raises:
      ValueError: there are no rows.
    """
    total = count_rows(examples)
    if total == 0:
        raise ValueError("no rows")
    results = []
    for batch, start, skip in batches(examples, size):
        rows = np.arange(start, start + size, dtype=np.int32)
        results.append((function(batch, rows), skip))
    parts = [jax.tree.map(lambda array, skip=skip: np.asarray(array)[skip:], result) for result, skip in results]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:total], *parts)


@compiled(static_argnames="chunks")
def row_keys(key: jax.Array, rows: jax.Array, chunks: int | None = None) -> jax.Array:
    """One key for each row number, [B], or [chunks, B] for draws in several parts; so draws do not depend on the batch.

    This is a program of its own. Inside a model's program the same lines would be compiled again for every structure.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    if chunks is None:
        return keys
    return jax.vmap(lambda chunk: jax.vmap(jax.random.fold_in, (0, None))(keys, chunk))(jnp.arange(chunks))


@compiled(static_argnames="ability")
def call(model: Any, params: Any, batch: Examples, ability: str) -> Any:
    """An ability that draws nothing, such as `encode`; models of one structure share the program."""
    return getattr(model, ability)(params, batch)


@compiled()
def decode(model: Any, params: Any, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
    """E[x | z] of codes [B, L], [B, *feature_shape]."""
    return model.decode(params, z, label)


@compiled()
def evaluate(model: Any, params: Any, batch: Examples, keys: jax.Array) -> dict[str, jax.Array]:
    """The model's metrics of every example, {name: [B]}, with one key for each row."""
    return model.evaluate(params, batch, keys)


@compiled(static_argnames="number")
def sample(model: Any, params: Any, key: jax.Array, number: int, label: jax.Array | None = None) -> jax.Array:
    """Draws from the model, [number, *feature_shape]."""
    return model.sample(params, key, number, label)
