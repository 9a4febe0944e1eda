"""What is computed after training: one file for each question, and the table of all questions."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from research.data.examples import Examples
from research.evaluation import (
    anomaly,
    baselines,
    clustering,
    codes,
    disentanglement,
    forecasting,
    generation,
    imputation,
    intervals,
    likelihood,
    maps,
    memory,
    pictures,
    prediction,
    sampling,
    units,
)
from research.evaluation.recipe import Evaluation
from research.evaluation.subject import Findings, Subject
from research.models.abilities import (
    Decodes,
    Encodes,
    Forecasts,
    HasPosterior,
    Predicts,
    Quantizes,
    Reconstructs,
    Samples,
    ScoresCodes,
    StateGradients,
    WeighsSamples,
    able,
)

__all__ = ["Evaluation", "Findings", "Study", "Subject", "evaluate_run"]


class Study(NamedTuple):
    """One question about a trained model, and when it is asked.

    Attributes:
      study: answers the question: it adds metrics, curves and pictures to the findings.
      keys: of the recipe. The question is asked if one of them asks for it; without keys it is always asked.
      abilities: the model must have all of them.
      fits: whether the question makes sense for these data and for the settings of this model.
    """

    study: Callable[[Subject, Findings], None]
    keys: tuple[str, ...]
    abilities: tuple[type, ...] = ()
    fits: Callable[[Subject], bool] = lambda subject: True

    def applies(self, subject: Subject) -> bool:
        """Whether the recipe asks this question, and the model and the data allow it."""
        asked = not self.keys or any(getattr(subject.recipe, key) not in (None, False, "none") for key in self.keys)
        return asked and all(able(subject.model, ability) for ability in self.abilities) and self.fits(subject)


def has_factors(test: Examples) -> bool:
    """Whether rows have known factors that are classes, of which at least two vary."""
    if test.factors is None:
        return False
    factors = np.asarray(test.factors)
    return factors.ndim == 2 and factors.dtype.kind in "iu" and (factors != factors[:1]).any(0).sum() > 1


def only_samples(subject: Subject) -> bool:
    """Whether samples of sequences are all that says how good the model is, and `generation` does not score them."""
    return subject.facts.kind == "sequence" and not able(subject.model, Encodes) and not subject.recipe.generation


CODES = (Encodes, Decodes)  # of models that encode and decode whole examples
STUDIES = (
    Study(likelihood.study, ("nll_samples",), (WeighsSamples,)),
    Study(likelihood.study_redraws, ("binarizations",)),
    Study(codes.study_active_units, ("active_units",), (*CODES, HasPosterior)),
    Study(codes.study_probes, ("probes",), CODES, codes.has_classes),
    Study(codes.study_projector, ("projector",), CODES),
    Study(baselines.study, ("baselines",), CODES),
    Study(codes.study_posterior, ("usage",), (HasPosterior, ScoresCodes)),
    Study(codes.study_codebook, ("usage",), (Quantizes,)),
    Study(codes.study_information, ("disentanglement",), (HasPosterior,)),
    Study(disentanglement.study, ("disentanglement",), (Encodes,), lambda subject: has_factors(subject.test)),
    Study(clustering.study, ("clustering",), (Encodes,)),
    Study(anomaly.study, ("anomaly_share",), CODES, lambda subject: subject.facts.anomaly),
    Study(prediction.study, ("baselines",), (Predicts,)),
    Study(prediction.study_steps, (), (Predicts,), prediction.unequal_steps),
    Study(forecasting.study, ("forecasts",), (Forecasts,)),
    Study(intervals.study, ("forecasts", "conformal"), (Forecasts,)),
    Study(imputation.study, (), (Reconstructs,), imputation.has_hidden),
    Study(generation.study, ("generation",), (Samples,), lambda subject: subject.facts.kind == "sequence"),
    Study(generation.study_distances, ("distances",), (Samples,), only_samples),
    Study(sampling.study, ("sampling",)),
    Study(memory.study, ("gradients",), (Predicts, StateGradients), lambda subject: not subject.model.stepwise),
    Study(units.study, ("baselines",), (), lambda subject: not subject.binary),
    Study(pictures.study, ("pictures", "projector")),
    Study(maps.study, ("map",), (Encodes,)),
)


def evaluate_run(subject: Subject) -> Findings:
    """Evaluate one trained model; what it can do decides which metrics and pictures there are."""
    findings = Findings()
    for study in STUDIES:
        if study.applies(subject):
            study.study(subject, findings)
    return findings
