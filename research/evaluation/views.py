"""What the pictures of a run and the figures of a report share: colors, tiles, chosen rows, moved codes, draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.models.abilities import is_conditional
from research.runs import batches

# Okabe & Ito (2008): told apart with any common color blindness; yellow is left out, too light for lines on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
TEN = (  # Petroff (2021): ten colors told apart with any common color blindness
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
TILE = 24  # pixels: smallest side of an example
BATCH = 256  # rows of a batch
LETTERS = 16  # of the name of a class or a channel
NORMAL = 1.2816  # deviations to each side of a normal mean that hold 80 %


def class_colors(classes: int) -> list[str]:
    """One color for each class; they repeat after ten."""
    palette = COLORS[:-1] if classes < len(COLORS) else TEN
    return [palette[at % len(palette)] for at in range(classes)]


def channel_names(columns: Sequence[str] | None, channels: int, short: bool = True) -> list[str]:
    """Names of the first channels of sequences: those of the columns, or `channel 1`, `channel 2`, ..."""
    if columns is None or len(columns) < channels:
        return [f"channel {channel + 1}" for channel in range(channels)]
    return (shorter(columns, 1) if short else [*map(on_line, columns)])[:channels]


def class_names(names: Sequence[str] | None, facts: Any) -> list[str]:
    """Names of all classes of the data: `names` where the data have them, else their numbers from 0."""
    if facts.anomaly:
        return ["normal", "anomalous"]
    if names is None or len(names) != facts.classes:
        return [str(number) for number in range(facts.classes)]
    return shorter(names, 0)


def on_line(name: Any) -> str:
    """A name on one line."""
    return " ".join(str(name).split())


def shorter(names: Sequence[Any], first: int) -> list[str]:
    """Names of at most `LETTERS` letters: the ends of longer ones are cut off.

    If two names became equal, all have their number before them, which begins with `first`.
    """
    lines = [on_line(name) for name in names]
    short = [line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}…" for line in lines]
    if len(set(short)) < len(set(lines)):
        return shorter([f"{at} {line}" for at, line in enumerate(lines, first)], first)
    return short


def spread(rows: int, number: int) -> np.ndarray:
    """Numbers of at most `number` of `rows` rows, at even distances.

    Neighboring windows of a series overlap, and classes may lie one after another: the first rows are no fair choice.
    """
    return np.linspace(0, rows - 1, min(number, rows)).astype(int)


def series(x: Any, length: Any = None, observed: Any = None) -> list[np.ndarray]:
    """Rows of x [N, T, C], each cut to its length, NaN where a value is not observed."""
    x = np.asarray(x, np.float64)
    x = x if observed is None else np.where(np.asarray(observed), x, np.nan)
    return [row if length is None else row[: int(length[at])] for at, row in enumerate(x)]


# --------------------------------------------------------------------------------------------------------- images


def pixels(x: Any, low: float, high: float, least: int = TILE) -> np.ndarray:
    """Images [N, H, W] or [N, H, W, C] as [N, H', W', 3] uint8; values from `low` to `high` become 0 to 255.

    Each pixel is repeated until the shorter side has `least` pixels. One channel is drawn grey, two are drawn as red
    and green, and of three or more the first three are drawn as red, green and blue. NaN is drawn as 0.
    """
    x = np.asarray(x, np.float32)
    x = x[..., None] if x.ndim == 3 else x
    x = np.nan_to_num((x - low) * (255 / (high - low) if high > low else 1), nan=0, posinf=255, neginf=0)
    x = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    if x.shape[-1] == 2:
        x = np.concatenate([x, np.zeros_like(x[..., :1])], -1)
    x = np.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x[..., :3]
    times = enlargement(x.shape, least)
    return x.repeat(times, axis=1).repeat(times, axis=2)


def enlargement(shape: Sequence[int], least: int = TILE) -> int:
    """How often each pixel of images [N, H, W, ...] is repeated until the shorter side has `least` pixels."""
    return -(-least // min(shape[1:3]))


def grid(tiles: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Tiles [N, H, W, 3] row by row with `gap` white pixels between them; a last row that is not full ends in white."""
    rows = -(-len(tiles) // columns)
    framed = np.full((rows * columns, tiles.shape[1] + gap, tiles.shape[2] + gap, 3), 255, np.uint8)
    framed[: len(tiles), : tiles.shape[1], : tiles.shape[2]] = tiles
    height, width = framed.shape[1:3]
    framed = framed.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    whole = framed.reshape(rows * height, columns * width, 3)
    return np.ascontiguousarray(whole[: rows * height - gap, : columns * width - gap])


# ---------------------------------------------------------------------------------------------------------- codes


def plane(codes: np.ndarray) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Codes [N, L] as points [N, 2], and for L > 2 the shares of variance of the two principal components shown.

    A single latent is drawn against random heights, so that its points do not hide each other.
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
    axes = directions[:, :-3:-1]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), 0), [0, 1]])  # an eigenvector has no sign of its own
    return points @ axes, (float(variances[-1]) / total, float(variances[-2]) / total)


def most_active(codes: np.ndarray, number: int) -> np.ndarray:
    """The latents of the largest variance over codes [N, L], at most `number`, the most active first."""
    return np.argsort(-codes.var(0), kind="stable")[:number]


def traversal(codes: np.ndarray, latents: np.ndarray, steps: np.ndarray, prior: bool) -> np.ndarray:
    """Codes [D, S, L] in which one latent of D takes S values and the others stay where they are.

    With a prior the others are 0, and a step of 1 is a deviation of the prior. Without one the others are at their mean
    over `codes` [N, L], and a step of 1 is a deviation of the codes.
    """
    size = codes.shape[1]
    mean, deviation = (np.zeros(size), np.ones(size)) if prior else (codes.mean(0), codes.std(0))
    z = np.tile(mean, (len(latents), len(steps), 1))
    for row, latent in enumerate(latents):
        z[row, :, latent] += steps * deviation[latent]
    return z.astype(np.float32)


def decoded(model: Any, params: Any, z: np.ndarray) -> np.ndarray:
    """E[x | z] of codes [..., L] as models see rows, [..., *x]; a conditional model decodes class 0."""
    flat = np.asarray(z, np.float32).reshape(-1, z.shape[-1])
    label = np.zeros(len(flat), np.int32) if is_conditional(model) else None
    function = lambda batch, _: batches.decode(model, params, *batch)
    rows = np.asarray(batches.over(function, (flat, label), min(BATCH, len(flat))))
    return rows.reshape(*z.shape[:-1], *rows.shape[1:])


def draws(model: Any, params: Any, key: Any, number: int, classes: int) -> np.ndarray:
    """Samples of the model as models see rows, [number, *x]; a conditional model draws its classes in turn."""
    label = np.arange(number, dtype=np.int32) % classes if is_conditional(model) else None
    return np.asarray(batches.sample(model, params, key, number, label))


def interval_of(forecast: Any, model: Any) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Lower and upper edge [N, H, C] of a forecast's interval and its name; None where a forecast has no interval."""
    if forecast.quantiles is not None:
        share = model.quantiles[-1] - model.quantiles[0]
        return forecast.quantiles[..., 0], forecast.quantiles[..., -1], f"{100 * share:.0f} % interval"
    if forecast.deviation is not None:
        half = NORMAL * forecast.deviation
        return forecast.mean - half, forecast.mean + half, "80 % interval"
    return None
