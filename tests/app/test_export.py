"""Encoder and decoder of a run in a process that has only jax and numpy: they give the bits of `run.encode`."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import research
from research import compiling
from research.encode import main
from research.export import FACTS, write_export
from research.runs.load import load
from research.tree import ConfigError

ROOT = Path(research.__file__).parents[1]
EARLIER = ROOT / "tests" / "runs" / "earlier"
README = (ROOT / "research" / "runs" / "README.md").read_text()
(LINES,) = [block for block in re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M) if "def exported" in block]
USE = """
for folder in sys.argv[1:]:
    with np.load(f"{folder}/given.npz") as given:
        given = dict(given)
    facts = json.loads(Path(folder, "export.json").read_text())
    for name in ("encoder", "decoder"):
        given[name] = exported(folder, name)(*(given[about["name"]] for about in facts[name]["inputs"]))
    np.savez(f"{folder}/got.npz", **{name: given[name] for name in ("encoder", "decoder")})
"""
TINY = ("trainer.epochs=1", "trainer.batch_size=16", "evaluation=none", "model.latent_dim=3")


def exported(folder: Path, name: str) -> Any:
    """The function that the lines of the README give."""
    names: dict[str, Any] = {}
    exec(LINES, names)
    return names["exported"](folder, name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Finished runs, and 300 rows for each with what stands beside them."""
    folder, random = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    images = random.integers(0, 17, (300, 8, 8)).astype(np.float32)
    lengths = random.integers(1, 8, 300).astype(np.int32)
    series = random.normal(5.0, 2.0, (300, 7, 2)).astype(np.float32)
    places = random.normal(1e6, 3.0, (300, 4))
    kinds = np.asarray(["ash", "elm", "oak"])[random.integers(0, 3, 300)]
    where = f"output_root={folder}"
    tree = ("model=dense_ae", "model.hidden_dims=[4]", "model.conditional=true", where, *TINY)
    gru = ("model=gru_ae", "model.hidden_dim=5", where, *TINY)
    convolution = ("model=convolutional_ae", "model.channels=[4]", "model.strides=[2]", "model.hidden_dims=[]")
    return {
        "vae": (load(EARLIER / "vae"), {"x": images}),
        "gru": (research.train(series, *gru, lengths=lengths, name="gru"), {"x": series, "lengths": lengths}),
        "convolution": (
            research.train("data=digits", *convolution, "data.train_size=64", where, *TINY, name="convolution"),
            {"x": images},
        ),
        "far": (research.train(places, *tree, y=kinds, name="far"), {"x": places, "label": kinds}),
    }


