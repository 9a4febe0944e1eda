"""What a model asks of its encoder and decoder (`Networks`), and the settings that all of them share (`Coding`)."""

import math
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.ranges import Count, Size
from research.tree import ConfigError, from_data, spec

# Numbers that keep random draws apart: `fold_in(key, TEACHING)` is the key of one kind of draw. Models fold 4 to 9 into
# the same key (`research.models.decoding`). The numbers 0 to 2 are not free either: where a key is split in three,
# `split(key, 3)[i]` is `fold_in(key, i)`.
TEACHING, ENCODER_DROPOUT, DECODER_DROPOUT = 3, 10, 11


class Training(NamedTuple):
    """What networks get while they are trained, and not when they are scored.

    Attributes:
      batch: the true examples, for a decoder that sees the true last value.
      key: of all draws (dropout, teaching).
      clock: for ramps.
    """

    batch: Examples
    key: Key[Array, ""]
    clock: Clock

    def rngs(self, purpose: int) -> dict[str, Key[Array, ""]]:
        """The key of dropout, as Linen takes it, for one of the purposes above."""
        return {"dropout": jax.random.fold_in(self.key, purpose)}


@runtime_checkable
class Networks(Protocol):
    """An encoder and a decoder: a spec that a model holds in its field `networks`.

    New networks are a spec that inherits `Coding` and has these methods. A model with them is three lines
    (`research.models.vae.VAE`); its settings are a YAML file in `conf/model`. Parameters are a dict
    {"encoder": ..., "decoder": ...}. Networks that use `output_bias` call the decoder's last layer "output" and give
    it a bias.

    Attributes:
      takes_masks: whether the networks tell padding and missing values from zeros.
      stepwise: whether there is a code at every time step, [B, T, L], rather than one code, [B, L].
      uses: how often one example uses a parameter on average, roughly. The plan estimates work by it.
      latent_dim, parameters, output_bias, conditional, feature_shape: see `Coding`.
    """

    takes_masks: bool
    stepwise: bool
    uses: int
    latent_dim: int
    parameters: int | None
    output_bias: Literal["mean", "zero"]
    conditional: bool
    feature_shape: tuple[int, ...]

    def bind(self, facts: Facts) -> Self:
        """The networks for this data: they take feature shape, number of classes and what else they need from `facts`.

        Facts do not say whether rows have padding or missing values. `encode`, which the plan traces, refuses a batch
        with either if the networks can take neither.

        Raises:
          ConfigError: these networks cannot take such data, or labels are missing (`Coding.check_labels`).
        """
        ...

    def resized(self, width: int) -> Self:
        """The same networks with a first hidden layer of that width, the other layers in proportion."""
        ...

    def init(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}.

        Args:
          encoder_outputs: numbers that the encoder gives for a code (2 L for a Gaussian posterior).
          channels: numbers that the likelihood takes for an element of x.
        """
        ...

    def encode(
        self, params: Any, batch: Examples, outputs: int, training: Training | None = None
    ) -> Float[Array, "B ..."]:
        """Encoder outputs [B, outputs], or [B, T, outputs] with a code at every step."""
        ...

    def summary(self, codes: Float[Array, "B ..."], batch: Examples) -> Float[Array, "B outputs"]:
        """One vector for every example, made of what `encode` gives."""
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
        """Decoder outputs [B, D * channels] of codes [B, L] or [B, T, L]; the D elements are in the order of x.

        Args:
          label: [B], of conditional networks.
          likelihood: gives the number of outputs for an element, and the mean that a decoder may read back.
          length: valid steps of every row, for a decoder that goes backwards in time.
        """
        ...

    def encoder_kernel(self, params: Any) -> Float[Array, "D outputs"] | None:
        """The kernel of an encoder that is one linear layer, without the rows for the label; otherwise None."""
        ...

    def with_output_bias(self, params: dict[str, Any], likelihood: Likelihood, train: Examples) -> dict[str, Any]:
        """Parameters whose decoder predicts the mean of the training rows, whatever the code."""
        ...


@spec
class Coding:
    """Settings of networks between data and a code, and back.

    Attributes:
      latent_dim: L, size of the code.
      parameters: the width is chosen so that the model has about this many parameters, for comparisons at equal size;
        null leaves the widths as they are.
      output_bias: "mean" lets the decoder's output start at the mean of the training data.
      conditional: encoder and decoder also get the label, one-hot.
    """

    latent_dim: Size
    parameters: Count | None
    output_bias: Literal["mean", "zero"]
    conditional: bool
    feature_shape: tuple[int, ...] = from_data(())
    classes: int = from_data(0)

    # log p(x | label) is another quantity than log p(x)
    depends: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(
        ("loss", "elbo_nats", "iwae_nats", "nll_nats"), ("conditional",)
    )

    @property
    def features(self) -> int:
        """D, number of elements of one example."""
        return math.prod(self.feature_shape)

    @property
    def label_size(self) -> int:
        """Number of inputs that the label takes."""
        return self.classes if self.conditional else 0

    def check_labels(self, facts: Facts) -> None:
        """Refuse data without labels for conditional networks."""
        if self.conditional and not facts.classes:
            remedy = "the data have no labels to condition on; set model.conditional=false"
            raise ConfigError("conditional", True, remedy)

    def fresh(self, key: Key[Array, ""], encoder: Any, decoder: Any, x: Float[Array, "..."]) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"} of a Linen module that reads x, and of one that reads a code."""
        encoder_key, decoder_key = jax.random.split(key)
        z = jnp.zeros((1, self.latent_dim + self.label_size))
        return {"encoder": encoder.init(encoder_key, x)["params"], "decoder": decoder.init(decoder_key, z)["params"]}

    def with_label(self, inputs: Float[Array, "*B D"], label: Int[Array, "..."] | None) -> Float[Array, "*B inputs"]:
        """Inputs [B, ..., D] of conditional networks with the one-hot label [B] appended at every position."""
        if not self.conditional:
            return inputs
        if label is None:
            raise ConfigError("label", None, "this model is conditional: give a label for every example")
        hot = jax.nn.one_hot(label, self.classes)
        positions = inputs.ndim - hot.ndim
        hot = hot.reshape(*hot.shape[:-1], *(1,) * positions, self.classes)
        hot = jnp.broadcast_to(hot, (*inputs.shape[:-1], self.classes))
        return jnp.concatenate([inputs, hot], axis=-1)


