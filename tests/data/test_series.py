"""Time series: windows by blocks of time, gaps, published divisions, refusals."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from configs import shipped

from research.data.loading import load
from research.data.published import ETT
from research.data.series import naive_error
from research.tree import ConfigError, build, config_hash, plain

HOURS = np.datetime64("2020-01-01T00") + np.arange(200).astype("m8[h]")


def data(name: str, **keys: Any):
    if name == "series":
        keys = {"columns": ["a", "b"]} | keys
    return load(build(shipped("data", name) | keys, key="data"))


def write(path: Path, columns: dict[str, Any]) -> str:
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def values(steps: int = 100) -> dict[str, Any]:
    return {"a": np.arange(steps), "b": np.random.default_rng(0).normal(10, 3, steps).round(3)}


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write(tmp_path / "mine.csv", {"time": HOURS[:100], **values()})


def first_steps(dataset: Any, part: Any, field: str = "x") -> list[int]:
    """First step of every window of a part, from the channel that counts the steps."""
    rows = np.sort(dataset.split(None).rows(part))
    return getattr(dataset.examples.take(rows), field)[:, 0, 0].astype(int).tolist()


def test_windows_lie_wholly_inside_their_block_of_time(table):
    dataset = data("series", path=table, time_column="time", window=8, stride=1)
    assert first_steps(dataset, "train") == list(range(64 - 7))
    assert first_steps(dataset, "validation") == list(range(64, 80 - 7))
    assert first_steps(dataset, "test") == list(range(80, 100 - 7))
    assert (dataset.name, dataset.facts.kind, dataset.facts.feature_shape) == ("mine", "sequence", (8, 2))
    assert dataset.facts.target_shape is None
    assert dataset.examples.naive_error is None
    strided = data("series", path=table, time_column="time", window=8, stride=5)
    assert first_steps(strided, "test") == [80, 85, 90]


def test_targets_lie_wholly_inside_their_block_and_windows_may_look_back_further(table):
    dataset = data("series", path=table, time_column="time", window=8, horizon=3, season=2)
    assert first_steps(dataset, "train", "target") == list(range(8, 64 - 2))
    assert first_steps(dataset, "validation", "target") == list(range(64, 80 - 2))
    assert first_steps(dataset, "test", "target") == list(range(80, 100 - 2))
    assert first_steps(dataset, "test") == list(range(72, 100 - 10))
    assert (dataset.facts.target_shape, dataset.facts.season) == ((3, 2), 2)
    b = values()["b"]
    error = [2, np.abs(b[2:64] - b[:62]).mean()]
    np.testing.assert_allclose(dataset.examples.naive_error[0], error, rtol=1e-6)


def test_scaling_is_fitted_on_the_training_block_with_every_step_once(table):
    dataset = data("series", path=table, time_column="time", window=8, horizon=3)
    split, b = dataset.split(None), values()["b"].astype(np.float32)
    np.testing.assert_allclose(split.shift, [31.5, b[:64].mean()], rtol=1e-6)
    np.testing.assert_allclose(1 / split.scale, [np.arange(64).std(), b[:64].std()], rtol=1e-6)
    np.testing.assert_array_equal(split.target_shift, split.shift)
    seen = split.prepare(dataset.examples.take(split.rows("test")))
    np.testing.assert_allclose(seen.target[:, 0, 0], (np.arange(80, 98) - 31.5) / np.arange(64).std(), rtol=1e-5)


def test_the_blocks_may_be_given_in_steps(table):
    steps = {"test_steps": 25, "validation_steps": 15, "window": 8, "time_column": "time"}
    dataset = data("series", path=table, **steps)
    assert first_steps(dataset, "validation") == list(range(60, 75 - 7))
    assert first_steps(dataset, "test") == list(range(75, 100 - 7))
    one = data("series", path=table, **steps | {"validation_steps": None})
    assert first_steps(one, "validation") == list(range(75 - 15, 75 - 7))
    used = data("series", path=table, **steps, test_size=3, validation_size=2)
    assert (used.facts.train_size, used.facts.validation_size, used.facts.test_size) == (53, 2, 3)
    for changes, key in (
        ({"test_steps": 200}, "test_steps"),
        ({"test_steps": 90}, "validation_steps"),
        ({"test_steps": 200, "validation_steps": None}, "test_steps"),
    ):
        with pytest.raises(ConfigError, match="the series has 100 steps, and none is left for training") as caught:
            data("series", path=table, **steps | changes)
        assert caught.value.key == f"data.{key}"


def test_keys_that_are_younger_than_some_runs_do_not_move_their_hashes():
    younger = {"series": ("test_steps", "validation_steps"), "m4": ("frequency",), "ett": ("file", "months")}
    hashes = {
        "series": "7fa8ea37ab88",
        "m4": "54e870dd7e9d",
        "ett": "e5155f3d84fb",
    }
    for name, keys in younger.items():
        config = shipped("data", name) | ({"path": "mine.csv"} if name == "series" else {})
        content = plain(build(config))
        assert not set(keys) & set(content)
        assert build(content) == build({key: value for key, value in config.items() if key not in keys})
        assert config_hash(content)[:12] == hashes[name]


def test_missing_values_are_masked_and_become_zero(tmp_path):
    columns = values()
    columns["b"] = columns["b"].astype(str)
    columns["b"][[3, 40, 70, 90]] = ["", "NA", "nan", "null"]
    path = write(tmp_path / "gaps.csv", columns)
    dataset = data("series", path=path, window=8, horizon=2)
    whole = dataset.examples.take(np.arange(len(dataset.examples)))
    hidden = ~whole.observed
    assert np.isnan(whole.x[hidden]).all()
    assert set(whole.x[..., 0][hidden[..., 1]]) == {3, 40, 70, 90}
    assert (~whole.target_observed).sum() == 3 * 2  # step 3 is never a target
    seen = dataset.split(None).prepare(whole)
    assert (seen.x[hidden] == 0).all()
    assert (seen.target[~whole.target_observed] == 0).all()
    assert np.isfinite(seen.target).all()
    b = values()["b"][:64]
    np.testing.assert_allclose(dataset.split(None).shift[1], np.delete(b, [3, 40]).mean(), rtol=1e-6)
    pairs = [abs(b[t] - b[t - 1]) for t in range(1, 64) if not {t, t - 1} & {3, 40}]
    np.testing.assert_allclose(dataset.examples.naive_error[0, 1], np.mean(pairs), rtol=1e-6)


def test_columns_are_taken_in_the_order_asked_for_from_csv_and_parquet(table, tmp_path):
    import pyarrow
    import pyarrow.parquet

    columns = {"time": HOURS[:100].astype("M8[us]"), "b": values()["b"], "a": np.arange(100)}
    missing = np.arange(100) == 5
    content = {**columns, "a": pyarrow.array(columns["a"], mask=missing), "note": ["text"] * 100}
    pyarrow.parquet.write_table(pyarrow.table(content), tmp_path / "mine.parquet")
    keys: dict[str, Any] = {"time_column": "time", "columns": ["a", "b"], "window": 8}
    one, two = data("series", path=table, **keys), data("series", path=str(tmp_path / "mine.parquet"), **keys)
    np.testing.assert_array_equal(one.examples.x.series[:, 1], two.examples.x.series[:, 1])
    np.testing.assert_array_equal(two.examples.observed.series, np.stack([~missing, ~missing | True], axis=1))
    np.testing.assert_array_equal(
        data("series", path=table, **keys | {"columns": ["b", "a"]}).split(None).shift[::-1], one.split(None).shift
    )


def test_a_table_without_a_header_has_numbered_columns(tmp_path):
    path = tmp_path / "plain.csv"
    np.savetxt(path, np.stack(list(values().values()), axis=1), delimiter=",", fmt="%.3f")
    dataset = data("series", path=str(path), header=False, columns=["1"], window=8)
    np.testing.assert_array_equal(dataset.examples.x.series[:, 0], values()["b"])


def test_an_edited_file_is_read_again(table):
    before = data("series", path=table, time_column="time", window=8)
    assert data("series", path=table, time_column="time", window=8) is before
    write(Path(table), {"time": HOURS[:120], **values(120)})
    assert len(data("series", path=table, time_column="time", window=8).examples) == 120 - 7


def test_naive_error_of_a_line_is_the_season_and_no_pair_gives_none():
    line = np.arange(10.0)[:, None] * [1, -2]
    np.testing.assert_array_equal(naive_error(line, 4), [4, 8])
    np.testing.assert_array_equal(naive_error(line, None), [1, 2])
    line[::2, 0] = np.nan
    np.testing.assert_array_equal(naive_error(line, None), [np.nan, 2])


TIMES = {"time_column": "time", "window": 8}


@pytest.mark.parametrize(
    ("keys", "key", "remedy"),
    [
        ({"window": 60, "horizon": 10}, "window", r"training block has 64 of 100 steps and does not hold 60 \+ 10"),
        ({"window": 18}, "window", "validation block has 16 of 100 steps and does not hold one whole window"),
        ({"horizon": 17}, "window", "validation block has 16 of 100 steps and does not hold a target of 17 steps"),
        ({"horizon": 2, "season": 64}, "season", "training block has 64 steps"),
        ({"test_size": 50}, "test_size", "13 such rows; data.test_size=null .*, and data.test_steps makes the part"),
        ({"folds": 3, "fold": 0}, "folds", "windows overlap"),
        ({"fold": 0}, "fold", "windows overlap"),
        ({"stride": 0}, "stride", "at least 1"),
        ({"scaling": "unit"}, "scaling", "standard"),
        ({"columns": ["a", "bb"]}, "columns", r"no such column \(did you mean 'b'\?\)"),
        ({"columns": ["a", "a"]}, "columns", "twice"),
        ({"columns": []}, "columns", "at least one"),
        ({"columns": ["time", "a"]}, "columns", "data.time_column"),
        ({"time_column": "tme"}, "time_column", "did you mean 'time'"),
        ({"time_column": None, "columns": None}, "columns", r"column 'time' holds dates; .*data.time_column=time"),
        ({"path": "none.csv"}, "path", "no file"),
        ({"path": "mine.txt"}, "path", ".parquet"),
        ({"path": "???"}, "path", "data.path=my.csv"),
    ],
)
def test_settings_that_do_not_fit_the_series_are_refused(keys, key, remedy, table):
    with pytest.raises(ConfigError, match=remedy) as caught:
        data("series", **{"path": table} | TIMES | keys)
    assert caught.value.key == f"data.{key}"


@pytest.mark.parametrize(
    ("column", "content", "key", "remedy"),
    [
        (
            "b",
            np.full(100, 7),
            "columns",
            r"b: it is constant \(7\) in .* of 64 steps; leave it out: 'data.columns=\[a\]'",
        ),
        ("b", np.where(np.arange(100) < 64, 0.5, 1), "columns", r"constant \(0.5\)"),
        ("b", np.full(100, ""), "columns", "b: it is without any value in the training block"),
        ("b", ["x"] * 100, "columns", r"line 2, column 'b': 'x' is not a number; .*leave out b: 'data.columns=\[a\]'"),
        ("b", [1] * 9 + ["1e999"] * 91, "path", "mine.csv, line 11, column 'b': '1e999' is not finite"),
        (
            "time",
            [*HOURS[:50], *HOURS[49:99]],
            "time_column",
            "mine.csv, line 52: '2020-01-03 01:00:00' occurs twice",
        ),
        ("time", [*HOURS[:50], *HOURS[:50]], "time_column", "mine.csv, line 52: .* does not come after the row before"),
        ("time", [*range(9), "", *range(10, 100)], "time_column", "line 11: the time is missing"),
        ("time", [*HOURS[:4], "soon", *HOURS[5:100]], "time_column", "line 6: 'soon' is not a time"),
        ("time", ["2020-01-01T00:30:00+01:00", *HOURS[:99]], "time_column", "line 3: .* another kind of time zone"),
        ("time", [f"{hour}:00+01:00" for hour in HOURS[:100]], None, ""),
        ("time", np.arange(100) / 7, None, ""),
    ],
)
def test_columns_that_cannot_be_used_are_refused(column, content, key, remedy, tmp_path):
    path = write(tmp_path / "mine.csv", {"time": HOURS[:100], **values()} | {column: content})
    if key is None:
        assert data("series", path=path, **TIMES).facts.feature_shape == (8, 2)
        return
    with pytest.raises(ConfigError, match=remedy) as caught:
        data("series", path=path, **TIMES)
    assert caught.value.key == f"data.{key}"


def test_a_line_of_another_length_is_refused(table):
    Path(table).write_text(Path(table).read_text() + "2021,1\n")
    with pytest.raises(ConfigError, match="line 102: 2 values, but 3"):
        data("series", path=table, **TIMES)


# -------------------------------------------------------------------------------- gaps, long tables, rows for a run


def sine(keep: Any) -> dict[str, Any]:
    hours = np.arange(400)
    keep = np.asarray([keep(hour) for hour in hours])
    times = np.datetime64("2024-01-01T00") + hours.astype("m8[h]")
    return {"time": times[keep], "load": np.sin(2 * np.pi * hours / 24).round(6)[keep]}


def test_hours_that_are_left_out_are_masked_so_that_seasons_stay_in_step(tmp_path):
    path = write(tmp_path / "hourly.csv", sine(lambda hour: hour % 7 not in (3, 4)))
    keys = {"path": path, "columns": None, "time_column": "time", "window": 48, "horizon": 24, "season": 24}
    dataset = data("series", **keys)
    assert dataset.examples.x.series.shape == (400, 1)
    whole = dataset.examples.take(np.arange(len(dataset.examples)))
    both = whole.target_observed & whole.observed[:, 24:]
    assert 0.4 < both.mean() < 0.6
    assert np.abs(whole.target - whole.x[:, 24:])[both].max() < 1e-5  # the seasonal naive forecast is exact
    notes = build(shipped("data", "series") | keys).stored().notes
    assert notes[0].startswith("114 of 400 steps of 1 hour are missing and masked, the first after hourly.csv, line 4")


def test_windows_without_any_value_are_in_no_part(tmp_path):
    path = write(tmp_path / "hourly.csv", sine(lambda hour: not 100 <= hour < 160))
    keys = {"path": path, "columns": None, "time_column": "time", "window": 24}
    source = build(shipped("data", "series") | keys).stored()
    assert source.notes[1] == "37 of 377 windows hold no value at all and are left out"
    assert (~source.examples.observed[np.flatnonzero(~source.unused)]).all((1, 2)).sum() == 0


def test_a_long_table_is_refused_whatever_columns_are_named(tmp_path):
    times = np.tile(HOURS[:30], 2)
    path = write(tmp_path / "panel.csv", {"id": ["A"] * 30 + ["B"] * 30, "ds": times, "y": np.sin(np.arange(60))})
    for keys in ({"columns": ["y"]}, {"columns": None}, {"columns": ["y"], "time_column": "ds"}):
        with pytest.raises(
            ConfigError,
            match=r"2 series one below the other: 'ds' .* write data=panel data.id_column=id data.time_column=ds \(",
        ):
            data("series", path=path, window=4, **keys)


def test_the_year_is_no_channel(tmp_path):
    path = write(tmp_path / "sunspots.csv", {"year": np.arange(1700.5, 1800), "spots": np.abs(values()["b"])})
    with pytest.raises(ConfigError, match=r"column 'year' grows by a constant step .*data.time_column=year") as caught:
        data("series", path=path, columns=None, window=8)
    assert caught.value.key == "data.columns"
    assert data("series", path=path, columns=None, time_column="year", window=8).facts.feature_shape == (8, 1)
    assert data("series", path=path, columns=["year", "spots"], window=8).facts.feature_shape == (8, 2)


def test_marks_of_missing_values_are_noted_and_masked_when_they_are_named(tmp_path):
    columns = values()
    columns["b"][[5, 50, 90]] = -9999
    keys = {"path": write(tmp_path / "x.csv", columns), "columns": ["b"], "window": 8}
    config = shipped("data", "series") | keys
    assert build(config).stored().notes == (
        "x.csv, column 'b': -9999 occurs 3 times, far outside all other values; "
        "if it means a missing value: 'data.missing=[-9999]'",
    )
    assert data("series", **keys, missing=[-9999]).examples.observed.series.sum() == 97
    assert build(config | {"missing": [-5]}).stored().notes[1] == "-5 (data.missing) occurs nowhere in x.csv"


def test_channels_of_0_and_1_are_not_scaled(tmp_path):
    columns = values() | {"holiday": np.arange(100) % 7 == 0, "flag": (np.arange(100) % 5 == 0).astype(int)}
    path = write(tmp_path / "x.csv", columns)
    split = data("series", path=path, columns=["b", "holiday", "flag"], window=8, horizon=2).split(None)
    np.testing.assert_array_equal(split.shift[1:], 0)
    np.testing.assert_array_equal(split.target_scale[1:], 1)
    assert split.scale[0] != 1


def test_new_steps_are_matched_by_name_and_need_no_blocks(tmp_path):
    trained = SimpleNamespace(columns=("b", "a"), classes=None, class_count=0, time_step="1 hour", covariates=None)
    path = write(tmp_path / "new.csv", {"time": HOURS[[0, 1, 2, 5, 6]], "a": [1] * 5, "b": range(5)})
    keys = {"path": path, "columns": None, "time_column": "time", "window": 7}
    source = build(shipped("data", "series") | keys).stored_for(trained)
    assert source.examples.x.shape == (1, 7, 2)
    np.testing.assert_array_equal(source.examples.x.series[:, 0], [0, 1, 2, np.nan, np.nan, 3, 4])
    with pytest.raises(ConfigError, match="there are 7 steps, and a window needs 8"):
        build(shipped("data", "series") | keys | {"window": 8}).stored_for(trained)
    trained.time_step = "1 day"
    with pytest.raises(ConfigError, match="a step is 1 day"):
        build(shipped("data", "series") | keys).stored_for(trained)
    trained.columns = ("a",)
    with pytest.raises(ConfigError, match=r"columns=b: new.csv has this column, and training had not"):
        build(shipped("data", "series") | keys).stored_for(trained)


# ------------------------------------------------------------------------------------------------------- published


def transformer(folder: Path, file: str, steps: int, minutes: int) -> None:
    """A file of ETT: channels that count the steps."""
    dates = np.datetime64("2016-07-01T00:00:00") + minutes * np.arange(steps).astype("m8[m]")
    shown = [str(date).replace("T", " ") for date in dates]
    write(folder / f"{file}.csv", {"date": shown, **{name: np.arange(steps) for name in ETT.names}})


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ETTh1 and ETTm2 of the right length."""
    folder = tmp_path_factory.mktemp("ett")
    transformer(folder, "ETTh1", 14_450, 60)
    transformer(folder, "ETTm2", 57_700, 15)
    return folder


