import itertools
import json

import numpy as np
import pytest

from research.report.collect import Hole, collect
from research.report.document import caption, provenance
from research.report.notes import merged, notes
from research.report.table import table
from research.tree import ConfigError


def cells(summary, metric):
    """Row values -> cell, of a table without columns."""
    return {row: summary.cells[row, (), metric] for row in summary.rows}


def test_mean_and_sd_over_seeds(sweep):
    numbers = {2: [3.0, 4.5, 9.25], 8: [1.0, 1.5, 0.25]}
    for latent_dim, losses in numbers.items():
        for seed, loss in enumerate(losses):
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, {"test/loss": loss})
    summary = table(collect(sweep.folder))
    assert summary.row_keys == ("model.latent_dim",)
    assert summary.rows == ((2,), (8,))
    assert summary.n == 3
    for (latent_dim,), cell in cells(summary, "test/loss").items():
        assert cell.mean == pytest.approx(np.mean(numbers[latent_dim]), rel=1e-12)
        assert cell.sd == pytest.approx(np.std(numbers[latent_dim], ddof=1), rel=1e-12)
        assert len(cell.runs) == 3
    assert "mean ± standard deviation (n-1) over seed (3 values); n=3" in caption(summary)


def test_folds_are_averaged_before_seeds(sweep):
    losses = np.random.default_rng(0).normal(size=(3, 4))
    for seed in range(3):
        for fold in range(4):
            sweep.add({"seed": seed, "data.fold": fold}, {"test/loss": losses[seed, fold]})
    summary = table(collect(sweep.folder))
    (cell,) = cells(summary, "test/loss").values()
    assert cell.n == 3
    assert cell.sd == pytest.approx(losses.mean(1).std(ddof=1), rel=1e-12)
    assert "over seed (3 values), each the mean over data.fold (4 values)" in caption(summary)


def test_one_seed_is_summarized_over_its_folds(sweep):
    for fold, loss in enumerate([1.0, 2.0, 6.0]):
        sweep.add({"seed": 5, "data.fold": fold}, {"test/loss": loss})
    summary = table(collect(sweep.folder))
    (cell,) = cells(summary, "test/loss").values()
    assert (cell.n, cell.mean, cell.sd) == (3, 3.0, pytest.approx(np.std([1, 2, 6], ddof=1)))
    assert "over data.fold (3 values) at the one seed 5" in caption(summary)


def test_a_seed_that_lacks_a_fold_is_left_out_and_counted(sweep):
    for seed in range(3):
        for fold in range(2):
            status = "diverged" if (seed, fold) == (1, 1) else "completed"
            sweep.add({"seed": seed, "data.fold": fold}, {"test/loss": 10.0 * fold + seed}, status=status)
    (cell,) = cells(table(collect(sweep.folder)), "test/loss").values()
    assert (cell.n, cell.mean, cell.partial, cell.counts["diverged"], cell.complete) == (2, 6.0, 1, 1, False)


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted", "pruned"])
def test_runs_that_did_not_finish_are_counted_and_not_averaged(sweep, status):
    sweep.add({"seed": 0}, {"test/loss": 1.0})
    sweep.add({"seed": 1}, {"test/loss": 2.0}, status="stopped")
    sweep.add({"seed": 2}, {"test/loss": 900.0}, status=status, reason="first bad step 12")
    (cell,) = cells(table(collect(sweep.folder)), "test/loss").values()
    assert (cell.mean, cell.n, cell.counts) == (1.5, 2, {"completed": 1, "stopped": 1, status: 1})
    assert cell.reasons == {status: ("first bad step 12",)}


def test_best_in_both_directions_among_complete_cells_only(sweep):
    for latent_dim, loss, accuracy in ((2, 3.0, 0.9), (4, 2.0, 0.6), (8, 1.0, 0.7), (16, 0.1, 0.99)):
        for seed in range(3):
            status = "diverged" if (latent_dim, seed) == (16, 1) else "completed"
            metrics = {"test/loss": loss, "test/knn_accuracy": accuracy, "test/kl_nats": loss}
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics, status=status)
    summary = table(collect(sweep.folder))
    best = {metric: [row for row, cell in cells(summary, metric).items() if cell.best] for metric in summary.metrics}
    assert best == {"test/loss": [(8,)], "test/knn_accuracy": [(2,)], "test/kl_nats": []}


