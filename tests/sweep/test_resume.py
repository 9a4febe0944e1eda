"""Sweeps that end in the middle go on with the bits of an undisturbed one, and nothing is done twice."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.sweep.command import prepare, run
from research.sweep.folder import GROUPS, LEASE
from research.sweep.manifest import read_manifest
from research.sweep.plan import group_id
from research.sweep.train import loop
from research.sweep.train.display import Display
from research.sweep.train.ledger import Ledger
from research.sweep.train.loop import Stopped
from research.tree import ConfigError

Jobs = Callable[..., list[Any]]
ROOT = Path(__file__).parents[2]
LONG = ("trainer.epochs=6", "trainer.evaluate_every=1")
SECONDS = 300.0  # after which a test that waits for another thread has failed


class Killed(BaseException):
    """Stands for a process that ends without a word."""


class Breaking(Display):
    """Ends the training of one program after some epochs, or the evaluation of its runs, and keeps what was said."""

    def __init__(self, number: int = 0, epochs: int = 99, how: type[BaseException] | int = Killed):
        super().__init__()
        self.number, self.epochs, self.how = number, epochs, how
        self.notes: list[str] = []
        self.stopping = threading.Event()

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text.startswith("stopping"):
            self.stopping.set()

    def chunk(self, number: int, epochs: int, metrics: Any, unit: int = 0) -> None:
        if number == self.number and epochs == self.epochs:
            if isinstance(self.how, int):
                os.kill(os.getpid(), self.how)
                assert self.stopping.wait(SECONDS)  # the main thread takes the signal when it is its turn
            else:
                raise self.how


class Sweeps:
    """Runs sweeps in one folder, a checkpoint after every evaluation."""

    def __init__(self, folder: Path, make_options: Callable[..., Any]):
        self.folder, self.make_options = folder, make_options

    def __call__(self, jobs: list[Any], display: Display | None = None, **options: Any) -> list[Any]:
        chosen = self.make_options(**{"checkpoint_every": 1, **options})
        about = {"name": self.folder.name, "objective": "validation/loss", "options": chosen}
        return run(prepare(jobs, self.folder, chosen), jobs, display=display or Breaking(), **about)


@pytest.fixture
def sweep(tmp_path: Path, make_options: Callable[..., Any]) -> Sweeps:
    return Sweeps(tmp_path / "sweep", make_options)


@pytest.fixture
def whole(tmp_path: Path, make_options: Callable[..., Any]) -> Sweeps:
    """Undisturbed sweeps, without checkpoints."""
    sweeps = Sweeps(tmp_path / "whole", make_options)
    return lambda jobs, **options: sweeps(jobs, **{"checkpoint_every": 99, **options})  # type: ignore[return-value]


def same(one: Path, other: Path) -> None:
    """The same parameters, rows and metrics, byte for byte."""
    for name in ("params.safetensors", "metrics.csv", "config.json"):
        if name == "config.json":
            a, b = (json.loads((path / name).read_text())["config_hash"] for path in (one, other))
            assert a == b
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (json.loads((path / "result.json").read_text()) for path in (one, other))
    for key in ("status", "reason", "metrics", "best_epoch", "epochs"):
        assert first[key] == second[key], key


def scalars(folder: Path, tag: str) -> list[int]:
    """Steps of one tag in the event file, in the order written."""
    from research.runs.events import NAME, Event, _records

    found = []
    for data in _records((folder / NAME).read_bytes()):
        event = Event.FromString(data)
        found += [event.step for value in event.summary.value if value.tag == tag]
    return found


# --------------------------------------------------------------------------------------------------------------- resume


class Slow(Breaking):
    """Every chunk takes so many seconds by the clock that it patches."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: float, epochs: int = 99):
        super().__init__(0, epochs)
        self.seconds, self.now = seconds, 0.0
        patch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: self.now))

    def chunk(self, number: int, epochs: int, metrics: Any, unit: int = 0) -> None:
        self.now += self.seconds
        super().chunk(number, epochs, metrics, unit)


