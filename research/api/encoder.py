"""`research.Encoder`: a model of this project as a transformer of scikit-learn."""

import tempfile
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from research.api.training import call, quoted, trained
from research.compose import parse
from research.tree import ConfigError

FEWEST = 3  # rows: one each to train, to validate and to test
SEEDS = 2**31 - 1
# What an encoder is without other settings. A user of scikit-learn holds rows back and scores them in their own way.
DEFAULTS = {"model": "dense_ae", "evaluation": "none"}
CHOOSING = {"trainer", "trainer.keep", "trainer.monitor", "trainer.patience", "trainer.target_loss"}
VALIDATION = 0.1  # share of the rows, where they choose the parameters or the end of the training


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learns codes of rows, and rows from codes. Training is silent and never looks at `y`.

    >>> encoder = Encoder("model=vae", "model.latent_dim=4", "model.likelihood=gaussian")
    >>> codes = encoder.fit_transform(x)

    It trains on all rows but two, since a run has a test part and a validation part, and keeps the parameters of the
    last epoch. With `trainer.patience`, `trainer.target_loss`, `trainer.keep` or `trainer.monitor` a tenth of the rows
    are validation rows. An override of `data.test_fraction` or `data.validation_fraction` sets another share, and with
    an `experiment=...` the shares are those of the experiment.

    Args:
      overrides: as of `research.train`; as a parameter of scikit-learn they are one tuple, `overrides=(...)`. Without a
        `model=...` the model is a dense autoencoder.
      name: of the sweep folder, where the same fit is found again; None trains in a temporary folder. Fits on other
        rows need another name, so give none in a cross-validation.
      random_state: None takes `seed` of the overrides (0 by default), a number is the seed, and a `RandomState` draws
        one.

    Attributes:
      run_: the trained run (`research.runs.run.Run`).
      n_features_in_, feature_names_in_: of the rows, as scikit-learn says them.
    """

    def __init__(
        self, *more: str, overrides: tuple[str, ...] = (), name: str | None = None, random_state: Any = None
    ) -> None:
        self.overrides = (*more, *overrides) if more else overrides
        self.name = name
        self.random_state = random_state

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return ["name", "overrides", "random_state"]

    def fit(self, X: Any, y: Any = None) -> "Encoder":
        """Train on rows [N, ...].

        Raises:
          ConfigError: an override or the rows cannot be used; it is a ValueError.
          RuntimeError: the run diverged or failed.
        """
        X = validate_data(self, X, allow_nd=True, ensure_min_samples=FEWEST)
        if isinstance(self.overrides, str):
            raise ConfigError("overrides", self.overrides, f"give a tuple of texts: ({self.overrides!r},)")
        settings = list(self.overrides)
        given = {override.key_or_group for override in parse(settings)}
        if "name" in given:
            raise ConfigError("overrides", "name", "give the name as a parameter of its own: name=...")
        if "output_root" in given and self.name is None:
            raise ConfigError("overrides", "output_root", "without a name the folder is temporary; give name=... too")
        defaults: dict[str, Any] = dict(DEFAULTS)
        if "experiment" not in given:
            one = 1 / (len(X) - 1)
            validation = max(VALIDATION, one) if CHOOSING & given else one
            defaults |= {"data.test_fraction": 1 / len(X), "data.validation_fraction": validation}
            defaults |= {} if CHOOSING & given else {"trainer.keep": "last"}
        settings = [f"{key}={value}" for key, value in defaults.items() if key not in given] + settings
        if self.random_state is not None:
            if "seed" in given:
                raise ConfigError("random_state", self.random_state, "the overrides have a seed; leave one of them out")
            settings.append(f"seed={_seed(self.random_state)}")
        with tempfile.TemporaryDirectory() as folder:
            settings += [f"output_root={quoted(folder)}"] if self.name is None else []
            name = "encoder" if self.name is None else self.name
            _, config, outcomes = call(X, settings, name=name, several=False, quiet=True)
            self.run_ = trained(config, outcomes)
        self._n_features_out = self.run_.encode(X[:1]).shape[-1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Codes of rows, [N, L] float32 (posterior means of a VAE)."""
        return self.run_.encode(self._rows(X))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Rows of codes [N, L], as they were given to `fit`."""
        check_is_fitted(self)
        return self.run_.decode(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean loss of rows, in the units of the loss (nats for a likelihood); higher is better."""
        return -float(self.run_.score(self._rows(X)).mean())

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self)
        return validate_data(self, X, reset=False, allow_nd=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are float32
        tags.non_deterministic = False
        return tags


def _seed(random_state: Any) -> int:
    """The seed of a run."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(SEEDS))
