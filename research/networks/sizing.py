"""The width of a model by its number of parameters (`model.parameters`)."""

import functools
import math
from typing import Any, Protocol, Self, runtime_checkable

import jax
from jaxtyping import Array, Key

from research.errors import ConfigError

WIDEST = 1 << 16  # units of a layer whose width is chosen


@runtime_checkable
class Sized(Protocol):
    """A model whose width can be chosen by its number of parameters."""

    def resized(self, width: int) -> Self:
        """The same model with a first hidden layer of that width."""
        ...

    def counted(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters without those that only training needs."""
        ...


def matched(model: Any, parameters: int | None) -> Any:
    """A `Sized` model with the width whose number of parameters is nearest to `parameters`. None changes nothing.

    Raises:
      ConfigError: no width gives so few or so many parameters.
    """
    if parameters is None:
        return model
    tree = jax.tree.structure(model)
    return model.resized(_width(tree, tree.num_leaves, parameters))


@functools.lru_cache(maxsize=256)  # jobs of one structure have one width
def _width(structure: Any, leaves: int, wanted: int) -> int:
    model: Sized = structure.unflatten([0.0] * leaves)
    if wanted < (least := count(model.resized(1))):
        raise ConfigError("parameters", wanted, f"this model has at least {least}; ask for more")
    low, high = 1, 2
    while count(model.resized(high)) < wanted:
        low, high = high, 2 * high
        if low > WIDEST:
            raise ConfigError("parameters", wanted, f"that is a layer of more than {WIDEST} units; take fewer")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(model.resized(middle)) <= wanted else (low, middle)
    return min(low, high, key=lambda width: abs(count(model.resized(width)) - wanted))


def count(model: Sized) -> int:
    """Number of parameters of a model that is bound to its data, without those that only training needs."""
    shapes = jax.eval_shape(model.counted, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
