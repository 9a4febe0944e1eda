"""The state of a group on disk: the bits come back, and whatever is wrong with a checkpoint, the one before is used."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.engine import State
from research.runs.held import ALONE
from research.sweep.device import on_device
from research.sweep.plan import JobGroup
from research.sweep.program import program_of
from research.sweep.resume import checkpoint
from research.sweep.resume.checkpoint import ARRAYS, SEAL, Checkpoints
from research.tree import ConfigError

IDENTITY = {"members": ["a1", "b2"], "mode": "vmap", "width": 2}
UNREAD = {"_CHECKPOINT_METADATA", "commit_success.txt"}  # what Orbax writes after the seal, and nothing reads


def same_bits(one: Any, other: Any) -> bool:
    """Whether two trees have one structure, and numpy leaves of equal shapes, types and bytes."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    same = (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
    return all(same) and all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(one))


def on_host(state: Any) -> Any:
    """A copy that no donated buffer backs."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), jax.device_get(state))


def state_of(epoch: int) -> Any:
    """A small state with the structure of an optimizer's, other numbers every epoch."""
    draw = np.random.default_rng(epoch)
    params = {"a": draw.random((2, 3), np.float32), "b": draw.random(2, np.float32)}
    return on_host({"step": np.full(2, epoch, np.int32), "optimizer": optax.adam(1e-3).init(params), "params": params})


def shapes(state: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def save_all(checkpoints: Checkpoints, *epochs: int) -> None:
    for epoch in epochs:
        checkpoints.save(epoch, state_of(epoch), {"epoch": epoch})
    checkpoints.wait()


def restored(checkpoints: Checkpoints, template: Any) -> tuple[int, Any, dict[str, Any]]:
    found = checkpoints.restore(template)
    assert found is not None
    return found


def reseal(generation: Path, **changes: Any) -> None:
    """Change the content of a seal, with a digest that fits."""
    content = json.loads((generation / SEAL).read_bytes())["content"] | changes
    digest = checkpoint._digest(checkpoint._canonical(content))
    (generation / SEAL).write_text(json.dumps({"content": content, "sha256": digest}))


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def open_checkpoints(tmp_path: Path, warnings: list[str]) -> Iterator[Callable[..., Checkpoints]]:
    """`open_checkpoints(identity, name)`: of one group's folder, closed at the end."""
    opened: list[Checkpoints] = []

    def make(identity: dict[str, Any] = IDENTITY, name: str = "group") -> Checkpoints:
        opened.append(Checkpoints(tmp_path / name, identity, warnings.append, ALONE))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A group's folder with the generations 1 and 2; only ever copied."""
    folder = tmp_path_factory.mktemp("pristine") / "group"
    checkpoints = Checkpoints(folder, IDENTITY, pytest.fail, ALONE)
    save_all(checkpoints, 1, 2)
    checkpoints.close()
    return folder


@pytest.fixture
def copied(pristine: Path, open_checkpoints: Callable[..., Checkpoints]) -> Checkpoints:
    """Generations 1 and 2, to be spoilt."""
    checkpoints = open_checkpoints()
    shutil.copytree(pristine, checkpoints.folder)
    return checkpoints


# ---------------------------------------------------------------------------------------------------------- round trip


def test_every_bit_comes_back(open_checkpoints: Callable[..., Checkpoints], warnings: list[str]) -> None:
    strange = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32)
    strange.view(np.uint32)[0] |= 0x1234  # a NaN of one's own
    state = {
        "strange": strange,
        "negative zeros": np.full((2, 2), -0.0, np.float32),
        "all zeros": np.zeros((2, 2), np.float32),
        "doubles": np.array([np.pi, np.nan]),
        "integers": np.array([[-1], [2**31 - 1]], np.int32),
        "unsigned": np.array([2**32 - 1], np.uint32),
        "flags": np.array([True, False]),
        "short": np.array(jnp.asarray([1, jnp.nan, -0.0], jnp.bfloat16)),
        "nothing": np.zeros((2, 0), np.float32),
        "scalar": np.array(-7, np.int32),
        "turned": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "slice": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
        "one/name": np.ones(3, np.float32),
        "one name": np.full(3, 2, np.float32),
        "odd/name.ö'[]": {"none": None, "list": [np.ones(1, np.float16), ()]},
    }
    about = {"widths": [4, 2], "loss": float("inf"), "when": {"epoch": 3}}
    checkpoints = open_checkpoints()
    checkpoints.save(3, state, about)
    for template in (state, shapes(state)):
        epoch, back, told = restored(checkpoints, template)
        assert (epoch, told, warnings) == (3, about, [])
        assert same_bits(back, state)


