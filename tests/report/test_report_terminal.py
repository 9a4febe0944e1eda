"""The table of a terminal, the best run that is named below it, and the names of a paper."""

import dataclasses
import io
import itertools
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from research.report.cli import main
from research.report.collect import collect
from research.report.formats import latex, markdown
from research.report.page_data import best_line, best_run
from research.report.spec import recorded
from research.report.table import table, table_of
from research.report.terminal import copies_of, draw_table
from research.tree import ConfigError

ROOT = Path(__file__).parents[2]
SHOWN = ("loss", "reconstruction_mse", "elbo_nats", "nll_nats", "kl_nats", "probe_accuracy", "knn_accuracy", "auroc")


def drawn(summary, width, **console):
    """What a terminal of a width shows."""
    recording = Console(width=width, record=True, file=io.StringIO(), highlight=False, **console)
    draw_table(summary, recording)
    return recording.export_text(styles=bool(console))


@pytest.fixture
def wide(sweep):
    """Three latent sizes and three seeds with eight metrics, the loss of which is the error."""
    for latent_dim, seed in itertools.product((2, 8, 32), range(3)):
        numbers = {name: (index + 1) / 7 + latent_dim + seed / 10 for index, name in enumerate(SHOWN)}
        numbers["reconstruction_mse"] = numbers["loss"]
        metrics = {f"test/{name}": value for name, value in numbers.items()}
        metrics |= {"validation/reconstruction_mse": latent_dim + seed / 10, "baseline/pca/reconstruction_mse": 1.5}
        sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics)
    return sweep


@pytest.mark.parametrize("width", [50, 80, 120, 160, 300])
def test_a_table_is_never_wider_than_the_terminal(width, wide):
    text = drawn(table(collect(wide.folder)), width)
    assert max(map(len, text.splitlines())) <= width


def test_columns_without_room_are_named_and_the_others_are_whole(wide):
    summary = table(collect(wide.folder))
    narrow, whole = drawn(summary, 70), drawn(summary, 300)
    left_out = " ".join(narrow.split("Left out for want of room: ")[1].split(" A wider")[0].split())
    missing = left_out.removesuffix(".").split(", ")
    shown = [name for name in summary.metrics if name not in (*missing, "test/loss")]
    assert shown
    assert missing
    assert "Left out" not in whole
    heads = next(line for line in whole.splitlines() if line.startswith("model.latent_dim"))
    assert [word for word in heads.split() if word.startswith("test/")] == [*shown, *missing]
    (row,) = [line for line in narrow.splitlines() if line.startswith("8 ")]
    assert row.count("±") == len(shown)
    assert row.split()[1] in whole


def test_other_encodings_have_signs_of_ascii(wide, monkeypatch):
    monkeypatch.setattr(Console, "encoding", "iso8859-1")
    wide.add(
        {"model.latent_dim": 8, "seed": 9},
        {"test/reconstruction_mse": None},
        null_reasons={"test/reconstruction_mse": "why"},
    )
    text = drawn(table(collect(wide.folder)), 60)
    assert text.isascii()
    assert "1 null[1]" in text
    grid, notes = text.split("Left out for want of room: ")
    assert "2.24 +- 0.10+" in grid
    assert "(lower)" in grid
    assert "+ worse than PCA" in notes
    assert "(higher)" not in notes


def test_the_best_mean_is_bold_and_the_second_underlined(wide):
    text = drawn(table(collect(wide.folder), metrics=["test/reconstruction_mse"]), 80, force_terminal=True)
    rows = {line.split()[0]: line for line in text.splitlines() if line[:1].isdigit()}
    assert "\x1b[1m" in rows["2"]
    assert "\x1b[4m" in rows["8"]
    assert "\x1b[" not in rows["32"]


def test_a_column_that_equals_another_stands_once(wide):
    summary = table(collect(wide.folder))
    assert copies_of(summary.metrics, summary.runs) == {"test/loss": "test/reconstruction_mse"}  # it has naive rows
    text = drawn(summary, 300)
    assert "- test/loss: equal to test/reconstruction_mse in every run." in text
    assert "test/loss ↓" not in text
    assert "test/loss ↓" in markdown(summary)
    wide.add({"model.latent_dim": 64, "seed": 0}, {"test/loss": 1.0, "test/reconstruction_mse": 1.0000001})
    assert copies_of(summary.metrics, collect(wide.folder)) == {}


def test_what_a_reader_must_know_stays_when_the_first_column_is_a_copy(wide):
    for seed in range(3):
        wide.add({"model.latent_dim": 64, "seed": seed}, {}, status="diverged", reason="loss not finite at step 7")
    assert "loss not finite" in drawn(table(collect(wide.folder)), 300).split("\n64")[1]


