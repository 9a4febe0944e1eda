"""Forecasts of held-out windows."""

from typing import Any

import numpy as np

from research.models.abilities import Forecasts, able
from research.report.figures import style, tiles
from research.report.figures.best import Best, plans_of
from research.report.figures.scene import Plan, Scene, Sketch

WINDOWS, COLUMNS = 6, 2
NORMAL = 1.2816  # deviations to each side of a normal mean that hold 80 %


def forecasts(scene: Scene) -> list[Plan]:
    """Windows from all over the test part."""
    return plans_of(scene, _lacks, _sketch)


def _lacks(best: Best) -> str:
    return "" if able(best.model, Forecasts) else f"a {type(best.model).__name__} does not forecast"


def band_of(forecast: Any, model: Any) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Lower and upper edge of a forecast's interval, and how much it is to hold; None where it has none."""
    if forecast.quantiles is not None:
        share = model.quantiles[-1] - model.quantiles[0]
        return forecast.quantiles[..., 0], forecast.quantiles[..., -1], f"{100 * share:.0f} % interval"
    if forecast.deviation is not None:
        half = NORMAL * forecast.deviation
        return forecast.mean - half, forecast.mean + half, "80 % interval"
    return None


def _sketch(best: Best) -> Sketch:
    from research.evaluation.forecasting import seasonal_naive

    rows = best.test.take(best.spread(WINDOWS))
    forecast = best.call("forecast", rows)
    band = band_of(forecast, best.model)
    (channel,) = best.channels()
    x = np.stack(tiles.series(best.raw(rows.x), None, rows.mask))[..., channel]
    truth = np.stack(tiles.series(best.raw_target(rows.target), None, rows.target_observed))[..., channel]
    median = best.raw_target(forecast.median)[..., channel]
    horizon, season = truth.shape[1], best.facts.season
    naive = None
    if season is not None and season <= x.shape[1]:
        mask = None if rows.mask is None else np.asarray(rows.mask)
        naive = seasonal_naive(best.raw(rows.x), horizon, season, mask)[..., channel]
    back = min(x.shape[1], max(horizon, 2 * (season or 1)))
    drawn, grid = tiles.panels(len(x), COLUMNS, 1.3)
    drawn.set_figwidth(style.PAGE)
    before, ahead = np.arange(-back, 0), np.arange(horizon)
    handles: dict[str, Any] = {}
    for at, axes in enumerate(grid):
        axes.axvline(-0.5, color=style.LIGHT, linewidth=0.8, zorder=0)
        (handles["look-back"],) = axes.plot(before, x[at, -back:], color=style.GREY, linewidth=0.9)
        joined = np.concatenate([x[at, -1:], truth[at]])
        (handles["truth"],) = axes.plot(np.arange(-1, horizon), joined, color="black", linewidth=1.0)
        if naive is not None:
            look = {"color": style.COLORS[1], "linewidth": 0.9, "linestyle": style.DASHES[2], "zorder": 4}
            (handles["seasonal naive"],) = axes.plot(ahead, naive[at], **look)
        (handles["forecast"],) = axes.plot(ahead, median[at], color=style.COLORS[0], linewidth=1.2, zorder=3)
        if band is not None:
            low, high = (best.raw_target(edge)[at, :, channel] for edge in band[:2])
            handles[band[2]] = axes.fill_between(
                ahead, low, high, color=style.COLORS[0], alpha=0.2, linewidth=0, zorder=1
            )
    drawn.supxlabel("steps after the end of the look-back", fontsize=8)
    style.legend_above(drawn, list(handles.values()), list(handles))
    text = f"Forecasts of {len(x)} test windows from all over the test rows"
    text += f" (median and {band[2]})" if band is not None else ""
    text += f"; the seasonal naive forecast repeats the last {season} steps." if naive is not None else "."
    text += f" {horizon} steps ahead; the last {back} of {x.shape[1]} steps of the look-back are drawn."
    return best.sketch("forecasts", "Forecasts", text + best.channel_words(), drawn)