def with_mask(x: Float[Array, "*B D"], mask: Bool[Array, "*B D"] | None) -> Float[Array, "*B inputs"]:
    """The input of an encoder that reads masks: x with 1 appended for every observed value and 0 for every other."""
    return jnp.concatenate([x, jnp.ones_like(x) if mask is None else mask.astype(x.dtype)], axis=-1)


def apply(module: Any, params: Any, x: Any, training: Training | None, purpose: int) -> Any:
    """Outputs of a Linen module. In training it drops the share `dropout` of its units."""
    rngs = training.rngs(purpose) if training is not None and module.dropout else None
    return module.apply({"params": params}, x, rngs is not None, rngs=rngs)


def one_code(networks: Coding, codes: Float[Array, "B outputs"], batch: Examples) -> Float[Array, "B outputs"]:
    """The `summary` of networks with one code for an example: the codes themselves."""
    del networks, batch
    return codes


def observed_mean(train: Examples, axes: int) -> Float[Array, "..."]:
    """Mean of x over its first axes, without padding and missing values; 0 where no value is left."""
    x, mask = jnp.asarray(train.x, jnp.float32), train.mask
    over = tuple(range(axes))
    if mask is None:
        return x.mean(over)
    return jnp.where(mask, x, 0.0).sum(over) / jnp.maximum(mask.sum(over), 1)


def output_bias(params: dict[str, Any], bias: Float[Array, " outputs"]) -> dict[str, Any]:
    """Parameters with that bias of the decoder's layer `output`."""
    output = {**params["decoder"]["output"], "bias": bias}
    return {**params, "decoder": {**params["decoder"], "output": output}}
