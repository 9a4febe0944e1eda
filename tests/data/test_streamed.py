"""Laws of streamed rows: whatever is known of them is what is known of the same rows in memory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from configs import shipped

from research.data import load, scaling
from research.data.mapped import Mapped
from research.errors import ConfigError
from research.tree import build, config_hash, plain

RANDOM = np.random.default_rng(0)
N = 60
VECTORS = RANDOM.normal(3, 2, (N, 7))
VECTORS[:, 3] = RANDOM.integers(0, 5, N)
FILES = {
    "vectors": VECTORS,
    "turned": np.asfortranarray(VECTORS.astype(">f8")),
    "whole": RANDOM.integers(0, 2, (N, 3)),
    "small": RANDOM.random((N, 3), np.float32),
    "images": RANDOM.integers(0, 256, (N, 6, 5)).astype(np.uint8),
    "bits": RANDOM.random((N, 6, 5)) < 0.5,
    "far": RANDOM.normal(1e6, 1, (N, 6, 2)),
    "again": RANDOM.normal(4, 2, (20, 7)),
}
FILES["images"][:, 0, 0] %= 2  # a pixel of zeros and ones among others is scaled as they are


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`data("vectors", target=3)`: a recipe of a file; blocks hold 16 rows."""
    for module in ("scaling", "streamed", "loading", "checks"):
        monkeypatch.setattr(f"research.data.{module}.CHUNK", 16)
    for name, array in FILES.items():
        np.save(tmp_path / f"{name}.npy", array)

    def make(name: str, **changes: Any) -> Any:
        return build({**shipped("data", "arrays"), "path": f"{name}.npy", "root": str(tmp_path), **changes}, key="data")

    return make


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vectors", {}),
        ("vectors", {"target": 3, "task": "classes"}),
        ("vectors", {"target": -1, "scaling": "minmax", "folds": 3, "fold": 1}),
        ("vectors", {"test_path": "again.npy", "hide_train": 0.2}),
        ("turned", {}),
        ("whole", {}),
        ("small", {"scaling": "none"}),
        ("images", {"scaling": "unit"}),
        ("images", {}),
        ("bits", {"scaling": "unit"}),
        ("far", {"kind": "sequence", "scaling": "minmax"}),
        ("small", {"kind": "sequence"}),
        ("vectors", {"kind": "sequence", "target": -1, "scaling": "minmax"}),
    ],
)
def test_everything_that_is_known_of_rows_is_equal(data, name, changes):
    stored, streamed = load(data(name, **changes)), load(data(name, stream=True, **changes))
    assert isinstance(streamed.examples.x, Mapped)
    assert stored.sha256 == streamed.sha256
    assert (stored.facts, stored.notes) == (streamed.facts, streamed.notes)
    for one, other in zip(stored.splits, streamed.splits, strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
    rows = RANDOM.integers(0, N, (4, 3))
    for of in ("examples", "compact"):
        pairs = zip(*(jax.tree.leaves(getattr(each, of).take(rows)) for each in (stored, streamed)), strict=True)
        for one, other in pairs:
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()


def test_rows_are_taken_by_numbers_slices_and_masks(data):
    x = load(data("vectors", stream=True, test_path="again.npy")).examples.x
    dense = np.concatenate([VECTORS, FILES["again"]])
    for rows in ([3, -1, 70], slice(50, 70, 3), np.arange(80) % 3 == 0, 61, np.arange(6).reshape(2, 3)):
        np.testing.assert_array_equal(x[rows], dense[rows])


def test_no_more_than_a_block_of_rows_is_read_at_a_time(data, monkeypatch):
    read, original = [], Mapped.__getitem__
    monkeypatch.setattr(Mapped, "__getitem__", lambda self, rows: read.append(original(self, rows)) or read[-1])
    load(data("vectors", stream=True, scaling="minmax", split_seed=5))
    assert len(read) > 4 * N / 16
    assert max(map(len, read)) <= 16


@pytest.mark.parametrize(
    ("value", "changes", "text"),
    [
        (np.nan, {}, r"data.path=fault.npy: .*nan at index \[40, 2\].*fill it or remove"),
        (np.inf, {}, r"inf at index \[40, 2\]"),
        (-9999, {"missing": [-9999]}, r"-9999.0 at index \[40, 2\].*fill it or remove"),
    ],
)
def test_values_that_are_missing_or_infinite_are_named_by_their_place(data, tmp_path, value, changes, text):
    fault = VECTORS.copy()
    fault[40, 2] = value
    np.save(tmp_path / "fault.npy", fault)
    with pytest.raises(ConfigError, match=text):
        load(data("fault", stream=True, **changes))


def test_a_gap_in_a_sequence_names_the_way_to_mask_it(data, tmp_path):
    fault = FILES["far"].copy()
    fault[40, 2, 1] = np.nan
    np.save(tmp_path / "fault.npy", fault)
    with pytest.raises(ConfigError, match=r"\[40, 2, 1\].*data.stream=false"):
        load(data("fault", stream=True, kind="sequence"))


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"path": "my.csv"}, "path", "numpy.save"),
        ({"path": "my.npz"}, "path", "numpy.load('my.npz')['x']"),
        ({"path": "my.npz", "key": "rows"}, "path", "numpy.save('my.npy', numpy.load('my.npz')['rows'])"),
        ({"test_path": "my.parquet"}, "test_path", "numpy.save"),
        ({"binarize": "dynamic"}, "binarize", "{key}=none"),
        ({"hide": 0.1}, "hide", "{key}=null"),
    ],
)
def test_what_needs_all_rows_in_memory_is_refused_before_any_work(data, changes, key, remedy):
    with pytest.raises(ConfigError) as refused:
        data("nothing", stream=True, **changes)
    assert refused.value.key == f"data.{key}"
    assert remedy in refused.value.template


def test_files_of_different_types_are_refused(data, tmp_path):
    np.save(tmp_path / "again.npy", FILES["again"].astype(np.float32))
    with pytest.raises(ConfigError, match="store both with one type"):
        load(data("vectors", stream=True, test_path="again.npy"))


def test_test_rows_among_the_training_rows_are_refused(data, tmp_path):
    np.save(tmp_path / "again.npy", VECTORS[:20])
    for stream in (False, True):
        with pytest.raises(ConfigError, match="20 of 20 test rows are among the training rows"):
            load(data("vectors", stream=stream, test_path="again.npy"))


def test_moments_of_streamed_rows_are_those_of_numpy(data):
    dataset = load(data("vectors", stream=True))
    moments = scaling.moments(dataset.examples, np.arange(N))
    np.testing.assert_allclose(moments.mean, VECTORS.mean(0))
    np.testing.assert_allclose(moments.deviation, VECTORS.std(0))


def test_rows_in_memory_keep_their_hash(data):
    record = plain(data("vectors"))
    assert "stream" not in record
    assert config_hash(record) != config_hash(plain(data("vectors", stream=True)))
