import dataclasses
import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.report import cache
from research.report import collect as collecting
from research.report.collect import Run, collect
from research.tree import ConfigError

LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cache, "SMALLEST", 1)


@pytest.fixture
def reads(monkeypatch):
    """Names of the runs whose files were read."""
    found = []
    original = collecting.run_of

    def run_of(path, name, place):
        found.append(name)
        return original(path, name, place)

    monkeypatch.setattr(collecting, "run_of", run_of)
    return found


def age(folder):
    """Let all files be old enough to be told from files that are written again."""
    for path in folder.glob("*/*.json"):
        if not path.is_symlink():
            os.utime(path, (LONG_AGO, LONG_AGO))


def told(runs):
    """All of the runs as text, in which 1, 1.0 and True differ, and so do orders of keys."""
    return repr(runs)


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.fixture
def strange(sweep):
    """A sweep with everything that a sweep may hold."""
    for seed in range(3):
        sweep.add({"model.latent_dim": 2, "seed": seed}, {"test/loss": seed + 0.5, "test/auroc": None})
    sweep.add({"model.latent_dim": 8, "seed": 0}, {"test/loss": 1, "test/auroc": True, "test/é😀": -0.0})
    sweep.add({"model.latent_dim": 8, "seed": 1}, status="diverged", reason='a "reason" \ud83d é\nin lines')
    sweep.add({"model.latent_dim": 8, "seed": 2}, written=False)
    lists = [[], [1, [2.0, [True, None]], {"a": [1]}], [[1]], [[True]]]
    for number, value in enumerate([1, 1.0, True, None, "1", "", 10**30, 1e-300, {}, *lists]):
        path = sweep.add({"model.beta": value, "seed": 10 + number}, {"test/loss": 2.5}, null_reasons={"a": "b"})
        change(path / "result.json", config_hash=number)
        change(path / "config.json", config_hash=number)
    no_result = sweep.add({"model.beta": 9.0, "seed": 30})
    (no_result / "result.json").unlink()
    broken = sweep.add({"model.beta": 9.0, "seed": 31})
    (broken / "result.json").write_text("{")
    linked = sweep.add({"model.beta": 9.0, "seed": 32})
    (linked / "result.json").rename(sweep.folder / "elsewhere.json")
    (linked / "result.json").symlink_to(sweep.folder / "elsewhere.json")
    infinite = sweep.add({"model.beta": 9.0, "seed": 33}, {"test/loss": 12345.0, "test/auroc": 6789})
    text = (infinite / "result.json").read_text().replace("12345.0", "1e999").replace("6789", "9" * 400)
    (infinite / "result.json").write_text(text)
    unplanned = sweep.folder / "unplanned"
    shutil.copytree(no_result, unplanned)
    shutil.copytree(sweep.folder / "model.latent_dim=2,seed=0", sweep.folder / "again", copy_function=os.link)
    (sweep.folder / "link").symlink_to(no_result)
    (sweep.folder / "loop").symlink_to("loop")
    age(sweep.folder)
    return sweep


def test_a_cached_sweep_is_the_sweep(strange, reads):
    uncached = collect(strange.folder, cached=False)
    assert not (strange.folder / cache.NAME).exists()
    assert told(collect(strange.folder)) == told(uncached)
    reads.clear()
    assert told(collect(strange.folder)) == told(uncached)
    assert {run.status for run in uncached if run.run_id in reads} == {"missing", "unreadable"}
    assert not any(run.known and run.status == "missing" for run in uncached if run.run_id in reads)


@pytest.mark.parametrize("file", ["config.json", "result.json"])
def test_only_a_run_that_changed_is_read(strange, reads, file):
    collect(strange.folder)
    always = set(reads_of(strange.folder, reads))
    name = "model.latent_dim=2,seed=1"
    path = strange.folder / name / file
    before = path.read_text()
    path.write_text(before.replace("1.5", "2.5").replace(": 1.0", ": 3.0"))
    assert path.read_text() != before
    os.utime(path, (LONG_AGO, LONG_AGO))  # same size and time, as some copies leave it
    assert reads_of(strange.folder, reads) == always | {name}
    assert reads_of(strange.folder, reads) == always
    assert told(collect(strange.folder)) == told(collect(strange.folder, cached=False))


def reads_of(folder, reads):
    reads.clear()
    collect(folder)
    return set(reads)


def test_runs_that_come_and_go_and_the_plan_are_seen(strange):
    collect(strange.folder)
    shutil.rmtree(strange.folder / "model.latent_dim=2,seed=0")
    strange.add({"model.latent_dim": 2, "seed": 5}, {"test/loss": 8.0})
    (strange.folder / "model.latent_dim=2,seed=1" / "result.json").unlink()
    assert told(collect(strange.folder)) == told(collect(strange.folder, cached=False))
    change(strange.folder / "sweep.json", name="other")
    assert collect(strange.folder).name == "other"


def test_a_run_replaced_by_a_link_to_it_is_not_followed(grid):
    folder = grid().folder
    age(folder)
    collect(folder)
    path = next(folder.glob("*/")).rename(folder.parent / "moved")
    name = next(run.run_id for run in collect(folder) if run.status == "missing")
    (folder / name).symlink_to(path)
    assert "link" in next(run.reason for run in collect(folder) if run.run_id == name)


def test_files_just_written_are_not_trusted_to_stay(grid, reads):
    folder = grid().folder
    collect(folder)
    assert not (folder / cache.NAME).exists()
    age(folder)
    collect(folder)
    path = next(folder.glob("*/result.json"))
    path.write_bytes(path.read_bytes())
    for _ in range(2):
        assert reads_of(folder, reads) == {path.parent.name}


