"""The benchmark `rivals` without any measurement: verdicts, slopes, the page, and libraries that are missing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from research.errors import ConfigError

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts import each other by their names, from their folder."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def record_of(measured: dict[str, list[float]], unit: str = "s", **missing: str) -> dict[str, Any]:
    """The record of one row with one comparison."""
    comparison = {
        "what": "training alone",
        "rival": "Keras",
        "ours": "ours/time",
        "theirs": "rival/time",
        "unit": unit,
        "losses": ["ours/loss", "rival/loss"],
    }
    about = {"command": "C", "date": "D", "machine": "M", "load": [0.1], "busy": [0.0, 0.1]}
    about |= {"versions": {"jax": "1"}, "rival_versions": {}}
    row = {"title": "AE", "note": "a note", "comparisons": [comparison], "measured": measured, "missing": missing}
    return {"about": about, "rows": {"ae": row}, "growth": {}}


def line_of(*arguments: Any, **named: Any) -> Any:
    """The only line of such a record."""
    from bench_rivals_report import lines

    (line,) = lines(record_of(*arguments, **named))
    return line


def test_a_ratio_above_one_means_faster_for_seconds_and_for_rates() -> None:
    measured = {"ours/time": [1.0, 2.0, 1.5], "rival/time": [3.0, 9.0, 4.0]}
    assert line_of(measured).ratio == pytest.approx(4 / 1.5)
    assert line_of(measured).verdict == "faster here"
    assert line_of(measured, "samples/s").ratio == pytest.approx(1.5 / 4)
    assert line_of(measured, "samples/s").verdict == "**slower here**"


def test_ranges_that_overlap_decide_nothing() -> None:
    measured = {"ours/time": [1.0, 2.0, 5.0], "rival/time": [4.0, 4.5, 6.0]}
    assert line_of(measured).verdict == "no clear difference: the ranges overlap"


@pytest.mark.parametrize(
    ("ours", "rival", "told"),
    [([1.0, 1.1], [1.3, 1.4], True), ([1.0, 1.4], [1.3, 1.5], False), ([1.0, 1.01], [1.02, 1.03], False)],
    ids=["apart", "ranges overlap", "by a few hundredths"],
)
def test_losses_that_differ_are_told(ours: list[float], rival: list[float], told: bool) -> None:
    times = {"ours/time": [1.0], "rival/time": [2.0]}
    line = line_of(times | {"ours/loss": ours, "rival/loss": rival})
    assert line.verdict == "faster here" + "; **losses differ by 22%**" * told


def test_a_power_law_has_its_exponent_as_slope() -> None:
    from bench_rivals_report import slope

    points = [{"value": value, "seconds": [9.0, 0.3 * value**1.5, 0.0]} for value in (1, 2, 8)]
    assert slope(points) == pytest.approx(1.5)


def test_the_page_has_every_row_its_note_and_a_warning_of_busy_cores(tmp_path: Path) -> None:
    from bench_rivals_report import draw, markdown

    record = record_of({"ours/time": [1234.4], "rival/time": [0.5]})
    record["growth"] = {"T": [{"value": value, "seconds": [0.1 * value]} for value in (25, 50)]}
    page = markdown(record)
    assert "| AE | training alone [s] | 1,234 | 0.5 | 0.00 |  | Keras: **slower here** |" in page
    assert "* AE: a note" in page
    assert "| T | 25, 50 | 2.5, 5 | 1.00 |" in page
    assert "quote no ratio" not in page
    record["about"]["busy"] = [0.0, None, 0.5]
    assert "up to 50% of the cores" in markdown(record)
    draw(record, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_side_that_has_no_measurement_says_why() -> None:
    from bench_common import Context
    from bench_rivals import add
    from bench_rivals_report import markdown

    record = record_of({})
    context = Context(Path(), 0, sys.executable, None)
    sides = {"ours": {"time": 1.0}, "rival": {"missing": "not installed: pip install keras", "command": 0.1}}
    add(record["rows"]["ae"], lambda _: sides, context)
    assert "| AE | training alone [s] | 1 |  |  |  | Keras: not installed: pip install keras |" in markdown(record)

    def refused(_: Context) -> Any:
        raise ConfigError("data.root", "x", "no folder")

    add(record["rows"]["ae"], refused, context)
    assert "not measured: data.root=x: no folder" in record["rows"]["ae"]["missing"]["ours"]


@pytest.mark.parametrize(
    ("script", "arguments", "packages"),
    [
        ("bench_rival_programs.py", ["keras:dense_ae", "rows.npz", "{}"], "tensorflow keras"),
        ("bench_rival_programs.py", ["pythae", "rows.npz", "{}"], "torch pythae"),
        ("bench_torch.py", ["vae:32", "64", "2"], "torch"),
    ],
)
def test_a_missing_library_is_one_line(script: str, arguments: list[str], packages: str, tmp_path: Path) -> None:
    """As in an interpreter that has NumPy alone: site-packages are left out, and NumPy is linked."""
    import numpy

    (tmp_path / "numpy").symlink_to(Path(numpy.__file__).parent)
    libraries = Path(numpy.__file__).parents[1] / "numpy.libs"
    if libraries.exists():
        (tmp_path / "numpy.libs").symlink_to(libraries)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-S", str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout) == {"missing": f"not installed: pip install {packages}"}, done.stderr


def test_programs_that_fail_give_the_last_line_of_their_error(tmp_path: Path) -> None:
    from bench_common import child

    measured = child(sys.executable, "bench_rival_programs.py", "sklearn", str(tmp_path / "none.npz"), "{}")
    assert measured["missing"].startswith("failed: FileNotFoundError")


def test_an_interpreter_or_a_row_that_is_not_there_is_refused() -> None:
    from bench_rivals import chosen, interpreter

    assert interpreter(None) == sys.executable
    with pytest.raises(ConfigError, match="--rivals-python=no/python: no such program"):
        interpreter("no/python")
    assert chosen("growth,vae") == ["growth", "vae"]
    with pytest.raises(ConfigError, match=r"--rows=va: unknown \(did you mean 'vae'"):
        chosen("va")


def test_every_program_makes_the_same_rows_for_both_sides(tmp_path: Path) -> None:
    """What the other library reads is what our model sees, with its targets, and it fills all batches."""
    from bench_common import Context
    from bench_rivals_rows import PROGRAMS, rows_of

    shapes = {"dense_ae": (640, 10), "deep_ae": (1000, 64), "lstm_regression": (640, 20, 1), "lstm_ae": (640, 50, 1)}
    for name, shape in shapes.items():
        folder = tmp_path / name
        folder.mkdir()
        program = PROGRAMS[name][1]
        rows = rows_of(program.overrides(Context(folder, 0, sys.executable, None)))
        assert rows["x"].shape == shape
        assert shape[0] % program.batch == 0
        assert ("y" in rows) == (name == "lstm_regression")
        assert rows["x_validation"].shape[1:] == shape[1:]
        if name == "lstm_regression":
            assert rows["y"].shape == (640, 1)
