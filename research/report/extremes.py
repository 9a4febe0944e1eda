"""The best and the worst run of a sweep."""

import dataclasses
from collections.abc import Sequence

from research.metrics import direction, judges
from research.report.collect import Run, Runs
from research.report.keys import better, peers
from research.report.texts import plural


@dataclasses.dataclass(frozen=True)
class Extremes:
    """The best and the worst of comparable runs by one metric; `why` says in words why by this metric."""

    metric: str
    why: str
    best: Run
    worst: Run


def extremes(runs: Runs, metrics: Sequence[str]) -> Extremes | None:
    """The best and the worst run; None if no run has a metric with a direction.

    The metric is the one of the validation rows that may compare most runs, among equal ones the first of `CHOOSING`.
    Without a metric of the validation rows it is the first of `metrics` that some run has.
    """
    finished = [run for run in runs if run.finished]
    candidates: list[tuple[str, list[Run], list[str]]] = []  # metric, comparable runs, keys that separate the others
    for metric in [*judges(()), *judges(metrics), *(name for name in metrics if direction(name))]:
        having = [run for run in finished if run.metrics.get(metric) is not None]
        if having:
            candidates.append((metric, *peers(metric, having)))
    if not candidates:
        return None
    of_validation = [candidate for candidate in candidates if candidate[0].startswith("validation/")]
    metric, comparable, keys = max(of_validation or candidates[:1], key=lambda candidate: len(candidate[1]))
    best = worst = comparable[0]
    for run in comparable[1:]:
        value = run.metrics[metric] or 0.0
        best = run if better(value, best.metrics[metric] or 0.0, metric) else best
        worst = run if better(worst.metrics[metric] or 0.0, value, metric) else worst
    why = f"{direction(metric)} is better; among {plural(len(comparable), 'finished run')}"
    if keys:
        why += f" of {len(finished)}: others differ in {', '.join(keys)} and are not comparable by it"
    if not of_validation:
        why += "; no metric of the validation rows is at hand, so this is one of the test rows"
    return Extremes(metric, why, best, worst)
