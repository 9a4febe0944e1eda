import dataclasses
import doctest
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import tree
from research.data.examples import Examples
from research.encode import encode_rows, write_table
from research.inputs import EVALUATE, purpose_key
from research.runs import batches
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.runs.load import check_parameters, load
from research.tree import ConfigError, from_data, spec

SHIFT, SCALE = 2.0, 0.5
FACTS = {
    **{"kind": "vector", "feature_shape": [4], "low": 0.0, "high": 1.0, "classes": 2},
    **{"train_size": 3, "validation_size": 1, "test_size": 1, "name": "rows"},
}


@spec
class Halves:
    """Encodes four numbers as their first two, and decodes them twice over; the loss has a draw in it."""

    gain: float
    latent_dim: int
    feature_shape: tuple[int, ...] = from_data(())

    def bind(self, facts):
        return dataclasses.replace(self, feature_shape=facts.feature_shape)

    def encode(self, params, batch):
        return batch.x[:, : self.latent_dim] * params["encoder"]["weight"][None]

    def decode(self, params, z, label=None):
        return jnp.concatenate([z, z], -1).reshape(-1, *self.feature_shape) * self.gain

    def reconstruct(self, params, batch):
        return self.decode(params, self.encode(params, batch))

    def sample(self, params, key, number, label=None):
        return jax.random.normal(key, (number, 4))

    def evaluate(self, params, batch, keys):
        return {"loss": batch.x.sum(-1) + jax.vmap(jax.random.normal)(keys)}


@spec
class Differences(Halves):
    def evaluate(self, params, batch, keys):
        return {"loss": batch.x.sum(-1) - batch.target.sum(-1)}


@spec
class Silent:
    gain: float

    def bind(self, facts):
        return self


def write(folder, target="Halves", **model):
    config = {"model": {"_target_": f"{__name__}.{target}", **model}, "seed": 0}
    run = RunFolder(folder, ALONE)
    record = {"config": config, "config_hash": tree.config_hash(config), "name": "example", "facts": FACTS}
    run.write_config(record | {"trusted_packages": [__name__, "os", "subprocess"]})
    scaling = {"shift": np.float32(SHIFT), "scale": np.float32(SCALE)}
    run.save_parameters({"encoder": {"weight": np.array([1, -1], np.float32)}}, scaling)
    run.append_metrics([{"step": 1, "epoch": 1}])
    seal(run)
    return run


def seal(run):
    run.write_result({"status": "completed", "metrics": {"test/loss": 1.0}, "files": run.hashes()})


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "run", gain=2.0, latent_dim=2).path


@pytest.fixture
def run(folder):
    return load(folder, trusted_packages=(__name__,))


def test_models_that_do_not_reconstruct_rows_with_missing_values_do_not_impute(run, tmp_path):
    with pytest.raises(ConfigError, match=r"model=recurrent_ae, or a dense model with model.reads_mask=true"):
        run.impute(np.ones((1, 4)))
    silent = load(write(tmp_path / "silent", "Silent", gain=1.0).path, trusted_packages=(__name__,))
    with pytest.raises(ConfigError, match="a Silent cannot reconstruct"):
        silent.impute(np.ones((1, 4)))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def test_abilities_take_and_give_raw_rows(run, x):
    scaled = (x - SHIFT) * SCALE
    codes = scaled[:, :2] * [1, -1]
    np.testing.assert_allclose(run.encode(x), codes, rtol=1e-6)
    raw = np.concatenate([codes, codes], -1) * 2 / SCALE + SHIFT
    np.testing.assert_allclose(run.reconstruct(x), raw, rtol=1e-5)
    np.testing.assert_allclose(run.decode(run.encode(x)), raw, rtol=1e-5)
    draws = jax.random.normal(jax.random.key(7), (3, 4)) / SCALE + SHIFT
    np.testing.assert_allclose(run.sample(3, seed=7), draws, rtol=1e-6)
    for seed, key in ((None, purpose_key(0, EVALUATE)), (3, jax.random.key(3))):
        noise = jax.vmap(jax.random.normal)(batches.row_keys(key, jnp.arange(5)))
        np.testing.assert_allclose(run.score(x, seed=seed), scaled.sum(-1) + noise, rtol=1e-5)
    later = run.score(x[2:], numbers=[2, 3, 4])
    np.testing.assert_allclose(later, run.score(x)[2:], rtol=1e-5)
    assert run.result["metrics"] == {"test/loss": 1.0}
    assert run.config["seed"] == 0


