"""Which members of a group are given up, compared with their peers at the same step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.engine import NEVER, Trainer
from research.metrics import higher_is_better
from research.sweep.plan import Options


def losers(writer: Any, options: Options, trainer: Trainer, folds: Sequence[Any]) -> list[int]:
    """Members to prune after the chunk that was written last.

    Peers are the members of one program and fold: they differ in numbers and seeds, stand at the same epoch and are
    scored on the same rows, so the choice does not depend on what else runs. A member is judged by its best monitored
    metric so far, from `prune_after` epochs on; `choosing.check_pruning` refuses one that measures something else for
    some of them.

    median: worse than the median of its peers, those that ended counted with their best (Golovin et al. 2017, without
    the running average).
    successive_halving: at `prune_after` times 1, 3, 9, ... epochs only the better third stays, at least one (Jamieson &
    Talwalkar 2016, eta = 3).
    """
    if options.prune == "none" or not writer.latest:
        return []
    of_folds = {fold: [index for index, own in enumerate(folds) if own == fold] for fold in dict.fromkeys(folds)}
    return sorted(index for peers in of_folds.values() for index in _losers(writer, options, trainer, peers))


def _losers(writer: Any, options: Options, trainer: Trainer, peers: Sequence[int]) -> list[int]:
    """The same among some members."""
    learning = sorted(set(peers) - writer.gone())
    epoch = max(writer.last_epoch)
    if len(learning) < 2 or epoch < options.prune_after or epoch >= trainer.epochs:
        return []
    sign = -1.0 if higher_is_better(trainer.monitor) else 1.0
    found = np.asarray(writer.best, float) * sign  # smaller is better
    found = np.where(np.isfinite(found), found, np.inf)
    healthy = [index for index in peers if writer.bad_step[index] == NEVER]
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
