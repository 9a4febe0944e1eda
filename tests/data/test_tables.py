"""Files of your own."""

import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from configs import shipped

from research.data import Dataset, load
from research.data.files import arrays as readers
from research.tree import ConfigError, build

X = np.random.default_rng(0).permutation(36).reshape(12, 3).astype(np.float64)
KIND = np.array(["cat", "dog", "cow"] * 4)


def arrays(**changes) -> Dataset:
    return load(build(shipped("data", "arrays") | {"scaling": "none"} | changes, key="data"))


def refused(match: str, **changes) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        arrays(**changes)
    return caught.value


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(name: str, *lines: str) -> str:
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def write_table(name: str) -> dict[str, str]:
    """The same table in any format, and the keys that read it."""
    suffix = Path(name).suffix
    if suffix == ".npy":
        np.save(name, np.column_stack([X, np.unique(KIND, return_inverse=True)[1]]))
        return {"path": name, "target": "-1"}
    if suffix == ".npz":
        np.savez_compressed(name, x=X, kind=KIND, unused=X)
        return {"path": name, "key": "x", "target": "kind"}
    if suffix in (".csv", ".tsv"):
        rows = [f"{a},{kind}, {b},{c}" for (a, b, c), kind in zip(X, KIND, strict=True)]
        lines = ['"a",kind,b,"c"', *rows, "", ""]
        write_csv(name, *(line.replace(",", "\t" if suffix == ".tsv" else ",") for line in lines))
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {"a": X[:, 0].astype(np.int64), "kind": KIND.tolist(), "b": X[:, 1], "c": X[:, 2]}
        pyarrow.parquet.write_table(pyarrow.table(columns), name)
    return {"path": name, "target": "kind"}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".tsv", ".parquet"])
def test_all_formats_hold_the_same_data(suffix):
    task = "classes" if suffix == ".npy" else None  # a matrix of floats
    dataset = arrays(**write_table(f"mine{suffix}"), task=task)
    np.testing.assert_array_equal(dataset.examples.x, X)
    np.testing.assert_array_equal(dataset.examples.label, [0, 2, 1] * 4)
    assert (dataset.name, dataset.facts.kind, dataset.facts.classes) == ("mine", "vector", 3)
    assert dataset.examples.x.dtype == np.float64


def test_paths_start_from_root_and_links_are_followed(folder):
    (folder / "there").mkdir()
    np.save(folder / "there" / "real.npy", X)
    (folder / "there" / "link.npy").symlink_to("real.npy")
    np.testing.assert_array_equal(arrays(path="link.npy", root="there").examples.x, X)
    np.testing.assert_array_equal(arrays(path="there/link.npy").examples.x, X)


def test_an_edited_file_is_read_anew():
    np.save("x.npy", X)
    first = arrays(path="x.npy")
    assert arrays(path="x.npy") is first
    np.save("x.npy", np.concatenate([X, X]))
    assert len(arrays(path="x.npy").examples) == 24


def test_a_second_file_holds_the_test_rows():
    first = write_csv("first.csv", "a,kind", *(f"{i * i},{'xy'[i % 2]}" for i in range(8)))
    second = write_csv("second.csv", "kind,a", "w,8", "y,10")
    dataset = arrays(path=first, test_path=second, target="kind")
    np.testing.assert_array_equal(dataset.splits[0].rows("test"), [8, 9])
    np.testing.assert_array_equal(dataset.examples.label, [1, 2, 1, 2, 1, 2, 1, 2, 0, 2])
    np.testing.assert_array_equal(dataset.examples.x[-2:], [[8], [10]])
    refused("columns differ", path=first, test_path=write_csv("third.csv", "b,kind", "8,w"), target="kind")
    refused("text in one", path=first, test_path=write_csv("fourth.csv", "a,kind", "8,1"), target="kind")
    np.save("wide.npy", X)
    np.save("narrow.npy", X[:, :2])
    refused(r"shape \(2,\)", path="wide.npy", test_path="narrow.npy")


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [((12, 4, 5), np.uint8, "image"), ((12, 4, 5, 3), np.uint8, "image"), ((12, 4), bool, "vector")],
)
def test_bytes_stay_bytes(shape, dtype, kind):
    np.save("x.npy", np.ones(shape, dtype))
    dataset = arrays(path="x.npy", scaling="unit")
    assert (dataset.facts.kind, dataset.examples.x.dtype) == (kind, np.uint8)
    assert dataset.facts.feature_shape == shape[1:]


