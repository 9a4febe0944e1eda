"""Forecasts beyond the end of a file: of data with gaps by the commands of the README, and what is refused."""

import csv
import io
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from research import app
from research.data.series import share_borders
from research.forecast import main as forecast_main
from research.runs.load import load

ROOT = Path(__file__).parents[2]
EARLIER = ROOT / "tests" / "runs" / "earlier"
WINDOW, HORIZON = 48, 12
SMALL = ("model.hidden_dim=4", "trainer.epochs=2", "trainer.batch_size=32", "evaluation.pictures=false")


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    app.statuses.clear()
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def house() -> pandas.DataFrame:
    """Four days of temperature and humidity outside a house, a step every ten minutes: a daily cycle and weather."""
    random, steps = np.random.default_rng([0, 1]), np.arange(576)
    weather = np.zeros((len(steps), 2))
    for step in steps[1:]:
        weather[step] = 0.97 * weather[step - 1] + random.normal(0, [0.2, 0.5])
    outside = 5 + 3 * np.sin(2 * np.pi * steps / 144) + weather[:, 0]
    humidity = 85 - 2 * (outside - 5) + weather[:, 1]
    times = pandas.date_range("2016-01-11 17:00:00", periods=len(steps), freq="10min").astype(str)
    return pandas.DataFrame({"time": times, "outside": outside.round(2), "humidity": humidity.round(2)})


def with_gaps() -> pandas.DataFrame:
    """The series without some of its rows and cells, and with -9999 for others, also in the last window."""
    table = house().astype(str)
    table.loc[table.index % 17 == 3, "outside"] = "-9999"
    table.loc[[50, 51, 560, 575], "humidity"] = ""
    return table.drop(index=[20, 21, 22, 300, 565])


