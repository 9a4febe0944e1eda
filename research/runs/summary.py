"""Mean and spread over the seeds of each configuration, as extra TensorBoard runs beside the runs themselves."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from research.runs.events import NAME, EventFile
from research.runs.files import Held
from research.runs.folder import RunFolder

SUMMARY = "summary"  # folder of the means beside the runs of a sweep


def spread(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Mean and standard deviation over runs at each step.

    A metric has a mean at a step if at least two runs have a finite value there. The deviation is that of a sample,
    `sqrt(sum (v - mean)^2 / (n - 1))`.

    Args:
      runs: rows of metrics of each run, every row with its `step`.

    Returns:
      One row for each step: `step`, and for each metric its mean, and `within_one_sd/<metric>/low` and `/high`.
    """
    values: dict[int, dict[str, list[float]]] = {}
    for rows in runs:
        for row in rows:
            of_step = values.setdefault(int(row["step"]), {})
            for tag, value in row.items():
                if "/" in tag and np.isfinite(value):
                    of_step.setdefault(tag, []).append(value)
    result = []
    for step in sorted(values):
        means: dict[str, float] = {}
        for tag, of_runs in values[step].items():
            if len(of_runs) > 1:
                mean, deviation = float(np.mean(of_runs)), float(np.std(of_runs, ddof=1))
                means |= {
                    tag: mean,
                    f"within_one_sd/{tag}/low": mean - deviation,
                    f"within_one_sd/{tag}/high": mean + deviation,
                }
        if means:
            result.append({"step": step} | means)
    return result


def summary(folder: Path | str, groups: Mapping[str, Sequence[Path | str]], lease: Held) -> list[Path]:
    """Write `<folder>/summary/<configuration>/` for each configuration of at least two runs.

    A summary is written again only if a run has newer metrics, so that a command that was killed here can be repeated.
    The mean has the tag of the metric itself, so that TensorBoard draws it over the runs. The band is on the Custom
    Scalars page.

    Args:
      folder: of the sweep.
      groups: configuration -> folders of its runs (its seeds).
      lease: the lease under which the folder is written.

    Returns:
      The folders of all summaries.
    """
    lease.check()
    summaries = []
    for configuration, runs in groups.items():
        if len(runs) < 2:
            continue
        target = Path(folder) / SUMMARY / re.sub(r"[^A-Za-z0-9._=-]+", "_", configuration).lstrip(".")
        newest = max((Path(run) / "metrics.csv").stat().st_mtime for run in runs)
        if (target / NAME).exists() and (target / NAME).stat().st_mtime >= newest:
            summaries.append(target)
            continue
        rows = spread([RunFolder(run).read_metrics() for run in runs])
        if not rows:
            continue
        lease.check()
        target.mkdir(parents=True, exist_ok=True)
        lease.check()
        (target / NAME).unlink(missing_ok=True)
        events = EventFile(target, lease)
        steps = [
            (int(row["step"]), newest, {tag: value for tag, value in row.items() if tag != "step"}) for row in rows
        ]
        events.append(steps)
        tags = {tag for _, _, values in steps for tag in values if not tag.startswith("within_one_sd/")}
        events.layout((), margins=sorted(tags))
        summaries.append(target)
    return summaries
