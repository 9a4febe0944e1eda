"""Rows as stored and as a model sees them: laws of arranging and scaling, offsets, new rows and their refusals."""

import dataclasses
import json

import numpy as np
import pandas
import pytest

from research.data import scaling
from research.data.examples import Examples, Windows, compact, prepare
from research.data.loading import load, preparation_of, scored
from research.data.new_rows import class_numbers, stored_rows
from research.data.preparation import Preparation, zero_tails
from research.tree import ConfigError, build

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (4, 5)),
        ({"layout": "rows"}, (4, 5)),
        ({"layout": "pixels"}, (4, 5)),
        ({"layout": "pixels", "permutation_seed": 3}, (4, 5)),
        ({"zscore": True, "kind": "sequence"}, (6, 2)),
    ],
)
def test_restoring_undoes_arranging(settings, shape):
    preparation = Preparation(stored_shape=shape, **settings)
    stored = Examples(x=RANDOM.normal(3, 2, (7, *shape)))
    arranged = preparation.arrange(stored)
    np.testing.assert_allclose(preparation.restore(arranged.x, stored), stored.x, rtol=1e-5, atol=1e-5)


def test_the_mask_of_pixels_has_their_order():
    preparation = Preparation(layout="pixels", permutation_seed=3, stored_shape=(2, 3))
    x = np.arange(12.0).reshape(2, 2, 3)
    arranged = preparation.arrange(Examples(x=x, observed=x > 4))
    np.testing.assert_array_equal(arranged.observed, arranged.x > 4)


def test_a_permutation_puts_the_same_pixels_in_one_order_for_all_rows():
    plain, permuted = (Preparation(layout="pixels", permutation_seed=seed) for seed in (None, 3))
    rows = Examples(x=RANDOM.integers(0, 255, (3, 4, 5), np.uint8))
    order = permuted.arrange(Examples(x=np.arange(20).reshape(1, 4, 5))).x[0, :, 0]
    assert sorted(order) == list(range(20)) != list(order)
    np.testing.assert_array_equal(permuted.arrange(rows).x, plain.arrange(rows).x[:, order])


def test_what_a_run_folder_keeps_gives_the_same_preparation():
    made = Preparation(
        kind="sequence", stored_shape=(4, 2), columns=("a", "b"), classes=("x", "y"), class_count=2, zscore=True,
        shift=np.array([1e9 + 1 / 3, 0.0]), scale=np.array([3.0, 1 / 7]),
        time_step="1 hour", missing=(-9999.0,),
    )  # fmt: skip
    again = Preparation.from_record(json.loads(json.dumps(made.record())), made.scaling())
    for field in dataclasses.fields(Preparation):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(made, field.name))
        assert type(getattr(again, field.name)) is type(getattr(made, field.name)), field.name


@pytest.mark.parametrize("binarize", ["once", "dynamic"])
@pytest.mark.parametrize("layout", ["image", "pixels"])
def test_binarised_rows_are_drawn_as_the_scores_of_the_training_saw_them(binarize, layout, shipped_config):
    from sklearn.datasets import load_digits

    dataset = load(build(shipped_config("data", "digits") | {"binarize": binarize, "layout": layout}, key="data"))
    preparation = preparation_of(dataset, None)
    stored = stored_rows(preparation, load_digits().images, takes_masks=False)
    seen = preparation.scale_rows(preparation.arrange(stored)).x
    numbers = np.sort(dataset.split(None).rows("test"))
    np.testing.assert_array_equal(seen[numbers], scored(dataset, None)["test"].x)
    assert set(np.unique(seen)) == {0, 1}
    assert preparation.raw(seen).max() == 16


# ------------------------------------------------------------------------------------------------- large offsets


@pytest.mark.parametrize("method", ["standard", "minmax"])
def test_numbers_far_from_zero_stay_different_for_a_compiled_program(method):
    x = 1.6e9 + np.arange(300.0)[:, None]
    examples, rows = Examples(x=x), np.arange(200)
    fitted = scaling.fit(method, examples, rows)
    offset = scaling.offset(fitted)
    small = compact(examples, offset, 0.0)
    assert small.x.dtype == np.float32
    seen = prepare(small, (fitted.shift - offset).astype(np.float32), fitted.scale.astype(np.float32)).x
    exact = (x - fitted.shift) * fitted.scale
    assert len(np.unique(seen)) == 300
    np.testing.assert_allclose(seen, exact, atol=1e-5)
    np.testing.assert_allclose(prepare(examples, fitted.shift, fitted.scale).x, exact, atol=1e-6)
    scaling.check_precision("x", examples, fitted, rows, ("time",), False)


def test_ordinary_numbers_keep_their_bits():
    x = RANDOM.normal(5.0, 2.0, (50, 3)).astype(np.float32)
    fitted = scaling.fit("standard", Examples(x=x), np.arange(40))
    assert not scaling.offset(fitted).any()
    assert compact(Examples(x=x), 0.0, 0.0).x is x
    expected = (x - fitted.shift.astype(np.float32)) * fitted.scale.astype(np.float32)
    np.testing.assert_array_equal(prepare(Examples(x=x), fitted.shift, fitted.scale).x, expected)