def test_gaps_and_targets_are_prepared_as_in_training(tmp_path, x):
    files = write(tmp_path / "gaps", "Differences", gain=2.0, latent_dim=2)
    params, scaling = files.load_parameters()
    files.save_parameters(params, scaling | {"target_shift": np.float32(3), "target_scale": np.float32(7)})
    seal(files)
    run, observed = load(files.path, trusted_packages=(__name__,)), np.ones(x.shape, bool)
    observed[0, 1] = False
    expected = (np.where(observed, x, SHIFT) - SHIFT) * SCALE
    x[~observed] = np.nan
    examples = Examples(x=x, observed=observed, target=np.ones((5, 1), np.float32))
    np.testing.assert_allclose(run.encode(examples), expected[:, :2] * [1, -1], rtol=1e-6)
    np.testing.assert_allclose(run.score(examples), expected.sum(-1) - (1 - 3) * 7, rtol=1e-5)


def test_many_rows_are_one_program_and_the_same_numbers(run):
    x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    programs = batches.call.jitted._cache_size()
    codes = run.encode(x)
    np.testing.assert_allclose(codes, (x[:, :2] - SHIFT) * SCALE * [1, -1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run.encode(x[:300]), codes[:300])
    np.testing.assert_array_equal(run.score(x)[:257], run.score(x[:257]))
    assert batches.call.jitted._cache_size() <= programs + 1


def test_wrong_shapes_are_refused_with_the_expected_one(run):
    with pytest.raises(ConfigError, match=r"\[N, 4\]"):
        run.encode(np.zeros((2, 3)))
    with pytest.raises(ConfigError, match=r"\[N, 2\]"):
        run.decode(np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="at least one row"):
        run.encode(np.zeros((0, 4)))


def test_a_changed_config_is_refused(folder):
    record = json.loads((folder / "config.json").read_text())
    record["config"]["model"]["gain"] = 3.0
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="changed after training"):
        load(folder, trusted_packages=(__name__,))


def test_trust_comes_from_the_caller_only(folder, tmp_path):
    with pytest.raises(ConfigError, match="only classes in research may be named"):
        load(folder)
    config = {"model": {"_target_": "subprocess.Popen", "args": ["true"]}}
    run = RunFolder(tmp_path / "foreign", ALONE)
    run.write_config({"config": config, "config_hash": tree.config_hash(config), "trusted_packages": ["subprocess"]})
    with pytest.raises(ConfigError, match="only classes in research may be named"):
        load(run.path)
    with pytest.raises(ConfigError, match="must be a @spec"):
        load(run.path, trusted_packages=("subprocess",))


def test_a_run_without_parameters_or_ability_says_so(folder, tmp_path):
    run = load(write(tmp_path / "silent", "Silent", gain=1.0).path, trusted_packages=(__name__,))
    with pytest.raises(ConfigError, match="a Silent cannot encode"):
        run.encode(np.zeros((1, 4)))
    (folder / "params.safetensors").unlink()
    RunFolder(folder, ALONE).write_result({"status": "diverged", "files": RunFolder(folder).hashes()})
    with pytest.raises(ConfigError, match="diverged and kept no parameters"):
        load(folder, trusted_packages=(__name__,))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load(tmp_path)


def test_the_example_in_the_documentation_runs(tmp_path, monkeypatch, x):
    write(tmp_path / "outputs/example/run", gain=2.0, latent_dim=2)
    monkeypatch.chdir(tmp_path)
    names = {"load": lambda path: load(path, trusted_packages=(__name__,)), "x": x}
    (example,) = doctest.DocTestFinder(recurse=False).find(load, "load", globs=names)
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(0, 5)


