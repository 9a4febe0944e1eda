"""Pictures of lines: sequences, reconstructions, forecasts, and norms on a logarithmic axis.

Training draws these pictures for every run, so one picture costs a few milliseconds: Pillow draws it, and matplotlib is
never imported. Equal input gives equal bytes. Pillow draws lines without smooth edges; they are therefore drawn `FINE`
times larger and then averaged. Values that are not finite leave gaps.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.evaluation.views import COLORS, channel_names, class_colors, grid, series

CHANNELS = 3  # of every sequence the first ones are drawn
PANEL = 110, 230  # height and width of one panel of a grid, pixels
COLUMNS = 4
FINE = 4  # lines are drawn this much larger and then averaged
SIZE, LINE = 11, 13  # of the letters and from one line of text to the next, pixels
WIDTH = 1.6  # of a line, pixels
DASH, PERIOD = 5, 9  # pixels
FRAME, GREY, INK = "#C8C8C8", "#7F7F7F", "#3C3C3C"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of values over steps.

    Attributes:
      y: values, [T].
      color: name or `#RRGGBB`.
      dashed: draws the line in dashes.
      start: step of the first value.
      band: lower and upper edge of a light area behind all lines, each [T].
    """

    y: np.ndarray
    color: str
    dashed: bool = False
    start: int = 0
    band: tuple[np.ndarray, np.ndarray] | None = None


def limits(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value, made to differ by at least a little; 0 and 1 where no value is finite."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    least = max(abs(low), abs(high), 1e-6) * 1e-6
    return (low, high) if high - low > least else (low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2)


def number(value: float) -> str:
    """A value with two or three significant digits, in at most six letters: `-1.3`, `0.05`, `1200`, `3e-05`."""
    if value == 0:
        return "0"
    plain = f"{value:.3g}" if 0.01 <= abs(value) < 1000 else f"{value:.0f}" if 1 <= abs(value) < 1e5 else f"{value:.0e}"
    return plain if len(plain) <= 6 else f"{value:.2g}"


def lighter(color: str, share: float = 0.55) -> str:
    """The color mixed with a share of white."""
    values = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(value + (255 - value) * share):02X}" for value in values)


# --------------------------------------------------------------------------------------------------------- drawing


@functools.cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(SIZE)


def _spaced(text: str) -> str:
    return text.replace(" ", "  ")  # a single space of Pillow's font is hardly seen at this size


def _length(text: str) -> int:
    """Width of a text, pixels."""
    return int(np.ceil(_font().getlength(_spaced(text))))


def write(picture: Any, text: str, left: float, top: float, color: str = GREY, anchor: str = "la") -> None:
    """Write one line of text on an image of Pillow; the anchor says which point of the text lies at (left, top)."""
    from PIL import ImageDraw

    ImageDraw.Draw(picture).text((left, top), _spaced(text), fill=color, font=_font(), anchor=anchor)


def _pieces(positions: np.ndarray) -> list[np.ndarray]:
    """The stretches of positions [N, 2] between gaps."""
    finite = np.isfinite(positions).all(-1)
    cuts = np.flatnonzero(np.diff(finite)) + 1
    return [piece for piece in np.split(positions, cuts) if len(piece) and np.isfinite(piece[0, 0])]


