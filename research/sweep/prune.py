"""Which members of a group are given up, compared with their peers at the same step."""

from typing import Any

import numpy as np

from research.engine import NEVER, Trainer
from research.metrics import higher_is_better
from research.sweep.plan import Options


def losers(writer: Any, options: Options, trainer: Trainer) -> list[int]:
    """Members to prune after the chunk that was written last.

    Peers are the members of one program: they differ in numbers and seeds and stand at the same epoch, so the choice
    does not depend on what else runs. A member is judged by its best monitored metric so far, from `prune_after` epochs
    on.

    median: worse than the median of its peers, those that ended counted with their best (Golovin et al. 2017, without
    the running average).
    successive_halving: at `prune_after` times 1, 3, 9, ... epochs only the better third stays, at least one (Jamieson &
    Talwalkar 2016, eta = 3).
    """
    if options.prune == "none" or not writer.latest:
        return []
    learning = sorted(set(range(len(writer.folders))) - writer.gone())
    epoch = max(writer.last_epoch)
    if len(learning) < 2 or epoch < options.prune_after or epoch >= trainer.epochs:
        return []
    sign = -1.0 if higher_is_better(trainer.monitor) else 1.0
    found = np.asarray(writer.best, float) * sign  # smaller is better
    found = np.where(np.isfinite(found), found, np.inf)
    healthy = [index for index in range(len(found)) if writer.bad_step[index] == NEVER]
    if options.prune == "median":
        middle = float(np.median(found[healthy]))
        return [index for index in learning if found[index] > middle]
    rung = options.prune_after
    while rung * 3 <= epoch:
        rung *= 3
    if epoch - trainer.evaluate_every >= rung:  # this rung was passed at an evaluation before
        return []
    keep = max(1, len(learning) // 3)
    order = sorted(learning, key=lambda index: (found[index], index))
    return sorted(order[keep:])