def test_exported_rows_use_the_scaling_of_the_run(run, x):
    numbers, names = np.array([4, 0]), np.array(["oak", "ash"])
    columns = encode_rows(run, Examples(x=x[numbers]), numbers, np.zeros((2, 2)), names)
    assert list(columns) == ["row", "z0", "z1", "score", "cluster", "label"]
    np.testing.assert_array_equal(np.stack([columns["z0"], columns["z1"]], -1), run.encode(x)[numbers])
    np.testing.assert_allclose(columns["score"], run.score(x)[numbers], rtol=1e-5)
    assert columns["row"].tolist() == [4, 0]


def test_what_a_run_recorded_of_its_rows_cannot_be_changed(folder):
    record = json.loads((folder / "config.json").read_text())
    record["facts"]["feature_shape"] = [2, 2]
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"config\.json is not the file"):
        load(folder, trusted_packages=(__name__,))


def test_parameters_and_scalings_that_no_training_left_are_refused(folder):
    files = RunFolder(folder, ALONE)
    params, scaling = files.load_parameters()
    for changed, scaled, remedy in (
        ({"encoder": {"weight": np.array([np.nan, 1], np.float32)}}, scaling, "is not finite"),
        (params, scaling | {"scale": np.array(0.0)}, "its scaling/scale is damaged"),
        (params, scaling | {"shift": np.array(np.nan)}, "its scaling/shift is damaged"),
        (params, scaling | {"shift": np.zeros(3)}, r"its scaling/shift has shape \(3,\)"),
    ):
        files.save_parameters(changed, scaled)
        seal(files)
        with pytest.raises(ConfigError, match=remedy):
            load(folder, trusted_packages=(__name__,))


def test_names_shapes_and_types_of_parameters_are_those_of_the_model():
    wanted = {"a": np.zeros((2, 3), np.float32)}
    assert check_parameters({"a": np.ones((2, 3), np.float32)}, wanted) is None
    for changed, problem in (
        ({"a": np.ones((3, 2), np.float32)}, r"['a'] has shape (3, 2) of float32, this model needs shape (2, 3)"),
        ({"a": np.ones((2, 3), np.float64)}, "of float64, this model needs"),
        ({"b": np.ones((2, 3), np.float32)}, "['a'] has nothing"),
        ({**wanted, "b": np.ones(1)}, "['b'] has shape (1,) of float64, this model needs nothing"),
    ):
        assert problem in check_parameters(changed, wanted)


def test_tables_give_back_the_same_numbers(tmp_path):
    import pandas

    columns = {"row": np.arange(2), "z0": np.array([0.1, 1 / 3], np.float32)}
    write_table(tmp_path / "codes.csv", columns)
    write_table(tmp_path / "codes.parquet", columns)
    for table in (pandas.read_csv(tmp_path / "codes.csv"), pandas.read_parquet(tmp_path / "codes.parquet")):
        np.testing.assert_array_equal(table["z0"].to_numpy(np.float32), columns["z0"])
        assert table["row"].tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / "codes.xls", columns)


def test_errors_and_codes_of_steps_need_sequences(run, x):
    with pytest.raises(ConfigError, match=r"x=\(5, 4\): expected sequences \[N, T, C\]"):
        run.score_steps(x)
    with pytest.raises(ConfigError, match="a Halves cannot step"):
        run.start(2)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([1], "the preparation of rows in its config.json is damaged"),
        ({"stored_shape": "x"}, "stored_shape is"),
        ({"stored_shape": 4}, "is damaged"),
        ({"columns": ["a", "b"]}, r"2 columns of rows of shape \(4,\)"),
        ({"classes": ["a", "a"]}, "2 names of 2 classes"),
        ({"classes": ["a"]}, "1 names of 2 classes"),
        ({}, "params.safetensors has no scaling/target_scale"),
    ],
)
def test_a_preparation_that_cannot_be_that_of_the_rows_is_refused(folder, changes, problem):
    run = RunFolder(folder, ALONE)
    record = run.read_config()
    known = {"stored_shape": [4], "class_count": 2}
    record["preparation"] = known | changes if isinstance(changes, dict) else changes
    (folder / "config.json").write_text(json.dumps(record))
    seal(run)
    with pytest.raises(ConfigError, match=problem):
        load(folder, trusted_packages=(__name__,))
