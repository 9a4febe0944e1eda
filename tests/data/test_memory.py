"""Rows in memory become a file that the reader of own files reads with the same bits."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from configs import shipped

from research.data import Dataset, load
from research.data.files.memory import NAME, rows_of
from research.tree import ConfigError, build

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3)) / 3
KIND = np.array(["cat", "dog", "cow", "emu"] * 10)


def read(folder: Path, *rows: Any, **named: Any) -> Dataset:
    """Write rows as a call does, and read them by `data=memory`."""
    file = rows_of(*rows, **named)
    assert NAME.fullmatch(file.name)
    (folder / file.name).write_bytes(file.content)
    keys = shipped("data", "memory") | {"scaling": "none", "root": str(folder), "path": file.name, **file.keys}
    return load(build(keys, key="data"))


def test_memory_is_the_recipe_of_own_files() -> None:
    assert shipped("data", "memory") == shipped("data", "arrays")


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (X, X),
        (X.astype(np.float32), X.astype(np.float32)),
        (X.astype(np.float16), X.astype(np.float16)),
        (X.T.copy().T, X),
        (X.tolist(), X),
        (list(X), X),
        (jnp.asarray(X), X.astype(np.float32)),
        (jnp.asarray(X, jnp.bfloat16), np.asarray(jnp.asarray(X, jnp.bfloat16).astype(jnp.float32))),
        (np.ma.masked_greater(X, 99), X),
        (X.astype(object), X),
        (np.round(X * 9).astype(np.int64), np.round(X * 9)),
        (RANDOM.integers(0, 255, (40, 8, 8), np.uint8), None),
        (RANDOM.integers(0, 2, (40, 8, 8)).astype(bool), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_keep_their_bits(x: Any, expected: Any, tmp_path: Path) -> None:
    expected = np.asarray(x) if expected is None else expected
    dataset = read(tmp_path, x)
    assert dataset.facts.kind == ("image" if expected.ndim == 3 else "vector")
    assert np.array_equal(dataset.examples.x.reshape(expected.shape), expected)


def test_classes_and_values_stand_beside_the_rows(tmp_path: Path) -> None:
    for y in (KIND, KIND.tolist(), pd.Series(KIND), pd.Series(KIND, dtype="category"), KIND.astype(object)):
        dataset = read(tmp_path, X, y)
        assert dataset.preparation.classes == ("cat", "cow", "dog", "emu")
        assert [dataset.preparation.classes[label] for label in dataset.examples.label] == list(KIND)
    values = read(tmp_path, X, X[:, 0] * 3)
    assert values.examples.target is not None
    assert np.array_equal(values.examples.target[:, 0], X[:, 0] * 3)


def test_tables_keep_columns_and_digits(tmp_path: Path) -> None:
    table = pd.DataFrame(X, columns=["a", "b, c", "ü"]).assign(kind=KIND)
    dataset = read(tmp_path, table, "kind")
    assert dataset.preparation.columns == ("a", "b, c", "ü")
    assert np.array_equal(dataset.examples.x, X)
    beside = read(tmp_path, table.drop(columns="kind"), KIND)
    assert beside.preparation.classes == dataset.preparation.classes
    assert np.array_equal(beside.examples.label, dataset.examples.label)
    numbered = read(tmp_path, pd.DataFrame(X))  # columns 0, 1 and 2
    assert numbered.preparation.columns == ("0", "1", "2")


def test_the_name_is_the_hash_of_the_content() -> None:
    name = rows_of(X, KIND).name
    assert rows_of(X.tolist(), list(KIND)).name == name
    assert rows_of(X.T.copy().T, pd.Series(KIND)).content == rows_of(X, KIND).content
    others = [rows_of(X), rows_of(X, KIND[::-1]), rows_of(X.astype(np.float32), KIND), rows_of(X + 1, KIND)]
    others.append(rows_of(X.reshape(40, 3, 1), KIND))
    assert len({name, *(rows.name for rows in others)}) == 1 + len(others)
    assert rows_of(pd.DataFrame(X)).name == rows_of(pd.DataFrame(X, index=range(5, 45))).name


def test_lists_of_unequal_sequences_are_padded() -> None:
    series = [RANDOM.normal(size=(length, 2)) for length in (3, 5, 4)]
    padded = np.load(as_file(rows_of(series).content))
    assert padded["x"].shape == (3, 5, 2)
    assert list(padded["lengths"]) == [3, 5, 4]
    for row, one in zip(padded["x"], series, strict=True):
        assert np.array_equal(row[: len(one)], one)
        assert not row[len(one) :].any()
    single = np.load(as_file(rows_of([one[:, 0] for one in series]).content))
    assert single["x"].shape == (3, 5, 1)
    assert rows_of(series).keys == {"key": "x", "lengths": "lengths"}


def as_file(content: bytes) -> Any:
    import io

    return io.BytesIO(content)


def test_an_error_about_the_file_names_the_argument(tmp_path: Path) -> None:
    rows = rows_of(np.where(X > 0.9, np.nan, X), KIND)
    file = f"{rows.name}, row 3"
    blamed = rows.blame(ConfigError("data.path", rows.name, f"{file}: fill it"))
    assert str(blamed) == "x=float64 [40, 3]: x, row 3: fill it"
    assert str(rows.blame(ConfigError("data.target", "y", "no"))) == "y=<U3 [40]: no"
    other = ConfigError("data.scaling", "unit", "no")
    assert rows.blame(other) is other
    assert str(rows.blame(ConfigError("data.columns", "a", f"{rows.name} has two"))) == "data.columns=a: x has two"


class Gradient:
    """A tensor as torch has it while it requires a gradient."""

    ndim = 1

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("use tensor.detach().numpy()")


@pytest.mark.parametrize(
    ("rows", "key", "text"),
    [
        ((list(np.ones((2, 4, 1))), [[0, 1, 2, 3], [0, 1]]), "y", "unequal lengths"),
        (([np.ones((4, 1)), np.ones((3, 1))], [[0, 1, 2, 3], [0, 1]]), "y", "unequal lengths"),
        ((np.ones((2, 4, 1)), None, [[4], [1, 2]]), "lengths", "unequal lengths"),
        ((np.ma.masked_array(["a", "b"], [True, False]),), "x", "only numbers can be masked"),
        ((np.ma.masked_array([1, 2], [True, False]).astype("datetime64[s]"),), "x", "only numbers can be masked"),
        ((Gradient(),), "x", "detach"),
        (([Gradient()],), "x", "detach"),
    ],
)
def test_what_would_be_read_as_other_rows_is_refused(rows: tuple[Any, ...], key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as refused:
        rows_of(*rows)
    assert refused.value.key == key


def test_values_of_each_step_have_the_lengths_of_their_sequences() -> None:
    series = [RANDOM.normal(size=(length, 2)) for length in (3, 5, 4)]
    file = np.load(as_file(rows_of(series, [steps[:, 0] for steps in series]).content))
    assert np.array_equal(file["y"], file["x"][..., 0])
    rows_of(file["x"], [steps[:, 0] for steps in series], [3, 5, 4])
