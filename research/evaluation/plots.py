"""Pictures of lines: sequences, reconstructions, forecasts, and norms on a logarithmic axis; numpy only."""

from collections.abc import Mapping, Sequence

import numpy as np

from research.evaluation import lines
from research.evaluation.canvas import grid
from research.evaluation.glyphs import HEIGHT, WIDTH

CHANNELS = 3  # drawn of every sequence, the first ones
PANEL = 110, 230  # height and width of one panel of a grid, pixels
COLUMNS = 4


def line_panel(
    curves: Sequence[np.ndarray],
    *,
    height: int,
    width: int,
    colors: Sequence[lines.Color],
    bands: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None,
    dashed: Sequence[bool] = (),
    starts: Sequence[int] = (),
    title: str = "",
    marks: Sequence[int] = (),
) -> np.ndarray:
    """Curves over steps in one frame, with the ranges of both axes written beside it.

    Values that are not finite leave gaps; lengths may differ.

    Args:
      curves: each [T].
      height, width: of the picture, pixels.
      colors: of each curve, red, green, blue.
      bands: number of a curve -> low [T], high [T]: a light area behind all curves, in its color and from its start.
      dashed: of each curve; absent: none is.
      starts: step of the first value of each curve; absent: 0.
      title: one line above.
      marks: steps at which a thin vertical line is drawn.

    Returns:
      [height, width, 3] uint8.
    """
    picture = np.full((height, width, 3), 255, np.uint8)
    starts = [*starts, *[0] * (len(curves) - len(starts))]
    dashed = [*dashed, *[False] * (len(curves) - len(dashed))]
    curves = [np.asarray(curve, np.float64) for curve in curves]
    areas = {at: [np.asarray(edge, np.float64) for edge in band] for at, band in (bands or {}).items()}
    values = np.concatenate([np.zeros(0), *curves, *(edge for band in areas.values() for edge in band)])
    low, high = lines.limits(values)
    ends = [start + len(curve) for start, curve in zip(starts, curves, strict=True)]
    first, last = min(starts, default=0), max(ends, default=1) - 1
    labels = lines.number(high), lines.number(low)
    left = WIDTH * max(len(label) for label in labels) + 4
    top = HEIGHT + 4 if title else 3
    area = lines.Area(top, left, height - top - HEIGHT - 5, width - left - 4, first, last, low, high)
    lines.frame(picture, area)
    lines.write(picture, title, 1, left, lines.INK)
    lines.write(picture, labels[0], area.top - 1, left - 2, lines.GREY, align="right")
    lines.write(picture, labels[1], area.top + area.height - HEIGHT + 1, left - 2, lines.GREY, align="right")
    below = area.top + area.height + 4
    lines.write(picture, str(first), below, left, lines.GREY)
    lines.write(picture, str(last), below, left + area.width, lines.GREY, align="right")
    for mark in marks:
        _, column = area.at(np.array([mark]), np.array([low]))
        picture[area.top : area.top + area.height, int(column[0])] = lines.FRAME
    for at, (lower, upper) in areas.items():
        lines.fill(picture, area, starts[at] + np.arange(len(lower)), lower, upper, colors[at])
    for curve, start, color, broken in zip(curves, starts, colors, dashed, strict=True):
        lines.draw(picture, area, start + np.arange(len(curve)), curve, color, dashed=broken)
    return picture


def _channel_colors(channels: int) -> list[lines.Color]:
    return [lines.color(channel) for channel in range(min(channels, CHANNELS))]


def _panels(tiles: Sequence[np.ndarray], entries: Sequence[tuple[str, lines.Color, bool]]) -> np.ndarray:
    """Panels in a grid below a legend."""
    whole = grid(np.stack(tiles), min(COLUMNS, len(tiles)))
    return np.concatenate([lines.legend(entries, whole.shape[1]), whole])


def _valid(x: np.ndarray, length: np.ndarray | None, observed: np.ndarray | None) -> list[np.ndarray]:
    """Rows of x [N, T, C], each up to its length, NaN where not observed."""
    x = np.asarray(x, np.float64)
    x = x if observed is None else np.where(observed, x, np.nan)
    return [row if length is None else row[: int(length[number])] for number, row in enumerate(x)]


def _names(channels: int) -> list[str]:
    shown = min(channels, CHANNELS)
    names = [f"channel {channel}" for channel in range(shown)]
    return names if shown == channels else [*names[:-1], f"{names[-1]} (of {channels})"]


def sequences(
    x: np.ndarray, length: np.ndarray | None = None, observed: np.ndarray | None = None, titles: Sequence[str] = ()
) -> np.ndarray:
    """A panel for every row of x [N, T, C], its first three channels in one frame.

    Args:
      length: valid steps, [N].
      observed: False leaves a gap, [N, T, C].
      titles: one line above each panel.
    """
    colors, (height, width) = _channel_colors(x.shape[2]), PANEL
    tiles = [
        line_panel(
            list(row.T[:CHANNELS]), height=height, width=width, colors=colors, title=titles[at] if titles else ""
        )
        for at, row in enumerate(_valid(x, length, observed))
    ]
    names = _names(x.shape[2])
    return _panels(tiles, [(name, color, False) for name, color in zip(names, colors, strict=True)])