def test_a_resumed_group_has_the_bits_of_an_undisturbed_one(
    make_bounds: Callable[..., list[Any]], open_checkpoints: Callable[..., Checkpoints], warnings: list[str]
) -> None:
    bounds = make_bounds("model.beta=1,4", "seed=0")
    group = JobGroup(tuple(bounds), "vmap", 2, 0, 0, "")
    running = program_of(group, on_device(bounds[0].dataset))
    running.train(1)
    checkpoints = open_checkpoints()
    saved = on_host(running.state)
    checkpoints.save(1, saved, {})
    running.train(1)
    undisturbed = on_host(running.state)

    again = program_of(group, on_device(bounds[0].dataset))
    epoch, state, _ = restored(checkpoints, again.state)
    assert isinstance(state, State)
    assert same_bits(state, saved)
    assert not same_bits(state, undisturbed)
    again.state = jax.device_put(state)
    again.train(1)
    assert same_bits(on_host(again.state), undisturbed)
    assert (epoch, warnings) == (1, [])


def test_there_is_nothing_to_restore_and_nothing_to_say_before_the_first_save(
    open_checkpoints: Callable[..., Checkpoints], warnings: list[str]
) -> None:
    checkpoints = open_checkpoints()
    assert checkpoints.restore(state_of(1)) is None
    assert (checkpoints.epochs(), warnings) == ([], [])
    assert not checkpoints.folder.exists()
    checkpoints.remove()


def test_nothing_is_pickled(
    open_checkpoints: Callable[..., Checkpoints], monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("pickle was called"))
    checkpoints = open_checkpoints()
    save_all(checkpoints, 1, 2)
    assert checkpoints.restore(state_of(2)) is not None
    assert warnings == []
    files = files_of(checkpoints.folder)
    assert len(files) > 10
    for path in files:
        assert path.read_bytes()[:2] not in [bytes([0x80, protocol]) for protocol in range(6)]


def test_what_cannot_be_written_down_is_refused_at_once(open_checkpoints: Callable[..., Checkpoints]) -> None:
    checkpoints = open_checkpoints()
    with pytest.raises(TypeError, match="JSON"):
        checkpoints.save(1, state_of(1), {"set": {1}})
    with pytest.raises(ValueError, match="more than"):
        checkpoints.save(1, state_of(1), {"text": "x" * (3 << 20)})
    assert checkpoints.epochs() == []


# ---------------------------------------------------------------------------------------------------------- background


def test_a_save_returns_while_it_is_written_and_the_next_one_waits(
    open_checkpoints: Callable[..., Checkpoints], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, commit = threading.Event(), threading.Event(), checkpoint._commit

    def blocked(*arguments: Any) -> None:
        begun.set()
        assert go.wait(30)
        commit(*arguments)

    monkeypatch.setattr(checkpoint, "_commit", blocked)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state_of(1), {})
    assert begun.wait(30)
    assert checkpoints.epochs() == []
    second = threading.Thread(target=checkpoints.save, args=(2, state_of(2), {}))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    go.set()
    second.join(30)
    checkpoints.wait()
    assert checkpoints.epochs() == [1, 2]


def test_close_lets_go_of_the_thread(open_checkpoints: Callable[..., Checkpoints]) -> None:
    def own() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]

    before, checkpoints = own(), open_checkpoints()
    checkpoints.save(1, state_of(1), {})
    assert len(own()) == len(before) + 1
    checkpoints.close()
    assert (own(), checkpoints.epochs()) == (before, [1])


def test_groups_are_saved_and_restored_from_several_threads(
    open_checkpoints: Callable[..., Checkpoints], warnings: list[str]
) -> None:
    """Orbax alone confuses the folders of saves that run at the same time."""
    failures: list[BaseException] = []

    def train(index: int) -> None:
        try:
            checkpoints = open_checkpoints({"group": index}, f"group{index}")
            for epoch in (1, 2, 3):
                checkpoints.save(epoch, state_of(10 * index + epoch), {})
            epoch, state, _ = restored(checkpoints, state_of(0))
            assert epoch == 3
            assert same_bits(state, state_of(10 * index + 3))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=train, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (failures, warnings) == ([], [])


