"""Rows of unequal length, or with gaps, as rows of one length for methods that know no mask.

Zeros behind the end would be data to such a method: k-means then groups series by their length.
"""

from collections.abc import Mapping

import numpy as np

from research.data.examples import Examples

PADDED, RESAMPLED = "padded_", "resampled_"  # before the name of a method


def whole_rows(part: Examples) -> Mapping[str, np.ndarray]:
    """Flat rows [N, D] by what the name of a method that sees them begins with.

    One entry, "", where all rows are whole or have gaps only. Where they differ in length, two: `padded_` repeats the
    last value to the end, `resampled_` draws every row out to the full number of steps, linearly between its steps.
    Gaps are filled on the straight line between the observed steps of a channel, and beyond them with the nearest one.
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
    """Rows [N, T, ...] of valid lengths [N] drawn out to T steps: step t is read at t (length - 1) / (T - 1)."""
    at = np.arange(x.shape[1])[None] * (np.maximum(length, 1)[:, None] - 1) / max(x.shape[1] - 1, 1)
    low = np.floor(at).astype(int)
    high, rows = np.minimum(low + 1, np.maximum(length, 1)[:, None] - 1), np.arange(len(x))[:, None]
    share = (at - low).reshape(at.shape + (1,) * (x.ndim - 2))
    return x[rows, low] * (1 - share) + x[rows, high] * share


def fill_gaps(x: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Rows [N, T, C] with the values that are not `there` on the line between those that are; all missing stay."""
    x = x.copy()
    steps = np.arange(x.shape[1])
    gaps = ~there.all(1) & there.any(1)
    for row, *channel in np.argwhere(gaps):
        place = (row, slice(None), *channel)
        known = there[place]
        x[place] = np.interp(steps, steps[known], x[place][known])
    return x


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)
