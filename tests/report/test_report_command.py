import json
import subprocess
import sys
from pathlib import Path

from research.report.cli import main


def test_everything_is_written_and_the_table_printed(grid, capsys):
    folder = grid().folder
    assert main([str(folder)]) == 0
    captured = capsys.readouterr()
    written = {path.name for path in (folder / "report").iterdir() if path.is_file()}
    assert captured.out == (folder / "report" / "table.md").read_text()
    assert "| 2 " in captured.out
    assert written == {"table.md", "table.tex", "table.csv", "page.html"}
    assert all(str(folder / "report" / name) in captured.err for name in written)
    figures = {path.name for path in (folder / "report" / "figures").iterdir()}
    kinds = {name.partition("-")[0] for name in figures}
    assert "metric_over_key" in kinds
    assert not kinds & {"learning_curves", "latent_map"}  # fake runs have no curves and no parameters
    assert {name.rpartition(".")[2] for name in figures} == {"pdf", "svg", "png"}


def test_options_replace_what_the_sweep_recorded(grid, capsys):
    folder = grid(**{"validation/loss": 1.0, "test/mse": 4.0}).folder
    path = folder / "sweep.json"
    section = {"rows": ["seed"], "columns": [], "metrics": ["test/mse"], "select": [], "by": None, "published": []}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"report": section}))
    assert main([str(folder), "--format", "markdown"]) == 0
    assert "| seed | test/mse ↓" in capsys.readouterr().out
    assert main([str(folder), "--format", "markdown", "--rows", "model.latent_dim", "--show", "interval,n"]) == 0
    assert "| model.latent_dim | test/mse ↓" in (shown := capsys.readouterr().out)
    assert "4.000 [4.000, 4.000] (n=3)" in shown
    assert "In brackets: 95 % t interval of the mean." in shown
    assert main([str(folder), "--format", "csv", "--rows", "model", "--select", "model.latent_dim"]) == 0
    assert capsys.readouterr().out.startswith("model,chosen model.latent_dim,kind,metric")


def test_a_kind_of_figure_alone(grid, capsys):
    folder = grid().folder
    assert main([str(folder), "--format", "csv", "--figures", "metric_over_key"]) == 0
    names = {path.name.partition("-")[0] for path in (folder / "report" / "figures").iterdir()}
    assert names == {"metric_over_key"}
    assert main([str(folder), "--figures", "metric_over_keys"]) == 2
    assert "did you mean 'metric_over_key'?" in capsys.readouterr().err
    assert main([str(folder), "--format", "html", "--figures", "none", "--output", str(folder / "other")]) == 0
    assert [path.name for path in (folder / "other").iterdir()] == ["page.html"]


def test_one_format_into_another_folder(grid, tmp_path, capsys):
    options = ["--format", "csv", "--output", str(tmp_path / "out"), "--rows", "seed", "--columns", "model.latent_dim"]
    assert main([str(grid().folder), *options]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["table.csv"]
    assert capsys.readouterr().out.startswith("seed,model.latent_dim,kind,metric,")


def test_a_reason_that_is_no_text_does_not_stop_the_report(sweep, capsys):
    sweep.add({"seed": 0}, status="failed", reason="half a character: \ud83d")
    assert main([str(sweep.folder), "--figures", "none"]) == 0
    assert "half a character: ?" in capsys.readouterr().out


def test_errors_are_one_line_and_exit_2(grid, tmp_path, capsys):
    folder = grid().folder
    for arguments, words in (
        ([str(tmp_path / "nothing")], "no such folder"),
        ([str(folder), "--rows", "model.latentdim"], "did you mean 'model.latent_dim'?"),
        ([str(folder), "--metrics", "test/lss"], "did you mean 'test/loss'?"),
        ([str(tmp_path)], "no runs"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    assert not (folder / "report").exists()


def test_help_imports_nothing_heavy():
    code = "import sys, research.report.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(', '.join({'jax', 'numpy', 'pandas', 'hydra'} & set(sys.modules)) or 0)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SWEEP_FOLDER" in done.stdout