def test_a_target_of_fractions_is_a_value_and_a_factor():
    dataset = arrays(path=write_csv("x.csv", *(f"{i * i},{i / 4}" for i in range(8))), target="-1", header=False)
    assert dataset.examples.label is None
    np.testing.assert_array_equal(dataset.examples.factors, np.arange(8)[:, None] / 4)
    np.testing.assert_array_equal(dataset.examples.target, dataset.examples.factors)
    assert (dataset.facts.target_shape, dataset.facts.target_classes, dataset.facts.target_high) == ((1,), 0, 1.75)


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


def test_pickles_are_refused():
    trap = np.array([Trap(), 1], object)
    np.save("x.npy", trap, allow_pickle=True)
    refused("Python objects", path="x.npy")
    np.savez("x.npz", x=trap)
    refused("Python objects", path="x.npz")
    for name in ("y.npy", "y.npz"):
        Path(name).write_bytes(pickle.dumps(trap))
        refused("pickles are never loaded", path=name)
    with zipfile.ZipFile("z.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(trap))
    refused("pickles are never loaded", path="z.npz")
    assert not Path("unpickled").exists()


def test_damaged_and_foreign_files_are_refused(monkeypatch):
    np.save("x.npy", X)
    Path("short.npy").write_bytes(Path("x.npy").read_bytes()[:-8])
    refused("cut short", path="short.npy")
    np.savez("x.npz", x=X)
    Path("short.npz").write_bytes(Path("x.npz").read_bytes()[:-50])
    refused("damaged", path="short.npz")
    Path("x.parquet").write_text("no")
    refused("damaged", path="x.parquet")
    Path("x.csv").write_bytes(b"a,b\n\xff,2\n")
    refused(r"line 2: byte 4 .*utf-8", path="x.csv")
    np.savez_compressed("bomb.npz", x=np.zeros(200_000))
    monkeypatch.setattr(readers, "LARGEST", 100_000)
    refused("declare 1600128 bytes", path="bomb.npz")


@pytest.mark.parametrize(
    ("lines", "key", "text"),
    [
        (("a,b", "1,2", "3,x"), "columns", r"x\.csv, line 3, column 'b': 'x' is not a number"),
        (("a,b", "1,2", "", "3,nan"), "path", r"x\.csv, line 4, column 'b': the value is missing"),
        (("a,b", "1,", "3,4"), "path", r"x\.csv, line 2, column 'b': the value is missing"),
        (("a,b", "1,2", "inf,4"), "path", r"x\.csv, line 3, column 'a': 'inf' is not finite"),
        (("a,b", "1,2", "3"), "path", r"x\.csv, line 3: 1 values, but 2 in the first line"),
        (("a;b", "1;2"), "path", "data.separator=semicolon"),
        ((",a,b", "5,1,2", "3,1,2"), "columns", r"column 0 .* has no name; .*'data.columns=\[a,b\]'"),
        (("a,b",), "path", "nothing in it"),
        (("",), "path", "nothing in it"),
    ],
)
def test_what_is_wrong_in_a_csv_file_is_named_with_its_place(lines, key, text):
    error = refused(text, path=write_csv("x.csv", *lines))
    assert error.key == f"data.{key}"


def test_missing_values_in_arrays_are_named_with_their_place():
    x = X.copy()
    x[7, 1] = np.inf
    np.save("x.npy", x)
    refused(r"inf at index \[7, 1\]", path="x.npy")
    np.savez("x.npz", x=X, y=np.where(np.arange(12) == 5, np.nan, 0.5))
    assert refused(r"row 5 \(from 0\): nan is a missing value", path="x.npz", key="x", target="y").key == "data.target"
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, None, 2.0]}), "x.parquet")
    refused(r"row 1 \(from 0\), column 'a'", path="x.parquet")


