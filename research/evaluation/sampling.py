"""How good samples of images and vectors are: whether they look like real rows, and whether they vary as much."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from research.evaluation.baselines import MASKED
from research.evaluation.judge import labels, samples, subset
from research.evaluation.referee import SEED, referee
from research.evaluation.subject import BATCH, Findings, Subject
from research.models.abilities import Samples, able
from research.runs import batches

PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS = 3, 5  # k, as in the two papers
COMPONENTS, CODES = 10, 10_000  # of the mixture, and most codes that it is fitted to
FEWEST = 20  # rows of a part
BLOCK = 2048  # rows whose distances to all others are in memory at a time
NAMES = (
    *("sample_precision", "sample_recall", "density", "coverage", "frechet_distance"),
    "sampling_classifier_accuracy",
)


def scores(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """How well generated rows stand for real ones, by their features [N, D] and [M, D].

    B_k(x) is the ball around x that reaches to its k-th nearest other row of the same kind.

    `sample_precision`: share of the generated rows that lie in B_3 of some real row (Kynkäänniemi et al. 2019).
    `sample_recall`: share of the real rows that lie in B_3 of some generated row (same paper).
    `density`: mean over the generated rows of the number of real rows whose B_5 they lie in, over 5 (Naeem et al.
      2020); about 1 where both are alike, more where samples lie where real rows are dense.
    `coverage`: share of the real rows whose B_5 holds a generated row (same paper); where N = M rows are alike,
      1 - prod_{i=1..5} (N - i) / (2 N - i), about .97.
    `frechet_distance`: see the function of this name.
    """
    of_real, of_fake = radii(real, (PRECISION_NEIGHBORS, COVERAGE_NEIGHBORS)), radii(fake, (PRECISION_NEIGHBORS,))
    precise, _ = occupied(fake, real, of_real[0])
    recalled, _ = occupied(real, fake, of_fake[0])
    dense, covered = occupied(fake, real, of_real[1])
    return {
        "sample_precision": float((precise > 0).mean()),
        "sample_recall": float((recalled > 0).mean()),
        "density": float(dense.mean() / COVERAGE_NEIGHBORS),
        "coverage": float((covered > 0).mean()),
        "frechet_distance": frechet_distance(real, fake),
    }


def radii(rows: np.ndarray, neighbors: tuple[int, ...]) -> np.ndarray:
    """Distance of every row [N, D] to its k-th nearest other row, for every k of `neighbors`, [number of k, N]."""
    ranks = list(neighbors)  # the row itself has rank 0
    blocks = [np.partition(distances, ranks, axis=1)[:, ranks] for distances in _distances(rows, rows)]
    return np.concatenate(blocks).T


def occupied(rows: np.ndarray, centers: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of balls that every row lies in, [N], and the number of rows in every ball, [M].

    Args:
      rows: [N, D].
      centers, radius: of the balls, [M, D] and [M]; a ball includes its border.
    """
    by_row, by_ball = [], np.zeros(len(centers), int)
    for distances in _distances(rows, centers):
        inside = distances <= radius
        by_row.append(inside.sum(1))
        by_ball += inside.sum(0)
    return np.concatenate(by_row), by_ball


