"""The launcher's composer gives what Hydra gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydra_plugins.fused.compose import Composer
from research.runs.files import ALONE, LeaseLost

CONF = Path(__file__).parents[2] / "conf"
POINTS = [
    [],
    ["model.beta=4"],
    ["model.beta=0.5"],
    ["model.beta=1e-3", "optimizer.learning_rate=1e-05"],
    ["model.latent_dim=2", "seed=1"],
    ["seed=1", "model.latent_dim=3"],
    ["model.hidden_dims=[4]"],
    ["model.hidden_dims=[]"],
    ["model.hidden_dims=[8,4,2]", "model.beta=2"],
    ["model.log_variance_range=[-6.0,2.0]"],
    ["model.log_variance_range=null", "model.free_bits=null"],
    ["model.free_bits=0.25"],
    ["model.gated=true", "model.layer_norm=false"],
    ["name=plain"],
    ["name='in quotes'"],
    ['name="double, quotes"'],
    ["name='1e5'"],
    ["name='null'"],
    ["name='true'", "trainer.warm_start='a=b'"],
    ["name='été'"],
    ["name=\\${seed}"],
    ["data.root=/some/place", "trainer.patience=3"],
    ["data.root='~/my data'"],
    ["trusted_packages=[one,two.three]"],
    ["trusted_packages=['quoted one']"],
    ["+optimizer.eps_root=1e-8"],
    ["++optimizer.eps_root=2e-8", "model.beta=3"],
    ["++model.beta=3"],
    ["~model.gamma"],
    ["model=dense_ae"],
    ["model=dense_ae", "model.latent_dim=2", "optimizer=sgd", "optimizer.momentum=0.9"],
    ["optimizer=sgd"],
    ["data=low_rank", "model.likelihood=gaussian"],
    ["evaluation=none"],
    ["evaluation=full", "evaluation.probes=false"],
    ["experiment=pca_mnist"],
    ["experiment=pca_mnist", "model.latent_dim=2", "trainer.epochs=1"],
    ["seed=${trainer.epochs}"],
    ["data.split_seed=${seed}", "seed=7"],
    ["data.split_seed=${seed}", "seed=8"],
    ["model.beta=4", "model.beta=5"],
    ["objective=validation/mse", "sweep.mode=map", "hydra.job.name=other"],
]


@pytest.fixture(scope="module")
def hydra_parts() -> tuple[Any, Any]:
    """Hydra's config loader and the config of a sweep command."""
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        command = ["model.beta=1,2", "name=sweep", "+hydra.job.env_set.A=b", "hydra.sweep.dir=elsewhere"]
        master = hydra.compose_config("train", overrides=command, run_mode=RunMode.MULTIRUN)
        parts = hydra.config_loader, master
    GlobalHydra.instance().clear()
    return parts


@pytest.fixture(scope="module")
def composer(hydra_parts: tuple[Any, Any]) -> Composer:
    """One composer for all points, as in a sweep."""
    return Composer(*hydra_parts)


def container(config: Any, resolve: bool = False) -> Any:
    return OmegaConf.to_container(config, resolve=resolve, enum_to_str=True)


def without_hydra(config: Any) -> Any:
    return OmegaConf.create({key: config._get_node(key) for key in config if key != "hydra"})


@pytest.mark.parametrize("overrides", [*POINTS, *(point[::-1] for point in POINTS if len(point) > 1)], ids=" ".join)
def test_a_composed_job_is_hydras_own(overrides: list[str], hydra_parts: tuple[Any, Any], composer: Composer) -> None:
    loader, master = hydra_parts
    theirs = loader.load_sweep_config(master, overrides)
    ours = composer.compose(overrides)
    assert container(ours.config()) == container(theirs)
    assert list(container(ours.config())) == list(container(theirs))
    assert ours.tree() == container(without_hydra(theirs), resolve=True)
    assert ours.overrides == container(theirs.hydra.overrides.task)
    assert ours.override_dirname == container(theirs.hydra.job)["override_dirname"]
    assert dict(ours.base.choices) == dict(theirs.hydra.runtime.choices)