def test_losses_of_another_beta_are_not_compared_but_errors_are(sweep):
    for beta in (1.0, 4.0):
        for latent_dim, seed in itertools.product((2, 8), range(3)):
            metrics = {"test/loss": beta * latent_dim, "test/reconstruction_mse": beta * latent_dim}
            sweep.add({"model.latent_dim": latent_dim, "model.beta": beta, "seed": seed}, metrics)
    summary = table(collect(sweep.folder))
    assert [row for row, cell in cells(summary, "test/loss").items() if cell.best] == [(2, 1.0), (2, 4.0)]
    assert [row for row, cell in cells(summary, "test/reconstruction_mse").items() if cell.best] == [(2, 1.0)]
    assert ("", "test/loss is compared only between runs of equal model.beta.") in notes(summary)


def test_columns_have_their_own_best_and_unplanned_cells_are_empty(sweep):
    for latent_dim, rate, loss in ((2, 0.1, 1.0), (2, 0.2, 5.0), (4, 0.1, 2.0), (4, 0.2, 4.0), (8, 0.1, 3.0)):
        for seed in range(3):
            overrides = {"model.latent_dim": latent_dim, "optimizer.learning_rate": rate, "seed": seed}
            sweep.add(overrides, {"test/loss": loss})
    summary = table(collect(sweep.folder), columns=["optimizer.learning_rate"])
    assert summary.row_keys == ("model.latent_dim",)
    assert {place[:2] for place, cell in summary.cells.items() if cell.best} == {((2,), (0.1,)), ((4,), (0.2,))}
    assert ((8,), (0.2,), "test/loss") not in summary.cells


def test_rows_are_what_was_chosen_and_not_what_follows_from_it(sweep):
    sweep.add({"model": "dense_ae"}, {"test/loss": 1}, model="dense_ae")
    sweep.add({"model": "vae"}, {"test/loss": 1, "test/kl_nats": 2})
    summary = table(collect(sweep.folder))
    assert summary.row_keys == ("model",)
    assert summary.rows == (("dense_ae",), ("vae",))
    assert summary.cells[("dense_ae",), (), "test/kl_nats"].absent == 1


def test_averaging_over_another_key_is_warned_of(sweep):
    for latent_dim in (2, 8):
        for beta in (1.0, 4.0):
            sweep.add({"model.latent_dim": latent_dim, "model.beta": beta}, {"test/loss": beta})
    summary = table(collect(sweep.folder), rows=["model.latent_dim"])
    assert summary.n == 2
    assert "over model.beta (2 values)" in caption(summary)
    assert any(text.startswith("Warning") and "model.beta" in text for _, text in notes(summary))


def test_null_metrics_leave_the_mean_with_their_reason(sweep):
    sweep.add({"seed": 0}, {"test/knn_accuracy": 0.5})
    sweep.add({"seed": 1}, {"test/knn_accuracy": None}, null_reasons={"test/knn_accuracy": "one class only"})
    summary = table(collect(sweep.folder))
    (cell,) = cells(summary, "test/knn_accuracy").values()
    assert (cell.n, cell.mean, cell.sd, cell.nulls, cell.complete) == (1, 0.5, None, {"one class only": 1}, False)
    assert ("1", "test/knn_accuracy is null: one class only.") in notes(summary)


def test_pca_rows_follow_the_latent_size_and_mark_what_is_worse(sweep):
    pca = {2: 0.05, 8: 0.02}
    for beta, error in ((1.0, 0.04), (4.0, 0.01)):
        for latent_dim in (2, 8):
            for seed in range(2):
                exact = {"baseline/pca/reconstruction_mse": pca[latent_dim], "reference/elbo_nats": -3.0}
                metrics = {"test/reconstruction_mse": error, "test/elbo_nats": -9.0, **exact}
                sweep.add({"model.latent_dim": latent_dim, "model.beta": beta, "seed": seed}, metrics)
    summary = table(collect(sweep.folder))
    rows = [(baseline.label, baseline.row, dict(baseline.cells)) for baseline in summary.baselines]
    assert rows == [
        ("PCA", (2, Hole.ANY), {((), "test/reconstruction_mse"): 0.05}),
        ("PCA", (8, Hole.ANY), {((), "test/reconstruction_mse"): 0.02}),
        ("exact", (Hole.ANY, Hole.ANY), {((), "test/elbo_nats"): -3.0}),
    ]
    worse = {row: cell.worse for row, cell in cells(summary, "test/reconstruction_mse").items() if cell.worse}
    assert worse == {(8, 1.0): "pca"}
    assert not any(cell.worse for cell in cells(summary, "test/elbo_nats").values())
    assert ("†", "worse than PCA at the same latent size.") in notes(summary)


