"""Figures of tiles: images in a grid, and numbers in shaded cells. Each says what it shows, and `draw` draws it."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from research.evaluation.views import COLORS, grid, pixels
from research.report.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 48  # least pixels a side of a tile: viewers of vector files smooth images that they enlarge
GAP = 0.08  # between tiles, share of one
LARGEST = 15  # most rows and columns of cells with numbers in them


@dataclasses.dataclass(frozen=True)
class Images:
    """Images in a grid.

    Attributes:
      rows: each [N, H, W] or [N, H, W, C], equally many.
      low, high: values that are drawn black and white.
      labels: of the rows.
      ticks: below the columns.
      below: label of the horizontal axis.
      width: most inches.
    """

    rows: Sequence[np.ndarray]
    low: float
    high: float
    labels: Sequence[str] = ()
    ticks: Sequence[str] = ()
    below: str = ""
    width: float = style.PAGE

    def draw(self) -> "Figure":
        whole = self.mosaic()
        columns = len(self.rows[0])
        beside = 0.1 + 0.055 * max((len(label) for label in self.labels), default=0)
        under = 0.18 * bool(self.ticks) + 0.18 * bool(self.below) + 0.06
        inner = min((self.width - beside) / columns, 0.62) * columns
        figure = style.figure(inner + beside, inner * whole.shape[0] / whole.shape[1] + under)
        axes = figure.subplots()
        axes.imshow(whole, interpolation="none", aspect="equal")
        axes.tick_params(length=0, pad=2)
        axes.set_yticks(centers(len(self.rows), whole.shape[0]) if self.labels else [], self.labels or [])
        axes.set_xticks(centers(columns, whole.shape[1]) if self.ticks else [], self.ticks or [])
        axes.set_xlabel(self.below)
        axes.spines[:].set_visible(False)
        return figure

    def mosaic(self) -> np.ndarray:
        """All rows as one image [H, W, 3] uint8 with white gaps."""
        tiles = pixels(np.concatenate(self.rows), self.low, self.high, CELL)
        return grid(tiles, len(self.rows[0]), max(1, round(GAP * max(tiles.shape[1:3]))))


def centers(count: int, size: int) -> np.ndarray:
    """Pixel coordinates of the middles of `count` tiles along an axis of `size` pixels."""
    tile = 1 / (count + (count - 1) * GAP)
    return (tile / 2 + np.arange(count) * tile * (1 + GAP)) * size - 0.5


@dataclasses.dataclass(frozen=True)
class Shaded:
    """Cells of one panel.

    Attributes:
      shades: 0 (light) to 1 (dark), [R, C]; a cell of NaN is hatched.
      texts: what stands in each cell.
      outlined: row and column of the cells that have a frame.
      title: above the panel.
    """

    shades: np.ndarray
    texts: Sequence[Sequence[str]]
    outlined: Sequence[tuple[int, int]] = ()
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Cells:
    """Panels of shaded cells with texts in them.

    Attributes:
      rows, columns: names of the rows and columns of every panel.
      down, across: labels of the vertical and of the horizontal axis.
      width, height: of the figure, inches.
      square: whether cells are.
    """

    panels: Sequence[Shaded]
    rows: Sequence[str]
    columns: Sequence[str]
    down: str
    across: str
    width: float
    height: float
    square: bool = False

    def draw(self) -> "Figure":
        figure = style.figure(self.width, self.height)
        grid = figure.subplots(1, len(self.panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(grid, self.panels, strict=True):
            self._draw_panel(axes, panel)
        grid[0].set_ylabel(self.down)
        return figure

    def _draw_panel(self, axes: Any, panel: Shaded) -> None:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.patches import Rectangle

        # lightness falls evenly, so that shades read in grey
        colors = LinearSegmentedColormap.from_list("shades", [(0.96, 0.96, 0.96), (0.03, 0.25, 0.45)])
        edges = [np.arange(size + 1) - 0.5 for size in reversed(panel.shades.shape)]
        shades = np.ma.masked_invalid(panel.shades)
        axes.pcolormesh(*edges, shades, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
        size = 6.8 if len(self.columns) <= 6 else 5.8
        for (row, column), shade in np.ndenumerate(panel.shades):
            if np.isnan(shade):
                look = {"facecolor": "white", "edgecolor": style.LIGHT, "hatch": "////", "linewidth": 0}
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **look))
            elif max(shades.shape) <= LARGEST and panel.texts[row][column]:
                color = "white" if shade > 0.45 else "black"
                look = {"ha": "center", "va": "center", "fontsize": size, "color": color, "zorder": 3}
                axes.text(column, row, panel.texts[row][column], **look)
        for row, column in panel.outlined:
            look = {"fill": False, "edgecolor": COLORS[1], "linewidth": 1.6}
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **look))
        axes.set_xlim(-0.5, len(self.columns) - 0.5)
        axes.set_ylim(len(self.rows) - 0.5, -0.5)
        if self.square:
            axes.set_aspect("equal")
        step = 1 if max(shades.shape) <= 30 else 10
        axes.set_xticks(range(0, len(self.columns), step), self.columns[::step])
        axes.set_yticks(range(0, len(self.rows), step), self.rows[::step])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(panel.title)
        axes.set_xlabel(self.across)
