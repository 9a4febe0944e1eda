"""Forecast of the next steps of a series from a window of its past."""

import dataclasses
import math
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.distributions import Forecast
from research.networks.forecasting import ForecastNetwork
from research.networks.layers import RecurrentLayers
from research.networks.recurrent import check_sequences
from research.networks.sizing import matched
from research.ranges import Count, OpenShare, ShareBelow1, Size
from research.tree import ConfigError, from_data, inline, spec


@spec
class RecurrentForecaster:
    """Recurrent layers over segments of a window, and the next H steps from their last states.

    In the window's own scale (shift m, scale s): (y - m) / s = residual + network.

    Covariates, where the data have some: segments of the window enter the cells beside what is known of their steps and
    of the series, and the output layer reads what is known of the steps that it makes (`ForecastNetwork`).

    Attributes:
      recurrent: the cells.
      parameters: the width is chosen so that the model has about this many parameters; null: `hidden_dim`.
      segment: steps of the series in one step of the scan (SegRNN: Lin et al. 2023). It must divide the window.
      embedding: size of a linear layer with a relu before the cells; null: segments enter the cells as they are.
      channels: "independent" treats each channel as a series of its own, with shared parameters; "joint" reads and
        forecasts all channels at once.
      decoding: "direct": all steps by one linear layer; "parallel": one step of the cells for every future segment,
        each from the same carry with an embedding of its position (SegRNN); "recursive": segment after segment,
        each from the forecast of the segment before.
      normalize: scale of a window. "none" leaves it; "last" subtracts its last value; "standard" subtracts its mean and
        divides by its standard deviation (Kim et al. 2022, without parameters).
      residual: the network's output is added to 0 ("none"), to the last value ("last"), or to the last season, repeated
        ("season").
      objective: "mse"; "mae"; "gaussian" (mean and scale of every step, nats); "quantile" (pinball loss).
      quantiles: levels of "quantile", ascending; 0.5 must be one of them.
      dropout: share of the elements of the last states that are set to zero in training; null: none.
    """

    recurrent: RecurrentLayers = inline()
    parameters: Count | None
    segment: Size
    embedding: Size | None
    channels: Literal["independent", "joint"]
    decoding: Literal["direct", "parallel", "recursive"]
    normalize: Literal["none", "last", "standard"]
    residual: Literal["none", "last", "season"]
    objective: Literal["mse", "mae", "gaussian", "quantile"]
    quantiles: tuple[OpenShare, ...]
    dropout: ShareBelow1 | None
    feature_shape: tuple[int, ...] = from_data(())
    horizon: int = from_data(0)
    season: int | None = from_data(None)
    known: int = from_data(0)
    static: int = from_data(0)

    # The loss is computed in the scale of the window. The CRPS of quantiles is a mean over their levels.
    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": ("objective", "quantiles", "normalize"),
        **dict.fromkeys(("crps", "crps_raw"), ("objective", "quantiles")),
    }
    unscored: ClassVar[tuple[str, ...]] = ("dropout",)  # scores are computed without it
    takes_masks: ClassVar[bool] = True
    takes_covariates: ClassVar[bool] = True
    training_only: ClassVar[tuple[str, ...]] = ()

    def validate(self) -> None:
        levels = self.quantiles
        if self.objective == "quantile" and (list(levels) != sorted(set(levels)) or 0.5 not in levels):
            raise ConfigError("quantiles", list(levels), "expected ascending levels, 0.5 among them")
        if self.recurrent.bidirectional and self.decoding != "direct":
            raise ConfigError("bidirectional", True, "a carry that goes on runs forwards; use model.decoding=direct")
        if self.recurrent.summary != "last" and self.decoding != "direct":
            raise ConfigError(
                "summary", self.recurrent.summary, "a carry that goes on is the last; use model.decoding=direct"
            )

    def bind(self, facts: Facts) -> Self:
        """The model for this data. Raises ConfigError if they have no steps to forecast or the window does not fit."""
        check_sequences(facts, type(self).__name__)
        shape = facts.target_shape
        if shape is None or not facts.target_follows:
            raise ConfigError(
                "", type(self).__name__, "a forecaster needs windows with a horizon: data=series data.horizon=24"
            )
        window, _ = facts.feature_shape
        if window % self.segment:
            divisors = [size for size in range(1, window + 1) if window % size == 0]
            close = min(divisors, key=lambda size: abs(size - self.segment))
            remedy = f"the window of {window} steps is no multiple of it; {close} would divide it"
            raise ConfigError("segment", self.segment, remedy)
        if self.residual == "season":
            if facts.season is None:
                raise ConfigError(
                    "residual", "season", "these data name no season; set data.season=STEPS or model.residual=last"
                )
            if facts.season > window:
                raise ConfigError("residual", "season", f"the season of {facts.season} steps is longer than the window")
        sizes = {"known": facts.known, "static": facts.static}
        known = {"feature_shape": facts.feature_shape, "horizon": shape[0], "season": facts.season}
        bound = dataclasses.replace(self, **known, **sizes)
        return bound if self.parameters is None else matched(bound, "recurrent", self.parameters)

    @property
    def uses(self) -> int:
        """Steps of the scan over the window; 1 before the data are known."""
        return max(next(iter(self.feature_shape), 1) // self.segment, 1)

    @property
    def width(self) -> int:
        """Channels in one row of the network's input."""
        return self.feature_shape[-1] if self.channels == "joint" else 1

    @property
    def numbers(self) -> int:
        """Network outputs per forecast value."""
        return {"gaussian": 2, "quantile": len(self.quantiles)}.get(self.objective, 1)

    @property
    def pieces(self) -> int:
        """Future segments."""
        return math.ceil(self.horizon / self.segment)

    def module(self) -> ForecastNetwork:
        """The network as a Linen module."""
        steps = self.horizon if self.decoding == "direct" else self.segment
        outputs = steps * self.width * self.numbers
        layers, summary = self.recurrent.module(), self.recurrent.summary
        return ForecastNetwork(layers, summary, self.embedding, outputs, self.decoding, self.pieces)

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters."""
        size = self.segment * self.width + self._beside(self.segment)
        segments = jnp.zeros((1, self.feature_shape[0] // self.segment, size))
        read_back, drop = (lambda piece, outputs: jnp.zeros((1, size))), (lambda states: states)
        inputs: list[Any] = [segments, read_back, drop]
        keys: dict[str, Any] = dict(
            zip(("layers", "embedding", "output", "position"), jax.random.split(key, 4), strict=True)
        )
        if self._beside(1):
            keys["future"] = jax.random.fold_in(key, 4)
            pieces, steps = (1, self.horizon) if self.decoding == "direct" else (self.pieces, self.segment)
            inputs.append(jnp.zeros((1, pieces, self._beside(steps))))
        position = lambda key, shape: jax.random.normal(key, shape) / jnp.sqrt(jnp.float32(shape[1]))
        return self.recurrent.fresh(self.module(), keys, *inputs, position=position)

    def _beside(self, steps: int) -> int:
        """How many numbers are known in advance of some steps together, and of their series."""
        return steps * self.known + self.static

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters."""
        del train
        return self.fresh(key)

    # ------------------------------------------------------------------------------------------------ window, network

    def _window(self, batch: Examples) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Window in its own scale [B, T, C], its shift and scale [B, 1, C], residual in that scale [B, H, C]."""
        x, mask = batch.x, batch.mask
        last = last_observed(x, mask)
        zeros = jnp.zeros_like(last)
        shift, scale = zeros, jnp.ones_like(last)
        if self.normalize == "last":
            shift = last
        elif self.normalize == "standard":
            weight = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
            total = jnp.maximum(weight.sum(1, keepdims=True), 1)
            shift = (x * weight).sum(1, keepdims=True) / total
            variance = (jnp.square(x - shift) * weight).sum(1, keepdims=True) / total
            # A window that is constant up to rounding keeps its scale.
            floor = jnp.square(1e-6 * jnp.abs(shift)) + 1e-12
            scale = jnp.where(variance > floor, jnp.sqrt(jnp.where(variance > floor, variance, 1.0)), 1.0)
        scaled = (x - shift) / scale
        if mask is not None:
            scaled = jnp.where(mask, scaled, 0.0)
        residual = jnp.zeros((x.shape[0], self.horizon, x.shape[2]))
        if self.residual == "last":
            residual = residual + (last - shift) / scale
        elif self.residual == "season":
            assert self.season is not None
            filled = scaled if mask is None else jnp.where(mask, scaled, (last - shift) / scale)
            repeats = -(-self.horizon // self.season)
            residual = jnp.tile(filled[:, -self.season :], (1, repeats, 1))[:, : self.horizon]
        return scaled, shift, scale, residual

    def _covariates(self, batch: Examples) -> tuple[jax.Array, jax.Array] | None:
        """What is known of the segments of the window [B, pieces, P], and of future segments [B, pieces, F].

        With direct decoding the horizon is one piece; otherwise zeros fill up the last one. None: nothing is known.
        """
        if not self._beside(1):
            return None
        window, ahead = self.feature_shape[0], self.horizon
        size = ahead if self.decoding == "direct" else self.segment

        def cut(steps: Float[Array, "B S K"], size: int) -> jax.Array:
            pieces = steps.reshape(len(steps), steps.shape[1] // size, size * self.known)
            if not self.static:
                return pieces
            constant = jnp.broadcast_to(batch.static[:, None], (*pieces.shape[:2], self.static))
            return jnp.concatenate([pieces, constant], axis=-1)

        known = batch.known if self.known else jnp.zeros((len(batch), window + ahead, 0))
        later = jnp.pad(known[:, window:], ((0, 0), (0, -ahead % size), (0, 0)))
        past, future = cut(known[:, :window], self.segment), cut(later, size)
        if self.channels == "independent":
            past, future = (jnp.repeat(part, self.feature_shape[1], axis=0) for part in (past, future))
        return past, future

    def network(
        self,
        params: Any,
        scaled: Float[Array, "B T C"],
        key: Any = None,
        residual: Float[Array, "B H C"] | None = None,
        covariates: tuple[jax.Array, jax.Array] | None = None,
    ) -> Float[Array, "B H C numbers"]:
        """Network outputs, to be added to the residual (None: 0), for windows in their own scale.

        With a key, states are dropped out. Covariates are from `_covariates`.
        """
        rows, steps, channels = scaled.shape
        residual = jnp.zeros((rows, self.horizon, channels)) if residual is None else residual
        if self.channels == "independent":
            scaled = jnp.swapaxes(scaled, 1, 2).reshape(rows * channels, steps, 1)
            residual = jnp.swapaxes(residual, 1, 2).reshape(rows * channels, self.horizon, 1)
        segments = scaled.reshape(scaled.shape[0], steps // self.segment, self.segment * self.width)
        future = None
        if covariates is not None:
            segments, future = jnp.concatenate([segments, covariates[0]], axis=-1), covariates[1]

        def drop(states: Float[Array, "*B features"]) -> Float[Array, "*B features"]:
            if key is None or self.dropout is None:
                return states
            kept = jax.random.bernoulli(key, 1 - self.dropout, states.shape)
            return jnp.where(kept, states / (1 - self.dropout), 0.0)

        def read_back(piece: int, outputs: Float[Array, "B outputs"]) -> Float[Array, "B D"]:
            """The forecast of a segment, as an input."""
            values = outputs.reshape(len(outputs), self.segment * self.width, self.numbers)
            before = residual[:, piece * self.segment : (piece + 1) * self.segment]
            forecast = before.reshape(len(before), -1) + self._center(values)[..., 0]
            return forecast if future is None else jnp.concatenate([forecast, future[:, piece]], axis=-1)

        out: Any = self.module().apply({"params": params}, segments, read_back, drop, future)
        out = out.reshape(out.shape[0], -1, self.width, self.numbers)[:, : self.horizon]
        if self.channels == "independent":
            out = jnp.swapaxes(out.reshape(rows, channels, self.horizon, self.numbers), 1, 2)
        return out

    def _center(self, outputs: Float[Array, "... numbers"]) -> Float[Array, "... one"]:
        """Mean or median of network outputs, with the last axis of size 1."""
        at = self.quantiles.index(0.5) if self.objective == "quantile" else 0
        return outputs[..., at : at + 1]

    # ----------------------------------------------------------------------------------------------------- the protocol

    def forecast(self, params: Any, batch: Examples) -> Forecast:
        """Distribution of the next H steps in the scale of the data, [B, H, C]."""
        scaled, shift, scale, residual = self._window(batch)
        outputs = self.network(params, scaled, None, residual, self._covariates(batch))
        return self._distribution(outputs, shift, scale, residual)

    def _distribution(self, outputs: jax.Array, shift: jax.Array, scale: jax.Array, residual: jax.Array) -> Forecast:
        center = shift + scale * (residual + self._center(outputs)[..., 0])
        if self.objective == "gaussian":
            deviation = scale * jnp.exp(outputs[..., 1])
            return Forecast(mean=center, median=center, deviation=deviation)
        if self.objective == "quantile":
            levels = shift[..., None] + scale[..., None] * (residual[..., None] + outputs)
            levels = jnp.sort(levels, axis=-1)  # quantiles that cross are exchanged (Chernozhukov et al. 2010)
            at = self.quantiles.index(0.5)
            # mean of the density that is flat between neighbouring quantiles
            edges = jnp.array(
                [0.0, *((a + b) / 2 for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)), 1.0]
            )
            mean = (levels * jnp.diff(edges).reshape((1,) * (levels.ndim - 1) + (-1,))).sum(-1)
            return Forecast(mean=mean, median=levels[..., at], quantiles=levels)
        return Forecast(mean=center, median=center)

    def scores(self, params: Any, batch: Examples, key: Any) -> dict[str, Float[Array, " B"]]:
        """Loss and errors of every example, [B]."""
        scaled, shift, scale, residual = self._window(batch)
        outputs = self.network(params, scaled, key, residual, self._covariates(batch))
        mask = batch.target_observed
        target = batch.target if mask is None else jnp.where(mask, batch.target, 0.0)
        weight = jnp.ones_like(target) if mask is None else mask.astype(target.dtype)

        def mean(values: Float[Array, "B H C"]) -> Float[Array, " B"]:
            return (values * weight).sum((1, 2)) / jnp.maximum(weight.sum((1, 2)), 1)

        # In the scale of the window, large series do not outweigh small ones.
        error = (target - shift) / scale - residual - self._center(outputs)[..., 0]
        match self.objective:
            case "mse":
                loss = mean(jnp.square(error))
            case "mae":
                loss = mean(jnp.abs(error))
            case "gaussian":
                log_deviation = outputs[..., 1]
                nats = 0.5 * jnp.square(error * jnp.exp(-log_deviation)) + log_deviation + 0.5 * math.log(2 * math.pi)
                loss = ((nats + jnp.log(scale)) * weight).sum((1, 2))
            case _:
                levels = jnp.asarray(self.quantiles)[None, None, None]
                gap = ((target - shift) / scale - residual)[..., None] - outputs
                loss = mean(jnp.maximum(levels * gap, (levels - 1) * gap).mean(-1))
        forecast = self._distribution(outputs, shift, scale, residual)
        return {
            "loss": loss,
            "mse": mean(jnp.square(target - forecast.mean)),
            "mae": mean(jnp.abs(target - forecast.median)),
        }

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean over the batch."""
        del clock
        scores = {name: value.mean() for name, value in self.scores(params, batch, key).items()}
        return scores.pop("loss"), scores

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Loss of every example (in nats for gaussian), and mse and mae in the scale of the data."""
        return self.scores(params, batch, None)


def last_observed(x: Float[Array, "B T C"], mask: Any) -> Float[Array, "B one C"]:
    """The last observed value of every channel, [B, 1, C]; 0 where no value is observed."""
    if mask is None:
        return x[:, -1:]
    times = jnp.arange(x.shape[1])[None, :, None]
    at = jnp.max(jnp.where(mask, times, -1), axis=1, keepdims=True)
    return jnp.where(times == at, jnp.where(mask, x, 0.0), 0.0).sum(1, keepdims=True)
