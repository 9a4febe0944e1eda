"""Shift and scale of the features, fitted on training rows, and the range of the values that models see."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.examples import FAR, Examples, Windows
from research.data.preparation import CHUNK
from research.tree import ConfigError

ROUNDING = 1e-12  # of the usual size of values: smaller differences are rounding errors
SAMPLE = 2000  # rows that show how many values are different


class Scaling(NamedTuple):
    """Models see `(x - shift) * scale`; float64, shape (), the feature shape, or [C] for sequences."""

    shift: np.ndarray
    scale: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Values as models see them, float64."""
        return (x - self.shift) * self.scale


class Moments(NamedTuple):
    """Smallest and largest value, mean and standard deviation of every feature or channel, float64."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


IDENTITY = Scaling(np.zeros(()), np.ones(()))


# ------------------------------------------------------------------------------------------------------------- fitting


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
      by_channel: one shift and scale per channel, over rows and time (for sequences).
      with_target: the target has the same channels, and counts too.
      binary: features or channels that stay 0 and 1, bool of the shape of the scaling.

    Raises:
      ConfigError: "unit" where the values have no fixed range.
    """
    if method == "none":
        return IDENTITY
    if method == "unit":
        if unit is None:
            remedy = "these values have no fixed range; use data.scaling=minmax or standard"
            raise ConfigError("scaling", "unit", remedy)
        return Scaling(np.zeros(()), np.asarray(1 / unit))
    low, high, mean, deviation = moments(examples, rows, by_channel=by_channel, with_target=with_target)
    shift, spread = (mean, deviation) if method == "standard" else (low, high - low)
    # A feature that is constant, or nearly so for float32, is only shifted.
    usable = (high > low) & (spread > np.finfo(np.float32).tiny)
    scale = np.where(usable, 1 / np.where(usable, spread, 1), 1)
    if binary is not None:
        shift, scale = np.where(binary, 0, shift), np.where(binary, 1, scale)
    return Scaling(shift, scale)


def fit_steps(method: str, values: np.ndarray, binary: np.ndarray) -> Scaling | None:
    """The scaling of one series by some of its steps; None if a channel has no two different values there.

    Args:
      method: "standard" or "minmax".
      values: the steps, NaN where a value is missing, [S, C].
      binary: channels that stay 0 and 1, [C].
    """
    observed = np.isfinite(values)
    seen = np.where(observed, values, 0.0)
    low, high = np.min(seen, 0, initial=np.inf, where=observed), np.max(seen, 0, initial=-np.inf, where=observed)
    if not (binary | (low < high)).all():
        return None
    count = np.maximum(observed.sum(0), 1)
    mean = seen.sum(0) / count
    deviation = np.sqrt((np.square(seen - mean) * observed).sum(0) / count)
    shift, spread = (mean, deviation) if method == "standard" else (low, high - low)
    if not (binary | (spread > ROUNDING * np.maximum(np.abs(low), np.abs(high)))).all():
        return None
    return Scaling(np.where(binary, 0.0, shift), 1 / np.where(binary, 1.0, spread))


def moments(examples: Examples, rows: np.ndarray, *, by_channel: bool = False, with_target: bool = False) -> Moments:
    """Moments over the given rows, without padding and missing values, in two passes.

    A step of a series counts once, however many windows hold it.
    """
    by_channel = by_channel or isinstance(examples.x, Windows)
    shape = examples.x.shape[-1:] if by_channel else examples.x.shape[1:]
    axes_of = lambda values: tuple(range(values.ndim - 1)) if by_channel else (0,)
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    total, count = np.zeros(shape), np.zeros(shape)
    for values, valid in _chunks(examples, rows, with_target):
        axes = axes_of(values)
        low = np.minimum(low, np.min(values, axis=axes, initial=np.inf, where=valid))
        high = np.maximum(high, np.max(values, axis=axes, initial=-np.inf, where=valid))
        total += np.sum(values, axis=axes, where=valid)
        count += np.broadcast_to(np.sum(np.broadcast_to(valid, values.shape), axis=axes), shape)
    seen = count > 0
    count = np.maximum(count, 1)
    low, high, mean = np.where(seen, low, 0), np.where(seen, high, 0), total / count
    squares = np.zeros(shape)
    for values, valid in _chunks(examples, rows, with_target):
        squares += np.sum(np.square(values - mean), axis=axes_of(values), where=valid)
    return Moments(low, high, mean, np.sqrt(squares / count))


