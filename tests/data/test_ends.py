"""The times after the end of a series, in the form of its file."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from research.data.ends import following
from research.data.files.reading import read_table
from research.data.preparation import Preparation
from research.data.times import steps_of, times_of
from research.tree import ConfigError, build


def dates(start: str, frequency: str, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    return [date.strftime(form) for date in pandas.date_range(start, periods=40, freq=frequency)]


def later(folder: Path, times: list[str], count: int = 10) -> list[str]:
    (folder / "x.csv").write_text("time,a\n" + "".join(f"{time},1\n" for time in times))
    table = read_table(folder / "x.csv")
    return following(table.column("time"), times_of(table, "time"), steps_of(table, "time").step, count)


@pytest.mark.parametrize(
    "times",
    [
        dates("2024-02-28 03:00", "h"),
        dates("2024-02-28 03:15", "15min", "%Y-%m-%d %H:%M"),
        dates("2024-02-28", "10ms", "%Y-%m-%dT%H:%M:%S.%f"),
        dates("2024-02-10", "D", "%Y-%m-%d"),
        dates("2024-02-10", "D", "%Y%m%d"),
        dates("2024-02-10", "W", "%Y-%m-%d"),
        dates("2024-01-01", "B", "%Y-%m-%d"),
        dates("2023-10-01", "MS", "%Y-%m-%d"),
        dates("2023-10-01 06:00", "MS"),
        dates("2023-10-31", "ME", "%Y-%m-%d"),
        dates("2023-10-01", "MS", "%Y-%m"),
        dates("2023-10-01", "MS", "%Y%m"),
        dates("2023-10-01", "QS", "%Y-%m-%d"),
        dates("1983-12-31", "YE", "%Y-%m-%d"),
        dates("1984-02-28", "12MS", "%Y-02-28"),
        [f"{time}+00:00" for time in dates("2024-02-28 03:00", "h")],
        [str(number) for number in range(1960, 2000)],
        [str(number) for number in range(1_700_000_000, 1_700_144_000, 3600)],
        [str(number / 4) for number in range(8001, 8041)],
    ],
    ids=lambda times: times[0],
)
@pytest.mark.parametrize("kept", [30, [*range(9), *range(12, 25), 26, 27, 28, 29]], ids=["whole", "gaps"])
def test_times_go_on_as_the_file_writes_them(times, kept, tmp_path):
    known = times[:30] if kept == 30 else [times[index] for index in kept]
    assert later(tmp_path, known) == [time.removesuffix(".0") for time in times[30:]]


def test_rounded_fractions_go_on_at_their_mean_step(tmp_path):
    times = [f"{1749.042 + index / 12:.3f}" for index in range(300)]
    found = later(tmp_path, times[:290])
    np.testing.assert_allclose(np.array(found, float), np.array(times[290:], float), atol=2e-3)


def test_times_with_a_zone_are_given_in_utc(tmp_path):
    times = [f"{time}+02:00" for time in dates("2024-03-01", "h")]
    assert later(tmp_path, times[:30], 2) == ["2024-03-02 04:00:00+00:00", "2024-03-02 05:00:00+00:00"]


def test_parquet_times_with_a_zone_are_given_in_utc(tmp_path):
    """The same times without a zone would look like those of the clock on the wall."""
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    for zone, ending in (("Europe/Berlin", "+00:00"), (None, "")):
        times = pandas.date_range("2024-01-01", periods=30, freq="h", tz=zone)
        pandas.DataFrame({"time": times, "a": 1.0}).to_parquet(tmp_path / "x.parquet", index=False)
        table = read_table(tmp_path / "x.parquet")
        found = following(table.column("time"), times_of(table, "time"), "1 hour", 1)
        first = (times[-1] + pandas.Timedelta("1h")).tz_convert("UTC") if zone else times[-1] + pandas.Timedelta("1h")
        assert found == [f"{first:%Y-%m-%d %H:%M:%S}{ending}"]


def test_months_of_unequal_days_are_no_steps(tmp_path):
    """In UTC, months of Berlin begin on the last day of the month before; they would go on in steps of 31 days."""
    months = [str(date) for date in pandas.date_range("2020-01-01", periods=15, freq="MS", tz="Europe/Berlin")]
    with pytest.raises(ConfigError, match="29 days after the row before, and a step is 31 days; if the steps are mon"):
        later(tmp_path, months)
    days = [str(date) for date in pandas.date_range("2020-03-01", periods=60, freq="D", tz="Europe/Berlin")]
    assert later(tmp_path, days, 1) == ["2020-04-29 22:00:00+00:00"]  # a change to summer time is no fault


def test_series_of_m4_go_on_after_the_values_that_were_asked_for(tmp_path, shipped_config):
    """A series that is shorter than a window is filled up at its beginning, as in training."""
    training, later = (
        {"Y1": np.arange(30.0), "Y2": np.arange(3.0)},
        {"Y1": 30 + np.arange(6.0), "Y2": 3 + np.arange(6.0)},
    )
    for part, series in (("train", training), ("test", later)):
        header = ",".join(f"V{number}" for number in range(1, 32))
        rows = [",".join([name, *map(str, values)]) + "," * (30 - len(values)) for name, values in series.items()]
        (tmp_path / f"Yearly-{part}.csv").write_text("\n".join([header, *rows]) + "\n")
    keys = shipped_config("data", "m4") | {"root": str(tmp_path), "frequency": "Yearly", "window": 12}
    ends = build(keys, key="data").ends(Preparation())
    assert [end.name for end in ends.series] == ["Y1", "Y2"]
    np.testing.assert_array_equal(ends.series[0].values[:, 0], np.arange(36))
    np.testing.assert_array_equal(ends.series[1].values[:, 0], [np.nan, np.nan, np.nan, *range(9)])
