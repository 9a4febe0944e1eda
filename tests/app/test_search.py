"""The command with search.trials: killed, resumed, refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

SPACE = (
    "model.beta=interval(0.1,10)",
    "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))",
    "model.latent_dim=2,3",
    "seed=0,1",
)
SEARCH = ("-m", "search.trials=5", "search.batch=2", *SPACE)


class Killed(BaseException):
    """Stands for a process that ends without a word."""


def study(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "search.json").read_text())


def test_a_killed_search_ends_with_the_trials_of_an_undisturbed_one(
    tiny: Command, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.sweep.search.study import Study
    from research.sweep.train.display import Display

    ended = tiny(*SEARCH, "name=whole")
    assert ended.code == 0, ended.err
    trials = [trial for batch in study(outputs / "whole")["batches"] for trial in batch["trials"]]
    assert [len(batch["trials"]) for batch in study(outputs / "whole")["batches"]] == [2, 2, 1]
    assert study(outputs / "whole")["objective"] == "validation/elbo_nats"
    for trial in trials:  # the values are those of the runs
        results = [json.loads((outputs / "whole" / run / "result.json").read_text()) for run in trial["runs"]]
        values = [result["metrics"]["validation/elbo_nats"] for result in results]
        assert trial["value"] == sum(values) / 2
        assert "search." not in results[0]["command"]  # a run can be trained alone
        assert all(f"{key}={value}" in results[0]["overrides"] for key, value in trial["point"].items())
    best = max(trials, key=lambda trial: trial["value"])
    shown = ended.out[ended.out.index("best point by validation/elbo_nats") :]
    assert all(f"{key}={value}" in shown for key, value in best["point"].items())
    assert all(f"outputs/whole/{run}" in shown for run in best["runs"])
    assert "search: 5 points, 5 completed" in ended.out

    chunks = 0

    def kill(display: Display, *_: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 12:  # in the second batch: a batch has 2 points, 2 seeds and 2 evaluations
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Display, "chunk", kill)
        with pytest.raises(Killed):
            tiny(*SEARCH, "name=broken")
    begun = study(outputs / "broken")["batches"]
    assert [trial["status"] for trial in begun[-1]["trials"]] == [None, None]
    with monkeypatch.context() as patch:  # all runs of the batch are finished, and the outcomes are not written
        patch.setattr(Study, "tell", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            tiny(*SEARCH, "name=broken")
    assert study(outputs / "broken")["batches"] == begun
    reordered = [*SEARCH[:3], *reversed(SPACE[:2]), *SPACE[2:]]
    assert tiny(*reordered, "name=broken").code == 0
    whole, broken = ((outputs / name / "search.json").read_text() for name in ("whole", "broken"))
    assert points_of(whole) == points_of(broken)

    before = {path: path.read_bytes() for path in outputs.rglob("result.json")}
    again = tiny(*SEARCH, "name=whole")
    assert again.code == 0
    assert "search: 5 points, 5 completed" in again.out
    assert {path: path.read_bytes() for path in outputs.rglob("result.json")} == before
    assert tiny(*SEARCH, "name=whole", "model.beta=interval(0.1,20)").code == 2  # set twice
    refused = tiny("-m", "search.trials=5", "search.batch=2", "model.beta=interval(0.1,20)", *SPACE[1:], "name=whole")
    assert refused.code == 2
    assert "model.beta: interval(0.1,10.0) there, interval(0.1,20.0) now" in refused.error
    longer = tiny(*[line.replace("trials=5", "trials=6") for line in SEARCH], "name=whole")
    assert longer.code == 0
    assert "search: points 6 to 6 of 6; best so far validation/elbo_nats" in longer.out


def points_of(text: str) -> list[tuple[Any, ...]]:
    """Points, statuses and values of a study, without the names of run folders, which follow the order of the keys."""
    trials = [trial for batch in json.loads(text)["batches"] for trial in batch["trials"]]
    return [(trial["point"], trial["status"], trial["value"], len(trial["runs"])) for trial in trials]


def test_a_point_that_diverges_is_told_so(tiny: Command, outputs: Path) -> None:
    space = ["model.beta=interval(0.1,10)", "optimizer.learning_rate=choice(1e-3,1e20)"]
    ended = tiny("-m", "search.trials=4", *space, "seed=0,1", "name=search")
    assert ended.code == 3, ended.err
    trials = study(outputs / "search")["batches"][0]["trials"]
    rates = {trial["status"]: trial["point"]["optimizer.learning_rate"] for trial in trials}
    assert rates == {"completed": "0.001", "diverged": "1e+20"} or rates == {"completed": "1e-3", "diverged": "1e20"}
    assert all(trial["value"] is None for trial in trials if trial["status"] == "diverged")
    assert " diverged; " in ended.out


def test_the_worse_points_of_a_batch_are_pruned_across_programs(tiny: Command, outputs: Path) -> None:
    pruning = ["sweep.prune=successive_halving", "sweep.peers=command", "trainer.monitor=validation/elbo_nats"]
    batch = ["-m", "search.trials=6", "search.batch=6", "trainer.epochs=3"]
    ended = tiny(*batch, *SPACE, *pruning, "name=search")
    assert ended.code == 0, ended.err
    trials = study(outputs / "search")["batches"][0]["trials"]
    assert sorted(trial["status"] for trial in trials) == ["completed"] * 2 + ["pruned"] * 4
    assert all(trial["reason"].startswith("2 of 2 runs pruned: ") for trial in trials if trial["value"] is None)
    assert "search: 6 points, " in ended.out


def test_the_plan_of_a_search_is_that_of_its_next_batch(tiny: Command, outputs: Path) -> None:
    ended = tiny(*SEARCH, "name=search", "sweep.plan_only=true")
    assert ended.code == 0, ended.err
    assert "search: the plan of the next 2 of 5 points" in ended.out
    assert "4 jobs, " in ended.out
    assert not outputs.exists()


BETA = "model.beta=interval(0.1,10)"
REFUSED = [
    (["-m"], "search.trials=4: no key is searched"),
    ([], "search.trials=4: a search is a sweep over a range: -m search.trials=64"),
    (["-m", "model.latent_dim=interval(2,16)"], "write 'model.latent_dim=int(interval(2,16))'"),
    (["-m", "model.latent_dim=2,3"], "these values make only 2 points; set search.trials=null"),
    (["-m", "model.beta=interval(-1,10)"], "model.beta=-1.0: must not be negative"),
    (["-m", "model.beta=interval(10,1)"], "the first end of an interval must lie below"),
    (["-m", "model.beta=tag(log,interval(0,1))"], "with the tag log both ends must be positive"),
    (["-m", "model.beta=tag(fast,interval(0,1))"], "unknown tag fast"),
    (["-m", "model.beta=interval(0,inf)"], "an interval needs finite ends"),
    (["-m", "model.latent_dim=tag(log,range(2,9))"], "'model.latent_dim=tag(log,int(interval(1,64)))'"),
    (["-m", "model.beta=shuffle(range(1,9))"], "leave out shuffle"),
    (["-m", BETA, "seed=interval(0,3)"], "seed=interval(0,3): every point is averaged over its values"),
    (["-m", BETA, "model.beta=3"], "model.beta is set twice"),
    (["-m", BETA, "search.seed=0,1"], "one command has one search.seed"),
    (["-m", BETA, "hydra.launcher.workers=1,2"], "Sweeping over Hydra's configuration is not supported"),
    (["-m", BETA, "evaluation.probes=true,false"], "evaluation.probes"),
    (["-m", BETA, "hydra/sweeper=basic"], "leave out hydra/sweeper"),
    (["-m", BETA, "objective=test/elbo_nats"], "objective=test/elbo_nats: a search chooses by the validation rows"),
    (["-m", BETA, "objective=validation/loss"], "where model.beta differs; set objective=validation/elbo_nats"),
    (["-m", BETA, "sweep.prune=median"], "add sweep.peers=command"),
    (
        ["-m", BETA, "sweep.prune=median", "sweep.peers=command", "hydra.launcher.executor=joblib"],
        "workers do not compare their programs with each other (joblib)",
    ),
    (["-m", "model.beta=1,2,1.0,3,4,5"], "model.beta=1.0: is the same as 1; leave one of them out"),
    (["-m", BETA, "data.split_seed=0,1"], "no metric of the validation rows measures the same"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_a_search_that_cannot_be_made_is_refused(arguments: list[str], said: str, tiny: Command, outputs: Path) -> None:
    ended = tiny(*arguments, "search.trials=4", "name=search")
    assert ended.code == 2, ended
    assert said in ended.error
    assert not outputs.exists()


def test_the_folder_of_a_sweep_is_refused(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "model.beta=1,2", "name=there").code == 0
    ended = tiny("-m", "search.trials=4", BETA, "name=there")
    assert ended.code == 2
    assert "holds a sweep that is no search; choose another name=" in ended.error
    assert not (outputs / "there" / "search.json").exists()


def test_a_search_that_goes_on_has_the_same_other_settings(tiny: Command, outputs: Path) -> None:
    start = ["-m", "search.trials=1", BETA, "name=there"]
    ended = tiny(*start)
    assert ended.code == 0, ended.err
    assert "search: 1 point, 1 completed" in ended.out
    before = (outputs / "there" / "search.json").read_bytes()
    more = ["-m", "search.trials=2", BETA, "name=there"]
    assert "seed: 0 there, 1 now" in tiny(*more, "seed=1").error
    assert (
        tiny("-m", "model.beta=1,2", "model.latent_dim=2,3", "name=there").code == 0
    )  # so the sweep allows another latent size
    other = tiny(*more, "model.latent_dim=3")
    assert other.code == 2
    assert "holds another search (config_hash of the first values: " in other.error
    assert (outputs / "there" / "search.json").read_bytes() == before
    assert "search: no point is left to try; 1 of 1 were tried" in tiny(*start, "sweep.plan_only=true").out


def test_a_seed_that_is_named_twice_counts_once(tiny: Command, outputs: Path) -> None:
    assert tiny("-m", "search.trials=1", BETA, "seed=0,0,1", "name=search").code == 0
    (trial,) = study(outputs / "search")["batches"][0]["trials"]
    assert len(trial["runs"]) == len(set(trial["runs"])) == 2


def test_a_best_point_that_collapsed_is_said_to(tiny: Command, outputs: Path) -> None:
    search = ("-m", "search.trials=1", BETA, "seed=0,1", "name=search")
    assert "ignores its code" not in tiny(*search).out
    path = next((outputs / "search").glob("*seed=1*/result.json"))
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"metrics": result["metrics"] | {"test/collapsed": 1.0}}))
    assert "in 1 of 2 runs of this point the decoder ignores its code (collapsed)" in tiny(*search).out


def test_python_searches_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import research

    monkeypatch.chdir(tmp_path)
    rows = [[i % 7, i % 5, i % 3] for i in range(70)]
    settings = ["model=dense_ae", "model.hidden_dims=[4]", "trainer.epochs=1", "evaluation=none", "sweep.mode=map"]
    sweep = research.sweep(rows, *settings, "model.latent_dim=1,2,3", "search.trials=2", name="mine")
    assert len(sweep.runs) == 2
    assert len(study(tmp_path / "outputs" / "mine")["batches"][0]["trials"]) == 2
