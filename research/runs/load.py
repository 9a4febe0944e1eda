"""A finished run as an object: encode, decode, reconstruct, sample and score new rows on their own scale."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import tree
from research.data.examples import Examples, Facts, prepare
from research.distributions import Forecast
from research.runs import batches
from research.runs.folder import RunFolder
from research.tree import ConfigError

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with its scaling; every method takes and returns raw rows, on the scale of the data as stored.

    Rows are given as an array [N, *feature_shape], or as `Examples` where lengths, masks or labels belong to them. They
    pass through one compiled program in batches of 256.

    Attributes:
      folder: where the run lies.
      model: its spec.
      params: nested dict of arrays.
      shift, scale: models see `(x - shift) * scale`.
      target_shift, target_scale: likewise for a target of values.
      config: the typed tree (`model`, `data`, `optimizer`, `trainer`, `seed`) as plain values.
      result: what `result.json` holds (status, metrics, ...), or an empty dict.
      feature_shape: of one example, where the run recorded it.
    """

    folder: Path
    model: Any
    params: dict[str, Any]
    shift: np.ndarray
    scale: np.ndarray
    target_shift: np.ndarray
    target_scale: np.ndarray
    config: dict[str, Any]
    result: dict[str, Any]
    feature_shape: tuple[int, ...] | None

    def encode(self, x: Any) -> np.ndarray:
        """Codes (posterior means) of raw rows, [N, L]."""
        return self._over("encode", x)

    def decode(self, z: Any, label: Any = None) -> np.ndarray:
        """E[x | z] of codes [N, L] on the raw scale, [N, *feature_shape]."""
        self._need("decode")
        z = np.asarray(z, np.float32)
        latent_dim = getattr(self.model, "latent_dim", None)
        if z.ndim != 2 or (latent_dim is not None and z.shape[1] != latent_dim):
            raise ConfigError("z", z.shape, f"expected codes of shape [N, {latent_dim or 'L'}]")
        rows = (z, None if label is None else np.asarray(label))
        return self._raw(batches.over(lambda batch, _: batches.decode(self.model, self.params, *batch), rows, BATCH))

    def reconstruct(self, x: Any) -> np.ndarray:
        """E[x | code of x] of raw rows, on the raw scale, [N, *feature_shape]."""
        return self._raw(self._over("reconstruct", x))

    def sample(self, number: int, seed: int = 0, label: Any = None) -> np.ndarray:
        """Draws from the model on the raw scale, [number, *feature_shape]; label [number] for a conditional model."""
        self._need("sample")
        label = None if label is None else np.asarray(label)
        return self._raw(np.asarray(batches.sample(self.model, self.params, jax.random.key(seed), number, label)))

    def score(self, x: Any, seed: int = 0) -> np.ndarray:
        """The loss of every raw row as at evaluation, [N], in the units of the loss (nats for a likelihood).

        Random draws inside it depend on the seed and the row number only.
        """
        self._need("evaluate")
        key = jax.random.key(seed)

        def function(batch: Examples, rows: np.ndarray) -> Any:
            return batches.evaluate(self.model, self.params, batch, batches.row_keys(key, rows))["loss"]

        return batches.over(function, self._prepare(x), BATCH)

    def score_steps(self, x: Any) -> np.ndarray:
        """Squared error of the reconstruction of every row and time step, mean over channels, [N, T]; scaled units.

        Steps that are padding or not observed at all are NaN.
        """
        examples = self._prepare(x)
        if np.ndim(examples.x) != 3:
            raise ConfigError("x", np.shape(examples.x), "expected sequences [N, T, C]")
        error = np.square(np.asarray(examples.x) - self._over("reconstruct", x))
        mask = np.ones(error.shape, bool) if examples.mask is None else np.asarray(examples.mask)
        count = mask.sum(-1)
        total = np.where(mask, error, 0).sum(-1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def forecast(self, x: Any) -> Forecast:
        """Distribution of the next steps of raw windows [N, T, C], on the raw scale, [N, H, C]."""
        found = self._over("forecast", x)
        raw = lambda values, scale=self.target_scale, shift=self.target_shift: values / scale + shift
        quantiles = None
        if found.quantiles is not None:
            scale, shift = (np.asarray(part)[..., None] for part in (self.target_scale, self.target_shift))
            quantiles = raw(found.quantiles, scale, shift)
        deviation = None if found.deviation is None else found.deviation / self.target_scale
        return Forecast(raw(found.mean), raw(found.median), deviation, quantiles)

    def predict(self, x: Any) -> np.ndarray:
        """What a predictor says of raw rows: probabilities of classes, probabilities of values in {0, 1}, or values."""
        outputs = np.asarray(self._over("predict", x), np.float64)
        if self.model.target_classes:
            odds = np.exp(outputs - outputs.max(-1, keepdims=True))
            return odds / odds.sum(-1, keepdims=True)
        if self.model.objective == "cross_entropy":
            return 1 / (1 + np.exp(-outputs))
        return outputs / self.target_scale + self.target_shift

    def start(self, rows: int) -> Any:
        """The state of a recurrent encoder before the first step of `rows` sequences; for `step`.

        It can be kept between calls for as long as a sequence goes on, and is made anew for another one.
        """
        self._need("step")
        return self.model.start(rows)

    def step(self, state: Any, x: Any, label: Any = None) -> tuple[Any, np.ndarray]:
        """Feed one raw time step [N, C] of every sequence: the state after it, and codes [N, L] of all steps so far.

        Equal to `encode` of the sequence so far; a predictor gives its linear outputs.
        """
        self._need("step")
        x = np.asarray(x, np.float32)
        if self.feature_shape is not None and x.shape[1:] != self.feature_shape[1:]:
            raise ConfigError("x", x.shape, f"expected one step [N, {self.feature_shape[-1]}]")
        rows = next((leaf.shape[0] for leaf in jax.tree.leaves(state) if np.ndim(leaf)), len(x))
        if len(x) != rows:
            raise ConfigError("x", x.shape, f"the state is of {rows} sequences; give one step of each, or start anew")
        if not np.isfinite(x).all():
            raise ConfigError("x", x.shape, "a value that is not finite would stay in the state; fill it first")
        state, codes = _step(self.model, self.params, state, (x - self.shift) * self.scale, label)
        return state, np.asarray(codes)

    # --------------------------------------------------------------------------------------------------- inside

    def _need(self, ability: str) -> None:
        try:
            getattr(self.model, ability)
        except AttributeError as error:
            why = str(error) if hasattr(type(self.model), ability) else "choose another model"  # abilities by settings
            text = f"a {type(self.model).__name__} cannot {ability}; {why}"
            raise ConfigError("folder", self.folder, text) from None

    def _over(self, ability: str, x: Any) -> Any:
        self._need(ability)
        function = lambda batch, _: batches.call(self.model, self.params, batch, ability)
        return batches.over(function, self._prepare(x), BATCH)

    def _prepare(self, x: Any) -> Examples:
        examples = x if isinstance(x, Examples) else Examples(x=np.asarray(x))
        shape = tuple(np.shape(examples.x))
        if len(shape) < 1 or shape[0] == 0:
            raise ConfigError("x", shape, "expected at least one row")
        if self.feature_shape is not None and shape[1:] != self.feature_shape:
            expected = ", ".join(map(str, ("N", *self.feature_shape)))
            raise ConfigError("x", shape, f"expected rows of shape [{expected}], as in training")
        return prepare(jax.tree.map(np.asarray, examples), self.shift, self.scale, self.target_shift, self.target_scale)

    def _raw(self, x: np.ndarray) -> np.ndarray:
        return x / self.scale + self.shift


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
    model = tree.build(config["model"], trusted=trusted_packages, key="model")
    try:
        facts = None if record.get("facts") is None else _facts(record["facts"])
        if facts is not None and hasattr(model, "bind"):
            model = model.bind(facts)
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # not hashed, since they follow from the data
        raise ConfigError("folder", folder, f"the facts in its config.json are damaged ({error}); restore it") from None
    params, scaling = files.load_parameters()
    return Run(
        folder=files.path,
        model=model,
        params=params,
        shift=scaling.get("shift", np.zeros((), np.float32)),
        scale=scaling.get("scale", np.ones((), np.float32)),
        target_shift=scaling.get("target_shift", np.zeros((), np.float32)),
        target_scale=scaling.get("target_scale", np.ones((), np.float32)),
        config=config,
        result=files.read_result() or {},
        feature_shape=None if facts is None else facts.feature_shape,
    )


def _facts(record: dict[str, Any]) -> Facts:
    """The facts of the training data as `config.json` holds them, whatever else is written beside them."""
    known: dict[str, Any] = {
        field.name: record[field.name] for field in dataclasses.fields(Facts) if field.name in record
    }
    for name in ("feature_shape", "target_shape"):
        known[name] = None if known.get(name) is None else tuple(known[name])
    return Facts(**known)
