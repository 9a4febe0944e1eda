"""Images in a grid and series in small panels: what figures of a run's rows are drawn with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation.canvas import pixels
from research.report.figures import style

CELL = 48  # least pixels a side of a tile: viewers of vector files smooth images that they enlarge
GAP = 0.08  # between tiles, share of one


def mosaic(rows: Sequence[np.ndarray], low: float, high: float) -> np.ndarray:
    """Rows of images, each [N, H, W] or [N, H, W, C], as one image [H, W, 3] uint8 with white gaps."""
    shaped = [pixels(np.asarray(row), low, high) for row in rows]
    shaped = [np.repeat(row[..., None], 3, -1) if row.ndim == 3 else row for row in shaped]
    height, width = shaped[0].shape[1:3]
    factor = max(1, -(-CELL // max(height, width)))
    height, width = height * factor, width * factor
    gap = max(1, round(GAP * max(height, width)))
    columns = max(len(row) for row in shaped)
    shape = len(shaped) * (height + gap) - gap, columns * (width + gap) - gap, 3
    whole = np.full(shape, 255, np.uint8)
    for down, row in enumerate(shaped):
        for across, tile in enumerate(row):
            large = tile.repeat(factor, 0).repeat(factor, 1)
            top, left = down * (height + gap), across * (width + gap)
            whole[top : top + height, left : left + width] = large
    return whole


def centers(count: int, size: int) -> np.ndarray:
    """Pixel coordinates of the middles of `count` tiles along an axis of `size` pixels."""
    gap = GAP / (count + (count - 1) * GAP)
    tile = 1 / (count + (count - 1) * GAP)
    return (tile / 2 + np.arange(count) * (tile + gap)) * size - 0.5


def images(
    rows: Sequence[np.ndarray],
    low: float,
    high: float,
    labels: Sequence[str] = (),
    ticks: Sequence[str] = (),
    below: str = "",
    width: float = style.PAGE,
) -> Any:
    """A figure of a mosaic with a label for each row, and for each column below it."""
    whole = mosaic(rows, low, high)
    columns = max(len(row) for row in rows)
    beside = 0.1 + 0.055 * max((len(label) for label in labels), default=0)
    under = 0.18 * bool(ticks) + 0.18 * bool(below) + 0.06
    tile = min((width - beside) / columns, 0.62)
    inner = tile * columns
    drawn = style.figure(inner + beside, inner * whole.shape[0] / whole.shape[1] + under)
    axes = drawn.subplots()
    axes.imshow(whole, interpolation="none", aspect="equal")
    axes.tick_params(length=0, pad=2)
    axes.set_yticks(centers(len(rows), whole.shape[0]) if labels else [], labels or [])
    axes.set_xticks(centers(columns, whole.shape[1]) if ticks else [], ticks or [])
    axes.set_xlabel(below)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def panels(count: int, columns: int = 4, height: float = 1.05, legend: bool = True) -> tuple[Any, list[Any]]:
    """A figure of small panels over two columns of a paper, and its axes."""
    columns = 3 if columns == 4 and count in (5, 6, 9) else min(columns, count)
    rows = -(-count // columns)
    width = style.PAGE if columns > 2 else style.COLUMN
    drawn = style.figure(width, height * rows + 0.3 + 0.2 * legend)
    grid = drawn.subplots(rows, columns, squeeze=False, sharex=True)
    found = list(grid.ravel())
    for axes in found[count:]:
        axes.set_axis_off()
    for at, axes in enumerate(found[:count]):
        axes.locator_params(axis="y", nbins=3)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelbottom=at + columns >= count)
    return drawn, found[:count]


def series(x: np.ndarray, length: Any = None, mask: Any = None) -> list[np.ndarray]:
    """Rows of x [N, T, C] each up to its length, NaN where not observed, [T, C]."""
    x = np.asarray(x, np.float64)
    if mask is not None:
        x = np.where(np.asarray(mask), x, np.nan)
    return [row if length is None else row[: int(length[at])] for at, row in enumerate(x)]
