import subprocess
import sys
from pathlib import Path

from research.report.cli import main


def test_tables_are_printed_and_written(grid, capsys):
    folder = grid().folder
    assert main([str(folder)]) == 0
    captured = capsys.readouterr()
    written = {path.name: path.read_text() for path in (folder / "report").iterdir()}
    assert captured.out == written["table.md"]
    assert "| 2 " in captured.out
    assert set(written) == {"table.md", "table.tex", "table.csv"}
    assert all(str(folder / "report" / name) in captured.err for name in written)


def test_one_format_into_another_folder(grid, tmp_path, capsys):
    options = ["--format", "csv", "--output", str(tmp_path / "out"), "--rows", "seed", "--columns", "model.latent_dim"]
    assert main([str(grid().folder), *options]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["table.csv"]
    assert capsys.readouterr().out.startswith("seed,model.latent_dim,kind,metric,")


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