@pytest.mark.parametrize(("window", "horizon"), [(24, 96), (720, 192)])
def test_ett_has_the_published_blocks_whatever_the_look_back(hours, window, horizon):
    dataset = data("ett", root=str(hours), window=window, horizon=horizon)
    assert (dataset.facts.validation_size, dataset.facts.test_size) == (2881 - horizon, 2881 - horizon)
    assert dataset.facts.train_size == 8640 - window - horizon + 1
    assert first_steps(dataset, "test", "target") == list(range(11_520, 14_401 - horizon))
    np.testing.assert_allclose(dataset.split(None).shift, np.full(7, (8640 - 1) / 2))
    np.testing.assert_array_equal(dataset.examples.naive_error, 24)


def test_ett_in_steps_of_15_minutes_has_blocks_of_four_times_as_many_steps(hours):
    dataset = data("ett", root=str(hours), file="ETTm2", window=24, horizon=96, season=96)
    assert (dataset.facts.validation_size, dataset.facts.test_size) == (11_521 - 96, 11_521 - 96)
    assert first_steps(dataset, "test", "target") == list(range(46_080, 57_601 - 96))
    np.testing.assert_allclose(dataset.split(None).shift, np.full(7, (34_560 - 1) / 2))
    with pytest.raises(ConfigError, match=r"24 steps of ETTm2 are 6 hours; a day is data.season=96") as caught:
        data("ett", root=str(hours), file="ETTm2")
    assert caught.value.key == "data.season"
    with pytest.raises(ConfigError, match=r"ETTh2.csv .* is neither in this folder"):
        data("ett", root=str(hours), file="ETTh2")


