"""How stable codes are over seeds: which runs are compared, what tables and figures show, what has no number."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from matplotlib.image import imread

from research.api.sweeps import Sweep
from research.app import show_table
from research.evaluation.similarity import between, linear_cka, mean_cca, mean_of_pairs, prepared
from research.report.again import dataset_of
from research.report.cli import main
from research.report.collect import collect
from research.report.figures.scene import Scene, UnfitError
from research.report.figures.stability import code_stability
from research.report.notes import notes
from research.report.stability import compared
from research.report.table import table
from research.runs.load import load

from .kept import SHORT, write_runs

CKA, CCA = "test/code_cka", "test/code_cca"
ERROR = {"test/reconstruction_mse": 0.1, "validation/reconstruction_mse": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four seeds of an autoencoder that ended where they started."""
    path = tmp_path_factory.mktemp("seeds")
    return write_runs(
        path, ("dense_ae", {"latent_dim": 2, "hidden_dims": []}), ("digits", SHORT), dict.fromkeys(range(4), ERROR)
    )


@pytest.fixture(scope="module")
def runs(folder):
    return compared(collect(folder), folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_the_codes_are_those_of_loaded_runs_on_the_test_rows(folder, runs):
    parts, _ = dataset_of(folder, runs.records[0], lambda _, read: read())
    loaded = [load(folder / run.run_id) for run in runs]
    x = loaded[0].preparation.restore(loaded[0].preparation.raw(parts["test"].x))
    assert len(x) == 40
    codes = [prepared(run.encode(x)) for run in loaded]
    for name, measure in ((CKA, linear_cka), (CCA, mean_cca)):
        expected = between(measure, codes)
        for at, run in enumerate(runs):
            others = [run.similar[name][other.run_id] for other in runs if other is not run]
            np.testing.assert_allclose(others, np.delete(expected[at], at), atol=1e-4)
        cell = table(runs, metrics=[name]).cells[("dense_ae",), (), name]
        assert cell.mean == pytest.approx(mean_of_pairs(expected), abs=1e-4)
        without = np.array([mean_of_pairs(np.delete(np.delete(expected, at, 0), at, 1)) for at in range(4)])
        assert cell.sd / math.sqrt(4) == pytest.approx(
            math.sqrt(3 / 4 * np.square(without - without.mean()).sum()), rel=1e-3
        )


def test_runs_that_learned_nothing_are_as_stable_as_their_fresh_parameters(runs):
    for name in ("code_cka", "code_cca"):
        mean = np.mean([run.metrics[f"test/{name}"] for run in runs])
        (untrained,) = {run.metrics[f"baseline/untrained/{name}"] for run in runs}
        assert untrained == pytest.approx(mean, rel=1e-5)
        assert 0 < runs.records[0].metrics[f"baseline/permuted/{name}"] < mean


def test_settings_are_compared_apart(folder, runs):
    """Runs of another learning rate, of other data, or of another seed twice, are no pair of a setting."""
    everything = collect(folder)

    def changed(*changes):
        records = [
            dataclasses.replace(
                run, **{name: value(run) if callable(value) else value for name, value in change.items()}
            )
            for run, change in zip(everything, changes, strict=True)
        ]
        return compared(dataclasses.replace(everything, records=tuple(records)), folder).records

    same = {}
    other = changed({"values": lambda run: {**run.values, "optimizer.learning_rate": 0.1}}, same, same, same)
    assert [len(run.similar.get(CKA, {})) for run in other] == [0, 2, 2, 2]
    assert other[0].metrics[CKA] is None
    assert other[0].null_reasons[CKA] == "1 finished seed, and a spread over pairs needs 3"
    kept = changed({"values": lambda run: {**run.values, "evaluation": "full"}}, same, same, same)
    assert [run.similar for run in kept] == [run.similar for run in runs]
    failed = changed({"status": "diverged"}, same, same, same)
    assert CKA not in failed[0].metrics
    assert [len(run.similar.get(CKA, {})) for run in failed] == [0, 2, 2, 2]
    twice = changed({"values": lambda run: {**run.values, "seed": 1}}, same, same, same)
    assert {run.null_reasons[CCA] for run in twice} == {"two runs of the setting have the same seed"}


def test_what_cannot_be_loaded_is_null_with_a_reason(copy):
    (copy / "seed=2" / "params.safetensors").unlink()
    shown = table(compared(collect(copy), copy))
    assert shown.cells[("dense_ae",), (), CKA].mean is None
    assert any("kept no parameters" in reason for _, reason in shown.null_marks)


def test_the_note_counts_the_pairs_of_a_setting(runs):
    def note(runs, **keys):
        (text,) = [text for _, text in notes(table(runs, metrics=[CKA], **keys)) if CKA in text]
        return text

    assert "mean over all 6 pairs of seeds" in note(runs)
    assert "of the jackknife over seeds" in note(runs)
    of_seeds = note(runs, columns=["seed"])  # every cell has one seed
    assert "mean over all 6 pairs" in of_seeds
    assert "only the mean over all seeds is a similarity" in of_seeds
    assert "standard error" not in of_seeds
    other = [
        dataclasses.replace(
            run,
            run_id=f"other-{run.run_id}",
            values={**run.values, "optimizer.learning_rate": rate},
        )
        for rate in (0.1, 0.2)
        for run in runs
    ]
    pooled = note(dataclasses.replace(runs, records=tuple(other)), rows=["model"])  # two settings in one cell
    assert "mean over all 6 pairs" in pooled
    assert "the mean of theirs" in pooled
    assert "standard error" not in pooled


def test_an_option_and_a_section_ask_for_it(copy, capsys):
    assert main([str(copy), "--format", "markdown"]) == 0
    assert "code_cka" not in capsys.readouterr().out
    assert main([str(copy), "--figures", "code_stability"]) == 2
    assert "--stability" in capsys.readouterr().err
    options = ["--stability", "--metrics", "test/reconstruction_mse", "--format", "markdown"]
    assert main([str(copy), *options, "--figures", "code_stability"]) == 0
    shown = capsys.readouterr().out
    assert "| test/reconstruction_mse ↓ | test/code_cka" in shown
    assert "mean over all 6 pairs of seeds" in shown
    assert "chance" in shown
    assert "fresh parameters: the parameters from which the same seeds started" in shown
    pixels = imread(copy / "report" / "figures" / "code_stability.png")[..., :3]
    assert (pixels[[0, -1]] > 0.95).all()  # neither titles nor labels are cut off
    section = {"rows": None, "columns": [], "metrics": [CCA], "select": [], "by": None, "published": []}
    (copy / "sweep.json").write_text(json.dumps({"runs": {}, "report": section | {"stability": True}}))
    show_table(copy)
    shown = capsys.readouterr().out
    assert "fresh parameters" in shown
    assert CKA not in shown  # the section names what it wants
    assert "fresh parameters" in str(Sweep(copy).table())


def test_a_panel_has_cka_below_and_cca_above_the_diagonal(folder, runs):
    (plan,) = code_stability(Scene(table(runs), folder, print))
    sketch = plan()
    (panel,) = sketch.picture.panels
    first, second = runs.records[:2]
    assert panel.cells[1, 0] == pytest.approx(second.similar[CKA][first.run_id])
    assert panel.cells[0, 1] == pytest.approx(first.similar[CCA][second.run_id])
    assert panel.cells.diagonal().tolist() == [1] * 4
    assert f"CKA {np.mean([run.metrics[CKA] for run in runs]):.2f}" in panel.title
    with pytest.raises(UnfitError, match="--stability"):
        code_stability(Scene(table(collect(folder)), folder, print))
