"""Every figure is a `Chart`: it describes panels with lines, marks, bands, cells or images, and `draw` draws them."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.evaluation.views import COLORS, grid, pixels
from research.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # distinguish lines without color
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
BASELINE_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (2, 3)))
OPACITY = 0.16  # of a band
SMALL = 6.2  # size of numbers beside marks, points
LETTERS = 15  # of a title on an inch
TILE = 48  # least pixels a side of an image: viewers of vector files smooth images that they enlarge
GAP = 0.08  # between images, share of one

Limits = tuple[float, float]
Numbers = Sequence[float] | np.ndarray
Text = tuple[float, float, str, Mapping[str, Any]]  # x, y, text, arguments of matplotlib's `Axes.annotate`


@dataclasses.dataclass(frozen=True)
class Line:
    """Points that are joined by a line or marked; NaN leaves a gap.

    Attributes:
      look: arguments of matplotlib's `Axes.plot`; has a `color`.
      name: in the legend, where equal names appear once; the empty string has no entry.
      band: lower and upper edge at each x, drawn as a light area that the legend calls `band_name`.
      shades: numbers that color the marks, instead of the `color`; a bar named `shades_name` explains them.
    """

    x: Numbers
    y: Numbers
    look: Mapping[str, Any]
    name: str = ""
    band: tuple[Numbers, Numbers] | None = None
    band_name: str = ""
    shades: Numbers | None = None
    shades_name: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
      x_limits, y_limits: of the axes; None leaves them to matplotlib.
      logarithmic: whether the vertical axis is.
      labels: (x, y, text) of points; a label that would lie over another one is left out.
      cells: shades from 0 (light) to 1 (dark), [R, C]; a cell of NaN is hatched.
      image: [H, W, 3] uint8, of as many rows and columns of tiles as the chart has names for.
    """

    lines: Sequence[Line] = ()
    title: str = ""
    x_limits: Limits | None = None
    y_limits: Limits | None = None
    logarithmic: bool = False
    texts: Sequence[Text] = ()
    labels: Sequence[tuple[float, float, str]] = ()
    cells: np.ndarray | None = None
    image: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Chart:
    """Panels in a grid with common labels, and one legend above all of them.

    Attributes:
      at: values of a swept key, at which alone the horizontal axis has ticks; it is logarithmic where they reach far.
      row_names, column_names: at 0, 1, ... on the vertical axis, from the top downwards, and on the horizontal axis.
      upright: writes the names of columns upwards, since they are long.
      small: draws small panels with one horizontal axis for all, of series over steps.
      legend_title: above the entries of the legend.
      bare: draws no axes.
      aspect: length of a unit of the vertical axis over that of the horizontal one; None fills the panel.
      width, height: of the figure, inches; None chooses by what is drawn.
    """

    panels: Sequence[Panel]
    x_label: str = ""
    y_label: str = ""
    at: Sequence[float] = ()
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()
    upright: bool = False
    small: bool = False
    legend_title: str = ""
    bare: bool = False
    aspect: float | None = None
    width: float | None = None
    height: float | None = None

    def draw(self) -> "Figure":
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        number = len(self.panels)
        columns = number if number <= 4 else 3 if number in (5, 6, 9) else 4
        rows = -(-number // columns)
        entries = self._entries()
        size = self._size(rows, columns, len(entries))
        figure = Figure(figsize=size, layout="constrained", facecolor="white")  # of no window and no global list
        FigureCanvasAgg(figure)
        of_equal_limits = len({panel.y_limits for panel in self.panels} - {None}) == 1
        share_y = bool(self.row_names) or of_equal_limits
        grid = figure.subplots(rows, columns, squeeze=False, sharex=self.small, sharey=share_y).ravel()
        for axes in grid[number:]:
            axes.set_axis_off()
        one_label = self.small or (number == 1 and bool(self.row_names) and not self.column_names)
        for at, (axes, panel) in enumerate(zip(grid, self.panels, strict=False)):
            axes.set_title(_wrapped(panel.title, int(LETTERS * size[0] / columns)))
            self._draw_panel(axes, panel, ticks=(3 if columns > 2 else 5, 3 if self.small else 5))
            if at % columns == 0:
                axes.set_ylabel(self.y_label)
            if at + columns >= number:
                axes.set_xlabel("" if one_label else self.x_label)
                axes.tick_params(labelbottom=True)
        if one_label:
            figure.supxlabel(self.x_label, fontsize=8)
        if entries:
            legend_above(figure, entries, self.legend_title)
        _label_points(
            figure, [(axes, *label) for axes, panel in zip(grid, self.panels, strict=False) for label in panel.labels]
        )
        return figure

    def _size(self, rows: int, columns: int, entries: int) -> tuple[float, float]:
        """Width and height, inches."""
        width, height = style.COLUMN, 2.1 * rows + 0.5
        if columns > 1 or entries > 8:
            width, height = style.PAGE, (1.15 if self.small else 1.8) * rows + 0.5
        if self.row_names:
            height = (0.6 + 0.2 * len(self.row_names)) * rows + 0.4
        if self.column_names:
            width = max(width, min(style.PAGE, 0.9 + 0.55 * len(self.column_names)))
            height = 0.8 + 0.34 * len(self.row_names)
        return self.width or width, self.height or height

    def _draw_panel(self, axes: "Axes", panel: Panel, ticks: tuple[int, int]) -> None:
        _draw_tiles(axes, panel)
        for line in panel.lines:
            _draw_line(axes, line)
        for x, y, text, look in panel.texts:
            axes.annotate(text, (x, y), **look)
        if self.bare:
            axes.set_axis_off()
        whole = all(float(x).is_integer() for line in panel.lines for x in line.x)
        _ticks(axes.xaxis, ticks[0], whole)
        if panel.logarithmic:
            _logarithmic(axes)
        else:
            _ticks(axes.yaxis, ticks[1])
        if self.at:
            _ticks_at(axes, self.at)
        if panel.x_limits is not None:
            axes.set_xlim(*panel.x_limits)
        if panel.y_limits is not None:
            axes.set_ylim(*panel.y_limits)
        if self.column_names:
            axes.set_xticks(range(len(self.column_names)), self.column_names, rotation=90 if self.upright else 0)
            axes.set_xlim(-0.5, len(self.column_names) - 0.5)
        elif self.row_names:
            axes.margins(x=0.08)
        if self.row_names:
            axes.set_yticks(range(len(self.row_names)), self.row_names)
            axes.set_ylim(len(self.row_names) - 0.5, -0.5)
        if self.aspect is not None:
            axes.set_aspect(self.aspect, adjustable="box" if self.column_names else "datalim")

    def _entries(self) -> dict[str, Any]:
        """Name -> handle of the legend, in the order of the lines."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        entries: dict[str, Any] = {}
        for line in [line for panel in self.panels for line in panel.lines]:
            if line.name:
                entries.setdefault(line.name, Line2D([], [], **line.look))
            if line.band_name:
                entries.setdefault(line.band_name, Patch(color=line.look["color"], alpha=OPACITY, linewidth=0))
        return entries


def _wrapped(title: str, letters: int) -> str:
    """A title in lines of so many letters, so that it does not reach into that of the next panel."""
    return "\n".join(textwrap.fill(line, letters, break_long_words=False) for line in title.split("\n"))


# ------------------------------------------------------------------------------------------- descriptions that recur


def images(
    rows: Sequence[np.ndarray],
    reach: Limits,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    x_label: str = "",
) -> Chart:
    """Images in a grid.

    Args:
      rows: each [N, H, W] or [N, H, W, C], equally many.
      reach: values that are drawn black and white.
    """
    tiles, columns = pixels(np.concatenate(rows), *reach, TILE), len(rows[0])
    whole = grid(tiles, columns, max(1, round(GAP * max(tiles.shape[1:3]))))
    beside = 0.1 + 0.055 * max((len(name) for name in row_names), default=0)
    inner = min((style.PAGE - beside) / columns, 0.62) * columns
    shape = whole.shape[0] / whole.shape[1]
    return Chart(
        [Panel(image=whole)],
        x_label,
        row_names=row_names or [""] * len(rows),
        column_names=column_names or [""] * columns,
        aspect=shape * columns / len(rows),
        width=inner + beside,
        height=inner * shape + 0.18 * bool(column_names) + 0.18 * bool(x_label) + 0.06,
    )


def look(number: int, marked: bool = True, **more: Any) -> dict[str, Any]:
    """Color and marker of a line by its number."""
    marker = {"marker": MARKERS[number % len(MARKERS)]} if marked else {}
    return {"color": COLORS[number % len(COLORS)], "zorder": 3, **marker, **more}


def mark(color: str, marker: str = "o", **more: Any) -> dict[str, Any]:
    """Points of a color that no line joins."""
    return {"color": color, "marker": marker, "linestyle": "", "zorder": 4, **more}


def bars(at: Sequence[float], low: Numbers, high: Numbers, flat: bool = False, **look: Any) -> list[Line]:
    """A bar from `low` to `high` at each position, vertical, or horizontal if `flat`."""
    ends = [([position] * 2, [bottom, top]) for position, bottom, top in zip(at, low, high, strict=True)]
    look = {"linewidth": 0.8, "zorder": 2, **look}
    return [Line(span, position, look) if flat else Line(position, span, look) for position, span in ends]


def baseline_look(number: int, color: str = style.GREY) -> dict[str, Any]:
    """Dashes of a baseline by its number."""
    dashes = BASELINE_DASHES[number % len(BASELINE_DASHES)]
    return {"color": color, "linestyle": dashes, "linewidth": 0.9, "zorder": 2}


def framed(low: float, high: float) -> tuple[Limits, bool]:
    """Limits of a vertical axis with a little room around its values, and whether it is logarithmic."""
    if style.wide([low, high]):
        room = (high / low) ** 0.05
        return (low / room, high * room), True
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return (low - room, high + room), False


# ----------------------------------------------------------------------------------------------------------- drawing


def _draw_line(axes: "Axes", line: Line) -> None:
    if line.shades is not None:
        size = line.look["markersize"] ** 2
        marks = axes.scatter(line.x, line.y, size, line.shades, cmap="cividis", linewidths=0, alpha=0.8)
        marks.set_rasterized(line.look.get("rasterized", False))
        axes.figure.colorbar(marks, ax=axes, label=line.shades_name, shrink=0.8)
        return
    axes.plot(line.x, line.y, **line.look)
    if line.band is not None:
        axes.fill_between(line.x, *line.band, color=line.look["color"], alpha=OPACITY, linewidth=0, zorder=1)


def _draw_tiles(axes: "Axes", panel: Panel) -> None:
    """Shaded cells or an image of tiles; tile (row, column) lies around the point (column, row)."""
    from matplotlib.colors import LinearSegmentedColormap

    if panel.cells is None and panel.image is None:
        return
    if panel.image is not None:
        axes.imshow(panel.image, interpolation="none", extent=(0, 1, 0, 1), transform=axes.transAxes)
    if panel.cells is not None:
        # lightness falls evenly, so that shades read in grey
        colors = LinearSegmentedColormap.from_list("shades", [(0.96, 0.96, 0.96), (0.03, 0.25, 0.45)])
        edges = [np.arange(size + 1) - 0.5 for size in reversed(panel.cells.shape)]
        shades = np.ma.masked_invalid(panel.cells)
        axes.pcolormesh(*edges, shades, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
        axes.patch.set(hatch="////", edgecolor=style.LIGHT, linewidth=0)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)


def _ticks(axis: Any, number: int, whole: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(number, integer=whole, steps=[1, 2, 2.5, 5, 10]))


def _logarithmic(axes: "Axes") -> None:
    """A logarithmic vertical axis whose ticks have labels also where it spans less than a power of ten."""
    from matplotlib.ticker import LogFormatterSciNotation

    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


def _ticks_at(axes: "Axes", values: Sequence[float]) -> None:
    """Ticks of the horizontal axis exactly at some values; it is logarithmic where they reach far."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    values = sorted(set(values))
    low, high = values[0], values[-1]
    logarithmic = len(values) > 2 and low > 0 and high >= 8 * low
    if logarithmic:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(roomy(values, logarithmic)))
    axes.xaxis.set_minor_locator(FixedLocator(values))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    room = (high / low) ** 0.06 if logarithmic else (high - low) * 0.06 or 1.0
    axes.set_xlim(*((low / room, high * room) if logarithmic else (low - room, high + room)))