def test_a_file_of_ett_under_another_name_is_refused(tmp_path):
    transformer(tmp_path, "ETTh2", 200, 15)
    transformer(tmp_path, "ETTm1", 200, 60)
    for file, step, expected in (("ETTh2", "15 minutes", "1 hour"), ("ETTm1", "1 hour", "15 minutes")):
        with pytest.raises(ConfigError, match=f"{file}.csv has steps of {step}, expected {expected}"):
            data("ett", root=str(tmp_path), file=file, season=None)


def test_calendar_months_divide_ett_and_the_rest_is_the_test_block(hours):
    dataset = data("ett", root=str(hours), months=[14, 5], window=48, horizon=None, season=None)
    first = [
        int((np.datetime64(month) - np.datetime64("2016-07-01")).astype(int)) * 24
        for month in ("2017-09-01", "2018-02-01")
    ]
    assert first_steps(dataset, "train") == list(range(first[0] - 47))
    assert first_steps(dataset, "validation") == list(range(first[0], first[1] - 47))
    assert first_steps(dataset, "test") == list(range(first[1], 14_450 - 47))
    with pytest.raises(ConfigError, match=r"ETTh1.csv has 20 months, and the last ones are the test block") as caught:
        data("ett", root=str(hours), months=[14, 6])
    assert caught.value.key == "data.months"


