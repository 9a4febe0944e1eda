import warnings

import numpy as np
import pytest

from research.evaluation import clustering
from research.evaluation.clustering import choose_clusters, cluster_scores, kmeans, silhouette
from research.tree import ConfigError


def blobs(centers, rows=40, deviation=0.3):
    centers = np.asarray(centers, float)
    label = np.arange(rows * len(centers)) % len(centers)
    return centers[label] + deviation * np.random.default_rng(0).normal(size=(len(label), centers.shape[1])), label


SQUARE = [[0, 0], [0, 9], [9, 0], [9, 9]]


def test_scores_of_a_table_counted_by_hand():
    """Classes aaabbb, clusters 001111, all 15 pairs looked at."""
    label, found = np.array([0, 0, 0, 1, 1, 1]), np.array([5, 5, 7, 7, 7, 7])
    same_class, same_cluster = label[:, None] == label, found[:, None] == found
    above = np.triu_indices(6, 1)
    together = (same_class & same_cluster)[above].sum()  # 1 + 3 = 4
    classes, clusters = same_class[above].sum(), same_cluster[above].sum()  # 6 and 7
    assert (together, classes, clusters) == (4, 6, 7)
    scores, reasons = cluster_scores(found, label, np.arange(6.0)[:, None])
    expected = 6 * 7 / 15
    assert scores["ari"] == pytest.approx((4 - expected) / ((6 + 7) / 2 - expected))
    assert scores["rand_index"] == pytest.approx(10 / 15)  # 4 together in both, 15 - 6 - 7 + 4 apart in both
    assert scores["cluster_accuracy"] == pytest.approx(5 / 6)
    mutual = (2 * np.log(2) + np.log(6 / (3 * 4)) + 3 * np.log(3 * 6 / (3 * 4))) / 6
    entropies = np.log(2), -(np.log(1 / 3) / 3 + 2 * np.log(2 / 3) / 3)
    assert scores["nmi"] == pytest.approx(mutual / np.mean(entropies))
    assert not reasons


def test_silhouette_of_four_points():
    """Points 0, 1 | 4, 6: a = 1, 1, 2, 2 and b = 5, 4, 3.5, 5.5."""
    expected = np.mean([4 / 5, 3 / 4, 1.5 / 3.5, 3.5 / 5.5])
    codes = np.array([[0.0], [1.0], [4.0], [6.0]])
    assert silhouette(np.array([0, 0, 1, 1]), codes) == pytest.approx(expected)


def test_the_silhouette_of_many_rows_is_of_some(monkeypatch):
    codes, label = blobs(SQUARE, rows=200)
    whole = silhouette(label, codes)
    monkeypatch.setattr(clustering, "ROWS", 300)
    assert silhouette(label, codes) == pytest.approx(whole, abs=0.01)
    assert silhouette(label, codes) != whole


def test_matching_is_one_to_one_and_takes_other_numbers_of_clusters():
    label = np.repeat([0, 1, 2], 4)
    codes = np.arange(12.0)[:, None]
    assert cluster_scores((label + 1) % 3, label, codes)[0]["cluster_accuracy"] == 1
    assert cluster_scores(np.arange(12) // 2, label, codes)[0]["cluster_accuracy"] == pytest.approx(6 / 12)
    assert cluster_scores(np.minimum(label, 1), label, codes)[0]["cluster_accuracy"] == pytest.approx(8 / 12)


def test_a_collapsed_code_scores_nothing_and_what_does_not_exist_has_a_reason():
    label, codes = np.arange(10) % 2, np.ones((10, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = kmeans(codes, 3, starts=2, seed=0)
    scores, reasons = cluster_scores(found, label, codes)
    assert scores["ari"] == scores["nmi"] == 0
    assert scores["cluster_accuracy"] == 0.5
    assert reasons == {"silhouette": "fewer than two clusters"}
    scores, reasons = cluster_scores(np.arange(10), np.zeros(10, int), np.arange(10.0)[:, None])
    assert not scores
    assert reasons["ari"] == reasons["nmi"] == reasons["cluster_accuracy"] == "one class only"
    assert "own" in reasons["silhouette"]
    codes[3, 1] = np.nan
    assert cluster_scores(label, None, codes) == ({}, {"silhouette": "some codes are not finite"})


def test_kmeans_finds_blobs_and_repeats():
    codes, label = blobs(SQUARE)
    found = kmeans(codes, 4, starts=5, seed=0)
    assert cluster_scores(found, label, codes)[0]["ari"] == 1
    np.testing.assert_array_equal(found, kmeans(codes, 4, starts=5, seed=0))


@pytest.mark.parametrize("clusters", [0, 5])
def test_more_clusters_than_rows_are_refused(clusters):
    with pytest.raises(ConfigError, match=f"clusters={clusters}: expected 1 to 4"):
        kmeans(np.zeros((4, 2)), clusters, starts=1, seed=0)
    with pytest.raises(ConfigError, match="not finite"):
        kmeans(np.full((4, 2), np.nan), 2, starts=1, seed=0)


@pytest.mark.parametrize("by", ["silhouette", "stability"])
@pytest.mark.parametrize("centers", [SQUARE[:3], SQUARE, [*SQUARE, [4.5, 4.5]]], ids=len)
def test_the_number_of_clusters_is_found(by, centers):
    chosen, scores = choose_clusters(blobs(centers)[0], range(2, 8), by, starts=5, seed=0)
    assert chosen == len(centers)
    assert list(scores) == [2, 3, 4, 5, 6, 7]


def test_stable_merged_clusters_are_not_the_answer():
    """Two far pairs of near blobs: two clusters are perfectly stable, but so are four."""
    codes, _ = blobs([[0, 0], [0, 3], [30, 0], [30, 3]])
    chosen, scores = choose_clusters(codes, range(2, 8), "stability", starts=5, seed=0)
    assert scores[2] == scores[4] == 1
    assert chosen == 4
    assert choose_clusters(codes, range(2, 8), "silhouette", starts=5, seed=0)[0] == 2


def test_numbers_that_cannot_be_chosen_from_are_refused():
    codes = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ConfigError, match="clusters=11: expected 1 to 10"):
        choose_clusters(codes, [2, 11], "silhouette", starts=1, seed=0)
    with pytest.raises(ConfigError, match="clusters=6: expected 1 to 5"):
        choose_clusters(codes, [2, 6], "stability", starts=1, seed=0)
    assert choose_clusters(codes, [2, 10], "silhouette", starts=1, seed=0)[1][10] == -1  # every row is a cluster
    assert choose_clusters(np.zeros((10, 2)), [2, 3], "silhouette", starts=1, seed=0)[1] == {2: -1.0, 3: -1.0}
