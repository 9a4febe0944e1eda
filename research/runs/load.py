"""A finished run as an object: encode, decode, reconstruct, sample, score, forecast and predict rows as stored."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import engine, tree
from research.data.examples import Examples, Facts, prepare
from research.data.new_rows import class_numbers, ordered, stored_rows
from research.data.preparation import SCALING, Preparation
from research.data.values import as_numbers, is_table, whole_number
from research.distributions import Forecast
from research.models.abilities import Binds, Forecasts, Predicts, able, is_conditional, lack, latent_dim_of, takes_masks
from research.runs import batches
from research.runs.folder import RunFolder
from research.tree import ConfigError

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with the preparation of its rows; every method takes and returns rows as stored.

    Rows are an array [N, *stored_shape], a pandas table with the columns of training in any order, or a list of
    sequences of unequal length. NaN, and what a masked array masks, is a missing value where the model takes masks, and
    is refused elsewhere. Beside the rows may stand `lengths` [N], `observed` (of the shape of x), `label` [N], classes
    as stored, and, for `score`, `target`. Rows pass through one compiled program in batches of 256, prepared as in
    training (`research.data.preparation`).

    Attributes:
      folder: where the run lies.
      model: its spec.
      params: nested dict of arrays.
      preparation: how stored rows become what the model sees.
      config: the typed tree (`model`, `data`, `optimizer`, `trainer`, `seed`) as plain values.
      result: what `result.json` holds (status, metrics, ...), or an empty dict.
      facts: of the training data as models see them, where the run recorded them.
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
        """Shape of one example as the model sees it, where the run recorded it."""
        return None if self.facts is None else self.facts.feature_shape

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, in the order of `predict`; None where they are numbers from 0."""
        return self.preparation.classes

    def encode(self, x: Any, **beside: Any) -> np.ndarray:
        """Codes (posterior means) of rows, [N, L]."""
        return self._over("encode", self.rows(x, **beside))

    def decode(self, z: Any, label: Any = None) -> np.ndarray:
        """E[x | z] of codes [N, L] as stored, [N, *stored_shape]; z-scored series stay z-scored."""
        self._need("decode")
        z = as_numbers("z", z).astype(np.float32)
        latent_dim = latent_dim_of(self.model)
        if z.ndim != 2 or (latent_dim is not None and z.shape[1] != latent_dim):
            raise ConfigError("z", z.shape, f"expected codes of shape [N, {latent_dim or 'L'}]")
        if not np.isfinite(z).all():
            raise ConfigError("z", "not finite", "expected finite codes")
        rows = (z, self._label(label, len(z)))
        decoded = batches.over(lambda batch, _: batches.decode(self.model, self.params, *batch), rows, BATCH)
        return self.preparation.restore(self.preparation.raw(decoded))

    def reconstruct(self, x: Any, **beside: Any) -> np.ndarray:
        """E[x | code of x] as stored, [N, *stored_shape]."""
        rows = self.rows(x, **beside)
        return self.preparation.restore(self.preparation.raw(self._over("reconstruct", rows)), rows)

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
          seed: of random draws inside the loss; None has the draws of the training's own evaluation.
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
        seed = None if seed is None else whole_number("seed", seed, 0)
        own = engine.purpose_key(self.config.get("seed", 0), engine.EVALUATE)
        key = own if seed is None else jax.random.key(seed)

        def function(batch: tuple[Examples, np.ndarray], _: np.ndarray) -> Any:
            return batches.evaluate(self.model, self.params, batch[0], batches.row_keys(key, batch[1]))["loss"]

        return batches.over(function, (rows, numbers.astype(np.int32)), BATCH)

    def score_steps(self, x: Any, **beside: Any) -> np.ndarray:
        """Squared error of the reconstruction of every row and time step, mean over channels, [N, T]; scaled units.

        Steps that are padding or not observed at all are NaN.
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
        """Distribution of the next steps of windows [N, T, C] as stored, [N, H, C]."""
        found = self._over("forecast", self.rows(x, **beside))
        scale, raw = self.preparation.target_scale, self.preparation.raw_target
        quantiles = None
        if found.quantiles is not None:
            quantiles = np.moveaxis(raw(np.moveaxis(np.asarray(found.quantiles), -1, 0)), 0, -1)
        deviation = None if found.deviation is None else found.deviation / scale
        return Forecast(raw(found.mean), raw(found.median), deviation, quantiles)

    def predict(self, x: Any, **beside: Any) -> np.ndarray:
        """What a predictor says of rows: probabilities of `classes`, probabilities of values in {0, 1}, or values.

        Of a prediction at every step, what comes after the length of a row says nothing.
        """
        outputs = np.asarray(self._over("predict", self.rows(x, **beside)), np.float64)
        if self.model.target_classes:
            odds = np.exp(outputs - outputs.max(-1, keepdims=True))
            return odds / odds.sum(-1, keepdims=True)
        if self.model.objective == "cross_entropy":
            return 1 / (1 + np.exp(-outputs))
        return self.preparation.raw_target(outputs)

    def start(self, rows: int) -> Any:
        """The state of a recurrent encoder before the first step of `rows` sequences; for `step`.

        It can be kept between calls for as long as a sequence goes on, and is made anew for another one.
        """
        self._need("step")
        return self.model.start(whole_number("rows", rows, 1))

    def step(self, state: Any, x: Any, label: Any = None) -> tuple[Any, np.ndarray]:
        """Feed one raw time step [N, C] of every sequence: the state after it, and codes [N, L] of all steps so far.

        Equal to `encode` of the sequence so far; a predictor gives its linear outputs.
        """
        self._need("step")
        preparation = self.preparation
        if preparation.zscore or preparation.permutation_seed is not None:
            remedy = "steps of such rows cannot be prepared one by one; give whole rows to encode"
            key = "data.zscore" if preparation.zscore else "data.permutation_seed"
            raise ConfigError(key, preparation.zscore or preparation.permutation_seed, remedy)
        x = as_numbers("x", ordered(preparation, x) if is_table(x) else x)
        if self.feature_shape is not None and x.shape[1:] != self.feature_shape[1:]:
            raise ConfigError("x", x.shape, f"expected one step [N, {self.feature_shape[-1]}]")
        rows = next((leaf.shape[0] for leaf in jax.tree.leaves(state) if np.ndim(leaf)), len(x))
        if len(x) != rows:
            raise ConfigError("x", x.shape, f"the state is of {rows} sequences; give one step of each, or start anew")
        if not np.isfinite(x).all():
            raise ConfigError("x", x.shape, "a value that is not finite would stay in the state; fill it first")
        seen = prepare(Examples(x=x), preparation.shift, preparation.scale).x
        state, codes = _step(self.model, self.params, state, seen, self._label(label, len(x)))
        return state, np.asarray(codes)

    def rows(self, x: Any, **beside: Any) -> Examples:
        """Rows as stored, checked against those of training; see `research.data.new_rows.stored_rows`."""
        masks = takes_masks(self.model)
        shape, classes = (None, 0) if self.facts is None else (self.facts.target_shape, self.facts.target_classes)
        rows = stored_rows(self.preparation, x, takes_masks=masks, target_shape=shape, target_classes=classes, **beside)
        if rows.label is None:
            self._label(None, len(rows))
        return rows

    # --------------------------------------------------------------------------------------------------- inside

    def _need(self, ability: str) -> None:
        if why := lack(self.model, ability):
            raise ConfigError("folder", self.folder, f"a {type(self.model).__name__} cannot {ability}; {why}")

    def _need_target(self, rows: Examples) -> None:
        """Refuse to score a prediction of rows that are given without what is to be predicted."""
        if self.facts is None or not (able(self.model, Predicts) or able(self.model, Forecasts)):
            return
        key = "label" if self.facts.target_shape is None else "target"
        if getattr(rows, key) is None:
            raise ConfigError(key, None, f"the score compares a prediction with what was to come; give {key}=[...]")

    def _label(self, label: Any, rows: int) -> np.ndarray | None:
        """Classes as numbers, [N] int32; a conditional model needs them."""
        if label is None:
            if is_conditional(self.model):
                raise ConfigError("label", None, "this model is conditional: give the class of each row as label")
            return None
        numbers = class_numbers(self.preparation, label)
        if numbers.shape != (rows,):
            raise ConfigError("label", numbers.shape, f"expected one class for each of {rows} rows")
        return numbers

    def _prepared(self, stored: Examples) -> Examples:
        """Rows as the model sees them."""
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


@jax.jit
def _step(model: Any, params: Any, state: Any, x: Any, label: Any) -> Any:
    return model.step(params, state, x, label)


def load(folder: Path | str, trusted_packages: Sequence[str] = ()) -> Run:
    """Load a finished run for use.

    The model is built again from the run's `config.json`, whose hash is checked. Only classes of this project are made,
    and of the packages that the caller trusts: what the folder says about trust is not heard. Nothing is unpickled.

    >>> run = load("outputs/example/run")
    >>> codes = run.encode(x)  # x: raw rows, as stored
    >>> codes.shape
    (5, 2)
    >>> run.decode(codes).shape == run.reconstruct(x).shape == x.shape
    True
    >>> run.score(x).shape
    (5,)

    Args:
      folder: of one run (it holds `config.json` and `params.safetensors`).
      trusted_packages: packages whose specs and modules may be named besides those of this project.

    Raises:
      ConfigError: no run is there, its config was changed after training, it names a class that is not trusted, or it
        kept no parameters (a diverged run).
    """
    files = RunFolder(folder)
    record = files.read_config()
    config = record.get("config")
    if not isinstance(config, dict) or "model" not in config:
        raise ConfigError("folder", folder, "its config.json describes no model")
    if tree.config_hash(config) != record.get("config_hash"):
        remedy = "its config.json was changed after training (the hash differs); restore it, or train this config anew"
        raise ConfigError("folder", folder, remedy)
    result = files.read_result() or {}
    if result.get("config_hash", record["config_hash"]) != record["config_hash"]:
        raise ConfigError("folder", folder, "its result.json belongs to another run; restore it")
    files.check_seal(files.config)  # the facts and the preparation in config.json are not hashed otherwise
    model = tree.build(config["model"], trusted=trusted_packages, key="model")
    try:
        facts = None if record.get("facts") is None else _facts(record["facts"])
        if facts is not None and isinstance(model, Binds):
            model = model.bind(facts)
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # not hashed, since they follow from the data
        raise ConfigError("folder", folder, f"the facts in its config.json are damaged ({error}); restore it") from None
    params, scaling = files.load_parameters()
    try:
        preparation = _preparation(record, facts, config.get("data") or {}, scaling)
        _check_names(preparation)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        damaged = f"the preparation of rows in its config.json is damaged ({error}); restore it"
        raise ConfigError("folder", folder, damaged) from None
    if record.get("preparation") is not None and (absent := sorted(set(SCALING) - set(scaling))):
        text = f"params.safetensors has no scaling/{absent[0]}; restore it, or train this config anew"
        raise ConfigError("folder", folder, text)
    _check(files.path, model, params, preparation, facts)
    return Run(
        folder=files.path,
        model=model,
        params=params,
        preparation=preparation,
        config=config,
        result=result,
        facts=facts,
    )


def _preparation(record: dict[str, Any], facts: Facts | None, data: dict[str, Any], scaling: Any) -> Preparation:
    """What `config.json` and the scaling say of the rows; of an older run, what its data keys say."""
    known = record.get("preparation")
    if known is None:
        known = {name: data[name] for name in ("layout", "permutation_seed", "zscore") if data.get(name) is not None}
        known |= {"split_seed": data.get("split_seed", 0), "keeps_names": False}
        if facts is not None:
            plain = known.get("layout", "image") == "image"
            known |= {"kind": facts.kind, "class_count": facts.classes, "masked": True}
            known |= {"stored_shape": facts.feature_shape} if plain else {}
    if not isinstance(known, dict):
        raise TypeError(f"it is {known!r:.40}")
    return Preparation.from_record(known, scaling)


def _check_names(preparation: Preparation) -> None:
    """Refuse names of columns and classes that cannot be those of the rows.

    Raises:
      ValueError: saying which.
    """
    shape, columns, classes = preparation.stored_shape, preparation.columns, preparation.classes
    if shape is not None and not all(isinstance(size, int) for size in shape):
        raise ValueError(f"stored_shape is {shape}")
    if columns is not None and shape and (len(columns) != shape[-1] or len(set(columns)) != len(columns)):
        raise ValueError(f"{len(columns)} columns of rows of shape {shape}")
    if classes is not None and (len(classes) != preparation.class_count or len(set(classes)) != len(classes)):
        raise ValueError(f"{len(classes)} names of {preparation.class_count} classes")


def check_parameters(params: Any, wanted: Any) -> str | None:
    """What is wrong with parameters that should have the names, shapes and types of `wanted`, or None.

    Args:
      params: a tree of arrays.
      wanted: a tree of arrays or of their shapes and types; None checks that all numbers are finite only.
    """
    named = lambda tree: {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    have = named(params)
    want = have if wanted is None else named(wanted)
    for name in sorted({*have, *want}):
        given, needed = (
            f"shape {leaf.shape} of {leaf.dtype}" if leaf is not None else "nothing"
            for leaf in (have.get(name), want.get(name))
        )
        if given != needed:
            return f"its parameter {name} has {given}, this model needs {needed}"
    broken = [name for name, leaf in have.items() if leaf.dtype.kind == "f" and not np.isfinite(leaf).all()]
    return f"its parameter {broken[0]} is not finite" if broken else None


def _check(folder: Path, model: Any, params: Any, preparation: Preparation, facts: Facts | None) -> None:
    """Refuse parameters and scalings that no training of this model can have left.

    Raises:
      ConfigError: naming the parameter.
    """
    problem = check_parameters(params, _wanted(model, facts))
    if problem is not None:
        raise ConfigError("folder", folder, f"{problem}; restore params.safetensors, or train this config anew")
    for name, value in preparation.scaling().items():
        if not np.isfinite(value).all() or (name.endswith("scale") and (value <= 0).any()):
            raise ConfigError("folder", folder, f"its scaling/{name} is damaged; restore params.safetensors")
        values = facts is not None and not (name.startswith("target") and facts.target_classes)
        shape = (facts.target_shape if name.startswith("target") else facts.feature_shape) if facts and values else None
        if shape is not None and value.ndim and value.shape != tuple(shape)[len(shape) - value.ndim :]:
            remedy = f"its scaling/{name} has shape {value.shape}, and the rows have {tuple(shape)}"
            raise ConfigError("folder", folder, f"{remedy}; restore params.safetensors")


def _wanted(model: Any, facts: Facts | None) -> Any:
    """Parameters of a bound model as shapes and types; None where the facts do not say what rows look like."""
    if facts is None or not isinstance(model, engine.Model):
        return None
    rows = 2
    x = np.zeros((rows, *facts.feature_shape), np.float32)
    target = None
    if facts.target_shape is not None:
        target = np.zeros((rows, *facts.target_shape), np.int32 if facts.target_classes else np.float32)
    label = np.zeros(rows, np.int32) if facts.classes else None
    return jax.eval_shape(model.init, jax.random.key(0), Examples(x=x, target=target, label=label))


def _facts(record: dict[str, Any]) -> Facts:
    """The facts of the training data as `config.json` holds them, whatever else is written beside them."""
    known: dict[str, Any] = {
        field.name: record[field.name] for field in dataclasses.fields(Facts) if field.name in record
    }
    for name in ("feature_shape", "target_shape"):
        known[name] = None if known.get(name) is None else tuple(known[name])
    return Facts(**known)