def extremes(examples: Examples, scaling: Scaling, rows: np.ndarray | None = None) -> tuple[float, float]:
    """Smallest and largest value of `x` over the given rows (or all) as models see them.

    Padding and missing values are left out. Any other value that is not finite makes the result not finite.
    """
    if rows is None and isinstance(examples.x, np.ndarray) and examples.length is None and examples.observed is None:
        edges = [(examples.x.min(axis=0), examples.x.max(axis=0))]  # without a copy as floats
    else:
        edges = (
            (np.min(values, axis=0, initial=np.inf, where=valid), np.max(values, axis=0, initial=-np.inf, where=valid))
            for values, valid in _chunks(examples, np.arange(len(examples)) if rows is None else rows)
        )
    low, high = np.inf, -np.inf
    for lowest, highest in edges:
        # Features without any value stay at +-inf and change nothing.
        seen = [((np.asarray(edge) - scaling.shift) * scaling.scale).astype(np.float32) for edge in (lowest, highest)]
        low, high = np.minimum(low, seen[0].min()), np.maximum(high, seen[1].max())
    return (float(low), float(high)) if low <= high or np.isnan(low + high) else (0.0, 0.0)


def are_counts(examples: Examples, fits: Sequence[Scaling] = ()) -> bool:
    """Whether all values of `x` are whole numbers from 0 and none of the scalings changes them.

    Padding and missing values are left out.
    """
    if any(np.any(fitted.shift != 0) or np.any(fitted.scale != 1) for fitted in fits):
        return False
    if examples.x.dtype.kind in "ub":
        return True
    parts = _chunks(examples, np.arange(len(examples)))  # the first part with another number ends the search
    return all(bool((~valid | ((values >= 0) & (values == np.floor(values)))).all()) for values, valid in parts)


# ---------------------------------------------------------------------------------------- values, a few rows at a time


