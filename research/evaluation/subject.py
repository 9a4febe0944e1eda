"""What is evaluated, what is found, and what runs on one data set share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from research.data.examples import Examples, Facts
from research.evaluation.recipe import Evaluation
from research.models.abilities import Decodes, Encodes, able
from research.runs import batches

BATCH = 256


@dataclasses.dataclass
class Findings:
    """What an evaluation found.

    Attributes:
      metrics: name -> value, or None where it was asked for but there is none; `null_reasons` says why.
      pictures: name -> [H, W, 3] uint8.
      curves: name -> values [n] that TensorBoard shows over their index.
      codes: of the test rows for the projector, [N, L], or None.
      labels: of these rows, [N], or None.
      centres: of the clusters of these codes, [K, L], or None.
      sprite: pictures of these rows in one square grid, with height and width of one; or None.
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
        """Add metrics; those that are not finite become None with a reason."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self.metrics[prefix + name] = value
            else:
                self.refuse("not a number" if math.isnan(value) else "infinite", prefix + name)

    def refuse(self, reason: str, *names: str) -> None:
        """Say why metrics that were asked for are absent."""
        self.metrics |= dict.fromkeys(names)
        self.null_reasons |= dict.fromkeys(names, reason)


class Shared:
    """What depends on the data alone, computed once for all runs on them; one object for a sweep."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, or what it returned when the key was new; None as a key shares nothing."""
        if key is None:
            return make()
        if key not in self._found:
            self._found[key] = make()
        return self._found[key]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model with the data that it is judged on.

    Attributes:
      model, params: the model and its kept parameters.
      parts: `train`, `validation` and `test` rows as models see them, without wrapping or padding.
      recipe: what is to be computed.
      facts: of the data.
      key: of all draws.
      seed: of the job, for fresh parameters and networks that are trained afterwards.
      shift, scale: raw value = value / scale + shift, () or of the last axes of x.
      shared: kept from one run to the next.
      data_key: names the rows (content, division, fold); None shares nothing.
      redraws: further binarisations of the test rows.
      metrics: what training found on the rows of the parts.
      target_scale: as scale, of a target of values.
      binary: the rows are drawn as 0 and 1, which have no other units.
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
    shared: Shared = dataclasses.field(default_factory=Shared)
    data_key: Hashable = None
    redraws: Iterable[Examples] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    target_scale: Any = 1.0
    binary: bool = False

    @property
    def train(self) -> Examples:
        return self.parts["train"]

    @property
    def test(self) -> Examples:
        return self.parts["test"]

    @property
    def reconstructs(self) -> bool:
        """Whether the model has codes that stand for the whole example."""
        return able(self.model, Encodes) and able(self.model, Decodes)

    @functools.cached_property
    def _codes(self) -> dict[str, np.ndarray]:
        return {}

    def codes(self, part: str) -> np.ndarray:
        """Codes of all rows of a part, [N, L]."""
        if part not in self._codes:
            function = lambda batch, _: batches.call(self.model, self.params, batch, "encode")
            self._codes[part] = batches.over(function, self.parts[part], BATCH)
        return self._codes[part]

    def once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, computed once for all runs on these rows; `what` names it and everything else it depends on."""
        return self.shared.once(None if self.data_key is None else (self.data_key, what), make)
