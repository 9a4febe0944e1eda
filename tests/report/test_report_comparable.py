"""Numbers are compared only where they measure the same: settings of the loss, units, rows, seeds and folds."""

import itertools
import json

import pytest

from research.report.collect import Runs, collect
from research.report.document import caption
from research.report.formats import markdown
from research.report.keys import apart, comparison_keys, varying
from research.report.notes import notes
from research.report.page_data import extremes
from research.report.table import table
from research.tree import ConfigError


def best(summary, metric):
    return [row for row in summary.rows if summary.cells[row, (), metric].best]


def note_texts(summary):
    return [text for _, text in notes(summary)]


@pytest.fixture
def betas(sweep):
    """The loss holds beta and is lower for .01; the ELBO is better for 1, the error for .01."""
    for beta, seed in itertools.product((0.01, 1.0), range(3)):
        numbers = {"loss": 20.0 if beta < 1 else 26.0, "elbo_nats": -32.6 if beta < 1 else -25.8}
        numbers["reconstruction_mse"] = 0.1 * beta
        metrics = {f"{part}/{name}": value for part in ("validation", "test") for name, value in numbers.items()}
        sweep.add({"model.beta": beta, "seed": seed}, metrics)
    return collect(sweep.folder)


def test_beta_is_chosen_by_the_bound_and_not_by_a_loss_that_holds_it(betas):
    summary = table(betas, choose=["model.beta"])
    assert summary.selection.by == "validation/elbo_nats"
    assert list(summary.selection.chosen.values()) == [(1.0,)]
    both = extremes(betas, table(betas).metrics)
    assert (both.metric, both.best.values["model.beta"]) == ("validation/elbo_nats", 1.0)


def test_a_loss_that_holds_beta_is_refused_with_what_can_be_pasted(betas):
    with pytest.raises(
        ConfigError, match=r"by=validation/loss: .*model.beta differs; .*--by validation/elbo_nats \(in a"
    ):
        table(betas, choose=["model.beta"], by="validation/loss")
    # within a row all settings have one beta
    assert table(betas, rows=["model.beta"], choose=["optimizer.learning_rate"], by="validation/loss").selection
    # a metric that is named first chooses, where it compares
    summary = table(betas, metrics=["test/loss", "test/reconstruction_mse"], choose=["model.beta"])
    assert summary.selection.by == "validation/reconstruction_mse"


def test_nothing_to_choose_by_is_refused(sweep):
    for beta in (1.0, 4.0):
        sweep.add({"model.beta": beta}, {"validation/loss": beta, "test/loss": beta})
    with pytest.raises(ConfigError, match=r"select=model.beta: no metric .*--rows model.beta"):
        table(collect(sweep.folder), choose=["model.beta"])


def test_a_bound_compares_over_scales_and_a_loss_does_not(sweep):
    sweep.add({"seed": 0}, {"test/loss": 1.0})
    runs = collect(sweep.folder)
    assert {"model.beta", "model.scale", "model.free_bits", "model.capacity", "model.penalty_weight"} <= set(
        comparison_keys("test/loss", runs)
    )
    assert "model.scale" not in comparison_keys("test/elbo_nats", runs)
    assert "model.likelihood" in comparison_keys("test/elbo_nats", runs)
    assert "model.likelihood" not in comparison_keys("test/reconstruction_mse", runs)


def test_a_result_that_does_not_say_compares_its_loss_at_equal_settings_only(sweep):
    for latent_dim, seed in itertools.product((2, 8), range(3)):
        path = sweep.add(
            {"model.latent_dim": latent_dim, "seed": seed},
            {"test/loss": latent_dim, "test/elbo_nats": -latent_dim, "test/reconstruction_mse": latent_dim},
        )
        content = json.loads((path / "result.json").read_text())
        del content["depends"]
        (path / "result.json").write_text(json.dumps(content))
    summary = table(collect(sweep.folder))
    assert best(summary, "test/reconstruction_mse") == [(2,)]
    assert not best(summary, "test/loss")
    assert not best(summary, "test/elbo_nats")


