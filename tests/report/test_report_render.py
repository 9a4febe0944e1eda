import csv
import re

import pytest

from research.report.collect import collect
from research.report.formats import latex, markdown, spreadsheet
from research.report.table import table
from research.report.texts import Layout, decimals


def summary(sweep, **options):
    return table(collect(sweep.folder), **options)


def row(text, first):
    """The cells of the Markdown row that begins with `first`."""
    (line,) = [line for line in text.splitlines() if re.match(rf"\| {re.escape(first)} *\|", line)]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize(
    ("mean", "sd", "places"),
    [
        (12.3456, 0.34, 2),
        (12.3456, 0.0996, 2),
        (12.3, 1234.0, 0),
        (0.02, 0.00012, 5),
        (123.456, None, 1),
        (0.0, 0.0, 3),
    ],
)
def test_decimals_come_from_the_error(mean, sd, places):
    assert decimals(mean, sd) == places


def test_equal_n_is_said_once_and_decimals_can_be_fixed(grid):
    shown = summary(grid())
    text = markdown(shown)
    assert row(text, "2") == ["2", "**3.0 ± 1.0**"]
    assert row(text, "8") == ["8", "9.0 ± 1.0"]
    assert "n=3 in every cell" in text
    assert "(n=" not in text
    assert row(markdown(shown, Layout(3)), "2")[1] == "**3.000 ± 1.000**"


def test_holes_show_counts_and_reasons(sweep):
    sweep.add({"model.latent_dim": 2, "seed": 0}, {"test/loss": 1.0})
    sweep.add({"model.latent_dim": 2, "seed": 1}, {"test/loss": 2.0})
    sweep.add({"model.latent_dim": 2, "seed": 2}, status="diverged", reason="first bad step 12")
    for seed in range(3):
        sweep.add({"model.latent_dim": 4, "seed": seed}, status="diverged", reason="first bad step 12")
    sweep.add({"model.latent_dim": 8, "seed": 0}, {"test/loss": 5.0})
    sweep.add({"model.latent_dim": 16, "seed": 0}, written=False)
    broken = sweep.add({"model.latent_dim": 32, "seed": 0}, {"test/loss": 5.0})
    (broken / "result.json").write_text("{")
    text = markdown(summary(sweep))
    assert row(text, "2")[1] == "1.50 ± 0.71 (n=2; 1 diverged)"
    assert row(text, "4")[1] == "— (3 diverged: first bad step 12)"
    assert row(text, "8")[1] == "5.000 (n=1; incomplete)"
    assert row(text, "16")[1] == "— (1 missing: not started)"
    assert row(text, "32")[1].startswith("— (1 unreadable: ")
    assert f"{broken.name}/result.json" in text


def test_one_run_a_cell_has_no_deviation(sweep):
    sweep.add({"model.latent_dim": 2}, {"test/loss": 1.25})
    sweep.add({"model.latent_dim": 8}, {"test/loss": 1e30})
    text = markdown(summary(sweep))
    assert row(text, "2")[1] == "**1.250**"
    assert "There is no test with 1 seed: it needs 5 that all rows have." in text
    assert row(text, "8")[1] == "1.00e30"
    assert "one run in every cell" in text
    assert "±" not in text


def test_null_dagger_arrows_and_baselines(sweep):
    for latent_dim in (2, 8):
        metrics = {
            "test/reconstruction_mse": 0.03,
            "test/auroc": None,
            "baseline/pca/reconstruction_mse": 0.1 / latent_dim,
        }
        sweep.add({"model.latent_dim": latent_dim}, metrics, null_reasons={"test/auroc": "one class only"})
    shown = summary(sweep, metrics=["test/reconstruction_mse", "test/auroc"])
    text = markdown(shown)
    assert "test/reconstruction_mse ↓" in text
    assert "test/auroc ↑" in text
    assert row(text, "8")[1:] == ["0.03000†", "— (1 null¹)"]
    assert row(text, "2")[1] == "0.03000"
    assert row(text, "PCA, 8")[1:] == ["0.01250", ""]
    assert "- † worse than PCA at the same latent size." in text
    assert "- ¹ test/auroc is null: one class only." in text
    assert r"0.03000\textsuperscript{$\dagger$}" in latex(shown)
    assert latex(shown).count(r"\midrule") == 2