def _dashes(piece: np.ndarray) -> list[np.ndarray]:
    """A line [N, 2] cut into dashes of five pixels with four between them."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(piece, axis=0).T))])
    dashes = []
    for begin in np.arange(0, along[-1], PERIOD):
        end = min(begin + DASH, along[-1])
        inside = along[(along > begin) & (along < end)]
        positions = np.concatenate([[begin], inside, [end]])
        dashes.append(np.stack([np.interp(positions, along, piece[:, axis]) for axis in (0, 1)], -1))
    return dashes


def stroke(draw: Any, positions: np.ndarray, color: str, *, dashed: bool = False, width: float = WIDTH) -> None:
    """Draw straight lines from point to point [N, 2]; a point between two gaps becomes a dot."""
    for piece in _pieces(positions):
        if len(piece) == 1:
            (x, y), radius = piece[0] * FINE, 1.25 * width * FINE
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
            continue
        for line in _dashes(piece) if dashed else [piece]:
            draw.line((line * FINE).ravel().tolist(), fill=color, width=round(width * FINE))


def line_panel(
    curves: Sequence[Curve], *, size: tuple[int, int] = PANEL, marks: Sequence[int] = (), logarithmic: bool = False
) -> np.ndarray:
    """Curves over steps in one frame, with the ranges of both axes written beside it.

    Args:
      size: height and width of the picture, pixels.
      marks: steps at which a thin vertical line is drawn.
      logarithmic: whether y is the logarithm of what is drawn, to the base 10; the range is that of powers.

    Returns:
      [height, width, 3] uint8.
    """
    from PIL import Image, ImageDraw

    edges = [edge for curve in curves for edge in curve.band or ()]
    low, high = limits(np.concatenate([np.zeros(0), *(curve.y for curve in curves), *edges]))
    first = min((curve.start for curve in curves), default=0)
    last = max((curve.start + len(curve.y) for curve in curves), default=1) - 1
    labels = [number(10**value if logarithmic else value) for value in (high, low)]
    left, top = max(map(_length, labels)) + 5, 3
    height, width = size[0] - top - LINE - 2, size[1] - left - 4
    bottom, right = top + height, left + width

    def positions(x: Any, y: Any) -> np.ndarray:
        """Pixels [N, 2] of points (x, y), from the left and from the top; NaN where y is not finite."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        across = (x - first) / (last - first) if last > first else np.full(len(x), 0.5)
        down = (high - y) / (high - low)
        points = np.stack([left + 0.5 + across * (width - 1), top + 0.5 + down * (height - 1)], -1)
        return np.where(np.isfinite(points).all(-1, keepdims=True), points, np.nan)

    fine = Image.new("RGB", (size[1] * FINE, size[0] * FINE), "white")
    draw = ImageDraw.Draw(fine)
    corners = ((left - 1) * FINE, (top - 2) * FINE, (right + 1) * FINE - 1, (bottom + 2) * FINE - 1)
    draw.rectangle(corners, outline=FRAME, width=FINE)
    for mark in marks:
        stroke(draw, positions([mark, mark], [low, high]), FRAME, width=1)
    for curve in [curve for curve in curves if curve.band is not None]:
        x = curve.start + np.arange(len(curve.y))
        for piece in _pieces(np.concatenate([positions(x, edge) for edge in curve.band or ()], -1)):
            around = np.concatenate([piece[:, :2], piece[::-1, 2:]])
            draw.polygon((around * FINE).ravel().tolist(), fill=lighter(curve.color, 0.75))
    for curve in curves:
        x = curve.start + np.arange(len(curve.y))
        stroke(draw, positions(x, curve.y), curve.color, dashed=curve.dashed)

    picture = fine.reduce(FINE)
    write(picture, labels[0], left - 3, top - 1, anchor="ra")
    write(picture, labels[1], left - 3, bottom + 1, anchor="rs")
    write(picture, str(first), left, bottom + 3)
    write(picture, str(last), right, bottom + 3, anchor="ra")
    return np.asarray(picture)


Entry = tuple[str, str, bool]  # name, color, whether its line is dashed


def legend(entries: Sequence[Entry], width: int) -> np.ndarray:
    """A strip [13, width, 3] with a short line and a name for each entry; entries that do not fit are left out."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width * FINE, LINE * FINE), "white")
    draw = ImageDraw.Draw(picture)
    shown, left = [], 4
    for name, color, dashed in entries:
        if left + 18 + _length(name) > width:
            break
        stroke(draw, np.array([[left, LINE / 2], [left + 14, LINE / 2]]), color, dashed=dashed)
        shown.append((name, left + 18))
        left += 30 + _length(name)
    picture = picture.reduce(FINE)
    for name, position in shown:
        write(picture, name, position, 0, INK)
    return np.asarray(picture)


def _panels(tiles: Sequence[np.ndarray], entries: Sequence[Entry]) -> np.ndarray:
    """Panels in a grid below a legend."""
    whole = grid(np.stack(tiles), min(COLUMNS, len(tiles)))
    return np.concatenate([legend(entries, whole.shape[1]), whole])


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture with one line of text below it."""
    from PIL import Image

    below = Image.new("RGB", (picture.shape[1], LINE + 2), "white")
    write(below, text, 4, 0, INK)
    return np.concatenate([picture, np.asarray(below)])


def _names(channels: int, columns: Sequence[str] | None) -> list[str]:
    shown = min(channels, CHANNELS)
    names = channel_names(columns, shown)
    return names if shown == channels else [*names[:-1], f"{names[-1]} (of {channels})"]


def class_legend(names: Sequence[str], width: int) -> np.ndarray:
    """Strips [13 n, width, 3] with the color and the name of each class, in as many lines as they need."""
    lines: list[list[Entry]] = [[]]
    left = 0
    for name, color in zip(names, class_colors(len(names)), strict=True):
        if lines[-1] and left + 30 + _length(name) > width:
            lines.append([])
            left = 0
        lines[-1].append((name, color, False))
        left += 30 + _length(name)
    return np.concatenate([legend(entries, width) for entries in lines])


