"""Rows that the best run makes: reconstructions, samples and forecasts."""

from typing import Any

import numpy as np

from research.evaluation.views import COLORS, draws, interval_of, series
from research.models.abilities import Forecasts, Reconstructs, Samples, latent_dim_of
from research.report.figures import style
from research.report.figures.best import ANY, Best, plans_of
from research.report.figures.chart import DASHES, Chart, Line, Panel, images
from research.report.figures.scene import Plan, Scene, Sketch

COLUMNS, ROWS, PANELS, CHANNELS = 12, 5, 8, 3
WINDOWS = 6  # of forecasts
LARGEST = 30_000_000  # most values of the training rows that principal components are fitted to
LOOKS: dict[str, dict[str, Any]] = {
    "data": {"color": style.LIGHT, "linewidth": 2.2},
    "model": {"color": COLORS[0], "linewidth": 1.0},
    "PCA": {"color": COLORS[1], "linewidth": 0.8, "linestyle": DASHES[2]},
}


def reconstructions(scene: Scene) -> list[Plan]:
    """Test rows and their reconstructions."""
    return plans_of(scene, _reconstructions, Reconstructs)


def _principal(best: Best, rows: np.ndarray) -> np.ndarray | None:
    """Reconstructions of test rows by as many principal components as the model has latents, where these exist."""
    from research.evaluation.baselines import components

    latent_dim, train = latent_dim_of(best.model), best.parts["train"]
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
        chart = images(list(parts.values()), best.reach, list(parts))
    else:
        masks = {"data": examples.mask}
        lines = {name: series(best.raw(x), examples.length, masks.get(name)) for name, x in parts.items()}
        panels = [
            Panel([Line(range(len(x[at])), x[at][:, best.channel], LOOKS[name], name) for name, x in lines.items()])
            for at in range(len(rows))
        ]
        chart = Chart(panels, "step", best.channel_label, small=True)
    text = f"{len(rows)} test rows, and their reconstructions by the model{also}."
    return best.sketch("reconstructions", "Reconstructions", style.joined(text, best.channel_words()), chart)


def samples(scene: Scene) -> list[Plan]:
    """Draws from the model, beside rows of the data."""
    return plans_of(scene, _samples, Samples)


def _samples(best: Best) -> Sketch:
    import jax

    number = COLUMNS * ROWS if best.is_image else PANELS
    drawn = draws(best.model, best.loaded.params, jax.random.key(0), number, best.facts.classes)
    above = ""
    if best.is_image:
        chart = images(list(drawn.reshape(ROWS, COLUMNS, *drawn.shape[1:])), best.reach)
    else:
        data = best.raw_series(best.test.take(best.spread(PANELS)))
        looks = [{"color": COLORS[at], "linewidth": 0.8, "linestyle": DASHES[at]} for at in range(CHANNELS)]
        drawn_channels = best.channels(CHANNELS)
        names = [style.literal(best.channel_name(channel)) for channel in drawn_channels]
        names = names if len(names) > 1 else [""]
        channels = list(zip(drawn_channels, looks, names, strict=False))
        panels = [
            Panel([Line(range(len(row)), row[:, channel], look, name) for channel, look, name in channels], beside)
            for beside, rows in (("data", data), ("model", best.raw(drawn)))
            for row in rows
        ]
        chart = Chart(panels, "step", small=True)
        above = f"Above them {len(data)} test rows."
    text = style.joined(
        f"{number} draws from the model, not selected.",
        best.conditional and "Classes in turn.",
        above,
        best.channel_words(CHANNELS),
    )
    return best.sketch("samples", "Samples", text, chart)


def forecasts(scene: Scene) -> list[Plan]:
    """Windows from all over the test part, with their forecasts."""
    return plans_of(scene, _forecasts, Forecasts, kinds=ANY)


def _forecasts(best: Best) -> Sketch:
    from research.evaluation.forecasting import seasonal_naive

    rows = best.test.take(best.spread(WINDOWS))
    forecast = best.call("forecast", rows)
    interval = interval_of(forecast, best.model)
    shift, scale = rows.units(best.loaded.preparation.target_shift, best.loaded.preparation.target_scale)
    raw = lambda y: np.asarray(y, np.float64) / scale + shift
    raw_target = lambda y: raw(y)[..., best.channel]
    x = np.stack(series(raw(rows.x), None, rows.mask))[..., best.channel]
    truth = np.stack(series(raw(rows.target), None, rows.target_observed))
    truth = truth[..., best.channel]
    horizon, season = truth.shape[1], best.facts.season
    naive = None
    if season is not None and season <= x.shape[1]:
        mask = None if rows.mask is None else np.asarray(rows.mask)
        naive = seasonal_naive(raw(rows.x), horizon, season, mask)[..., best.channel]
    median = raw_target(forecast.median)
    edges = interval and [raw_target(edge) for edge in interval[:2]]
    back = min(x.shape[1], max(horizon, 2 * (season or 1)))
    look = {"color": COLORS[0], "linewidth": 1.2, "zorder": 3}
    dotted = {"color": COLORS[1], "linewidth": 0.9, "linestyle": DASHES[2], "zorder": 4}
    panels = []
    for at in range(len(x)):
        joined = np.concatenate([x[at, -1:], truth[at]])
        lines = [
            Line(range(-back, 0), x[at, -back:], {"color": style.GREY, "linewidth": 0.9}, "look-back"),
            Line(range(-1, horizon), joined, {"color": "black", "linewidth": 1.0}, "truth"),
        ]
        if naive is not None:
            lines.append(Line(range(horizon), naive[at], dotted, "seasonal naive"))
        band = (edges[0][at], edges[1][at]) if edges else None
        lines.append(Line(range(horizon), median[at], look, "forecast", band, interval[2] if interval else ""))
        shown = np.concatenate([line.y for line in lines])
        border = Line([-0.5] * 2, [np.nanmin(shown), np.nanmax(shown)], {"color": style.LIGHT, "zorder": 0})
        panels.append(Panel([border, *lines]))
    chart = Chart(panels, "steps after the end of the look-back", best.channel_label, small=True)
    text = style.joined(
        f"Forecasts of {len(x)} test windows from all over the test rows",
        f"(median and {interval[2]})" if interval else "(median)",
        f"and seasonal naive forecasts, which repeat the last {season} steps."
        if naive is not None
        else "beside the truth.",
        f"{horizon} steps ahead; the last {back} of {x.shape[1]} steps of the look-back are drawn.",
        best.channel_words(),
    )
    return best.sketch("forecasts", "Forecasts", text, chart)