def test_ett_is_divided_by_calendar_months_if_they_are_named(hours):
    dataset = data("ett", root=str(hours), months=[14, 5], window=48, stride=48, horizon=None, season=None)
    assert first_steps(dataset, "test") == list(range(13_920, 14_450 - 47, 48))  # from 2018-02-01 on
    assert first_steps(dataset, "validation") == list(range(10_272, 13_920 - 47, 48))
    np.testing.assert_allclose(dataset.split(None).shift, np.full(7, (10_224 - 1) / 2))  # whole windows
    with pytest.raises(ConfigError, match="has 20 months") as refusal:
        data("ett", root=str(hours), months=[14, 6])
    assert refusal.value.key == "data.months"


def test_a_table_that_is_not_ett_is_refused_with_file_and_line(hours, tmp_path):
    path = tmp_path / "ETTh1.csv"
    lines = (hours / "ETTh1.csv").read_text().splitlines()
    for changed, remedy in (
        ([lines[0].replace("HULL", "OT2"), *lines[1:]], "ETTh1.csv, line 1: expected date,HUFL,HULL"),
        (lines[:14_000], "13999 rows, fewer than 14400"),
        ([*lines[:4], lines[3], *lines[4:]], "ETTh1.csv, line 5: .* occurs twice"),
    ):
        path.write_text("\n".join(changed))
        with pytest.raises(ConfigError, match=remedy) as caught:
            data("ett", root=str(tmp_path))
        assert caught.value.key == "data.root"


