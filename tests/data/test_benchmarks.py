"""Published files of sequence benchmarks."""

import os

import numpy as np
import pytest
import scipy.io
from configs import shipped

from research.data import load
from research.tree import ConfigError, build


def recipe(name: str, root, **changes):
    return build(shipped("data", name) | {"root": str(root)} | changes, key="data")


@pytest.fixture
def arrays():
    """Arrays as `mnist1d.npz` has them, of a few rows."""
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(20, 40)).astype(np.float32),
        "y": np.arange(20) % 10,
        "x_test": random.normal(size=(5, 40)).astype(np.float32),
        "y_test": np.arange(5)[::-1],
        "t": np.linspace(-5, 5, 40),
    }


@pytest.mark.parametrize("folder", ["", "mnist1d"])
def test_mnist1d_keeps_its_test_part(tmp_path, arrays, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    np.savez(tmp_path / folder / "mnist1d.npz", **arrays)
    dataset = load(recipe("mnist1d", tmp_path))
    assert (dataset.facts.kind, dataset.facts.feature_shape, dataset.facts.classes) == ("sequence", (40, 1), 10)
    assert (dataset.facts.train_size, dataset.facts.validation_size, dataset.facts.test_size) == (18, 2, 5)
    np.testing.assert_array_equal(dataset.splits[0].rows("test"), np.arange(20, 25))
    np.testing.assert_array_equal(dataset.examples.x[20:, :, 0], arrays["x_test"])
    np.testing.assert_array_equal(dataset.examples.label[20:], arrays["y_test"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"x": None}, "x: mnist1d.npz has no such array"),
        ({"y_test": None}, "y_test: mnist1d.npz has no such array"),
        ({"y": np.arange(19)}, r"y.*one value for each of 20 rows"),
        ({"y": np.arange(20)}, "expected classes 0 to 9"),
        ({"x": np.full((20, 40), np.nan)}, "array x is float64.*finite"),
        ({"x_test": np.zeros((5, 39))}, "40 steps in x, but 39 in x_test"),
        ({"x": np.full((20, 40), None)}, "Python objects.*never loaded"),
    ],
)
def test_arrays_that_are_not_mnist1d_are_refused(tmp_path, arrays, changes, text):
    kept = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez(tmp_path / "mnist1d.npz", **kept)
    with pytest.raises(ConfigError, match=text) as caught:
        load(recipe("mnist1d", tmp_path))
    assert caught.value.key == "data.root"
    assert "mnist1d.npz" in str(caught.value)


def cells(*contents) -> np.ndarray:
    """A MATLAB row of cells."""
    row = np.empty((1, len(contents)), object)
    for index, content in enumerate(contents):
        row[0, index] = content
    return row


def rolls(lengths: list[int], seed: int) -> np.ndarray:
    """Binary cells [T, 88]."""
    random = np.random.default_rng(seed)
    return cells(*((random.random((length, 88)) < 0.05).astype(np.uint8) for length in lengths))


@pytest.fixture
def music(tmp_path):
    """Writes `JSB_Chorales.mat` with rolls of 7, 4, 5, then 3, then 6 and 2 frames."""
    content = {"traindata": rolls([7, 4, 5], 0), "validdata": rolls([3], 1), "testdata": rolls([6, 2], 2)}

    def write(**changes):
        kept = {name: row for name, row in (content | changes).items() if row is not None}
        scipy.io.savemat(tmp_path / "JSB_Chorales.mat", kept)
        return content

    write()
    return write


def test_rolls_keep_their_three_parts_and_are_padded(tmp_path, music):
    dataset = load(recipe("polyphonic", tmp_path, task="model"))
    examples, split = dataset.examples, dataset.splits[0]
    assert (examples.x.shape, examples.x.dtype, examples.target) == ((6, 7, 88), np.uint8, None)
    np.testing.assert_array_equal(examples.length, [7, 4, 5, 3, 6, 2])
    assert [sorted(split.rows(part)) for part in ("train", "validation", "test")] == [[0, 1, 2], [3], [4, 5]]
    np.testing.assert_array_equal(examples.x[1, :4], music()["traindata"][0, 1])
    np.testing.assert_array_equal(examples.x[5, :2], music()["testdata"][0, 1])
    assert not examples.x[1, 4:].any()


@pytest.mark.parametrize("scaling", ["none", "unit"])
def test_the_target_is_the_next_frame(tmp_path, music, scaling):
    dataset = load(recipe("polyphonic", tmp_path, task="next", scaling=scaling))
    examples = dataset.examples
    assert examples.x.shape == examples.target.shape == (6, 6, 88)
    np.testing.assert_array_equal(examples.length, [6, 3, 4, 2, 5, 1])
    for row, roll in enumerate(music()["traindata"][0]):
        np.testing.assert_array_equal(examples.x[row, : len(roll) - 1], roll[:-1])
        np.testing.assert_array_equal(examples.target[row, : len(roll) - 1], roll[1:])
        assert not examples.target[row, len(roll) - 1 :].any()
    prepared = dataset.splits[0].prepare(examples.take(np.arange(6)))
    assert prepared.x.dtype == prepared.target.dtype == np.float32
    np.testing.assert_array_equal(prepared.target, examples.target)
    assert not prepared.x[1, 3:].any(), "the last frame is a target only"
    assert (dataset.facts.low, dataset.facts.high) == (dataset.facts.target_low, dataset.facts.target_high) == (0, 1)
    assert (dataset.facts.target_shape, dataset.facts.target_classes) == ((6, 88), 0)


