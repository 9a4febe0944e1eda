"""Pictures of what a model has learned, as grids of pixels."""

from typing import Any

import jax
import numpy as np

from research.data.examples import Examples
from research.runs import batches

COLUMNS, SAMPLES, TRAVERSED, STEPS = 16, 64, 16, 11
TILE, MAP = 24, 320  # pixels: smallest side of an example, side of the map
PALETTE = np.array(
    [
        *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
        *((140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207)),
    ],
    np.uint8,
)


def pixels(x: Any, low: float, high: float) -> np.ndarray:
    """Images [N, H, W] or [N, H, W, C] with values from low to high as [N, H', W', 3] uint8, 24 pixels or more.

    Channels: 1 is grey, 3 and more are red, green, blue (the first three), 2 are red and green.
    """
    x = np.asarray(x, np.float32)
    x = x[..., None] if x.ndim == 3 else x
    x = np.nan_to_num((x - low) * (255 / (high - low) if high > low else 1), nan=0, posinf=255, neginf=0)
    x = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    if x.shape[-1] == 2:
        x = np.concatenate([x, np.zeros_like(x[..., :1])], -1)
    x = np.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x[..., :3]
    times = -(-TILE // min(x.shape[1:3]))
    return x.repeat(times, axis=1).repeat(times, axis=2)


def grid(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles [N, H, W, 3] row by row, one white pixel between them; places that are left over are white."""
    rows = -(-len(tiles) // columns)
    framed = np.full((rows * columns, tiles.shape[1] + 1, tiles.shape[2] + 1, 3), 255, np.uint8)
    framed[: len(tiles), :-1, :-1] = tiles
    height, width = framed.shape[1:3]
    framed = framed.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(framed.reshape(rows * height, columns * width, 3)[:-1, :-1])


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


def pictures(
    model: Any, params: Any, test: Examples, codes: np.ndarray | None, kind: str, classes: int, key: jax.Array
) -> dict[str, np.ndarray]:
    """The pictures that make sense for this model and data, name -> [H, W, 3] uint8.

    `codes` (a map) for every model with codes; for images also `reconstructions` (inputs above, outputs below),
    `samples` and `traversals` (one row per latent dimension). A conditional model draws its classes in turn.

    Args:
      test: test rows as models see them.
      codes: of the test rows, [N, L], or None.
    """
    found: dict[str, np.ndarray] = {}
    if codes is not None:
        found["codes"] = code_map(codes, None if test.label is None else np.asarray(test.label))
    if kind != "image" or np.ndim(test.x) not in (3, 4):
        return found
    low, high = float(np.min(test.x)), float(np.max(test.x))
    conditional = bool(getattr(model, "conditional", False)) and classes > 0
    if hasattr(model, "reconstruct"):
        batch, _, _ = next(batches.batches(test, min(COLUMNS, len(test))))
        output = batches.call(model, params, batch, "reconstruct")
        both = np.concatenate([pixels(batch.x, low, high), pixels(output, low, high)])
        found["reconstructions"] = grid(both, len(both) // 2)
    if hasattr(model, "sample"):
        label = np.arange(SAMPLES, dtype=np.int32) % classes if conditional else None
        drawn = batches.sample(model, params, key, SAMPLES, label)
        found["samples"] = grid(pixels(drawn, low, high), classes if conditional else 8)
    if hasattr(model, "decode") and codes is not None and np.isfinite(codes).all():
        z, _ = traversal_codes(codes, prior=hasattr(model, "sample"))
        label = np.zeros(len(z), np.int32) if conditional else None
        found["traversals"] = grid(pixels(batches.decode(model, params, z, label), low, high), STEPS)
    return found
