"""How well clusters of codes agree with classes, and how many clusters there are."""

import contextlib
import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from research.evaluation.baselines import PADDED, RESAMPLED, encoded, fitted_components, whole_rows
from research.evaluation.codes import threads
from research.evaluation.subject import Findings, Subject
from research.tree import ConfigError

ROWS = 5000  # most rows that a silhouette is computed of: it takes the square of their number
AGREEMENT = ("ari", "nmi", "rand_index", "cluster_accuracy")  # scores that need classes
SUBSAMPLES, SHARE = 8, 0.5  # of a stability: how many subsamples, and which share of the rows each has
TIE = 0.02  # stabilities that differ by at most this are equal


def kmeans(codes: np.ndarray, clusters: int, starts: int, seed: int) -> np.ndarray:
    """Assignments [N], 0 to K - 1, of codes [N, L] by the k-means of `centres_of`."""
    return centres_of(codes, clusters, starts, seed)[1]


def centres_of(codes: np.ndarray, clusters: int, starts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K, L] and assignments [N] of scikit-learn's k-means (k-means++, Lloyd) on codes [N, L].

    If there are fewer distinct codes than clusters, some clusters stay empty.

    Args:
      codes: [N, L].
      clusters: K.
      starts: the best of so many starts is kept.
      seed: of the starts.

    Raises:
      ConfigError: there are fewer rows than clusters, or some codes are not finite.
    """
    if not 1 <= clusters <= len(codes):
        raise ConfigError("clusters", clusters, f"expected 1 to {len(codes)} (the number of rows)")
    if not np.isfinite(codes).all():
        raise ConfigError("clusters", clusters, "some codes are not finite; leave the clusters out to see which")
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means: Any = KMeans
    with threads(len(codes)), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of too few distinct codes, which the assignments show
        fitted = means(clusters, n_init=starts, random_state=seed).fit(codes)
    return fitted.cluster_centers_, fitted.labels_


def nearest_centre(codes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The number of the nearest of centres [K, L] for every code [N, L], [N]."""
    squares = np.square(centres.astype(np.float64)).sum(-1)
    return np.argmin(squares - 2 * codes.astype(np.float64) @ centres.astype(np.float64).T, axis=1)


