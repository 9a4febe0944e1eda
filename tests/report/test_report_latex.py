"""The LaTeX of tables goes through pdflatex, and fits the page."""

import subprocess

import pytest

from research.report.collect import collect
from research.report.formats import latex
from research.report.spec import Report
from research.report.table import table, table_of
from research.report.texts import Layout
from research.tree import build

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\usepackage[margin=2.5cm]{geometry}
\begin{document}
\input{table}
\end{document}
"""


def compiled(folder, text):
    """The log of pdflatex on a document with one table."""
    folder.mkdir()
    (folder / "table.tex").write_text(text)
    (folder / "paper.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 1000
    return done.stdout


@pytest.mark.needs("pdflatex")
def test_every_kind_of_cell_compiles_and_fits(sweep, tmp_path):
    nasty = r"a|b_c%d&e#f$g{h}i~j^k\l<m>*[n]--o 語 ±"
    names = [
        f"test/{name}" for name in ("elbo_nats", "nll_nats", "kl_nats", "reconstruction_mse", "knn_accuracy", "auroc")
    ]
    for latent_dim in (2, 8, 16):
        for seed in range(3):
            metrics = dict.fromkeys(names, latent_dim + seed + 0.123) | {"test/collapsed": float(latent_dim == 2)}
            metrics |= {"baseline/pca/reconstruction_mse": 0.01, "test/auroc": None}
            overrides = {"model.latent_dim": latent_dim, "seed": seed, "model.beta": 1e-7 if latent_dim < 16 else 2.5}
            status = "completed" if latent_dim < 16 else "failed"
            sweep.add(overrides, metrics, status=status, reason=nasty, null_reasons={"test/auroc": nasty})
    entry = {"label": nasty, "metric": "test/nll_nats", "value": 3.5, "error": 0.25, "source": nasty}
    section = {"rows": ["model.latent_dim"], "columns": ["model.beta"], "metrics": names, "select": [], "by": None}
    report = build(section | {"published": [entry | {"where": {"data": "digits", "model.latent_dim": 2}}]}, Report)
    layout = Layout(parts=("sd", "interval", "median", "iqm", "n"))
    log = compiled(tmp_path / "wide", latex(table_of(collect(sweep.folder), report), layout))
    assert "Overfull" not in log


@pytest.mark.needs("pdflatex")
def test_a_table_without_columns_or_rows_compiles(grid, tmp_path):
    log = compiled(tmp_path / "one", latex(table(collect(grid().folder), rows=[])))
    assert "Overfull" not in log


@pytest.mark.parametrize("name", ["", "50% of [a] & b_c", "語"])
def test_labels_are_plain(sweep, name):
    sweep.add({"seed": 0}, {"test/loss": 1.0})
    path = sweep.folder / "sweep.json"
    path.write_text(path.read_text().replace("demo", name))
    assert latex(table(collect(sweep.folder))).isascii()
