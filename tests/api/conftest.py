"""Calls from Python in a scratch folder, with sizes that train in no time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import research

TINY = (
    "model=vae",
    "model.likelihood=gaussian",
    "model.hidden_dims=[4]",
    "model.latent_dim=2",
    "trainer.epochs=2",
    "trainer.evaluate_every=1",
    "trainer.batch_size=16",
    "evaluation=none",
    "sweep.mode=map",
)


@pytest.fixture
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 5))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A sweep of two latent sizes and three seeds that tests only read."""
    rows = np.random.default_rng(0).normal(size=(60, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("swept"))
        yield research.sweep(rows, *TINY, "model.latent_dim=1,2", "seed=range(3)", name="swept")
