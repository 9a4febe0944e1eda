"""Pictures of what a model has learned, drawn after training into TensorBoard and the folder `figures` of a run.

`views` has what these pictures share with the figures of a report, and `plots` draws pictures of lines.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from research.evaluation import plots
from research.evaluation.rows import extent
from research.evaluation.subject import Findings, Subject
from research.evaluation.views import (
    class_colors,
    class_names,
    decoded,
    draws,
    enlargement,
    grid,
    interval_of,
    most_active,
    pixels,
    plane,
    spread,
    traversal,
)
from research.models.abilities import Decodes, Encodes, Forecasts, Reconstructs, Samples, able, is_conditional
from research.runs import batches

COLUMNS, SAMPLES, TRAVERSED, STEPS = 16, 64, 16, 11
PANELS = 8  # of sequences
MAP = 320  # pixels a side
NAMED = 30  # most classes of a map whose names are written


def code_map(codes: np.ndarray, label: np.ndarray | None, names: Sequence[str] = ()) -> np.ndarray:
    """Codes [N, L] as points in the plane of `views.plane`, colored by class: [H, W, 3] uint8.

    It is the plane of the two largest principal components of three or more latents.
    """
    finite = np.isfinite(codes).all(1)
    if not finite.any():
        return np.full((MAP, MAP, 3), 255, np.uint8)
    return scatter(plane(codes[finite])[0], None if label is None else np.asarray(label)[finite], names)


def scatter(points: np.ndarray, label: np.ndarray | None, names: Sequence[str] = ()) -> np.ndarray:
    """Points in the plane [N, 2], colored by class: [H, W, 3] uint8.

    The `names` of the classes stand above the plane in their colors, if there are at most 30.
    """
    from PIL import ImageColor

    canvas = np.full((MAP, MAP, 3), 255, np.uint8)
    points = points - points.mean(0)
    classes = np.zeros(len(points), int) if label is None else np.asarray(label).astype(int)
    colors = class_colors(max(len(names), int(classes.max()) + 1))
    palette = np.array([ImageColor.getrgb(color) for color in colors], np.uint8)
    margin = 6
    largest = np.abs(points).max() or 1.0
    at = np.rint((points / largest + 1) / 2 * (MAP - 1 - 2 * margin)).astype(int) + margin
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            canvas[MAP - 1 - at[:, 1] + down, at[:, 0] + right] = palette[classes]
    return np.concatenate([plots.class_legend(names, MAP), canvas]) if 0 < len(names) <= NAMED else canvas


def study(subject: Subject, findings: Findings) -> None:
    """Draw the pictures that this model and these data allow.

    A model with codes has a map of them, `codes`. Images and sequences have `reconstructions` and `samples`. Images
    also have `traversals`, one row for each latent with its number beside it, the most active latent first; and windows
    of series have `forecasts`. A conditional model draws its classes in turn.
    """
    if subject.recipe.pictures:
        if able(subject.model, Encodes):
            label = None if subject.test.label is None else np.asarray(subject.test.label)
            names = [] if label is None else class_names(subject.classes, subject.facts)
            findings.pictures["codes"] = code_map(subject.codes("test"), label, names)
        if subject.facts.kind == "image" and np.ndim(subject.test.x) in (3, 4):
            findings.pictures |= _of_images(subject)
        elif subject.facts.kind == "sequence":
            findings.pictures |= _of_sequences(subject)
    if findings.codes is not None and subject.facts.kind == "image" and np.ndim(subject.test.x) in (3, 4):
        findings.sprite = _sprite(subject.test.x)


def _of_images(subject: Subject) -> dict[str, np.ndarray]:
    model, params, test, classes = subject.model, subject.params, subject.test, subject.facts.classes
    pictures: dict[str, np.ndarray] = {}
    low, high = extent(test.x)
    if able(model, Reconstructs):
        batch, _, _ = next(batches.batches(test, min(COLUMNS, len(test))))
        output = batches.call(model, params, batch, "reconstruct")
        both = np.concatenate([pixels(batch.x, low, high), pixels(output, low, high)])
        pictures["reconstructions"] = grid(both, len(both) // 2)
    if able(model, Samples):
        drawn = draws(model, params, jax.random.fold_in(subject.key, 1), SAMPLES, classes)
        pictures["samples"] = grid(pixels(drawn, low, high), classes if is_conditional(model) else 8)
    if able(model, Decodes) and np.isfinite(subject.codes("test")).all():
        codes = subject.codes("test")
        latents = most_active(codes, TRAVERSED)
        z = traversal(codes, latents, np.linspace(-3, 3, STEPS), prior=able(model, Samples)).reshape(-1, codes.shape[1])
        moved = grid(pixels(decoded(model, params, z), low, high), STEPS)
        pictures["traversals"] = plots.named_rows(moved, [str(latent + 1) for latent in latents])
    return pictures


def _of_sequences(subject: Subject) -> dict[str, np.ndarray]:
    model, params, test = subject.model, subject.params, subject.test
    pictures: dict[str, np.ndarray] = {}
    rows, columns = test.take(spread(len(test), PANELS)), subject.columns
    length = None if rows.length is None else np.asarray(rows.length)
    observed = None if rows.observed is None else np.asarray(rows.observed)
    if able(model, Reconstructs):
        output = np.asarray(batches.call(model, params, rows, "reconstruct"))
        pictures["reconstructions"] = plots.reconstructions(np.asarray(rows.x), output, length, observed, columns)
    if able(model, Samples):
        drawn = draws(model, params, jax.random.fold_in(subject.key, 1), PANELS, subject.facts.classes)
        pictures["samples"] = plots.sequences(drawn, columns=columns)
        if not able(model, Reconstructs):
            pictures["data"] = plots.sequences(np.asarray(rows.x), length, observed, columns)
    if able(model, Forecasts):
        forecast = jax.tree.map(np.asarray, batches.call(model, params, rows, "forecast"))
        interval = interval_of(forecast, subject.model)  # of quantiles, the model has the levels
        pictures["forecasts"] = plots.forecasts(
            np.asarray(rows.x),
            np.asarray(rows.target),
            forecast.median,
            None if interval is None else interval[:2],
            observed=observed,
            target_observed=None if rows.target_observed is None else np.asarray(rows.target_observed),
            band_name="" if interval is None else interval[2],
            columns=columns,
        )
    return pictures


def _sprite(x: Any) -> tuple[np.ndarray, int, int] | None:
    """Images [N, H, W] or [N, H, W, 3] in one square grid, with height and width of a tile.

    None where the grid has more than 8,192 pixels a side, which TensorBoard's page cannot show.
    """
    number, side = len(x), int(np.ceil(np.sqrt(len(x))))
    if side * max(x.shape[1:3]) * enlargement(x.shape) > 8192:
        return None
    tiles = pixels(x[:], *extent(x))
    tiles = tiles[..., 0] if x.ndim == 3 else tiles
    height, width = tiles.shape[1:3]
    full = np.full((side * side, *tiles.shape[1:]), 255, np.uint8)
    full[:number] = tiles
    whole = np.swapaxes(full.reshape(side, side, *tiles.shape[1:]), 1, 2)
    return np.ascontiguousarray(whole.reshape(side * height, side * width, *tiles.shape[3:])), height, width
