"""`research.Encoder` keeps the rules of scikit-learn."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import research
from research.tree import ConfigError

SMALL = ("model.hidden_dims=[4]", "model.latent_dim=2", "trainer.epochs=2", "trainer.batch_size=8")


EXPECTED = {
    "check_do_not_raise_errors_in_init_or_set_params": "it names every parameter, and overrides may also be given "
    "without a name: Encoder('model=vae')"
}
MAIN = (
    "check_estimator_cloneable",
    "check_estimators_pickle",
    "check_get_params_invariance",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformer_general",
)


@pytest.mark.slow  # half a hundred checks, of which many compile a program of their own
@parametrize_with_checks([research.Encoder(overrides=SMALL)], expected_failed_checks=lambda _: EXPECTED)
def test_every_check_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_the_main_checks_of_scikit_learn() -> None:
    checks = {check.func.__name__: check for _, check in estimator_checks_generator(research.Encoder(overrides=SMALL))}
    for name in MAIN:
        checks[name](research.Encoder(overrides=SMALL))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 5))


def test_codes_rows_and_scores_are_those_of_the_run(rows: np.ndarray) -> None:
    encoder = research.Encoder(*SMALL).fit(rows)
    codes = encoder.transform(rows)
    assert np.array_equal(codes, encoder.run_.encode(rows))
    assert np.array_equal(encoder.inverse_transform(codes), encoder.run_.decode(codes))
    assert encoder.score(rows) == pytest.approx(-encoder.run_.score(rows).mean())
    assert list(encoder.get_feature_names_out()) == ["encoder0", "encoder1"]
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).transform(rows), codes)
    assert encoder.run_.config["model"]["_target_"].endswith("DenseAE")


@pytest.mark.parametrize(
    ("overrides", "training", "keep"),
    [
        ((), 58, "last"),
        (("trainer.patience=1",), 53, "best"),
        (("trainer.keep=best",), 53, "best"),
        (("data.validation_fraction=0.5",), 29, "last"),
    ],
)
def test_all_rows_but_two_are_trained_on_unless_validation_rows_choose(
    rows: np.ndarray, overrides: tuple[str, ...], training: int, keep: str
) -> None:
    encoder = research.Encoder(*SMALL, "trainer.evaluate_every=1", *overrides).fit(rows)
    parts = encoder.run_.config["data"]
    assert round(parts["test_fraction"] * 60) == 1
    assert 59 - round(parts["validation_fraction"] * 59) == training
    assert encoder.run_.config["trainer"]["keep"] == keep


def test_parameters_of_scikit_learn(rows: np.ndarray) -> None:
    encoder = research.Encoder(*SMALL, "seed=3")
    assert encoder.get_params() == {"name": None, "overrides": (*SMALL, "seed=3"), "random_state": None}
    copy = clone(encoder).set_params(overrides=SMALL, random_state=3)
    first, second = (each.fit(rows).transform(rows) for each in (encoder, copy))
    assert np.array_equal(first, second)
    other = copy.set_params(random_state=np.random.RandomState(0)).fit(rows).transform(rows)
    assert not np.array_equal(first, other)
    with pytest.raises(ConfigError, match="leave one of them out"):
        encoder.set_params(random_state=1).fit(rows)
    with pytest.raises(ValueError, match="Invalid parameter"):
        encoder.set_params(depth=1)
    with pytest.raises(ConfigError, match="give a tuple"):
        research.Encoder(overrides="seed=3").fit(rows)
    with pytest.raises(ConfigError, match=r"did you mean 'model\.latent_dim'"):
        research.Encoder("model.latent=3").fit(rows)
    for override in ("name=kept", "output_root=elsewhere"):
        with pytest.raises(ConfigError, match=r"give .*name=\.\.\.") as refused:
            research.Encoder(*SMALL, override).fit(rows)
        assert refused.value.key == "overrides"
    with pytest.raises(NotFittedError):
        research.Encoder().inverse_transform(np.zeros((1, 2)))


def test_it_is_silent_and_leaves_no_file(
    rows: np.ndarray, capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = research.Encoder(*SMALL).fit(rows)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    named = clone(encoder).set_params(name="kept").fit(rows)
    assert (tmp_path / "outputs" / "kept" / named.run_.folder.name / "result.json").is_file()
    with pytest.raises(ConfigError, match="holds another sweep"):
        clone(named).fit(rows[:40])


def test_tables_and_images(rows: np.ndarray) -> None:
    table = pd.DataFrame(rows, columns=list("abcde"))
    encoder = research.Encoder(*SMALL).fit(table)
    assert list(encoder.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(table[list("edcba")])
    images = np.random.default_rng(0).integers(0, 255, (30, 4, 4), np.uint8)
    encoder = research.Encoder(*SMALL, "data.scaling=unit").fit(images)
    assert encoder.inverse_transform(encoder.transform(images)).shape == images.shape


def test_settings_are_searched(rows: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), research.Encoder(overrides=SMALL))
    grid = {"encoder__overrides": [SMALL, (*SMALL, "trainer.epochs=1")]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(rows)
    assert search.best_params_["encoder__overrides"] in grid["encoder__overrides"]
    assert search.transform(rows).shape == (60, 2)