@pytest.mark.parametrize("mode", ["map", "vmap"])
@pytest.mark.parametrize(
    ("seconds", "every", "resumed"), [(61, 1, [2, 6]), (31, 1, [3, 6]), (1, 1, []), (61, 6, [6]), (1, 6, [])]
)
def test_a_long_training_has_checkpoints_however_few_its_evaluations_are(
    mode: str,
    seconds: float,
    every: int,
    resumed: list[int],
    sweep: Sweeps,
    whole: Any,
    make_jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is killed in its fourth epoch, and then while its evaluation waits."""
    jobs = make_jobs("trainer.epochs=6", f"trainer.evaluate_every={every}")
    options = {"checkpoint_every": 99, "mode": mode}
    with monkeypatch.context() as patch:
        if every == 1:
            with pytest.raises(Killed):
                sweep(jobs, Slow(patch, seconds, 4), **options)
        patch.setattr(Ledger, "finish", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            sweep(jobs, Slow(patch, seconds), **options)
    (outcome,) = sweep(jobs, **options)
    assert outcome.result["resumed_at"] == resumed
    same(outcome.folder, whole(jobs, mode=mode)[0].folder)
    assert not (sweep.folder / GROUPS).exists()


AVERAGED = ("trainer.ema=0.9", "trainer.batch_size=8", "trainer.accumulate=2", "trainer.compute_dtype=bfloat16")


@pytest.mark.parametrize(
    ("mode", "keep", "others"),
    [
        ("map", "best", ()),
        ("map", "last", ()),
        ("vmap", "best", ()),
        ("map", "last", AVERAGED),
        ("vmap", "best", AVERAGED),
    ],
)
def test_a_broken_training_goes_on_from_its_checkpoint_with_the_same_bits(
    mode: str, keep: str, others: tuple[str, ...], sweep: Sweeps, whole: Any, make_jobs: Jobs
) -> None:
    jobs = make_jobs(*LONG, f"trainer.keep={keep}", *others, "model.beta=1,4", "seed=0,1,2")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 4), mode=mode)
    assert not list(sweep.folder.glob("*/result.json"))
    display = Breaking()
    outcomes = sweep(jobs, display, mode=mode)
    assert any(note.startswith("going on from epoch 3") for note in display.notes)
    # in map mode the first member was under way, and the others had not begun
    assert [outcome.result["resumed_at"] for outcome in outcomes] == [[3]] + [[3] if mode == "vmap" else []] * 5
    for one, other in zip(outcomes, whole(jobs, mode=mode), strict=True):
        assert one.result["program"] == other.result["program"]
        same(one.folder, other.folder)
        assert scalars(one.folder, "validation/loss") == [4 * epoch for epoch in range(1, 7)]
    assert not (sweep.folder / GROUPS).exists()


def test_a_training_may_break_many_times(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    for epochs in (2, 3, 5):
        with pytest.raises(Killed):
            sweep(jobs, Breaking(0, epochs))
    outcomes = sweep(jobs)
    assert outcomes[0].result["resumed_at"] == [1, 2, 4]
    for one, other in zip(outcomes, whole(jobs), strict=True):
        same(one.folder, other.folder)


def test_a_sweep_keeps_mode_and_width_that_it_began_with(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "seed=0,1,2,3,4")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 3), mode="vmap")
    for one, other in zip(sweep(jobs, mode="map", max_width=2), whole(jobs, mode="vmap"), strict=True):
        assert one.result["program"] == other.result["program"]
        assert one.result["program"]["width"] == 6
        same(one.folder, other.folder)


def test_points_added_later_form_programs_of_their_own(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 3), mode="vmap")
    outcomes = sweep(make_jobs(*LONG, "seed=0,1,2,3"), mode="vmap")
    assert [outcome.result["program"]["width"] for outcome in outcomes] == [2] * 4
    assert [outcome.result["resumed_at"] for outcome in outcomes] == [[2], [2], [], []]
    for one, other in zip(outcomes, whole(jobs, mode="vmap"), strict=False):
        same(one.folder, other.folder)


def test_a_command_that_names_some_members_restores_their_program_whole(
    sweep: Sweeps, whole: Any, make_jobs: Jobs
) -> None:
    jobs = make_jobs(*LONG, "seed=0,1,2")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 3), mode="vmap")
    (named,) = sweep([jobs[1]], mode="vmap")
    assert named.result["resumed_at"] == [2]
    reference = whole(jobs, mode="vmap")
    for other in reference:  # the others were trained along, and have their results
        same(sweep.folder / other.folder.name, other.folder)
    display = Breaking()
    assert [outcome.status for outcome in sweep(jobs, display, mode="vmap")] == ["completed"] * 3
    assert not [note for note in display.notes if note.startswith("going on")]


def test_without_a_checkpoint_members_of_a_vmap_program_keep_its_width(
    sweep: Sweeps, whole: Any, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One evaluation fails: its run trains again beside copies, which gives it the same bits."""
    jobs = make_jobs(*LONG, "seed=0,1,2")

    def fail(bound: Any, *arguments: Any) -> Any:
        if bound.job.seed == 1:
            raise RuntimeError("no result today")
        return finish(bound, *arguments)

    from research.sweep.train.finish import finish

    with monkeypatch.context() as patch:
        patch.setattr("research.sweep.train.ledger.finish", fail)
        assert [o.status for o in sweep(jobs, mode="vmap", checkpoint_every=99)] == ["completed", "failed", "completed"]
    for one, other in zip(sweep(jobs, mode="vmap", checkpoint_every=99), whole(jobs, mode="vmap"), strict=True):
        same(one.folder, other.folder)
        assert one.result["program"]["width"] == 3


def test_what_is_trained_is_not_trained_again_when_evaluations_were_lost(
    sweep: Sweeps, whole: Any, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")

    def die(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("research.sweep.train.ledger.finish", die)
        with pytest.raises(Killed):
            sweep(jobs)
    outcomes = sweep(jobs)
    assert [outcome.result["resumed_at"] for outcome in outcomes] == [[6], [6]]
    for one, other in zip(outcomes, whole(jobs), strict=True):
        same(one.folder, other.folder)


def test_members_that_had_ended_stay_as_they_were(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    """One diverges at once, one stops early, one goes on; the break comes after both have left."""
    sweeping = ("optimizer.learning_rate=1e30,1e-9,0.01", "trainer.patience=2")
    for mode in ("map", "vmap"):
        jobs = make_jobs(*LONG, *sweeping)
        broken = Sweeps(sweep.folder.with_name(f"broken_{mode}"), sweep.make_options)
        with pytest.raises(Killed):
            broken(jobs, Breaking(0, 5), mode=mode)
        outcomes = broken(jobs, mode=mode)
        reference = Sweeps(sweep.folder.with_name(f"whole_{mode}"), sweep.make_options)(jobs, mode=mode)
        assert [outcome.status for outcome in outcomes] == [outcome.status for outcome in reference]
        assert outcomes[0].status == "diverged"
        for one, other in list(zip(outcomes, reference, strict=True))[1:]:
            same(one.folder, other.folder)
        rows = [(outcome.folder / "metrics.csv").read_text() for outcome in (outcomes[0], reference[0])]
        assert rows[0] == rows[1]


# ------------------------------------------------------------------------------------------- checkpoints that are wrong


def generations(folder: Path) -> list[Path]:
    (group,) = (folder / GROUPS).iterdir()
    return sorted(group.glob("*.safetensors"))


@pytest.mark.parametrize("both", [False, True])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    both: bool, sweep: Sweeps, whole: Any, make_jobs: Jobs
) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 5))
    found = generations(sweep.folder)
    assert [path.name[:9] for path in found] == ["00000003-", "00000004-"]
    for path in found if both else found[1:]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    display = Breaking()
    outcomes = sweep(jobs, display)
    told = [note for note in display.notes if "damaged" in note]
    assert len(told) == 1 + both
    assert ("the group starts from the beginning" if both else "the checkpoint of epoch 3 is used") in told[0]
    assert outcomes[0].result["resumed_at"] == ([] if both else [3])
    for one, other in zip(outcomes, whole(jobs), strict=True):
        same(one.folder, other.folder)


def test_a_removed_checkpoint_starts_the_program_again(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    import shutil

    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 5))
    shutil.rmtree(sweep.folder / GROUPS)
    for one, other in zip(sweep(jobs), whole(jobs), strict=True):
        assert one.result["resumed_at"] == []
        same(one.folder, other.folder)
        assert len(set(scalars(one.folder, "train/loss"))) == len(scalars(one.folder, "train/loss")) == 6