@pytest.mark.parametrize(
    ("x", "method", "remedy"),
    [
        (1.6e9 + np.arange(300.0), "none", "use data.scaling=standard"),
        (np.append(np.arange(300.0), 1e12), "standard", "remove outliers"),
    ],
)
def test_numbers_that_become_one_number_are_refused(x, method, remedy):
    examples, rows = Examples(x=x[:, None]), np.arange(len(x))
    fitted = scaling.fit(method, examples, rows)
    with pytest.raises(ConfigError, match=f"different values of x in column meter become .* in float32; {remedy}"):
        scaling.check_precision("x", examples, fitted, rows, ("meter",), False)


def test_rounding_errors_are_no_different_values():
    x = np.sin(np.arange(500) * 2 * np.pi / 24)[:, None]
    assert len(np.unique(x)) > 2 * len(np.unique(x.round(9)))
    examples, rows = Examples(x=x), np.arange(400)
    for method in ("none", "standard", "minmax"):
        scaling.check_precision("x", examples, scaling.fit(method, examples, rows), rows, None, False)


def test_windows_and_their_target_share_one_series_without_the_offset():
    series = 1e9 + np.arange(30.0)[:, None]
    windows = lambda first, size: Windows(series, np.arange(first, first + 20, dtype=np.int32), size)
    small = compact(Examples(x=windows(0, 4), target=windows(4, 2)), np.full(1, 1e9), np.full(1, 1e9))
    assert small.x.series is small.target.series
    np.testing.assert_array_equal(small.x.series[:, 0], np.arange(30, dtype=np.float32))


# ------------------------------------------------------------------------------------------------------ new rows


SEQUENCES = Preparation(kind="sequence", stored_shape=(5, 2), class_count=3)
VECTORS = Preparation(kind="vector", stored_shape=(2,), columns=("a", "b"), classes=("ash", "oak"), class_count=2)


def test_columns_are_matched_by_name():
    table = pandas.DataFrame({"b": [1.0, 2.0], "a": [3.0, 4.0]})
    np.testing.assert_array_equal(stored_rows(VECTORS, table, takes_masks=False).x, [[3, 1], [4, 2]])
    with pytest.raises(ConfigError, match=r"columns=b: the table has no such column"):
        stored_rows(VECTORS, table.drop(columns="b"), takes_masks=False)
    with pytest.raises(ConfigError, match=r"columns=c: the table has this column, and training had not"):
        stored_rows(VECTORS, table.assign(c=1), takes_masks=False)
    twice = pandas.concat([table, table["a"]], axis=1)
    with pytest.raises(ConfigError, match=r"columns=a: the table has more than one column of this name"):
        stored_rows(VECTORS, twice, takes_masks=False)
    with pytest.raises(ConfigError, match="expected real numbers"):
        stored_rows(VECTORS, [["x", "y"]], takes_masks=False)


def test_classes_are_matched_by_name():
    np.testing.assert_array_equal(class_numbers(VECTORS, ["oak", "ash", "oak"]), [1, 0, 1])
    with pytest.raises(ConfigError, match=r"label=elm: no such class.*there are: ash, oak"):
        class_numbers(VECTORS, ["oak", "elm"])
    years = dataclasses.replace(VECTORS, classes=("2", "10"))
    np.testing.assert_array_equal(class_numbers(years, np.array([10.0, 2.0])), [1, 0])
    np.testing.assert_array_equal(class_numbers(years, np.array([10, 2])), [1, 0])
    with pytest.raises(ConfigError, match=r"label=2\.5"):
        class_numbers(years, [2.5])


@pytest.mark.parametrize(("label", "shown"), [([0, 3], "3"), ([-1, 0], "-1"), ([0.5, 1], "0.5"), ([np.nan, 1], "nan")])
def test_numbers_that_are_no_class_are_refused(label, shown):
    with pytest.raises(ConfigError, match=f"label={shown}: expected whole numbers from 0 to 2"):
        class_numbers(SEQUENCES, label)


def test_classes_without_names_are_numbers():
    np.testing.assert_array_equal(class_numbers(SEQUENCES, ["0", "2"]), [0, 2])
    with pytest.raises(ConfigError, match="label=a: the classes of this run have no names"):
        class_numbers(SEQUENCES, ["a", "b"])


def test_rows_without_classes_take_no_label():
    with pytest.raises(ConfigError, match="trained on rows without classes"):
        class_numbers(dataclasses.replace(SEQUENCES, class_count=0), [0])
    with pytest.raises(ConfigError, match="one class for each of 4 rows"):
        stored_rows(SEQUENCES, np.ones((4, 5, 2)), takes_masks=True, label=[0, 1])


