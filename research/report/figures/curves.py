"""A metric over a swept number."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.cell import Averaging
from research.report.collect import Hole, Run
from research.report.figures import style
from research.report.figures.points import (
    Mean,
    apart,
    averaged_words,
    averaging_of,
    baseline_of,
    label_of,
    main_metrics,
    means_of,
    numeric,
    shown_runs,
    swept,
    values,
)
from research.report.figures.scene import Plan, Scene, Sketch, UnfitError
from research.report.keys import better, comparison_keys, ranking
from research.report.methods import label
from research.report.table import Table

KEYS = 3  # most keys that metrics are drawn over
LINES, PANELS = 8, 6  # most of them
Values = tuple[Any, ...]


def metric_over_key(scene: Scene) -> list[Plan]:
    """Every main metric over every swept number, where its values may be compared along it."""
    table = scene.table
    keys = [key for key in swept(table) if len(numeric(table.runs, key)) > 1][:KEYS]
    if not keys:
        raise UnfitError("no number is swept but seed and fold")
    pairs = [(metric, key) for metric in main_metrics(table) for key in keys if key not in apart(metric, table)]
    if not pairs:
        raise UnfitError("no finished run has a metric that may be compared along a swept number")
    return [functools.partial(_sketch, table, metric, key) for metric, key in pairs]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which keys tell panels and lines apart, and what is averaged over."""

    key: str
    panel_keys: tuple[str, ...]
    line_keys: tuple[str, ...]
    over: Averaging
    panels: list[Values]
    lines: list[Values]
    left_out: int  # lines and panels that there was no room for


def arrange(table: Table, metric: str, key: str, averages: bool = True) -> Layout:
    """The first other key makes lines and the second panels; keys that values cannot be compared across are never
    averaged over, and those of the data always make panels.

    Args:
      averages: False averages over nothing but seeds and folds, and keys that values cannot be compared across make
        panels.
    """
    others = [other for other in swept(table) if other != key]
    separating = [other for other in others if other in set(comparison_keys(metric, table.runs))]
    panel_keys = [other for other in separating if not averages or other.partition(".")[0] == "data"]
    rest = [other for other in others if other not in panel_keys]
    line_keys = rest[: 1 if averages else None]
    rest = [other for other in rest if other not in line_keys]
    if not panel_keys and rest:  # keys that must not be averaged over have the first right to panels
        panel_keys = [other for other in rest if other in separating] or rest[:1]
        if len({values(run, panel_keys) for run in table.runs}) > PANELS:
            panel_keys = []
    line_keys += [other for other in rest if other in separating and other not in panel_keys]

    def found(keys: Sequence[str]) -> list[Values]:
        own = {values(run, keys) for run in table.runs if _placed(run, key)}
        return sorted(own, key=ranking(table.runs, keys))

    panels, lines = found(panel_keys), found(line_keys)
    left_out = max(0, len(panels) - PANELS) + max(0, len(lines) - LINES)
    over = averaging_of(table, (key, *panel_keys, *line_keys))
    return Layout(key, tuple(panel_keys), tuple(line_keys), over, panels[:PANELS], lines[:LINES], left_out)


def _placed(run: Run, key: str) -> bool:
    return not isinstance(run.value(key), Hole)


Place = tuple[Values, Values, float]  # panel, line, value of the key


def gather(table: Table, metric: str, layout: Layout) -> tuple[dict[Place, Mean], dict[Place, dict[str, float]]]:
    """Means and naive values at every point."""
    runs: dict[Place, list[Run]] = {}
    for run in table.runs:
        place = values(run, layout.panel_keys), values(run, layout.line_keys), run.value(layout.key)
        if _placed(run, layout.key) and place[0] in layout.panels and place[1] in layout.lines:
            runs.setdefault(place, []).append(run)
    means = means_of(runs, metric, layout.over)
    return means, {place: baseline_of(own, metric) for place, own in runs.items()}


