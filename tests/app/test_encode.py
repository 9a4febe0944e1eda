"""Encoding new files with a finished run: columns and classes by name, few rows, the run's own keys and clusters."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from research import app
from research.encode import main as encode_main
from research.runs.files import ALONE, digest
from research.runs.folder import RunFolder
from research.runs.load import load

COMMON = ("trainer.epochs=2", "trainer.batch_size=8", "trainer.evaluate_every=1", "evaluation=none")


def call(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    app.statuses.clear()
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs and the files that they were trained on."""
    folder, random = tmp_path_factory.mktemp("encode"), np.random.default_rng(0)
    trees = pandas.DataFrame({"height": random.normal(1e6, 3.0, 60), "girth": random.normal(0.5, 0.1, 60)})
    trees["tree"] = [("ash", "elm", "oak")[row % 3] for row in range(60)]
    trees.to_csv(folder / "trees.csv", index=False)
    hours = pandas.date_range("2024-01-01", periods=90, freq="h")
    series = {"time": hours, "temp": random.normal(20.0, 2.0, 90), "load": random.normal(9.0, 1.0, 90)}
    pandas.DataFrame(series).to_csv(folder / "series.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arrays = ("data=arrays", "data.path=trees.csv", "data.target=tree", "model=dense_ae", "model.conditional=true")
        sizes = ("model.hidden_dims=[4]", "model.latent_dim=2", "evaluation.clustering=classes")
        own = [key for key in COMMON if key != "evaluation=none"]
        assert call(patch, app.main, *arrays, *sizes, *own, "name=trees") == 0
        windows = ("data=series", "data.path=series.csv", "data.time_column=time", "data.window=6", "model=gru_ae")
        assert call(patch, app.main, *windows, "model.latent_dim=2", "model.hidden_dim=3", *COMMON, "name=series") == 0
    return folder


def run_of(place: Path, name: str) -> Path:
    return next((place / "outputs" / name).glob("*/result.json")).parent


@pytest.fixture
def encode(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`encode("trees", "data.path=new.csv")`: the table that the script writes, or its refusal."""

    def run(name: str, *arguments: str, first: tuple[str, ...] = ()) -> Any:
        monkeypatch.chdir(place)
        capsys.readouterr()
        code = call(monkeypatch, encode_main, *first, str(run_of(place, name)), *arguments)
        error = capsys.readouterr().err
        if code:
            assert code == 2
            assert len(error.strip().splitlines()) == 1, error
            return error
        return pandas.read_csv("codes.csv")

    return run


@pytest.fixture
def rows(place: Path) -> pandas.DataFrame:
    return pandas.read_csv(place / "trees.csv")


def test_columns_are_matched_by_name_and_not_by_place(encode, place, rows):
    whole = encode("trees", "data.path=trees.csv")
    rows[["tree", "girth", "height"]].to_csv(place / "swapped.csv", index=False)
    pandas.testing.assert_frame_equal(encode("trees", "data.path=swapped.csv"), whole)
    rows.drop(columns="girth").to_csv(place / "fewer.csv", index=False)
    assert "girth" in encode("trees", "data.path=fewer.csv")
    rows.assign(age=1.5).to_csv(place / "more.csv", index=False)
    assert "age" in encode("trees", "data.path=more.csv")


def test_classes_are_matched_by_name_where_a_file_lacks_some(encode, place, rows):
    whole = encode("trees", "data.path=trees.csv")
    some = rows[rows["tree"] != "ash"]
    some.to_csv(place / "some.csv", index=False)
    found = encode("trees", "data.path=some.csv")
    np.testing.assert_allclose(found["score"], whole["score"][some.index], rtol=1e-5)
    assert list(found["label"]) == list(some["tree"])
    rows.replace("oak", "fir").to_csv(place / "unknown.csv", index=False)
    assert "label=fir: no such class" in encode("trees", "data.path=unknown.csv")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_rows_need_no_division(encode, place, rows, count):
    whole = encode("trees", "data.path=trees.csv")
    rows[:count].to_csv(place / "few.csv", index=False)
    few = encode("trees", "data.path=few.csv")
    assert len(few) == count
    np.testing.assert_allclose(few["score"], whole["score"][:count], rtol=1e-5)


def test_one_window_and_a_constant_channel_are_encoded(encode, place):
    series = pandas.read_csv(place / "series.csv")
    whole = encode("series", "data.path=series.csv")
    assert len(whole) == 90 - 5
    series[:6].to_csv(place / "one.csv", index=False)
    np.testing.assert_allclose(encode("series", "data.path=one.csv")["score"], whole["score"][:1], rtol=1e-5)
    series[["load", "time", "temp"]].to_csv(place / "turned.csv", index=False)
    pandas.testing.assert_frame_equal(encode("series", "data.path=turned.csv"), whole)
    series.assign(temp=21.0).to_csv(place / "steady.csv", index=False)
    assert np.isfinite(encode("series", "data.path=steady.csv")["score"]).all()


def test_the_command_starts_from_the_keys_of_the_run(encode, place):
    own = encode("series")
    pandas.testing.assert_frame_equal(encode("series", "data=series", "data.path=series.csv"), own)
    pandas.testing.assert_frame_equal(encode("series", "data.path=series.csv", first=("--part", "all")), own)
    assert len(encode("series", "data.stride=6", "data.path=series.csv")) == 15
    test = encode("series", "--part", "test")
    assert 0 < len(test) < len(own)
    np.testing.assert_array_equal(test["z0"], own["z0"][test["row"]])
    assert "data.strid=6: the data of this run have no such key (did you mean 'data.stride'?)" in encode(
        "series", "data.strid=6"
    )


def test_scores_of_the_test_rows_are_those_of_the_training(encode, place):
    for name in ("trees", "series"):
        result = load(run_of(place, name)).result
        np.testing.assert_allclose(encode(name, "--part", "test")["score"].mean(), result["metrics"]["test/loss"], 1e-5)


def test_rows_are_assigned_to_the_clusters_of_the_run(encode, place, rows):
    centres = RunFolder(run_of(place, "trees")).load_clusters()
    assert centres.shape == (3, 2)
    whole = encode("trees", "data.path=trees.csv", "--clusters", "3")
    codes = whole[["z0", "z1"]].to_numpy()
    expected = np.square(codes[:, None] - centres).sum(-1).argmin(1)
    np.testing.assert_array_equal(whole["cluster"], expected)
    rows[5:6].to_csv(place / "single.csv", index=False)
    assert encode("trees", "--clusters", "3", "data.path=single.csv")["cluster"][0] == expected[5]
    other = encode("trees", "--clusters", "2", "data.path=trees.csv")
    assert encode("trees", "--clusters", "2", "data.path=single.csv")["cluster"][0] == other["cluster"][5]


def test_notes_on_new_rows_are_printed_and_refusals_have_the_prefix_of_the_keys(encode, place, capsys, monkeypatch):
    series = pandas.read_csv(place / "series.csv")
    series.drop(index=[4, 5]).to_csv(place / "gaps.csv", index=False)
    monkeypatch.chdir(place)
    assert call(monkeypatch, encode_main, str(run_of(place, "series")), "data.path=gaps.csv") == 0
    assert "note: 2 of 90 steps of 1 hour are missing and masked" in capsys.readouterr().err
    series[::2].to_csv(place / "other.csv", index=False)
    assert "data.time_column=time: its rows are 2 hours apart" in encode("series", "data.path=other.csv")


def test_a_target_that_is_not_known_yet_is_no_target(encode, place, rows):
    rows.assign(tree=np.nan).to_csv(place / "unknown.csv", index=False)
    assert "this model is conditional" in encode("trees", "data.path=unknown.csv")


@pytest.mark.parametrize("centres", [np.zeros((3, 7)), np.full((3, 2), np.nan), np.zeros(3)])
def test_clusters_that_are_not_those_of_the_run_are_refused(place, tmp_path, monkeypatch, capsys, centres):
    folder = tmp_path / "run"
    shutil.copytree(run_of(place, "trees"), folder)
    files = RunFolder(folder, ALONE)
    monkeypatch.chdir(place)
    for seal in (True, False):
        files.save_clusters(centres.astype(np.float32))
        result = json.loads((folder / "result.json").read_text())
        result["files"].pop("clusters.safetensors", None)
        result["files"] |= {"clusters.safetensors": digest(files.clusters)} if seal else {}
        (folder / "result.json").write_text(json.dumps(result))
        assert call(monkeypatch, encode_main, str(folder), "data.path=trees.csv", "--clusters", "3") == 2
        assert "clusters.safetensors" in capsys.readouterr().err


def test_a_mistyped_folder_does_not_exist_and_the_nearest_run_is_named(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    run = run_of(place, "trees").relative_to(place)
    for mistyped in (run.with_name(run.name[:-3]), run.parent.with_name("tree") / run.name):
        assert call(monkeypatch, encode_main, str(mistyped)) == 2
        assert f"this folder does not exist (did you mean '{run}'?)" in capsys.readouterr().err
    assert call(monkeypatch, encode_main, "nowhere/at/all") == 2
    assert "this folder does not exist; name the folder of one run" in capsys.readouterr().err
    for level, folder in (("sweep", run.parent), ("outputs", run.parent.parent)):
        assert call(monkeypatch, encode_main, str(folder)) == 2
        said = capsys.readouterr().err
        assert "no config.json is here; name the folder of one run, for example " in said
        example = Path(shlex.split(said.rpartition("example ")[2])[0])
        assert (example / "params.safetensors").exists(), level
        assert folder in example.parents
