"""From a file of your own to a first result and to new rows: sequences without labels, regression, images."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from research import app
from research.encode import main as encode_main
from research.runs.load import load
from research.runs.run import Run
from research.tree import ConfigError

N, T = 80, 10
RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(5, T + 1, N)
LENGTHS[0] = T
SPEED, PHASE = RANDOM.uniform(0.3, 1.2, (N, 1)), RANDOM.uniform(0, 6, (N, 1))
X = 100 + 20 * np.stack([np.sin(SPEED * np.arange(T) + PHASE), np.cos(SPEED * np.arange(T) + PHASE)], axis=-1)
GAPS = RANDOM.random(X.shape) < 0.05
Y = np.concatenate([1e5 + 3e4 * SPEED, np.cos(PHASE)], axis=1)
STEPS = 7 * np.sin(SPEED * np.arange(1, T + 1) + PHASE)
ARRAYS = ("data=arrays", "data.path=own.npz", "data.lengths=lengths", "data.missing=[-9999]")
COMMON = ("model.hidden_dim=4", "trainer.epochs=2", "trainer.batch_size=16", "trainer.evaluate_every=1")


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    app.statuses.clear()
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, and a run of each kind of task."""
    folder = tmp_path_factory.mktemp("own")
    np.savez(folder / "own.npz", x=np.where(GAPS, -9999, X), lengths=LENGTHS, y=Y, steps=STEPS)
    digits = load_digits()
    for row in range(60):
        inner = folder / "digits" / str(digits.target[row])
        inner.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15).astype(np.uint8)).save(inner / f"{row}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train = lambda *arguments: call(patch, app.main, *arguments, *COMMON)
        assert train(*ARRAYS, "model=lstm_ae", "model.latent_dim=2", "evaluation=none", "name=codes") == 0
        predictor = (*ARRAYS, "model=recurrent_predictor")
        assert train(*predictor, "data.target=y", "evaluation.pictures=false", "name=values") == 0
        assert train(*predictor, "data.target=steps", "evaluation.pictures=false", "name=steps") == 0
        images = ("data=folder", "data.path=digits", "model=vae", "model.latent_dim=2", "model.hidden_dims=[4]")
        assert call(patch, app.main, *images, *COMMON[1:], "evaluation=none", "name=images") == 0
    return folder


def folder_of(place: Path, name: str) -> Path:
    return next((place / "outputs" / name).glob("*/result.json")).parent


def run_of(place: Path, name: str) -> Run:
    return load(folder_of(place, name))


@pytest.fixture
def encode(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pandas.DataFrame]:
    """`encode("values", "data.path=new.npz")`: the table that the script writes."""

    def run(name: str, *arguments: str) -> pandas.DataFrame:
        monkeypatch.chdir(place)
        assert call(monkeypatch, encode_main, str(folder_of(place, name)), *arguments) == 0
        return pandas.read_csv("codes.csv")

    return run


def metrics_of(place: Path, name: str) -> dict[str, Any]:
    return json.loads((folder_of(place, name) / "result.json").read_text())["metrics"]


def held_out(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and of test."""
    from research.data import load as load_data
    from research.tree import build

    monkeypatch.chdir(place)
    config = json.loads((folder_of(place, name) / "config.json").read_text())["config"]["data"]
    split = load_data(build(config | {"root": None}, key="data")).split(None)
    return split.rows("train"), split.rows("test")


def test_a_recurrent_model_trains_on_sequences_without_labels(place):
    record = json.loads((folder_of(place, "codes") / "config.json").read_text())
    assert record["config"]["data"]["kind"] == "sequence"
    assert (record["facts"]["kind"], record["facts"]["feature_shape"]) == ("sequence", [T, 2])


def test_padding_of_new_rows_changes_nothing(place):
    run = run_of(place, "codes")
    stored = np.where(GAPS, np.nan, X)
    other = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], stored, 1e6)
    for method in (run.encode, run.score):
        np.testing.assert_array_equal(method(stored, lengths=LENGTHS), method(other, lengths=LENGTHS))
        ragged = [row[:length] for row, length in zip(stored, LENGTHS, strict=True)]
        np.testing.assert_allclose(method(ragged), method(stored, lengths=LENGTHS), rtol=1e-6)
    marked = np.where(GAPS, -9999, X)
    np.testing.assert_array_equal(run.encode(marked, lengths=LENGTHS), run.encode(stored, lengths=LENGTHS))


def test_new_files_of_sequences_are_encoded(place, encode):
    whole = encode("codes")
    run = run_of(place, "codes")
    stored = np.where(GAPS, np.nan, X)
    np.testing.assert_allclose(whole[["z0", "z1"]], run.encode(stored, lengths=LENGTHS), rtol=1e-5)
    np.savez(place / "new.npz", x=stored[:5, :6], lengths=np.minimum(LENGTHS[:5], 6))
    new = encode("codes", "data.path=new.npz")
    expected = run.encode([row[: min(length, 6)] for row, length in zip(stored[:5], LENGTHS[:5], strict=True)])
    np.testing.assert_allclose(new[["z0", "z1"]], expected, rtol=1e-5)
    np.save(place / "new.npy", X[:5])
    new = encode("codes", "data.path=new.npy", "data.lengths=null")
    np.testing.assert_allclose(new[["z0", "z1"]], run.encode(X[:5]), rtol=1e-5)


def test_errors_of_values_have_the_units_of_the_data(place, monkeypatch):
    run, metrics = run_of(place, "values"), metrics_of(place, "values")
    train, test = held_out(place, "values", monkeypatch)
    stored = np.where(GAPS, np.nan, X)
    predicted = run.predict(stored[test], lengths=LENGTHS[test])
    np.testing.assert_allclose(metrics["test/mae_raw"], np.abs(predicted - Y[test]).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["test/mse_raw"], np.square(predicted - Y[test]).mean(), rtol=1e-4)
    median = np.median(Y[train], axis=0)
    np.testing.assert_allclose(metrics["baseline/constant/mae_raw"], np.abs(Y[test] - median).mean(), rtol=1e-5)
    mean = Y[train].mean(0)
    scaled = np.square((Y[test] - mean) / Y[train].std(0)).mean()
    np.testing.assert_allclose(metrics["baseline/constant/mse"], scaled, rtol=1e-5)
    assert metrics["test/mse"] < 5  # values of 1e5 are scaled for the model
    scores = run.score(stored[test], lengths=LENGTHS[test], target=Y[test], numbers=test)
    np.testing.assert_allclose(scores.mean(), metrics["test/loss"], rtol=1e-4)


def test_the_table_of_a_regression_shows_the_error_in_units_of_the_data(place, capsys):
    from research.report.collect import collect
    from research.report.keys import default_metrics

    assert "test/mae_raw" in default_metrics(collect(place / "outputs" / "values"))
    assert "test/mae_raw" not in default_metrics(collect(place / "outputs" / "codes"))


def test_values_of_steps_are_predicted_without_the_padding(place, monkeypatch):
    run, metrics = run_of(place, "steps"), metrics_of(place, "steps")
    train, test = held_out(place, "steps", monkeypatch)
    inside = np.arange(T) < LENGTHS[:, None]
    predicted = run.predict(np.where(GAPS, np.nan, X)[test], lengths=LENGTHS[test])
    assert predicted.shape == (len(test), T, 1)
    of_rows = lambda errors: (np.where(inside[test], errors, 0).sum(1) / LENGTHS[test]).mean()
    np.testing.assert_allclose(metrics["test/mae_raw"], of_rows(np.abs(predicted[..., 0] - STEPS[test])), rtol=1e-4)
    median = np.median(STEPS[train][inside[train]])
    np.testing.assert_allclose(metrics["baseline/constant/mae_raw"], of_rows(np.abs(STEPS[test] - median)), rtol=1e-4)


def test_predictions_of_new_rows_are_written_without_their_truth(place, encode):
    whole = encode("values")
    assert {"y0", "y1", "score"} <= set(whole)
    stored = np.where(GAPS, np.nan, X)
    np.savez(place / "bare.npz", x=stored[:4], lengths=LENGTHS[:4])
    new = encode("values", "data.path=bare.npz")
    assert "score" not in new
    np.testing.assert_allclose(new[["y0", "y1"]], whole[["y0", "y1"]][:4], rtol=1e-5)
    np.savez(place / "whole.npz", x=stored, lengths=LENGTHS, y=Y)
    np.testing.assert_allclose(encode("values", "data.path=whole.npz")["score"], whole["score"], rtol=1e-4)


def test_a_target_of_another_form_is_refused(place):
    run, stored = run_of(place, "values"), np.where(GAPS, np.nan, X)
    with pytest.raises(ConfigError, match=r"target=.*expected the shape \[80, 2\]"):
        run.score(stored, lengths=LENGTHS, target=Y[:, :1])


def test_images_of_a_folder_are_encoded(place, encode, monkeypatch):
    codes = encode("images")
    assert len(codes) == 60
    assert set(map(str, codes["label"])) == set("0123456789")
    new = encode("images", "data.path=digits/3")
    assert len(new) == (codes["label"] == 3).sum()
    np.testing.assert_allclose(new[["z0", "z1"]], codes.loc[codes["label"] == 3, ["z0", "z1"]], rtol=1e-5)
