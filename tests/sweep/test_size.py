"""Widths and sizes are held against memory and sense before anything is allocated."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.sweep import device, memory
from research.sweep import job as jobs
from research.sweep.command import prepare, run
from research.sweep.manifest import check_sweep, read_manifest
from research.sweep.plan import plan
from research.sweep.train.display import Display
from research.tree import ConfigError


@pytest.fixture
def begun(tmp_path: Path, make_jobs: Callable[..., list[Any]], make_options: Callable[..., Any]) -> Any:
    """A sweep of two members in one vmap program, one of them unfinished; and the command that goes on with it."""
    folder, jobs, options = tmp_path / "sweep", make_jobs("seed=0,1"), make_options(mode="vmap")
    run(prepare(jobs, folder, options), jobs, name="sweep", objective="", options=options, display=Display())
    (folder / jobs[0].run_id / "result.json").unlink()
    return folder, lambda: prepare(jobs, folder, options)


def recorded(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "sweep.json").read_text())
    for about in content["groups"].values():
        about |= changes
    (folder / "sweep.json").write_text(json.dumps(content))


@pytest.mark.parametrize("width", [65536, 2048, 5, 0, -1, 2.0, True])
def test_a_recorded_width_that_no_program_has_is_refused(width: Any, begun: Any) -> None:
    folder, again = begun
    recorded(folder, width=width)
    with pytest.raises(ConfigError, match=r"sweep\.json is damaged; restore or remove it"):
        again()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"base": {}, "swept": [[1]], "runs": {}}', "\\", "", "[]"])
def test_a_manifest_of_another_kind_is_refused(content: str, begun: Any) -> None:
    folder, again = begun
    (folder / "sweep.json").write_text(content)
    with pytest.raises(ConfigError, match=r"sweep\.json is damaged; restore or remove it"):
        again()
    (folder / "sweep.json").unlink()
    (folder / "sweep.json").mkdir()
    with pytest.raises(ConfigError, match=r"sweep\.json is damaged"):
        again()


def test_runs_that_a_manifest_does_not_describe_are_passed_over(begun: Any) -> None:
    folder, again = begun
    path = folder / "sweep.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"runs": {**content["runs"], "/etc": 5, "x": None}}))
    assert len(again().todo) == 1


def test_a_map_program_is_no_wider_than_its_members(begun: Any) -> None:
    folder, _ = begun
    recorded(folder, mode="map", width=2)
    assert read_manifest(folder) is not None
    recorded(folder, mode="map", width=3)
    with pytest.raises(ConfigError, match="damaged"):
        read_manifest(folder)


def test_a_recorded_width_is_held_against_the_memory(begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, again = begun
    recorded(folder, width=1024)
    (group,) = again().groups
    assert group.width == 1024
    monkeypatch.setattr(memory, "machine_memory", lambda: 100.0 * group.bytes)
    with pytest.raises(ConfigError, match=r"in each of 1024 members take .* while they train; this machine has"):
        again()


def test_a_model_is_held_against_the_memory(
    make_bounds: Callable[..., list[Any]], make_options: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = make_bounds("model.latent_dim=512")
    (group,) = plan(bounds, make_options())
    monkeypatch.setattr(memory, "machine_memory", lambda: group.bytes - 1.0)
    with pytest.raises(ConfigError, match=r"model\.latent_dim=512: [0-9,]+ parameters take .* choose a smaller model"):
        memory.check_memory(bounds[0].model, group.parameters, group.bytes)
    monkeypatch.setattr(memory, "machine_memory", lambda: group.bytes)
    memory.check_memory(bounds[0].model, group.parameters, group.bytes)
    monkeypatch.setattr(memory, "machine_memory", lambda: None)
    memory.check_memory(bounds[0].model, group.parameters, 1e30)


def test_drawn_data_are_held_against_the_memory(make_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job("data.rows=1000", "data.features=20")
    monkeypatch.setattr(jobs, "host_memory", lambda: 8.0 * 1000 * 20)
    jobs.check_numbers(job.model, job.data)
    large = dataclasses.replace(job, data=dataclasses.replace(job.data, rows=1001))
    with pytest.raises(ConfigError, match=r"data\.rows=1001: data of these sizes take 160 kB; this machine has 160 kB"):
        jobs.check_numbers(large.model, large.data)


@pytest.mark.parametrize(
    ("number", "text"),
    [(12, "12 bytes"), (25.3e9, "25.3 GB"), (999, "999 bytes"), (1e6, "1 MB"), (4e18, "4,000,000 TB")],
)
def test_bytes_are_shown_in_a_unit_that_fits(number: float, text: str) -> None:
    assert device.amount(number) == text


def test_the_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(device, "CGROUP", limit)
    whole = device.host_memory()
    limit.write_text("max\n")
    assert device.host_memory() == whole
    limit.write_text("1000000\n")
    assert device.host_memory() == 1e6


def test_a_folder_in_which_a_command_was_killed_at_once_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "run-000000000000").mkdir(parents=True)
    check_sweep(tmp_path / "sweep", [])
    (tmp_path / "sweep" / "run-000000000000" / "thesis.tex").write_text("text")
    with pytest.raises(ConfigError, match="holds run-000000000000 and no sweep"):
        check_sweep(tmp_path / "sweep", [])
