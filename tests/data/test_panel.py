"""Long tables of many series: windows, parts, gaps, equality with M4 and with a series of its own, refusals."""

import csv
import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
from configs import shipped

from research import app
from research.data.loading import load
from research.forecast import forecast_file
from research.runs.load import load as load_run
from research.tree import ConfigError, build

ROOT = Path(__file__).parents[2]
LENGTHS = {"north": 60, "east": 47, "south": 30}
FIRST = {"north": 0, "east": 1000, "south": 5000}  # value of the first step: channel `y` counts on from there
HOURS = np.datetime64("2021-03-01T00", "h")


def long(lengths: dict[str, int] = LENGTHS) -> pandas.DataFrame:
    """A table in which `y` counts the steps of each series from another thousand on, and `z` is noise."""
    pieces = []
    for number, (name, steps) in enumerate(lengths.items()):
        y = FIRST.get(name, 10_000 * number) + np.arange(steps)
        times = HOURS + (5 * number + np.arange(steps)).astype("m8[h]")
        z = np.random.default_rng(number).normal(5, 2, steps).round(3)
        pieces.append(pandas.DataFrame({"store": name, "hour": times, "y": y, "z": z}))
    return pandas.concat(pieces, ignore_index=True)


def keys(file: Path, **changes: Any) -> dict[str, Any]:
    own = {"path": str(file), "id_column": "store", "time_column": "hour", "values": ["y", "z"], "window": 6}
    return shipped("data", "panel") | own | changes


def data(file: Path, **changes: Any):
    return load(build(keys(file, **changes), key="data"))


def notes(file: Path, **changes: Any) -> tuple[str, ...]:
    return build(keys(file, **changes)).stored().notes


@pytest.fixture
def table(tmp_path: Path) -> Path:
    long().to_csv(tmp_path / "stores.csv", index=False)
    return tmp_path / "stores.csv"


def first_steps(dataset: Any, part: Any, field: str = "x") -> list[int]:
    """First step of every window of a part, from the channel that counts the steps."""
    rows = np.sort(dataset.split(None).rows(part))
    return getattr(dataset.examples.take(rows), field)[:, 0, 0].astype(int).tolist()


def counted(**ranges: tuple[int, int]) -> list[int]:
    return [FIRST[name] + step for name, bounds in ranges.items() for step in range(*bounds)]


# --------------------------------------------------------------------------------------------------- windows and parts


def test_windows_lie_in_one_series_and_in_one_block_of_it(table):
    dataset = data(table, time_column="hour")
    whole = dataset.examples.take(np.arange(len(dataset.examples)))
    np.testing.assert_array_equal(np.diff(whole.x[..., 0]), 1)
    assert whole.observed is None
    assert len(whole) == sum(steps - 5 for steps in LENGTHS.values())
    blocks = {name: (steps - round(0.2 * steps), steps) for name, steps in LENGTHS.items()}
    test = {name: (low, steps - 5) for name, (low, steps) in blocks.items()}
    assert first_steps(dataset, "test") == counted(**test)
    validation = {name: (low - round(0.2 * low), low - 5) for name, (low, _) in blocks.items()}
    assert first_steps(dataset, "validation") == counted(**validation)
    assert first_steps(dataset, "train") == counted(**{name: (0, low - 5) for name, (low, _) in validation.items()})
    assert (dataset.name, dataset.facts.kind, dataset.facts.feature_shape) == ("stores", "sequence", (6, 2))
    assert dataset.preparation.columns == ("y", "z")
    assert (dataset.preparation.time_column, dataset.preparation.time_step) == ("hour", "1 hour")


def test_steps_of_the_parts_are_numbers_where_they_are_given(table):
    dataset = data(table, horizon=2, test_steps=7, validation_steps=5)
    assert first_steps(dataset, "test", "target") == counted(**{key: (n - 7, n - 1) for key, n in LENGTHS.items()})
    assert first_steps(dataset, "validation", "target") == counted(
        **{key: (n - 12, n - 8) for key, n in LENGTHS.items()}
    )
    used = data(table, horizon=2, test_steps=7, validation_steps=5, test_size=4, validation_size=3)
    assert (used.facts.test_size, used.facts.validation_size) == (4, 3)
    assert used.facts.train_size == dataset.facts.train_size