def test_orbax_keeps_its_messages_and_others_do_not(
    open_checkpoints: Callable[..., Checkpoints], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = open_checkpoints()
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="absl"):
        save_all(checkpoints, 1)
        checkpoints.restore(state_of(1))
        absl.logging.info("of somebody else")
    assert [record.getMessage() for record in caplog.records if record.name == "absl"] == ["of somebody else"]


def run(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python that have `checkpoints` of a folder and its first state at hand."""
    begin = f"""
        import os, resource, signal, sys
        import numpy as np
        from pathlib import Path
        from research.runs.held import ALONE
        from research.sweep.resume import checkpoint
        from research.tree import ConfigError
        checkpoints = checkpoint.Checkpoints(Path({str(folder)!r}), {IDENTITY!r}, print, ALONE)
        state = {{"a": np.random.default_rng(0).random((2, 50000))}}
    """
    script = "\n".join(line.strip() for line in begin.splitlines()) + "\n" + "\n".join(lines)
    command = [sys.executable, "-W", "error", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_orbax_is_not_imported_before_there_is_something_to_read_or_write(tmp_path: Path) -> None:
    check = "print(sorted(name for name in sys.modules if name.split('.')[0] in ('orbax', 'tensorstore')))"
    done = run(tmp_path / "group", "assert checkpoints.restore(state) is None", "checkpoints.close()", check)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


# ---------------------------------------------------------------------------------------------------------- generations


def test_two_generations_are_kept(open_checkpoints: Callable[..., Checkpoints]) -> None:
    checkpoints = open_checkpoints()
    kept = []
    for epoch in (1, 2, 5):
        save_all(checkpoints, epoch)
        kept.append(checkpoints.epochs())
    assert kept == [[1], [1, 2], [2, 5]]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["00000002", "00000005"]
    assert open_checkpoints().epochs() == [2, 5]


def test_the_older_generation_goes_only_after_the_new_one_is_committed(
    copied: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, commit = [], checkpoint._commit

    def watched(*arguments: Any) -> None:
        seen.append(copied.epochs())
        commit(*arguments)
        seen.append(copied.epochs())

    monkeypatch.setattr(checkpoint, "_commit", watched)
    save_all(copied, 3)
    assert (seen, copied.epochs()) == ([[1, 2], [1, 2, 3]], [2, 3])


def test_a_generation_that_was_refused_is_not_one_of_the_two(copied: Checkpoints, warnings: list[str]) -> None:
    (copied.folder / "00000002" / SEAL).unlink()
    epoch, _, _ = restored(copied, state_of(0))
    assert (epoch, copied.epochs(), len(warnings)) == (1, [1, 2], 1)
    save_all(copied, 3)
    assert copied.epochs() == [1, 3]


def test_generations_of_a_training_that_was_given_up_go(copied: Checkpoints, warnings: list[str]) -> None:
    shutil.copytree(copied.folder / "00000002", copied.folder / "00000009")
    (copied.folder / "notes.txt").write_text("mine")
    save_all(copied, 2)  # of the same epoch once more
    assert copied.epochs() == [1, 2]
    assert (copied.folder / "notes.txt").exists()
    epoch, state, _ = restored(copied, state_of(0))
    assert (epoch, same_bits(state, state_of(2)), warnings) == (2, True, [])


@pytest.mark.parametrize("last", ["os.rename", "write_atomically"], ids=["among the arrays", "before the commit"])
def test_after_a_kill_during_a_save_the_generation_before_is_used(
    last: str, tmp_path: Path, warnings: list[str]
) -> None:
    folder = tmp_path / "group"
    kill = f"checkpoint.{last} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"
    saves = [f"checkpoints.save({epoch}, state, {{}}); checkpoints.wait()" for epoch in (1, 2)]
    done = run(folder, saves[0], kill, saves[1])
    assert done.returncode == -9, done.stderr
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00000001", "00000002.orbax-checkpoint-tmp"]
    state = {"a": np.random.default_rng(0).random((2, 50000))}
    checkpoints = Checkpoints(folder, IDENTITY, warnings.append, ALONE)
    epoch, back, _ = restored(checkpoints, state)
    assert (epoch, same_bits(back, state)) == (1, True)
    assert len(warnings) == 1
    assert "00000002.orbax-checkpoint-tmp: it was not written to its end; the checkpoint of epoch 1" in warnings[0]
    checkpoints.save(2, state, {})
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["00000001", "00000002"]


def test_remove_follows_no_link(copied: Checkpoints, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    (copied.folder / "link").symlink_to(outside)
    copied.save(3, state_of(3), {})
    copied.remove()
    assert not copied.folder.exists()
    copied.folder.symlink_to(outside)
    copied.remove()
    assert not copied.folder.is_symlink()
    assert (outside / "precious").read_text() == "kept"


# ------------------------------------------------------------------------------------------------ damage and intrusion


def assert_the_older_is_used(checkpoints: Checkpoints, warnings: list[str], match: str = "") -> None:
    epoch, state, about = restored(checkpoints, shapes(state_of(0)))
    assert (epoch, about) == (1, {"epoch": 1})
    assert same_bits(state, state_of(1))
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
    assert str(checkpoints.folder / "00000002") in warnings[0]
    assert match in warnings[0]
    assert warnings[0].endswith("; the checkpoint of epoch 1 is used")


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_any_file_is_found(kind: str, pristine: Path, tmp_path: Path) -> None:
    """Or it changes nothing: then the newest is restored, and exactly so."""
    files = [path.relative_to(pristine) for path in files_of(pristine / "00000002")]
    assert len(files) > 10
    unharmed = set()
    for index, name in enumerate(files):
        warnings: list[str] = []
        checkpoints = Checkpoints(tmp_path / str(index), IDENTITY, warnings.append, ALONE)
        shutil.copytree(pristine, checkpoints.folder)
        DAMAGE[kind](checkpoints.folder / name)
        epoch, state, about = restored(checkpoints, state_of(0))
        if epoch == 2:
            unharmed.add(str(name.relative_to("00000002")))
            assert (about, warnings) == ({"epoch": 2}, [])
            assert same_bits(state, state_of(2))
        else:
            warnings.clear()
            assert_the_older_is_used(checkpoints, warnings)
    assert unharmed <= UNREAD


def plant(path: Path, data: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def replace_by_link(path: Path) -> None:
    moved = path.rename(path.parent.parent / f"moved-{path.name}")
    path.symlink_to(moved)


def rebuild(generation: Path, state: Any) -> None:
    """Put arrays of another state there, with every digest of a file as it has to be."""
    other = Checkpoints(generation.parent.parent / "other", IDENTITY, pytest.fail, ALONE)
    other.save(2, state, {})
    other.close()
    shutil.rmtree(generation / ARRAYS)
    shutil.copytree(other.folder / "00000002" / ARRAYS, generation / ARRAYS)
    reseal(generation, files=checkpoint._file_digests(generation))


def other_shape() -> Any:
    state = state_of(2)
    return state | {"step": np.zeros((2, 1000), np.int32)}


INTRUSIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty folder": (lambda new: (shutil.rmtree(new), new.mkdir()), "No such file"),
    "plain file": (lambda new: (shutil.rmtree(new), new.write_bytes(b"x")), "no folder"),
    "linked generation": (replace_by_link, "link"),
    "dangling link": (lambda new: (shutil.rmtree(new), new.symlink_to("nowhere")), "link"),
    "linked arrays": (lambda new: replace_by_link(new / ARRAYS), "link"),
    "linked file": (lambda new: replace_by_link(new / ARRAYS / "_METADATA"), "link"),
    "linked seal": (lambda new: replace_by_link(new / SEAL), "link"),
    "pipe in place of the seal": (lambda new: ((new / SEAL).unlink(), os.mkfifo(new / SEAL)), "no plain file"),
    "pipe": (lambda new: os.mkfifo(new / ARRAYS / "d" / "pipe"), "no plain file"),
    "folder in place of the seal": (lambda new: ((new / SEAL).unlink(), (new / SEAL).mkdir()), "directory"),
    "foreign file": (lambda new: plant(new / ARRAYS / "checkpoint", b"\x80\x04."), "foreign"),
    "terabyte": (lambda new: (plant(new / "huge"), os.truncate(new / "huge", 1 << 40)), "far more"),
    "many files": (lambda new: [plant(new / "many" / str(index)) for index in range(50)], "far more"),
    "huge seal": (lambda new: (new / SEAL).write_bytes(b"[" * (9 << 20)), "far more"),
    "long seal": (lambda new: plant(new / SEAL, b" " * (8 << 20) + (new / SEAL).read_bytes()), "Expecting value"),
    "deep seal": (lambda new: (new / SEAL).write_bytes(b'{"content":' + b"[" * 200_000), ""),
    "huge number": (lambda new: (new / SEAL).write_bytes(b"9" * 100_000), ""),
    "not text": (lambda new: (new / SEAL).write_bytes(bytes(range(256))), ""),
    "list": (lambda new: (new / SEAL).write_text("[]"), ""),
    "no content": (lambda new: (new / SEAL).write_text("{}"), "content"),
    "null content": (lambda new: (new / SEAL).write_text('{"content": null, "sha256": null}'), "damaged"),
    "changed epoch": (lambda new: reseal(new, epoch=7), "epoch 7"),
    "later format": (lambda new: reseal(new, format=99), "format 99"),
    "identity of another kind": (lambda new: reseal(new, identity=[1]), ""),
    "leaves of another kind": (lambda new: reseal(new, leaves={"a": 1}), ""),
    "no leaves": (lambda new: reseal(new, leaves=[]), "other leaves"),
    "files of another kind": (lambda new: reseal(new, files=None), "missing"),
    "arrays of another shape": (lambda new: rebuild(new, other_shape()), "other shapes"),
    "arrays of another epoch": (lambda new: rebuild(new, state_of(5)), "other bytes"),
    "arrays of a type": (lambda new: rebuild(new, state_of(2) | {"step": np.full(2, 2, np.uint32)}), "other bytes"),
}


@pytest.mark.parametrize("kind", INTRUSIONS)
def test_an_intrusion_ends_in_a_warning(
    kind: str, copied: Checkpoints, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MOST_ENTRIES", 40)
    spoil, match = INTRUSIONS[kind]
    spoil(copied.folder / "00000002")
    assert_the_older_is_used(copied, warnings, match)
    monkeypatch.setattr(checkpoint, "_commit", lambda path, *_: path.mkdir())
    save_all(copied, 3)
    assert copied.epochs() == [1, 3]


def test_no_array_is_parsed_before_its_digest_is_right(
    copied: Checkpoints, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, parsed = checkpoint._read_arrays, []
    monkeypatch.setattr(
        checkpoint, "_read_arrays", lambda folder, leaves: (parsed.append(folder), read(folder, leaves))[1]
    )
    flip(copied.folder / "00000002" / ARRAYS / "manifest.ocdbt", 0.5)
    assert_the_older_is_used(copied, warnings)
    assert parsed == [copied.folder / "00000001" / ARRAYS]


def test_a_leaf_with_one_other_bit_is_found(
    copied: Checkpoints, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = checkpoint._read_arrays

    def wrong(folder: Path, leaves: Any) -> dict[str, np.ndarray]:
        arrays = read(folder, leaves)
        if folder.parent.name == "00000002":
            next(array for array in arrays.values() if array.ndim).view(np.uint8).flat[-1] ^= 1
        return arrays

    monkeypatch.setattr(checkpoint, "_read_arrays", wrong)
    assert_the_older_is_used(copied, warnings, "other bytes")


def test_a_checkpoint_of_another_group_is_not_used(
    copied: Checkpoints, open_checkpoints: Callable[..., Checkpoints], warnings: list[str]
) -> None:
    other = open_checkpoints({**IDENTITY, "width": 4, "device": "TPU"})
    assert other.restore(state_of(0)) is None
    assert len(warnings) == 2
    for name, line in zip(("00000002", "00000001"), warnings, strict=True):
        assert line.startswith(str(copied.folder / name))
        assert line.endswith("it belongs to another group (device, width); the group starts from the beginning")
    save_all(other, 1)
    assert other.epochs() == [1]
    warnings.clear()
    assert other.restore(state_of(0)) is not None
    assert warnings == []


TEMPLATES: dict[str, Callable[[Any], Any]] = {
    "wider": lambda state: state | {"step": np.zeros(4, np.int32)},
    "of another type": lambda state: state | {"step": state["step"].astype(np.int16)},
    "with one leaf more": lambda state: state | {"more": np.zeros(2)},
    "with one leaf less": lambda state: {name: value for name, value in state.items() if name != "step"},
    "with another name": lambda state: {name.upper(): value for name, value in state.items()},
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_state_of_another_structure_is_not_used(kind: str, copied: Checkpoints, warnings: list[str]) -> None:
    assert copied.restore(TEMPLATES[kind](state_of(0))) is None
    assert [line.split("; ")[1] for line in warnings] == ["the group starts from the beginning"] * 2
    assert all("other leaves, shapes or types" in line for line in warnings)


def test_a_linked_folder_is_neither_read_nor_written(
    copied: Checkpoints, open_checkpoints: Callable[..., Checkpoints], tmp_path: Path, warnings: list[str]
) -> None:
    (tmp_path / "linked").symlink_to(copied.folder)
    linked = open_checkpoints(name="linked")
    assert (linked.epochs(), linked.restore(state_of(0))) == ([], None)
    assert len(warnings) == 1
    assert "linked: a link stands where a folder is needed" in warnings[0]
    linked.save(5, state_of(5), {})
    with pytest.raises(ConfigError, match="stands where a folder is needed"):
        linked.wait()
    assert copied.epochs() == [1, 2]


# ------------------------------------------------------------------------------------------------------------ full disk

STORE = "RESOURCE_EXHAUSTED: Error writing '0/0': Failed to write 9 bytes: No space left on device [os_error_code='28']"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError(STORE)], ids=["system", "store"])
def test_a_full_disk_is_told_at_the_next_call_and_the_older_ones_stay(
    error: Exception, copied: Checkpoints, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any) -> None:
        plant(path.with_name(f"{path.name}.orbax-checkpoint-tmp") / ARRAYS / "half", b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_commit", full)
        copied.save(3, state_of(3), {})
        with pytest.raises(ConfigError, match=r"no space is left on this disk; free some") as caught:
            copied.save(4, state_of(4), {})
    assert caught.value.value == copied.folder
    assert sorted(path.name for path in copied.folder.iterdir()) == ["00000001", "00000002"]
    epoch, state, _ = restored(copied, state_of(0))
    assert (epoch, same_bits(state, state_of(2)), warnings) == (2, True, [])
    save_all(copied, 4)
    assert copied.epochs() == [2, 4]


def test_a_state_that_does_not_fit_is_not_begun(copied: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_commit", lambda *_: pytest.fail("it was begun"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 30, free=10))
    copied.save(2, state_of(2), {})
    with pytest.raises(ConfigError, match="no space is left on this disk"):
        copied.wait()
    assert copied.epochs() == [1, 2]
    copied.wait()  # told once


def test_what_is_no_error_of_the_system_is_raised_as_it_is(
    copied: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> None:
        raise KeyError("a mistake in the code")

    monkeypatch.setattr(checkpoint, "_commit", wrong)
    copied.save(3, state_of(3), {})
    with pytest.raises(KeyError, match="a mistake in the code"):
        copied.close()
    copied.remove()
    assert not copied.folder.exists()


@pytest.mark.parametrize("limit", [100_000, 100], ids=["within the arrays", "at the first file"])
def test_a_write_that_the_system_refuses_leaves_the_generation_before(
    limit: int, tmp_path: Path, warnings: list[str]
) -> None:
    folder = tmp_path / "group"
    refused = f"""
checkpoints.save(1, state, {{}})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
checkpoints.save(2, state, {{}})
try:
    checkpoints.wait()
except ConfigError as error:
    print(error)
"""
    done = run(folder, refused)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert done.stdout.endswith("choose another output folder\n")
    assert "absl" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["00000001"]
    state = {"a": np.random.default_rng(0).random((2, 50000))}
    checkpoints = Checkpoints(folder, IDENTITY, warnings.append, ALONE)
    epoch, back, _ = restored(checkpoints, state)
    checkpoints.close()
    assert (epoch, same_bits(back, state), warnings) == (1, True, [])
