import numpy as np
import pytest

from research.evaluation import anomaly, baselines


def test_area_counts_pairs_and_halves_ties():
    score, anomalous = np.array([1.0, 2.0, 2.0, 3.0, 0.5]), np.array([0, 1, 0, 1, 0])
    # anomalous 2: above 1 and .5, level with 2; anomalous 3: above all three
    assert anomaly.auroc(score, anomalous) == pytest.approx((2.5 + 3) / 6)
    assert anomaly.auroc(-score, anomalous.astype(bool)) == pytest.approx(1 - 5.5 / 6)


def test_average_precision_counts_the_precision_at_every_anomalous_row():
    """From the highest score: anomalous, normal, anomalous, normal, so (1 / 1 + 2 / 3) / 2."""
    score, anomalous = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0])
    assert anomaly.auprc(score, anomalous) == pytest.approx((1 + 2 / 3) / 2)
    assert anomaly.auprc(-score, anomalous) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert anomaly.auprc(np.ones(8), np.arange(8) < 2) == pytest.approx(2 / 8)  # scores that say nothing
    # two rows share the second score: both raise an alarm at once, with the precision 2 / 3
    assert anomaly.auprc(np.array([3.0, 2.0, 2.0, 1.0]), anomalous) == pytest.approx(1 / 2 + 2 / 3 / 2)
    with pytest.raises(ValueError, match="no anomalous rows"):
        anomaly.auprc(score, np.zeros(4))


def test_the_distance_to_the_k_th_neighbour():
    train, x = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([[0.0], [5.0]])
    assert anomaly.neighbor_distance(train, x, 1).tolist() == [0, 2]
    assert anomaly.neighbor_distance(train, x, 3).tolist() == [3, 4]
    rows = train.reshape(4, 1, 1)  # a sequence of one step
    assert anomaly.neighbor_distance(rows, rows, 2).tolist() == [1, 1, 2, 4]
    with pytest.raises(ValueError, match="only 4 training rows"):
        anomaly.neighbor_distance(train, x, 5)


def test_two_normal_distributions_overlap_as_computed():
    """AUROC of N(0, 1) against N(d, 1) is Phi(d / sqrt 2): .7602 for d = 1."""
    generator = np.random.default_rng(0)
    anomalous = np.arange(40_000) % 2 == 1
    score = generator.normal(size=40_000) + anomalous
    assert anomaly.auroc(score, anomalous) == pytest.approx(0.7602, abs=0.01)


def test_area_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no anomalous rows"):
        anomaly.auroc(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="no normal rows"):
        anomaly.auroc(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        anomaly.auroc(np.array([1.0, np.inf]), np.array([0, 1]))
    with pytest.raises(ValueError, match="no scores"):
        anomaly.auroc(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="no validation scores"):
        anomaly.threshold(np.zeros(0), 0.95)


def test_threshold_keeps_the_share_of_validation_rows():
    score = np.random.default_rng(0).permutation(100).astype(float)
    assert anomaly.threshold(score, 0.95) == 94
    assert (score > anomaly.threshold(score, 0.95)).sum() == 5
    assert anomaly.threshold(score, 1.0) == 99
    assert anomaly.threshold(np.array([1.0, 1.0, 1.0]), 0.5) == 1


def test_rates_at_a_threshold():
    score = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    anomalous = np.array([0, 0, 1, 0, 1, 1])
    found = anomaly.rates(score, anomalous, 2.0)  # calls 3, 4, 5; the level itself is not called
    assert found == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "false_positive_rate": pytest.approx(1 / 3),
    }
    found = anomaly.rates(score, anomalous, 9.0)
    assert np.isnan(found["precision"])
    assert found["recall"] == found["false_positive_rate"] == 0
    assert np.isnan(anomaly.rates(score, np.zeros(6), 2.0)["recall"])


def test_scores_that_need_no_training():
    """Normal sequences lie on a line through their mean: its residual finds what leaves the line, the mean only what
    is far away."""
    generator = np.random.default_rng(0)
    shape = np.sin(np.arange(12.0)).reshape(6, 2)
    train = (3 + generator.normal(size=(200, 1, 1)) * shape).astype(np.float32)
    fitted = baselines.components(train)
    odd = train[:50] + 0.1 * generator.normal(size=(50, 6, 2)).astype(np.float32)
    x, anomalous = np.concatenate([train[50:100], odd]), np.arange(100) >= 50
    assert anomaly.auroc(anomaly.residual(fitted, x, 1), anomalous) == 1
    assert anomaly.auroc(anomaly.residual(fitted, x, 0), anomalous) < 0.7
    for size in (0, 1):
        expected = baselines.reconstruction_error(fitted, x, size)
        assert anomaly.residual(fitted, x, size).mean() == pytest.approx(expected)
    with pytest.raises(ValueError, match="only 12 principal components"):
        anomaly.residual(fitted, x, 13)
