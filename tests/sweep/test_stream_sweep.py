"""Sweeps on streamed rows end with the files that rows in memory give, and hold few of the rows at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from research.data.mapped import Mapped
from research.evaluation import rows as lazy_rows
from research.sweep import blocks, stream
from research.sweep.command import prepare, run
from research.sweep.proof.replay import replay
from research.sweep.train.display import Display
from research.tree import ConfigError

from .test_resume import Breaking, Killed

ROWS = 400
SETTINGS = (
    "data=arrays",
    "data.target=-1",
    "data.task=classes",
    "model.likelihood=gaussian",
    "trainer.epochs=4",
    "trainer.batch_size=16",
    "data.train_size=null",
    "data.validation_size=null",
    "data.test_size=null",
)
EVALUATED = (
    "evaluation=full",
    "evaluation.nll_samples=4",
    "evaluation.clustering=classes",
    "evaluation.cluster_starts=2",
    "evaluation.pictures=false",
)
PRUNED = ("optimizer.learning_rate=0.01,0.02,0.000001", "trainer.epochs=6")


@pytest.fixture
def sweep(tmp_path: Path, make_jobs: Callable[..., Any], make_options: Callable[..., Any], monkeypatch) -> Any:
    """`sweep("name", True, "seed=0,1")`: outcomes of jobs whose rows are streamed (or in memory)."""
    digits: Any = load_digits()
    rows = np.concatenate([digits.data[:ROWS], digits.target[:ROWS, None]], axis=1)
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5 * 16 * 64 * 4)

    def go(name: str, streamed: bool, *changes: str, display: Display | None = None, **options: Any) -> Any:
        data = (f"data.path={tmp_path / 'rows.npy'}", f"data.stream={str(streamed).lower()}")
        jobs, chosen = make_jobs(*SETTINGS, *data, *changes), make_options(**{"checkpoint_every": 1, **options})
        about = {"name": name, "objective": "validation/loss", "options": chosen}
        return run(prepare(jobs, tmp_path / name, chosen), jobs, display=display or Breaking(), **about)

    return go


def result_of(outcome: Any) -> dict[str, Any]:
    return json.loads((outcome.folder / "result.json").read_text())


def same(one: Any, other: Any) -> None:
    """The same parameters and rows, byte for byte, the same end and the same metrics."""
    for name in ("params.safetensors", "metrics.csv"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    first, second = result_of(one), result_of(other)
    for key in ("status", "reason", "best_epoch", "epochs", "data_sha256", "null_reasons", "steps_per_epoch"):
        assert first[key] == second[key], key
    assert first["metrics"] == pytest.approx(second["metrics"], rel=1e-5, abs=1e-7)


def test_a_killed_sweep_goes_on_to_the_files_of_rows_in_memory(sweep):
    with pytest.raises(Killed):
        sweep("streamed", True, "seed=0,1", display=Breaking(0, 3))
    streamed = sweep("streamed", True, "seed=0,1")
    assert [result_of(outcome)["resumed_at"] for outcome in streamed] == [[2], []]
    for one, other in zip(streamed, sweep("stored", False, "seed=0,1"), strict=True):
        same(one, other)


def test_patience_and_pruning_act_as_for_rows_in_memory(sweep):
    for name, changes, options in (
        ("pruned", PRUNED, {"prune": "median", "prune_after": 2}),
        ("patient", ("trainer.patience=1", "optimizer.learning_rate=0.3", "trainer.epochs=9"), {}),
    ):
        streamed, stored = (sweep(f"{name}{where}", where, *changes, **options) for where in (True, False))
        statuses = []
        for one, other in zip(streamed, stored, strict=True):
            same(one, other)
            statuses.append(result_of(one)["status"])
        assert {"pruned": "pruned", "patient": "stopped"}[name] in statuses


def test_the_row_of_a_chunk_is_written_before_the_next_chunk_begins(sweep, tmp_path, monkeypatch):
    counts, original = [], stream.Stream.train

    def train(self: Any, epochs: int) -> Any:
        counts.append(sum(len(file.read_text().splitlines()) - 1 for file in tmp_path.glob("rows/*/metrics.csv")))
        return original(self, epochs)

    monkeypatch.setattr(stream.Stream, "train", train)
    sweep("rows", True, checkpoint_every=99)
    assert counts == [0, 1, 2, 3]


def test_evaluations_are_those_of_rows_in_memory_and_take_few_rows_at_a_time(sweep, monkeypatch):
    monkeypatch.setattr(lazy_rows, "CHUNK", 32)
    (stored,) = sweep("stored", False, *EVALUATED, "model.output_bias=zero")
    monkeypatch.setattr(stream, "START_BYTES", 1)
    monkeypatch.setattr(lazy_rows, "LARGEST", 50 * 64)
    monkeypatch.setattr("research.evaluation.subject.BATCH", 64)
    for module in ("scaling", "streamed", "loading", "checks"):
        monkeypatch.setattr(f"research.data.{module}.CHUNK", 64)
    read, original = [], Mapped.__getitem__

    def taken(self: Mapped, rows: Any) -> np.ndarray:
        read.append(len(np.unique(np.arange(len(self))[rows])))
        return original(self, rows)

    monkeypatch.setattr(Mapped, "__getitem__", taken)
    (streamed,) = sweep("streamed", True, *EVALUATED, "model.output_bias=zero")
    known, given = result_of(stored), result_of(streamed)
    refused = [name for name in given["null_reasons"] if name not in known["null_reasons"]]
    assert refused
    assert all(name.startswith("baseline/raw_kmeans/") for name in refused)
    assert all("too many to hold in memory" in given["null_reasons"][name] for name in refused)
    for name, value in known["metrics"].items():
        if value is not None and name not in refused:
            assert given["metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert max(read) <= 80  # there are 80 test rows, 64 validation rows and 256 training rows
    assert len(read) > 50


def test_a_streamed_run_is_not_replayed(sweep, make_options, tmp_path):
    (outcome,) = sweep("diverged", True, "optimizer.learning_rate=1e30", "trainer.epochs=1")
    assert result_of(outcome)["status"] == "diverged"
    with pytest.raises(ConfigError, match=r"data.stream=True: .*data.stream=false"):
        replay(outcome.folder, None, (), make_options(), Breaking())
