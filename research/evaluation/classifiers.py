"""Classifiers that judge codes, the same whatever the version of a learning library: a forest, and a linear one."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tree:
    """A binary tree of nodes, the root first.

    Attributes:
      feature: column that a node splits on, -1 at a leaf, [nodes].
      threshold: rows whose value is at most this go left, [nodes].
      left: node on the left; the one on the right follows it, [nodes].
      share: of every class among the node's training rows, [nodes, K].
      importance: decrease of the Gini impurity by the splits on each column, times the rows of the node, [L].
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    share: np.ndarray
    importance: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Shares of the classes for rows [N, L], [N, K]."""
        node = np.zeros(len(x), np.int64)
        moving = np.flatnonzero(self.feature[node] >= 0)
        while len(moving):
            at = node[moving]
            node[moving] = self.left[at] + (x[moving, self.feature[at]] > self.threshold[at])
            moving = moving[self.feature[node[moving]] >= 0]
        return self.share[node]


def grow(x: np.ndarray, label: np.ndarray, classes: int, depth: int, leaf: int) -> Tree:
    """A classification tree (Breiman et al. 1984): every node takes the split of the largest decrease of Gini impurity.

    All columns and all cuts between different values are looked at. Columns that decrease it equally share the
    importance of a split equally, so that copies of a column (and monotone functions of it) get equal importance; the
    first of them is split on.

    Nodes of a level are handled together. With the rows of a node in the order of a column, n_k of class k left of a
    cut, the sums over classes that the impurities on both sides need grow by one term a row: sum n_k^2 by
    2 n_k + 1, sum N_k n_k by N_k of the row's class. A level costs O(N L) whatever the number of classes.

    Args:
      x: [N, L] float.
      label: [N] integers below `classes`.
      depth: most splits above a leaf.
      leaf: fewest rows of a leaf.
    """
    rows, columns = x.shape
    importance = np.zeros(columns)
    counts = [np.bincount(label, minlength=classes)[None]]
    features, thresholds, lefts = [np.full(1, -1)], [np.zeros(1)], [np.zeros(1, np.int64)]
    order = np.argsort(x, axis=0, kind="stable").T  # [L, N]: rows in the order of each column, node by node
    node = np.zeros(rows, np.int64)  # of every row, within the level; -1 once it has arrived at a leaf
    total = 1
    for _ in range(depth):
        split = _best_splits(x, label, node, order, counts[-1], leaf)
        if split is None:
            break
        at, feature, threshold, gain, tied = split
        importance += (tied * (gain / tied.sum(0))).sum(1)
        features[-1][at], thresholds[-1][at] = feature, threshold
        lefts[-1][at] = total + 2 * np.arange(len(at))
        total += 2 * len(at)
        number = np.full(len(counts[-1]), -1)
        number[at] = np.arange(len(at))
        moved = np.where(node >= 0, number[node], -1)
        inside = np.flatnonzero(moved >= 0)
        right = x[inside, feature[moved[inside]]] > threshold[moved[inside]]
        node = np.full(rows, -1)
        node[inside] = 2 * moved[inside] + right
        keys = node[inside] * classes + label[inside]
        counts.append(np.bincount(keys, minlength=2 * len(at) * classes).reshape(-1, classes))
        order = order[node[order] >= 0].reshape(columns, -1)
        order = np.take_along_axis(order, _stable_order(node[order]), 1)
        features.append(np.full(2 * len(at), -1))
        thresholds.append(np.zeros(2 * len(at)))
        lefts.append(np.zeros(2 * len(at), np.int64))
    share = np.concatenate(counts).astype(np.float64)
    share /= share.sum(1, keepdims=True)
    return Tree(np.concatenate(features), np.concatenate(thresholds), np.concatenate(lefts), share, importance)


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """Stable order of small integers [L, M] along the last axis; numpy sorts those of 16 bits by radix."""
    return np.argsort(keys.astype(np.uint16) if keys.size and keys.max() < 2**16 else keys, axis=1, kind="stable")


def _best_splits(
    x: np.ndarray, label: np.ndarray, node: np.ndarray, order: np.ndarray, counts: np.ndarray, leaf: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Nodes to split, [S], then for each its column, threshold, gain, and which columns gain as much, [L, S].

    Args:
      order: rows that are in no leaf yet, sorted by node and then by column l, [L, M].
      counts: of the classes in the nodes of the level, [nodes, K].
    """
    most = order.shape[1]
    if most == 0:
        return None
    own = node[order[0]]  # nodes in sorted order: the same for all columns
    size, squares = counts.sum(1), np.square(counts).sum(1)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    classes = counts.shape[1]
    # how many rows of its node and class stand before each row
    filled = counts.reshape(-1) > 0
    group = (np.cumsum(filled) - 1)[node[order] * classes + label[order]]
    by_group = _stable_order(group)
    group_size = counts.reshape(-1)[filled]
    within = np.arange(most) - np.repeat(np.cumsum(group_size) - group_size, group_size)
    before = np.empty_like(group)
    np.put_along_axis(before, by_group, np.broadcast_to(within, order.shape), 1)

    def running(terms: np.ndarray) -> np.ndarray:  # sums from the node's first row on, this row included
        sums = np.cumsum(terms, 1)
        return sums - (sums - terms)[:, start][:, own]

    left = np.arange(most) - start[own] + 1
    right = size[own] - left
    squares_left = running(2 * before + 1)
    squares_right = squares[own] - 2 * running(group_size[group]) + squares_left
    score = squares_left / left + squares_right / np.maximum(right, 1)
    value = np.take_along_axis(x.T, order, 1)
    allowed = np.zeros(order.shape, bool)
    allowed[:, :-1] = value[:, 1:] > value[:, :-1]
    score[~(allowed & (left >= leaf) & (right >= leaf))] = -np.inf
    best = np.maximum.reduceat(score, start, axis=1)  # [L, nodes]
    gain = best.max(0) - squares / size
    at = np.flatnonzero(gain > 1e-9 * size)
    if len(at) == 0:
        return None
    tied = best == best.max(0)
    feature = tied.argmax(0)
    chosen = feature[own], np.arange(most)
    hits = np.flatnonzero(score[chosen] == best.max(0)[own])
    cut = hits[np.unique(own[hits], return_index=True)[1]][at]  # the first of equal cuts
    low, high = value[feature[at], cut], value[feature[at], cut + 1]
    middle = low + (high - low) / 2
    return at, feature[at], np.where(middle < high, middle, low), gain[at], tied[:, at]