def damage(content, kind):
    body = content.partition(b"\n")[2]
    columns = json.loads(body)
    match kind:
        case "truncated":
            return content[: len(content) // 2]
        case "one digit":
            return content.replace(b"0.001", b"0.002")
        case "empty":
            return b""
        case "foreign":
            return b"\x80\x04\x95PK\x03\x04" * 100
        case "older":
            return content.replace(cache._writer(), b"0" * 64)
        case "nested":
            body = b"[" * 100_000
        case "list":
            body = b"[]"
        case "nothing":
            body = b"{}"
        case "short column":
            columns["files"][0].pop()
        case "names":
            columns["names"][0] = 5
        case "duplicate":
            columns["names"][0] = columns["names"][1]
        case "text":
            columns["metrics"][0]["columns"][0] = ["1.0"]
        case "infinite":
            columns["metrics"][0]["columns"][0] = [float("inf")]
        case "huge":
            columns["metrics"][0]["columns"][0] = [10**400]
        case "object":
            columns["values"][0]["columns"][0] = [{}]
        case "row":
            columns["values"][0]["rows"] = columns["values"][0]["rows"][1:]
        case "status":
            columns["fields"][0] = [None]
        case "many keys":
            columns["values"][0]["keys"] = [str(number) for number in range(5_000)]
            columns["values"][0]["columns"] = [[0]] * 5_000
    if kind in ("nested", "list", "nothing"):
        return cache._header(body) + body
    return cache._header(body := json.dumps(columns).encode()) + body


KINDS = [
    *("truncated", "one digit", "empty", "foreign", "older", "nested", "list", "nothing", "short column", "names"),
    *("duplicate", "text", "infinite", "huge", "object", "row", "status", "many keys"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_that_is_none_is_not_used_and_is_made_again(grid, reads, kind):
    folder = grid().folder
    age(folder)
    uncached = told(collect(folder))
    good = (folder / cache.NAME).read_bytes()
    assert not reads_of(folder, reads)
    (folder / cache.NAME).write_bytes(damage(good, kind))
    reads.clear()
    assert told(collect(folder)) == uncached
    assert len(reads) == 6
    assert (folder / cache.NAME).read_bytes() == good


def test_a_cache_too_large_is_neither_read_nor_written(grid, reads, monkeypatch):
    folder = grid().folder
    age(folder)
    collect(folder)
    monkeypatch.setattr(cache, "LARGEST", 10)
    assert len(reads_of(folder, reads)) == 6
    (folder / cache.NAME).unlink()
    collect(folder)
    assert not (folder / cache.NAME).exists()


def test_what_stands_in_the_place_of_the_cache_is_left_alone(grid, tmp_path):
    folder = grid().folder
    age(folder)
    (folder / cache.NAME).mkdir()
    assert len(collect(folder)) == 6
    (folder / cache.NAME).rmdir()
    (tmp_path / "precious").write_text("content")
    (folder / cache.NAME).symlink_to(tmp_path / "precious")
    assert len(collect(folder)) == 6
    assert (tmp_path / "precious").read_text() == "content"
    (folder / cache.NAME).unlink(missing_ok=True)
    os.mkfifo(folder / cache.NAME)
    assert len(collect(folder)) == 6


def test_a_folder_that_cannot_be_written_goes_without(grid, monkeypatch):
    def refuse(path, data, lease):
        raise ConfigError("folder", path, "this place cannot be written")

    folder = grid().folder
    age(folder)
    monkeypatch.setattr(cache, "write_atomically", refuse)
    assert len(collect(folder)) == 6


def test_small_sweeps_have_no_cache_and_few_changes_write_none(grid, reads, monkeypatch):
    folder = grid().folder
    age(folder)
    monkeypatch.setattr(cache, "SMALLEST", 7)
    collect(folder)
    assert not (folder / cache.NAME).exists()
    monkeypatch.setattr(cache, "SMALLEST", 6)
    collect(folder)
    written = (folder / cache.NAME).stat().st_ino
    monkeypatch.setattr(cache, "RENEW", 0.5)
    path = next(folder.glob("*/result.json"))
    path.write_text(path.read_text() + "\n")
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert reads_of(folder, reads) == {path.parent.name}
    assert (folder / cache.NAME).stat().st_ino == written


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=3)
VALUES = st.recursive(NUMBERS | TEXTS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
RUNS = st.builds(
    Run,
    run_id=TEXTS,
    status=TEXTS,
    reason=st.none() | TEXTS,
    values=st.dictionaries(st.sampled_from("abc"), VALUES),
    metrics=st.dictionaries(st.sampled_from("abc"), NUMBERS),
    null_reasons=st.dictionaries(TEXTS, TEXTS, max_size=2),
    overrides=st.lists(TEXTS, max_size=2).map(tuple),
    data_sha256=st.none() | TEXTS,
    commit=st.none() | TEXTS,
    program=st.none() | TEXTS,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(RUNS, max_size=4, unique_by=lambda run: run.run_id), st.data())
def test_columns_hold_every_run_as_it_was(runs, data):
    records = [((1, 2, 999, number, 5, 6, 999, 8), run) for number, run in enumerate(runs)]
    content = json.loads(json.dumps(cache.packed(records)))
    chosen = {run.run_id: own for own, run in records if data.draw(st.booleans())}
    found = [Run(run_id=name, **fields) for name, fields in cache.unpacked(content, chosen).items()]
    assert repr(found) == repr([run for run in runs if run.run_id in chosen])


def test_every_field_of_a_run_is_in_the_cache_or_beside_it():
    kept = {*cache.FIELDS, "values", "metrics"}
    assert {field.name for field in dataclasses.fields(Run)} == kept | {"run_id", "written", "known"}
