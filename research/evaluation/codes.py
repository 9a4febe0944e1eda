"""What codes are good for: whether the decoder uses them, what they say about a row, and which classes they tell."""

import contextlib
from typing import Any

import jax
import numpy as np

from research.compiling import Program, compiled
from research.data.examples import Examples
from research.distributions import kl_to_standard_normal
from research.evaluation.subject import BATCH, Findings, Subject
from research.evaluation.views import on_line
from research.runs import batches

UNUSED = 0.1  # nats per example: a code whose exchange costs less is not used
SEED = 20_180_217  # of all draws. It is not 0, with which data may have been drawn: noise that equals the data is none.
FEWEST, MOST = 100, 1000  # rows that the scores of information need at least, and use at most
INFORMATION = ("test/total_correlation", "test/mutual_information_nats")
SMALL = 10_000  # below so many rows, scikit-learn runs in one thread


def threads(rows: int) -> contextlib.AbstractContextManager[Any]:
    """A context in which numerical libraries use one thread if rows are few.

    Several threads would wait for each other, and for a program that trains meanwhile, longer than they work: 40 ms of
    a run became 250.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if rows < SMALL else None)


def active_units(codes: np.ndarray, threshold: float) -> int:
    """Number of latent dimensions with Var_x(E[z | x]) above the threshold (Burda et al. 2016: .01)."""
    return int((codes.astype(np.float64).var(0) > threshold).sum())


def linear_probe(
    train: np.ndarray, train_label: np.ndarray, test: np.ndarray, test_label: np.ndarray, iterations: int
) -> float:
    """Accuracy on the test rows of a logistic regression that was fitted to the training rows.

    It is scikit-learn's `LogisticRegression` with its L2 penalty at C = 1. Each feature is standardised by its mean and
    standard deviation over the training rows; a constant feature becomes 0.

    Args:
      train, test: rows [N, D] and [M, D].
      train_label, test_label: their classes, [N] and [M].
      iterations: the most iterations of the optimizer.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations))
    return float(probe.fit(train, train_label).score(test, test_label))


def probes(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    neighbors: int,
    iterations: int,
) -> dict[str, float]:
    """Accuracies of two classifiers that are fitted to training codes and scored on test codes.

    Args:
      train, test: codes [N, L] and [M, L].
      train_label, test_label: their classes, [N] and [M].
      neighbors: k of the k nearest neighbours, which compare codes as they are (Euclidean distance).
      iterations: the most iterations of `linear_probe`.

    Returns:
      `knn_accuracy` and `probe_accuracy`, shares of the test rows.
    """
    from sklearn.neighbors import KNeighborsClassifier

    with threads(len(train)):
        nearest = KNeighborsClassifier(min(neighbors, len(train))).fit(train, train_label)
        return {
            "knn_accuracy": float(nearest.score(test, test_label)),
            "probe_accuracy": linear_probe(train, train_label, test, test_label, iterations),
        }


_kl = Program(kl_to_standard_normal)


@compiled()
def _nats(model: Any, params: Any, batch: Examples, z: jax.Array) -> jax.Array:
    return model.reconstruction_nats(params, z, batch)


