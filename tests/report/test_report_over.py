"""Tables whose means are over data sets."""

import re

import numpy as np
import pytest

from research.report.cli import main
from research.report.collect import collect
from research.report.document import caption, provenance
from research.report.duels import duels
from research.report.figures import ranks, scene
from research.report.notes import notes
from research.report.table import table
from research.tree import ConfigError

SETS, SEEDS = "ABCDEFGH", (0, 1, 2)
NAIVE = "baseline/mean_distance/auroc"


def value(name, number, seed):
    """The AUROC of `vae` is above that of `dense_ae` on every set but A, by other amounts than the seeds' spread."""
    gain = {"vae": 0.0 if number == 0 else 0.01 * (number + 1), "dense_ae": 0.0}[name]
    return 0.5 + 0.02 * number + gain + (0.001 * number if name == "dense_ae" and number == 0 else 0) + 0.01 * seed


@pytest.fixture
def sets(sweep):
    """Eight data sets, two models and three seeds, each of which draws the split as well."""

    def make(skip=(), **changes):
        for number, name in enumerate(SETS):
            for model in ("dense_ae", "vae"):
                for seed in SEEDS:
                    if (name, model, seed) in skip:
                        continue
                    metrics = {"test/auroc": value(model, number, seed), NAIVE: 0.45 + 0.02 * number + 0.001 * seed}
                    path = sweep.add({"data.problem": name, "model": model, "seed": seed}, metrics, model=model)
                    config = path / "config.json"
                    config.write_text(config.read_text().replace('"fold": null', f'"fold": null, "split_seed": {seed}'))
                    result = path / "result.json"
                    result.write_text(result.read_text().replace("0123456789abcdef", f"{number:04d}456789abcdef"))
        return sweep

    return make


def summary(sweep, over=("data.problem",), **keys):
    return table(collect(sweep.folder), ["model"], metrics=["test/auroc"], over=over, **keys)


def test_every_data_set_counts_once(sets):
    shown = summary(sets())
    for model in ("dense_ae", "vae"):
        cell = shown.cells[(model,), (), "test/auroc"]
        means = [np.mean([value(model, number, seed) for seed in SEEDS]) for number in range(8)]
        assert cell.n == 8
        assert cell.mean == pytest.approx(np.mean(means))
        assert cell.sd == pytest.approx(np.std(means, ddof=1))
        assert cell.seeds[("C",)] == pytest.approx(means[2])
    text = caption(shown)
    assert "mean ± standard deviation (n-1) over data.problem (8 values), each the mean over seed (3 values)" in text
    (naive,) = shown.baselines
    assert naive.cells[(), "test/auroc"] == pytest.approx(0.45 + 0.07 + 0.001)
    assert not [text for _, text in notes(shown) if "means are also over" in text or "compared only" in text]


def test_a_seed_that_is_missing_does_not_change_the_weight_of_its_data_set(sets):
    cell = summary(sets(skip={("H", "vae", 0), ("H", "vae", 1)})).cells[("vae",), (), "test/auroc"]
    means = [np.mean([value("vae", number, seed) for seed in SEEDS]) for number in range(7)]
    assert cell.mean == pytest.approx(np.mean([*means, value("vae", 7, 2)]))
    assert not cell.complete
    assert cell.lacks == 2


def test_a_row_without_a_data_set_is_never_the_best(sets):
    cell = summary(sets(skip={("A", "vae", seed) for seed in SEEDS})).cells[("vae",), (), "test/auroc"]
    assert (cell.n, cell.lacks, cell.best) == (7, 3, False)


def test_a_seed_that_also_draws_the_split_is_missed_in_a_cell_without_it(sweep):
    for model, seeds in (("dense_ae", (0, 1, 2)), ("vae", (0, 1))):
        for seed in seeds:
            path = sweep.add({"model": model, "seed": seed}, {"test/auroc": 0.5}, model=model) / "config.json"
            path.write_text(path.read_text().replace('"fold": null', f'"fold": null, "split_seed": {seed}'))
    cells = table(collect(sweep.folder), ["model"], metrics=["test/auroc"]).cells
    assert [cell.lacks for cell in cells.values()] == [0, 1]


def test_without_over_the_keys_are_warned_of_and_the_split_seed_is_not(sets):
    shown = summary(sets(), over=())
    (warning,) = [text for _, text in notes(shown) if "means are also over" in text]
    assert "data.problem" in warning
    assert "split_seed" not in warning


def test_rows_are_tested_over_data_sets(sets):
    """Six sets are needed: vae is better on seven, dense_ae on none, and all three pairs are corrected for."""
    shown = summary(sets())
    judged = shown.judged[(), "test/auroc"]
    duel = judged.duels[("vae",), ("dense_ae",)]
    assert (duel.better, duel.worse, duel.n) == (7, 0, 8)
    # W = 35.5 of 36: one zero shares its rank. Below 5 % after the correction.
    assert duel.p < 0.05
    assert judged.seeds == (8, 8)
    assert shown.cells[("vae",), (), "test/auroc"].best
    assert not shown.cells[("dense_ae",), (), "test/auroc"].best
    assert "Wilcoxon's signed-rank test of every pair over data.problem" in caption(shown)
    (text,) = [text for _, text in notes(shown) if text.startswith("test/auroc, Wilcoxon")]
    assert "over 8 values of data.problem with Holm's correction for 3 pairs" in text
    assert "dense_ae better than vae on 0, worse on 7" in text
    assert "vae better than distance to the mean on 8, worse on 0" in text