@dataclasses.dataclass(frozen=True)
class Forest:
    """Trees grown on bootstraps of the same rows (bagging; Breiman 1996)."""

    trees: tuple[Tree, ...]

    @property
    def importance(self) -> np.ndarray:
        """Mean over trees of the decrease of impurity by each column, sum 1, or all 0 where nothing was split, [L]."""
        decrease = np.sum([tree.importance for tree in self.trees], axis=0)
        return decrease / decrease.sum() if decrease.sum() > 0 else decrease

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class with the largest mean share for rows [N, L], [N]."""
        return np.sum([tree(x) for tree in self.trees], axis=0).argmax(1)


def fit(x: np.ndarray, label: np.ndarray, trees: int = 10, depth: int = 12, leaf: int = 2, seed: int = 0) -> Forest:
    """Fit a forest to rows x [N, L] with classes [N], integers from 0.

    Every node looks at all columns, not at a random few as in Breiman (2001): a column that holds the class alone then
    gets all of the importance.
    """
    x, classes = np.asarray(x, np.float64), int(label.max()) + 1
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [generator.integers(len(x), size=len(x)) for _ in range(trees)]
    return Forest(tuple(grow(x[rows], label[rows], classes, depth, leaf) for rows in drawn))


def softmax_regression(x: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Weights [L + 1, K] of the smallest sum of cross-entropies + |weights|^2 / 2, by at most 200 steps of L-BFGS.

    The last row has the intercepts, which are not penalized. x is [N, L], labels [N] integers below `classes`.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    x = np.column_stack([x, np.ones(len(x))])
    target = np.eye(classes)[label]
    penalized = np.ones((x.shape[1], 1))
    penalized[-1] = 0

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, classes)
        logs = log_softmax(x @ weights, axis=1)
        loss = -(logs * target).sum() + np.square(weights * penalized).sum() / 2
        return loss, (x.T @ (np.exp(logs) - target) + weights * penalized).reshape(-1)

    start = np.zeros(x.shape[1] * classes)
    return minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.reshape(-1, classes)