def kl_per_dimension(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL(q(z_l | x) || N(0, 1)) of every latent dimension, mean over rows, in nats, [L], the largest first."""
    return -np.sort(-np.asarray(_kl(mean, log_variance), np.float64).mean(0))


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


def study_active_units(subject: Subject, findings: Findings) -> None:
    """Add the number of active units of a model with a posterior."""
    codes = subject.codes("test")
    if np.isfinite(codes).all():
        findings.add({"test/active_units": active_units(codes, subject.recipe.active_threshold)})
    else:
        findings.refuse("some codes are not finite", "test/active_units")


def has_classes(subject: Subject) -> bool:
    """Whether probes have classes to learn; data with anomalies have only normal rows to learn from."""
    return subject.facts.classes > 1 and subject.train.label is not None and not subject.facts.anomaly


def study_probes(subject: Subject, findings: Findings) -> None:
    """Add the accuracies of the probes."""
    recipe, names = subject.recipe, ("test/knn_accuracy", "test/probe_accuracy")
    train_codes, test_codes = subject.codes("train"), subject.codes("test")
    if not np.isfinite(test_codes).all() or not np.isfinite(train_codes).all():
        findings.refuse("some codes are not finite", *names)
        return
    train_label, test_label = np.asarray(subject.train.label), np.asarray(subject.test.label)
    if len(np.unique(train_label)) < 2:
        findings.refuse("one class only in the training rows", *names)
        return
    accuracies = probes(train_codes, train_label, test_codes, test_label, recipe.neighbors, recipe.probe_iterations)
    findings.add(accuracies, "test/")


def study_projector(subject: Subject, findings: Findings) -> None:
    """Keep the codes of the test rows for TensorBoard's projector."""
    findings.codes = subject.codes("test")
    if subject.test.label is not None:
        findings.labels, names = np.asarray(subject.test.label), [*map(on_line, subject.classes or ())]
        if names and len(names) == subject.facts.classes:
            findings.labels = np.asarray(names)[findings.labels]


def study_posterior(subject: Subject, findings: Findings) -> None:
    """Add `test/shuffled_nats`, what the reconstruction loses at the codes of other rows, and `test/collapsed`.

    A decoder that ignores its code (posterior collapse; Bowman et al. 2016) loses nothing when codes are exchanged
    between rows. `test/collapsed` is 1 if it loses less than .1 nats per example, else 0. Codes are posterior means.
    """
    model, params, test = subject.model, subject.params, subject.test
    mean, log_variance = subject.call("posterior", test)
    problem = "" if len(mean) > 1 else "one row only"
    if not np.isfinite(mean).all() or not np.isfinite(log_variance).all():
        problem = "some codes are not finite"
    if problem:
        findings.refuse(problem, "test/shuffled_nats", "test/collapsed")
        return
    # give every row the code of another row
    order = np.random.default_rng(0).permutation(len(mean))
    shuffled = np.empty_like(mean)
    shuffled[order] = mean[np.roll(order, 1)]
    exact_nats, shuffled_nats = (
        float(np.mean(batches.over(lambda pair, _: _nats(model, params, *pair), (test, z), BATCH), dtype=np.float64))
        for z in (mean, shuffled)
    )
    cost = shuffled_nats - exact_nats
    findings.add({"test/shuffled_nats": cost, "test/collapsed": float(cost < UNUSED) if np.isfinite(cost) else cost})
    if model.standard_prior:  # under another prior the KL is no sum over dimensions
        findings.curves["kl_per_dimension"] = kl_per_dimension(mean, log_variance)


def study_information(subject: Subject, findings: Findings) -> None:
    """Add `test/total_correlation` and `test/mutual_information_nats` of the first 1,000 test rows.

    They need a Gaussian posterior, but no known factors. A dimension counts in the total correlation if the variance of
    its mean is above `active_threshold`.
    """
    test = subject.test.take(slice(MOST))
    if len(test) < FEWEST:
        findings.refuse(f"fewer than {FEWEST} rows", *INFORMATION)
        return
    mean, log_variance = subject.call("posterior", test)
    if not np.isfinite(mean).all() or not np.isfinite(log_variance).all():
        findings.refuse("some codes are not finite", *INFORMATION)
        return
    values = total_correlation(mean, subject.recipe.active_threshold), mutual_information_nats(mean, log_variance)
    findings.add(dict(zip(INFORMATION, values, strict=True)))


def study_codebook(subject: Subject, findings: Findings) -> None:
    """Add `test/codebook_perplexity` and `test/codebook_used`, of all choices in the codes of the test rows."""
    test = subject.test
    chosen = subject.call("assign", test)
    if chosen.ndim == 3 and test.length is not None:  # the choices of padded steps do not count
        chosen = chosen[np.arange(chosen.shape[1])[None] < np.asarray(test.length)[:, None]]
    findings.add(codebook_use(chosen, subject.model.entries), "test/")