@pytest.fixture
def m4(tmp_path: Path) -> Path:
    """Two series of 200 and 210 hours that count on from 0 and from 1000, and the 48 hours after each."""
    header = ",".join(f'"V{number}"' for number in range(1, 260))
    row = lambda name, numbers: ",".join([f'"{name}"', *(f'"{number}"' for number in numbers)])
    training = [row("H1", range(200)) + "," * 10, row("H2", range(1000, 1210))]
    later = [row("H1", range(200, 248)), row("H2", range(1210, 1258))]
    for name, rows in (("Hourly-train.csv", training), ("Hourly-test.csv", later)):
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return tmp_path


def test_m4_predicts_the_official_hours_and_trains_on_what_lies_before(m4):
    dataset = data("m4", root=str(m4), window=50, stride=20)
    assert first_steps(dataset, "test") == [150, 1160]
    assert first_steps(dataset, "test", "target") == [200, 1210]
    assert first_steps(dataset, "validation", "target") == [152, 1162]
    assert first_steps(dataset, "train", "target") == [64, 84, 104, 1054, 1074, 1094, 1114]
    whole = dataset.examples.take(np.arange(len(dataset.examples)))
    steps = np.concatenate([whole.x, whole.target], axis=1)[..., 0]
    np.testing.assert_array_equal(np.diff(steps), 1)  # no window reaches into another series
    np.testing.assert_array_equal(whole.naive_error, 24)
    assert (dataset.facts.season, dataset.facts.target_shape) == (24, (48, 1))
    every = data("m4", root=str(m4), window=50, stride=1)
    assert max(first_steps(every, "train", "target")) + 47 == 1210 - 48 - 1


