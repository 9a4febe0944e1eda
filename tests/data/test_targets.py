"""Targets: text is a class, fractions are values, whole numbers are either."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.data.columns import interpret, target_column
from research.data.files.reading import read_table
from research.data.files.table import PLAIN
from research.tree import ConfigError


def target(folder: Path, cells: Any, task: Any = None, **changes: Any):
    (folder / "x.csv").write_text("a,y\n" + "".join(f"0,{cell}\n" for cell in cells))
    table = read_table(folder / "x.csv", PLAIN)
    return interpret("y", table.column("y"), task, table.where, **changes)


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        (["oak", "ash"] * 5, None, ("ash", "oak")),
        ([2, 10, 1] * 5, None, ("1", "2", "10")),
        ([-1, 1] * 5, None, ("-1", "1")),
        ([*range(20)] * 2, None, tuple(map(str, range(20)))),
        ([*range(21)] * 2, "classes", tuple(map(str, range(21)))),
        (["True", "False"] * 5, None, ("False", "True")),
        (["1.0", "2.0"] * 5, "classes", ("1", "2")),
        (["0.5", "2.0"] * 5, "classes", ("0.5", "2")),
        (["1", "x"] * 5, "classes", ("1", "x")),
    ],
)
def test_classes_are_numbered_in_the_order_of_their_names_or_values(cells, task, classes, tmp_path):
    found = target(tmp_path, cells, task)
    assert found.classes == classes
    assert found.label.dtype == np.int32
    assert [classes[number] for number in found.label] == [str(cell).removesuffix(".0") for cell in cells]
    assert found.values is None


@pytest.mark.parametrize(
    ("cells", "task", "noted"),
    [(["0.5", "2.25"] * 5, None, False), ([*range(40)], "values", False), (["1.0", "2.0"] * 5, None, True)],
)
def test_values_are_numbers_as_stored(cells, task, noted, tmp_path):
    found = target(tmp_path, cells, task)
    np.testing.assert_array_equal(found.values[:, 0], np.asarray(cells, float))
    assert (found.label, found.classes) == (None, None)
    assert bool(found.notes) is noted


@pytest.mark.parametrize(
    ("cells", "task", "problem"),
    [
        (
            [*range(21)] * 2,
            None,
            "target=y: it holds 21 different whole numbers; .*data.task=values or data.task=classes",
        ),
        (["a", ""] * 5, None, "x.csv, line 3: an empty cell is a missing value"),
        (["a", "None"] * 5, None, "line 3: 'None' is a missing value; .*a class needs another name"),
        (["1", "2", "x"] * 5, None, "line 4: 'x' is text, and other rows hold numbers; .*data.task=classes"),
        (["a", "b"] * 5, "values", "task=values: x.csv, line 2: 'a' is not a number"),
        ([f"name {row}" for row in range(9)], None, "every row has another value"),
        ([*range(30)], "classes", "every row has another value"),
        (["2024-01-01", "2024-01-02"] * 5, None, "holds dates"),
        (["01", "1"] * 5, None, "'01' and '1' are one number"),
    ],
)
def test_what_is_neither_is_refused(cells, task, problem, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        target(tmp_path, cells, task)


def test_new_rows_may_hold_any_classes(tmp_path):
    assert target(tmp_path, ["a", "b", "c"], new_rows=True).classes == ("a", "b", "c")
    assert target(tmp_path, [*range(30)], new_rows=True).classes == tuple(map(str, range(30)))


def test_targets_of_arrays_are_columns():
    assert [target_column(np.asarray(stored)).kind for stored in ([1, 2], [1.0], ["a"], [True])] == [
        "integer",
        "float",
        "text",
        "bool",
    ]
    for dtype in ("int64", "uint64"):
        with pytest.raises(ConfigError, match=r"9007199254740993: row 1 \(from 0\) is beyond 2\^53"):
            target_column(np.array([1, 2**53 + 1], dtype))
