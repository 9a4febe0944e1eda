"""Forecasts of held-out windows."""

import numpy as np

from research.evaluation.views import COLORS, interval_of, series
from research.models.abilities import Forecasts, able
from research.report.figures import style
from research.report.figures.best import Best, plans_of
from research.report.figures.chart import DASHES, Line, Panel, small_panels
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch

WINDOWS, COLUMNS = 6, 2


def forecasts(scene: Scene) -> list[Plan]:
    """Windows from all over the test part."""
    return plans_of(scene, _lacks, _sketch)


def _lacks(best: Best) -> str:
    return "" if able(best.model, Forecasts) else f"a {type(best.model).__name__} does not forecast"


def _sketch(best: Best) -> Sketch:
    from research.evaluation.forecasting import seasonal_naive

    rows = best.test.take(best.spread(WINDOWS))
    forecast = best.call("forecast", rows)
    interval = interval_of(forecast, best.model)
    (channel,) = best.channels()
    x = np.stack(series(best.raw(rows.x), None, rows.mask))[..., channel]
    truth = np.stack(series(best.raw_target(rows.target), None, rows.target_observed))[..., channel]
    median = best.raw_target(forecast.median)[..., channel]
    horizon, season = truth.shape[1], best.material.facts.season
    naive = None
    if season is not None and season <= x.shape[1]:
        mask = None if rows.mask is None else np.asarray(rows.mask)
        naive = seasonal_naive(best.raw(rows.x), horizon, season, mask)[..., channel]
    edges = None if interval is None else [best.raw_target(edge)[..., channel] for edge in interval[:2]]
    back = min(x.shape[1], max(horizon, 2 * (season or 1)))
    ahead = range(horizon)
    panels = []
    for at in range(len(x)):
        joined = np.concatenate([x[at, -1:], truth[at]])
        lines = [
            Line(range(-back, 0), x[at, -back:], {"color": style.GREY, "linewidth": 0.9}, "look-back"),
            Line(range(-1, horizon), joined, {"color": "black", "linewidth": 1.0}, "truth"),
        ]
        if naive is not None:
            look = {"color": COLORS[1], "linewidth": 0.9, "linestyle": DASHES[2], "zorder": 4}
            lines.append(Line(ahead, naive[at], look, "seasonal naive"))
        look = {"color": COLORS[0], "linewidth": 1.2, "zorder": 3}
        band = None if edges is None else (edges[0][at], edges[1][at])
        lines.append(Line(ahead, median[at], look, "forecast", band, interval[2] if interval else ""))
        panels.append(Panel(lines, vertical=-0.5))
    label = "steps after the end of the look-back"
    chart = small_panels(panels, COLUMNS, 1.3, x_label=label, width=style.PAGE)
    text = f"Forecasts of {len(x)} test windows from all over the test rows"
    text += f" (median and {interval[2]})" if interval is not None else ""
    text += f"; the seasonal naive forecast repeats the last {season} steps." if naive is not None else "."
    text += f" {horizon} steps ahead; the last {back} of {x.shape[1]} steps of the look-back are drawn."
    return best.sketch("forecasts", "Forecasts", text + best.channel_words(), chart)
