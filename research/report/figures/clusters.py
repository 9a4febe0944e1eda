"""Clusters of codes and classes: which series are together, and what is taken for what."""

from typing import Any

import numpy as np

from research.models.abilities import Encodes, Predicts, able
from research.report.figures import style, tiles
from research.report.figures.best import Best, plans_of
from research.report.figures.scene import Plan, Scene, Sketch

CLUSTERS, LINES = 12, 40  # most clusters, and most series drawn of one
RASTER = 1500  # points of a panel from which lines are drawn as an image in vector files
NUMBERS = 15  # most classes of a matrix with numbers in it
COUNT = "test/clusters"


def _unclustered(best: Best) -> str:
    if best.run.metrics.get(COUNT) is None:
        return f"its run has no {COUNT} (evaluation.clustering)"
    if not able(best.model, Encodes) or best.codes.ndim != 2 or not np.isfinite(best.codes).all():
        return "it has no finite codes of rows"
    return ""


def assignments(best: Best) -> np.ndarray:
    """The clusters of the codes of test rows as the evaluation of the run had them, [N]."""
    from research.runs.clusters import kmeans

    recipe = best.loaded.result.get("evaluation") or {}
    count = int(best.run.metrics[COUNT] or 0)
    return kmeans(best.codes, count, int(recipe.get("cluster_starts", 20)), int(best.loaded.config.get("seed", 0)))


