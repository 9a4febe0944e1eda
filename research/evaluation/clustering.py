"""How well the clusters of codes agree with classes, and how many clusters there are."""

import contextlib
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from research.evaluation.baselines import fitted_components
from research.evaluation.subject import Findings, Subject
from research.evaluation.unequal import PADDED, RESAMPLED, whole_rows
from research.models.abilities import Encodes, able
from research.runs.clusters import centres_of, kmeans, threads
from research.tree import ConfigError

ROWS = 5000  # most rows that a silhouette is of: it takes the square of their number
PARTS = ("train", "test")
SUBSAMPLES, SHARE = 8, 0.5  # of a stability: how many, and which share of the rows each has
TIE = 0.02  # stabilities that differ by less are equal


def cluster_scores(
    assignments: np.ndarray, label: np.ndarray | None, codes: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores of one clustering.

    `ari`: adjusted Rand index (Hubert & Arabie 1985), at most 1, 0 on average for random assignments.
    `nmi`: mutual information over the arithmetic mean of the entropies, 0 to 1.
    `rand_index`: share of the pairs of rows on which clusters and classes agree, 0 to 1.
    `cluster_accuracy`: share of the rows whose cluster is matched to their class by the best one-to-one matching.
    `silhouette`: mean over rows of (b - a) / max(a, b) with a, b the mean distances to the row's own and to the next
      cluster (Rousseeuw 1987), -1 to 1; of 5,000 rows drawn at random where there are more.

    One cluster only, of several classes, is a failure and has its score: 0 for `ari` and `nmi`.

    Args:
      assignments: [N] integers.
      label: classes [N], integers; None leaves out all but the silhouette.
      codes: [N, L].

    Returns:
      Scores, and for scores that do not exist here the reason: name -> text.
    """
    scores, reasons = {}, {}
    if label is not None:
        names = ("ari", "nmi", "rand_index", "cluster_accuracy")
        if len(np.unique(label)) < 2:
            reasons |= dict.fromkeys(names, "one class only")
        else:
            scores |= dict(zip(names, _agreement(assignments, label), strict=True))
    try:
        scores["silhouette"] = silhouette(assignments, codes)
    except ValueError as error:
        reasons["silhouette"] = str(error)
    return scores, reasons


def _agreement(assignments: np.ndarray, label: np.ndarray) -> tuple[float, float, float, float]:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, rand_score
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(label, assignments)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    scores = adjusted_rand_score, normalized_mutual_info_score, rand_score
    ari, nmi, rand = (float(score(label, assignments)) for score in scores)
    return ari, nmi, rand, float(matched / len(label))


def silhouette(assignments: np.ndarray, codes: np.ndarray) -> float:
    """Mean silhouette of codes [N, L] under assignments [N]; see `cluster_scores`.

    Raises:
      ValueError: there is none: codes that are not finite, fewer than two clusters, or a cluster for every row.
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
    """The number of clusters of codes [N, L], found without labels.

    By silhouette: the number with the largest. By stability: the largest number whose stability is within .02 of the
    best: smaller numbers are stable too where whole clusters merge (Ben-Hur, Elisseeff & Guyon 2002 look for the step
    from stable to unstable).

    Args:
      candidates: numbers to choose from, at least 2.
      starts: of every k-means.
      seed: of all draws.

    Returns:
      The number, and the score of every candidate.

    Raises:
      ConfigError: no candidates, or one that these rows cannot have.
    """
    most = len(codes) - 1 if by == "silhouette" else int(SHARE * len(codes)) - 1
    if not candidates:
        raise ConfigError("clusters", list(candidates), "there is no number of clusters to choose from")
    for clusters in candidates:
        if not 2 <= clusters <= most:
            raise ConfigError("clusters", clusters, f"expected 2 to {most} (of {len(codes)} rows, by {by})")
    if by == "stability":
        scores = {clusters: stability(codes, clusters, starts, seed) for clusters in candidates}
        best = max(scores.values())
        return max(clusters for clusters, score in scores.items() if score >= best - TIE), scores
    scores = {}
    for clusters in candidates:
        try:
            scores[clusters] = silhouette(kmeans(codes, clusters, starts, seed), codes)
        except ValueError:  # all codes are equal
            scores[clusters] = -1.0
    return max(scores, key=lambda clusters: scores[clusters]), scores


def stability(codes: np.ndarray, clusters: int, starts: int, seed: int) -> float:
    """How much the clusters of codes [N, L] stay the same when rows are left out, at most 1.

    stability(k) = mean over all pairs (i, j) of 8 random halves of the rows of ARI(c_i, c_j), where c_i is
    the k-means of half i alone and the index is of the rows that both have (Ben-Hur, Elisseeff & Guyon 2002).
    A plain distance of clusterings falls with fewer clusters for no other reason than that random labels agree more
    often; the adjusted index takes the agreement of random labels away, which is the normalisation of Lange et al. 2004
    (von Luxburg 2010, "Clustering stability: an overview").
    """
    from sklearn.metrics import adjusted_rand_score

    generator = np.random.default_rng([seed, clusters])
    found = np.full((SUBSAMPLES, len(codes)), -1)
    for number in range(SUBSAMPLES):
        rows = generator.choice(len(codes), int(SHARE * len(codes)), replace=False)
        found[number, rows] = kmeans(codes[rows], clusters, starts, seed + number)
    agreements = []
    for one, other in itertools.combinations(found, 2):
        both = (one >= 0) & (other >= 0)
        agreements.append(adjusted_rand_score(one[both], other[both]))
    return float(np.mean(agreements))


def study(subject: Subject, findings: Findings) -> None:
    """Clusters of the codes of the test rows, of the raw rows, and of their principal components at the same size.

    Raw rows of unequal length are clustered twice, padded with their last value and resampled, under a name each:
    which is better is known from test labels only.
    """
    recipe, facts = subject.recipe, subject.facts
    if recipe.clustering == "none" or not able(subject.model, Encodes):
        return
    codes = {part: subject.codes(part) for part in subject.parts}
    if not all(np.isfinite(array).all() for array in codes.values()):
        findings.refuse("some codes are not finite", "test/ari", "test/nmi", "test/silhouette")
        return
    label = None if subject.test.label is None else np.asarray(subject.test.label)

    def score(train: np.ndarray, test: np.ndarray) -> tuple[int, dict[str, float], dict[str, str], np.ndarray]:
        clusters = facts.classes
        if recipe.clustering != "classes":
            low, high = recipe.cluster_range
            some = train if len(train) <= ROWS else np.random.default_rng(0).permutation(train)[:ROWS]
            assert recipe.clustering != "none"
            clusters, _ = choose_clusters(some, range(low, high + 1), recipe.clustering, recipe.cluster_starts, 0)
        centres, assigned = centres_of(test, clusters, recipe.cluster_starts, subject.seed)
        return clusters, *cluster_scores(assigned, label, test), centres

    clusters, scores, reasons, findings.centres = score(codes["train"], codes["test"])
    findings.add({"clusters": clusters, **scores}, "test/")
    for name, reason in reasons.items():
        findings.refuse(reason, f"test/{name}")
    if 2 <= clusters < len(codes["validation"]):  # to choose a latent size by, without labels
        own = kmeans(codes["validation"], clusters, recipe.cluster_starts, subject.seed)
        with contextlib.suppress(ValueError):
            findings.add({"validation/silhouette": silhouette(own, codes["validation"])})
    if not recipe.baselines:
        return
    settings = (recipe.clustering, recipe.cluster_range, recipe.cluster_starts, subject.seed)

    prefixes = (PADDED, RESAMPLED) if subject.test.length is not None else ("",)

    def rows(prefix: str) -> list[np.ndarray]:  # whole copies: only where no other run on these data has made them
        return [whole_rows(subject.parts[part])[prefix].astype(np.float64) for part in PARTS]

    size = codes["test"].shape[1]
    for prefix in prefixes:
        raw = (f"{prefix}raw_kmeans", *settings)
        _, found, *_ = subject.once(raw, lambda prefix=prefix: score(*rows(prefix)))
        findings.add(found, f"baseline/{prefix}raw_kmeans/")
        try:
            fitted = fitted_components(subject, prefix)
        except ValueError as error:
            findings.refuse(str(error), *(f"baseline/{prefix}pca_kmeans/{name}" for name in found))
            continue
        if size <= fitted.directions.shape[1]:
            reduced = lambda prefix=prefix, fitted=fitted: score(*(fitted.encode(x, size) for x in rows(prefix)))
            _, found, *_ = subject.once((f"{prefix}pca_kmeans", size, *settings), reduced)
            findings.add(found, f"baseline/{prefix}pca_kmeans/")
