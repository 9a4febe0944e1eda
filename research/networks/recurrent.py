"""Recurrent encoder and decoder over time."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.distributions import Likelihood
from research.networks.cells import CELLS, PARTS, Carry, Layers, flip, summarize, valid_steps
from research.networks.common import Coding, Sized, observed_mean
from research.networks.dense import check_name
from research.ranges import Epochs, Finite, Range, Share, Size
from research.tree import ConfigError, spec

SUMMARIES = ("last", "mean", "max")
DECODERS = ("every_step", "first_state", "free_running", "teacher_forced")


class Online(NamedTuple):
    """What a recurrent encoder carries from one call to the next: after t steps, everything a code depends on.

    Attributes:
      carries: of every cell.
      steps: t.
      total, largest: sum and maximum of the last layer's states so far, [B, H].
    """

    carries: list[Carry]
    steps: jax.Array
    total: jax.Array
    largest: jax.Array


@spec
class RecurrentLayers(Sized):
    """The settings of recurrent layers that read a sequence, mixed into a model.

    Attributes:
      cell: one of `CELLS`.
      hidden_dim: H.
      layers: how many, one upon the other.
      bidirectional: a second stack reads from the end (Schuster & Paliwal 1997).
      layer_norm: normalise the two products of every cell.
      forget_bias: where the forget gates of an lstm start.
      summary: what stands for the whole sequence: the last state, or mean or maximum of the states over time.
      form, unroll: how the scan is compiled (`research.networks.cells.Layers`); the numbers that come out agree up to
        rounding.
    """

    takes_masks: ClassVar[bool] = True

    cell: str
    hidden_dim: Size
    layers: Annotated[int, Range(1, 1_000)]
    bidirectional: bool
    layer_norm: bool
    forget_bias: Finite
    summary: Literal["last", "mean", "max"]
    form: Literal["auto", "step", "hoisted"]
    unroll: Annotated[int, Range(0, 10_000)]

    depends: ClassVar[dict[str, tuple[str, ...]]] = {}

    def validate_layers(self) -> None:
        check_name("cell", self.cell, CELLS)

    def check_data(self, facts: Facts) -> None:
        """Refuse data without a time axis."""
        if facts.kind != "sequence":
            remedy = (
                f"it needs sequences [N, T, C], and these data are {facts.kind}s {list(facts.feature_shape)}; "
                "images can be read row by row (data=digits_rows, mnist_rows, mnist_pixels), files of your own by "
                "data=series and data=ucr"
            )
            raise ConfigError("", type(self).__name__, remedy)

    def resized(self, width: int) -> Self:
        """The same layers, so many units wide."""
        return dataclasses.replace(self, hidden_dim=width)

    def reader(self, inputs: int) -> Layers:
        """The stack that reads inputs of that size."""
        return Layers(
            self.cell,
            self.hidden_dim,
            inputs,
            self.layers,
            self.layer_norm,
            self.bidirectional,
            self.form,
            self.unroll,
        )

    def read(
        self,
        params: Any,
        x: Float[Array, "B T D"],
        length: Int[Array, " B"] | None,
        nudge: Float[Array, "B T H"] | None = None,
    ) -> tuple[Float[Array, "B T features"], Float[Array, "B features"]]:
        """States of the last layer at all times, and their summary."""
        layers, valid = self.reader(x.shape[-1]), valid_steps(length, x.shape[1])
        states, ends = layers.scan(params, x, steps=x.shape[1], valid=valid, nudge=nudge)
        last = jnp.concatenate([end[0] for end in ends[-2 if self.bidirectional else -1 :]], -1)
        return states, summarize(states, last, valid, self.summary)

    # ----------------------------------------------------------------------------------------------- one step at a time

    def start(self, rows: int) -> Online:
        """The state before the first step of `rows` sequences."""
        if self.bidirectional:
            remedy = (
                "a network that also reads backwards needs the whole sequence; train with model.bidirectional=false"
            )
            raise ConfigError("bidirectional", True, remedy)
        zeros = jnp.zeros((rows, self.summary_dim))
        return Online(self.reader(1).rest(rows), jnp.zeros((), jnp.int32), zeros, zeros - jnp.inf)

    @property
    def summary_dim(self) -> int:
        """Size of what is summarised over time."""
        return self.hidden_dim

    def advance(
        self, params: Any, state: Online, x: Float[Array, "B D"]
    ) -> tuple[Online, Float[Array, "B H"], Float[Array, "B H"]]:
        """The state after one more step, the last layer's state, and the summary of all steps so far."""
        carries = self.reader(x.shape[-1]).step(params, state.carries, x)
        last = carries[-1][0]
        state = Online(carries, state.steps + 1, state.total + last, jnp.maximum(state.largest, last))
        summaries = {"last": last, "mean": state.total / state.steps, "max": state.largest}
        return state, last, summaries[self.summary]


