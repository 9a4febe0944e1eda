"""Codes of the best run: where test rows lie, and what lies between and around them."""

from typing import Any

import numpy as np

from research.evaluation.views import COLORS, class_colors, most_active, plane, series, traversal
from research.models.abilities import Decodes, Encodes, Samples, able
from research.report.figures.best import Best, plans_of
from research.report.figures.chart import DASHES, MARKERS, Chart, Line, Panel, small_panels
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch
from research.report.figures.tiles import Images

POINTS, RASTER = 3000, 400  # most points, and from how many they are drawn as an image in vector files
LATENTS, STEPS, PAIRS = 10, 11, 6
STEPS_OF_SERIES = np.array([-3.0, -1.5, 0.0, 1.5, 3.0])


# ------------------------------------------------------------------------------------------------------------- map


def latent_map(scene: Scene) -> list[Plan]:
    """Codes of test rows in the plane."""
    return plans_of(scene, _no_codes, _map)


def _no_codes(best: Best) -> str:
    if not able(best.model, Encodes):
        return f"a {type(best.model).__name__} has no codes"
    if best.codes.ndim != 2:
        return "its codes are of steps, not of rows"
    return "" if np.isfinite(best.codes).all() else "some codes are not finite"


def _map(best: Best) -> Sketch:
    rows = np.arange(len(best.codes))
    if len(rows) > POINTS:
        rows = np.sort(np.random.default_rng(0).choice(len(rows), POINTS, replace=False))
    points, shares = plane(best.codes)
    points = points[rows]
    look: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5**0.5, "markeredgewidth": 0, "alpha": 0.8}
    look |= {"color": COLORS[0], "rasterized": len(rows) > RASTER}
    texts: list[Any] = []
    lines, colored = [Line(points[:, 0], points[:, 1], look)], ""
    if best.label is not None:
        label = best.label[rows]
        lines, texts = _classes(points, label, look)
        colored = f" Colored by class ({len(np.unique(label))}); numbers stand at the medians of classes."
    elif best.test.factors is not None:
        factor = np.asarray(best.test.factors)[rows, 0]
        lines = [Line(points[:, 0], points[:, 1], look, shades=factor, shades_name="first factor")]
        colored = " Colored by the first known factor."
    size = best.codes.shape[1]
    names, how = ("latent 1", "latent 2"), "both latents"
    if size == 1:
        names, how = ("latent 1", ""), "one latent, at random heights"
    elif shares is not None:
        names = tuple(f"principal component {at + 1} ({share:.0%})" for at, share in enumerate(shares))
        how = f"the two principal components of {size} latents, with their shares of variance"
    extents = np.ptp(points, 0)
    chart = Chart(
        [Panel(lines, texts=texts)],
        names[0],
        names[1],
        height=2.9,
        room=0.0,
        ticks=(5, 0 if size == 1 else 5),
        equal=bool(extents.max() < 4 * extents.min()),  # else most of the frame would be empty
    )
    number = f"{len(rows)} of {len(best.codes)}" if len(rows) < len(best.codes) else f"all {len(rows)}"
    return best.sketch("latent_map", "Map of the codes", f"Codes of {number} test rows: {how}.{colored}", chart)


