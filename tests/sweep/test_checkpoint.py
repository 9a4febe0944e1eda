"""The state of a group on disk: the bits come back, and whatever is wrong with a checkpoint, the one before is used."""

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from research.engine import State
from research.runs.files import ALONE
from research.sweep import checkpoint
from research.sweep.checkpoint import Checkpoints, generations, remove
from research.sweep.device import on_device
from research.sweep.plan import JobGroup
from research.sweep.programs import program_of
from research.tree import ConfigError

IDENTITY = {"members": ["a1", "b2"], "mode": "vmap", "width": 2}


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


def generation(folder: Path, epoch: int) -> Path:
    """The file of a generation."""
    return dict(generations(folder))[epoch]


def rename(path: Path, data: bytes, epoch: int = 2) -> None:
    """Replace a generation by other content, under the name that fits it."""
    path.unlink()
    path.with_name(f"{epoch:08d}-{hashlib.sha256(data).hexdigest()}.safetensors").write_bytes(data)


def rewrite(path: Path, state: Any = None, **changes: Any) -> None:
    """Replace a generation by one of another head or state, under the name that fits it."""
    arrays = safetensors.numpy.load(path.read_bytes())
    if state is not None:
        leaves = zip(arrays, jax.tree.leaves(state), strict=True)
        arrays = {name: np.asarray(leaf) for name, leaf in leaves}
    head = json.loads(metadata(path.read_bytes())["checkpoint"]) | changes
    rename(path, safetensors.numpy.save(arrays, {"checkpoint": json.dumps(head)}))


