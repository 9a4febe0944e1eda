"""Rows that the best run makes: reconstructions and samples."""

from typing import Any

import numpy as np

from research.models.abilities import Reconstructs, Samples, able, latent_dim_of, methods
from research.report.figures import style, tiles
from research.report.figures.best import Best, plans_of
from research.report.figures.scene import Plan, Scene, Sketch

COLUMNS, ROWS, PANELS, CHANNELS = 12, 5, 8, 3
LARGEST = 30_000_000  # values of the training rows that principal components are fitted to


def _needs(ability: type) -> Any:
    def lacks(best: Best) -> str:
        if not able(best.model, ability):
            return f"a {type(best.model).__name__} does not {methods(ability)[0]}"
        return "" if best.is_image or best.is_sequence else "rows are neither images nor sequences"

    return lacks


def reconstructions(scene: Scene) -> list[Plan]:
    """Test rows and their reconstructions."""
    return plans_of(scene, _needs(Reconstructs), _reconstructions)


def _principal(best: Best, rows: np.ndarray) -> np.ndarray | None:
    """Reconstructions of test rows by as many principal components as the model has latents, where they can be had."""
    from research.evaluation.baselines import components

    latent_dim = latent_dim_of(best.model)
    if latent_dim is None or best.train.mask is not None or np.size(best.train.x) > LARGEST:
        return None
    try:
        fitted = components(np.asarray(best.train.x))
    except ValueError:
        return None
    if latent_dim > fitted.directions.shape[1]:
        return None
    x = np.asarray(best.test.x)[rows]
    return fitted.decode(fitted.encode(x, latent_dim)).reshape(x.shape)


def _reconstructions(best: Best) -> Sketch:
    rows = best.spread(COLUMNS if best.is_image else PANELS)
    examples = best.test.take(rows)
    x = np.asarray(examples.x)
    output = np.asarray(best.call("reconstruct", examples))
    principal = _principal(best, rows)
    latent_dim = latent_dim_of(best.model)
    also = f" and by {latent_dim} principal components" if principal is not None else ""
    if best.is_image:
        text = f"Test rows (above), and their reconstructions by the model{also}."
        parts = [(x, "data"), (output, "model"), *([(principal, "PCA")] if principal is not None else [])]
        low, high = float(np.min(best.test.x)), float(np.max(best.test.x))
        drawn = tiles.images([part for part, _ in parts], low, high, [name for _, name in parts])
        return best.sketch("reconstructions", "Reconstructions", text, drawn)
    drawn, grid = tiles.panels(len(rows))
    looks: dict[str, dict[str, Any]] = {
        "data": {"color": style.LIGHT, "linewidth": 2.2},
        "model": {"color": style.COLORS[0], "linewidth": 1.0},
        "PCA": {"color": style.COLORS[1], "linewidth": 0.8, "linestyle": style.DASHES[2]},
    }
    length = examples.length
    lines = {
        "data": tiles.series(best.raw(x), length, examples.mask),
        "model": tiles.series(best.raw(output), length),
    }
    if principal is not None:
        lines["PCA"] = tiles.series(best.raw(principal), length)
    handles: dict[str, Any] = {}
    (channel,) = best.channels()
    for at, axes in enumerate(grid):
        for name, found in lines.items():
            handles[name] = axes.plot(found[at][:, channel], **looks[name])[0]
    drawn.supxlabel("step", fontsize=8)
    style.legend_above(drawn, list(handles.values()), list(handles))
    text = f"Test rows, and their reconstructions by the model{also}." + best.channel_words()
    return best.sketch("reconstructions", "Reconstructions", text, drawn)


def samples(scene: Scene) -> list[Plan]:
    """Draws from the model, beside rows of the data."""
    return plans_of(scene, _needs(Samples), _samples)


def _samples(best: Best) -> Sketch:
    import jax

    from research.runs import batches

    number = COLUMNS * ROWS if best.is_image else PANELS
    classes = best.facts.classes
    label = np.arange(number, dtype=np.int32) % classes if best.conditional and classes else None
    made = np.asarray(batches.sample(best.model, best.params, jax.random.key(0), number, label))
    text = f"{number} draws from the model, not chosen."
    text += " Classes in turn." if label is not None else ""
    if best.is_image:
        low, high = float(np.min(best.test.x)), float(np.max(best.test.x))
        drawn = tiles.images(list(made.reshape(ROWS, COLUMNS, *made.shape[1:])), low, high)
        return best.sketch("samples", "Samples", text, drawn)
    rows = best.test.take(best.spread(PANELS))
    data = tiles.series(best.raw(rows.x), rows.length, rows.mask)
    drawn, grid = tiles.panels(len(data) + len(made), legend=False)
    found = [*data, *best.raw(made)]
    for axes, row in zip(grid, found, strict=True):
        for at, channel in enumerate(best.channels(CHANNELS)):
            axes.plot(row[:, channel], color=style.COLORS[at], linewidth=0.8, linestyle=style.DASHES[at])
    for at, axes in enumerate(grid):
        if at % 4 == 0:
            axes.set_ylabel("data" if at < len(data) else "model")
    drawn.supxlabel("step", fontsize=8)
    text += f" Above them {len(data)} test rows." + best.channel_words(CHANNELS)
    return best.sketch("samples", "Samples", text, drawn)
