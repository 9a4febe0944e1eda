"""Mean and spread over the seeds of each configuration, as extra TensorBoard runs beside the members."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from research.runs.events import NAME, EventFile
from research.runs.folder import RunFolder
from research.runs.held import Held


def spread(members: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Mean and standard deviation over members at each step.

    A step counts for a metric where at least two members have a finite value there; the deviation is that of a sample,
    `sqrt(sum (v - mean)^2 / (n - 1))`.

    Args:
      members: rows of metrics of each member, every row with its `step`.

    Returns:
      One row per step: `step`, and for each metric its mean, and `within_one_sd/<metric>/low` and `/high`.
    """
    values: dict[int, dict[str, list[float]]] = {}
    for rows in members:
        for row in rows:
            at = values.setdefault(int(row["step"]), {})
            for tag, value in row.items():
                if "/" in tag and np.isfinite(value):
                    at.setdefault(tag, []).append(value)
    result = []
    for step in sorted(values):
        means: dict[str, float] = {}
        for tag, found in values[step].items():
            if len(found) > 1:
                mean, deviation = float(np.mean(found)), float(np.std(found, ddof=1))
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

    What is there is replaced where a run has newer metrics, so that a command that was killed here can be repeated.
    The mean has the tag of the metric itself, so TensorBoard draws it over the runs; the band is on the Custom Scalars
    page.

    Args:
      folder: of the sweep.
      groups: configuration -> folders of its runs (its seeds).
      lease: under which the folder is written.

    Returns:
      The folders of all summaries.
    """
    lease.check()
    places = []
    for configuration, members in groups.items():
        if len(members) < 2:
            continue
        place = Path(folder) / "summary" / re.sub(r"[^A-Za-z0-9._=-]+", "_", configuration).lstrip(".")
        when = max((Path(member) / "metrics.csv").stat().st_mtime for member in members)
        if (place / NAME).exists() and (place / NAME).stat().st_mtime >= when:
            places.append(place)
            continue
        rows = spread([RunFolder(member).read_metrics() for member in members])
        if not rows:
            continue
        lease.check()
        place.mkdir(parents=True, exist_ok=True)
        lease.check()
        (place / NAME).unlink(missing_ok=True)
        events = EventFile(place, lease)
        steps = [(int(row["step"]), when, {tag: value for tag, value in row.items() if tag != "step"}) for row in rows]
        events.append(steps)
        tags = {tag for _, _, values in steps for tag in values if not tag.startswith("within_one_sd/")}
        events.layout((), margins=sorted(tags))
        places.append(place)
    return places
