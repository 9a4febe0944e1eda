"""Shift and scale of the features, fitted on training rows, and the range of the data that models see."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from research.data.examples import Examples, Windows
from research.tree import ConfigError

CHUNK = 4096  # rows that are converted to floats at a time: a whole uint8 data set as float64 is eight times its size


class Scaling(NamedTuple):
    """Models see `(x - shift) * scale`; float32, shape (), the feature shape, or [C] for sequences."""

    shift: np.ndarray
    scale: np.ndarray


class Moments(NamedTuple):
    """Per feature or channel, float64: smallest and largest value, mean and standard deviation."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


IDENTITY = Scaling(np.zeros((), np.float32), np.ones((), np.float32))


def fit(
    method: str,
    examples: Examples,
    rows: np.ndarray,
    *,
    unit: float | None = None,
    by_channel: bool = False,
    with_target: bool = False,
    binary: np.ndarray | None = None,
) -> Scaling:
    """The scaling of one training part.

    Args:
      method: "none", "unit", "standard" or "minmax".
      examples: all rows.
      rows: row numbers of the training part; no other row has any influence.
      unit: the stored value that "unit" maps to 1.
      by_channel: one shift and scale per channel, over rows and time: sequences.
      with_target: the target has the same channels, and counts too.
      binary: features or channels that stay 0 and 1, bool of the shape of the scaling.

    Raises:
      ConfigError: "unit" where the values have no fixed range.
    """
    if method == "none":
        return IDENTITY
    if method == "unit":
        if unit is None:
            raise ConfigError(
                "scaling", "unit", "these values have no fixed range; use data.scaling=minmax or standard"
            )
        return Scaling(np.zeros((), np.float32), np.asarray(1 / unit, np.float32))
    low, high, mean, deviation = moments(examples, rows, by_channel=by_channel, with_target=with_target)
    shift, spread = (mean, deviation) if method == "standard" else (low, high - low)
    # A feature that is constant, or as good as constant for float32, is only shifted.
    usable = (high > low) & (spread > np.finfo(np.float32).tiny)
    scale = np.where(usable, 1 / np.where(usable, spread, 1), 1)
    if binary is not None:
        shift, scale = np.where(binary, 0, shift), np.where(binary, 1, scale)
    return Scaling(shift.astype(np.float32), scale.astype(np.float32))


def moments(examples: Examples, rows: np.ndarray, *, by_channel: bool = False, with_target: bool = False) -> Moments:
    """Moments over the given rows, without padding and missing values, in two passes.

    A step of a series counts once, in however many windows it lies.
    """
    by_channel = by_channel or isinstance(examples.x, Windows)
    shape = examples.x.shape[-1:] if by_channel else examples.x.shape[1:]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    total, count = np.zeros(shape), np.zeros(shape)
    for values, valid in _chunks(examples, rows, with_target):
        axes = tuple(range(values.ndim - 1)) if by_channel else (0,)
        low = np.minimum(low, np.min(values, axis=axes, initial=np.inf, where=valid))
        high = np.maximum(high, np.max(values, axis=axes, initial=-np.inf, where=valid))
        total += np.sum(values, axis=axes, where=valid)
        count += np.broadcast_to(np.sum(np.broadcast_to(valid, values.shape), axis=axes), shape)
    seen = count > 0
    count = np.maximum(count, 1)
    low, high, mean = np.where(seen, low, 0), np.where(seen, high, 0), total / count
    squares = np.zeros(shape)
    for values, valid in _chunks(examples, rows, with_target):
        axes = tuple(range(values.ndim - 1)) if by_channel else (0,)
        squares += np.sum(np.square(values - mean), axis=axes, where=valid)
    return Moments(low, high, mean, np.sqrt(squares / count))


def extremes(examples: Examples, scaling: Scaling, rows: np.ndarray | None = None) -> tuple[float, float]:
    """Smallest and largest value of `x` over the given rows (or all) as models see them.

    Padding and missing values are passed over; a value that is not finite elsewhere makes the result not finite.
    """
    low, high = np.inf, -np.inf
    if rows is None and not isinstance(examples.x, Windows) and examples.length is None and examples.observed is None:
        edges = [(examples.x.min(axis=0), examples.x.max(axis=0))]
    else:
        chunks = _chunks(examples, np.arange(len(examples)) if rows is None else rows)
        edges = (
            (np.min(values, axis=0, initial=np.inf, where=valid), np.max(values, axis=0, initial=-np.inf, where=valid))
            for values, valid in chunks
        )
    for lowest, highest in edges:
        # features without any value stay at +-inf and count for nothing
        seen = [(np.asarray(edge, np.float32) - scaling.shift) * scaling.scale for edge in (lowest, highest)]
        low, high = np.minimum(low, seen[0].min()), np.maximum(high, seen[1].max())
    return (float(low), float(high)) if low <= high or np.isnan(low + high) else (0.0, 0.0)


def _chunks(examples: Examples, rows: np.ndarray, with_target: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Float64 values [n, ...] and what of them counts (True, or a mask that broadcasts) of a few rows at a time."""
    x, length, observed = examples.x, examples.length, examples.observed
    if isinstance(x, Windows):
        yield from _steps(examples, rows, with_target)
        return
    for start in range(0, len(rows), CHUNK):
        chosen = rows[start : start + CHUNK]
        values, valid = x[chosen].astype(np.float64), np.ones((), bool)
        if length is not None:
            inside = np.arange(values.shape[1]) < np.asarray(length)[chosen, None]
            valid = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
        if observed is not None:
            valid = valid & np.asarray(observed[chosen], bool)
        # Masked sums would still be NaN where a masked value is.
        yield (values if valid.ndim == 0 else np.where(valid, values, 0)), valid
    if with_target:
        yield from _chunks(Examples(x=examples.target, observed=examples.target_observed), rows)


def _steps(examples: Examples, rows: np.ndarray, with_target: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `_chunks`: the steps of the series that the windows cover, each step once, [n, C]."""
    series, target, observed = examples.x.series, examples.target, examples.observed
    lengths = examples.x.size if examples.length is None else np.asarray(examples.length)[rows]
    pieces: list[tuple[Any, Any]] = [(examples.x, lengths)]
    if with_target:
        if not (isinstance(target, Windows) and target.series is series):
            raise TypeError("a target that is scaled as x is must be windows of the same series")
        pieces.append((target, target.size))
    change = np.zeros(len(series) + 1, np.int64)
    for windows, size in pieces:
        start = np.asarray(windows.start)[rows]
        np.add.at(change, start, 1)
        np.add.at(change, start + size, -1)
    steps = np.flatnonzero(np.cumsum(change[:-1]) > 0)
    for start in range(0, len(steps), CHUNK):
        chosen = steps[start : start + CHUNK]
        values, valid = series[chosen].astype(np.float64), np.ones((), bool)
        if observed is not None:
            valid = np.asarray(observed.series[chosen], bool)
            values = np.where(valid, values, 0)
        yield values, valid
