"""Laws of programs: what a member computes does not depend on the company it keeps."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import engine
from research.sweep import device, program
from research.sweep.device import on_device
from research.sweep.plan import JobGroup, describe, plan
from research.sweep.programs import program_of
from research.tree import stack, unstack

Bounds = Callable[..., list[Any]]
PIXELS = "data=digits"  # sums over 64 inputs have other bits in vmap than alone; over 6 features they have not


@dataclasses.dataclass
class Results:
    """Everything a group computed, as numpy arrays over the members."""

    chunks: list[dict[str, np.ndarray]]
    scores: dict[str, np.ndarray]
    state: Any

    def member(self, index: int) -> list[np.ndarray]:
        """All numbers of one member, in a fixed order."""
        one = unstack((self.chunks, self.scores, self.state), index)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(one)]


def trained(
    bounds: Sequence[Any], mode: str, width: int | None = None, chunks: Sequence[int] = (1, 1), params: Any = None
) -> Results:
    """Train a group, of a given width in vmap mode; `chunks` are epochs a device call."""
    group = JobGroup(tuple(bounds), mode, width or (1 if mode == "map" else len(bounds)), 0, 0, "")  # type: ignore[arg-type]
    units = []
    for number, unit in enumerate(group.units):
        given = None if params is None else params[number:][: len(unit.members)]
        running = program_of(unit, on_device(bounds[0].dataset), given)
        metrics = [running.read(running.train(epochs)) for epochs in chunks]
        state = running.collect()
        units.append(Results(metrics, running.score(state), state))
    if mode == "vmap":
        return units[0]
    return Results(*stack([unstack((unit.chunks, unit.scores, unit.state), 0) for unit in units]))


def same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether all numbers are equal bit for bit (NaN equals NaN)."""
    assert len(one) == len(other)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def five(make_bounds: Bounds) -> list[Any]:
    """Five jobs of one structure that differ in every number."""
    points = [(1, 0.01, 0), (4, 0.003, 1), (0.5, 0.02, 2), (1, 0.01, 3), (0, 0.05, 0)]
    return [
        make_bounds(PIXELS, f"model.beta={b}", f"optimizer.learning_rate={r}", f"seed={s}")[0] for b, r, s in points
    ]


@pytest.fixture(scope="module")
def alone(five: list[Any]) -> list[list[np.ndarray]]:
    """What each of the five computes in a program of its own."""
    return [trained([bound], "map").member(0) for bound in five]


def test_members_differ(alone: list[list[np.ndarray]]) -> None:
    """Or the laws below would be empty."""
    for index, one in enumerate(alone):
        assert not any(same_bits(one, other) for other in alone[index + 1 :])


# ----------------------------------------------------------------------------------------------------------------- map


def test_map_bits_do_not_depend_on_neighbours_or_order(five: list[Any], alone: list[list[np.ndarray]]) -> None:
    turned = trained([five[4], five[1], five[0]], "map")
    for place, index in enumerate((4, 1, 0)):
        assert same_bits(turned.member(place), alone[index])


@pytest.mark.parametrize("changes", [["model=dense_ae", "optimizer=sgd"], ["data=digits", "data.train_size=32"]])
def test_map_is_alone_for_other_families_and_data(changes: list[str], make_bounds: Bounds) -> None:
    bounds = make_bounds(*changes, "trainer.epochs=1", "optimizer.learning_rate=0.01,0.02")
    together = trained(bounds, "map", chunks=(1,))
    for index, bound in enumerate(bounds):
        assert same_bits(together.member(index), trained([bound], "map", chunks=(1,)).member(0))


def test_cutting_epochs_into_chunks_changes_nothing_but_the_rows_of_metrics(five: list[Any]) -> None:
    keep_last = [
        dataclasses.replace(b, job=dataclasses.replace(b.job, trainer=dataclasses.replace(b.job.trainer, keep="last")))
        for b in five[:2]
    ]
    once, twice = trained(keep_last, "map", chunks=(2,)), trained(keep_last, "map", chunks=(1, 1))
    for name in ("params", "optimizer_state", "step"):
        a, b = getattr(once.state, name), getattr(twice.state, name)
        assert same_bits(jax.tree.leaves(a), jax.tree.leaves(b))
    assert same_bits(jax.tree.leaves(once.chunks[-1]), jax.tree.leaves(twice.chunks[-1]))


