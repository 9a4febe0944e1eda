"""Clusters of codes and classes: which series are together, and what is taken for what."""

import numpy as np

from research.evaluation.views import COLORS, spread
from research.models.abilities import Encodes, Predicts, able
from research.report.figures import style
from research.report.figures.best import ANY, Best, plans_of
from research.report.figures.chart import Chart, Line, Panel
from research.report.figures.heat import cell_texts
from research.report.figures.scene import Plan, Scene, Sketch

CLUSTERS, LINES = 12, 40  # most clusters, and most series drawn of one
RASTER = 1500  # points of a panel from which lines are drawn as an image in vector files
LETTER = 0.06  # inches of a letter of a name
LARGEST = 15  # most classes or clusters with numbers in their cells
COUNT = "test/clusters"


def _unclustered(best: Best) -> str:
    return "" if best.run.metrics.get(COUNT) is not None else f"its run has no {COUNT} (evaluation.clustering)"


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


def cluster_assignments(scene: Scene) -> list[Plan]:
    """The series of every cluster."""
    return plans_of(scene, _series, Encodes, kinds=("sequence",), codes=True, lacks=_unclustered)


def _series(best: Best) -> Sketch:
    cluster = assignments(best)
    count = int(cluster.max()) + 1
    order = list(range(count))
    if best.label is not None:
        _, order = matched(best.label, cluster, int(best.label.max()) + 1, count)
    rows = best.raw_series(best.test)
    values = np.full((len(rows), max(map(len, rows))), np.nan)
    for at, row in enumerate(rows):
        values[at, : len(row)] = row[:, best.channel]
    low, high = np.nanquantile(values, [0.002, 0.998])
    room = 0.08 * (high - low) or 1.0
    panels = []
    for number, members in enumerate(cluster == chosen for chosen in order[:CLUSTERS]):
        title = f"cluster {number + 1} (n={members.sum()})"
        if best.label is not None:
            numbers, sizes = np.unique(best.label[members], return_counts=True)
            name = style.literal(best.class_name(int(numbers[sizes.argmax()])))
            title += f"\nclass {name}: {sizes.max() / sizes.sum():.0%}"
        reach = {"x_limits": (-0.5, values.shape[1] - 0.5), "y_limits": (low - room, high + room)}
        panels.append(Panel(_lines(values[members]), title, **reach))
    classes = ", and the share of the most frequent class" if best.label is not None else ""
    sizes = np.bincount(cluster)
    text = style.joined(
        f"Test rows by the cluster of their code (k-means, {count} clusters), and the mean of each cluster.",
        sizes.max() > LINES and f"At most {LINES} rows of a cluster are drawn.",
        f"Clusters have {sizes.min()} to {sizes.max()} rows. Titles: number of rows{classes}.",
        style.not_drawn(count - CLUSTERS),
        best.channel_words(),
    )
    chart = Chart(panels, "step", best.channel_label, small=True)
    return best.sketch("cluster_assignments", "Clusters of series", text, chart)


def _lines(members: np.ndarray) -> list[Line]:
    """Some rows of a cluster [N, T] in thin lines, without their gaps, and the mean of all of them."""
    shown = members[spread(len(members), LINES)]
    thin = {"color": COLORS[0], "linewidth": 0.4, "alpha": 0.3, "rasterized": shown.size > RASTER}
    lines = [Line(np.flatnonzero(np.isfinite(row)), row[np.isfinite(row)], thin) for row in shown]
    known = np.isfinite(members)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, members, 0).sum(0) / known.sum(0)
    return [*lines, Line(range(len(mean)), mean, {"color": "black", "linewidth": 1.3, "zorder": 3})]


def confusion(scene: Scene) -> list[Plan]:
    """Predicted classes, or clusters, against classes."""
    return plans_of(scene, _confusion, kinds=ANY, lacks=_no_classes)


def _no_classes(best: Best) -> str:
    if _predicts(best):
        return ""
    return "rows have no classes" if best.label is None else _unclustered(best)


def _predicts(best: Best) -> bool:
    """Whether the model predicts one class of a row."""
    model = best.model
    return bool(able(model, Predicts) and model.target_classes and not model.stepwise)


def _confusion(best: Best) -> Sketch:
    if _predicts(best):
        label = np.asarray(best.test.label if best.model.of_label else best.test.target).reshape(-1).astype(int)
        classes = int(best.model.target_classes)
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (label, best.call("predict", best.test).argmax(-1)), 1)
        # classes of a target have no names
        names = [style.literal(best.class_name(at)) if best.model.of_label else str(at) for at in range(classes)]
        across, columns = "predicted class", names
        text = f"Predicted classes of {len(label)} test rows against their classes; {{:.1%}} are right."
    else:
        label, cluster = np.asarray(best.label), assignments(best)
        classes, clusters = int(label.max()) + 1, int(cluster.max()) + 1
        counts, _ = matched(label, cluster, classes, clusters)
        names = [style.literal(best.class_name(at)) for at in range(classes)]
        across, columns = "cluster", [str(at) for at in range(1, clusters + 1)]
        text = f"Clusters of the codes of {len(label)} test rows (k-means) against their classes"
        # columns are in the order of the classes only where there are at least as many clusters
        text += ", matched one to one; {:.1%} are in matched pairs." if clusters >= classes else "."
    text = text.format(np.trace(counts) / counts.sum()) + " Shades: shares of the rows of a class."
    shades = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    numbers = {(int(row), int(column)): str(counts[row, column]) for row, column in np.argwhere(counts)}
    is_small = max(counts.shape) <= LARGEST
    step = 1 if max(counts.shape) <= 30 else 10
    cell = (0.27 if max(counts.shape) > 6 else 0.38) if is_small else 3 / max(counts.shape)
    beside, below = (LETTER * max(map(len, texts)) for texts in (names, columns))  # room that names take
    upright = below > cell
    chart = Chart(
        [Panel(cells=shades, texts=cell_texts(numbers, shades) if is_small else ())],
        across,
        "class",
        width=max(style.COLUMN * 0.75, 0.7 + beside + cell * len(columns)),
        height=cell * classes + 0.65 + below * upright,
        row_names=[name if at % step == 0 else "" for at, name in enumerate(names)],
        column_names=[name if at % step == 0 else "" for at, name in enumerate(columns)],
        upright=upright,
        aspect=1,
    )
    return best.sketch("confusion", "Confusion of classes", text, chart)