def test_sequences_of_unequal_length_are_padded_with_their_lengths():
    rows = stored_rows(SEQUENCES, [np.ones((3, 2)), np.ones((5, 2))], takes_masks=True)
    np.testing.assert_array_equal(rows.length, [3, 5])
    assert rows.x.shape == (2, 5, 2)
    assert not rows.x[0, 3:].any()
    same = stored_rows(SEQUENCES, rows.x, takes_masks=True, lengths=[3, 5])
    np.testing.assert_array_equal(same.length, rows.length)
    assert stored_rows(SEQUENCES, np.ones((2, 5, 2)), takes_masks=True, lengths=[5, 5]).length is None
    for lengths in ([3], [0, 5], [3, 6], [2.5, 5.0]):
        with pytest.raises(ConfigError, match="lengths="):
            stored_rows(SEQUENCES, rows.x, takes_masks=True, lengths=lengths)
    with pytest.raises(ConfigError, match="row 0 must have 1 to 5 steps of 2 channels"):
        stored_rows(SEQUENCES, [np.ones((6, 2)), np.ones((5, 2))], takes_masks=True)
    with pytest.raises(ConfigError, match=r"rows of unequal length.*takes no masks"):
        stored_rows(SEQUENCES, [np.ones((3, 2)), np.ones((5, 2))], takes_masks=False)
    with pytest.raises(ConfigError, match=r"expected rows of shape \[2\]"):
        stored_rows(VECTORS, [np.ones(2), np.ones(1)], takes_masks=True)


def test_nan_is_missing_where_masks_are_taken_and_refused_elsewhere():
    x = np.ones((3, 5, 2))
    x[1, 2, 0] = np.nan
    rows = stored_rows(SEQUENCES, x, takes_masks=True)
    assert (~rows.observed).sum() == 1
    np.testing.assert_array_equal(rows.observed, np.isfinite(x))
    with pytest.raises(ConfigError, match=r"missing values.*fill them first"):
        stored_rows(SEQUENCES, x, takes_masks=False)
    masked = dataclasses.replace(SEQUENCES, masked=True)  # training had gaps as well
    assert stored_rows(masked, x, takes_masks=False).observed is not None
    x[1, 2, 0] = np.inf
    with pytest.raises(ConfigError, match=r"x=inf: at index \[1, 2, 0\]"):
        stored_rows(SEQUENCES, x, takes_masks=True)
    x[1, 2, 0] = np.nan  # beyond the end of a row nothing is missing
    assert stored_rows(SEQUENCES, x, takes_masks=True, lengths=[5, 2, 5]).observed is None
    given = stored_rows(SEQUENCES, np.ones((1, 5, 2)), takes_masks=True, observed=np.zeros((1, 5, 2)))
    assert not given.observed.any()


def test_numbers_that_mean_a_missing_value_are_missing_in_new_rows_too():
    x = np.ones((3, 5, 2))
    x[1, 2, 0] = -9999
    marked = dataclasses.replace(SEQUENCES, missing=(-9999.0,))
    assert np.argwhere(~stored_rows(marked, x, takes_masks=True).observed).tolist() == [[1, 2, 0]]
    assert stored_rows(SEQUENCES, x, takes_masks=True).observed is None


def test_rows_that_end_in_zeros_give_a_warning():
    x = np.ones((3, 5, 2))
    x[1, 3:] = 0
    np.testing.assert_array_equal(zero_tails(x), [0, 2, 0])
    assert zero_tails(np.zeros((1, 5, 2)))[0] == 5
    with pytest.warns(UserWarning, match=r"1 of 3 rows end in 2 or more steps of zeros.*lengths="):
        stored_rows(SEQUENCES, x, takes_masks=True)
    stored_rows(SEQUENCES, x, takes_masks=True, lengths=[5, 3, 5])


@pytest.mark.parametrize(("x", "shown"), [([[0.5, 1]], r"0\.5"), ([[-1, 3]], "-1"), ([[256, 3]], "256")])
def test_pixels_must_be_given_as_stored(x, shown):
    pixels = Preparation(kind="image", stored_shape=(2,), whole=255, scale=np.asarray(1 / 255))
    stored_rows(pixels, np.array([[0, 255]]), takes_masks=False)
    stored_rows(pixels, np.array([[0.0, 255.0]]), takes_masks=False)
    with pytest.raises(ConfigError, match=f"x={shown}.*whole numbers from 0 to 255 as stored"):
        stored_rows(pixels, np.array(x), takes_masks=False)


def test_numbers_that_differ_by_rounding_alone_are_the_same():
    """A computed wave has 55 different numbers of 64 bits where it has 5 values; float32 loses none of these."""
    x = 100 + 10 * np.sin(2 * np.pi * np.arange(400) / 8)
    assert len(np.unique(x)) > 50
    examples, rows = Examples(x=x[:, None]), np.arange(400)
    scaling.check_precision("x", examples, scaling.fit("standard", examples, rows), rows, ("wave",), False)