def _chunks(examples: Examples, rows: np.ndarray, with_target: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Float64 values of a few rows at a time, [n, ...], and which of them count: True, or a mask that broadcasts.

    Of windows, the steps that they cover, each once, [n, C].
    """
    if isinstance(examples.x, Windows):
        examples, rows = _steps(examples, rows, with_target)
        with_target = False
    x, length, observed = examples.x, examples.length, examples.observed
    for start in range(0, len(rows), CHUNK):
        chosen = rows[start : start + CHUNK]
        values, valid = x[chosen].astype(np.float64), np.ones((), bool)
        if length is not None:
            inside = np.arange(values.shape[1]) < np.asarray(length)[chosen, None]
            valid = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
        if observed is not None:
            valid = valid & np.asarray(observed[chosen], bool)
        # A sum with `where` is still NaN where a masked value is NaN.
        yield (values if valid.ndim == 0 else np.where(valid, values, 0)), valid
    if with_target:
        yield from _chunks(Examples(x=examples.target, observed=examples.target_observed), rows)


def _steps(examples: Examples, rows: np.ndarray, with_target: bool) -> tuple[Examples, np.ndarray]:
    """The series that windows are cut from, a row for each step, and the numbers of the steps that the rows cover."""
    series, target, observed = examples.x.series, examples.target, examples.observed
    lengths = examples.x.size if examples.length is None else np.asarray(examples.length)[rows]
    pieces: list[tuple[Windows, Any]] = [(examples.x, lengths)]
    if with_target:
        if not (isinstance(target, Windows) and target.series is series):
            raise TypeError("a target that is scaled as x is must be windows of the same series")
        pieces.append((target, target.size))
    return Examples(x=series, observed=None if observed is None else observed.series), covered_steps(pieces, rows)


def covered_steps(pieces: Sequence[tuple[Windows, Any]], rows: np.ndarray) -> np.ndarray:
    """Numbers of the steps that some rows of windows cover, in order, each once.

    Args:
      pieces: windows of one series, each with its number of steps, a number or one per row.
      rows: row numbers.
    """
    change = np.zeros(len(pieces[0][0].series) + 1, np.int64)  # how many windows begin, less how many end
    for windows, size in pieces:
        start = np.asarray(windows.start)[rows]
        np.add.at(change, start, 1)
        np.add.at(change, start + size, -1)
    return np.flatnonzero(np.cumsum(change[:-1]) > 0)


# ------------------------------------------------------------------------------------------------- precision of float32


def offset(fitted: Scaling) -> np.ndarray:
    """What is subtracted from raw values before they become float32 for a compiled program, of the shape of the shift.

    float32 distinguishes numbers that differ by 6e-8 of their size. If the shift is more than 256 times as large as the
    spread of the values, that is more than 1.5e-5 of the spread, and the shift itself is subtracted; else 0.
    """
    far = np.abs(fitted.shift * fitted.scale) > FAR
    return np.where(far, fitted.shift, 0.0) if far.any() else np.zeros(())


def check_precision(
    field: str, examples: Examples, fitted: Scaling, rows: np.ndarray, names: Sequence[str] | None, by_channel: bool
) -> None:
    """Refuse features whose values differ as stored, while most of them are equal for a model.

    Args:
      field: name of the checked values, for the error.
      examples: all rows; only floats of 64 bits and integers of more than 24 bits can lose anything.
      fitted: the scaling of the training rows.
      rows: the training rows, of which about 2,000 are used.
      names: names of the features or channels.
      by_channel: the last axis holds the features.

    Raises:
      ConfigError: naming the feature and the remedy.
    """
    if not (examples.x.dtype.kind in "fiu" and examples.x.dtype.itemsize > 4):
        return
    shape = examples.x.shape[-1:] if by_channel else examples.x.shape[1:]
    for values, valid in _chunks(examples, rows[:: max(1, len(rows) // SAMPLE)]):
        valid = np.broadcast_to(valid, values.shape).reshape(-1, *shape)
        values = np.where(valid, values.reshape(-1, *shape), np.broadcast_to(fitted.shift, shape))
        with np.errstate(over="ignore"):
            seen = ((values - fitted.shift) * fitted.scale).astype(np.float32)
        before, after = _count_different(_without_rounding(values)), _count_different(seen)
        lost = np.argwhere((before > 2) & (2 * after <= before))
        if len(lost):
            at = tuple(int(index) for index in lost[0])
            name = names[at[0]] if names is not None and len(at) == 1 else ", ".join(map(str, at))
            problem = f"{before[at]} different values of {field} in column {name} become {after[at]} in float32"
            advice = "use data.scaling=standard" if fitted.shift.ndim == 0 else "remove outliers, or store a logarithm"
            raise ConfigError("scaling", "too large a range", f"{problem}; {advice}, or leave the column out")


def _without_rounding(values: np.ndarray) -> np.ndarray:
    """Values without the rounding errors of float64: whole multiples of a tiny part of their usual size."""
    middle = np.median(values, axis=0)
    usual = np.median(np.abs(values - middle), axis=0)
    tiny = np.where(usual > 0, ROUNDING * usual, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.round((values - middle) / tiny)


def _count_different(values: np.ndarray) -> np.ndarray:
    """Number of different values of every feature over the first axis."""
    ordered = np.sort(values, axis=0)
    return 1 + (ordered[1:] != ordered[:-1]).sum(0)
