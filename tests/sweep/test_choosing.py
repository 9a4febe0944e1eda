"""Objectives and pruning compare jobs only where their metric measures the same."""

import dataclasses
import types

import pytest

from research.sweep.choosing import (
    check_direction,
    check_objective,
    check_pruning,
    check_table,
    comparable,
    metric_dependencies,
    separating,
    sought,
)
from research.sweep.plan import plan
from research.sweep.train.prune import Standing, losers
from research.tree import ConfigError

KNOWN = ("validation/loss", "validation/elbo_nats", "validation/reconstruction_mse")


def test_a_loss_separates_jobs_of_other_beta_and_a_bound_does_not(make_bounds):
    bounds = make_bounds("model.beta=1,4", "optimizer.learning_rate=0.1,0.2", "seed=0,1")
    assert separating("validation/loss", bounds) == ["model.beta"]
    assert separating("validation/elbo_nats", bounds) == []
    assert comparable(bounds, KNOWN) == "validation/elbo_nats"
    with pytest.raises(ConfigError, match=r"model.beta differs; set objective=validation/elbo_nats"):
        check_objective("validation/loss", bounds, KNOWN)
    check_objective("validation/loss", bounds[:4], KNOWN)  # of one beta
    with pytest.raises(ConfigError, match=r"where model.beta differs"):
        check_objective("validation/loss", bounds[:1], KNOWN, ["model.beta"])
    check_objective("validation/loss", bounds[:1], KNOWN, ["optimizer.learning_rate"])


def test_errors_separate_jobs_of_another_fitted_scaling(make_bounds):
    bounds = make_bounds("data.scaling=standard", "data.train_size=32,64")
    assert separating("validation/reconstruction_mse", bounds) == ["data.train_size"]
    assert separating("validation/reconstruction_mse_raw", bounds) == []
    bounds = make_bounds("data.scaling=none", "data.train_size=32,64")
    assert separating("validation/reconstruction_mse", bounds) == []


def test_of_a_game_no_loss_is_better():
    from research.models.recurrent_gan import RecurrentGAN

    assert "run_id" in metric_dependencies(object.__new__(RecurrentGAN))["loss"]


@pytest.mark.parametrize(
    ("sweeper", "minimizes", "key"),
    [
        ({"direction": "minimize"}, True, "hydra.sweeper.direction=maximize"),
        ({"direction": types.SimpleNamespace(name="maximize")}, False, "hydra.sweeper.direction=maximize"),
        ({"optim": {"maximize": False}}, True, "hydra.sweeper.optim.maximize=true"),
        ({"ax_config": {"experiment": {"minimize": True}}}, True, "hydra.sweeper.ax_config.experiment.minimize=false"),
        ({"_target_": "another"}, None, ""),
    ],
)
def test_a_sweeper_that_looks_for_the_worst_is_refused(sweeper, minimizes, key):
    assert sought(sweeper, "validation/elbo_nats") == (minimizes, key)
    if minimizes:
        with pytest.raises(ConfigError, match=f"add {key}"):
            check_direction("validation/elbo_nats", minimizes, key)
    else:
        check_direction("validation/elbo_nats", minimizes, key)


def test_members_are_pruned_among_those_of_their_own_fold(make_options):
    """The second fold is harder throughout; in each fold the last member is worst."""
    best = [1.0, 1.1, 1.2, 9.0, 9.1, 9.2]
    standing = Standing(epoch=1, best=best, learning=[True] * 6, healthy=[True] * 6, folds=[0, 0, 0, 1, 1, 1])
    trainer = types.SimpleNamespace(epochs=3, monitor="validation/loss", evaluate_every=1)
    options = make_options(prune="median", prune_after=1)
    assert losers(standing, options, trainer) == [2, 5]
    assert losers(dataclasses.replace(standing, folds=[None] * 6), options, trainer) == [3, 4, 5]


