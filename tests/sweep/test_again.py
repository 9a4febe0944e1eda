"""Commands on a folder that has runs already: what is tried again, what stays, and under which names and widths."""

import dataclasses
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.runs.events import NAME
from research.sweep.command import prepare, run
from research.sweep.folder import GROUPS
from research.sweep.job import readable
from research.sweep.manifest import check_sweep, read_manifest, swept_keys
from research.sweep.memory import halves
from research.sweep.options import Options
from research.sweep.plan import plan
from research.sweep.proof.intact import check_files
from research.sweep.train.display import Display
from research.sweep.train.units import most_threads
from research.tree import ConfigError

Jobs = Callable[..., list[Any]]
Train = Callable[..., list[Any]]
LONG = ("trainer.epochs=6", "trainer.evaluate_every=1")
JOBLIB: dict[str, Any] = {"executor": "joblib", "workers": 2, "address": None, "parameters": {}}


class Interrupting(Display):
    """Sends Ctrl-C once so many epochs are written."""

    def __init__(self, epochs: int = 99):
        super().__init__()
        self.epochs, self.stopping = epochs, threading.Event()

    def note(self, text: str) -> None:
        if text.startswith("stopping"):
            self.stopping.set()

    def chunk(self, number: int, epochs: int, metrics: Any, unit: int = 0) -> None:
        if epochs == self.epochs:
            os.kill(os.getpid(), signal.SIGINT)
            assert self.stopping.wait(20)  # the main thread takes the signal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def train(folder: Path, make_options: Callable[..., Any]) -> Train:
    """Train jobs in `folder`, a checkpoint after every evaluation."""

    def start(jobs: list[Any], display: Display | None = None, **options: Any) -> list[Any]:
        chosen = make_options(**{"checkpoint_every": 1, **options})
        about = {"name": folder.name, "objective": "validation/loss", "options": chosen}
        return run(prepare(jobs, folder, chosen), jobs, display=display or Interrupting(), **about)

    return start


def statuses(outcomes: list[Any]) -> list[str]:
    return [outcome.status for outcome in outcomes]


# ------------------------------------------------------------------------------------------------------ tried again


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_a_run_that_diverged_is_trained_from_its_beginning(
    mode: str, train: Train, folder: Path, make_jobs: Jobs
) -> None:
    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e30,0.01")
    assert statuses(train(jobs, mode=mode)) == ["diverged", "completed"]
    assert list((folder / GROUPS).glob("*/0000000*"))  # where it has ended already
    for _ in range(2):
        (again, _) = train(jobs, mode=mode, retry="diverged")
        assert again.status == "diverged"
        assert again.result["resumed_at"] == []


