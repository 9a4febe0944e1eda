"""Values from Python: what is no real number, a masked value, or a target of another shape."""

import jax
import numpy as np
import pandas
import pytest

from research.data import scaling
from research.data.examples import Examples, compact, prepare
from research.data.new_rows import as_numbers, class_numbers, stored_rows, target_values, whole_number
from research.data.preparation import Preparation
from research.data.tables import whole_bits
from research.tree import ConfigError

SEQUENCES = Preparation(kind="sequence", stored_shape=(5, 2), columns=("a", "b"))
TABLE = Preparation(kind="vector", stored_shape=(2,), columns=("a", "b"), classes=("1", "2"), class_count=2)


@pytest.mark.parametrize(
    "values",
    [
        np.ones((2, 2)) + 1j,
        np.array(["2020-01-01"], "datetime64[D]"),
        np.ones(2, "timedelta64[s]"),
        [["a", 1.0]],
        [[1.0], [1.0, 2.0]],
        {"a": [1.0]},
        "rows.csv",
    ],
)
def test_what_is_no_real_number_is_refused(values):
    with pytest.raises(ConfigError, match="expected real numbers in rows of one shape"):
        as_numbers("x", values)


def test_what_a_masked_array_masks_is_missing():
    masked = np.ma.masked_array(np.arange(4), [False, True, False, False])
    np.testing.assert_array_equal(as_numbers("x", masked), [0, np.nan, 2, 3])
    np.testing.assert_array_equal(as_numbers("x", [None, 1]), [np.nan, 1])
    hidden = np.zeros((1, 5, 2), bool)
    hidden[0, 1, 0] = True
    rows = stored_rows(SEQUENCES, np.ma.masked_array(np.ones((1, 5, 2)), hidden), takes_masks=True)
    np.testing.assert_array_equal(rows.observed, ~hidden)
    with pytest.raises(ConfigError, match="missing values: this model saw none"):
        stored_rows(TABLE, np.ma.masked_array(np.ones((1, 2)), [[True, False]]), takes_masks=False)
    with pytest.raises(ConfigError, match="every row needs its class"):
        class_numbers(TABLE, np.ma.masked_array([1, 2], [False, True]))


def test_a_table_names_the_column_without_numbers():
    table = pandas.DataFrame({"b": [1.0, 2.0], "a": ["yes", "no"]})
    with pytest.raises(ConfigError, match="column 'a' of the table holds no real numbers"):
        stored_rows(TABLE, table, takes_masks=False)
    table = pandas.DataFrame({name: pandas.date_range("2020-01-01", periods=2) for name in "ab"})
    with pytest.raises(ConfigError, match="column 'a' of the table holds no real numbers"):
        stored_rows(TABLE, table, takes_masks=False)
    table = pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64"), "b": [True, False]})
    np.testing.assert_array_equal(stored_rows(TABLE, table, takes_masks=True).observed, [[True, True], [False, True]])


def test_tables_in_a_list_are_matched_by_column_too():
    first = pandas.DataFrame({"b": np.arange(5.0), "a": np.ones(5)})
    for second in (first, first[:3]):
        rows = stored_rows(SEQUENCES, [first, second], takes_masks=True)
        np.testing.assert_array_equal(rows.x[0], first[["a", "b"]])
        np.testing.assert_array_equal(rows.x[1, :3], first[["a", "b"]][:3])


def test_a_list_of_equally_short_sequences_is_padded():
    rows = stored_rows(SEQUENCES, [np.ones((3, 2)), np.ones((3, 2))], takes_masks=True)
    assert rows.x.shape == (2, 5, 2)
    np.testing.assert_array_equal(rows.length, [3, 3])
    assert stored_rows(SEQUENCES, [np.ones((5, 2))], takes_masks=True).length is None


def test_a_row_without_any_value_gets_a_warning():
    x = np.ones((3, 5, 2))
    x[1] = np.nan
    with pytest.warns(UserWarning, match=r"1 of 3 rows hold no value at all \(the first is row 1\)"):
        stored_rows(SEQUENCES, x, takes_masks=True)