def reconstructions(
    x: np.ndarray, output: np.ndarray, length: np.ndarray | None = None, observed: np.ndarray | None = None
) -> np.ndarray:
    """A panel for every row of x [N, T, C]: inputs in light colors, reconstructions [N, T, C] dashed over them.

    Args:
      length: valid steps of both, [N].
      observed: False leaves a gap in the input, [N, T, C]; the reconstruction goes on.
    """
    colors, (height, width) = _channel_colors(x.shape[2]), PANEL
    light = [lines.lighter(own) for own in colors]
    tiles = []
    for row, found in zip(_valid(x, length, observed), _valid(output, length, None), strict=True):
        curves = [*row.T[:CHANNELS], *found.T[:CHANNELS]]
        dashed = [False] * len(colors) + [True] * len(colors)
        tiles.append(line_panel(curves, height=height, width=width, colors=[*light, *colors], dashed=dashed))
    entries = [(name, color, False) for name, color in zip(_names(x.shape[2]), light, strict=True)]
    return _panels(tiles, [*entries, ("reconstruction", colors[0], True)])


def forecasts(
    x: np.ndarray,
    target: np.ndarray,
    median: np.ndarray,
    band: tuple[np.ndarray, np.ndarray] | None = None,
    channel: int = 0,
    observed: np.ndarray | None = None,
    target_observed: np.ndarray | None = None,
    band_name: str = "80 % band",
) -> np.ndarray:
    """A panel for every row: the end of the look-back, the truth and the forecast of one channel.

    Step 0 is the first that is forecast. The look-back is shown for at most as many steps as the horizon.

    Args:
      x: look-back, [N, T, C].
      target, median: truth and forecast, [N, H, C].
      band: lower and upper quantile, each [N, H, C].
      channel: which channel.
      observed, target_observed: False leaves a gap, of the shapes of `x` and `target`.
      band_name: for the legend.
    """
    blue, orange, _ = _channel_colors(CHANNELS)
    shown = min(x.shape[1], target.shape[1])
    before, truth = (
        np.stack(_valid(values, None, there))[..., channel]
        for values, there in ((x, observed), (target, target_observed))
    )
    tiles = []
    for row in range(len(x)):
        bands = None if band is None else {2: (band[0][row, :, channel], band[1][row, :, channel])}
        joined = np.concatenate([before[row, -1:], truth[row]])
        curves = [before[row, -shown:], joined, np.asarray(median)[row, :, channel]]
        panel = line_panel(
            curves,
            height=PANEL[0],
            width=PANEL[1],
            colors=[lines.INK, blue, orange],
            bands=bands,
            starts=[-shown, -1, 0],
            marks=[0],
        )
        tiles.append(panel)
    entries = [("look-back", lines.INK, False), ("truth", blue, False), ("forecast", orange, False)]
    return _panels(tiles, entries if band is None else [*entries, (band_name, lines.lighter(orange, 0.75), False)])


def decay_panel(curves: Mapping[str, np.ndarray], height: int = 240, width: int = 360, title: str = "") -> np.ndarray:
    """Norms by distance in time on a logarithmic axis: how far back a gradient reaches.

    Norms of 0, or more than 12 powers of ten below the largest, lie below the lower border, where their curve ends.

    Args:
      curves: name -> norms [T]; the index is the distance.
      height, width: pixels.
      title: one line above.

    Returns:
      [height, width, 3] uint8.
    """
    picture = np.full((height, width, 3), 255, np.uint8)
    exponents = {}
    for name, norms in curves.items():
        norms = np.asarray(norms, np.float64)
        exponents[name] = np.log10(np.where(np.isfinite(norms) & (norms > 0), norms, np.nan))
    low, high = lines.limits(np.concatenate([np.zeros(0), *exponents.values()]))
    low, high = np.floor(max(low, high - 12)), np.ceil(high)
    low = low if high > low else high - 1
    last = max((len(norms) for norms in curves.values()), default=2) - 1
    colors = [lines.color(at) for at in range(len(curves))]
    strip = lines.legend([(name, color, False) for name, color in zip(curves, colors, strict=True)], width)
    picture[HEIGHT + 4 : HEIGHT + 4 + len(strip)] = strip
    top, left = 2 * HEIGHT + 12, 40
    area = lines.Area(top, left, height - top - 2 * HEIGHT - 12, width - left - 8, 0, max(last, 1), low, high)
    lines.frame(picture, area)
    lines.write(picture, title or "gradient norm", 3, 4, lines.INK)
    step = max(1, int(np.ceil((high - low) * (HEIGHT + 3) / area.height)))
    for exponent in np.arange(high, low - 0.5, -step):
        row = int(area.at(np.zeros(1), np.array([exponent]))[0][0])
        picture[row, area.left : area.left + area.width] = (235, 235, 235)
        lines.write(picture, f"1e{int(exponent)}" if exponent else "1", row - 3, left - 4, lines.GREY, align="right")
    for tick in lines.ticks(last):
        column = int(area.at(np.array([float(tick)]), np.array([low]))[1][0])
        picture[area.top + area.height + 1 : area.top + area.height + 4, column] = lines.GREY
        ink = WIDTH * len(str(tick)) - 1
        at = min(column - ink // 2, width - ink - 1)
        lines.write(picture, str(tick), area.top + area.height + 6, at, lines.GREY)
    words = "steps back in time"
    lines.write(picture, words, height - HEIGHT - 1, left + (area.width - WIDTH * len(words)) // 2, lines.GREY)
    for norms, color in zip(exponents.values(), colors, strict=True):
        shown = np.where(norms >= low, norms, np.nan)
        lines.draw(picture, area, np.arange(len(norms)), shown, color)
    return picture
