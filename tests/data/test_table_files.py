"""Files of tables: what is read, and that nothing is read that is not there."""

import dataclasses
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from configs import shipped

from research.data.files.reading import read_table
from research.data.files.table import PLAIN, paste
from research.data.series import Series
from research.tree import ConfigError, build

ROWS = ["a,b", "1.5,2", "-3,4e1", ".25,6."]


@pytest.fixture
def write(tmp_path: Path):
    """Write lines or bytes to a file, and give its path."""

    def write_file(content: Any, name: str = "x.csv") -> Path:
        content = content if isinstance(content, bytes) else ("\n".join(content) + "\n").encode()
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write_file


def values(path: Path, **form: Any) -> list[list[float]]:
    table = read_table(path, dataclasses.replace(PLAIN, **form))
    return table.numbers(table.names).tolist()


NUMBERS = [[1.5, 2.0], [-3.0, 40.0], [0.25, 6.0]]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (ROWS, {}),
        (["", *ROWS, "", "  ", ""], {}),
        ([row.replace(",", ";").replace(".", ",") for row in ROWS], {"separator": "semicolon", "decimal": "comma"}),
        ([row.replace(",", "\t") for row in ROWS], {"separator": "tab"}),
        ([row.replace(",", " , ") for row in ROWS], {}),
        (['"a","b"', '"1.5","2"', '"-3",4e1', ".25,6."], {}),
        ("\r\n".join(ROWS).encode(), {}),
        ("\r".join(ROWS).encode(), {}),
        ("\n".join(ROWS).encode("utf-8-sig"), {}),
        ("\n".join(ROWS).encode("utf-16"), {"encoding": "utf-16"}),
        ("\n".join(ROWS).replace("a", "é").encode("latin-1"), {"encoding": "latin-1"}),
    ],
)
def test_the_same_numbers_in_many_forms(write, content, form):
    assert values(write(content), **form) == NUMBERS


def test_numbers_are_those_that_the_text_says(write):
    texts = ["0.1", "1e-320", "123456789.12345679", "2.2250738585072011e-308", "9007199254740991", "1000000000.4977"]
    path = write(["a", *texts])
    assert [row[0] for row in values(path)] == [float(text) for text in texts]


def test_a_tsv_file_is_parted_by_tabs(write):
    assert values(write([row.replace(",", "\t") for row in ROWS], "x.tsv")) == NUMBERS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (["a,b", "1,2", "3"], "x.csv, line 3: 1 values, but 2 in the first line"),
        (["weight,price", "0.5,1,000,000"], "x.csv, line 2: 4 values, but 2 .*if a comma groups thousands"),
        (["a,b", *["1,2"] * 57, "1,2,3.5"], "x.csv, line 59: 3 values, but 2"),
        (["a;b", "1,5;2,5"], "data.separator=semicolon data.decimal=comma"),
        (["a\tb", "1\t2"], "one column only; if tabs part them: data.separator=tab"),
        (["a b", "1 2"], "data.separator=space"),
        (["a|b", "1|2"], "data.separator=pipe"),
        (["a", "1,5"], "data.separator=semicolon data.decimal=comma"),
        (['"a,b,c', "1,2,3", "4,5,6"], 'x.csv, line 1: a quote \\("\\) is opened and never closed'),
        (["a,b", '1,"2', *["3,4"] * 30_000], 'x.csv, line 2: a quote \\("\\) is opened and never closed'),
        (["a,b", '"1"x,2'], "x.csv, line 2: wrong quotes"),
        (["a,b", '1,"2', '3,4",5'], "x.csv, line 3: 3 values, but 2 .*begins in line 2: is a quote open"),
        (b"a,b\n" + b"1,2\n" * 30_000 + b"1,\xe92\n", "line 30002: byte 120006 .*0xe9.* data.encoding=cp1252"),
        ("\n".join(ROWS).encode("utf-16"), "x.csv starts with the mark .*data.encoding=utf-16"),
        (b"a,b\n1\x00,2\n", "x.csv, line 2: a zero byte"),
        (["a", "1", "", "2"], "x.csv, line 3 is empty; remove it, or write a missing value as NA"),
        ([""], "nothing in it"),
        (["a,b"], "nothing in it"),
        (["400,401", "1.5,2.5"], "line 1 holds numbers only .400,401.; .*data.header=true.*data.header=false"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(write, content, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        read_table(write(content))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("inf", "x.csv, line 5, column 'a': 'inf' is not finite"),
        ("-Infinity", "'-Infinity' is not finite"),
        ("1e999", "'1e999' is not finite"),
        ("0x10", "'0x10' is not a number; if it means a missing value: 'data.missing=.\"0x10\".'"),
        ("1_000", "'1_000' is not a number"),
        ("١٢", "is not a number"),
        ("True", "'True' is not a number"),
        ('"1,5"', "'1,5' is not a number; if a comma is the decimal mark: data.decimal=comma; if it groups thousands"),
        ('"1\n2"', "'1 2' is not a number; is a quote"),
    ],
)
def test_text_among_numbers_is_refused_with_its_place(write, cell, problem):
    table = read_table(write([*ROWS, f"{cell},1"]))
    with pytest.raises(ConfigError, match=problem) as caught:
        table.numbers(["a"])
    assert len(str(caught.value).splitlines()) == 1


