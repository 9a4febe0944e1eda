"""Problems of the UCR and UEA archives."""

import os
from pathlib import Path

import numpy as np
import pytest
from configs import shipped

from research.data import load
from research.data.examples import Examples
from research.data.preparation import Preparation, pad
from research.tree import ConfigError, build

HEADER = """# A comment: with a colon
@problemName Waves
@timeStamps false
@missing false
@univariate true
@equalLength true
@seriesLength 4
@classLabel true up down
@data
"""
TRAIN = HEADER + "1,2,3,4:up\n4,3,2,1:down\n2,4,6,8:up\n8,6,4,2:down\n1,2,3,5:up\n5,3,2,1:down\n"
TEST = HEADER + "1,1,2,2:up\n2,2,1,1:down\n3,3,3,3:down\n"
TWO = HEADER.replace("@univariate true", "@univariate false\n@dimensions 2")
FREE = "@classLabel true a b\n@data\n"


def recipe(root, problem="Waves", **changes):
    config = shipped("data", "ucr") | {"problem": problem, "zscore": True} | changes
    return build(config | {"root": None if root is None else str(root)}, key="data")


def write(folder: Path, train: str, test: str, problem="Waves", suffix=".ts") -> Path:
    """Both files of a problem, in a folder of its name."""
    (folder / problem).mkdir(exist_ok=True)
    (folder / problem / f"{problem}_TRAIN{suffix}").write_text(train)
    (folder / problem / f"{problem}_TEST{suffix}").write_text(test)
    return folder


def test_the_test_file_is_the_test_part_and_classes_are_sorted(tmp_path):
    dataset = load(recipe(write(tmp_path, TRAIN, TEST), zscore=False, validation_fraction=0.34))
    examples, split = dataset.examples, dataset.splits[0]
    assert (examples.x.shape, examples.x.dtype) == ((9, 4, 1), np.float64)
    np.testing.assert_array_equal(examples.x[:3, :, 0], [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 6, 8]])
    np.testing.assert_array_equal(examples.label, [1, 0, 1, 0, 1, 0, 1, 0, 0])  # down is 0, up is 1
    assert list(split.rows("test")) == [6, 7, 8]
    assert (dataset.facts.train_size, dataset.facts.validation_size, dataset.facts.classes) == (4, 2, 2)
    assert (dataset.facts.kind, dataset.facts.anomaly, dataset.name) == ("sequence", False, "Waves")
    assert examples.length is None
    assert examples.observed is None


def test_the_folder_may_be_the_one_of_the_problem(tmp_path):
    write(tmp_path, TRAIN, TEST)
    assert load(recipe(tmp_path)).sha256 == load(recipe(tmp_path / "Waves")).sha256