def cluster_scores(
    assignments: np.ndarray, label: np.ndarray | None, codes: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores of one clustering.

    `ari`: adjusted Rand index (Hubert & Arabie 1985), at most 1, 0 on average for random assignments.
    `nmi`: mutual information over the arithmetic mean of the entropies, 0 to 1.
    `rand_index`: share of the pairs of rows on which clusters and classes agree, 0 to 1.
    `cluster_accuracy`: share of the rows whose cluster is matched to their class by the best one-to-one matching.
    `silhouette`: mean over rows of (b - a) / max(a, b), where a and b are the mean distances to the row's own and to
      the next cluster (Rousseeuw 1987), -1 to 1; of 5,000 rows drawn at random where there are more.

    A clustering that puts several classes into one cluster has failed: its `ari` and `nmi` are 0.

    Args:
      assignments: [N] integers.
      label: classes [N], integers; None leaves out all scores but the silhouette.
      codes: [N, L].

    Returns:
      The scores, and for scores that do not exist the reason: name -> text.
    """
    scores, reasons = {}, {}
    if label is not None:
        if len(np.unique(label)) < 2:
            reasons |= dict.fromkeys(AGREEMENT, "one class only")
        else:
            scores |= _agreement(assignments, label)
    try:
        scores["silhouette"] = silhouette(assignments, codes)
    except ValueError as error:
        reasons["silhouette"] = str(error)
    return scores, reasons


def _agreement(assignments: np.ndarray, label: np.ndarray) -> dict[str, float]:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, rand_score
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(label, assignments)
    return {
        "ari": float(adjusted_rand_score(label, assignments)),
        "nmi": float(normalized_mutual_info_score(label, assignments)),
        "rand_index": float(rand_score(label, assignments)),
        "cluster_accuracy": float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(label)),
    }


def silhouette(assignments: np.ndarray, codes: np.ndarray) -> float:
    """Mean silhouette of codes [N, L] under assignments [N]; see `cluster_scores`.

    Raises:
      ValueError: some codes are not finite, there are fewer than two clusters, or every row is a cluster.
    """
    from sklearn.metrics import silhouette_score

    if not np.isfinite(codes).all():
        raise ValueError("some codes are not finite")
    if len(codes) > ROWS:
        rows = np.random.default_rng(0).choice(len(codes), ROWS, replace=False)
        assignments, codes = assignments[rows], codes[rows]
    clusters = len(np.unique(assignments))
    if clusters < 2:
        raise ValueError("fewer than two clusters")
    if clusters == len(codes):
        raise ValueError("every row is a cluster of its own")
    with threads(len(codes)):
        return float(silhouette_score(codes.astype(np.float64), assignments))


def choose_clusters(
    codes: np.ndarray, candidates: Sequence[int], by: Literal["silhouette", "stability"], starts: int, seed: int
) -> tuple[int, dict[int, float]]:
    """Choose the number of clusters of codes [N, L] without labels.

    By silhouette, it is the number with the largest silhouette. By stability, it is the largest number whose stability
    is within .02 of the best: smaller numbers are stable too where whole clusters merge (Ben-Hur, Elisseeff & Guyon
    2002 look for the step from stable to unstable).

    Args:
      codes: [N, L].
      candidates: numbers to choose from, at least 2.
      by: the score to choose by.
      starts: of every k-means.
      seed: of all draws.

    Returns:
      The number, and the score of every candidate.

    Raises:
      ConfigError: a candidate is larger than the number of rows, or than half of it for a stability.
    """
    if by == "stability":
        scores = {clusters: stability(codes, clusters, starts, seed) for clusters in candidates}
        best = max(scores.values())
        return max(clusters for clusters, score in scores.items() if score >= best - TIE), scores
    scores = {}
    for clusters in candidates:
        try:
            scores[clusters] = silhouette(kmeans(codes, clusters, starts, seed), codes)
        except ConfigError:
            raise
        except ValueError:  # all codes are equal, or every row is a cluster
            scores[clusters] = -1.0
    return max(scores, key=lambda clusters: scores[clusters]), scores


def stability(codes: np.ndarray, clusters: int, starts: int, seed: int) -> float:
    """How much clusters of codes [N, L] stay the same when rows are left out, at most 1.

    stability(k) = mean over all pairs (i, j) of 8 random halves of the rows of ARI(c_i, c_j). c_i is the k-means of
    half i alone, and the index is computed on the rows that both halves have (Ben-Hur, Elisseeff & Guyon 2002). A plain
    distance between clusterings is smaller at fewer clusters only because random labels agree more often. The adjusted
    index subtracts the agreement of random labels, which is the normalisation of Lange et al. 2004 (von Luxburg 2010,
    "Clustering stability: an overview").
    """
    from sklearn.metrics import adjusted_rand_score

    generator = np.random.default_rng([seed, clusters])
    assigned = np.full((SUBSAMPLES, len(codes)), -1)  # -1: the row is not in the subsample
    for number in range(SUBSAMPLES):
        rows = generator.choice(len(codes), int(SHARE * len(codes)), replace=False)
        assigned[number, rows] = kmeans(codes[rows], clusters, starts, seed + number)
    agreements = []
    for first, second in itertools.combinations(assigned, 2):
        both = (first >= 0) & (second >= 0)
        agreements.append(adjusted_rand_score(first[both], second[both]))
    return float(np.mean(agreements))


def _cluster(subject: Subject, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, dict[str, float], dict]:
    """Cluster test rows [N, D]; their number is that of the classes, or is chosen on the training rows.

    Returns:
      The centres [K, D], and what `cluster_scores` returns.
    """
    recipe, clusters = subject.recipe, subject.facts.classes
    if recipe.clustering in ("silhouette", "stability"):
        low, high = recipe.cluster_range
        sample = train if len(train) <= ROWS else np.random.default_rng(0).permutation(train)[:ROWS]
        clusters, _ = choose_clusters(sample, range(low, high + 1), recipe.clustering, recipe.cluster_starts, 0)
    centres, assigned = centres_of(test, clusters, recipe.cluster_starts, subject.seed)
    label = None if subject.test.label is None else np.asarray(subject.test.label)
    return centres, *cluster_scores(assigned, label, test)


def study(subject: Subject, findings: Findings) -> None:
    """Add scores of the clusters of the test codes, and of two baselines.

    `validation/silhouette` is there to choose a latent size by, without labels.
    """
    recipe = subject.recipe
    codes = {part: subject.codes(part) for part in subject.parts}
    if not all(np.isfinite(array).all() for array in codes.values()):
        findings.refuse("some codes are not finite", "test/ari", "test/nmi", "test/silhouette")
        return
    centres, scores, reasons = _cluster(subject, codes["train"], codes["test"])
    findings.centres = centres
    findings.add({"clusters": len(centres), **scores}, "test/")
    for name, reason in reasons.items():
        findings.refuse(reason, f"test/{name}")
    if 2 <= len(centres) < len(codes["validation"]):
        assigned = kmeans(codes["validation"], len(centres), recipe.cluster_starts, subject.seed)
        with contextlib.suppress(ValueError):
            findings.add({"validation/silhouette": silhouette(assigned, codes["validation"])})
    if recipe.baselines:
        _study_baselines(subject, findings, codes["test"].shape[1], tuple(scores))


def _study_baselines(subject: Subject, findings: Findings, size: int, names: Sequence[str]) -> None:
    """Add scores of k-means on raw rows and on as many principal components as the model has latents.

    Rows of unequal length are clustered twice, padded with their last value and resampled, each under a name of its
    own: which of the two is better is known from test labels only. `names` are those of the scores.
    """
    recipe = subject.recipe
    settings = (recipe.clustering, recipe.cluster_range, recipe.cluster_starts, subject.seed)
    parts = [subject.parts[part] for part in ("train", "test")]

    def raw(prefix: str) -> list[np.ndarray]:
        """Training and test rows; they are copies, so they are made only if no other run on these data made them."""
        return [whole_rows(part)[prefix].astype(np.float64) for part in parts]

    def reduced(prefix: str) -> list[np.ndarray]:
        rows = raw(prefix) if subject.train.masked else [part.x for part in parts]
        fitted = fitted_components(subject, prefix)
        return [encoded(fitted, x, size) for x in rows]

    methods = {"raw_kmeans": (raw, ()), "pca_kmeans": (reduced, (size,))}
    for prefix in (PADDED, RESAMPLED) if subject.test.length is not None else ("",):
        for method, (rows, key) in methods.items():
            name = f"{prefix}{method}"
            compute = lambda rows=rows, prefix=prefix: _cluster(subject, *rows(prefix))[1]
            try:
                findings.add(subject.once((name, *key, *settings), compute), f"baseline/{name}/")
            except ValueError as error:
                findings.refuse(str(error), *(f"baseline/{name}/{score}" for score in names))
