"""Log-likelihood by importance sampling (Burda, Grosse & Salakhutdinov 2016)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.compiling import compiled
from research.data.examples import Examples
from research.evaluation.subject import BATCH, Findings, Subject
from research.runs import batches

CHUNK = 64  # most samples of each example that are decoded at once


@compiled(static_argnames="samples")
def _estimate(model: Any, params: Any, batch: Examples, keys: jax.Array, samples: int) -> tuple[jax.Array, jax.Array]:
    """log 1/k sum w and (sum w)^2 / sum w^2 of every example, both [B], from k weights w; keys are [chunks, B]."""
    chunks = keys.shape[0]
    size = -(-samples // chunks)

    def sums_of_chunk(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        number, chunk_keys = chunk
        log_weights = model.log_weights(params, batch, chunk_keys, size)
        used = number * size + jnp.arange(size)[None] < samples  # the last chunk may draw more than are needed
        log_weights = jnp.where(used, log_weights, -jnp.inf)
        return jax.nn.logsumexp(log_weights, -1), jax.nn.logsumexp(2 * log_weights, -1)

    parts = jax.lax.map(sums_of_chunk, (jnp.arange(chunks), keys))
    sums, squares = jax.tree.map(lambda part: jax.nn.logsumexp(part, 0), parts)
    return sums - jnp.log(samples), jnp.exp(2 * sums - squares)


def likelihood(model: Any, params: Any, test: Examples, key: jax.Array, samples: int) -> dict[str, float]:
    """An upper bound of the negative log-likelihood of the test rows, which falls to the truth as k grows.

    -log p(x) <= -E log 1/k sum_i p(x, z_i) / q(z_i | x), z_i ~ q(z | x), with exactly k samples for every example.
    Draws depend on the key and the row number, not on batches.

    Args:
      model, params: a model that has `log_weights`, and its parameters.
      test: rows.
      key: of all draws.
      samples: k.

    Returns:
      `test/nll_nats`: mean over examples, in nats.
      `test/nll_standard_error`: standard error of that mean over examples; NaN for one example.
      `test/nll_effective_samples`: mean over examples of (sum w)^2 / sum w^2, between 1 and k.
      `test/nll_effective_share`: the same over k. Below a tenth, a few samples dominate the sum, and the bound may lie
        far above the truth.
    """
    chunks = -(-samples // CHUNK)

    def function(batch: Examples, rows: np.ndarray) -> Any:
        return _estimate(model, params, batch, batches.row_keys(key, rows, chunks), samples)

    bound, effective = batches.over(function, test, batches.even(len(test), BATCH))
    bound, effective_samples = bound.astype(np.float64), float(effective.astype(np.float64).mean())
    return {
        "test/nll_nats": float(-bound.mean()),
        "test/nll_standard_error": float(bound.std(ddof=1) / np.sqrt(len(bound))) if len(bound) > 1 else float("nan"),
        "test/nll_effective_samples": effective_samples,
        "test/nll_effective_share": effective_samples / samples,
    }


def study(subject: Subject, findings: Findings) -> None:
    """Add the likelihood of the test rows."""
    recipe, test = subject.recipe, subject.test
    samples: Any = recipe.nll_samples  # with null, this question is not asked
    rows = test if recipe.nll_examples is None else test.take(slice(recipe.nll_examples))
    key = jax.random.fold_in(subject.key, 0)
    findings.add(likelihood(subject.model, subject.params, rows, key, samples))


def study_redraws(subject: Subject, findings: Findings) -> None:
    """Add `redrawn/...`, the mean of the model's metrics over further binarisations of the test rows."""
    key = jax.random.fold_in(subject.key, 2)
    means: dict[str, list[float]] = {}
    for number, examples in enumerate(subject.redraws):
        for name, values in subject.evaluate(examples, jax.random.fold_in(key, number)).items():
            means.setdefault(name, []).append(float(np.mean(values, dtype=np.float64)))
    findings.add({name: float(np.mean(values)) for name, values in means.items()}, "redrawn/")
