"""A finished run as an object: encode, decode, reconstruct, sample, score, forecast and predict rows as stored."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.compiling import compiled
from research.data.examples import Examples, Facts, prepare
from research.data.new_rows import as_numbers, class_numbers, is_table, ordered, stored_rows, whole_number
from research.data.preparation import Preparation
from research.data.scaling import are_counts
from research.distributions import Forecast
from research.inputs import EVALUATE, purpose_key
from research.models.abilities import (
    Forecasts,
    Predicts,
    able,
    codes_of_steps,
    is_conditional,
    lack,
    latent_dim_of,
    models_counts,
    takes_masks,
)
from research.runs import batches
from research.tree import ConfigError

BATCH = 256  # rows of a batch


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with the preparation of its rows; every method takes and returns rows as stored.

    Rows are an array [N, *stored_shape], a pandas table with the columns of training in any order, or a list of
    sequences of unequal length. NaN, and a value that a masked array masks, is a missing value if the model takes
    masks, and is refused otherwise. Beside the rows, methods take `lengths` [N], `observed` (of the shape of x),
    `label` [N] (classes as stored) and, for `score`, `target`. A forecaster may need `known`, `times` and `static`
    (covariates), and `series` (names). Rows are prepared as in training (`research.data.preparation`) and pass through
    one compiled program in batches of 256.

    Attributes:
      folder: where the run lies.
      model: the spec of the model.
      params: nested dict of arrays.
      preparation: how stored rows become rows as the model sees them.
      config: the typed tree (`model`, `data`, `optimizer`, `trainer`, `seed`) as plain values.
      result: the content of `result.json` (status, metrics, ...), or an empty dict.
      facts: the facts of the training data, if the run recorded them.
    """

    folder: Path
    model: Any
    params: dict[str, Any]
    preparation: Preparation
    config: dict[str, Any]
    result: dict[str, Any]
    facts: Facts | None

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """Shape of one example as the model sees it, or None if the run did not record it."""
        return None if self.facts is None else self.facts.feature_shape

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of `predict`; None if they are numbers from 0."""
        return self.preparation.classes

    def encode(self, x: Any, **beside: Any) -> np.ndarray:
        """Codes of rows (posterior means of a VAE), [N, L]."""
        return self._over("encode", self.rows(x, **beside))

    def decode(self, z: Any, label: Any = None) -> np.ndarray:
        """E[x | z] of codes [N, L] as stored, [N, *stored_shape]; z-scored series stay z-scored.

        A model with a code at every time step takes codes [N, T, L].
        """
        self._need("decode")
        z = as_numbers("z", z).astype(np.float32)
        steps, size = codes_of_steps(self.model), latent_dim_of(self.model)
        shape = (size or z.shape[-1],) if steps is None else (steps, size)
        if z.ndim != 1 + len(shape) or z.shape[1:] != shape:
            expected = [*(() if steps is None else (steps,)), size or "L"]
            remedy = "" if steps is None else "; run.encode gives their summary, so call run.reconstruct(x)"
            raise ConfigError("z", z.shape, f"expected codes of shape [N, {', '.join(map(str, expected))}]{remedy}")
        if not np.isfinite(z).all():
            raise ConfigError("z", "not finite", "expected finite codes")
        rows = (z, self._label(label, len(z)))
        decoded = batches.over(lambda batch, _: batches.decode(self.model, self.params, *batch), rows, BATCH)
        return self.preparation.restore(self.preparation.raw(decoded))

    def reconstruct(self, x: Any, **beside: Any) -> np.ndarray:
        """E[x | code of x] as stored, [N, *stored_shape]."""
        rows = self.rows(x, **beside)
        return self.preparation.restore(self.preparation.raw(self._over("reconstruct", rows)), rows)

    def impute(self, x: Any, **beside: Any) -> np.ndarray:
        """Rows as stored in which missing values are those of the reconstruction, [N, *stored_shape].

        Observed values, and padding behind the end of a row, stay as they are. A run imputes well if it was trained to,
        with `data.hide_train`.

        Args:
          x: rows with NaN for missing values, or `observed` beside them.
          beside: `lengths`, `observed`, `label`.
        """
        self._need("reconstruct")
        if not takes_masks(self.model):
            problem = f"a {type(self.model).__name__} that does not read masks cannot impute"
            remedy = "train model=recurrent_ae, or a dense model with model.reads_mask=true, with data.hide_train=0.2"
            raise ConfigError("folder", self.folder, f"{problem}; {remedy}")
        rows = self.rows(x, **beside)
        values = np.asarray(rows.x)
        if rows.observed is None:
            return values.copy()
        missing = ~np.asarray(rows.observed)
        if rows.length is not None:
            inside = np.arange(values.shape[1]) < np.asarray(rows.length)[:, None]
            missing &= inside.reshape(inside.shape + (1,) * (values.ndim - 2))
        filled = self.preparation.restore(self.preparation.raw(self._over("reconstruct", rows)), rows)
        return np.where(missing, filled, values)

    def sample(self, number: int, seed: int = 0, label: Any = None) -> np.ndarray:
        """Draws from the model as stored, [number, *stored_shape]; label [number] for a conditional model."""
        self._need("sample")
        number = whole_number("number", number, 1)
        label = self._label(label, number)
        drawn = np.asarray(batches.sample(self.model, self.params, jax.random.key(seed), number, label))
        return self.preparation.restore(self.preparation.raw(drawn))

    def score(self, x: Any, *, seed: int | None = None, numbers: Any = None, **beside: Any) -> np.ndarray:
        """The loss of every row as at evaluation, [N], in the units of the loss (nats for a likelihood).

        Args:
          x: rows.
          seed: of random draws inside the loss; None repeats the draws of the evaluation after training.
          numbers: row numbers in the data set, on which the draws depend, [N]; None counts from 0.
          beside: `lengths`, `observed`, `label`, `target`.
        """
        self._need("evaluate")
        rows = self._prepared(self.rows(x, **beside))
        self._need_target(rows)
        numbers = np.arange(len(rows)) if numbers is None else np.asarray(numbers)
        if numbers.shape != (len(rows),) or numbers.dtype.kind not in "iu":
            raise ConfigError("numbers", numbers.shape, f"expected a whole number for each of {len(rows)} rows")
        for number in (numbers.min(), numbers.max()):
            whole_number("numbers", number, 0)
        if seed is None:
            key = purpose_key(self.config.get("seed", 0), EVALUATE)
        else:
            key = jax.random.key(whole_number("seed", seed, 0))

        def function(batch: tuple[Examples, np.ndarray], _: np.ndarray) -> Any:
            return batches.evaluate(self.model, self.params, batch[0], batches.row_keys(key, batch[1]))["loss"]

        return batches.over(function, (rows, numbers.astype(np.int32)), BATCH)

    def score_steps(self, x: Any, **beside: Any) -> np.ndarray:
        """Squared error of the reconstruction of every row and time step, mean over channels, [N, T], in scaled units.

        A step is NaN if it is padding or if nothing of it is observed.
        """
        stored = self.rows(x, **beside)
        examples = self._prepared(stored)
        if np.ndim(examples.x) != 3:
            raise ConfigError("x", np.shape(examples.x), "expected sequences [N, T, C]")
        error = np.square(np.asarray(examples.x) - self._over("reconstruct", stored))
        mask = np.ones(error.shape, bool) if examples.mask is None else np.asarray(examples.mask)
        count = mask.sum(-1)
        total = np.where(mask, error, 0).sum(-1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def forecast(self, x: Any, **beside: Any) -> Forecast:
        """Distribution of the next steps of windows [N, T, C], as stored, [N, H, C]."""
        rows = self.rows(x, **beside)
        scaled = self._over("forecast", rows)
        shift, scale = rows.units(self.preparation.target_shift, self.preparation.target_scale)
        raw = lambda y: np.asarray(y, np.float64) / scale + shift
        quantiles = None
        if scaled.quantiles is not None:
            quantiles = np.moveaxis(raw(np.moveaxis(np.asarray(scaled.quantiles), -1, 0)), 0, -1)
        deviation = None if scaled.deviation is None else scaled.deviation / scale
        return Forecast(raw(scaled.mean), raw(scaled.median), deviation, quantiles)

    def predict(self, x: Any, **beside: Any) -> np.ndarray:
        """Predictions of rows: probabilities of `classes`, probabilities of values in {0, 1}, or values.

        If there is a prediction at every step, those after the length of a row mean nothing.
        """
        outputs = np.asarray(self._over("predict", self.rows(x, **beside)), np.float64)
        if self.model.target_classes:
            odds = np.exp(outputs - outputs.max(-1, keepdims=True))
            return odds / odds.sum(-1, keepdims=True)
        if self.model.objective == "cross_entropy":
            return 1 / (1 + np.exp(-outputs))
        return self.preparation.raw_target(outputs)

    def start(self, rows: int) -> Any:
        """The state of a recurrent encoder before the first step of `rows` sequences, for `step`.

        Pass it from call to call while the sequences go on, and make a new one for other sequences.
        """
        self._need("step")
        return self.model.start(whole_number("rows", rows, 1))

    def step(self, state: Any, x: Any, label: Any = None) -> tuple[Any, np.ndarray]:
        """Read one raw time step [N, C] of every sequence.

        Returns:
          The state after the step, and the codes [N, L] of all steps so far. They equal `encode` of the sequence so
          far; a predictor gives its linear outputs.
        """
        self._need("step")
        preparation = self.preparation
        if preparation.zscore or preparation.permutation_seed is not None:
            key = "data.zscore" if preparation.zscore else "data.permutation_seed"
            remedy = "steps of such rows cannot be prepared one by one; give whole rows to run.encode"
            raise ConfigError(key, preparation.zscore or preparation.permutation_seed, remedy)
        x = as_numbers("x", ordered(preparation, x) if is_table(x) else x)
        if self.feature_shape is not None and x.shape[1:] != self.feature_shape[1:]:
            raise ConfigError("x", x.shape, f"expected one step [N, {self.feature_shape[-1]}]")
        rows = next((leaf.shape[0] for leaf in jax.tree.leaves(state) if np.ndim(leaf)), len(x))
        if len(x) != rows:
            raise ConfigError("x", x.shape, f"the state is of {rows} sequences; give one step of each, or start anew")
        if not np.isfinite(x).all():
            raise ConfigError("x", x.shape, "a value that is not finite would stay in the state; fill it first")
        self._need_counts(Examples(x=x))
        scaled = prepare(Examples(x=x), preparation.shift, preparation.scale).x
        state, codes = _step(self.model, self.params, state, scaled, self._label(label, len(x)))
        return state, np.asarray(codes)

    def rows(self, x: Any, **beside: Any) -> Examples:
        """Rows as stored, checked against those of training; see `research.data.new_rows.stored_rows`."""
        masks = takes_masks(self.model)
        shape, classes = (None, 0) if self.facts is None else (self.facts.target_shape, self.facts.target_classes)
        rows = stored_rows(self.preparation, x, takes_masks=masks, target_shape=shape, target_classes=classes, **beside)
        if rows.label is None:
            self._label(None, len(rows))
        if not self.preparation.binarize:  # grey rows are drawn as 0 and 1
            self._need_counts(rows)
        return rows

    def lacks_truth(self, rows: Examples) -> str | None:
        """What rows lack to score predictions of them, "label" or "target"; None if nothing is lacking."""
        if self.facts is None or not (able(self.model, Predicts) or able(self.model, Forecasts)):
            return None
        key = "label" if self.facts.target_shape is None else "target"
        return key if getattr(rows, key) is None else None

    # --------------------------------------------------------------------------------------------------- inside

    def _need(self, ability: str) -> None:
        if why := lack(self.model, ability):
            raise ConfigError("folder", self.folder, f"a {type(self.model).__name__} cannot {ability}; {why}")

    def _need_counts(self, rows: Examples) -> None:
        """Refuse other numbers where the model is of counts."""
        if models_counts(self.model) and not are_counts(rows):
            raise ConfigError("x", "not counts", "this run models counts; give whole numbers from 0, not scaled")

    def _need_target(self, rows: Examples) -> None:
        """Refuse to score predictions without what is predicted."""
        if (key := self.lacks_truth(rows)) is not None:
            raise ConfigError(key, None, f"the score compares a prediction with the truth; give {key}=[...]")

    def _label(self, label: Any, rows: int) -> np.ndarray | None:
        """Classes as numbers, [N] int32, or None; a conditional model is refused without them."""
        if label is None:
            if is_conditional(self.model):
                raise ConfigError("label", None, "this model is conditional; give the class of each row as label")
            return None
        numbers = class_numbers(self.preparation, label)
        if numbers.shape != (rows,):
            raise ConfigError("label", numbers.shape, f"expected one class for each of {rows} rows")
        return numbers

    def _prepared(self, stored: Examples) -> Examples:
        """Stored rows as the model sees them."""
        rows = self.preparation.scale_rows(self.preparation.arrange(stored))
        shape = tuple(np.shape(rows.x))
        if self.feature_shape is not None and shape[1:] != self.feature_shape:
            expected = ", ".join(map(str, ("N", *self.feature_shape)))
            raise ConfigError("x", shape, f"expected rows of shape [{expected}], as in training")
        return rows

    def _over(self, ability: str, stored: Examples) -> Any:
        self._need(ability)
        function = lambda batch, _: batches.call(self.model, self.params, batch, ability)
        return batches.over(function, self._prepared(stored), BATCH)


@compiled()
def _step(model: Any, params: Any, state: Any, x: Any, label: Any) -> Any:
    return model.step(params, state, x, label)
