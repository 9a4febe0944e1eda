"""Series with scales of their own: the same numbers in the units of the data, whatever the size of a series."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from configs import shipped

from research import app
from research.data.loading import load as load_data
from research.forecast import forecast_file
from research.report.collect import collect
from research.report.figures import rows, scene
from research.report.table import table
from research.runs.load import load
from research.tree import ConfigError, build, plain

KEYS = ("data=panel", "data.path=stores.csv", "data.id_column=store", "data.time_column=day", "data.horizon=4")
SIZES = ("data.window=12", "model=recurrent_forecaster", "model.objective=gaussian", "evaluation.conformal=true")
SMALL = ("model.hidden_dim=4", "trainer.epochs=2", "trainer.batch_size=32", "evaluation.pictures=false")
LENGTHS = {"A": 80, "B": 60, "C": 70}
NAMES = ("crps_raw", "mae_raw", "mase", "mse_raw", "smape", "width_80_raw", "coverage_80")


def stores(factor: float = 1.0, offset: float = 0.0) -> Any:
    """Three series; the values of B are multiplied and moved."""
    pieces = []
    for number, (name, steps) in enumerate(LENGTHS.items()):
        walk = np.random.default_rng(number).normal(0, 1, (steps, 2)).cumsum(0) + 10
        values = (walk * factor + offset) if name == "B" else walk
        days = np.datetime64("2024-01-01") + np.arange(steps).astype("m8[D]")
        pieces.append(pandas.DataFrame({"store": name, "day": days, "y": values[:, 0], "z": values[:, 1]}))
    return pandas.concat(pieces, ignore_index=True)


def keys(file: Path, **changes: Any) -> dict[str, Any]:
    own = {"path": str(file), "id_column": "store", "time_column": "day", "window": 12, "horizon": 4}
    return shipped("data", "panel") | own | {"scale_by": "series"} | changes


def write(table: Any, folder: Path) -> Path:
    table.to_csv(folder / "stores.csv", index=False)
    return folder / "stores.csv"


def train(patch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> Any:
    patch.setattr(sys, "argv", ["train.py", *KEYS, *SIZES, *SMALL, *overrides])
    patch.chdir(folder)
    app.statuses.clear()
    with contextlib.suppress(SystemExit):
        app.main()
    return load(next(folder.glob("outputs/*/*/result.json")).parent)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs on the series as they are, with B in other units, and with one scale for all."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, table, by in (
            ("plain", stores(), "series"),
            ("large", stores(1000, 7000), "series"),
            ("all", stores(1000, 7000), "all"),
        ):
            folder = tmp_path_factory.mktemp(name)
            write(table, folder)
            made[name] = train(patch, folder, f"data.scale_by={by}")
    return made


def folder_of(run: Any) -> Path:
    return run.folder.parents[2]


def forecast(run: Any, patch: pytest.MonkeyPatch, file: str = "stores.csv") -> tuple[Any, Any]:
    patch.chdir(folder_of(run))
    columns, notes = forecast_file(run, [f"data.path={file}"])
    return pandas.DataFrame(columns), notes


# ------------------------------------------------------------------------------------------------------------ the rows


@pytest.mark.parametrize(("split", "held"), [("steps", None), ("last", 8)])
@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_every_series_is_scaled_by_its_own_steps_before_validation(scaling, split, held, tmp_path):
    table = stores(1000, 7000)
    table["open"] = np.arange(len(table)) % 3 // 2
    dataset = load_data(build(keys(write(table, tmp_path), scaling=scaling, split=split)))
    rows = dataset.examples.take(np.arange(len(dataset.examples)))
    first = 0
    for name, steps in LENGTHS.items():
        values = table.loc[table["store"] == name, ["y", "z", "open"]].to_numpy(float)
        low = steps - round(0.2 * steps)
        training = values[: steps - held if held else low - round(0.2 * low)]
        shift, spread = (
            (training.mean(0), training.std(0)) if scaling == "standard" else (training.min(0), np.ptp(training, 0))
        )
        shift[2], spread[2] = 0, 1  # a column of 0 and 1 stays
        windows = np.isclose(rows.series_shift[:, 0], shift[0], rtol=1e-9)
        count = int(windows.sum())
        assert count > 10
        assert windows[first : first + count].all()
        np.testing.assert_allclose(rows.series_scale[first], 1 / spread, rtol=1e-9)
        step = len(values) - 4 - 12  # the last window of the series
        np.testing.assert_allclose(rows.x[first + count - 1] * spread + shift, values[step : step + 12], rtol=1e-9)
        np.testing.assert_allclose(rows.target[first + count - 1] * spread + shift, values[step + 12 :], rtol=1e-9)
        before = values[: steps - 4] if held else values[:low]
        np.testing.assert_allclose(rows.naive_error[first], np.abs(np.diff(before, axis=0)).mean(0), rtol=1e-6)
        first += count
    assert (dataset.split(None).shift, dataset.split(None).scale) == (0, 1)


def test_a_series_that_does_not_vary_before_validation_is_left_out(tmp_path):
    table = stores()
    constant = (table["store"] == "B") & (table.groupby("store").cumcount() < 40)
    table.loc[constant, "y"] = 3.3
    dataset = load_data(build(keys(write(table, tmp_path))))
    note = next(note for note in dataset.notes if "left out" in note)
    assert "1 of 3 series have a channel that does not vary" in note
    assert note.endswith("left out: B")
    assert len(dataset.examples.x.series) == LENGTHS["A"] + LENGTHS["C"]
    table["y"] = 3.3
    with pytest.raises(ConfigError, match="in every series a channel does not vary") as error:
        build(keys(write(table, tmp_path))).stored()
    assert error.value.key == "scale_by"


@pytest.mark.parametrize(
    ("changes", "remedy"), [({"horizon": None}, "data.horizon=24"), ({"scaling": "none"}, "data.scaling=standard")]
)
def test_settings_without_a_way_back_are_refused(changes, remedy, tmp_path):
    with pytest.raises(ConfigError, match=remedy) as error:
        build(keys(write(stores(), tmp_path), **changes))
    assert error.value.key == "scale_by"


def test_one_scale_for_all_keeps_its_hash(tmp_path):
    assert "scale_by" not in plain(build(keys(write(stores(), tmp_path), scale_by="all")))


# ------------------------------------------------------------------------------------------------ the units of the data


@pytest.mark.parametrize("method", ["repeat_last"])
def test_naive_forecasts_have_the_scores_that_one_scale_for_all_gives_them(method, runs):
    """In the units of the data they know nothing of a scaling."""
    one, other = (runs[name].result["metrics"] for name in ("large", "all"))
    for name in NAMES:
        key = f"baseline/{method}/{name}"
        assert one[key] == pytest.approx(other[key], rel=2e-3), key
    assert one[f"baseline/{method}/mae"] != pytest.approx(other[f"baseline/{method}/mae"], rel=0.05)


def test_forecasts_of_a_series_in_other_units_are_those_forecasts_in_other_units(runs, monkeypatch):
    first, _ = forecast(runs["plain"], monkeypatch)
    other, _ = forecast(runs["large"], monkeypatch)
    moved = first["series"] == "B"
    for column in ("forecast", "low_80", "high_95"):
        np.testing.assert_allclose(other.loc[~moved, column], first.loc[~moved, column], rtol=1e-3)
        np.testing.assert_allclose(other.loc[moved, column], 1000 * first.loc[moved, column] + 7000, rtol=1e-3)
    assert (other.loc[moved, "forecast"] > 5000).all()
    metrics = runs["plain"].result["metrics"], runs["large"].result["metrics"]
    for name in ("test/mae", "test/mase", "test/crps", "test/coverage_80", "validation/crps"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-3)
    for name in ("test/mae_raw", "validation/mae_raw", "test/crps_raw", "test/width_80_conformal_raw"):
        assert metrics[1][name] > 50 * metrics[0][name], name


@pytest.mark.parametrize("part", ["validation", "test"])
def test_errors_in_the_units_of_the_data_are_those_of_forecasts_from_arrays(part, runs, monkeypatch):
    """The rows are cut from the file by hand, and `run.forecast` gets them in the units of the file."""
    run = runs["large"]
    monkeypatch.chdir(folder_of(run))
    recipe = build({**run.config["data"], "root": None})
    dataset, raw = load_data(recipe), {name: rows[["y", "z"]] for name, rows in stores(1000, 7000).groupby("store")}
    miss = []
    for number in dataset.split(None).rows(part):
        start, before = int(dataset.examples.x.start[number]), 0
        for name, steps in LENGTHS.items():
            if start < before + steps:
                values = raw[name].to_numpy()[start - before :][:16]
                found = run.forecast(values[None, :12], series=[name]).median[0]
                miss.append(np.abs(found - values[12:]))
                break
            before += steps
    assert run.result["metrics"][f"{part}/mae_raw"] == pytest.approx(np.mean(miss), rel=1e-4)


def test_rows_need_the_names_of_their_series(runs, monkeypatch):
    run, table = runs["large"], stores(1000, 7000)
    x = np.stack([rows[["y", "z"]].to_numpy()[-12:] for _, rows in table.groupby("store")])
    found = run.forecast(x, series=["A", "B", "C"]).median
    np.testing.assert_allclose(found.ravel(), forecast(run, monkeypatch)[0]["forecast"], rtol=1e-6)
    for beside, remedy in (
        ({}, "a list of their names, one for each of 3 rows"),
        ({"series": ["A", "B", "D"]}, "training had no such series"),
        ({"series": "ABC"}, "a list of their names"),
    ):
        with pytest.raises(ConfigError, match=remedy) as error:
            run.forecast(x, **beside)
        assert error.value.key == "series"
    with pytest.raises(ConfigError, match="one scale for all series; leave it out"):
        runs["all"].forecast(x, series=["A", "B", "C"])


# -------------------------------------------------------------------------------------------------------- other files


def test_a_new_series_has_the_scale_of_its_own_steps_and_known_ones_that_of_the_training(runs, monkeypatch):
    run, table = runs["plain"], stores()
    twin = table[table["store"] == "A"].copy()
    twin[["y", "z"]] = twin[["y", "z"]] * 1e6 - 3e6
    twin["store"] = "twin"
    flat = twin.assign(store="flat", z=1.0)
    tail = table[table.groupby("store").cumcount(ascending=False) < 15]
    pandas.concat([tail, twin, flat]).to_csv(folder_of(run) / "new.csv", index=False)
    found, notes = forecast(run, monkeypatch, "new.csv")
    whole, _ = forecast(run, monkeypatch)
    np.testing.assert_allclose(found.loc[found["series"].isin(LENGTHS), "forecast"], whole["forecast"], rtol=1e-5)
    forecasts = found.loc[found["series"] == "twin", "forecast"].to_numpy() / 1e6 + 3
    spread = float(table.loc[table["store"] == "A", "y"].std())
    assert (np.abs(forecasts - whole.loc[whole["series"] == "A", "forecast"].to_numpy()) < spread).all()
    assert any("1 of 4 series were not in the training" in note and note.endswith("twin") for note in notes)
    assert any("left out: flat" in note for note in notes)


def test_what_cannot_be_undone_is_refused(runs, monkeypatch, capsys, tmp_path):
    run = runs["large"]
    monkeypatch.chdir(folder_of(run))
    with pytest.raises(ConfigError, match="series of different sizes"):
        forecast_file(run, ["data.path=stores.csv"], conformal=True)
    with pytest.raises(ConfigError, match=r"was trained with data\.scale_by=series") as error:
        forecast_file(run, ["data.path=stores.csv", "data.scale_by=all"])
    assert error.value.key == "data.scale_by"
    write(stores(), tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["train.py", *KEYS, "data.scale_by=series", "data.window=12", "model=recurrent_ae"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert "set data.scale_by=all, or use model=recurrent_forecaster" in capsys.readouterr().err


def test_scales_of_series_and_covariates_go_together(tmp_path, monkeypatch):
    """The file goes on for four rows with a price alone; arrays and the file give one forecast."""
    table = stores(1000, 7000).drop(columns="z")
    price = np.random.default_rng(5).normal(3, 1, len(table)).round(2)
    last = table.groupby("store").cumcount(ascending=False) < 4
    table = table.assign(price=price, y=table["y"].mask(last))
    write(table, tmp_path)
    covariates = ("data.known=[price]", "data.calendar=[weekday]", "data.values=[y]")
    run = train(monkeypatch, tmp_path, *covariates, "data.scale_by=series", "evaluation.conformal=false")
    found, _ = forecast(run, monkeypatch)
    ends = [of[-16:] for _, of in table.groupby("store")]
    x, known, times = (np.stack([of[name] for of in ends]) for name in ("y", "price", "day"))
    beside = {"known": known, "times": times, "series": list(LENGTHS)}
    np.testing.assert_allclose(run.forecast(x[:, :12, None], **beside).median.ravel(), found["forecast"], rtol=1e-6)
    assert (found.loc[found["series"] == "B", "forecast"] > 5000).all()
    beside["known"] = known + 1
    assert (run.forecast(x[:, :12, None], **beside).median.ravel() != found["forecast"]).all()


def test_a_figure_draws_forecasts_in_the_units_of_the_data(runs, monkeypatch):
    """Windows of A and C lie near 10, those of B near 17,000."""
    folder = runs["large"].folder.parent
    monkeypatch.chdir(folder_of(runs["large"]))
    (plan,) = rows.forecasts(scene.Scene(table(collect(folder)), folder, print))
    sizes = []
    for panel in plan().picture.panels:
        middle = {line.name: float(np.median(line.y)) for line in panel.lines if line.name}
        assert np.ptp(list(middle.values())) < 0.9 * abs(middle["truth"])
        sizes.append(middle["truth"])
    truth = stores(1000, 7000)[["y", "z"]].to_numpy()
    assert truth.min() <= min(sizes) < 100 < 1000 < max(sizes) <= truth.max()
