"""Files of your own."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from research.data import Dataset, load, readers
from research.tree import ConfigError, build

CONF = Path(__file__).parents[2] / "conf" / "data" / "arrays.yaml"
X = np.random.default_rng(0).permutation(36).reshape(12, 3).astype(np.float64)
KIND = np.array(["cat", "dog", "cow"] * 4)


def arrays(**changes) -> Dataset:
    return load(build(yaml.safe_load(CONF.read_text()) | {"scaling": "none"} | changes, key="data"))


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
        (("a,b", "1,2", "inf,4"), "columns", r"x\.csv, line 3, column 'a': 'inf' is not finite"),
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
    assert refused("name one: kind, unused, x|name one: x, kind, unused", path="mine.npz").key == "data.key"
    assert refused(r"did you mean 'mine\.csv'", path="mime.csv").key == "data.path"
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