def test_the_last_steps_of_every_series_are_held_back(table):
    dataset = data(table, split="last", horizon=4, stride=3, season=2)
    ends = {name: FIRST[name] + steps for name, steps in LENGTHS.items()}
    assert first_steps(dataset, "test", "target") == [end - 4 for end in ends.values()]
    assert first_steps(dataset, "validation", "target") == [end - 8 for end in ends.values()]
    training = [list(range(end - 12, FIRST[name] + 5, -3))[::-1] for name, end in ends.items()]
    assert first_steps(dataset, "train", "target") == [step for steps in training for step in steps]
    rows = dataset.split(None).rows("test")
    z = long().groupby("store", sort=False)["z"]
    expected = [np.abs(np.diff(np.asarray(values)[:-4])).mean() for _, values in z]
    lagged = [np.abs(np.asarray(values)[2:-4] - np.asarray(values)[:-6]).mean() for _, values in z]
    np.testing.assert_allclose(dataset.examples.naive_error[rows, 1], lagged, rtol=1e-6)
    without_season = data(table, split="last", horizon=4, stride=3)
    np.testing.assert_allclose(without_season.examples.naive_error[rows, 1], expected, rtol=1e-6)


def test_a_panel_of_one_series_is_that_series_but_for_the_denominator_of_mase(tmp_path):
    one = long({"north": 60})
    one.to_csv(tmp_path / "panel.csv", index=False)
    one.drop(columns="store").to_csv(tmp_path / "series.csv", index=False)
    settings: dict[str, Any] = {"window": 6, "horizon": 3, "stride": 2, "test_steps": 12}
    panel = data(tmp_path / "panel.csv", **settings)
    own = {"path": str(tmp_path / "series.csv"), "time_column": "hour", "columns": ["y", "z"], **settings}
    series = load(build(shipped("data", "series") | own))
    for field in ("x", "target"):
        first, second = getattr(panel.examples, field), getattr(series.examples, field)
        np.testing.assert_array_equal(first.series, second.series)
        np.testing.assert_array_equal(first.start, second.start)
    one_split, other = panel.split(None), series.split(None)
    for name in (field.name for field in dataclasses.fields(one_split)):
        np.testing.assert_array_equal(getattr(one_split, name), getattr(other, name))
    z = one["z"].to_numpy()
    np.testing.assert_allclose(panel.examples.naive_error[0, 1], np.abs(np.diff(z[:48])).mean(), rtol=1e-6)
    np.testing.assert_allclose(series.examples.naive_error[0, 1], np.abs(np.diff(z[:38])).mean(), rtol=1e-6)


def test_scaling_is_fitted_on_the_training_windows_of_all_series_each_step_once(table):
    dataset, content = data(table, horizon=2), long()
    low = {name: steps - round(0.2 * steps) for name, steps in LENGTHS.items()}
    training = [
        rows["z"].to_numpy()[: low[str(name)] - round(0.2 * low[str(name)])]
        for name, rows in content.groupby("store", sort=False)
    ]
    np.testing.assert_allclose(dataset.split(None).shift[1], np.concatenate(training).mean(), rtol=1e-12)
    np.testing.assert_allclose(1 / dataset.split(None).scale[1], np.concatenate(training).std(), rtol=1e-12)
    np.testing.assert_array_equal(dataset.split(None).target_shift, dataset.split(None).shift)


@pytest.mark.parametrize("split", ["steps", "last"])
def test_rows_of_series_may_be_mixed_and_the_file_may_be_parquet(table, split, tmp_path):
    mixed = long().drop(columns="y")
    mixed = mixed.iloc[np.lexsort([-mixed["store"].map(len), mixed.groupby("store").cumcount()])]  # series by turns
    mixed["region"] = mixed["store"].str[0]
    mixed.to_parquet(tmp_path / "stores.parquet", index=False)
    mixed.set_index(["store", "hour"]).to_parquet(tmp_path / "indexed.parquet")
    order = mixed["store"].unique()
    assert list(order) == ["north", "south", "east"]
    for path in (tmp_path / "stores.parquet", tmp_path / "indexed.parquet"):
        panel = build(keys(path, values=None, horizon=3, split=split))
        content = panel.read_series()
        assert list(content.series) == list(order)
        assert content.names == ["z"]
        for name, rows in build(keys(table, values=["z"])).read_series().series.items():
            np.testing.assert_array_equal(content.series[name], rows)
        assert content.notes == [f"{path.name}: columns of text are left out: region"]
        assert load(panel).facts.target_shape == (3, 1)


