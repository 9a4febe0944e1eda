"""Codes of the best run: where test rows lie, and what lies between and around them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation.views import COLORS, class_colors, most_active, plane, traversal
from research.models.abilities import Decodes, Encodes, Samples, able
from research.report.figures.best import ANY, Best, plans_of
from research.report.figures.chart import DASHES, MARKERS, Chart, Line, Panel, images, mark
from research.report.figures.scene import Plan, Scene, Sketch
from research.report.figures.style import joined, literal

POINTS, RASTER = 3000, 400  # most points, and from how many they are drawn as an image in vector files
LATENTS, STEPS, PAIRS = 10, 11, 6


def latent_map(scene: Scene) -> list[Plan]:
    """Codes of test rows in the plane."""
    return plans_of(scene, _map, Encodes, kinds=ANY, codes=True)


def _map(best: Best) -> Sketch:
    count, size = best.codes.shape
    rows = np.arange(count)
    if count > POINTS:
        rows = np.sort(np.random.default_rng(0).choice(count, POINTS, replace=False))
    points, shares = plane(best.codes)
    points = points[rows]
    look = mark(COLORS[0], markersize=5**0.5, markeredgewidth=0, alpha=0.8, zorder=2, rasterized=len(rows) > RASTER)
    lines, texts, colored = [Line(points[:, 0], points[:, 1], look)], [], ""
    if best.label is not None:
        label = best.label[rows]
        classes = np.unique(label)
        lines, texts = _classes(points, label, look, [literal(best.class_name(int(number))) for number in classes])
        where = "; names stand at the medians of classes" if texts else ""
        where = "; the legend names the classes" if lines[0].name else where
        colored = f"Colored by class ({len(classes)}){where}."
    elif best.test.factors is not None:
        shades = np.asarray(best.test.factors)[rows, 0]
        lines = [Line(points[:, 0], points[:, 1], look, shades=shades, shades_name="first factor")]
        colored = "Colored by the first known factor."
    names, how = ("latent 1", "latent 2"), "both latents"
    if size == 1:
        names, how = ("latent 1", "random height"), "one latent, at random heights"
    elif shares is not None:
        names = tuple(f"principal component {at + 1} ({share:.0%})" for at, share in enumerate(shares))
        how = (
            f"the two principal components of {size} latents, with {shares[0]:.0%} and {shares[1]:.0%} of the variance"
        )
    extents = np.ptp(points, 0)
    number = f"{len(rows)} of {count}" if len(rows) < count else f"all {count}"
    aspect = 1.0 if extents.max() < 4 * extents.min() else None  # else most of the frame would be empty
    chart = Chart([Panel(lines, texts=texts)], x_label=names[0], y_label=names[1], aspect=aspect, height=2.9)
    return best.sketch("latent_map", "Map of the codes", joined(f"Codes of {number} test rows: {how}.", colored), chart)


def _classes(
    points: np.ndarray, label: np.ndarray, look: dict[str, Any], names: Sequence[str]
) -> tuple[list[Line], list[Any]]:
    """Points by class, and the number of each class at its median: readable without color.

    Names are longer than numbers and would cover each other there: those of up to ten classes stand in the legend.
    """
    from matplotlib.patheffects import withStroke

    lines, texts = [], []
    classes = np.unique(label)
    named = len(classes) <= 10 and not all(name.isdecimal() for name in names)
    edge = [withStroke(linewidth=2, foreground="white")]
    centered = {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold", "zorder": 5, "path_effects": edge}
    for at, (number, color) in enumerate(zip(classes, class_colors(len(classes)), strict=True)):
        members = points[label == number]
        marker = MARKERS[at] if len(classes) <= 4 else "o"
        name = names[at] if named else ""
        lines.append(Line(members[:, 0], members[:, 1], look | {"color": color, "marker": marker}, name))
        if len(classes) <= 30 and not named:
            texts.append((*np.median(members, 0), names[at], centered))
    return lines, texts


def traversals(scene: Scene) -> list[Plan]:
    """What each of the most active latents changes."""
    return plans_of(scene, _traversals, Encodes, Decodes, codes=True)


def _moved(
    best: Best, decoded: np.ndarray, names: Sequence[str], values: np.ndarray, unit: str, ends: np.ndarray | None = None
) -> Chart:
    """Decoded codes [R, S, ...] that move in S steps: a row of images each, or a panel of series from dark to light.

    Args:
      names: of the R rows.
      values: of the S steps, in `unit`.
      ends: rows of the data between which the codes move, [R, 2, ...]; images at both ends, or dashed lines.
    """
    from matplotlib import colormaps

    steps = [f"{value:g}" for value in values]
    if best.is_image:
        ticks = [step if at % (len(steps) // 2) == 0 else "" for at, step in enumerate(steps)]
        if ends is not None:
            decoded, ticks = np.concatenate([ends[:, :1], decoded, ends[:, 1:]], 1), ["data", *ticks, "data"]
        return images(list(decoded), best.reach, names, ticks, unit)
    panels = []
    for at, rows in enumerate(best.raw(decoded)):
        looks = [
            {"color": tuple(shade), "linewidth": 0.9} for shade in colormaps["cividis"](np.linspace(0, 0.92, len(rows)))
        ]
        drawn = list(zip(rows, looks, steps, strict=True))
        if ends is not None:
            dashed = [look | {"linewidth": 0.8, "linestyle": DASHES[1]} for look in (looks[0], looks[-1])]
            drawn = [*zip(best.raw(ends[at]), dashed, ("", ""), strict=True), *drawn]
        panels.append(
            Panel([Line(range(len(row)), row[:, best.channel], look, name) for row, look, name in drawn], names[at])
        )
    return Chart(panels, "step", best.channel_label, small=True, legend_title=unit)


def _traversals(best: Best) -> Sketch:
    prior = able(best.model, Samples)
    steps = np.linspace(-3, 3, STEPS if best.is_image else 5)
    latents, size = most_active(best.codes, LATENTS), best.codes.shape[1]
    decoded = best.decode(traversal(best.codes, latents, steps, prior))
    unit = "deviations of the prior" if prior else "deviations of the codes"
    names = [f"latent {latent + 1}" for latent in latents]
    text = joined(
        f"Decoded codes in which one latent moves from -3 to 3 {unit} and the others are",
        "0;" if prior else "at their mean;",
        f"the {len(latents)} most active of {size}" if len(latents) < size else f"all {size}",
        f"latents, the most active first ({', '.join(str(latent + 1) for latent in latents)}).",
        best.conditional and f"Decoded as class {best.class_name(0)}.",
        best.channel_words(),
    )
    chart = _moved(best, decoded, names, steps, unit)
    return best.sketch("traversals", "Latent traversals", text, chart)


def interpolations(scene: Scene) -> list[Plan]:
    """Decoded codes between those of pairs of test rows."""
    return plans_of(scene, _interpolations, Encodes, Decodes, codes=True)


def pairs(label: np.ndarray | None, rows: np.ndarray) -> list[tuple[int, int]]:
    """Rows two by two, of different classes where there are several."""
    left = [int(row) for row in rows]
    chosen = []
    while len(left) > 1:
        first = left.pop(0)
        second = next((row for row in left if label is None or label[row] != label[first]), left[0])
        left.remove(second)
        chosen.append((first, second))
    return chosen


def _interpolations(best: Best) -> Sketch:
    ends = np.array(pairs(best.label, best.spread(2 * (PAIRS if best.is_image else 4))))
    shares = np.linspace(0, 1, 9 if best.is_image else 5)
    first, second = best.codes[ends[:, 0], None], best.codes[ends[:, 1], None]
    decoded = best.decode(first * (1 - shares)[:, None] + second * shares[:, None])
    x = np.asarray(best.test.x)
    if not best.is_image and best.test.mask is not None:
        x = np.where(best.test.mask, x, np.nan)  # a gap, where models see 0
    text = joined(
        f"Decoded codes on straight lines between those of {len(ends)} pairs of test rows",
        best.label is not None and "of different classes",
        "(both at the ends)." if best.is_image else "(dashed).",
        best.conditional and f"Decoded as class {best.class_name(0)}.",
        best.channel_words(),
    )
    chart = _moved(best, decoded, [""] * len(ends), shares, "share of the way", x[ends])
    return best.sketch("interpolations", "Interpolations", text, chart)