def _distances(rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Euclidean distances [n, M] of blocks of the rows to all others.

    `cdist` squares differences, so that equal rows have distance 0 and equal distances stay equal. Expanding the square
    into matrix products would round them apart.
    """
    from scipy.spatial.distance import cdist

    for start in range(0, len(rows), BLOCK):
        yield cdist(rows[start : start + BLOCK].astype(np.float64), others.astype(np.float64))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of the Gaussians with the moments of two samples [N, D] and [M, D].

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) with means m and covariances C (Dowson and Landau, 1982). It is not called
    FID, because that name belongs to the features of one published network. It is biased upward at few rows, equally at
    equal numbers.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    covariance, fake_covariance = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (real, fake))
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C C' has the eigenvalues of the symmetric matrix root C' root
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ fake_covariance @ root), 0)).sum()
    distance = np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(covariance) + np.trace(fake_covariance)
    return float(max(distance - 2 * shared, 0.0))


def mixture(codes: np.ndarray) -> Any:
    """scikit-learn's `GaussianMixture` of 10 components with full covariances, fitted to codes [N, L].

    EM starts from k-means. The variances get a ridge of 1e-6 of the mean variance of the codes.

    Raises:
      ValueError: all codes are equal.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    codes = subset(codes, CODES, SEED).astype(np.float64)
    ridge, different = 1e-6 * codes.var(0).mean(), len(np.unique(codes, axis=0))
    if different < 2 or ridge == 0:
        raise ValueError("all codes are equal")
    fitted = GaussianMixture(min(COMPONENTS, different), reg_covar=ridge, random_state=SEED)
    # one thread, because several would wait for each other longer than they work
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are enough for a density
        return fitted.fit(codes)


def drawn(subject: Subject, number: int) -> np.ndarray:
    """Samples of a model, [number, ...]: its own, or decoded draws from a density that is fitted to its training codes.

    The density of a model that only encodes and decodes is the `mixture` (ex-post density estimation: Ghosh et al.
    2020). Conditional models get labels as they occur in the training rows. A sample is E[x | z]; for a binary
    likelihood it is a grey image, although rows are 0 and 1.

    Raises:
      ValueError: the codes are not finite or all equal.
    """
    model = subject.model
    if able(model, Samples):
        return samples(subject, number)
    codes = subject.codes("train")
    if not np.isfinite(codes).all():
        raise ValueError("some codes are not finite")
    z = mixture(codes).sample(number)[0].astype(np.float32)
    inputs = {"z": z, "label": labels(subject, number, np.random.default_rng(subject.seed))}
    decode = lambda batch, _: batches.decode(model, subject.params, batch["z"], batch["label"])
    return batches.over(decode, inputs, BATCH)


def study(subject: Subject, findings: Findings) -> None:
    """Add scores of samples against equally many test rows, and of training rows (`baseline/real_vs_real/...`).

    Rows are compared by the features of the `Classifier` that is trained on the training rows. It has seen no test row;
    `sampling_classifier_accuracy` on all test rows tells how good its features are.
    """
    recipe, train, test = subject.recipe, subject.train, subject.test
    if not recipe.sampling:
        return
    size = min(recipe.sampling_rows or len(test), len(train), len(test))
    reason, fake = _impossible(subject), np.zeros(0)
    try:
        fake = fake if reason else drawn(subject, size)
    except ValueError as error:
        reason = str(error)
    if not np.isfinite(fake).all():
        reason = "some samples are not finite"
    if reason:
        findings.refuse(reason, *(f"test/{name}" for name in NAMES))
        return
    judge = subject.once(("sampling", size), lambda: referee(train, test, subject.facts, size))
    findings.add(scores(judge.real, judge.features(fake)), "test/")
    findings.add({"test/sampling_classifier_accuracy": judge.accuracy})
    if recipe.baselines:
        of_training = lambda: scores(judge.real, judge.features(subset(np.asarray(train.x), size, SEED)))
        findings.add(subject.once(("sampling real_vs_real", size), of_training), "baseline/real_vs_real/")


def _impossible(subject: Subject) -> str:
    """Why there are no such scores; empty if there are."""
    model, train, test = subject.model, subject.train, subject.test
    if subject.facts.kind == "sequence":
        return "samples of sequences are scored by evaluation.generation"
    if not able(model, Samples) and not subject.reconstructs:
        return "this model neither samples nor decodes codes"
    if train.mask is not None or test.mask is not None:
        return MASKED
    if train.label is None or test.label is None or len(np.unique(np.asarray(train.label))) < 2:
        return "the training rows have no labels of two classes or more to train a classifier on"
    if min(len(train), len(test)) < FEWEST:
        return f"fewer than {FEWEST} rows"
    return ""