def matched(label: np.ndarray, cluster: np.ndarray, classes: int, clusters: int) -> tuple[np.ndarray, list[int]]:
    """Counts [classes, clusters], and the clusters in the order of the classes that they are matched to one by one.

    The matching has the most rows in matched pairs (Hungarian method); clusters that are left over come last.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, clusters), np.int64)
    np.add.at(counts, (label, cluster), 1)
    _, columns = linear_sum_assignment(counts, maximize=True)
    order = [int(column) for column in columns]
    order += [column for column in range(clusters) if column not in order]
    return counts[:, order], order


# ----------------------------------------------------------------------------------------------------- assignments


def cluster_assignments(scene: Scene) -> list[Plan]:
    """The series of every cluster."""
    return plans_of(scene, lambda best: _unclustered(best) if best.is_sequence else "rows are no sequences", _series)


def _series(best: Best) -> Sketch:
    from matplotlib.collections import LineCollection

    cluster = assignments(best)
    label = None if best.test.label is None else np.asarray(best.test.label).astype(int)
    count = int(cluster.max()) + 1
    order = list(range(count))
    if label is not None:
        _, order = matched(label, cluster, int(label.max()) + 1, count)
    (channel,) = best.channels()
    rows = tiles.series(best.raw(best.test.x), best.test.length, best.test.mask)
    steps = max(len(row) for row in rows)
    padded = np.full((len(rows), steps), np.nan)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = row[:, channel]
    shown = order[:CLUSTERS]
    drawn, grid = tiles.panels(len(shown), 4 if len(shown) > 3 else len(shown), 1.15, legend=False)
    drawn.set_figwidth(style.PAGE)
    low, high = np.nanquantile(padded, [0.002, 0.998])
    for number, (axes, own) in enumerate(zip(grid, shown, strict=True)):
        members = padded[cluster == own]
        some = members[np.linspace(0, len(members) - 1, min(LINES, len(members))).astype(int)]
        steps_of = [np.stack([np.arange(steps), row], 1)[np.isfinite(row)] for row in some]
        axes.add_collection(
            LineCollection(steps_of, colors=style.COLORS[0], linewidths=0.4, alpha=0.3, rasterized=some.size > RASTER)
        )
        there = np.isfinite(members)
        with np.errstate(invalid="ignore"):
            mean = np.where(there, members, 0).sum(0) / there.sum(0)
        axes.plot(mean, color="black", linewidth=1.3, zorder=3)
        title = f"cluster {number + 1} (n={len(members)})"
        if label is not None:
            names, sizes = np.unique(label[cluster == own], return_counts=True)
            title += f": class {names[sizes.argmax()]} {sizes.max() / sizes.sum():.0%}"
        axes.set_title(title, fontsize=6.6)
        room = 0.08 * (high - low) or 1.0
        axes.set_xlim(-0.5, steps - 0.5)
        axes.set_ylim(low - room, high + room)
    drawn.supxlabel("step", fontsize=8)
    text = f"Test rows by the cluster of their code (k-means, {count} clusters), and the mean of each cluster."
    text += f" At most {LINES} rows of a cluster are drawn." if np.bincount(cluster).max() > LINES else ""
    text += " Titles: number of rows, and the share of the most frequent class." if label is not None else ""
    text += f" {count - CLUSTERS} clusters are not drawn." if count > CLUSTERS else ""
    return best.sketch("cluster_assignments", "Clusters of series", text + best.channel_words(), drawn)


# ------------------------------------------------------------------------------------------------------- confusion


def _no_classes(best: Best) -> str:
    if _predicts(best):
        return ""
    if best.test.label is None:
        return "rows have no classes"
    return _unclustered(best)


def _predicts(best: Best) -> bool:
    """Whether the model predicts one class of a row."""
    model = best.model
    return bool(able(model, Predicts) and model.target_classes and not model.stepwise)


def confusion(scene: Scene) -> list[Plan]:
    """Predicted classes, or clusters, against classes."""
    return plans_of(scene, _no_classes, _matrix)


def _matrix(best: Best) -> Sketch:
    if _predicts(best):
        target = best.test.label if best.model.of_label else best.test.target
        label = np.asarray(target).reshape(-1).astype(int)
        found = best.call("predict", best.test).argmax(-1)
        classes = int(best.model.target_classes)
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (label, found), 1)
        across, columns = "predicted class", [str(at) for at in range(classes)]
        share = np.trace(counts) / counts.sum()
        text = f"Predicted classes of {len(label)} test rows against their classes; {share:.1%} are right."
    else:
        label = np.asarray(best.test.label).astype(int)
        cluster = assignments(best)
        classes, clusters = int(label.max()) + 1, int(cluster.max()) + 1
        counts, _ = matched(label, cluster, classes, clusters)
        across, columns = "cluster", [str(at + 1) for at in range(clusters)]
        least = min(classes, clusters)
        # columns are in the order of the classes only where there are at least as many clusters
        right = counts[np.arange(least), np.arange(least)].sum() if clusters >= classes else None
        text = f"Clusters of the codes of {len(label)} test rows (k-means) against their classes"
        text += f", matched one to one; {right / counts.sum():.1%} are in matched pairs." if right is not None else "."
    text += " Shades: shares of the rows of a class."
    drawn = _draw(counts, across, columns)
    return best.sketch("confusion", "Confusion of classes", text, drawn)


def _draw(counts: np.ndarray, across: str, columns: list[str]) -> Any:
    """Counts in cells that are shaded by the share of their row."""
    rows = len(counts)
    cell = 0.27 if max(counts.shape) > 6 else 0.38
    width = min(style.PAGE, max(style.COLUMN * 0.75, 0.75 + cell * len(columns)))
    drawn = style.figure(width, 0.65 + cell * rows if rows <= NUMBERS else width)
    axes = drawn.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.pcolormesh(share, cmap=style.shades(), vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    if max(counts.shape) <= NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.45 else "black"
            if count:
                axes.text(
                    column + 0.5, row + 0.5, str(count), ha="center", va="center", fontsize=6.2, color=color, zorder=3
                )
    step = 1 if max(counts.shape) <= 30 else 10
    axes.set_xticks(np.arange(0, len(columns), step) + 0.5, columns[::step])
    axes.set_yticks(np.arange(0, rows, step) + 0.5, [str(at) for at in range(0, rows, step)])
    axes.set_xlabel(across)
    axes.set_ylabel("class")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn
