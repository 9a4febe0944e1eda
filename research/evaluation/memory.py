"""How far back in time the gradient of a loss at the end of a sequence reaches: whether it vanishes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.compiling import compiled
from research.data.examples import Examples
from research.evaluation import plots
from research.evaluation.subject import Findings, Subject
from research.models.abilities import StateGradients
from research.runs import batches

BATCH, ROWS = 64, 512  # rows of a batch, and most rows in all


@compiled()
def _influence(model: StateGradients, params: Any, batch: Examples) -> jax.Array:
    return jnp.sqrt(jnp.square(model.state_gradients(params, batch)).sum(-1))


def gradient_by_distance(model: StateGradients, params: Any, examples: Examples) -> np.ndarray:
    """Norm of d loss / d h_t of the last layer, by distance to the end of the sequence, [T] (Pascanu et al. 2013).

    Entry d is the mean over (at most 512) rows of |d loss / d h_{T-1-d}|. Rows are aligned at their ends. The entry of
    a distance that no row has is NaN.

    Args:
      model: a model that predicts from the whole sequence.
      params: its parameters.
      examples: sequences with what is predicted.
    """
    examples = examples.take(slice(ROWS))
    norms = batches.over(lambda batch, _: _influence(model, params, batch), examples, BATCH).astype(np.float64)
    steps = norms.shape[1]
    length = np.full(len(norms), steps) if examples.length is None else np.asarray(examples.length)
    step = length[:, None] - 1 - np.arange(steps)[None]  # at every distance from the end, [N, T]
    inside = step >= 0
    by_distance = np.take_along_axis(norms, np.maximum(step, 0), axis=1)
    count = inside.sum(0)
    total = np.where(inside, by_distance, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def reach(norms: np.ndarray) -> float:
    """log10 of the gradient's norm at the first step over its norm at the last step; 0 means that nothing is lost.

    It is minus infinity where the norm at the first step is 0 in float32, and NaN where that at the last step is 0.
    """
    finite = norms[np.isfinite(norms)]
    with np.errstate(divide="ignore"):
        return float(np.log10(finite[-1] / finite[0])) if finite[0] > 0 else float("nan")


def study(subject: Subject, findings: Findings) -> None:
    """Add the gradient's norm by distance in time, with trained and with fresh parameters."""
    model = subject.model
    fresh = model.fresh(jax.random.fold_in(subject.key, 4))
    trained = gradient_by_distance(model, subject.params, subject.test)
    start = gradient_by_distance(model, fresh, subject.test)
    findings.add({"test/gradient_reach": reach(trained), "test/gradient_reach_at_start": reach(start)})
    findings.curves |= {"gradient_norm/trained": trained, "gradient_norm/at_start": start}
    title = f"{model.cell}: gradient norm by steps back in time, log scale"
    findings.pictures["gradient_norm"] = plots.decay_panel({"trained": trained, "at start": start}, title=title)
