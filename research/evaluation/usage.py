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

NOTHING = 0.1  # nats per example: a code that is worth less is not used


@jax.jit
def _nats(model: Any, params: Any, batch: Examples, z: jax.Array) -> jax.Array:
    return model.reconstruction_nats(params, z, batch)


def kl_per_dimension(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL(q(z_l | x) || N(0, 1)) of every latent dimension, mean over rows, [L] nats; the largest first."""
    kl = kl_to_standard_normal(jnp.asarray(mean), jnp.asarray(log_variance))
    return -np.sort(-np.asarray(kl, np.float64).mean(0))


def codebook_use(chosen: np.ndarray, entries: int) -> dict[str, float]:
    """exp of the entropy of choices (at most `entries`), and the share of entries that are chosen at all."""
    count = np.bincount(chosen.reshape(-1), minlength=entries)
    share = count[count > 0] / count.sum()
    perplexity = float(np.exp(-(share * np.log(share)).sum()))
    return {"codebook_perplexity": perplexity, "codebook_used": float((count > 0).mean())}


def study(subject: Subject, findings: Findings) -> None:
    """What `posterior_study` and `codebook_study` say, of the models that they are about."""
    if not subject.recipe.usage:
        return
    if able(subject.model, HasPosterior) and able(subject.model, ScoresCodes):
        posterior_study(subject, findings)
    if able(subject.model, Quantizes):
        codebook_study(subject, findings)


def codebook_study(subject: Subject, findings: Findings) -> None:
    """`test/codebook_perplexity` and `test/codebook_used`, of all choices in the codes of the test rows."""
    model, params, test = subject.model, subject.params, subject.test
    chosen = batches.over(lambda batch, _: batches.call(model, params, batch, "assign"), test, BATCH)
    if chosen.ndim == 3 and test.length is not None:  # padding chooses nothing
        chosen = chosen[np.arange(chosen.shape[1])[None] < np.asarray(test.length)[:, None]]
    findings.add(codebook_use(chosen, model.entries), "test/")


def posterior_study(subject: Subject, findings: Findings) -> None:
    """`test/shuffled_nats`: what the reconstruction loses at the codes of other rows; `test/collapsed`: 1 if nothing.

    A decoder that ignores its code (posterior collapse; Bowman et al. 2016) loses nothing when codes are exchanged
    between rows. Collapsed means less than .1 nats per example, both at posterior means.
    """
    model, params, test = subject.model, subject.params, subject.test
    mean, log_variance = batches.over(lambda batch, _: batches.call(model, params, batch, "posterior"), test, BATCH)
    if not np.isfinite(mean).all() or not np.isfinite(log_variance).all():
        findings.refuse("some codes are not finite", "test/shuffled_nats", "test/collapsed")
        return
    if len(mean) < 2:
        findings.refuse("one row only", "test/shuffled_nats", "test/collapsed")
        return
    # every row gets the code of another one
    order = np.random.default_rng(0).permutation(len(mean))
    shuffled = np.empty_like(mean)
    shuffled[order] = mean[np.roll(order, 1)]
    own, exchanged = (
        float(np.mean(batches.over(lambda pair, _: _nats(model, params, *pair), (test, z), BATCH), dtype=np.float64))
        for z in (mean, shuffled)
    )
    cost = exchanged - own
    findings.add({"test/shuffled_nats": cost, "test/collapsed": float(cost < NOTHING) if np.isfinite(cost) else cost})
    if model.standard_prior:  # of other priors it is no sum over dimensions
        findings.curves["kl_per_dimension"] = kl_per_dimension(mean, log_variance)
