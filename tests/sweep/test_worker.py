"""What a command and its workers owe each other, with an engine that runs the workers in this process."""

import json
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from research.runs.files import LeaseLost
from research.runs.lease import Borrowed, acquire
from research.sweep.command import prepare, run
from research.sweep.folder import GROUPS, LAUNCHES, LEASE
from research.sweep.options import Executor
from research.sweep.remote import dispatch, worker
from research.sweep.remote.executors import send
from research.sweep.remote.worker import Command, following, run_group, wait_for
from research.sweep.train.display import Display
from research.sweep.train.units import GroupTraining
from research.tree import ConfigError, build

Jobs = Callable[..., list[Any]]
TWO = ("model.latent_dim=2,3", "seed=0,1")  # two programs of two runs
ONE = ("seed=0,1", "trainer.epochs=30")
SECONDS = 300.0  # after which a test that waits for another thread has failed


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was told to stop has all the time that it needs on a busy machine."""
    monkeypatch.setattr(dispatch, "KILL_AFTER", SECONDS)
    monkeypatch.setattr(dispatch, "LEAVE_AFTER", SECONDS)
    monkeypatch.setattr("research.sweep.train.signals.LEAVE_AFTER", SECONDS)
    monkeypatch.setattr(worker, "EXIT_AFTER", SECONDS)


def settings(**changes: Any) -> dict[str, Any]:
    return {"executor": "joblib", "workers": 2, "address": None, "parameters": {}} | changes


class Lines(Display):
    """Keeps what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Engine:
    """Runs workers one after another.

    Attributes:
      behave: stands for a worker: takes the manifest and the number of a program, gives an answer, or None if it died.
      rounds: numbers of the programs that were sent out together.
      display: of the command.
    """

    def __init__(self) -> None:
        self.behave: Callable[[str, int], Any] = run_group
        self.rounds: list[list[int]] = []
        self.display = Lines()

    def send(self, executor: Executor, manifest: Path, numbers: Sequence[int], note: Any) -> dict[int, Any]:
        assert [path.stat().st_mode & 0o777 for path in (manifest.parent, manifest)] == [0o700, 0o600]
        self.rounds.append(list(numbers))
        answers = {number: self.behave(str(manifest), number) for number in numbers}
        return {number: answer for number, answer in answers.items() if answer is not None}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(dispatch, "send", made.send)
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.01)
    return made


@pytest.fixture
def sweep(tmp_path: Path, make_options: Callable[..., Any], engine: Engine) -> Callable[..., list[Any]]:
    """Train jobs in `<tmp_path>/<name>`, by workers unless `executor="inline"`."""

    def train(jobs: list[Any], name: str = "sweep", executor: str = "joblib", **options: Any) -> list[Any]:
        chosen = make_options(**{"checkpoint_every": 1, **options})
        about = {"name": name, "objective": "validation/loss", "options": chosen, "display": engine.display}
        about["executor"] = build(settings(executor=executor), Executor)
        return run(prepare(jobs, tmp_path / name, chosen), jobs, **about)

    return train


def same(one: list[Any], other: list[Any]) -> None:
    """Equal runs, byte for byte."""
    for a, b in zip(one, other, strict=True):
        for name in ("params.safetensors", "metrics.csv"):
            assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes()
        for key in ("status", "metrics", "overrides", "command", "program", "commit", "parameters"):
            assert a.result[key] == b.result[key], key


def statuses(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in folder.glob("*/result.json"))


