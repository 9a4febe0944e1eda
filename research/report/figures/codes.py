"""Codes of the best run: where rows lie, and what lies between them and around them."""

from typing import Any

import numpy as np

from research.models.abilities import Decodes, Encodes, Samples, able
from research.report.figures import style, tiles
from research.report.figures.best import Best, plans_of
from research.report.figures.scene import Plan, Scene, Sketch

POINTS, RASTER = 3000, 400  # most points, and from how many they are drawn as an image in vector files
LATENTS, STEPS, PAIRS = 10, 11, 6
LINES = np.array([-3.0, -1.5, 0.0, 1.5, 3.0])  # of the traversals of series
CLASSES = (  # Petroff (2021), ten colors told apart with any common color blindness
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)


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


def plane(codes: np.ndarray) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Codes [N, L] in two dimensions, and the shares of variance of the two principal components where L > 2.

    One dimension is drawn against random heights.
    """
    points = codes.astype(np.float64)
    if points.shape[1] == 1:
        height = np.random.default_rng(0).uniform(-1, 1, len(points)) * (points.std() or 1.0)
        return np.stack([points[:, 0], height], 1), None
    if points.shape[1] == 2:
        return points, None
    points = points - points.mean(0)
    variances, directions = np.linalg.eigh(points.T @ points)
    total = float(variances.sum()) or 1.0
    first, second = directions[:, -1], directions[:, -2]
    signs = [np.sign(axis[np.argmax(np.abs(axis))]) for axis in (first, second)]  # eigenvectors have no sign
    plane = points @ np.stack([first * signs[0], second * signs[1]], 1)
    return plane, (float(variances[-1]) / total, float(variances[-2]) / total)


def _map(best: Best) -> Sketch:
    label, factors = best.test.label, best.test.factors
    rows = np.arange(len(best.codes))
    if len(rows) > POINTS:
        rows = np.sort(np.random.default_rng(0).choice(len(rows), POINTS, replace=False))
    points, shares = plane(best.codes)
    points = points[rows]
    drawn = style.figure(style.COLUMN, 2.9)
    axes = drawn.subplots()
    look: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.8, "rasterized": len(rows) > RASTER}
    colored = ""
    if label is not None:
        own = np.asarray(label)[rows].astype(int)
        _classes(axes, points, own, look)
        colored = f" Colored by class ({len(np.unique(own))}); numbers stand at the medians of classes."
    elif factors is not None:
        found = axes.scatter(*points.T, c=np.asarray(factors)[rows, 0], cmap="cividis", **look)
        drawn.colorbar(found, ax=axes, label="first factor", shrink=0.8)
        colored = " Colored by the first known factor."
    else:
        axes.scatter(*points.T, color=style.COLORS[0], **look)
    if np.ptp(points, 0).max() < 4 * np.ptp(points, 0).min():  # else most of the frame would be empty
        axes.set_aspect("equal", adjustable="datalim")
    axes.locator_params(nbins=5)
    if best.codes.shape[1] == 1:
        axes.set_xlabel("latent 1")
        axes.set_yticks([])
        how = "one latent, at random heights"
    elif shares is None:
        axes.set_xlabel("latent 1")
        axes.set_ylabel("latent 2")
        how = "both latents"
    else:
        axes.set_xlabel(f"principal component 1 ({shares[0]:.0%})")
        axes.set_ylabel(f"principal component 2 ({shares[1]:.0%})")
        how = f"the two principal components of {best.codes.shape[1]} latents, with their shares of variance"
    number = f"{len(rows)} of {len(best.codes)}" if len(rows) < len(best.codes) else f"all {len(rows)}"
    return best.sketch("latent_map", "Map of the codes", f"Codes of {number} test rows: {how}.{colored}", drawn)


def _classes(axes: Any, points: np.ndarray, label: np.ndarray, look: dict[str, Any]) -> None:
    """Points by class, and the number of each class at its median: readable without color."""
    from matplotlib.patheffects import withStroke

    found = np.unique(label)
    palette = style.COLORS[:-1] if len(found) < len(style.COLORS) else CLASSES
    for at, own in enumerate(found):
        few = {"marker": style.MARKERS[at]} if len(found) <= 4 else {}
        axes.scatter(*points[label == own].T, color=palette[at % len(palette)], **look | few)
    for own in found if len(found) <= 30 else ():
        x, y = np.median(points[label == own], 0)
        edge = [withStroke(linewidth=2, foreground="white")]
        axes.text(x, y, str(own), fontsize=8, ha="center", va="center", weight="bold", path_effects=edge, zorder=5)


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


def traversal(codes: np.ndarray, steps: np.ndarray, prior: bool) -> tuple[np.ndarray, np.ndarray]:
    """Codes [D, S, L] that change one latent at a time, and the latents [D], the most active (largest variance) first.

    With a prior the others are 0 and a step of 1 is its deviation; without, the others are at their mean and steps are
    in deviations of the codes.
    """
    size = codes.shape[1]
    mean, deviation = (np.zeros(size), np.ones(size)) if prior else (codes.mean(0), codes.std(0))
    latents = np.argsort(-codes.var(0), kind="stable")[:LATENTS]
    z = np.tile(mean, (len(latents), len(steps), 1))
    for row, latent in enumerate(latents):
        z[row, :, latent] += steps * deviation[latent]
    return z, latents


def _traversals(best: Best) -> Sketch:
    prior = able(best.model, Samples)
    steps = np.linspace(-3, 3, STEPS) if best.is_image else LINES
    z, latents = traversal(best.codes, steps, prior)
    made = best.decode(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:2], *best.test.x.shape[1:])
    others = "the others are 0" if prior else "the others are at their mean"
    unit = "deviations of the prior" if prior else "deviations of the codes"
    text = (
        f"Decoded codes in which one latent moves from -3 to 3 {unit} and {others}; "
        f"{f'the {len(latents)} most active of {best.codes.shape[1]}' if len(latents) < best.codes.shape[1] else 'all'}"
        " latents, the most active first."
    )
    text += " Decoded as class 0." if best.conditional else ""
    names = [f"latent {latent + 1}" for latent in latents]
    if best.is_image:
        low, high = float(np.min(best.test.x)), float(np.max(best.test.x))
        ticks = [f"{step:g}" if at % 5 == 0 else "" for at, step in enumerate(steps)]
        drawn = tiles.images(list(made), low, high, names, ticks, unit)
    else:
        drawn = _lines(best, made, steps, names, unit)
        text += best.channel_words()
    return best.sketch("traversals", "Latent traversals", text, drawn)


def _lines(best: Best, made: np.ndarray, steps: np.ndarray, names: list[str], unit: str) -> Any:
    """A panel for each latent, a line for each of its values."""
    from matplotlib import colormaps

    shades = colormaps["cividis"](np.linspace(0, 0.92, len(steps)))
    drawn, grid = tiles.panels(len(names))
    handles = []
    (channel,) = best.channels()
    for axes, rows, name in zip(grid, best.raw(made), names, strict=True):
        handles = [
            axes.plot(row[:, channel], color=shade, linewidth=0.9)[0] for row, shade in zip(rows, shades, strict=True)
        ]
        axes.set_title(name)
    drawn.supxlabel("step", fontsize=8)
    style.legend_above(drawn, handles, [f"{step:+g}" if step else "0" for step in steps], title=unit)
    return drawn


# -------------------------------------------------------------------------------------------------- interpolations


def interpolations(scene: Scene) -> list[Plan]:
    """Decoded codes between those of pairs of test rows."""
    return plans_of(scene, _no_decoder, _interpolations)


def pairs(label: np.ndarray | None, rows: np.ndarray) -> list[tuple[int, int]]:
    """Rows two by two, of different classes where there are several."""
    left = list(rows)
    found = []
    while len(left) > 1:
        first = left.pop(0)
        other = next((row for row in left if label is None or label[row] != label[first]), left[0])
        left.remove(other)
        found.append((int(first), int(other)))
    return found


def _interpolations(best: Best) -> Sketch:
    label = None if best.test.label is None else np.asarray(best.test.label)
    count = PAIRS if best.is_image else 4
    found = pairs(label, best.spread(2 * count))
    shares = np.linspace(0, 1, 9 if best.is_image else 5)
    ends = np.array(found)
    between = best.codes[ends[:, 0], None] * (1 - shares)[:, None] + best.codes[ends[:, 1], None] * shares[:, None]
    made = best.decode(between.reshape(-1, between.shape[-1])).reshape(*between.shape[:2], *best.test.x.shape[1:])
    x = np.asarray(best.test.x)
    text = f"Decoded codes on straight lines between those of {len(found)} pairs of test rows"
    text += " of different classes" if label is not None else ""
    text += ", which stand at both ends." if best.is_image else ", which are drawn dashed."
    text += " Decoded as class 0." if best.conditional else ""
    if best.is_image:
        rows = [np.concatenate([x[[one]], row, x[[other]]]) for (one, other), row in zip(found, made, strict=True)]
        ticks = ["data", *(f"{share:g}" if share in (0, 0.5, 1) else "" for share in shares), "data"]
        drawn = tiles.images(rows, float(x.min()), float(x.max()), (), ticks, "share of the way", 5.2)
        return best.sketch("interpolations", "Interpolations", text, drawn)
    from matplotlib import colormaps

    shades = colormaps["cividis"](np.linspace(0, 0.92, len(shares)))
    drawn, grid = tiles.panels(len(found))
    handles: list[Any] = []
    (channel,) = best.channels()
    for axes, rows, pair in zip(grid, best.raw(made), found, strict=True):
        for row, shade in zip(best.raw(x[list(pair)]), shades[[0, -1]], strict=True):
            axes.plot(row[:, channel], color=shade, linewidth=0.8, linestyle=style.DASHES[1])
        handles = [
            axes.plot(row[:, channel], color=shade, linewidth=0.9)[0] for row, shade in zip(rows, shades, strict=True)
        ]
    drawn.supxlabel("step", fontsize=8)
    style.legend_above(drawn, handles, [f"{share:g}" for share in shares], title="share of the way")
    text += best.channel_words()
    return best.sketch("interpolations", "Interpolations", text, drawn)
