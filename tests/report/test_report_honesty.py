"""What a reader would be misled by: rows called worse that are not, means over what differs, values of other cells."""

import json
import shutil

from research.report.collect import collect
from research.report.document import caption
from research.report.formats import latex, markdown
from research.report.keys import varying
from research.report.notes import notes
from research.report.page import page
from research.report.page_data import link
from research.report.spec import Report
from research.report.table import table, table_of
from research.report.texts import Layout
from research.tree import build


def note_texts(summary):
    return [text for _, text in notes(summary)]


def test_a_mean_over_runs_with_and_without_a_key_is_warned_of(sweep):
    sweep.add({"seed": 0}, {"test/mse": 1.0})
    path = sweep.add({"seed": 1}, {"test/mse": 2.0}) / "config.json"
    content = json.loads(path.read_text())
    del content["config"]["model"]["beta"]
    path.write_text(json.dumps(content))
    summary = table(collect(sweep.folder), rows=["data"])
    assert any(text.startswith("Warning: the means are also over model.beta") for text in note_texts(summary))


def test_a_published_value_is_held_against_cells_of_its_own_settings(sweep):
    for model, beta in (("vae", 1.0), ("other", 4.0)):
        for seed in range(3):
            sweep.add({"model": model, "model.beta": beta, "seed": seed}, {"test/mse": beta}, model=model)
    entry = {
        "label": "theirs",
        "metric": "test/mse",
        "where": {"data": "digits", "model.beta": 4.0},
        "value": 4.0,
        "tolerance": 0.1,
    }
    section = {"rows": ["model"], "columns": [], "metrics": ["test/mse"], "select": [], "by": None}
    summary = table_of(collect(sweep.folder), build(section | {"published": [entry | {"source": "a paper"}]}, Report))
    assert [(entry.row, entry.verdict) for entry in summary.published] == [(("other",), "reproduced")]


def test_settings_that_stood_back_and_runs_not_shown_are_told(sweep):
    for rate, losses in ((0.1, (2.0, 2.0)), (0.2, (1.0, None))):
        for seed, loss in enumerate(losses):
            status = "completed" if loss else "diverged"
            metrics = {"validation/mse": loss, "test/mse": loss} if loss else {}
            sweep.add({"optimizer.learning_rate": rate, "seed": seed}, metrics, status=status, reason="step 3")
    summary = table(collect(sweep.folder), rows=["model"], choose=["optimizer.learning_rate"])
    text = (
        "1 setting could not be chosen, because some of its runs did not finish, are absent or have no validation/mse."
    )
    assert text in note_texts(summary)
    assert len(summary.runs) == 2
    assert "4 runs: 3 completed, 1 diverged" in markdown(summary)  # the provenance is of the whole sweep
    assert page(summary, sweep.folder, []).count("diverged") > 0


def test_a_copy_of_a_run_is_warned_of(sweep):
    path = sweep.add({"seed": 0}, {"test/mse": 1.0})
    shutil.copytree(path, path.with_name("copy"))
    summary = table(collect(sweep.folder))
    assert "Warning: n counts 1 run of the same setting and seed as another: copy." in note_texts(summary)


def test_the_caption_speaks_of_what_is_shown(grid):
    sweep = grid()
    summary = table(collect(sweep.folder))
    assert "± standard deviation" not in markdown(summary, Layout(parts=("interval",)))
    sweep.add({"model.latent_dim": 32, "seed": 0}, status="failed", reason="disk")
    assert "n=3 in every cell that has a number" in caption(table(collect(sweep.folder)))


def test_a_sweep_that_has_only_begun_varies_in_what_was_planned(sweep):
    sweep.add({"model.latent_dim": 2}, {"test/mse": 1.0})
    sweep.add({"model.latent_dim": 8}, written=False)
    assert varying(collect(sweep.folder)) == ["model.latent_dim"]


def test_letters_that_a_plain_document_lacks_become_code_points(sweep):
    sweep.add({"seed": 0}, status="failed", reason="đß")
    text = latex(table(collect(sweep.folder)))
    assert "ß" in text
    assert "{[}U+0111{]}" in text


def test_links_lead_from_where_the_page_lies(sweep):
    sweep.add({"seed": 0}, {"test/mse": 1.0})
    (run,) = collect(sweep.folder)
    assert link(run) == "../seed=0/"
    assert link(run, "../../a b") == "../../a%20b/seed=0/"


def test_digits_are_kept_where_the_deviation_is_tiny(sweep):
    for seed in range(3):
        sweep.add({"seed": seed}, {"test/mse": 0.0556912 + seed * 1e-6})
    summary = table(collect(sweep.folder))
    assert "0.0556922 ± 0.0000010" in markdown(summary)
    assert "0.05569220 ± 0.00000100" in markdown(summary, Layout(8))
    assert "IQM: mean without" in markdown(summary, Layout(parts=("iqm",)))


def test_a_metric_that_chooses_needs_something_to_choose(grid, capsys):
    from research.report.cli import main

    assert main([str(grid().folder), "--by", "validation/loss"]) == 2
    assert "by=" in capsys.readouterr().err