def after_a_checkpoint(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Act at the first checkpoint of the first sweep; its members go on when they are asked to stop, however fast."""
    begin, ledgers, lock = GroupTraining.open, list[Any](), threading.Lock()

    def held(self: GroupTraining, *arguments: Any) -> Any:
        training = begin(self, *arguments)
        checkpoints = training.checkpoints
        save = checkpoints.save

        def save_and_wait(*args: Any) -> None:
            save(*args)
            with lock:
                if not ledgers:
                    ledgers.append(self.ledger)
                    act()
            if self.ledger is ledgers[0]:
                assert self.ledger.stop.wait(SECONDS)

        monkeypatch.setattr(checkpoints, "save", save_and_wait)
        return training

    monkeypatch.setattr(GroupTraining, "open", held)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# ------------------------------------------------------------------------------------------------------------- results


def test_results_are_those_of_one_process(sweep: Any, engine: Engine, make_jobs: Jobs, tmp_path: Path) -> None:
    jobs = make_jobs(*TWO)
    same(sweep(jobs), sweep(jobs, "whole", "inline"))
    assert engine.rounds == [[0, 1]]
    ended = [line for line in engine.display.notes if " ended: " in line]
    assert ended == ["program 1 of 2 ended: 2 runs", "program 2 of 2 ended: 2 runs"]
    assert not (tmp_path / "sweep" / LAUNCHES).exists()
    assert not (tmp_path / "sweep" / GROUPS).exists()


def test_a_dead_workers_program_is_given_to_another(sweep: Any, engine: Engine, make_jobs: Jobs) -> None:
    deaths = iter([True, False, False])
    engine.behave = lambda manifest, number: None if next(deaths) else run_group(manifest, number)
    assert [outcome.status for outcome in sweep(make_jobs(*TWO))] == ["completed"] * 4
    assert engine.rounds == [[0, 1], [0]]
    assert "runs of program 1 have no result; other workers go on with them" in engine.display.notes


def test_a_program_is_given_up_after_three_tries_without_progress(
    sweep: Any, engine: Engine, make_jobs: Jobs, make_options: Callable[..., Any], tmp_path: Path
) -> None:
    jobs = make_jobs(*TWO)
    first = prepare(jobs, tmp_path / "sweep", make_options()).groups[0].units[0].id

    def behave(manifest: str, number: int) -> Any:
        if number == 1:
            return run_group(manifest, number)
        if len(engine.rounds) in (2, 4):  # a checkpoint is progress
            folder = tmp_path / "sweep" / GROUPS / first
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{len(engine.rounds):08d}-{'0' * 64}.safetensors").touch()
        return {"errors": [], "reason": "OSError: no such cluster", "refusal": None}

    engine.behave = behave
    outcomes = sweep(jobs)
    assert engine.rounds == [[0, 1]] + [[0]] * 6
    assert [outcome.status for outcome in outcomes] == ["failed"] * 2 + ["completed"] * 2
    assert outcomes[0].result["reason"].endswith("3 workers ended without a result (OSError: no such cluster)")
    assert statuses(tmp_path / "sweep") == ["completed"] * 2 + ["failed"] * 2


def test_workers_of_a_command_that_lost_its_folder_write_nothing(
    sweep: Any, engine: Engine, make_jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, before, answers = tmp_path / "sweep" / LEASE, list[Any](), list[Any]()
    files = lambda: {path: path.read_bytes() for path in (tmp_path / "sweep").glob("latent_dim=*/*") if path.is_file()}

    def behave(manifest: str, number: int) -> Any:
        def taken(*arguments: Any) -> None:
            if not before:  # while the first program trains
                lease.write_text(json.dumps(json.loads(lease.read_bytes()) | {"token": "of another command"}))
                before.append(files())

        monkeypatch.setattr(worker.Remote, "chunk", taken)
        answers.append(run_group(manifest, number))
        return answers[-1]

    engine.behave = behave
    with pytest.raises(LeaseLost, match="another command took this folder over"):
        sweep(make_jobs(*TWO))
    assert "another command took this folder over" in answers[0]["reason"]
    assert answers[0]["errors"] == []
    assert files() == before[0] != {}
    assert engine.rounds == [[0, 1]]


def test_a_result_of_an_earlier_command_is_not_taken_for_a_new_one(sweep: Any, engine: Engine, make_jobs: Jobs) -> None:
    jobs = make_jobs("seed=0,1")
    path = sweep(jobs)[1].folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    deaths = iter([True, False])
    engine.behave = lambda manifest, number: None if next(deaths) else run_group(manifest, number)
    assert [outcome.status for outcome in sweep(jobs, retry="failed")] == ["completed"] * 2
    assert engine.rounds == [[0], [0], [0]]


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_failure_is_told_and_leaves_other_programs_alone(
    fail_fast: bool,
    sweep: Any,
    engine: Engine,
    make_jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from research.models.dense_ae import DenseAE

    monkeypatch.setattr(DenseAE, "loss", lambda *_: 1 / 0)
    outcomes = sweep(make_jobs("model=dense_ae,vae", "seed=0,1"), fail_fast=fail_fast)
    # with fail_fast those of the other program are not begun
    assert [outcome.status for outcome in outcomes] == ["failed"] * 2 + ["completed"] * (0 if fail_fast else 2)
    assert outcomes[0].result["reason"] == "ZeroDivisionError: division by zero"
    assert capsys.readouterr().err.count("ZeroDivisionError: division by zero") == 1
    assert engine.rounds == [[0, 1]]


def test_what_lets_no_worker_go_on_ends_the_command(
    sweep: Any, engine: Engine, make_jobs: Jobs, tmp_path: Path
) -> None:
    def behave(manifest: str, number: int) -> Any:
        content = json.loads(Path(manifest).read_text())
        content["groups"][number]["devices"] = 99
        Path(manifest).write_text(json.dumps(content))
        return run_group(manifest, number)

    engine.behave = behave
    with pytest.raises(ConfigError, match=r"sweep\.devices=99: .* this worker has \d"):
        sweep(make_jobs(*TWO))
    assert engine.rounds == [[0, 1]]
    assert not (tmp_path / "sweep" / LAUNCHES).exists()


# ------------------------------------------------------------------------------------------------------------- the end


def test_a_stop_saves_the_state_of_workers_wherever_they_are(
    sweep: Any, engine: Engine, make_jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(*ONE)

    def behave(manifest: str, number: int) -> Any:
        with ThreadPoolExecutor(1) as thread:  # no signal reaches it
            return thread.submit(run_group, manifest, number).result()

    engine.behave = behave
    after_a_checkpoint(monkeypatch, terminate)
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs)
    assert statuses(tmp_path / "sweep") == ["interrupted"] * 2
    assert not (tmp_path / "sweep" / LAUNCHES).exists()
    outcomes = sweep(jobs, executor="inline")
    assert 0 < outcomes[0].result["resumed_at"][0] < 30
    same(outcomes, sweep(jobs, "whole", "inline"))


def test_a_worker_that_must_end_saves_its_state_and_another_goes_on(
    sweep: Any, engine: Engine, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(*ONE)
    after_a_checkpoint(monkeypatch, terminate)  # the worker, which is in the main thread
    outcomes = sweep(jobs)
    assert engine.rounds == [[0], [0]]
    assert len(outcomes[0].result["resumed_at"]) == 1
    same(outcomes, sweep(jobs, "whole", "inline"))


def test_one_signal_asks_the_next_kills_the_third_leaves(tmp_path: Path) -> None:
    manifest, left, display = tmp_path / "manifest.json", [], Lines()
    manifest.touch()
    before = signal.getsignal(signal.SIGTERM)
    with dispatch.stopping(manifest, lambda: left.append("left"), display) as stop:
        terminate()
        assert stop.is_set()
        assert not manifest.exists()
        assert display.notes == ["stopping: workers save their state after the step under way; once more to kill them"]
        with pytest.raises(KeyboardInterrupt):
            terminate()
        assert not left
        terminate()
        assert left == ["left"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_after_some_seconds_workers_are_killed_and_the_command_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "KILL_AFTER", 0.1)
    monkeypatch.setattr(dispatch, "LEAVE_AFTER", 0.3)
    left, asked = threading.Event(), list[bool]()
    with dispatch.stopping(tmp_path / "manifest.json", left.set, Lines()) as stop:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the second signal may come at any moment after the first
            terminate()
            asked.append(stop.is_set())
            threading.Event().wait(SECONDS)
        assert asked == [True]
        assert left.wait(SECONDS)


def test_a_worker_sees_that_its_command_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(worker, "time", types.SimpleNamespace(monotonic=lambda: now))
    manifest, lease = tmp_path / "manifest.json", tmp_path / LEASE
    manifest.touch()
    with acquire(lease, "name", "sweep", interval=60) as held:  # only this test moves its counter
        command = Command(manifest, Borrowed(lease, held.token))
        for _ in range(4):
            held.beat()
            assert not command.ended()
            now += 0.9 * worker.SILENT
            assert not command.ended()
        held.beat()
        assert Command(manifest, Borrowed(lease, "of another command")).ended()
        manifest.rename(tmp_path / "gone")
        assert command.ended()
        (tmp_path / "gone").rename(manifest)
        assert not command.ended()
        content = lease.read_bytes()
    assert not command.ended()  # a lease may be aside for a moment
    lease.write_bytes(content)
    now += 1.1 * worker.SILENT
    assert command.ended()  # it stands still: the command was killed


def test_a_worker_that_does_not_come_to_an_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()
    monkeypatch.setattr(worker, "EXIT_AFTER", 0.1)
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(os, "_exit", lambda code: left.set())
    stop = threading.Event()
    with following(Command(tmp_path / "none", Borrowed(tmp_path / LEASE, "")), stop):
        assert left.wait(SECONDS)
    assert stop.is_set()
    left.clear()
    stop.clear()
    monkeypatch.setattr(worker, "EXIT_AFTER", SECONDS)
    with following(Command(tmp_path / "none", Borrowed(tmp_path / LEASE, "")), stop):
        assert stop.wait(SECONDS)
    assert not left.is_set()  # it came to an end in time, and the thread that follows the command with it


def test_a_program_that_another_worker_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, stop = tmp_path / LEASE, threading.Event()
    held = [acquire(path, "name", "sweep", interval=60)]  # only this test moves its counter
    tries: list[str] = []

    def trying(*arguments: Any) -> Any:
        """A look at the lease, whose holder moves the counter at the first two, and releases it before the third."""
        tries.append("look")
        if len(tries) == 3:
            held[-1].release()
        return acquire(*arguments, sleep=lambda seconds: held[-1].beat())

    monkeypatch.setattr(worker, "acquire", trying)
    wait_for(path, "sweep", stop)
    assert len(tries) == 3
    assert not path.exists()
    monkeypatch.setattr(worker, "WAIT", -1.0)  # over at the first look
    held.append(acquire(path, "name", "sweep", interval=60))
    with held[-1], pytest.raises(ConfigError, match="held by"):
        wait_for(path, "sweep", stop)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_manifest_in_an_open_folder_is_not_read(tmp_path: Path) -> None:
    launch = tmp_path / "launch"
    launch.mkdir()
    launch.chmod(0o755)
    (launch / "manifest.json").write_text("{}")
    refusal = run_group(str(launch / "manifest.json"), 0)["refusal"]
    assert refusal is not None
    assert "must belong to this user alone" in refusal[2]


def test_a_worker_without_a_manifest_does_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    answer = run_group(str(tmp_path / "manifest.json"), 0)
    assert answer == {"errors": [], "reason": None, "refusal": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hydra.launcher.executor=ray"], "it needs the package ray: pip install -e '.[ray]'"),
        (["hydra.launcher.executor=submitit"], "it needs the package submitit: pip install -e '.[slurm]'"),
        (["hydra.launcher.executor=joblib", "hydra.launcher.workers=0"], "workers=0: must be at least 1"),
        (["hydra.launcher.executor=spark"], "expected one of inline, joblib, ray, dask, submitit"),
    ],
)
def test_what_cannot_be_sent_out_is_refused_before_anything_is_written(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from research import app

    found = worker.sys.modules["importlib.util"].find_spec
    hidden = ("ray", "distributed", "submitit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name in hidden else found(name, *more))
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=0,1", f"output_root={tmp_path}", "name=a", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_submitit_does_not_know_are_refused(tmp_path: Path) -> None:
    chosen = build(settings(executor="submitit", parameters={"cluster": "local", "colour": "red"}), Executor)
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.parameters=.*submitit refuses them: .*colour"):
        send(chosen, tmp_path / "manifest.json", [0], print)