def test_a_table_without_names_has_numbered_columns(table, tmp_path):
    content = long()[["z", "store", "hour"]]
    content.insert(0, "region", "somewhere")
    content.to_csv(tmp_path / "plain.csv", index=False, header=False)
    numbered = {"header": False, "id_column": -2, "time_column": -1}
    for values in (None, ["1"]):
        panel = build(keys(tmp_path / "plain.csv", values=values, **numbered)).read_series()
        assert panel.names == ["1"]
        for name, rows in build(keys(table, values=["z"])).read_series().series.items():
            np.testing.assert_array_equal(panel.series[name], rows)


def test_missing_steps_and_values_are_masked_within_each_series(tmp_path):
    content = long().drop(index=[3, 4, 70])  # of the first series, and of the second
    content.loc[110, "z"] = np.nan
    content.to_csv(tmp_path / "gaps.csv", index=False)
    dataset = data(tmp_path / "gaps.csv", horizon=2)
    whole = dataset.examples.take(np.arange(len(dataset.examples)))
    assert dataset.examples.x.series.shape == (sum(LENGTHS.values()), 2)
    missing = np.argwhere(~dataset.examples.observed.series).tolist()
    assert missing == [[3, 0], [3, 1], [4, 0], [4, 1], [70, 0], [70, 1], [110, 1]]
    steps = np.where(whole.observed[..., 0], whole.x[..., 0] - np.arange(6), np.nan)
    assert np.nanmax(np.nanmax(steps, 1) - np.nanmin(steps, 1)) == 0  # gaps keep the other steps in their place
    assert dataset.notes[0] == ("3 of 137 steps of 1 hour are missing and masked, the first after gaps.csv, line 4")
    seen = dataset.split(None).prepare(whole)
    assert (seen.x[~whole.observed] == 0).all()


# ------------------------------------------------------------------------------------------------------- short series


def test_a_series_that_lacks_steps_is_tested_with_a_masked_beginning(tmp_path):
    long({"north": 60, "east": 14, "south": 5}).to_csv(tmp_path / "x.csv", index=False)
    dataset = data(tmp_path / "x.csv", split="last", window=8, horizon=3, season=2, time_column="hour")
    split = dataset.split(None)
    assert first_steps(dataset, "test", "target") == [57, 1011, 5002]
    test = dataset.examples.take(split.rows("test"))
    np.testing.assert_array_equal(test.observed[..., 0].sum(1), [8, 8, 2])
    np.testing.assert_array_equal(test.observed[2, :, 0], np.arange(8) >= 6)
    assert test.target_observed.all()
    assert first_steps(dataset, "validation", "target") == [54, 1008]
    assert sorted(first_steps(dataset, "train", "target"))[-1] == 1005  # two steps lie before its target
    assert dataset.notes == (
        "2 of 3 series are too short for a whole window of each part, and what their windows lack at the beginning is "
        "masked: east, south",
        "1 of 3 series have no training window: south",
        "1 of 3 series have no validation window: south",
        "2 of 52 windows hold no value at all and are left out",
        "1 of 3 series have no naive error before their test steps (too short or constant), so that the MASE of all is "
        "infinite or unknown: south",
    )


def test_a_series_without_a_window_of_a_part_is_named(tmp_path):
    long({"north": 60, "east": 14, "south": 5}).to_csv(tmp_path / "x.csv", index=False)
    assert notes(tmp_path / "x.csv") == (
        "1 of 3 series have no training window: south",
        "2 of 3 series have no validation window: east, south",
        "2 of 3 series have no test window: east, south",
    )
    long({"east": 14, "south": 5}).to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(ConfigError, match="no series has a validation window: the longest has 14 steps") as caught:
        data(tmp_path / "short.csv")
    assert caught.value.key == "data.window"