def test_missing_values_have_a_few_names_and_those_that_are_asked_for(write):
    cells = ["1", "", "NA", "nan", "None", "null", "N/A", "<NA>", "-9999"]
    table = read_table(write(["a,b", *(f"{cell},0" for cell in cells)]))
    np.testing.assert_array_equal(table.numbers(["a"])[:, 0], [1, *[np.nan] * 7, -9999])
    table = read_table(write(["a", "1", "-9999", "-9999.0", "?"]), dataclasses.replace(PLAIN, missing=(-9999.0, "?")))
    np.testing.assert_array_equal(table.numbers(["a"])[:, 0], [1, np.nan, np.nan, np.nan])
    assert table.column("a").kind == "integer"
    assert table.column("a").marks == {-9999.0, "?"}


def test_kinds_of_columns(write):
    path = write(["i,f,b,t,e", "1,1.0,True,x,", "0,2,false,3,", "-5,,TRUE,y,NA"])
    table = read_table(path)
    assert [table.column(name).kind for name in "ifbte"] == ["integer", "float", "bool", "text", "empty"]
    np.testing.assert_array_equal(table.numbers(["b"])[:, 0], [1, 0, 1])


def test_whole_numbers_that_float64_cannot_tell_apart_are_refused(write, tmp_path):
    table = read_table(write(["a", "9007199254740993"]))
    with pytest.raises(ConfigError, match=r"line 2, column 'a': 9007199254740993 is beyond 2\^53"):
        table.column("a")
    for dtype in ("int64", "uint64"):
        pandas.DataFrame({"a": np.array([1, 2**53 + 1], dtype)}).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(ConfigError, match=r"row 1 \(from 0\), column 'a': 9007199254740993 is beyond"):
            read_table(tmp_path / "x.parquet").column("a")


def test_columns_without_names_are_numbers_and_minus_one_is_the_last(write):
    table = read_table(write(ROWS[1:]), dataclasses.replace(PLAIN, header=False))
    assert table.names == ("0", "1")
    assert table.find("-1", "target") == 1
    with pytest.raises(ConfigError, match="its columns are: 0, 1"):
        table.find("-3", "target")
    with pytest.raises(ConfigError, match=r"line 1, column '0': 'a' is not a number; .*data.header=true"):
        read_table(write(ROWS), dataclasses.replace(PLAIN, header=False)).numbers(["0"])


def test_names_are_found_once(write):
    table = read_table(write(["a,a,kind", "1,2,3"]))
    with pytest.raises(ConfigError, match="more than one column of this name"):
        table.column("a")
    with pytest.raises(ConfigError, match=r"no such column .did you mean 'kind'"):
        table.column("kinds")


