"""What is computed after training, on the host; one file a question, each with a `study`."""

from research.evaluation import (
    anomaly,
    baselines,
    clustering,
    codes,
    disentanglement,
    forecasting,
    generation,
    likelihood,
    memory,
    pictures,
    prediction,
    sampling,
    units,
    usage,
)
from research.evaluation.recipe import Evaluation
from research.evaluation.subject import Findings, Shared, Subject

__all__ = ["Evaluation", "Findings", "Shared", "Subject", "evaluate_run"]

# every study looks itself whether the model and the data are such that its question makes sense
STUDIES = (
    likelihood.study,
    codes.study,
    baselines.study,
    usage.study,
    disentanglement.study,
    clustering.study,
    anomaly.study,
    prediction.study,
    forecasting.study,
    generation.study,
    sampling.study,
    memory.study,
    units.study,
    pictures.study,
)


def evaluate_run(subject: Subject) -> Findings:
    """Evaluate one trained model; which metrics and pictures there are follows from what the model can do."""
    findings = Findings()
    for study in STUDIES:
        study(subject, findings)
    return findings
