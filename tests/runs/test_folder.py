import errno
import json
import os

import numpy as np
import pytest

from research.runs import files as module
from research.runs.files import ALONE, writable
from research.runs.folder import RunFolder
from research.tree import ConfigError


def test_config_is_written_once_and_another_one_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run", ALONE)
    run.write_config({"config": {"seed": 0}, "config_hash": "a"})
    before = run.config.stat().st_mtime_ns
    run.write_config({"config": {"seed": 0}, "config_hash": "a"})
    assert run.config.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="another configuration"):
        run.write_config({"config": {"seed": 1}, "config_hash": "b"})
    assert run.read_config()["config"] == {"seed": 0}


def test_result_is_strict_json_with_reasons(tmp_path):
    run = RunFolder(tmp_path, ALONE)
    assert run.read_result() is None
    metrics = {
        "test/loss": np.float32("nan"),
        "test/mse": -np.inf,
        "test/kl_nats": np.float32(0.5),
        "test/nll_nats": None,
    }
    run.write_result({"metrics": metrics, "width": np.int64(3), "null_reasons": {"test/nll_nats": "no posterior"}})

    def refuse(constant):
        raise AssertionError(constant)

    result = json.loads(run.result.read_text(), parse_constant=refuse)
    assert result["metrics"] == {"test/loss": None, "test/mse": None, "test/kl_nats": 0.5, "test/nll_nats": None}
    assert result["null_reasons"] == {
        "test/loss": "not a number",
        "test/mse": "-infinite",
        "test/nll_nats": "no posterior",
    }
    assert result["width"] == 3


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "no space"), (errno.EROFS, "cannot be written")])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, code, words):
    run = RunFolder(tmp_path, ALONE)
    run.write_result({"status": "completed"})

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(ConfigError, match=words):
        run.write_result({"status": "failed"})
    assert run.read_result()["status"] == "completed"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_writes_leave_no_temporary_files(tmp_path):
    run = RunFolder(tmp_path / "run", ALONE)
    run.write_config({"config_hash": "a"})
    run.write_result({})
    run.append_metrics([{"step": 1}])
    run.save_parameters({"a": np.zeros(2)}, {})
    run.write_figures({"samples": b"x"})
    found = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())
    assert found == ["config.json", "figures/samples.png", "metrics.csv", "params.safetensors", "result.json"]


def test_writable_makes_nothing_and_refuses_a_file_in_the_way(tmp_path):
    writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="a file stands"):
        writable(tmp_path / "a" / "b")
    with pytest.raises(ConfigError):
        writable("/proc/sweep")


def test_metrics_replace_what_a_resumed_run_repeats(tmp_path):
    run = RunFolder(tmp_path, ALONE)
    run.append_metrics([{"step": 10, "train/loss": 1.0}, {"step": 20, "train/loss": 0.5}])
    run.append_metrics([{"step": 30, "train/loss": np.float32("nan")}])
    resumed = RunFolder(tmp_path, ALONE)
    resumed.append_metrics([{"step": 20, "train/loss": 0.25}])
    resumed.append_metrics([{"step": 30}])
    assert run.metrics.read_text() == "step,train/loss\n10,1.0\n20,0.25\n30,\n"
    assert resumed.read_metrics()[1:] == [{"step": 20.0, "train/loss": 0.25}, {"step": 30.0}]


def test_metrics_survive_a_line_cut_short(tmp_path):
    RunFolder(tmp_path, ALONE).append_metrics([{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 2.0}])
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("3,0.")
    RunFolder(tmp_path, ALONE).append_metrics([{"step": 3, "train/loss": 3.0}])
    assert [row["train/loss"] for row in RunFolder(tmp_path, ALONE).read_metrics()] == [1.0, 2.0, 3.0]


def test_the_first_row_fixes_the_columns(tmp_path):
    run = RunFolder(tmp_path, ALONE)
    run.append_metrics([{"step": 1, "train/loss": 1.0}])
    with pytest.raises(ValueError, match="validation/loss"):
        run.append_metrics([{"step": 2, "validation/loss": 1.0}])
    with pytest.raises(ValueError, match="no step"):
        run.append_metrics([{"train/loss": 1.0}])


