"""What columns give away: features, row numbers, dates, marks of missing values, long tables."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from research.data.checks import far_repeats, grouped_notes, many_series
from research.data.columns import choose, grows_evenly, read_features
from research.data.files.reading import read_table
from research.data.files.table import PLAIN
from research.tree import ConfigError

RANDOM = np.random.default_rng(0)
DAYS = [f"2024-01-{day:02}" for day in range(1, 31)]


def table(folder: Path, columns: dict[str, Any], **form: Any):
    pandas.DataFrame(columns).to_csv(folder / "x.csv", index=False)
    return read_table(folder / "x.csv", dataclasses.replace(PLAIN, **form))


def normal(rows: int = 30) -> np.ndarray:
    return RANDOM.normal(size=rows).round(4)


@pytest.mark.parametrize(
    ("values", "even"),
    [
        (np.arange(30), True),
        (1700 + np.arange(30) / 12, True),
        (np.round(1749.042 + np.arange(30) / 12, 3), True),
        (-np.arange(30), True),
        (np.delete(np.arange(40), [3, 9, 10, 11, 25]), True),
        (np.cumsum(RANDOM.random(30)), False),
        (np.sort(RANDOM.normal(size=30)), False),
        (np.zeros(30), False),
        (RANDOM.permutation(30), False),
        (np.arange(3), False),
    ],
)
def test_row_numbers_and_times_grow_evenly(values, even):
    assert grows_evenly(np.asarray(values, float)) is even


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (np.arange(30), "column 'z' grows by a constant step .0, 1, ...."),
        (DAYS, "column 'z' holds dates"),
        (["01/02/2024"] * 30, "column 'z' holds dates"),
        ([day.replace("-", "") for day in DAYS], "column 'z' holds dates .20240101"),
        (["12:30"] * 30, "column 'z' holds dates"),
        (["x"] * 30, "line 2, column 'z': 'x' is not a number; the column holds text"),
    ],
)
def test_a_column_that_counts_dates_or_names_the_rows_is_no_feature_until_it_is_listed(content, problem, tmp_path):
    made = table(tmp_path, {"a": normal(), "z": content, "b": normal()})
    with pytest.raises(ConfigError, match=problem + r".*'data.columns=\[a,b\]'; if it is the target: data.target=z"):
        choose(made, None, {"target": None})
    with pytest.raises(ConfigError, match=r"if it is the time: data.time_column=z; else .*'data.columns=\[a,b\]'"):
        choose(made, None, {"time_column": None})
    assert choose(made, None, {"target": "z"})[0] == ["a", "b"]
    assert choose(made, ["z", "a"], {"target": None})[0] == ["z", "a"]


def test_a_column_with_the_name_of_a_time_that_grows_is_a_time(tmp_path):
    made = table(tmp_path, {"Date": np.cumsum(RANDOM.random(30)).round(3), "a": normal()})
    with pytest.raises(ConfigError, match="column 'Date' grows from row to row"):
        choose(made, None, {"time_column": None})


def test_the_index_of_pandas_is_left_out_with_a_note(tmp_path):
    frame = pandas.DataFrame({"a": normal(), "b": normal()})
    for name in (None, "Unnamed: 0"):
        frame.to_csv(tmp_path / "x.csv", index_label=name)
        chosen, notes = choose(read_table(tmp_path / "x.csv"), None, {"target": None})
        assert chosen == ["a", "b"]
        assert notes == ["the first column of x.csv only counts the rows (an index) and is left out"]
    frame.rename(columns={"a": "0", "b": "1"}).to_csv(tmp_path / "x.csv")  # names that are numbers
    assert choose(read_table(tmp_path / "x.csv"), None, {"target": None})[0] == ["0", "1"]
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"column 0 \(from 0\) has no name; .*index=False.*'data.columns=\[a,b\]'"):
        choose(read_table(tmp_path / "x.csv"), None, {"target": None})
    frame.set_index(pandas.Index(DAYS)).to_csv(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"index_label=time, then data.time_column=time"):
        choose(read_table(tmp_path / "x.csv"), None, {"time_column": None})
    frame.set_index(pandas.Index(RANDOM.permutation(30), name="id")).to_parquet(tmp_path / "x.parquet")
    chosen, notes = choose(read_table(tmp_path / "x.parquet"), None, {"target": None})
    assert chosen == ["a", "b"]
    assert notes == ["the index 'id' of x.parquet is left out; data.columns can list it"]


def test_the_columns_of_a_run_are_taken_by_name(tmp_path):
    made = table(tmp_path, {"b": [1.0], "y": ["oak"], "a": [2.0]})
    assert choose(made, None, {"target": "y"}, ("a", "b"))[0] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"columns=c: x.csv has no such column"):
        choose(made, None, {"target": "y"}, ("a", "c"))
    with pytest.raises(ConfigError, match=r"columns=b: x.csv has this column, and training had not"):
        choose(made, None, {"target": "y"}, ("a",))
    assert choose(made, ["a"], {"target": "y"}, ("a",))[0] == ["a"]  # columns were listed for training too
    pandas.DataFrame({"b": [1.0], "a": [2.0]}).to_csv(tmp_path / "x.csv")
    assert choose(read_table(tmp_path / "x.csv"), None, {}, ("a", "b"))[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([*normal(50), *[-9999] * 4], [(-9999, 4)]),
        ([*normal(50), *[-9999] * 4, *[-8888] * 3, *[9999] * 3], [(-9999, 4), (-8888, 3), (9999, 3)]),
        ([*RANDOM.uniform(1000, 1010, 50), *[0] * 9], [(0, 9)]),
        ([*normal(50), *[-9999] * 2], []),
        ([*normal(50), *[2.5] * 9], []),
        ([*RANDOM.integers(0, 5, 50)], []),
        ([*np.maximum(normal(50), 0)], []),
        ([0, 1] * 30, []),
        ([7] * 30, []),
        ([np.nan] * 30, []),
    ],
)
def test_values_that_repeat_far_outside_the_rest_are_marks(values, marks):
    assert far_repeats(np.asarray(values, float)) == marks


TWICE = DAYS * 2
LONG = {"id": ["A"] * 30 + ["B"] * 30, "day": TWICE, "y": normal(60)}


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (LONG, ("id", "day", 2)),
        (LONG | {"day": list(range(30)) * 2}, ("id", "day", 2)),
        (LONG | {"id": ["A", "B"] * 30, "day": np.repeat(DAYS, 2)}, ("id", "day", 2)),
        (LONG | {"id": [1] * 30 + [2] * 30}, ("id", "day", 2)),
        ({"store": [1] * 30 + [2] * 30, "t": list(range(30)) * 2, "y": normal(60)}, ("store", "t", 2)),
        ({"year": np.repeat(range(1950, 1955), 12), "month": [*range(1, 13)] * 5, "y": normal(60)}, None),
        ({"year": np.repeat(range(1950, 1955), 12), "month": ["Jan", "Feb", "Mar"] * 20, "y": normal(60)}, None),
        ({"day": np.repeat(["Mon", "Tue"], 24), "hour": [*range(24)] * 2, "y": normal(48)}, None),
        ({"time": range(60), "state": ["on", "off", "off"] * 20, "y": normal(60)}, None),
        ({"a": normal(60), "y": normal(60)}, None),
    ],
)
def test_long_tables_are_recognised_and_calendars_are_not(columns, found, tmp_path):
    assert many_series(table(tmp_path, columns), None) == found


@pytest.mark.parametrize(
    ("cells", "mark", "noted"),
    [
        (["1.854", "2.001", "987", "3.125"], "point", True),
        (["1,854", "2,001", "987", "3,125"], "comma", True),
        (["1.854", "2.001", "0.987", "3.125"], "point", False),
        (["1.854", "2.001", "3.1", "987"], "point", False),
        (["1.854", "2.001", "3.125", "4.000"], "point", False),  # all in thousands, or all fractions: one factor
    ],
)
def test_numbers_whose_thousands_may_be_grouped_are_noted(cells, mark, noted, tmp_path):
    (tmp_path / "x.csv").write_text("a;b\n" + "".join(f"{cell};x\n" for cell in cells))
    found = grouped_notes(
        read_table(tmp_path / "x.csv", dataclasses.replace(PLAIN, separator="semicolon", decimal=mark)), ["a"]
    )
    assert bool(found) == noted
    if noted:
        assert f"{cells[0]} beside 987 is read as a fraction" in found[0]


def test_parts_of_dates_are_no_channels_of_a_series_until_they_are_listed(tmp_path):
    content = {"year": np.repeat([2000, 2001], 12), "month": np.tile(np.arange(1, 13), 2), "a": normal(24)}
    read = table(tmp_path, content)
    with pytest.raises(ConfigError, match=r"'year' holds .* use, without year, month: 'data.columns=\[a\]'"):
        choose(read, None, {"time_column": None})
    assert choose(read, ["month", "a"], {"time_column": None})[0] == ["month", "a"]
    assert choose(read, None, {"target": None})[0] == ["year", "month", "a"]


def test_remedies_for_columns_do_not_repeat_names_and_name_what_can_be_read(tmp_path):
    (tmp_path / "twice.csv").write_text(",a,a\nx,1,2\ny,3,4\n")
    with pytest.raises(ConfigError, match=r"columns=a: .*more than one column of this name"):
        choose(read_table(tmp_path / "twice.csv"), None, {"target": None})
    read = table(tmp_path, {"a": normal(), "id": [2**60 + row for row in range(30)]})
    with pytest.raises(ConfigError, match=r"beyond 2\^53, .*list the columns to use: 'data.columns=\[a\]'"):
        choose(read, None, {"target": None})
    with pytest.raises(ConfigError, match=r"columns=id: .*leave it out: 'data.columns=\[a\]'"):
        choose(read, None, {"target": None}, trained=["a"], new_rows=True)


def test_one_remedy_names_all_columns_of_text(tmp_path):
    words = {name: ["x", "y"] * 15 for name in ("city", "shop name", "note")}
    read = table(tmp_path, {"a": normal(), **words, "b": normal()})
    remedy = r"use, without city, shop name, note: 'data.columns=\[a,b\]'"
    with pytest.raises(ConfigError, match=remedy + "; if one of them is the target, .* data.target=city$"):
        choose(read, None, {"target": None})
    with pytest.raises(ConfigError, match=r"data.time_column=city 'data.columns=\[a,b\]'; else list .*\[a,b\]'$"):
        choose(read, None, {"time_column": None})
    with pytest.raises(ConfigError, match=r"leave out city, note: 'data.columns=\[a\]'"):
        read_features(read, ["a", "city", "note"], {"target": None}, None)


def test_one_remedy_names_the_marks_of_missing_values_of_all_columns(tmp_path):
    values = [f"{value:.3f}" for value in range(28)]
    content = {"a": ["?", *values, "?"], "city": ["x", "y"] * 15, "b": [*values, "none given", "-"]}
    with pytest.raises(ConfigError) as caught:
        choose(table(tmp_path, content, missing=("x?", -9999.0)), None, {"target": None})
    marks = """'data.missing=["x?",-9999,"?","none given","-"]'"""
    assert str(caught.value).endswith(f"{marks}; and leave out city: 'data.columns=[a,b]'")
    content.pop("city")
    with pytest.raises(ConfigError, match="none given"):
        read_features(table(tmp_path, content), ["a", "b"], {"target": None}, None)