def test_misspelt_names_get_the_nearest_one():
    for suffix, name in ((".csv", "kinds"), (".parquet", "kinds"), (".npz", "kinds")):
        keys = write_table(f"mine{suffix}") | {"target": name}
        error = refused("did you mean 'kind'", **keys)
        assert error.key == "data.target"
    np.savez("several.npz", a=X, b=X)
    assert refused("name one: a, b", path="several.npz").key == "data.key"
    assert refused(r"did you mean 'data\.path=mine\.csv'", path="mime.csv").key == "data.path"
    refused("no folder", path="nowhere/mine.csv")
    refused(r"ends in \.npy", path="mine.txt")
    refused(r"data\.path=my\.csv", path="???")
    refused(r"only \.npz", path="mine.csv", key="x")
    write_table("mine.npy")
    refused("from -4 to 3", path="mine.npy", target="4")
    refused("every row has another value", path="mine.npy", target="0", task="classes")


@pytest.mark.parametrize("shape", [(12,), (12, 3, 4, 4), (12, 2, 2, 2, 2), (0, 3)])
def test_shapes_without_meaning_are_refused(shape):
    np.save("x.npy", np.zeros(shape))
    refused("its shape is", path="x.npy")


@pytest.mark.parametrize("dtype", [complex, "U3", "datetime64[D]", [("a", float)]])
def test_values_that_are_no_numbers_are_refused(dtype):
    np.save("x.npy", np.zeros((4, 2), dtype))
    refused("expected numbers", path="x.npy")


# ---------------------------------------------------------------------------------- parts, repeated rows, 0 and 1


def labelled(name: str, classes: list[str], start: int = 0) -> str:
    random = np.random.default_rng(start)
    return write_csv(
        name, "a,b,kind", *(f"{a:.4f},{b:.4f},{kind}" for kind in classes for a, b in [random.normal(size=2)])
    )


def shares(dataset: Dataset, fold: int | None = None) -> dict[str, list[int]]:
    label, parts = dataset.examples.label, ("train", "validation", "test")
    return {part: np.bincount(label[dataset.split(fold).rows(part)], minlength=2).tolist() for part in parts}


def test_every_part_has_its_share_of_every_class():
    path = labelled("x.csv", ["common"] * 90 + ["rare"] * 10)
    assert shares(arrays(path=path, target="kind")) == {"train": [58, 6], "validation": [14, 2], "test": [18, 2]}
    for fold in range(4):
        found = shares(arrays(path=path, target="kind", folds=4, fold=fold), fold)
        assert (found["validation"], found["train"]) == ([18, 2], [54, 6])
    few = shares(arrays(path=labelled("few.csv", ["common"] * 198 + ["rare"] * 2), target="kind"))
    assert few["train"][1] == 1
    second = arrays(path=path, test_path=labelled("second.csv", ["common", "rare"], 1), target="kind")
    assert shares(second) == {"train": [72, 8], "validation": [18, 2], "test": [1, 1]}


def test_rows_of_the_training_file_are_no_test_rows(folder):
    path = labelled("x.csv", ["u", "v"] * 20)
    lines = Path(path).read_text().splitlines()
    (folder / "link.csv").symlink_to("x.csv")
    for other in ("x.csv", "./x.csv", "link.csv"):
        assert (
            refused("it holds the same rows as data.path=x.csv", path=path, test_path=other, target="kind").key
            == "data.test_path"
        )
    Path("copy.csv").write_text(Path(path).read_text())
    refused("it holds the same rows", path=path, test_path="copy.csv", target="kind")
    turned = write_csv("turned.csv", *(",".join(line.split(",")[::-1]) for line in [*lines[:4], "9,9,u"]))
    refused("3 of 4 test rows are among the training rows", path=path, test_path=turned, target="kind")
    np.save("a.npy", X)
    np.save("b.npy", np.concatenate([X[:2] + 0.5, X[3:5]]).astype(np.float32))
    refused("2 of 4 test rows", path="a.npy", test_path="b.npy")


