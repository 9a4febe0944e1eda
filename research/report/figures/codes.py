"""Codes of the best run: where test rows lie, and what lies between and around them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation.views import COLORS, class_colors, most_active, plane, traversal
from research.models.abilities import Decodes, Encodes, Samples, able
from research.report.figures.best import Best, plans_of
from research.report.figures.chart import DASHES, MARKERS, Chart, Line, Panel, images, mark
from research.report.figures.scene import Plan, Scene, Sketch
from research.report.figures.style import joined

POINTS, RASTER = 3000, 400  # most points, and from how many they are drawn as an image in vector files
LATENTS, STEPS, PAIRS = 10, 11, 6


# ------------------------------------------------------------------------------------------------------------- map


def latent_map(scene: Scene) -> list[Plan]:
    """Codes of test rows in the plane."""
    return plans_of(scene, no_codes, _map)


def no_codes(best: Best) -> str:
    """Why a run has no codes that can be drawn, or the empty string."""
    if not able(best.model, Encodes):
        return f"a {type(best.model).__name__} has no codes"
    if best.codes.ndim != 2:
        return "its codes are of steps, not of rows"
    return "" if np.isfinite(best.codes).all() else "some codes are not finite"


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
        lines, texts = _classes(points, label, look)
        colored = f"Colored by class ({len(np.unique(label))}); numbers stand at the medians of classes."
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


def _classes(points: np.ndarray, label: np.ndarray, look: dict[str, Any]) -> tuple[list[Line], list[Any]]:
    """Points by class, and the number of each class at its median: readable without color."""
    from matplotlib.patheffects import withStroke

    lines, texts = [], []
    classes = np.unique(label)
    edge = [withStroke(linewidth=2, foreground="white")]
    centered = {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold", "zorder": 5, "path_effects": edge}
    for at, (number, color) in enumerate(zip(classes, class_colors(len(classes)), strict=True)):
        members = points[label == number]
        marker = MARKERS[at] if len(classes) <= 4 else "o"
        lines.append(Line(members[:, 0], members[:, 1], look | {"color": color, "marker": marker}))
        if len(classes) <= 30:
            texts.append((*np.median(members, 0), str(number), centered))
    return lines, texts


# -------------------------------------------------------------------------------------- traversals and interpolations


def _no_decoder(best: Best) -> str:
    if not able(best.model, Encodes) or not able(best.model, Decodes):
        return f"a {type(best.model).__name__} does not decode codes"
    return no_codes(best) if best.kind else "rows are neither images nor sequences"


def traversals(scene: Scene) -> list[Plan]:
    """What each of the most active latents changes."""
    return plans_of(scene, _no_decoder, _traversals)


def _shaded(best: Best, rows: np.ndarray, names: Sequence[str]) -> list[Line]:
    """Decoded series [N, T, C] from dark to light, in the one channel that is drawn."""
    from matplotlib import colormaps

    shades = colormaps["cividis"](np.linspace(0, 0.92, len(rows)))
    return [
        Line(range(len(row)), row[:, best.channel], {"color": tuple(shade), "linewidth": 0.9}, name)
        for row, shade, name in zip(best.raw(rows), shades, names, strict=True)
    ]


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
        best.conditional and "Decoded as class 0.",
        best.channel_words(),
    )
    if best.is_image:
        ticks = [f"{step:g}" if at % 5 == 0 else "" for at, step in enumerate(steps)]
        chart = images(list(decoded), best.reach, names, ticks, unit)
    else:
        values = [f"{step:+g}" if step else "0" for step in steps]
        panels = [Panel(_shaded(best, rows, values), name) for rows, name in zip(decoded, names, strict=True)]
        chart = Chart(panels, "step", small=True, legend_title=unit)
    return best.sketch("traversals", "Latent traversals", text, chart)


def interpolations(scene: Scene) -> list[Plan]:
    """Decoded codes between those of pairs of test rows."""
    return plans_of(scene, _no_decoder, _interpolations)


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
    text = joined(
        f"Decoded codes on straight lines between those of {len(ends)} pairs of test rows",
        best.label is not None and "of different classes",
        "(both at the ends)." if best.is_image else "(dashed).",
        best.conditional and "Decoded as class 0.",
        best.channel_words(),
    )
    unit = "share of the way"
    if best.is_image:
        rows = [np.concatenate([x[pair[:1]], row, x[pair[1:]]]) for pair, row in zip(ends, decoded, strict=True)]
        ticks = ["data", *(f"{share:g}" if share in (0, 0.5, 1) else "" for share in shares), "data"]
        chart = images(rows, best.reach, (), ticks, unit, width=5.2)
    else:
        panels = []
        for rows, pair in zip(decoded, ends, strict=True):
            lines = _shaded(best, rows, [f"{share:g}" for share in shares])
            dashed = [
                Line(range(len(row)), row[:, best.channel], {**line.look, "linewidth": 0.8, "linestyle": DASHES[1]})
                for row, line in zip(best.raw(x[pair]), (lines[0], lines[-1]), strict=True)
            ]
            panels.append(Panel([*dashed, *lines]))
        chart = Chart(panels, "step", small=True, legend_title=unit)
    return best.sketch("interpolations", "Interpolations", text, chart)