def _classes(points: np.ndarray, label: np.ndarray, look: dict[str, Any]) -> tuple[list[Line], list[Any]]:
    """Points by class, and the number of each class at its median: readable without color."""
    from matplotlib.patheffects import withStroke

    lines, texts = [], []
    classes = np.unique(label)
    for at, (number, color) in enumerate(zip(classes, class_colors(len(classes)), strict=True)):
        mark = {"color": color, "marker": MARKERS[at] if len(classes) <= 4 else "o"}
        members = points[label == number]
        lines.append(Line(members[:, 0], members[:, 1], look | mark))
        if len(classes) <= 30:
            edge = [withStroke(linewidth=2, foreground="white")]
            centered = {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold", "zorder": 5}
            texts.append((*np.median(members, 0), str(number), centered | {"path_effects": edge}))
    return lines, texts


# ------------------------------------------------------------------------------------------------------ traversals


def _no_decoder(best: Best) -> str:
    if not able(best.model, Encodes) or not able(best.model, Decodes):
        return f"a {type(best.model).__name__} does not decode codes"
    if not (best.is_image or best.is_sequence):
        return "rows are neither images nor sequences"
    return _no_codes(best)


def traversals(scene: Scene) -> list[Plan]:
    """What each of the most active latents changes."""
    return plans_of(scene, _no_decoder, _traversals)


def _shaded(best: Best, rows: np.ndarray, names: list[str]) -> list[Line]:
    """Decoded series [N, T, C] from dark to light, in the one channel that is drawn."""
    from matplotlib import colormaps

    (channel,) = best.channels()
    shades = colormaps["cividis"](np.linspace(0, 0.92, len(rows)))
    return [
        Line(range(len(row)), row[:, channel], {"color": tuple(shade), "linewidth": 0.9}, name)
        for row, shade, name in zip(rows, shades, names, strict=True)
    ]


def _traversals(best: Best) -> Sketch:
    prior = able(best.model, Samples)
    steps = np.linspace(-3, 3, STEPS) if best.is_image else STEPS_OF_SERIES
    latents = most_active(best.codes, LATENTS)
    decoded = best.decode(traversal(best.codes, latents, steps, prior))
    others = "the others are 0" if prior else "the others are at their mean"
    unit = "deviations of the prior" if prior else "deviations of the codes"
    size = best.codes.shape[1]
    text = (
        f"Decoded codes in which one latent moves from -3 to 3 {unit} and {others}; "
        f"{f'the {len(latents)} most active of {size}' if len(latents) < size else 'all'}"
        " latents, the most active first."
    )
    text += " Decoded as class 0." if best.conditional else ""
    names = [f"latent {latent + 1}" for latent in latents]
    if best.is_image:
        ticks = [f"{step:g}" if at % 5 == 0 else "" for at, step in enumerate(steps)]
        picture = Images(list(decoded), *best.range, names, ticks, unit)
        return best.sketch("traversals", "Latent traversals", text, picture)
    values = [f"{step:+g}" if step else "0" for step in steps]
    panels = [Panel(_shaded(best, rows, values), name) for rows, name in zip(best.raw(decoded), names, strict=True)]
    picture = small_panels(panels, legend_title=unit)
    return best.sketch("traversals", "Latent traversals", text + best.channel_words(), picture)


# -------------------------------------------------------------------------------------------------- interpolations


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
    text = f"Decoded codes on straight lines between those of {len(ends)} pairs of test rows"
    text += " of different classes" if best.label is not None else ""
    text += ", which stand at both ends." if best.is_image else ", which are drawn dashed."
    text += " Decoded as class 0." if best.conditional else ""
    if best.is_image:
        rows = [np.concatenate([x[pair[:1]], row, x[pair[1:]]]) for pair, row in zip(ends, decoded, strict=True)]
        ticks = ["data", *(f"{share:g}" if share in (0, 0.5, 1) else "" for share in shares), "data"]
        picture = Images(rows, *best.range, (), ticks, "share of the way", width=5.2)
        return best.sketch("interpolations", "Interpolations", text, picture)
    panels = []
    (channel,) = best.channels()
    for rows, pair in zip(best.raw(decoded), ends, strict=True):
        lines = _shaded(best, rows, [f"{share:g}" for share in shares])
        data = series(best.raw(x[pair]))
        dashed = [
            Line(range(len(row)), row[:, channel], {**line.look, "linewidth": 0.8, "linestyle": DASHES[1]})
            for row, line in zip(data, (lines[0], lines[-1]), strict=True)
        ]
        panels.append(Panel([*dashed, *lines]))
    picture = small_panels(panels, legend_title="share of the way")
    return best.sketch("interpolations", "Interpolations", text + best.channel_words(), picture)