def roomy(values: Sequence[float], logarithmic: bool) -> list[float]:
    """The values of ascending ones whose labels have room: none is nearer to the one before than 8 % of the axis."""
    position = math.log if logarithmic else float
    least = 0.08 * (position(values[-1]) - position(values[0]))
    kept = [values[0]]
    for value in values[1:]:
        if position(value) - position(kept[-1]) >= least:
            kept.append(value)
    return kept


def legend_above(figure: "Figure", entries: Mapping[str, Any], title: str = "") -> None:
    """A legend above all panels, in as many columns as fit; it never covers data."""
    longest = max(map(len, entries)) * 0.052 + 0.42  # inches: mean width of a letter, line and gap
    columns = max(1, min(len(entries), int((float(figure.get_figwidth()) - 0.1) / longest)))
    rows = -(-len(entries) // columns)
    columns = -(-len(entries) // rows)
    figure.set_figheight(float(figure.get_figheight()) + 0.155 * max(0, rows - 2))  # two rows are planned for
    look = {"loc": "outside upper center", "ncols": columns, "title": title or None, "columnspacing": 1.2}
    figure.legend(list(entries.values()), list(entries), **look)


def _label_points(figure: "Figure", labels: Sequence[tuple["Axes", float, float, str]]) -> None:
    """Short texts at the upper right of points; a text that would lie over another one is left out."""
    if labels:
        figure.draw_without_rendering()  # settles where the axes are
    labelled: list[tuple[float, float]] = []
    unit = float(figure.dpi) / 72
    for axes, x, y, text in labels:
        across, down = axes.transData.transform((x, y))
        if all(abs(across - a) > 12 * unit or abs(down - d) > 7 * unit for a, d in labelled):
            labelled.append((across, down))
            offset: dict[str, Any] = {"xytext": (2.5, 2.5), "textcoords": "offset points"}
            axes.annotate(text, (x, y), fontsize=6.0, color=style.GREY, zorder=6, **offset)
