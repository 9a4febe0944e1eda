"""Recurrent encoder and decoder over time."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import ramp
from research.counts import Counts, as_read
from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.networks.base import (
    DECODER_DROPOUT,
    ENCODER_DROPOUT,
    TEACHING,
    Coding,
    Training,
    observed_mean,
    output_bias,
    with_mask,
)
from research.networks.cells import Carries
from research.networks.dense import DenseStack
from research.networks.layers import Layers, RecurrentLayers
from research.networks.recurrent_decoder import Decoder, Teaching
from research.networks.steps import flip, summarize
from research.ranges import Epochs, Share, StaticShareBelow1
from research.tree import ConfigError, added, inline, spec


def check_sequences(facts: Facts, name: str) -> None:
    """Refuse data without a time axis.

    Args:
      name: what needs sequences, for the error.
    """
    if facts.kind != "sequence":
        remedy = (
            f"it needs sequences [N, T, C], and these data are {facts.kind}s {list(facts.feature_shape)}; "
            "data.kind=sequence reads arrays [N, T, C] of your own as sequences, data=series a table with a row per "
            "step; images can be read row by row (data=digits_rows, mnist_rows, mnist_pixels), or take model=vae"
        )
        raise ConfigError("", name, remedy)


# -------------------------------------------------------------------------------------------------------- Linen modules


class Reader(nn.Module):
    """Recurrent layers and a linear layer on the summary of their states, [B, outputs], or on the state of every step.

    Attributes:
      layers: the recurrent layers.
      outputs: of the linear layer.
      summary: "last", "mean" or "max" of the states over time; None gives outputs at every step, [B, T, outputs].
    """

    layers: Layers
    outputs: int
    summary: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], length: Int[Array, " B"] | None = None, training: bool = False
    ) -> Float[Array, "B ..."]:
        return nn.Dense(self.outputs, name="output")(self.layers.summary(x, self.summary, length, training))


# ------------------------------------------------------------------------------------------------- one step at a time


class Online(NamedTuple):
    """The state of an encoder that runs step by step. After t steps it holds all that a summary depends on.

    Attributes:
      carries: of all layers.
      steps: t.
      total, largest: sum and maximum of the summarised states so far, [B, H].
    """

    carries: Carries
    steps: jax.Array
    total: jax.Array
    largest: jax.Array

    @classmethod
    def begin(cls, carries: Carries, rows: int, size: int) -> "Online":
        """Before the first step."""
        zeros = jnp.zeros((rows, size))
        return cls(carries, jnp.zeros((), jnp.int32), zeros, zeros - jnp.inf)

    def add(self, carries: Carries, last: Float[Array, "B H"], how: str) -> tuple["Online", Float[Array, "B H"]]:
        """The state after one more step, which ended in the state `last`, and the summary of all steps so far."""
        after = Online(carries, self.steps + 1, self.total + last, jnp.maximum(self.largest, last))
        return after, {"last": last, "mean": after.total / after.steps, "max": after.largest}[how]


# ------------------------------------------------------------------------------------------------------------- the spec


@spec
class RecurrentNetworks(Coding):
    """Settings of a recurrent encoder and decoder.

    One linear layer makes the code of the encoder's summary s. The decoder has cells of the same kind, width and number
    as the encoder, and a linear output layer at every step.

    Attributes:
      recurrent: the cells of encoder and decoder.
      code: "sequence": one code for the whole sequence. "step": a code at every step, z_t = W x_t + b, which the
        decoder's cells read, y_t = W_h h_t + W_z z_t + b. The code of the sequence is the summary of z_t over time.
        "state": the same with z_t = W s_t + b, where s_t is the encoder's state at that step; with bidirectional cells
        it knows all steps.
      decoder: the inputs of the decoder's cells. "every_step": the code at every step (Cho et al. 2014). "first_state":
        no input, and the code is the first state. "free_running": the last output of the decoder, and the code is the
        first state. "teacher_forced": the same, but in training a step sees the true last value with a probability that
        goes from `teacher_start` to `teacher_end` over `teacher_epochs` (Bengio et al. 2015). Scores, reconstructions
        and samples are always free-running.
      reverse: the decoder goes backwards in time (Sutskever et al. 2014; Srivastava et al. 2015).
      teacher_start, teacher_end, teacher_epochs: above.
      teacher_dropout: share of the true values that are set to zero, so that the decoder must use the code (Bowman et
        al. 2016); null: none.
      dropout: share of every layer's states that are set to zero in training, the same states at all steps (Gal &
        Ghahramani 2016).
      reads_mask: the encoder also reads which values are observed, 1 or 0 for each; otherwise it takes a missing value
        for 0.
    """

    recurrent: RecurrentLayers = inline()
    code: Literal["sequence", "step", "state"]
    decoder: Literal["every_step", "first_state", "free_running", "teacher_forced"]
    reverse: bool
    teacher_start: Share
    teacher_end: Share
    teacher_epochs: Epochs
    teacher_dropout: Share | None
    dropout: StaticShareBelow1 = added(before=0.0)
    reads_mask: bool = added(before=False)

    takes_masks: ClassVar[bool] = True
    depends: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Scores are computed without a teacher and without dropout.
    unscored: ClassVar[tuple[str, ...]] = (
        "teacher_start",
        "teacher_end",
        "teacher_epochs",
        "teacher_dropout",
        "dropout",
    )

    def validate(self) -> None:
        if self.teacher_dropout is not None and self.decoder != "teacher_forced":
            remedy = "only a teacher-forced decoder sees true values; set model.decoder=teacher_forced"
            raise ConfigError("teacher_dropout", self.teacher_dropout, remedy)
        if self.stepwise and self.decoder != "every_step":
            remedy = "a code at every step is read at every step; set model.decoder=every_step"
            raise ConfigError("decoder", self.decoder, remedy)
        if self.code == "state" and self.reverse:
            remedy = "a code at every step is read in the order of time; set {key}=false"
            raise ConfigError("reverse", True, remedy)
        if self.code == "step" and (self.recurrent.bidirectional or self.reverse):
            key = "bidirectional" if self.recurrent.bidirectional else "reverse"
            remedy = "a code at every step is linear in x_t: nothing is read or written backwards"
            also = " (or model.code=state, whose codes know all steps)" if self.recurrent.bidirectional else ""
            raise ConfigError(key, True, f"{remedy}; set {{key}}=false{also}")

    @property
    def stepwise(self) -> bool:
        """Whether there is a code at every step."""
        return self.code != "sequence"

    @property
    def uses(self) -> int:
        """T, because the cells use their parameters at every step; 1 before the data are known."""
        return next(iter(self.feature_shape), 1)

    def bind(self, facts: Facts) -> Self:
        """The networks for this data. Raises ConfigError if they have no time axis."""
        check_sequences(facts, "a recurrent network")
        self.check_labels(facts)
        return dataclasses.replace(self, feature_shape=facts.feature_shape, classes=facts.classes)

    def resized(self, width: int) -> Self:
        """The same layers with that many units."""
        return dataclasses.replace(self, recurrent=self.recurrent.resized(width))

    def encoder(self, outputs: int) -> Reader | DenseStack:
        """The encoder as a Linen module: one linear layer if the code of a step is linear in that step."""
        if self.code == "step":
            return DenseStack((), outputs, "linear")
        summary = None if self.stepwise else self.recurrent.summary
        return Reader(self.recurrent.module(dropout=self.dropout), outputs, summary)

    def decoder_module(self, channels: int) -> Decoder:
        """The decoder as a Linen module."""
        layers = self.recurrent.module(bidirectional=False, dropout=self.dropout)
        size, starts = self.feature_shape[-1], self.decoder != "every_step"
        return Decoder(layers, size, size * channels, code_starts=starts, code_skips=self.stepwise)

    @property
    def _feeds_back(self) -> bool:
        return self.decoder in ("free_running", "teacher_forced")

    def init(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}."""
        keys = jax.random.split(key, 6)
        x = jnp.zeros((1, 1, self.feature_shape[-1] * (2 if self.reads_mask else 1) + self.label_size))
        z = jnp.zeros((1, *((1,) if self.stepwise else ()), self.latent_dim + self.label_size))
        read_back = (lambda outputs: outputs[:, : self.feature_shape[-1]]) if self._feeds_back else None
        decoder: dict[str, Any] = dict(zip(("layers", "output", "start", "skip"), keys[:4], strict=True))
        encoder = {"output": keys[4], "layers": keys[5]}
        return {
            "encoder": self.recurrent.fresh(self.encoder(encoder_outputs), encoder, x),
            "decoder": self.recurrent.fresh(self.decoder_module(channels), decoder, z, 1, read_back),
        }

    def encode(
        self, params: Any, batch: Examples, outputs: int, training: Training | None = None
    ) -> Float[Array, "B ..."]:
        """Encoder outputs [B, outputs], or [B, T, outputs] with a code at every step."""
        x, encoder = with_mask(batch.x, batch.mask) if self.reads_mask else batch.x, self.encoder(outputs)
        x = self.with_label(x, batch.label)
        rngs = training.rngs(ENCODER_DROPOUT) if training is not None and self.dropout > 0 else None
        inputs = (x,) if self.code == "step" else (x, batch.length, rngs is not None)
        codes: Any = encoder.apply({"params": params["encoder"]}, *inputs, rngs=rngs)
        return codes

    def summary(self, codes: Float[Array, "B ..."], batch: Examples) -> Float[Array, "B outputs"]:
        """One vector for a sequence: its code, or the summary of the codes at all steps."""
        return codes if codes.ndim == 2 else summarize(codes, batch.length, self.recurrent.summary)

    def decode(
        self,
        params: Any,
        z: Float[Array, "B ..."],
        label: Int[Array, " B"] | None,
        likelihood: Likelihood,
        length: Int[Array, " B"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "B outputs"]:
        """Decoder outputs [B, T * C * channels] of codes [B, L], or of codes [B, T, L] at every step."""
        drop = training is not None and self.dropout > 0
        read_back, teaching = likelihood.mean, None if training is None else self.teaching(training, length)
        if isinstance(likelihood, Counts):
            read_back = lambda outputs: as_read(likelihood.mean(outputs))
            teaching = None if teaching is None else teaching._replace(x=as_read(teaching.x))
        outputs: Any = self.decoder_module(likelihood.channels).apply(
            {"params": params["decoder"]},
            self.with_label(z, label),
            self.feature_shape[0],
            read_back if self._feeds_back else None,
            teaching,
            drop,
            rngs=training.rngs(DECODER_DROPOUT) if training is not None and drop else None,
        )
        if self.reverse:
            outputs = flip(outputs, length)
        return outputs.reshape(z.shape[0], -1)

    def teaching(self, training: Training, length: Int[Array, " B"] | None) -> Teaching | None:
        """The true sequence for a teacher-forced decoder, and the share of it that the schedule shows."""
        if self.decoder != "teacher_forced":
            return None
        progress = ramp(training.clock.epoch, self.teacher_epochs)
        share = self.teacher_start + (self.teacher_end - self.teacher_start) * progress
        x, mask = training.batch.x, training.batch.observed
        if self.reverse:
            x, mask = flip(x, length), None if mask is None else flip(mask, length)
        return Teaching(x, mask, share, self.teacher_dropout, jax.random.fold_in(training.key, TEACHING))

    def encoder_kernel(self, params: Any) -> None:
        """No recurrent encoder is one linear layer."""

    def with_output_bias(self, params: dict[str, Any], likelihood: Likelihood, train: Examples) -> dict[str, Any]:
        """Parameters whose decoder predicts the mean of every channel over rows and time."""
        return output_bias(params, likelihood.initial_bias(observed_mean(train, 2)))

    # ------------------------------------------------------------------------------------------- one step at a time

    def begin(self, rows: int, outputs: int) -> Online:
        """The state of the encoder before the first step of `rows` sequences."""
        self.recurrent.check_forwards()
        if self.code == "step":
            return Online.begin((), rows, outputs)
        size = outputs if self.stepwise else self.recurrent.hidden_dim
        return Online.begin(self.recurrent.module().rest(rows), rows, size)

    def encode_step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None, outputs: int
    ) -> tuple[Online, Float[Array, "B outputs"]]:
        """The state after one more time step, and the encoder's outputs for all steps so far."""
        x, params = self.with_label(with_mask(x, None) if self.reads_mask else x, label), params["encoder"]
        linear, how = nn.Dense(outputs), self.recurrent.summary
        if self.code == "step":
            code: Any = linear.apply({"params": params["output"]}, x)
            return state.add((), code, how)
        after: Any = self.recurrent.module().apply({"params": params["layers"]}, state.carries, x, method="step")
        carries, last = after
        if self.stepwise:
            code = linear.apply({"params": params["output"]}, last)
            return state.add(carries, code, how)
        state, summary = state.add(carries, last, how)
        output: Any = linear.apply({"params": params["output"]}, summary)
        return state, output
