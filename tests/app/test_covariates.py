"""Covariates from the command to the forecast beyond the end of a file: a panel, one series, and what is refused."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from research import app
from research.forecast import forecast_file
from research.forecast import main as forecast_main
from research.runs.load import load
from research.tree import ConfigError

ROOT = Path(__file__).parents[2]
PANEL = ("data=panel", "data.id_column=store", "data.values=[y,z]", "data.known=[price]", "data.static=[kind]")
SERIES = ("data=series", "data.columns=[y,z]", "data.known=[price]", "data.calendar=[hour,weekday]")
SIZES = ("data.time_column=hour", "data.window=12", "data.horizon=4", "model=recurrent_forecaster", "model.segment=2")
SMALL = ("model.hidden_dim=4", "trainer.epochs=2", "trainer.batch_size=32", "evaluation.pictures=false")
QUANTILES = ("model.objective=quantile", "model.quantiles=[0.1,0.5,0.9]")
LENGTHS = {"north": 80, "east": 60, "south": 50}
ENDS = 6  # rows of steps to come


def stores() -> Any:
    pieces = []
    for number, (name, steps) in enumerate(LENGTHS.items()):
        hours = 5 * number + np.arange(steps + ENDS)
        price, z = np.random.default_rng(number).normal(10, 2, (2, steps + ENDS)).round(2)
        y = np.where(np.arange(steps + ENDS) < steps, 2 * price + hours % 24, np.nan)
        times = np.datetime64("2021-03-01T00", "h") + hours.astype("m8[h]")
        columns = {"store": name, "hour": times, "kind": name[-1], "price": price, "y": y, "z": z + 0 * y}
        pieces.append(pandas.DataFrame(columns))
    return pandas.concat(pieces, ignore_index=True)


def train(patch: pytest.MonkeyPatch, *overrides: str) -> int:
    patch.setattr(sys, "argv", ["train.py", *overrides])
    app.statuses.clear()
    try:
        app.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, a run on the panel and one on its first series."""
    folder = tmp_path_factory.mktemp("covariates")
    table = stores()
    table.to_csv(folder / "stores.csv", index=False)
    table[table["store"] == "north"].drop(columns="store").to_csv(folder / "north.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        panel = (*PANEL, "data.calendar=[hour,weekday]", "data.path=stores.csv", "model.decoding=recursive")
        assert train(patch, *panel, *SIZES, *SMALL, *QUANTILES, "data.split=last", "name=panel") == 0
        assert train(patch, *SERIES, "data.path=north.csv", *SIZES, *SMALL, "evaluation=none", "name=series") == 0
    return folder


def run_of(place: Path, name: str) -> Any:
    return load(next((place / "outputs" / name).glob("*/result.json")).parent)


def forecast(place: Path, name: str, table: Any, patch: pytest.MonkeyPatch) -> Any:
    """The forecasts of a run for a table, which is written as another file."""
    patch.chdir(place)
    table.to_csv("new.csv", index=False)
    return pandas.DataFrame(forecast_file(run_of(place, name), ["data.path=new.csv"])[0])


def test_a_file_of_a_panel_is_forecast_with_what_is_known_of_the_steps_to_come(place, monkeypatch):
    table = stores()
    first = forecast(place, "panel", table, monkeypatch)
    assert len(first) == len(LENGTHS) * 4 * 2
    times = [
        str(time) for name, steps in LENGTHS.items() for time in table.loc[table["store"] == name, "hour"][steps:][:4]
    ]
    assert list(first["time"][::2]) == times
    shuffled = pandas.concat([rows for _, rows in table.groupby("store")])  # east, north, south
    again = forecast(place, "panel", shuffled, monkeypatch).set_index(["series", "step", "channel"])
    np.testing.assert_allclose(
        again.loc[list(first.set_index(["series", "step", "channel"]).index)]["forecast"], first["forecast"], rtol=1e-5
    )
    beyond = table.copy()
    place_of = beyond.groupby("store").cumcount() - beyond["store"].map(LENGTHS)
    beyond.loc[place_of >= 4, "price"] = 1000.0  # steps after the horizon have no influence
    pandas.testing.assert_frame_equal(forecast(place, "panel", beyond, monkeypatch), first)
    beyond.loc[place_of == 3, "price"] += 3  # the last segment has steps 3 and 4; recursive ones before do not read it
    changed = forecast(place, "panel", beyond, monkeypatch)["forecast"] != first["forecast"]
    assert changed[first["step"] > 2].all()
    assert not changed[first["step"] <= 2].any()


def test_arrays_with_covariates_are_forecast_as_the_file_is(place, monkeypatch):
    run, table = run_of(place, "panel"), stores()
    first = forecast(place, "panel", table, monkeypatch)
    rows = [of[steps - 12 : steps + 4] for (name, steps) in LENGTHS.items() for of in [table[table["store"] == name]]]
    x = np.stack([of[["y", "z"]][:12] for of in rows])
    known, times = (np.stack([of[name] for of in rows]) for name in ("price", "hour"))
    beside: dict[str, Any] = {"known": known, "times": times, "static": ["h", "t", "h"]}
    np.testing.assert_allclose(run.forecast(x, **beside).median.ravel(), first["forecast"], rtol=1e-6)
    for name, remedy in (
        ("known", "price by known="),
        ("times", "hour, weekday by times="),
        ("static", "kind by static="),
    ):
        with pytest.raises(ConfigError, match=remedy) as error:
            run.forecast(x, **{key: value for key, value in beside.items() if key != name})
        assert error.value.key == name
    for changes in ({"known": known[:, :15]}, {"times": times[:2]}, {"static": ["h", "q", "t"]}, {"static": ["h"]}):
        with pytest.raises(ConfigError):
            run.forecast(x, **(beside | changes))


def test_one_series_is_forecast_likewise_and_a_calendar_needs_no_rows(place, monkeypatch):
    table: Any = pandas.read_csv(place / "north.csv")
    first = forecast(place, "series", table, monkeypatch)
    assert list(first["time"][::2]) == list(table["hour"][80:84])
    table.loc[82, "price"] += 2
    assert (forecast(place, "series", table, monkeypatch)["forecast"] != first["forecast"]).all()
    with pytest.raises(ConfigError, match=r"4 steps after the last value.* of 1: 3 steps are lacking") as error:
        forecast(place, "series", table[:81], monkeypatch)
    assert error.value.key == "data.known"


def test_a_run_of_the_panel_has_its_scores_and_its_scale(place):
    run = run_of(place, "panel")
    assert (run.facts.known, run.facts.static) == (5, 2)
    metrics = run.result["metrics"]
    assert metrics["test/mae_raw"] > 0
    assert metrics["baseline/repeat_last/mae_raw"] > 0
    assert run.params["future"]["kernel"].shape == (4 + 2 * 5 + 2, 4)


def test_the_commands_of_the_readme_train_and_forecast(tmp_path, monkeypatch):
    text = (ROOT / "research" / "data" / "README.md").read_text()
    section = text[text.index("### Covariates") :]
    block = re.findall(r"^```text\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)[0]
    command, other = (shlex.split(line) for line in block.replace("\\\n", " ").splitlines())
    days = pandas.date_range("2024-01-01", periods=150)
    pieces = []
    for number, name in enumerate(("A", "B")):
        price = np.random.default_rng(number).normal(5, 1, 150).round(2)
        sold = np.where(np.arange(150) < 143, 20 - 2 * price + days.day_of_week, np.nan)
        pieces.append(
            pandas.DataFrame({"store": name, "day": days, "sold": sold, "price": price, "kind": f"k{number}"})
        )
    pandas.concat(pieces).to_csv(tmp_path / "sales.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert train(monkeypatch, *command[2:], *SMALL, "evaluation=none") == 0
    run = next((tmp_path / "outputs" / "sales").glob("*/result.json")).parent
    monkeypatch.setattr(sys, "argv", [word.replace("RUN", run.name) for word in other[1:]])
    forecast_main()
    assert list(pandas.read_csv("forecast.csv")["time"][6::7]) == ["2024-05-29"] * 2


@pytest.mark.parametrize("model", ["vae", "recurrent_ae", "recurrent_predictor"])
def test_other_models_refuse_covariates_by_the_setting_without_them(model, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    command = (*PANEL, "data.path=stores.csv", "data.time_column=hour", "data.window=12", "data.horizon=4")
    assert train(monkeypatch, *command, f"model={model}", "name=other") == 2
    refusal = capsys.readouterr().err
    assert len(refusal.strip().splitlines()) == 1
    assert re.search(
        r"data.known=\['?price'?\]: .*does not read covariates; set 'data.known=\[\]' 'data.static=\[\]'", refusal
    )
    assert not (place / "outputs" / "other").exists()
