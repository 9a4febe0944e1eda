"""Calibration of intervals: the share of values that intervals of each nominal share hold, and its picture.

Intervals are calibrated if the observed share is the nominal one (Gneiting, Balabdaoui & Raftery 2007, "Probabilistic
Forecasts, Calibration and Sharpness"). Below the diagonal they are too narrow, above it too wide.
"""

from collections.abc import Mapping

import numpy as np

from research.evaluation.plots import FINE, FRAME, GREY, INK, LINE, legend, stroke, write
from research.evaluation.views import COLORS

SHARES = {f"{percent}": percent / 100 for percent in (*range(10, 100, 10), 95)}  # nominal, in the names of metrics
CONFORMAL = "_conformal"
SIDE = 240  # of the square, pixels
LEFT, TOP, RIGHT, BOTTOM = 40, 2 * LINE + 6, 12, 4 * LINE + 8  # margins
TICKS = range(0, 101, 20)  # percent
MARK = 2.6  # radius of a point, pixels


def coverages(means: Mapping[str, float], kind: str = "") -> dict[float, float]:
    """Nominal share -> observed share, of the finite metrics `coverage_<percent><kind>`."""
    values = {share: means.get(f"coverage_{name}{kind}", float("nan")) for name, share in SHARES.items()}
    return {share: value for share, value in values.items() if np.isfinite(value)}


def picture(curves: Mapping[str, Mapping[float, float]], values: int) -> np.ndarray:
    """Observed over nominal share in one square, with the diagonal of calibrated intervals, [H, W, 3] uint8.

    Args:
      curves: name of a kind of intervals -> nominal share -> observed share.
      values: number of test values that were counted.
    """
    from PIL import Image, ImageDraw

    width, height = LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM

    def at(nominal: float, observed: float) -> list[float]:
        return [LEFT + nominal * SIDE, TOP + (1 - observed) * SIDE]

    fine = Image.new("RGB", (width * FINE, height * FINE), "white")
    draw = ImageDraw.Draw(fine)
    for tick in TICKS:
        share = tick / 100
        for line in ([at(share, 0), at(share, 1)], [at(0, share), at(1, share)]):
            stroke(draw, np.array(line), FRAME, width=1)
    stroke(draw, np.array([at(0, 0), at(1, 1)]), GREY, dashed=True)
    for curve, color in zip(curves.values(), COLORS, strict=False):
        points = np.array([at(*point) for point in sorted(curve.items())])
        stroke(draw, points, color)
        for x, y in points * FINE:
            draw.ellipse((x - MARK * FINE, y - MARK * FINE, x + MARK * FINE, y + MARK * FINE), fill=color)
    whole = fine.reduce(FINE)
    for tick in TICKS:
        (x, _), (_, y) = at(tick / 100, 0), at(0, tick / 100)
        write(whole, f"{tick}", x, TOP + SIDE + 4, anchor="ma")
        write(whole, f"{tick}", LEFT - 5, y, anchor="rm")
    write(whole, "observed: % of test values inside the interval", 4, 1, INK)
    below = TOP + SIDE + LINE + 6
    write(whole, "nominal: % that the interval claims", LEFT + SIDE / 2, below, INK, anchor="ma")
    write(whole, f"{values:,} test values; below the diagonal:", 4, below + LINE + 3, GREY)
    write(whole, "intervals too narrow, above it too wide", 4, below + 2 * LINE + 3, GREY)
    canvas = np.array(whole)
    entries = [(name, color, False) for name, color in zip(curves, COLORS, strict=False)]
    canvas[LINE + 2 : 2 * LINE + 2] = legend([*entries, ("calibrated", GREY, True)], width)
    return canvas