@pytest.mark.parametrize("task", ["next", "model"])
def test_pieces_of_a_roll_keep_every_frame_and_predict_it_once(tmp_path, music, task):
    dataset = load(recipe("polyphonic", tmp_path, task=task, piece=3))
    examples, split, rolls_of = dataset.examples, dataset.splits[0], music()
    lengths = {"next": [3, 3, 3, 3, 1, 2, 3, 2, 1], "model": [3, 3, 1, 3, 1, 3, 2, 3, 3, 3, 2]}[task]
    np.testing.assert_array_equal(examples.length, lengths)
    assert examples.x.shape == (len(lengths), 3, 88)
    shown = {"x": slice(None)} if task == "model" else {"x": slice(None, -1), "target": slice(1, None)}
    for part, name in (("train", "traindata"), ("validation", "validdata"), ("test", "testdata")):
        for field, frames in shown.items():  # the pieces of all rolls, one after the other, are the rolls
            rows = [getattr(examples, field)[row, : examples.length[row]] for row in sorted(split.rows(part))]
            np.testing.assert_array_equal(np.concatenate(rows), np.concatenate([r[frames] for r in rolls_of[name][0]]))


def test_long_pieces_cut_nothing_and_folds_of_pieces_are_refused(tmp_path, music):
    whole, pieces = (load(recipe("polyphonic", tmp_path, piece=piece)).examples for piece in (None, 6))
    np.testing.assert_array_equal(whole.x, pieces.x)
    np.testing.assert_array_equal(whole.length, pieces.length)
    with pytest.raises(ConfigError, match=r"pieces of one roll.*data.piece=null or data.folds=null") as caught:
        recipe("polyphonic", tmp_path, piece=6, folds=3, fold=0)
    assert caught.value.key == "data.piece"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"validdata": None}, "validdata is missing"),
        ({"validdata": np.zeros((3, 88))}, "validdata is missing or not a cell array"),
        ({"testdata": cells(np.full((4, 88), 2))}, r"testdata, sequence 0 \(from 0\): .*other values"),
        ({"traindata": cells(np.zeros((3, 88)), np.zeros((3, 87)))}, r"sequence 1 .*\(3, 87\)"),
        ({"traindata": cells(np.zeros((3, 88)), "text")}, "sequence 1 .*not a matrix of numbers"),
    ],
)
def test_other_contents_are_refused(tmp_path, music, changes, text):
    music(**changes)
    with pytest.raises(ConfigError, match=text) as caught:
        load(recipe("polyphonic", tmp_path))
    assert caught.value.key == "data.root"
    assert "JSB_Chorales.mat" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda content: content[:200], lambda content: b"", lambda content: b"x" * 300])
def test_damaged_files_are_refused(tmp_path, music, damage):
    path = tmp_path / "JSB_Chorales.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"JSB_Chorales.mat: "):
        load(recipe("polyphonic", tmp_path))


def test_a_roll_of_one_frame_has_no_next_frame(tmp_path, music):
    music(testdata=rolls([1, 5], 3))
    with pytest.raises(ConfigError, match="one frame") as caught:
        load(recipe("polyphonic", tmp_path, task="next"))
    assert caught.value.key == "data.task"
    assert load(recipe("polyphonic", tmp_path, task="model")).examples.length.min() == 1


@pytest.mark.parametrize(("name", "file"), [("mnist1d", "mnist1d.npz"), ("polyphonic", "JSB_Chorales.mat")])
def test_a_missing_file_is_named(tmp_path, name, file):
    for root, text in ((tmp_path, f"{file}.*is neither in this folder nor"), (tmp_path / "no", "no such folder")):
        with pytest.raises(ConfigError, match=text) as caught:
            load(recipe(name, root))
        assert caught.value.key == "data.root"
    with pytest.raises(ConfigError, match=f"put {file}.*data.root=FOLDER"):
        load(build(shipped("data", name)))


def test_an_edited_file_is_read_again(tmp_path, arrays):
    path = tmp_path / "mnist1d.npz"
    np.savez(path, **arrays)
    before = load(recipe("mnist1d", tmp_path))
    assert load(recipe("mnist1d", tmp_path)) is before
    np.savez(path, **arrays | {"x": arrays["x"] + 1})
    os.utime(path, ns=(1, 1))
    assert load(recipe("mnist1d", tmp_path)).sha256 != before.sha256