def test_rows_that_repeat_anyway_give_a_note():
    rows = [f"{number // 2 % 2},{number % 2}" for number in range(20)]
    source = build(shipped("data", "arrays") | {"path": write_csv("x.csv", "a,b", *rows)}).stored()
    assert "20 of 20 rows occur more than once; copies may lie in training and test rows" in source.notes
    keys = {"path": "x.csv", "test_path": write_csv("y.csv", "a,b", "0,1")}
    source = build(shipped("data", "arrays") | keys).stored()
    assert "1 of 1 test rows are among the training rows; these have copies among themselves, too" in source.notes


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_truth_values_stay_0_and_1_under_every_scaling(scaling):
    random = np.random.default_rng(0)
    rows = [f"{x:.3f},{y > 0},{int(z > 1)},{w > 0:d}.0" for x, y, z, w in random.normal(size=(50, 4))]
    dataset = arrays(path=write_csv("x.csv", "a,b,c,d", *rows), scaling=scaling)
    split = dataset.split(None)
    np.testing.assert_array_equal(split.shift[1:3], 0)
    np.testing.assert_array_equal(split.scale[1:3], 1)
    assert split.scale[0] != 1
    np.testing.assert_array_equal(np.unique(split.prepare(dataset.examples).x[:, 1:3]), [0, 1])


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_pixels_of_0_and_1_stay_0_and_1(dtype):
    np.save("x.npy", np.random.default_rng(0).random((30, 4)) > 0.5)
    np.save("x.npy", np.load("x.npy").astype(dtype))
    for scaling in ("unit", "standard", "minmax", "none"):
        dataset = arrays(path="x.npy", scaling=scaling)
        assert set(np.unique(dataset.split(None).prepare(dataset.examples).x)) == {0, 1}


def test_numbers_stay_exact_until_they_are_scaled():
    rows = [f"{1e9 + number / 7:.6f},{number * number}" for number in range(50)]
    x = arrays(path=write_csv("x.csv", "a,b", *rows), columns=["a"], scaling="standard").examples.x
    assert x.dtype == np.float64
    assert len(np.unique(x)) == 50


def test_missing_values_that_are_named_are_refused_in_rows():
    lines = ["a,b", *(f"{number * number},{number % 7}" for number in range(1, 20)), "-9999,1", "NA,2"]
    path = write_csv("x.csv", *lines)
    refused(r"line 21, column 'a': the value is missing \(and in 1 other rows\)", path=path, missing=[-9999])
    np.save("x.npy", np.where(X == 3, -9999, X))
    refused("-9999.0 at index .* means a missing value", path="x.npy", missing=[-9999])


def test_a_header_of_numbers_needs_the_key():
    path = write_csv(
        "x.csv", "400,401", *(f"{a:.3f},{b:.3f}" for a, b in np.random.default_rng(0).normal(size=(20, 2)))
    )
    assert refused("data.header=true.*data.header=false", path=path).key == "data.header"
    assert arrays(path=path, header=True).examples.x.shape == (20, 2)
    assert arrays(path=path, header=False).examples.x.shape == (21, 2)


# ------------------------------------------------------------------------------------------------ rows for a run


def rows_for(path: str, columns: tuple[str, ...] | None, class_count: int, **keys):
    config = shipped("data", "arrays") | {"path": path} | keys
    trained = SimpleNamespace(columns=columns, classes=None, class_count=class_count, time_step=None)
    return build(config, key="data").stored_for(trained)


def test_new_rows_are_matched_by_name_and_need_no_division():
    path = write_csv("new.csv", "b,kind,a", "1,oak,2")
    source = rows_for(path, ("a", "b"), 3, target="kind")
    np.testing.assert_array_equal(source.examples.x, [[2, 1]])
    assert (source.columns, source.classes, source.examples.label.tolist()) == (("a", "b"), ("oak",), [0])
    source = rows_for(write_csv("bare.csv", "b,a", "1,2"), ("a", "b"), 3, target="kind")
    assert source.examples.label is None
    with pytest.raises(ConfigError, match=r"columns=kind: new.csv has this column, and training had not"):
        rows_for(path, ("a", "b"), 0)
    with pytest.raises(ConfigError, match=r"columns=c: new.csv has no such column"):
        rows_for(path, ("a", "c"), 0, target="kind")
    many = write_csv("many.csv", "a,price", *(f"{number},{number * 37}" for number in range(30)))
    assert rows_for(many, ("a",), 0, target="price").examples.target.shape == (30, 1)
    assert len(rows_for(many, ("a",), 30, target="price").classes) == 30
