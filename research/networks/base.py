"""What a model asks of its encoder and decoder (`Networks`), and the settings that all of them share (`Coding`)."""

import functools
import math
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.ranges import Count, Size
from research.tree import ConfigError, from_data, nearest, spec

# Numbers of the draws that networks make in training: `fold_in` of the key of a loss. Models use 0 to 2 and 4 to 9
# (`research.models.decoding`), since `split(key, n)[i]` is `fold_in(key, i)`.
TEACHING, ENCODER_DROPOUT, DECODER_DROPOUT = 3, 10, 11

ACTIVATIONS = (
    *("celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid"),
    *("mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "sparse_plus", "squareplus"),
    *("swish", "tanh"),
)
INITIALIZERS = (
    *("glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform"),
    *("lecun_normal", "lecun_uniform", "orthogonal", "xavier_normal", "xavier_uniform"),
)
WIDEST = 1 << 16  # units of a layer whose width is chosen by the number of parameters


class Training(NamedTuple):
    """What networks are given while they are trained, and not when they are scored.

    Attributes:
      batch: the true examples, for a decoder that is shown its last value.
      key: of all draws (dropout, teaching).
      clock: for ramps.
    """

    batch: Examples
    key: Key[Array, ""]
    clock: Clock

    def rngs(self, number: int) -> dict[str, Key[Array, ""]]:
        """The key of dropout, as Linen takes it; `number` is one of the numbers of draws above."""
        return {"dropout": jax.random.fold_in(self.key, number)}


@runtime_checkable
class Networks(Protocol):
    """An encoder and a decoder, as a spec that a model holds in its field `networks`.

    A new kind of networks is a class that inherits `Coding` and has these methods; a model of it is three lines
    (`research.models.vae.VAE`), its settings are a yaml in `conf/model`. Parameters are a dict
    {"encoder": ..., "decoder": ...}; the decoder's last layer is called "output", and has a bias, where networks use
    `output_bias` of this module.
    """

    takes_masks: ClassVar[bool]  # whether padding and missing values are told apart from zeros

    @property
    def latent_dim(self) -> int:
        """L, size of the code."""
        ...

    @property
    def parameters(self) -> int | None: ...

    @property
    def output_bias(self) -> Literal["mean", "zero"]: ...

    @property
    def conditional(self) -> bool: ...

    @property
    def feature_shape(self) -> tuple[int, ...]: ...

    @property
    def stepwise(self) -> bool:
        """Whether there is a code at every time step, [B, T, L], rather than one code, [B, L]."""
        ...

    @property
    def uses(self) -> int:
        """Mean number of times that one example uses a parameter, roughly, for the plan's estimate of work."""
        ...

    def bind(self, facts: Facts) -> Self:
        """The networks for this data: feature shape and number of classes set, and what else they need of `facts`.

        Facts do not say whether there is padding or a missing value: networks that cannot take either refuse a batch
        with `length` or `observed` in `encode`, which the plan traces.

        Raises:
          ConfigError: these networks cannot take such data, or there is no label (`Coding.check_labels`).
        """
        ...

    def resized(self, width: int) -> Self:
        """The same networks with a first hidden layer of that width, the others in proportion."""
        ...

    def init(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}.

        Args:
          encoder_outputs: numbers that the encoder gives for a code (2 L of a Gaussian posterior).
          channels: numbers that the likelihood takes for an element of x.
        """
        ...

    def encode(
        self, params: Any, batch: Examples, outputs: int, training: Training | None = None
    ) -> Float[Array, "B ..."]:
        """Encoder outputs [B, outputs], or [B, T, outputs] where there is a code at every step."""
        ...

    def summary(self, codes: Float[Array, "B ..."], batch: Examples) -> Float[Array, "B outputs"]:
        """One vector for every example, of what `encode` gives."""
        ...

    def decode(
        self,
        params: Any,
        z: Float[Array, "B ..."],
        label: Int[Array, " B"] | None,
        likelihood: Likelihood,
        length: Int[Array, " B"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "B outputs"]:
        """Decoder outputs [B, D * channels] of codes [B, L] or [B, T, L]; D elements in the order of x.

        Args:
          label: [B], of conditional networks.
          likelihood: says how many outputs an element has, and the mean that a decoder may read back.
          length: valid steps of every row, for a decoder that goes backwards in time.
        """
        ...

    def encoder_kernel(self, params: Any) -> Float[Array, "D outputs"] | None:
        """The kernel of an encoder that is one linear layer (without the label's part); else None."""
        ...

    def with_output_bias(self, params: dict[str, Any], likelihood: Likelihood, train: Examples) -> dict[str, Any]:
        """Parameters whose decoder predicts the mean of the training rows, whatever the code."""
        ...


@spec
class Coding:
    """Settings of networks between data and a code, and back.

    Attributes:
      latent_dim: L, size of the code.
      parameters: choose the width so that the model has about this many parameters (the nearest possible number), for
        comparisons at equal size; null leaves the widths as they are.
      output_bias: "mean" starts the decoder's output at the mean of the training data.
      conditional: give encoder and decoder the label, one-hot.
    """

    latent_dim: Size
    parameters: Count | None
    output_bias: Literal["mean", "zero"]
    conditional: bool
    feature_shape: tuple[int, ...] = from_data(())
    classes: int = from_data(0)

    # log p(x | label) is not log p(x)
    depends: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(
        ("loss", "elbo_nats", "iwae_nats", "nll_nats"), ("conditional",)
    )

    @property
    def features(self) -> int:
        """D, number of elements of one example."""
        return math.prod(self.feature_shape)

    @property
    def label_size(self) -> int:
        """Inputs that the label takes."""
        return self.classes if self.conditional else 0

    def check_labels(self, facts: Facts) -> None:
        """Refuse data without labels for conditional networks."""
        if self.conditional and not facts.classes:
            remedy = "the data have no labels to condition on; set model.conditional=false"
            raise ConfigError("conditional", True, remedy)

    def with_label(self, inputs: Float[Array, "*B D"], label: Int[Array, "..."] | None) -> Float[Array, "*B inputs"]:
        """Inputs [B, ..., D] with the one-hot label [B] behind, at every position between, for conditional networks."""
        if not self.conditional:
            return inputs
        if label is None:
            raise ConfigError("label", None, "this model is conditional: give a label for every example")
        hot = jax.nn.one_hot(label, self.classes)
        positions = inputs.ndim - hot.ndim
        hot = hot.reshape(*hot.shape[:-1], *(1,) * positions, self.classes)
        hot = jnp.broadcast_to(hot, (*inputs.shape[:-1], self.classes))
        return jnp.concatenate([inputs, hot], axis=-1)


# --------------------------------------------------------------------------------------------- activations and biases


def activation(name: str) -> Any:
    """The activation function of that name (`jax.nn`), or the identity for `linear`."""
    return (lambda x: x) if name == "linear" else getattr(jax.nn, name)


def check_name(key: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not in the list, with the nearest one."""
    if name not in known:
        raise ConfigError(key, name, f"unknown{nearest(name, known)}; known: {', '.join(known)}")


def observed_mean(train: Examples, axes: int) -> Float[Array, "..."]:
    """Mean of x over its first axes, without padding and missing values; 0 where nothing is left."""
    x, mask = jnp.asarray(train.x, jnp.float32), train.mask
    over = tuple(range(axes))
    if mask is None:
        return x.mean(over)
    return jnp.where(mask, x, 0.0).sum(over) / jnp.maximum(mask.sum(over), 1)


def output_bias(params: dict[str, Any], bias: Float[Array, " outputs"]) -> dict[str, Any]:
    """Parameters with that bias of the decoder's layer `output`."""
    output = {**params["decoder"]["output"], "bias": bias}
    return {**params, "decoder": {**params["decoder"], "output": output}}


# ---------------------------------------------------------------------------------- width by the number of parameters


@runtime_checkable
class Sized(Protocol):
    """A model whose width can be chosen by its number of parameters."""

    def resized(self, width: int) -> Self:
        """The same model with a first hidden layer of that width."""
        ...

    def counted(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters that count as the model's size: all but those that only training needs."""
        ...


def matched(model: Any, parameters: int | None) -> Any:
    """The same model (`Sized`), as wide as the number of parameters asks for; None: as it is."""
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
    """Number of parameters of a model that is bound to its data, without parts that only training needs."""
    shapes = jax.eval_shape(model.counted, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
