"""Windows of a series are evaluated a few at a time, to the metrics of a dense copy of all of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.data.examples import Examples, Split, Windows
from research.data.seen import Seen, seen
from research.evaluation import rows as lazy_rows
from research.evaluation.baselines import components, masked_mean_error, reconstruction_error
from research.sweep.command import prepare, run
from research.sweep.train import finish

from .test_resume import Breaking

STEPS = 500
SETTINGS = (
    "data=series",
    "data.window=6",
    "data.train_size=null",
    "data.validation_size=null",
    "data.test_size=null",
    "model=dense_ae",
    "model.likelihood=gaussian",
    "model.reads_mask=true",
    "evaluation=standard",
    "evaluation.clustering=silhouette",
    "evaluation.cluster_range=[2, 3]",
    "evaluation.cluster_starts=1",
    "evaluation.pictures=false",
)


@pytest.fixture
def metrics(tmp_path: Path, make_job: Callable[..., Any], make_options: Callable[..., Any]) -> Any:
    """`metrics("name", "data.hide=0.1")`: what a run on windows of two channels ends with."""
    random, time = np.random.default_rng(0), np.arange(STEPS)
    series = np.stack([np.sin(time / 7), 50 + 5 * np.cos(time / 11)], 1) + random.normal(size=(STEPS, 2))
    np.savetxt(tmp_path / "series.csv", series, delimiter=",", header="a,b", comments="")

    def go(name: str, *changes: str) -> dict[str, Any]:
        finish._parts.clear()
        finish.shared.clear()
        jobs = [make_job(*SETTINGS, f"data.path={tmp_path / 'series.csv'}", *changes)]
        about = {"name": name, "objective": "validation/loss", "options": make_options()}
        (outcome,) = run(prepare(jobs, tmp_path / name, make_options()), jobs, display=Breaking(), **about)
        return json.loads((outcome.folder / "result.json").read_text())["metrics"]

    return go


@pytest.mark.parametrize("changes", [(), ("data.hide=0.1",)])
def test_metrics_of_lazy_windows_are_those_of_dense_ones(metrics, monkeypatch, changes):
    dense = lambda examples, rows, split: split.prepare(examples.take(rows))
    with monkeypatch.context() as patch:
        patch.setattr("research.data.loading.seen", dense)
        expected = metrics("dense", *changes)
    monkeypatch.setattr(lazy_rows, "CHUNK", 32)
    taken, original = [], Seen.__getitem__

    def take(self: Seen, rows: Any) -> np.ndarray:
        taken.append(len(np.unique(self.rows[rows])))
        return original(self, rows)

    monkeypatch.setattr(Seen, "__getitem__", take)
    monkeypatch.setattr("research.evaluation.subject.BATCH", 32)
    monkeypatch.setattr("research.evaluation.clustering.whole_rows", lambda part: refuse())
    given = metrics("lazy", *changes)
    assert expected.keys() - given.keys() <= {name for name in expected if "kmeans" in name}
    for name, value in given.items():
        if value is not None:
            assert value == pytest.approx(expected[name], rel=1e-6), name
    assert any("imputation" in name for name in given) == bool(changes)
    assert max(taken) < 100  # there are 95 test windows and 305 training windows


def refuse() -> Any:
    """Stands for rows that are too many to be dense at once."""
    raise ValueError("too many")


def series_rows(lazy: bool) -> Examples:
    """Windows of a series with gaps, as models see them."""
    random = np.random.default_rng(1)
    series = random.normal(3, [1, 5], (200, 2))
    observed = random.random(series.shape) < 0.9
    start = np.arange(0, 190, 2, dtype=np.int32)
    examples = Examples(Windows(series, start, 8), observed=Windows(observed, start, 8))
    rows, none = np.arange(len(start)), np.zeros(0)
    split = Split(rows, none, none, none, none, np.array([3.0, 3.0]), np.array([1.0, 0.2]))
    return seen(examples, rows, split) if lazy else split.prepare(examples.take(rows))


def test_lazy_rows_are_scaled_when_they_are_taken(monkeypatch):
    lazy, dense = series_rows(True), series_rows(False)
    assert isinstance(lazy.x, Seen)
    assert (lazy.x.shape, lazy.x.dtype, len(lazy)) == (dense.x.shape, dense.x.dtype, len(dense))
    for rows in (slice(5, 60, 7), np.array([3, 3, 90]), slice(None)):
        np.testing.assert_array_equal(lazy.take(rows).x, dense.x[rows])
        np.testing.assert_array_equal(lazy.take(rows).mask, dense.mask[rows])
    with pytest.raises(TypeError, match="take some"):
        np.asarray(lazy.x)
    monkeypatch.setattr(lazy_rows, "CHUNK", 10)
    mean = np.where(dense.mask, dense.x, 0).sum(0) / dense.mask.sum(0)
    misses = np.where(dense.mask, np.square(dense.x - mean), 0).sum((1, 2)) / dense.mask.sum((1, 2))
    assert masked_mean_error(lazy, lazy) == pytest.approx(misses.mean())
    fitted = components(lazy.x)
    assert lazy_rows.extent(lazy.x) == (dense.x.min(), dense.x.max())
    for size in (0, 3):
        expected = reconstruction_error(components(dense.x), dense.x, size)
        assert reconstruction_error(fitted, lazy.x, size) == pytest.approx(expected)


def test_too_many_lazy_rows_are_refused_or_sampled(monkeypatch):
    lazy, dense = series_rows(True), series_rows(False)
    monkeypatch.setattr(lazy_rows, "LARGEST", 20 * 16)
    with pytest.raises(ValueError, match=r"95 rows of shape \[8, 2\] are too many"):
        lazy_rows.whole(lazy.x)
    assert len(lazy_rows.whole(dense.x)) == len(lazy_rows.sample(dense)) == 95
    np.testing.assert_array_equal(lazy_rows.sample(lazy).x, dense.x[np.linspace(0, 94, 20).astype(int)])