@pytest.fixture
def unequal_folds(sweep):
    """Two latents have folds 0, 1 and 2, eight have the easy fold 0 alone."""
    for latent_dim, fold, seed in itertools.product((2, 8), range(3), range(3)):
        if latent_dim == 2 or fold == 0:
            metrics = {f"{part}/mse": latent_dim / 10 + 10.0 * fold for part in ("validation", "test")}
            sweep.add({"model.latent_dim": latent_dim, "data.fold": fold, "seed": seed}, metrics)
    return collect(sweep.folder)


def test_a_cell_without_all_folds_is_incomplete_and_never_best(unequal_folds):
    summary = table(unequal_folds)
    cell = summary.cells[(8,), (), "test/mse"]
    assert cell.mean < summary.cells[(2,), (), "test/mse"].mean
    assert (cell.lacks, cell.complete, cell.best, cell.second) == (6, False, False, False)
    assert "(incomplete)" in markdown(summary)
    (text,) = [text for text in note_texts(summary) if text.startswith("incomplete: ")]
    assert "never the best: 8 lacks seed=0 data.fold=1, seed=0 data.fold=2, seed=1 data.fold=1 and 3 more." in text
    assert "Bold" not in caption(summary)


def test_a_setting_without_all_folds_is_never_chosen(unequal_folds):
    summary = table(unequal_folds, choose=["model.latent_dim"])
    assert list(summary.selection.chosen.values()) == [(2,)]
    text = (
        "1 setting could not be chosen, because some of its runs did not finish, are absent or have no validation/mse."
    )
    assert text in note_texts(summary)


def test_the_best_run_is_one_of_runs_on_the_same_fold(unequal_folds):
    both = extremes(unequal_folds, ["test/mse"])
    runs = [both.best, both.worst]
    assert len({run.values["data.fold"] for run in runs}) == 1
    assert "among 6 finished runs of 12: others differ in data.fold and are not comparable by it" in both.why


def test_a_seed_that_others_have_is_missed_and_one_that_diverged_everywhere_is_not(sweep):
    for latent_dim, seed in itertools.product((2, 8), range(4)):
        if (latent_dim, seed) != (8, 3):
            status = "diverged" if seed == 3 else "completed"
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, {"test/mse": latent_dim}, status=status)
    summary = table(collect(sweep.folder))
    assert [summary.cells[row, (), "test/mse"].lacks for row in summary.rows] == [0, 0]
    sweep.add({"model.latent_dim": 16, "seed": 7}, {"test/mse": 0.1})
    summary = table(collect(sweep.folder))
    assert [summary.cells[row, (), "test/mse"].lacks for row in summary.rows] == [1, 1, 3]
    assert not best(summary, "test/mse")


@pytest.mark.parametrize(
    ("scaling", "compared"), [("none", True), ("unit", True), ("minmax", False), ("standard", False)]
)
def test_errors_in_units_of_another_scaling_are_not_compared(sweep, scaling, compared):
    for size, seed in itertools.product((30, 1500), range(3)):
        numbers = {"reconstruction_mse": 0.5 / size, "reconstruction_mse_raw": 3000.0 / size, "elbo_nats": -9.0}
        metrics = {f"{part}/{name}": value for part in ("validation", "test") for name, value in numbers.items()}
        sweep.add({"data.train_size": size, "data.scaling": scaling, "seed": seed}, metrics)
    runs = collect(sweep.folder)
    summary = table(runs)
    assert (best(summary, "test/reconstruction_mse") == [(1500,)]) is compared
    assert ("test/reconstruction_mse_raw" in summary.metrics) is not compared
    if not compared:
        assert best(summary, "test/reconstruction_mse_raw") == [(1500,)]
        text = "test/reconstruction_mse and test/elbo_nats are compared only between runs of equal data.train_size."
        assert text in note_texts(summary)
        assert table(runs, choose=["data.train_size"]).selection.by == "validation/reconstruction_mse_raw"
        with pytest.raises(ConfigError, match=r"data.train_size differs; .*--by validation/reconstruction_mse_raw"):
            table(runs, choose=["data.train_size"], by="validation/reconstruction_mse")


