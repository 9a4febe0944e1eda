"""Names and directions of metrics: what every table, monitor and curve agrees on."""

HIGHER_IS_BETTER = frozenset(
    {"elbo_nats", "iwae_nats", "active_units", "probe_accuracy", "knn_accuracy", "accuracy", "auroc", "ari", "nmi"}
)


def base(name: str) -> str:
    """The metric without its part: `test/loss` -> `loss`."""
    return name.rpartition("/")[2]


def higher_is_better(name: str) -> bool:
    """Direction of a metric by its base name; losses and errors are lower-is-better."""
    return base(name) in HIGHER_IS_BETTER
