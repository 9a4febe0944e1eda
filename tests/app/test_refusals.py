"""What cannot run is refused in one line, with exit code 2, before anything is written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Command = Callable[..., Any]

# arguments, and what the line must say: the key with its value, and the remedy
REFUSED: list[tuple[list[str], list[str]]] = [
    # keys and choices that are not there
    (["model.latent_dmi=2"], ["model.latent_dmi=2", "did you mean 'model.latent_dim'?"]),
    (["modle.latent_dim=2"], ["modle.latent_dim=2", "did you mean 'model.latent_dim'?"]),
    (["sead=1"], ["sead=1", "did you mean 'seed'?"]),
    (["optimizer.learning_rat=1"], ["optimizer.learning_rat=1", "did you mean 'optimizer.learning_rate'?"]),
    (["+model.latent_dmi=2"], ["model.latent_dmi=2", "did you mean 'model.latent_dim'?"]),
    (["+optimizer.ep=2"], ["optimizer.ep=2", "did you mean 'optimizer.eps'?"]),
    (["model.beta.x=1"], ["model.beta.x=1", "did you mean 'model.beta'?"]),
    (["model=dense_ae", "model.beta=4"], ["model.beta=4: no such key; it is a key of model=beta_tc_vae", "model=vae,"]),
    (["data=arrays", "data.label=kind"], ["data.label=kind: no such key; all keys: ", "train.py --help data=arrays"]),
    (["data.label=kind"], ["train.py --cfg job"]),
    (["optimizer.momentum=0.9"], ["no such key; it is a key of optimizer=rmsprop, optimizer=sgd"]),
    (["model=vea"], ["model=vea", "did you mean 'vae'?", "dense_ae"]),
    (["data=digit"], ["data=digit", "did you mean 'digits'?"]),
    (["experiment=vae"], ["experiment=vae", "did you mean 'vae_mnist'?"]),
    (["optimizer=adm"], ["optimizer=adm", "did you mean 'adam'?"]),
    # places that would be ignored
    (["hydra.run.dir=elsewhere"], ["hydra.run.dir=elsewhere", "output_root=FOLDER name=NAME"]),
    (["-m", "hydra.sweep.dir=elsewhere"], ["hydra.sweep.dir=elsewhere", "output_root=FOLDER name=NAME"]),
    (["-m", "hydra.sweep.subdir=one"], ["hydra.sweep.subdir=one", "output_root=FOLDER name=NAME"]),
    (["hydra.job.chdir=true"], ["hydra.job.chdir=True", "output_root=FOLDER name=NAME"]),
    (["hydra.output_subdir=../mine"], ["hydra.output_subdir=../mine", "output_root=FOLDER name=NAME"]),
    (["-m", "hydra.output_subdir=null"], ["hydra.output_subdir=null", "output_root=FOLDER name=NAME"]),
    (["--config-name", "train", "hydra.run.dir=elsewhere"], ["hydra.run.dir=elsewhere", "output_root=FOLDER"]),
    # more than any machine holds
    (["-m", "seed=range(100000000)"], ["seed=range(100000000)", "100,000,000 jobs", "at most 100,000"]),
    (["-m", "seed=shuffle(range(100000000))"], ["100,000,000 jobs", "at most 100,000"]),
    (["-m", "data.folds=5", "data.fold=range(100000000)"], ["data.fold=range(100000000)", "at most 100,000"]),
    (["-m", "seed=range(1000)", "model.beta=range(0,10,0.05)"], ["seed=range(1000): 200,000 jobs"]),
    (["-m", "hydra/sweeper=basic", "seed=range(100000000)"], ["100,000,000 jobs"]),
    (["-m", "model.beta=range(0,inf)"], ["model.beta=range(0,inf)", "this range has no end"]),
    (["-m", "model.beta=range(0,nan)"], ["model.beta=range(0,nan)", "this range has no end"]),
    (["-m", "seed=range(0,5,0)"], ["seed=range(0,5,0)", "a step other than 0"]),
    (["-m", f"seed=range({'9' * 400})"], ["10^15 or more jobs", "at most 100,000"]),
    ([f"model.latent_dim={'9' * 5000}"], ["model.latent_dim=9999", "...: no override", "4300 digits"]),
    ([f"model.beta={'[' * 300}{']' * 300}"], ["model.beta=[[[", "more than 50 brackets"]),
    (["model.latent_dim=1000000000000"], ["model.latent_dim=1000000000000", "at most 1000000"]),
    (["model.latent_dim=100000000000000000000"], ["model.latent_dim=100000000000000000000", "at most"]),
    (["model.latent_dim=900000", "model.hidden_dims=[800000]"], ["model.latent_dim=900000", "while they train"]),
    (["model.hidden_dims=[4,1000000000]"], ["model.hidden_dims[1]=1000000000", "at most 1000000"]),
    (["model.hidden_dims=[900000,900000]"], ["model.hidden_dims=900000", "choose a smaller model"]),
    (["model=gru_ae", "data=sines", "model.hidden_dim=1000000000"], ["model.hidden_dim=1000000000", "at most"]),
    (["model=gru_ae", "data=sines", "model.layers=1000000"], ["model.layers=1000000", "must lie in 1 ... 1000"]),
    (["model=vq_ae", "model.entries=1000000000000"], ["model.entries=1000000000000", "at most"]),
    (["trainer.epochs=1000000000000"], ["trainer.epochs=1000000000000", "at most"]),
    (["trainer.epochs=2000000000"], ["trainer.epochs=2000000000", "steps", "a program counts to"]),
    (["trainer.evaluation_batch=1000000000000"], ["trainer.evaluation_batch=1000000000000", "at most"]),
    (["evaluation.nll_samples=1000000000000"], ["evaluation.nll_samples=1000000000000", "at most"]),
    (["data=low_rank", "data.rows=1000000000000"], ["data.rows=1000000000000", "at most 2147483647"]),
    (["data=sines", "data.length=1000000000000"], ["data.length=1000000000000", "at most 1000000"]),
    # keys and choices that are taken away
    (["~seed"], ["seed=null", "leave out ~seed"]),
    (["~report"], ["report=null", "leave out ~report"]),
    (["~model", "model.beta=1"], ["model.beta=1: ~model takes this key away"]),
    (["model=null"], ["model=null: name a choice: ", "vae"]),
    (["model="], ["model=: no such choice", "dense_ae"]),
    (["experiment=../../etc/passwd"], ["experiment=../../etc/passwd: no such choice", "vae_mnist"]),
    (["-m", "hydra/launcher=nothing"], ["hydra/launcher=nothing: no such choice", "basic, fused"]),
    # options of Hydra's
    (["--config-dir", "nowhere"], ["--config-dir=nowhere: no such folder"]),
    (["--config-path", "/nowhere"], ["--config-path=/nowhere: no such folder"]),
    (["--config-name", "nothing"], ["Cannot find primary config 'nothing'"]),
    (["--resolve"], ["--cfg or --help"]),
    (["-m", "--cfg", "job"], ["only one of"]),
    (["--shell-completion", "install=none"], ["No completion plugin for 'none'"]),
    (["--experimental-rerun", "config.pickle"], ["it would unpickle a file"]),
    (["hydra.searchpath=[5]"], ["must be a list of strings"]),
    (["data=low_rank", "data.rows=2000000000"], ["data.rows=2000000000", "choose a smaller size"]),
    # wrong types
    (["model.latent_dim=abc"], ["model.latent_dim=abc", "expected an integer"]),
    (["model.latent_dim=2.0"], ["model.latent_dim=2.0", "expected an integer"]),
    (["model.latent_dim=true"], ["model.latent_dim=True", "expected an integer"]),
    (["model.latent_dim=null"], ["model.latent_dim=null", "null is not allowed"]),
    (["model.beta=abc"], ["model.beta=abc", "expected a number"]),
    (["model.beta=nan"], ["model.beta=nan", "expected a number"]),
    (["model.hidden_dims=4"], ["model.hidden_dims=4", "expected a list", "hidden_dims=[4]"]),
    (["model.hidden_dims=[4,x]"], ["model.hidden_dims[1]=x", "expected an integer"]),
    (["model.gated=1"], ["model.gated=1", "expected true or false"]),
    (["trainer.epochs=1.5"], ["trainer.epochs=1.5", "expected an integer"]),
    (["trainer.keep=worst"], ["trainer.keep=worst", "best, last"]),
    (["seed=a"], ["seed=a", "expected an integer"]),
    (["seed=-1"], ["seed=-1", "not be negative"]),
    (["seed=4294967296"], ["seed=4294967296", "at most 4294967295"]),
    (["sweep.mode=fast"], ["sweep.mode=fast", "auto, vmap, map"]),
    (["sweep.max_width=0"], ["sweep.max_width=0", "at least 1"]),
    (["sweep=5"], ["sweep=5", "expected a section of keys"]),
    (["evaluation.nll_samples=many"], ["evaluation.nll_samples=many", "expected an integer"]),
    # zero and negative
    (["model.latent_dim=0"], ["model.latent_dim=0", "at least 1"]),
    (["model.hidden_dims=[0]"], ["model.hidden_dims[0]=0", "at least 1"]),
    (["model.beta=-1"], ["model.beta=-1", "not be negative"]),
    (["trainer.epochs=0"], ["trainer.epochs=0", "at least 1"]),
    (["trainer.batch_size=-3"], ["trainer.batch_size=-3", "at least 1"]),
    (["trainer.evaluate_every=0"], ["trainer.evaluate_every=0", "at least 1"]),
    (["optimizer.learning_rate=-1"], ["optimizer.learning_rate=-1", "positive"]),
    (["optimizer.learning_rate=0"], ["optimizer.learning_rate=0", "positive"]),
    # names of parts
    (["optimizer.name=adamm"], ["optimizer.name=adamm", "did you mean 'adam'?"]),
    (["optimizer.name=lbfgs"], ["optimizer.name=lbfgs", "gradients only"]),
    (["model.activation=rellu"], ["model.activation=rellu", "did you mean 'relu'?"]),
    (["model.likelihood=bernouli"], ["model.likelihood=bernouli", "did you mean 'bernoulli'?"]),
    (["model.likelihood=mse"], ["model.likelihood=mse", "gaussian"]),
    (["model._target_=os.system"], ["model._target_=os.system", "trusted_packages"]),
    # what does not fit the data
    (["data=low_rank"], ["model.likelihood=bernoulli", "]; set model.likelihood=gaussian"]),
    (["trainer.batch_size=5000"], ["trainer.batch_size=5000", "larger than the training split (1150 rows)"]),
    (
        ["trainer.batch_size=500", "trainer.accumulate=3"],
        ["trainer.accumulate=3", "(1150 rows); set trainer.accumulate=2"],
    ),
    (["data.train_size=16"], ["trainer.batch_size=32", "larger than the training split (16 rows)"]),
    (["data.train_size=99999"], ["data.train_size=99999", "only 1150 such rows"]),
    (["data=low_rank", "model.likelihood=gaussian", "model.conditional=true"], ["model.conditional=True", "no labels"]),
    (["data.hide=0.1"], ["data.hide=0.1", "model=recurrent_ae", "model.reads_mask=true", "set data.hide=null"]),
    (["data.hide_train=0.1", "model=convolutional_ae"], ["data.hide_train=0.1", "set data.hide_train=null"]),
    (["data.hide=1"], ["data.hide=1", "must lie in"]),
    (
        ["data=digits_rows", "model=recurrent_ae", "model.code=step", "model.bidirectional=true"],
        ["model.bidirectional=True", "model.code=state"],
    ),
    (["data.fold=1"], ["data.fold=1", "data.folds="]),
    (["data.folds=3"], ["data.fold=null", "data.fold=0,1,2"]),
    (["data.folds=3", "data.fold=3"], ["data.fold=3", "data.fold=0,1,2"]),
    (["data.folds=1", "data.fold=0"], ["data.folds=1", "at least 2"]),
    (["data=mnist", "data.root=/nowhere/at/all"], ["data.root=/nowhere/at/all", "no such folder"]),
    (["data=arrays", "data.path=rows.csv"], ["data.path=rows.csv", "no file"]),
    (["data=arrays"], ["data.path=???", "data.path=my.csv"]),
    (["trainer.warm_start=/nowhere"], ["trainer.warm_start=/nowhere", "no such folder"]),
    (["trainer.monitor=test/loss"], ["trainer.monitor=test/loss", "set trainer.monitor=validation/loss"]),
    (["trainer.monitor=elbo"], ["trainer.monitor=elbo", "set trainer.monitor=validation/elbo_nats"]),
    (["trainer.monitor=kl_nats"], ["trainer.monitor=kl_nats", "set trainer.monitor=validation/loss"]),
    (["model=dense_ae", "trainer.monitor=validation/elbo_nats"], ["gives validation/loss, validation/reconstruction"]),
    (["trainer.monitor=validation/los"], ["trainer.monitor=validation/los", "validation/loss"]),
    (
        ["trainer.monitor=validation/accurcy"],
        ["set trainer.monitor=validation/accuracy, or trainer.monitor=validation/loss"],
    ),
    (["objective=validation/los"], ["objective=validation/los", "validation/loss"]),
    (["objective=test/loss"], ["objective=test/loss", "validation rows"]),
    (
        ["trainer.monitor=validation/kl_nats"],
        ["trainer.monitor=validation/kl_nats", "neither low nor high", "set trainer.monitor=validation/loss"],
    ),
    (["objective=validation/kl_nats"], ["objective=validation/kl_nats", "neither low nor high", "set objective=null"]),
    (["report.by=test/loss"], ["report.by=test/loss", "validation rows; set report.by=null"]),
    (["report.by=validation/r2"], ["report.by=validation/r2", "no direction", "set report.by=null"]),
    (["report.rows=[model.latnt_dim]"], ["report.rows=model.latnt_dim", "did you mean 'model.latent_dim'?"]),
    (["sweep.prune=null"], ["sweep.prune=null", "expected one of none, median, successive_halving"]),
    (
        ["-m", "model.beta=1,4", "objective=validation/loss"],
        ["objective=validation/loss", "model.beta", "set objective=validation/elbo_nats"],
    ),
    (
        ["-m", "model.beta=1,4", "sweep.prune=median"],
        ["sweep.prune=median", "model.beta", "set trainer.monitor=validation/elbo_nats"],
    ),
    # names of sweeps
    (["name=reference"], ["name=reference", "committed tables"]),
    (["name=a/b"], ["name=a/b", "plain folder name"]),
    (["name=.."], ["name=..", "plain folder name"]),
    (["name=2024"], ["name=2024", "quotes"]),
    (["name="], ["name=", "plain folder name"]),
    (["name='two\nlines'"], ["name=two lines", "plain folder name"]),
    (["name='\udcc3\udca9'"], ["no text in the encoding of this console", "PYTHONUTF8=1"]),
    (["name=ünïcødé"], ["in quotes: 'name=\"ünïcødé\"'"]),
    (["name=" + "x" * 256], ["name=xxx", "at most 255 bytes"]),
    # grammar
    (["model.hidden_dims=[4"], ["model.hidden_dims=[4"]),
    (["latent_dim"], ["latent_dim"]),
    (["=3"], ["=3: no override"]),
    (["model.latent_dim", "8"], ["model.latent_dim: no override; write model.latent_dim=8"]),
    (["model.latent_dim=", "8"], ["8: no override; write model.latent_dim=8"]),
    (["model.latent_dim", "=", "8"], ["model.latent_dim: no override; write model.latent_dim=8"]),
    (["model.latent_dim", "=8"], ["model.latent_dim: no override; write model.latent_dim=8"]),
    (["model.latent_dim:8"], ["model.latent_dim:8: no override; write model.latent_dim=8"]),
    (["--model.latent_dim=8"], ["keys have no dashes; write model.latent_dim=8"]),
    (["experiment", "vae_mnist"], ["experiment: no override; write experiment=vae_mnist"]),
    (["model.hidden_dims=(64,32)"], ["write 'model.hidden_dims=[64,32]'"]),
    (["data=arrays", "data.path=rows (1).csv"], ["""write it in quotes: 'data.path="rows (1).csv"'"""]),
    (["data=mnist", "data.root=~/data"], ["""write it in quotes: 'data.root="~/data"'"""]),
    (["-m", "model.beta=1,", "4"], ["model.beta=1,: no override; write model.beta=1,4"]),
    (["data=rows.csv"], ["to read a file: data=arrays data.path=rows.csv"]),
    (["model=VAE"], ["did you mean 'vae'?"]),
    (["seed=0,1"], ["seed=0,1", "python scripts/train.py -m seed=0,1"]),
    (["seed=range(3)", "model.beta=2"], ["seed=range(3)", "python scripts/train.py -m 'seed=range(3)' model.beta=2"]),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_a_bad_setting_is_refused_in_one_line(
    arguments: list[str], said: list[str], command: Command, tmp_path: Path
) -> None:
    ended = command(*arguments)
    assert ended.code == 2, ended
    assert ended.out == ""
    for words in said:
        assert words in ended.error
    assert list(tmp_path.iterdir()) == []


SWEPT: list[tuple[list[str], list[str]]] = [
    (["model.latent_dim=2,4,0"], ["model.latent_dim=0", "at least 1"]),
    (["model.latent_dim=2,4,abc"], ["model.latent_dim=abc", "expected an integer"]),
    (["model=vae,dense_ae,vea"], ["model=vea", "did you mean 'vae'?"]),
    (["optimizer.learning_rate=0.1,0.2,-1"], ["optimizer.learning_rate=-1", "positive"]),
    (["trainer.batch_size=8,16,5000"], ["trainer.batch_size=5000", "larger than the training split"]),
    (["data.folds=3", "data.fold=0,1,3"], ["data.fold=3", "data.fold=0,1,2"]),
    (["data=digits,low_rank"], ["model.likelihood=bernoulli", "set model.likelihood=gaussian"]),
    (["optimizer=adam,sgd,adam", "optimizer.b1=0.8"], ["optimizer.b1=0.8: optimizer=sgd has no such key"]),
    (
        ["model=vae,dense_ae,beta_vae,wae", "model.beta=1,2", "seed=range(3)", "name=a"],
        [
            "model.beta=1,2: model=dense_ae,wae have no such key; give two commands: ",
            "python scripts/train.py -m model=vae,beta_vae model.beta=1,2 'seed=range(3)' name=a ",
            "; python scripts/train.py -m model=dense_ae,wae 'seed=range(3)' name=a-dense_ae ",
        ],
    ),
    (
        ["model=rnn_ae,gru_ae", "model.gaussian_noise=0.5"],
        ["model.gaussian_noise=0.5: the default model has no such key", "'model.gaussian_noise=choice(0.5)'"],
    ),
    (["model=glob(lstm*)", "model.beta=1,2"], ["model.beta=1,2: no such key"]),
    (
        ["model=glob([*beta*,d*,w*])", "model.beta=1"],
        ["model.beta=1: model=dense_ae,wae have no such key", "-m model=beta_tc_vae,beta_vae,dip_vae model.beta=1"],
    ),
    (["seed=0,1", "model.latent_dmi=2,3"], ["model.latent_dmi=2", "did you mean 'model.latent_dim'?"]),
    (["name=a,b"], ["name", "one value"]),
    (["output_root=a,b"], ["output_root", "one value"]),
    (["sweep.mode=map,vmap"], ["sweep.mode", "one value"]),
    (["sweep.narrow=true,false"], ["sweep.narrow", "one value"]),
    (["evaluation.probes=true,false"], ["evaluation.probes", "one value"]),
    (["seed=range(0)"], ["seed=range(0)", "no value"]),
    (["model.beta=interval(0.5,2)", "hydra/sweeper=optuna", "sweep.plan_only=true"], ["sweep.plan_only", "no plan"]),
    (["model.beta=interval(0.5,2)"], ["model.beta=interval(0.5,2)", "search.trials=64"]),
    (["seed=range(2"], ["seed=range(2"]),
]


@pytest.mark.parametrize(("arguments", "said"), SWEPT, ids=[" ".join(arguments) for arguments, _ in SWEPT])
def test_a_bad_value_of_a_sweep_is_refused_wherever_it_stands(
    arguments: list[str], said: list[str], command: Command, tmp_path: Path
) -> None:
    ended = command("-m", *arguments)
    assert ended.code == 2, ended
    assert ended.out == ""
    for words in said:
        assert words in ended.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", [[], ["-m"]])
def test_a_file_where_outputs_should_go_is_refused(flag: list[str], command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ended = command(*flag, "name=a", output_root=str(tmp_path / "file"))
    assert ended.code == 2
    assert str(tmp_path / "file") in ended.error
    assert "choose another output folder" in ended.error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("flag", [[], ["-m"]])
def test_a_folder_of_other_things_is_refused(flag: list[str], command: Command, outputs: Path) -> None:
    (outputs / "mine").mkdir(parents=True)
    (outputs / "mine" / "thesis.tex").write_text("text")
    ended = command(*flag, "name=mine")
    assert ended.code == 2
    assert "thesis.tex" in ended.error
    assert "choose another name=" in ended.error
    assert [path.name for path in (outputs / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("flag", [[], ["-m"]])
def test_a_foreign_run_in_the_folder_of_a_run_is_refused(flag: list[str], tiny: Command, outputs: Path) -> None:
    assert tiny("name=there", "trainer.epochs=1").code == 0
    (config,) = (outputs / "there").glob("*/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"config_hash": "0" * 64}))
    before = snapshot(outputs)
    ended = tiny(*flag, "name=there", "trainer.epochs=1")
    assert ended.code == 2
    assert "another configuration" in ended.error
    assert "choose another name=" in ended.error
    assert snapshot(outputs) == before


def test_the_folder_of_another_sweep_is_refused(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "seed=0,1", "trainer.epochs=1", "name=there").code == 0
    before = snapshot(outputs)
    ended = tiny("-m", "seed=0,1", "trainer.epochs=1", "trainer.keep=last", "name=there")
    assert ended.code == 2
    assert "trainer.keep: best there, last now" in ended.error
    assert "choose another name=" in ended.error
    assert snapshot(outputs) == before


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("by", ["--config-dir", "hydra.searchpath"])
def test_a_file_whose_aliases_unfold_without_end_is_refused(by: str, command: Command, tmp_path: Path) -> None:
    place = tmp_path / "own" / "experiment"
    place.mkdir(parents=True)
    (place / "bomb.yaml").write_text("# @package _global_\n" + BOMB)
    where = (
        ["--config-dir", str(place.parent)] if by == "--config-dir" else [f"hydra.searchpath=[file://{place.parent}]"]
    )
    ended = command(*where, "+experiment=bomb")
    assert ended.code == 2
    assert "bomb.yaml: its aliases stand for more than 100,000 values" in ended.error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x: " + "[" * 2000 + "]" * 2000, "own.yaml: more than 50 lists or sections within each other"),
        ("seed: !!python/object/apply:os.system [true]", "could not determine a constructor for the tag"),
        ("seed: 1\nseed: 2", "found duplicate key seed"),
        ("seed: " + "9" * 5000, "4300 digits"),
    ],
    ids=["deep", "tag", "double", "digits"],
)
def test_a_file_that_cannot_be_read_is_refused(content: str, said: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "own.yaml").write_text(f"# @package _global_\n{content}\n")
    ended = command("--config-dir", str(tmp_path / "own"), "experiment=own", "name=a")
    assert ended.code == 2
    assert said in ended.error


def test_a_file_with_some_aliases_is_read(tmp_path: Path) -> None:
    from research.compose import check_files

    (tmp_path / "fine.yaml").write_text("a: &a {b: 1}\nc: [*a, *a]\n")
    (tmp_path / "broken.yaml").write_text("a: [")  # Hydra says so, if it reads it
    check_files(tmp_path)


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_own_values_that_are_no_probabilities_get_a_likelihood_that_takes_them(
    scaling: str, command: Command, tmp_path: Path
) -> None:
    np.save(tmp_path / "own.npy", np.random.default_rng(0).normal(size=(300, 8)))
    arguments = ["data=arrays", "data.path=own.npy", f"data.scaling={scaling}", "sweep.plan_only=true"]
    ended = command(*arguments)
    assert ended.code == 2
    remedy = ended.error.rpartition("; set ")[2]
    assert remedy == "model.likelihood=gaussian"
    assert command(*arguments, remedy).code == 0


OWN = "from research.models.vae import VAE\nfrom research.tree import spec\n\n\n@spec\nclass Tilted(VAE):\n"


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Command:
    """`own_model(...)`: plan with a model of the package my_package, whose class has two keys that no file has."""
    (tmp_path / "own" / "my_package").mkdir(parents=True)
    (tmp_path / "own" / "my_package" / "models.py").write_text(f"{OWN}    tilt: float\n    jitter: float\n")
    monkeypatch.syspath_prepend(tmp_path / "own")
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)
    chosen = ("model._target_=my_package.models.Tilted", "trusted_packages=[my_package]", "sweep.plan_only=true")
    return lambda *arguments: command(*chosen, *arguments)


def test_a_key_that_only_the_class_has_is_named_with_a_plus(own_model: Command) -> None:
    ended = own_model()
    assert ended.error.endswith("model.tilt=null: this key must be set to a number; add +model.tilt=VALUE")
    ended = own_model("model.tilt=1")
    assert ended.error.endswith("it needs a +: +model.tilt=1")
    ended = own_model("+model.tilt=1", "model.jiter=1")
    assert "did you mean '+model.jitter=1'?" in ended.error
    ended = own_model("+model.tilt=1", "+model.jiter=1")
    assert "did you mean '+model.jitter'?" in ended.error
    assert own_model("+model.tilt=1", "+model.jitter=1").code == 0


def test_a_class_that_is_not_found_says_how_it_is(
    own_model: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(target: str, *trusted: str) -> str:
        return command(f"model._target_={target}", *trusted).error.partition(": ")[2]

    trusted = ("trusted_packages=[my_package,your_package]",)
    assert refusal("Tilted").endswith("for example my_package.models.Tilted")
    assert refusal("my_package.models.Tilted").endswith("'trusted_packages=[my_package]'")
    assert refusal("my_package.model.Tilted", *trusted).endswith("(did you mean 'my_package.models.Tilted'?)")
    assert refusal("my_package.models.Tiltd", *trusted).endswith("(did you mean 'my_package.models.Tilted'?)")
    missing = "no module named your_package; put PYTHONPATH="
    assert refusal("your_package.A", *trusted).startswith(f"{missing}FOLDER before python, where FOLDER is")
    (tmp_path / "your_package").mkdir()
    assert refusal("your_package.A", *trusted) == f"{missing}. before python"
    (tmp_path / "own" / "my_package" / "needy.py").write_text("import no_such_package_anywhere")
    assert refusal("my_package.needy.A", *trusted).endswith("my_package.needy imports it: install it")


def test_a_flag_between_keys_is_refused_with_the_command_in_order(command: Command) -> None:
    ended = command("seed=0,1", "-m", "model.beta=1,2")
    assert ended.code == 2
    assert "python scripts/train.py -m seed=0,1 model.beta=1,2 output_root=" in ended.error