# ---------------------------------------------------------------------------------------------------------------- vmap

WIDTH = 4


@pytest.fixture(scope="module")
def reference(five: list[Any]) -> list[np.ndarray]:
    """The first of the five in the first slot of a vmap program of width four, beside copies of itself."""
    return trained([five[0]] * WIDTH, "vmap").member(0)


@settings(max_examples=12)
@given(
    slot=st.integers(0, WIDTH - 1),
    neighbours=st.lists(
        st.tuples(st.sampled_from([0, 0.5, 1, 4]), st.sampled_from([1e-3, 1e-2, 1e30]), st.integers(0, 2**32 - 1)),
        min_size=WIDTH - 1,
        max_size=WIDTH - 1,
    ),
)
def test_bits_of_a_vmap_member_depend_on_the_width_alone(
    slot: int,
    neighbours: list[tuple[float, float, int]],
    five: list[Any],
    reference: list[np.ndarray],
    make_bounds: Bounds,
) -> None:
    """Whatever the neighbours, their order, and whether one of them diverges."""
    others = [
        make_bounds(PIXELS, f"model.beta={b}", f"optimizer.learning_rate={r}", f"seed={s}")[0] for b, r, s in neighbours
    ]
    together = trained([*others[:slot], five[0], *others[slot:]], "vmap")
    assert same_bits(together.member(slot), reference)


def test_a_diverging_neighbour_is_really_there(
    five: list[Any], reference: list[np.ndarray], make_bounds: Bounds
) -> None:
    (wild,) = make_bounds(PIXELS, "optimizer.learning_rate=1e30")
    together = trained([five[0], wild, five[1], five[2]], "vmap")
    assert together.state.first_bad_step[1] >= 0
    assert not np.isfinite(together.chunks[-1]["train/loss"][1])
    assert list(together.state.first_bad_step[[0, 2, 3]]) == [engine.NEVER] * 3
    assert same_bits(together.member(0), reference)


def test_padding_members_do_not_matter(five: list[Any]) -> None:
    padded, full = trained(five[:3], "vmap", width=WIDTH), trained(five[:4], "vmap")
    for index in range(3):
        assert same_bits(padded.member(index), full.member(index))
    assert same_bits(padded.member(3), padded.member(0))  # padding repeats the first job


def test_vmap_is_close_to_map(five: list[Any]) -> None:
    one, other = trained(five[:4], "map"), trained(five[:4], "vmap")
    for a, b in zip(one.chunks, other.chunks, strict=True):
        np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=1e-5)
        np.testing.assert_allclose(a["validation/loss"], b["validation/loss"], rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------- folds


@pytest.mark.parametrize("scaling", ["none", "standard"])
def test_folds_are_one_program_and_each_is_that_fold_alone(
    scaling: str, make_bounds: Bounds, make_options: Callable[..., Any]
) -> None:
    common = ("data.folds=3", f"data.scaling={scaling}", "data.train_size=null", "data.validation_size=null")
    bounds = make_bounds(*common, "data.fold=0,1,2")
    (group,) = plan(bounds, make_options())
    together = trained(group.members, "map", chunks=(2,))
    losses = set()
    for index, bound in enumerate(bounds):
        only = trained([bound], "map", chunks=(2,))
        assert same_bits(together.member(index), only.member(0))
        losses.add(float(only.chunks[-1]["validation/loss"][0]))
    assert len(losses) == 3


# ----------------------------------------------------------------------------------------------------------- compiling

_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: _compiled.append(name) if name.endswith("backend_compile_duration") else None
)


def test_as_many_programs_are_compiled_as_there_are_groups(
    make_bounds: Bounds, make_options: Callable[..., Any]
) -> None:
    bounds = make_bounds("model.hidden_dims=[9]", "model.latent_dim=2,3", "model.beta=1,2", "seed=0,1")
    groups = plan(bounds, make_options(mode="vmap"))
    compiled = program.train_all, engine.initialize
    before = [function.jitted._cache_size() for function in compiled]
    for group in groups:
        trained(group.members, "vmap", chunks=(1, 1))
    after = [function.jitted._cache_size() for function in compiled]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 2]
    assert len(groups) == 2