def test_a_window_that_most_series_cannot_fill_is_refused(tmp_path):
    long({"north": 60, "east": 14, "south": 5}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(
        ConfigError, match=r"half of the 3 series have no more than 11 steps .*data.window=9$"
    ) as caught:
        data(tmp_path / "x.csv", split="last", window=12, horizon=3)
    assert caught.value.key == "data.window"
    assert data(tmp_path / "x.csv", split="last", window=9, horizon=3).facts.test_size == 3


# ------------------------------------------------------------------------------------------------------- rows for a run


def test_new_steps_are_matched_by_name_and_need_no_parts(tmp_path):
    trained: Any = SimpleNamespace(
        columns=("z", "y"), classes=None, class_count=0, time_step="1 hour", covariates=None, series=None
    )
    content = long({"a": 9, "b": 4, "c": 8})
    content.to_csv(tmp_path / "new.csv", index=False)
    source = build(keys(tmp_path / "new.csv", values=None, horizon=2)).stored_for(trained)
    assert source.examples.x.shape == (3, 6, 2)
    np.testing.assert_array_equal(source.examples.x[:][:, 0, 1], [0, 1, 20_000])
    assert (source.test, source.unused, source.examples.naive_error) == (None, None, None)
    ends = build(keys(tmp_path / "new.csv", values=None)).ends(trained).series
    assert [(end.name, len(end.values), *end.later(2)) for end in ends if end.later is not None] == [
        ("a", 9, "2021-03-01 09:00:00", "2021-03-01 10:00:00"),
        ("b", 4, "2021-03-01 09:00:00", "2021-03-01 10:00:00"),
        ("c", 8, "2021-03-01 18:00:00", "2021-03-01 19:00:00"),
    ]
    np.testing.assert_array_equal(ends[2].values[:, 1], 20_000 + np.arange(8))
    assert source.notes == ("1 of 3 series have no window, because they are too short: b",)
    with pytest.raises(ConfigError, match=r"the longest series has 9 steps, and a window needs 8 \+ 2 steps"):
        build(keys(tmp_path / "new.csv", window=8, horizon=2)).stored_for(trained)
    trained.time_step = "1 day"
    with pytest.raises(ConfigError, match="a step is 1 day"):
        build(keys(tmp_path / "new.csv")).stored_for(trained)
    trained.columns = ("y",)
    with pytest.raises(ConfigError, match=r"values=z: new.csv has this column, and training had not"):
        build(keys(tmp_path / "new.csv", values=None)).stored_for(trained)


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"id_column": None}, "id_column", "data=panel data.id_column=store data.time_column=hour$"),
        ({"id_column": "shop"}, "id_column", r"no such column.*; its columns are: store, hour, y, z"),
        ({"id_column": "z"}, "id_column", "it holds fractions"),
        ({"id_column": "hour", "time_column": None}, "id_column", "it holds dates .*data.time_column"),
        ({"id_column": "store", "time_column": "our"}, "time_column", "did you mean 'hour'"),
        ({"values": None, "time_column": None}, "values", "'hour' holds dates; .*data.time_column=hour"),
        ({"values": ["y", "q"]}, "values", "no such column"),
        ({"values": ["y", "store"]}, "values", "this is data.id_column, which is not part of x"),
        ({"values": []}, "values", "at least one"),
        ({"folds": 3, "fold": 0}, "folds", "windows overlap"),
        ({"scaling": "unit"}, "scaling", "standard"),
        ({"split": "last"}, "split", "data.horizon=24; data.split=steps needs no horizon"),
        ({"split": "last", "horizon": 2, "test_steps": 4}, "test_steps", "data.test_steps=null"),
        ({"season": 48, "horizon": 2}, "season", "no series has more than 48 steps before its test steps"),
        ({"test_steps": 500}, "test_steps", "steps, and none is left for training; make data.test_steps smaller"),
        ({"test_steps": 50, "validation_steps": 50}, "validation_steps", "make data.validation_steps smaller"),
        ({"horizon": 20}, "window", "no series has a validation window"),
        ({"path": "none.csv"}, "path", "no file"),
        ({"path": "mine.txt"}, "path", ".parquet"),
    ],
)
def test_settings_that_do_not_fit_the_table_are_refused(changes, key, remedy, table):
    with pytest.raises(ConfigError, match=remedy) as caught:
        data(table, **changes)
    assert caught.value.key == f"data.{key}"


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"hour": {70: "2021-03-01T14"}}, "time_column", "stores.csv, line 72, series 'east': .* occurs twice"),
        ({"hour": {70: "2021-03-01T02"}}, "time_column", "line 72, series 'east': .* does not come after the row"),
        ({"hour": {70: "2021-03-01T14:30"}}, "time_column", "line 72, series 'east': .* a step is 1 hour"),
        ({"hour": {70: ""}}, "time_column", "stores.csv, line 72: the time is missing"),
        ({"store": {70: ""}}, "id_column", "stores.csv, line 72: the name of the series is missing"),
        ({"z": {70: "x"}}, "path", "stores.csv, line 72, column 'z': 'x' is not a number"),
        ({"z": dict.fromkeys(range(137), "3")}, "values", r"constant \(3\) in the training .* no other channel"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_cells_that_cannot_be_used_are_refused_by_line(changes, key, remedy, listed, tmp_path):
    content = long().drop(columns="y").astype(str)
    for column, cells in changes.items():
        for row, cell in cells.items():
            content.loc[row, column] = cell
    content.to_csv(tmp_path / "stores.csv", index=False)
    with pytest.raises(ConfigError, match=remedy) as caught:
        data(tmp_path / "stores.csv", values=["z"] if listed else None)
    assert caught.value.key == f"data.{key}"


def test_a_column_that_counts_the_rows_of_each_series_is_no_channel(tmp_path):
    content = long()
    content["t"] = content.groupby("store").cumcount()
    content.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ConfigError, match=r"'y' grows by a constant step .*'data.values=\[z\]'") as caught:
        data(tmp_path / "x.csv", values=None)
    assert caught.value.key == "data.values"
    content.drop(columns="y").to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ConfigError, match=r"'t' grows by a constant step"):
        data(tmp_path / "x.csv", values=None)
    content[["store", "t", "z"]].to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ConfigError, match=r"if it is the time: data.time_column=t;"):
        data(tmp_path / "x.csv", values=None, time_column=None)


