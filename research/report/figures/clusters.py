"""Clusters of codes and classes: which series are together, and what is taken for what."""

import numpy as np

from research.evaluation.views import COLORS, series, spread
from research.models.abilities import Encodes, Predicts, able
from research.report.figures import style
from research.report.figures.best import Best, plans_of
from research.report.figures.chart import Line, Panel, small_panels
from research.report.figures.scene import Scene
from research.report.figures.sketch import Plan, Sketch
from research.report.figures.tiles import LARGEST, Cells, Shaded

CLUSTERS, LINES = 12, 40  # most clusters, and most series drawn of one
RASTER = 1500  # points of a panel from which lines are drawn as an image in vector files
COUNT = "test/clusters"


def _unclustered(best: Best) -> str:
    if best.run.metrics.get(COUNT) is None:
        return f"its run has no {COUNT} (evaluation.clustering)"
    if not able(best.model, Encodes) or best.codes.ndim != 2 or not np.isfinite(best.codes).all():
        return "it has no finite codes of rows"
    return ""


def assignments(best: Best) -> np.ndarray:
    """The clusters of the codes of test rows as the evaluation of the run had them, [N]."""
    from research.evaluation.clustering import kmeans

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
    cluster = assignments(best)
    count = int(cluster.max()) + 1
    order = list(range(count))
    if best.label is not None:
        _, order = matched(best.label, cluster, int(best.label.max()) + 1, count)
    (channel,) = best.channels()
    rows = series(best.raw(best.test.x), best.test.length, best.test.mask)
    values = np.full((len(rows), max(map(len, rows))), np.nan)
    for at, row in enumerate(rows):
        values[at, : len(row)] = row[:, channel]
    low, high = np.nanquantile(values, [0.002, 0.998])
    room = 0.08 * (high - low) or 1.0
    panels = []
    for number, members in enumerate(cluster == chosen for chosen in order[:CLUSTERS]):
        label = None if best.label is None else best.label[members]
        limits = {"x_limits": (-0.5, values.shape[1] - 0.5), "y_limits": (low - room, high + room)}
        panels.append(Panel(_lines(values[members]), _title(number, int(members.sum()), label), **limits))
    chart = small_panels(panels, min(4, len(panels)), 1.15, 0.3, width=style.PAGE, title_size=6.6)
    text = f"Test rows by the cluster of their code (k-means, {count} clusters), and the mean of each cluster."
    text += f" At most {LINES} rows of a cluster are drawn." if np.bincount(cluster).max() > LINES else ""
    text += " Titles: number of rows, and the share of the most frequent class." if best.label is not None else ""
    text += f" {count - CLUSTERS} clusters are not drawn." if count > CLUSTERS else ""
    return best.sketch("cluster_assignments", "Clusters of series", text + best.channel_words(), chart)


def _lines(members: np.ndarray) -> list[Line]:
    """Some rows of a cluster [N, T] in thin lines, without their gaps, and the mean of all of them."""
    shown = members[spread(len(members), LINES)]
    thin = {"color": COLORS[0], "linewidth": 0.4, "alpha": 0.3, "rasterized": shown.size > RASTER}
    lines = [Line(np.flatnonzero(np.isfinite(row)), row[np.isfinite(row)], thin) for row in shown]
    known = np.isfinite(members)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, members, 0).sum(0) / known.sum(0)
    return [*lines, Line(range(len(mean)), mean, {"color": "black", "linewidth": 1.3, "zorder": 3})]


def _title(number: int, rows: int, label: np.ndarray | None) -> str:
    title = f"cluster {number + 1} (n={rows})"
    if label is None:
        return title
    names, sizes = np.unique(label, return_counts=True)
    return f"{title}: class {names[sizes.argmax()]} {sizes.max() / sizes.sum():.0%}"


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
        label = np.asarray(best.test.label if best.model.of_label else best.test.target).reshape(-1).astype(int)
        classes = int(best.model.target_classes)
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (label, best.call("predict", best.test).argmax(-1)), 1)
        across, columns = "predicted class", [str(at) for at in range(classes)]
        share = np.trace(counts) / counts.sum()
        text = f"Predicted classes of {len(label)} test rows against their classes; {share:.1%} are right."
    else:
        label, cluster = np.asarray(best.label), assignments(best)
        classes, clusters = int(label.max()) + 1, int(cluster.max()) + 1
        counts, _ = matched(label, cluster, classes, clusters)
        across, columns = "cluster", [str(at + 1) for at in range(clusters)]
        text = f"Clusters of the codes of {len(label)} test rows (k-means) against their classes"
        # columns are in the order of the classes only where there are at least as many clusters
        share = np.trace(counts) / counts.sum()
        text += f", matched one to one; {share:.1%} are in matched pairs." if clusters >= classes else "."
    text += " Shades: shares of the rows of a class."
    texts = [[str(count) if count else "" for count in row] for row in counts]
    cell = 0.27 if max(counts.shape) > 6 else 0.38
    width = min(style.PAGE, max(style.COLUMN * 0.75, 0.75 + cell * len(columns)))
    height = 0.65 + cell * len(counts) if len(counts) <= LARGEST else width
    panel = Shaded(counts / np.maximum(counts.sum(1, keepdims=True), 1), texts)
    rows = [str(at) for at in range(len(counts))]
    picture = Cells([panel], rows, columns, "class", across, width, height, square=True)
    return best.sketch("confusion", "Confusion of classes", text, picture)
