"""Classes or values of a sequence, or of each of its steps."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.networks.cells import valid_steps
from research.networks.recurrent import Online, RecurrentLayers, init_linear, linear
from research.tree import ConfigError, from_data, spec


@spec
class RecurrentPredictor(RecurrentLayers):
    """Recurrent layers with a linear layer upon them: y = W s + b of the summary s, or y_t = W h_t + b at every step.

    What is predicted is the data's `target`, or their `label` where they have none: one class of a sequence, values of
    a sequence [D], a class at every step [T], values at every step [T, D].

    Attributes:
      objective: "cross_entropy" in nats, summed over steps and values: of classes, or of values in [0, 1] (independent
        Bernoulli); "mse" or "mae" of values, means over steps and values; "auto" takes cross_entropy for classes and
        mse for values.
    """

    objective: Literal["auto", "cross_entropy", "mse", "mae"]
    target_shape: tuple[int, ...] = from_data(())
    target_classes: int = from_data(0)
    of_label: bool = from_data(False)

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("objective",)}

    def validate(self) -> None:
        self.validate_layers()

    def bind(self, facts: Facts) -> Any:
        """The model for this data; refused where there is nothing to predict."""
        self.check_data(facts)
        shape, classes, of_label = facts.target_shape, facts.target_classes, False
        if shape is None:
            if facts.classes < 1:
                remedy = "these data have neither a target nor labels, so nothing is to predict; use model=recurrent_ae"
                raise ConfigError("", type(self).__name__, remedy)
            if facts.anomaly:
                remedy = "no training row is anomalous, so the class is not to be learned; use model=recurrent_ae"
                raise ConfigError("", type(self).__name__, f"{remedy}, or data.anomaly=null")
            shape, classes, of_label = (), facts.classes, True
        if facts.target_follows or (len(shape) == 2 and shape[0] != facts.feature_shape[0]):
            remedy = "these targets are the steps that follow; use model=recurrent_forecaster"
            raise ConfigError("", type(self).__name__, remedy)
        if len(shape) == 1 and classes and shape[0] != facts.feature_shape[0]:
            raise ConfigError("", list(shape), "integer targets are classes of every step, one for each")
        if classes == 1:
            raise ConfigError("", type(self).__name__, "all rows are of one class, so nothing is to predict")
        if self.objective in ("mse", "mae") and classes:
            raise ConfigError("objective", self.objective, "the target is a class; use {key}=auto")
        if self.objective == "cross_entropy" and not classes and not (facts.target_low >= 0 and facts.target_high <= 1):
            low, high = facts.target_low, facts.target_high
            remedy = f"values must lie in [0, 1], these lie in [{low:.4g}, {high:.4g}]; use {{key}}=mse"
            raise ConfigError("objective", "cross_entropy", remedy)
        known = {"target_shape": shape, "target_classes": classes, "of_label": of_label}
        return dataclasses.replace(self, feature_shape=facts.feature_shape, **known).matched()

    @property
    def stepwise(self) -> bool:
        """Whether something is predicted at every step."""
        return len(self.target_shape) == (1 if self.target_classes else 2)

    @property
    def outputs(self) -> int:
        """Linear outputs of the sequence or of a step."""
        return self.target_classes or self.target_shape[-1]

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters."""
        layers_key, output_key = jax.random.split(key)
        reader = self.reader(self.feature_shape[-1])
        return {
            "layers": reader.init(layers_key, self.forget_bias),
            "output": init_linear(output_key, reader.features, self.outputs),
        }

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters."""
        del train
        return self.fresh(key)

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B features"]:
        """Summary of the states, [B, features]."""
        return self.read(params["layers"], batch.x, batch.length)[1]

    def predict(
        self, params: Any, batch: Examples, nudge: Float[Array, "B T H"] | None = None
    ) -> Float[Array, "B ..."]:
        """Linear outputs: logits of classes (or of values in [0, 1]), or values; [B, outputs] or [B, T, outputs].

        `nudge` is added to the last layer's states, so that a gradient with respect to it is one to them.
        """
        states, summary = self.read(params["layers"], batch.x, batch.length, nudge)
        return linear(params["output"], states if self.stepwise else summary)

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B outputs"]]:
        """One more time step: the state after it, and the linear outputs for all steps so far."""
        del label
        state, last, summary = self.advance(params["layers"], state, x)
        return state, linear(params["output"], last if self.stepwise else summary)

    def scores(self, outputs: Float[Array, "B ..."], batch: Examples) -> dict[str, Float[Array, " B"]]:
        """Loss and metrics of every example, [B]."""
        target = batch.label if self.of_label else batch.target
        valid = valid_steps(batch.length, batch.x.shape[1]) if self.stepwise else None
        steps = jnp.float32(batch.x.shape[1] if self.stepwise else 1)
        steps = jnp.broadcast_to(steps, (len(batch),)) if valid is None else jnp.maximum(valid.sum(-1), 1)

        def of_rows(values: jax.Array) -> jax.Array:
            """Values [B] or [B, T] summed over valid steps."""
            if not self.stepwise:
                return values
            return (values if valid is None else jnp.where(valid, values, 0.0)).sum(-1)

        if self.target_classes:
            hot = jax.nn.one_hot(target, self.target_classes)
            loss = of_rows(-(jax.nn.log_softmax(outputs) * hot).sum(-1))
            right = of_rows((outputs.argmax(-1) == target).astype(jnp.float32)) / steps
            return {"loss": loss, "cross_entropy": loss / steps, "accuracy": right}
        target = jnp.asarray(target, jnp.float32)
        there = None if valid is None else jnp.broadcast_to(valid[..., None], outputs.shape)
        if batch.target_observed is not None:
            there = batch.target_observed if there is None else there & batch.target_observed
            target = jnp.where(batch.target_observed, target, 0.0)
        weight = jnp.ones_like(outputs) if there is None else there.astype(outputs.dtype)
        over = tuple(range(1, outputs.ndim))
        if self.objective == "cross_entropy":
            loss = ((jnp.logaddexp(outputs, 0.0) - target * outputs) * weight).sum(over)
            return {"loss": loss, "cross_entropy": loss / steps}
        number = jnp.maximum(weight.sum(over), 1)
        found = {
            "mse": (jnp.square(outputs - target) * weight).sum(over) / number,
            "mae": (jnp.abs(outputs - target) * weight).sum(over) / number,
        }
        return {"loss": found["mae" if self.objective == "mae" else "mse"], **found}

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean over the batch."""
        del key, clock
        scores = {name: value.mean() for name, value in self.scores(self.predict(params, batch), batch).items()}
        return scores.pop("loss"), scores

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Loss and metrics of every example."""
        del keys  # nothing is drawn
        return self.scores(self.predict(params, batch), batch)
