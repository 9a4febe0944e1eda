"""Pruning: members that are worse than their peers at the same epoch are given up."""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from research.engine import Trainer
from research.metrics import higher_is_better
from research.sweep.options import Options


@dataclasses.dataclass
class Standing:
    """The members of a group at one epoch, as lists over the members.

    Attributes:
      epoch: at which they are compared.
      best: the best monitored metric so far; NaN before the first evaluation.
      learning: whether a member has not ended.
      healthy: whether a member has not diverged.
      folds: the fold of each member.
      points: the point of each member, which differs from those of the same point in seed and fold alone; needed for
        comparisons across programs.
    """

    epoch: int
    best: Sequence[float]
    learning: Sequence[bool]
    healthy: Sequence[bool]
    folds: Sequence[Any]
    points: Sequence[Hashable] = ()


def losers(standing: Standing, options: Options, trainer: Trainer) -> list[int]:
    """Members to prune.

    Peers are the members of one group and one fold. They differ in numbers and seeds, are compared at the same epoch
    and on the same rows, so the choice does not depend on other groups. A member is judged by its best monitored metric
    so far, after at least `prune_after` epochs. With `sweep.peers=command` the points of all programs are compared: a
    point is judged by the mean over its seeds and folds, and all its members are pruned; one of which a member diverged
    is the worst. `choosing.check_pruning` refuses a metric that does not measure the
    same for all peers.

    median: prune a member that is worse than the median of its peers; a peer that has ended counts with its best value
      (Golovin et al. 2017, without the running average).
    successive_halving: after `prune_after` times 1, 3, 9, ... epochs keep the best third, at least one member
      (Jamieson & Talwalkar 2016, eta = 3).
    """
    if options.prune == "none":
        return []
    if options.peers == "command":
        members = [
            [at for at, point in enumerate(standing.points) if point == each] for each in dict.fromkeys(standing.points)
        ]
        lost = _losers(_as_points(standing, members), options, trainer, range(len(members)))
        return sorted(number for point in lost for number in members[point] if standing.learning[number])
    folds = dict.fromkeys(standing.folds)
    peers = [[number for number, fold in enumerate(standing.folds) if fold == each] for each in folds]
    return sorted(number for members in peers for number in _losers(standing, options, trainer, members))


def _as_points(standing: Standing, members: Sequence[Sequence[int]]) -> Standing:
    """Points as if they were members; `members` are the numbers of those of each point."""
    healthy = [all(standing.healthy[number] for number in numbers) for numbers in members]
    means = [math.fsum(standing.best[number] for number in numbers) / len(numbers) for numbers in members]
    best = [mean if sound else math.nan for mean, sound in zip(means, healthy, strict=True)]
    learning = [any(standing.learning[number] for number in numbers) for numbers in members]
    return Standing(standing.epoch, best, learning, healthy, [None] * len(members))


def _losers(standing: Standing, options: Options, trainer: Trainer, peers: Sequence[int]) -> list[int]:
    """Members to prune among peers."""
    learning = [number for number in peers if standing.learning[number]]
    epoch = standing.epoch
    if len(learning) < 2 or epoch < options.prune_after or epoch >= trainer.epochs:
        return []
    sign = -1.0 if higher_is_better(trainer.monitor) else 1.0
    best = np.asarray(standing.best, float) * sign  # smaller is better
    best = np.where(np.isfinite(best), best, np.inf)
    if options.prune == "median":
        healthy = [number for number in peers if standing.healthy[number]]
        middle = float(np.median(best[healthy])) if healthy else np.inf
        return [number for number in learning if best[number] > middle]
    rung = options.prune_after
    while rung * 3 <= epoch:
        rung *= 3
    if epoch - trainer.evaluate_every >= rung:  # the evaluation before was past this rung already
        return []
    order = sorted(learning, key=lambda number: (best[number], number))
    return sorted(order[max(1, len(learning) // 3) :])
