"""Every figure that has lines, marks, bands or panels: a `Chart` says what it shows, and `Chart.draw` draws it."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.evaluation.views import COLORS
from research.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # tell lines apart without color
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
BASELINE_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (2, 3)))
OPACITY = 0.16  # of a band
SMALL = 6.2  # size of numbers beside marks, points

Limits = tuple[float, float]
Numbers = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Line:
    """Points that are joined by a line or marked; NaN leaves a gap.

    Attributes:
      x, y: values, equally many.
      look: arguments of matplotlib's `Axes.plot`; has a `color`.
      name: in the legend, where equal names appear once; the empty string has no entry.
      band: lower and upper edge at each x, drawn as a light area.
      band_name: of the area in the legend.
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
      lines: drawn in this order.
      title: above the panel.
      x_limits, y_limits: of the axes; None leaves them to matplotlib.
      logarithmic: whether the vertical axis is.
      vertical: place of a thin vertical line behind everything.
      texts: (x, y, text, arguments of matplotlib's `annotate`).
      labels: (x, y, text) of points; a label that would lie over another one is left out.
      beside: label of the vertical axis where it differs from that of the chart.
    """

    lines: Sequence[Line]
    title: str = ""
    x_limits: Limits | None = None
    y_limits: Limits | None = None
    logarithmic: bool = False
    vertical: float | None = None
    texts: Sequence[tuple[float, float, str, Mapping[str, Any]]] = ()
    labels: Sequence[tuple[float, float, str]] = ()
    beside: str = ""


@dataclasses.dataclass(frozen=True)
class Chart:
    """Panels in a grid with common labels, and one legend above all of them.

    Attributes:
      x_label, y_label: written at the lowest and at the leftmost panels.
      columns: most panels beside each other.
      height: of a row of panels, inches; `room` is added once for labels and legend.
      width: inches; None is one column of a paper for one column of panels, and else two.
      shared: the axes that have equal limits in all panels: `x`, `y` or `xy`.
      ticks: number of ticks on both axes; 0 draws none and None leaves it to matplotlib.
      whole: whether ticks of the horizontal axis are whole numbers.
      at: values of a swept key, at which alone the horizontal axis has ticks; it is logarithmic where they reach far.
      rows: names on the vertical axis, from 0 at the top downwards.
      one_label: writes `x_label` once below all panels.
      legend: how many entries make a legend.
      legend_title: above its entries.
      title_size: of the titles of panels, points; None is the size of all figures.
      bare: draws no axes.
      equal: whether a unit is equally long on both axes.
    """

    panels: Sequence[Panel]
    x_label: str = ""
    y_label: str = ""
    columns: int = 1
    height: float = 2.0
    room: float = 0.5
    width: float | None = None
    shared: str = ""
    ticks: tuple[int | None, int | None] = (None, None)
    whole: bool = False
    at: Sequence[float] = ()
    rows: Sequence[str] = ()
    one_label: bool = False
    legend: int = 1
    legend_title: str = ""
    title_size: float | None = None
    bare: bool = False
    equal: bool = False

    def draw(self) -> "Figure":
        columns = min(self.columns, len(self.panels))
        rows = -(-len(self.panels) // columns)
        width = self.width or (style.PAGE if columns > 1 else style.COLUMN)
        figure = style.figure(width, self.height * rows + self.room)
        grid = figure.subplots(
            rows, columns, squeeze=False, sharex="x" in self.shared, sharey="y" in self.shared
        ).ravel()
        for number, axes in enumerate(grid):
            if number >= len(self.panels):
                axes.set_axis_off()
                continue
            panel, lowest = self.panels[number], number + columns >= len(self.panels)
            self._draw_panel(figure, axes, panel)
            if lowest and not self.one_label:
                axes.set_xlabel(self.x_label)
            if number % columns == 0:
                axes.set_ylabel(panel.beside or self.y_label)
                if self.rows:
                    axes.set_yticks(range(len(self.rows)), self.rows)
            if "x" in self.shared:
                axes.tick_params(labelbottom=lowest)
        if self.one_label:
            figure.supxlabel(self.x_label, fontsize=8)
        legend_above(figure, self._entries(), self.legend_title, self.legend)
        drawn = zip(grid, self.panels, strict=False)
        _label_points(figure, [(axes, *label) for axes, panel in drawn for label in panel.labels])
        return figure

    def _draw_panel(self, figure: "Figure", axes: "Axes", panel: Panel) -> None:
        for line in panel.lines:
            _draw_line(figure, axes, line)
        if panel.vertical is not None:
            axes.axvline(panel.vertical, color=style.LIGHT, linewidth=0.8, zorder=0)
        for x, y, text, look in panel.texts:
            axes.annotate(text, (x, y), **look)
        axes.set_title(panel.title, fontsize=self.title_size)
        if self.bare:
            axes.set_axis_off()
        if self.rows:
            axes.margins(x=0.08)
        if panel.logarithmic:
            _logarithmic(axes)
        _ticks(axes.xaxis, self.ticks[0], self.whole)
        _ticks(axes.yaxis, None if panel.logarithmic else self.ticks[1])
        if self.at:
            _ticks_at(axes, self.at)
        if panel.x_limits is not None:
            axes.set_xlim(*panel.x_limits)
        if self.rows:
            axes.set_ylim(len(self.rows) - 0.4, -0.6)
        elif panel.y_limits is not None:
            axes.set_ylim(*panel.y_limits)
        if self.equal:
            axes.set_aspect("equal", adjustable="datalim")

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


def small_panels(
    panels: Sequence[Panel], columns: int = 4, height: float = 1.05, room: float = 0.5, **more: Any
) -> Chart:
    """Small panels of series over steps, across a page."""
    columns = 3 if columns == 4 and len(panels) in (5, 6, 9) else min(columns, len(panels))
    wide = {"width": style.PAGE} if columns > 2 else {}
    options: dict[str, Any] = {"x_label": "step", "one_label": True, "shared": "x", "ticks": (4, 3)} | wide | more
    return Chart(panels, columns=columns, height=height, room=room, **options)


def look(number: int, marked: bool = True, **more: Any) -> dict[str, Any]:
    """Color and marker of a line by its number."""
    marker = {"marker": MARKERS[number % len(MARKERS)]} if marked else {}
    return {"color": COLORS[number % len(COLORS)], "zorder": 3, **marker, **more}


def bars(
    at: Sequence[float], low: Sequence[float], high: Sequence[float], flat: bool = False, **look: Any
) -> list[Line]:
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


# ------------------------------------------------------------------------------------------------------------ parts


def _draw_line(figure: "Figure", axes: "Axes", line: Line) -> None:
    if line.shades is not None:
        size = line.look["markersize"] ** 2
        marks = axes.scatter(line.x, line.y, size, line.shades, cmap="cividis", linewidths=0, alpha=0.8)
        marks.set_rasterized(line.look.get("rasterized", False))
        figure.colorbar(marks, ax=axes, label=line.shades_name, shrink=0.8)
        return
    axes.plot(line.x, line.y, **line.look)
    if line.band is not None:
        axes.fill_between(line.x, *line.band, color=line.look["color"], alpha=OPACITY, linewidth=0, zorder=1)


def _ticks(axis: Any, number: int | None, whole: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    if number == 0:
        axis.set_major_locator(NullLocator())
    elif number is not None:
        axis.set_major_locator(MaxNLocator(number, integer=whole, steps=[1, 2, 2.5, 5, 10]))


def _logarithmic(axes: "Axes") -> None:
    """A logarithmic vertical axis whose ticks have labels also where it spans less than a power of ten."""
    from matplotlib.ticker import LogFormatterSciNotation

    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


def _ticks_at(axes: "Axes", values: Sequence[float]) -> None:
    """Ticks of the horizontal axis exactly at some values; it is logarithmic where these are far apart."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    values = sorted(set(values))
    low, high = values[0], values[-1]
    logarithmic = style.wide(values) or (len(values) > 2 and low > 0 and _geometric(values))
    if logarithmic:
        axes.set_xscale("log")
    labeled = roomy(values, logarithmic)
    axes.xaxis.set_major_locator(FixedLocator(labeled))
    axes.xaxis.set_minor_locator(FixedLocator(values) if len(labeled) < len(values) else NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    room = (high / low) ** 0.06 if logarithmic else (high - low) * 0.06 or 1.0
    axes.set_xlim(*((low / room, high * room) if logarithmic else (low - room, high + room)))


def _geometric(values: Sequence[float]) -> bool:
    """Whether values grow by about a factor (1, 2, 4, 8), so that a linear axis would crowd the small ones."""
    ratios = [after / before for before, after in itertools.pairwise(values)]
    return max(values) / min(values) >= 8 and max(ratios) / min(ratios) < 3 and min(ratios) >= 1.5


def roomy(values: Sequence[float], logarithmic: bool) -> list[float]:
    """The values of ascending ones whose labels have room: none is nearer to the one before than 8 % of the axis."""
    positions = [math.log(value) if logarithmic else value for value in values]
    least = 0.08 * ((positions[-1] - positions[0]) or 1.0)
    kept: list[int] = [0]
    for at in range(1, len(values)):
        if positions[at] - positions[kept[-1]] >= least:
            kept.append(at)
    return [values[at] for at in kept]


def legend_above(figure: "Figure", entries: Mapping[str, Any], title: str = "", least: int = 1) -> None:
    """A legend above all panels, in as many columns as fit; it never covers data."""
    if len(entries) < max(least, 1):
        return
    longest = max(map(len, entries)) * 0.052 + 0.42  # inches: mean width of a letter, line and gap
    columns = max(1, min(len(entries), int((float(figure.get_figwidth()) - 0.1) / longest)))
    rows = -(-len(entries) // columns)
    columns = -(-len(entries) // rows)
    figure.set_figheight(float(figure.get_figheight()) + 0.155 * max(0, rows - 2))  # two rows are planned for
    look = {"loc": "outside upper center", "ncols": columns, "title": title or None, "columnspacing": 1.2}
    figure.legend(list(entries.values()), list(entries), **look)


def _label_points(figure: "Figure", labels: Sequence[tuple["Axes", float, float, str]]) -> None:
    """Short texts at the upper right of points; a text that would lie over another one is left out."""
    if not labels:
        return
    figure.draw_without_rendering()  # settles where the axes are
    taken: list[tuple[float, float]] = []
    unit = float(figure.dpi) / 72
    for axes, x, y, text in labels:
        across, down = axes.transData.transform((x, y))
        if all(abs(across - a) > 12 * unit or abs(down - d) > 7 * unit for a, d in taken):
            taken.append((across, down))
            offset: dict[str, Any] = {"xytext": (2.5, 2.5), "textcoords": "offset points"}
            axes.annotate(text, (x, y), fontsize=6.0, color=style.GREY, zorder=6, **offset)
