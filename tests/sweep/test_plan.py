"""Which jobs become one program, and how wide it is."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.data import Facts
from research.models.abilities import uses_of
from research.sweep.measure import Measure, key_of, measure
from research.sweep.plan import CANONICAL_WIDTHS, describe, difference, plan, widths
from research.sweep.train.display import Display

Bounds = Callable[..., list[Any]]
MakeOptions = Callable[..., Any]


# ------------------------------------------------------------------------------------------------------------ grouping


def test_numbers_share_a_program_and_sizes_do_not(make_bounds: Bounds, make_options: MakeOptions) -> None:
    bounds = make_bounds("model.latent_dim=2,8", "model.beta=1,4", "optimizer.learning_rate=0.1,0.2", "seed=0,1,2")
    groups = plan(bounds, make_options())
    assert describe(groups) == "24 jobs, 2 programs"
    assert [{bound.job.model.networks.latent_dim for bound in group.members} for group in groups] == [{2}, {8}]


@pytest.mark.parametrize(
    "sweep",
    [
        "model.beta=0,0.5,4",
        "model.scale=0.5,1",
        "model.gamma=1,2",
        "optimizer.learning_rate=0.1,0.001",
        "optimizer.b1=0.8,0.9",
        "optimizer.final_factor=0,0.5",
        "seed=0,1,4294967295",
        "evaluation=none,standard",
    ],
)
def test_what_is_no_structure_never_splits_a_group(sweep: str, make_bounds: Bounds, make_options: MakeOptions) -> None:
    (group,) = plan(make_bounds(sweep), make_options())
    assert group.reason == ""


@pytest.mark.parametrize(
    ("sweep", "unread"),
    [
        (["model.beta=1,2", "optimizer.learning_rate=0.1,0.2", "seed=0,1"], []),
        (["model.penalty_weight=1,2"], ["model.penalty_weight"]),
        (["model.penalty=mmd", "model.penalty_weight=1,2"], []),
        (["model.beta=1,2", "model.capacity=1"], ["model.beta"]),
        (["model.warmup_epochs=1,2", "optimizer.warmup_epochs=0,1"], ["model.warmup_epochs"]),
        (["optimizer.final_factor=0,0.5"], ["optimizer.final_factor"]),
        (["optimizer.final_factor=0,0.5", "optimizer.schedule=cosine"], []),
        (["model=dense_ae", "model.scale=1,2"], []),
        (["model=dense_ae", "model.likelihood=mse", "model.scale=1,2"], ["model.scale"]),
    ],
)
def test_numbers_that_no_training_reads_are_told(
    sweep: list[str], unread: list[str], make_bounds: Bounds, make_options: MakeOptions
) -> None:
    (group,) = plan(make_bounds(*sweep), make_options())
    assert list(group.unread) == unread


def test_the_plan_says_which_programs_do_not_read_a_number(
    make_bounds: Bounds, make_options: MakeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("model.penalty=none,mmd", "model.penalty_weight=1,2", "model.gamma=1,2")
    Display().plan(plan(make_bounds(*sweep), make_options()), 0)
    shown = capsys.readouterr().out
    assert "note: model.penalty_weight changes nothing in program 1: runs there that differ in it alone" in shown
    assert "note: model.gamma changes nothing in programs 1, 2: runs there" in shown


def test_a_leaf_of_an_optimizer_is_named_by_its_key(build_optimizer: Callable[..., Any]) -> None:
    keys = lambda name: {key_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(build_optimizer(name))}
    assert {"b1", "learning_rate", "final_factor"} <= keys("adam")
    assert {"rest.b1", "rest.period", "discriminator.warmup_epochs"} <= keys("discriminator")


def test_folds_never_split_a_group(make_bounds: Bounds, make_options: MakeOptions) -> None:
    bounds = make_bounds("data.folds=3", "data.train_size=48", "data.fold=0,1,2", "seed=0,1")
    assert describe(plan(bounds, make_options())) == "6 jobs, 1 program"


@pytest.mark.parametrize(
    ("sweep", "named"),
    [
        ("model.latent_dim=2,3", "model.latent_dim=3"),
        ("model.activation=relu,tanh", "model.activation=tanh"),
        ("model.free_bits=null,0.5", "model.free_bits=0.5"),
        ("model.samples=1,2", "model.samples=2"),
        ("optimizer.schedule=constant,cosine", "optimizer.schedule=cosine"),
        ("optimizer.clip_norm=null,1", "optimizer.clip_norm=1.0"),
        ("trainer.batch_size=16,8", "trainer.batch_size=8"),
        ("trainer.keep=best,last", "trainer.keep=last"),
        ("trainer.compute_dtype=float32,bfloat16", "trainer.compute_dtype=bfloat16"),
        ("trainer.accumulate=1,2", "trainer.accumulate=2"),
        ("trainer.ema=null,0.5", "trainer.ema=0.5"),
        ("data.split_seed=0,1", "data.split_seed=1"),
        ("data.train_size=64,32", "data.train_size=32"),
        ("model=vae,dense_ae", "model._target_=DenseAE"),
    ],
)
def test_the_plan_names_the_key_that_sets_programs_apart(
    sweep: str, named: str, make_bounds: Bounds, make_options: MakeOptions
) -> None:
    first, second = plan(make_bounds(sweep), make_options())
    assert first.reason == ""
    assert second.reason.split(", ")[0] == named
    assert difference(first.members[0], second.members[0]) == second.reason


@pytest.mark.parametrize("sweep", ["epochs=2,3", "evaluate_every=1,2", "patience=null,1,2", "target_loss=null,1,2"])
def test_what_the_host_loop_goes_by_shares_a_program_in_map_mode(
    sweep: str, make_bounds: Bounds, make_options: MakeOptions
) -> None:
    bounds = make_bounds(f"trainer.{sweep}", "seed=0,1")
    (group,) = plan(bounds, make_options(mode="map"))
    assert len(group.members) == len(bounds)
    # members that are trained at once have one host loop
    groups = plan(bounds, make_options(mode="vmap"))
    assert [len(group.members) for group in groups] == [2] * (len(bounds) // 2)
    assert [group.reason.split("=")[0] for group in groups[1:]] == [f"trainer.{sweep.split('=')[0]}"] * (
        len(groups) - 1
    )


def test_equal_programs_have_no_difference(make_bounds: Bounds) -> None:
    first, second = make_bounds("model.beta=1,2")
    assert difference(first, second) == ""


def test_many_differences_are_shortened(make_job: Callable[..., Any]) -> None:
    from research.sweep.job import bind

    changes = ["model.latent_dim=3", "model.activation=tanh", "trainer.batch_size=8", "trainer.keep=last"]
    reason = difference(bind(make_job()), bind(make_job(*changes)))
    assert reason.endswith(" and 1 more")
    assert reason.count("=") == 3


@given(
    points=st.lists(
        st.tuples(st.sampled_from([2, 3]), st.sampled_from([1, 2]), st.integers(0, 3)),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    mode=st.sampled_from(["map", "vmap", "auto"]),
    max_width=st.integers(1, 5),
)
def test_every_job_is_planned_once_in_the_order_given(
    points: list[tuple[int, int, int]],
    mode: str,
    max_width: int,
    make_bounds: Bounds,
    make_options: MakeOptions,
    measured: dict[int, Measure],
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # each size is measured once
        patch.setattr(
            "research.sweep.plan.measure", lambda bound, others: measured[bound.job.model.networks.latent_dim]
        )
        check_plan(points, mode, max_width, make_bounds, make_options)


@pytest.fixture(scope="module")
def measured(make_bounds: Bounds) -> dict[int, Measure]:
    return {bound.job.model.networks.latent_dim: measure(bound) for bound in make_bounds("model.latent_dim=2,3")}


def check_plan(
    points: list[tuple[int, int, int]], mode: str, max_width: int, make_bounds: Bounds, make_options: MakeOptions
) -> None:
    bounds = [make_bounds(f"model.latent_dim={z}", f"model.beta={beta}", f"seed={seed}")[0] for z, beta, seed in points]
    groups = plan(bounds, make_options(mode=mode, max_width=max_width))
    planned = [bound.job.hash for group in groups for bound in group.members]
    latents = list(dict.fromkeys(bound.job.model.networks.latent_dim for bound in bounds))
    expected = [
        bound.job.hash for latent in latents for bound in bounds if bound.job.model.networks.latent_dim == latent
    ]
    assert planned == expected
    assert all(len(group.members) <= max_width for group in groups)
    assert all(group.width == 1 if group.mode == "map" else len(group.members) <= group.width for group in groups)
    again = [(group.mode, group.width, group.reason, group.bytes) for group in groups]
    assert again == [
        (group.mode, group.width, group.reason, group.bytes)
        for group in plan(bounds, make_options(mode=mode, max_width=max_width))
    ]


def test_configs_built_twice_make_the_same_plan(make_bounds: Bounds, make_options: MakeOptions) -> None:
    sweep = ("model.latent_dim=2,8", "model.beta=1,4")
    both = plan([*make_bounds(*sweep), *make_bounds(*sweep)], make_options())
    assert [len(group.members) for group in both] == [4, 4]


def test_memory_is_predicted_from_the_state_of_every_member(make_bounds: Bounds, make_options: MakeOptions) -> None:
    (one,) = plan(make_bounds("seed=0"), make_options(mode="vmap"))
    (eight,) = plan(make_bounds("seed=0,1,2,3,4,5,6,7"), make_options(mode="vmap"))
    assert eight.parameters == one.parameters > 0
    # parameters, best parameters, two Adam moments, and a gradient: five numbers a parameter
    assert eight.bytes - one.bytes >= 7 * 5 * 4 * one.parameters


# -------------------------------------------------------------------------------------------------------------- widths


@given(jobs=st.integers(1, 3000), max_width=st.integers(1, 1100))
def test_widths_are_canonical_roomy_and_little_padded(jobs: int, max_width: int) -> None:
    made = widths(jobs, max_width)
    assert set(made) <= set(CANONICAL_WIDTHS)
    assert max(made) <= max_width
    assert sum(made) >= jobs > sum(made[:-1])  # all but the last program are full
    assert sum(made) - jobs <= made[-1] / 5
    assert made == sorted(made, reverse=True)


@pytest.mark.parametrize(
    ("jobs", "expected"), [(1, [1]), (5, [6]), (7, [8]), (9, [8, 1]), (10, [12]), (12, [12]), (45, [48]), (70, [64, 6])]
)
def test_widths_of_known_sweeps(jobs: int, expected: list[int]) -> None:
    assert widths(jobs, 64) == expected


@pytest.mark.parametrize("jobs", [1, 3, 5, 7])
def test_map_programs_have_no_padding(jobs: int, make_bounds: Bounds, make_options: MakeOptions) -> None:
    bounds = make_bounds("seed=" + ",".join(map(str, range(jobs))))
    groups = plan(bounds, make_options(mode="map", max_width=3))
    assert [group.padding for group in groups] == [0] * len(groups)
    assert [group.width for group in groups] == [1] * len(groups)
    assert [len(group.members) for group in groups] == [min(3, jobs - at) for at in range(0, jobs, 3)]
    assert {group.mode for group in groups} == {"map"}
    assert [group.reason for group in groups[1:]] == ["at most 3 jobs wide"] * (len(groups) - 1)
    assert describe(groups).endswith(", 1 program")  # they share it
    assert [unit.members for group in groups for unit in group.units] == [(bound,) for bound in bounds]


def test_recurrent_networks_use_their_parameters_at_every_step(make_bounds: Bounds, build_model: Any) -> None:
    from research.sweep.plan import step_work

    (dense,) = make_bounds("data=digits")
    assert step_work(dense, 100) == 16 * 100
    steps = dense.dataset.facts.feature_shape[0]
    recurrent = dataclasses.replace(dense, model=SimpleNamespace(uses=steps))  # type: ignore[arg-type]
    assert step_work(recurrent, 100) == 16 * 100 * steps
    facts = Facts("sequence", (12, 2), -3.0, 3.0, 3, 24, 4, 4)
    assert [uses_of(build_model(name).bind(facts)) for name in ("gru_ae", "recurrent_predictor", "dense_ae")] == [
        12,
        12,
        1,
    ]
    future = dataclasses.replace(facts, target_shape=(3, 2), target_follows=True)
    assert uses_of(build_model("recurrent_forecaster", segment=4).bind(future)) == 3


def test_vmap_programs_are_padded_and_say_so(make_bounds: Bounds, make_options: MakeOptions) -> None:
    (group,) = plan(make_bounds("seed=0,1,2,3,4"), make_options(mode="vmap"))
    assert (group.mode, group.width, group.padding) == ("vmap", 6, 1)


def test_width_one_is_the_map_program(make_bounds: Bounds, make_options: MakeOptions) -> None:
    seeds = make_bounds("seed=" + ",".join(map(str, range(9))))
    assert [(group.mode, group.width) for group in plan(seeds, make_options(mode="vmap"))] == [("vmap", 8), ("map", 1)]
    assert {group.mode for group in plan(seeds[:2], make_options(mode="vmap", max_width=1))} == {"map"}
    assert plan(seeds[:1], make_options(mode="auto"))[0].mode == "map"


def test_auto_is_a_rule_on_the_work_of_a_step(make_bounds: Bounds, make_options: MakeOptions) -> None:
    small = make_bounds("seed=0,1")
    large = make_bounds("model.hidden_dims=[400,400]", "seed=0,1")
    modes = [plan(bounds, make_options(mode="auto"))[0].mode for bounds in (small, large, small, large)]
    assert modes[:2] == modes[2:]
    assert modes[0] == "vmap"


@pytest.mark.parametrize(("jobs", "text"), [(0, "0 jobs, 0 programs"), (1, "1 job, 1 program")])
def test_plans_are_described_in_one_line(jobs: int, text: str, make_bounds: Bounds, make_options: MakeOptions) -> None:
    assert describe(plan(make_bounds("seed=0")[:jobs], make_options())) == text


def test_a_width_below_one_is_refused(make_options: MakeOptions) -> None:
    from research.sweep.options import Options
    from research.tree import ConfigError, build

    with pytest.raises(ConfigError, match=r"sweep\.max_width=0"):
        build(dataclasses.asdict(make_options()) | {"max_width": 0}, Options, key="sweep")


# ------------------------------------------------------------------------------------------------------ names of runs


def test_names_of_runs_hold_the_overrides_and_the_hash(make_job: Callable[..., Any]) -> None:
    job = make_job("model.latent_dim=2", "seed=1")
    assert job.run_id == f"latent_dim=2-seed=1-{job.hash[:12]}"


def test_the_hash_leaves_out_where_things_are_and_what_is_evaluated(make_job: Callable[..., Any]) -> None:
    plain = make_job()
    assert make_job("data.root=elsewhere").hash == plain.hash
    assert make_job("evaluation=full").hash == plain.hash
    assert make_job("model.beta=1.0").hash == plain.hash
    changes = ["seed=1", "model.beta=2", "trainer.epochs=3", "data.split_seed=1", "optimizer.b1=0.8"]
    assert len({plain.hash, *(make_job(change).hash for change in changes)}) == 1 + len(changes)


@given(overrides=st.lists(st.text(max_size=60), max_size=6))
def test_names_of_runs_are_plain_and_short(overrides: list[str]) -> None:
    import re

    from research.sweep.job import readable

    name = readable(overrides)
    assert re.fullmatch(r"[A-Za-z0-9._=-]{1,80}", name)
    assert not name.startswith(("-", "."))


def test_runs_of_a_sweep_are_named_by_what_differs(make_jobs: Callable[..., Any], tmp_path: Path) -> None:
    from research.sweep.manifest import named

    jobs = make_jobs("model.latent_dim=2", "seed=0,1", "model.beta=1,4")
    assert [job.run_id.rpartition("-")[0] for job in named(jobs, tmp_path)] == [
        *("seed=0-beta=1", "seed=0-beta=4"),
        *("seed=1-beta=1", "seed=1-beta=4"),
    ]
    assert [job.run_id.rpartition("-")[2] for job in named(jobs, tmp_path)] == [job.hash[:12] for job in jobs]
    (alone,) = named(jobs[:1], tmp_path)
    assert alone.run_id == jobs[0].run_id
    (tried,) = named(jobs[:1], tmp_path, {"model.beta"})  # one point of a search
    assert tried.run_id == f"beta=1-{tried.hash[:12]}"


def test_a_planned_run_keeps_its_name_and_no_edited_name_leaves_the_folder(
    make_jobs: Callable[..., Any], tmp_path: Path
) -> None:
    from research.sweep.manifest import named

    one, other = make_jobs("seed=0,1")
    names = {f"as-planned-{one.hash[:12]}": one.hash, f"../elsewhere-{other.hash[:12]}": other.hash}
    runs = {name: {"config_hash": digest} for name, digest in names.items()}
    (tmp_path / "sweep.json").write_text(json.dumps({"base": {}, "swept": [], "runs": runs}))
    assert [job.run_id for job in named([one, other], tmp_path)] == [
        f"as-planned-{one.hash[:12]}",
        f"seed=1-{other.hash[:12]}",
    ]


def test_keys_of_one_name_are_told_apart_by_their_sections() -> None:
    from research.sweep.job import readable

    players = ["optimizer.generator.learning_rate=1e-3", "optimizer.discriminator.learning_rate=1e-4", "seed=0"]
    text = "optimizer.generator.learning_rate=1e-3-optimizer.discriminator.learning_rate=1e-4"
    assert readable(players, limit=100) == f"{text}-seed=0"
    assert readable(["seed=0", "model.beta=1", "seed=2"], keys={"seed"}) == "seed=2"