def test_baselines_of_folds_count_each_fold_once(sweep):
    for seed, folds in ((0, (0, 1)), (1, (0,))):
        for fold in folds:
            metrics = {"test/reconstruction_mse": 1.0, "baseline/pca/reconstruction_mse": [2.0, 4.0][fold]}
            sweep.add({"seed": seed, "data.fold": fold}, metrics)
    (baseline,) = table(collect(sweep.folder)).baselines
    assert list(baseline.cells.values()) == [3.0]


def test_baselines_that_are_drawn_with_the_seed_still_have_one_row(sweep):
    for latent_dim in (2, 8):
        for seed in range(2):
            metrics = {"test/classifier_score": 0.3, "baseline/shuffled/classifier_score": 0.4 + 0.02 * seed}
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics)
    (baseline,) = table(collect(sweep.folder)).baselines
    assert (baseline.row, baseline.label) == ((Hole.ANY,), "shuffled in time")
    assert list(baseline.cells.values()) == [pytest.approx(0.41)]


def test_a_mean_is_marked_once_and_the_note_names_the_best_naive_row(sweep):
    naive = {"repeat_last": (0.6, 2.0), "seasonal_naive": (0.5, 1.0), "linear": (0.4, 1.5)}
    exact = {f"baseline/{method}/mse": mse for method, (mse, _) in naive.items()}
    exact |= {f"baseline/{method}/mase": mase for method, (_, mase) in naive.items()}
    sweep.add({"model.latent_dim": 2}, {"test/mse": 0.7, "test/mase": 1.2, "test/mae": 9.0, **exact})
    sweep.add({"model.latent_dim": 4}, {"test/mse": 0.45, "test/mase": 0.9, "test/mae": 9.0, **exact})
    sweep.add({"model.latent_dim": 8}, {"test/mse": 0.3, "test/mase": 1.0, "test/mae": 9.0, **exact})
    summary = table(collect(sweep.folder))
    worse = {metric: {row[0]: cell.worse for row, cell in cells(summary, metric).items()} for metric in summary.metrics}
    assert worse == {
        "test/mse": {2: "linear", 4: "linear", 8: None},
        "test/mae": {2: None, 4: None, 8: None},  # no naive row has it
        "test/mase": {2: "seasonal_naive", 4: None, 8: None},
    }
    text = "worse than the best naive row: seasonal naive for test/mase; one linear layer for test/mse."
    assert ("†", text) in notes(summary)
    labels = [baseline.label for baseline in summary.baselines]
    assert labels == ["repeat last", "seasonal naive", "one linear layer"]


def test_what_real_data_score_is_a_bound_and_marks_nothing(sweep):
    metrics = {"test/classifier_score": 0.3, "test/diversity": 0.1, "test/memorization": 0.9}
    bounds = {"baseline/real_vs_real/classifier_score": 0.01, "baseline/real/predictive_score": 0.02}
    undirected = {"baseline/shuffled/diversity": 0.9, "baseline/shuffled/memorization": 0.5}
    exact = {"reference/classifier_score": 0.0}
    sweep.add({"seed": 0}, {**metrics, "test/predictive_score": 0.2, **bounds, **undirected, **exact})
    summary = table(collect(sweep.folder))
    assert not any(cell.worse for cell in summary.cells.values())
    labels = [baseline.label for baseline in summary.baselines]
    assert labels == ["shuffled in time", "real data", "real against real", "exact"]
    assert ("", "real data and real against real: the score of real data, a bound and not a floor.") in notes(summary)
    assert ("", "shuffled in time and exact: computed from the data without training.") in notes(summary)


@pytest.mark.parametrize(
    ("collapsed", "text"), [((1, 1), "1 of 3 runs"), ((1, 2), "some runs"), ((0, 3), "3 of 3 runs")]
)
def test_collapsed_runs_are_marked_and_counted(sweep, collapsed, text):
    for latent_dim, count in zip((2, 8), collapsed, strict=True):
        for seed in range(3):
            metrics = {"test/elbo_nats": -3.0, "test/collapsed": float(seed < count)}
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics)
    sweep.add({"model.latent_dim": 8, "seed": 3}, {"test/collapsed": 1.0}, status="diverged")  # is in no mean
    summary = table(collect(sweep.folder))
    for metric in ("test/elbo_nats",):
        assert [(cell.collapsed, cell.averaged) for cell in cells(summary, metric).values()] == [
            (count, 3) for count in collapsed
        ]
    assert ("‡", f"{text} collapsed: the decoder ignores its code.") in notes(summary)


