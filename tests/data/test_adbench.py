"""Sets of ADBench, on a small file of the published form."""

import hashlib

import numpy as np
import pytest
from configs import shipped

from research.data import adbench
from research.data.loading import load, scored
from research.evaluation import anomaly, baselines
from research.tree import ConfigError, build

ANOMALOUS = np.arange(50) % 5 == 4


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with the set `plane`: 40 normal rows lie on a plane, 10 anomalous ones beside it and near their mean."""
    random = np.random.default_rng(0)
    x = 10 + random.normal(size=(50, 2)) @ np.array([[1.0, 0, 1], [0, 1, 1]])
    x[ANOMALOUS] = 10 + random.uniform(0.05, 0.1, (10, 1)) * np.array([1, 1, -1])
    path = tmp_path / "99_Plane.npz"
    np.savez(path, X=x, y=ANOMALOUS.astype(np.int64))
    monkeypatch.setitem(adbench.SETS, "plane", ("99_Plane", hashlib.sha256(path.read_bytes()).hexdigest()))
    return tmp_path


def recipe(root, **changes):
    return build(shipped("data", "adbench") | {"set": "plane", "root": str(root)} | changes, key="data")


def test_half_of_the_normal_rows_train_and_all_others_are_tested(root):
    dataset = load(recipe(root))
    split, label = dataset.split(None), dataset.examples.label
    assert (len(split.rows("train")), len(split.rows("validation")), len(split.rows("test"))) == (16, 4, 30)
    assert label.tolist() == ANOMALOUS.tolist()
    assert label[split.rows("test")].sum() == 10
    assert dataset.facts.anomaly
    assert dataset.notes == ()
    parts = scored(dataset, None)
    np.testing.assert_allclose(parts["train"].x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(parts["train"].x.std(0), 1, rtol=1e-5)
    assert abs(parts["validation"].x.mean()) > 1e-3, "scaling was fitted to other rows, too"


def test_the_split_seed_draws_the_rows(root):
    tests = [set(load(recipe(root, split_seed=seed)).split(None).rows("test").tolist()) for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]
    assert len(load(recipe(root, test_fraction=0.25)).split(None).rows("test")) == 20


def test_a_large_set_is_cut_and_says_so(root):
    dataset = load(recipe(root, most=30))
    assert len(dataset.examples) == 30
    assert dataset.notes == ("data.most=30 keeps 30 of 50 rows of plane",)
    whole = load(recipe(root)).examples.x.tolist()
    rows = [whole.index(row) for row in dataset.examples.x.tolist()]
    assert rows == sorted(rows)
    others = load(recipe(root, most=30, split_seed=1)).examples.x.tolist()
    assert others != dataset.examples.x.tolist()


def test_the_residual_of_components_finds_what_leaves_the_plane(root):
    parts = scored(load(recipe(root)), None)
    fitted, x, anomalous = baselines.components(parts["train"].x), parts["test"].x, parts["test"].label > 0
    assert anomaly.areas(anomaly.residual(fitted, x, 2), anomalous) == pytest.approx({"auroc": 1, "auprc": 1})
    assert anomaly.auroc(anomaly.residual(fitted, x, 0), anomalous) < 0.1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"set": "plain"}, r"set=plain: no such set \(did you mean 'plane'\?\); the sets are aloi, annthyroid"),
        ({"most": 1}, "most=1: "),
        ({"test_fraction": 0.001}, "test_fraction=0.001: of 40 normal rows this makes 0"),
    ],
)
def test_what_cannot_be_is_refused(root, changes, text):
    with pytest.raises(ConfigError, match=text):
        load(recipe(root, **changes))


def test_another_file_is_refused(root):
    with (root / "99_Plane.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigError, match="not the published file"):
        load(recipe(root))