def naive_lines(
    points: Mapping[Place, Mapping[str, float]], panel: Values
) -> list[tuple[str, Values | None, list[float], list[float]]]:
    """(method, line or None, x, y) of naive methods in a panel: one for all lines where they agree on it."""
    found: list[tuple[str, Values | None, list[float], list[float]]] = []
    here = {(line, x): own for (where, line, x), own in points.items() if where == panel}
    for method in dict.fromkeys(method for own in here.values() for method in own):
        at: dict[float, list[float]] = {}
        for (_, x), own in here.items():
            if method in own:
                at.setdefault(x, []).append(own[method])
        if all(math.isclose(number, same[0], rel_tol=1e-3) for same in at.values() for number in same):
            places = sorted(at)
            found.append((method, None, places, [sum(at[x]) / len(at[x]) for x in places]))
            continue
        for line in dict.fromkeys(line for line, _ in here):
            places = sorted(x for own, x in here if own == line and method in here[own, x])
            found.append((method, line, places, [here[line, x][method] for x in places]))
    return found


def limits(means: Sequence[Mean]) -> tuple[float, float]:
    """Where the models' means and intervals lie; intervals of two seeds, which may be very wide, are cut."""
    centers = [mean.value for mean in means if mean.value is not None]
    low, high = min(centers), max(centers)
    halves = sorted((mean.high - mean.low) / 2 for mean in means if mean.low is not None and mean.high is not None)
    reach = max(high - low, halves[len(halves) // 2] * 1.2 if halves else 0.0, abs(high) * 1e-3)
    edges = [edge for mean in means for edge in (mean.low, mean.high) if edge is not None] or [low, high]
    return max(min(*edges, low), low - reach), min(max(*edges, high), high + reach)


def _sketch(table: Table, metric: str, key: str) -> Sketch:
    layout = arrange(table, metric, key)
    means, naive = gather(table, metric, layout)
    if not any(mean.value is not None for mean in means.values()):
        raise UnfitError(f"no run has {metric}")
    panels = [panel for panel in layout.panels if any(place[0] == panel and means[place].n for place in means)]
    columns = len(panels) if len(panels) <= 4 else 3
    rows = -(-len(panels) // columns)
    wide = len(panels) > 1
    drawn = style.figure(style.PAGE if wide else style.COLUMN, (1.75 if wide else 2.0) * rows + 0.5)
    own_scale = bool(set(layout.panel_keys) & set(comparison_keys(metric, table.runs)))
    grid = drawn.subplots(rows, columns, squeeze=False, sharey=not own_scale)
    xs = sorted({x for (_, _, x), mean in means.items() if mean.n})
    handles: dict[str, Any] = {}
    beyond: dict[str, None] = {}
    frames: list[tuple[Any, float, float]] = []
    for at, panel in enumerate(panels):
        axes = grid[at // columns][at % columns]
        for number, line in enumerate(layout.lines):
            own = {x: mean for (where, who, x), mean in means.items() if where == panel and who == line and mean.n}
            if own:
                name = label_of(table, layout.line_keys, line) if layout.line_keys else "models"
                handles.setdefault(name, _line(axes, own, number))
        everyone = means.values() if not own_scale else [mean for place, mean in means.items() if place[0] == panel]
        low, high = limits([mean for mean in everyone if mean.n])
        frames.append((axes, *_naive(axes, naive_lines(naive, panel), layout, (low, high), handles, beyond)))
        style.numbers_axis(axes, xs)
        if layout.panel_keys:
            axes.set_title(label_of(table, layout.panel_keys, panel))
        if at + columns >= len(panels):
            axes.set_xlabel(style.key_label(key))
        if at % columns == 0:
            axes.set_ylabel(style.metric_label(metric))
    for axes, low, high in frames:
        if not own_scale:
            low, high = min(low for _, low, _ in frames), max(high for *_, high in frames)
        _frame(axes, low, high)
    for at in range(len(panels), rows * columns):
        grid[at // columns][at % columns].set_axis_off()
    shown = handles if len(handles) > 1 else {}
    style.legend_above(drawn, list(shown.values()), list(shown))
    drawn_means = list(means.values())
    text = f"{style.sentence(style.metric_label(metric, arrow=False))} over {key}"
    if layout.line_keys:
        text += f", a line for each {style.listed([*layout.line_keys])}"
    if layout.panel_keys:
        text += f", a panel for each {style.listed([*layout.panel_keys])}"
    caption = f"{text}. {averaged_words(table, layout.over, drawn_means)}"
    if separating := [own for own in layout.line_keys if own in comparison_keys(metric, table.runs)]:
        caption += f" Lines of different {style.listed(separating)} cannot be compared."
    if nowhere := [x for x in numeric(table.runs, key) if x not in xs]:
        caption += f" No run finished at {style.listed([f'{x:g}' for x in nowhere])}."
    if beyond:
        caption += f" Beyond the axis: {', '.join(beyond)}."
    if layout.left_out:
        caption += f" Not drawn for want of room: {layout.left_out} more."
    return Sketch(
        name=f"metric_over_key-{metric}-{key}",
        title=f"{style.metric_label(metric, arrow=False)} over {style.key_label(key)}",
        caption=caption,
        alternative=f"Line chart. {text}. {_extremes(table, means, layout, metric)}",
        runs=shown_runs(drawn_means),
        figure=drawn,
    )


def _line(axes: Any, own: Mapping[float, Mean], number: int) -> Any:
    """Means joined by a line, with a band of their intervals, or bars where there are only two points."""
    color = style.COLORS[number % len(style.COLORS)]
    marker = style.MARKERS[number % len(style.MARKERS)]
    places = sorted(own)
    centers = [own[x].value for x in places]
    (handle,) = axes.plot(places, centers, color=color, marker=marker, zorder=3)  # dashes are for naive methods
    banded = [x for x in places if own[x].low is not None]
    low, high = [own[x].low for x in banded], [own[x].high for x in banded]
    if len(banded) > 2:
        axes.fill_between(banded, low, high, color=color, alpha=0.16, linewidth=0, zorder=1)
    for x, bottom, top in zip(banded, low, high, strict=True) if len(banded) <= 2 else ():
        axes.plot([x, x], [bottom, top], color=color, linewidth=0.8, zorder=2)
    return handle


def _naive(
    axes: Any,
    found: Sequence[tuple[str, Values | None, list[float], list[float]]],
    layout: Layout,
    reach: tuple[float, float],
    handles: dict[str, Any],
    beyond: dict[str, None],
) -> tuple[float, float]:
    """Dashed lines of naive methods; one that is far from the models is named beyond the axis and not drawn."""
    from matplotlib.lines import Line2D

    low, high = reach
    span = high - low
    methods = list(dict.fromkeys(method for method, *_ in found))
    bottom, top = low, high
    for method, line, places, numbers in found:
        far = min(numbers) > high + 1.5 * span or max(numbers) < low - 1.5 * span
        far = far and not (style.wide([low, high]) and min(numbers) > 0)
        if far:
            several = "" if math.isclose(min(numbers), max(numbers), rel_tol=1e-3) else f" to {max(numbers):.3g}"
            beyond[f"{label(method)} ({min(numbers):.3g}{several})"] = None
            continue
        color = style.GREY if line is None else style.COLORS[layout.lines.index(line) % len(style.COLORS)]
        dashes = style.BASELINE_DASHES[methods.index(method) % len(style.BASELINE_DASHES)]
        axes.plot(places, numbers, color=color, linestyle=dashes, linewidth=0.9, zorder=2)
        if label(method) not in handles:
            handles[label(method)] = Line2D([], [], color=style.GREY, linestyle=dashes, linewidth=0.9)
        bottom, top = min(bottom, *numbers), max(top, *numbers)
    return bottom, top


def _frame(axes: Any, low: float, high: float) -> None:
    """Limits with a little room; logarithmic where the values reach far."""
    style.value_axis(axes, [low, high])
    if axes.get_yscale() == "log":
        room = (high / low) ** 0.05
        axes.set_ylim(low / room, high * room)
    else:
        room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        axes.set_ylim(low - room, high + room)


def _extremes(table: Table, means: Mapping[Place, Mean], layout: Layout, metric: str) -> str:
    """The best (or smallest and largest) mean in words."""
    known = {place: mean.value for place, mean in means.items() if mean.value is not None}

    def named(place: Place) -> str:
        keys = (*layout.panel_keys, *layout.line_keys, layout.key)
        return f"{known[place]:.4g} at {label_of(table, keys, (*place[0], *place[1], place[2]))}"

    whole = [place for place in known if means[place].cell.complete] or list(known)
    best = whole[0]
    for place in whole:
        if better(known[place], known[best], metric):
            best = place
    low, high = min(known, key=lambda place: known[place]), max(known, key=lambda place: known[place])
    if any(better(known[place], known[best], metric) for place in whole) or known[low] == known[high]:
        return f"All means are near {known[best]:.4g}."
    reach = f"eans reach from {named(low)} to {named(high)}."
    return f"The best mean is {named(best)}; m{reach}" if best in (low, high) else f"M{reach}"
