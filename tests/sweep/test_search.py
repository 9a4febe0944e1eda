"""A study chooses the same points whenever it is interrupted, tries none twice, and looks for better values."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.sweep.search.space import Interval, Values, corners, size
from research.sweep.search.study import STATES, Search, Study, Trial, check_size, outcome, quiet
from research.tree import ConfigError

ELBO, LOSS = "validation/elbo_nats", "validation/loss"
SPACE = {
    "model.beta": Interval(0.1, 10.0),
    "optimizer.learning_rate": Interval(1e-5, 1e-1, log=True),
    "model.latent_dim": Values(("2", "4", "8")),
    "model.layers": Interval(1, 4, whole=True),
}
SEEDS = {"seed": ("0", "1")}


class FreeLease:
    def check(self) -> None: ...


def searching(trials: int, **settings: Any) -> Search:
    return Search(**{"trials": trials, "batch": 4, "sampler": "tpe", "seed": 0, **settings})


def score(point: dict[str, str]) -> float:
    """A function whose only maximum is at beta 3, rate 0.001, latent size 4."""
    beta, rate, latent_dim = (float(point[key]) for key in list(SPACE)[:3])
    return -((beta - 3) ** 2) - (math.log10(rate) + 3) ** 2 - 5 * (latent_dim != 4)


def tried(point: dict[str, str], objective: str = ELBO) -> Trial:
    if float(point["model.beta"]) > 9.5:
        return Trial(point, ["run"], "diverged", None, "step 3")
    return Trial(point, ["run"], "completed", score(point) * (1 if objective == ELBO else -1))


def searched(path: Path, search: Search, objective: str = ELBO, *, space: Any = SPACE, batches: int = 99) -> Study:
    """A search that goes on with what its file holds, for so many batches, and forgets everything else after each."""
    for _ in range(batches):
        study = Study(path, space, SEEDS, objective, search)
        points = study.next_points(search.points(2, 64))
        if not points:
            break
        study.begin(points, FreeLease())
        study.tell([tried(point, objective) for point in points], FreeLease())
    return Study(path, space, SEEDS, objective, search)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("objective", [ELBO, LOSS])
def test_an_interrupted_search_has_the_trials_of_an_undisturbed_one(
    sampler: Any, objective: str, tmp_path: Path
) -> None:
    search = searching(18, sampler=sampler)
    whole = Study(tmp_path / "whole.json", SPACE, SEEDS, objective, search)
    while points := whole.next_points(4):
        whole.begin(points, FreeLease())
        whole.tell([tried(point, objective) for point in points], FreeLease())
    broken = tmp_path / "broken.json"
    searched(broken, search, objective, batches=2)
    study = Study(broken, SPACE, SEEDS, objective, search)
    study.begin(study.next_points(4), FreeLease())  # killed while the third batch is trained
    study = searched(broken, search, objective, space=dict(reversed(SPACE.items())))  # keys in another order
    assert study.trials == whole.trials
    assert len(study.trials) == 18
    assert [len(batch) for batch in study.batches] == [4, 4, 4, 4, 2]
    assert json.loads(broken.read_text()) == json.loads((tmp_path / "whole.json").read_text())


@pytest.mark.parametrize("objective", [ELBO, LOSS])
def test_later_points_are_better_in_the_direction_of_the_objective(objective: str, tmp_path: Path) -> None:
    scores = {}
    for sampler in ("tpe", "random"):
        study = searched(tmp_path / sampler, searching(60, sampler=sampler), objective)
        scores[sampler] = np.median([score(trial.point) for trial in study.trials[30:]])
        best = study.best()
        assert best is not None
        assert score(best.point) == max(score(trial.point) for trial in study.trials if trial.value is not None)
    assert scores["tpe"] > scores["random"] + 3


def test_other_seeds_and_batches_have_other_points(tmp_path: Path) -> None:
    study = searched(tmp_path / "a", searching(8, sampler="random"))
    other = searched(tmp_path / "b", searching(8, sampler="random", seed=1))
    betas = [trial.point["model.beta"] for trial in [*study.trials, *other.trials]]
    assert len(set(betas)) == 16


def test_no_point_is_tried_twice_and_an_exhausted_space_ends_the_search(tmp_path: Path) -> None:
    space = {"model.beta": Values(("1", "2", "4"), ordered=True), "model.latent_dim": Values(("2", "4"))}
    space |= {key: Values((str(SPACE[key].trials()[0]),)) for key in ("optimizer.learning_rate", "model.layers")}
    study = searched(tmp_path / "study", searching(20), space=space)
    points = [tuple(trial.point.values()) for trial in study.trials]
    assert len(points) == len(set(points)) == size(space) == 6
    check_size(space, 5)
    with pytest.raises(ConfigError, match=r"only 6 points; set search.trials=null"):
        check_size(space, 6)


def test_values_lie_in_their_interval_are_short_and_cover_it() -> None:
    with quiet():
        import optuna

    for interval, middle in (
        (Interval(0.1234567, 0.1234568), None),  # six digits would lie outside
        (Interval(1e-6, 1e-2, log=True), 1e-4),
        (Interval(0.0, 10.0), 5.0),
        (Interval(1, 100, log=True, whole=True), 10),
        (Interval(-3, 3, whole=True), 0),
    ):
        with quiet():
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
            texts = [interval.suggest(study.ask(), "key") for _ in range(200)]
        numbers = [interval.parameter(text) for text in texts]
        assert min(numbers) >= interval.low
        assert max(numbers) <= interval.high
        assert all(number in (interval.low, interval.high, float(f"{number:.6g}")) for number in numbers)
        assert isinstance(numbers[0], int) == interval.whole
        if middle is not None:
            assert 0.4 < np.mean([number < middle for number in numbers]) + np.mean(np.equal(numbers, middle)) / 2 < 0.6


def test_an_interval_of_whole_ends_is_offered_for_whole_numbers() -> None:
    assert Interval(2.0, 16.0, log=True).of_whole_numbers() == Interval(2, 16, log=True, whole=True)
    assert str(Interval(2, 16, log=True, whole=True)) == "tag(log,int(interval(2,16)))"
    assert Interval(2.5, 16.0).of_whole_numbers() is None


def test_corners_show_every_end_and_every_choice() -> None:
    points = corners(SPACE)
    for key, dimension in SPACE.items():
        assert {point[key] for point in points} == set(dimension.trials())
    assert points[0] == {"model.beta": "0.1", "optimizer.learning_rate": "1e-05"} | {
        "model.latent_dim": "2",
        "model.layers": "1",
    }
    assert points[-1]["model.beta"] == "10.0"
    assert any(not float(point["model.beta"]).is_integer() and point["model.beta"] != "0.1" for point in points)


def result(status: str, value: float | None = None) -> dict[str, Any]:
    return {"run_id": f"{status}-{value}", "status": status, "reason": "why", "metrics": {ELBO: value}}


def test_a_point_has_the_mean_of_its_runs_or_their_worst_status() -> None:
    point = {"model.beta": "1"}
    trial = outcome(point, [result("completed", 0.1), result("stopped", 0.2), result("completed", 0.6)], ELBO)
    assert (trial.status, trial.value) == ("completed", 0.9 / 3)
    assert trial.runs == ["completed-0.1", "stopped-0.2", "completed-0.6"]
    trial = outcome(point, [result("completed", 0.1), result("pruned", 0.2), result("diverged")], ELBO)
    assert (trial.status, trial.value, trial.reason) == ("diverged", None, "1 of 3 runs diverged: why")
    trial = outcome(point, [result("diverged"), None], ELBO)
    assert (trial.status, trial.reason) == ("failed", "1 of 2 runs failed: it has no result")
    trial = outcome(point, [result("completed", None)], ELBO)
    assert (trial.status, trial.reason) == ("failed", f"{ELBO} is not finite")


def test_a_diverged_point_teaches_and_a_failed_one_does_not() -> None:
    with quiet():
        import optuna

    assert all(hasattr(optuna.trial.TrialState, state) for state in STATES.values())
    assert STATES["diverged"] == "PRUNED"
    assert STATES["failed"] == "FAIL"


@pytest.mark.parametrize(
    ("space", "seeds", "settings", "said"),
    [
        (SPACE | {"model.beta": Interval(0.1, 20.0)}, SEEDS, {}, r"model.beta: interval\(0.1,10.0\) there, interval"),
        (
            SPACE | {"model.beta": Interval(0.1, 10.0, log=True)},
            SEEDS,
            {},
            r"now tag|tag\(log,interval\(0.1,10.0\)\) now",
        ),
        (SPACE | {"model.free_bits": Interval(0.0, 1.0)}, SEEDS, {}, "model.free_bits: None there"),
        (SPACE, {"seed": ("0", "1", "2")}, {}, "seed: 0,1 there, 0,1,2 now"),
        (SPACE, SEEDS, {"seed": 1}, "search.seed: 0 there, 1 now"),
        (SPACE, SEEDS, {"sampler": "random"}, "search.sampler: tpe there, random now"),
    ],
)
def test_the_folder_of_another_search_is_refused(
    space: Any, seeds: Any, settings: Any, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "sweep" / "search.json"
    searched(path, searching(4))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=said):
        Study(path, space, seeds, ELBO, searching(4, **settings))
    with pytest.raises(ConfigError, match=f"objective: {ELBO} there, {LOSS} now"):
        Study(path, SPACE, SEEDS, LOSS, searching(4))
    assert path.read_bytes() == before
    assert Study(path, SPACE, SEEDS, "", searching(4)).objective == ELBO  # the command names none


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"tpe"', '"tpe'),
        ('"value": -', '"value": "x'),
        ('"status": "completed"', '"status": "won"'),
        ('"model.beta": "', '"model.beta": "99'),
        ('"model.latent_dim": "', '"model.latent_dim": "7'),
        ('"reason": null', '"because": null'),
        ('"reason": null', f'"reason": null, "value": {10**400}'),
        ('"runs": [\n      "run"', '"runs": [\n      3'),
        ('"reason": null', '"reason": null, "value": NaN'),
    ],
)
def test_a_damaged_study_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    searched(path, searching(4))
    text = path.read_text()
    assert old in text
    head, _, tail = text.rpartition(old)
    path.write_text(head + new + tail)
    with pytest.raises(ConfigError, match=r"search.json is damaged .* choose another name="):
        Study(path, SPACE, SEEDS, ELBO, searching(4))


def test_a_point_that_stands_in_a_study_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    searched(path, searching(4))
    content = json.loads(path.read_text())
    content["batches"].append(content["batches"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"search.json is damaged \(a point was tried twice\)"):
        Study(path, SPACE, SEEDS, ELBO, searching(8))


def test_the_default_batch_fits_a_program() -> None:
    assert searching(64, batch=None).points(3, 64) == 8
    assert searching(64, batch=None).points(20, 64) == 3
    assert searching(64, batch=None).points(100, 64) == 1
    assert searching(6, batch=None).points(1, 64) == 4
    assert searching(64, batch=5).points(100, 64) == 5


def test_without_optuna_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package optuna: pip install -e '.\[optuna\]'"):
        searching(4).validate()