def test_duels_by_hand():
    """Five equal signs have p = 2 / 2^5; two of three pairs are alike, so Holm's factors are 3, 2 and 1."""
    low, high = dict(enumerate([1.0, 2, 3, 4, 5])), dict(enumerate([1.1, 2.2, 3.3, 4.4, 5.5]))
    (there, back) = (duels({"a": low, "b": high}, "higher")[pair] for pair in (("a", "b"), ("b", "a")))
    assert (there.better, there.worse, there.leads, there.p) == (0, 5, False, pytest.approx(1 / 16))
    assert (back.better, back.worse, back.leads, back.p) == (5, 0, True, pytest.approx(1 / 16))
    assert duels({"a": low, "b": high}, "lower")["a", "b"].leads
    assert (there.second_is_worse.p, back.second_is_worse.p) == (1, pytest.approx(1 / 16))
    three = duels({"a": low, "b": high, "c": low}, "higher")
    assert three["a", "b"].p == pytest.approx(3 / 16)
    assert three["b", "c"].p == pytest.approx(3 / 16)
    assert (three["a", "c"].p, three["a", "c"].better, three["a", "c"].worse) == (1, 0, 0)
    assert duels({"a": low, "b": dict(list(high.items())[:4])}, "higher") == {}
    assert duels({"a": low}, "higher") == {}


def test_sets_without_a_difference_speak_for_neither_row():
    """Ranks are 1 to 40. Half of those of 32 zeros speak for each row, 264, and all others for a: z = 146 / 69.6."""
    b = dict.fromkeys(range(40), 0.0)
    duel = duels({"a": b | {number: number + 1.0 for number in range(8)}, "b": b}, "higher")["a", "b"]
    assert (duel.better, duel.worse) == (8, 0)
    assert duel.p == pytest.approx(0.036, abs=1e-3)


def test_large_differences_of_few_sets_do_not_decide():
    a, b = dict(enumerate([0.0] * 10)), dict(enumerate([-1.0] * 9 + [100]))
    assert duels({"a": a, "b": b}, "higher")["a", "b"].leads


def test_a_key_that_is_a_row_is_not_averaged_over(sets):
    shown = table(collect(sets().folder), ["data.problem", "model"], metrics=["test/auroc"], over=["data.problem"])
    assert shown.averaging.over == ()
    assert {cell.n for cell in shown.cells.values()} == {3}


def test_naive_methods_take_part_in_ranks(sets):
    sweep = sets()
    (plan,) = ranks.critical_difference(scene.Scene(summary(sweep), sweep.folder, print))
    caption = plan().caption
    assert "3 methods over 8 data sets" in caption
    assert "distance to the mean 3.00" in caption
    with pytest.raises(scene.UnfitError, match="2 methods"):
        ranks.critical_difference(scene.Scene(summary(sweep, over=()), sweep.folder, print))


def test_a_naive_method_of_several_sizes_is_no_single_method(sweep):
    for number, name in enumerate(SETS):
        for size in (2, 8):
            metrics = {"test/auroc": 0.5 + size / 100 + number / 1000, "baseline/pca_residual/auroc": size / 10}
            sweep.add({"data.problem": name, "model.latent_dim": size}, metrics | {NAIVE: 0.4})
    shown = table(collect(sweep.folder), ["model.latent_dim"], metrics=["test/auroc"], over=["data.problem"])
    assert {name for pair in shown.judged[(), "test/auroc"].duels for name in pair} == {(2,), (8,), "mean_distance"}


def test_the_command_takes_the_keys(sets, capsys):
    folder = sets().folder
    assert main([str(folder), "--rows", "model", "--over", "data.problem", "--format", "markdown"]) == 0
    assert "over data.problem (8 values)" in capsys.readouterr().out
    assert main([str(folder), "--over", "data.problm"]) == 2
    assert "over=data.problm: no run has this key (did you mean 'data.problem'?)" in capsys.readouterr().err


def test_an_unknown_key_is_refused(sets):
    with pytest.raises(ConfigError, match=r"over=data\.problm"):
        summary(sets(), over=("data.problm",))


def test_many_hashes_of_data_are_one(sweep):
    for number in range(11):
        path = sweep.add({"data.problem": str(number)}, {"test/auroc": 0.5}) / "result.json"
        path.write_text(path.read_text().replace("0123456789abcdef", f"{number:04d}456789abcdef"))
    shown = provenance(table(collect(sweep.folder), ["model"], over=["data.problem"]))
    assert re.search(r"data sha256 [0-9a-f]{12} of 11;", shown)
