"""Sweep folders as training leaves them, made in no time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.metrics import dependencies
from research.models.recurrent_gan import RecurrentGAN
from research.models.recurrent_predictor import RecurrentPredictor
from research.models.vae import VAE

# of no model that there is: its loss depends on the settings of several
DEPENDS = dependencies(VAE, "model")
DEPENDS["loss"] += [key for cls in (RecurrentGAN, RecurrentPredictor) for key in dependencies(cls, "model")["loss"]]


class FakeSweep:
    """Writes runs of a small VAE; anything about a run can be replaced."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.runs: dict[str, Any] = {}
        folder.mkdir()

    def add(
        self,
        overrides: dict[str, Any],
        metrics: dict[str, float | None] | None = None,
        *,
        status: str = "completed",
        reason: str | None = None,
        null_reasons: dict[str, str] | None = None,
        model: str = "vae",
        written: bool = True,
    ) -> Path:
        """One run: `overrides` are dotted keys of its config; not `written` leaves it in `sweep.json` only."""
        name = ",".join(f"{key}={value}" for key, value in overrides.items()).replace("/", "-")
        config: dict[str, Any] = {
            "model": {"_target_": f"research.models.{model}", "latent_dim": 8, "beta": 1.0},
            "optimizer": {"learning_rate": 0.001},
            "data": {"fold": None, "root": "/data"},
            "seed": 0,
        }
        for key, value in overrides.items():
            *sections, last = key.split(".")
            node = config
            for section in sections:
                node = node[section]
            if key != "model":
                node[last] = value
        lines = [
            f"{key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in overrides.items()
        ]
        self.runs[name] = {"overrides": lines, "config_hash": name}
        path = self.folder / name
        if written:
            path.mkdir()
            choices = {"model": model, "data": "digits"}
            (path / "config.json").write_text(json.dumps({"config": config, "choices": choices, "config_hash": name}))
            result = {
                "run_id": name,
                "status": status,
                "reason": reason,
                "overrides": lines,
                "config_hash": name,
                "data_sha256": "0123456789abcdef",
                "metrics": metrics or {},
                "null_reasons": null_reasons or {},
                "program": {"mode": "vmap", "width": 2, "device_kind": "cpu"},
                "commit": "c0ffee",
                "depends": DEPENDS,
            }
            (path / "result.json").write_text(json.dumps(result, allow_nan=False))
        (self.folder / "sweep.json").write_text(
            json.dumps({"name": "demo", "base": {"trainer.epochs": 3}, "runs": self.runs})
        )
        return path


@pytest.fixture
def sweep(tmp_path: Path) -> FakeSweep:
    return FakeSweep(tmp_path / "demo")


@pytest.fixture
def grid(sweep: FakeSweep) -> Callable[..., FakeSweep]:
    """Fill the sweep with two latent sizes and three seeds, `test/loss` = latent size + seed."""

    def fill(**metrics: float) -> FakeSweep:
        for latent_dim in (2, 8):
            for seed in range(3):
                sweep.add({"model.latent_dim": latent_dim, "seed": seed}, {"test/loss": latent_dim + seed, **metrics})
        return sweep

    return fill