def test_scores_of_other_validation_rows_choose_nothing(sweep):
    for share, seed in itertools.product((0.1, 0.5), range(3)):
        metrics = {"validation/accuracy": share, "test/accuracy": share}
        sweep.add({"data.validation_fraction": share, "seed": seed}, metrics)
    runs = collect(sweep.folder)
    assert best(table(runs), "test/accuracy") == [(0.5,)]
    with pytest.raises(ConfigError, match=r"select=data.validation_fraction: no metric"):
        table(runs, choose=["data.validation_fraction"])


def test_a_metric_that_the_table_does_not_have_is_never_bold_and_chooses_nothing(sweep):
    for latent_dim, seed in itertools.product((2, 8), range(3)):
        metrics = {"test/r2": latent_dim / 10, "validation/r2": latent_dim / 10, "test/active_units": latent_dim}
        sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics)
    runs = collect(sweep.folder)
    summary = table(runs, metrics=["test/r2", "test/active_units"])
    assert not any(cell.best or cell.second for cell in summary.cells.values())
    assert "Bold" not in caption(summary)
    assert "r2 ↓" not in markdown(summary)
    with pytest.raises(ConfigError, match=r"by=validation/r2: the table of metrics \(research/metrics.py\)"):
        table(runs, choose=["model.latent_dim"], by="validation/r2")


def depending(runs, **depends):
    return Runs(runs.name, tuple(run.__class__(**{**vars(run), "depends": depends}) for run in runs))


def test_losses_of_a_game_are_never_bold(grid):
    summary = table(depending(collect(grid().folder), loss=("run_id",)))
    assert not any(cell.best for cell in summary.cells.values())
    assert "test/loss: of this model neither low nor high values are better." in note_texts(summary)


def test_likelihoods_of_other_numbers_of_rows_are_not_compared(sweep):
    for latent_dim, seed in itertools.product((2, 8), range(3)):
        path = sweep.add({"model.latent_dim": latent_dim, "seed": seed}, {"test/nll_nats": latent_dim}) / "result.json"
        content = json.loads(path.read_text())
        content["evaluation"] = {"nll_examples": 100 if latent_dim == 2 else None, "pictures": latent_dim == 2}
        content["depends"]["nll_nats"] = ["evaluation.nll_examples"]
        path.write_text(json.dumps(content))
    runs = collect(sweep.folder)
    assert varying(runs) == ["model.latent_dim"]
    assert apart("test/nll_nats", runs) == ["evaluation.nll_examples"]
    summary = table(runs)
    assert not best(summary, "test/nll_nats")
    assert "test/nll_nats is compared only between runs of equal evaluation.nll_examples." in note_texts(summary)


def test_a_choice_of_one_seed_among_several_is_said(sweep):
    for seed in range(3):
        metrics = {"validation/mse": 1.0 + seed, "test/mse": 1.0}
        sweep.add({"seed": seed, "optimizer.learning_rate": 0.1 * (seed + 1)}, metrics)
    summary = table(collect(sweep.folder), choose=["optimizer.learning_rate"])
    warning = "vae has 1 of 3 seeds: a choice among seeds, which flatters the mean."
    assert any(warning in text for text in note_texts(summary))


def test_a_run_without_a_result_separates_no_evaluations(sweep):
    """Its config says nothing of the evaluation, whose settings stand in the results of the other runs."""
    for latent_dim, seed in itertools.product((2, 8), range(3)):
        path = sweep.add({"model.latent_dim": latent_dim, "seed": seed}, {"test/nll_nats": latent_dim}) / "result.json"
        content = json.loads(path.read_text())
        content["evaluation"] = {"nll_examples": 100}
        content["depends"]["nll_nats"] = ["evaluation.nll_examples"]
        path.write_text(json.dumps(content))
    (sweep.add({"model.latent_dim": 16, "seed": 0}) / "result.json").unlink()
    (sweep.add({"model.latent_dim": 16, "seed": 1}) / "result.json").write_text("{")
    summary = table(collect(sweep.folder))
    assert best(summary, "test/nll_nats") == [(2,)]
    assert not any("compared only" in text for text in note_texts(summary))