def named_rows(picture: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A picture [H, W, 3] of rows of one height, with the name of each row at its left."""
    from PIL import Image

    margin = max(map(_length, names)) + 6
    beside = Image.new("RGB", (margin, len(picture)), "white")
    for row, name in enumerate(names):
        write(beside, name, margin - 4, (row + 0.5) * len(picture) / len(names), INK, anchor="rm")
    return np.concatenate([np.asarray(beside), picture], 1)


# -------------------------------------------------------------------------------------------------------- pictures


def sequences(
    x: np.ndarray,
    length: np.ndarray | None = None,
    observed: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
) -> np.ndarray:
    """A panel for every row of x [N, T, C], its first three channels in one frame.

    Args:
      length: valid steps, [N].
      observed: False leaves a gap, [N, T, C].
      columns: names of the channels.
    """
    tiles = [line_panel(list(map(Curve, row.T[:CHANNELS], COLORS))) for row in series(x, length, observed)]
    names = _names(x.shape[2], columns)
    return _panels(tiles, [(name, color, False) for name, color in zip(names, COLORS, strict=False)])


def reconstructions(
    x: np.ndarray,
    output: np.ndarray,
    length: np.ndarray | None = None,
    observed: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
) -> np.ndarray:
    """A panel for every row of x [N, T, C]: inputs in light colors, reconstructions [N, T, C] dashed over them.

    Args:
      length: valid steps of both, [N].
      observed: False leaves a gap in the input, [N, T, C]; the reconstruction goes on.
      columns: names of the channels.
    """
    light = [lighter(color) for color in COLORS[:CHANNELS]]
    tiles = []
    for inputs, outputs in zip(series(x, length, observed), series(output, length), strict=True):
        curves = list(map(Curve, inputs.T[:CHANNELS], light))
        curves += [Curve(y, color, dashed=True) for y, color in zip(outputs.T[:CHANNELS], COLORS, strict=False)]
        tiles.append(line_panel(curves))
    entries = [(name, color, False) for name, color in zip(_names(x.shape[2], columns), light, strict=False)]
    return _panels(tiles, [*entries, ("reconstruction", COLORS[0], True)])


def forecasts(
    x: np.ndarray,
    target: np.ndarray,
    median: np.ndarray,
    band: tuple[np.ndarray, np.ndarray] | None = None,
    observed: np.ndarray | None = None,
    target_observed: np.ndarray | None = None,
    band_name: str = "80 % interval",
    columns: Sequence[str] | None = None,
) -> np.ndarray:
    """A panel for every row: the end of the look-back, the truth and the forecast of the first channel.

    Step 0 is the first that is forecast. At most as many steps of the look-back are drawn as are forecast.

    Args:
      x: look-back, [N, T, C].
      target, median: truth and forecast, [N, H, C].
      band: lower and upper edge of the interval, each [N, H, C].
      observed, target_observed: False leaves a gap, of the shapes of `x` and `target`.
      band_name: for the legend.
      columns: names of the channels. A line below the panels names the drawn one where there are several.
    """
    blue, orange = COLORS[:2]
    back = min(x.shape[1], target.shape[1])
    before, truth = (
        np.stack(series(values, None, mask))[..., 0] for values, mask in ((x, observed), (target, target_observed))
    )
    tiles = []
    for row in range(len(x)):
        edges = None if band is None else (band[0][row, :, 0], band[1][row, :, 0])
        curves = [
            Curve(before[row, -back:], INK, start=-back),
            Curve(np.concatenate([before[row, -1:], truth[row]]), blue, start=-1),
            Curve(np.asarray(median)[row, :, 0], orange, band=edges),
        ]
        tiles.append(line_panel(curves, marks=[0]))
    entries = [("look-back", INK, False), ("truth", blue, False), ("forecast", orange, False)]
    picture = _panels(tiles, entries if band is None else [*entries, (band_name, lighter(orange, 0.75), False)])
    channels = target.shape[2]
    return picture if channels == 1 else captioned(picture, f"{channel_names(columns, 1)[0]} (of {channels} channels)")


def decay_panel(
    curves: Mapping[str, np.ndarray], title: str = "gradient norm by steps back in time, log scale"
) -> np.ndarray:
    """Norms by distance in time on a logarithmic axis: how far back a gradient reaches.

    A norm of 0, or one more than 12 powers of ten below the largest, is not drawn.

    Args:
      curves: name -> norms [T]; the index is the distance.
      title: one line above the frame.

    Returns:
      [H, W, 3] uint8.
    """
    from PIL import Image

    height, width = 200, 360
    powers = []
    for norms in curves.values():
        norms = np.asarray(norms, np.float64)
        powers.append(np.log10(np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)))
    least = limits(np.concatenate([np.zeros(0), *powers]))[1] - 12
    lines = [
        Curve(np.where(power >= least, power, np.nan), color) for power, color in zip(powers, COLORS, strict=False)
    ]
    above = Image.new("RGB", (width, LINE + 2), "white")
    write(above, title, 4, 1, INK)
    entries = [(name, line.color, False) for name, line in zip(curves, lines, strict=True)]
    panel = line_panel(lines, size=(height, width), logarithmic=True)
    return np.concatenate([np.asarray(above), legend(entries, width), panel])
