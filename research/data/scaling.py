"""Shift and scale of the features, fitted on training rows, and the range of the data that models see."""

from typing import NamedTuple

import numpy as np

from research.data.examples import Examples
from research.tree import ConfigError

CHUNK = 4096  # rows that are converted to floats at a time: a whole uint8 data set as float64 is eight times its size


class Scaling(NamedTuple):
    """Models see `(x - shift) * scale`; float32, shape () or the feature shape."""

    shift: np.ndarray
    scale: np.ndarray


class Moments(NamedTuple):
    """Per feature, float64, of the feature shape: smallest and largest value, mean and standard deviation."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def fit(
    method: str, examples: Examples, rows: np.ndarray, *, unit: float | None = None, by_channel: bool = False
) -> Scaling:
    """The scaling of one training part.

    Args:
      method: "none", "unit", "standard" or "minmax".
      examples: all rows.
      rows: row numbers of the training part; no other row has any influence.
      unit: the stored value that "unit" maps to 1.
      by_channel: one shift and scale per channel, over rows and time: sequences.

    Raises:
      ConfigError: "unit" where the values have no fixed range.
    """
    if method == "none":
        return Scaling(np.zeros((), np.float32), np.ones((), np.float32))
    if method == "unit":
        if unit is None:
            raise ConfigError(
                "scaling", "unit", "these values have no fixed range; use data.scaling=minmax or standard"
            )
        return Scaling(np.zeros((), np.float32), np.asarray(1 / unit, np.float32))
    low, high, mean, deviation = moments(examples, rows, by_channel=by_channel)
    shift, spread = (mean, deviation) if method == "standard" else (low, high - low)
    shape = examples.x.shape[1:]
    # A feature that is constant, or as good as constant for float32, is only shifted.
    usable = (high > low) & (spread > np.finfo(np.float32).tiny)
    scale = np.where(usable, 1 / np.where(usable, spread, 1), 1)
    return Scaling(
        np.broadcast_to(shift, shape).astype(np.float32),
        np.broadcast_to(scale, shape).astype(np.float32),
    )


def moments(examples: Examples, rows: np.ndarray, *, by_channel: bool = False) -> Moments:
    """Moments over the given rows, without padding and missing values, in two passes."""
    axes = tuple(range(examples.x.ndim - 1)) if by_channel else (0,)
    shape = examples.x.shape[-1:] if by_channel else examples.x.shape[1:]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    total, count = np.zeros(shape), np.zeros(shape)
    for values, valid in _chunks(examples, rows):
        low = np.minimum(low, np.min(values, axis=axes, initial=np.inf, where=valid))
        high = np.maximum(high, np.max(values, axis=axes, initial=-np.inf, where=valid))
        total += np.sum(values, axis=axes, where=valid)
        count += np.broadcast_to(np.sum(np.broadcast_to(valid, values.shape), axis=axes), shape)
    seen = count > 0
    count = np.maximum(count, 1)
    low, high, mean = np.where(seen, low, 0), np.where(seen, high, 0), total / count
    squares = np.zeros(shape)
    for values, valid in _chunks(examples, rows):
        squares += np.sum(np.square(values - mean), axis=axes, where=valid)
    return Moments(low, high, mean, np.sqrt(squares / count))


def extremes(examples: Examples, scaling: Scaling) -> tuple[float, float]:
    """Smallest and largest value over all rows as models see them."""
    if examples.length is None and examples.observed is None:
        low, high = examples.x.min(axis=0), examples.x.max(axis=0)
    else:
        low, high, *_ = moments(examples, np.arange(len(examples)))
    seen = [(np.asarray(edge, np.float32) - scaling.shift) * scaling.scale for edge in (low, high)]
    return float(seen[0].min()), float(seen[1].max())


def _chunks(examples: Examples, rows: np.ndarray):
    """Float64 values [n, ...] and what of them counts (True, or a mask that broadcasts) of a few rows at a time."""
    for start in range(0, len(rows), CHUNK):
        chosen = rows[start : start + CHUNK]
        values, valid = examples.x[chosen].astype(np.float64), np.ones((), bool)
        if examples.length is not None:
            inside = np.arange(values.shape[1]) < np.asarray(examples.length)[chosen, None]
            valid = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
        if examples.observed is not None:
            valid = valid & np.asarray(examples.observed, bool)[chosen]
        # Masked sums would still be NaN where a masked value is.
        yield (values if valid.ndim == 0 else np.where(valid, values, 0)), valid