def test_observed_is_true_or_false():
    rows = stored_rows(SEQUENCES, np.ones((1, 5, 2)), takes_masks=False, observed=np.ones((1, 5, 2)))
    assert rows.observed is None
    with pytest.raises(ConfigError, match="expected True and False"):
        stored_rows(SEQUENCES, np.ones((1, 5, 2)), takes_masks=True, observed=np.full((1, 5, 2), np.nan))


def test_truth_values_are_no_pixels():
    with pytest.raises(ConfigError, match="whole numbers from 0 to 255"):
        stored_rows(Preparation(stored_shape=(2,), whole=255), np.ones((3, 2), bool), takes_masks=False)
    with pytest.warns(UserWarning, match="no value of these rows is above 1"):
        stored_rows(Preparation(stored_shape=(2,), whole=255), np.ones((3, 2)), takes_masks=False)


@pytest.mark.parametrize("labels", [[[1], [2]], [1, 2]])
def test_a_column_of_classes_is_taken(labels):
    np.testing.assert_array_equal(class_numbers(TABLE, labels), [0, 1])


def test_classes_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match="expected one class for each row"):
        class_numbers(TABLE, np.eye(2, dtype=int) + 1)


# ------------------------------------------------------------------------------------------------------- targets


def test_one_value_for_each_row_stands_for_a_column_of_them():
    for target in ([3, 4], [[3.0], [4.0]], pandas.Series([3, 4])):
        values, observed = target_values(target, 2, (1,), 0)
        np.testing.assert_array_equal(values, [[3.0], [4.0]])
        assert values.dtype == np.float64  # whole numbers would count as classes, and would not be scaled
        assert observed is None


@pytest.mark.parametrize(
    ("target", "rows", "shape", "classes", "problem"),
    [
        ([1.0, 2.0], 2, None, 0, "trained without a target"),
        (np.ones((2, 3, 1)), 2, (3, 2), 0, r"expected the shape \[2, 3, 2\]"),
        (np.ones(3), 2, (1,), 0, r"expected the shape \[2, 1\]"),
        ([np.nan, 1.0], 2, (1,), 0, "expected finite numbers"),
        ([[0, 1.5]], 1, (2,), 2, "expected whole numbers from 0 to 1"),
        ([[0, 2]], 1, (2,), 2, "expected whole numbers from 0 to 1"),
    ],
)
def test_other_targets_are_refused(target, rows, shape, classes, problem):
    with pytest.raises(ConfigError, match=problem):
        target_values(target, rows, shape, classes)


def test_missing_steps_of_a_forecast_are_not_observed():
    target = np.ones((1, 2, 1))
    target[0, 1] = np.nan
    np.testing.assert_array_equal(target_values(target, 1, (2, 1), 0)[1], [[[True], [False]]])


@pytest.mark.parametrize("value", [-1, 0, 2.5, "3", True, 2**31])
def test_counts_are_whole_numbers(value):
    with pytest.raises(ConfigError, match="expected a whole number from 1"):
        whole_number("number", value, 1)


# ------------------------------------------------------------------------------------- bytes far from 0, zeros and ones


def test_bytes_far_from_zero_are_scaled_alike_in_a_compiled_program():
    x = np.full((200, 3), 255, np.uint8)
    x[::40, 1], x[:, 2] = 254, np.arange(200)
    examples = Examples(x=x)
    fitted = scaling.fit("standard", examples, np.arange(200))
    offset = scaling.offset(fitted)
    assert offset[1] > 254
    shift, scale = ((value).astype(np.float32) for value in (fitted.shift - offset, fitted.scale))
    seen = jax.jit(prepare)(compact(examples, offset, 0.0), shift, scale).x
    np.testing.assert_allclose(seen, (x - fitted.shift) * fitted.scale, atol=1e-4)


def test_a_constant_zero_or_one_of_an_array_stays_as_in_a_table():
    np.testing.assert_array_equal(whole_bits(np.array([[0, 1, 0, 2], [0, 1, 1, 1]])), [True, True, True, False])
