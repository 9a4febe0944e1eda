"""Questions of the table: one alone, or all that the closed sets of these tests list."""

import dataclasses
from collections.abc import Callable

from research.evaluation import (
    STUDIES,
    Findings,
    Subject,
    anomaly,
    baselines,
    clustering,
    codes,
    disentanglement,
    evaluate_run,
    forecasting,
    generation,
    likelihood,
    memory,
    pictures,
    prediction,
    sampling,
    units,
)

LISTED = {  # tests list everything that these find; a question that joins the table has a test of its own
    *(likelihood.study, likelihood.study_redraws, codes.study_active_units, codes.study_probes, codes.study_projector),
    *(baselines.study, codes.study_posterior, codes.study_codebook, codes.study_information, disentanglement.study),
    *(clustering.study, anomaly.study, prediction.study, forecasting.study, generation.study, sampling.study),
    generation.study_distances,
    *(memory.study, units.study, pictures.study),
}


def ask(subject: Subject, *studies: Callable[[Subject, Findings], None]) -> Findings:
    """What these studies find, of those that apply."""
    findings = Findings()
    for row in STUDIES:
        if row.study in studies and row.applies(subject):
            row.study(subject, findings)
    return findings


def listed_findings(subject: Subject) -> Findings:
    """What a run finds, without what only questions outside `LISTED` find."""
    findings = evaluate_run(subject)
    others = ask(subject, *(row.study for row in STUDIES if row.study not in LISTED))
    kept = {
        name: {key: value for key, value in getattr(findings, name).items() if key not in getattr(others, name)}
        for name in ("metrics", "null_reasons", "pictures", "curves")
    }
    return dataclasses.replace(findings, **kept)