def test_names_of_series_are_kept_as_they_are_written(tmp_path):
    content = long()
    content["store"] = content["store"].map({"north": "01", "east": "1", "south": "2"})
    content.to_csv(tmp_path / "x.csv", index=False)
    assert list(build(keys(tmp_path / "x.csv")).read_series().series) == ["01", "1", "2"]
    content["store"] = content["store"].map({"01": 7, "1": 12345678901, "2": -3})
    content.to_parquet(tmp_path / "x.parquet", index=False)
    assert list(build(keys(tmp_path / "x.parquet")).read_series().series) == ["7", "12345678901", "-3"]


def test_series_of_another_step_are_refused(tmp_path):
    content = long()
    daily = content["store"] == "south"
    start = content.loc[daily, "hour"].iloc[0]
    content.loc[daily, "hour"] = start + pandas.to_timedelta(np.arange(daily.sum()), unit="D")
    content.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ConfigError, match="its rows are 1 day apart; series 'north' has steps of 1 hour") as caught:
        data(tmp_path / "x.csv")
    assert caught.value.key == "data.time_column"


def test_an_edited_file_is_read_again(table):
    before = data(table)
    assert data(table) is before
    long({**LENGTHS, "north": 80}).to_csv(table, index=False)
    assert len(data(table).examples) == len(before.examples) + 20


# ----------------------------------------------------------------------------------------------- the remedy, the README


