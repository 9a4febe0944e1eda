"""Text cells that spreadsheets would run as formulas."""

import csv

import pytest

from research.runs.csv_files import csv_text, guarded


@pytest.mark.parametrize(
    "cell", ["=1+1", "+a", "-a", "-", "@SUM(A1)", "\tx", "\r=1", "\n=1", "-1.5 kg", "--1", "=-1.5"]
)
def test_text_that_begins_as_a_formula_gets_an_apostrophe(cell: str):
    assert guarded(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", [-1.5, 3, None, "", "-1.5", "+2", "-1e-3", "-inf", "model.beta", "a=b", "1-2", " -x"])
def test_numbers_and_other_text_stay(cell: object):
    assert guarded(cell) is cell


def test_every_cell_of_a_file_is_guarded():
    rows = [["=cmd", "z0"], ["a,b", -1.5], ["-x\n'y'", "-2.5"]]
    assert list(csv.reader(csv_text(rows).splitlines(keepends=True))) == [
        ["'=cmd", "z0"],
        ["a,b", "-1.5"],
        ["'-x\n'y'", "-2.5"],
    ]
