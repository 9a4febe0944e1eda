"""The time column: steps, those that are missing, and what is no series of equal steps."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from research.data.files.reading import read_table
from research.data.times import steps_of
from research.tree import ConfigError


def steps(folder: Path, times, step: str | None = None):
    (folder / "x.csv").write_text("time,a\n" + "".join(f"{time},1\n" for time in times))
    return steps_of(read_table(folder / "x.csv"), "time", step)


def dates(start: str, frequency: str, periods: int = 24, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    return [date.strftime(form) for date in pandas.date_range(start, periods=periods, freq=frequency)]


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (dates("2024-01-01", "h"), "1 hour"),
        (dates("2024-01-01", "15min"), "15 minutes"),
        (dates("2024-01-01", "D", form="%Y-%m-%d"), "1 day"),
        (dates("2024-01-01", "D", form="%Y%m%d"), "1 day"),
        (dates("2024-01-01", "W", form="%Y-%m-%d"), "7 days"),
        (dates("2024-01-01", "B", form="%Y-%m-%d"), "1 working day"),
        (dates("2024-01-01", "MS", form="%Y-%m-%d"), "1 month"),
        (dates("2024-01-31", "ME", form="%Y-%m-%d"), "1 month"),
        (dates("2024-01-01", "MS", form="%Y-%m"), "1 month"),
        (dates("2024-01-01", "MS", form="%Y%m"), "1 month"),
        (dates("2024-01-01", "QS", form="%Y-%m-%d"), "3 months"),
        (dates("1960-01-01", "YS", form="%Y-%m-%d"), "12 months"),
        (range(1960, 1984), "1"),
        (range(1_700_000_000, 1_700_086_400, 3600), "3600"),
        ([f"{index / 7:.5f}" for index in range(24)], "0.142857"),
        ([f"{1749.042 + index / 12:.3f}" for index in range(24)], "0.0833333"),
        ([f"{time}+01:00" for time in dates("2024-01-01", "h")], "1 hour"),
    ],
)
def test_the_step_is_the_most_common_difference_and_gaps_are_counted(times, step, tmp_path):
    times = list(times)
    found = steps(tmp_path, times)
    np.testing.assert_array_equal(found.number, np.arange(24))
    if step != "0.0833333":  # of rounded fractions
        assert found.step == step
    kept = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23]
    np.testing.assert_array_equal(steps(tmp_path, [times[index] for index in kept]).number, kept)


def test_a_known_step_places_few_rows(tmp_path):
    few = ["2024-01-01 00:00", "2024-01-01 05:00"]
    np.testing.assert_array_equal(steps(tmp_path, few).number, [0, 1])
    np.testing.assert_array_equal(steps(tmp_path, few, "1 hour").number, [0, 5])
    np.testing.assert_array_equal(steps(tmp_path, ["2024-01-01", "2024-03-01"], "1 month").number, [0, 2])
    np.testing.assert_array_equal(steps(tmp_path, ["1", "2.5"], "0.25").number, [0, 6])
    for times, step in ((few, "0.25"), (["2024-01-01 00:00", "2024-01-01 00:30"], "1 hour"), (["1", "2"], "1 hour")):
        with pytest.raises(ConfigError, match=r"time_column=time: .*(steps of|a step is)"):
            steps(tmp_path, times, step)


def test_hours_that_a_clock_leaves_out_are_steps_and_an_hour_that_it_repeats_is_refused(tmp_path):
    spring, autumn = (
        [time.strftime("%Y-%m-%d %H:%M") for time in pandas.date_range(day, periods=9, freq="h", tz="Europe/Berlin")]
        for day in ("2024-03-31", "2024-10-27")
    )
    np.testing.assert_array_equal(steps(tmp_path, spring).number, [0, 1, 3, 4, 5, 6, 7, 8, 9])
    with pytest.raises(ConfigError, match=r"x.csv, line 5: '2024-10-27 02:00:00' occurs twice"):
        steps(tmp_path, autumn)


HOURS = dates("2024-01-01", "h")


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ([*HOURS[:9], *HOURS[8:]], "line 11: '2024-01-01 08:00:00' occurs twice; keep each time once"),
        (HOURS[::-1], "line 3: .* does not come after the row before; sort the table by time"),
        ([*HOURS[:9], "", *HOURS[10:]], "line 11: the time is missing"),
        ([*HOURS[:9], "soon", *HOURS[10:]], "line 11: 'soon' is not a time; expected numbers, or dates"),
        ([*HOURS[:9], "2024-01-01 09:30", *HOURS[10:]], "line 11: .* lies 90 minutes after .*a step is 1 hour"),
        ([*HOURS, "2224-01-01"], "line 26: .* comes 1753129 steps of 1 hour after the row before"),
        ([*HOURS[:9], "2024-01-01T09:00+00:00"], "line 11: .* another kind of time zone"),
        ([0, 2, 4, 6, 7, 9, 11], "lies 1 after the row before, and a step is 2"),
    ],
)
def test_times_that_are_no_equal_steps_are_refused(times, problem, tmp_path):
    with pytest.raises(ConfigError, match=problem) as caught:
        steps(tmp_path, times)
    assert caught.value.key == "time_column"


def test_few_rows_are_placed_by_the_step_of_the_training(tmp_path):
    week = dates("2024-01-01", "B", 5, "%Y-%m-%d")
    np.testing.assert_array_equal(steps(tmp_path, week, "1 working day").number, np.arange(5))
    np.testing.assert_array_equal(steps(tmp_path, ["2024-01-05", "2024-01-08"], "1 working day").number, [0, 1])
    np.testing.assert_array_equal(steps(tmp_path, ["2024-01-31"], "1 month").number, [0])
    two_months = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-02-01"]
    np.testing.assert_array_equal(steps(tmp_path, two_months, "1 day").number, [0, 1, 2, 31])
    with pytest.raises(ConfigError, match="its times are dates; training had steps of 1 working day"):
        steps(tmp_path, dates("2024-01-01", "D", form="%Y-%m-%d"), "1 working day")


def test_rows_that_are_all_further_apart_than_those_of_the_training_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="its rows are 2 hours apart; training had steps of 1 hour"):
        steps(tmp_path, HOURS[::2], "1 hour")
    np.testing.assert_array_equal(steps(tmp_path, [HOURS[0], HOURS[1], HOURS[5]], "1 hour").number, [0, 1, 5])