def test_the_settings_that_data_series_names_read_the_table(tmp_path):
    content = long().rename(columns={"store": "store no", "hour": "ds"})
    content.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ConfigError, match=r"holds 3 series one below the other") as caught:
        load(build(shipped("data", "series") | {"path": str(tmp_path / "x.csv"), "window": 6}))
    pasted = re.search(r"write (data=panel .*) \(its", str(caught.value))
    assert pasted is not None
    words = shlex.split(pasted[1])
    assert words == ["data=panel", 'data.id_column="store no"', "data.time_column=ds"]
    given = {word.partition("=")[0][5:]: word.partition("=")[2].strip('"') for word in words[1:]}
    assert data(tmp_path / "x.csv", **given).facts.feature_shape == (6, 2)


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, Any]:
    """Type a training command in a folder; the content of its only result."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", *words, "sweep.mode=map"])
    app.statuses.clear()
    code = 0
    try:
        app.main()
    except SystemExit as ended:
        code = ended.code
    assert not code
    (result,) = folder.glob("outputs/*/*/result.json")
    return json.loads(result.read_text())


def test_the_command_of_the_readme_trains_on_a_long_table(tmp_path, monkeypatch):
    text = (ROOT / "research" / "data" / "README.md").read_text()
    command = next(
        line for line in text.replace("\\\n", " ").splitlines() if line.startswith("python scripts/train.py data=panel")
    )
    words = shlex.split(command, comments=True)[2:]
    lines = ["store,day,sales"]
    for number, store in enumerate("ABC"):
        days = np.arange(120 - 10 * number)
        sales = 50 + 5 * number + 20 * np.sin(2 * np.pi * days / 7 + number)
        lines += [f"{store},{np.datetime64('2024-01-01') + np.timedelta64(day, 'D')},{sales[day]:.2f}" for day in days]
    (tmp_path / "sales.csv").write_text("\n".join(lines) + "\n")
    fast = ("trainer.epochs=1", "evaluation=none", "model.hidden_dim=2", "name=panel")
    result = call(monkeypatch, tmp_path, *words, *fast)
    assert result["status"] == "completed"
    dataset = load(
        build(keys(tmp_path / "sales.csv", time_column="day", values=None, split="last", window=28, horizon=7))
    )
    assert dataset.facts.test_size == 3
    (run,) = (path.parent for path in tmp_path.glob("outputs/panel/*/result.json"))
    columns, _ = forecast_file(load_run(run), ["data.path=sales.csv"])
    assert columns["series"].tolist() == [store for store in "ABC" for _ in range(7)]
    assert columns["time"][[0, 7, 14]].tolist() == ["2024-04-30", "2024-04-20", "2024-04-10"]
    assert np.isfinite(columns["forecast"]).all()


# ------------------------------------------------------------------------------------------------------ M4 in long form


def m4_files(folder: Path) -> None:
    """Files of the form of M4 Hourly, whose values float32 does not hold exactly."""
    random, header = np.random.default_rng(0), ",".join(f'"V{number}"' for number in range(1, 300))
    series = {f"H{number}": random.normal(500, 90, 230 + 9 * number).round(1).astype(str) for number in range(4)}
    for part, cut in (("train", slice(None, -48)), ("test", slice(-48, None))):
        rows = [",".join([f'"{name}"', *(f'"{cell}"' for cell in cells[cut])]) for name, cells in series.items()]
        (folder / f"Hourly-{part}.csv").write_text("\n".join([header, *rows]) + "\n")


def long_form(root: Path, path: Path, frequency: str = "Hourly") -> None:
    """Series of M4 as a long table, every value with the digits that it has in the official files."""
    lines = ["id,hour,value"]
    official = [
        csv.reader((root / f"{frequency}-{part}.csv").read_text().splitlines()[1:]) for part in ("train", "test")
    ]
    for training, later in zip(*official, strict=True):
        assert training[0] == later[0]
        cells = [cell for cell in (*training[1:], *later[1:]) if cell]
        lines += [f"{training[0]},{hour},{cell}" for hour, cell in enumerate(cells)]
    path.write_text("\n".join(lines) + "\n")


REAL = os.environ.get("LATENT_LOOM_DATA")  # a folder with the folder m4
official = pytest.mark.skipif(REAL is None, reason="LATENT_LOOM_DATA does not name the folder of the official files")
M4_KEYS = {"id_column": "id", "time_column": "hour", "values": ["value"], "split": "last", "horizon": 48, "season": 24}


@pytest.mark.parametrize(
    ("files", "scaling"),
    [
        ("of its form", "none"),
        ("of its form", "standard"),
        pytest.param("official", "none", marks=official),
    ],
)
def test_m4_hourly_in_long_form_is_m4_hourly(files, scaling, tmp_path):
    root, shape = tmp_path, {"window": 60, "stride": 7, "scaling": scaling}
    if files == "of its form":
        m4_files(root)
    else:
        root, shape = Path(str(REAL)), shipped("data", "m4")
        shape = {key: shape[key] for key in ("window", "stride", "scaling")}
    folder = root if (root / "Hourly-train.csv").exists() else root / "m4"
    long_form(folder, tmp_path / "long.csv")
    m4 = load(build(shipped("data", "m4") | {"root": str(root)} | shape))
    panel = load(build(keys(tmp_path / "long.csv", **M4_KEYS, **shape)))
    assert panel.sha256 == m4.sha256
    assert panel.facts == m4.facts
    if files == "official":
        assert (panel.facts.test_size, panel.facts.validation_size) == (414, 414)
    for field in ("x", "target"):
        one, other = getattr(panel.examples, field), getattr(m4.examples, field)
        assert one.size == other.size
        np.testing.assert_array_equal(one.start, other.start)
        np.testing.assert_array_equal(one.series, other.series)
    np.testing.assert_array_equal(panel.examples.naive_error, m4.examples.naive_error)
    for field in dataclasses.fields(m4.split(None)):
        np.testing.assert_array_equal(getattr(panel.split(None), field.name), getattr(m4.split(None), field.name))


@official
@pytest.mark.parametrize(
    ("frequency", "horizon", "season", "shortest"),  # the last as in the official files
    [
        ("Daily", 14, 1, 93),
        ("Weekly", 13, 1, 80),
        ("Monthly", 18, 12, 42),
        ("Quarterly", 8, 4, 16),
        ("Yearly", 6, 1, 13),
    ],
)
def test_every_series_of_a_frequency_is_scored(frequency, horizon, season, shortest, tmp_path):
    """Pieces of official series, of the lengths that other frequencies have, as files of that frequency."""
    official_lines = (Path(str(REAL)) / "m4" / "Hourly-train.csv").read_text().splitlines()[1:]
    series = {}
    for number, (name, *cells) in enumerate(csv.reader(official_lines)):
        series[name] = cells[: shortest + horizon + number % 150]
    for part, cut in (("train", slice(None, -horizon)), ("test", slice(-horizon, None))):
        rows = [",".join([name, *cells[cut]]) for name, cells in series.items()]
        (tmp_path / f"{frequency}-{part}.csv").write_text("\n".join(["V1,V2,V3", *rows]) + "\n")
    shape = {"window": 3 * horizon, "stride": 1}
    dataset = load(build(shipped("data", "m4") | {"root": str(tmp_path), "frequency": frequency} | shape))
    assert dataset.facts.test_size == 414
    long_form(tmp_path, tmp_path / "long.csv", frequency)
    changed = M4_KEYS | {"horizon": horizon, "season": season, "scaling": "none", **shape}
    panel = load(build(keys(tmp_path / "long.csv", **changed)))
    assert panel.sha256 == dataset.sha256
    assert panel.notes == dataset.notes
    test = dataset.examples.take(dataset.split(None).rows("test"))
    for row, cells in enumerate(series.values()):
        values = np.array(cells, float)
        np.testing.assert_array_equal(test.target[row, :, 0], values[-horizon:])
        known = values[:-horizon][-3 * horizon :]
        np.testing.assert_array_equal(test.x[row, 3 * horizon - len(known) :, 0], known)
        if test.observed is not None:
            np.testing.assert_array_equal(test.observed[row, :, 0], np.arange(3 * horizon) >= 3 * horizon - len(known))
        error = np.abs(values[season:-horizon] - values[: -horizon - season]).mean()
        np.testing.assert_allclose(test.naive_error[row], error, rtol=1e-6)


def test_m4_hourly_in_long_form_has_the_scores_of_m4_hourly(tmp_path, monkeypatch):
    results = {}
    for name in ("m4", "panel"):
        (tmp_path / name).mkdir()
    m4_files(tmp_path)
    long_form(tmp_path, tmp_path / "long.csv")
    long_keys = [f"data.{key}={value}".replace("'", "").replace(" ", "") for key, value in M4_KEYS.items()]
    for name, own in (("m4", [f"data.root={tmp_path}"]), ("panel", [f"data.path={tmp_path}/long.csv", *long_keys])):
        sizes = ("data.window=60", "data.stride=7", "data.scaling=none", "model.hidden_dim=2", "trainer.epochs=2")
        words = (f"data={name}", *own, *sizes, "model=recurrent_forecaster", "trainer.batch_size=4", "name=scores")
        results[name] = call(monkeypatch, tmp_path / name, *words)
    m4, panel = (results[name]["metrics"] for name in ("m4", "panel"))
    assert {"test/smape", "test/mase", "baseline/seasonal_naive/mase", "baseline/linear/smape"} <= m4.keys()
    assert panel == m4
    assert results["panel"]["data_sha256"] == results["m4"]["data_sha256"]
