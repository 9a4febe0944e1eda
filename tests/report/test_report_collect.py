import json
import math
import sys

import pytest

from research.report.collect import Hole, collect
from research.tree import ConfigError


def by_status(runs):
    return {run.status: run for run in runs}


def test_a_run_has_its_flat_config_choices_and_metrics(sweep):
    sweep.add(
        {"model.latent_dim": 2, "data.fold": 1},
        {"test/loss": 3.5, "test/auroc": None},
        null_reasons={"test/auroc": "why"},
    )
    (run,) = collect(sweep.folder)
    assert (run.value("model"), run.value("model.latent_dim"), run.value("data.fold")) == ("vae", 2, 1)
    assert run.value("model.cell") is Hole.ABSENT
    assert run.metrics == {"test/loss": 3.5, "test/auroc": None}
    assert run.null_reasons == {"test/auroc": "why"}
    assert (run.status, run.commit, run.program) == ("completed", "c0ffee", "vmap on cpu")


def test_a_key_that_configs_leave_out_at_its_default_has_that_value(sweep):
    target = {"model._target_": "research.models.vae.VAE"}
    sweep.add({**target, "seed": 0}, {"test/loss": 1})
    sweep.add({**target, "seed": 1, "model.dropout": 0.2}, {"test/loss": 2})
    sweep.add({"model._target_": "elsewhere.Model", "seed": 2}, {"test/loss": 3})
    runs = sorted(collect(sweep.folder), key=lambda run: run.value("seed"))
    assert [run.value("model.dropout") for run in runs] == [0.0, 0.2, Hole.ABSENT]
    assert runs[0].value("model.beat") is Hole.ABSENT


def test_a_time_beyond_the_range_of_floats_is_no_time(sweep):
    path = sweep.add({"seed": 0}, {"test/loss": 1})
    content = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(content | {"seconds_device_share": 10**400}))
    (run,) = collect(sweep.folder)
    assert run.seconds is None


def test_frame_has_a_row_a_run(grid):
    frame = collect(grid().folder).frame()
    assert frame.groupby("model.latent_dim")["test/loss"].mean().to_dict() == {2: 3, 8: 9}
    assert list(frame.columns[:5]) == ["run_id", "status", "reason", "seed", "fold"]


def test_planned_runs_without_a_folder_are_missing_with_the_values_of_the_plan(sweep):
    sweep.add({"model.latent_dim": 2, "seed": 0}, {"test/loss": 1})
    sweep.add({"model.latent_dim": 32, "seed": 1}, written=False)
    missing = by_status(collect(sweep.folder))["missing"]
    assert missing.reason == "not started"
    assert (missing.value("model.latent_dim"), missing.value("seed")) == (32, 1)
    assert missing.value("model.beta") == 1.0  # all runs agree
    assert missing.value("trainer.epochs") == 3
    assert missing.value("model.cell") is Hole.UNKNOWN


def test_a_chosen_group_takes_its_keys_from_runs_of_that_choice(sweep):
    sweep.add({"model": "vae", "model.beta": 4.0}, {"test/loss": 1})
    sweep.add({"model": "dense_ae", "model.beta": 0.0}, {"test/loss": 1}, model="dense_ae")
    sweep.add({"model": "dense_ae", "seed": 1}, written=False)
    assert by_status(collect(sweep.folder))["missing"].value("model.beta") == 0.0


def test_a_run_without_a_result_is_missing(sweep):
    path = sweep.add({"seed": 0})
    (path / "result.json").unlink()
    (run,) = collect(sweep.folder)
    assert (run.status, run.reason, run.value("seed")) == ("missing", "no result yet", 0)


@pytest.mark.parametrize("file", ["result.json", "config.json"])
@pytest.mark.parametrize("content", ['{"status": "comp', '{"metrics": {"test/loss": NaN}}', "[]"])
def test_a_broken_file_is_an_unreadable_run_that_names_it(sweep, file, content):
    path = sweep.add({"model.latent_dim": 2, "seed": 7}, {"test/loss": 1})
    (path / file).write_text(content)
    (run,) = collect(sweep.folder)
    assert run.status == "unreadable"
    assert f"{path.name}/{file}" in run.reason
    assert (run.value("model.latent_dim"), run.value("seed")) == (2, 7)


def test_a_result_of_another_config_is_unreadable(sweep):
    path = sweep.add({"seed": 0}, {"test/loss": 1})
    result = json.loads((path / "result.json").read_text()) | {"config_hash": "other"}
    (path / "result.json").write_text(json.dumps(result))
    (run,) = collect(sweep.folder)
    assert run.status == "unreadable"
    assert "config_hash" in run.reason


def test_a_broken_plan_is_a_problem_and_the_run_folders_still_count(grid):
    folder = grid().folder
    (folder / "sweep.json").write_text("{")
    runs = collect(folder)
    assert len(runs) == 6
    assert "sweep.json" in runs.problems[0]