def test_a_run_that_was_pruned_is_trained_to_its_end(train: Train, folder: Path, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e30,1e-6,0.01,0.03")
    first = statuses(train(jobs, mode="vmap", prune="median"))
    assert "pruned" in first
    assert list((folder / GROUPS).glob("*/00000006-*"))
    assert statuses(train(jobs, mode="vmap", retry="all")) == ["diverged", "completed", "completed", "completed"]


def test_finished_members_that_a_command_does_not_name_stay_as_they_are(
    train: Train, folder: Path, make_jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their program is restored whole for the sake of another member."""
    from research.sweep.train.finish import finish

    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e30,0.01,0.02,0.03")

    def fail(bound: Any, *arguments: Any) -> Any:
        if bound.job.hash == jobs[1].hash:
            raise RuntimeError("no result today")
        return finish(bound, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("research.sweep.train.ledger.finish", fail)
        train(jobs, mode="vmap")
    beside = [folder / job.run_id / "result.json" for job in (jobs[0], jobs[2], jobs[3])]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in beside]
    (named,) = train([jobs[1]], mode="vmap")
    assert named.status == "completed"
    assert named.result["resumed_at"] == [6]
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in beside] == before


def test_rows_of_finished_members_stay_while_their_program_is_trained_again(
    train: Train, folder: Path, make_jobs: Jobs
) -> None:
    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e30,0.01")
    train(jobs, mode="vmap")
    shutil.rmtree(folder / jobs[0].run_id)  # the checkpoint does not fit without its rows
    files = [folder / jobs[1].run_id / name for name in ("metrics.csv", NAME, "result.json")]
    before = [path.read_bytes() for path in files]
    with pytest.raises(KeyboardInterrupt):
        train(jobs, Interrupting(3), mode="vmap")
    assert [path.read_bytes() for path in files] == before
    assert statuses(train(jobs, mode="vmap")) == ["diverged", "completed"]
    assert [path.read_bytes() for path in files] == before


def test_a_signal_in_the_last_chunk_saves_the_state(train: Train, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "seed=0,1")
    with pytest.raises(KeyboardInterrupt):
        train(jobs, Interrupting(5), checkpoint_every=99)  # the rows of epoch 5 are written while the sixth is trained
    assert train(jobs, checkpoint_every=99)[0].result["resumed_at"] == [6]


def test_a_program_that_goes_on_knows_the_widths_it_had(train: Train, make_jobs: Jobs) -> None:
    jobs = make_jobs(*LONG, "optimizer.learning_rate=1e30,2e30,3e30,0.01")
    with pytest.raises(KeyboardInterrupt):
        train(jobs, Interrupting(4), mode="vmap", narrow=True)
    widths = train(jobs, mode="vmap", narrow=True)[3].result["widths"]
    assert [width for _, width in widths] == [4, 1, 4, 1]
    assert sorted(epoch for epoch, _ in widths) == [epoch for epoch, _ in widths]


# ------------------------------------------------------------------------------------------------------------- names


def test_a_run_keeps_its_name_under_other_overrides(train: Train, folder: Path, make_job: Any) -> None:
    plain = make_job(*LONG, "seed=1")
    with pytest.raises(KeyboardInterrupt):
        train([plain], Interrupting(2))
    (other,) = train([make_job(*LONG, "model.beta=1.0", "seed=1")])
    assert other.folder.name == plain.run_id
    manifest = read_manifest(folder)
    assert manifest is not None
    assert list(manifest["runs"]) == [plain.run_id]
    assert [finding.outcome for finding in check_files(folder)] == ["whole"]


def test_a_key_that_is_given_twice_is_not_swept(train: Train, make_job: Any) -> None:
    assert swept_keys([make_job("trainer.epochs=2", "trainer.epochs=3")]) == []
    train([make_job()])
    with pytest.raises(ConfigError, match=r"trainer\.epochs: 2 there, 3 now"):
        train([make_job("trainer.epochs=2", "trainer.epochs=3")])


def test_what_a_choice_varied_elsewhere_is_swept(train: Train, folder: Path, make_job: Any) -> None:
    """As `experiment=a,b` does, which sets keys of models and optimizers."""
    one, other = make_job("model.beta=2", "model.free_bits=0.1"), make_job("model.beta=3", "model.free_bits=0.2")
    named = [dataclasses.replace(job, overrides=(f"experiment={name}",)) for job, name in ((one, "a"), (other, "b"))]
    train(named)
    assert (read_manifest(folder) or {})["swept"] == ["experiment", "model.beta", "model.free_bits"]
    assert statuses(train([named[1]])) == ["completed"]
    with pytest.raises(ConfigError, match=r"model\.gamma: 1\.0 there, 2\.0 now"):
        train([make_job("model.gamma=2.0")])


@pytest.mark.parametrize("changes", [("evaluation=none", "evaluation=full"), ("data.root=here", "data.root=there")])
def test_one_run_that_is_asked_for_in_two_ways_is_refused(
    changes: tuple[str, str], train: Train, folder: Path, make_job: Any, make_jobs: Jobs
) -> None:
    with pytest.raises(ConfigError, match="cannot be swept, give one value"):
        train([make_job(change) for change in changes])
    assert not folder.exists()
    assert statuses(train(make_jobs("seed=0,0"))) == ["completed"] * 2


def test_names_of_runs_are_cut_between_overrides() -> None:
    name = readable([f"data.key_{number}=value" for number in range(5)] + ["optimizer.learning_rate=0.001"], 72)
    assert name == "key_0=value-key_1=value-key_2=value-key_3=value-key_4=value"


# ------------------------------------------------------------------------------------------------------------ memory


def test_threads_that_have_no_device_do_not_count_as_waiting(
    make_bounds: Any, make_options: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = plan(make_bounds("seed=range(4)"), make_options(mode="vmap"))
    whole = dataclasses.replace(group, width=1, devices=4)
    asked = lambda number: make_options(mode="vmap", concurrency=number)
    monkeypatch.setattr(Options, "threads", property(lambda options: options.concurrency or 4))
    assert most_threads([group], asked(None)) == 4
    assert most_threads([group, whole], asked(None)) == 1
    assert most_threads([whole], asked(2)) == 2


def test_narrower_programs_use_all_devices(make_bounds: Any, make_options: Callable[..., Any]) -> None:
    bounds = make_bounds("seed=0,1,2,3,4,5,6,7")
    (group,) = plan(bounds, make_options(mode="vmap"))
    parts = halves(dataclasses.replace(group, width=4, devices=2))
    assert sum((part.members for part in parts), ()) == group.members
    assert all(part.width <= 3 and part.padding <= part.devices * 2 for part in parts)
    assert len(parts) == 2
    (alone,) = halves(dataclasses.replace(group, width=2, devices=2))  # a program of width 1 is that of map mode
    assert (alone.mode, alone.width, alone.devices, alone.members) == ("map", 1, 1, group.members)
    assert halves(alone) == []


def test_a_worker_stands_where_the_command_stands(
    train: Train, folder: Path, make_job: Any, make_options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Relative paths are the command's, and name the same run there."""
    from research.sweep.options import Executor
    from research.sweep.remote import dispatch
    from research.sweep.remote.worker import run_group

    monkeypatch.chdir(tmp_path)
    (start,) = train([make_job()])
    job = make_job("seed=1", f"trainer.warm_start={start.folder.relative_to(tmp_path)}")
    (tmp_path / "elsewhere").mkdir()

    def send(executor: Any, manifest: Path, numbers: Any, note: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / "elsewhere")
            answers = {number: run_group(str(manifest), number) for number in numbers}
            assert Path.cwd() == tmp_path / "elsewhere"
            return answers

    monkeypatch.setattr(dispatch, "send", send)
    options, other = make_options(), tmp_path / "other"
    about = {"name": "other", "objective": "", "options": options, "display": Interrupting()}
    outcomes = run(prepare([job], other, options), [job], executor=Executor(**JOBLIB), **about)
    assert statuses(outcomes) == ["completed"]
    assert json.loads((other / "sweep.json").read_text())["runs"].keys() == {job.run_id}
    assert [path.parent.name for path in other.glob("*/config.json")] == [job.run_id]


def test_joblibs_folder_has_a_plain_name(tmp_path: Path) -> None:
    from research.sweep.options import Executor
    from research.sweep.remote.executors import _loky

    with _loky(Executor(**JOBLIB), tmp_path / "größe") as settings:
        place = Path(settings["temp_folder"])
        assert str(place).isascii()
        assert place.stat().st_mode & 0o777 == 0o700
    assert not place.exists()


def test_what_a_command_left_that_was_killed_at_once_is_in_nobodys_way(
    train: Train, folder: Path, make_job: Any
) -> None:
    folder.mkdir()
    for name in ("..lease.json.k3x9", ".sweep.json.0_ab"):
        (folder / name).write_text("{")
    assert statuses(train([make_job()])) == ["completed"]
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "sweep.json.bak").write_text("{")
    with pytest.raises(ConfigError, match=r"holds sweep\.json\.bak and no sweep"):
        check_sweep(folder.parent / "other", [make_job()])