def test_published_values_are_whole_in_a_narrow_terminal(wide):
    published = {"label": "a method of somebody", "metric": "test/reconstruction_mse", "where": {"data": "digits"}}
    published |= {"value": 8.1, "tolerance": 0.3, "source": "somebody 2024"}
    summary = named(wide, published=[published])
    assert "\npublished  " in drawn(summary, 200)
    sentences = " ".join(drawn(summary, 60).split())
    assert "- published: a method of somebody¹; metric: test/reconstruction_mse; for: model.latent_dim=2;" in sentences
    assert "theirs: 8.10; ours - theirs: -5.86 (allowed 0.3); verdict: not reproduced" in sentences


def test_text_from_a_folder_cannot_control_the_terminal(sweep):
    sweep.add({"model.activation": "\x1b[2J[red]x\x01\x02\r"}, {"test/loss": 1.0})
    sweep.add({"model.activation": "relu"}, {"test/loss": 2.0})
    text = drawn(table(collect(sweep.folder)), 100, force_terminal=True)
    assert "\x1b[2J" not in text
    assert "?[2J[red]x??" in text


def in_terminal(*command: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    process.wait()
    os.close(ours)
    return text.decode()


def test_the_report_draws_in_a_terminal_and_prints_markdown_elsewhere(wide, capsys):
    arguments = (str(wide.folder), "--figures", "none")
    in_pty = in_terminal("scripts/report.py", *arguments)
    assert "\x1b[1m" in in_pty
    assert "**" not in in_pty
    assert "| --- |" not in in_pty
    asked = in_terminal("scripts/report.py", *arguments, "--format", "markdown")
    assert "**" in asked
    assert main([*arguments]) == 0
    assert capsys.readouterr().out == (wide.folder / "report" / "table.md").read_text()


# ------------------------------------------------------------------------------------------------------- the best run


def test_the_best_run_is_chosen_by_the_validation_rows(wide, capsys):
    runs = collect(wide.folder)
    best = best_run(runs, table(runs).metrics)
    assert best is not None
    metric, value, run = best
    assert (metric, value, run.run_id) == ("validation/reconstruction_mse", 2.0, "model.latent_dim=2,seed=0")
    assert main([str(wide.folder), "--format", "csv"]) == 0
    line = f"best run by validation/reconstruction_mse (2): {wide.folder}/model.latent_dim=2,seed=0"
    assert line in capsys.readouterr().err
    assert best_line(*best, "there") == line.replace(str(wide.folder), "there")
    collapsed = dataclasses.replace(run, metrics={**run.metrics, "test/collapsed": 1.0})
    assert best_line(metric, value, collapsed, "there").endswith("; its decoder ignores its code (collapsed)")


def test_the_best_imputation_is_not_the_best_copy(sweep):
    for seed, (copied, imputed) in enumerate([(0.1, 0.5), (0.2, 0.4)]):
        sweep.add({"seed": seed}, {"validation/reconstruction_mse": copied, "validation/imputation_mae": imputed})
    best = best_run(collect(sweep.folder), ("test/reconstruction_mse", "test/imputation_mae"))
    assert best is not None
    assert best[:2] == ("validation/imputation_mae", 0.4)


def test_no_run_is_the_best_where_no_validation_metric_compares_all(sweep, capsys):
    for beta in (1.0, 4.0):  # the loss holds beta, and metrics of test rows choose nothing
        metrics = {"validation/loss": beta, "test/loss": beta, "test/reconstruction_mse": beta}
        sweep.add({"model.beta": beta}, metrics)
    runs = collect(sweep.folder)
    assert best_run(runs, table(runs).metrics) is None
    assert main([str(sweep.folder), "--format", "csv"]) == 0
    assert "best run" not in capsys.readouterr().err


def test_metrics_of_test_rows_choose_no_run(sweep):
    for seed in range(3):
        sweep.add({"seed": seed}, {"test/reconstruction_mse": 1.0 + seed})
    assert best_run(collect(sweep.folder), ("test/reconstruction_mse",)) is None


def test_a_run_alone_is_not_called_the_best(sweep):
    sweep.add({"seed": 0}, {"validation/reconstruction_mse": 1.0})
    sweep.add({"seed": 1}, {"validation/reconstruction_mse": 0.5}, status="pruned")
    runs = collect(sweep.folder)
    assert best_run(runs, ("test/loss",)) is None
    assert best_run(runs.including(["pruned"]), ("test/loss",)) is None


# ------------------------------------------------------------------------------------------------- names for a paper


def named(sweep, **entries):
    """The table of a sweep that recorded names and decimals."""
    runs = collect(sweep.folder)
    return table_of(runs, recorded({"report": {**SECTION, **entries}}, sweep.folder))


SECTION = {"rows": None, "columns": [], "metrics": None, "select": [], "by": None, "published": []}
NAMES = {"model.latent_dim": "latent size", "test/nll_nats": "NLL", "test/loss": "L", "gru": "GRU", "model": "network"}


def test_names_stand_in_heads_cells_captions_and_notes(sweep):
    for model, latent_dim, seed in itertools.product(("vae", "gru"), (2, 8), range(2)):
        overrides = {"model": model, "model.latent_dim": latent_dim, "seed": seed}
        sweep.add(overrides, {"test/loss": latent_dim, "test/nll_nats": 80.123 + latent_dim + seed}, model=model)
    text = markdown(named(sweep, names=NAMES, decimals={"test/nll_nats": 1}))
    head, *rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in head] == ["network", "latent size", "L ↓", "NLL (nats) ↓"]
    assert {row[0].strip() for row in rows[1:]} == {"vae", "GRU"}
    assert rows[1][3].strip().strip("*") == "82.6 ± 0.7"
    assert "L is compared only between runs of equal network" in text
    means = markdown(named(sweep, names=NAMES, rows=["model"]))
    assert "over seed (2 values) and latent size (2 values)" in means
    assert "the means are also over latent size" in means
    columns = markdown(named(sweep, names=NAMES, rows=["model"], columns=["model.latent_dim"]))
    assert "latent size=2: NLL (nats) ↓" in columns


