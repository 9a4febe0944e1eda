"""Rows that the best run makes: reconstructions and samples."""

from typing import Any

import numpy as np

from research.evaluation.views import COLORS, series
from research.models.abilities import Reconstructs, Samples, able, latent_dim_of, methods
from research.report.figures import style
from research.report.figures.best import Best, plans_of
from research.report.figures.chart import DASHES, Line, Panel, small_panels
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch
from research.report.figures.tiles import Images

COLUMNS, ROWS, PANELS, CHANNELS = 12, 5, 8, 3
LARGEST = 30_000_000  # most values of the training rows that principal components are fitted to
LOOKS: dict[str, dict[str, Any]] = {
    "data": {"color": style.LIGHT, "linewidth": 2.2},
    "model": {"color": COLORS[0], "linewidth": 1.0},
    "PCA": {"color": COLORS[1], "linewidth": 0.8, "linestyle": DASHES[2]},
}


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
    """Reconstructions of test rows by as many principal components as the model has latents, where these exist."""
    from research.evaluation.baselines import components

    latent_dim, train = latent_dim_of(best.model), best.material.parts["train"]
    if latent_dim is None or train.mask is not None or np.size(train.x) > LARGEST:
        return None
    try:
        fitted = components(np.asarray(train.x))
    except ValueError:
        return None
    if latent_dim > fitted.directions.shape[1]:
        return None
    x = np.asarray(best.test.x)[rows]
    return fitted.decode(fitted.encode(x, latent_dim)).reshape(x.shape)


def _reconstructions(best: Best) -> Sketch:
    rows = best.spread(COLUMNS if best.is_image else PANELS)
    examples = best.test.take(rows)
    parts = {"data": np.asarray(examples.x), "model": np.asarray(best.call("reconstruct", examples))}
    principal = _principal(best, rows)
    also = ""
    if principal is not None:
        parts["PCA"] = principal
        also = f" and by {latent_dim_of(best.model)} principal components"
    if best.is_image:
        text = f"Test rows (above), and their reconstructions by the model{also}."
        picture = Images(list(parts.values()), *best.range, list(parts))
        return best.sketch("reconstructions", "Reconstructions", text, picture)
    (channel,) = best.channels()
    masks = {"data": examples.mask}
    lines = {name: series(best.raw(x), examples.length, masks.get(name)) for name, x in parts.items()}
    panels = [
        Panel([Line(range(len(x[at])), x[at][:, channel], LOOKS[name], name) for name, x in lines.items()])
        for at in range(len(rows))
    ]
    text = f"Test rows, and their reconstructions by the model{also}." + best.channel_words()
    return best.sketch("reconstructions", "Reconstructions", text, small_panels(panels))


def samples(scene: Scene) -> list[Plan]:
    """Draws from the model, beside rows of the data."""
    return plans_of(scene, _needs(Samples), _samples)


def _samples(best: Best) -> Sketch:
    import jax

    from research.runs import batches

    number = COLUMNS * ROWS if best.is_image else PANELS
    classes = best.material.facts.classes
    label = np.arange(number, dtype=np.int32) % classes if best.conditional and classes else None
    draws = np.asarray(batches.sample(best.model, best.loaded.params, jax.random.key(0), number, label))
    text = f"{number} draws from the model, not selected."
    text += " Classes in turn." if label is not None else ""
    if best.is_image:
        picture = Images(list(draws.reshape(ROWS, COLUMNS, *draws.shape[1:])), *best.range)
        return best.sketch("samples", "Samples", text, picture)
    rows = best.test.take(best.spread(PANELS))
    data = series(best.raw(rows.x), rows.length, rows.mask)
    panels = []
    for at, row in enumerate([*data, *best.raw(draws)]):
        lines = [
            Line(
                range(len(row)), row[:, channel], {"color": COLORS[order], "linewidth": 0.8, "linestyle": DASHES[order]}
            )
            for order, channel in enumerate(best.channels(CHANNELS))
        ]
        panels.append(Panel(lines, beside="data" if at < len(data) else "model"))
    text += f" Above them {len(data)} test rows." + best.channel_words(CHANNELS)
    return best.sketch("samples", "Samples", text, small_panels(panels, room=0.3))
