"""Convolutional encoder and its mirrored decoder, over the time of sequences or the rows and columns of images."""

import dataclasses
import itertools
import math
from typing import Any, ClassVar, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.networks.base import (
    DECODER_DROPOUT,
    ENCODER_DROPOUT,
    Coding,
    Training,
    apply,
    observed_mean,
    one_code,
    output_bias,
)
from research.networks.dense import DenseStack
from research.networks.names import INITIALIZERS, activation, check_activation, check_name
from research.ranges import Size, StaticShareBelow1
from research.tree import ConfigError, from_data, spec

AXES = {"sequence": 1, "image": 2}  # number of axes along which kernels move: time, or rows and columns


# -------------------------------------------------------------------------------------------------------- Linen modules


class ConvolutionalStack(nn.Module):
    """The settings that encoder and decoder share, and the operations after a convolution.

    Attributes:
      sizes: positions of the feature maps, beginning with the data: ((28, 28), (14, 14), (7, 7)).
      outputs: outputs of the whole network; of a decoder at every position.
      channels: channels of the feature maps, without the data: (32, 64).
      kernel_size, strides: of the layers.
      hidden_dims: widths of the dense layers between the last feature map and the code, in the encoder's order.
      activation, layer_norm, kernel_init, dropout: see `ConvolutionalNetworks`.
    """

    sizes: tuple[tuple[int, ...], ...]
    outputs: int
    channels: tuple[int, ...]
    kernel_size: int
    strides: tuple[int, ...]
    hidden_dims: tuple[int, ...]
    activation: str
    layer_norm: bool
    kernel_init: str
    dropout: float

    def dense(self, hidden_dims: tuple[int, ...], features: int) -> DenseStack:
        """The dense layers between the last feature map and the code."""
        norm, drop = self.layer_norm, self.dropout
        return DenseStack(hidden_dims, features, self.activation, False, norm, self.kernel_init, drop, name="dense")

    def hidden(self, x: Float[Array, "B *size C"], norm: str, training: bool) -> Float[Array, "B *size C"]:
        """The feature map that follows the outputs of a layer; `norm` names its normalisation."""
        if self.layer_norm:
            x = nn.LayerNorm(reduction_axes=tuple(range(1, x.ndim)), name=norm)(x)
        x = activation(self.activation)(x)
        return nn.Dropout(self.dropout)(x, deterministic=not training) if self.dropout else x


M = TypeVar("M", bound=ConvolutionalStack)