def test_numbers_beyond_the_range_of_floats_are_null(sweep):
    path = sweep.add({"seed": 0}, {"test/loss": 12345.0})
    (path / "result.json").write_text((path / "result.json").read_text().replace("12345.0", "1e999"))
    (run,) = collect(sweep.folder)
    assert run.metrics == {"test/loss": None}
    assert run.null_reasons == {"test/loss": "infinite"}


def test_integers_beyond_the_range_of_floats_are_null(sweep):
    path = sweep.add({"seed": 0}, {"test/loss": 12345})
    (path / "result.json").write_text((path / "result.json").read_text().replace("12345", "9" * 400))
    (run,) = collect(sweep.folder)
    assert (run.metrics, run.null_reasons) == ({"test/loss": None}, {"test/loss": "infinite"})


def test_a_config_nested_beyond_what_can_be_read_is_unreadable(sweep):
    path = sweep.add({"seed": 0}, {"test/loss": 1})
    depth = 2 * sys.getrecursionlimit()
    (path / "config.json").write_text('{"config": ' + '{"a":' * depth + "1" + "}" * depth + "}")
    (run,) = collect(sweep.folder)
    assert run.status == "unreadable"
    assert run.reason.startswith("seed=0")
    assert run.reason.endswith("nested too deeply")


def test_a_link_in_the_place_of_a_run_or_of_its_files_is_not_followed(grid):
    folder = grid().folder
    first, second, third, *_ = sorted(path.name for path in folder.glob("*/"))
    (folder / first).rename(folder.parent / "moved")
    (folder / first).symlink_to(folder.parent / "moved")
    (folder / second / "result.json").rename(folder.parent / "result.json")
    (folder / second / "result.json").symlink_to(folder.parent / "result.json")
    (folder / third / "result.json").unlink()
    (folder / third / "result.json").symlink_to(folder / "nowhere")
    left_out = {run.run_id: (run.status, run.reason) for run in collect(folder) if not run.finished}
    assert left_out == {
        first: ("unreadable", f"{first} is a link, and not followed"),
        second: ("unreadable", f"{second}/result.json: a link or no plain file, and not followed"),
        third: ("unreadable", f"{third}/result.json: a link or no plain file, and not followed"),
    }


def test_runs_that_come_and_go_are_seen_by_the_next_report(sweep):
    path = sweep.add({"seed": 0}, {"test/loss": 1.0})
    sweep.add({"seed": 1}, {"test/loss": 2.0})
    assert [run.metrics["test/loss"] for run in collect(sweep.folder)] == [1.0, 2.0]
    (path / "result.json").write_text((path / "result.json").read_text().replace("1.0", "3.0"))
    sweep.add({"seed": 2}, {"test/loss": 4.0})
    assert [run.metrics["test/loss"] for run in collect(sweep.folder)] == [3.0, 2.0, 4.0]


def test_a_link_to_itself_and_names_that_no_file_can_have_are_runs_that_are_not_there(grid):
    folder = grid().folder
    (folder / "loop").symlink_to("loop")
    sweep = json.loads((folder / "sweep.json").read_text())
    for name in ("nul\0", "long" * 100, "loop"):
        sweep["runs"][name] = {"overrides": []}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    assert {run.run_id: run.status for run in collect(folder) if not run.finished} == {
        "nul\0": "missing",
        "long" * 100: "unreadable",
        "loop": "unreadable",
    }


def test_errors_say_what_to_do(sweep, tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean '/.*/demo'\?"):
        collect(tmp_path / "dem")
    with pytest.raises(ConfigError, match="no runs"):
        collect(sweep.folder)
    path = sweep.add({"seed": 0}, {"test/loss": math.pi})
    with pytest.raises(ConfigError, match="this is one run"):
        collect(path)


def test_a_path_that_holds_no_sweep_gets_one_that_does(sweep, tmp_path, monkeypatch):
    sweep.add({"seed": 0})
    (tmp_path / "outputs").mkdir()
    (tmp_path / "empty").mkdir()
    folder = sweep.folder.rename(tmp_path / "outputs" / "my first")
    (folder / "sweep.json").write_text("{}")
    (folder / "report").mkdir()
    monkeypatch.chdir(tmp_path)
    for path, remedy in (
        ("outputs/my frist", "no such folder (did you mean 'outputs/my first'?); name the folder of a sweep"),
        ("output/my first", "no such folder (did you mean 'outputs/my first'?); name the folder of a sweep"),
        ("outputs", "no runs in it; name the folder of a sweep, for example 'outputs/my first'"),
        ("outputs/my first/report", "no runs in it; name the folder of a sweep, for example 'outputs/my first'"),
        ("outputs/my first/sweep.json", "this is a file; name the folder of a sweep, for example 'outputs/my first'"),
        ("nowhere", "no such folder; name the folder of a sweep"),
        ("empty", "no runs in it; name the folder of a sweep"),
    ):
        with pytest.raises(ConfigError) as caught:
            collect(path)
        assert caught.value.remedy == remedy