def test_parameters_come_back_bit_for_bit(tmp_path):
    run = RunFolder(tmp_path, ALONE)
    kernel = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    params = {"encoder": {"hidden": {"kernel": kernel.T, "count": np.int32(3)}}, "decoder": {"bias": np.zeros(0)}}
    run.save_parameters(params, {"shift": np.float32(0.5), "scale": np.ones((2, 2), np.float32)})
    loaded, scaling = run.load_parameters()
    np.testing.assert_array_equal(loaded["encoder"]["hidden"]["kernel"], kernel.T)
    assert loaded["encoder"]["hidden"]["count"] == 3
    assert loaded["encoder"]["hidden"]["count"].shape == ()
    assert loaded["decoder"]["bias"].shape == (0,)
    assert scaling["shift"] == np.float32(0.5)
    assert scaling["scale"].shape == (2, 2)


def test_absent_and_damaged_parameters_say_why(tmp_path):
    run = RunFolder(tmp_path, ALONE)
    run.write_result({"status": "diverged", "reason": "loss not finite at step 3"})
    with pytest.raises(ConfigError, match=r"diverged \(loss not finite at step 3\) and kept no parameters"):
        run.load_parameters()
    run.parameters.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    run.write_result({"status": "diverged", "files": run.hashes()})
    with pytest.raises(ConfigError, match="damaged"):
        run.load_parameters()


@pytest.fixture
def sealed(tmp_path):
    """A trained run with the hashes of its files in its result."""

    def write(name, weight):
        run = RunFolder(tmp_path / name, ALONE)
        run.write_config({"config": {"seed": 0}, "config_hash": name})
        run.append_metrics([{"step": 1, "train/loss": 1.0}])
        run.save_parameters({"weight": np.float32(weight)}, {})
        run.write_result({"status": "completed", "files": run.hashes()})
        return run

    return write


def test_parameters_of_another_run_are_refused_by_their_hash(sealed):
    one, other = sealed("one", 1), sealed("other", 2)
    assert one.load_parameters()[0]["weight"] == 1
    one.parameters.write_bytes(other.parameters.read_bytes())
    with pytest.raises(ConfigError, match=r"one: params\.safetensors is not the file .* \(its hash differs\); restore"):
        one.load_parameters()


@pytest.mark.parametrize("files", [None, [], {}, {"params.safetensors": 3}])
def test_parameters_of_a_trained_run_without_a_hash_are_refused(sealed, files):
    run = sealed("run", 1)
    run.write_result({"status": "completed", "files": files})
    with pytest.raises(ConfigError, match=r"result\.json has no hash of params\.safetensors; restore it"):
        run.load_parameters()


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "params.safetensors"])
def test_a_seal_covers_every_file_of_a_run(sealed, name):
    run = sealed("run", 1)
    run.check_seal()
    content = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content + b" ")
    with pytest.raises(ConfigError, match=rf"{name} is not the file"):
        run.check_seal()
    (run.path / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name} is missing"):
        run.check_seal()
    run.write_result({"status": "interrupted"})
    run.check_seal()  # it has no seal yet


@pytest.mark.parametrize("content", [b"\xff\xfe\0\n", b"a,b\n1,2\n", b"step,a\nx,1\n", b"step,a\ninf,1\n"])
def test_damaged_metrics_are_told(content, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(content)
    for use in (RunFolder.read_metrics, lambda run: run.append_metrics([{"step": 1}]), lambda run: run.cut_metrics(1)):
        with pytest.raises(ConfigError, match=r"metrics\.csv is damaged .*restore it"):
            use(RunFolder(tmp_path, ALONE))
    assert (tmp_path / "metrics.csv").read_bytes() == content


def test_a_result_that_is_written_again_may_have_reasons_of_any_kind(tmp_path):
    run = RunFolder(tmp_path, ALONE)
    run.write_result({"status": "completed", "null_reasons": [1]})
    assert run.read_result() == {"status": "completed", "null_reasons": {}}