def test_jobs_of_equal_choices_share_one_composition(
    hydra_parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, master = hydra_parts
    calls = []
    whole = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *given: calls.append(given) or whole(*given))
    composer = Composer(loader, master)
    made = [
        composer.compose([f"model={model}", f"model.latent_dim={size}", f"seed={seed}"])
        for model in ("vae", "dense_ae")
        for size in (2, 4)
        for seed in range(3)
    ]
    assert len(calls) == 2
    assert len({str(one.tree()) for one in made}) == 12


def test_one_job_cannot_change_another(composer: Composer) -> None:
    first = composer.compose(["model.hidden_dims=[4,5]", "seed=3"])
    tree = first.tree()
    tree["model"]["hidden_dims"].append(6)
    tree["model"]["latent_dim"] = -1
    assert first.tree()["model"]["hidden_dims"] == [4, 5]
    assert composer.compose(["model.hidden_dims=[4]", "seed=4"]).tree()["model"]["latent_dim"] != -1


def record(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / ".hydra").iterdir()}


@pytest.mark.parametrize(
    "point",
    [
        ["model.beta=0.5", "seed=1", "optimizer.learning_rate=1e-5", "model.hidden_dims=[4]", "trainer.patience=null"],
        ["+optimizer.eps_root=1e-8"],
    ],
    ids=" ".join,
)
def test_records_of_a_run_are_those_of_the_basic_launcher(
    point: list[str], tiny: Callable[..., Any], outputs: Path
) -> None:
    """Text and numbers alike; only numbers of the job, paths and the launcher may differ."""
    found = {}
    for launcher in ("fused", "basic"):
        arguments = ["-m", *point, f"name={launcher}", "sweep.mode=map", f"hydra/launcher={launcher}"]
        assert tiny(*arguments).code == 0
        (folder,) = (path.parent for path in (outputs / launcher).glob("*/.hydra"))
        found[launcher] = record(folder)
    fused, basic = found["fused"], found["basic"]
    assert set(fused) == set(basic) == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    for name in ("config.yaml", "overrides.yaml"):
        assert fused[name].replace("name=fused", "name=basic").replace("name: fused", "name: basic") == basic[name]
    ours, theirs = (OmegaConf.to_container(OmegaConf.create(one["hydra.yaml"])) for one in (fused, basic))
    different = {key for key in ours["hydra"] if ours["hydra"][key] != theirs["hydra"][key]}  # type: ignore[index, call-overload]
    assert different <= {"launcher", "sweep", "runtime", "overrides", "job"}
    for section in ("job", "sweep"):
        one, other = ours["hydra"][section], theirs["hydra"][section]  # type: ignore[index, call-overload]
        assert list(one) == list(other)
        for key in one:
            if key not in ("dir", "subdir", "override_dirname"):
                assert one[key] == other[key], key


@pytest.mark.parametrize("text", ["1e5", "null", "12", "true", "x: y", "été", "a#b", "0x10", "1_000", "~", "'"])
def test_text_in_a_record_is_text_when_read_again(text: str, composer: Composer, tmp_path: Path) -> None:
    escaped = text.replace("'", "\\'")
    composed = composer.compose([f"data.root='{escaped}'"])
    assert composed.tree()["data"]["root"] == text
    composed.write(0, tmp_path, ALONE)
    assert OmegaConf.load(tmp_path / ".hydra" / "config.yaml").data.root == text
    assert list(OmegaConf.load(tmp_path / ".hydra" / "overrides.yaml")) == composed.overrides


class Lost:
    """A lease that is lost at the question of this number."""

    def __init__(self, left: int) -> None:
        self.left = left

    def check(self) -> None:
        self.left -= 1
        if not self.left:
            raise LeaseLost


@pytest.mark.parametrize("asked", [1, 2, 4, 6])
def test_a_record_is_not_written_on_once_the_lease_is_lost(asked: int, composer: Composer, tmp_path: Path) -> None:
    with pytest.raises(LeaseLost):
        composer.compose(["seed=1"]).write(0, tmp_path, Lost(asked))
    assert len(list(tmp_path.glob(".hydra/*"))) == (asked - 1) // 2