def test_checkpoints_of_older_versions_are_told_and_replaced(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    """They were folders, and some held several members of one program of map mode."""
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 3), checkpoint_every=99)
    path, name = sweep.folder / "sweep.json", "0123456789ab"
    manifest = json.loads(path.read_text())
    group = {"mode": "map", "width": 2, "devices": 1, "members": [job.hash for job in jobs]}
    path.write_text(json.dumps(manifest | {"groups": {name: group}}))
    (sweep.folder / GROUPS / group_id([jobs[0].hash], "map", 1) / "00000002" / "arrays").mkdir(parents=True)
    (sweep.folder / GROUPS / name / "00000002").mkdir(parents=True)
    (sweep.folder / GROUPS / name / LEASE).touch()  # of a killed command
    display = Breaking()
    outcomes = sweep(jobs, display)
    assert display.notes[0].endswith("00000002: an older version wrote it; the group starts from the beginning")
    assert any(f"{name}: an older version saved this state" in note for note in display.notes)
    assert not (sweep.folder / GROUPS).exists()
    for one, other in zip(outcomes, whole(jobs), strict=True):
        assert one.result["resumed_at"] == []
        same(one.folder, other.folder)


def test_a_checkpoint_whose_rows_are_lost_is_not_used(sweep: Sweeps, whole: Any, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 5))
    path = sweep.folder / jobs[0].run_id / "metrics.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))  # as after a power cut
    display = Breaking()
    outcomes = sweep(jobs, display)
    assert any("lacks its row of step 16; the checkpoint of epoch 3 is used" in note for note in display.notes)
    for one, other in zip(outcomes, whole(jobs), strict=True):
        same(one.folder, other.folder)