def test_each_series_gets_mean_0_and_deviation_1_and_a_constant_one_0(tmp_path):
    x = load(recipe(write(tmp_path, TRAIN, TEST))).examples.x[..., 0]
    np.testing.assert_allclose(x[:8].mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(x[:8].std(1), 1, rtol=1e-6)
    np.testing.assert_allclose(x[0], np.asarray([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25), rtol=1e-6)
    np.testing.assert_array_equal(x[8], 0)


def test_a_note_says_what_z_scores_change(tmp_path):
    first_note = lambda **changes: load(recipe(tmp_path, validation_fraction=0.34, **changes)).notes[:1]
    write(tmp_path, TRAIN, TEST)
    assert first_note()[0].startswith("data.zscore=true: every channel of every series of Waves gets mean 0")
    assert first_note(zscore=False)[0].startswith("data.zscore=false: the series of Waves keep their level")
    wave = np.asarray([-1.5, -0.5, 0.5, 1.5])
    for divisor in (4, 3):  # of the squares: T, and T - 1
        rows = [",".join(map(str, wave / np.sqrt((wave**2).sum() / divisor)))] * 6
        text = FREE + "".join(f"{row}:{name}\n" for row, name in zip(rows, "ababab", strict=True))
        write(tmp_path, text, text)
        assert first_note()[0].startswith("the series of Waves have mean 0 and deviation 1 as stored;")
        assert not first_note(zscore=False)
    shifted = ",".join(map(str, wave / np.sqrt(1.25) + 0.02))
    write(tmp_path, text, f"{text}{shifted}:a\n")
    assert first_note()[0].startswith("data.zscore=true: every channel")


def test_a_constant_whose_mean_is_rounded_becomes_0():
    x, _ = pad([np.full((7, 1), 0.1), np.full((7, 1), 1e-30)])
    np.testing.assert_array_equal(Preparation(zscore=True).arrange(Examples(x=x)).x, 0)


def test_channels_lengths_and_missing_values(tmp_path):
    header = (
        "@problemName Two\n@timeStamps false\n@univariate false\n@equalLength false\n@classLabel true 2 10\n@data\n"
    )
    train = header + "1,2,3:10,20,30:2\n1,?,3,4,9:1,1,1,1,1:10\n1,3:NaN,?:2\n5,6,7:1,2,3:10\n"
    test = header + "1,2:3,4:10\n"
    examples = load(recipe(write(tmp_path, train, test, "Two"), "Two", zscore=False, validation_fraction=0.5)).examples
    assert examples.x.shape == examples.observed.shape == (5, 5, 2)
    np.testing.assert_array_equal(examples.length, [3, 5, 2, 3, 2])
    np.testing.assert_array_equal(examples.label, [0, 1, 0, 1, 1])  # numbers are sorted by value
    np.testing.assert_array_equal(examples.x[0, :3], [[1, 10], [2, 20], [3, 30]])
    np.testing.assert_array_equal(examples.mask[1], np.asarray([[1, 1], [0, 1], [1, 1], [1, 1], [1, 1]], bool))
    np.testing.assert_array_equal(examples.mask[2, :, 0], [True, True, False, False, False])
    assert not examples.mask[2, :, 1].any()
    assert np.isfinite(examples.x).all()
    scaled = load(recipe(tmp_path, "Two", zscore=True, validation_fraction=0.5)).examples
    seen = np.asarray([1.0, 3, 4, 9])
    np.testing.assert_allclose(scaled.x[1, [0, 2, 3, 4], 0], (seen - seen.mean()) / seen.std(), rtol=1e-6)
    assert not scaled.x[1, :, 1].any(), "a constant channel"
    assert not scaled.x[~scaled.mask].any()


def test_an_anomalous_class_is_in_no_training_or_validation_row(tmp_path):
    dataset = load(recipe(write(tmp_path, TRAIN, TEST), anomaly="down", validation_fraction=0.34))
    split, label = dataset.splits[0], dataset.examples.label
    assert dataset.facts.anomaly
    assert dataset.facts.classes == 2
    np.testing.assert_array_equal(label, [0, 1, 0, 1, 0, 1, 0, 1, 1])
    assert list(split.rows("test")) == [1, 3, 5, 6, 7, 8]
    assert sorted([*split.rows("train"), *split.rows("validation")]) == [0, 2, 4]
    with pytest.raises(ConfigError, match=r"did you mean 'down'.*its classes are: down, up") as caught:
        load(recipe(tmp_path, anomaly="dawn"))
    assert caught.value.key == "data.anomaly"


def test_one_class_alone_is_read(tmp_path):
    text = TRAIN.replace("down", "up").replace("up up", "up")
    dataset = load(recipe(write(tmp_path, text, text)))
    assert dataset.facts.classes == 1
    with pytest.raises(ConfigError, match="no series of another class"):
        load(recipe(tmp_path, anomaly="up"))


def test_series_without_classes_are_read(tmp_path):
    text = "@classLabel false\n@data\n" + "1,2,3\n" * 5
    dataset = load(recipe(write(tmp_path, text, text)))
    assert dataset.examples.label is None
    assert dataset.facts.classes == 0
    with pytest.raises(ConfigError, match="have no classes"):
        load(recipe(tmp_path, anomaly="1"))
    with pytest.raises(ConfigError, match="only one of its two files has classes"):
        load(recipe(write(tmp_path, text, TEST)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Waves_TRAIN.ts: it is empty"),
        ("# only a comment\n", "Waves_TRAIN.ts: it is empty"),
        (HEADER.replace("@data\n", ""), "Waves_TRAIN.ts: there is no @data line"),
        (HEADER, "Waves_TRAIN.ts: there are no series after @data"),
        (HEADER + "1,2,3,4:up\n1,2,3:down\n", "line 11: 3 steps, but the header says @seriesLength 4"),
        (HEADER + "1,2,3,4:up\n1,2,3,4:sideways\n", "line 11: class 'sideways' is not declared; .* up, down"),
        (HEADER + "1,2,3,4:dwn\n", r"line 10: class 'dwn' is not declared \(did you mean 'down'\?\)"),
        (HEADER + "1,2,3,4\n", "line 10: there is no class after the values"),
        (HEADER + ":up\n", r"line 10: '' \(value 1\) is not a finite number"),
        (HEADER + "up\n", "line 10: there are no values"),
        (HEADER + "1,2,3,4:1,2,3,4:up\n", "line 10: 2 channels, but the header says @univariate true"),
        (HEADER + "1,2,x,4:up\n", r"line 10: 'x' \(value 3\) is not a finite number"),
        (HEADER + "1,2,1_0,4:up\n", r"line 10: '1_0' \(value 3\)"),
        (HEADER + "1,2,3,inf:up\n", r"line 10: 'inf' \(value 4\)"),
        (HEADER + "1,?,3,4:up\n", "line 10: value 2 is missing, but the header says @missing false"),
        (TWO + "1,2,3,4:up\n", "line 11: 1 channels, but the header says 2"),
        (TWO + "1,2,3,4:1,2,3:up\n", "line 11: channel 2 has 3 steps, channel 1 has 4"),
        (FREE + "1,2:3,4:a\n1,2:b\n", "line 4: 1 channels, but 2 in the first series"),
        (FREE + "1,2:a\n?,?:b\n", "line 4: every value is missing"),
        ("@equalLength true\n" + FREE + "1,2:a\n1,2,3:b\n", "line 5: 3 steps, but 2 in the first series"),
        ("@timeStamps true\n" + FREE + "(0,1):a\n", "line 1: series with time stamps are not supported"),
        ("@targetLabel true\n@data\n1,2:0.5\n", "line 1: these are targets of a regression"),
        ("@problemName Waves\n@data\n1,2:a\n", "line 2: the header does not say @classLabel"),
        ("@classLabel true\n@data\n1,2:a\n", "line 1: @classLabel true must be followed by the names"),
        ("@classLabel a b\n@data\n1,2:a\n", "line 1: @classlabel must say true or false"),
        ("@dimensions two\n" + FREE, "line 1: @dimensions must be followed by one number"),
        ("@seriesLenth 4\n" + FREE, r"line 1: unknown header line @serieslenth \(did you mean 'serieslength'"),
        ("1,2,3:up\n", "line 1: values before the @data line"),
    ],
)
def test_a_file_that_contradicts_its_header_is_refused_by_line(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        load(recipe(write(tmp_path, text, TEST)))
    assert caught.value.key == "data.root"
    assert "Waves_TRAIN.ts" in str(caught.value)


def test_both_files_must_have_the_same_channels(tmp_path):
    with pytest.raises(ConfigError, match="1 channels for training but 2 for testing"):
        load(recipe(write(tmp_path, TRAIN, TWO + "1,2,3,4:1,2,3,4:up\n")))


def test_comments_need_not_be_utf_8(tmp_path):
    write(tmp_path, TRAIN, TEST)
    path = tmp_path / "Waves" / "Waves_TRAIN.ts"
    path.write_bytes(b"# Universit\xe9\r\n" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(recipe(tmp_path)).examples.x.shape == (9, 4, 1)


def test_tab_separated_files_have_the_class_first_and_are_filled_up_with_nan(tmp_path):
    train = "2\t1\t2\t3\tNaN\n10\t1\tNaN\t3\t4\n2\t5\t6\t7\t8\n10\t1\t1\t2\t2\n"
    dataset = load(recipe(write(tmp_path, train, "1.0e1\t4\t3\tNaN\tNaN\n", suffix=".tsv"), zscore=False))
    examples = dataset.examples
    np.testing.assert_array_equal(examples.length, [3, 4, 4, 4, 2])
    np.testing.assert_array_equal(examples.label, [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(examples.mask[1, :, 0], [True, False, True, True])
    np.testing.assert_array_equal(examples.x[0, :, 0], [1, 2, 3, 0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("1\t2\t3\n1\t2\n", "line 2: 1 values, but 2 in the first line"),
        ("1,2,3\n", "line 1: expected a class and values"),
        ("\t1\t2\t3\n", "line 1: expected a class and values"),
        ("1\t2\tx\n", r"line 1: 'x' \(value 2\)"),
        ("1\tNaN\tNaN\n", "line 1: every value is missing"),
    ],
)
def test_damaged_tab_separated_files_are_refused(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem):
        load(recipe(write(tmp_path, text, "1\t2\t3\n", suffix=".tsv")))


@pytest.fixture
def save(tmp_path):
    """Writes the four `.npy` files of a problem, some of them changed."""

    def write_arrays(**changes) -> Path:
        arrays = {
            "x_train": np.arange(20.0).reshape(5, 4),
            "y_train": np.asarray([1.0, 2, 3, 1, 2]),
            "x_test": np.ones((2, 4)),
            "y_test": np.asarray([3.0, 1]),
        }
        (tmp_path / "Waves").mkdir(exist_ok=True)
        for name, array in (arrays | changes).items():
            np.save(tmp_path / "Waves" / f"{name}.npy", array)
        return tmp_path

    return write_arrays


def test_array_files_are_read(save):
    dataset = load(recipe(save(), zscore=False))
    np.testing.assert_array_equal(dataset.examples.x[:5, :, 0], np.arange(20).reshape(5, 4))
    np.testing.assert_array_equal(dataset.examples.label, [0, 1, 2, 0, 1, 2, 0])
    assert list(dataset.splits[0].rows("test")) == [5, 6]
    assert load(recipe(save(), anomaly="3")).examples.label.tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert load(recipe(save() / "Waves", zscore=False)).sha256 == dataset.sha256


def test_fractions_beside_array_files_are_values_to_predict(save):
    dataset = load(recipe(save(y_train=np.arange(5) / 4, y_test=np.array([1, 2]))))
    np.testing.assert_array_equal(dataset.examples.target[:, 0], [0, 0.25, 0.5, 0.75, 1, 1, 2])
    assert dataset.examples.label is None
    assert (dataset.facts.target_shape, dataset.facts.target_classes, dataset.facts.classes) == ((1,), 0, 0)
    random = np.random.default_rng(0)
    many = {"x_train": random.normal(size=(800, 4)), "y_train": random.permutation(800) * 10.0}
    assert load(recipe(save(**many))).examples.target.shape == (802, 1)
    with pytest.raises(ConfigError, match=r"y_train.npy: 802 different whole numbers for 802 series; .* as floats"):
        load(recipe(save(**many | {"y_train": many["y_train"].astype(int), "y_test": np.array([1, 2])})))
    with pytest.raises(ConfigError, match=r"use text|beyond 2.53"):
        load(recipe(save(y_train=np.array([2**53 + 1, 2**53 + 3] * 2 + [1]))))
    with pytest.raises(ConfigError, match=r"y_test.npy: series 1 \(from 0\): its class or value is nan"):
        load(recipe(save(y_test=np.array([1, np.nan]))))


def test_array_files_of_another_problem_are_not_taken_for_it(save):
    with pytest.raises(ConfigError, match="no such folder"):
        load(recipe(save() / "Waves", "Gales"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"x_train": np.zeros(5)}, r"x_train.npy: float64 of shape \(5,\)"),
        ({"y_train": np.zeros(4)}, r"y_train.npy: float64 of shape \(4,\); expected a class or a value"),
        ({"x_train": np.full((5, 4), None)}, "x_train.npy: it holds Python objects; pickles are never loaded"),
        ({"x_test": np.asarray([[1, 2, 3, 4], [1, 2, 3, np.inf]])}, r"x_test.npy: series 1 \(from 0\): .*infinite"),
        ({"x_test": np.full((2, 4), np.nan)}, r"x_test.npy: series 0 \(from 0\): every value is missing"),
    ],
)
def test_other_arrays_are_refused(save, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        load(recipe(save(**changes)))


def test_without_a_folder_the_problems_of_aeon_are_read_and_aeon_is_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "aeon"
    (package / "datasets" / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write(package / "datasets" / "data", TRAIN, TEST)
    monkeypatch.syspath_prepend(tmp_path)
    assert load(recipe(None)).sha256 == load(recipe(package / "datasets" / "data")).sha256
    with pytest.raises(ConfigError, match=r"aeon brings no such problem along \(did you mean 'Waves'"):
        load(recipe(None, "Wave"))


def test_without_a_folder_and_without_aeon_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"data.root=FOLDER.*pip install aeon") as caught:
        load(recipe(None))
    assert caught.value.key == "data.root"


def test_missing_files_are_named(tmp_path):
    write(tmp_path, TRAIN, TEST)
    with pytest.raises(ConfigError, match=r"no such folder \(did you mean 'Waves'\?\)") as caught:
        load(recipe(tmp_path, "Wave"))
    assert caught.value.key == "data.problem"
    (tmp_path / "Waves" / "Waves_TEST.ts").unlink()
    with pytest.raises(ConfigError, match=r"must hold Waves_TRAIN.ts and _TEST.ts.*it holds: Waves_TRAIN.ts"):
        load(recipe(tmp_path))
    with pytest.raises(ConfigError, match="no such folder") as caught:
        load(recipe(tmp_path / "no"))
    assert caught.value.key == "data.root"


@pytest.mark.parametrize("problem", ["???", "", "../Waves", "a/b"])
def test_a_problem_must_be_named(problem):
    with pytest.raises(ConfigError, match=r"data\.problem=BasicMotions"):
        recipe(None, problem)


def test_an_edited_file_is_read_again(tmp_path):
    before = load(recipe(write(tmp_path, TRAIN, TEST)))
    assert load(recipe(tmp_path)) is before
    write(tmp_path, TRAIN, TEST.replace("1,1,2,2", "1,1,2,9"))
    os.utime(tmp_path / "Waves" / "Waves_TEST.ts", ns=(1, 1))
    assert load(recipe(tmp_path)).sha256 != before.sha256
