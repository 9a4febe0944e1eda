"""A small classifier of the training rows whose features compare samples of images and vectors with real rows."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples, Facts
from research.evaluation.judge import Judge, fit, subset
from research.evaluation.subject import BATCH
from research.networks.dense import DenseStack
from research.ranges import Size
from research.runs import batches
from research.tree import build, from_data, spec

SEED = 0  # the same for every run: of the classifier and of which rows are taken
HIDDEN = 128  # units of the layer below the features
JUDGE = Judge(units=64, steps=2000, rate=1e-3, batch=128)  # the same for every data set


@spec
class Classifier:
    """Classes of flattened rows by two hidden layers: f = relu(A relu(B x' + b) + a), logits W f + c.

    x' is x less its mean over the training rows, over the root of its features' mean variance there, so that the unit
    of the data does not matter.

    Attributes:
      hidden: units of the first hidden layer.
      units: units of the second hidden layer, the features f.
      classes: number of classes, from the data.
    """

    hidden: Size
    units: Size
    classes: int = from_data(0)

    def bind(self, facts: Facts) -> "Classifier":
        """The classifier of these data."""
        return dataclasses.replace(self, classes=facts.classes)

    def _stack(self, hidden_dims: tuple[int, ...], outputs: int) -> DenseStack:
        return DenseStack(hidden_dims, outputs, "relu")

    def init(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters, and the moments of the training rows."""
        x = jnp.asarray(train.x).reshape(len(train), -1)
        body_key, head_key = jax.random.split(key)
        spread = jnp.sqrt(x.var(0).mean())
        return {
            "shift": x.mean(0),
            "scale": 1 / jnp.where(spread > 0, spread, 1.0),
            "body": self._stack((self.hidden,), self.units).init(body_key, x[:1])["params"],
            "head": self._stack((), self.classes).init(head_key, jnp.zeros((1, self.units)))["params"],
        }

    def features(self, params: Any, x: Float[Array, "B ..."]) -> Float[Array, "B units"]:
        """f of rows [B, ...]."""
        shift, scale = jax.lax.stop_gradient((params["shift"], params["scale"]))  # moments are not trained
        x = (x.reshape(x.shape[0], -1) - shift[None]) * scale
        return jax.nn.relu(self._stack((self.hidden,), self.units).apply({"params": params["body"]}, x))  # type: ignore

    def _scores(self, params: Any, batch: Examples) -> dict[str, Float[Array, " B"]]:
        logits: Any = self._stack((), self.classes).apply({"params": params["head"]}, self.features(params, batch.x))
        label: Int[Array, " B"] = jnp.asarray(batch.label)
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        return {"loss": loss, "accuracy": (logits.argmax(-1) == label).astype(jnp.float32)}

    def loss(
        self, params: Any, batch: Examples, key: Key[Array, ""], clock: Clock
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy in nats, mean over the batch."""
        del key, clock
        return self._scores(params, batch)["loss"].mean(), {}

    def evaluate(self, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Cross-entropy in nats, and 1 for a right answer, of every example."""
        del keys  # nothing is drawn
        return self._scores(params, batch)


@jax.jit
def _features(model: Classifier, params: Any, x: jax.Array) -> jax.Array:
    return model.features(params, x)


class Referee(NamedTuple):
    """What all runs on some data share.

    Attributes:
      model, params: the trained classifier.
      accuracy: on the test rows.
      real: features of test rows, [N, 64].
    """

    model: Classifier
    params: Any
    accuracy: float
    real: np.ndarray

    def features(self, x: np.ndarray) -> np.ndarray:
        """Features [N, 64] of rows [N, ...]."""
        return batches.over(lambda batch, _: _features(self.model, self.params, batch), x, BATCH)


def referee(train: Examples, test: Examples, facts: Facts, size: int) -> Referee:
    """Train the classifier on the training rows and their labels; take the features of `size` test rows."""
    model = build({"hidden": HIDDEN, "units": JUDGE.units}, Classifier).bind(facts)
    train, test = (Examples(x=np.asarray(part.x), label=np.asarray(part.label)) for part in (train, test))
    params = fit(model, train, JUDGE, SEED)
    keys = jax.random.split(jax.random.key(SEED), BATCH)  # nothing is drawn
    right = batches.over(lambda batch, _: batches.evaluate(model, params, batch, keys)["accuracy"], test, BATCH)
    trained = Referee(model, params, float(right.mean()), np.zeros(0))
    return trained._replace(real=trained.features(subset(test.x, size, SEED)))
