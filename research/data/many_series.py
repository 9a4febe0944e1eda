"""Windows of many series of unequal length. No window reaches from one series into the next."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from research.data.examples import Windows
from research.data.scaling import Scaling
from research.data.series import naive_error, windows_of
from research.data.source import Source
from research.tree import ConfigError

PARTS = ("training", "validation", "test")
TRAINING, VALIDATION, TEST, NONE = range(4)
SHOWN = 5  # names of series in a note


class Starts(NamedTuple):
    """Where the windows of one series begin.

    Attributes:
      ahead: steps without a value that stand before the first step of the series.
      start: first step of every window, counted from the first of these, [N].
      part: TRAINING, VALIDATION, TEST or NONE, [N].
      in_sample: number of steps of the series before its test steps.
    """

    ahead: int
    start: np.ndarray
    part: np.ndarray
    in_sample: int


def by_last(steps: int, window: int, horizon: int, stride: int) -> Starts:
    """One test window, whose target is the last `horizon` steps, one of validation before it, and those of training.

    The targets of training windows end before that of the validation window; their starts are counted from the last
    one. A series that is too short for one window of each part gets steps without a value before its first step, so
    that every series is tested.
    """
    ahead = max(0, window + 3 * horizon - steps)
    last = ahead + steps - 3 * horizon - window  # where the last training window begins
    start = np.append(np.arange(last % stride, last + 1, stride), [last + horizon, last + 2 * horizon])
    part = np.repeat([TRAINING, VALIDATION, TEST], [len(start) - 2, 1, 1])
    return Starts(ahead, start, part, steps - horizon)


def by_blocks(steps: int, borders: tuple[int, int], window: int, horizon: int | None, stride: int) -> Starts:
    """Windows in three blocks of time, as `Windowed` has them; those across a border are in no part.

    Args:
      steps: length of the series.
      borders: first step of the validation block and of the test block.
      window, horizon, stride: as in `Windowed`.
    """
    start = np.arange(0, steps - window - (horizon or 0) + 1, stride)
    first, end = start + (window if horizon else 0), start + window + (horizon or 0)  # of what a part must hold
    part = np.full(len(start), NONE)
    for number, low, high in ((TRAINING, 0, borders[0]), (VALIDATION, *borders), (TEST, borders[1], steps)):
        part[(first >= low) & (end <= high)] = number
    return Starts(0, start, part, max(borders[1], 0))


def cut_series(
    name: str,
    series: Mapping[str, np.ndarray],
    starts: Sequence[Starts],
    window: int,
    horizon: int | None,
    season: int | None,
    *,
    columns: Sequence[str] | None = None,
    divided: bool = True,
    known: Mapping[str, np.ndarray] = MappingProxyType({}),
    static: Mapping[str, np.ndarray] = MappingProxyType({}),
    scalings: Mapping[str, Scaling] | None = None,
) -> Source:
    """The windows of all series, one series after another.

    With a horizon `naive_error` is that of all steps of the row's series before its test steps.

    Args:
      name: name of the data set.
      series: by their names, NaN where a value is missing, [S, C] each.
      starts: where the windows of each series begin.
      window, horizon, season: as in `Windowed`.
      columns: names of the channels.
      divided: whether the rows have parts.
      known: what is known of every step, by series, [S, K] each, with 0 for steps that stand before the first one;
        empty: nothing is known.
      static: what is known of every series, [D] each; empty: nothing is known.
      scalings: by series, each of which is scaled by its own; None: all series stay as they are.

    Raises:
      ConfigError: no series has a window of some part, or every series is shorter than a season.
    """
    names, values = list(series), list(series.values())
    number = np.repeat(np.arange(len(starts)), [len(cut.start) for cut in starts])  # series of every window
    lengths = np.array([cut.ahead + len(steps) for cut, steps in zip(starts, values, strict=True)])
    offset = np.cumsum(lengths) - lengths
    start = (np.concatenate([cut.start for cut in starts]) + offset[number]).astype(np.int32)
    scaled = values if scalings is None else [scalings[key].apply(series[key]) for key in names]
    joined = np.concatenate([_padded(steps, cut.ahead) for cut, steps in zip(starts, scaled, strict=True)])
    examples, empty = windows_of(joined, start, window, horizon)
    if known:
        steps = np.concatenate([_padded(known[key], cut.ahead, 0) for key, cut in zip(names, starts, strict=True)])
        examples = dataclasses.replace(examples, known=Windows(steps, start, window + (horizon or 0)))
    if static:
        examples = dataclasses.replace(examples, static=np.stack([static[key] for key in names])[number])
    if scalings is not None:
        shift, scale = (np.stack(arrays)[number] for arrays in zip(*(scalings[key] for key in names), strict=True))
        examples = dataclasses.replace(examples, series_shift=shift, series_scale=scale)
    part = np.where(empty, NONE, np.concatenate([cut.part for cut in starts]))
    notes = [*_masked_notes(names, starts), *_absent_notes(names, number, part, empty, divided)]
    if divided:
        _check_parts(part, max(map(len, values)), window, horizon)
    if divided and horizon:
        in_sample = [steps[: cut.in_sample] for cut, steps in zip(starts, values, strict=True)]
        longest = max(map(len, in_sample))
        if season is not None and season >= longest:
            remedy = f"no series has more than {longest} steps before its test steps; name a shorter season, or null"
            raise ConfigError("season", season, remedy)
        errors = np.stack([naive_error(steps, season) for steps in in_sample])
        examples = dataclasses.replace(examples, naive_error=errors[number])
        notes += _undefined_notes(names, errors, np.unique(number[part != NONE]))
    source = Source(
        name,
        "sequence",
        examples,
        season=season,
        scale_target=bool(horizon),
        columns=None if columns is None else tuple(columns),
        notes=tuple(notes),
        scaled=scalings is not None,
    )
    if not divided:
        return source
    unused = part == NONE
    parts = {"test": part == TEST, "validation": part == VALIDATION, "unused": unused if unused.any() else None}
    return dataclasses.replace(source, **parts)


def check_window(starts: Sequence[Starts], window: int, horizon: int) -> None:
    """Refuse a window that is longer than most series before their test steps.

    Raises:
      ConfigError: naming a window that fits.
    """
    lengths = np.array([cut.in_sample for cut in starts])
    if 2 * (lengths < window).sum() <= len(lengths):
        return
    middle = int(np.median(lengths))
    fits = max((count * horizon for count in (1, 2, 3) if count * horizon <= middle), default=max(middle, 1))
    problem = f"half of the {len(lengths)} series have no more than {middle} steps before their test steps"
    raise ConfigError("window", window, f"{problem}, so that most windows would be filled up; {{key}}={fits}")


def _padded(values: np.ndarray, ahead: int, fill: float = np.nan) -> np.ndarray:
    """A series after `ahead` steps without a value, [ahead + S, C]."""
    before = np.full((ahead, values.shape[1]), fill, values.dtype)
    return np.concatenate([before, values]) if ahead else values


def _check_parts(part: np.ndarray, longest: int, window: int, horizon: int | None) -> None:
    """Refuse a division in which no series has a window of some part."""
    for number, name in enumerate(PARTS):
        if not (part == number).any():
            needs = f"a window of {window} steps" + (f" and a target of {horizon}" if horizon else "")
            problem = f"no series has a {name} window: the longest has {longest} steps, and a row needs {needs}"
            raise ConfigError("window", window, f"{problem}; make the window, the horizon or the stride smaller")


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _masked_notes(names: Sequence[str], starts: Sequence[Starts]) -> list[str]:
    """A note on series that got steps without a value."""
    short = [name for name, cut in zip(names, starts, strict=True) if cut.ahead]
    text = f"{len(short)} of {len(names)} series are too short for a whole window of each part"
    return [f"{text}, and what their windows lack at the beginning is masked: {listed(short)}"] if short else []


def _absent_notes(
    names: Sequence[str], number: np.ndarray, part: np.ndarray, empty: np.ndarray, divided: bool
) -> list[str]:
    """Notes on series without a window, or without one of some part, and on windows without a value.

    Args:
      names: of the series.
      number: series of every window, [N].
      part: part of every window, [N].
      empty: windows that hold no value, [N].
      divided: whether the windows have parts.
    """
    notes = []
    kinds = {f"{PARTS[kind]} window": number[part == kind] for kind in (TRAINING, VALIDATION, TEST)}
    for what, rows in (kinds if divided else {"window, because they are too short": number}).items():
        absent = [names[int(index)] for index in np.setdiff1d(np.arange(len(names)), rows)]
        if absent:
            notes.append(f"{len(absent)} of {len(names)} series have no {what}: {listed(absent)}")
    if empty.any():
        left_out = " and are left out" if divided else ""
        notes.append(f"{int(empty.sum())} of {len(empty)} windows hold no value at all{left_out}")
    return notes


def _undefined_notes(names: Sequence[str], errors: np.ndarray, used: np.ndarray) -> list[str]:
    """A note on series for which MASE has no denominator; errors [I, C], `used` are numbers of series."""
    without = [names[int(index)] for index in used if not (errors[index] > 0).all()]
    text = f"{len(without)} of {len(names)} series have no naive error before their test steps (too short or constant)"
    return [f"{text}, so that the MASE of all is infinite or unknown: {listed(without)}"] if without else []