def test_a_clock_that_was_set_back_plays_no_part(
    sweep: Sweeps, whole: Any, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 4))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 1e6)
    for one, other in zip(sweep(jobs), whole(jobs), strict=True):
        assert one.result["resumed_at"] == ([3] if one.job is jobs[0] else [])
        same(one.folder, other.folder)


def test_changed_data_are_refused_before_a_result_exists(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 4))
    manifest = json.loads((sweep.folder / "sweep.json").read_text())
    for about in manifest["runs"].values():
        about["data_sha256"] = "0" * 64
    (sweep.folder / "sweep.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"the data are not those that .* was begun with; choose another name="):
        sweep(jobs)


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_and_marks_the_runs(
    number: signal.Signals, sweep: Sweeps, whole: Any, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.sweep.train.signals.LEAVE_AFTER", SECONDS)  # a busy machine needs its time
    jobs = make_jobs(*LONG, "seed=0,1")
    before = signal.getsignal(number)
    display = Breaking(0, 2, int(number))
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs, display, checkpoint_every=99)
    assert signal.getsignal(number) is before
    assert any(note.startswith("stopping") for note in display.notes)
    results = [json.loads((sweep.folder / job.run_id / "result.json").read_text()) for job in jobs]
    assert [result["status"] for result in results] == ["interrupted"] * 2
    outcomes = sweep(jobs, checkpoint_every=99)
    assert outcomes[0].result["resumed_at"][0] in (2, 3)
    for one, other in zip(outcomes, whole(jobs), strict=True):
        same(one.folder, other.folder)


# --------------------------------------------------------------------------------------------------------------- retry


@pytest.mark.parametrize(
    ("retry", "trained"),
    [("none", set()), ("failed", {"failed"}), ("diverged", {"diverged"}), ("all", {"failed", "diverged"})],
)
def test_what_is_tried_again(retry: str, trained: set[str], sweep: Sweeps, make_jobs: Jobs) -> None:
    jobs = make_jobs("optimizer.learning_rate=1e30,0.01,0.02")
    first = sweep(jobs)
    path = first[2].folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "reason": "a disk"}))
    before = {job.run_id: (sweep.folder / job.run_id / "result.json").stat().st_mtime_ns for job in jobs}
    outcomes = sweep(jobs, retry=retry)
    after = {job.run_id: (sweep.folder / job.run_id / "result.json").stat().st_mtime_ns for job in jobs}
    changed = {i for i, job in enumerate(jobs) if before[job.run_id] != after[job.run_id]}
    assert changed == {{"diverged": 0, "failed": 2}[status] for status in trained}
    assert outcomes[2].status == ("completed" if "failed" in trained else "failed")


# ---------------------------------------------------------------------------------------------------- leaving a program


