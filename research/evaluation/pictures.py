"""Pictures of what a model has learned, as grids of pixels."""

import jax
import numpy as np

from research.evaluation import plots
from research.evaluation.canvas import PALETTE, grid, pixels
from research.evaluation.subject import Findings, Subject
from research.models.abilities import Decodes, Encodes, Forecasts, Reconstructs, Samples, able, is_conditional
from research.runs import batches

COLUMNS, SAMPLES, TRAVERSED, STEPS = 16, 64, 16, 11
PANELS = 8  # of sequences
MAP = 320  # pixels a side


def code_map(codes: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """Codes [N, L] as points in the plane of their two largest principal components, coloured by class, [H, W, 3]."""
    canvas = np.full((MAP, MAP, 3), 255, np.uint8)
    finite = np.isfinite(codes).all(1)
    points = codes[finite].astype(np.float64)
    if not len(points):
        return canvas
    colors = PALETTE[np.asarray(label)[finite].astype(int) % len(PALETTE)] if label is not None else PALETTE[:1]
    points -= points.mean(0)
    if points.shape[1] > 2:
        points = points @ np.linalg.eigh(points.T @ points)[1][:, :-3:-1]
    elif points.shape[1] == 1:
        points = np.concatenate([points, np.zeros_like(points)], 1)
    margin = 6
    largest = np.abs(points).max() or 1.0
    at = np.rint((points / largest + 1) / 2 * (MAP - 1 - 2 * margin)).astype(int) + margin
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            canvas[MAP - 1 - at[:, 1] + down, at[:, 0] + right] = colors
    return canvas


def traversal_codes(codes: np.ndarray, prior: bool) -> tuple[np.ndarray, np.ndarray]:
    """Codes that change one dimension at a time, from -3 to 3 in 11 steps.

    With a prior the others are 0 and a step is one prior deviation; without, the others are at their mean over `codes`
    and steps are in deviations of the codes. At most 16 dimensions, those of the largest variance.

    Returns:
      codes [dimensions * steps, L], and the dimensions.
    """
    mean, deviation = (np.zeros(codes.shape[1]), np.ones(codes.shape[1])) if prior else (codes.mean(0), codes.std(0))
    dimensions = np.sort(np.argsort(-codes.var(0), kind="stable")[:TRAVERSED])
    z = np.tile(mean, (len(dimensions), STEPS, 1))
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] += np.linspace(-3, 3, STEPS) * deviation[dimension]
    return z.reshape(-1, codes.shape[1]).astype(np.float32), dimensions


def study(subject: Subject, findings: Findings) -> None:
    """The pictures that make sense for this model and data.

    `codes` (a map) for every model with codes; for images and sequences also `reconstructions`, `samples` and
    `traversals` (images only, one row per latent dimension); `forecasts`. A conditional model draws its classes in
    turn.
    """
    if subject.recipe.pictures:
        if able(subject.model, Encodes):
            label = None if subject.test.label is None else np.asarray(subject.test.label)
            findings.pictures["codes"] = code_map(subject.codes("test"), label)
        if subject.facts.kind == "image" and np.ndim(subject.test.x) in (3, 4):
            findings.pictures |= _of_images(subject)
        elif subject.facts.kind == "sequence":
            findings.pictures |= _of_sequences(subject)
    if findings.codes is not None and subject.facts.kind == "image" and np.ndim(subject.test.x) in (3, 4):
        x = subject.test.x
        tiles = pixels(x, float(np.min(x)), float(np.max(x)))
        findings.sprite = _sprite(tiles[..., 0] if np.ndim(x) == 3 else tiles)


def _of_images(subject: Subject) -> dict[str, np.ndarray]:
    model, params, test, classes = subject.model, subject.params, subject.test, subject.facts.classes
    found: dict[str, np.ndarray] = {}
    low, high = float(np.min(test.x)), float(np.max(test.x))
    conditional = is_conditional(model) and classes > 0
    if able(model, Reconstructs):
        batch, _, _ = next(batches.batches(test, min(COLUMNS, len(test))))
        output = batches.call(model, params, batch, "reconstruct")
        both = np.concatenate([pixels(batch.x, low, high), pixels(output, low, high)])
        found["reconstructions"] = grid(both, len(both) // 2)
    if able(model, Samples):
        label = np.arange(SAMPLES, dtype=np.int32) % classes if conditional else None
        drawn = batches.sample(model, params, jax.random.fold_in(subject.key, 1), SAMPLES, label)
        found["samples"] = grid(pixels(drawn, low, high), classes if conditional else 8)
    if able(model, Decodes) and np.isfinite(subject.codes("test")).all():
        z, _ = traversal_codes(subject.codes("test"), prior=able(model, Samples))
        label = np.zeros(len(z), np.int32) if conditional else None
        found["traversals"] = grid(pixels(batches.decode(model, params, z, label), low, high), STEPS)
    return found


def _of_sequences(subject: Subject) -> dict[str, np.ndarray]:
    model, params, test = subject.model, subject.params, subject.test
    found: dict[str, np.ndarray] = {}
    # rows from all over the test part: neighbours of a series overlap, and classes may lie one after another
    rows = test.take(np.linspace(0, len(test) - 1, min(PANELS, len(test))).astype(int))
    length = None if rows.length is None else np.asarray(rows.length)
    there = None if rows.observed is None else np.asarray(rows.observed)
    if able(model, Reconstructs):
        output = np.asarray(batches.call(model, params, rows, "reconstruct"))
        found["reconstructions"] = plots.reconstructions(np.asarray(rows.x), output, length, there)
    if able(model, Samples):
        classes = subject.facts.classes
        label = np.arange(PANELS, dtype=np.int32) % classes if is_conditional(model) else None
        drawn = np.asarray(batches.sample(model, params, jax.random.fold_in(subject.key, 1), PANELS, label))
        found["samples"] = plots.sequences(drawn)
        if not able(model, Reconstructs):
            found["data"] = plots.sequences(np.asarray(rows.x), length, there)
    forecaster = subject.model  # only forecasters of quantiles have levels
    if able(model, Forecasts):
        forecast = jax.tree.map(np.asarray, batches.call(model, params, rows, "forecast"))
        band, name = None, ""
        if forecast.quantiles is not None:
            band = forecast.quantiles[..., 0], forecast.quantiles[..., -1]
            name = f"{100 * (forecaster.quantiles[-1] - forecaster.quantiles[0]):.0f} % band"
        elif forecast.deviation is not None:
            width = 1.2816 * forecast.deviation  # of a Gaussian, 80 % lie within
            band, name = (forecast.mean - width, forecast.mean + width), "80 % band"
        found["forecasts"] = plots.forecasts(
            np.asarray(rows.x),
            np.asarray(rows.target),
            forecast.median,
            band,
            observed=there,
            target_observed=None if rows.target_observed is None else np.asarray(rows.target_observed),
            band_name=name,
        )
    return found


def _sprite(tiles: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """Tiles [N, H, W] or [N, H, W, 3] in one square grid, with height and width of one; None where TensorBoard's page
    could not take it (more than 8,192 pixels a side)."""
    number, height, width = tiles.shape[:3]
    side = int(np.ceil(np.sqrt(number)))
    if side * max(height, width) > 8192:
        return None
    full = np.full((side * side, *tiles.shape[1:]), 255, np.uint8)
    full[:number] = tiles
    whole = np.swapaxes(full.reshape(side, side, *tiles.shape[1:]), 1, 2)
    return np.ascontiguousarray(whole.reshape(side * height, side * width, *tiles.shape[3:])), height, width
