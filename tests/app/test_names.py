"""Names of run folders (what is swept; hash digits find runs again), and names of keys and metrics for a paper."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Command = Callable[..., Any]


def names(folder: Path) -> list[str]:
    """The names of the run folders without the hash digits."""
    return sorted(path.parent.name.rpartition("-")[0] for path in folder.glob("*/config.json"))


def planned(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())["runs"]


def test_runs_of_a_sweep_are_named_by_what_is_swept(tiny: Command, outputs: Path) -> None:
    folder = outputs / "grid"
    sweep = ("-m", "seed=0,1", "optimizer.learning_rate=0.01", "name=grid")
    ended = tiny(*sweep, "model.beta=1,4")
    assert ended.code == 0, ended.err
    first = ["seed=0-beta=1", "seed=0-beta=4", "seed=1-beta=1", "seed=1-beta=4"]
    assert names(folder) == first
    runs = {path.parent.name for path in folder.glob("*/result.json")}
    assert runs == set(planned(folder))
    assert runs == {json.loads((folder / name / "result.json").read_text())["run_id"] for name in runs}
    for name in runs:
        record = yaml.safe_load((folder / name / ".hydra" / "hydra.yaml").read_text())["hydra"]
        assert record["sweep"]["subdir"] == name
        assert "optimizer.learning_rate=0.01" in record["overrides"]["task"]
    summaries = sorted(path.name for path in (folder / "summary").iterdir())
    assert [name.rpartition("-")[0] for name in summaries] == ["beta=1", "beta=4"]
    # further values find the old folders, whatever the command calls them
    added = tiny(*sweep, "model.beta=4,5")
    assert "2 jobs, 1 program (2 more finished already)" in added.out
    assert names(folder) == sorted([*first, "seed=0-beta=5", "seed=1-beta=5"])
    fewer = tiny("-m", "optimizer.learning_rate=0.01", "seed=0", "model.beta=4,6", "name=grid")
    assert "1 job, 1 program (1 more finished already)" in fewer.out
    assert names(folder) == sorted([*first, "seed=0-beta=5", "seed=1-beta=5", "beta=6"])
    assert set(summaries) < {path.name for path in (folder / "summary").iterdir()}


def test_a_sweep_of_earlier_names_goes_on_in_its_folders(tiny: Command, outputs: Path) -> None:
    folder = outputs / "old"
    sweep = ("-m", "optimizer.learning_rate=0.01", "name=old")
    assert tiny(*sweep, "seed=0,1").code == 0
    manifest = json.loads((folder / "sweep.json").read_text())
    for name in list(manifest["runs"]):
        earlier = f"learning_rate=0.01-{name}"
        manifest["runs"][earlier] = manifest["runs"].pop(name)
        (folder / name).rename(folder / earlier)
        result = json.loads((folder / earlier / "result.json").read_text())
        (folder / earlier / "result.json").write_text(json.dumps(result | {"run_id": earlier}))
    (folder / "sweep.json").write_text(json.dumps(manifest))
    (summary,) = (folder / "summary").iterdir()
    assert summary.name.startswith("all_seeds-")
    ended = tiny(*sweep, "seed=0,1,2")
    assert "1 job, 1 program (2 more finished already)" in ended.out
    assert names(folder) == ["learning_rate=0.01-seed=0", "learning_rate=0.01-seed=1", "seed=2"]
    assert list((folder / "summary").iterdir()) == [summary]  # of all three seeds


def test_a_run_alone_is_named_by_all_its_overrides(tiny: Command, outputs: Path) -> None:
    assert tiny("seed=3", "name=one").code == 0
    (name,) = names(outputs / "one")
    assert "latent_dim=2" in name
    assert list((outputs / "one").glob(f"{name}-*/.hydra"))


def test_names_for_a_paper_are_checked_before_training(tiny: Command, outputs: Path) -> None:
    wrong = {
        "report.names={model.laten_dim: size}": "key, metric or value (did you mean 'model.latent_dim'?)",
        "report.decimals={test/los: 1}": "no job has this metric (did you mean 'test/loss'?)",
        "report.names={baseline/pca/los: PCA}": "no job has this key, metric or value",
        "report.names={test/loss: ''}": "an empty name names nothing",
        "report.decimals={test/loss: 99}": "report.decimals",
    }
    for setting, remedy in wrong.items():
        ended = tiny("seed=0", setting, "name=paper")
        assert ended.code == 2
        assert remedy in ended.error
    assert not (outputs / "paper").exists()
    names = "report.names={test/loss: L, model: network, vae: VAE, baseline/pca/reconstruction_mse: PCA}"
    assert tiny("seed=0", "name=plain").code == 0
    section = json.loads((outputs / "plain" / "sweep.json").read_text())["report"]
    assert list(section) == ["rows", "columns", "metrics", "select", "by", "published"]  # as earlier versions know it
    ended = tiny("seed=0", names, "report.decimals={test/loss: 2}", "name=paper")
    assert ended.code == 0, ended.err
    head, _, row = [line for line in ended.out.splitlines() if line.startswith("|")][:3]
    assert [cell.strip() for cell in head.split("|")[1:3]] == ["network", "L ↓"]
    assert row.split("|")[1].strip() == "VAE"
    assert len(row.split("|")[2].strip().partition(".")[2]) == 2
