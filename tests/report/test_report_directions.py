import pytest

from research.metrics import direction, higher_is_better

HIGHER = """
    accuracy cluster_accuracy ari nmi rand_index silhouette auroc auprc precision recall
    elbo_nats iwae_nats probe_accuracy knn_accuracy
"""
LOWER = """
    loss mse mae smape mase cross_entropy discriminative_score predictive_score classifier_score false_positive_rate
    reconstruction_mse nll_nats
"""
NEITHER = """
    kl_nats real_value fake_value diversity memorization clusters collapsed discriminator_accuracy generator_loss
    discriminator_loss shuffled_nats gradient_reach active_units codebook_used r2
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [(name, word) for names, word in ((HIGHER, "higher"), (LOWER, "lower"), (NEITHER, "")) for name in names.split()],
)
def test_every_metric_has_its_direction_on_every_part(name, expected):
    for part in ("train/", "validation/", "test/", "baseline/pca/", "reference/", ""):
        assert direction(part + name) == expected
        assert higher_is_better(part + name) == (expected == "higher")