def test_no_collapse_no_note(sweep):
    sweep.add({"seed": 0}, {"test/elbo_nats": -3.0, "test/collapsed": 0.0})
    assert not any("collapsed" in text for _, text in notes(table(collect(sweep.folder))))


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ("loss cross_entropy accuracy", "accuracy cross_entropy"),
        ("loss mse mae", "mse mae"),
        ("mase smape loss mae mse", "mse mae smape mase"),
        ("loss generator_loss discriminator_loss discriminator_accuracy", "loss"),
        (
            "loss generator_loss memorization diversity classifier_score predictive_score discriminative_score",
            "discriminative_score predictive_score classifier_score diversity memorization",
        ),
        ("loss reconstruction_mse elbo_nats kl_nats collapsed", "loss reconstruction_mse elbo_nats kl_nats"),
        (
            "loss reconstruction_mse silhouette cluster_accuracy rand_index nmi ari clusters",
            "loss reconstruction_mse ari nmi rand_index cluster_accuracy silhouette",
        ),
        ("loss reconstruction_mse auroc precision", "loss reconstruction_mse auroc"),
        ("gradient_reach", "gradient_reach"),
    ],
)
def test_the_columns_of_every_family_say_what_matters(sweep, reported, shown):
    sweep.add({"seed": 0}, {f"test/{name}": 1.0 for name in reported.split()})
    assert [metric.removeprefix("test/") for metric in table(collect(sweep.folder)).metrics] == shown.split()


def test_the_loss_stays_where_some_run_has_nothing_else(sweep):
    sweep.add({"model": "vae"}, {"test/loss": 1.0})
    sweep.add({"model": "predictor"}, {"test/loss": 1.0, "test/mse": 1.0}, model="predictor")
    assert table(collect(sweep.folder)).metrics == ("test/loss", "test/mse")


def test_metrics_of_other_data_are_not_compared_and_said_so_once(sweep):
    for horizon in (96, 192):
        for latent_dim, seed in itertools.product((2, 8), range(3)):
            metrics = {"test/mse": horizon / latent_dim, "test/mae": horizon / latent_dim, "test/diversity": 1.0}
            sweep.add({"data.horizon": horizon, "model.latent_dim": latent_dim, "seed": seed}, metrics)
    summary = table(collect(sweep.folder), rows=["data.horizon", "model.latent_dim"])
    assert [row for row, cell in cells(summary, "test/mse").items() if cell.best] == [(96, 8), (192, 8)]
    assert [text for _, text in notes(summary)] == [
        "test/mse and test/mae are compared only between runs of equal data.horizon."
    ]


def test_the_number_of_training_rows_does_not_keep_runs_from_being_compared(sweep):
    for size, seed in itertools.product((100, 1000), range(3)):
        sweep.add({"data.train_size": size, "seed": seed}, {"test/mse": 1 / size})
    assert [row for row, cell in cells(table(collect(sweep.folder)), "test/mse").items() if cell.best] == [(1000,)]


@pytest.mark.parametrize("key", ["objective", "game"])
def test_losses_of_another_objective_are_not_compared(sweep, key):
    for value, seed in itertools.product(("one", "other"), range(3)):
        sweep.add({f"model.{key}": value, "seed": seed}, {"test/loss": len(value)})
    assert not any(cell.best for cell in table(collect(sweep.folder)).cells.values())


def test_unknown_names_are_refused_with_the_nearest(grid):
    runs = collect(grid().folder)
    with pytest.raises(ConfigError, match=r"rows=model.latent_dims: .*'model.latent_dim'"):
        table(runs, rows=["model.latent_dims"])
    with pytest.raises(ConfigError, match=r"metrics=test/los: .*'test/loss'"):
        table(runs, metrics=["test/los"])
    with pytest.raises(ConfigError, match="also a row"):
        table(runs, rows=["seed"], columns=["seed"])


