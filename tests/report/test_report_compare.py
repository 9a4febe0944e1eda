"""Which rows are bold: planted effects are found, and chance alone seldom makes a winner."""

import numpy as np
import pytest
from scipy import stats

from research.report.collect import Run, Runs, collect
from research.report.document import caption
from research.report.notes import notes
from research.report.table import table


def runs_of(numbers, name="planted"):
    """A sweep with a row for each model.latent_dim and a run for each seed: numbers [rows, seeds]."""
    records = [
        Run(
            f"{row}-{seed}",
            "completed",
            values={"model": "vae", "model.latent_dim": row, "data": "digits", "seed": seed},
            metrics={"test/mse": float(value)},
        )
        for row, values in enumerate(numbers)
        for seed, value in enumerate(values)
    ]
    return Runs(name, tuple(records))


def bold(numbers):
    summary = table(runs_of(numbers))
    return [row[0] for row in summary.rows if summary.cells[row, (), "test/mse"].best]


def test_chance_alone_makes_a_single_winner_no_more_often_than_stated():
    """The rates of the tests themselves are in test_report_statistics.py; here marks of whole tables are counted."""
    random = np.random.default_rng(2)
    single = sum(len(bold(random.normal(size=(2, 5)))) == 1 for _ in range(200))
    assert single <= stats.binom.ppf(0.99, 200, 0.05)  # the rate for two rows is exactly 5 %


def test_an_effect_of_two_standard_deviations_is_found():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        numbers = random.normal(size=(4, 10))
        numbers[1] -= 2  # lower is better
        hits += bold(numbers) == [1]
    assert hits >= 32


def test_seeds_that_all_rows_share_do_not_hide_an_effect():
    random = np.random.default_rng(0)
    seeds = 5 * random.normal(size=10)  # every row is worse for the same seeds
    numbers = np.stack([seeds, seeds + 0.5, seeds - 0.5]) + 0.1 * random.normal(size=(3, 10))
    assert bold(numbers) == [2]


def test_a_mean_that_is_not_significantly_worse_is_bold_too():
    shared = [
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [1.4, 1.7, 3.4, 3.9, 5.2],
        [9.0, 10.1, 11.0, 12.2, 13],
        [5.0, 6.3, 7.0, 8.2, 9],
    ]
    summary = table(runs_of(shared))
    cells = [summary.cells[row, (), "test/mse"] for row in summary.rows]
    assert [cell.best for cell in cells] == [True, True, False, False]
    assert [cell.second for cell in cells] == [False, True, False, False]
    assert cells[0].p is None  # nothing to test it against
    assert cells[1].p > 0.05 > cells[2].p > 0
    text = "Bold: the best mean of a column among cells all of whose runs finished, and all that are not significantly"
    text += (
        " worse (n=5; both by a paired t test with Holm's correction for up to 3 rows and by permuting the rows within"
    )
    assert f"{text} the seeds, 5 %, two-sided). Underlined: the second best mean." in caption(summary)


def test_below_five_seeds_the_best_alone_is_bold_and_no_test_is_made():
    summary = table(runs_of([[0.5, 0.51, 0.49], [0.16, 0.15, 0.17], [0.096, 0.096, 0.096], [0.08, 0.079, 0.081]]))
    cells = [summary.cells[row, (), "test/mse"] for row in summary.rows]
    assert [cell.best for cell in cells] == [False, False, False, True]
    assert [cell.p for cell in cells] == [None] * 4
    text = "Bold: the best mean of a column among cells all of whose runs finished. There is no test with 3 seeds"
    assert f"{text}: it needs 5 that all rows have. Underlined: the second best mean." in caption(summary)


def test_a_row_of_too_few_seeds_is_neither_best_nor_compared():
    summary = table(runs_of([[1.0, 1.1], [7.0, 7.1, 7.2], [8.0, 8.1, 8.2]]))
    # the best mean rests on two seeds of three: it is incomplete, and is not called best
    assert [summary.cells[row, (), "test/mse"].best for row in summary.rows] == [False, True, False]
    summary = table(runs_of([[7.0, 7.1, 7.2], [8.0, 8.1], [8.5, 8.2, 9.9]]))
    assert [summary.cells[row, (), "test/mse"].best for row in summary.rows] == [True, False, False]
    text = "incomplete: without the seeds or folds of other cells, and never the best: 1 lacks seed=2."
    assert ("", text) in notes(summary)


def test_equal_means_without_a_test_are_bold_together():
    assert bold([[8.0, 8.0, 8.0], [8.0, 8.0, 8.0], [9.0, 9.0, 9.0]]) == [0, 1]


def test_the_order_of_seeds_breaks_no_tie():
    rows = [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.9, 0.9, 0.9]]
    assert np.mean(rows[0]) != np.mean(rows[1])
    assert bold(rows) == [0, 1]


@pytest.mark.parametrize(
    ("numbers", "second"),
    [([1.0, 1.0, 3.0], []), ([1.0, 2.0, 2.0], [1, 2]), ([1.0, 2.0, 3.0], [1]), ([1.0, 2.0], []), ([1.0, 1.0, 1.0], [])],
)
def test_the_second_best_mean_is_no_equal_of_the_best(numbers, second):
    summary = table(runs_of([[number] * 3 for number in numbers]))
    assert [at for at, row in enumerate(summary.rows) if summary.cells[row, (), "test/mse"].second] == second


def test_a_row_of_too_few_seeds_is_not_tested():
    summary = table(runs_of([[7.0, 7.1, 7.2, 7.05, 7.15], [8.0, 8.1], [8.5, 6.2, 9.9, 6.5, 9.0]]))
    assert [summary.cells[row, (), "test/mse"].best for row in summary.rows] == [True, False, True]
    assert summary.cells[summary.rows[1], (), "test/mse"].p is None


def test_folds_of_one_seed_are_no_independent_numbers(sweep):
    for latent_dim in (2, 8):
        for fold in range(5):
            sweep.add({"model.latent_dim": latent_dim, "data.fold": fold}, {"test/mse": latent_dim + fold / 10})
    summary = table(collect(sweep.folder))
    assert summary.n == 5
    assert [summary.cells[row, (), "test/mse"].best for row in summary.rows] == [True, False]
    assert "There is no test with 1 seed" in caption(summary)
    assert any("folds of one seed are not independent" in text for _, text in notes(summary))


def test_tests_see_the_mean_over_the_folds_of_every_seed(sweep):
    random = np.random.default_rng(0)
    for latent_dim in (2, 8):
        for seed in range(6):
            for fold in range(3):
                overrides = {"model.latent_dim": latent_dim, "seed": seed, "data.fold": fold}
                sweep.add(overrides, {"test/mse": latent_dim + random.normal()})
    summary = table(collect(sweep.folder))
    assert summary.judged[(), "test/mse"].seeds == (6, 6)
