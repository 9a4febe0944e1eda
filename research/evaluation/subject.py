"""The input of an evaluation (`Subject`) and its output (`Findings`)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from research.data.examples import Examples, Facts
from research.evaluation.recipe import Evaluation
from research.runs import batches

BATCH = 256  # rows of a batch


@dataclasses.dataclass
class Findings:
    """What an evaluation found.

    Attributes:
      metrics: name -> value, or None for a metric that was asked for but does not exist.
      null_reasons: name -> why that metric is None.
      pictures: name -> [H, W, 3] uint8.
      curves: name -> values [n] that TensorBoard shows over their index.
      codes: codes of the test rows for the projector, [N, L], or None.
      labels: classes of these rows, [N], by name where the data have names; or None.
      centres: centres of the clusters of these codes, [K, L], or None.
      sprite: pictures of these rows in one square grid, and height and width of a picture; or None.
    """

    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    null_reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    curves: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    codes: np.ndarray | None = None
    labels: np.ndarray | None = None
    centres: np.ndarray | None = None
    sprite: tuple[np.ndarray, int, int] | None = None

    def add(self, metrics: Mapping[str, float], prefix: str = "") -> None:
        """Add metrics; a value that is not finite becomes None with a reason."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self.metrics[prefix + name] = value
            else:
                self.refuse("not a number" if math.isnan(value) else "infinite", prefix + name)

    def refuse(self, reason: str, *names: str) -> None:
        """Record that metrics which were asked for do not exist, and why."""
        self.metrics |= dict.fromkeys(names)
        self.null_reasons |= dict.fromkeys(names, reason)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model and the data that it is judged on.

    Attributes:
      model, params: the model and its kept parameters.
      parts: `train`, `validation` and `test` rows as models see them, without wrapping or padding.
      recipe: what is to be computed.
      facts: of the data.
      key: of all draws.
      seed: of the job, for fresh parameters and for networks that are trained after the model.
      shift, scale: raw value = value / scale + shift; () or of the last axes of x.
      shared: results that depend on the data alone, kept from one run to the next (`once`); one dict for a sweep.
      data_key: identifies the rows (content, split, fold); None shares nothing.
      redraws: further binarisations of the test rows.
      metrics: metrics that the training computed on the parts.
      target_scale: like `scale`, for a target of values.
      binary: True if the rows are drawn as 0 and 1, which have no other units.
      columns, classes: names of the channels and of the classes; None where the data have none.
    """

    model: Any
    params: Any
    parts: Mapping[str, Examples]
    recipe: Evaluation
    facts: Facts
    key: jax.Array
    seed: int = 0
    shift: Any = 0.0
    scale: Any = 1.0
    shared: dict[Hashable, Any] = dataclasses.field(default_factory=dict)
    data_key: Hashable = None
    redraws: Iterable[Examples] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    target_scale: Any = 1.0
    binary: bool = False
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None

    @property
    def train(self) -> Examples:
        return self.parts["train"]

    @property
    def test(self) -> Examples:
        return self.parts["test"]

    @functools.cached_property
    def _codes(self) -> dict[str, np.ndarray]:
        return {}

    def codes(self, part: str) -> np.ndarray:
        """Codes of all rows of a part, [N, L]."""
        if part not in self._codes:
            self._codes[part] = self.call("encode", self.parts[part])
        return self._codes[part]

    def call(self, ability: str, rows: Examples) -> Any:
        """What the model says of all rows by an ability that draws nothing, such as `posterior`."""
        return batches.over(lambda batch, _: batches.call(self.model, self.params, batch, ability), rows, BATCH)

    def evaluate(self, rows: Examples, key: jax.Array) -> dict[str, np.ndarray]:
        """The model's own metrics of every row; a draw depends on the key and on the number of the row."""
        function = lambda batch, numbers: batches.evaluate(
            self.model, self.params, batch, batches.row_keys(key, numbers)
        )
        return batches.over(function, rows, BATCH)

    def once(self, name: Hashable, compute: Callable[[], Any]) -> Any:
        """A result that is computed once for all runs on these rows; `name` has all else that it depends on."""
        if self.data_key is None:
            return compute()
        if (self.data_key, name) not in self.shared:
            self.shared[self.data_key, name] = compute()
        return self.shared[self.data_key, name]
