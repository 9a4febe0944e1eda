"""Rows of a part a few at a time, and how many of them may be in memory at once.

Windows of series and streamed rows are lazy: each would be a copy of data that are many times larger than what they are
cut from, or than memory.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from research.data.examples import Examples
from research.evaluation.views import spread

CHUNK = 1024  # rows that are made dense at a time
LARGEST = 2**26  # most numbers of lazy rows that are made dense at once


def chunks(part: Examples) -> Iterator[Examples]:
    """The rows of a part as dense examples, 1,024 at a time."""
    for start in range(0, len(part), CHUNK):
        yield part.take(slice(start, start + CHUNK))


def pieces(x: Any) -> Iterator[np.ndarray]:
    """Rows of an array [N, ...]: of a lazy one 1,024 at a time, of a dense one all at once."""
    size = len(x) if isinstance(x, np.ndarray) else CHUNK
    for start in range(0, len(x), size):
        yield np.asarray(x[start : start + size])


def whole(x: Any) -> np.ndarray:
    """All rows of an array [N, ...], dense.

    Raises:
      ValueError: they are lazy, and too many.
    """
    if not isinstance(x, np.ndarray) and np.prod(x.shape) > LARGEST:
        raise ValueError(f"{len(x):,} rows of shape {list(x.shape[1:])} are too many to hold in memory at once")
    return np.asarray(x[:])


def sample(part: Examples) -> Examples:
    """Rows of a part as dense examples: all, or of too many lazy ones so many as fit, at even distances."""
    size = max(int(np.prod(part.x.shape[1:])), 1)
    if isinstance(part.x, np.ndarray) or len(part) * size <= LARGEST:
        return part.take(slice(None))
    return part.take(spread(len(part), LARGEST // size))


def extent(x: Any) -> tuple[float, float]:
    """Smallest and largest value of an array [N, ...]."""
    edges = [(piece.min(), piece.max()) for piece in pieces(x)]
    return float(min(low for low, _ in edges)), float(max(high for _, high in edges))
