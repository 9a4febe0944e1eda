"""Which members of a group are given up, compared with their peers at the same step."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.engine import Trainer
from research.metrics import higher_is_better
from research.sweep.plan import Options


@dataclasses.dataclass
class Standing:
    """Where the members of a group stand at one epoch, in lists over the members.

    Attributes:
      epoch: at which they are compared.
      best: the best monitored metric so far; NaN before the first.
      learning: whether a member has not ended.
      healthy: whether a member has not diverged.
      folds: the fold of each.
    """

    epoch: int
    best: Sequence[float]
    learning: Sequence[bool]
    healthy: Sequence[bool]
    folds: Sequence[Any]


def losers(standing: Standing, options: Options, trainer: Trainer) -> list[int]:
    """Members to prune.

    Peers are the members of one group and fold: they differ in numbers and seeds, stand at the same epoch and are
    scored on the same rows, so the choice does not depend on what else runs. A member is judged by its best monitored
    metric so far, from `prune_after` epochs on; `choosing.check_pruning` refuses one that measures something else for
    some of them.

    median: worse than the median of its peers, those that ended counted with their best (Golovin et al. 2017, without
    the running average).
    successive_halving: at `prune_after` times 1, 3, 9, ... epochs only the better third stays, at least one (Jamieson &
    Talwalkar 2016, eta = 3).
    """
    if options.prune == "none":
        return []
    of_folds = {
        fold: [i for i, own in enumerate(standing.folds) if own == fold] for fold in dict.fromkeys(standing.folds)
    }
    return sorted(index for peers in of_folds.values() for index in _losers(standing, options, trainer, peers))


def _losers(standing: Standing, options: Options, trainer: Trainer, peers: Sequence[int]) -> list[int]:
    """The same among some members."""
    learning = [index for index in peers if standing.learning[index]]
    epoch = standing.epoch
    if len(learning) < 2 or epoch < options.prune_after or epoch >= trainer.epochs:
        return []
    sign = -1.0 if higher_is_better(trainer.monitor) else 1.0
    best = np.asarray(standing.best, float) * sign  # smaller is better
    best = np.where(np.isfinite(best), best, np.inf)
    healthy = [index for index in peers if standing.healthy[index]]
    if options.prune == "median":
        middle = float(np.median(best[healthy]))
        return [index for index in learning if best[index] > middle]
    rung = options.prune_after
    while rung * 3 <= epoch:
        rung *= 3
    if epoch - trainer.evaluate_every >= rung:  # this rung was passed at an evaluation before
        return []
    keep = max(1, len(learning) // 3)
    order = sorted(learning, key=lambda index: (best[index], index))
    return sorted(order[keep:])
