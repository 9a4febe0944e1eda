"""Pixels: examples as tiles, tiles as grids, colors."""

from typing import Any

import numpy as np

TILE = 24  # pixels: smallest side of an example
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