def metadata(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


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
    record = {"widths": [4, 2], "loss": float("inf"), "when": {"epoch": 3}}
    checkpoints = open_checkpoints()
    checkpoints.save(3, state, record)
    for template in (state, shapes(state)):
        epoch, back, told = restored(checkpoints, template)
        assert (epoch, told, warnings) == (3, record, [])
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
    remove(checkpoints.folder, ALONE)


def test_nothing_is_pickled(
    open_checkpoints: Callable[..., Checkpoints], monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("pickle was called"))
    checkpoints = open_checkpoints()
    save_all(checkpoints, 1, 2)
    assert checkpoints.restore(state_of(2)) is not None
    assert warnings == []


def test_what_cannot_be_written_down_is_refused_at_once(open_checkpoints: Callable[..., Checkpoints]) -> None:
    checkpoints = open_checkpoints()
    with pytest.raises(TypeError, match="JSON"):
        checkpoints.save(1, state_of(1), {"set": {1}})
    assert checkpoints.epochs() == []


# ---------------------------------------------------------------------------------------------------------- background


def test_a_save_returns_while_it_is_written_and_the_next_one_waits(
    open_checkpoints: Callable[..., Checkpoints], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, write = threading.Event(), threading.Event(), checkpoint.write_atomically

    def blocked(*arguments: Any) -> None:
        begun.set()
        assert go.wait(30)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write_atomically", blocked)
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


def test_close_ends_the_thread(open_checkpoints: Callable[..., Checkpoints]) -> None:
    def own() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]

    before, checkpoints = own(), open_checkpoints()
    checkpoints.save(1, state_of(1), {})
    assert len(own()) == len(before) + 1
    checkpoints.close()
    assert (own(), checkpoints.epochs()) == (before, [1])


# ---------------------------------------------------------------------------------------------------------- generations


def test_two_generations_are_kept(open_checkpoints: Callable[..., Checkpoints]) -> None:
    checkpoints = open_checkpoints()
    kept = []
    for epoch in (1, 2, 5):
        save_all(checkpoints, epoch)
        kept.append(checkpoints.epochs())
    assert kept == [[1], [1, 2], [2, 5]]
    assert sorted(path.name[:9] for path in checkpoints.folder.iterdir()) == ["00000002-", "00000005-"]
    assert open_checkpoints().epochs() == [2, 5]


def test_a_file_is_named_by_its_digest(copied: Checkpoints) -> None:
    path = generation(copied.folder, 2)
    assert path.name == f"00000002-{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"
    assert any(name.endswith("['params']['a']") for name in safetensors.numpy.load(path.read_bytes()))


def test_the_older_generation_goes_only_after_the_new_one_has_its_name(
    copied: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, write = [], checkpoint.write_atomically

    def watched(*arguments: Any) -> None:
        seen.append(copied.epochs())
        write(*arguments)
        seen.append(copied.epochs())

    monkeypatch.setattr(checkpoint, "write_atomically", watched)
    save_all(copied, 3)
    assert (seen, copied.epochs()) == ([[1, 2], [1, 2, 3]], [2, 3])


def test_generations_of_a_training_that_was_given_up_go(copied: Checkpoints, warnings: list[str]) -> None:
    later = generation(copied.folder, 2)
    shutil.copy(later, later.with_name(later.name.replace("00000002", "00000009")))
    (copied.folder / "notes.txt").write_text("mine")
    save_all(copied, 2)  # of the same epoch once more
    assert copied.epochs() == [1, 2]
    assert (copied.folder / "notes.txt").exists()
    epoch, state, _ = restored(copied, state_of(0))
    assert (epoch, same_bits(state, state_of(2)), warnings) == (2, True, [])


@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
def test_after_a_kill_during_a_save_the_generation_before_is_used(
    call: str, copied: Checkpoints, open_checkpoints: Any, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"research.runs.files.{'tempfile' if call == 'mkstemp' else 'os'}.{call}", kill)
        patch.setattr("research.runs.files.os.unlink", kill)  # a killed process cleans nothing up
        copied.save(3, state_of(3), {})
        with pytest.raises(Killed):
            copied.wait()
    half = [path for path in copied.folder.iterdir() if path.name.startswith(".00000003-")]
    assert len(half) == (call != "mkstemp")
    again = open_checkpoints()
    epoch, state, _ = restored(again, state_of(0))
    assert (epoch, same_bits(state, state_of(2))) == (2, True)
    assert warnings == [f"{path}: it is not complete; the checkpoint of epoch 2 is used" for path in half]
    save_all(again, 3)
    assert sorted(path.name[:9] for path in again.folder.iterdir()) == ["00000002-", "00000003-"]


def test_remove_follows_no_link(copied: Checkpoints, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    (copied.folder / "link").symlink_to(outside)
    remove(copied.folder, ALONE)
    assert not copied.folder.exists()
    copied.folder.symlink_to(outside)
    remove(copied.folder, ALONE)
    assert not copied.folder.is_symlink()
    assert (outside / "precious").read_text() == "kept"


# ------------------------------------------------------------------------------------------------ damage and intrusion


def assert_the_older_is_used(checkpoints: Checkpoints, warnings: list[str], match: str = "") -> None:
    epoch, state, record = restored(checkpoints, shapes(state_of(0)))
    assert (epoch, record) == (1, {"epoch": 1})
    assert same_bits(state, state_of(1))
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
    assert str(checkpoints.folder / "00000002") in warnings[0]
    assert match in warnings[0]
    assert warnings[0].endswith("; the checkpoint of epoch 1 is used")


def test_a_flipped_bit_anywhere_is_found(copied: Checkpoints, warnings: list[str]) -> None:
    path = generation(copied.folder, 2)
    data = path.read_bytes()
    for place in np.linspace(0, len(data) - 1, 25).astype(int):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        warnings.clear()
        assert_the_older_is_used(copied, warnings, "it is damaged")


def huge(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)


def by_link(path: Path) -> None:
    moved = path.rename(path.parent.parent / f"moved-{path.name}")
    path.symlink_to(moved)


def header(text: bytes) -> bytes:
    """A file with this header and nothing else."""
    return len(text).to_bytes(8, "little") + text


def other_shape() -> Any:
    return state_of(2) | {"step": np.zeros((2, 1000), np.int32)}


def other_type() -> Any:
    return state_of(2) | {"step": np.full(2, 2, np.float32)}  # of as many bytes


INTRUSIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "half a file": (lambda new: os.truncate(new, new.stat().st_size // 2), "damaged"),
    "empty file": (lambda new: os.truncate(new, 0), "damaged"),
    "linked file": (by_link, "link"),
    "dangling link": (lambda new: (new.unlink(), new.symlink_to("nowhere")), "link"),
    "pipe": (lambda new: (new.unlink(), os.mkfifo(new)), "no plain file"),
    "folder": (lambda new: (new.unlink(), new.mkdir()), "no plain file"),
    "folder of an older version": (lambda new: (new.unlink(), (new.parent / "00000002").mkdir()), "an older version"),
    "another name": (lambda new: new.rename(new.with_name(f"00000002-{'0' * 64}.safetensors")), "damaged"),
    "terabyte": (huge, "far more"),
    "not text": (lambda new: rename(new, bytes(range(256))), ""),
    "short file": (lambda new: rename(new, b"\x08"), ""),
    "long header": (lambda new: rename(new, b"\xff" * 8 + new.read_bytes()[8:]), ""),
    "deep header": (lambda new: rename(new, header(b'{"a":' + b"[" * 200_000)), ""),
    "huge number": (lambda new: rename(new, header(b"9" * 100_000)), ""),
    "list": (lambda new: rename(new, header(b"[]")), ""),
    "no metadata": (lambda new: rename(new, header(b"{}")), "metadata"),
    "null head": (lambda new: rename(new, header(b'{"__metadata__": {"checkpoint": "null"}}')), ""),
    "changed epoch": (lambda new: rewrite(new, epoch=7), "epoch 7"),
    "later format": (lambda new: rewrite(new, format=99), "format 99"),
    "identity of another kind": (lambda new: rewrite(new, identity=[1]), ""),
    "leaves of another kind": (lambda new: rewrite(new, leaves={"a": 1}), "other leaves"),
    "no leaves": (lambda new: rewrite(new, leaves=[]), "other leaves"),
    "arrays of another shape": (lambda new: rewrite(new, other_shape()), "another shape or type"),
    "arrays of another type": (lambda new: rewrite(new, other_type()), "another shape or type"),
    "no arrays": (lambda new: rename(new, safetensors.numpy.save({}, metadata(new.read_bytes()))), "0000"),
}


@pytest.mark.parametrize("kind", INTRUSIONS)
def test_an_intrusion_ends_in_a_warning(kind: str, copied: Checkpoints, warnings: list[str]) -> None:
    """And a generation that was refused is not one of the two that are kept."""
    spoil, match = INTRUSIONS[kind]
    spoil(generation(copied.folder, 2))
    assert_the_older_is_used(copied, warnings, match)
    save_all(copied, 3)
    assert copied.epochs() == [1, 3]


def test_nothing_is_parsed_before_the_digest_is_right(
    copied: Checkpoints, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = generation(copied.folder, 2)
    path.write_bytes(path.read_bytes()[:-1])
    generation(copied.folder, 1).unlink()
    monkeypatch.setattr(checkpoint.json, "loads", lambda *_: pytest.fail("parsed"))
    assert copied.restore(state_of(0)) is None
    assert "it is damaged" in warnings[0]


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


def test_what_the_caller_refuses_is_not_used(copied: Checkpoints, warnings: list[str]) -> None:
    back = copied.restore(state_of(0), lambda epoch, record: "no" if record["epoch"] == 2 else None)
    assert back is not None
    assert (back[0], len(warnings)) == (1, 1)
    assert warnings[0].endswith(": no; the checkpoint of epoch 1 is used")


TEMPLATES: dict[str, Callable[[Any], Any]] = {
    "wider": lambda state: state | {"step": np.zeros(4, np.int32)},
    "of another type": lambda state: state | {"step": state["step"].astype(np.uint32)},
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


def test_a_full_disk_is_told_at_the_next_call_and_the_older_ones_stay(
    copied: Checkpoints, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("research.runs.folder.os.fsync", full)
        copied.save(3, state_of(3), {})
        with pytest.raises(ConfigError, match=r"no space is left on this disk; free some") as caught:
            copied.save(4, state_of(4), {})
    assert caught.value.value == copied.folder
    assert sorted(path.name[:9] for path in copied.folder.iterdir()) == ["00000001-", "00000002-"]
    epoch, state, _ = restored(copied, state_of(0))
    assert (epoch, same_bits(state, state_of(2)), warnings) == (2, True, [])
    save_all(copied, 4)
    assert copied.epochs() == [2, 4]


def test_a_state_that_does_not_fit_is_not_begun(copied: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "write_atomically", lambda *_: pytest.fail("it was begun"))
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

    monkeypatch.setattr(checkpoint, "write_atomically", wrong)
    copied.save(3, state_of(3), {})
    with pytest.raises(KeyError, match="a mistake in the code"):
        copied.close()


def test_a_write_that_the_system_refuses_leaves_the_generation_before(copied: Checkpoints) -> None:
    """A limit on the size of files (`ulimit -f`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        copied.save(3, state_of(3), {})
        with pytest.raises(ConfigError, match=r"File too large.*choose another output folder"):
            copied.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name[:9] for path in copied.folder.iterdir()) == ["00000001-", "00000002-"]
