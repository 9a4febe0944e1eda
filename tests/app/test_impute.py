"""Imputation from the command to new rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import research
from research.data.loading import load
from research.evaluation.imputation import NAMES
from research.tree import build

HIDDEN = ("data.hide=0.2", "data.hide_train=0.3", "model.reads_mask=true", "model.latent_dim=4", "evaluation=standard")
SINES = ("data=few_sines", "data.rows=200", "data.length=12", "data.channels=2", "data.train_size=null")
RECURRENT = ("model=recurrent_ae", "model.code=state", "model.bidirectional=true", "model.hidden_dim=12")
SOME = ("trainer.epochs=60", "trainer.batch_size=32", "trainer.evaluate_every=20", "optimizer.learning_rate=0.01")
OFF = ("evaluation.pictures=false", "evaluation.projector=false", "data.validation_size=null", "data.test_size=null")


def test_a_trained_run_imputes_better_than_the_mean(command: Callable[..., Any], outputs: Path, results) -> None:
    """All rows of the data are hidden and scored again by hand, through what a user has: the run and raw rows."""
    ended = command(*SINES, *RECURRENT, *HIDDEN, *SOME, *OFF, "name=sines")
    assert ended.code == 0, ended.err
    (result,) = results(outputs / "sines")
    metrics = result["metrics"]
    for name in NAMES:
        assert metrics[f"test/{name}"] < 0.6 * metrics[f"baseline/channel_mean/{name}"]
        for method in ("channel_mean", "last_value", "linear_interpolation"):
            assert f"baseline/{method}/{name}_raw" in metrics
    run = research.load(next((outputs / "sines").glob("*/result.json")).parent)
    dataset = load(build(run.config["data"] | {"root": None}, key="data"))
    rows = dataset.examples.take(np.sort(dataset.split(None).rows("test")))
    gaps = np.where(rows.hidden, np.nan, rows.x)
    miss = np.abs(run.impute(gaps) - rows.x)
    assert (miss[~rows.hidden] == 0).all()
    assert miss[rows.hidden].mean() == pytest.approx(metrics["test/imputation_mae_raw"], rel=1e-4)


def test_a_dense_model_that_reads_masks_imputes_images(command: Callable[..., Any], outputs: Path, results) -> None:
    sizes = ("data.train_size=400", "data.validation_size=50", "data.test_size=50", "model.hidden_dims=[64]")
    ended = command("model=dense_ae", *HIDDEN, *sizes, *SOME, *OFF[:2], "model.likelihood=mse", "name=digits")
    assert ended.code == 0, ended.err
    (result,) = results(outputs / "digits")
    assert result["metrics"]["test/imputation_mae"] < 0.8 * result["metrics"]["baseline/mean/imputation_mae"]
    assert "baseline/last_value/imputation_mae" not in result["metrics"]
