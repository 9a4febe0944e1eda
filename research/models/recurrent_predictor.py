"""Prediction of a class or of values, of a sequence or of each of its steps."""

import dataclasses
from typing import Any, ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.networks.layers import RecurrentLayers
from research.networks.recurrent import Online, Reader, check_sequences
from research.networks.sizing import matched
from research.networks.steps import over_steps, valid_steps
from research.ranges import Count, StaticShareBelow1
from research.tree import ConfigError, added, from_data, inline, spec


@spec
class RecurrentPredictor:
    """Recurrent layers with a linear layer upon them: y = W s + b of the summary s, or y_t = W h_t + b at every step.

    It predicts the `target` of the data, or their `label` if they have no target: a class of a sequence, values of a
    sequence [D], a class at every step [T], or values at every step [T, D]. Values are predicted on the scale on which
    the data set holds them; `mse_raw` and `mae_raw` of the evaluation have the units of the data.

    Attributes:
      recurrent: the cells.
      parameters: the width is chosen so that the model has about this many parameters; null: `hidden_dim`.
      dropout: share of every layer's states that are set to zero in training, the same states at all steps.
      objective: "cross_entropy" in nats, summed over steps and values: of classes, or of values in [0, 1] (independent
        Bernoulli); "mse" or "mae" of values, means over steps and values; "auto" takes cross_entropy for classes and
        mse for values.
    """

    recurrent: RecurrentLayers = inline()
    parameters: Count | None
    dropout: StaticShareBelow1 = added(before=0.0)
    objective: Literal["auto", "cross_entropy", "mse", "mae"]
    feature_shape: tuple[int, ...] = from_data(())
    target_shape: tuple[int, ...] = from_data(())
    target_classes: int = from_data(0)
    of_label: bool = from_data(False)

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("objective",)}
    unscored: ClassVar[tuple[str, ...]] = ("dropout",)  # scores are computed without it
    takes_masks: ClassVar[bool] = True
    training_only: ClassVar[tuple[str, ...]] = ()

    def bind(self, facts: Facts) -> Self:
        """The model for this data. Raises ConfigError if there is nothing to predict."""
        check_sequences(facts, type(self).__name__)
        shape, classes, of_label = facts.target_shape, facts.target_classes, False
        if shape is None:
            if facts.classes < 1:
                remedy = "these data have neither a target nor labels, so nothing is to predict; name the target"
                remedy += " (data=arrays: data.target=y), or use model=recurrent_ae"
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
        bound = dataclasses.replace(self, feature_shape=facts.feature_shape, **known)
        return bound if self.parameters is None else matched(bound, "recurrent", self.parameters)

    @property
    def uses(self) -> int:
        """T, because the cells use their parameters at every step; 1 before the data are known."""
        return next(iter(self.feature_shape), 1)

    @property
    def cell(self) -> str:
        """The kind of its cells."""
        return self.recurrent.cell

    @property
    def stepwise(self) -> bool:
        """Whether there is a prediction at every step."""
        return len(self.target_shape) == (1 if self.target_classes else 2)

    @property
    def outputs(self) -> int:
        """Linear outputs of the sequence or of a step."""
        return self.target_classes or self.target_shape[-1]

    def module(self) -> Reader:
        """The recurrent layers and the linear layer as a Linen module."""
        summary = None if self.stepwise else self.recurrent.summary
        return Reader(self.recurrent.module(dropout=self.dropout), self.outputs, summary)

    def fresh(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters."""
        keys: dict[str, Any] = dict(zip(("layers", "output"), jax.random.split(key), strict=True))
        return self.recurrent.fresh(self.module(), keys, jnp.zeros((1, 1, self.feature_shape[-1])))

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters."""
        del train
        return self.fresh(key)

    def encode(self, params: Any, batch: Examples) -> Float[Array, "B features"]:
        """Summary of the states, [B, features]."""
        layers, how = self.recurrent.module(), self.recurrent.summary
        states: Any = layers.apply({"params": params["layers"]}, batch.x, how, batch.length, method="summary")
        return states

    def predict(
        self, params: Any, batch: Examples, key: Key[Array, ""] | None = None, perturbations: Any = None
    ) -> Float[Array, "B ..."]:
        """Linear outputs: logits of classes (or of values in [0, 1]), or values; [B, outputs] or [B, T, outputs].

        Outputs after the length of a row have no meaning.

        Args:
          key: of dropout, in training.
          perturbations: additions to the states (see `research.networks.cells.Cell`).
        """
        variables = {"params": params} if perturbations is None else {"params": params, "perturbations": perturbations}
        drop = key is not None and self.dropout > 0
        rngs = {"dropout": key} if key is not None and drop else None
        outputs: Any = self.module().apply(variables, batch.x, batch.length, drop, rngs=rngs)
        return outputs

    def state_gradients(self, params: Any, batch: Examples) -> Float[Array, "B T H"]:
        """Gradient of the loss of every row with respect to the states h_t of the last layer that runs forwards."""
        shapes = jax.eval_shape(self.module().init, jax.random.key(0), batch.x)["perturbations"]
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

        def loss(perturbations: Any) -> Float[Array, ""]:
            return self.scores(self.predict(params, batch, perturbations=perturbations), batch)["loss"].sum()

        return jax.grad(loss)(zeros)["layers"][f"layer_{self.recurrent.layers - 1}"]["state"]

    def start(self, rows: int) -> Online:
        """The state before the first step of `rows` sequences."""
        self.recurrent.check_forwards()
        return Online.begin(self.recurrent.module().rest(rows), rows, self.recurrent.hidden_dim)

    def step(
        self, params: Any, state: Online, x: Float[Array, "B C"], label: Int[Array, " B"] | None = None
    ) -> tuple[Online, Float[Array, "B outputs"]]:
        """The state after one more time step, and the linear outputs for all steps so far."""
        after: Any = self.recurrent.module().apply({"params": params["layers"]}, state.carries, x, method="step")
        carries, last = after
        state, summary = state.add(carries, last, self.recurrent.summary)
        output: Any = nn.Dense(self.outputs).apply({"params": params["output"]}, last if self.stepwise else summary)
        return state, output

    def scores(self, outputs: Float[Array, "B ..."], batch: Examples) -> dict[str, Float[Array, " B"]]:
        """Loss and metrics of every example, [B]."""
        target = batch.label if self.of_label else batch.target
        valid = valid_steps(batch.length, batch.x.shape[1]) if self.stepwise else None
        steps = jnp.float32(batch.x.shape[1] if self.stepwise else 1)
        steps = jnp.broadcast_to(steps, (len(batch),)) if valid is None else jnp.maximum(valid.sum(-1), 1)
        if self.target_classes:
            hot = jax.nn.one_hot(target, self.target_classes)
            loss = over_steps(-(jax.nn.log_softmax(outputs) * hot).sum(-1), batch.length)
            right = over_steps((outputs.argmax(-1) == target).astype(jnp.float32), batch.length)
            return {"loss": loss, "cross_entropy": loss / steps, "accuracy": right / steps}
        target = jnp.asarray(target, jnp.float32)
        present = None if valid is None else jnp.broadcast_to(valid[..., None], outputs.shape)
        if batch.target_observed is not None:
            present = batch.target_observed if present is None else present & batch.target_observed
            target = jnp.where(batch.target_observed, target, 0.0)
        weight = jnp.ones_like(outputs) if present is None else present.astype(outputs.dtype)
        over = tuple(range(1, outputs.ndim))
        if self.objective == "cross_entropy":
            loss = ((jnp.logaddexp(outputs, 0.0) - target * outputs) * weight).sum(over)
            return {"loss": loss, "cross_entropy": loss / steps}
        number = jnp.maximum(weight.sum(over), 1)
        errors = {
            "mse": (jnp.square(outputs - target) * weight).sum(over) / number,
            "mae": (jnp.abs(outputs - target) * weight).sum(over) / number,
        }
        return {"loss": errors["mae" if self.objective == "mae" else "mse"], **errors}

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean over the batch."""
        del clock
        outputs = self.predict(params, batch, key)
        scores = {name: value.mean() for name, value in self.scores(outputs, batch).items()}
        return scores.pop("loss"), scores

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Loss and metrics of every example."""
        del keys  # nothing is drawn
        return self.scores(self.predict(params, batch), batch)