def test_a_fresh_process_without_the_project_gets_the_same_bits(runs, tmp_path) -> None:
    for name, (run, beside) in runs.items():
        facts = write_export(run, tmp_path / name)
        codes = run.encode(**beside)
        given = {"x": beside["x"], "z": codes, "length": beside.get("lengths", 0)}
        if "label" in beside:
            given["label"] = [facts["classes"].index(kind) for kind in beside["label"]]
        np.savez(tmp_path / name / "given.npz", **given)
    script = tmp_path / "use.py"
    script.write_text(f"import sys\n\nsys.modules['research'] = sys.modules['flax'] = None\n{LINES}{USE}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folders = [str(tmp_path / name) for name in runs]
    subprocess.run([sys.executable, script, *folders], env=environment, cwd=tmp_path, check=True)
    for name, (run, beside) in runs.items():
        with np.load(tmp_path / name / "got.npz") as file:
            got = dict(file)
        codes = run.encode(**beside)
        assert np.ptp(codes) > 0
        np.testing.assert_array_equal(got["encoder"], codes, err_msg=name)
        rows = run.decode(codes, label=beside.get("label"))
        np.testing.assert_allclose(got["decoder"], rows, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(got["decoder"], rows, err_msg="float64 rows are exact")


def test_the_facts_say_what_goes_in_and_comes_out(runs, tmp_path) -> None:
    gru, far = (write_export(runs[name][0], tmp_path / name) for name in ("gru", "far"))
    assert json.loads((tmp_path / "far" / FACTS).read_text()) == json.loads(json.dumps(far))
    shown = lambda facts, name: [(at["name"], at["shape"], at["dtype"]) for at in facts[name]["inputs"]]
    assert shown(gru, "encoder") == [("x", ["B", 7, 2], "float32"), ("length", ["B"], "int32")]
    assert shown(far, "encoder") == [("x", ["B", 4], "float64"), ("label", ["B"], "int32")]
    assert shown(far, "decoder") == [("z", ["B", 3], "float32"), ("label", ["B"], "int32")]
    assert far["decoder"]["output"] == {"name": "x", "shape": ["B", 4], "dtype": "float64"}
    assert far["x64"]
    assert not gru["x64"]
    assert far["classes"] == ("ash", "elm", "oak")
    assert far["compiler_options"] == {"cpu": compiling.options("cpu")}
    assert far["scaling"]["shift"] == runs["far"][0].preparation.shift.tolist()
    content = (tmp_path / "far" / "encoder.jaxexport").read_bytes()
    assert far["encoder"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_missing_values_are_masked_and_padding_does_not_matter(runs, tmp_path) -> None:
    run, beside = runs["gru"]
    write_export(run, tmp_path)
    encode, x, lengths = exported(tmp_path, "encoder"), beside["x"].copy(), beside["lengths"]
    inside = np.arange(7) < lengths[:, None]
    x[~inside] = np.nan
    np.testing.assert_array_equal(encode(x, lengths), run.encode(**beside))
    x[:, 0, 1] = np.nan
    np.testing.assert_array_equal(encode(x, lengths), run.encode(x, lengths=lengths))


def test_an_encoder_that_was_trained_on_hidden_values_takes_missing_ones(runs, tmp_path) -> None:
    run, beside = runs["gru"]
    whole = dataclasses.replace(run.preparation, masked=False)
    run = dataclasses.replace(run, preparation=whole, config={**run.config, "data": {"hide_train": 0.2}})
    write_export(run, tmp_path)
    x, lengths = beside["x"].copy(), beside["lengths"]
    x[:, 0, 1] = np.nan
    np.testing.assert_array_equal(exported(tmp_path, "encoder")(x, lengths), run.encode(x, lengths=lengths))


def test_numbers_that_mean_missing_are_never_read_as_values(runs, tmp_path) -> None:
    """A model that takes masks leaves them out, another one gives NaN."""
    marks = lambda run: dataclasses.replace(run, preparation=dataclasses.replace(run.preparation, missing=(3.0,)))
    gru, x, lengths = marks(runs["gru"][0]), runs["gru"][1]["x"].copy(), runs["gru"][1]["lengths"]
    x[4, 0, 1] = 3.0
    write_export(gru, tmp_path / "gru")
    np.testing.assert_array_equal(exported(tmp_path / "gru", "encoder")(x, lengths), gru.encode(x, lengths=lengths))
    write_export(marks(load(EARLIER / "vae")), tmp_path / "vae")
    codes = exported(tmp_path / "vae", "encoder")(np.concatenate([np.full((1, 8, 8), 2), np.full((1, 8, 8), 3)]))
    assert np.isnan(codes).any(1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("taught", {"zscore": True}),
        ("vae", {"layout": "pixels", "stored_shape": (4, 16), "permutation_seed": 3}),
    ],
    ids=str,
)
def test_rows_are_prepared_as_in_training(name, changes, tmp_path) -> None:
    run = load(EARLIER / name)
    shape = run.preparation.stored_shape
    run = dataclasses.replace(run, preparation=dataclasses.replace(run.preparation, **changes))
    if "layout" in changes:
        run = dataclasses.replace(run, facts=dataclasses.replace(run.facts, feature_shape=(64, 1)))
    x = np.random.default_rng(0).integers(0, 17, (5, *(changes.get("stored_shape") or shape))).astype(np.float64)
    write_export(run, tmp_path)
    np.testing.assert_allclose(exported(tmp_path, "encoder")(x), run.encode(x), rtol=1e-5, atol=1e-6)


def test_grey_rows_of_a_run_that_draws_them_have_no_code(tmp_path) -> None:
    run = load(EARLIER / "vae")
    unit = dataclasses.replace(run.preparation, binarize=True, shift=np.zeros(()), scale=np.asarray(1 / 16))
    facts = write_export(dataclasses.replace(run, preparation=unit), tmp_path)
    x = 16.0 * np.random.default_rng(0).integers(0, 2, (4, 8, 8))
    x[2, 0, 0] = 7
    codes = exported(tmp_path, "encoder")(x)
    assert np.isnan(codes).any(1).tolist() == [False, False, True, False]
    assert "black and white" in facts["notes"][0]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("gan", "cannot encode"), ("predictor", "cannot decode"), ("gru_step", "a code at every step")],
)
def test_a_model_without_a_code_or_a_decoder_is_refused(name, problem, tmp_path) -> None:
    with pytest.raises(ConfigError, match=problem):
        write_export(load(EARLIER / name), tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch) -> None:
    run = load(EARLIER / "vae")
    of_series = dataclasses.replace(run.preparation, series={"a": ([0.0], [1.0])})
    with pytest.raises(ConfigError, match="scale of its own"):
        write_export(dataclasses.replace(run, preparation=of_series), tmp_path)
    with pytest.raises(ConfigError, match="the folder of a run"):
        write_export(run, EARLIER / "vae")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ConfigError, match="pip install flatbuffers"):
        write_export(run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_functions_or_a_table(tmp_path, monkeypatch, capsys) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["encode.py", str(EARLIER / "vae"), *arguments])
        try:
            code = main() or 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, capsys.readouterr().err

    code, said = call("--export", str(tmp_path / "there"), "--clusters", "3", "data.path=x.csv")
    assert code == 2
    assert "leave out --clusters, data.path=x.csv" in said
    assert len(said.splitlines()) == 1
    code, said = call("--export", str(tmp_path / "there"))
    assert code == 0
    assert "wrote encoder.jaxexport, decoder.jaxexport and export.json" in said
    assert len(list((tmp_path / "there").iterdir())) == 3