def readme_commands() -> list[list[str]]:
    """The commands of the README's section on forecasts."""
    text = (ROOT / "research" / "runs" / "README.md").read_text()
    section = text[text.index("## Forecasting") :]
    block = re.findall(r"^```text\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)[0]
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file, and the README's run on it, with smaller cells and few epochs; and two others."""
    folder = tmp_path_factory.mktemp("forecast")
    with_gaps().to_csv(folder / "house.csv", index=False)
    house().to_csv(folder / "whole.csv", index=False)
    train, *_ = readme_commands()
    assert train[:2] == ["python", "scripts/train.py"]
    whole = ("data=series", "data.path=whole.csv", "data.window=48", "data.horizon=12", "model=recurrent_forecaster")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(patch, app.main, *train[2:], *SMALL) == 0
        assert call(patch, app.main, *whole, "data.time_column=time", "evaluation=none", *SMALL, "name=point") == 0
        levels = ("model.objective=quantile", "model.quantiles=[0.1,0.5,0.9]", "data.columns=[humidity]")
        assert call(patch, app.main, *whole, *levels, "evaluation=none", *SMALL, "name=timeless") == 0
    return folder


def run_of(place: Path, name: str) -> Path:
    return next((place / "outputs" / name).glob("*/result.json")).parent


@pytest.fixture
def forecast(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`forecast("house", "data.path=new.csv")`: the table that the script prints and its notes, or its refusal."""

    def run(name: str | Path, *arguments: str) -> Any:
        monkeypatch.chdir(place)
        capsys.readouterr()
        folder = run_of(place, name) if isinstance(name, str) else name
        code = call(monkeypatch, forecast_main, str(folder), *arguments)
        captured = capsys.readouterr()
        if code:
            assert code == 2
            assert not captured.out
            assert len(captured.err.strip().splitlines()) == 1, captured.err
            return captured.err
        return pandas.read_csv(io.StringIO(captured.out)), captured.err

    return run


def test_the_commands_of_the_readme_forecast_a_file_with_gaps(place, monkeypatch, capsys):
    """Times go on at the step of the file, and intervals are ordered; the run says how good they are."""
    _, command = readme_commands()
    assert command[1] == "scripts/forecast.py"
    run = run_of(place, "house")
    monkeypatch.chdir(place)
    assert call(monkeypatch, forecast_main, *(word.replace("RUN", run.name) for word in command[2:])) == 0
    assert "values that the forecast starts from are missing and masked" in capsys.readouterr().err
    table = pandas.read_csv(place / "forecast.csv")
    assert list(table.columns[:4]) == ["step", "time", "channel", "forecast"]
    assert list(table["channel"][:2]) == ["outside", "humidity"]
    assert list(table["step"]) == [step for step in range(1, HORIZON + 1) for _ in range(2)]
    times = pandas.date_range("2016-01-15 17:00:00", periods=HORIZON, freq="10min")  # the file ends at 16:50
    assert list(table["time"][::2]) == [str(time) for time in times]
    ordered = table[["low_95", "low_80", "forecast", "high_80", "high_95"]].to_numpy()
    assert (np.diff(ordered, axis=1) > 0).all()
    outside, humidity = (table.loc[table["channel"] == name, "forecast"] for name in ("outside", "humidity"))
    assert outside.between(-15, 25).all()  # degrees, and no trace of -9999
    assert humidity.between(30, 130).all()
    metrics = load(run).result["metrics"]
    assert 0 < metrics["test/coverage_80"] < 1
    assert metrics["baseline/repeat_last/crps_raw"] > 0


@pytest.mark.parametrize("end", [200, 400, 570])
def test_a_file_that_is_cut_gives_the_forecast_of_its_last_window(end, forecast, place):
    """And what comes later in the file has no influence."""
    rows = with_gaps().loc[:end]
    rows.to_csv(place / "cut.csv", index=False)
    table, _ = forecast("house", "data.path=cut.csv")
    run = load(run_of(place, "house"))
    whole = house()[["outside", "humidity"]]
    values = rows[["outside", "humidity"]].replace("", np.nan).astype(float).reindex(whole.index[: end + 1]).to_numpy()
    wanted = run.forecast(values[None, -WINDOW:])  # with -9999, which the run knows for a missing value
    np.testing.assert_array_equal(table["forecast"], np.ravel(wanted.median))
    half = 1.2815515655446004 * wanted.deviation
    np.testing.assert_allclose(table["low_80"], np.ravel(wanted.mean - half), rtol=1e-9)
    np.testing.assert_allclose(table["high_80"], np.ravel(wanted.mean + half), rtol=1e-9)


def test_without_a_path_the_forecast_starts_from_the_end_of_the_own_file(forecast):
    table, error = forecast("point")
    pandas.testing.assert_frame_equal(table, forecast("point", "data.path=whole.csv")[0])
    assert list(table.columns) == ["step", "time", "channel", "forecast"]  # a point forecast has no intervals
    assert not error


def test_a_run_without_times_counts_steps(forecast):
    table, _ = forecast("timeless")
    assert list(table.columns) == ["step", "channel", "forecast", "low_80", "high_80"]  # and no levels for 95 %
    assert set(table["channel"]) == {"humidity"}


def test_columns_are_matched_by_name(forecast, place):
    table, _ = forecast("point")
    house()[["humidity", "time", "outside"]].to_csv(place / "turned.csv", index=False)
    pandas.testing.assert_frame_equal(forecast("point", "data.path=turned.csv")[0], table)


def test_the_conformal_correction_gives_a_point_forecast_intervals(forecast, place):
    """Its 80 % interval holds 80 % of the validation rows, by construction, at every step."""
    plain, corrected = forecast("point")[0], forecast("point", "--conformal")[0]
    pandas.testing.assert_frame_equal(corrected[plain.columns], plain)
    half = (corrected["high_80"] - corrected["forecast"]).to_numpy().reshape(HORIZON, 2)
    np.testing.assert_allclose(half, (corrected["forecast"] - corrected["low_80"]).to_numpy().reshape(HORIZON, 2))
    run = load(run_of(place, "point"))
    values = house()[["outside", "humidity"]].to_numpy()
    first, last = share_borders(len(values), 0.2, 0.2)
    ends = range(first, last - HORIZON + 1)
    truth = np.stack([values[end : end + HORIZON] for end in ends])
    miss = np.abs(truth - run.forecast(np.stack([values[end - WINDOW : end] for end in ends])).median)
    rank = int(np.ceil((len(miss) + 1) * 0.8))
    np.testing.assert_allclose(half, np.sort(miss, axis=0)[rank - 1], rtol=1e-6)
    wider = corrected["high_95"] - corrected["low_95"] >= corrected["high_80"] - corrected["low_80"]
    assert wider.all()


def test_a_marker_that_nobody_named_is_pointed_out(forecast, place):
    rows = house()
    rows.loc[570, "outside"] = -9999
    rows.to_csv(place / "marked.csv", index=False)
    _, error = forecast("point", "data.path=marked.csv")
    assert "value -9999 of channel 'outside', which is far outside the range of training" in error
    assert "'data.missing=[-9999]'" in error
    _, error = forecast("point", "data.path=marked.csv", "data.missing=[-9999]")
    assert error == "note: 1 of the 96 values that the forecast starts from are missing and masked\n"


@pytest.mark.parametrize("split", ["steps", "last"])
def test_many_series_go_on_each_from_its_own_end(split, forecast, place, monkeypatch):
    """Rows are mixed, ends differ, and a series too short for a window is left out, or filled up as in training."""
    rows = house()[["time", "outside"]]
    pieces = {"b": rows[:300], "a": rows[100:260], "short": rows[400:440]}
    table = pandas.concat([piece.assign(place=name) for name, piece in pieces.items()])
    table.sort_values("time", kind="stable").to_csv(place / "panel.csv", index=False)
    keys = ("data=panel", "data.path=panel.csv", "data.id_column=place", "data.time_column=time", f"data.split={split}")
    sizes = ("data.window=24", "data.horizon=6", "model=recurrent_forecaster", "model.objective=gaussian", *SMALL)
    monkeypatch.chdir(place)
    assert call(monkeypatch, app.main, *keys, *sizes, f"name={split}", "evaluation=none") == 0
    found, error = forecast(split)
    assert list(found.columns[:5]) == ["series", "step", "time", "channel", "forecast"]
    assert not error
    shorter = table[(table["place"] != "short") | (table["time"] < "2016-01-14 13:30")]
    shorter.sort_values("time", kind="stable").to_csv(place / "shorter.csv", index=False)
    some, error = forecast(split, "data.path=shorter.csv")
    left_out = "1 of 3 series are shorter than the 24 steps that the run looks back on and are left out: short"
    assert (left_out in error) == (split == "steps")
    run = load(run_of(place, split))
    for name in ("a", "b"):
        of_series = some[some["series"] == name]
        x = pieces[name][["outside"]].to_numpy()[None, -24:]
        np.testing.assert_array_equal(of_series["forecast"], np.ravel(run.forecast(x).median))
        last = pandas.Timestamp(pieces[name]["time"].iloc[-1])
        times = pandas.date_range(last, periods=7, freq="10min")[1:]
        assert list(of_series["time"]) == [str(time) for time in times]
    assert set(found["series"]) == {"a", "b", "short"}


REFUSED = [
    ("short.csv", lambda rows: rows[:47], "data.path=short.csv: it has 47 steps, and the run looks back on 48"),
    ("hours.csv", lambda rows: rows[::6], "its rows are 1 hour apart; training had steps of 10 minutes"),
    ("odd.csv", lambda rows: rows.assign(time=rows["time"].str.replace("17:10:00", "17:14:00")), "data.time_column"),
    ("twice.csv", lambda rows: rows.iloc[[*range(60), 59]], "occurs twice"),
    ("turned.csv", lambda rows: rows[::-1], "does not come after the row before"),
    ("fewer.csv", lambda rows: rows.drop(columns="humidity"), "data.columns=humidity"),
    ("more.csv", lambda rows: rows.assign(wind=1.5), "data.columns=wind"),
    ("untimed.csv", lambda rows: rows.drop(columns="time"), "data.time_column=time"),
    ("dark.csv", lambda rows: rows.assign(humidity=rows["humidity"].where(rows.index < 500)), "has no value"),
]


@pytest.mark.parametrize(("name", "change", "said"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_file_that_does_not_fit_is_refused(name, change, said, forecast, place):
    change(house()).to_csv(place / name, index=False)
    assert said in forecast("point", f"data.path={name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("data.path=absent.csv",), "no file"),
        (("data.window=24",), "data.window=24: the run was trained with data.window=48"),
        (("data.horizon=3",), "data.horizon=3: the run was trained with data.horizon=12"),
        (("model.hidden_dim=3",), "model.hidden_dim=3: only data=... and data.key=..."),
        (("new.csv",), "say which file the forecast starts from; write data.path=new.csv"),
        (("data=digits",), "data=series data.path=..."),
        (("--output", "forecast.txt"), "must end in .csv or .parquet"),
    ],
    ids=str,
)
def test_arguments_that_mean_nothing_are_refused(arguments, said, forecast):
    assert said in forecast("point", *arguments)


def test_a_run_that_does_not_forecast_is_refused(forecast):
    assert "a VAE does not forecast; name a run of model=recurrent_forecaster" in forecast(EARLIER / "vae")


def test_a_correction_needs_the_rows_of_the_training(forecast, place):
    changed = pandas.read_csv(place / "whole.csv").assign(outside=lambda rows: rows["outside"] + 1)
    (place / "elsewhere").mkdir()
    changed.to_csv(place / "elsewhere" / "whole.csv", index=False)
    error = forecast("point", "--conformal", "data.root=elsewhere")
    assert "the data are no longer those of the training" in error


def test_the_series_of_a_published_run_goes_on(forecast, place):
    """A run of an earlier version on ETTh1, with a file of the published form."""
    from research.data.published import ETT

    steps = 14_400
    values = 5 + np.sin(np.arange(steps)[:, None] / 24 + np.arange(7))
    hours = pandas.date_range("2016-07-01", periods=steps, freq="h").strftime("%Y-%m-%d %H:%M:%S")
    with (place / "ETTh1.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", *ETT.names])
        writer.writerows([hour, *row] for hour, row in zip(hours, values.tolist(), strict=True))
    run = load(EARLIER / "parallel")
    assert run.feature_shape is not None
    table, _ = forecast(EARLIER / "parallel", f"data.root={place}")
    assert "time" not in table.columns  # the recipe reads none
    wanted = np.ravel(run.forecast(values[None, -run.feature_shape[0] :]).median)
    np.testing.assert_allclose(table["forecast"], wanted, rtol=1e-6)
    timed, _ = forecast(EARLIER / "parallel", "data=series", "data.path=ETTh1.csv", "data.time_column=date")
    np.testing.assert_allclose(timed["forecast"], wanted, rtol=1e-6)
    assert timed["time"][0] == "2018-02-21 00:00:00"
