"""Sequences of your own in files of arrays: kinds, lengths, missing values, targets."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from configs import shipped

from research.data import Dataset, load
from research.data.preparation import Preparation
from research.sweep.job import Job
from research.tree import ConfigError, build, plain

RANDOM = np.random.default_rng(0)
N, T, C = 40, 9, 2
X = RANDOM.normal(5.0, 3.0, (N, T, C))
LENGTHS = RANDOM.integers(3, T + 1, N)
INSIDE = np.arange(T) < LENGTHS[:, None]


def arrays(**changes) -> Dataset:
    return load(recipe(**changes))


def recipe(**changes):
    return build(shipped("data", "arrays") | {"path": "x.npz"} | changes, key="data")


def refused(match: str, **changes) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        arrays(**changes)
    return caught.value


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -------------------------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((N, T), float, "vector"),
        ((N, T, C), np.uint8, "image"),
        ((N, T, C), bool, "image"),
        ((N, T, C, 3), float, "image"),
        ((N, T, C), float, "image"),
        ((N, T, C), np.float32, "image"),
        ((N, T, C), int, "image"),
    ],
)
def test_without_keys_the_shape_decides_as_it_always_did(shape, dtype, kind):
    np.save("x.npy", RANDOM.integers(0, 2, shape).astype(dtype))
    dataset = arrays(path="x.npy")
    assert dataset.facts.kind == kind
    hint = "x.npy is read as images of 9 by 2 pixels; if it holds sequences of 9 steps: data.kind=sequence"
    numbers = len(shape) == 3 and dtype not in (np.uint8, bool)
    assert (hint in dataset.notes) == numbers


@pytest.mark.parametrize(
    ("model", "shape", "dtype", "kind"),
    [
        ("lstm_ae", (N, T, C), float, "sequence"),
        ("recurrent_predictor", (N, T, C), np.float32, "sequence"),
        ("recurrent_vae", (N, T, C), int, "sequence"),
        ("lstm_ae", (N, T, C), np.uint8, None),
        ("lstm_ae", (N, T), float, None),
        ("vae", (N, T, C), float, None),
        ("convolutional_ae", (N, T, C), float, None),
    ],
)
@pytest.mark.parametrize("file", ["x.npy", "x.npz"])
def test_recurrent_models_take_numbers_of_three_axes_as_sequences(model, shape, dtype, kind, file):
    save = {"x.npy": np.save, "x.npz": lambda path, x: np.savez(path, x=x, other=x)}[file]
    save(file, RANDOM.integers(0, 5, shape).astype(dtype))
    config = {name: shipped(name, choice) for name, choice in SECTIONS.items()}
    config |= {"model": shipped("model", model), "data": shipped("data", "arrays") | {"path": file}}
    job = Job.from_config(config | {"seed": 0, "trusted_packages": []}, {}, ())
    assert job.data.kind == kind
    assert build(plain(job.data)) == job.data
    again = job.tree()
    again["data"]["root"] = None
    assert Job.from_config({**config, **again, "seed": 0, "trusted_packages": []}, {}, ()).hash == job.hash


SECTIONS = {"optimizer": "adam", "trainer": "default", "evaluation": "none"}


def test_a_file_that_cannot_be_read_is_refused_when_it_is_read(folder):
    assert recipe(path="none.npy").for_sequences().kind is None
    (folder / "x.npz").write_bytes(b"damaged")
    (folder / "x.npy").write_bytes(b"damaged")
    assert recipe().for_sequences() == recipe()
    assert recipe(path="x.npy").for_sequences().kind is None
    refused("no file", path="none.npy")


def test_the_new_keys_are_not_written_where_they_are_not_used():
    assert {"kind", "lengths"}.isdisjoint(plain(recipe()))
    assert plain(recipe(kind="sequence"))["kind"] == "sequence"


def test_a_key_decides_the_kind():
    np.savez("x.npz", x=X)
    dataset = arrays(kind="sequence")
    assert (dataset.facts.kind, dataset.facts.feature_shape, dataset.notes) == ("sequence", (T, C), ())
    assert dataset.split(None).shift.shape == (C,)
    rows = X[dataset.split(None).rows("train")]
    np.testing.assert_allclose(dataset.split(None).shift, rows.mean((0, 1)))
    np.testing.assert_allclose(dataset.split(None).scale, 1 / rows.std((0, 1)))
    assert not [note for note in arrays(kind="image").notes if "is read as images" in note]
    np.savez("flat.npz", x=X[..., 0])
    assert arrays(path="flat.npz", kind="sequence").facts.feature_shape == (T, 1)
    np.save("bytes.npy", RANDOM.integers(0, 256, (N, T, C), np.uint8))
    dataset = arrays(path="bytes.npy", kind="sequence", scaling="unit")
    assert (dataset.facts.kind, dataset.examples.x.dtype, dataset.facts.high) == ("sequence", np.uint8, 1.0)
    refused(r"expected \[N, D\], which data.kind=vector needs: save x.reshape", kind="vector")
    refused(r"expected \[N, H, W\] or", path="flat.npz", kind="image")
    Path("x.csv").write_text("a,b\n1.5,2\n2.5,3.5\n")
    assert refused("the rows of a table are vectors", path="x.csv", kind="sequence").key == "data.kind"


def test_an_array_named_x_holds_the_rows():
    np.savez("x.npz", a=X[:3], x=X)
    assert len(arrays().examples) == N
    assert len(arrays(key="a", test_fraction=0.3, validation_fraction=0.5).examples) == 3


# ------------------------------------------------------------------------------------------- lengths and missing values


def padded(value: float, **more) -> Dataset:
    """The data set of sequences whose padding has some value."""
    y = {name: np.array(array) for name, array in more.items()}
    for array in y.values():
        array[~INSIDE] = 0 if array.dtype.kind == "i" and not np.isfinite(value) else value
    np.savez(f"pad{value}.npz", x=np.where(INSIDE[..., None], X, value), lengths=LENGTHS, **y)
    (target,) = y or (None,)
    return arrays(path=f"pad{value}.npz", lengths="lengths", target=target)


@pytest.mark.parametrize("value", [np.nan, np.inf, -7.5, 1e30])
@pytest.mark.parametrize(
    "more",
    [{}, {"steps": RANDOM.normal(size=(N, T))}, {"several": RANDOM.normal(size=(N, T, 3))}],
    ids=["x", "value of a step", "values of a step"],
)
def test_padding_values_change_nothing(value, more):
    dataset, other = padded(0.0, **more), padded(value, **more)
    assert dataset.sha256 == other.sha256
    assert dataclasses.replace(dataset.facts) == other.facts
    np.testing.assert_array_equal(dataset.examples.length, LENGTHS)
    for split, again in zip(dataset.splits, other.splits, strict=True):
        for field in dataclasses.fields(split):
            np.testing.assert_array_equal(getattr(split, field.name), getattr(again, field.name))
    assert not [note for note in other.notes if "zeros" in note or "far outside" in note]


def test_padding_classes_change_nothing():
    classes = RANDOM.integers(0, 3, (N, T))
    dataset, other = padded(0, steps=classes), padded(99, steps=classes)
    assert dataset.sha256 == other.sha256
    assert (other.facts.target_classes, other.facts.target_shape) == (3, (T,))


def test_scaling_leaves_out_padding_and_missing_values():
    gaps = RANDOM.random(X.shape) < 0.2
    np.savez("x.npz", x=np.where(gaps, np.nan, X), lengths=LENGTHS)
    dataset = arrays(lengths="lengths")
    rows = dataset.split(None).rows("train")
    known = np.where(gaps | ~INSIDE[..., None], np.nan, X)[rows]
    np.testing.assert_allclose(dataset.split(None).shift, np.nanmean(known, (0, 1)))
    np.testing.assert_array_equal(dataset.examples.observed, ~gaps & INSIDE[..., None])
    np.testing.assert_array_equal(dataset.examples.mask, dataset.examples.observed)
    assert (dataset.split(None).prepare(dataset.examples).x[~dataset.examples.mask] == 0).all()


def test_numbers_that_mean_a_missing_value_are_masked():
    marked = RANDOM.random(X.shape) < 0.1
    np.savez("x.npz", x=np.where(marked, -9999, X))
    dataset = arrays(kind="sequence", missing=[-9999])
    np.testing.assert_array_equal(dataset.examples.observed, ~marked)
    np.savez("y.npz", x=np.where(marked, np.nan, X))
    assert arrays(path="y.npz", kind="sequence").sha256 == dataset.sha256
    assert "-9999 occurs" in arrays(kind="sequence").notes[0]
    assert "'data.missing=[-9999]'" in arrays(kind="sequence").notes[0]
    assert "-1 (data.missing) occurs nowhere in x.npz" in arrays(kind="sequence", missing=[-1]).notes
    refused("those of sequences are masked: data.kind=sequence", missing=[-9999])
    refused("missing values of sequences .* are masked: data.kind=sequence", path="y.npz")
    np.savez("single.npz", x=np.where(marked, -9999.9, X).astype(np.float32))
    np.testing.assert_array_equal(
        arrays(path="single.npz", kind="sequence", missing=[-9999.9]).examples.observed, ~marked
    )
    whole = np.where(marked, -9999, RANDOM.integers(0, 2, X.shape))
    np.savez("z.npz", x=whole)
    dataset = arrays(path="z.npz", kind="sequence", missing=[-9999])
    np.testing.assert_array_equal(dataset.split(None).scale, 1)  # 0 and 1 stay


@pytest.mark.parametrize(
    ("lengths", "problem"),
    [
        (np.zeros(N, int), r"row 0 \(from 0\) has the length 0; expected 1 to 9"),
        (np.where(np.arange(N) == 5, 10, 3), r"row 5 \(from 0\) has the length 10; expected 1 to 9"),
        (np.full(N, 3.0), "expected one whole number for each of 40 rows"),
        (np.full(N - 1, 3), "expected one whole number for each of 40 rows"),
        (np.full((N, T), 3), "expected one whole number for each of 40 rows"),
    ],
)
def test_wrong_lengths_are_refused(lengths, problem):
    np.savez("x.npz", x=X, lengths=lengths)
    assert refused(problem, lengths="lengths").key == "data.lengths"


def test_lengths_belong_to_sequences():
    np.savez("x.npz", x=X, lengths=np.full(N, T))
    assert arrays(lengths="lengths").examples.length is None
    assert "data.lengths=lengths" in arrays(kind="sequence").notes[0]
    assert refused("did you mean 'lengths'", lengths="length").key == "data.lengths"
    assert refused("data.kind=sequence", lengths="lengths", kind="image").key == "data.lengths"
    np.save("x.npy", X)
    assert refused("only .npz files", path="x.npy", lengths="lengths").key == "data.lengths"


def test_zeros_at_the_end_keep_their_note():
    np.savez("x.npz", x=np.where(INSIDE[..., None], X, 0))
    assert any("end in 2 or more steps of zeros" in note for note in arrays(kind="sequence").notes)


def test_what_can_be_no_sequence_is_refused():
    infinite = np.where(np.arange(N)[:, None, None] == 3, np.inf, X)
    np.savez("x.npz", x=infinite)
    refused(r"value inf at index \[3, 0, 0\]", kind="sequence")
    empty = np.where(np.arange(N)[:, None, None] == 3, np.nan, X)
    np.savez("x.npz", x=empty)
    refused(r"x.npz, row 3 \(from 0\) holds no value at all", kind="sequence")
    counted = np.concatenate([X, np.broadcast_to(np.arange(T)[:, None], (N, T, 1))], axis=2)
    np.savez("x.npz", x=counted)
    assert "channel 2 (from 0) grows by a constant step" in arrays(kind="sequence").notes[0]


# -------------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("y", "shape", "classes", "labels"),
    [
        (RANDOM.normal(size=N), (1,), 0, 0),
        (RANDOM.normal(size=(N, 1)), (1,), 0, 0),
        (RANDOM.normal(size=(N, 3)), (3,), 0, 0),
        (RANDOM.normal(size=(N, T)), (T, 1), 0, 0),
        (RANDOM.normal(size=(N, T, 3)), (T, 3), 0, 0),
        (np.arange(N * T).reshape(N, T) % 4, (T,), 4, 0),
        (np.arange(N) % 4 + 7, None, 0, 4),
        (np.array(["low", "high"] * (N // 2)), None, 0, 2),
        (RANDOM.integers(0, 2, (N, T, 3)), (T, 3), 0, 0),
    ],
    ids=str,
)
def test_a_target_is_read_by_its_shape(y, shape, classes, labels):
    np.savez("x.npz", x=X, y=y)
    facts = arrays(kind="sequence", target="y").facts
    assert (facts.target_shape, facts.target_classes, facts.classes) == (shape, classes, labels)
    assert not facts.target_follows


def test_values_are_scaled_on_training_rows_and_bits_are_not():
    y = np.stack([RANDOM.normal(1e6, 5e4, N), RANDOM.integers(0, 2, N)], axis=1)
    np.savez("x.npz", x=X, y=y)
    dataset = arrays(kind="sequence", target="y")
    split = dataset.split(None)
    np.testing.assert_allclose(split.target_shift, [y[split.rows("train"), 0].mean(), 0])
    np.testing.assert_allclose(split.target_scale, [1 / y[split.rows("train"), 0].std(), 1])
    prepared = np.asarray(split.prepare(dataset.examples).target)
    np.testing.assert_allclose(prepared / split.target_scale + split.target_shift, y, rtol=1e-6)
    none = arrays(kind="sequence", target="y", scaling="none").split(None)
    assert (none.target_shift, none.target_scale) == (0, 1)


def test_missing_values_of_steps_are_masked():
    y = np.where(RANDOM.random((N, T)) < 0.3, np.nan, RANDOM.normal(size=(N, T)))
    np.savez("x.npz", x=X, y=y, lengths=LENGTHS)
    dataset = arrays(lengths="lengths", target="y")
    np.testing.assert_array_equal(dataset.examples.target_observed[..., 0], np.isfinite(y) & INSIDE)
    rows = dataset.split(None).rows("train")
    known = np.where(INSIDE, y, np.nan)[rows]
    np.testing.assert_allclose(dataset.split(None).target_shift, [np.nanmean(known)])


@pytest.mark.parametrize(
    ("y", "task", "problem"),
    [
        (np.full(N, np.nan), None, "missing value"),
        (
            np.where(np.arange(N)[:, None] == 4, np.nan, 1.5) * np.ones((N, 3)),
            None,
            r"row 4 .*a value is missing",
        ),
        (np.where(np.arange(N)[:, None] == 4, np.nan, 1.5) * np.ones((N, T)), None, "no value of the target is known"),
        (np.where(np.arange(N)[:, None] == 4, np.inf, 1.5) * np.ones((N, T)), None, r"row 4 .*infinite"),
        (RANDOM.integers(1, 4, (N, T)), None, r"the classes of its steps are 1, 2, 3; number them from 0"),
        (RANDOM.integers(0, 90, (N, T)), None, "data.task=values or data.task=classes"),
        (RANDOM.integers(0, 4, (N, 3)), None, "3 values of every row: data.task=values"),
        (RANDOM.integers(0, 4, (N, 3)), "classes", "classes are one for each row"),
        (np.full((N, T), "a"), None, "it holds text"),
        (RANDOM.normal(size=(N, T + 1, 2)), None, r"expected \[40\], \[40, D\], \[40, 9\] or \[40, 9, D\]"),
        (RANDOM.normal(size=(N, T, 2, 2)), None, "expected"),
        (RANDOM.normal(size=(N - 1, T)), None, "expected one value for each of 40 rows"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, task, problem):
    np.savez("x.npz", x=X, y=y)
    assert refused(problem, kind="sequence", target="y", task=task).key == "data.target"


def test_vectors_and_images_have_one_target_for_each_row():
    np.savez("x.npz", x=X, y=RANDOM.normal(size=(N, T)))
    assert refused("only sequences have more: data.kind=sequence", target="y").key == "data.target"
    np.save("x.npy", X)
    assert "numpy.savez" in refused("only rows of shape", path="x.npy", target="0").remedy


# -------------------------------------------------------------------------------------------- second files and new rows


def test_a_second_file_may_hold_shorter_sequences():
    y = RANDOM.normal(size=(N, T))
    np.savez("x.npz", x=X, y=y)
    np.savez("test.npz", x=X[:6, :5] + 1, y=y[:6, :5])
    dataset = arrays(kind="sequence", test_path="test.npz", target="y")
    np.testing.assert_array_equal(dataset.examples.length, [T] * N + [5] * 6)
    np.testing.assert_array_equal(dataset.split(None).rows("test"), np.arange(N, N + 6))
    assert not dataset.examples.target_observed[-1, 5:].any()
    np.savez("test.npz", x=X[:6, :, :1], y=y[:6])
    refused(r"rows of shape \(9, 1\)", kind="sequence", test_path="test.npz", target="y")
    np.savez("test.npz", x=X[:6] + 1, y=y[:6, 0])
    refused("do not fit together", kind="sequence", test_path="test.npz", target="y")
    np.savez("test.npz", x=X[:6], y=y[:6])
    refused("6 of 6 test rows are among the training rows", kind="sequence", test_path="test.npz", target="y")


def test_new_rows_have_the_steps_of_training():
    trained = Preparation(kind="sequence", stored_shape=(T, C))
    np.savez("x.npz", x=X[:, :5])
    source = recipe(target="y").stored_for(trained)
    assert (source.kind, source.examples.x.shape, source.examples.target) == ("sequence", (N, T, C), None)
    np.testing.assert_array_equal(source.examples.length, np.full(N, 5))
    np.savez("x.npz", x=np.pad(X, ((0, 0), (0, 4), (0, 0))), n=LENGTHS, y=np.pad(X[..., 0], ((0, 0), (0, 4))))
    source = recipe(target="y", lengths="n").stored_for(trained)
    np.testing.assert_array_equal(source.examples.length, LENGTHS)
    np.testing.assert_array_equal(source.examples.target[..., 0], np.where(INSIDE, X[..., 0], 0))


def test_a_channel_without_any_value_is_refused():
    """Its reconstruction would mean nothing; the rows that lack a channel stay."""
    x = X.copy()
    x[:30, :, 1] = np.nan
    np.savez("x.npz", x=x)
    assert arrays(kind="sequence").facts.feature_shape == (T, C)
    x[:, :, 1] = -9999
    np.savez("x.npz", x=x)
    error = refused(r"x.npz, channel 1 \(from 0\) holds no value in any", kind="sequence", missing=[-9999])
    assert error.key == "data.path"


def test_the_plan_says_that_a_target_of_as_many_values_as_steps_is_read_step_by_step():
    for y, what in ((RANDOM.normal(size=(N, T)), "value"), (np.arange(N * T).reshape(N, T) % 3, "class")):
        np.savez("x.npz", x=X, y=y)
        text = f"target 'y' of shape [{N}, {T}] is read as one {what} for each of the {T} steps"
        assert text in arrays(kind="sequence", target="y").notes
