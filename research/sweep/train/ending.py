"""Whether a training that completed its epochs ended too early."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from research.metrics import higher_is_better

LAST = 0.1  # share of the epochs that counts as the end
SHARE = 0.05  # of the range of the curve: a larger gain at the end is no flat curve
FEWEST = 3  # evaluations: two do not say whether a curve becomes flat


def still_improves(rows: Sequence[Mapping[str, float]], monitor: str) -> bool | None:
    """Whether the curve of a metric is far from flat where it ends; None where it has fewer than three points.

    It is if its last two values are the second best and the best one, and the last tenth of the epochs (on straight
    lines between evaluations) gained more than 5 % of the range of the curve. One good value at the end of a curve that
    goes up and down is chance.

    Args:
      rows: of `metrics.csv`, in order of step.
      monitor: the metric.
    """
    points = [
        (row["epoch"], row[monitor]) for row in rows if "epoch" in row and math.isfinite(row.get(monitor, math.nan))
    ]
    if len(points) < FEWEST:
        return None
    epochs, values = np.asarray(points, np.float64).T
    losses = -values if higher_is_better(monitor) else values
    gain = float(np.interp((1 - LAST) * epochs[-1], epochs, losses) - losses[-1])
    return bool(losses[-1] < losses[-2] < losses[:-2].min() and gain > SHARE * np.ptp(losses))
