"""What networks of every kind share: the number of parameters, the shape of the data, the label as an input."""

import functools
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.data.examples import Examples
from research.ranges import Count, Size
from research.tree import ConfigError, from_data, spec

WIDEST = 1 << 16


@spec
class Sized:
    """Networks whose width can be chosen by the number of parameters, mixed into a model with `fresh(key)`.

    Attributes:
      parameters: choose the width so that the model has about this many parameters (the nearest possible number), for
        comparisons at equal size; null leaves the widths as they are.
    """

    parameters: Count | None
    feature_shape: tuple[int, ...] = from_data(())

    @property
    def features(self) -> int:
        """Number of elements of one example."""
        return math.prod(self.feature_shape)

    def matched(self: Any) -> Any:
        """The same model, as wide as `parameters` asks for."""
        if self.parameters is None:
            return self
        return self.resized(_width(jax.tree.structure(self), jax.tree.structure(self).num_leaves))


@functools.lru_cache(maxsize=256)  # jobs of one structure have one width
def _width(structure: Any, leaves: int) -> int:
    model = structure.unflatten([0.0] * leaves)
    wanted = model.parameters
    if wanted < count(model.resized(1)):
        least = count(model.resized(1))
        remedy = "; a smaller latent_dim needs fewer" if hasattr(model, "latent_dim") else ""
        raise ConfigError("parameters", wanted, f"this model has at least {least}{remedy}")
    low, high = 1, 2
    while count(model.resized(high)) < wanted:
        low, high = high, 2 * high
        if low > WIDEST:
            raise ConfigError("parameters", wanted, f"that is a layer of more than {WIDEST} units; take fewer")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(model.resized(middle)) <= wanted else (low, middle)
    return min(low, high, key=lambda width: abs(count(model.resized(width)) - wanted))


def count(model: Any) -> int:
    """Number of parameters of a model that is bound to its data; parts that only training needs do not count."""
    shapes = jax.eval_shape(model.fresh, jax.random.key(0))
    counted = [part for name, part in shapes.items() if name not in getattr(model, "training_only", ())]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(counted))


@spec
class Coding(Sized):
    """Networks between data and a code, and back.

    Attributes:
      latent_dim: L, size of the code.
      output_bias: "mean" starts the decoder's output at the mean of the training data.
      conditional: give encoder and decoder the label, one-hot.
    """

    latent_dim: Size
    output_bias: Literal["mean", "zero"]
    conditional: bool
    classes: int = from_data(0)

    # log p(x | label) is not log p(x)
    depends: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(
        ("loss", "elbo_nats", "iwae_nats", "nll_nats"), ("conditional",)
    )

    def check_labels(self, classes: int) -> None:
        if self.conditional and not classes:
            raise ConfigError(
                "conditional", True, "the data have no labels to condition on; set model.conditional=false"
            )

    def with_label(self, inputs: Float[Array, "*B D"], label: Int[Array, "..."] | None) -> Float[Array, "*B inputs"]:
        """Inputs [..., D] with the one-hot label [...] behind, for a conditional model; of [B, T, D] at every step."""
        if not self.conditional:
            return inputs
        if label is None:
            raise ConfigError("label", None, "this model is conditional: give a label for every example")
        hot = jax.nn.one_hot(label, self.classes)
        if inputs.ndim > hot.ndim:  # at every time step
            hot = jnp.broadcast_to(hot[:, None], (*inputs.shape[:-1], self.classes))
        return jnp.concatenate([inputs, hot], axis=-1)

    def label_size(self) -> int:
        """Inputs that the label takes."""
        return self.classes if self.conditional else 0


def observed_mean(train: Examples, axes: int) -> Float[Array, "..."]:
    """Mean of x over its first axes, without padding and missing values; 0 where nothing is left."""
    x, mask = jnp.asarray(train.x, jnp.float32), train.mask
    over = tuple(range(axes))
    if mask is None:
        return x.mean(over)
    return jnp.where(mask, x, 0.0).sum(over) / jnp.maximum(mask.sum(over), 1)
