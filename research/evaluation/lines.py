"""Lines, areas and letters on a picture; numpy only."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from research.evaluation.canvas import PALETTE
from research.evaluation.glyphs import HEIGHT, WIDTH, text

FINE = 3  # lines are drawn this much larger and then averaged: smooth edges
FRAME, GREY, INK = (200, 200, 200), (127, 127, 127), (60, 60, 60)

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Area:
    """The place of the curves in a picture, and the values at its borders.

    Attributes:
      top, left, height, width: pixels.
      first, last: x at the left and at the right border.
      low, high: y at the lower and at the upper border.
    """

    top: int
    left: int
    height: int
    width: int
    first: float
    last: float
    low: float
    high: float

    def at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column in the picture, pixels with fractions."""
        down = (self.high - y) / (self.high - self.low)
        right = (x - self.first) / (self.last - self.first) if self.last > self.first else np.full(np.shape(x), 0.5)
        return self.top + 0.5 + down * (self.height - 1), self.left + 0.5 + right * (self.width - 1)


def limits(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; apart by at least a little, 0 to 1 where there is none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    least = max(abs(low), abs(high), 1e-6) * 1e-6
    return (low, high) if high - low > least else (low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2)


def number(value: float) -> str:
    """At most six letters with two or three digits that count: `-1.3`, `0.05`, `1200`, `3e-05`."""
    if value == 0:
        return "0"
    plain = f"{value:.3g}" if 0.01 <= abs(value) < 1000 else f"{value:.0f}" if 1 <= abs(value) < 1e5 else f"{value:.0e}"
    return plain if len(plain) <= 6 else f"{value:.2g}"


def ticks(last: int) -> list[int]:
    """Round numbers from 0 to `last`, at most six."""
    for power in range(12):
        for lead in (1, 2, 5):
            step = lead * 10**power
            if last // step <= 5:
                return list(range(0, last + 1, step))
    raise ValueError(f"no axis reaches to {last}")


def color(number: int) -> Color:
    """The color of a curve by its number; they come again after ten."""
    red, green, blue = (int(part) for part in PALETTE[number % len(PALETTE)])
    return red, green, blue


def lighter(color: Color, share: float = 0.55) -> Color:
    """The color mixed with white."""
    red, green, blue = (round(value + (255 - value) * share) for value in color)
    return red, green, blue


def write(picture: np.ndarray, words: str, row: int, column: int, color: Color, align: str = "left") -> None:
    """Write one line of text with its upper left (or upper right) corner at a pixel; what lies outside is cut off."""
    ink = text(words)
    column = column - ink.shape[1] if align == "right" else column
    rows, columns = np.nonzero(ink)
    rows, columns = rows + row, columns + column
    inside = (rows >= 0) & (rows < picture.shape[0]) & (columns >= 0) & (columns < picture.shape[1])
    picture[rows[inside], columns[inside]] = color


def frame(picture: np.ndarray, area: Area) -> None:
    """A thin grey line around an area."""
    picture[[area.top - 2, area.top + area.height + 1], area.left - 1 : area.left + area.width + 1] = FRAME
    picture[area.top - 2 : area.top + area.height + 2, [area.left - 1, area.left + area.width]] = FRAME


def draw(
    picture: np.ndarray,
    area: Area,
    x: np.ndarray,
    y: np.ndarray,
    color: Color,
    *,
    dashed: bool = False,
    thickness: float = 1.6,
) -> None:
    """Draw straight lines from point to point, with smooth edges, on a picture; values that are not finite are gaps."""
    rows, columns = area.at(np.asarray(x, np.float64), np.asarray(y, np.float64))
    finite = np.isfinite(rows) & np.isfinite(columns)
    rows, columns = np.where(finite, rows, 0) * FINE, np.where(finite, columns, 0) * FINE
    whole = finite[:-1] & finite[1:]
    lengths = np.where(whole, np.hypot(np.diff(rows), np.diff(columns)), 0)
    pieces = np.maximum(np.ceil(lengths).astype(int), 1) * whole  # points closer than one fine pixel
    segment = np.repeat(np.arange(len(pieces)), pieces)
    share = (np.arange(len(segment)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / np.maximum(pieces[segment], 1)
    along = np.cumsum(lengths)[segment] - lengths[segment] * (1 - share) if len(segment) else np.zeros(0)
    down = rows[:-1][segment] * (1 - share) + rows[1:][segment] * share
    right = columns[:-1][segment] * (1 - share) + columns[1:][segment] * share
    if dashed:
        visible = along % (9 * FINE) < 5 * FINE
        down, right = down[visible], right[visible]
    else:
        down, right = np.concatenate([down, rows[finite]]), np.concatenate([right, columns[finite]])
    fine = np.zeros((picture.shape[0] * FINE, picture.shape[1] * FINE), bool)
    _stamp(fine, down, right, thickness)
    joined = np.append(whole, False) | np.insert(whole, 0, False) if len(finite) else finite
    _stamp(fine, rows[finite & ~joined], columns[finite & ~joined], 2.5 * thickness)  # a point alone would be too small
    _blend(picture, fine, color, 1.0)


def _stamp(fine: np.ndarray, down: np.ndarray, right: np.ndarray, thickness: float) -> None:
    """Make all True that lies within half a thickness of any of the points, on the finer grid."""
    radius = thickness * FINE / 2
    reach = np.arange(-int(radius), int(radius) + 1)
    at = np.floor(down).astype(int), np.floor(right).astype(int)
    for below in reach:
        for beside in reach:
            if below**2 + beside**2 <= radius**2:
                rows = np.clip(at[0] + below, 0, fine.shape[0] - 1)
                fine[rows, np.clip(at[1] + beside, 0, fine.shape[1] - 1)] = True


def fill(picture: np.ndarray, area: Area, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: Color) -> None:
    """Draw the area between two curves in a light color; nothing where one of them is not finite."""
    finite = np.isfinite(low) & np.isfinite(high)
    if not finite.any():
        return
    columns = (np.arange(picture.shape[1] * FINE) + 0.5) / FINE
    _, places = area.at(np.asarray(x, np.float64), low)
    nearest = np.clip(np.searchsorted((places[1:] + places[:-1]) / 2, columns), 0, len(places) - 1)
    inside = (columns >= places[0]) & (columns <= places[-1]) & finite[nearest]
    edges = [np.interp(columns, places[finite], area.at(x[finite], edge[finite])[0]) for edge in (high, low)]
    rows = (np.arange(picture.shape[0] * FINE)[:, None] + 0.5) / FINE
    _blend(picture, (rows >= edges[0]) & (rows <= edges[1]) & inside, color, 0.25)


def _blend(picture: np.ndarray, fine: np.ndarray, color: Color, opacity: float) -> None:
    """Put a color over a picture where the finer grid is True, by the share of each pixel that it covers."""
    height, width = picture.shape[:2]
    cover = opacity * fine.reshape(height, FINE, width, FINE).mean((1, 3))[..., None]
    np.copyto(picture, np.rint(picture * (1 - cover) + np.array(color) * cover).astype(np.uint8))


def legend(entries: Sequence[tuple[str, Color, bool]], width: int) -> np.ndarray:
    """A strip [13, width, 3] with a short line (dashed or not) and a name for every entry."""
    strip = np.full((HEIGHT + 4, width, 3), 255, np.uint8)
    column = 4
    for name, color, dashed in entries:
        if column + 18 + WIDTH * len(name) > width:
            break
        area = Area(0, column, HEIGHT + 4, 14, 0, 1, 0, 1)
        draw(strip, area, np.array([0.0, 1.0]), np.array([0.5, 0.5]), color, dashed=dashed)
        write(strip, name, 3, column + 18, INK)
        column += 18 + WIDTH * len(name) + 2 * WIDTH
    return strip