def test_what_loses_against_the_mean_is_marked_beside_what_loses_against_a_better_method(sweep):
    naive = {"baseline/pca/reconstruction_mse": 0.02, "baseline/mean/reconstruction_mse": 0.05}
    for latent_dim, error in ((2, 0.06), (4, 0.05), (8, 0.03), (16, 0.01)):
        sweep.add({"model.latent_dim": latent_dim}, {"test/reconstruction_mse": error, **naive})
    shown = summary(sweep)
    text = markdown(shown)
    assert [row(text, size)[1] for size in ("2", "4", "8", "16")] == [
        *("0.06000†§", "0.05000†", "<u>0.03000</u>†", "**0.01000**"),
    ]
    assert "- † worse than PCA at the same latent size." in text
    assert "- § worse than predicting the mean." in text
    assert r"0.06000\textsuperscript{$\dagger$\S{}}" in latex(shown)


def test_the_most_frequent_class_is_a_mean_too(sweep):
    naive = {"baseline/majority/accuracy": 0.5, "baseline/logistic/accuracy": 0.7}
    for latent_dim, accuracy in ((2, 0.4), (4, 0.6)):
        sweep.add({"model.latent_dim": latent_dim}, {"test/accuracy": accuracy, **naive})
    text = markdown(summary(sweep))
    assert (row(text, "2")[1], row(text, "4")[1]) == ("0.4000†§", "**0.6000**†")
    assert "- § worse than predicting the most frequent class." in text


def test_a_likelihood_of_degenerate_weights_is_marked(sweep):
    for latent_dim, shares in ((2, (0.5, 0.2)), (8, (0.02, 0.3))):
        for seed, share in enumerate(shares):
            metrics = {"test/nll_nats": 90.0 + latent_dim, "test/elbo_nats": -100.0, "test/nll_effective_share": share}
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics)
    text = markdown(summary(sweep, metrics=["test/nll_nats", "test/elbo_nats"]))
    assert "¶" not in "".join(row(text, "2"))
    assert row(text, "8")[1:] == ["98.00 ± 0.00¶", "-100.0 ± 0.0"]
    assert (
        "- ¶ in 1 of 2 runs the importance weights have an effective sample size below a tenth of the samples" in text
    )


def test_collapsed_runs_are_marked_in_every_format(sweep):
    for latent_dim, collapsed in ((2, 1), (8, 2), (16, 0)):
        for seed in range(2):
            metrics = {"test/elbo_nats": -3.0, "test/kl_nats": 1.0, "test/collapsed": float(seed < collapsed)}
            sweep.add({"model.latent_dim": latent_dim, "seed": seed}, metrics)
    shown = summary(sweep)
    text = markdown(shown)
    assert row(text, "2")[1].endswith("‡ (1 of 2 collapsed)")  # the counts once a row
    assert row(text, "8")[1].endswith("‡ (2 of 2 collapsed)")
    assert row(text, "8")[2].endswith("‡")
    assert "‡" not in "".join(row(text, "16"))
    assert r"\textsuperscript{$\ddagger$} (1 of 2 collapsed)" in latex(shown)
    assert [line["collapsed"] for line in csv.DictReader(spreadsheet(shown).splitlines())] == [*"120"] * 2


def test_equal_counts_of_collapsed_runs_are_said_once(sweep):
    for latent_dim in (2, 8):
        sweep.add({"model.latent_dim": latent_dim}, {"test/elbo_nats": -3.0, "test/collapsed": 1.0})
    text = markdown(summary(sweep))
    assert row(text, "2")[1] == "-3.000‡"
    assert "- ‡ 1 of 1 run collapsed: the decoder ignores its code." in text


