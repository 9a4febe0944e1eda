"""How much a Gaussian posterior says about a row, and whether its dimensions say it independently."""

import numpy as np

from research.evaluation.subject import BATCH, Findings, Subject
from research.models.abilities import HasPosterior, able
from research.runs import batches

SEED = 20_180_217  # of the draws from the posteriors
FEWEST, MOST = 100, 1000  # rows that the scores need at least, and use at most
NAMES = ("test/total_correlation", "test/mutual_information_nats")


def total_correlation(mean: np.ndarray, threshold: float = 0.0) -> float:
    """Total correlation of posterior means in nats, as if they were Gaussian (Locatello et al. 2019).

    KL(N(m, S) || prod_l N(m_l, S_ll)) = -1/2 log det R, where S is the covariance and R the correlation of the means.
    The score is 0 if and only if no two dimensions correlate; it does not see other kinds of dependence. Chance adds
    about L (L - 1) / 4N. The score is infinite where a dimension is a linear function of others, as always at N <= L.

    Args:
      mean: posterior means [N, L].
      threshold: dimensions whose variance is not above it are left out. Correlation knows no scale, so the noise that
        is left of a collapsed dimension would otherwise count as much as any other dimension.
    """
    mean = mean.astype(np.float64)
    mean = mean[:, (mean.var(0) > threshold) & (np.ptp(mean, 0) > 0)]
    if mean.shape[1] < 2:
        return 0.0
    values = np.linalg.eigvalsh(np.corrcoef(mean.T))
    return float("inf") if values[0] <= 1e-12 * len(values) else float(-np.log(values).sum() / 2)


def mutual_information_nats(mean: np.ndarray, log_variance: np.ndarray, seed: int = SEED) -> float:
    """Mutual information of rows and codes, I(x; z), in nats, for Gaussian posteriors [N, L] (Hoffman & Johnson 2016).

    I(x; z) = E log q(z | x) / q(z) with q(z) = 1/N sum_j q(z | x_j); one z is drawn from every posterior. It is the
    information of a code about which of these N rows it stands for, so it is never more than log N.
    """
    mean, log_variance = mean.astype(np.float64), log_variance.astype(np.float64)
    z = mean + np.exp(log_variance / 2) * np.random.Generator(np.random.PCG64(seed)).standard_normal(mean.shape)
    precision, total = np.exp(-log_variance), 0.0
    for first in range(0, len(z), BATCH):
        drawn = z[first : first + BATCH]
        # These are log-densities up to a constant that cancels. Dimensions are added one after another to save memory.
        # Differences are squared directly: expanding the square into matrix products would lose small variances.
        logs = np.tile(-log_variance.sum(1) / 2, (len(drawn), 1))
        for dimension in range(z.shape[1]):
            logs -= np.square(drawn[:, dimension, None] - mean[:, dimension]) * precision[:, dimension] / 2
        highest = logs.max(1)
        aggregate = highest + np.log(np.exp(logs - highest[:, None]).mean(1))
        total += float((np.diagonal(logs, first) - aggregate).sum())
    return total / len(z)


def study(subject: Subject, findings: Findings) -> None:
    """Add `test/total_correlation` and `test/mutual_information_nats` of the first 1,000 test rows.

    They are computed for models with a Gaussian posterior, whether or not the data have known factors. A dimension
    counts in the total correlation if the variance of its mean is above `active_threshold`.
    """
    if not subject.recipe.disentanglement or not able(subject.model, HasPosterior):
        return
    test = subject.test.take(slice(MOST))
    if len(test) < FEWEST:
        findings.refuse(f"fewer than {FEWEST} rows", *NAMES)
        return
    posterior = lambda batch, _: batches.call(subject.model, subject.params, batch, "posterior")
    mean, log_variance = batches.over(posterior, test, BATCH)
    if not np.isfinite(mean).all() or not np.isfinite(log_variance).all():
        findings.refuse("some codes are not finite", *NAMES)
        return
    values = total_correlation(mean, subject.recipe.active_threshold), mutual_information_nats(mean, log_variance)
    findings.add(dict(zip(NAMES, values, strict=True)))