def test_latex_and_the_terminal_use_the_names(wide):
    summary = named(wide, names={"model.latent_dim": "latent size β", "test/nll_nats": "NLL"})
    assert r"latent size $\beta$ & " in latex(summary)
    assert r"NLL (nats) $\downarrow$" in latex(summary)
    assert "latent size β" in drawn(summary, 200)
    assert "latent size β" not in drawn(table(collect(wide.folder)), 200)


def test_figures_use_the_names(wide, tmp_path):
    from research.report.figures import draw

    names = {"model.latent_dim": "latent size", "test/reconstruction_mse": "squared error in $"}
    summary = named(wide, names=names, metrics=["test/reconstruction_mse"])
    (figure,) = draw(summary, wide.folder, ["metric_over_key"])
    assert figure.title == "squared error in $ over latent size"
    assert "squared error in $ over" in figure.caption.lower()
    assert "model.latent_dim" not in figure.caption
    (plain,) = draw(table(collect(wide.folder), metrics=["test/reconstruction_mse"]), wide.folder, ["metric_over_key"])
    assert figure.name == plain.name
    assert figure.svg != plain.svg


def test_reports_without_names_are_those_of_a_section_that_lacks_them(wide):
    runs = collect(wide.folder)
    old = table_of(runs, recorded({"report": SECTION}, wide.folder))
    new = table_of(runs, recorded({"report": {**SECTION, "names": None, "decimals": None}}, wide.folder))
    assert markdown(old) == markdown(new) == markdown(table(runs))
    assert latex(old) == latex(new)


@pytest.mark.parametrize(
    ("option", "text", "remedy"),
    [
        (
            "--names",
            "model.laten_dim=size",
            "names=model.laten_dim: no run has this key, metric or value (did you mean",
        ),
        ("--decimals", "test/los=1", "decimals=test/los: no run has this metric (did you mean 'test/loss'?)"),
        ("--names", "test/loss=L,test/auroc=L", "names.test/auroc=L: test/loss has this name too"),
    ],
)
def test_unknown_and_equal_names_are_refused(option, text, remedy, wide, capsys):
    assert main([str(wide.folder), option, text]) == 2
    assert remedy in capsys.readouterr().err
    assert not (wide.folder / "report" / "table.md").exists()


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        ("--names", "test/loss=L,test/loss=M", "test/loss is there twice"),
        ("--decimals", "test/loss=1,test/loss=2", "test/loss is there twice"),
        ("--decimals", "test/loss=10", "0 to 9, got '10'"),
        ("--digits", "10", "0 to 9, got '10'"),
    ],
)
def test_options_that_mean_nothing_are_refused(option, text, problem, wide, capsys):
    with pytest.raises(SystemExit):
        main([str(wide.folder), option, text])
    assert problem in capsys.readouterr().err


def test_the_options_of_the_report_replace_what_was_recorded(wide, capsys):
    plan = json.loads((wide.folder / "sweep.json").read_text())
    (wide.folder / "sweep.json").write_text(json.dumps({**plan, "report": {**SECTION, "names": {"test/auroc": "A"}}}))
    assert main([str(wide.folder), "--format", "markdown"]) == 0
    assert "| A ↑" in capsys.readouterr().out
    arguments = ["--names", "test/auroc=area,model.latent_dim=latent size", "--decimals", "test/auroc=0"]
    assert main([str(wide.folder), "--format", "markdown", *arguments]) == 0
    text = capsys.readouterr().out
    assert "| area ↑" in text
    assert "| latent size |" in text
    assert [line.split("|")[-2].strip().strip("*") for line in text.splitlines() if line.startswith("| 8 ")] == [
        "<u>9 ± 0</u>"
    ]


@pytest.mark.parametrize(
    "entries",
    [{"names": {"test/loss": " "}}, {"names": {"test/loss": "L", "test/auroc": "L"}}, {"decimals": {"test/loss": -1}}],
)
def test_empty_and_equal_names_and_negative_decimals_are_refused(entries, wide):
    with pytest.raises(ConfigError, match="damaged"):
        named(wide, **entries)