def test_provenance_counts_runs_and_names_data_code_and_mode(grid):
    sweep = grid()
    sweep.add({"model.latent_dim": 8, "seed": 3}, written=False)
    text = provenance(table(collect(sweep.folder)))
    assert "7 runs: 6 completed, 1 missing" in text
    assert "data sha256 0123456789ab;" in text
    assert "commit c0ffee" in text
    assert "mode vmap on cpu" in text
    assert "newest result 2" in text


def test_provenance_names_uncommitted_code_and_the_code_of_a_later_evaluation(grid):
    sweep = grid()
    paths = sorted(sweep.folder.glob("*/result.json"))
    for path, more in zip(paths, [{"evaluation_commit": "b" * 40 + "+"}, {}, *[{}] * len(paths)], strict=False):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "a" * 40 + "+"} | more))
    text = provenance(table(collect(sweep.folder)))
    assert f"; commit {'a' * 12}+, evaluated again by {'b' * 12}+; mode" in text


def test_reasons_that_differ_in_a_number_are_merged():
    assert merged(["step 20", "step 3", "full disk", "step 3"]) == ["step 3 to 20", "full disk"]


def test_every_unreadable_file_is_named_and_other_reasons_are_cut(sweep):
    for seed in range(8):
        sweep.add({"seed": seed}, status="failed", reason="disk " + "x" * (seed + 1))
        broken = sweep.add({"seed": seed, "model.beta": 2.0})
        (broken / "result.json").write_text("{")
    texts = [text for _, text in notes(table(collect(sweep.folder)))]
    (unreadable,) = [text for text in texts if "unreadable" in text]
    assert all(f"seed={seed},model.beta=2.0/result.json" in unreadable for seed in range(8))
    assert any("8 runs failed: disk x;" in text and "3 more reasons" in text for text in texts)


def baseline_notes(sweep, **options):
    summary = table(collect(sweep.folder), **options)
    return [text for _, text in notes(summary) if "is missing beside" in text]


def test_a_baseline_that_some_rows_lack_is_said_with_the_reason(sweep):
    name = "baseline/pca/reconstruction_mse"
    for latent_dim, seed in itertools.product((2, 8, 16, 32), range(2)):
        metrics = {"test/reconstruction_mse": 1.0, "baseline/mean/reconstruction_mse": 3.0, name: 2.0 / latent_dim}
        reasons = {}
        if latent_dim == 8:
            metrics[name] = None
            reasons[name] = "too few rows for 8 components"
        if latent_dim == 16 and seed == 0:
            del metrics[name]
        status = "diverged" if latent_dim == 32 else "completed"
        metrics = {} if latent_dim == 32 else metrics
        sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics, status=status, null_reasons=reasons)
    of_pca = "PCA for test/reconstruction_mse is missing beside"
    assert baseline_notes(sweep) == [
        f"{of_pca} 8: too few rows for 8 components.",
        f"{of_pca} 16: it is not in the results of some of the runs.",
        f"{of_pca} 32: none of the runs finished.",
    ]


def test_a_baseline_that_no_run_has_is_said_once_and_one_that_all_rows_share_is_not(sweep):
    name = "baseline/pca/reconstruction_mse"
    for latent_dim in (2, 4, 8):
        metrics = {"test/reconstruction_mse": 1.0, "baseline/mean/reconstruction_mse": 3.0, name: None}
        sweep.add({"model.latent_dim": latent_dim}, metrics, null_reasons={name: "rows have missing values"})
    sweep.add({"model.latent_dim": 16}, status="failed")  # the mean of the data is the same beside this row
    text = "PCA for test/reconstruction_mse is missing beside 2; 4; 8: rows have missing values."
    assert baseline_notes(sweep) == [text]


def test_a_baseline_of_another_kind_of_model_is_not_missed(sweep):
    exact = {"reference/elbo_nats": -3.0, "baseline/majority/accuracy": 0.1}
    sweep.add({"model": "vae", "data.name": "planted"}, {"test/elbo_nats": -9.0, "test/accuracy": 0.5, **exact})
    sweep.add({"model": "dense_ae", "data.name": "planted"}, {"test/reconstruction_mse": 1.0}, model="dense_ae")
    sweep.add({"model": "vae", "data.name": "measured"}, {"test/elbo_nats": -9.0})  # data without an exact bound
    assert baseline_notes(sweep, metrics=["test/elbo_nats", "test/accuracy", "test/reconstruction_mse"]) == []