def init_linear(key: Key[Array, ""], inputs: int, outputs: int) -> dict[str, Any]:
    """Kernel [inputs, outputs] of variance 1 / inputs, bias zero."""
    return {
        "kernel": jax.nn.initializers.lecun_normal()(key, (inputs, outputs)),
        "bias": jnp.zeros((outputs,)),
    }


def linear(params: Any, x: Float[Array, "*B D"]) -> Float[Array, "*B outputs"]:
    """W x + b."""
    bias = params["bias"]
    return x @ params["kernel"] + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class Teaching(NamedTuple):
    """What a decoder sees of the true sequence while it is trained.

    Attributes:
      x: the sequence, [B, T, C].
      mask: False where a value is missing, of the shape of x; the decoder then sees its own. None: all are there.
      share: probability that a step sees the true last value rather than the decoder's own.
      dropout: probability that the true value is set to zero instead; None: never.
      key: of these draws.
    """

    x: jax.Array
    mask: Any
    share: jax.Array
    dropout: Any
    key: jax.Array


@spec
class RecurrentNetworks(Coding, RecurrentLayers):
    """The settings of a recurrent encoder and decoder, mixed into a model.

    The encoder's summary s gives the code by one linear layer. The decoder has cells of the same kind, width and
    number, and a linear output layer at every step.

    Attributes:
      code: "sequence": one code for the whole sequence. "step": a code at every step, z_t = W x_t + b, read by the
        decoder's cells, y_t = W_h h_t + W_z z_t + b; the code of the sequence is then the summary of z_t over time.
      decoder: what the decoder's cells get. "every_step": the code at every step (Cho et al. 2014). "first_state": the
        code as their first state, and no input. "free_running": the code as their first state, and their own last
        output as the input. "teacher_forced": the same, but in training a step sees the true last value with a
        probability that goes from `teacher_start` to `teacher_end` over `teacher_epochs` (Bengio et al. 2015); scores,
        reconstructions and samples are always free-running.
      reverse: the decoder goes backwards in time (Sutskever et al. 2014; Srivastava et al. 2015).
      teacher_start, teacher_end, teacher_epochs: above.
      teacher_dropout: share of true values that are set to zero, so that the decoder must use the code (Bowman et al.
        2016); null: none.
    """

    code: Literal["sequence", "step"]
    decoder: Literal["every_step", "first_state", "free_running", "teacher_forced"]
    reverse: bool
    teacher_start: Share
    teacher_end: Share
    teacher_epochs: Epochs
    teacher_dropout: Share | None

    depends: ClassVar[dict[str, tuple[str, ...]]] = {}  # scores are free-running, whatever training saw

    def validate_networks(self) -> None:
        self.validate_layers()
        if self.teacher_dropout is not None and self.decoder != "teacher_forced":
            remedy = "only a teacher-forced decoder sees true values; set model.decoder=teacher_forced"
            raise ConfigError("teacher_dropout", self.teacher_dropout, remedy)
        if self.code == "step":
            if self.decoder != "every_step":
                remedy = "a code at every step is read at every step; set model.decoder=every_step"
                raise ConfigError("decoder", self.decoder, remedy)
            if self.bidirectional or self.reverse:
                key = "bidirectional" if self.bidirectional else "reverse"
                raise ConfigError(
                    key, True, "a code at every step is linear in x_t: nothing is read or written backwards"
                )

    @property
    def summary_dim(self: Any) -> int:
        return self.encoder_outputs if self.code == "step" else self.hidden_dim

    @property
    def feedback(self) -> bool:
        """Whether the decoder reads its own output."""
        return self.decoder in ("free_running", "teacher_forced")

    @property
    def size(self) -> int:
        """C, channels of the sequence."""
        return self.feature_shape[-1]

    def writer(self) -> Layers:
        """The decoder's stack."""
        code = self.latent_dim + self.label_size()
        inputs = self.size if self.feedback else code if self.decoder == "every_step" else 0
        return Layers(self.cell, self.hidden_dim, inputs, self.layers, self.layer_norm, False, self.form, self.unroll)

    def init_networks(self, key: Key[Array, ""], encoder_outputs: int, channels: int) -> dict[str, Any]:
        """Fresh parameters {"encoder", "decoder"}."""
        keys = jax.random.split(key, 6)
        inputs, code = self.size + self.label_size(), self.latent_dim + self.label_size()
        decoder: dict[str, Any] = {
            "layers": self.writer().init(keys[0], self.forget_bias),
            "output": init_linear(keys[1], self.hidden_dim, self.size * channels),
        }
        if self.decoder != "every_step":
            decoder["start"] = init_linear(keys[2], code, self.layers * PARTS[self.cell] * self.hidden_dim)
        if self.code == "step":
            decoder["skip"] = jax.nn.initializers.lecun_normal()(keys[3], (code, self.size * channels))
            return {"encoder": {"output": init_linear(keys[4], inputs, encoder_outputs)}, "decoder": decoder}
        reader = self.reader(inputs)
        encoder = {
            "layers": reader.init(keys[5], self.forget_bias),
            "output": init_linear(keys[4], reader.features, encoder_outputs),
        }
        return {"encoder": encoder, "decoder": decoder}

    def apply_encoder(self, params: Any, batch: Examples, outputs: int) -> Float[Array, "B {outputs}"]:
        """Encoder outputs of a batch, [B, outputs]; with a code at every step their summary over time."""
        if self.code == "step":
            steps = self.apply_step_encoder(params, batch)
            valid = valid_steps(batch.length, steps.shape[1])
            at_end = jnp.full((len(batch),), steps.shape[1]) if batch.length is None else batch.length
            last = jnp.take_along_axis(steps, (at_end - 1)[:, None, None], axis=1)[:, 0]
            return summarize(steps, last, valid, self.summary)
        _, summary = self.read(params["encoder"]["layers"], self.with_label(batch.x, batch.label), batch.length)
        return linear(params["encoder"]["output"], summary)

    def apply_step_encoder(self, params: Any, batch: Examples) -> Float[Array, "B T outputs"]:
        """z_t = W x_t + b, [B, T, outputs]."""
        return linear(params["encoder"]["output"], self.with_label(batch.x, batch.label))

    def online_encoder(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None
    ) -> tuple[Online, Float[Array, "B outputs"]]:
        """One more time step: the state after it, and the encoder's outputs for all steps so far."""
        x = self.with_label(x, label)
        if self.code == "step":
            out = linear(params["encoder"]["output"], x)
            steps, total, largest = state.steps + 1, state.total + out, jnp.maximum(state.largest, out)
            summaries = {"last": out, "mean": total / steps, "max": largest}
            return Online(state.carries, steps, total, largest), summaries[self.summary]
        state, _, summary = self.advance(params["encoder"]["layers"], state, x)
        return state, linear(params["encoder"]["output"], summary)

    def teaching(self, batch: Examples, key: Key[Array, ""], clock: Clock) -> Teaching | None:
        """The true sequence for a teacher-forced decoder, as far as the schedule lets it be seen."""
        if self.decoder != "teacher_forced":
            return None
        length = jnp.asarray(self.teacher_epochs, jnp.float32)
        progress = jnp.where(clock.epoch >= length, 1.0, clock.epoch / jnp.where(length > 0, length, 1.0))
        share = self.teacher_start + (self.teacher_end - self.teacher_start) * progress
        return Teaching(batch.x, batch.observed, share, self.teacher_dropout, key)

    def apply_decoder(
        self,
        params: Any,
        z: Float[Array, "*codes L"],
        label: Int[Array, " B"] | None,
        observation: Likelihood,
        length: Int[Array, " B"] | None = None,
        teaching: Teaching | None = None,
    ) -> Float[Array, "B outputs"]:
        """Decoder outputs [B, T * C * channels] of codes [B, L], or of codes [B, T, L] at every step."""
        decoder, steps, rows = params["decoder"], self.feature_shape[0], z.shape[0]
        code = self.with_label(z, label)
        layers, carries = self.writer(), None
        if self.decoder != "every_step":
            parts = PARTS[self.cell]
            first = linear(decoder["start"], code).reshape(rows, self.layers, parts, self.hidden_dim)
            carries = [tuple(first[:, layer, part] for part in range(parts)) for layer in range(self.layers)]
        if self.feedback:
            assert carries is not None
            outputs = self._feed_back(decoder, layers, carries, observation, steps, length, teaching)
        else:
            inputs = None
            if self.decoder == "every_step":
                inputs = code if code.ndim == 3 else jnp.broadcast_to(code[:, None], (rows, steps, code.shape[-1]))
            states, _ = layers.scan(decoder["layers"], inputs, steps=steps, carries=carries, rows=rows)
            outputs = linear(decoder["output"], states)
            if self.code == "step":
                assert inputs is not None
                outputs = outputs + inputs @ decoder["skip"]
        if self.reverse:
            outputs = flip(outputs, length)
        return outputs.reshape(rows, -1)

    def _feed_back(
        self,
        decoder: Any,
        layers: Layers,
        carries: list[Carry],
        observation: Likelihood,
        steps: int,
        length: Int[Array, " B"] | None,
        teaching: Teaching | None,
    ) -> Float[Array, "B T outputs"]:
        """Outputs of a decoder that reads its own last output, or the true last value."""
        rows = carries[0][0].shape[0]
        truth, there = None, None
        if teaching is not None:
            ahead = lambda x: jnp.swapaxes(flip(x, length) if self.reverse else x, 0, 1)
            truth, there = ahead(teaching.x), None if teaching.mask is None else ahead(teaching.mask)

        def step(state: tuple[list[Carry], jax.Array], at: tuple[jax.Array, Any, Any]) -> Any:
            carries, x = state
            time, value, seen = at
            carries = layers.step(decoder["layers"], carries, x)
            output = linear(decoder["output"], carries[-1][0])
            after = observation.mean(output)
            if teaching is not None:  # draws of a step of their own: padding changes none
                seen_key, drop_key = jax.random.split(jax.random.fold_in(teaching.key, time))
                if teaching.dropout is not None:
                    dropped = jax.random.uniform(drop_key, (rows, 1)) < teaching.dropout
                    value = jnp.where(dropped, 0.0, value)
                taught = jax.random.uniform(seen_key, (rows, 1)) < teaching.share
                after = jnp.where(taught if seen is None else taught & seen, value, after)
            return (carries, after), output

        start = carries, jnp.zeros((rows, self.size))
        _, outputs = jax.lax.scan(step, start, (jnp.arange(steps), truth, there))
        return jnp.swapaxes(outputs, 0, 1)

    def linear_encoder(self, params: Any) -> None:
        """No recurrent encoder is one linear layer."""
        del params

    def feature_mean(self, train: Examples) -> Float[Array, " C"]:
        """Mean of every channel over rows and time, [C]."""
        return observed_mean(train, 2)

    def set_output_bias(self, params: dict[str, Any], bias: Float[Array, " outputs"]) -> dict[str, Any]:
        """Parameters whose decoder starts at `bias` [C * channels] at every step."""
        output = {**params["decoder"]["output"], "bias": bias}
        return {**params, "decoder": {**params["decoder"], "output": output}}