class Encoder(ConvolutionalStack):
    """Strided convolutions, then dense layers on the flattened last feature map; [B, *size, C] -> [B, outputs]."""

    @nn.compact
    def __call__(self, x: Float[Array, "B *size C"], training: bool = False) -> Float[Array, "B outputs"]:
        axes, init = len(self.sizes[0]), getattr(nn.initializers, self.kernel_init)()
        for index, (channels, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            kernel, strides = (self.kernel_size,) * axes, (stride,) * axes
            layer = nn.Conv(
                channels, kernel, strides, kernel_init=init, conv_general_dilated=convolve, name=f"layer_{index}"
            )
            x = layer(x)
            x = self.hidden(x, f"norm_{index}", training)
        return self.dense(self.hidden_dims, self.outputs)(x.reshape(x.shape[0], -1), training)


class Decoder(ConvolutionalStack):
    """Dense layers that give the last feature map, then transposed convolutions; [B, L] -> [B, *size, outputs]."""

    @nn.compact
    def __call__(self, z: Float[Array, "B L"], training: bool = False) -> Float[Array, "B *size outputs"]:
        last = (*self.sizes[-1], self.channels[-1])
        x = self.dense(self.hidden_dims[::-1], math.prod(last))(z, training).reshape(z.shape[0], *last)
        for index in reversed(range(len(self.channels))):
            x = self.hidden(x, f"norm_{index}", training)
            features, name = (self.channels[index - 1], f"layer_{index}") if index else (self.outputs, "output")
            size, stride = self.sizes[index], self.strides[index]
            x = ConvTranspose(features, size, self.kernel_size, stride, self.kernel_init, name=name)(x)
        return x


# ------------------------------------------------------------------------------------------------------------- settings


@spec
class ConvolutionalNetworks(Coding):
    """Settings of a convolutional encoder and its mirrored decoder.

    Kernels move over the time of sequences [T, C], and over the rows and columns of images [H, W] or [H, W, C]. A layer
    of stride s turns n positions into ceil(n / s). Data with padding or missing values are refused, because a bias
    makes both look like data.

    Attributes:
      channels: channels of the encoder's layers; the decoder has them in reverse.
      kernel_size: size of all kernels along every axis. If it is a multiple of the strides, every output of the decoder
        sees equally many inputs (Odena et al. 2016).
      strides: strides of the encoder's layers along every axis; the decoder has them in reverse.
      hidden_dims: widths of dense layers between the encoder's last feature map and the code; the decoder has them in
        reverse.
      activation: one of `ACTIVATIONS`, or "linear".
      layer_norm: normalise before each activation, over all positions and channels of an example (Ba et al. 2016).
      kernel_init: one of `INITIALIZERS`.
      dropout: share of the hidden units that are set to zero in training (Srivastava et al. 2014).
    """

    channels: tuple[Size, ...]
    kernel_size: Size
    strides: tuple[Size, ...]
    hidden_dims: tuple[Size, ...]
    activation: str
    layer_norm: bool
    kernel_init: str
    dropout: StaticShareBelow1
    axes: int = from_data(0)

    takes_masks: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    depends: ClassVar[dict[str, tuple[str, ...]]] = {}
    unscored: ClassVar[tuple[str, ...]] = ("dropout",)  # scores are computed without it

    def validate(self) -> None:
        if not self.channels:
            raise ConfigError("channels", [], "there is no layer; name the channels of at least one, '{key}=[32]'")
        if len(self.strides) != len(self.channels):
            remedy = f"every layer has a stride: give {len(self.channels)}, as many as model.channels has"
            raise ConfigError("strides", list(self.strides), remedy)
        check_activation("activation", self.activation)
        check_name("kernel_init", self.kernel_init, INITIALIZERS)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the feature maps, beginning with the data."""
        shrink = lambda size, stride: tuple(-(-positions // stride) for positions in size)
        return tuple(itertools.accumulate(self.strides, shrink, initial=self.feature_shape[: self.axes]))

    @property
    def data_channels(self) -> int:
        """C, number of values at one position of the data."""
        return math.prod(self.feature_shape[self.axes :])

    @property
    def uses(self) -> int:
        """Mean number of positions at which one example uses a parameter, without biases and the label.

        The plan estimates the work of a step by it. On two CPU cores, vmap trains 4 members in 1.1 (digits,
        BasicMotions) to 1.5 times (MNIST) the seconds that they take one after another.
        """
        positions = [math.prod(size) for size in self.sizes]
        pairs = itertools.pairwise((self.data_channels, *self.channels))
        kernels = [self.kernel_size**self.axes * before * after for before, after in pairs]
        widths = (positions[-1] * self.channels[-1], *self.hidden_dims, self.latent_dim)
        dense = sum(before * after for before, after in itertools.pairwise(widths))
        # The decoder uses a kernel at as many positions as the encoder does.
        work = dense + sum(kernel * number for kernel, number in zip(kernels, positions[1:], strict=True))
        return max(1, round(work / (dense + sum(kernels))))

    def bind(self, facts: Facts) -> Self:
        """The networks for this data. Raises ConfigError if the data are neither sequences nor images."""
        if facts.kind not in AXES or len(facts.feature_shape) > 3:
            remedy = (
                "it needs sequences [N, T, C] or images [N, H, W] or [N, H, W, C], and these data are "
                f"{facts.kind}s {list(facts.feature_shape)}; take dense networks for them (model=dense_ae, vae, vq_ae)"
            )
            raise ConfigError("", "a convolutional network", remedy)
        self.check_labels(facts)
        axes = AXES[facts.kind]
        return dataclasses.replace(self, feature_shape=facts.feature_shape, classes=facts.classes, axes=axes)

    def resized(self, width: int) -> Self:
        """The same networks with that many channels in the first layer, other channels and widths in proportion."""
        scaled = lambda sizes: tuple(max(1, round(size * width / self.channels[0])) for size in sizes)
        return dataclasses.replace(self, channels=scaled(self.channels), hidden_dims=scaled(self.hidden_dims))

    def encoder(self, outputs: int) -> Encoder:
        """The encoder as a Linen module."""
        return self._module(Encoder, outputs)

    def decoder(self, channels: int) -> Decoder:
        """The decoder as a Linen module."""
        return self._module(Decoder, self.data_channels * channels)

    def _module(self, kind: type[M], outputs: int) -> M:
        layers = self.sizes, outputs, self.channels, self.kernel_size, self.strides, self.hidden_dims
        return kind(*layers, self.activation, self.layer_norm, self.kernel_init, self.dropout)

    def init(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}."""
        x = jnp.zeros((1, *self.sizes[0], self.data_channels + self.label_size))
        return self.fresh(key, self.encoder(encoder_outputs), self.decoder(channels), x)

    def encode(
        self, params: Any, batch: Examples, outputs: int, training: Training | None = None
    ) -> Float[Array, "B {outputs}"]:
        """Encoder outputs [B, outputs] of a batch. Raises ConfigError for padding and missing values."""
        if batch.length is not None or batch.observed is not None:
            remedy = (
                "a convolutional network would read padding and missing values as data; take a recurrent or dense one"
            )
            raise ConfigError("", None, remedy)
        x = self.with_label(batch.x.reshape(batch.x.shape[0], *self.sizes[0], self.data_channels), batch.label)
        return apply(self.encoder(outputs), params["encoder"], x, training, ENCODER_DROPOUT)

    summary = one_code

    def decode(
        self,
        params: Any,
        z: Float[Array, "B L"],
        label: Int[Array, " B"] | None,
        likelihood: Likelihood,
        length: Int[Array, " B"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "B outputs"]:
        """Decoder outputs [B, D * channels] of codes [B, L]. Rows have no `length` here."""
        decoder = self.decoder(likelihood.channels)
        outputs = apply(decoder, params["decoder"], self.with_label(z, label), training, DECODER_DROPOUT)
        return outputs.reshape(z.shape[0], -1)

    def encoder_kernel(self, params: Any) -> None:
        """No convolutional encoder is one linear layer."""

    def with_output_bias(self, params: dict[str, Any], likelihood: Likelihood, train: Examples) -> dict[str, Any]:
        """Parameters whose decoder predicts the mean of every channel over rows and positions."""
        mean = observed_mean(train, 1 + self.axes).reshape(-1)
        return output_bias(params, likelihood.initial_bias(mean))


# --------------------------------------------------- convolutions as products of matrices: patches, and sums of patches


def convolve(
    x: Float[Array, "B *n C"],
    kernel: Float[Array, "..."],
    strides: tuple[int, ...],
    padding: str,
    *,
    lhs_dilation: tuple[int, ...],
    rhs_dilation: tuple[int, ...],
    feature_group_count: int,
    **_: Any,
) -> Float[Array, "B *m features"]:
    """The convolution of `nn.Conv` with padding "SAME" (its hook `conv_general_dilated`), as one product of matrices.

    On a CPU, XLA computes a convolution slowly inside a scan, and every training step is inside a scan. With this
    function and `ConvTranspose`, a step of an autoencoder takes 65 ms rather than 570 (MNIST, 22 and 44 channels, batch
    128), .74 ms rather than 6.5 (digits, 16 and 32, batch 64), and .91 ms rather than 11.5 (BasicMotions, 32 and 64,
    batch 16), on two CPU cores. The price is memory: along every axis, patches hold kernel size / stride times as many
    numbers as x.
    """
    assert padding == "SAME", padding
    assert {*lhs_dilation, *rhs_dilation, feature_group_count} == {1}, "dilations and groups are not computed"
    for axis, stride in enumerate(strides):
        x = _patches(x, 1 + 2 * axis, kernel.shape[axis], stride)
    return jnp.einsum({1: "bnkc,kcf->bnf", 2: "bnkmlc,klcf->bnmf"}[len(strides)], x, kernel)


class ConvTranspose(nn.Module):
    """The transpose of a convolution from `size` positions with padding "SAME"; [B, *n, C] -> [B, *size, features].

    Position n of x adds the patch x[n] @ kernel to the output, from step `stride` * n on. The kernel is that of
    `nn.ConvTranspose` with its taps in reverse; the output has exactly `size` positions, whether or not the stride
    divides them.
    """

    features: int
    size: tuple[int, ...]
    kernel_size: int
    stride: int
    kernel_init: str

    @nn.compact
    def __call__(self, x: Float[Array, "B *n C"]) -> Float[Array, "B *size features"]:
        axes, init = len(self.size), getattr(nn.initializers, self.kernel_init)()
        kernel = self.param("kernel", init, (*(self.kernel_size,) * axes, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = jnp.einsum({1: "bnc,kcf->bnkf", 2: "bnmc,klcf->bnkmlf"}[axes], x, kernel)
        for axis, size in enumerate(self.size, 1):
            y = _overlap_add(y, axis, size, self.stride)
        return y + bias.reshape(*(1,) * (axes + 1), -1)


def _patches(x: Float[Array, "..."], axis: int, taps: int, stride: int) -> Float[Array, "..."]:
    """Patches of x with padding "SAME": one for every `stride` positions of an axis, its taps along axis + 1."""
    number, reach = -(-x.shape[axis] // stride), -(-taps // stride)
    before = _padding(x.shape[axis], taps, stride)
    after = (number + reach - 1) * stride - before - x.shape[axis]
    x = jnp.pad(x, [(before, after) if at == axis else (0, 0) for at in range(x.ndim)])
    blocks = x.reshape(*x.shape[:axis], -1, stride, *x.shape[axis + 1 :])
    pieces = [jax.lax.slice_in_dim(blocks, late, late + number, axis=axis) for late in range(reach)]
    return jax.lax.slice_in_dim(jnp.concatenate(pieces, axis + 1), 0, taps, axis=axis + 1)


def _overlap_add(patches: Float[Array, "..."], axis: int, size: int, stride: int) -> Float[Array, "..."]:
    """The transpose of `_patches`: `size` positions of an axis, each the sum of its taps in all patches."""
    taps = patches.shape[axis + 1]
    reach, before = -(-taps // stride), _padding(size, taps, stride)
    full = [(0, reach * stride - taps) if at == axis + 1 else (0, 0) for at in range(patches.ndim)]
    blocks = jnp.pad(patches, full).reshape(*patches.shape[: axis + 1], reach, stride, *patches.shape[axis + 2 :])
    total = 0.0
    for late in range(reach):
        piece = jax.lax.index_in_dim(blocks, late, axis + 1, keepdims=False)
        total += jnp.pad(piece, [(late, reach - 1 - late) if at == axis else (0, 0) for at in range(piece.ndim)])
    steps = jnp.reshape(total, (*patches.shape[:axis], -1, *patches.shape[axis + 2 :]))
    return jax.lax.slice_in_dim(steps, before, before + size, axis=axis)


def _padding(size: int, taps: int, stride: int) -> int:
    """Number of zeros before the first of `size` positions, by padding "SAME"."""
    return max((-(-size // stride) - 1) * stride + taps - size, 0) // 2