def test_points_are_pruned_whole_by_the_mean_over_seeds_and_folds(make_options):
    """Point a has the best member and is the best; point b has the second best member and is the worst but one."""
    best = [1.0, 3.0, 1.5, 9.0, 4.0, 4.0, 2.0, 2.0]
    trainer = types.SimpleNamespace(epochs=9, monitor="validation/loss", evaluate_every=1)
    standing = Standing(1, best, [True] * 8, [True] * 8, [0, 1] * 4, list("aabbccdd"))
    options = make_options(prune="median", peers="command", prune_after=1)
    assert losers(standing, options, trainer) == [2, 3, 4, 5]
    fewer = Standing(1, [1.0, 3.0, 2.5, 2.6], [True] * 4, [True] * 4, [0, 1, 0, 0], list("aabc"))
    assert losers(fewer, options, trainer) == [3]  # the mean of a counts, not the sum
    halving = make_options(prune="successive_halving", peers="command", prune_after=1)
    assert losers(standing, halving, trainer) == [2, 3, 4, 5, 6, 7]
    better_is_higher = types.SimpleNamespace(epochs=9, monitor="validation/elbo_nats", evaluate_every=1)
    assert losers(standing, options, better_is_higher) == [0, 1, 6, 7]
    diverged = dataclasses.replace(standing, healthy=[False, *[True] * 7], learning=[False, *[True] * 7])
    assert losers(diverged, options, trainer) == [1, 2, 3]
    assert losers(dataclasses.replace(standing, healthy=[False] * 8, learning=[True] * 8), options, trainer) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["trainer.epochs=2,3"], "trainer.epochs"),
        (["trainer.evaluate_every=1,2"], "trainer.evaluate_every"),
        (["trainer.monitor=validation/loss,validation/elbo_nats"], "trainer.monitor"),
        (["model.beta=1,2"], "set trainer.monitor=validation/elbo_nats"),
    ],
)
def test_programs_that_advance_otherwise_are_not_compared(changes, said, make_bounds, make_options):
    options = make_options(prune="median", peers="command")
    bounds = make_bounds("model.latent_dim=2,3", *changes)
    with pytest.raises(ConfigError, match=said):
        check_pruning(options, plan(bounds, options))
    check_pruning(options, plan(make_bounds("model.latent_dim=2,3", "seed=0,1"), options))


def test_programs_in_vmap_mode_are_not_compared(make_bounds, make_options):
    options = make_options(prune="median", peers="command", mode="vmap")
    with pytest.raises(ConfigError, match=r"set sweep.mode=map"):
        check_pruning(options, plan(make_bounds("model.latent_dim=2,3", "seed=0,1"), options))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"rows": ["model.latnt_dim"]}, r"report.rows=model.latnt_dim: no job has this key .*'model.latent_dim'"),
        ({"columns": ["model.beta.x"]}, r"report.columns=model.beta.x: no job has this key"),
        ({"select": ["optimizer.rate"]}, r"report.select=optimizer.rate: no job has this key"),
        ({"select": ["seed"]}, r"report.select=seed: rows, columns, seeds and folds are no settings to choose"),
        ({"rows": ["model.beta"], "select": ["model.beta"]}, r"report.select=model.beta: rows, columns, seeds"),
        (
            {"select": ["model.beta"], "by": "validation/loss"},
            r"report.by=validation/loss: .*model.beta differs; set report.by=validation/elbo_nats$",
        ),
    ],
)
def test_a_table_that_cannot_be_made_is_refused_before_training(make_bounds, section, said):
    bounds = make_bounds("model.beta=1,4", "optimizer.learning_rate=0.1,0.2")
    with pytest.raises(ConfigError, match=said):
        check_table(section, [bound.job for bound in bounds], bounds, KNOWN)


def test_a_table_that_can_be_made_is_not_refused(make_bounds):
    bounds = make_bounds("model.beta=1,4", "optimizer.learning_rate=0.1,0.2")
    jobs = [bound.job for bound in bounds]
    check_table({"rows": ["model", "seed"], "select": ["optimizer.learning_rate"]}, jobs, bounds, KNOWN)
    section = {"rows": ["model.beta"], "select": ["optimizer.learning_rate"], "by": "validation/loss"}
    check_table(section, jobs, bounds, KNOWN)  # within a row all settings have one beta
    check_table({"rows": None, "columns": (), "select": ["model.beta"], "by": "validation/loss"}, jobs, [], KNOWN)
