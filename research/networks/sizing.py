"""The width of a model by its number of parameters (`model.parameters`)."""

import bisect
import dataclasses
import functools
import math
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Key

from research.errors import ConfigError

WIDEST = 1 << 16  # units of a layer whose width is chosen
M = TypeVar("M")


@runtime_checkable
class Sized(Protocol):
    """A model whose width can be chosen: a part of it has a method `resized(width)`."""

    training_only: ClassVar[tuple[str, ...]]  # top-level keys of parameters that only training needs; they do not count

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters."""
        ...


def matched(model: M, part: str, parameters: int) -> M:
    """A `Sized` model with the width at which its number of parameters is nearest to `parameters`.

    Args:
      model: bound to its data.
      part: name of the field that has the width.

    Raises:
      ConfigError: no width gives so few or so many parameters.
    """
    tree = jax.tree.structure(model)
    return resized(model, part, _width(tree, tree.num_leaves, part, parameters))


def resized(model: Any, part: str, width: int) -> Any:
    """The same model with a part of that width."""
    return dataclasses.replace(model, **{part: getattr(model, part).resized(width)})


@functools.lru_cache(maxsize=256)  # jobs of one structure have one width
def _width(structure: Any, leaves: int, part: str, wanted: int) -> int:
    model = structure.unflatten([0.0] * leaves)

    @functools.cache
    def size(width: int) -> int:
        return count(resized(model, part, width))

    if wanted < (least := size(1)):
        raise ConfigError("parameters", wanted, f"this model has at least {least}; ask for more")
    bound = 2
    while size(bound) <= wanted and bound < WIDEST:
        bound *= 2
    if wanted > size(bound):
        raise ConfigError("parameters", wanted, f"that is a layer of more than {WIDEST} units; take fewer")
    # the first width with more parameters
    wider = bisect.bisect_right(range(bound + 1), wanted, lo=bound // 2, key=size)
    return min(wider - 1, wider, key=lambda width: abs(size(width) - wanted))


def count(model: Sized) -> int:
    """Number of parameters of a model that is bound to its data, without those that only training needs."""
    params = jax.eval_shape(model.fresh, jax.random.key(0))
    shapes = {name: part for name, part in params.items() if name not in model.training_only}
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
