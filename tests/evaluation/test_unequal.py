"""Rows of unequal length and with gaps for methods that know no mask."""

import numpy as np

from research.data.examples import Examples
from research.evaluation.baselines import fill_gaps, repeat_end, stretch, whole_rows

X = np.array([[[1.0], [3.0], [0.0], [0.0], [0.0]], [[2.0], [4.0], [6.0], [8.0], [9.0]]])
LENGTH = np.array([2, 5], np.int32)


def test_the_last_valid_value_is_repeated():
    np.testing.assert_array_equal(repeat_end(X, LENGTH)[..., 0], [[1, 3, 3, 3, 3], [2, 4, 6, 8, 9]])


def test_rows_are_drawn_out_linearly():
    np.testing.assert_allclose(stretch(X, LENGTH)[..., 0], [[1, 1.5, 2, 2.5, 3], [2, 4, 6, 8, 9]])
    line = np.arange(4.0)[None, :, None]
    np.testing.assert_allclose(stretch(line, np.array([3]))[..., 0], [[0, 2 / 3, 4 / 3, 2]])
    np.testing.assert_array_equal(stretch(X, np.array([1, 5]))[0, :, 0], [1] * 5)


def test_gaps_lie_on_the_line_between_observed_values():
    there = np.array([[1, 1, 0, 0, 0], [0, 1, 0, 0, 1]], bool)[..., None]
    np.testing.assert_allclose(fill_gaps(X, there)[..., 0], [[1, 3, 3, 3, 3], [4, 4, 17 / 3, 22 / 3, 9]])
    np.testing.assert_array_equal(fill_gaps(X, np.zeros(X.shape, bool)), X)  # nothing is known


def test_whole_rows_have_one_form_and_others_two():
    assert list(whole_rows(Examples(x=X))) == [""]
    np.testing.assert_array_equal(whole_rows(Examples(x=X))[""], X[..., 0])
    rows = whole_rows(Examples(x=X, length=LENGTH, observed=np.ones(X.shape, bool)))
    assert list(rows) == ["padded_", "resampled_"]
    np.testing.assert_array_equal(rows["padded_"], repeat_end(X, LENGTH)[..., 0])
