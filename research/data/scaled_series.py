"""Series of a long table that have scales of their own: how they are fitted, and those of a run."""

from collections.abc import Mapping

import numpy as np

from research.data.long_table import ManySeries
from research.data.many_series import listed
from research.data.preparation import Preparation
from research.data.scaling import Scaling, fit_steps
from research.tree import ConfigError

Scalings = dict[str, Scaling]


def scaled_alone(
    content: ManySeries, method: str, fitted: Mapping[str, np.ndarray], known: Mapping[str, Scaling] | None = None
) -> tuple[ManySeries, Scalings]:
    """The series that have a scale of their own, with a note on the others, and these scales.

    Args:
      content: the series.
      method: "standard" or "minmax".
      fitted: steps of every series that tell its scale, [S, C] each.
      known: scales of series that need no fitting.

    Raises:
      ConfigError: no series has one.
    """
    scalings, without = dict(known or {}), []
    for name in content.series:
        scaling = scalings.get(name) or fit_steps(method, fitted[name], content.binary)
        if scaling is None:
            without.append(name)
        else:
            scalings[name] = scaling
    if len(without) == len(content.series):
        problem = "in every series a channel does not vary in the steps that tell its scale"
        raise ConfigError("scale_by", "series", f"{problem}; leave that channel out, or set {{key}}=all")
    text = (
        f"{len(without)} of {len(content.series)} series have a channel that does not vary in the steps that tell its"
    )
    notes = [f"{text} scale (data.scale_by=series), and are left out: {listed(without)}"] if without else []
    series = {name: values for name, values in content.series.items() if name in scalings}
    return content._replace(series=series, notes=[*content.notes, *notes]), scalings


def of_run(content: ManySeries, method: str, by: str, trained: Preparation) -> tuple[ManySeries, Scalings | None]:
    """The series of a file for a run, and their scales, if the run has such.

    A series of the training has the scale of the training, also where its file goes on. Any other is scaled by all of
    its steps in the file, and a note names it.

    Args:
      content: the series of the file.
      method, by: the keys `scaling` and `scale_by`.
      trained: preparation of the run.

    Raises:
      ConfigError: the run was trained with another `scale_by`.
    """
    of_training = "all" if trained.series is None else "series"
    if by != of_training:
        raise ConfigError("scale_by", by, f"the run was trained with {{key}}={of_training}")
    if trained.series is None:
        return content, None
    known = {
        name: Scaling(*(np.asarray(values, np.float64) for values in trained.series[name]))
        for name in content.series
        if name in trained.series
    }
    content, scalings = scaled_alone(content, method, content.series, known)
    if new := [name for name in content.series if name not in known]:
        text = f"{len(new)} of {len(content.series)} series were not in the training"
        note = f"{text}, and all of their steps in this file tell their scale: {listed(new)}"
        content = content._replace(notes=[*content.notes, note])
    return content, scalings
