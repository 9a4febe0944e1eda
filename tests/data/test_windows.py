"""Laws of windows, masks and scaled targets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.data import Examples, Source, Splitting, Windows, scaling
from research.data.examples import prepare
from research.data.loading import assemble, digest
from research.data.splits import divide
from research.tree import ConfigError, recipe


@recipe
class Free(Splitting):
    test_fraction: float = 0.25


KEYS: dict[str, Any] = {
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


def windows(steps: int = 20, size: int = 4, horizon: int = 2, missing: bool = False) -> Examples:
    random = np.random.default_rng(0)
    series = random.normal(3, [1, 5], (steps, 2)).astype(np.float32)
    observed = random.random(series.shape) < 0.8
    if missing:
        series[~observed] = np.nan
    start = np.arange(0, steps - size - horizon + 1, horizon, dtype=np.int32)  # no step is in two targets
    later = start + np.int32(size)
    masks = {"observed": Windows(observed, start, size), "target_observed": Windows(observed, later, horizon)}
    return Examples(Windows(series, start, size), Windows(series, later, horizon), **(masks if missing else {}))


def dense(examples: Examples) -> Examples:
    return examples.take(np.arange(len(examples)))


@given(st.data())
def test_windows_index_as_the_dense_array_does(data):
    steps, channels = data.draw(st.integers(3, 12)), data.draw(st.sampled_from([(), (2,), (2, 3)]))
    size = data.draw(st.integers(1, steps))
    start = np.array(data.draw(st.lists(st.integers(0, steps - size), min_size=1, max_size=6)), np.int32)
    series = np.random.default_rng(0).random((steps, *channels), np.float32)
    lazy, full = Windows(series, start, size), np.stack([series[first : first + size] for first in start])
    assert (lazy.shape, lazy.ndim, lazy.dtype, len(lazy)) == (full.shape, full.ndim, full.dtype, len(full))
    rows = np.array(data.draw(st.lists(st.integers(0, len(start) - 1), max_size=5)), np.int32)
    for index in (rows, slice(None), slice(1, 3), 0, np.zeros(len(start), bool), np.stack([rows, rows])):
        assert isinstance(lazy[index], np.ndarray)
        np.testing.assert_array_equal(lazy[index], full[index])


@pytest.mark.parametrize("channels", [(), (2, 3)])
def test_windows_on_a_device_are_those_of_the_host(channels):
    series = np.random.default_rng(0).random((9, *channels), np.float32)
    lazy = Windows(series, np.array([0, 6, 2, 6], np.int32), 3)
    full, on_device, rows = lazy[:], jax.device_put(lazy), np.array([3, 0, 1], np.int32)
    take = jax.jit(lambda windows, rows: (windows[rows], windows[0], windows[1:3]))
    for windows in (lazy, on_device):
        for taken, index in zip(take(windows, rows), (rows, 0, slice(1, 3)), strict=True):
            np.testing.assert_array_equal(taken, full[index])
    assert isinstance(on_device[rows], jax.Array)
    np.testing.assert_array_equal(on_device[rows], full[rows])
    pairs = np.stack([rows, rows[::-1]])
    np.testing.assert_array_equal(jax.vmap(lambda rows: on_device[rows])(pairs), full[pairs])


def test_every_step_counts_once_in_the_scaling_and_steps_of_other_parts_never():
    series = np.array([1, 2, 3, 4, 100, 100, 7], np.float32)[:, None]
    lazy = Examples(Windows(series, np.array([0, 1, 4], np.int32), 3))
    moments = scaling.moments(lazy, np.array([0, 1]))
    assert [float(value[0]) for value in moments] == [1, 4, 2.5, pytest.approx(np.sqrt(1.25))]
    with_target = dataclasses.replace(lazy, target=Windows(series, np.array([3, 4, 0], np.int32), 1))
    assert scaling.moments(with_target, np.array([0, 1]), with_target=True).high == 100
    assert scaling.moments(with_target, np.array([0]), with_target=True).mean == 2.5
    assert scaling.extremes(lazy, scaling.IDENTITY) == (1, 100)
    assert scaling.extremes(lazy, scaling.IDENTITY, np.array([0, 1])) == (1, 4)


@pytest.mark.parametrize("missing", [False, True])
def test_targets_are_scaled_as_their_channels_are_and_masked_values_become_zero(missing):
    examples = windows(missing=missing)
    dataset = assemble(free(scaling="standard"), Source("test", "sequence", examples, scale_target=True))
    split, full = dataset.splits[0], dense(examples)
    assert split.shift.shape == split.scale.shape == split.target_shift.shape == (2,)
    for rows in (split.prepare(full), split.prepare(jax.device_put(full)), jax.jit(split.prepare)(full)):
        for seen, raw in ((rows.x, full.x), (rows.target, full.target)):
            expected = np.nan_to_num((raw - split.shift) * split.scale)
            np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
    assert isinstance(split.prepare(full).x, np.ndarray)
    rows = split.prepare(full)
    seen = [rows.x if full.mask is None else rows.x[full.mask], rows.target]
    assert (dataset.facts.low, dataset.facts.high) == pytest.approx((seen[0].min(), seen[0].max()))
    assert dataset.facts.target_high == pytest.approx(seen[1].max())
    assert (dataset.facts.target_shape, dataset.facts.target_classes) == ((2, 2), 0)


def test_targets_stay_raw_where_they_are_no_channels():
    x = np.random.default_rng(0).normal(5, 2, (12, 3, 2)).astype(np.float32)
    target = np.arange(24, dtype=np.float32).reshape(12, 2)
    dataset = assemble(free(scaling="standard"), Source("test", "sequence", Examples(x, target)))
    np.testing.assert_array_equal(dataset.splits[0].prepare(dataset.examples).target, target)
    assert (dataset.facts.target_low, dataset.facts.target_high) == (0, 23)
    classes = (np.arange(36) % 5).astype(np.int32).reshape(12, 3)
    dataset = assemble(free(scaling="standard"), Source("test", "sequence", Examples(x, classes)))
    np.testing.assert_array_equal(dataset.splits[0].prepare(dataset.examples).target, classes)
    assert (dataset.facts.target_classes, dataset.facts.target_shape) == (5, (3,))


def test_the_mask_joins_padding_and_missing_values():
    x, observed = np.zeros((2, 3, 2), np.float32), np.ones((2, 3, 2), bool)
    observed[0, 0, 1] = False
    length = np.array([3, 1], np.int32)
    expected = observed.copy()
    expected[1, 1:] = False
    for examples in (
        Examples(x, length=length, observed=observed),
        jax.device_put(Examples(x, length=length, observed=observed)),
    ):
        np.testing.assert_array_equal(examples.mask, expected)
    np.testing.assert_array_equal(Examples(x, length=length).mask, expected | ~observed)
    assert Examples(x).mask is None
    x[~expected] = np.nan
    seen = prepare(Examples(x, length=length, observed=observed), np.float32(1), np.float32(2)).x
    np.testing.assert_array_equal(seen, np.where(expected, -2, 0))


def test_gradients_stay_finite_where_values_are_missing():
    x = np.array([[[1.0], [np.nan]]], np.float32)
    examples = jax.device_put(Examples(x, observed=np.isfinite(x)))
    gradient = jax.grad(lambda scale: prepare(examples, jnp.zeros(1), scale).x.sum())(jnp.ones(1))
    np.testing.assert_array_equal(gradient, [1])


def test_rows_of_no_part_are_in_no_part():
    unused, test = np.arange(20) % 5 == 0, np.arange(20) >= 16
    for fixed in (None, test & ~unused):
        rows = divide(free(), 20, fixed, unused=unused)[0]
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.flatnonzero(~unused))


def test_the_digest_of_windows_sees_series_starts_and_size():
    series, start = np.arange(8, dtype=np.float32)[:, None], np.array([0, 2], np.int32)
    several = [
        Windows(series, start, 3),
        Windows(series, start, 4),
        Windows(series, start[::-1], 3),
        Windows(series + 1, start, 3),
        Windows(series, start, 3)[:],
    ]
    assert len({digest(Examples(x)) for x in several}) == len(several)


def test_arrays_of_windows_are_read_only():
    dataset = assemble(free(), Source("test", "sequence", windows(missing=True)))
    assert not any(leaf.flags.writeable for leaf in jax.tree.leaves(dataset.examples))


def test_what_no_mask_marks_as_missing_is_refused():
    examples = windows(missing=True)
    with pytest.raises(ConfigError, match="x holds values that are not finite"):
        assemble(free(), Source("test", "sequence", dataclasses.replace(examples, observed=None)))
    with pytest.raises(ConfigError, match="target holds values that are not finite"):
        assemble(free(), Source("test", "sequence", dataclasses.replace(examples, target_observed=None)))


def test_anomalous_rows_for_training_are_refused():
    x, label = np.zeros((8, 2), np.float32), np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    test = label == 1
    test[0] = True
    dataset = assemble(free(), Source("test", "vector", Examples(x, label=label), test=test, anomaly=True))
    assert dataset.facts.anomaly
    with pytest.raises(ConfigError, match="anomalous"):
        assemble(free(), Source("test", "vector", Examples(x, label=label), test=~test, anomaly=True))
