"""Covariates of series: which step a known value belongs to, the calendar, coding, files that go on, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from configs import shipped

from research.data.covariates import Coding, calendar
from research.data.loading import load
from research.tree import ConfigError, build, config_hash, plain

LENGTHS = {"north": 60, "east": 47, "south": 30}
HOURS = np.datetime64("2021-03-01T00", "h")
SIZES: dict[str, Any] = {"window": 6, "horizon": 3}


def long(lengths: dict[str, int] = LENGTHS) -> pandas.DataFrame:
    """A table in which `y` and `price` count the steps of each series, each from another thousand on."""
    pieces = []
    for number, (name, steps) in enumerate(lengths.items()):
        y = 1000.0 * (number + 1) + np.arange(steps)
        times = HOURS + (5 * number + np.arange(steps)).astype("m8[h]")
        columns = {"store": name, "hour": times, "y": y, "price": y + 0.25, "size": 10 * number, "kind": name[-1]}
        pieces.append(pandas.DataFrame(columns))
    return pandas.concat(pieces, ignore_index=True)


def keys(file: Path, **changes: Any) -> dict[str, Any]:
    own: dict[str, Any] = {
        "path": str(file),
        "id_column": "store",
        "time_column": "hour",
        "known": ["price"],
        "static": ["kind"],
    }
    own["values"] = ["y"]
    return shipped("data", "panel") | own | SIZES | {"scaling": "none"} | changes


def series_keys(file: Path, **changes: Any) -> dict[str, Any]:
    own = {"path": str(file), "time_column": "hour", "columns": ["y"], "known": ["price"], "calendar": ["hour"]}
    return shipped("data", "series") | own | SIZES | {"scaling": "none"} | changes


def write(table: pandas.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "stores.csv", index=False)
    return folder / "stores.csv"


def goes_on(table: pandas.DataFrame, steps: int, **columns: Any) -> pandas.DataFrame:
    """The table with rows of steps to come for every series, in which `y` is empty."""
    pieces = []
    for _, rows in table.groupby("store", sort=False):
        last = rows.iloc[-1]
        later = pandas.DataFrame([last] * steps).assign(y=np.nan, price=last["price"] + 1 + np.arange(steps))
        pieces += [rows, later.assign(hour=last["hour"] + pandas.to_timedelta(1 + np.arange(steps), "h"), **columns)]
    return pandas.concat(pieces, ignore_index=True)


def whole(dataset: Any) -> Any:
    return dataset.examples.take(np.arange(len(dataset.examples)))


# ------------------------------------------------------------------------------------------------- which step is which


@pytest.mark.parametrize("split", ["steps", "last"])
def test_known_values_stand_at_the_steps_of_the_window_and_of_the_horizon(split, tmp_path):
    table = long()
    table.loc[[12, 13, 70], "y"] = np.nan  # gaps in the values
    dataset = load(build(keys(write(table, tmp_path), split=split, calendar=["hour"])))
    rows = whole(dataset)
    steps, seen = np.concatenate([rows.x, rows.target], 1), np.concatenate([rows.observed, rows.target_observed], 1)
    np.testing.assert_array_equal((rows.known[..., :1] - 0.25)[seen], steps[seen])
    np.testing.assert_array_equal(np.diff(rows.known[..., 0]), 1)
    number = rows.known[:, :, 0] // 1000 - 1
    hour = (rows.known[:, :, 0] % 1000 - 0.25 + 5 * number) % 24
    np.testing.assert_allclose(rows.known[..., 1], np.sin(2 * np.pi * hour / 24), atol=1e-6)
    assert (dataset.facts.known, dataset.facts.static) == (3, 2)
    assert dataset.preparation.columns == ("y",)
    assert (rows.static[:, 0] == (number[:, 0] != 1)).all()  # the classes h and t: the last letters of the names
    assert (rows.static.sum(1) == 1).all()


def test_known_values_of_unequal_short_series_begin_with_zeros(tmp_path):
    table = long({"north": 60, "east": 47, "south": 11})
    rows = whole(load(build(keys(write(table, tmp_path), split="last"))))
    short = rows.take(slice(-3, None))  # 6 + 3 * 3 steps are needed, and there are 11
    assert (short.known[0, :4] == 0).all()
    assert not short.observed[0, :4].any()
    np.testing.assert_array_equal(short.known[0, 4:, 0], 3000.25 + np.arange(5))
    np.testing.assert_array_equal(short.known[2, 6:, 0], short.target[2, :, 0] + 0.25)


@pytest.mark.parametrize(
    ("freq", "word"), [("MS", "1 month"), ("ME", "1 month"), ("B", "1 working day"), ("D", "1 day")]
)
def test_steps_without_a_row_have_their_place_in_the_calendar(freq, word, tmp_path):
    dates = pandas.date_range("2019-12-31", periods=80, freq=freq)
    table = pandas.DataFrame({"hour": dates.strftime("%Y-%m-%d"), "y": np.random.default_rng(0).normal(size=80)})
    table = table.drop(index=[9, 10, 40])
    table.to_csv(tmp_path / "series.csv", index=False)
    parts: Any = ["month", "monthday"] if freq != "MS" else ["month"]
    recipe = build(series_keys(tmp_path / "series.csv", known=[], calendar=parts))
    content = recipe.read_steps()
    assert content.step == word
    np.testing.assert_allclose(content.known, calendar(dates.to_numpy(), parts), atol=1e-12)
    assert recipe.read_steps(ahead=5).known.shape == (85, 2 * len(parts))
    later = pandas.date_range(dates[-1], periods=6, freq=freq)[1:].to_numpy()
    np.testing.assert_allclose(recipe.read_steps(ahead=5).known[80:], calendar(later, parts), atol=1e-12)


def test_the_calendar_is_that_of_pandas():
    times = pandas.date_range("2019-12-30 22:50", periods=4000, freq=pandas.Timedelta(minutes=433))
    share = {
        "minute": times.minute / 60,
        "hour": (times.hour + times.minute / 60) / 24,
        "weekday": times.day_of_week / 7,
        "monthday": (times.day - 1) / 31,
        "month": (times.month - 1) / 12,
        "yearday": (times.day_of_year - 1) / 365.25,
    }
    for part, expected in share.items():
        angle = 2 * np.pi * np.asarray(expected)
        kinds: Any = [part]
        found = calendar(times.to_numpy(), kinds)
        np.testing.assert_allclose(found, np.stack([np.sin(angle), np.cos(angle)], 1), atol=1e-9, err_msg=part)


def test_a_series_of_its_own_has_the_covariates_of_a_panel_of_one_series(tmp_path):
    table = goes_on(long({"north": 60}), 2)
    file, panel = write(table, tmp_path), {"static": [], "calendar": ["hour"], "scaling": "standard"}
    first = load(build(keys(file, **panel)))
    second = load(build(series_keys(file, scaling="standard") | {"test_steps": 12}))
    np.testing.assert_array_equal(first.examples.known.series, second.examples.known.series)
    np.testing.assert_array_equal(first.examples.known.start, second.examples.known.start)
    assert first.preparation.covariates == second.preparation.covariates
    assert len(first.examples.x.series) == 60  # rows of steps to come are no steps of the training


# --------------------------------------------------------------------------------------------------------------- coding


@pytest.mark.parametrize("split", ["steps", "last"])
def test_known_columns_are_scaled_by_the_steps_before_validation(split, tmp_path):
    table = long()
    table["promo"] = np.arange(len(table)) % 3 // 2
    settings = {"scaling": "standard", "split": split, "known": ["price", "promo"], "static": ["size"]}
    dataset = load(build(keys(write(table, tmp_path), **settings)))
    borders = {name: steps - round(0.2 * steps) for name, steps in LENGTHS.items()}
    borders = {name: low - round(0.2 * low) for name, low in borders.items()}
    borders = {name: steps - 6 for name, steps in LENGTHS.items()} if split == "last" else borders
    training = np.concatenate([of["price"][: borders[name]] for name, of in table.groupby("store", sort=False)])  # type: ignore[index]
    coding = Coding.from_record(dataset.preparation.covariates)
    np.testing.assert_allclose(coding.shift, [training.mean(), 0], rtol=1e-12)
    np.testing.assert_allclose(coding.scale, [1 / training.std(), 1], rtol=1e-12)
    np.testing.assert_allclose(np.unique(dataset.examples.static), (np.arange(3) - 1) / np.sqrt(2 / 3), rtol=1e-6)
    assert dataset.examples.known.dtype == dataset.examples.static.dtype == np.float32
    held = table.copy()  # neither values nor prices of later steps have a say
    last = held.groupby("store").cumcount(ascending=False) < 6
    held.loc[last, ["price", "y"]] *= 100
    again = load(build(keys(write(held, tmp_path), **settings)))
    assert again.preparation.covariates == dataset.preparation.covariates


def test_values_of_the_future_are_not_among_what_is_known(tmp_path):
    table = long()
    before = whole(load(build(keys(write(table, tmp_path), scaling="standard"))))
    table["y"] = np.random.default_rng(0).normal(size=len(table))
    after = whole(load(build(keys(write(table, tmp_path), scaling="standard"))))
    np.testing.assert_array_equal(before.known, after.known)
    np.testing.assert_array_equal(before.static, after.static)


def test_without_covariates_recipes_keep_their_hashes(tmp_path):
    file = write(long(), tmp_path)
    for recipe in (keys(file, known=[], static=[]), series_keys(file, known=[], calendar=[])):
        written = plain(build(recipe))
        assert not {"known", "calendar", "static"} & written.keys()
        old = {key: value for key, value in recipe.items() if key not in ("known", "calendar", "static")}
        assert config_hash(plain(build(old))) == config_hash(written)
    assert plain(build(keys(file)))["known"] == ["price"]


# ---------------------------------------------------------------------------------------------------- files that go on


def test_rows_after_the_last_value_are_steps_to_come(tmp_path):
    table = goes_on(long(), 5)
    recipe = build(keys(write(table, tmp_path), calendar=["hour"]))
    trained = load(recipe).preparation
    first = load(build(keys(write(long(), tmp_path), calendar=["hour"])))
    np.testing.assert_array_equal(load(recipe).examples.x.series, first.examples.x.series)
    write(table, tmp_path)
    for end, (name, steps) in zip(recipe.ends(trained).series, LENGTHS.items(), strict=True):
        assert end.name == name
        assert end.values.shape == (steps, 1)
        assert end.known is not None
        rows = table[table["store"] == name].iloc[: steps + 3]
        np.testing.assert_allclose(end.known[:, 0], rows["price"], rtol=1e-6)
        np.testing.assert_allclose(end.known[:, 1], np.sin(2 * np.pi * rows["hour"].dt.hour / 24), atol=1e-6)
        assert end.later is not None
        assert list(end.later(3)) == [str(time) for time in rows["hour"][-3:]]


def test_a_series_without_any_value_is_left_out_with_a_note(tmp_path):
    table = long()
    table.loc[table["store"] == "east", "y"] = np.nan
    source = build(keys(write(table, tmp_path), static=[])).stored()
    assert "1 of 3 series hold no value and are left out: east" in source.notes


@pytest.mark.parametrize("rows", [0, 2])
def test_the_number_of_steps_that_lack_known_values_is_named(rows, tmp_path):
    recipe = build(keys(write(goes_on(long(), rows) if rows else long(), tmp_path)))
    trained = load(recipe).preparation
    remedy = rf"'north'.*data.known=\[price\].* of 3 steps.* of {rows}: {3 - rows} steps are lacking; add rows"
    with pytest.raises(ConfigError, match=remedy):
        recipe.ends(trained)
    assert len(recipe.stored_for(trained).examples) > 10  # windows within the file need none


# ------------------------------------------------------------------------------------------------------------- refusals


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"horizon": None}, "known", r"covariates help to forecast.*data.horizon=24"),
    ({"calendar": ["hour"], "time_column": None}, "calendar", "name their column, data.time_column="),
    ({"calendar": ["hour", "hour"]}, "calendar", "once"),
    ({"calendar": ["month"]}, "calendar", r"all steps of the training have the same.*data.calendar=\[\]"),
    ({"known": ["prise"]}, "known", "no such column.*price"),
    ({"known": ["kind"], "static": []}, "known", "not a number.*0 and 1"),
    ({"known": ["price", "price"]}, "known", "names this column too"),
    ({"known": ["hour"]}, "known", "data.time_column names this column too"),
    (
        {"static": ["price"], "known": []},
        "static",
        "stores.csv, line 3: it changes within the series 'north'.*data.known",
    ),
    ({"static": ["price"]}, "static", "data.known names this column too"),
    ({"values": ["y", "price"]}, "known", "one of the channels of data.values too"),
    ({"static": ["one"]}, "static", r"constant \(7\) of all series.*data.static=\[\]"),
    ({"known": ["one"]}, "known", r"constant \(7\) of all steps of the training.*data.known=\[\]"),
    ({"static": ["word"]}, "static", r"constant \(all\)"),
]


@pytest.mark.parametrize(("changes", "key", "remedy"), REFUSED, ids=str)
def test_covariates_that_cannot_be_are_refused(changes, key, remedy, tmp_path):
    file = write(long().assign(one=7, word="all"), tmp_path)
    with pytest.raises(ConfigError, match=remedy) as error:
        build(keys(file, **changes)).stored()
    assert error.value.key == key
    assert "\n" not in str(error.value)


def test_cells_that_are_missing_are_refused_by_line(tmp_path):
    table = long()
    table.loc[4, "price"] = np.nan
    with pytest.raises(ConfigError, match=r"line 6: the value is missing.*data.known=\[\]") as error:
        build(keys(write(table, tmp_path))).stored()
    assert error.value.key == "known"
    table = long()
    table.loc[7, "kind"] = np.nan
    with pytest.raises(ConfigError, match="line 9: the value is missing"):
        build(keys(write(table, tmp_path))).stored()
    with pytest.raises(ConfigError, match=r"line 63, series 'east': 2 steps are left out before") as error:
        build(keys(write(long().drop(index=[60, 61, 63, 64]), tmp_path))).stored()


def test_times_that_are_numbers_have_no_calendar(tmp_path):
    table = long()
    table["hour"] = table.groupby("store").cumcount() * 10.5
    with pytest.raises(ConfigError, match=r"numbers.*set 'calendar=\[\]'") as error:
        build(keys(write(table, tmp_path), calendar=["hour"])).stored()
    assert error.value.key == "calendar"


def test_a_run_reads_only_what_its_training_had(tmp_path):
    trained = load(build(keys(write(goes_on(long(), 3), tmp_path)))).preparation
    with pytest.raises(ConfigError, match=r"was trained with others: 'data.known=\[price\]'"):
        build(keys(tmp_path / "stores.csv", known=[])).stored_for(trained)
    write(goes_on(long().replace({"kind": {"t": "q"}}), 3), tmp_path)
    with pytest.raises(ConfigError, match="'q' is not one of the classes of the training: h, t"):
        build(keys(tmp_path / "stores.csv")).ends(trained)
