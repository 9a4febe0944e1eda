"""Whether a decoder uses its code, and how much of a codebook is used."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.data.examples import Examples
from research.distributions import kl_to_standard_normal
from research.evaluation.subject import BATCH, Findings, Subject
from research.models.abilities import HasPosterior, Quantizes, ScoresCodes, able
from research.runs import batches

UNUSED = 0.1  # nats per example: a code whose exchange costs less is not used


@jax.jit
def _nats(model: Any, params: Any, batch: Examples, z: jax.Array) -> jax.Array:
    return model.reconstruction_nats(params, z, batch)


def kl_per_dimension(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL(q(z_l | x) || N(0, 1)) of every latent dimension, mean over rows, in nats, [L], the largest first."""
    kl = kl_to_standard_normal(jnp.asarray(mean), jnp.asarray(log_variance))
    return -np.sort(-np.asarray(kl, np.float64).mean(0))


def codebook_use(chosen: np.ndarray, entries: int) -> dict[str, float]:
    """How evenly a codebook is used.

    Args:
      chosen: numbers of the chosen entries, of any shape.
      entries: number of entries, K.

    Returns:
      `codebook_perplexity`: exp of the entropy of the choices, 1 to K; `codebook_used`: share of the entries that are
      chosen at all.
    """
    from scipy.stats import entropy

    count = np.bincount(chosen.reshape(-1), minlength=entries)
    return {"codebook_perplexity": float(np.exp(entropy(count))), "codebook_used": float((count > 0).mean())}


def study(subject: Subject, findings: Findings) -> None:
    """Add whether the decoder of a model with a posterior uses its code, and how evenly a codebook is used."""
    if not subject.recipe.usage:
        return
    if able(subject.model, HasPosterior) and able(subject.model, ScoresCodes):
        posterior_study(subject, findings)
    if able(subject.model, Quantizes):
        codebook_study(subject, findings)


def codebook_study(subject: Subject, findings: Findings) -> None:
    """Add `test/codebook_perplexity` and `test/codebook_used`, of all choices in the codes of the test rows."""
    model, params, test = subject.model, subject.params, subject.test
    chosen = batches.over(lambda batch, _: batches.call(model, params, batch, "assign"), test, BATCH)
    if chosen.ndim == 3 and test.length is not None:  # the choices of padded steps do not count
        chosen = chosen[np.arange(chosen.shape[1])[None] < np.asarray(test.length)[:, None]]
    findings.add(codebook_use(chosen, model.entries), "test/")


def posterior_study(subject: Subject, findings: Findings) -> None:
    """Add `test/shuffled_nats`, what the reconstruction loses at the codes of other rows, and `test/collapsed`.

    A decoder that ignores its code (posterior collapse; Bowman et al. 2016) loses nothing when codes are exchanged
    between rows. `test/collapsed` is 1 if it loses less than .1 nats per example, else 0. Codes are posterior means.
    """
    model, params, test = subject.model, subject.params, subject.test
    mean, log_variance = batches.over(lambda batch, _: batches.call(model, params, batch, "posterior"), test, BATCH)
    if not np.isfinite(mean).all() or not np.isfinite(log_variance).all():
        findings.refuse("some codes are not finite", "test/shuffled_nats", "test/collapsed")
        return
    if len(mean) < 2:
        findings.refuse("one row only", "test/shuffled_nats", "test/collapsed")
        return
    # give every row the code of another row
    order = np.random.default_rng(0).permutation(len(mean))
    shuffled = np.empty_like(mean)
    shuffled[order] = mean[np.roll(order, 1)]
    own_nats, shuffled_nats = (
        float(np.mean(batches.over(lambda pair, _: _nats(model, params, *pair), (test, z), BATCH), dtype=np.float64))
        for z in (mean, shuffled)
    )
    cost = shuffled_nats - own_nats
    findings.add({"test/shuffled_nats": cost, "test/collapsed": float(cost < UNUSED) if np.isfinite(cost) else cost})
    if model.standard_prior:  # under another prior the KL is no sum over dimensions
        findings.curves["kl_per_dimension"] = kl_per_dimension(mean, log_variance)
