"""Laws of splits and scaling."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data import Examples, Source, Splitting, Windows, scaling
from research.data.loading import assemble, digest
from research.data.preparation import shuffle
from research.data.splits import Rows, absent_notes, check_parts, divide, spread
from research.ranges import OpenShare
from research.tree import ConfigError, build, recipe


@recipe
class Free(Splitting):
    """A source without a fixed test part."""

    test_fraction: OpenShare = 0.25
    binarize: str = "none"


KEYS = {
    "root": None,
    "split_seed": 0,
    "validation_fraction": 0.25,
    "folds": None,
    "fold": None,
    "scaling": "none",
    "train_size": None,
    "validation_size": None,
    "test_size": None,
    "hide": None,
    "hide_by": "points",
    "hide_length": 8,
    "hide_seed": 0,
    "hide_train": None,
}


def free(**changes) -> Free:
    return Free(**(KEYS | changes))


def data(free_recipe: Splitting, x: np.ndarray, **source):
    return assemble(free_recipe, Source("test", "vector", Examples(x=x), **source))


@st.composite
def divisions(draw) -> tuple[Free, int, np.ndarray | None]:
    size = draw(st.integers(8, 60))
    folds = draw(st.none() | st.integers(2, 5))
    test = None
    if draw(st.booleans()):
        test = np.zeros(size, bool)
        test[draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=3))] = True
    return free(split_seed=draw(st.integers(0, 2**40)), folds=folds), size, test


@given(divisions())
@settings(deadline=None, max_examples=30)
def test_parts_are_disjoint_and_cover_all_rows(case):
    chosen, size, test = case
    parts = divide(chosen, size, test)
    assert len(parts) == (chosen.folds or 1)
    for rows in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(size))
        np.testing.assert_array_equal(rows.test, parts[0].test)
        if test is not None:
            np.testing.assert_array_equal(rows.test, np.flatnonzero(test))
    if chosen.folds:
        held_out = np.sort(np.concatenate([rows.validation for rows in parts]))
        np.testing.assert_array_equal(held_out, np.setdiff1d(np.arange(size), parts[0].test))
        assert max(len(rows.validation) for rows in parts) - min(len(rows.validation) for rows in parts) <= 1


@given(divisions())
@settings(deadline=None, max_examples=20)
def test_packed_splits_have_one_shape_and_hide_nothing(case):
    chosen, size, test = case
    x = np.arange(size, dtype=np.float32)[:, None]
    dataset = data(chosen, x, test=test)
    shapes = {tuple(array.shape for array in dataclasses.asdict(split).values()) for split in dataset.splits}
    assert len(shapes) == 1
    for split, rows in zip(dataset.splits, divide(chosen, size, test), strict=True):
        for part in ("train", "validation", "test"):
            np.testing.assert_array_equal(split.rows(part), getattr(rows, part))
        np.testing.assert_array_equal(split.train, np.resize(rows.train, len(split.train)))
        assert (split.validation[split.validation_weight == 0] == 0).all()
        assert split.train.dtype == split.validation.dtype == split.test.dtype == np.int32
        assert split.validation_weight.sum() == len(rows.validation)
    smallest = min(len(split.rows("train")) for split in dataset.splits)
    assert dataset.facts.train_size == smallest


def test_the_test_part_depends_on_the_seed_and_not_on_folds():
    whole = divide(free(), 40)[0].test
    np.testing.assert_array_equal(divide(free(folds=3), 40)[2].test, whole)
    assert not np.array_equal(divide(free(split_seed=1), 40)[0].test, whole)


def test_the_order_of_a_seed_never_changes():
    assert shuffle(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


def test_a_fixed_validation_part_is_kept_and_joins_the_folds():
    test, validation = np.arange(12) >= 10, np.arange(12) < 3
    rows = divide(free(), 12, test, validation)[0]
    assert rows.validation.tolist() == [0, 1, 2]
    folds = divide(free(folds=5), 12, test, validation)
    np.testing.assert_array_equal(np.sort(np.concatenate([rows.validation for rows in folds])), np.arange(10))


def test_limits_take_the_first_shuffled_rows():
    whole = divide(free(), 40)[0]
    few = divide(free(train_size=3, validation_size=2, test_size=1), 40)[0]
    assert [len(rows) for rows in few] == [3, 2, 1]
    np.testing.assert_array_equal(few.train, whole.train[:3])
    assert all(set(part) <= set(all_rows) for part, all_rows in zip(few, whole, strict=True))


@pytest.mark.parametrize("method", ["standard", "minmax"])
def test_scaling_sees_training_rows_only(method):
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 4)).astype(np.float32)
    chosen = free(scaling=method, folds=3)
    before = data(chosen, x.copy())
    for fold, split in enumerate(before.splits):
        changed = x.copy()
        changed[np.setdiff1d(np.arange(30), split.rows("train"))] += 100
        after = data(chosen, changed).splits[fold]
        np.testing.assert_array_equal(after.shift, split.shift)
        np.testing.assert_array_equal(after.scale, split.scale)
    assert not np.array_equal(before.splits[0].shift, before.splits[1].shift)


def test_scaled_training_rows_are_standard_and_a_constant_feature_is_only_shifted():
    x = np.random.default_rng(1).normal(3, 5, (50, 3)).astype(np.float32)
    x[:, 1] = 0.1
    split = data(free(scaling="standard"), x).splits[0]
    seen = np.asarray(split.prepare(Examples(x=x)).x)[split.rows("train")]
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(seen.std(0), [1, 0, 1], atol=1e-6)
    assert split.scale[1] == 1
    split = data(free(scaling="minmax"), x).splits[0]
    seen = np.asarray(split.prepare(Examples(x=x)).x)[split.rows("train")]
    np.testing.assert_allclose(seen.min(0), 0, atol=1e-6)
    np.testing.assert_allclose(seen.max(0), [1, 0, 1], atol=1e-6)


def test_rounding_does_not_make_a_constant_feature_vary():
    x = np.full((37, 1), 0.1)
    assert scaling.moments(Examples(x=x), np.arange(37)).deviation > 0
    assert scaling.fit("standard", Examples(x=x), np.arange(37)).scale == 1


@pytest.mark.parametrize("method", ["none", "unit", "standard", "minmax"])
def test_facts_hold_the_range_that_models_see(method):
    x = np.random.default_rng(2).integers(0, 256, (30, 3), dtype=np.uint8)
    x[0, 0], x[1, 1] = 0, 255
    dataset = data(free(scaling=method, folds=3), x, unit=255)
    seen = np.stack([np.asarray(split.prepare(dataset.examples).x) for split in dataset.splits])
    np.testing.assert_allclose([dataset.facts.low, dataset.facts.high], [seen.min(), seen.max()], rtol=1e-6)
    if method == "unit":
        assert (dataset.facts.low, dataset.facts.high) == (0, 1)


def test_sequences_are_scaled_by_channel_without_padding_and_missing_values():
    random = np.random.default_rng(3)
    x = random.normal(5, 2, (20, 6, 2)).astype(np.float32)
    length, observed = random.integers(2, 7, 20).astype(np.int32), random.random((20, 6, 2)) < 0.8
    valid = observed & (np.arange(6) < length[:, None])[..., None]
    x[~valid] = np.nan
    examples = Examples(x=x, length=length, observed=observed)
    fitted = scaling.fit("standard", examples, np.arange(20), by_channel=True)
    assert fitted.shift.shape == (2,)
    for channel in range(2):
        values = x[..., channel][valid[..., channel]]
        np.testing.assert_allclose(fitted.shift[channel], values.mean(), rtol=1e-5)
        np.testing.assert_allclose(fitted.scale[channel], 1 / values.std(), rtol=1e-5)
    low, high = scaling.extremes(examples, scaling.fit("none", examples, np.arange(20)))
    assert (low, high) == (np.nanmin(x), np.nanmax(x))


def test_binarized_once_follows_the_probabilities_and_the_seed():
    x = np.tile(np.array([0, 51, 255], np.uint8), (4000, 1))
    dataset = data(free(scaling="unit", binarize="once"), x, unit=255)
    np.testing.assert_allclose(dataset.examples.x.mean(0), [0, 0.2, 1], atol=0.03)
    assert set(np.unique(dataset.examples.x)) == {0, 1}
    assert (dataset.facts.low, dataset.facts.high, float(dataset.splits[0].scale)) == (0, 1, 1)
    again = data(free(scaling="unit", binarize="once", split_seed=1), x, unit=255)
    assert again.sha256 != dataset.sha256
    assert data(free(scaling="unit", binarize="dynamic"), x.copy(), unit=255).sha256 == digest(Examples(x=x))


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction", r"\(0, 1\)"),
        ({"test_fraction": 0.0}, "test_fraction", r"\(0, 1\)"),
        ({"split_seed": -1}, "split_seed", "negative"),
        ({"folds": 1, "fold": 0}, "folds", "at least 2"),
        ({"fold": 0}, "fold", "data.folds=5"),
        ({"folds": 3}, "fold", "data.fold=0,1,2"),
        ({"folds": 3, "fold": 3}, "fold", "data.fold=0,1,2"),
        ({"folds": 3, "fold": -1}, "fold", "negative"),
        ({"train_size": 0}, "train_size", "null"),
        ({"scaling": "std"}, "scaling", "standard"),
    ],
)
def test_values_that_no_data_set_can_use_are_refused(changes, key, remedy):
    with pytest.raises(ConfigError, match=remedy) as caught:
        build(KEYS | changes, Free, key="data")
    assert caught.value.key == f"data.{key}"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"folds": 9}, "folds"),
        ({"validation_fraction": 0.01}, "validation_fraction"),
        ({"validation_fraction": 0.99}, "validation_fraction"),
        ({"test_fraction": 0.01}, "test_fraction"),
        ({"train_size": 10}, "train_size"),
        ({"scaling": "unit"}, "scaling"),
        ({"binarize": "once", "scaling": "standard"}, "binarize"),
        ({"binarize": "dynamic"}, "binarize"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(changes, key):
    with pytest.raises(ConfigError) as caught:
        data(free(**changes), np.full((10, 2), 2, np.float32))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("high", "unit", "remedy"),
    [
        (1.0, None, {"scaling": "none"}),
        (3.0, None, {"binarize": "none"}),
        (16.0, 16, {"scaling": "unit"}),
    ],
)
@pytest.mark.parametrize("method", ["none", "unit", "standard", "minmax"])
def test_the_remedy_for_values_that_are_no_probabilities_is_accepted(method, high, unit, remedy):
    x = np.linspace(0, high, 80, dtype=np.float32).reshape(40, 2)
    keys = {"binarize": "once", "scaling": method}
    if method == remedy.get("scaling"):
        data(free(**keys), x, unit=unit)
        return
    with pytest.raises(ConfigError) as caught:
        data(free(**keys), x.copy(), unit=unit)
    ((key, value),) = remedy.items()
    assert caught.value.under("data").remedy.endswith(f"; use data.{key}={value}")
    if "scaling" in remedy:
        data(free(**keys | remedy), x, unit=unit)


def test_the_digest_sees_values_types_shapes_and_fields():
    x = np.arange(6, dtype=np.int32)
    several = [
        Examples(x=x),
        Examples(x=x[::-1]),
        Examples(x=x.reshape(2, 3)),
        Examples(x=x.view(np.float32)),
        Examples(x=x, label=x),
        Examples(x=x, length=x),
    ]
    assert len({digest(examples) for examples in several}) == len(several)


# ---------------------------------------------------------------------------------------------- shares of classes


@given(st.lists(st.integers(0, 4), min_size=6, max_size=80), st.integers(0, 2**20))
@settings(deadline=None, max_examples=30)
def test_every_piece_of_a_spread_order_has_its_share_of_every_class(labels, seed):
    label = np.array(labels)
    order = spread(shuffle(len(label), seed), label)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(label)))
    counts = np.bincount(label)
    for start in range(0, len(label), 3):
        for stop in range(start + 1, len(label) + 1, 5):
            found = np.bincount(label[order[start:stop]], minlength=len(counts))
            share = counts * (stop - start) / len(label)
            assert np.abs(found - share).max() <= 1 + len(counts) / 2


def test_shares_of_classes_leave_the_random_order_within_a_class_alone():
    label = np.arange(60) % 3
    order = shuffle(60, 5)
    for kind in range(3):
        np.testing.assert_array_equal(
            spread(order, label)[label[spread(order, label)] == kind], order[label[order] == kind]
        )


def test_the_divisions_of_data_sets_that_ask_for_no_shares_are_what_they_were():
    rows = divide(free(), 12)[0]
    np.testing.assert_array_equal(np.concatenate([rows.test, rows.validation]), [2, 3, 11, 1, 8])


def test_classes_that_a_part_lacks_are_named():
    label = np.array([0, 0, 0, 1, 1, 2], np.int32)
    parts = [Rows(np.array([0, 3]), np.array([1, 4]), np.array([2, 5]))]
    names = ("ash", "elm", "fir")
    source = Source("test", "vector", Examples(np.zeros((6, 1)), label=label), classes=names)
    notes = ["no train row is of class fir", "no validation row is of class fir", "no test row is of class elm"]
    assert absent_notes(parts, source) == notes
    folds = [*parts, Rows(np.array([1]), np.array([0, 3, 5]), np.array([2, 5]))]
    found = absent_notes(folds, dataclasses.replace(source, classes=None))
    assert found[:2] == ["no train row of some fold is of class 1, 2", "no validation row of some fold is of class 2"]
    assert absent_notes([Rows(*[np.arange(6)] * 3)], source) == []
    assert absent_notes(parts, dataclasses.replace(source, anomaly=True)) == []


def test_rows_and_steps_in_two_parts_are_refused():
    rows = lambda *several: [Rows(*(np.array(numbers) for numbers in several))]
    plain = Examples(np.zeros((9, 2)))
    check_parts(rows([0, 1], [2, 3], [4]), plain)
    for parts, problem in (
        (rows([0, 1, 2], [2, 3], [4]), "1 rows are in both train and validation"),
        (rows([0, 1], [2, 3], [0, 1]), "2 rows are in both train and test"),
        (rows([], [2], [3]), "a fold has no training rows"),
    ):
        with pytest.raises(ConfigError, match=problem):
            check_parts(parts, plain)
    series, start = np.zeros((20, 1)), np.arange(9, dtype=np.int32)
    windows = Examples(Windows(series, start, 4))
    check_parts(rows([0], [4], [8]), windows)
    with pytest.raises(ConfigError, match="2 time steps are in both validation and test"):
        check_parts(rows([0], [4], [6]), windows)
    check_parts(rows([0], [4], [6]), dataclasses.replace(windows, target=Windows(series, start + np.int32(4), 2)))
