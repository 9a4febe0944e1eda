"""Values that models do not see and that are known all the same, so that imputations can be scored and trained.

A hidden value is missing for a model (not `observed`, and 0 in `x`), while `Examples.truth` has it. Values of
validation and test rows are hidden once, those of training batches anew for every batch.

With `hide_by=blocks`, which needs sequences, the time of every row and channel is cut into blocks of `hide_length`
steps, which begin at a random step, and each block is hidden with the same probability. Points are blocks of one step.
So every value is hidden with the probability `hide`, and neighbouring blocks may join.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.data.examples import Examples, Windows
from research.data.scaling import covered_steps
from research.data.source import Source, Splitting
from research.data.splits import Rows
from research.ranges import OpenShare, Size
from research.tree import ConfigError, recipe

STREAM = 2  # draws of hidden values have a stream of their own; rows are often drawn from the first ones of a seed


def hide(settings: Splitting, source: Source, parts: Sequence[Rows]) -> Source:
    """A source in whose validation and test rows values are hidden, if the settings say so.

    Of windows, a step that several of them hold is hidden in all or in none.

    Raises:
      ConfigError: the rows are no sequences, or the model would see something of the hidden values.
    """
    _check(settings, source)
    if settings.hide is None:
        return source
    examples, length = source.examples, block_length(settings)
    scored = np.concatenate([parts[0].validation, parts[0].test])
    x = examples.x.series[None] if isinstance(examples.x, Windows) else examples.x
    random = np.random.default_rng([settings.hide_seed, STREAM])
    rows, steps, channels = in_time(x.shape)
    low = random.random((rows, blocks(steps, length), channels), np.float32) < settings.hide
    hidden = spread(low, random.integers(0, length, (rows, 1, channels)), steps, length).reshape(x.shape)
    if isinstance(examples.x, Windows):
        windows: Windows = examples.x
        used = np.zeros(len(windows.series), bool)
        used[covered_steps([(windows, windows.size)], scored)] = True
        observed = np.ones(windows.series.shape, bool) if examples.observed is None else examples.observed.series
        hidden = hidden[0] & used[:, None] & observed
        masks = [dataclasses.replace(windows, series=mask) for mask in (observed & ~hidden, hidden)]
    else:
        used = np.zeros(len(x), bool)
        used[scored] = True
        known = np.ones(x.shape, bool) if examples.mask is None else examples.mask
        observed = np.ones(x.shape, bool) if examples.observed is None else examples.observed
        hidden &= used.reshape(-1, *(1,) * (x.ndim - 1)) & known
        masks = [observed & ~hidden, hidden]
    examples = dataclasses.replace(examples, observed=masks[0], hidden=masks[1])
    for name in ("validation", "test"):
        rows = getattr(parts[0], name)
        if not _hides_any(examples.hidden, rows):
            problem = f"this hides no value of the {len(rows)} {name} rows; make it larger"
            raise ConfigError("hide", settings.hide, problem)
    return dataclasses.replace(source, examples=examples)


def _hides_any(hidden: Any, rows: np.ndarray) -> bool:
    """Whether some value of these rows is hidden; the mask is dense or one of windows."""
    if isinstance(hidden, Windows):  # one mask of the series, not one for each window
        return bool(hidden.series[covered_steps([(hidden, hidden.size)], rows)].any())
    return bool(hidden[rows].any())


def _check(settings: Splitting, source: Source) -> None:
    """Refuse data of which no values can be hidden, or of which a model would see something of them."""
    if settings.hide is None and settings.hide_train is None:
        return
    key = "hide" if settings.hide is not None else "hide_train"
    value, x = getattr(settings, key), source.examples.x
    if source.kind != "sequence" and settings.hide_by == "blocks":
        problem = f"blocks are runs of time steps, and these rows are {source.kind}s"
        raise ConfigError("hide_by", "blocks", f"{problem}; set {{key}}=points")
    if source.scale_target:
        has_horizon = any(field.name == "horizon" for field in dataclasses.fields(settings))
        remedy = "data.horizon=null" if has_horizon else "{key}=null"  # the horizon of M4 is no key
        problem = "hidden values are reconstructed, and these data are to be forecast"
        raise ConfigError(key, value, f"{problem}; set {remedy}")
    if getattr(settings, "zscore", False):
        remedy = "z-scores of a series know its hidden values; set data.zscore=false data.scaling=standard"
        raise ConfigError(key, value, remedy)
    if getattr(settings, "binarize", "none") != "none":
        raise ConfigError(key, value, "binary draws and hidden values exclude each other; set data.binarize=none")
    if settings.folds is not None and settings.hide is not None:
        remedy = "validation rows of one fold are training rows of another; set data.folds=null data.fold=null"
        raise ConfigError(key, value, remedy)
    if source.draw is not None and settings.hide_train is not None:
        remedy = "these training batches are drawn anew already; set {key}=null"
        raise ConfigError("hide_train", settings.hide_train, remedy)
    if settings.hide_by == "blocks" and settings.hide_length >= x.shape[1]:
        problem = f"a row has {x.shape[1]} steps, and a block would hide a channel of it; make it smaller"
        raise ConfigError("hide_length", settings.hide_length, problem)


def block_length(settings: Splitting) -> int:
    """Steps of a hidden block."""
    return settings.hide_length if settings.hide_by == "blocks" else 1


def in_time(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape [N, T, C] of rows of any shape, of which the second axis counts as time."""
    return shape[0], shape[1], math.prod(shape[2:])


def blocks(steps: int, length: int) -> int:
    """The most blocks that some steps can lie in."""
    return (steps + length - 2) // length + 1


def spread(low: Any, offset: Any, steps: int, length: int) -> Any:
    """What is said of blocks [N, K, C], of every step [N, steps, C].

    Args:
      low: of the blocks.
      offset: how many steps of the first block lie before the first step of the row, [N, 1, C].
      steps, length: of a row and of a block.
    """
    if length == 1:
        return low
    library = np if isinstance(low, np.ndarray) else jnp
    block = (library.arange(steps)[None, :, None] + offset) // length
    return library.take_along_axis(low, block, axis=1)


@recipe
class Hide:
    """Hides values of every training batch, whose reconstruction counts in the loss (Cao et al. 2018; Du et al. 2023).

    Attributes:
      share: probability of a value.
      length: steps of a block; 1 hides points.
    """

    share: OpenShare
    length: Size

    def draw(self, batch: Examples, key: jax.Array) -> Examples:
        """The batch with other hidden values."""
        rows, steps, channels = in_time(batch.x.shape)
        chance_key, offset_key = jax.random.split(key)
        # Every block has a key of its own, so that padding changes no draw.
        keys = jax.vmap(jax.random.fold_in, (None, 0))(chance_key, jnp.arange(blocks(steps, self.length)))
        chance = jax.vmap(lambda block: jax.random.uniform(block, (rows, channels)), out_axes=1)(keys)
        offset = jax.random.randint(offset_key, (rows, 1, channels), 0, self.length)
        hidden = spread(chance < self.share, offset, steps, self.length).reshape(batch.x.shape)
        hidden = hidden if batch.score_mask is None else hidden & batch.score_mask
        truth = batch.x if batch.truth is None else batch.truth
        observed = ~hidden if batch.score_mask is None else batch.score_mask & ~hidden
        return dataclasses.replace(
            batch, x=jnp.where(hidden, 0.0, truth), observed=observed, hidden=hidden, truth=truth
        )
