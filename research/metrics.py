"""Names and directions of metrics: what every table, monitor and curve agrees on."""

from typing import Literal

HIGHER_IS_BETTER = frozenset(
    {
        *("elbo_nats", "iwae_nats", "active_units", "probe_accuracy", "knn_accuracy"),
        *("accuracy", "auroc", "precision", "recall"),
        *("ari", "nmi", "rand_index", "cluster_accuracy", "silhouette"),
        *("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap", "modularity"),
        *("factor_vae_score", "beta_vae_score"),
        *("sample_precision", "sample_recall", "coverage"),
    }
)
UNDIRECTED = frozenset(
    {
        *("kl_nats", "shuffled_nats", "collapsed"),  # kl_nats of a collapsed model is 0
        *("gradient_reach", "gradient_reach_at_start", "gradient_penalty"),
        *("nll_standard_error", "nll_effective_samples", "classifier_null", "classifier_p_value"),  # of another metric
        *("mutual_information_nats", "total_correlation"),  # both are 0 of a code that says nothing
        *("discriminator_loss", "generator_loss", "real_value", "fake_value", "discriminator_accuracy"),  # of a game
        *("penalty", "commitment", "codebook_perplexity", "codebook_used"),  # parts of a loss, and of a codebook
        *("diversity", "memorization", "clusters", "density"),  # right at 1, at .5, at the true number and at 1
        "sampling_classifier_accuracy",  # of the judge
    }
)


def base(name: str) -> str:
    """The metric without its part: `test/loss` -> `loss`."""
    return name.rpartition("/")[2]


def direction(name: str) -> Literal["lower", "higher", ""]:
    """Which values of a metric are better, by its base name; lower ones of losses, errors and unknown metrics."""
    if base(name) in UNDIRECTED:
        return ""
    return "higher" if base(name) in HIGHER_IS_BETTER else "lower"


def higher_is_better(name: str) -> bool:
    """Whether higher values of a metric are better; False if lower ones are, or neither."""
    return direction(name) == "higher"
