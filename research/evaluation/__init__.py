"""What is computed after training: one file for each question, each with a function `study(subject, findings)`."""

from research.evaluation import (
    anomaly,
    baselines,
    clustering,
    codes,
    disentanglement,
    forecasting,
    generation,
    information,
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

# Every study returns without a metric if its question makes no sense for the model or the data.
STUDIES = (
    likelihood.study,
    codes.study,
    baselines.study,
    usage.study,
    information.study,
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
    """Evaluate one trained model; what it can do decides which metrics and pictures there are."""
    findings = Findings()
    for study in STUDIES:
        study(subject, findings)
    return findings