def test_a_member_of_map_mode_is_finished_when_it_has_ended(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of the first lies on the disk while the second trains, and its state is removed."""
    jobs = make_jobs(*LONG, "seed=0,1")
    seen: list[bool] = []

    class Looking(Breaking):
        def chunk(self, number: int, epochs: int, metrics: Any, unit: int = 0) -> None:
            end = time.monotonic() + SECONDS
            while unit == 1 and epochs == 5 and not seen:
                if (sweep.folder / jobs[0].run_id / "result.json").exists():
                    seen.append(True)
                assert time.monotonic() < end
                time.sleep(0.01)  # the thread that evaluates has its turn

    outcomes = sweep(jobs, Looking())
    assert seen == [True]
    for outcome, job in zip(outcomes, jobs, strict=True):
        alone = Sweeps(sweep.folder.with_name(f"alone{job.seed}"), sweep.make_options)([job])
        same(outcome.folder, alone[0].folder)
        assert outcome.result["seconds_device_share"] == outcome.result["seconds_wall_group"]


def test_a_vmap_program_narrows_only_when_asked(sweep: Sweeps, tmp_path: Path, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e30,2e30,3e30,0.01")
    wide = sweep(jobs, mode="vmap")
    assert wide[3].result["widths"] == [[0, 4]]
    narrow = Sweeps(tmp_path / "narrow", sweep.make_options)(jobs, mode="vmap", narrow=True)
    assert [width for _, width in narrow[3].result["widths"]] == [4, 1]
    assert narrow[3].status == "completed"
    loss = [outcome.result["metrics"]["test/loss"] for outcome in (wide[3], narrow[3])]
    np.testing.assert_allclose(*loss, rtol=1e-4)
    assert [outcome.status for outcome in narrow[:3]] == ["diverged"] * 3


@pytest.mark.parametrize("rule", ["median", "successive_halving"])
def test_pruned_members_are_the_worse_ones_and_are_marked(rule: str, sweep: Sweeps, make_jobs: Jobs) -> None:
    rates = ("1e-6", "1e-5", "1e-4", "0.01", "0.03", "0.02")
    jobs = make_jobs(*LONG, "trainer.keep=last", f"optimizer.learning_rate={','.join(rates)}")
    outcomes = sweep(jobs, prune=rule, prune_after=2)
    statuses = [outcome.status for outcome in outcomes]
    assert set(statuses[:3]) == {"pruned"}
    assert "completed" in statuses[3:]
    for outcome in outcomes:
        epochs = [
            int(row["epoch"]) for row in csv.DictReader((outcome.folder / "metrics.csv").read_text().splitlines())
        ]
        assert epochs == list(range(1, outcome.result["epochs"] + 1))
        if outcome.status == "pruned":
            assert 2 <= outcome.result["epochs"] < 6
            assert "worse than its peers" in outcome.result["reason"]
            assert outcome.result["metrics"]["test/loss"] is not None
    # survivors are those of a sweep without pruning, and a pruned run is kept unless it is asked for
    plain = Sweeps(sweep.folder.with_name("plain"), sweep.make_options)(jobs)
    for one, other in zip(outcomes, plain, strict=True):
        if one.status == "completed":
            same(one.folder, other.folder)
    assert [outcome.status for outcome in sweep(jobs)] == statuses
    for one, other in zip(sweep(jobs, retry="all"), plain, strict=True):
        same(one.folder, other.folder)


@pytest.mark.parametrize("rule", ["median", "successive_halving"])
def test_pruning_goes_on_after_a_break_and_does_not_depend_on_threads(
    rule: str, sweep: Sweeps, make_jobs: Jobs
) -> None:
    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e-6,1e-5,1e-4,0.01,0.02,0.03")
    with pytest.raises(Killed):
        sweep(jobs, Breaking(0, 4), prune=rule, concurrency=2)
    outcomes = sweep(jobs, prune=rule, concurrency=3)
    undisturbed = Sweeps(sweep.folder.with_name("whole"), sweep.make_options)(jobs, prune=rule)
    assert "pruned" in [outcome.status for outcome in undisturbed]
    for one, other in zip(outcomes, undisturbed, strict=True):
        same(one.folder, other.folder)
    for outcome in outcomes:  # as if the command had been killed before the first checkpoint of the others
        if outcome.status != "pruned":
            shutil.rmtree(outcome.folder)
    for one, other in zip(sweep(jobs, prune=rule), undisturbed, strict=True):
        same(one.folder, other.folder)


@pytest.mark.parametrize("rule", ["median", "successive_halving"])
def test_points_are_pruned_across_programs_also_after_a_break(rule: str, sweep: Sweeps, make_jobs: Jobs) -> None:
    """The points of one program are all worse than those of the other, so none of them stays."""
    worse = make_jobs(*LONG, "model.latent_dim=2", "optimizer.learning_rate=1e-6,1e-5,1e-4", "seed=0,1")
    jobs = worse + make_jobs(*LONG, "model.latent_dim=3", "optimizer.learning_rate=0.01,0.02,0.03", "seed=0,1")
    options = {"prune": rule, "peers": "command", "prune_after": 2}
    undisturbed = Sweeps(sweep.folder.with_name("whole"), sweep.make_options)(jobs, **options)
    statuses = [outcome.status for outcome in undisturbed]
    assert statuses[:6] == ["pruned"] * 6
    assert {outcome.result["epochs"] for outcome in undisturbed[:6]} == {2}
    assert "completed" in statuses[6:]
    assert statuses[::2] == statuses[1::2]  # the seeds of a point stay or end together
    with pytest.raises(Killed):
        sweep(jobs, Breaking(1, 4), concurrency=2, **options)
    for one, other in zip(sweep(jobs, concurrency=3, **options), undisturbed, strict=True):
        same(one.folder, other.folder)
    for outcome in undisturbed[6:]:  # the first program has ended, and the second one begins again
        shutil.rmtree(outcome.folder)
    whole = Sweeps(undisturbed[0].folder.parent, sweep.make_options)(jobs, **options)
    for one, other in zip(whole, sweep(jobs), strict=True):
        same(one.folder, other.folder)


# --------------------------------------------------------------------------------------------------------------- memory


def test_after_running_out_of_memory_a_program_starts_again_narrower(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.sweep.program import Together

    compile_program = Together.compile

    def limited(self: Any) -> None:
        if self.group.width > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        compile_program(self)

    monkeypatch.setattr(Together, "compile", limited)
    jobs = make_jobs("seed=0,1,2,3,4,5")
    display = Breaking()
    outcomes = sweep(jobs, display, mode="vmap")
    assert [outcome.status for outcome in outcomes] == ["completed"] * 6
    assert {outcome.result["program"]["width"] for outcome in outcomes} == {2}
    assert sum("out of memory at width" in note for note in display.notes) == 1 + 2 + 2 * 2 or display.notes
    manifest = read_manifest(sweep.folder)
    assert manifest is not None
    assert {about["width"] for about in manifest["groups"].values()} == {2}


def test_a_member_that_runs_out_of_memory_beside_others_is_tried_again(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.sweep.program import Alone

    train, tries = Alone.train, []
    both = threading.Barrier(2, timeout=SECONDS)

    def limited(self: Any, epochs: int) -> Any:
        if len(tries) < 2:
            tries.append(self.group.members[0].job.seed)
            both.wait()  # two members are under way
            if self.group.members[0].job.seed == tries[0]:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return train(self, epochs)

    monkeypatch.setattr(Alone, "train", limited)
    display = Breaking()
    outcomes = sweep(make_jobs("seed=0,1,2"), display, concurrency=2)
    assert [outcome.status for outcome in outcomes] == ["completed"] * 3
    assert sum("out of memory; again with fewer members" in note for note in display.notes) == 1


def test_a_member_that_runs_out_of_memory_alone_has_failed(
    sweep: Sweeps, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.sweep.program import Alone

    def none(self: Any, epochs: int) -> Any:
        raise MemoryError("no byte is left")

    monkeypatch.setattr(Alone, "train", none)
    (outcome,) = sweep(make_jobs("seed=0"))
    assert (outcome.status, outcome.result["reason"]) == ("failed", "MemoryError: no byte is left")


def test_a_memory_limit_makes_vmap_programs_narrower(sweep: Sweeps, make_bounds: Any, make_jobs: Jobs) -> None:
    from research.sweep.memory import measured
    from research.sweep.plan import plan

    jobs = make_jobs("seed=0,1,2,3,4,5,6,7")
    (group,) = plan(make_bounds("seed=0,1,2,3,4,5,6,7"), sweep.make_options(mode="vmap"))
    fixed, each = measured(group)
    limit = int(fixed + 3.5 * each)
    groups = prepare(jobs, sweep.folder, sweep.make_options(mode="vmap", memory_limit=limit)).groups
    assert max(group.width for group in groups) == 3
    assert sum(len(group.members) for group in groups) == 8
    for mode in ("map", "vmap"):
        with pytest.raises(ConfigError, match=r"sweep\.memory_limit=10: one member of a program alone takes"):
            prepare(jobs, sweep.folder, sweep.make_options(mode=mode, memory_limit=10))


# --------------------------------------------------------------------------------------------- killed at every write


def killed_at(number: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Kill the command instead of its `number`-th renaming of a file; the list counts them."""
    replace, count, lock = os.replace, [0], threading.Lock()

    def counting(source: Any, target: Any) -> None:
        if not str(target).endswith(LEASE):  # the leases of a killed command are not released, nor renewed
            with lock:
                count[0] += 1
                if count[0] == number:
                    raise Killed
        replace(source, target)

    patch.setattr(os, "replace", counting)
    return count


def test_a_kill_at_any_write_changes_nothing(tmp_path: Path, make_options: Any, make_jobs: Jobs) -> None:
    jobs = make_jobs("seed=0,1")
    for mode in ("map", "vmap"):
        reference = Sweeps(tmp_path / f"whole_{mode}", make_options)(jobs, mode=mode)
        with pytest.MonkeyPatch.context() as patch:
            count = killed_at(0, patch)
            Sweeps(tmp_path / f"counted_{mode}", make_options)(jobs, mode=mode)
        kills, step = 0, 1 if mode == "map" else 3
        assert count[0] > 10
        for number in range(1, count[0] + 1, step):
            broken = Sweeps(tmp_path / f"{mode}_{number}", make_options)
            with pytest.MonkeyPatch.context() as patch:
                killed_at(number, patch)
                try:
                    broken(jobs, mode=mode)
                except Killed:
                    kills += 1
            for one, other in zip(broken(jobs, mode=mode), reference, strict=True):
                same(one.folder, other.folder)
            assert not (broken.folder / GROUPS).exists()
        assert kills >= 10 // step  # leases are also written by the clock, so that the last number may not be reached


# ---------------------------------------------------------------------------------------------------------------- storm

SWEEP = ["model.latent_dim=2,3", "model.beta=1.0,2.0,4.0", "seed=range(4)", "model.hidden_dims=[4]", "evaluation=none"]
SWEEP += ["trainer.evaluate_every=3", "sweep.checkpoint_every=2", "data.train_size=64"]
SWEEP += ["trainer.batch_size=16", "sweep.concurrency=2"]


def start(root: Path, name: str, epochs: int, mode: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *SWEEP, f"trainer.epochs={epochs}"]
    command += [f"sweep.mode={mode}"]
    command += [f"output_root={root}", f"name={name}"]
    with open(root / f"{name}.log", "ab") as log:
        return subprocess.Popen(command, cwd=root, stdout=log, stderr=log)


def rows(folder: Path) -> dict[str, int]:
    """How far every run has come."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/metrics.csv")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "mode"),
    [
        (20, "vmap"),
        (20, "map"),
        (100, "vmap"),
    ],
)
def test_a_storm_of_kills_changes_nothing(kills: int, mode: str, tmp_path: Path) -> None:
    """24 members of two structures, killed at random moments; every start goes on where the last one was."""
    epochs = 600 if kills < 100 else 1500
    quiet = start(tmp_path, "quiet", epochs, mode)
    assert quiet.wait(600) == 0
    random = np.random.default_rng(kills)
    folder, done = tmp_path / "storm", 0
    while done < kills:
        process = start(tmp_path, "storm", epochs, mode)
        before, began = rows(folder), time.monotonic()
        while process.poll() is None and rows(folder) == before and time.monotonic() - began < 300:
            time.sleep(0.02)  # most of a start is imports; the moments are those of the work
        time.sleep(float(random.uniform(0, 1.5)))
        if process.poll() is not None:  # it came to its end before the kill
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
    last = start(tmp_path, "storm", epochs, mode)
    assert last.wait(600) == 0, (tmp_path / "storm.log").read_text()
    runs = sorted(path.parent.name for path in (tmp_path / "quiet").glob("*/result.json"))
    assert len(runs) == 24
    for name in runs:
        same(tmp_path / "storm" / name, tmp_path / "quiet" / name)
    assert not (tmp_path / "storm" / GROUPS).exists()
    resumed = [json.loads((folder / name / "result.json").read_text())["resumed_at"] for name in runs]
    print(f"{done} kills, resumed at {sorted(map(tuple, {tuple(epochs) for epochs in resumed}))}")
    assert done == kills, "the sweep is too short for a storm"
    assert any(resumed)


def test_a_stop_of_the_loop_is_no_failure() -> None:
    assert not issubclass(Stopped, (ConfigError, KeyboardInterrupt))