def test_csv_names_the_best_naive_row(sweep):
    sweep.add({"seed": 0}, {"test/mse": 3.0, "baseline/linear/mse": 1.0, "baseline/repeat_last/mse": 2.0})
    lines = list(csv.DictReader(spreadsheet(summary(sweep)).splitlines()))
    assert [(line["kind"], line["better"], line["worse_than"]) for line in lines] == [
        ("model", "lower", "linear"),
        ("repeat_last", "lower", ""),
        ("linear", "lower", ""),
    ]


NASTY = r"a|b_c%d&e#f$g{h}i~j^k\l<m>*[n]--o"


def test_markdown_escapes(sweep):
    sweep.add({"model.latent_dim": 2}, status="failed", reason=NASTY + "\nnext _target_ ±")
    text = markdown(summary(sweep))
    assert r"a\|b_c%d&e#f\$g{h}i\~j^k\\l\<m\>\*[n]--o next \_target\_ ±" in text
    assert len(row(text, "vae")) == 2


def test_latex_escapes(sweep):
    sweep.add({"model.latent_dim": 2}, status="failed", reason=NASTY + "\nnext 語")
    text = latex(summary(sweep))
    expected = (
        r"a\textbar{}b\_c\%d\&e\#f\$g\{h\}i\textasciitilde{}j\textasciicircum{}k\textbackslash{}l"
        r"\textless{}m\textgreater{}{*}{[}n{]}-{}-o"
    )
    assert expected in text
    assert "next {[}U+8A9E{]}" in text
    assert text.isascii()


def test_latex_rows_have_equal_columns_and_never_begin_with_a_bracket(sweep):
    for rate in (0.1, 0.2):
        for sizes in ([4, 2], [8]):
            sweep.add(
                {"model.hidden_dims": sizes, "optimizer.learning_rate": rate}, {"test/loss": rate, "test/nll_nats": 1}
            )
    text = latex(summary(sweep, columns=["optimizer.learning_rate"]))
    body = text.partition(r"\begin{tabular}")[2].partition(r"\end{tabular}")[0]
    assert body.startswith("{lrrrr}")
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in body
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [line.count(" & ") for line in rows] == [2, 4, 4, 4]
    assert rows[2].startswith("{[}4, 2{]} & ")
    assert not any(line.startswith(("[", "*")) for line in rows)
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\label{tab:demo}", r"\end{table}"):
        assert text.count(command) == 1


def test_csv_is_exact_and_names_the_runs(sweep):
    for seed, loss in enumerate([0.1, 0.2, 0.7]):
        sweep.add({"seed": seed}, {"test/loss": loss})
    sweep.add({"seed": 3}, status="diverged")
    shown = summary(sweep)
    (line,) = csv.DictReader(spreadsheet(shown).splitlines())
    (cell,) = shown.cells.values()
    assert (float(line["mean"]), float(line["sd"]), line["n"]) == (cell.mean, cell.sd, "3")
    assert (line["model"], line["completed"], line["diverged"], line["failed"]) == ("vae", "3", "1", "0")
    assert line["runs"].split(";") == ["seed=0", "seed=1", "seed=2", "seed=3"]


def test_csv_has_no_formulas(sweep):
    for cell, loss in (("=1+1", 1.0), ("@x", -2.5)):
        sweep.add({"model.cell": cell, "model.beta": -1.5}, {"test/loss": loss})
    lines = list(csv.DictReader(spreadsheet(summary(sweep)).splitlines()))
    assert [(line["model.cell"], line["mean"]) for line in lines] == [("'=1+1", "1.0"), ("'@x", "-2.5")]


def test_equal_numbers_have_no_deviation(sweep):
    for seed in range(3):
        sweep.add({"model.latent_dim": 2, "seed": seed}, {"test/mse": 0.1})
        sweep.add({"model.latent_dim": 8, "seed": seed}, {"test/mse": 0.1 + 1e-9 * seed})
    text = markdown(summary(sweep))
    assert row(text, "2")[1] == "**0.1000 ± 0.0000**"
    assert row(text, "8")[1].endswith("± 1.00e-9")  # a small one is one