def test_programs_are_forgotten_before_memory_maps_run_out(
    five: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = trained(five[:1], "map")
    (tmp_path / "maps").write_text("a map\n" * 5)
    monkeypatch.setattr(device, "MAPS", tmp_path / "maps")
    monkeypatch.setattr(device, "MOST_MAPS", tmp_path / "most")
    assert not device.unload()  # a system that does not tell
    (tmp_path / "most").write_text("11\n")
    assert not device.unload()
    assert program.train.jitted._cache_size() > 0
    (tmp_path / "most").write_text("10\n")
    assert device.unload()
    assert program.train.jitted._cache_size() == 0
    assert same_bits(trained(five[:1], "map").member(0), first.member(0))


def test_splits_of_one_data_set_share_a_program_in_map_mode(
    make_bounds: Bounds, make_options: Callable[..., Any]
) -> None:
    bounds = make_bounds("model.hidden_dims=[11]", "data.split_seed=0,1", "seed=0")
    groups = plan(bounds, make_options(mode="map"))
    assert [len(group.members) for group in groups] == [1, 1]
    assert describe(groups) == "2 jobs, 1 program"
    before = program.train.jitted._cache_size()
    first, second = (trained(group.members, "map", chunks=(1,)) for group in groups)
    assert program.train.jitted._cache_size() - before == 1
    assert not same_bits(first.member(0), second.member(0))
    bounds = make_bounds("model.hidden_dims=[11]", "data.train_size=48,50", "seed=0")
    assert describe(plan(bounds, make_options(mode="map"))) == "2 jobs, 2 programs"


def test_the_plan_measures_programs_with_the_options_of_users(
    make_bounds: Bounds, make_options: Callable[..., Any]
) -> None:
    """Run it without the flags of the tests, too: options of an inner program once made the plan give up."""
    (group,) = plan(make_bounds("seed=0,1"), make_options())
    assert group.parameters > 0
    assert "validation/loss" in group.metrics
    assert "traced" not in group.reason


def test_nothing_is_compiled_for_later_chunks_or_a_short_last_one(five: list[Any]) -> None:
    group = JobGroup(tuple(five[:2]), "vmap", 2, 0, 0, "")
    running = program_of(group, on_device(five[0].dataset))
    running.train(2)
    before = len(_compiled)
    assert before > 0
    running.train(2)
    running.train(1)
    assert len(_compiled) == before


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_other_numbers_seeds_and_budgets_do_not_compile(mode: str, five: list[Any], make_bounds: Bounds) -> None:
    trained(five[:2], mode)
    before = len(_compiled)
    other = ["trainer.epochs=7", "trainer.patience=3", "trainer.target_loss=-5", "trainer.evaluate_every=3"]
    trained(make_bounds(PIXELS, "model.beta=7", "optimizer.learning_rate=0.5,0.25", "seed=11", *other), mode)
    assert len(_compiled) == before


# ---------------------------------------------------------------------------------------------------------- warm start


def test_warm_start_goes_on_from_the_given_parameters(five: list[Any], make_bounds: Bounds) -> None:
    first = trained(five[:2], "map")
    given_params = [unstack(first.state.params, index) for index in range(2)]
    still = make_bounds(PIXELS, "optimizer=sgd", "optimizer.learning_rate=1e-30", "seed=5,6")
    went_on = trained(still, "map", params=given_params)
    assert same_bits(jax.tree.leaves(went_on.state.params), jax.tree.leaves(first.state.params))
    fresh = trained(still, "map")
    assert not same_bits(jax.tree.leaves(fresh.state.params), jax.tree.leaves(first.state.params))


def test_warm_started_members_are_padded_too(five: list[Any]) -> None:
    first = trained(five[:3], "map")
    given_params = [unstack(first.state.params, index) for index in range(3)]
    padded = trained(five[:3], "vmap", width=WIDTH, params=given_params)
    full = trained([*five[:3], five[0]], "vmap", params=[*given_params, given_params[0]])
    for index in range(WIDTH):
        assert same_bits(padded.member(index), full.member(index))
