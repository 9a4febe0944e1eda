"""Rows of unequal length, or with gaps, turned into rows of one length for methods that know no mask.

Such a method would take zeros behind the end for data: k-means would then group series by their length.
"""

from collections.abc import Mapping

import numpy as np

from research.data.examples import Examples

PADDED, RESAMPLED = "padded_", "resampled_"  # prefixes of the name of a method


def whole_rows(part: Examples) -> Mapping[str, np.ndarray]:
    """Flat rows [N, D] by the prefix that the name of a method gets which sees them.

    If all rows have the same length there is one entry, "". If they differ in length there are two: `padded_` repeats
    the last value to the end, and `resampled_` stretches every row to the full number of steps, linearly between its
    steps.
    A gap is filled linearly between the observed steps of its channel, and beyond them with the nearest one.
    """
    x = np.asarray(part.x)
    if x.ndim > 2 and part.observed is not None:
        x = fill_gaps(x, np.asarray(part.mask))
    if part.length is None:
        return {"": _flat(x)}
    length = np.asarray(part.length)
    return {PADDED: _flat(repeat_end(x, length)), RESAMPLED: _flat(stretch(x, length))}


def repeat_end(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows [N, T, ...] of valid lengths [N] with their last valid step repeated."""
    steps = np.minimum(np.arange(x.shape[1])[None], np.maximum(length, 1)[:, None] - 1)
    return x[np.arange(len(x))[:, None], steps]


def stretch(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows [N, T, ...] of valid lengths [N] stretched to T steps: step t is read at t (length - 1) / (T - 1)."""
    last, rows = np.maximum(length, 1)[:, None] - 1, np.arange(len(x))[:, None]
    position = np.arange(x.shape[1])[None] * last / max(x.shape[1] - 1, 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, last)
    share = (position - low).reshape(position.shape + (1,) * (x.ndim - 2))
    return x[rows, low] * (1 - share) + x[rows, high] * share


def fill_gaps(x: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Rows [N, T, C] with missing values interpolated linearly between observed ones.

    A channel of a row that has no observed value at all stays as it is.
    """
    x = x.copy()
    steps = np.arange(x.shape[1])
    gaps = ~observed.all(1) & observed.any(1)
    for row, *channel in np.argwhere(gaps):
        series = (row, slice(None), *channel)
        known = observed[series]
        x[series] = np.interp(steps, steps[known], x[series][known])
    return x


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)