def test_what_short_series_lack_is_masked_so_that_every_series_is_tested(m4):
    dataset = data("m4", root=str(m4), window=110, stride=20)
    assert first_steps(dataset, "test", "target") == [200, 1210]
    assert dataset.notes == (
        "1 of 2 series are too short for a whole window of each part, and what their windows lack at the beginning is "
        "masked: H1",
    )
    rows = dataset.split(None).rows("train")
    training = dataset.examples.take(np.sort(rows))
    np.testing.assert_array_equal(training.observed[..., 0].sum(1), [104, 110])
    np.testing.assert_array_equal(training.target[:, 0, 0], [104, 1114])


@pytest.mark.parametrize(
    ("frequency", "horizon", "season"),  # as the M4 competition has them (Makridakis et al., 2020)
    [
        ("Hourly", 48, 24),
        ("Daily", 14, 1),
        ("Weekly", 13, 1),
        ("Monthly", 18, 12),
        ("Quarterly", 8, 4),
        ("Yearly", 6, 1),
    ],
)
def test_horizon_and_season_follow_from_the_frequency(frequency, horizon, season, tmp_path):
    lengths = (6 * horizon, 6 * horizon + 7)
    header = ",".join(f'"V{number}"' for number in range(1, 9 * horizon))
    row = lambda name, numbers: ",".join([f'"{name}"', *(f'"{number}"' for number in numbers)])
    squares = [np.arange(number, number + length + horizon) ** 2 for number, length in enumerate(lengths)]
    for part, cut in (("train", slice(None, -horizon)), ("test", slice(-horizon, None))):
        rows = [row(f"{frequency[0]}{number}", values[cut]) for number, values in enumerate(squares)]
        (tmp_path / f"{frequency}-{part}.csv").write_text("\n".join([header, *rows]) + "\n")
    dataset = data("m4", root=str(tmp_path), frequency=frequency, window=2 * horizon, stride=1)
    assert (dataset.name, dataset.facts.season) == (f"m4_{frequency.lower()}", season)
    test = dataset.examples.take(dataset.split(None).rows("test"))
    np.testing.assert_array_equal(test.target[..., 0], [values[-horizon:] for values in squares])
    np.testing.assert_array_equal(test.x[..., 0], [values[-3 * horizon : -horizon] for values in squares])
    errors = [np.abs(values[season:-horizon] - values[: -horizon - season]).mean() for values in squares]
    np.testing.assert_allclose(test.naive_error[:, 0], errors, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "old", "new", "key", "remedy"),
    [
        ("Hourly-train.csv", '"V1"', '"id"', "root", "Hourly-train.csv, line 1: expected the header"),
        ("Hourly-train.csv", '"1005"', '"x"', "root", "Hourly-train.csv, line 3"),
        ("Hourly-train.csv", '"7"', '""', "root", "Hourly-train.csv, line 2: .* without gaps"),
        ("Hourly-test.csv", "H2", "H1", "root", "Hourly-test.csv, line 3: expected a name that is new"),
        ("Hourly-test.csv", "H2", "H3", "root", "same series"),
        ("Hourly-test.csv", ',"247"', "", "root", "H1 has 47 values"),
        (None, "", "", "window", "half of the 2 series have no more than 205 steps .*data.window=144$"),
    ],
)
def test_what_is_not_m4_is_refused(m4, name, old, new, key, remedy):
    if name is not None:
        (m4 / name).write_text((m4 / name).read_text().replace(old, new))
    with pytest.raises(ConfigError, match=remedy) as caught:
        data("m4", root=str(m4), window=50 if name else 211)
    assert caught.value.key == f"data.{key}"