def test_parquet_holds_the_same_and_its_index_is_left_out(tmp_path):
    frame = pandas.DataFrame({"f": [1.5, None], "b": [True, False], "c": pandas.Categorical(["x", "y"])})
    frame.index = pandas.Index([7, 3], name="id")
    frame.to_parquet(tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet")
    assert (table.names, table.index) == (("f", "b", "c"), "id")
    assert [table.column(name).kind for name in "fbc"] == ["float", "bool", "text"]
    np.testing.assert_array_equal(table.numbers(["f", "b"]), [[1.5, 1], [np.nan, 0]])
    assert read_table(tmp_path / "x.parquet", keep=["id"]).names == ("f", "b", "c", "id")
    pandas.DataFrame({"f": [1.0, np.inf]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=r"row 1 \(from 0\), column 'f': inf"):
        read_table(tmp_path / "x.parquet").column("f")


def test_remedies_can_be_pasted():
    assert paste("columns", ["a", "400", "0"]) == "'data.columns=[a,400,0]'"
    assert paste("columns", ["true", "1e5", "oil temp", "007"]) == '\'data.columns=["true","1e5","oil temp","007"]\''
    assert paste("missing", ["it's"]) == "'data.missing=[\"it'\"'\"'s\"]'"


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"encoding": "utf-99"}, "data.encoding=utf-99: no such encoding"),
        ({"encoding": "hex"}, "data.encoding=hex: no such encoding"),
        ({"path": "x.parquet", "header": True}, "data.header=True: x.parquet is not a table of text: data.header=null"),
        ({"path": "x.parquet", "decimal": "comma"}, "data.decimal=point"),
        ({"separator": ";"}, "expected one of comma, semicolon, tab, space, pipe"),
        ({"missing": -9999}, "expected a list"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, match):
    config = shipped("data", "series")
    with pytest.raises(ConfigError, match=match):
        build(config | {"path": "x.csv"} | keys, Series, key="data")


# --------------------------------------------------------------------------------------- tables of other programs


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (['"a";"b"', '"1";"2"'], "wrong quotes .*; if semicolons part them: data.separator=semicolon"),
        (["sep=;", "a;b", "1;2"], "line 1 only names the separator; remove it"),
        (["a,b", "one,1.5,2"], r"3 values, but 2 in the first line; if they start with names of rows"),
        (["a,b", "1.5,2,"], "3 values, but 2 in the first line; the last one is empty"),
        (["# made by a logger", "x,y"], "line 2: 2 values, but 1 in the first line$"),
        ("a,b\n1,2\n".encode("utf-16-le"), "a zero byte; is it utf-16. data.encoding=utf-16-le"),
        ("a,b\n1,2\n".encode("utf-16-be"), "a zero byte; is it utf-16. data.encoding=utf-16-be"),
        ("a,b\n1,2\n".encode("utf-16"), "mark of another encoding: data.encoding=utf-16$"),
    ],
)
def test_tables_of_other_programs_are_refused_with_a_remedy(write, content, problem):
    with pytest.raises(ConfigError, match=problem):
        read_table(write(content))


@pytest.mark.parametrize(
    ("written", "encoding", "right"),
    [("utf-16-le", "utf-16", "utf-16-le"), ("utf-16-be", "utf-16", "utf-16-be"), ("utf-8-sig", "cp1252", "utf-8")],
)
def test_the_mark_of_an_encoding_is_neither_missing_nor_read_as_text(write, written, encoding, right):
    path = write("a,b\n1.5,2\n".encode(written))
    with pytest.raises(ConfigError, match=f"data.encoding={right}$"):
        read_table(path, dataclasses.replace(PLAIN, encoding=encoding))
    assert read_table(path, dataclasses.replace(PLAIN, encoding=right)).names == ("a", "b")


@pytest.mark.parametrize(
    ("cells", "remedy"),
    [
        (["m/s", "1", "2", "3"], "if this row holds units or names, remove it; if it means a missing value"),
        (["1", "m/s", "2", "3"], "a number; if it means a missing value"),
        (["1", "\u22122", "2", "3"], "write its minus as -"),
    ],
)
def test_what_is_no_number_has_its_remedy(write, cells, remedy):
    table = read_table(write("\n".join(["a,b", *(f"{cell},1" for cell in cells)]).encode()))
    with pytest.raises(ConfigError, match=remedy):
        table.numbers(["a"])


def test_decimals_beyond_float64_and_repeated_names_of_parquet_are_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    large = [decimal.Decimal(2**60 + row) for row in range(3)]
    table = pyarrow.table({"a": pyarrow.array(large, pyarrow.decimal128(38, 0))})
    pyarrow.parquet.write_table(table, tmp_path / "large.parquet")
    with pytest.raises(ConfigError, match=f"row 0 .*column 'a': {2**60} is beyond"):
        read_table(tmp_path / "large.parquet").column("a")
    numbers = pyarrow.array([1.0, 2.0])
    pyarrow.parquet.write_table(pyarrow.table([numbers, numbers], names=["a", "a"]), tmp_path / "twice.parquet")
    with pytest.raises(ConfigError, match="more than one column of this name"):
        read_table(tmp_path / "twice.parquet").column("a")
