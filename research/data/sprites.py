"""Pictures of one white shape with known independent factors, drawn by the project itself."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from research.data.examples import Examples
from research.data.preparation import Preparation, shuffle
from research.data.sequences import Generated
from research.data.source import Source
from research.tree import ConfigError, recipe

SIZE = 64  # pixels a side
SHAPES = ("square", "ellipse", "heart")
FACTORS = {"shape": len(SHAPES), "scale": 6, "rotation": 40, "x": 32, "y": 32}  # names and sizes, in their order
TOTAL = math.prod(FACTORS.values())  # 737,280

# At scale 1, in pixels. The sizes are such that no pixel's center is near a border: the two sides of an inequality of
# `inside`, in units of the shape, differ by more than 1e-4 at every scale and rotation (of the heart, the cube roots
# of both sides), so that images do not depend on how a device rounds.
HALF_SIDE = 11.3
AXES = 15.2, 8.4
HEART, HEART_CENTER = 12.2, 0.2935  # size, and how high the centroid of the curve lies above its origin

SCALES = np.linspace(0.5, 1, FACTORS["scale"])
ANGLES = np.arange(FACTORS["rotation"]) * (2 * np.pi / FACTORS["rotation"])
CENTERS = 16 + np.arange(FACTORS["x"])  # in steps of a pixel; no shape reaches farther than 16 pixels


def inside(shape: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Whether points (u to the right, v upward, in pixels from the center) lie in an upright shape of scale 1.

    Square: `max(|u|, |v|) <= 11.3`. Ellipse: `(u / 15.2)^2 + (v / 8.4)^2 <= 1`. Heart, in units of 12.2 and with its
    centroid at the center: `(u^2 + w^2 - 1)^3 <= u^2 w^3`, where w = v + 0.2935.
    """
    square = jnp.maximum(jnp.abs(u), jnp.abs(v)) <= HALF_SIDE
    ellipse = jnp.square(u / AXES[0]) + jnp.square(v / AXES[1]) <= 1
    u, w = u / HEART, v / HEART + HEART_CENTER
    ring = jnp.square(u) + jnp.square(w) - 1
    heart = ring * ring * ring <= jnp.square(u) * w * w * w
    return jnp.where(shape == 0, square, jnp.where(shape == 1, ellipse, heart))


def images(factors: jax.Array) -> jax.Array:
    """The images of factors [N, 5], bool [N, 64, 64]: True where the center of a pixel lies inside the shape; traced.

    Rows are counted downward, as y is; a rotation turns the shape counterclockwise.
    """
    shape, scale, rotation, x, y = (factors[:, number, None, None] for number in range(len(FACTORS)))
    pixels = jnp.arange(SIZE)
    right = (pixels[None, None, :] - jnp.asarray(CENTERS)[x]).astype(jnp.float32)
    up = (jnp.asarray(CENTERS)[y] - pixels[None, :, None]).astype(jnp.float32)
    # numpy computes the tables of sines, because the sines of devices differ.
    cosine, sine = (jnp.asarray(function(ANGLES), jnp.float32)[rotation] for function in (np.cos, np.sin))
    enlarged = jnp.asarray(1 / SCALES, jnp.float32)[scale]
    u, v = (cosine * right + sine * up) * enlarged, (cosine * up - sine * right) * enlarged
    return inside(shape, u, v)


@jax.jit
def _pixels(factors: jax.Array) -> jax.Array:
    """The images of factors [N, 5] as uint8, 0 or 1, [N, 64, 64]; a few at a time, to save memory."""
    return jax.lax.map(lambda row: images(row[None])[0].astype(jnp.uint8), factors, batch_size=256)


@recipe
class Sprites(Generated):
    """One white square, ellipse or heart on black, 64 by 64 pixels, with five known factors.

    The factors are those of dSprites (Matthey, Higgins, Hassabis, Lerchner, 2017); the images are our own.

    x [rows, 64, 64] uint8, 0 or 1, in the layout "image"; factors [rows, 5] int32 in the order of `FACTORS`: shape
    (square, ellipse, heart), scale (0.5 to 1 in 6 steps of 0.1), rotation (multiples of 9 degrees, counterclockwise),
    x and y of the center (columns and rows 16 to 47, y downward); label [rows] int32, the shape. All 737,280
    combinations are equally likely and the rows are distinct ones of them, so that the factors are independent.
    A pixel is white where its center is inside, see `inside`; nothing is smoothed, and every shape lies wholly inside
    the frame. dSprites has the same factors and sizes, but draws otherwise and counts both 0 and 360 degrees.

    Two combinations can be one image: a square returns after 10 rotations, an ellipse after 20; a heart has no
    symmetry. There are 430,080 different images, and a test image may occur in training in this way.

    Attributes:
      scaling: the values are 0 and 1 as they are.
      rows: how many combinations are kept, drawn without replacement; an image takes 4 KiB of memory.
      data_seed: draws the rows.
      layout: "image" [N, 64, 64]; "rows" reads a sequence of 64 steps with 64 channels, top row first.
      streamed: every training batch is drawn anew from all 737,280 combinations, by the seed of the run. Nothing is
        left out: a combination of validation or test rows is drawn with probability (their number) / 737,280.
        Validation and test rows stay the fixed ones, and the number of training rows says how long an epoch is.
        Drawing costs about 1 % of a step of a small VAE, and the model cannot overfit to a few rows.
    """

    scaling: Literal["none"]
    layout: Literal["image", "rows"]
    streamed: bool

    def validate(self) -> None:
        """Refuse more rows than there are combinations of the factors."""
        super().validate()
        if self.rows > TOTAL:
            raise ConfigError("rows", self.rows, f"expected no more than the {TOTAL:,} combinations of the factors")

    def draw(self, batch: Examples, key: jax.Array) -> Examples:
        """New rows in place of those of the batch; they depend on its size and on the key alone."""
        keys = jax.random.split(key, len(FACTORS))
        drawn = [
            jax.random.randint(factor_key, (len(batch),), 0, size, jnp.int32)
            for factor_key, size in zip(keys, FACTORS.values(), strict=True)
        ]
        factors = jnp.stack(drawn, axis=1)
        return dataclasses.replace(batch, x=images(factors).astype(jnp.float32), label=factors[:, 0], factors=factors)

    def distinct_factors(self) -> np.ndarray:
        """The factors of all rows, [rows, 5] int32."""
        chosen = shuffle(TOTAL, self.data_seed)[: self.rows]
        return np.stack(np.unravel_index(chosen, tuple(FACTORS.values())), axis=1).astype(np.int32)

    def stored(self) -> Source:
        """Draw all rows."""
        factors = self.distinct_factors()
        examples = Examples(x=np.array(_pixels(factors)), label=factors[:, 0].copy(), factors=factors)
        kind = "image" if self.layout == "image" else "sequence"
        draw = self if self.streamed else None
        return Source("sprites", kind, examples, draw=draw, preparation=Preparation(layout=self.layout))