def test_prices_stay_in_the_order_of_time(tmp_path):
    names = ("Open", "High", "Low", "Close", "Adj_Close", "Volume")
    write(tmp_path / "stock_data.csv", {name: np.arange(200) + shift for shift, name in enumerate(names)})
    dataset = data("stock", root=str(tmp_path))
    assert first_steps(dataset, "train") == list(range(128 - 23))
    assert first_steps(dataset, "test")[0] == 160
    np.testing.assert_allclose(1 / dataset.split(None).scale, np.full(6, 127))
    (tmp_path / "stock_data.csv").write_text("Open,High\n1,2\n")
    with pytest.raises(ConfigError, match=r"stock_data.csv, line 1: expected Open,High,Low"):
        data("stock", root=str(tmp_path))


def test_windows_of_energy_are_joined_to_their_series(tmp_path):
    series = np.random.default_rng(0).random((200, 3))
    rows = np.lib.stride_tricks.sliding_window_view(series, 24, axis=0).swapaxes(1, 2)
    np.savez(tmp_path / "energy_windows.npz", data=rows)
    dataset = data("energy", root=str(tmp_path))
    np.testing.assert_array_equal(dataset.examples.x.series, series)
    np.savez(tmp_path / "energy_windows.npz", data=rows[::-1])
    with pytest.raises(ConfigError, match="do not follow one another"):
        data("energy", root=str(tmp_path))


@pytest.mark.parametrize("name", ["ett", "m4", "stock", "energy"])
def test_published_series_need_a_folder_and_take_no_folds(name, tmp_path):
    with pytest.raises(ConfigError, match=r"data.root=FOLDER"):
        data(name)
    with pytest.raises(ConfigError, match="is neither in this folder nor"):
        data(name, root=str(tmp_path))
    with pytest.raises(ConfigError, match="windows overlap"):
        data(name, root=str(tmp_path), folds=2, fold=0)
